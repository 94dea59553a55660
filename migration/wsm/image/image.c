/*
 * Whole-system migration: what is known of the images of the guest's disks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/graph-lock.h"
#include "block/raw-fd.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/bitmap-runs.h"
#include "migration/wsm/image/image-file.h"
#include "migration/wsm/image/image.h"
#include "migration/wsm/image/map-file.h"
#include "migration/wsm/image/points-store.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/image/record-attr.h"
#include "migration/wsm/image/record-stamp.h"
#include "migration/wsm/image/record-store.h"
#include "migration/wsm/image/record.h"
#include "migration/wsm/trace.h"
#include "migration/wsm/wire/message.h"

static void wsm_image_set_problem(WsmImage *image, Error *err)
{
    g_free(image->problem);
    image->problem = g_strdup(error_get_pretty(err));
    error_free(err);
}

/*
 * Its migration has not ended, if it is that of the map.  If the guest has come
 * so far that it flushed something here, it is its disk, as far as it goes;
 * also if the map that should say so cannot be used.  If nothing is missing
 * only the record was still to go.  Takes @place.
 */
static void wsm_image_look_at_map(WsmImage *image, WsmMapPlace *place,
                                  const WsmMapWanted *wanted)
{
    g_autoptr(WsmMapPlace) map = place;
    WsmMapContents contents;
    Error *err = NULL;

    image->map = wsm_map_place_load(map, wanted, &contents, &err);
    switch (image->map) {
    case WSM_MAP_COMMITTED:
        image->map_place = g_steal_pointer(&map);
        image->missing = contents.missing->bytes;
        if (!image->session) {
            image->session = qemu_uuid_unparse_strdup(&contents.head.session);
        }
        wsm_map_contents_destroy(&contents);
        if (!image->missing) {
            image->state = WSM_IMAGE_STATE_CURRENT;
            break;
        }
        image->arriving = g_strdup_printf("%" PRId64 " bytes of it are still "
                                          "there", image->missing);
        break;
    case WSM_MAP_VOID:
    case WSM_MAP_DAMAGED:
        image->arriving = g_strdup_printf("what of it is still there is not "
                                          "known: %s", error_get_pretty(err));
        image->map_place = g_steal_pointer(&map);
        break;
    default:
        break;
    }
    error_free(err);
}

static void wsm_image_look_by_record(WsmImage *image, const char *file,
                                     const WsmRecord *record)
{
    WsmMapWanted wanted = {
        .size = record->disk_size,
        .disk = record->has_map_disk ? record->map_disk : -1,
    };
    WsmMapPlace *place;

    if (record->map_node && !image->map_node) {
        image->arriving = g_strdup_printf("what of it is still there is not "
                                          "known until option 'maps' of "
                                          "wsm-set-options names the block "
                                          "node with its map, which was '%s'",
                                          record->map_node);
        return;
    }
    image->map_is_there = record->map_node;
    image->map_disk = wanted.disk;
    place = wsm_map_place_new(file, record->map_node ? image->map_node : NULL);
    if (place && qemu_uuid_parse(record->session, &wanted.session) == 0) {
        wsm_image_look_at_map(image, place, &wanted);
    } else {
        wsm_map_place_free(place);
    }
}

/* There can be no record; a map on a node counts by itself */
static void wsm_image_look_without_record(WsmImage *image,
                                          BlockDriverState *bs)
{
    WsmMapWanted wanted = {
        .size = bdrv_getlength(bs), .disk = -1, .path = image->path,
    };

    if (image->map_node && wanted.size > 0) {
        wsm_image_look_at_map(image, wsm_map_place_new(NULL, image->map_node),
                              &wanted);
    }
    if (image->arriving) {
        image->state = WSM_IMAGE_STATE_INCOMPLETE;
        image->map_is_there = true;
    }
}

WsmMapPlace *wsm_image_map_place(const WsmImage *image, Error **errp)
{
    WsmMapPlace *place = wsm_map_place_new(image->file, image->map_node);

    GLOBAL_STATE_CODE();
    if (!place) {
        error_setg(errp, "its image is no regular file; name a block node for "
                   "its map in option 'maps' of wsm-set-options there");
    }
    return place;
}

