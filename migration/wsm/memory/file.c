/*
 * Whole-system migration: reading files of pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/memory/file.h"

int wsm_file_read(int fd, uint64_t offset, void *buf, size_t size)
{
    uint8_t *p = buf;

    while (size) {
        ssize_t n = RETRY_ON_EINTR(pread(fd, p, size, offset));

        if (n <= 0) {
            return n ? -errno : -ENODATA;
        }
        p += n;
        offset += n;
        size -= n;
    }
    return 0;
}
