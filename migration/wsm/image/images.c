/*
 * Whole-system migration: the images of all of the guest's disks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-misc.h"
#include "qapi/qapi-commands-wsm.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/graph-lock.h"
#include "qemu/error-report.h"
#include "system/runstate.h"
#include "migration/wsm/dest/check.h"
#include "migration/wsm/image/image-below.h"
#include "migration/wsm/image/image.h"
#include "migration/wsm.h"
#include "migration/wsm/image/points.h"

static bool wsm_image_check(const WsmImage *image, Error **errp)
{
    g_autoptr(GDateTime) when = g_date_time_new_from_unix_utc(image->time);
    g_autofree char *time = g_date_time_format(when, "%Y-%m-%d %H:%M:%S UTC");
    const char *peer = image->peer ?: "another host";
    const char *from = image->peer ? " from " : "";

    switch (image->state) {
    case WSM_IMAGE_STATE_CURRENT:
        return true;
    case WSM_IMAGE_STATE_INCOMPLETE:
        error_setg(errp, "disk '%s': a migration to this image%s%s began at %s "
                   "and did not end, so it is no consistent disk; migrate the "
                   "guest to it again", image->name, from, image->peer ?: "",
                   time);
        return false;
    case WSM_IMAGE_STATE_LEAVING:
        if (image->problem) {
            error_setg(errp, "disk '%s': whether this image is current is not "
                       "known: %s; if it is, say so with wsm-adopt, and then "
                       "cont", image->name, image->problem);
            return false;
        }
        error_setg(errp, "disk '%s': the guest was about to be handed over to "
                   "%s at %s when QEMU ended; if it does not run there, make "
                   "this copy the current one with wsm-adopt, and then cont",
                   image->name, peer, time);
        return false;
    default:
        error_setg(errp, "disk '%s': the guest was handed over to %s at %s, "
                   "this copy is stale; migrate the guest back, or, if it is "
                   "lost there, make this copy the current one with wsm-adopt, "
                   "and then cont", image->name, peer, time);
        return false;
    }
}

bool wsm_images_check(Wsm *w, Error **errp)
{
    g_autoptr(GArray) all = wsm_disk_list();

    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);

        if (blk_supports_write_perm(disk->blk) &&
            (!wsm_image_check(wsm_image_get(w, disk), errp) ||
             !wsm_image_below_check(disk, errp))) {
            return false;
        }
    }
    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);
        WsmImage *image;

        if (!blk_supports_write_perm(disk->blk)) {
            continue;
        }
        image = wsm_image_get(w, disk);
        if (!image->taken) {
            if (!wsm_image_take(image, wsm_disk_bs(disk), errp)) {
                return false;
            }
            wsm_image_mark(image, wsm_disk_bs(disk));
        }
    }
    return true;
}

bool wsm_may_run(Error **errp)
{
    ERRP_GUARD();

    if (wsm_outgoing_is_handed_over()) {
        error_setg(errp, "The guest was handed over to %s and runs there",
                   wsm_get()->peer);
        return false;
    }
    /* A guest that comes in is let run by whoever sends it, ... */
    if (runstate_check(RUN_STATE_INMIGRATE) ||
        /* ... and then runs here, although its images are not complete */
        (wsm_get()->dest && wsm_phase(wsm_get()) == WSM_PHASE_POSTCOPY)) {
        return true;
    }
    return wsm_images_check(wsm_get(), errp);
}

void wsm_autostart(void)
{
    Error *err = NULL;

    qmp_cont(&err);
    if (err) {
        error_reportf_err(err, "The guest was not started: ");
    }
}

static bool wsm_image_is_inactive(BlockDriverState *bs)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return bdrv_is_inactive(bs);
}

static void wsm_image_close(WsmImage *image, BlockDriverState *bs)
{
    if (!wsm_image_is_inactive(bs)) {
        wsm_image_put(image, bs, false);
    }
}

void wsm_images_close(Wsm *w)
{
    g_autoptr(GArray) all = wsm_disk_list();

    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);

        if (blk_supports_write_perm(disk->blk)) {
            wsm_image_close(wsm_image_get(w, disk), wsm_disk_bs(disk));
        }
    }
}

void wsm_before_close(void)
{
    wsm_images_close(wsm_get());
}

