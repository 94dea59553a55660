/*
 * Unit tests of migration/wsm/core/loop.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "migration/wsm/core/loop.h"

#define SOON_NS         (10 * NANOSECONDS_PER_SECOND)   /* on any machine */
#define FOREVER_NS      (3600 * NANOSECONDS_PER_SECOND)

/* The loop that is tested, and what its coroutines do */
static WsmLoop loop;
static unsigned begun, ended, woken;            /* atomic */
static bool go_on;                              /* atomic */

static int64_t now(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

static void set_up(void)
{
    begun = ended = woken = 0;
    go_on = false;
    wsm_loop_init(&loop, "test", &error_abort);
    g_assert_false(wsm_loop_is_over(&loop));
    g_assert_false(wsm_loop_is_here(&loop));
}

/* Stopping must not take long, and nothing may run after it */
static void tear_down(void)
{
    int64_t begin = now();

    wsm_loop_stop(&loop);
    g_assert_cmpint(now() - begin, <, SOON_NS);
    g_assert_true(wsm_loop_is_over(&loop));
    g_assert_cmpuint(qatomic_read(&loop.running), ==, 0);
    g_assert_cmpuint(qatomic_read(&begun), ==, qatomic_read(&ended));
    wsm_loop_stop(&loop);
    wsm_loop_destroy(&loop);
}

/* Wait until @what is at least @count */
static void await(const unsigned *what, unsigned count)
{
    int64_t begin = now();

    while (qatomic_load_acquire(what) < count) {
        g_assert_cmpint(now() - begin, <, SOON_NS);
        aio_poll(qemu_get_aio_context(), false);
        g_usleep(100);
    }
}

static void count_begin(void)
{
    g_assert_true(wsm_loop_is_here(&loop));
    qatomic_inc(&begun);
}

static void count_end(void)
{
    g_assert_true(wsm_loop_is_here(&loop));
    qatomic_inc(&ended);
}

/*
 * Starting and counting
 */

static void coroutine_fn yield_co(void *opaque)
{
    count_begin();
    g_assert_true(qemu_in_coroutine());
    for (int i = 0; i < 3; i++) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
    g_assert_true(opaque == &loop);
    count_end();
}

static void test_start(void)
{
    set_up();
    for (int i = 0; i < 10; i++) {
        g_assert_true(wsm_loop_start(&loop, yield_co, &loop));
    }
    wsm_loop_stop(&loop);
    g_assert_cmpuint(ended, ==, 10);
    g_assert_false(wsm_loop_start(&loop, yield_co, &loop));
    tear_down();
    g_assert_cmpuint(begun, ==, 10);
}

static void test_await(void)
{
    set_up();
    g_assert_true(wsm_loop_await(&loop, yield_co, &loop));
    g_assert_cmpuint(ended, ==, 1);
    wsm_loop_stop(&loop);
    g_assert_false(wsm_loop_await(&loop, yield_co, &loop));
    tear_down();
    g_assert_cmpuint(begun, ==, 1);
}

static void count_bh(void *opaque)
{
    g_assert_false(qemu_in_coroutine());
    count_begin();
    g_usleep(1000);
    count_end();
}

static void count_main_bh(void *opaque)
{
    g_assert_true(qemu_in_main_thread());
    g_assert_false(wsm_loop_is_here(&loop));
    qatomic_inc(&woken);
}

static void coroutine_fn schedule_co(void *opaque)
{
    count_begin();
    g_assert_true(wsm_loop_main_bh(&loop, count_main_bh, NULL));
    count_end();
}

static void test_bottom_halves(void)
{
    set_up();
    for (int i = 0; i < 10; i++) {
        g_assert_true(wsm_loop_bh(&loop, count_bh, NULL));
        g_assert_true(wsm_loop_start(&loop, schedule_co, NULL));
    }
    await(&begun, 20);
    wsm_loop_stop(&loop);
    g_assert_cmpuint(ended, ==, 20);
    g_assert_cmpuint(woken, ==, 10);
    g_assert_false(wsm_loop_bh(&loop, count_bh, NULL));
    g_assert_false(wsm_loop_main_bh(&loop, count_main_bh, NULL));
    tear_down();
    g_assert_cmpuint(woken, ==, 10);
}

static void coroutine_fn entered_co(void *opaque)
{
    bool *there = opaque;

    count_begin();
    *there = true;
    /* Longer than who entered us lives */
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 5 * SCALE_MS);
    count_end();
}

static void coroutine_fn enter_co(void *opaque)
{
    bool there = false;

    count_begin();
    wsm_loop_enter(&loop, entered_co, &there);
    g_assert_true(there);
    count_end();
}

