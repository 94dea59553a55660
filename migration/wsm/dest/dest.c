/*
 * Whole-system migration: the destination, from start to stop
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/aio-wait.h"
#include "block/block.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "migration/migration.h"
#include "migration/qemu-file.h"
#include "migration/wsm/dest/basis.h"
#include "migration/wsm/dest/check.h"
#include "migration/wsm/dest/dest.h"
#include "migration/wsm/dest/images.h"
#include "migration/wsm/dest/lack.h"
#include "migration/wsm/dest/map.h"
#include "migration/wsm/dest/points.h"
#include "migration/wsm/dest/sync.h"
#include "migration/wsm/dest/write.h"
#include "migration/wsm/link/peer.h"
#include "migration/wsm/wire/runs.h"
#include "migration/wsm/wire/start.h"

/* What must wait until the main thread has come back from a poll */
typedef struct WsmDeferred {
    QEMUBHFunc *cb;
    void *opaque;
} WsmDeferred;

struct WsmDest {
    /* Set in new, never changed */
    WsmSession *session;
    const WsmDestOps *ops;
    void *opaque;
    WsmStart start;             /* what the source told */
    WsmDestMemory *memory;      /* NULL: none comes by reference */
    WsmDestKept *kept;          /* BQL: older memory of the guest, or NULL */

    /* Each has its own rules */
    WsmDestLife life;
    WsmHandover handover;
    WsmLoop loop;
    WsmDestConns conns;
    WsmDestControl control;
    WsmDestDisks disks;
    WsmDestMaps maps;
    WsmDestWriter writer;
    WsmDestStream stream;
    WsmDestSync sync;

    /* BQL */
    GArray *deferred;           /* of WsmDeferred */
    int64_t frozen_at;          /* ns */
    WsmDeferred run;            /* lets the guest run; memory is missing yet */
    bool left;                  /* QEMU ends, and blocks are missing */
};

/*
 * The filters go
 */

static void wsm_dest_close_bh(void *opaque)
{
    WsmDest *d = opaque;

    if (wsm_loop_is_over(&d->loop)) {
        wsm_dest_conns_shutdown(&d->conns);
    }
}

/*
 * wsm_life_has_filters() is false.  The coroutines in the loop use filters no
 * more after the bottom half.
 */
