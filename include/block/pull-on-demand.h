/*
 * pull-on-demand filter: destination side of disk post-copy
 *
 * The filter is put above a disk whose contents still arrive from elsewhere
 * ("the source").  It knows which blocks are missing, asks for those that
 * somebody reads, and takes in what arrives.  How blocks are asked for and how
 * they get here is the business of the user, see BdrvPullOps.
 *
 *   append -> write()*, set_missing()* -> seal -> store()* -> complete -> drop
 *             `---- guest stopped ----'        `- guest runs -'
 *
 * If the user keeps a durable list of what is missing, so that a crash costs
 * nothing that the guest has flushed, the filter tells when blocks come off
 * it.  The rules are in pull-marks.h; and there is more to call:
 *
 *   seal -> arm -> store()*, checkpoint()* -> complete -> checkpoint() -> drop
 *              `------------------------ guest runs --------------------'
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PULL_ON_DEMAND_H
#define PULL_ON_DEMAND_H

#include "block/block-common.h"
#include "block/graph-lock.h"

/* Bytes */
typedef struct BdrvPullRange {
    int64_t offset, bytes;
} BdrvPullRange;

/*
 * All callbacks may come from any thread, in or outside of a coroutine, and
 * concurrently.  They must neither block nor yield (but for mark()), nor call
 * the functions below.  No lock of the filter is held.  None is called after
 * bdrv_pull_drop() has returned.
 *
 * Ranges are whole blocks, the last one clipped at the size of the disk.
 */
typedef struct BdrvPullOps {
    /*
     * Somebody waits for this range: ask the source for it.  Called once for
     * each block, until bdrv_pull_repeat().  Can be late: the block may
     * arrive, or be overwritten by the guest (have() is called), at the same
     * time.
     */
    void (*pull)(void *opaque, int64_t offset, int64_t bytes);

    /*
     * The guest has overwritten or zeroed this range, which was missing: it
     * need not be sent any more.
     */
    void (*have)(void *opaque, int64_t offset, int64_t bytes);

    /*
     * The filter is sealed and nothing is missing.  Called exactly once, and
     * after the have() of the request that was the last; pull() and have() of
     * other, concurrent requests may still follow.
     */
    void (*complete)(void *opaque);

    /*
     * NULL: nobody keeps a list of what is missing.  Else what is in these
     * ranges (@nb, they do not overlap) is durable in the disk below: take
     * them off the list, durably, when the list as it was at the seal is
     * durable itself.  @nb 0: only wait until it is.
     *
     * From bdrv_pull_arm() on, one call at a time for each filter.  It is part
     * of a flush of the filter, so it is in a coroutine, in any AioContext,
     * with the graph lock held for reading.  It may yield, but guests and
     * drained sections wait for it: it must not need the main loop, nor may
     * its I/O wait for the end of a drained section
     * (blk_set_disable_request_queuing()).
     *
     * Return 0, or -errno: the flush fails with it, and the ranges come again
     * with the next one.  To go on without the list, void it durably and
     * return 0.
     */
    int coroutine_fn (*mark)(void *opaque, const BdrvPullRange *ranges,
                             size_t nb);
} BdrvPullOps;

/* Bytes, unless said otherwise.  The last block counts with its real size. */
typedef struct BdrvPullStats {
    int64_t missing;
    int64_t pulled;         /* stored, and somebody had asked for it */
    int64_t pushed;         /* stored unasked */
    int64_t overwritten;    /* was missing when the guest overwrote it */
    int64_t dropped;        /* arrived, but was not missing any more */
    int64_t unmarked;       /* was missing and is not, but is to be marked */
    unsigned waiting;       /* number of requests that wait for a block */
} BdrvPullStats;

/*
 * Main thread with the BQL, not in a coroutine.  Insert a filter above @bs, for
 * all its parents.  Nobody else can read or write @bs, or a node below that it
 * shares with no one, until it is dropped; it is an error if somebody does.
 * Nothing is missing: the filter passes everything through.  @bs must be active
 * (bdrv_activate()) and writable.  @granularity: size of a block, a power of
 * two, at least 512.  @ops and @opaque must stay valid until bdrv_pull_drop()
 * has returned.  Return the filter, which the caller gives back with
 * bdrv_pull_drop(), or NULL.
 */
BlockDriverState *GRAPH_UNLOCKED
bdrv_pull_append(BlockDriverState *bs, uint32_t granularity,
                 const BdrvPullOps *ops, void *opaque, Error **errp);

/*
 * Main thread with the BQL, not in a coroutine.  Remove the filter and free it.
 * Requests that wait for a block fail with -ECANCELED, so do bdrv_pull_write()
 * and bdrv_pull_store(), for whose end is waited; the caller begins no new
 * ones.  If blocks are missing, the disk below has holes with old contents: the
 * guest must not run.
 */
