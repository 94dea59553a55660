/*
 * Whole-system migration: the destination's maps of what is missing
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "block/block_int-common.h"
#include "block/thread-pool.h"
#include "migration/wsm/dest/map.h"
#include "migration/wsm/image/image-file.h"
#include "migration/wsm/image/map-file.h"
#include "migration/wsm/map/log.h"
#include "migration/wsm/wire/start.h"

#define WSM_CHECKPOINT_NS       NANOSECONDS_PER_SECOND

void wsm_dest_maps_init(WsmDestMaps *maps, WsmDestDisks *disks, WsmLoop *loop,
                        WsmDestMapsTell *tell, void *opaque)
{
    *maps = (WsmDestMaps) {
        .disks = disks, .loop = loop, .tell = tell, .opaque = opaque,
        .state = WSM_CRASH_SAFE_OFF,
    };
    qemu_mutex_init(&maps->lock);
    qemu_co_queue_init(&maps->waiting);
    disks->maps = maps;
}

void wsm_dest_maps_destroy(WsmDestMaps *maps)
{
    g_free(maps->why);
    qemu_mutex_destroy(&maps->lock);
}

static WsmCrashSafe wsm_dest_maps_state(WsmDestMaps *maps)
{
    QEMU_LOCK_GUARD(&maps->lock);
    return maps->state;
}

bool wsm_dest_maps_hold(WsmDestMaps *maps)
{
    QEMU_LOCK_GUARD(&maps->lock);
    return maps->state == WSM_CRASH_SAFE_ON && !maps->why;
}

/*
 * Write: in coroutines, the guest's among them
 */

static void wsm_dest_maps_tell_bh(void *opaque)
{
    WsmDestMaps *maps = opaque;
    g_autofree char *why = NULL;
    WsmCrashSafe state;

    WITH_QEMU_LOCK_GUARD(&maps->lock) {
        state = maps->state;
        why = g_strdup(maps->why);
    }
    if (why) {
        warn_report("If this host crashes from now on in post-copy, the "
                    "guest's disks are lost: %s", why);
    }
    maps->tell(maps->opaque, state, why);
}

static void wsm_dest_maps_become(WsmDestMaps *maps, WsmCrashSafe state)
{
    WITH_QEMU_LOCK_GUARD(&maps->lock) {
        if (maps->state == state) {
            return;
        }
        maps->state = state;
        qemu_co_enter_all(&maps->waiting, &maps->lock);
    }
    wsm_loop_main_bh(maps->loop, wsm_dest_maps_tell_bh, maps);
}

/* @ret is why that of @disk cannot be written: the first to fail is told */
static void wsm_dest_maps_fail(WsmDestMaps *maps, const WsmDestDisk *disk,
                               int ret)
{
    QEMU_LOCK_GUARD(&maps->lock);
    if (!maps->why) {
        maps->why = g_strdup_printf("cannot write the map of disk '%s': %s",
                                    disk->name, strerror(-ret));
    }
    qemu_co_enter_all(&maps->waiting, &maps->lock);
}

/* In a thread: @opaque is the name of an image */
static int wsm_dest_map_unlink(void *opaque)
{
    return wsm_map_file_remove(opaque, NULL) ? 0 : -EIO;
}

/* Nobody shall find anything.  0 or -errno. */
static int coroutine_fn wsm_dest_map_remove(WsmDestDisk *disk)
{
    return disk->map_place->file
           ? thread_pool_submit_co(wsm_dest_map_unlink, disk->map_place->file)
           : wsm_map_log_erase(disk->map);
}

/*
 * Nobody shall believe any of them.  0, or -errno if that cannot be helped;
 * then it is tried again when the guest flushes again.
 */
static int coroutine_fn wsm_dest_maps_void(WsmDestMaps *maps)
{
    for (unsigned i = 0; i < maps->disks->n; i++) {
        WsmDestDisk *disk = &maps->disks->disk[i];
        int ret = wsm_map_log_void(disk->map);

        if (ret < 0 && wsm_dest_map_remove(disk) < 0) {
            return ret;
        }
    }
    wsm_dest_maps_become(maps, WSM_CRASH_SAFE_LOST);
    return 0;
}

