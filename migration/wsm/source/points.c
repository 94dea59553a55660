/*
 * Whole-system migration: the source's sync points
 *
 * After the handover the destination is told of all sync points of this image,
 * because the image over there is the same now.  In the end this side keeps a
 * sync point of its own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qapi/qapi-types-migration.h"
#include "migration/options.h"
#include "migration/wsm/image/bitmap-runs.h"
#include "migration/wsm/image/image.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/image/record-store.h"
#include "migration/wsm/policy/ending.h"
#include "migration/wsm/source/points.h"
#include "migration/wsm/trace.h"
#include "migration/wsm/wire/payload.h"

/* Blocks of a bitmap in one message; at worst a byte for each */
#define WSM_POINT_BLOCKS        (64 * KiB)

void wsm_source_hold_points(WsmSourceDisk *d, bool hold)
{
    for (unsigned i = 0; d->points && i < d->points->len; i++) {
        WsmPoint *point = &g_array_index(d->points, WsmPoint, i);

        bdrv_dirty_bitmap_set_busy(point->since, hold);
        if (point->rest) {
            bdrv_dirty_bitmap_set_busy(point->rest, hold);
        }
    }
}

/* What the user wants the migration of @disk to build on */
static WsmBasisKind wsm_source_wish(WsmSource *s, const WsmDisk *disk)
{
    for (WsmBasisWishList *l = s->options->options->basis; l; l = l->next) {
        if (wsm_disk_is_called(disk, l->value->disk)) {
            return l->value->kind;
        }
    }
    return WSM_BASIS_KIND_AUTO;
}

bool wsm_source_add_points(WsmSource *s, WsmSourceDisk *d, const WsmDisk *disk,
                           Error **errp)
{
    WsmDiskDesc *desc = &s->start.disk[d->index];
    unsigned skip;

    d->image = wsm_image_ref(wsm_image_get(s->images, disk));
    d->bs_points = wsm_disk_bs(disk);
    bdrv_ref(d->bs_points);
    if (!wsm_image_take(d->image, d->bs_points, errp)) {
        return false;
    }
    d->points = wsm_points_list(d->bs_points);
    skip = MAX(d->points->len, WSM_MAX_POINTS) - WSM_MAX_POINTS;
    if (skip) {
        g_array_remove_range(d->points, 0, skip);
    }
    desc->wish = wsm_source_wish(s, disk);
    desc->npoints = d->points->len;
    desc->point = g_new0(WsmPointDesc, desc->npoints);
    for (unsigned i = 0; i < desc->npoints; i++) {
        WsmPoint *point = &g_array_index(d->points, WsmPoint, i);

        desc->point[i].id = point->id;
        desc->point[i].changed = wsm_points_changed_bytes(d->bs_points,
                                                          &point->id);
    }
    /* Not before they were counted: our own functions do not see them now */
    wsm_source_hold_points(d, true);
    d->store = wsm_image_store(d->image, d->bs_points);
    d->leaving = wsm_image_record(d->image, d->bs_points,
                                  WSM_IMAGE_STATE_LEAVING, &s->start.session,
                                  s->peer);
    wsm_image_tell(d->image);
    return true;
}

/*
 * IOThread, after the handover: tell the destination of all sync points
 */

static int coroutine_fn
wsm_source_send_bitmap(WsmSourceDisk *d, unsigned index, bool rest,
                       BdrvDirtyBitmap *bitmap)
{
    WsmSource *s = d->s;
    int64_t step = WSM_POINT_BLOCKS * (int64_t)s->start.granularity;
    int64_t offset = 0, bytes;

    while (offset < d->size) {
        g_autoptr(GByteArray) payload = g_byte_array_new();
        WsmMsg msg = {
            .type = WSM_MSG_POINT, .disk = d->index, .epoch = 1,
        };
        int ret;

        offset = bdrv_dirty_bitmap_next_dirty(bitmap, offset,
                                              d->size - offset);
        if (offset < 0) {
            return 0;
        }
        offset = QEMU_ALIGN_DOWN(offset, s->start.granularity);
        bytes = MIN(step, d->size - offset);
        wsm_point_encode(index, rest, payload);
        wsm_bitmap_to_runs(bitmap, offset, bytes, s->start.granularity,
                           payload);
        msg.offset = offset;
        msg.bytes = bytes;
        msg.length = payload->len;
        ret = wsm_source_transmit(&s->channel[0], &msg, payload->data);
        if (ret < 0) {
            return ret;
        }
        offset += bytes;
    }
    return 0;
}

