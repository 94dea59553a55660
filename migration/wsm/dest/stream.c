/*
 * Whole-system migration: the destination, from the handover to the end
 *
 * What follows from the decisions of dest/handover.h: the guest runs here, or
 * the main stream has to end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/aio.h"
#include "io/channel-buffer.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/misc.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/wsm/dest/dest.h"
#include "migration/wsm/trace.h"

#define WSM_WATCH_MS            100
/* The source opens a channel anew within seconds, if it can */
#define WSM_ALONE_NS            (10 * NANOSECONDS_PER_SECOND)

/*
 * The handover
 */

/* Main thread: the guest is ours */
static void wsm_dest_go_bh(void *opaque)
{
    WsmDest *d = opaque;

    if (wsm_life_is_over(&d->life)) {
        return;
    }
    wsm_session_set_downtime(d->session, wsm_now() - d->frozen_at);
    wsm_handover_run(&d->handover);
    wsm_session_advance(d->session, WSM_PHASE_FREEZE, WSM_PHASE_POSTCOPY);
    wsm_dest_drop_filters_bh(d);
}

bool wsm_dest_loaded(WsmDest *d, QEMUBHFunc *run, void *opaque, Error **errp)
{
    WsmMsg ready = { .type = WSM_MSG_READY, .epoch = 1 };

    if (!wsm_handover_loaded(&d->handover,
                             wsm_life_reached(&d->life, WSM_LIFE_SEALED), run,
                             opaque, errp)) {
        return false;
    }
    wsm_dest_say(d, &ready);
    return true;
}

void wsm_dest_go(WsmDest *d)
{
    if (wsm_handover_go(&d->handover)) {
        migration_bh_schedule(wsm_dest_go_bh, d);
    }
}

void wsm_dest_abort_bh(void *opaque)
{
    WsmDest *d = opaque;
    Error *err = NULL;

    if (wsm_life_is_over(&d->life)) {
        /* It has ended for another reason: the guest never runs here */
        return;
    }
    error_setg(&err, "The source has taken the guest back before the "
               "handover; it runs on there");
    migrate_set_error(migrate_get_current(), err);
    wsm_session_set_error(d->session, err);
    error_free(err);
    wsm_dest_watch_end(d);
}

void wsm_dest_abort(WsmDest *d)
{
    if (wsm_handover_abort(&d->handover)) {
        qemu_bh_schedule(d->abort_bh);
    }
}

/*
 * The end
 */

bool wsm_dest_is_in_use(WsmDest *d)
{
    return wsm_handover_runs(&d->handover) &&
           !wsm_life_reached(&d->life, WSM_LIFE_SECURING);
}

bool wsm_dest_end(WsmDest *d)
{
    return wsm_handover_end(&d->handover,
                            wsm_life_reached(&d->life, WSM_LIFE_SECURING));
}

bool wsm_dest_may_end(WsmDest *d)
{
    return wsm_handover_may_end(&d->handover,
                                wsm_life_reached(&d->life, WSM_LIFE_SECURED),
                                migrate_postcopy_ram());
}

/* Main thread: is there nothing any more that the main stream could bring? */
static bool wsm_dest_needs_no_stream(WsmDest *d)
{
    if (wsm_handover_is_lost(&d->handover)) {
        return true;
    }
    if (qatomic_read(&d->channel[0].up)) {
        d->alone_since = wsm_now();
    }
    /* As long as the source may ask, it should get an answer */
    return wsm_dest_may_end(d) &&
           (wsm_life_reached(&d->life, WSM_LIFE_TOLD) ||
            wsm_now() - d->alone_since > WSM_ALONE_NS);
}

static QEMUFile *wsm_dest_file(bool input)
{
    QIOChannelBuffer *bioc = qio_channel_buffer_new(1);
    QEMUFile *f;

    if (input) {
        bioc->data[0] = QEMU_VM_EOF;
        bioc->usage = 1;
    }
    f = input ? qemu_file_new_input(QIO_CHANNEL(bioc))
              : qemu_file_new_output(QIO_CHANNEL(bioc));
    object_unref(OBJECT(bioc));
    return f;
}

/*
 * QEMU waits for a stream to go on with, as migrate-recover would bring.  Give
 * it one in which there is nothing but its end: then it completes, or fails.
 */
static void wsm_dest_end_pause(MigrationIncomingState *mis)
{
    mis->from_src_file = wsm_dest_file(true);
    mis->to_src_file = wsm_dest_file(false);
    migrate_set_state(&mis->state, MIGRATION_STATUS_POSTCOPY_PAUSED,
                      MIGRATION_STATUS_POSTCOPY_ACTIVE);
    qemu_sem_post(&mis->postcopy_pause_sem_dst);
    if (mis->have_fault_thread) {
        qemu_sem_post(&mis->postcopy_pause_sem_fault);
    }
}

/* The stream may break, and QEMU may begin to wait, at any time */
static void wsm_dest_watch(void *opaque)
{
    MigrationIncomingState *mis = migration_incoming_get_current();
    WsmDest *d = opaque;

    if (mis->state == MIGRATION_STATUS_POSTCOPY_PAUSED &&
        wsm_dest_needs_no_stream(d)) {
        trace_wsm_dest_end_pause();
        wsm_dest_end_pause(mis);
    }
    timer_mod(d->watch, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + WSM_WATCH_MS);
}

static void wsm_dest_hang_up(void *opaque)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    if (mis->from_src_file) {
        qemu_file_shutdown(mis->from_src_file);
    }
}

void wsm_dest_watch_end(WsmDest *d)
{
    wsm_handover_end_stream(&d->handover, wsm_dest_hang_up, NULL);
    if (!d->watch) {
        d->alone_since = wsm_now();
        d->watch = timer_new_ms(QEMU_CLOCK_REALTIME, wsm_dest_watch, d);
        wsm_dest_watch(d);
    }
}

void wsm_dest_end_watching(WsmDest *d)
{
    g_clear_pointer(&d->watch, timer_free);
}
