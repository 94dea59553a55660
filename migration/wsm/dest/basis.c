/*
 * Whole-system migration: the destination's sync points
 *
 * At START each image is looked at: what it builds on is decided here and said
 * to the source.  From then on the image is incomplete, in memory and in its
 * record, until nothing is missing.  Then it has a sync point with the
 * source's image, and all sync points that that one had.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-wsm.h"
#include "block/aio-wait.h"
#include "block/block.h"
#include "block/block_int.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "migration/wsm/core/hash.h"
#include "migration/wsm/dest/dest.h"
#include "migration/wsm/image/bitmap-runs.h"
#include "migration/wsm/image/image.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/image/record.h"
#include "migration/wsm/policy/basis.h"
#include "migration/wsm/trace.h"

/* Blocks of a bitmap in one message; at worst a byte for each */
#define WSM_OWN_BLOCKS          (512 * KiB)

/* A sync point of the source's image, as far as it has told */
struct WsmDestTravel {
    BdrvDirtyBitmap *since, *rest;      /* disabled, without a name */
};

/*
 * Main thread: START
 */

static GArray *wsm_dest_point_descs(BlockDriverState *bs)
{
    g_autoptr(GArray) points = wsm_points_list(bs);
    GArray *descs = g_array_new(false, true, sizeof(WsmPointDesc));

    for (unsigned i = 0; i < points->len; i++) {
        WsmPoint *point = &g_array_index(points, WsmPoint, i);
        WsmPointDesc desc = {
            .id = point->id,
            .changed = wsm_points_changed_bytes(bs, &point->id),
        };

        g_array_append_val(descs, desc);
    }
    return descs;
}

static BdrvDirtyBitmap *wsm_dest_new_bitmap(WsmDestDisk *disk, Error **errp)
{
    BdrvDirtyBitmap *bitmap =
        bdrv_create_dirty_bitmap(disk->bs, disk->d->start.granularity, NULL,
                                 errp);

    if (bitmap) {
        bdrv_disable_dirty_bitmap(bitmap);
    }
    return bitmap;
}

/* Decide; and see what has changed here since, or what there is to compare */
static bool wsm_dest_choose_basis(WsmDestDisk *disk, const WsmDiskDesc *desc,
                                  Error **errp)
{
    g_autoptr(GArray) ours = wsm_dest_point_descs(disk->bs);
    WsmBasisInput in = {
        .wish = desc->wish,
        .blank = wsm_dest_is_blank(disk),
        .problem = disk->image->problem,
        .theirs = desc->point,
        .ntheirs = desc->npoints,
        .ours = (WsmPointDesc *)ours->data,
        .nours = ours->len,
    };

    disk->basis = wsm_basis_choose(&in, errp);
    if (!disk->basis) {
        error_prepend(errp, "disk '%s': ", desc->name);
        return false;
    }
    trace_wsm_dest_basis(disk->name, WsmBasisKind_str(disk->basis->kind),
                         disk->basis->reason);
    if (disk->basis->kind == WSM_BASIS_KIND_FULL) {
        return true;
    }
    disk->own = wsm_dest_new_bitmap(disk, errp);
    if (!disk->own) {
        return false;
    }
    if (disk->basis->kind == WSM_BASIS_KIND_CONTENT) {
        wsm_dest_find_data(disk, disk->own);
        return true;
    }
    qemu_uuid_parse(disk->basis->point, &disk->basis_point);
    return wsm_points_changed(disk->bs, &disk->basis_point, disk->own, errp);
}

static bool wsm_dest_expect_points(WsmDestDisk *disk, const WsmDiskDesc *desc,
                                   Error **errp)
{
    disk->travel = g_new0(WsmDestTravel, desc->npoints);
    for (unsigned i = 0; i < desc->npoints; i++) {
        WsmDestTravel *t = &disk->travel[i];

        t->since = wsm_dest_new_bitmap(disk, errp);
        t->rest = t->since ? wsm_dest_new_bitmap(disk, errp) : NULL;
        if (!t->rest) {
            return false;
        }
    }
    return true;
}

void wsm_dest_look(WsmDestDisk *disk, const WsmDisk *ours)
{
    disk->image = wsm_image_ref(wsm_image_get(disk->d->images, ours));
    disk->state_before = disk->image->state;
    disk->session_before = g_strdup(disk->image->session);
    disk->peer_before = g_strdup(disk->image->peer);
    disk->time_before = disk->image->time;
}