/* Wait for the first commit.  *@failed: one cannot be written any more. */
static WsmCrashSafe coroutine_fn wsm_dest_maps_wait(WsmDestMaps *maps,
                                                    bool *failed)
{
    QEMU_LOCK_GUARD(&maps->lock);
    while (maps->state == WSM_CRASH_SAFE_PREPARED && !maps->why) {
        qemu_co_queue_wait(&maps->waiting, &maps->lock);
    }
    *failed = maps->why;
    return maps->state;
}

/* Of a flush; see block/pull-on-demand.h */
static int coroutine_fn wsm_dest_mark(void *opaque, const BdrvPullRange *ranges,
                                      size_t nb)
{
    WsmDestDisk *disk = opaque;
    WsmDestMaps *maps = disk->all->maps;
    g_autofree WsmMapRange *range = g_new(WsmMapRange, nb);
    bool failed;
    WsmCrashSafe state = wsm_dest_maps_wait(maps, &failed);
    int ret;

    if (state == WSM_CRASH_SAFE_OFF || state == WSM_CRASH_SAFE_LOST) {
        return 0;
    }
    for (size_t i = 0; i < nb; i++) {
        range[i] = (WsmMapRange) { ranges[i].offset, ranges[i].bytes };
    }
    if (!failed) {
        ret = wsm_map_log_mark(disk->map, range, nb);
        if (ret == 0) {
            return 0;
        }
        wsm_dest_maps_fail(maps, disk, ret);
    }
    return wsm_dest_maps_void(maps);
}

bool wsm_dest_map_set_missing(WsmDestDisk *disk, const uint8_t *runs,
                              size_t size, Error **errp)
{
    return !disk->map ||
           wsm_map_log_set_missing(disk->map, runs, size, errp);
}

/* The guest's disks are here as soon as all maps say so */
static void coroutine_fn wsm_dest_maps_commit_co(void *opaque)
{
    WsmDestMaps *maps = opaque;

    for (unsigned i = 0; i < maps->disks->n; i++) {
        WsmDestDisk *disk = &maps->disks->disk[i];
        int ret = wsm_map_log_commit(disk->map);

        if (ret < 0) {
            wsm_dest_maps_fail(maps, disk, ret);
            wsm_dest_maps_void(maps);
            return;
        }
    }
    wsm_dest_maps_become(maps, WSM_CRASH_SAFE_ON);
}

/*
 * Make
 */

static WsmMapHead wsm_dest_map_head(const WsmDestDisk *disk)
{
    const WsmStart *start = disk->all->start;
    WsmMapHead head = {
        .session = start->session,
        .disk = disk->index,
        .disks = start->ndisks,
        .channels = start->channels,
        .protocol = start->version,
        .features = start->features,
        .granularity = start->granularity,
        .size = disk->size,
    };

    /* Ours: by that it is known when the image can have no record */
    pstrcpy(head.path, sizeof(head.path), disk->path);
    pstrcpy(head.name, sizeof(head.name), start->disk[disk->index].name);
    return head;
}

/*
 * If flushes of the image, or of the map in @blk, write nothing to their disk
 * (cache mode 'unsafe'), all is in the host's memory: a map of that is good as
 * long as the kernel runs.  False, and @errp, if this one has no name.
 */
static bool wsm_dest_map_set_boot(const WsmDestDisk *disk, BlockBackend *blk,
                                  WsmMapHead *head, Error **errp)
{
    head->boot = (QemuUUID) {};
    if (wsm_image_is_flushed(disk->bs) && wsm_image_is_flushed(blk_bs(blk))) {
        return true;
    }
    head->boot = wsm_map_boot();
    if (qemu_uuid_is_null(&head->boot)) {
        error_setg(errp, "it is open with cache.no-flush=on, and this host "
                   "does not tell which kernel runs");
        return false;
    }
    return true;
}

