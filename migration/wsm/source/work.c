/*
 * Whole-system migration: what the source has to do, and who does it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "migration/wsm/image/bitmap-runs.h"
#include "migration/wsm/policy/window.h"
#include "migration/wsm/source/differ.h"
#include "migration/wsm/source/work.h"
#include "migration/wsm/trace.h"
#include "migration/wsm/wire/message.h"

#define WSM_TRACK_STEP          (64 * GiB)      /* of a disk, at a time */
#define WSM_CHUNK               WSM_MAX_DATA    /* of a message, at first */
#define WSM_PIECE               (256 * KiB)     /* zeroes are sent as such */
#define WSM_SEND_WINDOW         (32 * MiB)      /* unacked, all lanes */
#define WSM_STATUS_MIN          (64 * KiB)      /* look for holes from here */

typedef struct WsmWorkDisk {
    BlockDriverState *bs;
    int64_t size;
    BdrvDirtyBitmap *dirty;     /* has a lock of its own; NULL: released */
    BdrvDirtyBitmap *compare;   /* to be compared before it is sent, or NULL */
    int64_t cursor;             /* the pass has come here, */
    int64_t reached;            /* before it was drawn back, if it was */
    int64_t data_until;         /* no holes are known of before here */
    int64_t mixed_until;        /* zeroes were found among data before here */
} WsmWorkDisk;

typedef struct WsmLane {
    bool up;
    unsigned connection;        /* number of times it was up */
    QTAILQ_HEAD(, WsmReq) reqs;
    int64_t in_flight;          /* what @reqs cost, about bytes */
} WsmLane;

struct WsmWork {
    /* Set in new, never changed */
    AioContext *ctx;
    int64_t granularity;
    unsigned nlanes;
    WsmLane *lane;
    const WsmWorkOps *ops;
    void *opaque;

    GArray *disks;              /* of WsmWorkDisk; grows before all begins */
    WsmPassState pass;
    unsigned nreqs;             /* of all lanes */
    WsmWindow window;           /* of what is pushed */
};

static void wsm_work_assert_here(const WsmWork *work)
{
    assert(in_aio_context_home_thread(work->ctx));
}

static WsmWorkDisk *wsm_work_disk(const WsmWork *work, unsigned disk)
{
    assert(disk < work->disks->len);
    return &g_array_index(work->disks, WsmWorkDisk, disk);
}

static WsmWorkDisk *wsm_req_disk(const WsmReq *req)
{
    return wsm_work_disk(req->work, req->disk);
}

static WsmLane *wsm_req_lane(const WsmReq *req)
{
    return &req->work->lane[req->lane];
}

static void wsm_work_changed(WsmWork *work)
{
    work->ops->changed(work->opaque);
}

/*
 * Passes
 */

static void wsm_work_set_pass(WsmWork *work, WsmPassState to)
{
    static const bool legal[WSM_PASS__MAX][WSM_PASS__MAX] = {
        [WSM_PASS_NONE] = { [WSM_PASS_SEND] = true, [WSM_PASS_PUSH] = true },
        [WSM_PASS_SEND] = { [WSM_PASS_NONE] = true },
        [WSM_PASS_PUSH] = { [WSM_PASS_PUSHED] = true },
        [WSM_PASS_PUSHED] = { [WSM_PASS_PUSH] = true },     /* LACK */
    };

    assert(legal[work->pass][to] && !work->nreqs);
    work->pass = to;
}

WsmPassState wsm_work_pass(const WsmWork *work)
{
    return work->pass;
}

bool wsm_work_is_push(const WsmWork *work)
{
    return work->pass >= WSM_PASS_PUSH;
}

/* Let the pass come to @offset at once, if it has left it behind */
static void wsm_work_send_next(WsmWorkDisk *d, int64_t offset)
{
    d->cursor = MIN(d->cursor, offset);
}

static void wsm_work_rewind(WsmWork *work)
{
    for (unsigned i = 0; i < work->disks->len; i++) {
        WsmWorkDisk *d = wsm_work_disk(work, i);

        d->cursor = 0;
        d->reached = 0;
        d->data_until = 0;
        d->mixed_until = 0;
    }
    wsm_work_changed(work);
}

/*
 * Find what is dirty where the pass has not been, at most @most bytes.  With
 * the lock: the guest's writes set bits meanwhile, one level after another.
 */
