/*
 * Whole-system migration: where a disk is kept
 *
 * If the two sides' images are one and the same, the migration would write
 * old blocks over what the guest has just written.  Locks prevent that, where
 * they work.  Where they do not (a LUN that two hosts see, some network file
 * systems) the two sides must find out: the source says what tells its storage
 * from all other in the world, as far as that is known, and the destination
 * compares it with its own.
 *
 * A copy, also one made by the storage itself, has other marks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_STORAGE_H
#define MIGRATION_WSM_IMAGE_STORAGE_H

#include "block/block.h"
#include "migration/wsm/wire/message.h"

/*
 * --- policy/marks.c: pure, but for looking into files ---
 *
 * A mark is a text.  Two marks are the same storage if they are equal up to
 * " @", and what follows there, the part of it that is used, is equal or
 * missing in one of them.
 */
bool wsm_marks_same(const char *a, const char *b);

/*
 * Add to @marks those of the file or block device that stat() says @st of.
 * @slice: the part of it that is used, or NULL.  @boot: what tells this host
 * and this boot of it, or NULL if not known: device and inode numbers mean
 * something only there.  @sysfs: "/sys".
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

/*
 * --- image/storage.c: main thread ---
 */

/* Of the image of @bs with all its backing files.  Free: g_ptr_array_unref() */
GPtrArray *wsm_storage_marks(BlockDriverState *bs);

/* The name of the image, for people; "" if it has none */
char *wsm_storage_name(BlockDriverState *bs);

/*
 * Leave a note beside each of the files of @bs, which is disk number @disk: a
 * file that has @session in its name.  Only a destination that sees the same
 * folder can find it.  Their names are added to @made.  Where none can be made
 * there is none.
 */
void wsm_storage_leave_notes(BlockDriverState *bs, unsigned disk,
                             const QemuUUID *session, GPtrArray *made);

/* Remove them, and empty @made.  Any thread. */
void wsm_storage_remove_notes(GPtrArray *made);

/*
 * Would writing to @bs, not to its backing files, write to storage of a disk
 * of @start?  Then returns false and sets @errp, with the names of both.
 */
bool wsm_storage_check(BlockDriverState *bs, const char *disk,
                       const WsmStart *start, Error **errp);

#endif