/* Of the second, neither is counted when the first has ended */
static void test_enter(void)
{
    set_up();
    g_assert_true(wsm_loop_start(&loop, enter_co, NULL));
    await(&ended, 1);
    wsm_loop_stop(&loop);
    g_assert_cmpuint(ended, ==, 2);
    tear_down();
}

static void coroutine_fn enter_late_co(void *opaque)
{
    bool there = false;

    count_begin();
    while (!wsm_loop_is_over(&loop)) {
        wsm_loop_wait(&loop);
    }
    wsm_loop_enter(&loop, entered_co, &there);
    g_assert_true(there);
    g_assert_false(wsm_loop_start(&loop, yield_co, &loop));
    count_end();
}

/* What still runs may enter more */
static void test_enter_late(void)
{
    set_up();
    g_assert_true(wsm_loop_start(&loop, enter_late_co, NULL));
    await(&begun, 1);
    tear_down();
    g_assert_cmpuint(ended, ==, 2);
}

/*
 * Threads that start until they may not any more, while the main thread stops.
 * What was allowed has run when that returns, all else never does.
 */

#define STARTERS        2

static unsigned started;                        /* atomic */

static void coroutine_fn race_co(void *opaque)
{
    count_begin();
    count_end();
}

static void *starter(void *opaque)
{
    bool (*start)(WsmLoop *, CoroutineEntry *, void *) = opaque;

    rcu_register_thread();
    while (start(&loop, race_co, NULL)) {
        qatomic_inc(&started);
        while (qatomic_read(&started) > qatomic_read(&ended) + 1) {
            /* Often nothing runs, and that may be taken for the end */
        }
    }
    rcu_unregister_thread();
    return NULL;
}

static void test_race(void)
{
    for (int i = 0; i < 300; i++) {
        QemuThread thread[STARTERS];
        unsigned ended_in_time;

        set_up();
        started = 0;
        for (int t = 0; t < STARTERS; t++) {
            qemu_thread_create(&thread[t], "starter", starter,
                               t ? wsm_loop_start : wsm_loop_bh,
                               QEMU_THREAD_JOINABLE);
        }
        await(&begun, 1 + i % 20);
        wsm_loop_stop(&loop);
        ended_in_time = qatomic_read(&ended);
        for (int t = 0; t < STARTERS; t++) {
            qemu_thread_join(&thread[t]);
        }
        g_assert_cmpuint(started, ==, ended_in_time);
        tear_down();
    }
}

/*
 * Waking
 */

static void coroutine_fn wait_co(void *opaque)
{
    count_begin();
    while (!wsm_loop_is_over(&loop)) {
        wsm_loop_wait(&loop);
        g_assert_true(wsm_loop_is_here(&loop));
        qatomic_inc(&woken);
    }
    count_end();
}

static void start_waiters(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        g_assert_true(wsm_loop_start(&loop, wait_co, NULL));
    }
    await(&begun, n);
}

static void test_stop_wakes(void)
{
    set_up();
    start_waiters(5);
    tear_down();
    g_assert_cmpuint(woken, ==, 5);
}

static void wake(void *opaque)
{
    wsm_loop_wake(&loop);
}

/* From the main thread, from a bottom half and a coroutine in the loop */
static void test_wake(void)
{
    set_up();
    start_waiters(5);
    wsm_loop_wake(&loop);
    await(&woken, 5);
    g_assert_true(wsm_loop_bh(&loop, wake, NULL));
    await(&woken, 10);
    g_assert_true(wsm_loop_start(&loop, wake, NULL));
    await(&woken, 15);
    g_usleep(1000);
    g_assert_cmpuint(woken, ==, 15);
    tear_down();
}

/* From a coroutine elsewhere: those that wait must not run there */
static void test_wake_from_other_coroutine(void)
{
    set_up();
    start_waiters(5);
    qemu_coroutine_enter(qemu_coroutine_create(wake, NULL));
    await(&woken, 5);
    tear_down();
}

static void coroutine_fn wait_over_co(void *opaque)
{
    count_begin();
    wsm_loop_wait(&loop);
    wsm_loop_sleep(&loop, SCALE_MS);
    /* By now nobody wakes us any more */
    wsm_loop_wait(&loop);
    count_end();
}

static void test_wait_when_over(void)
{
    set_up();
    g_assert_true(wsm_loop_start(&loop, wait_over_co, NULL));
    await(&begun, 1);
    tear_down();
}

/*
 * Sleeping
 */

