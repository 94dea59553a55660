/*
 * Whole-system migration: where the destination's image has data
 *
 * What reads as zeroes here need not be compared with the source's: its data
 * is sent at once, and its zeroes are there already.  That is looked up by
 * block status, so an image costs what its extents cost, not its size.
 *
 * All of it only saves work.  The source sends whatever is not compared, so a
 * range that is taken for data is compared in vain, and one that is taken for
 * zeroes is sent in vain.
 *
 * Main thread with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_DATA_H
#define MIGRATION_WSM_DEST_DATA_H

#include "block/dirty-bitmap.h"

/* Do @size bytes of @bs read as zeroes, as far as a quick look can tell? */
bool wsm_data_is_blank(BlockDriverState *bs, int64_t size);

/* Set the bits of @data wherever they may read as something else */
void wsm_data_find(BlockDriverState *bs, int64_t size, BdrvDirtyBitmap *data);

#endif
