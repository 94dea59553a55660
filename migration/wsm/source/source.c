/*
 * Whole-system migration: the source, from start to stop
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-wsm.h"
#include "block/aio-wait.h"
#include "block/block.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/migration.h"
#include "migration/qemu-file.h"
#include "migration/wsm/image/busy.h"
#include "migration/wsm/image/guest-disk.h"
#include "migration/wsm/image/storage.h"
#include "migration/wsm/source/progress.h"
#include "migration/wsm/source/source.h"
#include "migration/wsm/trace.h"

#define WSM_TRACK_STEP          (64 * GiB)      /* of a disk, at a time */

/*
 * Main thread: start and stop
 */

static GPtrArray *wsm_source_select(const WsmOptionsStore *options,
                                    GArray *all,
                                    WsmExcludedDiskList **excluded,
                                    Error **errp)
{
    GPtrArray *selected = wsm_disk_select(all, options->options->disks,
                                          excluded, errp);

    if (selected && selected->len > WSM_MAX_DISKS) {
        error_setg(errp, "the guest has %u disks, at most %d can be migrated",
                   selected->len, WSM_MAX_DISKS);
        g_ptr_array_unref(selected);
        return NULL;
    }
    return selected;
}

bool wsm_source_check(const WsmOptionsStore *options, WsmImages *images,
                      Error **errp)
{
    g_autoptr(GArray) all = wsm_disk_list();
    g_autoptr(GPtrArray) selected = NULL;
    WsmExcludedDiskList *excluded = NULL;

    selected = wsm_source_select(options, all, &excluded, errp);
    qapi_free_WsmExcludedDiskList(excluded);
    return selected && wsm_busy_check(selected, errp) &&
           wsm_images_check(images, errp);
}

/* Nobody may resize the disk while we have it */
static BlockBackend *wsm_source_open_disk(BlockDriverState *bs, Error **errp)
{
    BlockBackend *blk = blk_new(bdrv_get_aio_context(bs),
                                BLK_PERM_CONSISTENT_READ,
                                BLK_PERM_ALL & ~BLK_PERM_RESIZE);

    blk_set_allow_aio_context_change(blk, true);
    if (blk_insert_bs(blk, bs, errp) < 0) {
        blk_unref(blk);
        return NULL;
    }
    return blk;
}

static bool wsm_source_add_disk(WsmSource *s, WsmDisk *disk, Error **errp)
{
    ERRP_GUARD();
    unsigned i = s->ndisks;
    WsmSourceDisk *d = &s->disk[i];
    int64_t size = blk_getlength(disk->blk);

    if (size < 0) {
        error_setg_errno(errp, -size, "disk '%s': cannot get its size",
                         disk->name);
        return false;
    }
    if (strlen(disk->path) > WSM_MAX_PATH ||
        strlen(disk->name) > WSM_MAX_PATH) {
        error_setg(errp, "disk '%s': its path or name has more than %d bytes",
                   disk->name, WSM_MAX_PATH);
        return false;
    }
    d->blk = wsm_source_open_disk(blk_bs(disk->blk), errp);
    if (!d->blk) {
        error_prepend(errp, "disk '%s': ", disk->name);
        return false;
    }
    /* A new overlay would take writes that our bitmap does not see */
    d->bs = blk_bs(d->blk);
    d->nodes = wsm_nodes_new(d->bs, s->blocker);
    d->allocated = wsm_source_allocated(d->bs);
    d->s = s;
    d->index = i;
    d->size = s->disk_size[i] = size;
    s->start.disk[i] = (WsmDiskDesc) {
        .path = g_strdup(disk->path),
        .name = g_strdup(disk->name),
        .address = g_strdup(disk->address),
        .file = wsm_storage_name(d->bs),
        .marks = wsm_storage_marks(d->bs),
        .size = size,
    };
    wsm_storage_leave_notes(d->bs, i, &s->start.session, s->notes);
    d->name = s->start.disk[i].name;
    d->hold = wsm_hold_new(d->nodes, d->name, &s->session->handed_over);
    s->start.ndisks = s->ndisks = i + 1;
    bdrv_ref(d->bs);
    return wsm_source_add_points(s, d, disk, errp);
}

static void wsm_source_free_other(void *nodes)
{
    wsm_nodes_free(nodes);
}

/* A job on a disk that stays would make the freeze fail */
static void wsm_source_block_others(WsmSource *s, GArray *all,
                                    GPtrArray *selected)
{
    s->others = g_ptr_array_new_with_free_func(wsm_source_free_other);
    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);

        if (blk_supports_write_perm(disk->blk) &&
            !g_ptr_array_find(selected, disk, NULL)) {
            g_ptr_array_add(s->others, wsm_nodes_new_jobs(blk_bs(disk->blk),
                                                          s->other_blocker));
        }
    }
}

