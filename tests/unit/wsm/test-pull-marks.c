/*
 * Test of block/pull-marks.c and what uses it: when a flush marks, what it
 * marks, and what follows if that fails.  Whether that is enough after a power
 * cut is the business of test-pull-crash.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "block/aio-wait.h"
#include "pull-test.h"

/* The last block is not a whole one */
#define SIZE (16 * BLOCK - 512)

typedef struct Marks {
    PullTest t;
    GArray *marks;              /* of BdrvPullRange: what came last */
    int calls, flushes;         /* @flushes of the disk until the last call */
    int error;                  /* what the next call returns */
    bool hold;                  /* calls wait */
    Coroutine *held;
} Marks;

static Marks m;

static void coroutine_fn marks_yield(void)
{
    while (m.hold) {
        m.held = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
}

static int coroutine_fn marks_mark(void *opaque, const BdrvPullRange *ranges,
                                   size_t nb)
{
    int ret = m.error;

    m.error = 0;
    m.calls++;
    m.flushes = m.t.mem->flushes;
    g_array_set_size(m.marks, 0);
    g_array_append_vals(m.marks, ranges, nb);
    marks_yield();
    return ret;
}

static void marks_release(void)
{
    m.hold = false;
    aio_co_wake(g_steal_pointer(&m.held));
}

/* The first eight blocks and the last are missing.  @ops NULL: with mark() */
static void marks_init(const BdrvPullOps *ops)
{
    static BdrvPullOps with_mark;

    m = (Marks) { .marks = g_array_new(false, false, sizeof(BdrvPullRange)) };
    pull_test_init_disk(&m.t, SIZE, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                        BLK_PERM_RESIZE,
                        BLK_PERM_ALL & ~(BLK_PERM_WRITE | BLK_PERM_RESIZE),
                        BDRV_O_RDWR | BDRV_O_UNMAP);
    m.t.bs->supported_write_flags = BDRV_REQ_FUA;
    m.t.bs->supported_zero_flags |= BDRV_REQ_FUA;
    if (!ops) {
        with_mark = pull_test_ops;
        with_mark.mark = marks_mark;
        ops = &with_mark;
    }
    m.t.filter = bdrv_pull_append(m.t.bs, BLOCK, ops, &m.t, &error_abort);
    bdrv_pull_set_missing(m.t.filter, 0, 8 * BLOCK);
    bdrv_pull_set_missing(m.t.filter, 15 * BLOCK, SIZE - 15 * BLOCK);
}

static void marks_cleanup(void)
{
    pull_test_cleanup(&m.t);
    g_array_unref(m.marks);
}

/*
 * What is done in a coroutine, until it has ended
 */

typedef struct Request {
    int64_t offset, bytes;
    int flags;
    int ret;
    bool ended;
} Request;

static void coroutine_fn store_co(void *opaque)
{
    Request *job = opaque;
    g_autofree uint8_t *buf = g_malloc(job->bytes);

    memset(buf, SOURCE, job->bytes);
    job->ret = bdrv_pull_store(m.t.filter, job->offset, job->bytes, buf, NULL);
    job->ended = true;
}

static void coroutine_fn write_co(void *opaque)
{
    Request *job = opaque;
    g_autofree uint8_t *buf = g_malloc(job->bytes);

    memset(buf, GUEST, job->bytes);
    job->ret = blk_co_pwrite(m.t.blk, job->offset, job->bytes, buf, job->flags);
    job->ended = true;
}

static void coroutine_fn zero_co(void *opaque)
{
    Request *job = opaque;

    job->ret = blk_co_pwrite_zeroes(m.t.blk, job->offset, job->bytes,
                                    job->flags);
    job->ended = true;
}

static void coroutine_fn discard_co(void *opaque)
{
    Request *job = opaque;

    job->ret = blk_co_pdiscard(m.t.blk, job->offset, job->bytes, 0);
    job->ended = true;
}

static void coroutine_fn flush_co(void *opaque)
{
    Request *job = opaque;

    job->ret = blk_co_flush(m.t.blk);
    job->ended = true;
}

static void coroutine_fn checkpoint_co(void *opaque)
{
    Request *job = opaque;

    job->ret = bdrv_pull_checkpoint(m.t.filter);
    job->ended = true;
}

static void begin(Request *job, CoroutineEntry *entry, int64_t offset,
                  int64_t bytes, int flags)
{
    *job = (Request) { .offset = offset, .bytes = bytes, .flags = flags };
    qemu_coroutine_enter(qemu_coroutine_create(entry, job));
}

static int run(CoroutineEntry *entry, int64_t offset, int64_t bytes, int flags)
{
    Request job;

    begin(&job, entry, offset, bytes, flags);
    while (!job.ended) {
        aio_poll(qemu_get_aio_context(), true);
    }
    return job.ret;
}

static int store(int block, int n)
{
    return run(store_co, block * BLOCK, MIN(n * BLOCK, SIZE - block * BLOCK),
               0);
}

static int guest_writes(int64_t offset, int64_t bytes)
{
    return run(write_co, offset, bytes, 0);
}

static int flush(void)
{
    return run(flush_co, 0, 0, 0);
}

static int checkpoint(void)
{
    return run(checkpoint_co, 0, 0, 0);
}

/* The guest runs, and a first flush has seen to it that there is a list */
static void marks_go(void)
{
    g_assert_cmpint(bdrv_pull_seal(m.t.filter), ==, 0);
    bdrv_pull_arm(m.t.filter);
    g_assert_cmpint(flush(), ==, 0);
    g_assert_cmpint(m.calls, ==, 1);
    m.calls = 0;
}

static void assert_range(unsigned i, int64_t block, int64_t bytes)
{
    const BdrvPullRange *r = &g_array_index(m.marks, BdrvPullRange, i);

    g_assert_cmpint(i, <, m.marks->len);
    g_assert_cmpint(r->offset, ==, block * BLOCK);
    g_assert_cmpint(r->bytes, ==, bytes);
}

/* There was one call since, with one range of blocks */
static void assert_marked(int64_t block, int64_t n)
{
    g_assert_cmpint(m.calls, ==, 1);
    m.calls = 0;
    g_assert_cmpint(m.marks->len, ==, 1);
    assert_range(0, block, n * BLOCK);
    /* After the data */
    g_assert_cmpint(m.flushes, ==, m.t.mem->flushes);
}

static void assert_not_marked(void)
{
    g_assert_cmpint(flush(), ==, 0);
    g_assert_cmpint(m.calls, ==, 0);
}

static int64_t unmarked(void)
{
    return pull_test_stats(&m.t).unmarked;
}

/*
 * The tests
 */

/* Before the guest may run nobody waits for the list */
static void test_arm(void)
{
    marks_init(NULL);
    g_assert_cmpint(checkpoint(), ==, -EPERM);
    g_assert_cmpint(flush(), ==, 0);
    g_assert_cmpint(bdrv_pull_seal(m.t.filter), ==, 0);
    g_assert_cmpint(store(0, 2), ==, 0);
    g_assert_cmpint(flush(), ==, 0);
    g_assert_cmpint(m.calls, ==, 0);

    /* Then the first flush does, and what has come is marked with that */
    bdrv_pull_arm(m.t.filter);
    g_assert_cmpint(flush(), ==, 0);
    assert_marked(0, 2);
    assert_not_marked();
    marks_cleanup();
}

/* Also if there is nothing to mark, and again until it has worked */
static void test_list(void)
{
    marks_init(NULL);
    g_assert_cmpint(bdrv_pull_seal(m.t.filter), ==, 0);
    bdrv_pull_arm(m.t.filter);
    for (int i = 0; i < 2; i++) {
        m.error = -EIO;
        g_assert_cmpint(flush(), ==, -EIO);
    }
    g_assert_cmpint(flush(), ==, 0);
    g_assert_cmpint(m.calls, ==, 3);
    g_assert_cmpint(m.marks->len, ==, 0);
    g_assert_cmpint(flush(), ==, 0);
    g_assert_cmpint(m.calls, ==, 3);
    marks_cleanup();
}

/* What has arrived need not be marked at once, nor what was never missing */
static void test_not_urgent(void)
{
    marks_init(NULL);
    marks_go();
    g_assert_cmpint(store(0, 3), ==, 0);
    assert_not_marked();
    g_assert_cmpint(guest_writes(10 * BLOCK + 512, 3 * BLOCK), ==, 0);
    assert_not_marked();
    g_assert_cmpint(unmarked(), ==, 3 * BLOCK);

    /* A checkpoint does it, once */
    g_assert_cmpint(checkpoint(), ==, 0);
    assert_marked(0, 3);
    g_assert_cmpint(unmarked(), ==, 0);
    g_assert_cmpint(guest_writes(512, 512), ==, 0);
    assert_not_marked();
    marks_cleanup();
}

/* Any change of a block that has arrived, or overwrites it, is urgent */
static void test_urgent(void)
{
    static const struct {
        CoroutineEntry *entry;
        int arrived;            /* so many blocks, from the first on */
        int64_t offset, bytes;
        int marked;             /* so many blocks then */
    } cases[] = {
        { write_co, 1, 0, BLOCK, 1 },
        { write_co, 1, 512, 512, 1 },
        { zero_co, 3, BLOCK, 2 * BLOCK, 3 },
        { zero_co, 2, 2 * BLOCK - 512, 512, 2 },
        { discard_co, 1, 0, BLOCK, 1 },
        /* The end of one that has arrived, and one that is missing */
        { write_co, 1, BLOCK - 512, BLOCK + 512, 2 },
        /* That one only: the other is marked as well */
        { write_co, 1, BLOCK, BLOCK, 2 },
        { zero_co, 0, 0, 2 * BLOCK, 2 },
        { discard_co, 1, BLOCK, BLOCK, 2 },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        marks_init(NULL);
        marks_go();
        if (cases[i].arrived) {
            g_assert_cmpint(store(0, cases[i].arrived), ==, 0);
        }
        g_assert_cmpint(run(cases[i].entry, cases[i].offset, cases[i].bytes, 0),
                        ==, 0);
        g_assert_cmpint(flush(), ==, 0);
        assert_marked(0, cases[i].marked);
        assert_not_marked();
        marks_cleanup();
    }
}

/* Discards go on as they are when nothing is missing any more */
static void test_discard(void)
{
    marks_init(NULL);
    marks_go();
    g_assert_cmpint(store(0, 8), ==, 0);
    g_assert_cmpint(store(15, 1), ==, 0);
    g_assert_cmpint(run(discard_co, BLOCK, BLOCK, 0), ==, 0);
    g_assert_cmpint(m.t.mem->zero_writes, ==, 0);
    g_assert_cmpint(flush(), ==, 0);
    g_assert_cmpint(m.calls, ==, 1);
    g_assert_cmpint(m.marks->len, ==, 2);
    assert_range(0, 0, 8 * BLOCK);
    assert_range(1, 15, SIZE - 15 * BLOCK);
    marks_cleanup();
}

/* The guest may read, and believe, what a write left that failed */
static void test_failed_write(void)
{
    marks_init(NULL);
    marks_go();
    g_assert_cmpint(store(0, 1), ==, 0);
    m.t.mem->write_error = -EIO;
    g_assert_cmpint(guest_writes(512, 512), ==, -EIO);
    g_assert_cmpint(flush(), ==, 0);
    assert_marked(0, 1);

    /* But a block that is missing stays so */
    m.t.mem->write_error = -EIO;
    g_assert_cmpint(guest_writes(BLOCK, BLOCK), ==, -EIO);
    assert_not_marked();
    g_assert_cmpint(unmarked(), ==, 0);
    marks_cleanup();
}

/* No mark without the data, and what was to be marked is not forgotten */
static void test_failed_flush(void)
{
    marks_init(NULL);
    marks_go();
    g_assert_cmpint(guest_writes(0, BLOCK), ==, 0);
    m.t.mem->flush_error = -EIO;
    g_assert_cmpint(flush(), ==, -EIO);
    g_assert_cmpint(m.calls, ==, 0);
    g_assert_cmpint(unmarked(), ==, BLOCK);
    g_assert_cmpint(flush(), ==, 0);
    assert_marked(0, 1);
    marks_cleanup();
}

static void test_failed_mark(void)
{
    marks_init(NULL);
    marks_go();
    g_assert_cmpint(guest_writes(0, BLOCK), ==, 0);
    g_assert_cmpint(store(4, 1), ==, 0);
    m.error = -ENOSPC;
    g_assert_cmpint(flush(), ==, -ENOSPC);
    g_assert_cmpint(unmarked(), ==, 2 * BLOCK);

    /* What came meanwhile is taken, too */
    g_assert_cmpint(store(1, 1), ==, 0);
    m.calls = 0;
    g_assert_cmpint(flush(), ==, 0);
    g_assert_cmpint(m.calls, ==, 1);
    g_assert_cmpint(m.marks->len, ==, 2);
    assert_range(0, 0, 2 * BLOCK);
    assert_range(1, 4, BLOCK);

    /* Also if it was only a checkpoint: the guest may have written since */
    g_assert_cmpint(store(2, 1), ==, 0);
    m.error = -EIO;
    g_assert_cmpint(checkpoint(), ==, -EIO);
    m.calls = 0;
    g_assert_cmpint(flush(), ==, 0);
    assert_marked(2, 1);
    marks_cleanup();
}

/* FUA is a promise of the filter's, not of the disk's */
static void test_fua(void)
{
    marks_init(NULL);
    marks_go();
    g_assert_false(m.t.filter->supported_write_flags & BDRV_REQ_FUA);
    g_assert_false(m.t.filter->supported_zero_flags & BDRV_REQ_FUA);
    g_assert_cmpint(run(write_co, 0, BLOCK, BDRV_REQ_FUA), ==, 0);
    assert_marked(0, 1);
    g_assert_cmpint(run(zero_co, BLOCK, BLOCK, BDRV_REQ_FUA), ==, 0);
    assert_marked(1, 1);
    blk_set_enable_write_cache(m.t.blk, false);
    g_assert_cmpint(guest_writes(2 * BLOCK, BLOCK), ==, 0);
    assert_marked(2, 1);
    m.error = -EIO;
    g_assert_cmpint(guest_writes(3 * BLOCK, BLOCK), ==, -EIO);
    marks_cleanup();
}

/* The disk keeps the size that the list is for, as long as there is one */
static void test_resize(void)
{
    Error *err = NULL;

    marks_init(NULL);
    marks_go();
    g_assert_cmpint(store(0, 8), ==, 0);
    g_assert_cmpint(store(15, 1), ==, 0);
    g_assert_cmpint(pull_test_completed(&m.t), ==, 1);
    g_assert_cmpint(blk_truncate(m.t.blk, 32 * BLOCK, false, PREALLOC_MODE_OFF,
                                 0, &err), ==, -EBUSY);
    error_free_or_abort(&err);
    g_assert_cmpint(checkpoint(), ==, 0);
    pull_test_drop(&m.t);
    g_assert_cmpint(blk_truncate(m.t.blk, 32 * BLOCK, false, PREALLOC_MODE_OFF,
                                 0, &error_abort), ==, 0);
    marks_cleanup();
}

/* What comes while a flush is marking is for the next one */
static void test_parallel(void)
{
    Request first, second;

    marks_init(NULL);
    marks_go();
    g_assert_cmpint(guest_writes(0, BLOCK), ==, 0);
    m.hold = true;
    begin(&first, flush_co, 0, 0, 0);
    g_assert_nonnull(m.held);
    assert_marked(0, 1);

    /* Reads and writes go on, also to what is being marked */
    g_assert_cmpint(guest_writes(512, 512), ==, 0);
    g_assert_cmpint(guest_writes(3 * BLOCK, BLOCK), ==, 0);
    begin(&second, flush_co, 0, 0, 0);
    g_assert_false(first.ended);
    g_assert_false(second.ended);
    g_assert_cmpint(m.calls, ==, 0);

    marks_release();
    while (!second.ended) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_true(first.ended);
    g_assert_cmpint(first.ret, ==, 0);
    g_assert_cmpint(second.ret, ==, 0);
    assert_marked(3, 1);
    assert_not_marked();
    marks_cleanup();
}

/* If that fails, what the guest wrote meanwhile is not marked either */
static void test_parallel_failed(void)
{
    Request job;

    marks_init(NULL);
    marks_go();
    g_assert_cmpint(store(0, 1), ==, 0);
    m.hold = true;
    m.error = -EIO;
    begin(&job, checkpoint_co, 0, 0, 0);
    assert_marked(0, 1);
    g_assert_cmpint(guest_writes(512, 512), ==, 0);
    marks_release();
    while (!job.ended) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_cmpint(job.ret, ==, -EIO);
    g_assert_cmpint(flush(), ==, 0);
    assert_marked(0, 1);
    marks_cleanup();
}

static void marks_release_bh(void *opaque)
{
    marks_release();
}

/* A drained section waits for marks, and a checkpoint for its end */
static void test_drain(void)
{
    Request job, late;

    marks_init(NULL);
    marks_go();
    g_assert_cmpint(guest_writes(0, BLOCK), ==, 0);
    m.hold = true;
    begin(&job, flush_co, 0, 0, 0);
    assert_marked(0, 1);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), marks_release_bh, NULL);
    bdrv_drained_begin(m.t.filter);
    g_assert_true(job.ended);
    begin(&late, checkpoint_co, 0, 0, 0);
    g_assert_false(late.ended);
    bdrv_drained_end(m.t.filter);
    while (!late.ended) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_cmpint(late.ret, ==, 0);
    marks_cleanup();
}

