/*
 * Whole-system migration: the destination's sync points
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/block.h"
#include "block/block_int.h"
#include "qemu/error-report.h"
#include "migration/wsm/dest/points.h"
#include "migration/wsm/image/bitmap-runs.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/wire/payload.h"

/* A sync point of the source's image, as far as it has told */
struct WsmDestTravel {
    BdrvDirtyBitmap *since, *rest;      /* disabled, without a name */
};

bool wsm_dest_points_expect(WsmDestDisk *disk, Error **errp)
{
    unsigned npoints = disk->all->start->disk[disk->index].npoints;

    disk->travel = g_new0(WsmDestTravel, npoints);
    for (unsigned i = 0; i < npoints; i++) {
        WsmDestTravel *t = &disk->travel[i];

        t->since = wsm_dest_disk_bitmap(disk, errp);
        t->rest = t->since ? wsm_dest_disk_bitmap(disk, errp) : NULL;
        if (!t->rest) {
            return false;
        }
    }
    return true;
}

bool coroutine_fn wsm_dest_on_point(WsmDestDisks *disks, WsmDestConn *conn,
                                    const WsmMsg *msg, Error **errp)
{
    WsmDestDisk *disk = &disks->disk[msg->disk];
    g_autofree uint8_t *payload = g_malloc(msg->length);
    WsmPointMsg pm;

    if (!wsm_channel_recv_payload(&conn->c, payload, msg->length, errp)) {
        return false;
    }
    if (disk->rejoined) {
        /* It told the rest of them to the QEMU before this one */
        return true;
    }
    if (!wsm_point_decode(msg, payload, &disks->start->disk[msg->disk], &pm,
                          errp)) {
        return false;
    }
    if (wsm_life_reached(disks->life, WSM_LIFE_SETTLED)) {
        /* Said again because the channel broke */
        return true;
    }
    return wsm_bitmap_from_runs(pm.rest ? disk->travel[pm.index].rest
                                        : disk->travel[pm.index].since,
                                msg->offset, msg->bytes, pm.runs, pm.size,
                                disks->start->granularity, errp);
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
    const WsmStart *start = disk->all->start;
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

void wsm_dest_points_drop_filter(WsmDestDisk *disk, bool complete)
{
    complete &= disk->written && !disk->no_points &&
                wsm_option(disk->all->options, WSM_OPT_SYNC_POINTS);
    /* So that no write of the guest is between the two bitmaps */
    if (complete) {
        bdrv_drained_begin(disk->bs);
        wsm_dest_add_point(disk);
    }
    wsm_dest_disk_close(disk);
    if (complete) {
        bdrv_drained_end(disk->bs);
    } else {
        disk->no_points = true;
    }
}

/* The image is the same as the source's was, so its sync points hold here */
static void wsm_dest_take_over_point(WsmDestDisk *disk, unsigned i)
{
    const WsmStart *start = disk->all->start;
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

void wsm_dest_points_settle(WsmDestDisks *disks)
{
    unsigned max = wsm_option(disks->options, WSM_OPT_SYNC_POINTS);

    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < disks->n; i++) {
        WsmDestDisk *disk = &disks->disk[i];

        for (unsigned j = 0; !disk->no_points &&
                             j < disks->start->disk[i].npoints; j++) {
            wsm_dest_take_over_point(disk, j);
        }
        wsm_points_limit(disk->bs, max);
    }
}

void wsm_dest_points_release(WsmDestDisk *disk)
{
    unsigned npoints = disk->all->start->disk[disk->index].npoints;

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
}
