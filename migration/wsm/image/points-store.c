/*
 * Whole-system migration: the sync points that are stored in the image
 *
 * While QEMU has the image nobody else touches them.  At rest anybody can
 * remove, disable or clear bitmaps (qemu-img bitmap, or a QEMU whose guest has
 * not run yet), and then the chain would not know of all later writes.  So
 * there is a seal: one more bitmap, in whose name is the sum of what is stored.
 *
 *     wsm-seal-NEWEST-SHA256
 *
 * SHA256 is that of a line for each bitmap: its name, granularity, and how many
 * bytes are dirty.  NEWEST is the number of dirty bytes of the bitmap that is
 * enabled, which is not in the sum: a QEMU without sync points that writes to
 * the image adds bits there.
 *
 * Its last block is set.  Whoever makes the disk smaller cuts that off, and it
 * does not come back with the size: a new end is clean in all bitmaps.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "block/block.h"
#include "block/block_int.h"
#include "migration/wsm/image/points-store.h"


bool wsm_points_can_persist(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    return bdrv_supports_persistent_dirty_bitmap(bs);
}

static void sum_bitmap(GString *text, BdrvDirtyBitmap *bitmap)
{
    bool newest = bdrv_dirty_bitmap_enabled(bitmap);

    g_string_append_printf(text, "%s %" PRIu32 " %" PRId64 "\n",
                           bdrv_dirty_bitmap_name(bitmap),
                           bdrv_dirty_bitmap_granularity(bitmap),
                           newest ? -1 : bdrv_get_dirty_count(bitmap));
}

/*
 * The sum of the stored points.  @newest: dirty bytes of the enabled bitmap,
 * -1: none is; @granularity: of the last bitmap.
 */
static char *sum_stored(BlockDriverState *bs, int64_t *newest,
                        uint32_t *granularity)
{
    g_autoptr(GArray) points = wsm_points_list(bs);
    g_autoptr(GString) text = g_string_new(NULL);

    *newest = -1;
    for (unsigned i = 0; i < points->len; i++) {
        WsmPoint *p = &g_array_index(points, WsmPoint, i);

        if (!bdrv_dirty_bitmap_get_persistence(p->since)) {
            continue;
        }
        sum_bitmap(text, p->since);
        *granularity = bdrv_dirty_bitmap_granularity(p->since);
        if (p->rest) {
            sum_bitmap(text, p->rest);
        }
        if (bdrv_dirty_bitmap_enabled(p->since)) {
            *newest = bdrv_get_dirty_count(p->since);
        }
    }
    return text->len ? g_compute_checksum_for_string(G_CHECKSUM_SHA256,
                                                     text->str, text->len)
                     : NULL;
}

void wsm_points_unseal(BlockDriverState *bs)
{
    g_autoptr(GPtrArray) bitmaps = wsm_points_bitmaps(bs);

    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < bitmaps->len; i++) {
        if (wsm_points_is_seal(bitmaps->pdata[i])) {
            wsm_points_release(bs, bitmaps->pdata[i]);
        }
    }
}

bool wsm_points_seal(BlockDriverState *bs)
{
    int64_t newest;
    uint32_t granularity;
    g_autofree char *sum = sum_stored(bs, &newest, &granularity);
    g_autofree char *name = NULL;
    BdrvDirtyBitmap *seal;

    GLOBAL_STATE_CODE();
    wsm_points_unseal(bs);
    if (!sum) {
        return true;
    }
    name = g_strdup_printf(WSM_SEAL_PREFIX "%" PRId64 "-%s", newest, sum);
    if (!bdrv_can_store_new_dirty_bitmap(bs, name, granularity, NULL)) {
        return false;
    }
    seal = bdrv_create_dirty_bitmap(bs, granularity, name, NULL);
    if (!seal) {
        return false;
    }
    bdrv_disable_dirty_bitmap(seal);
    bdrv_set_dirty_bitmap(seal, bdrv_dirty_bitmap_size(seal) - 1, 1);
    bdrv_dirty_bitmap_set_persistence(seal, true);
    return true;
}

/*
 * Is it a seal on @sum, with no fewer writes in the newest now?  Then the disk
 * has its end still, too.
 */
static bool seal_fits(BdrvDirtyBitmap *bitmap, const char *sum, int64_t newest)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    int64_t then;

    return strstart(name, WSM_SEAL_PREFIX, &name) &&
           bdrv_get_dirty_count(bitmap) &&
           qemu_strtoi64(name, &name, 10, &then) == 0 && then >= 0 &&
           then <= newest && *name == '-' && !strcmp(name + 1, sum);
}

bool wsm_points_check_seal(BlockDriverState *bs, Error **errp)
{
    g_autoptr(GPtrArray) bitmaps = wsm_points_bitmaps(bs);
    int64_t newest;
    uint32_t granularity;
    g_autofree char *sum = sum_stored(bs, &newest, &granularity);

    GLOBAL_STATE_CODE();
    for (unsigned i = 0; sum && i < bitmaps->len; i++) {
        if (seal_fits(bitmaps->pdata[i], sum, newest)) {
            return true;
        }
    }
    if (sum) {
        error_setg(errp, "the sync points in the image are not those that were "
                   "stored: a bitmap was removed, added, enabled, disabled or "
                   "cleared, or the disk made smaller");
    }
    return !sum;
}

/*
 * One bitmap that does not meet the limits of the format would make qcow2
 * store none at all, those of the user included.  The question can only be
 * asked for a bitmap that does not exist yet.
 */
static bool persist_bitmap(BlockDriverState *bs, BdrvDirtyBitmap *bitmap)
{
    g_autofree char *other = g_strdup_printf("%s-new",
                                             bdrv_dirty_bitmap_name(bitmap));

    if (!bdrv_dirty_bitmap_get_persistence(bitmap)) {
        if (!bdrv_can_store_new_dirty_bitmap(
                bs, other, bdrv_dirty_bitmap_granularity(bitmap), NULL)) {
            return false;
        }
        bdrv_dirty_bitmap_set_persistence(bitmap, true);
    }
    return true;
}

void wsm_points_persist(BlockDriverState *bs)
{
    g_autoptr(GArray) points = wsm_points_list(bs);

    GLOBAL_STATE_CODE();
    /*
     * If one cannot be stored, the older ones must not be, as they need it.
     * The rest goes first: alone it is of no use, but the point without it
     * would look like one that needs none.
     */
    for (unsigned i = points->len; i > 0; i--) {
        const WsmPoint *p = &g_array_index(points, WsmPoint, i - 1);

        if ((p->rest && !persist_bitmap(bs, p->rest)) ||
            !persist_bitmap(bs, p->since)) {
            break;
        }
    }
    if (wsm_points_can_persist(bs) && !wsm_points_seal(bs)) {
        wsm_points_clear(bs);
    }
}

bool wsm_points_unpersist(BlockDriverState *bs, Error **errp)
{
    g_autoptr(GPtrArray) bitmaps = wsm_points_bitmaps(bs);

    GLOBAL_STATE_CODE();
    if (!wsm_points_check_seal(bs, errp)) {
        return false;
    }
    for (unsigned i = 0; i < bitmaps->len; i++) {
        if (!wsm_points_unstore(bs, bitmaps->pdata[i], errp)) {
            return false;
        }
    }
    wsm_points_unseal(bs);
    wsm_points_forget_unusable(bs);
    return true;
}
