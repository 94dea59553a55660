/*
 * Whole-system migration: the source sends blocks
 *
 * A few sender coroutines for each bulk channel take the next range that has to
 * go, read it and send it; see source/work.h for what becomes of it.
 *
 * Everything here runs in the IOThread of the migration.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/qapi-types-migration.h"
#include "migration/options.h"
#include "migration/wsm/link/frame.h"
#include "migration/wsm/source/compare.h"
#include "migration/wsm/source/send.h"

#define WSM_SENDERS             4               /* per bulk channel */

/* Bytes per second; the lower of our limit and that of migration */
static uint64_t wsm_bandwidth(void *opaque)
{
    WsmSource *s = opaque;
    uint64_t ours = wsm_option(s->options, WSM_OPT_BANDWIDTH);
    uint64_t all = wsm_work_is_push(s->work)
                   ? migrate_max_postcopy_bandwidth()
                   : migrate_max_bandwidth();

    return MIN_NON_ZERO(ours, all);
}

/*
 * In post-copy, before a range is taken: one that waits to be pushed could not
 * be pulled.  @last: the sender has pushed so many bytes before.
 */
static void coroutine_fn wsm_push_wait(WsmSource *s, int64_t last)
{
    if (wsm_work_pass(s->work) == WSM_PASS_PUSH) {
        wsm_loop_sleep(&s->loop, SCALE_MS *
                       wsm_option(s->options, WSM_OPT_PUSH_DELAY));
        if (last) {
            wsm_loop_limit(&s->loop, &s->limit, wsm_bandwidth, s, last);
        }
    }
}

/* Make a request of the hole or of the data that @req begins with */
static void coroutine_fn wsm_source_fit(WsmSource *s, WsmReq *req)
{
    int64_t pnum = 0;
    int ret = 0;

    if (wsm_req_needs_status(req)) {
        ret = blk_co_block_status_above(s->disk[req->disk].blk, NULL,
                                        req->offset, req->bytes, &pnum, NULL,
                                        NULL);
        if (ret < 0) {
            /* No status is no harm: read it and see */
            pnum = 0;
        }
    }
    wsm_req_fit(req, ret & BDRV_BLOCK_ZERO, pnum);
}

static int coroutine_fn wsm_source_send(WsmSourceChannel *c, WsmReq *req,
                                        const void *payload, uint32_t length)
{
    int ret;
    bool zero = req->kind == WSM_REQ_ZERO;
    WsmMsg msg = {
        .type = zero ? WSM_MSG_ZERO : WSM_MSG_DATA,
        .disk = req->disk,
        .epoch = req->epoch,
        .length = length,
        .offset = req->offset,
        .bytes = req->bytes,
    };

    wsm_req_sending(req, wsm_now());
    wsm_source_pack_waits(&c->pack, wsm_now());
    ret = wsm_source_transmit(c, &msg, payload);
    wsm_source_pack_goes_on(&c->pack, wsm_now());
    return ret;
}

/* Read what is not known to be zeroes; 0 or -errno */
static int coroutine_fn wsm_source_fetch(WsmSource *s, WsmReq *req, void *buf)
{
    int ret;

    if (req->kind == WSM_REQ_ZERO) {
        return 0;
    }
    ret = wsm_source_disk_read(&s->disk[req->disk], req, buf, &s->milestones,
                               &s->loop);
    if (ret < 0) {
        return ret;
    }
    wsm_req_find_zeroes(req, buf);
    return 0;
}

/*
 * Make the content of @req smaller, if that is worth while: what to send, and
 * *@length bytes of it.  Later nothing shall wait for that.
 */
static void *coroutine_fn wsm_source_pack(WsmSourceChannel *c, WsmReq *req,
                                          void *buf, uint32_t *length)
{
    WsmSource *s = c->opaque;
    uint32_t packed;
    void *out;

    if (req->epoch || !*length || !(c->features & WSM_FEATURE_PACKING) ||
        !wsm_source_pack_wants(&c->pack, *length)) {
        return buf;
    }
    out = wsm_buffers_get(&s->buffers, *length);
    packed = wsm_co_frame_pack(buf, *length, out);
    wsm_source_pack_tried(&c->pack, packed);
    if (!packed) {
        wsm_buffers_put(&s->buffers, out, *length);
        return buf;
    }
    *length = packed;
    return out;
}