static bool wsm_work_find_dirty(WsmWorkDisk *d, int64_t most, int64_t *offset,
                                int64_t *bytes)
{
    bool found;

    if (d->cursor >= d->size) {
        return false;
    }
    bdrv_dirty_bitmap_lock(d->dirty);
    found = bdrv_dirty_bitmap_next_dirty_area(d->dirty, d->cursor, d->size,
                                              most, offset, bytes);
    bdrv_dirty_bitmap_unlock(d->dirty);
    return found;
}

static bool wsm_work_is_left(WsmWork *work)
{
    int64_t offset, bytes;

    for (unsigned i = 0; i < work->disks->len; i++) {
        if (wsm_work_find_dirty(wsm_work_disk(work, i), 1, &offset, &bytes)) {
            return true;
        }
    }
    return false;
}

/* See if the pass is over */
static void wsm_work_check_pass(WsmWork *work)
{
    WsmPassState pass = work->pass;
    int64_t dirty;

    if ((pass != WSM_PASS_SEND && pass != WSM_PASS_PUSH) || work->nreqs ||
        wsm_work_is_left(work)) {
        return;
    }
    dirty = wsm_work_all_dirty(work);
    trace_wsm_source_pass_done(wsm_work_is_push(work), dirty);
    if (pass == WSM_PASS_PUSH && dirty) {
        /* A channel broke and what it carried is dirty again */
        wsm_work_rewind(work);
        return;
    }
    wsm_work_set_pass(work, pass == WSM_PASS_SEND ? WSM_PASS_NONE
                                                  : WSM_PASS_PUSHED);
    work->ops->pass_over(work->opaque, pass);
}

static void wsm_work_begin(WsmWork *work, WsmPassState pass)
{
    wsm_work_assert_here(work);
    wsm_work_set_pass(work, pass);
    wsm_work_rewind(work);
    wsm_work_check_pass(work);
}

void wsm_work_begin_pass(WsmWork *work)
{
    wsm_work_begin(work, WSM_PASS_SEND);
}

void wsm_work_begin_push(WsmWork *work)
{
    wsm_work_begin(work, WSM_PASS_PUSH);
}

/*
 * The life of a request
 */

static void wsm_req_step(WsmReq *req, WsmReqState to)
{
    static const bool legal[WSM_REQ__MAX][WSM_REQ__MAX] = {
        [WSM_REQ_READING] = { [WSM_REQ_SENDING] = true },
        [WSM_REQ_SENDING] = { [WSM_REQ_SENT] = true,
                              [WSM_REQ_ARRIVED] = true,
                              [WSM_REQ_FAILED] = true },
        [WSM_REQ_SENT] = { [WSM_REQ_ARRIVED] = true, [WSM_REQ_FAILED] = true },
    };

    wsm_work_assert_here(req->work);
    assert(legal[req->state][to]);
    req->state = to;
}

/* What a request counts in the window; zeroes must not be unlimited, too */
static int64_t wsm_req_cost(const WsmReq *req)
{
    return req->kind == WSM_REQ_ZERO ? WSM_COST_MIN : req->bytes;
}

/* All of the range is dirty, and goes from the bitmap into a request */
static WsmReq *wsm_req_new(WsmWork *work, unsigned lane, unsigned disk,
                           int64_t offset, int64_t bytes)
{
    WsmWorkDisk *d = wsm_work_disk(work, disk);
    WsmLane *l = &work->lane[lane];
    WsmReq *req = g_new(WsmReq, 1);

    *req = (WsmReq) {
        .work = work,
        .lane = lane,
        .disk = disk,
        .offset = offset,
        .bytes = bytes,
        .epoch = wsm_work_is_push(work),
        .connection = l->connection,
    };
    assert(bdrv_dirty_bitmap_next_zero(d->dirty, offset, bytes) < 0);
    bdrv_reset_dirty_bitmap(d->dirty, offset, bytes);
    QTAILQ_INSERT_TAIL(&l->reqs, req, next);
    l->in_flight += bytes;
    work->nreqs++;
    return req;
}

static void wsm_req_free(WsmReq *req)
{
    WsmWork *work = req->work;
    WsmLane *lane = wsm_req_lane(req);

    QTAILQ_REMOVE(&lane->reqs, req, next);
    lane->in_flight -= wsm_req_cost(req);
    work->nreqs--;
    g_free(req->mine);
    g_free(req->theirs);
    g_free(req);
}