void wsm_images_limit_points(Wsm *w, unsigned max)
{
    g_autoptr(GArray) all = wsm_disk_list();

    /* A migration needs what there is, and comes to the limit in the end */
    for (unsigned i = 0; i < all->len && !w->source && !w->dest; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);
        WsmImage *image = wsm_image_get(w, disk);
        BlockDriverState *bs = wsm_disk_bs(disk);

        if (blk_supports_write_perm(disk->blk) && !wsm_image_is_inactive(bs) &&
            wsm_image_take(image, bs, NULL)) {
            wsm_points_limit(bs, max);
        }
    }
}

static WsmPointInfoList *wsm_image_points_info(BlockDriverState *bs)
{
    g_autoptr(GArray) points = wsm_points_list(bs);
    WsmPointInfoList *list = NULL;

    for (int i = points->len - 1; i >= 0; i--) {
        WsmPoint *point = &g_array_index(points, WsmPoint, i);
        WsmPointInfo *info = g_new0(WsmPointInfo, 1);

        info->id = qemu_uuid_unparse_strdup(&point->id);
        info->changed = wsm_points_changed_bytes(bs, &point->id);
        info->interrupted = point->rest;
        QAPI_LIST_PREPEND(list, info);
    }
    return list;
}

static WsmImageInfo *wsm_image_info(WsmImage *image, BlockDriverState *bs)
{
    WsmImageInfo *info = g_new0(WsmImageInfo, 1);

    info->name = g_strdup(image->name);
    info->file = g_strdup(image->file);
    info->state = image->state;
    if (image->session && *image->session) {
        info->session = g_strdup(image->session);
        info->has_time = true;
        info->time = image->time;
    }
    info->peer = g_strdup(image->peer);
    info->points = wsm_image_points_info(bs);
    info->problem = g_strdup(image->problem);
    info->no_record = g_strdup(image->no_record);
    return info;
}

WsmImageInfoList *wsm_images_info(Wsm *w)
{
    g_autoptr(GArray) all = wsm_disk_list();
    WsmImageInfoList *list = NULL;

    for (int i = all->len - 1; i >= 0; i--) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);

        if (blk_supports_write_perm(disk->blk)) {
            QAPI_LIST_PREPEND(list, wsm_image_info(wsm_image_get(w, disk),
                                                   wsm_disk_bs(disk)));
        }
    }
    return list;
}

static bool wsm_image_adopt(Wsm *w, const WsmDisk *disk, Error **errp)
{
    BlockDriverState *bs = wsm_disk_bs(disk);
    WsmImage *image = wsm_image_get(w, disk);

    if (!wsm_image_take(image, bs, errp) ||
        !wsm_image_below_adopt(disk, errp)) {
        return false;
    }
    if (image->state == WSM_IMAGE_STATE_INCOMPLETE) {
        /* It does not descend from the guest that was to come here */
        wsm_points_clear(bs);
    }
    wsm_image_set_state(image, WSM_IMAGE_STATE_CURRENT, NULL, NULL);
    wsm_image_mark(image, bs);
    return true;
}

void qmp_wsm_adopt(bool has_disks, strList *disks, Error **errp)
{
    g_autoptr(GArray) all = wsm_disk_list();
    g_autoptr(GPtrArray) selected = NULL;
    WsmExcludedDiskList *excluded = NULL;

    if (runstate_is_running() || runstate_check(RUN_STATE_FINISH_MIGRATE) ||
        (runstate_check(RUN_STATE_INMIGRATE) && wsm_dest_has_begun())) {
        error_setg(errp, "wsm-adopt is for a guest that is not running; it is "
                   "in state '%s'", RunState_str(runstate_get()));
        return;
    }
    if (!wsm_get()->source && wsm_outgoing_is_handed_over()) {
        error_setg(errp, "this QEMU has handed its guest over to %s; if it is "
                   "lost there, end this QEMU, start another one with these "
                   "images, and say wsm-adopt to that", wsm_get()->peer);
        return;
    }
    if (wsm_get()->source || wsm_get()->dest) {
        error_setg(errp, "a whole-system migration has not ended yet; wait "
                   "for it or cancel it");
        return;
    }
    selected = wsm_disk_select(all, has_disks ? disks : NULL, &excluded, errp);
    qapi_free_WsmExcludedDiskList(excluded);
    for (unsigned i = 0; selected && i < selected->len; i++) {
        if (!wsm_image_adopt(wsm_get(), g_ptr_array_index(selected, i),
                             errp)) {
            return;
        }
    }
}

const char *wsm_others_bitmap_name(const BdrvDirtyBitmap *bitmap)
{
    return wsm_points_is_ours(bitmap) ? NULL : bdrv_dirty_bitmap_name(bitmap);
}
