/*
 * Whole-system migration: where the destination's image has data
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "block/block.h"
#include "system/block-backend.h"
#include "migration/wsm/dest/data.h"

/*
 * The main thread looks, a few microseconds for each extent.  Of an image that
 * has more of them, the rest counts as data.
 */
#define WSM_MAX_EXTENTS         (64 * KiB)

/*
 * Data so short is read: it may be zeroes, as the first block of an image that
 * "qemu-img create -f raw" made.  This often, for each image:
 */
#define WSM_SHORT_DATA          (64 * KiB)
#define WSM_MAX_READS           16

typedef struct WsmDataWalk {
    BlockDriverState *bs;
    int64_t size;               /* bytes */
    unsigned extents, reads;    /* looked at so far */
} WsmDataWalk;

static bool wsm_is_zero(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    g_autofree void *buf = g_malloc(bytes);
    BlockBackend *blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ,
                                        BLK_PERM_ALL, NULL);
    int ret;

    if (!blk) {
        return false;
    }
    ret = blk_pread(blk, offset, bytes, buf, 0);
    blk_unref(blk);
    return ret >= 0 && buffer_is_zero(buf, bytes);
}

/* Does an extent that has no status of zero read as zeroes all the same? */
static bool wsm_walk_is_zero(WsmDataWalk *walk, int64_t offset, int64_t bytes)
{
    return bytes <= WSM_SHORT_DATA && walk->reads++ < WSM_MAX_READS &&
           wsm_is_zero(walk->bs, offset, bytes);
}

/*
 * The next extent from *@offset on that may have other data than zeroes.
 * Returns false if there is none.
 */
static bool wsm_walk_next(WsmDataWalk *walk, int64_t *offset, int64_t *bytes)
{
    while (*offset < walk->size) {
        int64_t left = walk->size - *offset;
        int ret = -EFBIG;

        if (walk->extents++ < WSM_MAX_EXTENTS) {
            ret = bdrv_block_status_above(walk->bs, NULL, *offset, left, bytes,
                                          NULL, NULL);
        }
        if (ret < 0 || !*bytes) {
            *bytes = left;
            return true;
        }
        if (!(ret & BDRV_BLOCK_ZERO) &&
            !wsm_walk_is_zero(walk, *offset, *bytes)) {
            return true;
        }
        *offset += *bytes;
    }
    return false;
}

bool wsm_data_is_blank(BlockDriverState *bs, int64_t size)
{
    WsmDataWalk walk = { .bs = bs, .size = size };
    int64_t offset = 0, bytes;

    GLOBAL_STATE_CODE();
    return !wsm_walk_next(&walk, &offset, &bytes);
}

void wsm_data_find(BlockDriverState *bs, int64_t size, BdrvDirtyBitmap *data)
{
    WsmDataWalk walk = { .bs = bs, .size = size };
    int64_t offset = 0, bytes;

    GLOBAL_STATE_CODE();
    while (wsm_walk_next(&walk, &offset, &bytes)) {
        bdrv_set_dirty_bitmap(data, offset, bytes);
        offset += bytes;
    }
}