static void wsm_req_end(WsmReq *req)
{
    WsmWork *work = req->work;

    wsm_req_free(req);
    wsm_work_changed(work);
    wsm_work_check_pass(work);
}

void wsm_req_put_back(WsmReq *req)
{
    WsmWorkDisk *d = wsm_req_disk(req);

    wsm_work_assert_here(req->work);
    if (req->offset < d->cursor) {
        d->data_until = 0;
    }
    wsm_work_send_next(d, req->offset);
    bdrv_set_dirty_bitmap(d->dirty, req->offset, req->bytes);
    wsm_req_end(req);
}

/* Both sides have hashed the range: what differs is sent next */
static void wsm_req_compare(WsmReq *req)
{
    WsmWork *work = req->work;
    int64_t differ = wsm_differ(wsm_req_disk(req)->dirty, req->offset,
                                req->bytes, work->granularity, req->mine,
                                req->theirs);

    work->ops->compared(work->opaque, req, differ);
    if (differ) {
        wsm_work_send_next(wsm_req_disk(req), req->offset);
    }
}

/* It was answered, and no coroutine has it any more */
static void wsm_req_finish(WsmReq *req)
{
    WsmWorkDisk *d = wsm_req_disk(req);

    if (req->state == WSM_REQ_FAILED) {
        wsm_req_put_back(req);
        return;
    }
    assert(req->state == WSM_REQ_ARRIVED);
    if (req->kind == WSM_REQ_COMPARE) {
        wsm_req_compare(req);
    }
    if (d->compare) {
        bdrv_reset_dirty_bitmap(d->compare, req->offset, req->bytes);
    }
    wsm_req_end(req);
}

bool wsm_req_can_go(const WsmReq *req)
{
    const WsmLane *lane = wsm_req_lane(req);

    return lane->up && lane->connection == req->connection;
}

void wsm_req_sending(WsmReq *req, int64_t now)
{
    assert(wsm_req_can_go(req));
    wsm_req_step(req, WSM_REQ_SENDING);
    req->sent_ns = now;
}

void wsm_req_sent(WsmReq *req)
{
    if (req->state == WSM_REQ_SENDING) {
        wsm_req_step(req, WSM_REQ_SENT);
    } else {
        wsm_req_finish(req);
    }
}

/* What was pushed has arrived */
static void wsm_req_pushed(const WsmReq *req, int64_t now)
{
    WsmWork *work = req->work;
    int64_t in_flight = 0;

    for (unsigned i = 1; i < work->nlanes; i++) {
        in_flight += work->lane[i].in_flight;
    }
    wsm_window_ack(&work->window, req->bytes, in_flight, now,
                   now - req->sent_ns);
}

void wsm_req_answer(WsmReq *req, bool arrived, int64_t now)
{
    bool sent = req->state == WSM_REQ_SENT;

    if (arrived && req->epoch && !req->pull && req->kind == WSM_REQ_DATA) {
        wsm_req_pushed(req, now);
    }
    wsm_req_step(req, arrived ? WSM_REQ_ARRIVED : WSM_REQ_FAILED);
    if (sent) {
        wsm_req_finish(req);
    }
}

WsmReq *wsm_work_find(WsmWork *work, unsigned lane, unsigned disk,
                      int64_t offset, int64_t bytes, uint32_t epoch)
{
    WsmReq *req;

    QTAILQ_FOREACH(req, &work->lane[lane].reqs, next) {
        if (req->disk == disk && req->offset == offset &&
            req->bytes == bytes && req->epoch == epoch &&
            (req->state == WSM_REQ_SENDING || req->state == WSM_REQ_SENT)) {
            return req;
        }
    }
    return NULL;
}

/*
 * Channels
 */

/* What was in flight is to be sent again */
static void wsm_work_restore(WsmWork *work, WsmLane *lane)
{
    WsmReq *req, *next;

    QTAILQ_FOREACH_SAFE(req, &lane->reqs, next, next) {
        if (req->state == WSM_REQ_SENT) {
            wsm_req_put_back(req);
        }
    }
}

