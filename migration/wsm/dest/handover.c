/*
 * Whole-system migration: the destination, from the handover to the end
 *
 * When may the guest run here, when does it never, and when is it all over?
 * The main stream, channel 0 and the disks each know a part of the answer, and
 * each of them can break or lie.
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
    int64_t ns;

    if (d->stopped) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&d->lock) {
        ns = wsm_now() - d->frozen_at;
    }
    WITH_QEMU_LOCK_GUARD(&d->w->lock) {
        d->w->downtime_ns = ns;
    }
    d->running = true;
    d->run(d->run_opaque);
    wsm_advance(d->w, WSM_PHASE_FREEZE, WSM_PHASE_POSTCOPY);
    wsm_dest_drop_filters_bh(d);
}

bool wsm_dest_loaded(WsmDest *d, QEMUBHFunc *run, void *opaque, Error **errp)
{
    WsmMsg ready = { .type = WSM_MSG_READY, .epoch = 1 };

    if (!qatomic_read(&d->epoch)) {
        error_setg(errp, "the guest's state came without the section "
                   "'wsm-freeze'");
        return false;
    }
    WITH_QEMU_LOCK_GUARD(&d->lock) {
        if (d->loaded || d->lost) {
            error_setg(errp, "the guest's state came %s",
                       d->loaded ? "twice" : "too late");
            return false;
        }
        d->run = run;
        d->run_opaque = opaque;
        d->loaded = true;
    }
    wsm_dest_say(d, &ready);
    return true;
}

bool wsm_dest_is_ready(WsmDest *d)
{
    QEMU_LOCK_GUARD(&d->lock);
    d->lost |= !d->loaded;
    d->pausing |= !d->lost;
    return !d->lost;
}

/*
 * The source hands over when READY has come, and gives up only in the freeze.
 * It begins that when SYNC has been answered; the package may not be here yet.
 */
bool wsm_dest_expects(WsmDest *d, const WsmMsg *msg)
{
    WsmPhase phase = wsm_phase(d->w);

    QEMU_LOCK_GUARD(&d->lock);
    switch (msg->type) {
    case WSM_MSG_GO:
        return d->loaded && !d->lost;
    case WSM_MSG_ABORT:
        return d->go || phase == WSM_PHASE_RAM_PRECOPY ||
               phase == WSM_PHASE_FREEZE;
    case WSM_MSG_SYNC:
    case WSM_MSG_POINT:
        return !msg->epoch || d->go;
    default:
        return !msg->epoch || d->loaded;
    }
}

void wsm_dest_go(WsmDest *d)
{
    bool first;

    WITH_QEMU_LOCK_GUARD(&d->lock) {
        first = !d->go && !d->lost;
        d->go |= first;
    }
    if (first) {
        migration_bh_schedule(wsm_dest_go_bh, d);
    }
}

/* Main thread: the source lets the guest run on, so it must never run here */
static void wsm_dest_abort_bh(void *opaque)
{
    WsmDest *d = wsm_get()->dest;
    Error *err = NULL;

    if (!d || d->stopped) {
        /* It has ended for another reason: the guest never runs here */
        return;
    }
    error_setg(&err, "The source has taken the guest back before the "
               "handover; it runs on there");
    migrate_set_error(migrate_get_current(), err);
    wsm_set_error(d->w, err);
    error_free(err);
    wsm_dest_watch_end(d);
}

void wsm_dest_abort(WsmDest *d)
{
    bool first;

    WITH_QEMU_LOCK_GUARD(&d->lock) {
        first = !d->go && !d->lost;
        d->lost |= first;
    }
    if (first) {
        migration_bh_schedule(wsm_dest_abort_bh, NULL);
    }
}

/*
 * The end
 */

bool wsm_dest_is_in_use(WsmDest *d)
{
    return d->running && !d->complete;
}

bool wsm_dest_end(WsmDest *d)
{
    QEMU_LOCK_GUARD(&d->lock);
    d->ended = d->go && !d->lost && qatomic_read(&d->filters_gone);
    return d->ended;
}

bool wsm_dest_may_end(WsmDest *d)
{
    QEMU_LOCK_GUARD(&d->lock);
    /* Without END memory may be missing, which only postcopy-ram allows */
    return d->ended || (d->go && !migrate_postcopy_ram() &&
                        (qatomic_read(&d->told) ||
                         qatomic_read(&d->secured) == WSM_DEST_SECURED));
}

/* Main thread: is there nothing any more that the main stream could bring? */
static bool wsm_dest_needs_no_stream(WsmDest *d)
{
    bool lost;

    WITH_QEMU_LOCK_GUARD(&d->lock) {
        lost = d->lost;
    }
    if (lost) {
        return true;
    }
    if (qatomic_read(&d->channel[0].up)) {
        d->alone_since = wsm_now();
    }
    /* As long as the source may ask, it should get an answer */
    return wsm_dest_may_end(d) &&
           (qatomic_read(&d->told) ||
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

void wsm_dest_watch_end(WsmDest *d)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    WITH_QEMU_LOCK_GUARD(&d->lock) {
        /* Whoever pauses closes the stream when he has had the lock */
        if (d->lost && !d->pausing && mis->from_src_file) {
            qemu_file_shutdown(mis->from_src_file);
        }
    }
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