void GRAPH_UNLOCKED bdrv_pull_drop(BlockDriverState *filter);

/*
 * The source holds the only current copy of these whole blocks.  Any thread.
 * The caller has checked the range.  Not after bdrv_pull_seal().
 */
void bdrv_pull_set_missing(BlockDriverState *filter, int64_t offset,
                           int64_t bytes);

/*
 * All that is missing has been told; the guest may run from now on.  Any
 * thread.  Calls complete() before it returns if nothing is missing.  Return
 * -EBUSY, and do nothing, if a bdrv_pull_write() is not yet finished.
 */
int bdrv_pull_seal(BlockDriverState *filter);

/*
 * With mark(): sealed, and the guest is about to run.  From now on no flush
 * ends before the list is durable and what the guest has flushed is off it.
 * Before, flushes do not wait for the list, which need not ever be written if
 * the guest does not come.  Any thread.  Without mark() it changes nothing.
 */
void bdrv_pull_arm(BlockDriverState *filter);

/*
 * Flush the disk and mark all that has arrived before.  After complete() this
 * must have succeeded before bdrv_pull_drop(), if the guest is to run on: its
 * later writes and flushes are not noted.  Without mark(): flush the disk.
 *
 * After the seal.  Waits while the node is drained and no request waits for a
 * block.  Return 0, -EPERM before the seal, the error of the flush or of
 * mark(), or -ECANCELED if the filter is dropped.  May be called from any
 * AioContext.
 */
int coroutine_fn GRAPH_UNLOCKED
bdrv_pull_checkpoint(BlockDriverState *filter);

/*
 * Pre-copy: write unconditionally.  @buf NULL means zeroes; they are
 * skipped where the disk reads as zero anyway (thin disks stay thin), and
 * *@skipped (may be NULL) tells how much that was.  Any range inside the disk.
 * Waits while the node is drained.  Return 0, -EINVAL for a bad range,
 * -EPERM after bdrv_pull_seal(), -ECANCELED, or the error of the write.
 * May be called from any AioContext.
 */
int coroutine_fn GRAPH_UNLOCKED
bdrv_pull_write(BlockDriverState *filter, int64_t offset, int64_t bytes,
                const void *buf, int64_t *skipped);

/*
 * Pre-copy: read what is there so far.  *@zero: the range reads as zeroes, and
 * @buf is left alone.  Any range inside the disk.  Waits and returns as
 * bdrv_pull_write(), with the error of the read.
 */
int coroutine_fn GRAPH_UNLOCKED
bdrv_pull_read(BlockDriverState *filter, int64_t offset, int64_t bytes,
               void *buf, bool *zero);

/*
 * Post-copy: of these whole blocks, store those that are still missing; what
 * the guest has overwritten meanwhile is dropped.  @buf NULL means zeroes.
 * *@stored (may be NULL, also valid on failure) tells how much was stored.
 *
 * On failure what is not stored stays missing, and whoever waits for it goes
 * on waiting and does not ask again: call this again, or bdrv_pull_repeat()
 * later, or bdrv_pull_set_error().
 *
 * Waits while the node is drained and no request waits for a block.  Return
 * 0, -EINVAL for a bad range, -EPERM before bdrv_pull_seal(), the error of the
 * write, or -ECANCELED if the filter is dropped while blocks are missing.
 * May be called from any AioContext.
 */
int coroutine_fn GRAPH_UNLOCKED
bdrv_pull_store(BlockDriverState *filter, int64_t offset, int64_t bytes,
                const void *buf, int64_t *stored);

/*
 * Call pull() again for every missing block that some request waits for, as
 * after a reconnect.  Any thread, not from a coroutine.
 */
void bdrv_pull_repeat(BlockDriverState *filter);

/*
 * @ret < 0: requests that need a missing block fail with @ret from now on,
 * those that wait already as well.  For a source that is lost, and to let
 * drained sections end (stop, quit) while the source cannot be reached.
 * 0: they wait again.  Any thread, not from a coroutine.
 */
void bdrv_pull_set_error(BlockDriverState *filter, int ret);

/*
 * Find the first part of a range (of whole blocks) that is missing.  If there
 * is none, return false and leave *@area_offset and *@area_bytes alone.  Any
 * thread.
 */
bool bdrv_pull_next_missing(BlockDriverState *filter, int64_t offset,
                            int64_t bytes, int64_t *area_offset,
                            int64_t *area_bytes);

/* Any thread.  The figures fit together. */
void bdrv_pull_get_stats(BlockDriverState *filter, BdrvPullStats *stats);

#endif /* PULL_ON_DEMAND_H */