static bool wsm_dest_map_create(WsmDestDisk *disk, Error **errp)
{
    g_autoptr(WsmMapPlace) place = wsm_image_map_place(disk->image, errp);
    WsmMapHead head = wsm_dest_map_head(disk);
    BlockBackend *blk;

    if (!place) {
        return false;
    }
    if (!wsm_map_place_create(place, disk->path, disk->size, errp)) {
        return false;
    }
    blk = wsm_map_place_open(place, errp);
    if (!blk || !wsm_dest_map_set_boot(disk, blk, &head, errp)) {
        blk_unref(blk);
        wsm_map_place_remove(place, NULL);
        return false;
    }
    disk->map = wsm_map_log_new(blk, &head);
    disk->map_place = g_steal_pointer(&place);
    blk_unref(blk);
    return true;
}

bool wsm_dest_map_reopen(WsmDestMaps *maps, WsmDestDisk *disk,
                         WsmLeftDisk *left, Error **errp)
{
    WsmMapHead *head = &left->map.head;
    bool was_flushed = qemu_uuid_is_null(&head->boot);

    GLOBAL_STATE_CODE();
    if (!wsm_dest_map_set_boot(disk, left->blk, head, errp)) {
        error_prepend(errp, "disk '%s': no map can be kept: ", disk->name);
        return false;
    }
    if (!was_flushed && qemu_uuid_is_null(&head->boot)) {
        int ret = bdrv_flush(disk->bs);

        if (ret < 0) {
            error_setg_errno(errp, -ret, "disk '%s': cannot flush what was "
                             "written in cache mode 'unsafe'", disk->name);
            return false;
        }
    }
    disk->map = wsm_map_log_reopen(left->blk, &left->map);
    disk->map_place = g_steal_pointer(&left->place);
    disk->ops.mark = wsm_dest_mark;
    maps->state = WSM_CRASH_SAFE_PREPARED;
    maps->went = true;
    return true;
}

void wsm_dest_map_tell_missing(WsmDestDisk *disk)
{
    const WsmMissing *missing = wsm_map_log_peek(disk->map);
    int64_t offset = 0, bytes = 0;

    while (wsm_missing_next(missing, offset + bytes, &offset, &bytes)) {
        bdrv_pull_set_missing(disk->filter, offset, bytes);
    }
}

typedef struct WsmDestRenew {
    WsmDestMaps *maps;
    const WsmDestDisk *failed;
    int ret;
} WsmDestRenew;

static void coroutine_fn wsm_dest_maps_renew_co(void *opaque)
{
    WsmDestRenew *renew = opaque;

    for (unsigned i = 0; i < renew->maps->disks->n && renew->ret >= 0; i++) {
        renew->failed = &renew->maps->disks->disk[i];
        renew->ret = wsm_map_log_commit(renew->failed->map);
    }
}

bool wsm_dest_maps_renew(WsmDestMaps *maps, Error **errp)
{
    WsmDestRenew renew = { .maps = maps };
    bool ran = wsm_loop_await(maps->loop, wsm_dest_maps_renew_co, &renew);

    GLOBAL_STATE_CODE();
    assert(ran);        /* it is new */
    if (renew.ret < 0) {
        error_setg_errno(errp, -renew.ret, "cannot write the map of disk '%s'",
                         renew.failed->name);
    }
    return renew.ret >= 0;
}

/* A file goes, too, unless @keep.  Nobody uses it any more.  BQL. */
static void wsm_dest_map_close(WsmDestDisk *disk, bool keep)
{
    Error *err = NULL;

    if (disk->map) {
        wsm_map_log_free(g_steal_pointer(&disk->map));
        if (!keep && disk->map_place->file &&
            !wsm_map_place_remove(disk->map_place, &err)) {
            warn_report_err(err);
        }
        g_clear_pointer(&disk->map_place, wsm_map_place_free);
    }
}

static void wsm_dest_maps_close_all(WsmDestMaps *maps, bool keep)
{
    for (unsigned i = 0; i < maps->disks->n; i++) {
        wsm_dest_map_close(&maps->disks->disk[i], keep);
    }
}

