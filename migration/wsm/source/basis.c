/*
 * Whole-system migration: the source's sync points
 *
 * Before the first pass the destination says what each disk's migration
 * builds on, and which of its own blocks have changed since.  After the
 * handover it is told of all sync points of this image, because the image over
 * there is the same now.  In the end this side keeps a sync point of its own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qapi/qapi-types-migration.h"
#include "migration/options.h"
#include "migration/wsm/image/bitmap-runs.h"
#include "migration/wsm/image/image.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/image/record.h"
#include "migration/wsm/policy/ending.h"
#include "migration/wsm/source/source.h"
#include "migration/wsm/trace.h"
#include "migration/wsm/wire/runs.h"

/* Blocks of a bitmap in one message; at worst a byte for each */
#define WSM_POINT_BLOCKS        (64 * KiB)

/* What the destination has changed, or has, in one part of a disk */
typedef struct WsmOwnPart {
    int64_t offset, bytes;
    uint8_t *runs;
    size_t size;
} WsmOwnPart;

static void wsm_own_part_free(void *opaque)
{
    WsmOwnPart *part = opaque;

    g_free(part->runs);
    g_free(part);
}

/*
 * Main thread: start
 */

static void wsm_source_hold_points(WsmSourceDisk *d, bool hold)
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
    wsm_source_hold_points(d, true);

    desc->wish = wsm_source_wish(s, disk);
    desc->npoints = d->points->len;
    desc->point = g_new0(WsmPointDesc, desc->npoints);
    for (unsigned i = 0; i < desc->npoints; i++) {
        WsmPoint *point = &g_array_index(d->points, WsmPoint, i);

        desc->point[i].id = point->id;
        desc->point[i].changed = wsm_points_changed_bytes(d->bs_points,
                                                          &point->id);
    }
    d->theirs = g_ptr_array_new_with_free_func(wsm_own_part_free);
    d->leaving = wsm_image_record(d->image, d->bs_points,
                                  WSM_IMAGE_STATE_LEAVING, &s->start.session,
                                  s->peer);
    d->leaving_file = g_strdup(d->image->file);
    wsm_image_tell(d->image);
    return true;
}

/*
 * IOThread: what the destination says
 */

static void wsm_source_disk_agreed(WsmSource *s)
{
    QEMU_LOCK_GUARD(&s->lock);

    s->agreed = ++s->nagreed == s->ndisks;
    qemu_cond_broadcast(&s->cond);
}

static bool wsm_source_has_point(WsmSource *s, unsigned disk,
                                 const QemuUUID *id)
{
    const WsmDiskDesc *desc = &s->start.disk[disk];

    for (unsigned i = 0; i < desc->npoints; i++) {
        if (qemu_uuid_is_equal(&desc->point[i].id, id)) {
            return true;
        }
    }
    return false;
}

static bool wsm_source_check_basis(WsmSource *s, WsmSourceDisk *d,
                                   const WsmBasisMsg *bm, Error **errp)
{
    WsmBasisKind wish = s->start.disk[d->index].wish;

    if (d->basis) {
        error_setg(errp, "BASIS of disk '%s' came twice", d->name);
        return false;
    }
    if (wish != WSM_BASIS_KIND_AUTO && wish != bm->kind) {
        error_setg(errp, "BASIS of disk '%s' is '%s', but option 'basis' wants "
                   "'%s'", d->name, WsmBasisKind_str(bm->kind),
                   WsmBasisKind_str(wish));
        return false;
    }
    if (bm->kind == WSM_BASIS_KIND_SYNC_POINT &&
        !wsm_source_has_point(s, d->index, &bm->point)) {
        g_autofree char *id = qemu_uuid_unparse_strdup(&bm->point);

        error_setg(errp, "BASIS of disk '%s': this side has no sync point %s",
                   d->name, id);
        return false;
    }
    return true;
}

static void wsm_source_set_basis(WsmSource *s, WsmSourceDisk *d,
                                 const WsmBasisMsg *bm)
{
    WsmBasis *basis = g_new0(WsmBasis, 1);

    basis->kind = bm->kind;
    basis->reason = g_strdup(bm->reason);
    if (bm->kind == WSM_BASIS_KIND_SYNC_POINT) {
        basis->point = qemu_uuid_unparse_strdup(&bm->point);
    }
    trace_wsm_source_basis(d->name, WsmBasisKind_str(bm->kind), bm->reason);
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        d->basis_point = bm->point;
        d->basis = basis;
    }
    if (bm->kind == WSM_BASIS_KIND_FULL) {
        wsm_source_disk_agreed(s);
    }
}

