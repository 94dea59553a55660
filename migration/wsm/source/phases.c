/*
 * Whole-system migration: the source's walk through the phases
 *
 * What the migration thread does, and how it has the coroutines in the
 * IOThread do their part: it schedules a bottom half there, and waits for the
 * milestone that comes of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/thread-pool.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qapi/qapi-types-migration.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/wsm/image/bitmap-runs.h"
#include "migration/wsm/image/storage.h"
#include "migration/wsm/policy/passes.h"
#include "migration/wsm/source/basis.h"
#include "migration/wsm/source/leaving.h"
#include "migration/wsm/source/ops.h"
#include "migration/wsm/source/phases.h"
#include "migration/wsm/source/points.h"
#include "migration/wsm/source/progress.h"
#include "migration/wsm/source/watch.h"
#include "migration/wsm/trace.h"

#define WSM_WAIT_MS             100     /* look for cancel this often */
#define WSM_SILENCE_S           10      /* then nobody seems to listen */
#define WSM_ABORT_NS            (500 * SCALE_MS)
#define WSM_ABORT_POLL_NS       (5 * SCALE_MS)

static bool wsm_source_handed_over(WsmSource *s)
{
    WsmPhase phase = wsm_session_phase(s->session);

    return phase == WSM_PHASE_POSTCOPY || phase == WSM_PHASE_COMPLETED;
}

bool wsm_source_interrupted(WsmSource *s)
{
    MigrationState *ms = migrate_get_current();
    g_autoptr(Error) fatal = NULL;

    if (wsm_loop_is_over(&s->loop) || !migration_is_running() ||
        qatomic_read(&ms->state) == MIGRATION_STATUS_CANCELLING ||
        qemu_file_get_error(ms->to_dst_file)) {
        return true;
    }
    if (!wsm_source_handed_over(s)) {
        fatal = wsm_fatal(&s->milestones);
    }
    if (fatal) {
        migrate_set_error(ms, fatal);
    }
    /* The return path's thread may have seen the stream break before us */
    if (migrate_has_error(ms)) {
        qemu_file_set_error(ms->to_dst_file, -EIO);
        return true;
    }
    return false;
}

/* Wait until @m is reached.  Returns 0 or -errno. */
static int wsm_source_wait(WsmSource *s, WsmMilestone m)
{
    while (!wsm_wait(&s->milestones, m, WSM_WAIT_MS)) {
        wsm_source_watch(s);
        if (wsm_source_interrupted(s)) {
            return -ECANCELED;
        }
    }
    return 0;
}

static void wsm_source_begin_pass_bh(void *opaque)
{
    WsmSource *s = opaque;

    wsm_work_begin_pass(s->work);
}

/* Send what is dirty once.  Returns 0 or -errno; sets what *@p has of it. */
static int wsm_source_pass(WsmSource *s, WsmPass *p)
{
    int64_t begin = wsm_now(), sent_before = wsm_source_sent(s);
    int64_t equal_before = wsm_source_equal(s);
    int ret;

    wsm_unreach(&s->milestones, WSM_PASS_DONE);
    wsm_loop_bh(&s->loop, wsm_source_begin_pass_bh, s);
    ret = wsm_source_wait(s, WSM_PASS_DONE);
    p->ns = MAX(wsm_now() - begin, 1);
    p->sent = wsm_source_sent(s) - sent_before;
    if (p->sent > s->most_sent) {
        s->most_sent = p->sent;
        s->speed = p->sent * 1e9 / p->ns;
    }
    p->equal = wsm_source_equal(s) - equal_before;
    return ret;
}

static void wsm_source_sync_bh(void *opaque)
{
    WsmSource *s = opaque;

    s->control.sync = true;
    wsm_loop_wake(&s->loop);
}

/* Send the disks often enough.  Returns 0 or -errno. */
static int wsm_source_passes(WsmSource *s)
{
    int64_t before = INT64_MAX;
    WsmPass p;
    int ret;

    do {
        ret = wsm_source_pass(s, &p);
        if (ret < 0) {
            return ret;
        }
        p.before = before;
        p.dirty = before = wsm_work_all_dirty(s->work);
        p.ram = ram_bytes_remaining();
        trace_wsm_source_pass(p.sent, p.ns / SCALE_MS, p.dirty,
                              wsm_pass_left_ms(&p), p.ram);
    } while (wsm_pass_again(&p, wsm_option(s->options, WSM_OPT_MAX_RESIDUE)));
    return 0;
}

