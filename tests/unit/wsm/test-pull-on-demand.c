/*
 * Unit tests of block/pull-on-demand.c and block/pull-state.c
 *
 * The filter stands above a disk in memory.  What the disk has at first is
 * OLD, what the source has is SOURCE, what the guest writes is GUEST.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "block/pull-state.h"
#include "../iothread.h"
#include "pull-test.h"

#define NB_BLOCKS 16
#define SIZE (NB_BLOCKS * BLOCK)

/* Everything is missing, and the guest runs */
static void setup_missing(PullTest *t)
{
    pull_test_init(t, SIZE);
    bdrv_pull_set_missing(t->filter, 0, SIZE);
    g_assert_cmpint(bdrv_pull_seal(t->filter), ==, 0);
}

static void check_data(PullTest *t, int64_t offset, int64_t bytes, uint8_t tag)
{
    for (int64_t i = offset; i < offset + bytes; i++) {
        if (t->mem->data[i] != tag) {
            g_test_message("byte %" PRId64 " is 0x%02x, not 0x%02x", i,
                           t->mem->data[i], tag);
            g_test_fail();
            return;
        }
    }
}

/* The list has just this one range, and is empty afterwards */
static void check_one(GArray *list, int64_t offset, int64_t bytes)
{
    g_assert_cmpint(list->len, ==, 1);
    g_assert_cmpint(g_array_index(list, Range, 0).offset, ==, offset);
    g_assert_cmpint(g_array_index(list, Range, 0).bytes, ==, bytes);
    g_array_set_size(list, 0);
}

/* Requests, each in a coroutine of its own, most in the main thread */

typedef enum {
    READ, WRITE, ZERO, DISCARD, FLUSH,      /* of the guest */
    STORE, PRECOPY,                         /* bdrv_pull_store(), _write() */
    ARRIVED,                                /* end of bdrv_inc_in_flight() */
} Kind;

typedef struct Op {
    PullTest *t;
    Kind kind;
    int64_t offset, bytes;
    int64_t delay_ns;
    uint8_t *buf;           /* NULL: zeroes, for STORE and PRECOPY */
    int ret;
    int64_t count;          /* stored or skipped */
    bool done;
} Op;

static int coroutine_fn op_do(Op *op)
{
    BlockBackend *blk = op->t->blk;

    switch (op->kind) {
    case READ:
        return blk_co_pread(blk, op->offset, op->bytes, op->buf, 0);
    case WRITE:
        return blk_co_pwrite(blk, op->offset, op->bytes, op->buf, 0);
    case ZERO:
        return blk_co_pwrite_zeroes(blk, op->offset, op->bytes, 0);
    case DISCARD:
        return blk_co_pdiscard(blk, op->offset, op->bytes, 0);
    case FLUSH:
        return blk_co_flush(blk);
    case STORE:
        return bdrv_pull_store(op->t->filter, op->offset, op->bytes, op->buf,
                               &op->count);
    case PRECOPY:
        return bdrv_pull_write(op->t->filter, op->offset, op->bytes, op->buf,
                               &op->count);
    case ARRIVED:
        bdrv_dec_in_flight(op->t->filter);
        return 0;
    default:
        g_assert_not_reached();
    }
}

static void coroutine_fn op_entry(void *opaque)
{
    Op *op = opaque;

    if (op->delay_ns) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, op->delay_ns);
    }
    op->ret = op_do(op);
    qatomic_store_release(&op->done, true);
    aio_wait_kick();
}

static Op *start_in(AioContext *ctx, PullTest *t, Kind kind, int64_t offset,
                    int64_t bytes, uint8_t tag, int64_t delay_ns)
{
    Op *op = g_new(Op, 1);

    *op = (Op) {
        .t = t,
        .kind = kind,
        .offset = offset,
        .bytes = bytes,
        .delay_ns = delay_ns,
        .ret = 1,
        .count = -1,
    };
    if (tag || kind == READ) {
        op->buf = g_malloc(MAX(bytes, 1));
        memset(op->buf, tag, bytes);
    }
    aio_co_enter(ctx, qemu_coroutine_create(op_entry, op));
    return op;
}

static Op *start_delayed(PullTest *t, Kind kind, int64_t offset, int64_t bytes,
                         uint8_t tag, int64_t delay_ns)
{
    return start_in(qemu_get_aio_context(), t, kind, offset, bytes, tag,
                    delay_ns);
}

static Op *start(PullTest *t, Kind kind, int64_t offset, int64_t bytes,
                 uint8_t tag)
{
    return start_delayed(t, kind, offset, bytes, tag, 0);
}

/* Is it done?  Gives everything that can go on the time to do so. */
static bool is_done(Op *op)
{
    for (int i = 0; i < 5; i++) {
        while (aio_poll(qemu_get_aio_context(), false)) {
            /* more to come */
        }
    }
    return qatomic_load_acquire(&op->done);
}

static void op_wait(Op *op)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_load_acquire(&op->done));
}

static int finish(Op *op)
{
    int ret;

    op_wait(op);
    ret = op->ret;
    g_free(op->buf);
    g_free(op);
    return ret;
}

static int run(PullTest *t, Kind kind, int64_t offset, int64_t bytes,
               uint8_t tag)
{
    return finish(start(t, kind, offset, bytes, tag));
}

