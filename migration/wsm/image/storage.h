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
 * Main thread with the BQL, unless it says otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_STORAGE_H
#define MIGRATION_WSM_IMAGE_STORAGE_H

#include "block/block.h"
#include "migration/wsm/wire/start.h"

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
