/*
 * Whole-system migration: what tells a storage from all other
 *
 * Pure, but for looking into files of the host.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_POLICY_MARKS_H
#define MIGRATION_WSM_POLICY_MARKS_H

#include <sys/stat.h>

/*
 * A mark is a text.  Two marks are the same storage if they are equal up to
 * " @", and the parts of it that are used, which follow there as OFFSET+SIZE in
 * bytes, have one in common.  What is no such part is taken for all of it.
 */
bool wsm_marks_same(const char *a, const char *b);

/*
 * Add to @marks those of the file or block device that stat() says @st of.
 * @slice: the part of it that is used, as OFFSET+SIZE, or NULL.  @boot: what
 * tells this host and this boot of it, or NULL if not known: device and inode
 * numbers mean something only there.  @sysfs: "/sys".
 */
void wsm_marks_of_stat(GPtrArray *marks, const struct stat *st,
                       const char *slice, const char *boot,
                       const char *sysfs);

/*
 * Likewise of a disk in the network; @name as QEMU knows it.  @boot must tell
 * network namespaces of a host apart, too.
 */
void wsm_marks_of_name(GPtrArray *marks, const char *name, const char *slice,
                       const char *boot);

#endif
