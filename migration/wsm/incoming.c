/*
 * Whole-system migration: hooks in QEMU's own migration, at the destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-wsm.h"
#include "block/aio.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/wsm/clock.h"
#include "migration/wsm/multifd.h"
#include "migration/wsm/progress.h"
#include "migration/wsm/state.h"
#include "migration/wsm/wire/start.h"
#include "system/runstate.h"

/*
 * Connections
 */

bool wsm_incoming_accept(QIOChannelSocket *sioc)
{
    if (!migrate_whole_system() && !wsm_get()->rejoin) {
        return wsm_listen_wonder(&wsm_get()->listen, sioc);
    }
    wsm_listen_accept(&wsm_get()->listen, sioc);
    return true;
}

/* Any thread: it must not be served any more when QEMU closes it */
static void wsm_incoming_end_transport(void *opaque)
{
    Wsm *w = wsm_get();

    wsm_listen_disconnect(&w->listen, opaque);
    w->end_transport(opaque);
}

void wsm_incoming_listen(QIONetListener *listener)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    wsm_get()->end_transport = mis->transport_cleanup;
    mis->transport_cleanup = wsm_incoming_end_transport;
    for (size_t i = 0; i < listener->nsioc; i++) {
        /* More room than it has; multifd has so many channels at most */
        listen(listener->sioc[i]->fd, WSM_MAX_CHANNELS + UINT8_MAX);
    }
    if (migrate_whole_system()) {
        wsm_listen_add(&wsm_get()->listen, listener);
    }
}

/*
 * The capability
 */

void wsm_incoming_unfollow(Wsm *w)
{
    GLOBAL_STATE_CODE();
    if (w->follows) {
        w->follows = false;
        migrate_get_current()->
            capabilities[MIGRATION_CAPABILITY_WHOLE_SYSTEM] = false;
    }
}

/*
 * The main stream
 */

static void wsm_incoming_taken_back(void *opaque)
{
    Wsm *w = opaque;
    Error *err = NULL;

    error_setg(&err, "The source has taken the guest back before the "
               "handover; it runs on there");
    migrate_set_error(migrate_get_current(), err);
    wsm_session_set_error(&w->session, err);
    error_free(err);
}

static void wsm_incoming_maps(void *opaque, WsmCrashSafe state,
                              const char *why)
{
    Wsm *w = opaque;
    g_autofree char *session = qemu_uuid_unparse_strdup(&w->session.id);

    qapi_event_send_wsm_map(session, state, why);
}

static const WsmDestOps wsm_incoming_dest_ops = {
    .taken_back = wsm_incoming_taken_back,
    .maps = wsm_incoming_maps,
};

const WsmDestOps *wsm_incoming_ops(void)
{
    return &wsm_incoming_dest_ops;
}

void wsm_incoming_begin(Wsm *w, WsmStart *start, const char *refusal)
{
    QIONetListener *listener =
        migration_incoming_get_current()->transport_data;

    assert(!w->dest);
    w->dest = wsm_dest_new(&w->session, &w->options, &w->images, start,
                           &wsm_incoming_dest_ops, w);
    w->cleaning = false;
    wsm_progress_start(w);
    wsm_dest_start(w->dest, refusal);
    wsm_dest_set_templates(w->dest, w->templates, w->ring);
    wsm_multifd_set_incoming(wsm_dest_memory(w->dest));
    wsm_listen_set_taker(&w->listen, wsm_dest_take_channel, w->dest);
    if (listener) {
        wsm_listen_serve(&w->listen, listener);
    }
}

void wsm_incoming_release(Wsm *w)
{
    WsmDest *d = w->dest;

    GLOBAL_STATE_CODE();
    wsm_dest_stop(d);
    wsm_remember(w);
    wsm_listen_set_taker(&w->listen, NULL, NULL);
    w->dest = NULL;
    wsm_dest_free(d);
}