/* Take in blocks, and check how many bytes of them were stored */
static void run_store(PullTest *t, int64_t offset, int64_t bytes,
                      int64_t stored)
{
    Op *op = start(t, STORE, offset, bytes, SOURCE);

    op_wait(op);
    g_assert_cmpint(op->count, ==, stored);
    g_assert_cmpint(finish(op), ==, 0);
}

static void check_read(PullTest *t, Op *op, uint8_t tag)
{
    op_wait(op);
    for (int64_t i = 0; i < op->bytes; i++) {
        g_assert_cmpint(op->buf[i], ==, tag);
    }
    g_assert_cmpint(finish(op), ==, 0);
}

static void hold_writes(PullTest *t)
{
    QEMU_LOCK_GUARD(&t->mem->lock);
    t->mem->hold = true;
}

static void release_writes(PullTest *t)
{
    QEMU_LOCK_GUARD(&t->mem->lock);
    t->mem->hold = false;
    qemu_co_enter_all(&t->mem->held, &t->mem->lock);
}

/* The tests */

static void test_pass_through(void)
{
    PullTest t;

    pull_test_init(&t, SIZE);
    g_assert_cmpint(run(&t, WRITE, 100, 5000, GUEST), ==, 0);
    check_read(&t, start(&t, READ, 100, 5000, 0), GUEST);
    g_assert_cmpint(run(&t, ZERO, 8192, 4096, 0), ==, 0);
    check_data(&t, 8192, 4096, 0);
    g_assert_cmpint(run(&t, DISCARD, 0, SIZE, 0), ==, 0);
    g_assert_cmpint(run(&t, FLUSH, 0, 0, 0), ==, 0);
    g_assert_cmpint(t.mem->flushes, ==, 1);

    g_assert_cmpint(t.completed, ==, 0);
    g_assert_cmpint(bdrv_pull_seal(t.filter), ==, 0);
    g_assert_cmpint(t.completed, ==, 1);
    g_assert_cmpint(t.pulls->len + t.haves->len, ==, 0);

    /* Who drops it waits for the drain, but not for a flush */
    pull_test_drop(&t);
    g_assert_cmpint(t.mem->flushes, ==, 1);
    pull_test_cleanup(&t);
}

static void test_read_store(void)
{
    PullTest t;
    Op *first, *second;

    setup_missing(&t);
    first = start(&t, READ, BLOCK + 10, BLOCK, 0);
    check_one(t.pulls, BLOCK, 2 * BLOCK);
    second = start(&t, READ, 2 * BLOCK, 2 * BLOCK, 0);
    check_one(t.pulls, 3 * BLOCK, BLOCK);
    g_assert_cmpint(pull_test_stats(&t).waiting, ==, 2);

    run_store(&t, 2 * BLOCK, 2 * BLOCK, 2 * BLOCK);
    g_assert_true(is_done(second));
    g_assert_false(is_done(first));
    check_read(&t, second, SOURCE);
    run_store(&t, 0, 2 * BLOCK, 2 * BLOCK);
    check_read(&t, first, SOURCE);

    g_assert_cmpint(t.pulls->len + t.haves->len, ==, 0);
    g_assert_cmpint(pull_test_stats(&t).waiting, ==, 0);
    g_assert_cmpint(pull_test_stats(&t).pulled, ==, 3 * BLOCK);
    g_assert_cmpint(pull_test_stats(&t).pushed, ==, BLOCK);
    g_assert_cmpint(pull_test_stats(&t).missing, ==, SIZE - 4 * BLOCK);
    check_data(&t, 0, 4 * BLOCK, SOURCE);
    check_data(&t, 4 * BLOCK, SIZE - 4 * BLOCK, OLD);
    pull_test_cleanup(&t);
}

static void test_read_write(void)
{
    PullTest t;
    Op *op;

    setup_missing(&t);
    op = start(&t, READ, BLOCK, BLOCK, 0);
    g_assert_cmpint(run(&t, WRITE, 0, 3 * BLOCK, GUEST), ==, 0);
    check_read(&t, op, GUEST);
    check_one(t.haves, 0, 3 * BLOCK);
    g_assert_cmpint(pull_test_stats(&t).overwritten, ==, 3 * BLOCK);

    /* What the read has asked for comes too late */
    run_store(&t, 0, 4 * BLOCK, BLOCK);
    check_data(&t, 0, 3 * BLOCK, GUEST);
    check_data(&t, 3 * BLOCK, BLOCK, SOURCE);
    g_assert_cmpint(pull_test_stats(&t).dropped, ==, 3 * BLOCK);

    /* Only what was missing is reported, and once */
    g_assert_cmpint(run(&t, WRITE, 3 * BLOCK, 2 * BLOCK, GUEST), ==, 0);
    check_one(t.haves, 4 * BLOCK, BLOCK);
    g_assert_cmpint(run(&t, WRITE, 0, 5 * BLOCK, GUEST), ==, 0);
    g_assert_cmpint(t.haves->len, ==, 0);
    pull_test_cleanup(&t);
}

