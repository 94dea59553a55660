/*
 * Whole-system migration: the source sends blocks
 *
 * A few sender coroutines for each bulk channel take the next run of dirty
 * blocks, clear its bits, read it and send it.  The request is kept until the
 * destination has acknowledged it; if that never happens, the bits are set
 * again.  So at each moment a block that the destination lacks is dirty or in
 * exactly one request.
 *
 * Everything here runs in the IOThread of the migration.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "qapi/qapi-types-migration.h"
#include "migration/options.h"
#include "migration/wsm/source/source.h"
#include "migration/wsm/trace.h"

#define WSM_SENDERS             4               /* per bulk channel */
#define WSM_CHUNK               WSM_MAX_DATA    /* of a message, at first */
#define WSM_PIECE               (256 * KiB)     /* zeroes are sent as such */
#define WSM_WINDOW              (32 * MiB)      /* unacked, all channels */
#define WSM_STATUS_MIN          (64 * KiB)      /* look for holes from here */

/* What a request counts in the window; zeroes must not be unlimited, too */
static int64_t wsm_req_cost(const WsmReq *req)
{
    return req->zero ? WSM_COST_MIN : req->bytes;
}

static WsmReq *wsm_req_new(WsmSourceChannel *c, WsmSourceDisk *d,
                           int64_t offset, int64_t bytes)
{
    WsmReq *req = g_new(WsmReq, 1);

    *req = (WsmReq) {
        .disk = d,
        .offset = offset,
        .bytes = bytes,
        .epoch = c->s->epoch,
        .connection = c->connection,
        .busy = true,
    };
    bdrv_reset_dirty_bitmap(d->bitmap, offset, bytes);
    QTAILQ_INSERT_TAIL(&c->reqs, req, next);
    c->in_flight += bytes;
    c->s->nreqs++;
    return req;
}

void wsm_source_send_next(WsmSourceDisk *d, int64_t offset)
{
    d->cursor = MIN(d->cursor, offset);
}

/* Give back what is beyond the first @bytes of a request */
static void wsm_req_shrink(WsmSourceChannel *c, WsmReq *req, int64_t bytes)
{
    WsmSourceDisk *d = req->disk;

    if (bytes < req->bytes) {
        bdrv_set_dirty_bitmap(d->bitmap, req->offset + bytes,
                              req->bytes - bytes);
        wsm_source_send_next(d, req->offset + bytes);
        c->in_flight -= req->bytes - bytes;
        req->bytes = bytes;
        wsm_loop_wake(&c->s->loop);
    }
}

static void wsm_req_set_zero(WsmSourceChannel *c, WsmReq *req)
{
    c->in_flight -= wsm_req_cost(req);
    req->zero = true;
    c->in_flight += wsm_req_cost(req);
    wsm_loop_wake(&c->s->loop);
}

void wsm_req_end(WsmSourceChannel *c, WsmReq *req, bool arrived)
{
    WsmSource *s = c->s;

    if (!arrived) {
        if (req->offset < req->disk->cursor) {
            req->disk->data_until = 0;
        }
        wsm_source_send_next(req->disk, req->offset);
        bdrv_set_dirty_bitmap(req->disk->bitmap, req->offset, req->bytes);
    } else if (req->disk->compare) {
        bdrv_reset_dirty_bitmap(req->disk->compare, req->offset, req->bytes);
    }
    QTAILQ_REMOVE(&c->reqs, req, next);
    c->in_flight -= wsm_req_cost(req);
    s->nreqs--;
    g_free(req->mine);
    g_free(req->theirs);
    g_free(req);
    wsm_loop_wake(&s->loop);
    wsm_source_check_pass(s);
}

void wsm_source_restore(WsmSourceChannel *c)
{
    WsmReq *req, *next;

    QTAILQ_FOREACH_SAFE(req, &c->reqs, next, next) {
        if (!req->busy) {
            wsm_req_end(c, req, false);
        }
    }
}

WsmReq *wsm_req_find(WsmSourceChannel *c, const WsmMsg *msg, Error **errp)
{
    WsmReq *req;

    QTAILQ_FOREACH(req, &c->reqs, next) {
        if (req->disk->index == msg->disk && req->offset == msg->offset &&
            req->bytes == msg->bytes && req->epoch == msg->epoch &&
            !req->answered) {
            return req;
        }
    }
    error_setg(errp, "block channel %u: %s: range 0x%" PRIx64 "+0x%" PRIx64
               " of disk %u is not in flight", c->c.id,
               wsm_msg_name(msg->type), msg->offset, msg->bytes, msg->disk);
    return NULL;
}