static bool wsm_source_add_disks(WsmSource *s, Error **errp)
{
    g_autoptr(GArray) all = wsm_disk_list();
    g_autoptr(GPtrArray) selected = NULL;

    selected = wsm_source_select(s->options, all, &s->excluded, errp);
    if (!selected) {
        return false;
    }
    s->disk = g_new0(WsmSourceDisk, selected->len);
    s->disk_size = g_new0(int64_t, selected->len);
    s->start.disk = g_new0(WsmDiskDesc, selected->len);
    wsm_source_block_others(s, all, selected);
    for (unsigned i = 0; i < selected->len; i++) {
        if (!wsm_source_add_disk(s, g_ptr_array_index(selected, i), errp)) {
            return false;
        }
    }
    return true;
}

/*
 * A write that began before its disk had a bitmap and ends after the block was
 * read would be lost; so all that is in flight ends before anything is read.
 */
static bool wsm_source_track(WsmSource *s, Error **errp)
{
    for (unsigned i = 0; i < s->ndisks; i++) {
        WsmSourceDisk *d = &s->disk[i];

        if (!wsm_work_add_disk(s->work, blk_bs(d->blk), d->size, errp)) {
            return false;
        }
    }
    bdrv_drain_all();
    return true;
}

static void wsm_source_changed(void *opaque)
{
    WsmSource *s = opaque;

    wsm_loop_wake(&s->loop);
}

static void wsm_source_pass_over(void *opaque, WsmPassState pass)
{
    WsmSource *s = opaque;

    if (pass == WSM_PASS_PUSH) {
        s->sync_wanted = true;
        wsm_loop_wake(&s->loop);
        return;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->pass_done = true;
        qemu_cond_broadcast(&s->cond);
    }
}

static void wsm_source_compared(void *opaque, const WsmReq *req,
                                int64_t differ)
{
    WsmSource *s = opaque;
    WsmSourceDisk *d = &s->disk[req->disk];

    stat64_add(&d->compared, req->bytes);
    stat64_add(&d->equal, req->bytes - differ);
    trace_wsm_source_compared(d->name, req->offset, req->bytes, differ);
}

static const WsmWorkOps wsm_source_work_ops = {
    .changed = wsm_source_changed,
    .pass_over = wsm_source_pass_over,
    .compared = wsm_source_compared,
};

static void wsm_source_add_channels(WsmSource *s)
{
    s->channel = g_new0(WsmSourceChannel, s->nchannels);
    for (unsigned i = 0; i < s->nchannels; i++) {
        WsmSourceChannel *c = &s->channel[i];

        c->s = s;
        wsm_channel_init(&c->c, i, true);
        wsm_connector_init(&c->connector);
        qemu_co_queue_init(&c->idle);
    }
}

WsmSource *wsm_source_new(WsmSession *session, WsmOptionsStore *options,
                          WsmImages *images, const char *peer)
{
    WsmSource *s = g_new0(WsmSource, 1);

    s->session = session;
    s->options = options;
    s->images = images;
    s->peer = peer;
    s->start.version = WSM_PROTOCOL_VERSION;
    s->start.oldest = WSM_PROTOCOL_OLDEST;
    s->start.features = WSM_FEATURES;
    s->start.granularity = wsm_option(options, WSM_OPT_GRANULARITY);
    qemu_uuid_generate(&s->start.session);
    s->nchannels = s->start.channels =
        1 + wsm_option(options, WSM_OPT_CHANNELS);
    wsm_buffers_init(&s->buffers);
    ratelimit_init(&s->limit);
    ratelimit_init(&s->compare_limit);
    qemu_mutex_init(&s->lock);
    qemu_cond_init(&s->cond);
    error_setg(&s->blocker, "the disk is being migrated");
    error_setg(&s->other_blocker, "the guest is being migrated, and a block "
               "job would make that fail; wait until it has ended");
    s->notes = g_ptr_array_new_with_free_func(g_free);
    wsm_source_add_channels(s);
    wsm_session_begin(session, WSM_ROLE_SOURCE, &s->start.session);
    return s;
}

bool wsm_source_start(WsmSource *s, Error **errp)
{
    if (!wsm_loop_init(&s->loop, "wsm-source", errp)) {
        return false;
    }
    s->work = wsm_work_new(s->loop.ctx, s->nchannels, s->start.granularity,
                           &wsm_source_work_ops, s);
    return wsm_source_add_disks(s, errp) && wsm_source_track(s, errp);
}

static void wsm_source_stop_coroutines(WsmSource *s)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&s->aborting));
    wsm_loop_quit(&s->loop);
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        qemu_cond_broadcast(&s->cond);
    }
    for (unsigned i = 0; i < s->nchannels; i++) {
        wsm_connector_quit(&s->channel[i].connector);
        wsm_channel_shutdown(&s->channel[i].c);
    }
    wsm_loop_stop(&s->loop);
}