/* The guest writes what is just being stored */
static void test_write_during_store(void)
{
    PullTest t;
    Op *store, *write, *elsewhere;

    setup_missing(&t);
    hold_writes(&t);
    store = start(&t, STORE, 0, 4 * BLOCK, SOURCE);
    write = start(&t, WRITE, BLOCK, BLOCK, GUEST);
    elsewhere = start(&t, WRITE, 8 * BLOCK, BLOCK, GUEST);
    g_assert_false(is_done(write));
    release_writes(&t);

    g_assert_cmpint(finish(store), ==, 0);
    g_assert_cmpint(finish(write), ==, 0);
    g_assert_cmpint(finish(elsewhere), ==, 0);
    check_data(&t, 0, BLOCK, SOURCE);
    check_data(&t, BLOCK, BLOCK, GUEST);
    check_data(&t, 2 * BLOCK, 2 * BLOCK, SOURCE);
    check_data(&t, 8 * BLOCK, BLOCK, GUEST);
    check_one(t.haves, 8 * BLOCK, BLOCK);
    pull_test_cleanup(&t);
}

/* A block arrives while the guest overwrites it */
static void test_store_during_write(Kind kind, uint8_t tag)
{
    PullTest t;
    Op *store, *write;

    setup_missing(&t);
    hold_writes(&t);
    write = start(&t, kind, BLOCK, 2 * BLOCK, tag);
    store = start(&t, STORE, 0, 4 * BLOCK, SOURCE);
    g_assert_false(is_done(store));
    g_assert_false(is_done(write));
    release_writes(&t);

    g_assert_cmpint(finish(write), ==, 0);
    op_wait(store);
    g_assert_cmpint(store->count, ==, 2 * BLOCK);
    g_assert_cmpint(finish(store), ==, 0);
    check_data(&t, 0, BLOCK, SOURCE);
    check_data(&t, BLOCK, 2 * BLOCK, tag);
    check_data(&t, 3 * BLOCK, BLOCK, SOURCE);
    check_one(t.haves, BLOCK, 2 * BLOCK);
    g_assert_cmpint(pull_test_stats(&t).dropped, ==, 2 * BLOCK);
    pull_test_cleanup(&t);
}

static void test_store_during(void)
{
    test_store_during_write(WRITE, GUEST);
    test_store_during_write(ZERO, 0);
    test_store_during_write(DISCARD, 0);
}

/* The write fails after the block has arrived and waits for it */
static void test_store_during_failing_write(void)
{
    PullTest t;
    Op *store, *write;

    setup_missing(&t);
    hold_writes(&t);
    t.mem->write_error = -EIO;
    write = start(&t, WRITE, 0, BLOCK, GUEST);
    store = start(&t, STORE, 0, BLOCK, SOURCE);
    release_writes(&t);
    g_assert_cmpint(finish(write), ==, -EIO);
    op_wait(store);
    g_assert_cmpint(store->count, ==, BLOCK);
    g_assert_cmpint(finish(store), ==, 0);
    check_data(&t, 0, BLOCK, SOURCE);
    g_assert_cmpint(t.haves->len, ==, 0);
    pull_test_cleanup(&t);
}

static void test_partial_write(Kind kind, uint8_t tag)
{
    PullTest t;
    Op *op;

    setup_missing(&t);
    op = start(&t, kind, BLOCK - 100, 2 * BLOCK + 300, tag);
    check_one(t.pulls, 0, BLOCK);
    run_store(&t, 0, BLOCK, BLOCK);
    g_assert_false(is_done(op));
    check_one(t.pulls, 3 * BLOCK, BLOCK);
    check_data(&t, BLOCK - 100, 100, SOURCE);
    run_store(&t, 3 * BLOCK, BLOCK, BLOCK);
    g_assert_cmpint(finish(op), ==, 0);
    check_data(&t, 0, BLOCK - 100, SOURCE);
    check_data(&t, BLOCK - 100, 2 * BLOCK + 300, tag);
    check_data(&t, 3 * BLOCK + 200, BLOCK - 200, SOURCE);
    check_one(t.haves, BLOCK, 2 * BLOCK);

    /* Inside of one block, and over the border of two */
    op = start(&t, kind, 5 * BLOCK + 1, 1, tag);
    check_one(t.pulls, 5 * BLOCK, BLOCK);
    run_store(&t, 5 * BLOCK, BLOCK, BLOCK);
    g_assert_cmpint(finish(op), ==, 0);
    check_data(&t, 5 * BLOCK, 1, SOURCE);
    check_data(&t, 5 * BLOCK + 1, 1, tag);
    op = start(&t, kind, 8 * BLOCK - 1, 2, tag);
    check_one(t.pulls, 7 * BLOCK, 2 * BLOCK);
    run_store(&t, 7 * BLOCK, 2 * BLOCK, 2 * BLOCK);
    g_assert_cmpint(finish(op), ==, 0);
    check_data(&t, 8 * BLOCK - 1, 2, tag);
    g_assert_cmpint(t.haves->len, ==, 0);
    pull_test_cleanup(&t);
}

static void test_partial(void)
{
    test_partial_write(WRITE, GUEST);
    test_partial_write(ZERO, 0);
}