/* What was pushed has arrived */
static void wsm_source_pushed(WsmSource *s, const WsmReq *req)
{
    int64_t in_flight = 0, now = wsm_now();

    for (unsigned i = 1; i < s->nchannels; i++) {
        in_flight += s->channel[i].in_flight;
    }
    wsm_window_ack(&s->window, req->bytes, in_flight, now, now - req->sent_ns);
}

bool wsm_source_ack(WsmSourceChannel *c, const WsmMsg *msg, bool ok,
                    Error **errp)
{
    WsmReq *req = wsm_req_find(c, msg, errp);

    if (!req) {
        return false;
    }
    if (ok && req->compare) {
        error_setg(errp, "block channel %u: ACK for a range that is compared",
                   c->c.id);
        return false;
    }
    if (ok && req->epoch && !req->pull && !req->zero) {
        wsm_source_pushed(c->s, req);
    }
    req->answered = true;
    req->arrived = ok;
    if (!req->busy) {
        wsm_req_end(c, req, ok);
    }
    return true;
}

void wsm_source_begin_pass(WsmSource *s, uint32_t epoch)
{
    for (unsigned i = 0; i < s->ndisks; i++) {
        s->disk[i].cursor = 0;
        s->disk[i].reached = 0;
        s->disk[i].data_until = 0;
        s->disk[i].mixed_until = 0;
    }
    s->epoch = epoch;
    s->sending = true;
    wsm_loop_wake(&s->loop);
    wsm_source_check_pass(s);
}

void wsm_source_check_pass(WsmSource *s)
{
    if (!s->sending || s->nreqs) {
        return;
    }
    for (unsigned i = 0; i < s->ndisks; i++) {
        WsmSourceDisk *d = &s->disk[i];

        if (d->cursor < d->size &&
            bdrv_dirty_bitmap_next_dirty(d->bitmap, d->cursor,
                                         d->size - d->cursor) >= 0) {
            return;
        }
    }

    trace_wsm_source_pass_done(s->epoch, wsm_source_dirty(s));
    if (s->epoch && wsm_source_dirty(s)) {
        /* A channel broke and what it carried is dirty again */
        wsm_source_begin_pass(s, s->epoch);
        return;
    }
    s->sending = false;
    if (s->epoch) {
        s->sync_wanted = true;
        wsm_loop_wake(&s->loop);
        return;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->pass_done = true;
        qemu_cond_broadcast(&s->cond);
    }
}

/* Of how many bytes at least zeroes are looked for in data */
static int64_t wsm_piece(WsmSource *s)
{
    return MAX(WSM_PIECE, s->start.granularity);
}

/* Bytes of data in a message that begins at @offset */
static int64_t wsm_chunk(WsmSource *s, const WsmSourceDisk *d, int64_t offset)
{
    if (s->epoch) {
        return MAX(wsm_window_chunk(&s->window), s->start.granularity);
    }
    return offset < d->mixed_until ? wsm_piece(s) : WSM_CHUNK;
}

/* Make a request of the hole or of the data that @req begins with */
static void coroutine_fn wsm_req_fit(WsmSourceChannel *c, WsmReq *req)
{
    WsmSourceDisk *d = req->disk;
    int64_t chunk = wsm_chunk(c->s, d, req->offset);
    int64_t granularity = c->s->start.granularity;
    int64_t bytes = req->bytes, pnum;
    int ret;

    if (req->bytes < WSM_STATUS_MIN || req->offset < d->data_until) {
        wsm_req_shrink(c, req, MIN(chunk, req->bytes));
        return;
    }

    ret = blk_co_block_status_above(d->blk, NULL, req->offset, req->bytes,
                                    &pnum, NULL, NULL);
    if (ret >= 0 && (ret & BDRV_BLOCK_ZERO)) {
        bytes = pnum < req->bytes ? QEMU_ALIGN_DOWN(pnum, granularity) : pnum;
        if (bytes) {
            wsm_req_shrink(c, req, bytes);
            wsm_req_set_zero(c, req);
            return;
        }
    } else if (ret >= 0) {
        d->data_until = req->offset + pnum;
        bytes = QEMU_ALIGN_UP(pnum, granularity);
    }
    /* No status is no harm: read it and see */
    bytes = MAX(bytes, granularity);
    wsm_req_shrink(c, req, MIN(MIN(bytes, chunk), req->bytes));
}

/* Is there room for more on @c, and is it our turn? */
static bool wsm_may_send(WsmSourceChannel *c)
{
    WsmSource *s = c->s;
    int64_t window = s->epoch ? s->window.bytes : WSM_WINDOW;
    int64_t chunk = s->epoch ? wsm_window_chunk(&s->window) : WSM_CHUNK;

    return s->sending && c->up && !wsm_loop_is_over(&s->loop) &&
           (!c->in_flight ||
            c->in_flight + chunk <= window / (s->nchannels - 1));
}

