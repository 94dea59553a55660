/*
 * pull-on-demand filter driver
 *
 * The filter stands above a disk of which some blocks are still elsewhere.
 * Reads of a missing block ask for it and wait; writes make it cease to be
 * missing; what arrives is stored only where it is still missing.  The rules
 * that make a guest write always win are those of pull-map.h; those that make
 * it survive a power cut are those of pull-marks.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/host-utils.h"
#include "qapi/error.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/pull-on-demand.h"
#include "block/pull-state.h"
#include "trace.h"

static int coroutine_fn GRAPH_RDLOCK
pull_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
               QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    PullState *s = bs->opaque;

    if (bytes && pull_state_any_missing(s)) {
        int64_t start = offset, len = bytes;
        int ret;

        pull_map_outer(&s->map, &start, &len);
        ret = pull_state_wait(s, start, len);
        if (ret < 0) {
            return ret;
        }
    }

    return bdrv_co_preadv(bs->backing, offset, bytes, qiov, flags);
}

/* Wait for the first and the last block if the range covers part of them. */
static int coroutine_fn GRAPH_RDLOCK
pull_wait_edges(PullState *s, int64_t offset, int64_t bytes)
{
    int64_t start = offset, len = bytes;
    int64_t inner = offset, inner_len = bytes;
    int ret = 0;

    pull_map_outer(&s->map, &start, &len);
    pull_map_inner(&s->map, &inner, &inner_len);
    if (!inner_len) {
        return pull_state_wait(s, start, len);
    }

    if (start < inner) {
        ret = pull_state_wait(s, start, inner - start);
    }
    if (ret == 0 && start + len > inner + inner_len) {
        ret = pull_state_wait(s, inner + inner_len,
                              start + len - inner - inner_len);
    }

    return ret;
}

/* @qiov NULL means zeroes */
static int coroutine_fn GRAPH_RDLOCK
pull_write_child(BlockDriverState *bs, int64_t offset, int64_t bytes,
                 QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    if (!qiov) {
        return bdrv_co_pwrite_zeroes(bs->backing, offset, bytes, flags);
    }

    return bdrv_co_pwritev(bs->backing, offset, bytes, qiov, flags);
}

/* The guest has overwritten the exclusive range @req. */
static void coroutine_fn pull_overwritten(PullState *s, BlockReq *req)
{
    int64_t offset = req->offset;
    int64_t bytes;

    while (pull_state_next(s, req, offset, &offset, &bytes)) {
        pull_state_arrived(s, req, offset, bytes, &s->stats.overwritten,
                           &s->stats.overwritten);
        s->ops->have(s->opaque, offset, bytes);
        offset += bytes;
    }
}

/*
 * Blocks of which only a part changes are waited for; those which change as a
 * whole are not missing afterwards, if the child has done it.
 */
static int coroutine_fn GRAPH_RDLOCK
pull_write_missing(BlockDriverState *bs, int64_t offset, int64_t bytes,
                   QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    PullState *s = bs->opaque;
    int64_t inner = offset, inner_len = bytes;
    BlockReq req;
    int ret;

    ret = pull_wait_edges(s, offset, bytes);
    if (ret < 0) {
        return ret;
    }

    pull_map_inner(&s->map, &inner, &inner_len);
    if (!inner_len || !pull_state_begin(s, &req, inner, inner_len)) {
        return pull_write_child(bs, offset, bytes, qiov, flags);
    }

    ret = pull_write_child(bs, offset, bytes, qiov, flags);
    if (ret < 0) {
        trace_pull_on_demand_fail(bs, "write", offset, bytes, ret);
    } else {
        pull_overwritten(s, &req);
    }
    pull_state_end(s, &req);

    return ret;
}