const char *wsm_image_is_arriving(const WsmImage *image)
{
    GLOBAL_STATE_CODE();
    return image->arriving;
}

/* What the record says of the image as a whole */
static void wsm_image_look(WsmImage *image, BlockDriverState *bs,
                           const WsmRecordStore *store)
{
    g_autoptr(WsmRecord) record = NULL;
    Error *err = NULL;

    if (store && !wsm_record_store_load(store, &record, &err)) {
        /* It may have said anything */
        image->state = WSM_IMAGE_STATE_LEAVING;
        wsm_image_set_problem(image, err);
        return;
    }
    if (record) {
        image->state = record->state;
        image->session = g_strdup(record->session);
        image->peer = g_strdup(record->peer);
        image->time = record->time;
        if (record->state == WSM_IMAGE_STATE_INCOMPLETE) {
            wsm_image_look_by_record(image, store->file, record);
        }
    } else if (image->no_record) {
        wsm_image_look_without_record(image, bs);
    }
}

/* Also looks which file or device it is */
WsmRecordStore *wsm_image_store(WsmImage *image, BlockDriverState *bs)
{
    Error *err = NULL;
    BlockDriverState *node = wsm_image_file_node(bs, &err);
    WsmRecordStore *store = NULL;
    struct stat st;

    GLOBAL_STATE_CODE();
    g_clear_pointer(&image->file, g_free);
    g_clear_pointer(&image->no_record, g_free);
    if (node) {
        if (fstat(bdrv_raw_fd(node), &st) == 0) {
            image->device = st.st_dev;
            image->inode = st.st_ino;
        }
        store = wsm_image_file_store(node, &err);
    }
    if (store) {
        image->file = g_strdup(store->file);
        wsm_record_store_check(store, &err);
    }
    if (err) {
        image->no_record = g_strdup(error_get_pretty(err));
        error_free(err);
    }
    return store;
}

static WsmImage *wsm_image_new(const WsmDisk *disk, BlockDriverState *bs)
{
    WsmImage *image = g_rc_box_new0(WsmImage);

    image->path = g_strdup(disk->path);
    image->name = g_strdup(disk->name);
    image->node = g_strdup(bdrv_get_node_name(bs));
    image->missing = image->map_disk = -1;
    return image;
}

WsmImage *wsm_image_renew(WsmImage *image, const WsmDisk *disk,
                          const char *map_node)
{
    BlockDriverState *bs = wsm_disk_bs(disk);
    WsmImage *now = wsm_image_new(disk, bs);
    g_autoptr(WsmRecordStore) store = wsm_image_store(now, bs);

    GLOBAL_STATE_CODE();
    now->map_node = g_strdup(map_node);
    if (image && !strcmp(image->node, now->node) &&
        image->device == now->device && image->inode == now->inode) {
        /* It may have been renamed */
        g_free(image->file);
        image->file = g_steal_pointer(&now->file);
        g_free(image->no_record);
        image->no_record = g_steal_pointer(&now->no_record);
        g_free(image->map_node);
        image->map_node = g_steal_pointer(&now->map_node);
        wsm_image_unref(now);
        return NULL;
    }
    wsm_image_look(now, bs, store);
    return now;
}

static void wsm_image_destroy(void *opaque)
{
    WsmImage *image = opaque;

    g_free(image->path);
    g_free(image->name);
    g_free(image->node);
    g_free(image->file);
    g_free(image->no_record);
    g_free(image->session);
    g_free(image->peer);
    g_free(image->problem);
    g_free(image->arriving);
    wsm_map_place_free(image->map_place);
    g_free(image->map_node);
}

WsmImage *wsm_image_ref(WsmImage *image)
{
    GLOBAL_STATE_CODE();
    return g_rc_box_acquire(image);
}

void wsm_image_unref(WsmImage *image)
{
    GLOBAL_STATE_CODE();
    if (image) {
        g_rc_box_release_full(image, wsm_image_destroy);
    }
}

/* What it said is known otherwise from now on */
static void wsm_image_forget_map(WsmImage *image)
{
    g_clear_pointer(&image->arriving, g_free);
    g_clear_pointer(&image->map_place, wsm_map_place_free);
    image->map = WSM_MAP_NONE;
    image->missing = image->map_disk = -1;
    image->map_is_there = false;
}