/* The disk is the guest's or the user's alone again */
static void wsm_source_let_go(WsmSource *s, WsmSourceDisk *d)
{
    wsm_source_settle(s, d);
    wsm_hold_free(g_steal_pointer(&d->hold));
    wsm_work_release_disk(s->work, d->index);
    wsm_nodes_free(g_steal_pointer(&d->nodes));
    blk_unref(g_steal_pointer(&d->blk));
    bdrv_unref(d->bs);
    if (d->bs_points) {
        bdrv_unref(g_steal_pointer(&d->bs_points));
    }
}

void wsm_source_stop(WsmSource *s)
{
    if (s->stopped) {
        return;
    }
    s->stopped = true;
    wsm_source_stop_coroutines(s);
    wsm_work_stop(s->work);
    wsm_storage_remove_notes(s->notes);
    /* All, as disks may have backing files in common */
    for (unsigned i = 0; i < s->ndisks; i++) {
        wsm_hold_end(s->disk[i].hold);
    }
    for (unsigned i = 0; i < s->ndisks; i++) {
        wsm_source_let_go(s, &s->disk[i]);
    }
    g_clear_pointer(&s->others, g_ptr_array_unref);
    s->released = true;
}

void wsm_source_free(WsmSource *s)
{
    assert(s->released);
    wsm_loop_destroy(&s->loop);
    for (unsigned i = 0; i < s->nchannels; i++) {
        WsmSourceChannel *c = &s->channel[i];

        wsm_channel_destroy(&c->c);
        wsm_connector_destroy(&c->connector);
    }
    for (unsigned i = 0; i < s->ndisks; i++) {
        wsm_source_free_points(&s->disk[i]);
    }
    wsm_work_free(s->work);
    wsm_buffers_destroy(&s->buffers);
    g_free(s->channel);
    g_free(s->disk);
    g_free(s->disk_size);
    wsm_start_destroy(&s->start);
    qapi_free_WsmExcludedDiskList(s->excluded);
    error_free(s->fatal);
    error_free(s->blocker);
    error_free(s->other_blocker);
    g_ptr_array_unref(s->notes);
    ratelimit_destroy(&s->limit);
    ratelimit_destroy(&s->compare_limit);
    qemu_cond_destroy(&s->cond);
    qemu_mutex_destroy(&s->lock);
    g_free(s);
}

/*
 * Main thread: what query-wsm tells
 */

int64_t wsm_source_equal(WsmSource *s)
{
    int64_t equal = 0;

    for (unsigned i = 0; i < s->ndisks; i++) {
        equal += stat64_get(&s->disk[i].equal);
    }
    return equal;
}

int64_t wsm_source_sent(WsmSource *s)
{
    int64_t sent = 0;

    for (unsigned i = 0; i < s->ndisks; i++) {
        sent += stat64_get(&s->disk[i].sent);
    }
    return sent;
}

static WsmDiskInfo *wsm_source_disk_info(WsmSource *s, WsmSourceDisk *d)
{
    WsmDiskInfo *info = g_new0(WsmDiskInfo, 1);
    bool postcopy = wsm_session_phase(s->session) == WSM_PHASE_POSTCOPY;

    info->name = g_strdup(d->name);
    info->path = g_strdup(s->start.disk[d->index].path);
    info->address = wsm_disk_shown_address(s->start.disk[d->index].address);
    info->size = d->size;
    info->sent = stat64_get(&d->sent);
    info->zero = stat64_get(&d->zero);
    info->dirty = wsm_work_dirty(s->work, d->index);
    info->missing = postcopy ? info->dirty : 0;
    info->pushed = stat64_get(&d->pushed);
    info->pulled = stat64_get(&d->pulled);
    info->compared = stat64_get(&d->compared);
    info->equal = stat64_get(&d->equal);
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        info->basis = d->basis ? QAPI_CLONE(WsmBasis, d->basis) : NULL;
    }
    return info;
}

void wsm_source_info(WsmSource *s, WsmInfo *info)
{
    for (int i = s->ndisks - 1; i >= 0; i--) {
        QAPI_LIST_PREPEND(info->disks, wsm_source_disk_info(s, &s->disk[i]));
    }
    for (WsmExcludedDiskList *e = s->excluded; e; e = e->next) {
        WsmExcludedDisk *copy = g_new(WsmExcludedDisk, 1);

        copy->name = g_strdup(e->value->name);
        copy->reason = g_strdup(e->value->reason);
        QAPI_LIST_PREPEND(info->excluded, copy);
    }
    for (int i = s->nchannels - 1; i >= 0; i--) {
        WsmSourceChannel *c = &s->channel[i];

        wsm_channel_info(info, i, qatomic_read(&c->up),
                         qatomic_read(&c->connection));
    }
}
