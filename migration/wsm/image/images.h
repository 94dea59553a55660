/*
 * Whole-system migration: the images of all of the guest's disks
 *
 * With the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_IMAGES_H
#define MIGRATION_WSM_IMAGE_IMAGES_H

#include "migration/wsm/image/image.h"

/* What is known of them; one per QEMU */
typedef struct WsmImages {
    GPtrArray *list;            /* of WsmImage */
    WsmMapNodeList *maps;       /* where the user wants maps of some disks */
} WsmImages;

void wsm_images_init(WsmImages *images);

/*
 * What is known of @disk.  At first sight the record is looked at, but nothing
 * is changed.  Not a reference; without one it is valid until the next call, as
 * the medium may have changed.
 */
WsmImage *wsm_image_get(WsmImages *images, const WsmDisk *disk);

/*
 * The user says where maps of some disks are to be, or are: copied.  Images
 * that were not yet taken are looked at again.
 */
void wsm_images_set_maps(WsmImages *images, const WsmMapNodeList *maps);

/* The guest is about to run: false and @errp if a disk is not current */
bool wsm_images_check(WsmImages *images, Error **errp);

/* QEMU ends: put back all that were taken.  Nothing writes any more. */
void wsm_images_close(WsmImages *images);

/*
 * No image keeps more sync points than @max from now on.  Not while a migration
 * runs, which needs what there is, and comes to the limit in the end.
 */
void wsm_images_limit_points(WsmImages *images, unsigned max);

/*
 * The user says that the images of @disks, of WsmDisk *, are current, and what
 * is to become of blocks that are at another host only.  Returns false and sets
 * @errp at the first that cannot be.
 */
bool wsm_images_adopt(WsmImages *images, GPtrArray *disks,
                      WsmAdoptMissing missing, Error **errp);

/* What query-wsm tells */
WsmImageInfoList *wsm_images_info(WsmImages *images);

#endif