static void coroutine_fn sleep_co(void *opaque)
{
    int64_t begin = now();
    int64_t ns = *(int64_t *)opaque;

    count_begin();
    wsm_loop_sleep(&loop, ns);
    if (!wsm_loop_is_over(&loop)) {
        g_assert_cmpint(now() - begin, >=, ns);
    }
    count_end();
}

static void test_sleep(void)
{
    int64_t ns = 250 * SCALE_MS, none = 0, past = -1;

    set_up();
    g_assert_true(wsm_loop_start(&loop, sleep_co, &ns));
    g_assert_true(wsm_loop_start(&loop, sleep_co, &none));
    g_assert_true(wsm_loop_start(&loop, sleep_co, &past));
    await(&ended, 3);
    tear_down();
}

static void test_stop_ends_sleep(void)
{
    int64_t ns = FOREVER_NS;

    set_up();
    g_assert_true(wsm_loop_start(&loop, sleep_co, &ns));
    await(&begun, 1);
    tear_down();
}

/*
 * The limit
 */

typedef struct Limited {
    RateLimit limit;
    uint64_t speed;             /* atomic */
    int64_t bytes;              /* of each of 10 steps */
    int64_t ns;                 /* what they took */
} Limited;

static uint64_t limited_speed(void *opaque)
{
    Limited *l = opaque;

    return qatomic_read(&l->speed);
}

static void coroutine_fn limit_co(void *opaque)
{
    Limited *l = opaque;
    int64_t begin = now();

    count_begin();
    for (int i = 0; i < 10; i++) {
        wsm_loop_limit(&loop, &l->limit, limited_speed, l, l->bytes);
    }
    l->ns = now() - begin;
    count_end();
}

static void start_limited(Limited *l)
{
    set_up();
    ratelimit_init(&l->limit);
    g_assert_true(wsm_loop_start(&loop, limit_co, l));
    await(&begun, 1);
}

static void end_limited(Limited *l)
{
    tear_down();
    ratelimit_destroy(&l->limit);
}

/* 10 MB at 10 MB/s take a second; the first slice is free */
static void test_limit(void)
{
    Limited l = { .speed = 10 * 1000 * 1000, .bytes = 1000 * 1000 };

    start_limited(&l);
    await(&ended, 1);
    g_assert_cmpint(l.ns, >=, 700 * SCALE_MS);
    g_assert_cmpint(l.ns, <, SOON_NS);
    end_limited(&l);
}

static void test_no_limit(void)
{
    Limited l = { .bytes = 1 << 30 };

    start_limited(&l);
    await(&ended, 1);
    g_assert_cmpint(l.ns, <, SOON_NS);
    end_limited(&l);
}

static void test_stop_ends_limit(void)
{
    Limited l = { .speed = 1, .bytes = 1000 * 1000 };

    start_limited(&l);
    end_limited(&l);
    g_assert_cmpint(l.ns, <, SOON_NS);
}

static void test_speed_ends_limit(void)
{
    Limited l = { .speed = 1, .bytes = 1000 * 1000 };

    start_limited(&l);
    g_usleep(5000);
    g_assert_cmpuint(qatomic_read(&ended), ==, 0);
    qatomic_set(&l.speed, 0);
    await(&ended, 1);
    end_limited(&l);
}

int main(int argc, char **argv)
{
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/loop/start", test_start);
    g_test_add_func("/wsm/loop/await", test_await);
    g_test_add_func("/wsm/loop/bottom-halves", test_bottom_halves);
    g_test_add_func("/wsm/loop/enter", test_enter);
    g_test_add_func("/wsm/loop/enter-late", test_enter_late);
    g_test_add_func("/wsm/loop/race", test_race);
    g_test_add_func("/wsm/loop/stop-wakes", test_stop_wakes);
    g_test_add_func("/wsm/loop/wake", test_wake);
    g_test_add_func("/wsm/loop/wake-from-other-coroutine",
                    test_wake_from_other_coroutine);
    g_test_add_func("/wsm/loop/wait-when-over", test_wait_when_over);
    g_test_add_func("/wsm/loop/sleep", test_sleep);
    g_test_add_func("/wsm/loop/stop-ends-sleep", test_stop_ends_sleep);
    g_test_add_func("/wsm/loop/limit", test_limit);
    g_test_add_func("/wsm/loop/no-limit", test_no_limit);
    g_test_add_func("/wsm/loop/stop-ends-limit", test_stop_ends_limit);
    g_test_add_func("/wsm/loop/speed-ends-limit", test_speed_ends_limit);
    return g_test_run();
}