bool wsm_dest_prepare(WsmDestDisk *disk, BlockDriverState *bs, Error **errp)
{
    ERRP_GUARD();
    const WsmDiskDesc *desc = &disk->d->start.disk[disk->index];

    bdrv_ref(bs);
    disk->bs = bs;
    return wsm_image_take(disk->image, bs, errp) &&
           wsm_dest_choose_basis(disk, desc, errp) &&
           wsm_dest_expect_points(disk, desc, errp);
}

void wsm_dest_mark_incomplete(WsmDest *d)
{
    for (unsigned i = 0; i < d->ndisks; i++) {
        WsmDestDisk *disk = &d->disk[i];

        wsm_image_set_state(disk->image, WSM_IMAGE_STATE_INCOMPLETE,
                            &d->start.session, d->peer);
        wsm_image_tell(disk->image);
        wsm_image_mark(disk->image, disk->bs);
    }
}

/*
 * IOThread: what is said to the source before the first pass
 */

static int coroutine_fn wsm_dest_say_own(WsmDestConn *conn, WsmDestDisk *disk)
{
    int64_t step = WSM_OWN_BLOCKS * (int64_t)conn->d->start.granularity;
    int ret = 0;

    for (int64_t offset = 0; offset < disk->size && ret == 0; offset += step) {
        g_autoptr(GByteArray) runs = g_byte_array_new();
        WsmMsg msg = {
            .type = WSM_MSG_OWN,
            .disk = disk->index,
            .offset = offset,
            .bytes = MIN(step, disk->size - offset),
        };

        wsm_bitmap_to_runs(disk->own, msg.offset, msg.bytes,
                           conn->d->start.granularity, runs);
        msg.length = runs->len;
        ret = wsm_channel_send(&conn->c, &msg, runs->data);
    }
    return ret;
}

int coroutine_fn wsm_dest_say_basis(WsmDestConn *conn)
{
    WsmDest *d = conn->d;
    int ret = 0;

    for (unsigned i = 0; i < d->ndisks && ret == 0; i++) {
        WsmDestDisk *disk = &d->disk[i];
        g_autoptr(GByteArray) payload = NULL;
        WsmBasisMsg bm = {
            .kind = disk->basis->kind,
            .point = disk->basis_point,
            .reason = disk->basis->reason,
        };
        WsmMsg msg = {
            .type = WSM_MSG_BASIS, .disk = i, .offset = bm.kind,
        };

        payload = wsm_basis_encode(&bm);
        msg.length = payload->len;
        ret = wsm_channel_send(&conn->c, &msg, payload->data);
        if (ret == 0 && disk->own) {
            ret = wsm_dest_say_own(conn, disk);
        }
    }
    return ret;
}

/*
 * IOThread: delta by content
 */

int coroutine_fn wsm_dest_hash(WsmDest *d, const WsmMsg *msg,
                               WsmMsg *answer, uint8_t **hashes)
{
    WsmDestDisk *disk = &d->disk[msg->disk];
    uint32_t granularity = d->start.granularity;
    size_t size = DIV_ROUND_UP(msg->bytes, granularity) * WSM_HASH_SIZE;
    void *buf;
    bool zero;
    int ret;

    if (!wsm_life_has_filters(&d->life)) {
        return -ECANCELED;
    }
    answer->type = WSM_MSG_HASHES;
    buf = qemu_memalign(qemu_real_host_page_size(), msg->bytes);
    ret = bdrv_pull_read(disk->filter, msg->offset, msg->bytes, buf, &zero);
    if (ret >= 0 && !zero) {
        *hashes = g_malloc(size);
        wsm_co_hash_blocks(buf, msg->bytes, granularity, *hashes);
        answer->length = size;
    }
    qemu_vfree(buf);
    if (ret >= 0) {
        stat64_add(&disk->compared, msg->bytes);
    }
    return MIN(ret, 0);
}

/*
 * IOThread, after the freeze: the source's sync points
 */

bool coroutine_fn wsm_dest_point(WsmDestConn *conn, const WsmMsg *msg,
                                 Error **errp)
{
    WsmDest *d = conn->d;
    WsmDestDisk *disk = &d->disk[msg->disk];
    g_autofree uint8_t *payload = g_malloc(msg->length);
    WsmPointMsg pm;

    if (!wsm_channel_recv_payload(&conn->c, payload, msg->length, errp) ||
        !wsm_point_decode(msg, payload, &d->start.disk[msg->disk], &pm,
                          errp)) {
        return false;
    }
    if (wsm_life_reached(&d->life, WSM_LIFE_SETTLED)) {
        /* Said again because the channel broke */
        return true;
    }
    return wsm_bitmap_from_runs(pm.rest ? disk->travel[pm.index].rest
                                        : disk->travel[pm.index].since,
                                msg->offset, msg->bytes, pm.runs, pm.size,
                                d->start.granularity, errp);
}

