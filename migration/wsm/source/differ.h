/*
 * Whole-system migration: which blocks of a range differ on the two sides
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_DIFFER_H
#define MIGRATION_WSM_SOURCE_DIFFER_H

#include "block/block-common.h"

/*
 * Set the bits in @dirty of the blocks of a range, given in bytes, that differ
 * by their hashes, @theirs being NULL if they have but zeroes there.  Returns
 * how many bytes these have.  Any thread.
 */
int64_t wsm_differ(BdrvDirtyBitmap *dirty, int64_t offset, int64_t bytes,
                   int64_t granularity, const uint8_t *mine,
                   const uint8_t *theirs);

#endif
