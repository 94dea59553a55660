/*
 * Whole-system migration: the destination, from start to stop
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-wsm.h"
#include "block/aio-wait.h"
#include "block/block.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/misc.h"
#include "migration/migration.h"
#include "migration/qemu-file.h"
#include "migration/wsm/dest/check.h"
#include "migration/wsm/dest/dest.h"
#include "migration/wsm/image/guest-disk.h"
#include "migration/wsm/link/peer.h"
#include "migration/wsm/trace.h"
#include "migration/wsm/wire/runs.h"

/*
 * The filter's callbacks: any thread
 */

static void wsm_dest_say_range(WsmDestDisk *disk, WsmMsgType type,
                               int64_t offset, int64_t bytes)
{
    while (bytes) {
        WsmMsg msg = {
            .type = type,
            .disk = disk->index,
            .epoch = 1,
            .offset = offset,
            .bytes = MIN(bytes, WSM_MAX_ZERO),
        };

        wsm_dest_say(disk->d, &msg);
        offset += msg.bytes;
        bytes -= msg.bytes;
    }
}

static void wsm_dest_pull(void *opaque, int64_t offset, int64_t bytes)
{
    wsm_dest_say_range(opaque, WSM_MSG_PULL, offset, bytes);
}

static void wsm_dest_have(void *opaque, int64_t offset, int64_t bytes)
{
    wsm_dest_say_range(opaque, WSM_MSG_HAVE, offset, bytes);
}

static void wsm_dest_close_bh(void *opaque)
{
    WsmDest *d = opaque;
    WsmPlace *place;

    if (qatomic_read(&d->quit)) {
        QTAILQ_FOREACH(place, &d->places.all, next) {
            WsmDestConn *conn = container_of(place, WsmDestConn, place);

            wsm_channel_shutdown(&conn->c);
        }
    }
}

/*
 * Main thread; wsm_life_has_filters() is false.  The coroutines in the IOThread
 * use filters no more after the bottom half.
 */
static void wsm_dest_drop_filters(WsmDest *d, bool complete)
{
    aio_wait_bh_oneshot(d->ctx, wsm_dest_close_bh, d);
    for (unsigned i = 0; i < d->ndisks; i++) {
        WsmDestDisk *disk = &d->disk[i];

        if (disk->filter) {
            wsm_dest_drop_filter(disk, complete);
        }
    }
}

/*
 * Draining and stopping poll, and so run bottom halves.  One that frees @d must
 * not run within.
 */
bool wsm_dest_defer(WsmDest *d, QEMUBHFunc *cb, void *opaque)
{
    WsmDeferred deferred = { .cb = cb, .opaque = opaque };

    if (!wsm_life_polls(&d->life)) {
        return false;
    }
    g_array_append_val(d->deferred, deferred);
    return true;
}

/* Main thread: what was deferred may run now */
static void wsm_dest_run_deferred(WsmDest *d)
{
    for (unsigned i = 0; i < d->deferred->len; i++) {
        WsmDeferred *deferred = &g_array_index(d->deferred, WsmDeferred, i);

        aio_bh_schedule_oneshot(qemu_get_aio_context(), deferred->cb,
                                deferred->opaque);
    }
    g_array_set_size(d->deferred, 0);
}

void wsm_dest_drop_filters_bh(void *opaque)
{
    WsmDest *d = opaque;

    /* Draining runs bottom halves, this one among them */
    if (wsm_handover_is_ours(&d->handover) && !d->incomplete &&
        wsm_life_advance(&d->life, WSM_LIFE_SEALED, WSM_LIFE_DROPPING)) {
        wsm_dest_drop_filters(d, true);
        wsm_dest_start_securing(d);
        wsm_dest_run_deferred(d);
    }
}

static void wsm_dest_complete(void *opaque)
{
    WsmDestDisk *disk = opaque;

    trace_wsm_dest_complete(disk->name);
    if (qatomic_dec_fetch(&disk->d->incomplete) == 0) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(),
                                wsm_dest_drop_filters_bh, disk->d);
    }
}

static const BdrvPullOps wsm_dest_pull_ops = {
    .pull = wsm_dest_pull,
    .have = wsm_dest_have,
    .complete = wsm_dest_complete,
};

/*
 * Main thread: start and stop
 */

