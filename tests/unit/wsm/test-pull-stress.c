/*
 * Stress test of block/pull-on-demand.c and block/pull-state.c
 *
 * Everything at once.  Guests in several threads read, write, zero and discard
 * random sectors; the source pushes and answers pulls from other threads;
 * now and then requests fail and sections are drained.  Guests do not touch
 * the same sectors at once, so that it is known what each must read.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "../iothread.h"
#include "pull-test.h"

#define SECTOR 512
#define NB_GUESTS 9
#define NB_SOURCES 4

typedef struct Stress {
    PullTest t;
    uint64_t *source;       /* never changes */
    int64_t sectors;
    int steps;              /* of each guest */

    QemuMutex lock;         /* protects all below */
    uint64_t *expected;     /* what the disk must have, by 8 bytes */
    bool *busy;             /* by sector: some guest is at it */
    uint64_t stamp;
    int64_t hot;            /* the block where a guest has just begun */
    unsigned next_pull;     /* in t.pulls */
    int running;            /* guests and sources */
    bool stop_sources;
} Stress;

static bool stress_claim(Stress *s, int64_t first, int64_t n)
{
    QEMU_LOCK_GUARD(&s->lock);
    for (int64_t i = first; i < first + n; i++) {
        if (s->busy[i]) {
            return false;
        }
    }
    memset(s->busy + first, 1, n);
    s->hot = first * SECTOR / BLOCK;
    return true;
}

static void stress_give_back(Stress *s, int64_t first, int64_t n)
{
    QEMU_LOCK_GUARD(&s->lock);
    memset(s->busy + first, 0, n);
}

static void coroutine_fn stress_read(Stress *s, int64_t first, int64_t n)
{
    g_autofree uint64_t *buf = g_malloc(n * SECTOR);
    uint64_t *expected = s->expected + first * SECTOR / 8;
    int ret = blk_co_pread(s->t.blk, first * SECTOR, n * SECTOR, buf, 0);

    g_assert_cmpint(ret, ==, 0);
    for (int64_t i = 0; i < n * SECTOR / 8; i++) {
        if (buf[i] != expected[i]) {
            g_error("sector %" PRId64 ": read %" PRIx64 ", not %" PRIx64,
                    first + i * 8 / SECTOR, buf[i], expected[i]);
        }
    }
}

static void coroutine_fn stress_write(Stress *s, int64_t first, int64_t n)
{
    g_autofree uint64_t *buf = g_malloc(n * SECTOR);
    int ret;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        for (int64_t i = 0; i < n * SECTOR / 8; i++) {
            buf[i] = ++s->stamp;
        }
    }
    /* Like a guest, try again until it is done */
    do {
        ret = blk_co_pwrite(s->t.blk, first * SECTOR, n * SECTOR, buf, 0);
    } while (ret == -ENOSPC);
    g_assert_cmpint(ret, ==, 0);
    memcpy(s->expected + first * SECTOR / 8, buf, n * SECTOR);
}

static void coroutine_fn stress_zero(Stress *s, int64_t first, int64_t n)
{
    int ret;

    do {
        ret = blk_co_pwrite_zeroes(s->t.blk, first * SECTOR, n * SECTOR, 0);
    } while (ret == -ENOSPC);
    g_assert_cmpint(ret, ==, 0);
    memset(s->expected + first * SECTOR / 8, 0, n * SECTOR);
}

/* Gives zeroes, or what was there, by sector */
static void coroutine_fn stress_discard(Stress *s, int64_t first, int64_t n)
{
    g_autofree uint64_t *buf = g_malloc(n * SECTOR);
    uint64_t *expected = s->expected + first * SECTOR / 8;
    int ret = blk_co_pdiscard(s->t.blk, first * SECTOR, n * SECTOR, 0);

    g_assert(ret == 0 || ret == -ENOSPC);
    ret = blk_co_pread(s->t.blk, first * SECTOR, n * SECTOR, buf, 0);
    g_assert_cmpint(ret, ==, 0);
    for (int64_t i = 0; i < n; i++) {
        g_assert(buffer_is_zero(buf + i * SECTOR / 8, SECTOR) ||
                 !memcmp(buf + i * SECTOR / 8, expected + i * SECTOR / 8,
                         SECTOR));
    }
    memcpy(s->expected + first * SECTOR / 8, buf, n * SECTOR);
}

