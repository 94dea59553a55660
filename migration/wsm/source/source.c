/*
 * Whole-system migration: the source, from start to stop
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/aio-wait.h"
#include "block/block.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/busy.h"
#include "migration/wsm/image/guest-disk.h"
#include "migration/wsm/image/storage.h"
#include "migration/wsm/source/leaving.h"
#include "migration/wsm/source/ops.h"
#include "migration/wsm/source/points.h"
#include "migration/wsm/source/source.h"

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
    if (!wsm_source_disk_open(d, blk_bs(disk->blk), s->blocker, errp)) {
        error_prepend(errp, "disk '%s': ", disk->name);
        return false;
    }
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
    wsm_source_describe_leaving(s);
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

static void wsm_source_add_channels(WsmSource *s)
{
    s->channel = g_new0(WsmSourceChannel, s->nchannels);
    for (unsigned i = 0; i < s->nchannels; i++) {
        wsm_source_channel_init(&s->channel[i], i, &s->start, &s->target,
                                &s->loop, &wsm_source_channel_ops, s);
    }
}

WsmSource *wsm_source_new(WsmSession *session, WsmOptionsStore *options,
                          WsmImages *images, const char *peer,
                          SocketAddress *target)
{
    WsmSource *s = g_new0(WsmSource, 1);
    unsigned kinds;

    s->session = session;
    s->options = options;
    s->images = images;
    s->peer = peer;
    s->target = target;
    s->start.version = WSM_PROTOCOL_VERSION;
    s->start.oldest = WSM_PROTOCOL_OLDEST;
    s->start.granularity = wsm_option(options, WSM_OPT_GRANULARITY);
    qemu_uuid_generate(&s->start.session);
    s->nchannels = s->start.channels =
        1 + wsm_option(options, WSM_OPT_CHANNELS);
    s->start.features = WSM_FEATURE_LACK;
    kinds = wsm_option(options, WSM_OPT_MEMORY_REFERENCES);
    if (kinds) {
        s->start.features = WSM_FEATURES & ~(WSM_FEATURE_PACKING |
                                             WSM_FEATURES_ACCEL);
        if (!(kinds & BIT(WSM_MEMORY_KIND_IMAGE))) {
            s->start.features &= ~WSM_FEATURE_IMAGE;
        }
        s->start.required = WSM_FEATURE_MEMORY;
        s->memory = wsm_source_memory_new(kinds);
    }
    if (wsm_option(options, WSM_OPT_DISK_PACKING)) {
        /* A destination that cannot do it gets the data as it is */
        s->start.features |= WSM_FEATURES & WSM_FEATURE_PACKING;
    }
    wsm_buffers_init(&s->buffers);
    ratelimit_init(&s->limit);
    ratelimit_init(&s->compare_limit);
    wsm_milestones_init(&s->milestones, session);
    error_setg(&s->blocker, "the disk is being migrated");
    error_setg(&s->other_blocker, "the guest is being migrated, and a block "
               "job would make that fail; wait until it has ended");
    s->notes = g_ptr_array_new_with_free_func(g_free);
    wsm_source_add_channels(s);
    wsm_session_begin(session, WSM_ROLE_SOURCE, &s->start.session);
    return s;
}

void wsm_source_set_accel(WsmSource *s, uint32_t accel, char *only_here,
                          bool paced)
{
    s->accel = accel;
    s->only_here = only_here;
    s->paced = paced;
    if (accel) {
        s->start.features |= WSM_FEATURES_ACCEL;
    }
}

bool wsm_source_tells_clock(const WsmSource *s)
{
    uint32_t there = qatomic_read(&s->accel_there);

    return there && (s->paced || !(there & s->accel));
}

void wsm_source_set_target(WsmSource *s, SocketAddress *target)
{
    GLOBAL_STATE_CODE();
    qapi_free_SocketAddress(s->target);
    s->target = target;
    wsm_source_redirect_leaving(s);
}