static void wsm_dest_drop_filters(WsmDest *d, bool complete)
{
    if (d->loop.iothread) {
        aio_wait_bh_oneshot(d->loop.ctx, wsm_dest_close_bh, d);
    }
    for (unsigned i = 0; i < d->disks.n; i++) {
        WsmDestDisk *disk = &d->disks.disk[i];

        if (disk->filter) {
            wsm_dest_points_drop_filter(disk, complete);
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

/* What was deferred may run now */
static void wsm_dest_run_deferred(WsmDest *d)
{
    for (unsigned i = 0; i < d->deferred->len; i++) {
        WsmDeferred *deferred = &g_array_index(d->deferred, WsmDeferred, i);

        aio_bh_schedule_oneshot(qemu_get_aio_context(), deferred->cb,
                                deferred->opaque);
    }
    g_array_set_size(d->deferred, 0);
}

/* All that was missing is durable: the filters may go */
static void wsm_dest_durable_bh(void *opaque)
{
    WsmDest *d = opaque;

    /* Draining runs bottom halves, this one among them */
    if (wsm_life_advance(&d->life, WSM_LIFE_SECURING, WSM_LIFE_DROPPING) ||
        wsm_life_advance(&d->life, WSM_LIFE_UNSECURED, WSM_LIFE_DROPPING)) {
        wsm_dest_drop_filters(d, true);
        wsm_dest_remove_records(&d->sync);
        wsm_dest_run_deferred(d);
    }
}

/* If all is there and the guest is ours, it is to become durable */
static void wsm_dest_complete_bh(void *opaque)
{
    WsmDest *d = opaque;

    if (wsm_handover_is_ours(&d->handover) &&
        !qatomic_read(&d->disks.incomplete) &&
        wsm_life_advance(&d->life, WSM_LIFE_SEALED, WSM_LIFE_SECURING)) {
        wsm_dest_secure(&d->sync);
    }
}

/* Nothing is missing any more.  Any thread. */
static void wsm_dest_disks_complete(void *opaque)
{
    WsmDest *d = opaque;

    wsm_loop_main_bh(&d->loop, wsm_dest_complete_bh, d);
}

/*
 * The handover
 */

/* Nothing is missing that the guest needs to run */
static bool wsm_dest_is_ready(WsmDest *d, QEMUBHFunc *run, void *opaque,
                              Error **errp)
{
    WsmMsg ready = { .type = WSM_MSG_READY, .epoch = 1 };

    if (!wsm_handover_loaded(&d->handover,
                             wsm_life_reached(&d->life, WSM_LIFE_SEALED), run,
                             opaque, errp)) {
        return false;
    }
    wsm_dest_say(&d->control, &ready);
    return true;
}

static void wsm_dest_filled_bh(void *opaque)
{
    Error *err = NULL;
    WsmDest *d = opaque;

    if (!wsm_life_is_over(&d->life) &&
        !wsm_dest_is_ready(d, d->run.cb, d->run.opaque, &err)) {
        /* The stream broke meanwhile, or the source has taken it back */
        warn_report_err(err);
    }
}

/* In the loop: all that was missing of memory is here */
static void wsm_dest_filled(void *opaque)
{
    WsmDest *d = opaque;

    wsm_loop_main_bh(&d->loop, wsm_dest_filled_bh, d);
}

bool wsm_dest_loaded(WsmDest *d, QEMUBHFunc *run, void *opaque, Error **errp)
{
    if (d->run.cb) {
        error_setg(errp, "the guest's state came twice");
        return false;
    }
    if (d->memory && wsm_dest_memory_want(d->memory)) {
        d->run = (WsmDeferred) { .cb = run, .opaque = opaque };
        return true;
    }
    return wsm_dest_is_ready(d, run, opaque, errp);
}

/* The guest is ours */
static void wsm_dest_go_bh(void *opaque)
{
    WsmDest *d = opaque;

    if (wsm_life_is_over(&d->life)) {
        return;
    }
    wsm_session_set_downtime(d->session, wsm_now() - d->frozen_at);
    wsm_dest_maps_go(&d->maps);
    wsm_handover_run(&d->handover);
    wsm_session_advance(d->session, WSM_PHASE_FREEZE, WSM_PHASE_POSTCOPY);
    wsm_dest_complete_bh(d);
}

/* The source lets the guest run on, so it must never run here */
static void wsm_dest_abort_bh(void *opaque)
{
    WsmDest *d = opaque;

    /* If it has ended for another reason: the guest never runs here */
    if (!wsm_life_is_over(&d->life)) {
        d->ops->taken_back(d->opaque);
        wsm_dest_stream_end(&d->stream);
    }
}

/*
 * Connections: in the loop
 */

static void wsm_dest_repeat_bh(void *opaque)
{
    wsm_dest_disks_repeat(opaque);
}

/* A source comes, or comes back, when the guest is ours: what does it miss? */
static int coroutine_fn wsm_dest_say_state(WsmDest *d, WsmDestConn *conn)
{
    WsmMsg anew = { .type = WSM_MSG_ANEW, .epoch = 1 };
    int ret = 0;

    if (!wsm_handover_is_ours(&d->handover) ||
        !(wsm_features_in_use(&d->start) & WSM_FEATURE_LACK)) {
        return 0;
    }
    if (d->stream.over) {
        ret = wsm_dest_conn_send(conn, &anew, NULL);
    }
    return ret < 0 ? ret : wsm_dest_say_lack(&d->disks, conn);
}

/* The urgent channel is up: say again what may have been lost with it */
static bool coroutine_fn wsm_dest_channel_up(void *opaque, WsmDestConn *conn)
{
    WsmMsg ready = { .type = WSM_MSG_READY, .epoch = 1 };
    WsmDest *d = opaque;

    if (conn->c.id) {
        return true;
    }
    if (wsm_session_phase(d->session) == WSM_PHASE_SETUP &&
        wsm_dest_basis_say(&d->disks, conn) < 0) {
        return false;
    }
    if ((d->memory && wsm_dest_memory_up(d->memory, conn) < 0) ||
        wsm_dest_say_state(d, conn) < 0) {
        return false;
    }
    wsm_session_advance(d->session, WSM_PHASE_SETUP, WSM_PHASE_DISK_PRECOPY);
    if (wsm_handover_says_ready(&d->handover)) {
        wsm_dest_say(&d->control, &ready);
    }
    if (wsm_life_reached(&d->life, WSM_LIFE_SEALED)) {
        wsm_loop_bh(&d->loop, wsm_dest_repeat_bh, &d->disks);
    }
    wsm_dest_control_up(&d->control);
    return true;
}

static bool coroutine_fn wsm_dest_message(void *opaque, WsmDestConn *conn,
                                          const WsmMsg *msg, Error **errp)
{
    WsmDest *d = opaque;
    WsmPhase phase = wsm_session_phase(d->session);

    if (!wsm_handover_expects(&d->handover, msg, phase)) {
        error_setg(errp, "block channel %u: %s of epoch %u in phase '%s'",
                   conn->c.id, wsm_msg_name(msg->type), msg->epoch,
                   WsmPhase_str(phase));
        return false;
    }
    if (d->memory && msg->type == WSM_MSG_DATA) {
        wsm_dest_memory_link(d->memory, msg->length);
    }
    switch (msg->type) {
    case WSM_MSG_DATA:
    case WSM_MSG_ZERO:
    case WSM_MSG_HASH:
        return wsm_dest_on_block(&d->writer, conn, msg, errp);
    case WSM_MSG_SYNC:
        return wsm_dest_on_sync(&d->sync, conn, msg, errp);
    case WSM_MSG_POINT:
        return wsm_dest_on_point(&d->disks, conn, msg, errp);
    case WSM_MSG_PAGE:
        if (d->memory) {
            return wsm_dest_on_page(d->memory, conn, msg, errp);
        }
        break;
    case WSM_MSG_GO:
        if (wsm_handover_go(&d->handover)) {
            wsm_loop_main_bh(&d->loop, wsm_dest_go_bh, d);
        }
        return true;
    case WSM_MSG_ABORT:
        if (wsm_handover_abort(&d->handover)) {
            wsm_loop_main_bh(&d->loop, wsm_dest_abort_bh, d);
        }
        return true;
    default:
        break;
    }
    error_setg(errp, "block channel %u: %s in the middle of a session",
               conn->c.id, wsm_msg_name(msg->type));
    return false;
}

static void wsm_dest_channel_failed(void *opaque, Error *err)
{
    WsmDest *d = opaque;

    wsm_session_set_error(d->session, err);
    warn_report_err(err);
}

static const WsmDestConnOps wsm_dest_conn_ops = {
    .up = wsm_dest_channel_up,
    .message = wsm_dest_message,
    .failed = wsm_dest_channel_failed,
};

bool wsm_dest_take_channel(void *opaque, QIOChannel *ioc)
{
    WsmDest *d = opaque;

    if (wsm_life_is_over(&d->life)) {
        return false;
    }
    wsm_dest_conns_add(&d->conns, ioc);
    return true;
}

/*
 * No guest
 */

const char *wsm_dest_refusal(WsmDest *d)
{
    return wsm_dest_conns_refusal(&d->conns);
}

/* Channels that are up; those that come are refused */
static void coroutine_fn wsm_dest_give_up_co(void *opaque)
{
    WsmDest *d = opaque;
    WsmDestConn *conn = wsm_dest_conns_get(&d->conns, 0);
    const char *reason = wsm_dest_refusal(d);
    WsmMsg msg = {
        .type = WSM_MSG_GIVE_UP,
        .epoch = wsm_life_reached(&d->life, WSM_LIFE_SEALED),
        .length = MIN(strlen(reason), WSM_MAX_TEXT),
    };

    if (conn) {
        wsm_dest_conn_send(conn, &msg, reason);
    }
}

void wsm_dest_refuse(WsmDest *d, const char *reason)
{
    if (wsm_dest_conns_refuse(&d->conns, reason)) {
        wsm_loop_start(&d->loop, wsm_dest_give_up_co, d);
    }
}

/*
 * Start and stop
 */

/* @peer, which may be NULL, is taken */
static WsmDest *wsm_dest_create(WsmSession *session, WsmOptionsStore *options,
                                WsmImages *images, WsmStart *start, char *peer,
                                const WsmDestOps *ops, void *opaque)
{
    WsmDest *d = g_new0(WsmDest, 1);

    GLOBAL_STATE_CODE();
    d->session = session;
    d->ops = ops;
    d->opaque = opaque;
    d->start = *start;
    *start = (WsmStart) {};
    d->deferred = g_array_new(false, false, sizeof(WsmDeferred));

    wsm_life_init(&d->life);
    wsm_handover_init(&d->handover);
    wsm_dest_conns_init(&d->conns, &d->loop, &d->start, &wsm_dest_conn_ops, d);
    wsm_dest_control_init(&d->control, &d->loop, &d->conns);
    wsm_dest_disks_init(&d->disks, options, images, &d->start, peer);
    wsm_dest_disks_connect(&d->disks, &d->life, &d->control,
                           wsm_dest_disks_complete, d);
    wsm_dest_maps_init(&d->maps, &d->disks, &d->loop, ops->maps, opaque);
    wsm_dest_writer_init(&d->writer, &d->loop, &d->disks);
    wsm_dest_stream_init(&d->stream, session, &d->handover, &d->life,
                         &d->conns);
    d->sync = (WsmDestSync) {
        .loop = &d->loop,
        .session = session,
        .disks = &d->disks,
        .stream = &d->stream,
        .maps = &d->maps,
        .durable = wsm_dest_durable_bh,
        .opaque = d,
    };
    if (d->start.required & WSM_FEATURE_MEMORY) {
        d->memory = wsm_dest_memory_new(&d->loop, &d->disks, &d->control,
                                        wsm_dest_filled, d);
    }
    wsm_session_begin(session, WSM_ROLE_DESTINATION, &d->start.session);
    return d;
}

WsmDest *wsm_dest_new(WsmSession *session, WsmOptionsStore *options,
                      WsmImages *images, WsmStart *start,
                      const WsmDestOps *ops, void *opaque)
{
    QEMUFile *f = migration_incoming_get_current()->from_src_file;

    return wsm_dest_create(session, options, images, start,
                           wsm_peer_of_channel(qemu_file_get_ioc(f)), ops,
                           opaque);
}

static bool wsm_dest_add_disk(WsmDest *d, const WsmDisk *ours, Error **errp)
{
    WsmDestDisk *disk = wsm_dest_disks_add(&d->disks, ours);
    BlockDriverState *bs;

    wsm_dest_image_look(disk, ours);
    bs = wsm_disk_bs(ours);
    if (!wsm_image_activate(bs, errp)) {
        error_prepend(errp, "disk '%s': destination: ",
                      d->start.disk[disk->index].name);
        return false;
    }
    return wsm_dest_image_take(disk, bs, errp) &&
           wsm_dest_basis_choose(disk, errp) &&
           wsm_dest_points_expect(disk, errp) &&
           wsm_dest_map_make(&d->maps, disk, errp) &&
           wsm_dest_disk_open(disk, bs, errp);
}

static bool wsm_dest_add_disks(WsmDest *d, Error **errp)
{
    ERRP_GUARD();
    g_autoptr(GArray) all = wsm_disk_list();
    g_autoptr(GPtrArray) found = wsm_dest_check_disks(d->disks.images, all,
                                                      &d->start, errp);

    for (unsigned i = 0; found && i < found->len; i++) {
        if (!wsm_dest_add_disk(d, g_ptr_array_index(found, i), errp)) {
            return false;
        }
    }
    if (found) {
        wsm_dest_images_mark_incomplete(&d->disks);
    }
    return found;
}

/* Is there older memory in @file? */
static bool wsm_dest_look_for_kept(WsmDest *d, const char *file)
{
    Error *err = NULL;

    d->kept = wsm_dest_kept_open(file, &d->start, &d->loop, &d->life, &err);
    if (err) {
        warn_reportf_err(err, "The guest's memory of some time ago is not "
                         "used: ");
    } else if (d->kept) {
        wsm_dest_memory_set_kept(d->memory, d->kept);
    }
    return d->kept;
}

/* In the file that the user says, or beside any disk */
static void wsm_dest_find_kept(WsmDest *d)
{
    const char *file = d->disks.options->options->keep_memory_file;

    if (!(wsm_features_in_use(&d->start) & WSM_FEATURE_IMAGE)) {
        return;
    }
    if (*file) {
        wsm_dest_look_for_kept(d, file);
        return;
    }
    for (unsigned i = 0; i < d->disks.n; i++) {
        const char *image = d->disks.disk[i].image->file;
        g_autofree char *path = image ? wsm_kept_path(image) : NULL;

        if (path && wsm_dest_look_for_kept(d, path)) {
            return;
        }
    }
}

void wsm_dest_start(WsmDest *d, const char *refusal)
{
    Error *err = NULL;

    if (!wsm_loop_init(&d->loop, "wsm-dest", &err) ||
        (!refusal && !wsm_dest_add_disks(d, &err))) {
        wsm_dest_conns_refuse(&d->conns, error_get_pretty(err));
        wsm_session_set_error(d->session, err);
        error_report_err(err);
    } else if (refusal) {
        wsm_dest_conns_refuse(&d->conns, refusal);
    } else if (d->memory) {
        wsm_dest_find_kept(d);
    }
    wsm_dest_control_start(&d->control);
    wsm_life_enter(&d->life, WSM_LIFE_OPEN);
}

/*
 * After a crash
 */

WsmDest *wsm_dest_new_rejoined(WsmSession *session, WsmOptionsStore *options,
                               WsmImages *images, WsmLeft *left,
                               const WsmDestOps *ops, void *opaque)
{
    return wsm_dest_create(session, options, images, &left->start,
                           g_steal_pointer(&left->peer), ops, opaque);
}

static bool wsm_dest_rejoin_disk(WsmDest *d, WsmLeftDisk *left, Error **errp)
{
    WsmDestDisk *disk = wsm_dest_disks_add(&d->disks, left->ours);
    BlockDriverState *bs = wsm_disk_bs(left->ours);

    wsm_dest_image_look(disk, left->ours);
    if (!wsm_image_activate(bs, errp) ||
        !wsm_dest_image_join(disk, bs, errp)) {
        return false;
    }
    if (!wsm_dest_map_reopen(&d->maps, disk, left, errp) ||
        !wsm_dest_disk_open(disk, bs, errp)) {
        return false;
    }
    wsm_dest_map_tell_missing(disk);
    return true;
}

bool wsm_dest_rejoin(WsmDest *d, WsmLeft *left, QEMUBHFunc *over, Error **errp)
{
    bool ok = wsm_loop_init(&d->loop, "wsm-dest", errp);

    for (unsigned i = 0; ok && i < left->disks->len; i++) {
        ok = wsm_dest_rejoin_disk(d, g_ptr_array_index(left->disks, i), errp);
    }
    wsm_dest_control_start(&d->control);
    wsm_life_enter(&d->life, WSM_LIFE_OPEN);
    if (!ok || !wsm_dest_disks_seal(&d->disks, errp) ||
        !wsm_dest_maps_renew(&d->maps, errp)) {
        wsm_session_enter(d->session, WSM_PHASE_FAILED);
        wsm_dest_stop(d);
        return false;
    }
    wsm_handover_came_before(&d->handover);
    wsm_dest_stream_is_none(&d->stream, over, d->opaque);
    wsm_dest_maps_go(&d->maps);
    wsm_session_enter(d->session, WSM_PHASE_POSTCOPY);
    return true;
}

bool wsm_dest_is_needed(WsmDest *d)
{
    WsmLife now = wsm_life(&d->life);

    return wsm_handover_is_ours(&d->handover) && now < WSM_LIFE_SECURED &&
           now != WSM_LIFE_UNSECURED;
}

bool wsm_dest_may_leave(WsmDest *d)
{
    return wsm_dest_maps_hold(&d->maps) && !wsm_dest_conns_is_up(&d->conns, 0);
}

void wsm_dest_leave(WsmDest *d)
{
    GLOBAL_STATE_CODE();
    d->left = true;
    for (unsigned i = 0; wsm_life_has_filters(&d->life) && i < d->disks.n;
         i++) {
        bdrv_pull_set_error(d->disks.disk[i].filter, -EIO);
    }
}

static void coroutine_fn wsm_dest_checkpoint_co(void *opaque)
{
    wsm_dest_disks_checkpoint(opaque);
}

void wsm_dest_checkpoint(WsmDest *d)
{
    wsm_loop_await(&d->loop, wsm_dest_checkpoint_co, &d->disks);
}

void wsm_dest_stop(WsmDest *d)
{
    WsmPhase phase = wsm_session_reached(d->session);

    GLOBAL_STATE_CODE();
    if (wsm_life_is_over(&d->life)) {
        return;
    }
    /* A guest that runs must not see blocks that are not there yet */
    assert(!wsm_dest_is_in_use(d) || d->left);
    wsm_life_enter(&d->life, WSM_LIFE_STOPPING);
    wsm_dest_stream_stop(&d->stream);
    if (d->memory) {
        wsm_dest_memory_stop(d->memory);
    }
    wsm_loop_quit(&d->loop);
    wsm_dest_drop_filters(d, false);
    wsm_loop_stop(&d->loop);
    wsm_loop_destroy(&d->loop);
    wsm_dest_maps_close(&d->maps);
    if (d->kept) {
        /* When the guest runs here it is older than its memory */
        wsm_dest_kept_close(g_steal_pointer(&d->kept),
                            wsm_dest_is_complete(d) &&
                            wsm_handover_is_ours(&d->handover));
    }
    for (unsigned i = 0; i < d->disks.n; i++) {
        WsmDestDisk *disk = &d->disks.disk[i];

        wsm_dest_points_release(disk);
        wsm_dest_basis_release(disk);
        wsm_dest_image_leave(disk, phase);
    }
    wsm_life_enter(&d->life, WSM_LIFE_RELEASED);
    wsm_dest_run_deferred(d);
}

void wsm_dest_free(WsmDest *d)
{
    assert(wsm_life(&d->life) == WSM_LIFE_RELEASED);
    wsm_dest_memory_unref(d->memory);
    wsm_dest_writer_destroy(&d->writer);
    wsm_dest_maps_destroy(&d->maps);
    wsm_dest_disks_destroy(&d->disks);
    wsm_dest_control_destroy(&d->control);
    wsm_dest_conns_destroy(&d->conns);
    wsm_handover_destroy(&d->handover);
    wsm_life_destroy(&d->life);
    wsm_start_destroy(&d->start);
    g_array_unref(d->deferred);
    g_free(d);
}

/*
 * What the main stream and the user ask
 */

unsigned wsm_dest_disks(WsmDest *d)
{
    return d->disks.n;
}

size_t wsm_dest_max_runs(WsmDest *d, unsigned disk)
{
    return wsm_runs_max_size(DIV_ROUND_UP(d->disks.disk[disk].size,
                                          d->start.granularity));
}

bool wsm_dest_set_missing(WsmDest *d, unsigned disk, const uint8_t *runs,
                          size_t size, Error **errp)
{
    return wsm_dest_map_set_missing(&d->disks.disk[disk], runs, size, errp) &&
           wsm_dest_disk_set_missing(&d->disks.disk[disk], runs, size, errp);
}

bool wsm_dest_seal(WsmDest *d, Error **errp)
{
    d->frozen_at = wsm_now();
    return wsm_dest_disks_seal(&d->disks, errp);
}

bool wsm_dest_broke(WsmDest *d)
{
    return wsm_handover_broke(&d->handover);
}

bool wsm_dest_is_in_use(WsmDest *d)
{
    return wsm_handover_runs(&d->handover) && !wsm_dest_is_complete(d);
}

bool wsm_dest_is_complete(WsmDest *d)
{
    return wsm_life_reached(&d->life, WSM_LIFE_SECURING);
}

bool wsm_dest_was_told(WsmDest *d)
{
    return wsm_life_reached(&d->life, WSM_LIFE_TOLD);
}

bool wsm_dest_end(WsmDest *d)
{
    return wsm_handover_end(&d->handover, wsm_dest_is_complete(d));
}

bool wsm_dest_may_end(WsmDest *d)
{
    return wsm_dest_stream_may_end(&d->stream);
}

void wsm_dest_set_templates(WsmDest *d, WsmTemplates *templates,
                            WsmRingSpec *ring)
{
    GLOBAL_STATE_CODE();
    if (d->memory && templates &&
        (wsm_features_in_use(&d->start) & WSM_FEATURE_TEMPLATE)) {
        wsm_dest_memory_set_templates(d->memory, templates, ring);
    }
}

WsmDestMemory *wsm_dest_memory(WsmDest *d)
{
    return d->memory;
}

void wsm_dest_info(WsmDest *d, WsmInfo *info)
{
    info->memory = d->memory ? wsm_dest_memory_info(d->memory) : NULL;
    wsm_dest_disks_info(&d->disks, info);
    info->crash_safe = wsm_dest_maps_info(&d->maps);
    wsm_dest_conns_info(&d->conns, info);
}

void wsm_dest_sample(WsmDest *d, WsmSample *out)
{
    wsm_dest_disks_sample(&d->disks, out);
}