void coroutine_fn wsm_source_send_points(WsmSource *s)
{
    int ret = 0;

    for (unsigned i = 0; i < s->ndisks; i++) {
        WsmSourceDisk *d = &s->disk[i];

        for (unsigned j = 0; j < d->points->len && ret == 0; j++) {
            WsmPoint *point = &g_array_index(d->points, WsmPoint, j);

            ret = wsm_source_send_bitmap(d, j, false, point->since);
            if (ret == 0 && point->rest) {
                ret = wsm_source_send_bitmap(d, j, true, point->rest);
            }
        }
    }
    if (ret < 0) {
        /* All are sent again when it is back, and SYNC not before */
        wsm_channel_shutdown(&s->channel[0].c);
    }
}

/*
 * Main thread: the end
 */

static void wsm_source_keep_point(WsmSource *s, WsmSourceDisk *d,
                                  const BdrvDirtyBitmap *rest)
{
    QemuUUID id = wsm_points_id(&s->start.session, d->index);

    wsm_points_forget_interrupted(d->bs_points);
    wsm_image_add_point(d->image, d->bs_points, &id, s->start.granularity,
                        rest, wsm_option(s->options, WSM_OPT_SYNC_POINTS));
}

/*
 * With the capability dirty-bitmaps the user's bitmaps have moved with the
 * guest.  If the old image kept them they would be in the way when the guest
 * comes back: QEMU does not replace a bitmap.
 */
static void wsm_source_drop_moved_bitmaps(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap, *next;

    if (!migrate_dirty_bitmaps() || !wsm_image_activate(bs, NULL)) {
        return;
    }
    for (bitmap = bdrv_dirty_bitmap_first(bs); bitmap; bitmap = next) {
        const char *name = bdrv_dirty_bitmap_name(bitmap);

        next = bdrv_dirty_bitmap_next(bitmap);
        if (name && !wsm_points_is_ours(bitmap) &&
            bdrv_dirty_bitmap_get_persistence(bitmap) &&
            bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY, NULL) == 0 &&
            bdrv_remove_persistent_dirty_bitmap(bs, name, NULL) == 0) {
            bdrv_release_dirty_bitmap(bitmap);
        }
    }
}

/* What the destination lacks: nothing, unless QEMU ends too early */
static const BdrvDirtyBitmap *wsm_source_disk_missing(WsmSourceDisk *d)
{
    WsmWork *work = d->s->work;

    return wsm_work_dirty(work, d->index)
           ? wsm_work_dirty_bitmap(work, d->index) : NULL;
}

static void wsm_source_end_points(WsmSource *s, WsmSourceDisk *d,
                                  WsmEndingPoints points)
{
    switch (points) {
    case WSM_ENDING_POINTS_STAY:
        break;
    case WSM_ENDING_POINTS_GO:
        wsm_points_clear(d->bs_points);
        break;
    case WSM_ENDING_POINTS_BROKE:
        wsm_source_keep_point(s, d, wsm_work_dirty_bitmap(s->work, d->index));
        break;
    case WSM_ENDING_POINTS_NEW:
        wsm_source_keep_point(s, d, wsm_source_disk_missing(d));
        break;
    }
}

void wsm_source_settle(WsmSource *s, WsmSourceDisk *d)
{
    WsmEndingInput in = {
        .role = WSM_ROLE_SOURCE,
        .phase = wsm_session_phase(s->session),
        .marked = s->marked,
        .replaced = blk_bs(d->blk) != d->bs,
    };
    WsmEnding end = wsm_ending(&in);

    if (!d->points) {
        return;
    }
    wsm_source_hold_points(d, false);
    wsm_source_end_points(s, d, end.points);
    if (end.state == WSM_ENDING_STATE_LEFT) {
        wsm_image_set_state(d->image, WSM_IMAGE_STATE_HANDED_OVER,
                            &s->start.session, s->peer);
        wsm_source_drop_moved_bitmaps(d->bs_points);
    }
    if (end.record == WSM_ENDING_RECORD_PUT) {
        wsm_image_put(d->image, d->bs_points, true);
    } else if (end.record == WSM_ENDING_RECORD_MARK) {
        wsm_image_mark(d->image, d->bs_points);
    }
}

void wsm_source_free_points(WsmSourceDisk *d)
{
    g_clear_pointer(&d->points, g_array_unref);
    g_clear_pointer(&d->theirs, g_ptr_array_unref);
    g_clear_pointer(&d->image, wsm_image_unref);
    qapi_free_WsmBasis(d->basis);
    qapi_free_WsmRecord(d->leaving);
    g_clear_pointer(&d->store, wsm_record_store_free);
}