static bool wsm_dest_add_disk(WsmDest *d, const WsmDisk *ours, unsigned i,
                              Error **errp)
{
    ERRP_GUARD();
    const WsmDiskDesc *desc = &d->start.disk[i];
    WsmDestDisk *disk = &d->disk[i];
    BlockDriverState *bs;

    disk->d = d;
    disk->index = i;
    disk->size = d->disk_size[i] = desc->size;
    disk->name = g_strdup(ours->name);
    disk->path = g_strdup(ours->path);
    disk->address = g_strdup(ours->address);

    d->ndisks = i + 1;
    wsm_dest_look(disk, ours);
    bs = wsm_disk_bs(ours);
    if (!wsm_image_activate(bs, errp)) {
        error_prepend(errp, "disk '%s': destination: ", desc->name);
        return false;
    }
    if (!wsm_dest_prepare(disk, bs, errp)) {
        return false;
    }
    disk->filter = bdrv_pull_append(bs, d->start.granularity,
                                    &wsm_dest_pull_ops, disk, errp);
    if (!disk->filter) {
        error_prepend(errp, "disk '%s': destination: ", desc->name);
        return false;
    }
    disk->nodes = wsm_nodes_new(disk->filter, d->blocker);
    return wsm_dest_watch_guest(disk, errp);
}

static bool wsm_dest_add_disks(WsmDest *d, Error **errp)
{
    g_autoptr(GArray) all = wsm_disk_list();
    g_autoptr(GPtrArray) found = wsm_dest_check_disks(d->images, all,
                                                      &d->start, errp);

    if (!found) {
        return false;
    }
    d->disk = g_new0(WsmDestDisk, d->start.ndisks);
    d->disk_size = g_new0(int64_t, d->start.ndisks);
    for (unsigned i = 0; i < d->start.ndisks; i++) {
        if (!wsm_dest_add_disk(d, g_ptr_array_index(found, i), i, errp)) {
            return false;
        }
    }
    d->incomplete = d->ndisks;
    wsm_dest_mark_incomplete(d);
    return true;
}

WsmDest *wsm_dest_new(WsmSession *session, WsmOptionsStore *options,
                      WsmImages *images, WsmStart *start)
{
    QEMUFile *f = migration_incoming_get_current()->from_src_file;
    WsmDest *d = g_new0(WsmDest, 1);

    d->session = session;
    d->options = options;
    d->images = images;
    d->peer = wsm_peer_of_channel(qemu_file_get_ioc(f));
    d->start = *start;
    *start = (WsmStart) {};
    d->nchannels = d->start.channels;
    d->channel = g_new0(WsmDestChannel, d->nchannels);
    d->queue = g_queue_new();
    d->deferred = g_array_new(false, false, sizeof(WsmDeferred));
    wsm_life_init(&d->life);
    wsm_handover_init(&d->handover);
    wsm_places_init(&d->places);
    d->space.channels = d->nchannels;
    qemu_co_queue_init(&d->gone);
    qemu_co_queue_init(&d->control);
    qemu_co_queue_init(&d->changed);
    qemu_co_queue_init(&d->room);
    wsm_buffers_init(&d->buffers);
    d->abort_bh = qemu_bh_new(wsm_dest_abort_bh, d);
    error_setg(&d->blocker, "the disk's contents have not arrived yet; wait "
               "until query-wsm says 'completed'");
    qemu_mutex_init(&d->lock);
    wsm_session_begin(session, WSM_ROLE_DESTINATION, &d->start.session);
    return d;
}

void wsm_dest_start(WsmDest *d, const char *refusal)
{
    Error *err = NULL;

    d->iothread = iothread_create("wsm-dest", &error_abort);
    d->ctx = iothread_get_aio_context(d->iothread);
    if (refusal) {
        d->refusal = g_strdup(refusal);
    } else if (!wsm_dest_add_disks(d, &err)) {
        d->refusal = g_strdup(error_get_pretty(err));
        wsm_session_set_error(d->session, err);
        error_report_err(err);
    }
    wsm_dest_start_control(d);
    wsm_life_enter(&d->life, WSM_LIFE_OPEN);
}

bool wsm_dest_take_channel(void *opaque, QIOChannel *ioc)
{
    WsmDest *d = opaque;

    if (wsm_life_is_over(&d->life)) {
        return false;
    }
    wsm_dest_new_channel(d, ioc);
    return true;
}

bool wsm_dest_is_needed(WsmDest *d)
{
    return wsm_handover_is_ours(&d->handover) &&
           wsm_life(&d->life) <= WSM_LIFE_SECURING;
}

void wsm_dest_stop(WsmDest *d)
{
    WsmPhase phase = wsm_session_reached(d->session);

    if (wsm_life_is_over(&d->life)) {
        return;
    }
    /* A guest that runs must not see blocks that are not there yet */
    assert(!wsm_dest_is_in_use(d));
    wsm_life_enter(&d->life, WSM_LIFE_STOPPING);
    wsm_dest_end_watching(d);
    qatomic_set(&d->quit, true);
    wsm_dest_kick(d);
    wsm_dest_drop_filters(d, false);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&d->coroutines) > 0);
    iothread_destroy(d->iothread);
    wsm_buffers_destroy(&d->buffers);
    for (unsigned i = 0; i < d->ndisks; i++) {
        wsm_dest_leave_image(&d->disk[i], phase);
    }
    wsm_life_enter(&d->life, WSM_LIFE_RELEASED);
    wsm_dest_run_deferred(d);
}