/* All that changes data comes through here, but for discards */
static int coroutine_fn GRAPH_RDLOCK
pull_do_write(BlockDriverState *bs, int64_t offset, int64_t bytes,
              QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    PullState *s = bs->opaque;
    int ret;

    if (!bytes || !pull_state_any_missing(s)) {
        ret = pull_write_child(bs, offset, bytes, qiov, flags);
    } else {
        ret = pull_write_missing(bs, offset, bytes, qiov, flags);
    }
    /* If it has failed, the guest may yet read there what it wrote */
    pull_state_wrote(s, offset, bytes);

    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
pull_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return pull_do_write(bs, offset, bytes, qiov, flags);
}

static int coroutine_fn GRAPH_RDLOCK
pull_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      BdrvRequestFlags flags)
{
    return pull_do_write(bs, offset, bytes, NULL, flags);
}

/*
 * A discard may leave in place what the child has there, and for a missing
 * block that is older than anything the guest knows.  So discard with zeroes
 * while something is missing.  It is advice only: leave alone what cannot be
 * done without waiting for a block or writing zeroes out.
 */
static int coroutine_fn GRAPH_RDLOCK
pull_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    PullState *s = bs->opaque;
    uint32_t align = MAX(bs->backing->bs->bl.pwrite_zeroes_alignment,
                         s->map.granularity);
    int64_t end = offset + bytes;
    int ret;

    if (!pull_state_any_missing(s)) {
        ret = bdrv_co_pdiscard(bs->backing, offset, bytes);
        pull_state_wrote(s, offset, bytes);
        return ret;
    }

    offset = QEMU_ALIGN_UP(offset, align);
    if (end < s->map.size) {
        end = QEMU_ALIGN_DOWN(end, align);
    }
    if (offset >= end) {
        return 0;
    }

    ret = pull_do_write(bs, offset, end - offset, NULL,
                        BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK);
    return ret == -ENOTSUP ? 0 : ret;
}

/* Data, marks, answer: see pull-marks.h.  bdrv_co_flush() calls it singly. */
static int coroutine_fn GRAPH_RDLOCK
pull_flush_and_mark(BlockDriverState *bs)
{
    PullState *s = bs->opaque;
    GArray *marks = pull_state_begin_marks(s);
    int ret = bdrv_co_flush(bs->backing->bs);

    if (marks) {
        if (ret >= 0) {
            ret = s->ops->mark(s->opaque, (const BdrvPullRange *)marks->data,
                               marks->len);
            if (ret < 0) {
                trace_pull_on_demand_fail(bs, "mark", 0, s->map.size, ret);
            }
        }
        pull_state_end_marks(s, marks, ret);
    }

    return ret;
}

static int coroutine_fn GRAPH_RDLOCK pull_co_flush(BlockDriverState *bs)
{
    PullState *s = bs->opaque;

    /*
     * Without @backing bdrv_pull_append() has failed.  Without parents it is
     * bdrv_close() that flushes, in a drained section: who used the disk
     * through us does so without us now, and need not wait.
     */
    if (!bs->backing || QLIST_EMPTY(&bs->parents)) {
        return 0;
    }

    if (!s->ops->mark) {
        return bdrv_co_flush(bs->backing->bs);
    }
    return pull_flush_and_mark(bs);
}

/* What is missing is data of which nothing more is known. */
static int coroutine_fn GRAPH_RDLOCK
pull_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                     int64_t bytes, int64_t *pnum, int64_t *map,
                     BlockDriverState **file)
{
    PullState *s = bs->opaque;
    int64_t area_offset = offset + bytes, area_bytes;

    if (pull_state_any_missing(s)) {
        QEMU_LOCK_GUARD(&s->lock);
        if (pull_map_next(&s->map, offset, bytes, &area_offset, &area_bytes) &&
            area_offset == offset) {
            *pnum = area_bytes;
            return BDRV_BLOCK_DATA;
        }
    }

    *pnum = area_offset - offset;
    *map = offset;
    *file = bs->backing->bs;
    return BDRV_BLOCK_RAW | BDRV_BLOCK_OFFSET_VALID;
}

