/*
 * For the tests of the pull-on-demand filter: a disk in memory, a guest, and
 * a record of what the filter has told the source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "pull-test.h"

static void coroutine_fn mem_sleep(MemState *s)
{
    if (s->slow && g_random_int_range(0, 3) == 0) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, g_random_int_range(0, 200000));
    }
}

/* What happens before each write */
static int coroutine_fn mem_before_write(MemState *s)
{
    int ret = s->write_error;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        while (s->hold) {
            qemu_co_queue_wait(&s->held, &s->lock);
        }
    }
    if (ret) {
        s->write_error = 0;
        return ret;
    }
    mem_sleep(s);
    return s->slow && g_random_int_range(0, 40) == 0 ? -ENOSPC : 0;
}

static int coroutine_fn mem_co_preadv(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, QEMUIOVector *qiov,
                                      BdrvRequestFlags flags)
{
    MemState *s = bs->opaque;

    while (qatomic_read(&s->hold_reads)) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
    mem_sleep(s);
    qemu_iovec_from_buf(qiov, 0, s->data + offset, bytes);
    return qatomic_read(&s->read_error);
}

static int coroutine_fn mem_co_pwritev(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       BdrvRequestFlags flags)
{
    MemState *s = bs->opaque;
    int64_t half = bytes / 2;
    int ret = mem_before_write(s);

    if (ret < 0) {
        return ret;
    }
    qemu_iovec_to_buf(qiov, 0, s->data + offset, half);
    mem_sleep(s);
    qemu_iovec_to_buf(qiov, half, s->data + offset + half, bytes - half);
    return 0;
}

static int coroutine_fn mem_co_pwrite_zeroes(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes,
                                             BdrvRequestFlags flags)
{
    MemState *s = bs->opaque;
    int ret = mem_before_write(s);

    if (ret < 0) {
        return ret;
    }
    if (s->unmap_unsupported && (flags & BDRV_REQ_MAY_UNMAP)) {
        return -ENOTSUP;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->zero_writes++;
    }
    memset(s->data + offset, 0, bytes);
    return 0;
}

/* May do nothing, so it does nothing */
static int coroutine_fn mem_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes)
{
    return 0;
}

static int coroutine_fn mem_co_flush(BlockDriverState *bs)
{
    MemState *s = bs->opaque;

    int ret = s->flush_error;

    s->flush_error = 0;
    QEMU_LOCK_GUARD(&s->lock);
    s->flushes++;
    return ret;
}

static int coroutine_fn mem_co_block_status(BlockDriverState *bs,
                                            bool want_zero, int64_t offset,
                                            int64_t bytes, int64_t *pnum,
                                            int64_t *map,
                                            BlockDriverState **file)
{
    MemState *s = bs->opaque;

    *pnum = MIN(bytes, 512);
    *map = offset;
    *file = bs;
    return BDRV_BLOCK_OFFSET_VALID |
        (buffer_is_zero(s->data + offset, *pnum) ? BDRV_BLOCK_ZERO
                                                 : BDRV_BLOCK_DATA);
}

static int coroutine_fn mem_co_truncate(BlockDriverState *bs, int64_t offset,
                                        bool exact, PreallocMode prealloc,
                                        BdrvRequestFlags flags, Error **errp)
{
    MemState *s = bs->opaque;

    s->data = g_realloc(s->data, offset);
    if (offset > s->size) {
        memset(s->data + s->size, 0, offset - s->size);
    }
    s->size = offset;
    return 0;
}

static int64_t coroutine_fn mem_co_getlength(BlockDriverState *bs)
{
    MemState *s = bs->opaque;

    return s->size;
}

static int mem_open(BlockDriverState *bs, QDict *options, int flags,
                    Error **errp)
{
    MemState *s = bs->opaque;

    qemu_mutex_init(&s->lock);
    qemu_co_queue_init(&s->held);
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    return 0;
}

static void mem_close(BlockDriverState *bs)
{
    MemState *s = bs->opaque;

    qemu_mutex_destroy(&s->lock);
    g_free(s->data);
}

