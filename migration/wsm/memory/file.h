/*
 * Whole-system migration: reading files of pages
 *
 * Pure.  Any thread; it may take time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_FILE_H
#define MIGRATION_WSM_MEMORY_FILE_H

/*
 * Read @size bytes at @offset of @fd, all of them.  0 or -errno; -ENODATA if
 * the file ends before.
 */
int wsm_file_read(int fd, uint64_t offset, void *buf, size_t size);

#endif