static void stress_exit(Stress *s)
{
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->running--;
    }
    aio_wait_kick();
}

static void coroutine_fn stress_guest(void *opaque)
{
    static void coroutine_fn (*const ops[])(Stress *s, int64_t first,
                                            int64_t n) = {
        stress_read, stress_write, stress_write, stress_zero, stress_discard,
    };
    Stress *s = opaque;

    for (int i = 0; i < s->steps; i++) {
        int64_t first = g_random_int_range(0, s->sectors);
        int64_t max = g_random_boolean() ? 3 : 40;
        int64_t n;

        if (g_random_boolean()) {
            first = QEMU_ALIGN_DOWN(first, BLOCK / SECTOR);
            max = BLOCK / SECTOR;
        }
        n = g_random_int_range(1, MIN(max, s->sectors - first) + 1);

        if (stress_claim(s, first, n)) {
            ops[g_random_int_range(0, ARRAY_SIZE(ops))](s, first, n);
            stress_give_back(s, first, n);
        }
        if (g_random_int_range(0, 4) == 0) {
            qemu_co_sleep_ns(QEMU_CLOCK_REALTIME,
                             g_random_int_range(0, 500000));
        }
    }
    stress_exit(s);
}

/* The next pull to answer */
static bool stress_next_pull(Stress *s, Range *r)
{
    QEMU_LOCK_GUARD(&s->t.lock);
    if (s->next_pull == s->t.pulls->len) {
        return false;
    }
    *r = g_array_index(s->t.pulls, Range, s->next_pull++);
    return true;
}

/* What to push, best what is being changed */
static Range stress_next_push(Stress *s)
{
    int64_t blocks = DIV_ROUND_UP(s->t.size, BLOCK);
    int64_t first = g_random_int_range(0, blocks);
    int64_t n = g_random_int_range(1, 4);

    QEMU_LOCK_GUARD(&s->lock);
    if (g_random_boolean()) {
        first = s->hot;
    }
    first *= BLOCK;
    return (Range) { first, MIN(n * BLOCK, s->t.size - first) };
}

static bool stress_stopped(Stress *s)
{
    QEMU_LOCK_GUARD(&s->lock);
    return s->stop_sources;
}

static void coroutine_fn stress_store(Stress *s, Range r)
{
    int ret;

    do {
        ret = bdrv_pull_store(s->t.filter, r.offset, r.bytes,
                              s->source + r.offset / 8, NULL);
    } while (ret == -ENOSPC);
    g_assert_cmpint(ret, ==, 0);
}

static void coroutine_fn stress_source(void *opaque)
{
    Stress *s = opaque;

    while (!stress_stopped(s)) {
        Range r;

        if (!stress_next_pull(s, &r)) {
            qemu_co_sleep_ns(QEMU_CLOCK_REALTIME,
                             g_random_int_range(0, 1000000));
            r = stress_next_push(s);
        }
        stress_store(s, r);
    }
    stress_exit(s);
}

static void stress_init(Stress *s, int64_t size, int steps)
{
    *s = (Stress) { .sectors = size / SECTOR, .steps = steps };
    qemu_mutex_init(&s->lock);
    pull_test_init(&s->t, size);
    s->t.mem->slow = true;
    s->source = g_malloc(size);
    s->expected = g_malloc(size);
    s->busy = g_new0(bool, s->sectors);
    for (int64_t i = 0; i < size / 8; i++) {
        s->source[i] = UINT64_C(0x5555555500000000) + i;
    }

    /* Some blocks are there and the same; the others are old */
    memcpy(s->expected, s->source, size);
    for (int64_t offset = 0; offset < size; offset += BLOCK) {
        int64_t bytes = MIN(BLOCK, size - offset);

        if (g_random_int_range(0, 4) == 0) {
            memcpy(s->t.mem->data + offset, s->source + offset / 8, bytes);
        } else {
            bdrv_pull_set_missing(s->t.filter, offset, bytes);
        }
    }
    g_assert_cmpint(bdrv_pull_seal(s->t.filter), ==, 0);
}