BlockDriver bdrv_mem = {
    .format_name            = "test-mem",
    .instance_size          = sizeof(MemState),
    .bdrv_open              = mem_open,
    .bdrv_close             = mem_close,
    .bdrv_co_preadv         = mem_co_preadv,
    .bdrv_co_pwritev        = mem_co_pwritev,
    .bdrv_co_pwrite_zeroes  = mem_co_pwrite_zeroes,
    .bdrv_co_pdiscard       = mem_co_pdiscard,
    .bdrv_co_flush          = mem_co_flush,
    .bdrv_co_block_status   = mem_co_block_status,
    .bdrv_co_truncate       = mem_co_truncate,
    .bdrv_co_getlength      = mem_co_getlength,
    .bdrv_child_perm        = bdrv_default_perms,
};

static void test_record(PullTest *t, GArray *list, int64_t offset,
                        int64_t bytes)
{
    Range r = { offset, bytes };

    QEMU_LOCK_GUARD(&t->lock);
    g_array_append_val(list, r);
}

static void test_pull(void *opaque, int64_t offset, int64_t bytes)
{
    PullTest *t = opaque;

    test_record(t, t->pulls, offset, bytes);
}

static void test_have(void *opaque, int64_t offset, int64_t bytes)
{
    PullTest *t = opaque;

    test_record(t, t->haves, offset, bytes);
}

static void test_complete(void *opaque)
{
    PullTest *t = opaque;

    WITH_QEMU_LOCK_GUARD(&t->lock) {
        t->completed++;
    }
    aio_wait_kick();
}

int pull_test_completed(PullTest *t)
{
    QEMU_LOCK_GUARD(&t->lock);
    return t->completed;
}

const BdrvPullOps pull_test_ops = {
    .pull = test_pull,
    .have = test_have,
    .complete = test_complete,
};

void pull_test_init_disk(PullTest *t, int64_t size, uint64_t perm,
                         uint64_t shared, int flags)
{
    *t = (PullTest) { .size = size };
    qemu_mutex_init(&t->lock);
    t->pulls = g_array_new(false, false, sizeof(Range));
    t->haves = g_array_new(false, false, sizeof(Range));

    t->bs = bdrv_new_open_driver(&bdrv_mem, NULL, flags, &error_abort);
    t->mem = t->bs->opaque;
    t->mem->size = size;
    t->mem->data = g_malloc(size);
    memset(t->mem->data, OLD, size);
    t->bs->total_sectors = size / BDRV_SECTOR_SIZE;

    t->blk = blk_new(qemu_get_aio_context(), perm, shared);
    blk_insert_bs(t->blk, t->bs, &error_abort);
}

void pull_test_init(PullTest *t, int64_t size)
{
    /* Nobody else may write, as the device of a guest wants it */
    pull_test_init_disk(t, size, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                        BLK_PERM_RESIZE,
                        BLK_PERM_ALL & ~(BLK_PERM_WRITE | BLK_PERM_RESIZE),
                        BDRV_O_RDWR | BDRV_O_UNMAP);
    t->filter = bdrv_pull_append(t->bs, BLOCK, &pull_test_ops, t, &error_abort);
    g_assert_true(blk_bs(t->blk) == t->filter);
}

void pull_test_drop(PullTest *t)
{
    bdrv_pull_drop(t->filter);
    t->filter = NULL;
    g_assert_true(blk_bs(t->blk) == t->bs);
    g_assert_cmpint(t->bs->refcnt, ==, 2);
}

void pull_test_cleanup(PullTest *t)
{
    if (t->filter) {
        pull_test_drop(t);
    }
    blk_unref(t->blk);
    bdrv_unref(t->bs);
    g_array_unref(t->pulls);
    g_array_unref(t->haves);
    qemu_mutex_destroy(&t->lock);
}

BdrvPullStats pull_test_stats(PullTest *t)
{
    BdrvPullStats stats;

    bdrv_pull_get_stats(t->filter, &stats);
    return stats;
}

void pull_test_graph_change(void)
{
    bdrv_graph_wrlock();
    bdrv_graph_wrunlock();
}
