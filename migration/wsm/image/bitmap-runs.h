/*
 * Whole-system migration: bitmaps as lists of runs
 *
 * Any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_BITMAP_RUNS_H
#define MIGRATION_WSM_IMAGE_BITMAP_RUNS_H

#include "block/dirty-bitmap.h"

/*
 * A range of a bitmap as runs of blocks of @granularity (wire/runs.h), counted
 * from @offset; appended to @out.  The bitmap's own granularity may be another
 * one: a block is in a run if any part of it is dirty.
 */
void wsm_bitmap_to_runs(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes,
                        uint32_t granularity, GByteArray *out);

/*
 * Set the bits of @runs, which have blocks of @granularity, that of @bitmap or
 * another.  Bits stay set otherwise.  Returns false and sets @errp if these
 * are no runs within the range, or that is not within the disk; then some may
 * be set.
 */
bool wsm_bitmap_from_runs(BdrvDirtyBitmap *bitmap, int64_t offset,
                          int64_t bytes, const uint8_t *runs, size_t size,
                          uint32_t granularity, Error **errp);

#endif
