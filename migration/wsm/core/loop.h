/*
 * Whole-system migration: a thread with coroutines that can be ended
 *
 * Each side of a migration has an IOThread of its own, in which coroutines
 * receive, send and write.  All that is started here is counted, so that the
 * main thread can end it: wsm_loop_stop() returns when nothing runs any more.
 *
 * "In the loop" means: in its IOThread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_CORE_LOOP_H
#define MIGRATION_WSM_CORE_LOOP_H

#include "block/aio.h"
#include "qemu/coroutine.h"
#include "qemu/ratelimit.h"
#include "system/iothread.h"

typedef struct WsmLoop {
    /* Set in init, never changed */
    IOThread *iothread;
    AioContext *ctx;
    QEMUBH *wake_bh;

    unsigned running;           /* atomic: coroutines and bottom halves */
    bool quit;                  /* atomic: they are to end */
    CoQueue waiting;            /* in the loop: for wsm_loop_wake() */
} WsmLoop;

/*
 * Make the thread.  Returns false and sets @errp if that fails; then nothing
 * can be started, and wsm_loop_wake(), wsm_loop_quit(), wsm_loop_stop() and
 * wsm_loop_destroy() do nothing.  Main thread.
 */
bool wsm_loop_init(WsmLoop *loop, const char *name, Error **errp);

/* End the thread, after wsm_loop_stop().  Main thread. */
void wsm_loop_destroy(WsmLoop *loop);

/*
 * Everything is to end: nothing is started any more, and who waits or sleeps
 * goes on.  Can be called twice.  Main thread.
 */
void wsm_loop_quit(WsmLoop *loop);

/* wsm_loop_quit(), then poll until nothing runs any more.  Main thread, BQL. */
void wsm_loop_stop(WsmLoop *loop);

/* Is everything to end?  Any thread. */
static inline bool wsm_loop_is_over(WsmLoop *loop)
{
    return qatomic_read(&loop->quit);
}

/* Are we in the loop?  For assertions. */
bool wsm_loop_is_here(const WsmLoop *loop);

/*
 * Run @fn with @opaque: as a coroutine in the loop, or as a bottom half in the
 * loop or in the main thread.  wsm_loop_stop() waits for it.  Any thread.
 * Returns false if everything is to end: then @fn does not run.
 */
bool wsm_loop_start(WsmLoop *loop, CoroutineEntry *fn, void *opaque);
bool wsm_loop_bh(WsmLoop *loop, QEMUBHFunc *fn, void *opaque);
bool wsm_loop_main_bh(WsmLoop *loop, QEMUBHFunc *fn, void *opaque);

/*
 * As wsm_loop_start(), then poll until @fn has ended.  Main thread, not in a
 * coroutine.
 */
bool wsm_loop_await(WsmLoop *loop, CoroutineEntry *fn, void *opaque);

/*
 * As wsm_loop_start(), but run @fn at once, until it yields for the first
 * time, and in any case.  In the loop, in something that was started here.
 */
void wsm_loop_enter(WsmLoop *loop, CoroutineEntry *fn, void *opaque);

/* Wake all that are in wsm_loop_wait().  Any thread; does not block. */
void wsm_loop_wake(WsmLoop *loop);

/*
 * Wait until somebody wakes us, perhaps for another reason than ours; not if
 * everything is to end.  In the loop.
 */
void coroutine_fn wsm_loop_wait(WsmLoop *loop);

/* Sleep, in slices, so that it ends soon if everything is to end */
void coroutine_fn wsm_loop_sleep(WsmLoop *loop, int64_t ns);

/* Bytes per second, 0: no limit.  In the loop; may change at any time. */
typedef uint64_t WsmLoopSpeed(void *opaque);

/*
 * Wait until @bytes may go by @limit, to which nobody else gives a speed.
 * Ends soon if @speed of @opaque changes, or if everything is to end.
 */
void coroutine_fn wsm_loop_limit(WsmLoop *loop, RateLimit *limit,
                                 WsmLoopSpeed *speed, void *opaque,
                                 int64_t bytes);

#endif