void wsm_image_set_state(WsmImage *image, WsmImageState state,
                         const QemuUUID *session, const char *peer)
{
    GLOBAL_STATE_CODE();
    image->state = state;
    wsm_image_forget_map(image);
    g_free(image->session);
    g_free(image->peer);
    image->session = session ? qemu_uuid_unparse_strdup(session) : NULL;
    image->peer = g_strdup(peer);
    image->time = g_get_real_time() / G_USEC_PER_SEC;
}

/*
 * From the image and its record into memory
 */

static bool wsm_image_take_runs(BdrvDirtyBitmap *bitmap, const char *base64,
                                uint32_t granularity, Error **errp)
{
    g_autofree uint8_t *runs = NULL;
    size_t size;

    if (!*base64) {
        return true;
    }
    runs = g_base64_decode(base64, &size);
    return wsm_bitmap_from_runs(bitmap, 0, bdrv_dirty_bitmap_size(bitmap),
                                runs, size, granularity, errp);
}

static bool wsm_image_take_point(BlockDriverState *bs, WsmRecordPoint *rp,
                                 Error **errp)
{
    WsmPoint point;
    QemuUUID id;

    if (qemu_uuid_parse(rp->id, &id) < 0) {
        error_setg(errp, "'%s' is no UUID", rp->id);
        return false;
    }
    if (!is_power_of_2(rp->granularity) ||
        rp->granularity < WSM_MIN_GRANULARITY ||
        rp->granularity > WSM_MAX_GRANULARITY) {
        error_setg(errp, "sync point '%s': granularity %u is not allowed",
                   rp->id, rp->granularity);
        return false;
    }
    if (!wsm_points_insert(bs, &id, wsm_points_last_order(bs) + 1,
                           rp->granularity, rp->rest, &point, errp)) {
        return false;
    }
    return wsm_image_take_runs(point.since, rp->since, rp->granularity,
                               errp) &&
           (!rp->rest || wsm_image_take_runs(point.rest, rp->rest,
                                             rp->granularity, errp));
}

/* The record's points, if the image is as it was when they were written */
static bool wsm_image_take_points(BlockDriverState *bs, WsmRecord *record,
                                  Error **errp)
{
    int64_t size = bdrv_getlength(bs);
    BlockDriverState *node;
    WsmFileStamp stamp;

    if (size < 0 || size != record->disk_size) {
        error_setg(errp, "the disk has %" PRId64 " bytes, but %" PRIu64
                   " when its sync points were recorded", size,
                   record->disk_size);
        return false;
    }
    if (!record->stamp) {
        error_setg(errp, "its record has sync points, but no 'stamp'");
        return false;
    }
    node = wsm_image_file_node(bs, errp);
    if (!node ||
        !wsm_record_stat(bdrv_raw_fd(node), node->filename, &stamp, errp) ||
        !wsm_record_unchanged(record->stamp, &stamp, errp)) {
        return false;
    }
    for (WsmRecordPointList *p = record->points; p; p = p->next) {
        if (!wsm_image_take_point(bs, p->value, errp)) {
            return false;
        }
    }
    return true;
}

bool wsm_image_activate(BlockDriverState *bs, Error **errp)
{
    GLOBAL_STATE_CODE();
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return bdrv_activate(bs, errp) == 0;
}

/*
 * An incoming migration that leaves the guest paused leaves the images
 * inactive, and then they do not show the bitmaps that are stored in them.
 */
bool wsm_image_take(WsmImage *image, BlockDriverState *bs, Error **errp)
{
    ERRP_GUARD();
    g_autoptr(WsmRecordStore) store = NULL;
    g_autoptr(WsmRecord) record = NULL;
    Error *err = NULL;

    GLOBAL_STATE_CODE();
    if (image->taken) {
        return true;
    }
    if (!wsm_image_activate(bs, errp)) {
        error_prepend(errp, "disk '%s': ", image->name);
        return false;
    }
    image->taken = true;
    g_clear_pointer(&image->problem, g_free);
    /* Nothing may be written between a look at the file and the tracking */
    bdrv_drained_begin(bs);
    store = wsm_image_store(image, bs);
    if (!wsm_points_unpersist(bs, &err) ||
        (store && !wsm_record_store_load(store, &record, &err)) ||
        (record && record->points &&
         !wsm_image_take_points(bs, record, &err))) {
        wsm_points_clear(bs);
        wsm_image_set_problem(image, err);
        trace_wsm_image_distrust(image->name, image->problem);
    }
    wsm_points_enable(bs);
    bdrv_drained_end(bs);
    return true;
}