bool wsm_source_start(WsmSource *s, Error **errp)
{
    if (!wsm_loop_init(&s->loop, "wsm-source", errp)) {
        return false;
    }
    s->work = wsm_work_new(s->loop.ctx, s->nchannels, s->start.granularity,
                           &wsm_source_work_ops, s);
    if (!wsm_source_add_disks(s, errp) || !wsm_source_track(s, errp)) {
        return false;
    }
    if (s->memory) {
        wsm_source_memory_start(s->memory, s->work);
    }
    return true;
}

static void wsm_source_stop_coroutines(WsmSource *s)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&s->aborting));
    wsm_loop_quit(&s->loop);
    wsm_wake_waiting(&s->milestones);
    for (unsigned i = 0; i < s->nchannels; i++) {
        wsm_source_channel_quit(&s->channel[i]);
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
    if (s->memory) {
        wsm_source_memory_stop(s->memory);
    }
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

Error *wsm_source_why(WsmSource *s, const Error *seen, bool closed)
{
    Error *fatal = wsm_fatal(&s->milestones);

    if (fatal) {
        return fatal;
    }
    if (seen && wsm_session_phase(s->session) == WSM_PHASE_SETUP &&
        (closed || qatomic_read(&s->opened)) && !qatomic_read(&s->answered)) {
        return wsm_source_unanswered(s, seen);
    }
    return seen ? error_copy(seen) : NULL;
}

bool wsm_source_is_anew(WsmSource *s)
{
    return qatomic_read(&s->anew);
}

void wsm_source_free(WsmSource *s)
{
    assert(s->released);
    wsm_loop_destroy(&s->loop);
    g_free(s->only_here);
    for (unsigned i = 0; i < s->nchannels; i++) {
        wsm_source_channel_destroy(&s->channel[i]);
    }
    for (unsigned i = 0; i < s->ndisks; i++) {
        wsm_source_free_points(&s->disk[i]);
    }
    wsm_work_free(s->work);
    wsm_source_memory_unref(s->memory);
    wsm_buffers_destroy(&s->buffers);
    g_free(s->channel);
    g_free(s->disk);
    g_free(s->disk_size);
    wsm_start_destroy(&s->start);
    qapi_free_SocketAddress(s->target);
    qapi_free_WsmExcludedDiskList(s->excluded);
    error_free(s->blocker);
    error_free(s->other_blocker);
    g_ptr_array_unref(s->notes);
    ratelimit_destroy(&s->limit);
    ratelimit_destroy(&s->compare_limit);
    wsm_milestones_destroy(&s->milestones);
    g_free(s);
}

/*
 * Main thread: what query-wsm tells
 */

void wsm_source_info(WsmSource *s, WsmInfo *info)
{
    bool postcopy = wsm_session_phase(s->session) == WSM_PHASE_POSTCOPY;

    for (int i = s->ndisks - 1; i >= 0; i--) {
        WsmDiskInfo *disk = wsm_source_disk_info(&s->disk[i], &s->start.disk[i],
                                                 wsm_work_dirty(s->work, i),
                                                 postcopy);

        QAPI_LIST_PREPEND(info->disks, disk);
    }
    for (WsmExcludedDiskList *e = s->excluded; e; e = e->next) {
        WsmExcludedDisk *copy = g_new(WsmExcludedDisk, 1);

        copy->name = g_strdup(e->value->name);
        copy->reason = g_strdup(e->value->reason);
        QAPI_LIST_PREPEND(info->excluded, copy);
    }
    info->memory = s->memory ? wsm_source_memory_info(s->memory) : NULL;
    for (int i = s->nchannels - 1; i >= 0; i--) {
        WsmSourceChannel *c = &s->channel[i];

        wsm_channel_info(info, i, qatomic_read(&c->up),
                         qatomic_read(&c->connection));
    }
}