/* Wait until it may go; it is known by now how much is sent */
static void coroutine_fn wsm_source_limit(WsmSourceChannel *c, WsmReq *req,
                                          uint32_t length)
{
    WsmSource *s = c->opaque;

    if (!req->epoch && length) {
        wsm_source_pack_waits(&c->pack, wsm_now());
        wsm_loop_limit(&s->loop, &s->limit, wsm_bandwidth, s, length);
        wsm_source_pack_goes_on(&c->pack, wsm_now());
    }
}

/* It is out: what is to be known of it */
static void wsm_source_note(WsmSourceChannel *c, WsmReq *req, const void *buf,
                            uint32_t length)
{
    WsmSource *s = c->opaque;

    wsm_source_disk_sent(&s->disk[req->disk], req, length);
    if (req->epoch) {
        return;
    }
    if (s->memory) {
        wsm_source_memory_note(s->memory, req->disk, req->offset, req->bytes,
                               length ? buf : NULL);
    }
    if (length) {
        wsm_source_pack_done(&c->pack, wsm_now(), req->bytes, length,
                             wsm_channel_queued(c->c.ioc));
    }
}

/* Read and send one request, which is then another's */
static void coroutine_fn wsm_source_process(WsmSourceChannel *c, WsmReq *req)
{
    WsmSource *s = c->opaque;
    size_t size = req->kind == WSM_REQ_ZERO ? 0 : req->bytes;
    void *buf = size ? wsm_buffers_get(&s->buffers, size) : NULL;
    int ret = wsm_source_fetch(s, req, buf);
    uint32_t raw = req->kind == WSM_REQ_ZERO ? 0 : req->bytes, length = raw;
    void *out = buf;

    if (ret == 0) {
        out = wsm_source_pack(c, req, buf, &length);
        wsm_source_limit(c, req, length);
    }
    if (ret == 0 && wsm_req_can_go(req)) {
        if (wsm_source_send(c, req, length ? out : NULL, length) == 0) {
            wsm_source_note(c, req, buf, length);
        }
        wsm_req_sent(req);
    } else {
        wsm_req_put_back(req);
    }
    if (out != buf) {
        wsm_buffers_put(&s->buffers, out, raw);
    }
    wsm_buffers_put(&s->buffers, buf, size);
}

/* The next that goes out on @c, or NULL */
static WsmReq *coroutine_fn wsm_source_next(WsmSourceChannel *c)
{
    WsmSource *s = c->opaque;
    WsmReq *req = wsm_loop_is_over(&s->loop) ? NULL
                                             : wsm_work_take(s->work, c->c.id);

    if (req) {
        wsm_source_fit(s, req);
    }
    return req;
}

static void coroutine_fn wsm_sender_co(void *opaque)
{
    WsmSourceChannel *c = opaque;
    WsmSource *s = c->opaque;
    int64_t last = 0;

    while (!wsm_loop_is_over(&s->loop)) {
        WsmReq *req;

        wsm_push_wait(s, last);
        req = wsm_source_next(c);
        last = req && req->kind != WSM_REQ_ZERO ? req->bytes : 0;
        if (req && req->kind == WSM_REQ_COMPARE) {
            wsm_source_compare(c, req);
        } else if (req) {
            wsm_source_process(c, req);
        } else {
            wsm_source_pack_waits(&c->pack, wsm_now());
            wsm_loop_wait(&s->loop);
            wsm_source_pack_goes_on(&c->pack, wsm_now());
        }
    }
}

void wsm_source_start_senders(WsmSourceChannel *c)
{
    WsmSource *s = c->opaque;

    for (int i = 0; i < WSM_SENDERS; i++) {
        wsm_loop_start(&s->loop, wsm_sender_co, c);
    }
}

typedef struct WsmPull {
    WsmSourceChannel *c;
    WsmReq *req;
} WsmPull;

static void coroutine_fn wsm_pull_co(void *opaque)
{
    g_autofree WsmPull *pull = opaque;

    wsm_source_process(pull->c, pull->req);
}

/* What is dirty in the range goes out now */
void wsm_source_pull(WsmSourceChannel *c, const WsmMsg *msg)
{
    WsmSource *s = c->opaque;
    int64_t offset = msg->offset, end = offset + msg->bytes;
    WsmReq *req;

    while ((req = wsm_work_pull(s->work, c->c.id, msg->disk, &offset, end))) {
        WsmPull *pull = g_new(WsmPull, 1);

        *pull = (WsmPull) { .c = c, .req = req };
        wsm_loop_enter(&s->loop, wsm_pull_co, pull);
    }
}