/* A discard never waits; what it covers reads as zero */
static void test_discard(void)
{
    PullTest t;

    setup_missing(&t);
    g_assert_cmpint(run(&t, DISCARD, 100, 2 * BLOCK, 0), ==, 0);
    check_data(&t, BLOCK, BLOCK, 0);
    check_one(t.haves, BLOCK, BLOCK);
    g_assert_cmpint(run(&t, DISCARD, 5 * BLOCK + 512, 512, 0), ==, 0);
    check_data(&t, 5 * BLOCK, BLOCK, OLD);

    /* Not possible without writing zeroes out: nothing happens */
    t.mem->unmap_unsupported = true;
    g_assert_cmpint(run(&t, DISCARD, 8 * BLOCK, BLOCK, 0), ==, 0);
    check_data(&t, 8 * BLOCK, BLOCK, OLD);

    g_assert_cmpint(t.pulls->len + t.haves->len, ==, 0);
    g_assert_cmpint(pull_test_stats(&t).missing, ==, SIZE - BLOCK);
    run_store(&t, 0, SIZE, SIZE - BLOCK);
    check_data(&t, BLOCK, BLOCK, 0);
    check_data(&t, 2 * BLOCK, SIZE - 2 * BLOCK, SOURCE);
    g_assert_cmpint(pull_test_completed(&t), ==, 1);
    pull_test_cleanup(&t);
}

static void test_failing_write(void)
{
    static const Kind kinds[] = { WRITE, ZERO, DISCARD };
    PullTest t;

    setup_missing(&t);
    for (int i = 0; i < ARRAY_SIZE(kinds); i++) {
        t.mem->write_error = -EIO;
        g_assert_cmpint(run(&t, kinds[i], 0, BLOCK, GUEST), ==, -EIO);
        g_assert_cmpint(t.haves->len, ==, 0);
        g_assert_cmpint(pull_test_stats(&t).missing, ==, SIZE);
    }
    run_store(&t, 0, BLOCK, BLOCK);
    check_data(&t, 0, BLOCK, SOURCE);
    pull_test_cleanup(&t);
}

static void test_failing_store(void)
{
    PullTest t;
    Op *read;

    setup_missing(&t);
    read = start(&t, READ, BLOCK, BLOCK, 0);
    check_one(t.pulls, BLOCK, BLOCK);
    t.mem->write_error = -ENOSPC;
    g_assert_cmpint(run(&t, STORE, 0, 2 * BLOCK, SOURCE), ==, -ENOSPC);
    g_assert_false(is_done(read));
    g_assert_cmpint(pull_test_stats(&t).missing, ==, SIZE);
    g_assert_cmpint(t.pulls->len, ==, 0);
    bdrv_pull_repeat(t.filter);
    check_one(t.pulls, BLOCK, BLOCK);
    run_store(&t, 0, 2 * BLOCK, 2 * BLOCK);
    check_read(&t, read, SOURCE);
    pull_test_cleanup(&t);
}

static void test_repeat(void)
{
    PullTest t;
    Op *gone, *a, *b;

    setup_missing(&t);
    gone = start(&t, READ, 12 * BLOCK, BLOCK, 0);
    a = start(&t, READ, 0, 2 * BLOCK, 0);
    b = start(&t, READ, BLOCK, BLOCK, 0);
    run_store(&t, 12 * BLOCK, BLOCK, BLOCK);
    run_store(&t, 0, BLOCK, BLOCK);
    check_read(&t, gone, SOURCE);
    g_assert_cmpint(t.pulls->len, ==, 2);
    g_array_set_size(t.pulls, 0);

    bdrv_pull_repeat(t.filter);
    check_one(t.pulls, BLOCK, BLOCK);
    run_store(&t, BLOCK, BLOCK, BLOCK);
    check_read(&t, a, SOURCE);
    check_read(&t, b, SOURCE);
    bdrv_pull_repeat(t.filter);
    g_assert_cmpint(t.pulls->len, ==, 0);
    pull_test_cleanup(&t);
}

static void test_set_error(void)
{
    PullTest t;
    Op *read, *write;

    setup_missing(&t);
    read = start(&t, READ, 0, BLOCK, 0);
    write = start(&t, WRITE, 5 * BLOCK, 100, GUEST);
    g_assert_cmpint(t.pulls->len, ==, 2);
    bdrv_pull_set_error(t.filter, -EHOSTDOWN);
    g_assert_cmpint(finish(read), ==, -EHOSTDOWN);
    g_assert_cmpint(finish(write), ==, -EHOSTDOWN);
    g_assert_cmpint(run(&t, READ, 0, BLOCK, 0), ==, -EHOSTDOWN);
    g_assert_cmpint(t.pulls->len, ==, 2);
    g_assert_cmpint(pull_test_stats(&t).waiting, ==, 0);
    g_assert_cmpint(run(&t, WRITE, BLOCK, BLOCK, GUEST), ==, 0);

    /* It can come back, and is asked again */
    g_array_set_size(t.pulls, 0);
    bdrv_pull_set_error(t.filter, 0);
    read = start(&t, READ, 0, BLOCK, 0);
    check_one(t.pulls, 0, BLOCK);
    run_store(&t, 0, BLOCK, BLOCK);
    check_read(&t, read, SOURCE);
    pull_test_cleanup(&t);
}

