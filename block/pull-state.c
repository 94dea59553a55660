/*
 * What concurrent requests to a pull-on-demand filter share: who waits for
 * which block, who may write where, and what has happened so far.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/range.h"

#include "block/block.h"
#include "block/block_int.h"
#include "block/pull-state.h"
#include "trace.h"

void pull_state_init(PullState *s, BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    *s = (PullState) { .bs = bs };
    qemu_mutex_init(&s->lock);
    QLIST_INIT(&s->waiting);
    qemu_co_queue_init(&s->parked);
}

void pull_state_setup(PullState *s, int64_t size, uint32_t granularity,
                      const BdrvPullOps *ops, void *opaque)
{
    GLOBAL_STATE_CODE();
    s->ops = ops;
    s->opaque = opaque;
    pull_map_init(&s->map, size, granularity);
    pull_marks_init(&s->marks, size, granularity, ops->mark);
}

void pull_state_destroy(PullState *s)
{
    GLOBAL_STATE_CODE();
    assert(QLIST_EMPTY(&s->waiting));
    assert(!s->incoming);
    pull_marks_destroy(&s->marks);
    pull_map_destroy(&s->map);
    qemu_mutex_destroy(&s->lock);
}

/*
 * Call pull() for what is missing in these whole blocks and not asked for.
 * Called with lock held, which is dropped around the callback; return whether
 * that happened.
 */
static bool pull_state_ask_locked(PullState *s, int64_t offset, int64_t bytes)
{
    int64_t area_offset, area_bytes;
    bool asked = false;

    while (pull_map_ask(&s->map, offset, bytes, &area_offset, &area_bytes)) {
        qemu_mutex_unlock(&s->lock);
        trace_pull_on_demand_ask(s->bs, area_offset, area_bytes);
        s->ops->pull(s->opaque, area_offset, area_bytes);
        qemu_mutex_lock(&s->lock);
        asked = true;
    }

    return asked;
}

int coroutine_fn pull_state_wait(PullState *s, int64_t offset, int64_t bytes)
{
    BlockReq req;
    int ret = 0;

    IO_CODE();
    assert(qemu_in_coroutine());
    assert(qatomic_read(&s->bs->in_flight));
    assert_bdrv_graph_readable();
    QEMU_LOCK_GUARD(&s->lock);
    if (!pull_map_any(&s->map, offset, bytes)) {
        return 0;
    }

    reqlist_init_req(&s->waiting, &req, offset, bytes);
    qemu_co_queue_restart_all(&s->parked);

    while (pull_map_any(&s->map, offset, bytes)) {
        ret = s->error;
        if (ret < 0) {
            pull_map_forget(&s->map, offset, bytes);
            trace_pull_on_demand_fail(s->bs, "wait", offset, bytes, ret);
            break;
        }
        if (!pull_state_ask_locked(s, offset, bytes)) {
            qemu_co_queue_wait(&req.wait_queue, &s->lock);
        }
    }

    reqlist_remove_req(&req);
    return ret;
}

bool coroutine_fn pull_state_begin(PullState *s, BlockReq *req, int64_t offset,
                                   int64_t bytes)
{
    IO_CODE();
    assert(qemu_in_coroutine());
    QEMU_LOCK_GUARD(&s->lock);

    while (pull_map_any(&s->map, offset, bytes)) {
        BlockReq *other = pull_map_conflict(&s->map, offset, bytes);

        if (!other) {
            pull_map_begin(&s->map, req, offset, bytes);
            return true;
        }
        qemu_co_queue_wait(&other->wait_queue, &s->lock);
    }

    return false;
}

bool pull_state_next(PullState *s, const BlockReq *req, int64_t offset,
                     int64_t *area_offset, int64_t *area_bytes)
{
    IO_CODE();
    QEMU_LOCK_GUARD(&s->lock);

    return pull_map_next(&s->map, offset, req->offset + req->bytes - offset,
                         area_offset, area_bytes);
}

