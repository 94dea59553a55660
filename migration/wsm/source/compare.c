/*
 * Whole-system migration: delta by content, at the source
 *
 * Where the image at the destination has data, it may be equal to ours.  There
 * data is not sent in the first pass but compared: both sides hash the same
 * range at the same time, and blocks that differ become dirty again.  The pass
 * comes back to them at once, and then they are sent.
 *
 * A range that is being compared is a request like one that is being sent, see
 * source/work.h: its bits were cleared before it was read, so what the guest
 * writes meanwhile is dirty afterwards, and if its channel breaks it becomes
 * dirty as a whole.
 *
 * Everything here runs in the IOThread of the migration.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/memalign.h"
#include "migration/wsm/core/hash.h"
#include "migration/wsm/source/compare.h"

static int coroutine_fn wsm_source_ask(WsmSourceChannel *c, WsmReq *req)
{
    WsmMsg msg = {
        .type = WSM_MSG_HASH,
        .disk = req->disk,
        .offset = req->offset,
        .bytes = req->bytes,
    };

    wsm_req_sending(req, wsm_now());
    return wsm_source_transmit(c, &msg, NULL);
}

/* Read and hash our side.  0 or -errno. */
static int coroutine_fn wsm_source_hash(WsmSource *s, WsmReq *req)
{
    size_t blocks = DIV_ROUND_UP(req->bytes, s->start.granularity);
    void *buf = qemu_memalign(qemu_real_host_page_size(), req->bytes);
    int ret = wsm_source_disk_read(&s->disk[req->disk], req, buf,
                                   &s->milestones, &s->loop);

    if (ret >= 0) {
        req->mine = g_malloc(blocks * WSM_HASH_SIZE);
        wsm_co_hash_blocks(buf, req->bytes, s->start.granularity, req->mine);
        if (s->memory) {
            /* Where it differs it becomes dirty, and is noted again */
            wsm_source_memory_note(s->memory, req->disk, req->offset,
                                   req->bytes, buf);
        }
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
    WsmSource *s = c->opaque;

    wsm_loop_limit(&s->loop, &s->compare_limit, wsm_compare_bandwidth, s,
                   req->bytes);
    if (!wsm_req_can_go(req)) {
        wsm_req_put_back(req);
    } else if (wsm_source_ask(c, req) < 0) {
        /*
         * The receiver has not seen the end yet.  Put back now, it would be
         * taken again at once, and so on, and the receiver would never run.
         */
        wsm_req_sent(req);
    } else if (wsm_source_hash(s, req) < 0 || !wsm_req_can_go(req)) {
        /* Nothing is written there late, so this need not wait */
        wsm_req_put_back(req);
    } else {
        wsm_req_sent(req);
    }
}
