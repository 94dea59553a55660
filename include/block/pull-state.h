/*
 * What concurrent requests to a pull-on-demand filter share: who waits for
 * which block, who may write where, and what has happened so far.  No I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PULL_STATE_H
#define PULL_STATE_H

#include "qemu/lockable.h"
#include "block/pull-map.h"
#include "block/pull-marks.h"
#include "block/pull-on-demand.h"

typedef struct PullState {
    /* Set in pull_state_init() and pull_state_setup(), never changed */
    BlockDriverState *bs;
    const BdrvPullOps *ops;
    void *opaque;

    /*
     * Protects all below.  A QemuMutex, because also functions that are not
     * in a coroutine need it; nobody yields or does I/O with it held.
     */
    QemuMutex lock;

    PullMap map;            /* map.size and map.granularity never change */
    PullMarks marks;

    /* For a look without lock: is anything missing in @map?  Atomic. */
    bool any_missing;

    /* Likewise: could a write concern @marks?  Atomic. */
    bool any_unmarked;

    /* Requests that wait for blocks, as whole blocks.  They may overlap. */
    BlockReqList waiting;

    /* If not 0, requests do not wait for blocks, but fail with this */
    int error;

    /* In a drained section; then what arrives is @parked */
    bool quiesced;
    CoQueue parked;

    /* Between pull_state_enter() and pull_state_leave(), also if parked */
    unsigned incoming;

    bool sealed;
    bool completed;         /* complete() was called, or is about to be */
    bool dropped;

    BdrvPullStats stats;    /* without @missing, @unmarked and @waiting */
} PullState;

/*
 * After this the node may be drained; all else only after the setup.  Main
 * thread with the BQL.
 */
void pull_state_init(PullState *s, BlockDriverState *bs);
void pull_state_setup(PullState *s, int64_t size, uint32_t granularity,
                      const BdrvPullOps *ops, void *opaque);
void pull_state_destroy(PullState *s);

/* Any thread.  If false, nothing will be missing any more (after the seal). */
static inline bool pull_state_any_missing(PullState *s)
{
    return qatomic_load_acquire(&s->any_missing);
}

/*
 * Wait until nothing of these whole blocks is missing, or return the error of
 * bdrv_pull_set_error().
 *
 * The caller is a request to the filter: it is counted in bs->in_flight and
 * holds the graph lock.  So drained sections and graph changes wait for it,
 * and what arrives is not parked meanwhile.
 */
int coroutine_fn GRAPH_RDLOCK
pull_state_wait(PullState *s, int64_t offset, int64_t bytes);

/*
 * Begin an exclusive range, so that nothing changes about what is missing in
 * it but by the caller.  If nothing is missing, do not, and return false.
 */
bool coroutine_fn pull_state_begin(PullState *s, BlockReq *req, int64_t offset,
                                   int64_t bytes);

/* Find the next missing part, at or after @offset, of the exclusive range. */
bool pull_state_next(PullState *s, const BlockReq *req, int64_t offset,
                     int64_t *area_offset, int64_t *area_bytes);

/*
 * The disk has got current data for these missing blocks inside of the
 * exclusive range.  Wake who waits for them, and count them in *@asked and
 * *@unasked, two fields of s->stats.
 */
void coroutine_fn pull_state_arrived(PullState *s, const BlockReq *req,
                                     int64_t offset, int64_t bytes,
                                     int64_t *asked, int64_t *unasked);

/*
 * The guest has written to this range, or tried to, and nothing of it was
 * missing: if it has to be marked, the next flush does.  Before the guest is
 * told.  Any range of the disk; costs next to nothing if all is marked.
 */
void pull_state_wrote(PullState *s, int64_t offset, int64_t bytes);

/*
 * A flush is about to begin: what has to be marked after it, or NULL.  Then
 * the end, with the error of the flush or of mark(); frees @marks.
 */
GArray *pull_state_begin_marks(PullState *s);
void pull_state_end_marks(PullState *s, GArray *marks, int ret);

/* The next flush marks.  Any thread. */
void pull_state_want_marks(PullState *s);

/* End the exclusive range.  Call complete() if it is time. */
void coroutine_fn pull_state_end(PullState *s, BlockReq *req);

/*
 * Begin to take in something, before the seal or after it: count it in
 * bs->in_flight.  Wait while in a drained section, except while a request
 * waits for a block: the drained section waits for that request, and the
 * block could be behind this one.
 *
 * Return 0, or without having begun: -errno, or 1 if nothing is missing any
 * more after the seal.
 */
int coroutine_fn pull_state_enter(PullState *s, bool sealed);
void coroutine_fn pull_state_leave(PullState *s);

/* A drained section begins or ends.  Main thread, not in a coroutine. */
void pull_state_set_quiesced(PullState *s, bool quiesced);

/*
 * Main thread with the BQL, not in a coroutine.  Let all that waits or is
 * parked fail with -ECANCELED, and wait until nothing comes in any more.
 */
void pull_state_cancel(PullState *s);

/*
 * After that, in a drained section; likewise.  No callback is called any more,
 * even if a block job keeps the filter alive.
 */
void pull_state_finish(PullState *s);

/* Any thread */
void pull_state_count_dropped(PullState *s, int64_t bytes);

/* See pull-on-demand.h */
void pull_state_set_missing(PullState *s, int64_t offset, int64_t bytes);
int pull_state_seal(PullState *s);
void pull_state_arm(PullState *s);
void pull_state_repeat(PullState *s);
void pull_state_set_error(PullState *s, int ret);
bool pull_state_next_missing(PullState *s, int64_t offset, int64_t bytes,
                             int64_t *area_offset, int64_t *area_bytes);
void pull_state_get_stats(PullState *s, BdrvPullStats *stats);

#endif /* PULL_STATE_H */