/* Wake the requests that need not wait any more.  Called with lock held. */
static void coroutine_fn pull_state_wake_locked(PullState *s, int64_t offset,
                                                int64_t bytes)
{
    BlockReq *req;

    QLIST_FOREACH(req, &s->waiting, list) {
        if (ranges_overlap(req->offset, req->bytes, offset, bytes) &&
            !pull_map_any(&s->map, req->offset, req->bytes)) {
            qemu_co_queue_restart_all(&req->wait_queue);
        }
    }
}

/* Called with lock held */
static void pull_state_look_at_marks_locked(PullState *s)
{
    qatomic_store_release(&s->any_unmarked, pull_marks_any(&s->marks));
}

void coroutine_fn pull_state_arrived(PullState *s, const BlockReq *req,
                                     int64_t offset, int64_t bytes,
                                     int64_t *asked, int64_t *unasked)
{
    int64_t n;

    IO_CODE();
    assert(qemu_in_coroutine());
    QEMU_LOCK_GUARD(&s->lock);
    n = pull_map_clear(&s->map, req, offset, bytes);
    *asked += n;
    *unasked += bytes - n;
    /* Before @any_missing: who sees that nothing is missing sees this, too */
    pull_marks_arrived(&s->marks, offset, bytes);
    pull_state_look_at_marks_locked(s);
    if (!pull_map_missing_bytes(&s->map)) {
        qatomic_store_release(&s->any_missing, false);
    }
    pull_state_wake_locked(s, offset, bytes);
}

void pull_state_wrote(PullState *s, int64_t offset, int64_t bytes)
{
    IO_CODE();
    /*
     * Whatever made the writer know that the range is not missing, the lock or
     * @any_missing, was after this became true.  If it is false again by now,
     * all was marked meanwhile.
     */
    if (!qatomic_load_acquire(&s->any_unmarked)) {
        return;
    }
    pull_map_outer(&s->map, &offset, &bytes);
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        pull_marks_wrote(&s->marks, offset, bytes);
    }
}

GArray *pull_state_begin_marks(PullState *s)
{
    IO_CODE();
    QEMU_LOCK_GUARD(&s->lock);

    return pull_marks_begin(&s->marks);
}

void pull_state_end_marks(PullState *s, GArray *marks, int ret)
{
    IO_CODE();
    QEMU_LOCK_GUARD(&s->lock);

    pull_marks_end(&s->marks, marks, ret);
    pull_state_look_at_marks_locked(s);
}

void pull_state_want_marks(PullState *s)
{
    IO_CODE();
    QEMU_LOCK_GUARD(&s->lock);

    pull_marks_want(&s->marks);
}

static void pull_state_check_complete(PullState *s)
{
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        if (!s->sealed || s->completed || s->any_missing) {
            return;
        }
        s->completed = true;
    }

    s->ops->complete(s->opaque);
}

void coroutine_fn pull_state_end(PullState *s, BlockReq *req)
{
    IO_CODE();
    assert(qemu_in_coroutine());
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        pull_map_end(&s->map, req);
    }

    pull_state_check_complete(s);
}

int coroutine_fn pull_state_enter(PullState *s, bool sealed)
{
    IO_CODE();
    assert(qemu_in_coroutine());
    QEMU_LOCK_GUARD(&s->lock);

    if (s->sealed != sealed) {
        return -EPERM;
    }

    s->incoming++;
    while (s->quiesced && QLIST_EMPTY(&s->waiting) && !s->dropped) {
        qemu_co_queue_wait(&s->parked, &s->lock);
    }
    if (s->dropped) {
        /* Here: when @incoming is 0, the filter may be freed */
        bool over = sealed && !pull_map_missing_bytes(&s->map);

        s->incoming--;
        aio_wait_kick();
        return over ? 1 : -ECANCELED;
    }

    bdrv_inc_in_flight(s->bs);
    return 0;
}

void coroutine_fn pull_state_leave(PullState *s)
{
    BlockDriverState *bs = s->bs;

    IO_CODE();
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->incoming--;
    }
    bdrv_dec_in_flight(bs);
}