/* The filter goes: waits for marks, and begins none */
static void test_drop(void)
{
    Request job;

    marks_init(NULL);
    marks_go();
    g_assert_cmpint(guest_writes(0, BLOCK), ==, 0);
    m.hold = true;
    begin(&job, checkpoint_co, 0, 0, 0);
    assert_marked(0, 1);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), marks_release_bh, NULL);
    pull_test_drop(&m.t);
    g_assert_true(job.ended);
    g_assert_cmpint(job.ret, ==, 0);
    g_assert_cmpint(guest_writes(BLOCK, BLOCK), ==, 0);
    assert_not_marked();
    marks_cleanup();
}

/* Somebody, like a block job, does not let go the filter, and flushes it */
static void test_drop_kept_alive(void)
{
    BlockDriverState *filter;
    BlockBackend *job;

    marks_init(NULL);
    marks_go();
    g_assert_cmpint(guest_writes(0, BLOCK), ==, 0);
    filter = m.t.filter;
    bdrv_ref(filter);
    bdrv_pull_drop(filter);
    m.t.filter = NULL;

    job = blk_new(qemu_get_aio_context(), BLK_PERM_CONSISTENT_READ,
                  BLK_PERM_ALL);
    blk_insert_bs(job, filter, &error_abort);
    g_assert_cmpint(blk_flush(job), ==, 0);
    g_assert_cmpint(m.calls, ==, 0);
    blk_unref(job);
    bdrv_unref(filter);
    marks_cleanup();
}

