/*
 * Whole-system migration: delta by content, at the source
 *
 * Where the image at the destination has data, it may be equal to ours.  There
 * data is not sent in the first pass but compared: both sides hash the same
 * range at the same time, and blocks that differ become dirty again.  The pass
 * comes back to them at once, and then they are sent.
 *
 * A range that is being compared is a request like one that is being sent: its
 * bits were cleared before it was read, so what the guest writes meanwhile is
 * dirty afterwards, and if its channel breaks it becomes dirty as a whole.
 *
 * Everything here runs in the IOThread of the migration.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/memalign.h"
#include "migration/wsm/core/hash.h"
#include "migration/wsm/source/source.h"
#include "migration/wsm/trace.h"

bool wsm_source_cut(WsmSource *s, WsmSourceDisk *d, int64_t offset,
                    int64_t *bytes)
{
    bool compare;
    int64_t end;

    if (!d->compare || s->epoch) {
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

typedef struct WsmDiff {
    WsmSource *s;
    WsmReq *req;
    int64_t differ;             /* bytes */
} WsmDiff;

static void wsm_source_differs(void *opaque, size_t first, size_t count)
{
    WsmDiff *diff = opaque;
    WsmReq *req = diff->req;
    int64_t granularity = diff->s->start.granularity;
    int64_t offset = first * granularity;
    int64_t end = MIN(offset + count * granularity, req->bytes);

    bdrv_set_dirty_bitmap(req->disk->bitmap, req->offset + offset,
                          end - offset);
    diff->differ += end - offset;
}

/* Both sides have hashed the range */
static void wsm_source_compared(WsmSourceChannel *c, WsmReq *req)
{
    size_t blocks = DIV_ROUND_UP(req->bytes, c->s->start.granularity);
    WsmDiff diff = { .s = c->s, .req = req };

    wsm_hash_diff(req->mine, req->theirs, blocks, wsm_source_differs, &diff);
    stat64_add(&req->disk->compared, req->bytes);
    stat64_add(&req->disk->equal, req->bytes - diff.differ);
    trace_wsm_source_compared(req->disk->name, req->offset, req->bytes,
                              diff.differ);
    if (diff.differ) {
        wsm_source_send_next(req->disk, req->offset);
    }
    wsm_req_end(c, req, true);
}

bool coroutine_fn wsm_source_hashes(WsmSourceChannel *c, const WsmMsg *msg,
                                    Error **errp)
{
    g_autofree uint8_t *theirs = NULL;
    WsmReq *req;

    if (msg->length) {
        theirs = g_malloc(msg->length);
        if (!wsm_channel_recv_payload(&c->c, theirs, msg->length, errp)) {
            return false;
        }
    }
    req = wsm_req_find(c, msg, errp);
    if (!req) {
        return false;
    }
    if (!req->compare) {
        error_setg(errp, "block channel %u: HASHES for a range that is not "
                   "compared", c->c.id);
        return false;
    }
    req->theirs = g_steal_pointer(&theirs);
    req->answered = true;
    req->arrived = true;
    if (!req->busy) {
        wsm_source_compared(c, req);
    }
    return true;
}

static int coroutine_fn wsm_source_ask(WsmSourceChannel *c, WsmReq *req)
{
    WsmMsg msg = {
        .type = WSM_MSG_HASH,
        .disk = req->disk->index,
        .offset = req->offset,
        .bytes = req->bytes,
    };

    return wsm_source_transmit(c, &msg, NULL);
}

/* Read and hash our side.  0 or -errno. */
static int coroutine_fn wsm_source_hash(WsmSource *s, WsmReq *req)
{
    size_t blocks = DIV_ROUND_UP(req->bytes, s->start.granularity);
    void *buf = qemu_memalign(qemu_real_host_page_size(), req->bytes);
    int ret = blk_co_pread(req->disk->blk, req->offset, req->bytes, buf, 0);

    if (ret >= 0) {
        req->mine = g_malloc(blocks * WSM_HASH_SIZE);
        wsm_co_hash_blocks(buf, req->bytes, s->start.granularity, req->mine);
    } else {
        wsm_read_failed(s, req, ret);
    }
    qemu_vfree(buf);
    return ret;
}

static uint64_t wsm_compare_bandwidth(void *opaque)
{
    WsmSource *s = opaque;

    return wsm_option(s->options, WSM_OPT_COMPARE_BANDWIDTH);
}

void coroutine_fn wsm_source_compare(WsmSourceChannel *c, WsmReq *req)
{
    WsmSource *s = c->s;
    int ret;

    wsm_loop_limit(&s->loop, &s->compare_limit, wsm_compare_bandwidth, s,
                   req->bytes);
    if (!c->up || req->connection != c->connection ||
        wsm_source_ask(c, req) < 0) {
        wsm_req_end(c, req, false);
        return;
    }
    ret = wsm_source_hash(s, req);
    req->busy = false;
    if (ret < 0 || (req->answered && !req->arrived) ||
        req->connection != c->connection) {
        /* If we could not read, the migration ends, or its channel does */
        wsm_req_end(c, req, false);
    } else if (req->answered) {
        wsm_source_compared(c, req);
    }
}