bool coroutine_fn wsm_source_basis(WsmSourceChannel *c, const WsmMsg *msg,
                                   Error **errp)
{
    WsmSource *s = c->s;
    WsmSourceDisk *d = &s->disk[msg->disk];
    g_autofree uint8_t *payload = g_malloc(msg->length);
    WsmBasisMsg bm = {};
    bool ok;

    if (!wsm_channel_recv_payload(&c->c, payload, msg->length, errp) ||
        !wsm_basis_decode(msg, payload, &bm, errp)) {
        return false;
    }
    ok = wsm_source_check_basis(s, d, &bm, errp);
    if (ok) {
        wsm_source_set_basis(s, d, &bm);
    }
    wsm_basis_destroy(&bm);
    return ok;
}

bool coroutine_fn wsm_source_own(WsmSourceChannel *c, const WsmMsg *msg,
                                 Error **errp)
{
    WsmSource *s = c->s;
    WsmSourceDisk *d = &s->disk[msg->disk];
    WsmOwnPart *part;

    if (!d->basis || d->basis->kind == WSM_BASIS_KIND_FULL ||
        msg->offset != d->own_until) {
        error_setg(errp, "OWN of disk '%s' at 0x%" PRIx64 " is out of order",
                   d->name, msg->offset);
        return false;
    }
    if (msg->length > wsm_runs_max_size(DIV_ROUND_UP(msg->bytes,
                                                     s->start.granularity))) {
        error_setg(errp, "OWN of disk '%s': %u bytes are too many for a range "
                   "of %" PRIu64, d->name, msg->length, msg->bytes);
        return false;
    }
    d->own_until += msg->bytes;
    if (msg->length) {
        part = g_new(WsmOwnPart, 1);
        *part = (WsmOwnPart) {
            .offset = msg->offset,
            .bytes = msg->bytes,
            .runs = g_malloc(msg->length),
            .size = msg->length,
        };
        g_ptr_array_add(d->theirs, part);
        if (!wsm_channel_recv_payload(&c->c, part->runs, part->size, errp)) {
            return false;
        }
    }
    if (d->own_until == d->size) {
        wsm_source_disk_agreed(s);
    }
    return true;
}

/* Set the bits of what the destination has said */
static bool wsm_source_apply_own(WsmSource *s, WsmSourceDisk *d,
                                 BdrvDirtyBitmap *bitmap, Error **errp)
{
    ERRP_GUARD();

    for (unsigned i = 0; i < d->theirs->len; i++) {
        WsmOwnPart *part = g_ptr_array_index(d->theirs, i);

        if (!wsm_bitmap_from_runs(bitmap, part->offset, part->bytes,
                                  part->runs, part->size,
                                  s->start.granularity, errp)) {
            error_prepend(errp, "OWN of disk '%s': ", d->name);
            return false;
        }
    }
    g_ptr_array_set_size(d->theirs, 0);
    return true;
}

/* Where the destination has data, ours may be equal */
static bool wsm_source_apply_content(WsmSource *s, WsmSourceDisk *d,
                                     Error **errp)
{
    BdrvDirtyBitmap *compare;

    if (!d->theirs->len) {
        return true;
    }
    compare = wsm_work_start_compare(s->work, d->index, errp);
    return compare && wsm_source_apply_own(s, d, compare, errp);
}

/*
 * Migration thread with the BQL.  The guest writes meanwhile: what it writes
 * is in the newest point's bitmap, and in ours from the reset on.
 */
static bool wsm_source_apply_point(WsmSource *s, WsmSourceDisk *d,
                                   Error **errp)
{
    BdrvDirtyBitmap *dirty = wsm_work_start_anew(s->work, d->index);
    bool ok;

    wsm_source_hold_points(d, false);
    ok = wsm_points_changed(d->bs_points, &d->basis_point, dirty, errp);
    wsm_source_hold_points(d, true);
    return ok && wsm_source_apply_own(s, d, dirty, errp);
}

static bool wsm_source_apply_disk(WsmSource *s, WsmSourceDisk *d,
                                  Error **errp)
{
    switch (d->basis->kind) {
    case WSM_BASIS_KIND_CONTENT:
        return wsm_source_apply_content(s, d, errp);
    case WSM_BASIS_KIND_SYNC_POINT:
        return wsm_source_apply_point(s, d, errp);
    default:
        return true;
    }
}

bool wsm_source_apply_basis(WsmSource *s, Error **errp)
{
    for (unsigned i = 0; i < s->ndisks; i++) {
        if (!wsm_source_apply_disk(s, &s->disk[i], errp)) {
            return false;
        }
    }
    return true;
}

/*
 * Soon the guest may be elsewhere.  If QEMU ends at the wrong moment nobody can
 * say here, so from now on the images may not be run.
 */
int wsm_source_mark_leaving(void *opaque)
{
    WsmSource *s = opaque;

    s->marked = true;
    for (unsigned i = 0; i < s->ndisks && !wsm_loop_is_over(&s->loop); i++) {
        WsmSourceDisk *d = &s->disk[i];
        Error *err = NULL;

        if (d->leaving &&
            !wsm_record_save(d->leaving_file, d->leaving, &err)) {
            wsm_image_warn(d->image, err);
        }
    }
    return 0;
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
    g_free(d->leaving_file);
}
