/*
 * Whole-system migration: the images of all of the guest's disks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-wsm.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/graph-lock.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/image-below.h"
#include "migration/wsm/image/images.h"
#include "migration/wsm/image/map-node.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/image/salvage.h"

void wsm_images_init(WsmImages *images)
{
    GLOBAL_STATE_CODE();
    images->list = g_ptr_array_new_with_free_func((GDestroyNotify)
                                                  wsm_image_unref);
    images->maps = NULL;
}

static WsmImage *wsm_image_find(WsmImages *images, const char *path)
{
    for (unsigned i = 0; i < images->list->len; i++) {
        WsmImage *image = g_ptr_array_index(images->list, i);

        if (!strcmp(image->path, path)) {
            return image;
        }
    }
    return NULL;
}

WsmImage *wsm_image_get(WsmImages *images, const WsmDisk *disk)
{
    WsmImage *image = wsm_image_find(images, disk->path);
    WsmImage *now = wsm_image_renew(image, disk,
                                    wsm_map_node_of(images->maps, disk));

    GLOBAL_STATE_CODE();
    if (!now) {
        return image;
    }
    if (image) {
        g_ptr_array_remove(images->list, image);
    }
    g_ptr_array_add(images->list, now);
    return now;
}

void wsm_images_set_maps(WsmImages *images, const WsmMapNodeList *maps)
{
    GLOBAL_STATE_CODE();
    qapi_free_WsmMapNodeList(images->maps);
    images->maps = QAPI_CLONE(WsmMapNodeList, (WsmMapNodeList *)maps);
    for (int i = images->list->len - 1; i >= 0; i--) {
        const WsmImage *image = g_ptr_array_index(images->list, i);

        if (!image->taken) {
            g_ptr_array_remove_index(images->list, i);
        }
    }
}

static bool wsm_image_check(const WsmImage *image, Error **errp)
{
    g_autoptr(GDateTime) when = g_date_time_new_from_unix_utc(image->time);
    g_autofree char *time = g_date_time_format(when, "%Y-%m-%d %H:%M:%S UTC");
    const char *peer = image->peer ?: "another host";
    const char *from = image->peer ? " from " : "";

    if (image->joined) {
        return true;
    }
    switch (image->state) {
    case WSM_IMAGE_STATE_CURRENT:
        return true;
    case WSM_IMAGE_STATE_INCOMPLETE:
        if (wsm_image_is_arriving(image)) {
            error_setg(errp, "disk '%s': the guest came here from %s, and QEMU "
                       "ended before all of this image was here: %s; %s",
                       image->name, peer, wsm_image_is_arriving(image),
                       image->map == WSM_MAP_COMMITTED
                       ? "serve the image that is there with wsm-serve, fetch "
                         "them with wsm-rejoin, and then cont"
                       : "keep both images");
            return false;
        }
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

bool wsm_images_check(WsmImages *images, Error **errp)
{
    g_autoptr(GArray) all = wsm_disk_list();

    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);

        if (blk_supports_write_perm(disk->blk) &&
            (!wsm_image_check(wsm_image_get(images, disk), errp) ||
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
        image = wsm_image_get(images, disk);
        if (!image->taken) {
            if (!wsm_image_take(image, wsm_disk_bs(disk), errp)) {
                return false;
            }
            wsm_image_mark(image, wsm_disk_bs(disk));
        }
    }
    return true;
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

void wsm_images_close(WsmImages *images)
{
    g_autoptr(GArray) all = wsm_disk_list();

    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);

        if (blk_supports_write_perm(disk->blk)) {
            wsm_image_close(wsm_image_get(images, disk), wsm_disk_bs(disk));
        }
    }
}

void wsm_images_limit_points(WsmImages *images, unsigned max)
{
    g_autoptr(GArray) all = wsm_disk_list();

    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);
        WsmImage *image = wsm_image_get(images, disk);
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
    info->state = wsm_image_is_arriving(image) ? WSM_IMAGE_STATE_ARRIVING
                                               : image->state;
    info->has_missing = image->missing > 0;
    info->missing = image->missing;
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

WsmImageInfoList *wsm_images_info(WsmImages *images)
{
    g_autoptr(GArray) all = wsm_disk_list();
    WsmImageInfoList *list = NULL;

    GLOBAL_STATE_CODE();
    for (int i = all->len - 1; i >= 0; i--) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);

        if (blk_supports_write_perm(disk->blk)) {
            QAPI_LIST_PREPEND(list, wsm_image_info(wsm_image_get(images, disk),
                                                   wsm_disk_bs(disk)));
        }
    }
    return list;
}

/* May it be, if blocks are missing? */
static bool wsm_image_check_adopt(const WsmImage *image,
                                  WsmAdoptMissing missing, Error **errp)
{
    const char *arriving = wsm_image_is_arriving(image);
    const char *peer = image->peer ?: "another host";

    if (!arriving || missing == WSM_ADOPT_MISSING_STALE) {
        return true;
    }
    if (image->map != WSM_MAP_COMMITTED) {
        error_setg(errp, "disk '%s': the guest came here from %s, and %s; if "
                   "that host's disk is lost, too, 'missing': 'stale' takes "
                   "the image as it is, in which old content is among the new",
                   image->name, peer, arriving);
        return false;
    }
    if (missing == WSM_ADOPT_MISSING_REFUSE) {
        error_setg(errp, "disk '%s': the guest came here from %s, and %s: "
                   "fetch them with wsm-serve there and wsm-rejoin here; only "
                   "if that host's disk is lost for good, 'missing': 'zero' "
                   "writes zeroes there and lists them beside the image",
                   image->name, peer, arriving);
        return false;
    }
    return true;
}

static bool wsm_image_adopt(WsmImages *images, const WsmDisk *disk,
                            WsmAdoptMissing missing, Error **errp)
{
    BlockDriverState *bs = wsm_disk_bs(disk);
    WsmImage *image = wsm_image_get(images, disk);
    g_autoptr(WsmMapPlace) map = NULL;

    if (!wsm_image_take(image, bs, errp) ||
        !wsm_image_below_adopt(disk, errp)) {
        return false;
    }
    if (image->arriving && missing == WSM_ADOPT_MISSING_ZERO &&
        !wsm_salvage_zero(image, disk->blk, errp)) {
        return false;
    }
    if (image->state == WSM_IMAGE_STATE_INCOMPLETE) {
        /* It does not descend from the guest that was to come here */
        wsm_points_clear(bs);
    }
    map = g_steal_pointer(&image->map_place);
    wsm_image_set_state(image, WSM_IMAGE_STATE_CURRENT, NULL, NULL);
    wsm_image_mark(image, bs);
    /* Where there is no record the map counts */
    return !map || !map->node || wsm_map_place_remove(map, errp);
}

bool wsm_images_adopt(WsmImages *images, GPtrArray *disks,
                      WsmAdoptMissing missing, Error **errp)
{
    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < disks->len; i++) {
        if (!wsm_image_check_adopt(wsm_image_get(images,
                                                 g_ptr_array_index(disks, i)),
                                   missing, errp)) {
            return false;
        }
    }
    for (unsigned i = 0; i < disks->len; i++) {
        if (!wsm_image_adopt(images, g_ptr_array_index(disks, i), missing,
                             errp)) {
            return false;
        }
    }
    return true;
}