void wsm_work_lane_up(WsmWork *work, unsigned lane)
{
    WsmLane *l = &work->lane[lane];

    wsm_work_assert_here(work);
    assert(!l->up);
    l->up = true;
    l->connection++;
    wsm_work_restore(work, l);
    wsm_work_changed(work);
}

void wsm_work_lane_down(WsmWork *work, unsigned lane)
{
    WsmLane *l = &work->lane[lane];

    wsm_work_assert_here(work);
    assert(l->up);
    l->up = false;
}

void wsm_work_lane_gone(WsmWork *work, unsigned lane)
{
    wsm_work_assert_here(work);
    assert(!work->lane[lane].up);
    if (wsm_work_is_push(work)) {
        /* Nothing is ever written twice in post-copy: no need to wait */
        wsm_work_restore(work, &work->lane[lane]);
    }
}

/*
 * What is a request
 */

/* Of how many bytes at least zeroes are looked for in data */
static int64_t wsm_work_piece(const WsmWork *work)
{
    return MAX(WSM_PIECE, work->granularity);
}

/* Bytes of data in a message that begins at @offset */
static int64_t wsm_work_chunk(const WsmWork *work, const WsmWorkDisk *d,
                              int64_t offset)
{
    if (wsm_work_is_push(work)) {
        return MAX(wsm_window_chunk(&work->window), work->granularity);
    }
    return offset < d->mixed_until ? wsm_work_piece(work) : WSM_CHUNK;
}

/* Give back what is beyond the first @bytes of a request */
static void wsm_req_shrink(WsmReq *req, int64_t bytes)
{
    WsmWorkDisk *d = wsm_req_disk(req);

    assert(req->state == WSM_REQ_READING && bytes > 0);
    if (bytes < req->bytes) {
        bdrv_set_dirty_bitmap(d->dirty, req->offset + bytes,
                              req->bytes - bytes);
        wsm_work_send_next(d, req->offset + bytes);
        wsm_req_lane(req)->in_flight -= req->bytes - bytes;
        req->bytes = bytes;
        wsm_work_changed(req->work);
    }
}

static void wsm_req_set_zero(WsmReq *req)
{
    WsmLane *lane = wsm_req_lane(req);

    assert(req->state == WSM_REQ_READING);
    lane->in_flight -= wsm_req_cost(req);
    req->kind = WSM_REQ_ZERO;
    lane->in_flight += wsm_req_cost(req);
    wsm_work_changed(req->work);
}

bool wsm_req_needs_status(const WsmReq *req)
{
    return req->bytes >= WSM_STATUS_MIN &&
           req->offset >= wsm_req_disk(req)->data_until;
}

void wsm_req_fit(WsmReq *req, bool zero, int64_t bytes)
{
    WsmWorkDisk *d = wsm_req_disk(req);
    int64_t granularity = req->work->granularity;
    int64_t most = MIN(req->bytes, wsm_work_chunk(req->work, d, req->offset));

    if (!bytes) {
        bytes = req->bytes;
    } else if (zero) {
        if (bytes < req->bytes) {
            bytes = QEMU_ALIGN_DOWN(bytes, granularity);
        }
        if (bytes) {
            wsm_req_shrink(req, MIN(bytes, req->bytes));
            wsm_req_set_zero(req);
            return;
        }
    } else {
        d->data_until = req->offset + bytes;
        bytes = QEMU_ALIGN_UP(bytes, granularity);
    }
    wsm_req_shrink(req, MIN(MAX(bytes, granularity), most));
}

void wsm_req_find_zeroes(WsmReq *req, const uint8_t *buf)
{
    WsmWorkDisk *d = wsm_req_disk(req);
    int64_t piece = MIN(wsm_work_piece(req->work), req->bytes);
    bool zero = buffer_is_zero(buf, piece);
    int64_t bytes;

    for (bytes = piece; bytes < req->bytes; bytes += piece) {
        piece = MIN(piece, req->bytes - bytes);
        if (buffer_is_zero(buf + bytes, piece) != zero) {
            d->mixed_until = MAX(d->mixed_until, req->offset + req->bytes);
            wsm_req_shrink(req, bytes);
            break;
        }
    }
    if (zero) {
        wsm_req_set_zero(req);
    }
}

/*
 * Taking
 */