void pull_state_set_quiesced(PullState *s, bool quiesced)
{
    GLOBAL_STATE_CODE();
    assert(!qemu_in_coroutine());
    QEMU_LOCK_GUARD(&s->lock);

    s->quiesced = quiesced;
    if (!quiesced) {
        qemu_co_enter_all(&s->parked, &s->lock);
    }
}

static bool pull_state_has_incoming(PullState *s)
{
    QEMU_LOCK_GUARD(&s->lock);

    return s->incoming;
}

void pull_state_cancel(PullState *s)
{
    GLOBAL_STATE_CODE();
    assert(!qemu_in_coroutine());
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->dropped = true;
        qemu_co_enter_all(&s->parked, &s->lock);
    }
    pull_state_set_error(s, -ECANCELED);
    AIO_WAIT_WHILE_UNLOCKED(NULL, pull_state_has_incoming(s));
}

void pull_state_finish(PullState *s)
{
    GLOBAL_STATE_CODE();
    QEMU_LOCK_GUARD(&s->lock);

    assert(s->dropped && s->quiesced && !s->incoming);
    qatomic_store_release(&s->any_missing, false);
    qatomic_store_release(&s->any_unmarked, false);
    pull_marks_disarm(&s->marks);
    s->completed = true;
}

void pull_state_set_missing(PullState *s, int64_t offset, int64_t bytes)
{
    IO_OR_GS_CODE();
    QEMU_LOCK_GUARD(&s->lock);

    assert(!s->sealed);
    pull_map_set_missing(&s->map, offset, bytes);
    qatomic_store_release(&s->any_missing, true);
}

int pull_state_seal(PullState *s)
{
    IO_OR_GS_CODE();
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        assert(!s->sealed);
        if (s->incoming) {
            return -EBUSY;
        }
        s->sealed = true;
    }

    pull_state_check_complete(s);
    return 0;
}

void pull_state_arm(PullState *s)
{
    IO_OR_GS_CODE();
    QEMU_LOCK_GUARD(&s->lock);

    assert(s->sealed);
    pull_marks_arm(&s->marks);
}

void pull_state_repeat(PullState *s)
{
    BlockReq *req;

    IO_OR_GS_CODE();
    assert(!qemu_in_coroutine());
    QEMU_LOCK_GUARD(&s->lock);
    QLIST_FOREACH(req, &s->waiting, list) {
        pull_map_forget(&s->map, req->offset, req->bytes);
    }

again:
    QLIST_FOREACH(req, &s->waiting, list) {
        if (pull_state_ask_locked(s, req->offset, req->bytes)) {
            goto again;     /* the list may have changed */
        }
    }
}

void pull_state_set_error(PullState *s, int ret)
{
    BlockReq *req;

    IO_OR_GS_CODE();
    assert(!qemu_in_coroutine());
    QEMU_LOCK_GUARD(&s->lock);
    s->error = ret;
    if (!ret) {
        return;
    }

again:
    QLIST_FOREACH(req, &s->waiting, list) {
        if (qemu_co_enter_next(&req->wait_queue, &s->lock)) {
            goto again;     /* the list may have changed */
        }
    }
}

void pull_state_count_dropped(PullState *s, int64_t bytes)
{
    IO_CODE();
    QEMU_LOCK_GUARD(&s->lock);

    s->stats.dropped += bytes;
}

bool pull_state_next_missing(PullState *s, int64_t offset, int64_t bytes,
                             int64_t *area_offset, int64_t *area_bytes)
{
    IO_CODE();
    QEMU_LOCK_GUARD(&s->lock);
    return pull_map_next(&s->map, offset, bytes, area_offset, area_bytes);
}

void pull_state_get_stats(PullState *s, BdrvPullStats *stats)
{
    BlockReq *req;

    IO_OR_GS_CODE();
    QEMU_LOCK_GUARD(&s->lock);
    *stats = s->stats;
    stats->missing = pull_map_missing_bytes(&s->map);
    stats->unmarked = pull_marks_bytes(&s->marks);
    QLIST_FOREACH(req, &s->waiting, list) {
        stats->waiting++;
    }
}