static int coroutine_fn GRAPH_RDLOCK
pull_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                 PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    PullState *s = bs->opaque;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        /* Marks are for a disk of this size */
        if (!s->completed || (s->ops->mark && !s->dropped)) {
            error_setg(errp, "Cannot resize the disk before its contents have "
                       "arrived");
            return -EBUSY;
        }
    }

    return bdrv_co_truncate(bs->backing, offset, exact, prealloc, flags, errp);
}

static void pull_drain_begin(BlockDriverState *bs)
{
    pull_state_set_quiesced(bs->opaque, true);
}

static void pull_drain_end(BlockDriverState *bs)
{
    pull_state_set_quiesced(bs->opaque, false);
}

/* Nobody but the source has what is missing: the disk must stay here. */
static int GRAPH_RDLOCK pull_inactivate(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    return pull_state_any_missing(bs->opaque) ? -EBUSY : 0;
}

static void GRAPH_RDLOCK pull_refresh_filename(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    if (bs->backing) {
        pstrcpy(bs->exact_filename, sizeof(bs->exact_filename),
                bs->backing->bs->filename);
    }
}

static void GRAPH_RDLOCK
pull_child_perm(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                BlockReopenQueue *reopen_queue, uint64_t perm, uint64_t shared,
                uint64_t *nperm, uint64_t *nshared)
{
    PullState *s = bs->opaque;

    GLOBAL_STATE_CODE();
    bdrv_default_perms(bs, c, role, reopen_queue, perm, shared, nperm, nshared);

    /*
     * What arrives is written even if the guest's device may not write yet.
     * Nobody may write behind the back of the filter, nor read there what has
     * not arrived.
     */
    if (!s->dropped && !(bs->open_flags & BDRV_O_INACTIVE)) {
        *nperm |= BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE;
        *nshared &= ~(BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                      BLK_PERM_RESIZE);
    }
}

static int pull_open(BlockDriverState *bs, QDict *options, int flags,
                     Error **errp)
{
    pull_state_init(bs->opaque, bs);
    return 0;
}

static void pull_close(BlockDriverState *bs)
{
    pull_state_destroy(bs->opaque);
}

/* Not registered: only bdrv_pull_append() creates such nodes. */
static BlockDriver bdrv_pull_on_demand = {
    .format_name                = "pull-on-demand",
    .instance_size              = sizeof(PullState),

    .bdrv_open                  = pull_open,
    .bdrv_close                 = pull_close,

    .bdrv_co_preadv             = pull_co_preadv,
    .bdrv_co_pwritev            = pull_co_pwritev,
    .bdrv_co_pwrite_zeroes      = pull_co_pwrite_zeroes,
    .bdrv_co_pdiscard           = pull_co_pdiscard,
    .bdrv_co_flush              = pull_co_flush,
    .bdrv_co_block_status       = pull_co_block_status,
    .bdrv_co_truncate           = pull_co_truncate,

    .bdrv_drain_begin           = pull_drain_begin,
    .bdrv_drain_end             = pull_drain_end,
    .bdrv_inactivate            = pull_inactivate,
    .bdrv_refresh_filename      = pull_refresh_filename,
    .bdrv_child_perm            = pull_child_perm,

    .is_filter                  = true,
    .filtered_child_is_backing  = true,
};