/* Is there room for more on @lane, and is it our turn? */
static bool wsm_work_may_take(const WsmWork *work, const WsmLane *lane)
{
    bool push = work->pass == WSM_PASS_PUSH;
    int64_t window = push ? work->window.bytes : WSM_SEND_WINDOW;
    int64_t chunk = push ? wsm_window_chunk(&work->window) : WSM_CHUNK;

    return (push || work->pass == WSM_PASS_SEND) && lane->up &&
           (!lane->in_flight ||
            lane->in_flight + chunk <= window / (work->nlanes - 1));
}

/* A request whose range overlaps this one, or NULL */
static WsmReq *wsm_work_overlapping(const WsmWork *work, unsigned disk,
                                    int64_t offset, int64_t bytes)
{
    for (unsigned i = 0; i < work->nlanes; i++) {
        WsmReq *req;

        QTAILQ_FOREACH(req, &work->lane[i].reqs, next) {
            if (req->disk == disk && req->offset < offset + bytes &&
                offset < req->offset + req->bytes) {
                return req;
            }
        }
    }
    return NULL;
}

/*
 * When the cursor was drawn back, it comes again to ranges that are in flight,
 * and the guest may have written there since.  Sent now, the new content could
 * overtake the old one.  It waits for the next pass: cut the range before what
 * is in flight.  Returns false if that leaves nothing; then the cursor is
 * behind it.  After the freeze nothing changes any more.
 */
static bool wsm_work_avoid_in_flight(WsmWork *work, unsigned disk,
                                     int64_t *offset, int64_t *bytes)
{
    WsmWorkDisk *d = wsm_work_disk(work, disk);
    WsmReq *req;

    if (wsm_work_is_push(work)) {
        return true;
    }
    while (*offset < d->reached &&
           (req = wsm_work_overlapping(work, disk, *offset, *bytes))) {
        int64_t end = *offset + *bytes;

        if (req->offset > *offset) {
            *bytes = req->offset - *offset;
            continue;
        }
        *offset = MIN(req->offset + req->bytes, end);
        *bytes = end - *offset;
        if (!*bytes) {
            d->cursor = end;
            return false;
        }
    }
    return true;
}

/*
 * Of the range that begins at @offset, cut what is not to be compared like its
 * begin.  Returns whether that is to be compared.
 */
static bool wsm_work_cut(const WsmWork *work, const WsmWorkDisk *d,
                         int64_t offset, int64_t *bytes)
{
    bool compare;
    int64_t end;

    if (!d->compare || wsm_work_is_push(work)) {
        return false;
    }
    compare = bdrv_dirty_bitmap_get(d->compare, offset);
    end = compare ? bdrv_dirty_bitmap_next_zero(d->compare, offset, *bytes)
                  : bdrv_dirty_bitmap_next_dirty(d->compare, offset, *bytes);
    if (end >= 0) {
        *bytes = end - offset;
    }
    return compare;
}

/* The next dirty range, all of it compared or none; false: none is left */
static bool wsm_work_next_range(WsmWork *work, unsigned disk, int64_t *offset,
                                int64_t *bytes, bool *compare)
{
    WsmWorkDisk *d = wsm_work_disk(work, disk);
    /* Where there is data, what was taken too much would only be given back */
    int64_t most = d->cursor < d->data_until
                   ? wsm_work_chunk(work, d, d->cursor) : WSM_MAX_ZERO;

    while (wsm_work_find_dirty(d, most, offset, bytes)) {
        if (wsm_work_avoid_in_flight(work, disk, offset, bytes)) {
            *compare = wsm_work_cut(work, d, *offset, bytes);
            d->cursor = *offset + *bytes;
            d->reached = MAX(d->reached, d->cursor);
            return true;
        }
    }
    d->cursor = d->size;
    return false;
}

WsmReq *wsm_work_take(WsmWork *work, unsigned lane)
{
    wsm_work_assert_here(work);
    assert(lane > 0);
    if (!wsm_work_may_take(work, &work->lane[lane])) {
        return NULL;
    }
    for (unsigned i = 0; i < work->disks->len; i++) {
        int64_t offset, bytes;
        bool compare;

        if (wsm_work_next_range(work, i, &offset, &bytes, &compare)) {
            WsmReq *req = wsm_req_new(work, lane, i, offset, bytes);

            req->kind = compare ? WSM_REQ_COMPARE : WSM_REQ_DATA;
            return req;
        }
    }
    wsm_work_check_pass(work);
    return NULL;
}