/* What the main thread does meanwhile */
static void stress_disturb(Stress *s)
{
    switch (g_random_int_range(0, 8)) {
    case 0:
        bdrv_drained_begin(s->t.filter);
        g_assert_cmpint(qatomic_read(&s->t.filter->in_flight), ==, 0);
        g_usleep(g_random_int_range(0, 2000));
        g_assert_cmpint(qatomic_read(&s->t.filter->in_flight), ==, 0);
        bdrv_drained_end(s->t.filter);
        break;
    case 1:
        bdrv_drain_all_begin();
        bdrv_drain_all_end();
        break;
    case 2:
        pull_test_graph_change();
        break;
    case 3:
        bdrv_pull_repeat(s->t.filter);
        break;
    default:
        g_usleep(g_random_int_range(0, 1000));
        break;
    }
}

static int stress_running(Stress *s)
{
    QEMU_LOCK_GUARD(&s->lock);
    return s->running;
}

static void stress_run(Stress *s, IOThread **threads, int nb_threads)
{
    s->running = NB_GUESTS + NB_SOURCES;
    for (int i = 0; i < NB_GUESTS + NB_SOURCES; i++) {
        aio_co_enter(iothread_get_aio_context(threads[i % nb_threads]),
                     qemu_coroutine_create(i < NB_GUESTS ? stress_guest
                                                         : stress_source, s));
    }
    while (stress_running(s) > NB_SOURCES || !pull_test_completed(&s->t)) {
        stress_disturb(s);
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->stop_sources = true;
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, stress_running(s));
}

/* Check the result, and add up what has happened */
static void stress_check(Stress *s, BdrvPullStats *sum)
{
    BdrvPullStats stats = pull_test_stats(&s->t);

    g_assert_cmpint(s->t.completed, ==, 1);
    g_assert_cmpint(stats.missing, ==, 0);
    g_assert_cmpint(stats.waiting, ==, 0);
    g_assert_cmpmem(s->t.mem->data, s->t.size, s->expected, s->t.size);
    sum->pulled += stats.pulled;
    sum->pushed += stats.pushed;
    sum->overwritten += stats.overwritten;
    sum->dropped += stats.dropped;
}

static void stress_round(int64_t size, IOThread **threads, int nb_threads,
                         BdrvPullStats *sum)
{
    Stress s;

    stress_init(&s, size, 150);
    stress_run(&s, threads, nb_threads);
    stress_check(&s, sum);
    pull_test_cleanup(&s.t);
    qemu_mutex_destroy(&s.lock);
    g_free(s.source);
    g_free(s.expected);
    g_free(s.busy);
}

static void test_stress(void)
{
    static const int64_t sizes[] = { 64 * BLOCK, 201 * BLOCK - 3 * SECTOR };
    BdrvPullStats sum = {};
    IOThread *threads[4];

    for (int i = 0; i < ARRAY_SIZE(threads); i++) {
        threads[i] = iothread_new();
    }
    for (int i = 0; i < 40; i++) {
        stress_round(sizes[i % ARRAY_SIZE(sizes)], threads,
                     ARRAY_SIZE(threads), &sum);
    }
    for (int i = 0; i < ARRAY_SIZE(threads); i++) {
        iothread_join(threads[i]);
    }

    g_test_message("pulled %" PRId64 " pushed %" PRId64 " overwritten %" PRId64
                   " dropped %" PRId64, sum.pulled, sum.pushed,
                   sum.overwritten, sum.dropped);
    g_assert_cmpint(sum.pulled, >, 0);
    g_assert_cmpint(sum.pushed, >, 0);
    g_assert_cmpint(sum.overwritten, >, 0);
    g_assert_cmpint(sum.dropped, >, 0);
}

int main(int argc, char **argv)
{
    bdrv_init();
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/pull-stress/stress", test_stress);

    return g_test_run();
}
