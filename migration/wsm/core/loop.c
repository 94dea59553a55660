/*
 * Whole-system migration: a thread with coroutines that can be ended
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "qemu/main-loop.h"
#include "migration/wsm/core/loop.h"

#define WSM_SLICE_NS            (100 * SCALE_MS)

/* Something that runs */
typedef struct WsmLoopJob {
    WsmLoop *loop;
    void (*fn)(void *opaque);
    void *opaque;
} WsmLoopJob;

static void coroutine_fn wsm_loop_wake_co(void *opaque)
{
    WsmLoop *loop = opaque;

    assert(wsm_loop_is_here(loop));
    qemu_co_queue_restart_all(&loop->waiting);
}

/*
 * In a coroutine, those that are woken run when it yields.  Outside, each would
 * run at once, and wait again, and be woken again without end.
 */
static void wsm_loop_wake_bh(void *opaque)
{
    qemu_coroutine_enter(qemu_coroutine_create(wsm_loop_wake_co, opaque));
}

bool wsm_loop_init(WsmLoop *loop, const char *name, Error **errp)
{
    GLOBAL_STATE_CODE();
    *loop = (WsmLoop) {};
    qemu_co_queue_init(&loop->waiting);
    loop->iothread = iothread_create(name, errp);
    if (!loop->iothread) {
        loop->quit = true;
        return false;
    }
    loop->ctx = iothread_get_aio_context(loop->iothread);
    loop->wake_bh = aio_bh_new(loop->ctx, wsm_loop_wake_bh, loop);
    return true;
}

void wsm_loop_destroy(WsmLoop *loop)
{
    GLOBAL_STATE_CODE();
    if (loop->iothread) {
        assert(loop->quit && !qatomic_read(&loop->running));
        qemu_bh_delete(loop->wake_bh);
        iothread_destroy(g_steal_pointer(&loop->iothread));
    }
}

void wsm_loop_quit(WsmLoop *loop)
{
    GLOBAL_STATE_CODE();
    qatomic_set(&loop->quit, true);
    wsm_loop_wake(loop);
}

void wsm_loop_stop(WsmLoop *loop)
{
    wsm_loop_quit(loop);
    /* Who counts itself after we have looked sees @quit: wsm_loop_begin() */
    smp_mb();
    /* What they did is seen by who frees it */
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_load_acquire(&loop->running) > 0);
}

bool wsm_loop_is_here(const WsmLoop *loop)
{
    return in_aio_context_home_thread(loop->ctx);
}

/* The last that is done with @loop, which may be gone then */
static void wsm_loop_end(WsmLoop *loop)
{
    qatomic_dec(&loop->running);
    aio_wait_kick();
}

static bool wsm_loop_begin(WsmLoop *loop)
{
    qatomic_inc(&loop->running);
    smp_mb__after_rmw();
    if (!wsm_loop_is_over(loop)) {
        return true;
    }
    wsm_loop_end(loop);
    return false;
}

static WsmLoopJob *wsm_loop_new_job(WsmLoop *loop, void (*fn)(void *),
                                    void *opaque)
{
    WsmLoopJob *job = g_new(WsmLoopJob, 1);

    *job = (WsmLoopJob) { .loop = loop, .fn = fn, .opaque = opaque };
    return job;
}

/* Of a bottom half, and of a coroutine that is scheduled */
static void wsm_loop_run(void *opaque)
{
    g_autofree WsmLoopJob *job = opaque;

    job->fn(job->opaque);
    wsm_loop_end(job->loop);
}

bool wsm_loop_start(WsmLoop *loop, CoroutineEntry *fn, void *opaque)
{
    if (!wsm_loop_begin(loop)) {
        return false;
    }
    opaque = wsm_loop_new_job(loop, fn, opaque);
    aio_co_schedule(loop->ctx, qemu_coroutine_create(wsm_loop_run, opaque));
    return true;
}