WsmReq *wsm_work_pull(WsmWork *work, unsigned lane, unsigned disk,
                      int64_t *offset, int64_t end)
{
    WsmWorkDisk *d = wsm_work_disk(work, disk);
    WsmReq *req;
    int64_t bytes;

    wsm_work_assert_here(work);
    assert(wsm_work_is_push(work));
    if (!bdrv_dirty_bitmap_next_dirty_area(d->dirty, *offset, end,
                                           wsm_work_piece(work), offset,
                                           &bytes)) {
        return NULL;
    }
    if (work->lane[lane].in_flight >= WSM_PULL_WINDOW) {
        wsm_work_send_next(d, *offset);
        return NULL;
    }
    req = wsm_req_new(work, lane, disk, *offset, bytes);
    req->pull = true;
    *offset += bytes;
    return req;
}

void wsm_work_have(WsmWork *work, unsigned disk, int64_t offset, int64_t bytes)
{
    wsm_work_assert_here(work);
    assert(wsm_work_is_push(work));
    bdrv_reset_dirty_bitmap(wsm_work_disk(work, disk)->dirty, offset, bytes);
    wsm_work_check_pass(work);
}

bool wsm_work_lacks(WsmWork *work, unsigned disk, int64_t offset, int64_t bytes,
                    const uint8_t *runs, size_t size, Error **errp)
{
    BdrvDirtyBitmap *dirty = wsm_work_disk(work, disk)->dirty;
    bool ok = wsm_bitmap_from_runs(dirty, offset, bytes, runs, size,
                                   work->granularity, errp);
    WsmReq *req;

    wsm_work_assert_here(work);
    assert(wsm_work_is_push(work));
    for (unsigned i = 0; i < work->nlanes; i++) {
        QTAILQ_FOREACH(req, &work->lane[i].reqs, next) {
            if (req->disk == disk) {
                /* It arrives, or is put back */
                bdrv_reset_dirty_bitmap(dirty, req->offset, req->bytes);
            }
        }
    }
    if (bdrv_get_dirty_count(dirty)) {
        if (work->pass == WSM_PASS_PUSHED) {
            wsm_work_set_pass(work, WSM_PASS_PUSH);
        }
        wsm_work_rewind(work);
    }
    return ok;
}

/*
 * Begin and end
 */

WsmWork *wsm_work_new(AioContext *ctx, unsigned lanes, uint32_t granularity,
                      const WsmWorkOps *ops, void *opaque)
{
    WsmWork *work = g_new0(WsmWork, 1);

    assert(lanes >= WSM_MIN_CHANNELS);
    work->ctx = ctx;
    work->granularity = granularity;
    work->nlanes = lanes;
    work->lane = g_new0(WsmLane, lanes);
    for (unsigned i = 0; i < lanes; i++) {
        QTAILQ_INIT(&work->lane[i].reqs);
    }
    work->ops = ops;
    work->opaque = opaque;
    work->disks = g_array_new(false, false, sizeof(WsmWorkDisk));
    wsm_window_init(&work->window);
    return work;
}

/*
 * Setting all bits takes 0.1 s for each TiB, under a lock that a guest's write
 * in an IOThread needs; so it is done in pieces.
 */
bool wsm_work_add_disk(WsmWork *work, BlockDriverState *bs, int64_t size,
                       Error **errp)
{
    WsmWorkDisk d = { .bs = bs, .size = size };

    GLOBAL_STATE_CODE();
    d.dirty = bdrv_create_dirty_bitmap(bs, work->granularity, NULL, errp);
    if (!d.dirty) {
        return false;
    }
    for (int64_t at = 0; at < size; at += WSM_TRACK_STEP) {
        bdrv_set_dirty_bitmap(d.dirty, at, MIN(WSM_TRACK_STEP, size - at));
    }
    g_array_append_val(work->disks, d);
    return true;
}

void wsm_work_stop(WsmWork *work)
{
    GLOBAL_STATE_CODE();
    for (unsigned i = 0; work && i < work->nlanes; i++) {
        WsmReq *req, *next;

        QTAILQ_FOREACH_SAFE(req, &work->lane[i].reqs, next, next) {
            bdrv_set_dirty_bitmap(wsm_req_disk(req)->dirty, req->offset,
                                  req->bytes);
            wsm_req_free(req);
        }
    }
}