static void test_drop_while_waiting(void)
{
    PullTest t;
    Op *read, *store;

    setup_missing(&t);
    read = start(&t, READ, 0, BLOCK, 0);
    pull_test_drop(&t);
    g_assert_cmpint(finish(read), ==, -ECANCELED);
    g_assert_cmpint(t.completed, ==, 0);
    g_assert_cmpint(run(&t, WRITE, 100, BLOCK, GUEST), ==, 0);
    g_assert_cmpint(t.haves->len, ==, 0);
    pull_test_cleanup(&t);

    setup_missing(&t);
    bdrv_drained_begin(t.bs);
    store = start(&t, STORE, 0, BLOCK, SOURCE);
    g_assert_false(is_done(store));
    pull_test_drop(&t);
    g_assert_cmpint(finish(store), ==, -ECANCELED);
    bdrv_drained_end(t.bs);
    check_data(&t, 0, SIZE, OLD);
    pull_test_cleanup(&t);
}

static bool has_incoming(PullTest *t)
{
    PullState *s = t->filter->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    return s->incoming;
}

static void be_busy(void *opaque)
{
    g_usleep(20000);
}

/* What is parked belongs to another thread, which needs its time */
static void test_drop_while_parked(void)
{
    IOThread *thread = iothread_new();
    PullTest t;
    Op *store;

    setup_missing(&t);
    bdrv_drained_begin(t.bs);
    store = start_in(iothread_get_aio_context(thread), &t, STORE, 0, BLOCK,
                     SOURCE, 0);
    while (!has_incoming(&t)) {
        g_usleep(100);
    }
    aio_bh_schedule_oneshot(iothread_get_aio_context(thread), be_busy, NULL);
    pull_test_drop(&t);
    bdrv_drained_end(t.bs);
    g_assert_cmpint(finish(store), ==, -ECANCELED);
    pull_test_cleanup(&t);
    iothread_join(thread);
}

/*
 * The guest overwrites the last missing block in a drained section, while the
 * same from the source is parked; then the filter is dropped.
 */
static void test_drop_complete_while_parked(void)
{
    PullTest t;
    Op *store;

    setup_missing(&t);
    run_store(&t, BLOCK, SIZE - BLOCK, SIZE - BLOCK);
    bdrv_drained_begin(t.bs);
    store = start(&t, STORE, 0, BLOCK, SOURCE);
    g_assert_false(is_done(store));
    /* As if it had been on its way when the drained section began */
    blk_set_disable_request_queuing(t.blk, true);
    g_assert_cmpint(run(&t, WRITE, 0, BLOCK, GUEST), ==, 0);
    g_assert_cmpint(pull_test_completed(&t), ==, 1);
    g_assert_false(is_done(store));
    pull_test_drop(&t);
    op_wait(store);
    g_assert_cmpint(store->count, ==, 0);
    g_assert_cmpint(finish(store), ==, 0);
    bdrv_drained_end(t.bs);
    check_data(&t, 0, BLOCK, GUEST);
    pull_test_cleanup(&t);
}

/* Somebody, like a block job, does not let go the filter */
static void test_drop_kept_alive(void)
{
    BlockDriverState *filter;
    BlockBackend *job;
    uint8_t buf[BLOCK];
    PullTest t;

    setup_missing(&t);
    filter = t.filter;
    bdrv_ref(filter);
    bdrv_pull_drop(filter);
    t.filter = NULL;
    g_assert_true(blk_bs(t.blk) == t.bs);

    job = blk_new(qemu_get_aio_context(), BLK_PERM_CONSISTENT_READ,
                  BLK_PERM_ALL);
    blk_insert_bs(job, filter, &error_abort);
    g_assert_cmpint(blk_pread(job, 0, BLOCK, buf, 0), ==, 0);
    g_assert_cmpint(buf[0], ==, OLD);
    g_assert_cmpint(t.pulls->len, ==, 0);
    blk_unref(job);
    bdrv_unref(filter);
    pull_test_cleanup(&t);
}

static void begin_drained(PullTest *t)
{
    bdrv_drained_begin(t->filter);
}

static void end_drained(PullTest *t)
{
    bdrv_drained_end(t->filter);
}

static void begin_drained_child(PullTest *t)
{
    bdrv_drained_begin(t->bs);
}

static void end_drained_child(PullTest *t)
{
    bdrv_drained_end(t->bs);
}

static void begin_drain_all(PullTest *t)
{
    bdrv_drain_all_begin();
}

static void end_drain_all(PullTest *t)
{
    bdrv_drain_all_end();
}

static void graph_change(PullTest *t)
{
    pull_test_graph_change();
}

/*
 * A drained section waits for a read which waits for a block.  The block can
 * be behind another one that nobody waits for.
 */