/*
 * Main thread: freeze and end
 */

bool wsm_dest_watch_guest(WsmDestDisk *disk, Error **errp)
{
    disk->written = bdrv_create_dirty_bitmap(disk->filter,
                                             disk->d->start.granularity, NULL,
                                             errp);
    return disk->written;
}

/*
 * @to is empty, and has the bits of @from after it, which is empty then.  They
 * change hands: to copy them takes time in proportion to the disk, and a lock
 * that the guest's writes need.
 */
static void wsm_dest_move_bits(BdrvDirtyBitmap *to, BdrvDirtyBitmap *from)
{
    HBitmap *bits;

    assert(bdrv_dirty_bitmap_size(to) == bdrv_dirty_bitmap_size(from) &&
           bdrv_dirty_bitmap_granularity(to) ==
           bdrv_dirty_bitmap_granularity(from));
    bdrv_clear_dirty_bitmap(from, &bits);
    bdrv_restore_dirty_bitmap(to, bits);
}

/* Nothing is missing: this image and the source's were equal at the handover */
static void wsm_dest_add_point(WsmDestDisk *disk)
{
    const WsmStart *start = &disk->d->start;
    QemuUUID id = wsm_points_id(&start->session, disk->index);
    WsmPoint point;
    Error *err = NULL;

    disk->first_order = wsm_points_last_order(disk->bs) + 1;
    if (wsm_points_insert(disk->bs, &id, disk->first_order +
                          start->disk[disk->index].npoints,
                          start->granularity, false, &point, &err)) {
        wsm_dest_move_bits(point.since, disk->written);
    } else {
        warn_reportf_err(err, "disk '%s': no sync point is kept: ",
                         disk->name);
        wsm_points_clear(disk->bs);
        disk->no_points = true;
    }
    wsm_points_enable(disk->bs);
}

void wsm_dest_drop_filter(WsmDestDisk *disk, bool complete)
{
    complete &= disk->written &&
                wsm_option(disk->d->options, WSM_OPT_SYNC_POINTS);
    /* So that no write of the guest is between the two bitmaps */
    if (complete) {
        bdrv_drained_begin(disk->bs);
        wsm_dest_add_point(disk);
    }
    if (disk->written) {
        bdrv_release_dirty_bitmap(g_steal_pointer(&disk->written));
    }
    wsm_nodes_free(g_steal_pointer(&disk->nodes));
    bdrv_pull_get_stats(disk->filter, &disk->last);
    bdrv_pull_drop(g_steal_pointer(&disk->filter));
    if (complete) {
        bdrv_drained_end(disk->bs);
    } else {
        disk->no_points = true;
    }
}

/* The image is the same as the source's was, so its sync points hold here */
static void wsm_dest_take_over_point(WsmDestDisk *disk, unsigned i)
{
    const WsmStart *start = &disk->d->start;
    const QemuUUID *id = &start->disk[disk->index].point[i].id;
    WsmDestTravel *t = &disk->travel[i];
    bool with_rest = bdrv_get_dirty_count(t->rest) > 0;
    /* If it was there to go on after a break-off, that has been done */
    bool used_up = with_rest && qemu_uuid_is_equal(id, &disk->basis_point);
    WsmPoint point;
    Error *err = NULL;

    with_rest &= !used_up;
    wsm_points_forget(disk->bs, id);
    if (!wsm_points_insert(disk->bs, id, disk->first_order + i,
                           start->granularity, with_rest, &point, &err)) {
        /* The older ones need it */
        warn_reportf_err(err, "disk '%s': no sync point is kept: ",
                         disk->name);
        wsm_points_clear(disk->bs);
        disk->no_points = true;
        return;
    }
    wsm_dest_move_bits(point.since, t->since);
    if (with_rest) {
        wsm_dest_move_bits(point.rest, t->rest);
    }
    if (used_up) {
        /* The point before it gets to know of the writes since the break-off */
        wsm_points_forget(disk->bs, id);
    }
}

void wsm_dest_find_records(WsmDest *d)
{
    for (unsigned i = 0; i < d->ndisks; i++) {
        WsmDestDisk *disk = &d->disk[i];
        g_autoptr(WsmRecord) record =
            wsm_image_record(disk->image, disk->bs, WSM_IMAGE_STATE_CURRENT,
                             NULL, NULL);

        if (record) {
            disk->record = g_strdup(disk->image->file);
        }
    }
}

int wsm_dest_remove_records(void *opaque)
{
    WsmDest *d = opaque;

    for (unsigned i = 0; i < d->ndisks; i++) {
        WsmDestDisk *disk = &d->disk[i];
        Error *err = NULL;

        disk->unmarked = !disk->record ||
                         wsm_record_remove(disk->record, &err);
        if (err) {
            wsm_image_warn_current(disk->name, err);
        }
    }
    return 0;
}