/* The last block counts with its real size */
static void test_stats(void)
{
    marks_init(NULL);
    marks_go();
    g_assert_cmpint(unmarked(), ==, 0);
    g_assert_cmpint(store(15, 1), ==, 0);
    g_assert_cmpint(unmarked(), ==, BLOCK - 512);
    g_assert_cmpint(guest_writes(0, 2 * BLOCK), ==, 0);
    g_assert_cmpint(unmarked(), ==, 3 * BLOCK - 512);
    g_assert_cmpint(checkpoint(), ==, 0);
    g_assert_cmpint(unmarked(), ==, 0);
    g_assert_cmpint(m.marks->len, ==, 2);
    assert_range(1, 15, BLOCK - 512);
    marks_cleanup();
}

/* Nobody keeps a list: all is as if there were no marks */
static void test_no_marks(void)
{
    marks_init(&pull_test_ops);
    g_assert_true(m.t.filter->supported_write_flags & BDRV_REQ_FUA);
    g_assert_true(m.t.filter->supported_zero_flags & BDRV_REQ_FUA);
    g_assert_cmpint(bdrv_pull_seal(m.t.filter), ==, 0);
    bdrv_pull_arm(m.t.filter);
    g_assert_cmpint(guest_writes(0, BLOCK), ==, 0);
    g_assert_cmpint(store(1, 7), ==, 0);
    g_assert_cmpint(unmarked(), ==, 0);
    g_assert_cmpint(flush(), ==, 0);
    g_assert_cmpint(m.t.mem->flushes, ==, 1);
    g_assert_cmpint(store(15, 1), ==, 0);
    g_assert_cmpint(checkpoint(), ==, 0);
    g_assert_cmpint(m.t.mem->flushes, ==, 2);
    g_assert_cmpint(blk_truncate(m.t.blk, 32 * BLOCK, false, PREALLOC_MODE_OFF,
                                 0, &error_abort), ==, 0);
    marks_cleanup();
}

int main(int argc, char **argv)
{
    bdrv_init();
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/pull-marks/arm", test_arm);
    g_test_add_func("/pull-marks/list", test_list);
    g_test_add_func("/pull-marks/not-urgent", test_not_urgent);
    g_test_add_func("/pull-marks/urgent", test_urgent);
    g_test_add_func("/pull-marks/discard", test_discard);
    g_test_add_func("/pull-marks/failed-write", test_failed_write);
    g_test_add_func("/pull-marks/failed-flush", test_failed_flush);
    g_test_add_func("/pull-marks/failed-mark", test_failed_mark);
    g_test_add_func("/pull-marks/fua", test_fua);
    g_test_add_func("/pull-marks/resize", test_resize);
    g_test_add_func("/pull-marks/parallel", test_parallel);
    g_test_add_func("/pull-marks/parallel-failed", test_parallel_failed);
    g_test_add_func("/pull-marks/drain", test_drain);
    g_test_add_func("/pull-marks/drop", test_drop);
    g_test_add_func("/pull-marks/drop-kept-alive", test_drop_kept_alive);
    g_test_add_func("/pull-marks/stats", test_stats);
    g_test_add_func("/pull-marks/no-marks", test_no_marks);

    return g_test_run();
}