void wsm_dest_free(WsmDest *d)
{
    assert(wsm_life(&d->life) == WSM_LIFE_RELEASED);
    for (unsigned i = 0; d->disk && i < d->start.ndisks; i++) {
        g_free(d->disk[i].name);
        g_free(d->disk[i].path);
        g_free(d->disk[i].address);
        qapi_free_WsmBasis(d->disk[i].basis);
    }
    g_free(d->disk);
    g_free(d->disk_size);
    g_free(d->channel);
    g_free(d->refusal);
    error_free(d->blocker);
    g_free(d->peer);
    qemu_bh_delete(d->abort_bh);
    g_queue_free_full(d->queue, g_free);
    g_array_unref(d->deferred);
    wsm_start_destroy(&d->start);
    wsm_handover_destroy(&d->handover);
    wsm_life_destroy(&d->life);
    qemu_mutex_destroy(&d->lock);
    g_free(d);
}

/*
 * The freeze
 */

int64_t wsm_dest_missing(WsmDest *d)
{
    int64_t missing = 0;

    for (unsigned i = 0; i < d->ndisks && wsm_life_has_filters(&d->life);
         i++) {
        BdrvPullStats stats;

        bdrv_pull_get_stats(d->disk[i].filter, &stats);
        missing += stats.missing;
    }
    return missing;
}

static void wsm_dest_run_is_missing(void *opaque, int64_t offset, int64_t bytes)
{
    bdrv_pull_set_missing(opaque, offset, bytes);
}

bool wsm_dest_set_missing(WsmDest *d, unsigned disk, const uint8_t *runs,
                          size_t size, Error **errp)
{
    return wsm_runs_for_each(runs, size, d->disk[disk].size,
                             d->start.granularity, wsm_dest_run_is_missing,
                             d->disk[disk].filter, errp);
}

bool wsm_dest_seal(WsmDest *d, Error **errp)
{
    d->frozen_at = wsm_now();
    for (unsigned i = 0; i < d->ndisks; i++) {
        int ret = bdrv_pull_seal(d->disk[i].filter);

        if (ret < 0) {
            error_setg_errno(errp, -ret, "disk '%s': blocks are still being "
                             "written", d->disk[i].name);
            return false;
        }
    }
    wsm_life_enter(&d->life, WSM_LIFE_SEALED);
    return true;
}

/*
 * What query-wsm tells
 */

static BdrvPullStats wsm_dest_stats(WsmDestDisk *disk)
{
    BdrvPullStats stats = disk->last;

    if (disk->filter) {
        bdrv_pull_get_stats(disk->filter, &stats);
    }
    return stats;
}

void wsm_dest_sample(WsmDest *d, WsmSample *out)
{
    for (unsigned i = 0; i < d->ndisks; i++) {
        out->data += stat64_get(&d->disk[i].received);
        out->dirty += wsm_dest_stats(&d->disk[i]).missing;
    }
}

static WsmDiskInfo *wsm_dest_disk_info(WsmDestDisk *disk)
{
    WsmDiskInfo *info = g_new0(WsmDiskInfo, 1);
    BdrvPullStats stats = wsm_dest_stats(disk);

    info->name = g_strdup(disk->name);
    info->path = g_strdup(disk->path);
    info->address = wsm_disk_shown_address(disk->address);
    info->size = disk->size;
    info->sent = stat64_get(&disk->received);
    info->zero = stat64_get(&disk->zero);
    info->skipped = stat64_get(&disk->skipped);
    info->missing = stats.missing;
    info->pushed = stats.pushed;
    info->pulled = stats.pulled;
    info->waiting_reads = stats.waiting;
    info->compared = stat64_get(&disk->compared);
    info->basis = disk->basis ? QAPI_CLONE(WsmBasis, disk->basis) : NULL;
    return info;
}

void wsm_dest_info(WsmDest *d, WsmInfo *info)
{
    for (int i = d->ndisks - 1; i >= 0; i--) {
        QAPI_LIST_PREPEND(info->disks, wsm_dest_disk_info(&d->disk[i]));
    }
    for (int i = d->nchannels - 1; i >= 0; i--) {
        WsmDestChannel *c = &d->channel[i];

        wsm_channel_info(info, i, qatomic_read(&c->up),
                         qatomic_read(&c->connections));
    }
}