void wsm_image_add_point(WsmImage *image, BlockDriverState *bs,
                         const QemuUUID *id, uint32_t granularity,
                         const BdrvDirtyBitmap *rest, unsigned max)
{
    Error *err = NULL;

    GLOBAL_STATE_CODE();
    if (max && !wsm_points_add(bs, id, granularity, rest, &err)) {
        warn_reportf_err(err, "disk '%s': no sync point is kept: ",
                         image->name);
    }
    wsm_points_limit(bs, max);
}

/*
 * From memory into the image and its record
 */

WsmRecord *wsm_image_record(WsmImage *image, BlockDriverState *bs,
                            WsmImageState state, const QemuUUID *session,
                            const char *peer)
{
    WsmRecord *record = g_new0(WsmRecord, 1);

    GLOBAL_STATE_CODE();
    record->state = state;
    record->session = session ? qemu_uuid_unparse_strdup(session)
                              : g_strdup(image->session ?: "");
    record->peer = g_strdup(peer);
    record->time = g_get_real_time() / G_USEC_PER_SEC;
    record->disk_size = MAX(bdrv_getlength(bs), 0);
    if (state == WSM_IMAGE_STATE_INCOMPLETE && image->map_is_there) {
        record->map_node = g_strdup(image->map_node);
    }
    if (state == WSM_IMAGE_STATE_INCOMPLETE && image->map_disk >= 0) {
        record->has_map_disk = true;
        record->map_disk = image->map_disk;
    }
    return record;
}

void wsm_image_warn(WsmImage *image, Error *err)
{
    if (qatomic_xchg(&image->told, true)) {
        error_free(err);
        return;
    }
    warn_reportf_err(err, "disk '%s': no record is kept of its image, so "
                     "nothing keeps a guest from being run from this copy when "
                     "it is stale: ", image->name);
}

void wsm_image_tell(WsmImage *image)
{
    Error *err = NULL;

    GLOBAL_STATE_CODE();
    if (image->no_record) {
        error_setg(&err, "%s", image->no_record);
        wsm_image_warn(image, err);
    }
}

void wsm_image_warn_current(const char *name, Error *err)
{
    warn_reportf_err(err, "disk '%s': this image is current, but its record "
                     "still says something else: ", name);
}

void wsm_image_mark(WsmImage *image, BlockDriverState *bs)
{
    /* Not that a file which was put in its place gets the record */
    g_autoptr(WsmRecordStore) store = wsm_image_store(image, bs);
    g_autoptr(WsmRecord) record = wsm_image_record(image, bs, image->state,
                                                   NULL, image->peer);
    Error *err = NULL;

    GLOBAL_STATE_CODE();
    if (!store) {
        return;
    }
    if (image->state != WSM_IMAGE_STATE_CURRENT) {
        if (!wsm_record_store_save(store, record, &err)) {
            wsm_image_warn(image, err);
        }
        return;
    }
    wsm_image_forget_map(image);
    if (!wsm_record_store_remove(store, &err)) {
        wsm_image_warn_current(image->name, err);
    } else if (image->file && !wsm_map_file_remove(image->file, &err)) {
        /* Without a record nobody believes it */
        error_free(err);
    }
}

static char *wsm_image_put_runs(BdrvDirtyBitmap *bitmap)
{
    g_autoptr(GByteArray) runs = g_byte_array_new();

    wsm_bitmap_to_runs(bitmap, 0, bdrv_dirty_bitmap_size(bitmap),
                       bdrv_dirty_bitmap_granularity(bitmap), runs);
    return g_base64_encode(runs->data, runs->len);
}