BlockDriverState *bdrv_pull_append(BlockDriverState *bs, uint32_t granularity,
                                   const BdrvPullOps *ops, void *opaque,
                                   Error **errp)
{
    BlockDriverState *filter;
    BdrvRequestFlags fua;
    int64_t size;

    GLOBAL_STATE_CODE();
    assert(!qemu_in_coroutine());
    assert(is_power_of_2(granularity) && granularity >= BDRV_SECTOR_SIZE);

    if (bs->open_flags & BDRV_O_INACTIVE) {
        error_setg(errp, "Node '%s' is inactive", bdrv_get_node_name(bs));
        return NULL;
    }
    size = bdrv_getlength(bs);
    if (size < 0) {
        error_setg_errno(errp, -size, "Cannot get the size of node '%s'",
                         bdrv_get_node_name(bs));
        return NULL;
    }

    filter = bdrv_new_open_driver(&bdrv_pull_on_demand, NULL, BDRV_O_RDWR |
                                  (bs->open_flags & BDRV_O_UNMAP), errp);
    if (!filter) {
        return NULL;
    }

    pull_state_setup(filter->opaque, size, granularity, ops, opaque);
    filter->implicit = true;
    /* A block job must not hold on to the link that bdrv_pull_drop() cuts */
    filter->never_freeze = true;
    filter->total_sectors = bs->total_sectors;
    /* With marks it is a write and then a flush of the filter, which marks */
    fua = ops->mark ? 0 : BDRV_REQ_FUA;
    filter->supported_write_flags |= BDRV_REQ_WRITE_UNCHANGED |
        (fua & bs->supported_write_flags);
    filter->supported_zero_flags |= BDRV_REQ_WRITE_UNCHANGED |
        ((fua | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK) &
         bs->supported_zero_flags);

    if (bdrv_append(filter, bs, errp) < 0) {
        bdrv_unref(filter);
        return NULL;
    }

    return filter;
}

void bdrv_pull_drop(BlockDriverState *filter)
{
    GLOBAL_STATE_CODE();

    pull_state_cancel(filter->opaque);
    bdrv_drained_begin(filter);
    pull_state_finish(filter->opaque);
    bdrv_drop_filter(filter, &error_abort);
    bdrv_drained_end(filter);
    bdrv_unref(filter);
}

void bdrv_pull_set_missing(BlockDriverState *filter, int64_t offset,
                           int64_t bytes)
{
    pull_state_set_missing(filter->opaque, offset, bytes);
}

int bdrv_pull_seal(BlockDriverState *filter)
{
    return pull_state_seal(filter->opaque);
}

void bdrv_pull_arm(BlockDriverState *filter)
{
    pull_state_arm(filter->opaque);
}

int coroutine_fn bdrv_pull_checkpoint(BlockDriverState *filter)
{
    PullState *s = filter->opaque;
    int ret;

    ret = pull_state_enter(s, true);
    if (ret != 0) {
        return ret < 0 ? ret : -ECANCELED;
    }

    pull_state_want_marks(s);
    WITH_GRAPH_RDLOCK_GUARD() {
        ret = bdrv_co_flush(filter);
    }
    pull_state_leave(s);

    return ret;
}

void bdrv_pull_repeat(BlockDriverState *filter)
{
    pull_state_repeat(filter->opaque);
}

void bdrv_pull_set_error(BlockDriverState *filter, int ret)
{
    pull_state_set_error(filter->opaque, ret);
}

bool bdrv_pull_next_missing(BlockDriverState *filter, int64_t offset,
                            int64_t bytes, int64_t *area_offset,
                            int64_t *area_bytes)
{
    return pull_state_next_missing(filter->opaque, offset, bytes, area_offset,
                                   area_bytes);
}

void bdrv_pull_get_stats(BlockDriverState *filter, BdrvPullStats *stats)
{
    pull_state_get_stats(filter->opaque, stats);
}

/* Write zeroes where the child does not read as zero. */
static int coroutine_fn GRAPH_RDLOCK
pull_store_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                  int64_t *skipped)
{
    BlockDriverState *child_bs = bs->backing->bs;
    int64_t end = offset + bytes;
    int64_t n;

    for (; offset < end; offset += n) {
        int ret = bdrv_co_block_status_above(child_bs, NULL, offset,
                                             end - offset, &n, NULL, NULL);
        if (ret < 0 || !n) {
            ret = 0;
            n = end - offset;
        }
        if (ret & BDRV_BLOCK_ZERO) {
            *skipped += n;
            continue;
        }
        ret = bdrv_co_pwrite_zeroes(bs->backing, offset, n, BDRV_REQ_MAY_UNMAP);
        if (ret < 0) {
            return ret;
        }
    }

    return 0;
}