static void wsm_dest_mark_disk_current(WsmDestDisk *disk)
{
    if (disk->image->state != WSM_IMAGE_STATE_CURRENT) {
        wsm_image_set_state(disk->image, WSM_IMAGE_STATE_CURRENT,
                            &disk->d->start.session, disk->d->peer);
        if (!disk->unmarked) {
            wsm_image_mark(disk->image, disk->bs);
        }
    }
}

void wsm_dest_mark_current(WsmDest *d)
{
    for (unsigned i = 0; i < d->ndisks; i++) {
        wsm_dest_mark_disk_current(&d->disk[i]);
    }
}

void wsm_dest_settle(WsmDest *d)
{
    if (wsm_life(&d->life) != WSM_LIFE_UNSECURED &&
        wsm_life(&d->life) != WSM_LIFE_SECURED) {
        return;
    }
    for (unsigned i = 0; i < d->ndisks; i++) {
        WsmDestDisk *disk = &d->disk[i];

        for (unsigned j = 0; !disk->no_points &&
                             j < d->start.disk[i].npoints; j++) {
            wsm_dest_take_over_point(disk, j);
        }
        wsm_points_limit(disk->bs, wsm_option(d->options, WSM_OPT_SYNC_POINTS));
    }
    wsm_dest_mark_current(d);
    wsm_life_enter(&d->life, WSM_LIFE_SETTLED);
    wsm_dest_kick(d);
}

/* Pre-copy broke off: what has arrived is good, the source knows the rest */
static void wsm_dest_keep_interrupted(WsmDest *d, WsmDestDisk *disk)
{
    QemuUUID id = wsm_points_id(&d->start.session, disk->index);
    unsigned max = wsm_option(d->options, WSM_OPT_SYNC_POINTS);

    if (bdrv_flush(disk->bs) == 0 && max) {
        wsm_image_add_point(disk->image, disk->bs, &id,
                            d->start.granularity, NULL, max);
    }
}

/* Nothing came: the image is what it was before START */
static void wsm_dest_forget_session(WsmDestDisk *disk)
{
    WsmImage *image = disk->image;

    wsm_image_set_state(image, disk->state_before, NULL, disk->peer_before);
    image->session = g_strdup(disk->session_before);
    image->time = disk->time_before;
}

/* All is here, although the source may not know.  The guest may still run. */
static void wsm_dest_keep_complete(WsmDestDisk *disk)
{
    if (disk->image->state != WSM_IMAGE_STATE_CURRENT &&
        bdrv_flush(disk->bs) == 0) {
        wsm_dest_mark_disk_current(disk);
    }
}

static void wsm_dest_keep_incomplete(WsmDest *d, WsmDestDisk *disk,
                                     WsmPhase phase)
{
    if (phase == WSM_PHASE_SETUP && !d->wrote) {
        wsm_dest_forget_session(disk);
    } else if (phase < WSM_PHASE_POSTCOPY) {
        wsm_dest_keep_interrupted(d, disk);
    } else {
        /* The guest has run here, and blocks are missing */
        wsm_points_clear(disk->bs);
    }
    wsm_image_put(disk->image, disk->bs, true);
}

static void wsm_dest_release_bitmaps(WsmDestDisk *disk, unsigned npoints)
{
    for (unsigned i = 0; disk->travel && i < npoints; i++) {
        WsmDestTravel *t = &disk->travel[i];

        if (t->since) {
            bdrv_release_dirty_bitmap(t->since);
        }
        if (t->rest) {
            bdrv_release_dirty_bitmap(t->rest);
        }
    }
    g_clear_pointer(&disk->travel, g_free);
    if (disk->own) {
        bdrv_release_dirty_bitmap(g_steal_pointer(&disk->own));
    }
}

void wsm_dest_leave_image(WsmDestDisk *disk, WsmPhase phase)
{
    WsmDest *d = disk->d;

    if (disk->bs) {
        wsm_dest_release_bitmaps(disk, d->start.disk[disk->index].npoints);
        if (wsm_life_reached(&d->life, WSM_LIFE_SECURING)) {
            wsm_dest_keep_complete(disk);
        } else {
            wsm_dest_keep_incomplete(d, disk, phase);
        }
        bdrv_unref(g_steal_pointer(&disk->bs));
    }
    g_clear_pointer(&disk->image, wsm_image_unref);
    g_clear_pointer(&disk->session_before, g_free);
    g_clear_pointer(&disk->peer_before, g_free);
    g_clear_pointer(&disk->record, g_free);
}