/* There can be no map of one disk, so there is none of any */
static void wsm_dest_maps_none(WsmDestMaps *maps, Error *err)
{
    WITH_QEMU_LOCK_GUARD(&maps->lock) {
        maps->why = g_strdup(error_get_pretty(err));
        maps->state = WSM_CRASH_SAFE_OFF;
    }
    wsm_dest_maps_close_all(maps, false);
    warn_reportf_err(err, "If this host crashes in post-copy, the guest's "
                     "disks are lost: ");
}

bool wsm_dest_map_make(WsmDestMaps *maps, WsmDestDisk *disk, Error **errp)
{
    OnOffAuto wanted = wsm_option(disk->all->options, WSM_OPT_CRASH_SAFE);
    Error *err = NULL;

    GLOBAL_STATE_CODE();
    if (wanted == ON_OFF_AUTO_OFF || maps->why) {
        return true;
    }
    if (wsm_dest_map_create(disk, &err)) {
        disk->ops.mark = wsm_dest_mark;
        maps->state = WSM_CRASH_SAFE_PREPARED;
        return true;
    }
    error_prepend(&err, "disk '%s': destination: no map of missing blocks can "
                  "be kept (option 'crash-safe' is '%s'): ",
                  disk->all->start->disk[disk->index].name,
                  OnOffAuto_str(wanted));
    if (wanted == ON_OFF_AUTO_ON) {
        error_propagate(errp, err);
        return false;
    }
    wsm_dest_maps_none(maps, err);
    return true;
}

/* What has arrived is taken off, so that less is fetched again after a crash */
static void coroutine_fn wsm_dest_maps_checkpoint_co(void *opaque)
{
    WsmDestMaps *maps = opaque;
    WsmDestLife *life = maps->disks->life;

    while (!wsm_loop_is_over(maps->loop) && wsm_life(life) == WSM_LIFE_SEALED &&
           wsm_dest_maps_state(maps) != WSM_CRASH_SAFE_LOST) {
        wsm_loop_sleep(maps->loop, WSM_CHECKPOINT_NS);
        if (wsm_life(life) == WSM_LIFE_SEALED &&
            wsm_dest_disks_unmarked(maps->disks)) {
            wsm_dest_disks_checkpoint(maps->disks);
        }
    }
}

void wsm_dest_maps_go(WsmDestMaps *maps)
{
    GLOBAL_STATE_CODE();
    if (maps->state != WSM_CRASH_SAFE_PREPARED) {
        return;
    }
    for (unsigned i = 0; i < maps->disks->n; i++) {
        bdrv_pull_arm(maps->disks->disk[i].filter);
    }
    maps->went = true;
    wsm_loop_start(maps->loop, wsm_dest_maps_commit_co, maps);
    wsm_loop_start(maps->loop, wsm_dest_maps_checkpoint_co, maps);
}

/*
 * The end
 */

void coroutine_fn wsm_dest_maps_remove(WsmDestMaps *maps)
{
    bool lost = wsm_dest_maps_state(maps) == WSM_CRASH_SAFE_LOST;

    for (unsigned i = 0; i < maps->disks->n; i++) {
        WsmDestDisk *disk = &maps->disks->disk[i];

        /*
         * If it stays, nobody believes it: there is no record with it, or, on a
         * node, it says itself that nothing is missing, unless it is void.
         */
        if (disk->map && (disk->map_place->file || lost)) {
            wsm_dest_map_remove(disk);
        }
    }
}

void wsm_dest_maps_close(WsmDestMaps *maps)
{
    GLOBAL_STATE_CODE();
    wsm_dest_maps_close_all(maps, maps->went &&
                            !wsm_life_reached(maps->disks->life,
                                              WSM_LIFE_DROPPED));
}

WsmCrashInfo *wsm_dest_maps_info(WsmDestMaps *maps)
{
    WsmCrashInfo *info = g_new0(WsmCrashInfo, 1);

    QEMU_LOCK_GUARD(&maps->lock);
    info->state = maps->state;
    info->why = g_strdup(maps->why);
    info->unmarked = wsm_dest_disks_unmarked(maps->disks);
    return info;
}