/* Both sides have said what they know; what has to be looked at is dirty */
static int wsm_source_agree(WsmSource *s)
{
    Error *err = NULL;
    int ret = s->ndisks ? wsm_source_wait(s, WSM_AGREED) : 0;

    if (ret == 0) {
        bql_lock();
        wsm_storage_remove_notes(s->notes);
        if (s->stopped) {
            ret = -ECANCELED;
        } else if (!wsm_source_apply_basis(s, &err)) {
            migrate_set_error(migrate_get_current(), err);
            wsm_session_set_error(s->session, err);
            error_free(err);
            ret = -EINVAL;
        }
        bql_unlock();
    }
    return ret;
}

/* Somebody takes our connections and says nothing; it may only be slow */
static void coroutine_fn wsm_source_silence_co(void *opaque)
{
    g_autoptr(Error) silence = NULL, err = NULL;
    WsmSource *s = opaque;

    wsm_loop_sleep(&s->loop, WSM_SILENCE_S * NANOSECONDS_PER_SECOND);
    if (!wsm_loop_is_over(&s->loop) && !qatomic_read(&s->answered)) {
        error_setg(&silence, "no answer on block channels for %d s",
                   WSM_SILENCE_S);
        err = wsm_source_unanswered(s, silence);
        wsm_session_set_error(s->session, err);
        warn_report("%s", error_get_pretty(err));
    }
}

int wsm_source_disk_phase(WsmSource *s)
{
    int ret;

    wsm_source_open_channels(s);
    wsm_loop_start(&s->loop, wsm_source_silence_co, s);
    ret = wsm_source_wait(s, WSM_WELCOME);
    if (ret < 0) {
        return ret;
    }
    ret = wsm_source_agree(s);
    if (ret < 0) {
        return ret;
    }
    wsm_session_enter(s->session, WSM_PHASE_DISK_PRECOPY);
    ret = wsm_source_passes(s);
    if (ret < 0) {
        return ret;
    }
    wsm_session_enter(s->session, WSM_PHASE_RAM_PRECOPY);
    /* It flushes while RAM goes on: what it has is durable before the freeze */
    wsm_loop_bh(&s->loop, wsm_source_sync_bh, s);
    return 0;
}

static void coroutine_fn wsm_source_flush_co(void *opaque)
{
    WsmSource *s = opaque;

    for (unsigned i = 0; i < s->ndisks; i++) {
        int ret = blk_co_flush(s->disk[i].blk);

        if (ret < 0) {
            trace_wsm_source_flush_fail(s->disk[i].name, ret);
        }
    }
    if (!wsm_loop_is_over(&s->loop)) {
        thread_pool_submit_co(wsm_source_mark_leaving, s);
    }
    wsm_reach(&s->milestones, WSM_FLUSHED);
}

/*
 * Stopping the guest flushes its disks; that is quick if it has been done
 * before.  Once is enough: memory may need long to become small again, and to
 * flush again then could go on for ever.  A failure is reported when the
 * guest is stopped.
 *
 * That and the images' records take their time, while this thread goes on
 * with memory.
 */
bool wsm_source_prepare_freeze(WsmSource *s)
{
    if (!s->flushing && wsm_has_reached(&s->milestones, WSM_SYNCED)) {
        s->flushing = wsm_loop_start(&s->loop, wsm_source_flush_co, s);
    }
    return wsm_has_reached(&s->milestones, WSM_FLUSHED) &&
           !wsm_loop_is_over(&s->loop);
}

void wsm_source_freeze(WsmSource *s)
{
    Error *err = NULL;

    s->frozen_at = wsm_now();
    if (!wsm_source_look(s, &err)) {
        /* The first error counts; QEMU's own would name nobody */
        migrate_set_error(migrate_get_current(), err);
        wsm_fail(&s->milestones, err);
    }
    wsm_session_enter(s->session, WSM_PHASE_FREEZE);
}

GByteArray *wsm_source_residue(WsmSource *s, unsigned disk)
{
    GByteArray *runs = g_byte_array_new();

    wsm_bitmap_to_runs(wsm_work_dirty_bitmap(s->work, disk), 0,
                       s->disk[disk].size, s->start.granularity, runs);
    return runs;
}

static void wsm_source_go_bh(void *opaque)
{
    WsmSource *s = opaque;

    s->control.go = true;
    s->control.points = true;
    wsm_loop_wake(&s->loop);
    wsm_work_begin_push(s->work);
}

