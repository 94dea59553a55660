/*
 * Whole-system migration: the destination's images and their records
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-wsm.h"
#include "block/block.h"
#include "migration/wsm/dest/images.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/image/record-store.h"
#include "migration/wsm/policy/ending.h"
#include "migration/wsm/wire/start.h"

void wsm_dest_image_look(WsmDestDisk *disk, const WsmDisk *ours)
{
    disk->image = wsm_image_ref(wsm_image_get(disk->all->images, ours));
    disk->state_before = disk->image->state;
    disk->session_before = g_strdup(disk->image->session);
    disk->peer_before = g_strdup(disk->image->peer);
    disk->time_before = disk->image->time;
}

bool wsm_dest_image_take(WsmDestDisk *disk, BlockDriverState *bs, Error **errp)
{
    bdrv_ref(bs);
    disk->bs = bs;
    return wsm_image_take(disk->image, bs, errp);
}

bool wsm_dest_image_join(WsmDestDisk *disk, BlockDriverState *bs, Error **errp)
{
    if (!wsm_dest_image_take(disk, bs, errp)) {
        return false;
    }
    disk->rejoined = true;
    disk->image->joined = true;
    /* Since when the guest wrote is not known any more */
    wsm_points_clear(bs);
    disk->no_points = true;
    return true;
}

void wsm_dest_images_mark_incomplete(WsmDestDisks *disks)
{
    for (unsigned i = 0; i < disks->n; i++) {
        WsmDestDisk *disk = &disks->disk[i];

        wsm_image_set_state(disk->image, WSM_IMAGE_STATE_INCOMPLETE,
                            &disks->start->session, disks->peer);
        disk->image->map_is_there = disk->map && disk->map_place->node;
        disk->image->map_disk = disk->map ? disk->index : -1;
        wsm_image_tell(disk->image);
        wsm_image_mark(disk->image, disk->bs);
    }
}

void wsm_dest_images_find_records(WsmDestDisks *disks)
{
    for (unsigned i = 0; i < disks->n; i++) {
        WsmDestDisk *disk = &disks->disk[i];

        g_clear_pointer(&disk->store, wsm_record_store_free);
        disk->store = wsm_image_store(disk->image, disk->bs);
    }
}

int wsm_dest_images_remove_records(void *opaque)
{
    WsmDestDisks *disks = opaque;

    for (unsigned i = 0; i < disks->n; i++) {
        WsmDestDisk *disk = &disks->disk[i];
        Error *err = NULL;

        disk->unmarked = !disk->store ||
                         wsm_record_store_remove(disk->store, &err);
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
                            &disk->all->start->session, disk->all->peer);
        if (!disk->unmarked) {
            wsm_image_mark(disk->image, disk->bs);
        }
    }
}

void wsm_dest_images_mark_current(WsmDestDisks *disks)
{
    for (unsigned i = 0; i < disks->n; i++) {
        wsm_dest_mark_disk_current(&disks->disk[i]);
    }
}

/* What has arrived is good, once it is durable; the source knows the rest */
static void wsm_dest_add_interrupted(WsmDestDisk *disk)
{
    const WsmStart *start = disk->all->start;
    QemuUUID id = wsm_points_id(&start->session, disk->index);
    unsigned max = wsm_option(disk->all->options, WSM_OPT_SYNC_POINTS);

    if (bdrv_flush(disk->bs) == 0 && max) {
        wsm_image_add_point(disk->image, disk->bs, &id, start->granularity,
                            NULL, max);
    }
}

static void wsm_dest_restore_state(WsmDestDisk *disk)
{
    WsmImage *image = disk->image;

    wsm_image_set_state(image, disk->state_before, NULL, disk->peer_before);
    image->session = g_strdup(disk->session_before);
    image->time = disk->time_before;
}

static void wsm_dest_end_points(WsmDestDisk *disk, WsmEndingPoints points)
{
    switch (points) {
    case WSM_ENDING_POINTS_STAY:
        break;
    case WSM_ENDING_POINTS_GO:
        wsm_points_clear(disk->bs);
        break;
    default:
        wsm_dest_add_interrupted(disk);
    }
}

static void wsm_dest_end_image(WsmDestDisk *disk, WsmPhase phase)
{
    WsmEndingInput in = {
        .role = WSM_ROLE_DESTINATION,
        .phase = phase,
        .wrote = disk->all->wrote,
        .complete = wsm_life_reached(disk->all->life, WSM_LIFE_SECURING),
    };
    WsmEnding end = wsm_ending(&in);

    wsm_dest_end_points(disk, end.points);
    if (end.state == WSM_ENDING_STATE_BEFORE) {
        wsm_dest_restore_state(disk);
    }
    if (end.record == WSM_ENDING_RECORD_PUT) {
        wsm_image_put(disk->image, disk->bs, true);
    } else if (disk->image->state != WSM_IMAGE_STATE_CURRENT &&
               bdrv_flush(disk->bs) == 0) {
        wsm_dest_mark_disk_current(disk);
    }
}

/* Record and map say what it is; they are as they were, or better */
static bool wsm_dest_is_still_arriving(WsmDestDisk *disk)
{
    return disk->rejoined &&
           !wsm_life_reached(disk->all->life, WSM_LIFE_SECURING);
}

void wsm_dest_image_leave(WsmDestDisk *disk, WsmPhase phase)
{
    if (disk->rejoined && disk->image) {
        disk->image->joined = false;
    }
    if (disk->bs) {
        if (!wsm_dest_is_still_arriving(disk)) {
            wsm_dest_end_image(disk, phase);
        }
        bdrv_unref(g_steal_pointer(&disk->bs));
    }
    g_clear_pointer(&disk->image, wsm_image_unref);
    g_clear_pointer(&disk->session_before, g_free);
    g_clear_pointer(&disk->peer_before, g_free);
    g_clear_pointer(&disk->store, wsm_record_store_free);
}