static void check_drain(void (*begin)(PullTest *t), void (*end)(PullTest *t))
{
    PullTest t;
    Op *read, *other, *store, *parked, *late;

    setup_missing(&t);
    read = start(&t, READ, 3 * BLOCK, BLOCK, 0);
    other = start_delayed(&t, STORE, 7 * BLOCK, BLOCK, SOURCE, 1000000);
    store = start_delayed(&t, STORE, 3 * BLOCK, BLOCK, SOURCE, 20000000);
    begin(&t);
    g_assert_true(is_done(read));
    g_assert_true(is_done(other));
    g_assert_true(is_done(store));
    g_assert_cmpint(t.filter->in_flight, ==, 0);

    if (end) {
        parked = start(&t, STORE, 5 * BLOCK, BLOCK, SOURCE);
        late = start(&t, WRITE, 5 * BLOCK, BLOCK, GUEST);
        g_assert_false(is_done(parked));
        g_assert_false(is_done(late));
        g_assert_cmpint(t.filter->in_flight, ==, 0);
        check_data(&t, 5 * BLOCK, BLOCK, OLD);
        end(&t);
        g_assert_cmpint(finish(parked), ==, 0);
        g_assert_cmpint(finish(late), ==, 0);
        check_data(&t, 5 * BLOCK, BLOCK, GUEST);
    }
    g_assert_cmpint(finish(other), ==, 0);
    g_assert_cmpint(finish(store), ==, 0);
    check_read(&t, read, SOURCE);
    pull_test_cleanup(&t);
}

static void test_drain(void)
{
    check_drain(begin_drained, end_drained);
    check_drain(begin_drained_child, end_drained_child);
    check_drain(begin_drain_all, end_drain_all);
    check_drain(graph_change, NULL);
}

/*
 * A read reaches the filter after the drained section has begun, because it
 * was on its way.  What it waits for is parked.
 */
static void test_drain_parked_helps(void)
{
    PullTest t;
    Op *store, *read, *arrived;

    setup_missing(&t);
    blk_set_disable_request_queuing(t.blk, true);
    store = start_delayed(&t, STORE, 3 * BLOCK, BLOCK, SOURCE, 1000000);
    read = start_delayed(&t, READ, 3 * BLOCK, BLOCK, 0, 5000000);
    bdrv_inc_in_flight(t.filter);
    arrived = start_delayed(&t, ARRIVED, 0, 0, 0, 6000000);

    bdrv_drained_begin(t.filter);
    g_assert_true(is_done(arrived));
    g_assert_true(is_done(read));
    bdrv_drained_end(t.filter);
    g_assert_cmpint(finish(arrived), ==, 0);
    g_assert_cmpint(finish(store), ==, 0);
    check_read(&t, read, SOURCE);
    pull_test_cleanup(&t);
}

static void check_status(PullTest *t, int64_t offset, int64_t bytes,
                         int expected, int64_t expected_pnum)
{
    int64_t pnum, map;
    BlockDriverState *file;
    int ret = bdrv_block_status(t->filter, offset, bytes, &pnum, &map, &file);

    ret &= BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID;
    g_assert_cmpint(ret, ==, expected);
    g_assert_cmpint(pnum, ==, expected_pnum);
    if (ret & BDRV_BLOCK_OFFSET_VALID) {
        g_assert_cmpint(map, ==, offset);
        g_assert_true(file == t->bs);
    }
}

static void test_block_status(void)
{
    PullTest t;

    pull_test_init(&t, SIZE);
    bdrv_pull_set_missing(t.filter, BLOCK, 2 * BLOCK);
    memset(t.mem->data, 0, 2 * BLOCK);
    check_status(&t, BLOCK - 512, 5 * BLOCK,
                 BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID, 512);
    check_status(&t, BLOCK, 512, BDRV_BLOCK_DATA, 512);
    check_status(&t, BLOCK + 512, 5 * BLOCK, BDRV_BLOCK_DATA,
                 2 * BLOCK - 512);
    check_status(&t, 3 * BLOCK, BLOCK,
                 BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID, 512);
    pull_test_cleanup(&t);
}

static void test_truncate(void)
{
    PullTest t;
    Error *err = NULL;

    pull_test_init(&t, SIZE);
    g_assert_cmpint(blk_truncate(t.blk, SIZE / 2, true, PREALLOC_MODE_OFF, 0,
                                 &err), ==, -EBUSY);
    error_free_or_abort(&err);
    bdrv_pull_set_missing(t.filter, 0, BLOCK);
    g_assert_cmpint(bdrv_pull_seal(t.filter), ==, 0);
    g_assert_cmpint(blk_truncate(t.blk, 2 * SIZE, true, PREALLOC_MODE_OFF, 0,
                                 &err), ==, -EBUSY);
    error_free_or_abort(&err);

    run_store(&t, 0, BLOCK, BLOCK);
    g_assert_cmpint(blk_truncate(t.blk, 2 * SIZE, true, PREALLOC_MODE_OFF, 0,
                                 &error_abort), ==, 0);
    g_assert_cmpint(blk_getlength(t.blk), ==, 2 * SIZE);
    g_assert_cmpint(run(&t, WRITE, SIZE, SIZE, GUEST), ==, 0);
    check_data(&t, SIZE, SIZE, GUEST);
    pull_test_cleanup(&t);
}