/* Say so before the channel is closed, unless it does not take it */
static void coroutine_fn wsm_source_abort_co(void *opaque)
{
    int64_t until = wsm_now() + WSM_ABORT_NS;
    WsmSource *s = opaque;

    s->control.abort = true;
    wsm_loop_wake(&s->loop);
    while (!s->control.abort_sent && s->channel[0].up && wsm_now() < until) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, WSM_ABORT_POLL_NS);
    }
    qatomic_set(&s->aborting, false);
}

/* Has READY come?  When it is too late for that it never will have. */
static bool wsm_source_is_ready(WsmSource *s)
{
    return wsm_has_reached_by(&s->milestones, WSM_READY, s->ready_until);
}

/* Wait for READY, or for a reason not to wait */
static void wsm_source_await_ready(WsmSource *s)
{
    int64_t left;

    while ((left = s->ready_until - wsm_now()) > 0 &&
           !wsm_source_interrupted(s) &&
           !wsm_wait(&s->milestones, WSM_READY,
                     MIN(DIV_ROUND_UP(left, SCALE_MS), WSM_WAIT_MS))) {
        /* go on */
    }
}

static void wsm_source_no_ready(WsmSource *s, Error **errp)
{
    error_setg(errp, "the destination did not say that it has loaded the "
               "guest (option switchover-timeout: %" PRId64 " ms); the "
               "guest runs on here",
               wsm_option(s->options, WSM_OPT_SWITCHOVER_TIMEOUT));
}

/* The migration thread may be held up by a stream that does not move */
static void coroutine_fn wsm_source_clock_co(void *opaque)
{
    MigrationState *ms = migrate_get_current();
    WsmSource *s = opaque;
    g_autoptr(Error) err = NULL;

    wsm_loop_sleep(&s->loop, s->ready_until - wsm_now());
    if (!wsm_source_is_ready(s) && !wsm_loop_is_over(&s->loop)) {
        wsm_source_no_ready(s, &err);
        migrate_set_error(ms, err);
        wsm_session_set_error(s->session, err);
        WITH_QEMU_LOCK_GUARD(&ms->qemu_file_lock) {
            if (ms->to_dst_file) {
                qemu_file_shutdown(ms->to_dst_file);
            }
        }
    }
}

static void wsm_source_decide(WsmSource *s)
{
    int64_t ns = wsm_now() - s->frozen_at;

    /* From here on the guest is the destination's, whatever happens */
    wsm_session_set_downtime(s->session, ns);
    wsm_session_enter(s->session, WSM_PHASE_POSTCOPY);
    wsm_loop_bh(&s->loop, wsm_source_go_bh, s);
    wsm_loop_main_bh(&s->loop, wsm_source_stamp_leaving, s);
}

/*
 * The destination must have loaded everything, and wait for our word.  To load
 * devices it may need memory that only the caller's thread can send, with
 * postcopy-ram.  Then the caller goes on with that, and asks again.
 *
 * The BQL is released meanwhile, so that the user can cancel, and a channel can
 * be opened again.
 */
bool wsm_source_handover(WsmSource *s, Error **errp)
{
    s->ready_until = wsm_now() + SCALE_MS *
                     wsm_option(s->options, WSM_OPT_SWITCHOVER_TIMEOUT);
    if (ram_bytes_remaining()) {
        wsm_loop_start(&s->loop, wsm_source_clock_co, s);
        return true;
    }
    bql_unlock();
    wsm_source_await_ready(s);
    bql_lock();
    if (wsm_source_interrupted(s) || !wsm_source_is_ready(s)) {
        wsm_source_no_ready(s, errp);
        wsm_source_take_back(s);
        return false;
    }
    wsm_source_decide(s);
    return true;
}

void wsm_source_try_handover(WsmSource *s)
{
    if (wsm_source_is_ready(s)) {
        bql_lock();
        if (!s->stopped && !wsm_source_interrupted(s)) {
            wsm_source_decide(s);
        }
        bql_unlock();
    }
}

void wsm_source_take_back(WsmSource *s)
{
    qatomic_set(&s->aborting, true);
    if (!wsm_loop_start(&s->loop, wsm_source_abort_co, s)) {
        qatomic_set(&s->aborting, false);
    }
}

bool wsm_source_wait_all_there(WsmSource *s, int ms)
{
    return wsm_wait(&s->milestones, WSM_ALL_THERE, ms);
}