/* Write to the child; @buf NULL means zeroes. */
static int coroutine_fn GRAPH_RDLOCK
pull_store_child(BlockDriverState *bs, int64_t offset, int64_t bytes,
                 const void *buf, int64_t *skipped)
{
    int ret;

    if (buf) {
        ret = bdrv_co_pwrite(bs->backing, offset, bytes, buf, 0);
    } else {
        ret = pull_store_zeroes(bs, offset, bytes, skipped);
    }
    if (ret < 0) {
        trace_pull_on_demand_fail(bs, "store", offset, bytes, ret);
    }

    return ret;
}

/* Begin with a range of the disk before the seal; pull_state_leave() ends */
static int coroutine_fn pull_enter_precopy(PullState *s, int64_t offset,
                                           int64_t bytes)
{
    if (offset < 0 || bytes <= 0 || bytes > s->map.size ||
        offset > s->map.size - bytes) {
        return -EINVAL;
    }
    return pull_state_enter(s, false);
}

int coroutine_fn bdrv_pull_write(BlockDriverState *filter, int64_t offset,
                                 int64_t bytes, const void *buf,
                                 int64_t *skipped)
{
    PullState *s = filter->opaque;
    int64_t zero = 0;
    int ret;

    ret = pull_enter_precopy(s, offset, bytes);
    if (ret < 0) {
        return ret;
    }

    WITH_GRAPH_RDLOCK_GUARD() {
        ret = pull_store_child(filter, offset, bytes, buf, &zero);
    }
    pull_state_leave(s);
    if (skipped) {
        *skipped = zero;
    }

    return ret;
}

int coroutine_fn bdrv_pull_read(BlockDriverState *filter, int64_t offset,
                                int64_t bytes, void *buf, bool *zero)
{
    PullState *s = filter->opaque;
    int ret;

    ret = pull_enter_precopy(s, offset, bytes);
    if (ret < 0) {
        return ret;
    }

    WITH_GRAPH_RDLOCK_GUARD() {
        *zero = bdrv_co_is_zero_fast(filter->backing->bs, offset, bytes) > 0;
        if (!*zero) {
            ret = bdrv_co_pread(filter->backing, offset, bytes, buf, 0);
        }
    }
    if (ret < 0) {
        trace_pull_on_demand_fail(filter, "read", offset, bytes, ret);
    }
    pull_state_leave(s);

    return ret;
}

/* Store what is missing in the exclusive range @req. */
static int coroutine_fn GRAPH_RDLOCK
pull_store_range(BlockDriverState *bs, BlockReq *req, const uint8_t *buf,
                 int64_t *stored)
{
    PullState *s = bs->opaque;
    int64_t offset = req->offset;
    int64_t bytes, zero = 0;

    while (pull_state_next(s, req, offset, &offset, &bytes)) {
        int ret = pull_store_child(bs, offset, bytes,
                                   buf ? buf + (offset - req->offset) : NULL,
                                   &zero);
        if (ret < 0) {
            return ret;
        }
        pull_state_arrived(s, req, offset, bytes, &s->stats.pulled,
                           &s->stats.pushed);
        *stored += bytes;
        offset += bytes;
    }

    return 0;
}

int coroutine_fn bdrv_pull_store(BlockDriverState *filter, int64_t offset,
                                 int64_t bytes, const void *buf,
                                 int64_t *stored)
{
    PullState *s = filter->opaque;
    int64_t count = 0;
    BlockReq req;
    int ret;

    if (!pull_map_is_whole(&s->map, offset, bytes)) {
        return -EINVAL;
    }
    ret = pull_state_enter(s, true);
    if (ret != 0) {
        if (stored) {
            *stored = 0;
        }
        return MIN(ret, 0);
    }

    if (pull_state_begin(s, &req, offset, bytes)) {
        WITH_GRAPH_RDLOCK_GUARD() {
            ret = pull_store_range(filter, &req, buf, &count);
        }
        pull_state_end(s, &req);
    }
    if (ret == 0) {
        pull_state_count_dropped(s, bytes - count);
    }
    pull_state_leave(s);
    if (stored) {
        *stored = count;
    }

    return ret;
}
