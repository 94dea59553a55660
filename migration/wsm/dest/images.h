/*
 * Whole-system migration: the destination's images and their records
 *
 * From START on an image is incomplete, in memory and in its record, until
 * nothing is missing.
 *
 * Main thread with the BQL, unless it says otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_IMAGES_H
#define MIGRATION_WSM_DEST_IMAGES_H

#include "migration/wsm/dest/disk.h"

/* Look at the image of @ours, which may be inactive, ... */
void wsm_dest_image_look(WsmDestDisk *disk, const WsmDisk *ours);

/* ... and take it, when its node @bs is active.  False, and @errp. */
bool wsm_dest_image_take(WsmDestDisk *disk, BlockDriverState *bs,
                         Error **errp);

/*
 * The same for an image that was left in post-copy (dest/rejoin.h): the guest
 * may run from it as long as it is not left again.
 */
bool wsm_dest_image_join(WsmDestDisk *disk, BlockDriverState *bs,
                         Error **errp);

/* From now on no guest may run from the images */
void wsm_dest_images_mark_incomplete(WsmDestDisks *disks);

/*
 * Nothing is missing: which records say otherwise?  When all is durable remove
 * them, in a thread; @opaque is the WsmDestDisks; returns 0.
 */
void wsm_dest_images_find_records(WsmDestDisks *disks);
int wsm_dest_images_remove_records(void *opaque);

/* Nothing is missing on any disk, and that is durable */
void wsm_dest_images_mark_current(WsmDestDisks *disks);

/* Let go of the image; the migration came as far as @phase */
void wsm_dest_image_leave(WsmDestDisk *disk, WsmPhase phase);

#endif