typedef struct WsmLoopAwaited {
    CoroutineEntry *fn;
    void *opaque;
    bool done;                  /* atomic */
} WsmLoopAwaited;

static void coroutine_fn wsm_loop_awaited_co(void *opaque)
{
    WsmLoopAwaited *awaited = opaque;

    awaited->fn(awaited->opaque);
    /* What it did is seen by who waits */
    qatomic_store_release(&awaited->done, true);
    aio_wait_kick();
}

bool wsm_loop_await(WsmLoop *loop, CoroutineEntry *fn, void *opaque)
{
    WsmLoopAwaited awaited = { .fn = fn, .opaque = opaque };

    GLOBAL_STATE_CODE();
    if (!wsm_loop_start(loop, wsm_loop_awaited_co, &awaited)) {
        return false;
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_load_acquire(&awaited.done));
    return true;
}

static bool wsm_loop_schedule(WsmLoop *loop, AioContext *ctx, QEMUBHFunc *fn,
                              void *opaque)
{
    if (!wsm_loop_begin(loop)) {
        return false;
    }
    aio_bh_schedule_oneshot(ctx, wsm_loop_run,
                            wsm_loop_new_job(loop, fn, opaque));
    return true;
}

bool wsm_loop_bh(WsmLoop *loop, QEMUBHFunc *fn, void *opaque)
{
    return wsm_loop_schedule(loop, loop->ctx, fn, opaque);
}

bool wsm_loop_main_bh(WsmLoop *loop, QEMUBHFunc *fn, void *opaque)
{
    return wsm_loop_schedule(loop, qemu_get_aio_context(), fn, opaque);
}

static void coroutine_fn wsm_loop_enter_co(void *opaque)
{
    /* It is the caller's, who goes on when we yield */
    WsmLoopJob job = *(WsmLoopJob *)opaque;

    job.fn(job.opaque);
    wsm_loop_end(job.loop);
}

void wsm_loop_enter(WsmLoop *loop, CoroutineEntry *fn, void *opaque)
{
    WsmLoopJob job = { .loop = loop, .fn = fn, .opaque = opaque };
    unsigned before = qatomic_fetch_inc(&loop->running);

    assert(wsm_loop_is_here(loop) && before > 0);
    qemu_coroutine_enter(qemu_coroutine_create(wsm_loop_enter_co, &job));
}

void wsm_loop_wake(WsmLoop *loop)
{
    if (!loop->iothread) {
        return;
    }
    if (qemu_in_coroutine() && wsm_loop_is_here(loop)) {
        wsm_loop_wake_co(loop);
    } else {
        qemu_bh_schedule(loop->wake_bh);
    }
}

void coroutine_fn wsm_loop_wait(WsmLoop *loop)
{
    assert(wsm_loop_is_here(loop));
    if (!wsm_loop_is_over(loop)) {
        qemu_co_queue_wait(&loop->waiting, NULL);
    }
}

void coroutine_fn wsm_loop_sleep(WsmLoop *loop, int64_t ns)
{
    while (ns > 0 && !wsm_loop_is_over(loop)) {
        int64_t slice = MIN(ns, WSM_SLICE_NS);

        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, slice);
        ns -= slice;
    }
}

void coroutine_fn wsm_loop_limit(WsmLoop *loop, RateLimit *limit,
                                 WsmLoopSpeed *speed, void *opaque,
                                 int64_t bytes)
{
    uint64_t now = speed(opaque);
    int64_t ns;

    if (!now) {
        return;
    }
    ratelimit_set_speed(limit, now, WSM_SLICE_NS);
    ns = ratelimit_calculate_delay(limit, bytes);
    while (ns > 0 && speed(opaque) == now && !wsm_loop_is_over(loop)) {
        wsm_loop_sleep(loop, MIN(ns, WSM_SLICE_NS));
        ns -= WSM_SLICE_NS;
    }
}