static void test_precopy(void)
{
    PullTest t;
    Op *op;

    pull_test_init(&t, SIZE);
    g_assert_cmpint(run(&t, PRECOPY, 0, 4 * BLOCK, SOURCE), ==, 0);
    check_data(&t, 0, 4 * BLOCK, SOURCE);

    /* Zeroes are written only where something else is */
    memset(t.mem->data + BLOCK, 0, BLOCK);
    op = start(&t, PRECOPY, BLOCK, 2 * BLOCK, 0);
    op_wait(op);
    g_assert_cmpint(op->count, ==, BLOCK);
    g_assert_cmpint(finish(op), ==, 0);
    check_data(&t, BLOCK, 2 * BLOCK, 0);
    t.mem->zero_writes = 0;
    g_assert_cmpint(run(&t, PRECOPY, BLOCK, 2 * BLOCK, 0), ==, 0);
    g_assert_cmpint(t.mem->zero_writes, ==, 0);

    g_assert_cmpint(run(&t, STORE, 0, BLOCK, SOURCE), ==, -EPERM);
    hold_writes(&t);
    op = start(&t, PRECOPY, 0, BLOCK, SOURCE);
    g_assert_cmpint(bdrv_pull_seal(t.filter), ==, -EBUSY);
    release_writes(&t);
    g_assert_cmpint(finish(op), ==, 0);
    g_assert_cmpint(bdrv_pull_seal(t.filter), ==, 0);
    g_assert_cmpint(run(&t, PRECOPY, 0, BLOCK, OLD), ==, -EPERM);
    check_data(&t, 0, BLOCK, SOURCE);
    pull_test_cleanup(&t);
}

static void test_bad_range(void)
{
    static const Range bad[] = {
        { 0, 0 }, { -BLOCK, BLOCK }, { SIZE, BLOCK }, { 0, SIZE + BLOCK },
        { INT64_MAX, INT64_MAX }, { 0, -BLOCK }, { SIZE - BLOCK, 2 * BLOCK },
    };
    PullTest t;

    pull_test_init(&t, SIZE);
    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_assert_cmpint(run(&t, PRECOPY, bad[i].offset, bad[i].bytes, 0), ==,
                        -EINVAL);
    }
    bdrv_pull_set_missing(t.filter, 0, SIZE);
    g_assert_cmpint(bdrv_pull_seal(t.filter), ==, 0);
    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_assert_cmpint(run(&t, STORE, bad[i].offset, bad[i].bytes, 0), ==,
                        -EINVAL);
    }
    g_assert_cmpint(run(&t, STORE, 512, BLOCK, SOURCE), ==, -EINVAL);
    g_assert_cmpint(run(&t, STORE, 0, 512, SOURCE), ==, -EINVAL);
    check_data(&t, 0, SIZE, OLD);
    pull_test_cleanup(&t);
}

/* The last block is short */
static void test_odd_size(void)
{
    const int64_t size = SIZE - 1536, last = SIZE - BLOCK;
    PullTest t;
    Op *op;

    for (int i = 0; i < 3; i++) {
        pull_test_init(&t, size);
        bdrv_pull_set_missing(t.filter, 0, size);
        g_assert_cmpint(bdrv_pull_seal(t.filter), ==, 0);
        g_assert_cmpint(pull_test_stats(&t).missing, ==, size);
        op = start(&t, READ, size - 10, 10, 0);
        check_one(t.pulls, last, size - last);
        switch (i) {
        case 0:
            run_store(&t, last, size - last, size - last);
            check_read(&t, op, SOURCE);
            break;
        case 1:
            g_assert_cmpint(run(&t, WRITE, last, size - last, GUEST), ==, 0);
            check_read(&t, op, GUEST);
            check_one(t.haves, last, size - last);
            break;
        case 2:
            g_assert_cmpint(run(&t, DISCARD, last, size - last, 0), ==, 0);
            check_read(&t, op, 0);
            check_one(t.haves, last, size - last);
            break;
        }
        g_assert_cmpint(pull_test_stats(&t).missing, ==, last);
        run_store(&t, 0, size, last);
        g_assert_cmpint(t.completed, ==, 1);
        pull_test_cleanup(&t);
    }
}

static void test_store_zeroes(void)
{
    PullTest t;

    setup_missing(&t);
    g_assert_cmpint(run(&t, WRITE, BLOCK, BLOCK, GUEST), ==, 0);
    g_assert_cmpint(run(&t, STORE, 0, 4 * BLOCK, 0), ==, 0);
    check_data(&t, 0, BLOCK, 0);
    check_data(&t, BLOCK, BLOCK, GUEST);
    check_data(&t, 2 * BLOCK, 2 * BLOCK, 0);
    pull_test_cleanup(&t);
}

/* The guest's disk is served by a thread of its own */
static void test_iothread(void)
{
    IOThread *thread = iothread_new();
    PullTest t;
    Op *read;

    pull_test_init_disk(&t, SIZE, BLK_PERM_WRITE | BLK_PERM_CONSISTENT_READ,
                        BLK_PERM_ALL, BDRV_O_RDWR);
    blk_set_aio_context(t.blk, iothread_get_aio_context(thread), &error_abort);
    t.filter = bdrv_pull_append(t.bs, BLOCK, &pull_test_ops, &t, &error_abort);
    g_assert_true(bdrv_get_aio_context(t.filter) ==
                  iothread_get_aio_context(thread));
    bdrv_pull_set_missing(t.filter, 0, SIZE);
    g_assert_cmpint(bdrv_pull_seal(t.filter), ==, 0);

    read = start(&t, READ, 0, BLOCK, 0);
    run_store(&t, 0, SIZE, SIZE);
    check_read(&t, read, SOURCE);
    pull_test_drop(&t);
    check_read(&t, start(&t, READ, 0, BLOCK, 0), SOURCE);
    blk_set_aio_context(t.blk, qemu_get_aio_context(), &error_abort);
    pull_test_cleanup(&t);
    iothread_join(thread);
}