void wsm_incoming_schedule_run(QEMUBHFunc *cb, void *opaque)
{
    MigrationIncomingState *mis = migration_incoming_get_current();
    WsmDest *d = wsm_get()->dest;
    Error *err = NULL;

    if (!migrate_whole_system()) {
        migration_bh_schedule(cb, opaque);
        return;
    }
    if (!d) {
        error_setg(&err, "the guest's state came without the section 'wsm'");
    } else if (wsm_clock_loaded(wsm_get(), &err) &&
               wsm_dest_loaded(d, cb, opaque, &err)) {
        return;
    }
    error_report_err(err);
    /* The thread that reads it goes the way of a stream that broke */
    qemu_file_shutdown(mis->from_src_file);
}

/* Does it matter no more if the main stream breaks? */
static bool wsm_incoming_is_complete(void)
{
    WsmDest *d = wsm_get()->dest;

    return d && wsm_dest_was_told(d) && !migrate_postcopy_ram() &&
           wsm_session_phase(&wsm_get()->session) == WSM_PHASE_POSTCOPY;
}

int wsm_incoming_check_end(int ret)
{
    WsmDest *d = wsm_get()->dest;

    if (ret < 0 && wsm_incoming_is_complete()) {
        dirty_bitmap_mig_cancel_incoming();
        return 0;
    }
    /* Positive: the rest is for another to read */
    if (ret < 0 || !migrate_whole_system() || (ret && qemu_in_coroutine())) {
        return ret;
    }
    if (ret || !d || !wsm_dest_may_end(d)) {
        error_report("The main stream ended, but the migration has not");
        return -EINVAL;
    }
    return 0;
}

bool wsm_incoming_stays_stopped(void)
{
    RunState state = global_state_received() ? global_state_get_runstate()
                                             : RUN_STATE_RUNNING;

    GLOBAL_STATE_CODE();
    if (!wsm_get()->dest || runstate_is_live(state)) {
        return false;
    }
    runstate_set(state);
    return true;
}

bool wsm_incoming_recoverable(bool otherwise)
{
    WsmDest *d = wsm_get()->dest;

    return migrate_whole_system() ? d && wsm_dest_broke(d) : otherwise;
}

/* The guest can never run here; only the main thread may end QEMU */
static void wsm_incoming_exit_bh(void *opaque)
{
    WsmDest *d = wsm_get()->dest;

    if (d && wsm_dest_defer(d, wsm_incoming_exit_bh, NULL)) {
        return;
    }
    if (d) {
        wsm_dest_stop(d);
    }
    exit(EXIT_FAILURE);
}

static void wsm_incoming_report(void)
{
    MigrationState *ms = migrate_get_current();

    QEMU_LOCK_GUARD(&ms->error_mutex);
    if (ms->error) {
        error_report("%s", error_get_pretty(ms->error));
    }
}

/* As QEMU's thread of post-copy ends, but with nothing left to release */
static void G_NORETURN wsm_incoming_leave_thread(void)
{
    rcu_unregister_thread();
    migration_incoming_get_current()->have_listen_thread = false;
    object_unref(OBJECT(migrate_get_current()));
    qemu_event_set(&wsm_get()->thread_left);
    qemu_thread_exit(NULL);
}

bool wsm_incoming_give_up(void)
{
    MigrationIncomingState *mis = migration_incoming_get_current();
    WsmDest *d = wsm_get()->dest;
    QemuEvent never;
    bool cleaning;

    assert(!bql_locked());
    if (!d) {
        return false;
    }
    wsm_incoming_report();
    wsm_session_enter(&wsm_get()->session, WSM_PHASE_FAILED);
    if (mis->exit_on_error) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), wsm_incoming_exit_bh,
                                NULL);
        qemu_event_init(&never, false);
        qemu_event_wait(&never);
    }
    /* The main thread may be loading the guest's state, and fail, too */
    qemu_event_wait(&mis->main_thread_load_event);
    bql_lock();
    cleaning = wsm_get()->cleaning;
    bql_unlock();
    if (cleaning) {
        wsm_incoming_leave_thread();
    }
    return true;
}
