/*
 * Whole-system migration: what the parts of image/points.h share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_POINTS_INT_H
#define MIGRATION_WSM_IMAGE_POINTS_INT_H

#include "block/dirty-bitmap.h"

/* With the BQL, unless it says otherwise */

/* The bitmaps of all points, a "rest" without its point, and seals */
GPtrArray *wsm_points_bitmaps(BlockDriverState *bs);

/* Remove @bitmap from the image, if it is stored there; it stays in memory */
bool wsm_points_unstore(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                        Error **errp);

/* Remove @bitmap (or NULL) from image and memory, unless it is busy */
void wsm_points_release(BlockDriverState *bs, BdrvDirtyBitmap *bitmap);

/* Forget what wsm_points_list() leaves out */
void wsm_points_forget_unusable(BlockDriverState *bs);

/* Any thread */
bool wsm_points_is_seal(const BdrvDirtyBitmap *bitmap);

/*
 * Put a seal on the stored points, which the image keeps with them.  Returns
 * false if that is not possible; then they must not be stored.
 */
bool wsm_points_seal(BlockDriverState *bs);

/*
 * Are the stored points, if there are any, those of the seal?  Returns false
 * and sets @errp if not.
 */
bool wsm_points_check_seal(BlockDriverState *bs, Error **errp);

/* Forget all seals */
void wsm_points_unseal(BlockDriverState *bs);

#endif