/* As in a QEMU that waits for a migration: the guest may not write yet */
static void test_inactive(void)
{
    Error *err = NULL;
    PullTest t;

    pull_test_init_disk(&t, SIZE, 0, BLK_PERM_ALL,
                        BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_INACTIVE);
    g_assert_null(bdrv_pull_append(t.bs, BLOCK, &pull_test_ops, &t, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "is inactive"));
    error_free_or_abort(&err);
    g_assert_true(blk_bs(t.blk) == t.bs);

    g_assert_cmpint(bdrv_activate(t.bs, &error_abort), ==, 0);
    t.filter = bdrv_pull_append(t.bs, BLOCK, &pull_test_ops, &t, &error_abort);
    g_assert_cmpint(run(&t, PRECOPY, 0, SIZE, SOURCE), ==, 0);
    check_data(&t, 0, SIZE, SOURCE);
    bdrv_pull_set_missing(t.filter, 0, BLOCK);
    g_assert_cmpint(bdrv_pull_seal(t.filter), ==, 0);

    /* The next migration must wait for what is missing */
    g_assert_cmpint(bdrv_inactivate_all(), ==, -EBUSY);
    bdrv_activate_all(&error_abort);
    run_store(&t, 0, BLOCK, BLOCK);
    g_assert_cmpint(bdrv_inactivate_all(), ==, 0);
    bdrv_activate_all(&error_abort);
    pull_test_cleanup(&t);
}

static void test_not_below(uint64_t perm)
{
    Error *err = NULL;
    BlockBackend *other;
    PullTest t;

    pull_test_init_disk(&t, SIZE, 0, BLK_PERM_ALL, BDRV_O_RDWR);
    t.filter = bdrv_pull_append(t.bs, BLOCK, &pull_test_ops, &t, &error_abort);
    other = blk_new(qemu_get_aio_context(), perm, BLK_PERM_ALL);
    g_assert_cmpint(blk_insert_bs(other, t.bs, &err), <, 0);
    error_free_or_abort(&err);
    g_assert_cmpint(blk_insert_bs(other, t.filter, &error_abort), ==, 0);
    blk_remove_bs(other);
    pull_test_drop(&t);
    g_assert_cmpint(blk_insert_bs(other, t.bs, &error_abort), ==, 0);
    blk_unref(other);
    pull_test_cleanup(&t);
}

/* Nobody may read or write behind the back of the filter */
static void test_permissions(void)
{
    Error *err = NULL;
    BlockDriverState *ro;

    test_not_below(BLK_PERM_CONSISTENT_READ);
    test_not_below(BLK_PERM_WRITE);
    test_not_below(BLK_PERM_RESIZE);

    ro = bdrv_new_open_driver(&bdrv_mem, NULL, 0, &error_abort);
    g_assert_null(bdrv_pull_append(ro, BLOCK, &pull_test_ops, NULL, &err));
    error_free_or_abort(&err);
    bdrv_unref(ro);
}

/* Without BDRV_O_UNMAP a discard does nothing, so it must not hide a block */
static void test_no_unmap(void)
{
    PullTest t;

    pull_test_init_disk(&t, SIZE, BLK_PERM_WRITE, BLK_PERM_ALL, BDRV_O_RDWR);
    t.filter = bdrv_pull_append(t.bs, BLOCK, &pull_test_ops, &t, &error_abort);
    bdrv_pull_set_missing(t.filter, 0, SIZE);
    g_assert_cmpint(bdrv_pull_seal(t.filter), ==, 0);
    g_assert_cmpint(run(&t, DISCARD, 0, SIZE, 0), ==, 0);
    g_assert_cmpint(t.haves->len, ==, 0);
    g_assert_cmpint(pull_test_stats(&t).missing, ==, SIZE);
    pull_test_cleanup(&t);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*func)(void);
    } tests[] = {
        { "pass-through", test_pass_through },
        { "read-store", test_read_store },
        { "read-write", test_read_write },
        { "write-during-store", test_write_during_store },
        { "store-during-write", test_store_during },
        { "store-during-failing-write", test_store_during_failing_write },
        { "partial-write", test_partial },
        { "discard", test_discard },
        { "no-unmap", test_no_unmap },
        { "failing-write", test_failing_write },
        { "failing-store", test_failing_store },
        { "store-zeroes", test_store_zeroes },
        { "repeat", test_repeat },
        { "set-error", test_set_error },
        { "drop-while-waiting", test_drop_while_waiting },
        { "drop-while-parked", test_drop_while_parked },
        { "drop-complete-while-parked", test_drop_complete_while_parked },
        { "drop-kept-alive", test_drop_kept_alive },
        { "drain", test_drain },
        { "drain-parked-helps", test_drain_parked_helps },
        { "block-status", test_block_status },
        { "truncate", test_truncate },
        { "precopy", test_precopy },
        { "bad-range", test_bad_range },
        { "odd-size", test_odd_size },
        { "iothread", test_iothread },
        { "inactive", test_inactive },
        { "permissions", test_permissions },
    };

    bdrv_init();
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);

    for (int i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf("/pull-on-demand/%s",
                                                tests[i].name);

        g_test_add_func(path, tests[i].func);
    }

    return g_test_run();
}