/* A request whose range overlaps this one, or NULL */
static WsmReq *wsm_overlapping_req(WsmSource *s, WsmSourceDisk *d,
                                   int64_t offset, int64_t bytes)
{
    for (unsigned i = 0; i < s->nchannels; i++) {
        WsmReq *req;

        QTAILQ_FOREACH(req, &s->channel[i].reqs, next) {
            if (req->disk == d && req->offset < offset + bytes &&
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
static bool wsm_avoid_in_flight(WsmSource *s, WsmSourceDisk *d,
                                int64_t *offset, int64_t *bytes)
{
    WsmReq *req;

    if (s->epoch) {
        return true;
    }
    while (*offset < d->reached &&
           (req = wsm_overlapping_req(s, d, *offset, *bytes))) {
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

/* The next dirty range, all of it compared or none; false: none is left */
static bool wsm_next_range(WsmSource *s, WsmSourceDisk *d, int64_t *offset,
                           int64_t *bytes, bool *compare)
{
    /* Where there is data, what was taken too much would only be given back */
    int64_t most = d->cursor < d->data_until ? wsm_chunk(s, d, d->cursor)
                                               : WSM_MAX_ZERO;

    while (d->cursor < d->size &&
           bdrv_dirty_bitmap_next_dirty_area(d->bitmap, d->cursor, d->size,
                                             most, offset, bytes)) {
        if (wsm_avoid_in_flight(s, d, offset, bytes)) {
            *compare = wsm_source_cut(s, d, *offset, bytes);
            d->cursor = *offset + *bytes;
            d->reached = MAX(d->reached, d->cursor);
            return true;
        }
    }
    d->cursor = d->size;
    return false;
}

/* Returns NULL if there is nothing to do for now */
static WsmReq *coroutine_fn wsm_next_req(WsmSourceChannel *c)
{
    WsmSource *s = c->s;

    if (!wsm_may_send(c)) {
        return NULL;
    }
    for (unsigned i = 0; i < s->ndisks; i++) {
        WsmSourceDisk *d = &s->disk[i];
        int64_t offset, bytes;
        bool compare;
        WsmReq *req;

        if (!wsm_next_range(s, d, &offset, &bytes, &compare)) {
            continue;
        }
        req = wsm_req_new(c, d, offset, bytes);
        req->compare = compare;
        wsm_req_fit(c, req);
        req->compare &= !req->zero;
        return req;
    }
    wsm_source_check_pass(s);
    return NULL;
}

/* Bytes per second; the lower of our limit and that of migration */
static uint64_t wsm_bandwidth(void *opaque)
{
    WsmSource *s = opaque;
    uint64_t ours = wsm_option(s->options, WSM_OPT_BANDWIDTH);
    uint64_t all = s->epoch ? migrate_max_postcopy_bandwidth()
                            : migrate_max_bandwidth();

    return MIN_NON_ZERO(ours, all);
}

/*
 * In post-copy, before a range is taken: one that waits to be pushed could not
 * be pulled.  @last: the sender has pushed so many bytes before.
 */
static void coroutine_fn wsm_push_wait(WsmSource *s, int64_t last)
{
    if (s->epoch && s->sending) {
        wsm_loop_sleep(&s->loop, SCALE_MS *
                       wsm_option(s->options, WSM_OPT_PUSH_DELAY));
        if (last) {
            wsm_loop_limit(&s->loop, &s->limit, wsm_bandwidth, s, last);
        }
    }
}

void coroutine_fn wsm_read_failed(WsmSource *s, WsmReq *req, int ret)
{
    Error *err = NULL;

    trace_wsm_source_read_fail(req->disk->name, req->offset, req->bytes, ret);
    error_setg_errno(&err, -ret, "disk '%s': cannot read 0x%" PRIx64
                     " bytes at 0x%" PRIx64, req->disk->name, req->bytes,
                     req->offset);
    wsm_source_fail(s, err);
    wsm_loop_sleep(&s->loop, NANOSECONDS_PER_SECOND);
}

static void wsm_req_count(WsmReq *req)
{
    WsmSourceDisk *d = req->disk;

    stat64_add(req->zero ? &d->zero : &d->sent, req->bytes);
    if (req->epoch) {
        stat64_add(req->pull ? &d->pulled : &d->pushed, req->bytes);
    }
}

static int coroutine_fn wsm_req_transmit(WsmSourceChannel *c, WsmReq *req,
                                         void *buf)
{
    WsmMsg msg = {
        .type = req->zero ? WSM_MSG_ZERO : WSM_MSG_DATA,
        .disk = req->disk->index,
        .epoch = req->epoch,
        .length = req->zero ? 0 : req->bytes,
        .offset = req->offset,
        .bytes = req->bytes,
    };

    return wsm_source_transmit(c, &msg, buf);
}

/*
 * What was read: make a request of the zeroes or of the data that it begins
 * with.  Where there is both, the rest is read again, a piece at a time.
 */
static void wsm_req_find_zeroes(WsmSourceChannel *c, WsmReq *req,
                                const uint8_t *buf)
{
    int64_t piece = MIN(wsm_piece(c->s), req->bytes);
    bool zero = buffer_is_zero(buf, piece);
    int64_t bytes;

    for (bytes = piece; bytes < req->bytes; bytes += piece) {
        piece = MIN(piece, req->bytes - bytes);
        if (buffer_is_zero(buf + bytes, piece) != zero) {
            req->disk->mixed_until = MAX(req->disk->mixed_until,
                                         req->offset + req->bytes);
            wsm_req_shrink(c, req, bytes);
            break;
        }
    }
    if (zero) {
        wsm_req_set_zero(c, req);
    }
}

/*
 * Read and send one request.  If it could have got onto the wire, it
 * stays in flight until it is acknowledged or the channel is opened again:
 * only then it is certain that the destination will not write it late.
 */
static void coroutine_fn wsm_req_process(WsmSourceChannel *c, WsmReq *req)
{
    WsmSource *s = c->s;
    size_t size = req->zero ? 0 : req->bytes;
    void *buf = size ? wsm_buffers_get(&s->buffers, size) : NULL;
    int ret = 0;

    if (!req->zero) {
        ret = blk_co_pread(req->disk->blk, req->offset, req->bytes, buf, 0);
        if (ret < 0) {
            wsm_read_failed(s, req, ret);
        } else {
            wsm_req_find_zeroes(c, req, buf);
        }
    }
    /* Not before it is known how much is sent */
    if (ret >= 0 && !req->epoch && !req->zero) {
        wsm_loop_limit(&s->loop, &s->limit, wsm_bandwidth, s, req->bytes);
    }
    if (ret < 0 || !c->up || req->connection != c->connection) {
        wsm_buffers_put(&s->buffers, buf, size);
        wsm_req_end(c, req, false);
        return;
    }

    req->sent_ns = wsm_now();
    ret = wsm_req_transmit(c, req, buf);
    wsm_buffers_put(&s->buffers, buf, size);
    req->busy = false;
    if (ret == 0) {
        wsm_req_count(req);
    }
    if (req->answered) {
        wsm_req_end(c, req, req->arrived);
    }
}

static void coroutine_fn wsm_sender_co(void *opaque)
{
    WsmSourceChannel *c = opaque;
    WsmSource *s = c->s;
    int64_t last = 0;

    while (!wsm_loop_is_over(&s->loop)) {
        WsmReq *req;

        wsm_push_wait(s, last);
        req = wsm_next_req(c);
        last = req && !req->zero ? req->bytes : 0;
        if (req && req->compare) {
            wsm_source_compare(c, req);
        } else if (req) {
            wsm_req_process(c, req);
        } else {
            wsm_loop_wait(&s->loop);
        }
    }
}

void wsm_source_start_senders(WsmSourceChannel *c)
{
    for (int i = 0; i < WSM_SENDERS; i++) {
        wsm_loop_start(&c->s->loop, wsm_sender_co, c);
    }
}

typedef struct WsmPull {
    WsmSourceChannel *c;
    WsmReq *req;
} WsmPull;

static void coroutine_fn wsm_pull_co(void *opaque)
{
    g_autofree WsmPull *pull = opaque;

    wsm_req_process(pull->c, pull->req);
}

/*
 * What is dirty in the range goes out now.  The rest is in flight, or the
 * guest has overwritten it and HAVE was faster.  If too much is asked for at
 * a time, the rest is what is pushed next.
 */
void wsm_source_pull(WsmSourceChannel *c, const WsmMsg *msg)
{
    WsmSource *s = c->s;
    WsmSourceDisk *d = &s->disk[msg->disk];
    int64_t end = msg->offset + msg->bytes;
    int64_t offset = msg->offset, bytes;

    while (bdrv_dirty_bitmap_next_dirty_area(d->bitmap, offset, end,
                                             wsm_piece(s), &offset, &bytes)) {
        WsmPull *pull;

        if (c->in_flight >= WSM_PULL_WINDOW) {
            wsm_source_send_next(d, offset);
            return;
        }
        pull = g_new(WsmPull, 1);
        pull->c = c;
        pull->req = wsm_req_new(c, d, offset, bytes);
        pull->req->pull = true;
        offset += bytes;
        wsm_loop_enter(&s->loop, wsm_pull_co, pull);
    }
}