void wsm_work_release_disk(WsmWork *work, unsigned disk)
{
    GLOBAL_STATE_CODE();
    if (wsm_work_dirty_bitmap(work, disk)) {
        WsmWorkDisk *d = wsm_work_disk(work, disk);

        assert(!work->nreqs);
        bdrv_release_dirty_bitmap(g_steal_pointer(&d->dirty));
        if (d->compare) {
            bdrv_release_dirty_bitmap(g_steal_pointer(&d->compare));
        }
    }
}

void wsm_work_free(WsmWork *work)
{
    for (unsigned i = 0; work && i < work->disks->len; i++) {
        assert(!wsm_work_dirty_bitmap(work, i));
    }
    if (work) {
        g_array_unref(work->disks);
        g_free(work->lane);
        g_free(work);
    }
}

BdrvDirtyBitmap *wsm_work_start_anew(WsmWork *work, unsigned disk)
{
    WsmWorkDisk *d = wsm_work_disk(work, disk);

    assert(work->pass == WSM_PASS_NONE && !work->nreqs);
    bdrv_reset_dirty_bitmap(d->dirty, 0, d->size);
    return d->dirty;
}

BdrvDirtyBitmap *wsm_work_start_compare(WsmWork *work, unsigned disk,
                                        Error **errp)
{
    WsmWorkDisk *d = wsm_work_disk(work, disk);

    assert(work->pass == WSM_PASS_NONE && !work->nreqs && !d->compare);
    d->compare = bdrv_create_dirty_bitmap(d->bs, work->granularity, NULL, errp);
    if (d->compare) {
        bdrv_disable_dirty_bitmap(d->compare);
    }
    return d->compare;
}

/*
 * To look at
 */

BdrvDirtyBitmap *wsm_work_dirty_bitmap(WsmWork *work, unsigned disk)
{
    return work && disk < work->disks->len ? wsm_work_disk(work, disk)->dirty
                                           : NULL;
}

int64_t wsm_work_dirty(WsmWork *work, unsigned disk)
{
    BdrvDirtyBitmap *bitmap = wsm_work_dirty_bitmap(work, disk);

    return bitmap ? bdrv_get_dirty_count(bitmap) : 0;
}

int64_t wsm_work_all_dirty(WsmWork *work)
{
    int64_t dirty = 0;

    for (unsigned i = 0; work && i < work->disks->len; i++) {
        dirty += wsm_work_dirty(work, i);
    }
    return dirty;
}

/*
 * The law, looked at
 */

static void wsm_req_check(const WsmReq *req)
{
    const WsmWork *work = req->work;
    const WsmWorkDisk *d = wsm_req_disk(req);
    int64_t end = req->offset + req->bytes;

    assert(req->bytes > 0 && req->offset >= 0 && end <= d->size);
    assert(QEMU_IS_ALIGNED(req->offset, work->granularity));
    assert(QEMU_IS_ALIGNED(end, work->granularity) || end == d->size);
    assert(req->epoch == wsm_work_is_push(work));
    if (req->epoch) {
        /* Nobody writes any more */
        assert(bdrv_dirty_bitmap_next_dirty(d->dirty, req->offset,
                                            req->bytes) < 0);
        assert(req->kind != WSM_REQ_COMPARE);
    } else {
        assert(end <= d->reached && !req->pull);
    }
}

void wsm_work_check(WsmWork *work)
{
    unsigned nreqs = 0;

    for (unsigned i = 0; i < work->nlanes; i++) {
        int64_t in_flight = 0;
        WsmReq *req;

        QTAILQ_FOREACH(req, &work->lane[i].reqs, next) {
            wsm_req_check(req);
            /* The first that overlaps is the request itself */
            assert(wsm_work_overlapping(work, req->disk, req->offset,
                                        req->bytes) == req);
            in_flight += wsm_req_cost(req);
            nreqs++;
        }
        assert(in_flight == work->lane[i].in_flight);
    }
    assert(nreqs == work->nreqs);
    assert(nreqs == 0 || work->pass == WSM_PASS_SEND ||
           work->pass == WSM_PASS_PUSH);
    assert(work->pass != WSM_PASS_PUSHED || !wsm_work_all_dirty(work));
}