static WsmRecordPointList *wsm_image_put_points(BlockDriverState *bs)
{
    g_autoptr(GArray) points = wsm_points_list(bs);
    WsmRecordPointList *list = NULL;

    for (int i = points->len - 1; i >= 0; i--) {
        WsmPoint *point = &g_array_index(points, WsmPoint, i);
        WsmRecordPoint *rp = g_new0(WsmRecordPoint, 1);

        rp->id = qemu_uuid_unparse_strdup(&point->id);
        rp->granularity = bdrv_dirty_bitmap_granularity(point->since);
        rp->since = wsm_image_put_runs(point->since);
        rp->rest = point->rest ? wsm_image_put_runs(point->rest) : NULL;
        QAPI_LIST_PREPEND(list, rp);
    }
    return list;
}

bool wsm_image_stamp(BlockDriverState *bs, WsmFileStamp *stamp, Error **errp)
{
    BlockDriverState *node = wsm_image_file_node(bs, errp);

    GLOBAL_STATE_CODE();
    if (node && fsync(bdrv_raw_fd(node)) < 0) {
        error_setg_errno(errp, errno, "cannot sync '%s'", node->filename);
        return false;
    }
    return node && wsm_record_stamp(bdrv_raw_fd(node), node->filename, stamp,
                                    errp);
}

/* Some may not have fitted */
static void wsm_image_tell_left_out(WsmImage *image, unsigned all,
                                    const WsmRecordPointList *kept)
{
    unsigned n = QAPI_LIST_LENGTH(kept);

    if (n < all) {
        warn_report("disk '%s': only %u of its %u sync points fit into "
                    "attribute '" WSM_RECORD_ATTR "' of its image",
                    image->name, n, all);
    }
}

/* Into the record.  Returns false and sets @errp. */
static bool wsm_image_put_record(WsmImage *image, BlockDriverState *bs,
                                 const WsmRecordStore *store, Error **errp)
{
    g_autoptr(WsmRecord) record = wsm_image_record(image, bs, image->state,
                                                   NULL, image->peer);
    unsigned n;

    record->time = image->time ?: record->time;
    record->points = wsm_image_put_points(bs);
    if (!record->points && image->state == WSM_IMAGE_STATE_CURRENT) {
        return wsm_record_store_remove(store, errp);
    }
    n = QAPI_LIST_LENGTH(record->points);
    record->stamp = g_new0(WsmFileStamp, 1);
    if (!wsm_image_stamp(bs, record->stamp, errp) ||
        !wsm_record_store_save(store, record, errp)) {
        return false;
    }
    wsm_image_tell_left_out(image, n, record->points);
    return true;
}

/* Into the image, which must be active for it.  False and @errp on failure. */
static bool wsm_image_put_persistent(BlockDriverState *bs, bool inactivate,
                                     Error **errp)
{
    if (inactivate && !wsm_image_activate(bs, errp)) {
        return false;
    }
    wsm_points_persist(bs);
    return !inactivate || bdrv_inactivate(bs, errp) == 0;
}

/* At rest, would the points show what others do to the image? */
static bool wsm_image_can_keep_points(BlockDriverState *bs)
{
    /* cache=unsafe: what we store could outlive what it tells of */
    return wsm_image_is_flushed(bs) && bdrv_flush(bs) == 0 &&
           !wsm_image_has_data_file(bs);
}

void wsm_image_put(WsmImage *image, BlockDriverState *bs, bool inactivate)
{
    g_autoptr(WsmRecordStore) store = NULL;
    Error *err = NULL;

    GLOBAL_STATE_CODE();
    if (!image->taken) {
        return;
    }
    if (!wsm_image_can_keep_points(bs)) {
        wsm_points_clear(bs);
    }
    if (wsm_points_can_persist(bs)) {
        image->taken = !inactivate;
        if (!wsm_image_put_persistent(bs, inactivate, &err)) {
            warn_reportf_err(err, "disk '%s': no sync points are kept in its "
                             "image: ", image->name);
        }
        wsm_image_mark(image, bs);
        return;
    }
    store = wsm_image_store(image, bs);
    if (!store) {
        /* In memory they are safe, as long as QEMU lives */
        return;
    }
    if (!wsm_image_put_record(image, bs, store, &err)) {
        warn_reportf_err(err, "disk '%s': no sync points are kept in the "
                         "record of its image: ", image->name);
        wsm_image_mark(image, bs);
        return;
    }
    /* The record has them now; when the image is written again they are read */
    wsm_points_clear(bs);
    image->taken = false;
}
