/*
 * For unit tests: an image that is a file, but may not be flushed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/graph-lock.h"
#include "qemu/coroutine.h"
#include "wsm-flaky.h"

Flaky flaky;

static int flaky_open(BlockDriverState *bs, QDict *options, int flags,
                      Error **errp)
{
    return bdrv_open_file_child(NULL, options, "file", bs, errp);
}

static int coroutine_fn GRAPH_RDLOCK
flaky_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
             QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return bdrv_co_preadv(bs->file, offset, bytes, qiov, flags);
}

static int coroutine_fn GRAPH_RDLOCK
flaky_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
              QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return bdrv_co_pwritev(bs->file, offset, bytes, qiov, flags);
}

static int coroutine_fn GRAPH_RDLOCK flaky_flush(BlockDriverState *bs)
{
    int ret;

    qatomic_inc(&flaky.waiting);
    while (qatomic_read(&flaky.hold)) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
    qatomic_dec(&flaky.waiting);
    ret = qatomic_xchg(&flaky.next_ret, 0) ?: qatomic_read(&flaky.ret) ?:
          bdrv_co_flush(bs->file->bs);
    qatomic_inc(&flaky.flushes);
    return ret;
}

static int64_t coroutine_fn GRAPH_RDLOCK flaky_getlength(BlockDriverState *bs)
{
    return bdrv_co_getlength(bs->file->bs);
}

static BlockDriver bdrv_flaky = {
    .format_name        = "test-flaky",
    .bdrv_open          = flaky_open,
    .bdrv_co_preadv     = flaky_preadv,
    .bdrv_co_pwritev    = flaky_pwritev,
    .bdrv_co_flush      = flaky_flush,
    .bdrv_co_getlength  = flaky_getlength,
    .bdrv_child_perm    = bdrv_default_perms,
};

void flaky_register(void)
{
    bdrv_register(&bdrv_flaky);
}
