/*
 * Whole-system migration: records of the images below a disk's own
 *
 * An overlay on an image is as good as that image: if a backing file is
 * incomplete, or a copy that was handed over, so is the disk.
 *
 * Main thread with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_IMAGE_BELOW_H
#define MIGRATION_WSM_IMAGE_IMAGE_BELOW_H

#include "migration/wsm/image/guest-disk.h"

/* False and @errp if the record of an image below says that it is not good */
bool wsm_image_below_check(const WsmDisk *disk, Error **errp);

/* They are good: the user says so.  False and @errp if that cannot be kept. */
bool wsm_image_below_adopt(const WsmDisk *disk, Error **errp);

#endif
