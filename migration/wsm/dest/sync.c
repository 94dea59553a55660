/*
 * Whole-system migration: what arrived becomes durable at the destination
 *
 * Before the freeze SYNC asks for a flush.  In post-copy there is one when
 * nothing is missing and the filters are gone, whether or not the source is
 * there to hear of it; SYNC waits for that.  Not before: to drop the filters
 * is to drain, and the guest would have to wait for the flush.
 *
 * Everything here runs in the IOThread of the migration, unless it says so.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/aio.h"
#include "block/block-io.h"
#include "block/thread-pool.h"
#include "qemu/main-loop.h"
#include "migration/wsm/dest/dest.h"
#include "migration/wsm/trace.h"

/* Everything that was acknowledged becomes durable */
static int coroutine_fn wsm_dest_flush(WsmDest *d)
{
    int ret = 0;

    for (unsigned i = 0; i < d->ndisks && ret == 0; i++) {
        GRAPH_RDLOCK_GUARD();
        /* The filter may be gone by now */
        ret = bdrv_co_flush(d->disk[i].bs);
        if (ret < 0) {
            trace_wsm_dest_flush_fail(d->disk[i].name, ret);
        }
    }
    return ret;
}

static void wsm_dest_secured_bh(void *opaque)
{
    WsmDest *d = opaque;

    if (!wsm_life_is_over(&d->life)) {
        wsm_dest_mark_current(d);
        wsm_dest_watch_end(d);
    }
    wsm_dest_co_end(d);
}

static void coroutine_fn wsm_dest_secure_co(void *opaque)
{
    WsmDest *d = opaque;
    int ret = wsm_dest_flush(d);

    if (ret == 0) {
        /* It syncs a folder for each disk */
        thread_pool_submit_co(wsm_dest_remove_records, d);
    }
    wsm_life_advance(&d->life, WSM_LIFE_SECURING,
                     ret < 0 ? WSM_LIFE_UNSECURED : WSM_LIFE_SECURED);
    qemu_co_queue_restart_all(&d->changed);
    if (ret < 0) {
        wsm_dest_co_end(d);
    } else {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), wsm_dest_secured_bh, d);
    }
}

void wsm_dest_start_securing(WsmDest *d)
{
    wsm_dest_find_records(d);
    wsm_life_enter(&d->life, WSM_LIFE_SECURING);
    qatomic_inc(&d->coroutines);
    aio_co_schedule(d->ctx, qemu_coroutine_create(wsm_dest_secure_co, d));
}

static void wsm_dest_settle_bh(void *opaque)
{
    WsmDest *d = opaque;

    wsm_dest_settle(d);
    if (!wsm_life_is_over(&d->life)) {
        /* If the flush before failed, nobody has done so yet */
        wsm_dest_watch_end(d);
    }
    wsm_dest_co_end(d);
}

/* All POINTs came before SYNC: let the main thread put them to use */
static void coroutine_fn wsm_dest_await_settled(WsmDest *d)
{
    if (qatomic_read(&d->quit)) {
        return;
    }
    qatomic_inc(&d->coroutines);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), wsm_dest_settle_bh, d);
    while (!wsm_life_reached(&d->life, WSM_LIFE_SETTLED) &&
           !qatomic_read(&d->quit)) {
        qemu_co_queue_wait(&d->changed, NULL);
    }
}

/* Nothing is missing: wait until all is durable; then it is settled */
static bool coroutine_fn wsm_dest_await_end(WsmDest *d, Error **errp)
{
    int ret = 0;

    while (!wsm_life_reached(&d->life, WSM_LIFE_UNSECURED) &&
           !qatomic_read(&d->quit)) {
        qemu_co_queue_wait(&d->changed, NULL);
    }
    if (qatomic_read(&d->quit)) {
        return false;
    }
    if (!wsm_life_reached(&d->life, WSM_LIFE_SECURED)) {
        /* It may work now */
        ret = wsm_dest_flush(d);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot flush a disk at the destination");
        return false;
    }
    wsm_dest_await_settled(d);
    return true;
}

static bool coroutine_fn wsm_dest_sync_end(WsmDestConn *conn, WsmMsg *answer,
                                           Error **errp)
{
    WsmDest *d = conn->d;

    answer->bytes = wsm_dest_missing(d);
    if (!answer->bytes && !wsm_dest_await_end(d, errp)) {
        return false;
    }
    if (wsm_channel_send(&conn->c, answer, NULL) < 0) {
        return false;
    }
    if (!answer->bytes) {
        wsm_life_advance(&d->life, WSM_LIFE_SETTLED, WSM_LIFE_TOLD);
    }
    return true;
}

bool coroutine_fn wsm_dest_sync(WsmDestConn *conn, const WsmMsg *msg,
                                Error **errp)
{
    WsmDest *d = conn->d;
    WsmMsg answer = {
        .type = WSM_MSG_SYNC_ACK,
        .epoch = msg->epoch,
        .offset = msg->offset,
    };
    int ret;

    if (msg->epoch) {
        return wsm_dest_sync_end(conn, &answer, errp);
    }
    ret = wsm_dest_flush(d);
    if (ret < 0) {
        answer.bytes = -ret;
    } else {
        wsm_session_advance(d->session, WSM_PHASE_DISK_PRECOPY,
                            WSM_PHASE_RAM_PRECOPY);
    }
    return wsm_channel_send(&conn->c, &answer, NULL) == 0;
}
