/*
 * Whole-system migration: which blocks of a range differ on the two sides
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/dirty-bitmap.h"
#include "migration/wsm/core/hash.h"
#include "migration/wsm/source/differ.h"

typedef struct WsmDiff {
    BdrvDirtyBitmap *dirty;
    int64_t offset, end, granularity;
    int64_t differ;             /* bytes */
} WsmDiff;

static void wsm_blocks_differ(void *opaque, size_t first, size_t count)
{
    WsmDiff *diff = opaque;
    int64_t offset = diff->offset + first * diff->granularity;
    int64_t end = MIN(offset + count * diff->granularity, diff->end);

    bdrv_set_dirty_bitmap(diff->dirty, offset, end - offset);
    diff->differ += end - offset;
}

int64_t wsm_differ(BdrvDirtyBitmap *dirty, int64_t offset, int64_t bytes,
                   int64_t granularity, const uint8_t *mine,
                   const uint8_t *theirs)
{
    WsmDiff diff = {
        .dirty = dirty, .offset = offset, .end = offset + bytes,
        .granularity = granularity,
    };

    wsm_hash_diff(mine, theirs, DIV_ROUND_UP(bytes, granularity),
                  wsm_blocks_differ, &diff);
    return diff.differ;
}
