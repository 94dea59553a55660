/*
 * Whole-system migration: what arrived becomes durable at the destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/thread-pool.h"
#include "migration/wsm/dest/images.h"
#include "migration/wsm/dest/map.h"
#include "migration/wsm/dest/points.h"
#include "migration/wsm/dest/sync.h"

static void wsm_dest_secured_bh(void *opaque)
{
    WsmDestSync *sync = opaque;

    if (!wsm_life_is_over(sync->disks->life)) {
        wsm_dest_images_mark_current(sync->disks);
        wsm_dest_stream_end(sync->stream);
    }
}

static void coroutine_fn wsm_dest_secure_co(void *opaque)
{
    WsmDestSync *sync = opaque;

    if (wsm_dest_disks_checkpoint(sync->disks) == 0) {
        wsm_loop_main_bh(sync->loop, sync->durable, sync->opaque);
    } else {
        wsm_life_advance(sync->disks->life, WSM_LIFE_SECURING,
                         WSM_LIFE_UNSECURED);
        wsm_loop_wake(sync->loop);
    }
}

void wsm_dest_secure(WsmDestSync *sync)
{
    wsm_loop_start(sync->loop, wsm_dest_secure_co, sync);
}

static void coroutine_fn wsm_dest_remove_records_co(void *opaque)
{
    WsmDestSync *sync = opaque;

    /* It syncs a folder for each disk */
    thread_pool_submit_co(wsm_dest_images_remove_records, sync->disks);
    wsm_life_advance(sync->disks->life, WSM_LIFE_DROPPED, WSM_LIFE_SECURED);
    wsm_loop_wake(sync->loop);
    wsm_loop_main_bh(sync->loop, wsm_dest_secured_bh, sync);
    wsm_dest_maps_remove(sync->maps);
}

void wsm_dest_remove_records(WsmDestSync *sync)
{
    wsm_dest_images_find_records(sync->disks);
    wsm_life_enter(sync->disks->life, WSM_LIFE_DROPPED);
    wsm_loop_start(sync->loop, wsm_dest_remove_records_co, sync);
}

/* The source may have asked twice */
static void wsm_dest_settle_bh(void *opaque)
{
    WsmDestSync *sync = opaque;

    if (wsm_life(sync->disks->life) == WSM_LIFE_SECURED) {
        wsm_dest_points_settle(sync->disks);
        wsm_dest_images_mark_current(sync->disks);
        wsm_life_enter(sync->disks->life, WSM_LIFE_SETTLED);
        wsm_loop_wake(sync->loop);
    }
}

/* Wait until it has got to @state.  Returns false if everything is to end. */
static bool coroutine_fn wsm_dest_await(WsmDestSync *sync, WsmLife state)
{
    while (!wsm_life_reached(sync->disks->life, state) &&
           !wsm_loop_is_over(sync->loop)) {
        wsm_loop_wait(sync->loop);
    }
    return !wsm_loop_is_over(sync->loop);
}

/* Nothing is missing: wait until all is durable; then it is settled */
static bool coroutine_fn wsm_dest_await_end(WsmDestSync *sync, Error **errp)
{
    WsmDestLife *life = sync->disks->life;
    int ret;

    if (!wsm_dest_await(sync, WSM_LIFE_UNSECURED)) {
        return false;
    }
    if (wsm_life(life) == WSM_LIFE_UNSECURED) {
        /* It may work now */
        ret = wsm_dest_disks_checkpoint(sync->disks);
        if (ret == 0) {
            wsm_loop_main_bh(sync->loop, sync->durable, sync->opaque);
        } else if (!wsm_life_reached(life, WSM_LIFE_DROPPING)) {
            error_setg_errno(errp, -ret, "cannot flush a disk at the "
                             "destination");
            return false;
        }
    }
    if (!wsm_dest_await(sync, WSM_LIFE_SECURED)) {
        return false;
    }
    /* All POINTs came before SYNC: let the main thread put them to use */
    return wsm_loop_main_bh(sync->loop, wsm_dest_settle_bh, sync) &&
           wsm_dest_await(sync, WSM_LIFE_SETTLED);
}

static bool coroutine_fn wsm_dest_sync_end(WsmDestSync *sync,
                                           WsmDestConn *conn, WsmMsg *answer,
                                           Error **errp)
{
    answer->bytes = wsm_dest_disks_missing(sync->disks);
    if (!answer->bytes && !wsm_dest_await_end(sync, errp)) {
        return false;
    }
    if (wsm_dest_conn_send(conn, answer, NULL) < 0) {
        return false;
    }
    if (!answer->bytes) {
        wsm_life_advance(sync->disks->life, WSM_LIFE_SETTLED, WSM_LIFE_TOLD);
    }
    return true;
}

bool coroutine_fn wsm_dest_on_sync(WsmDestSync *sync, WsmDestConn *conn,
                                   const WsmMsg *msg, Error **errp)
{
    WsmMsg answer = {
        .type = WSM_MSG_SYNC_ACK,
        .epoch = msg->epoch,
        .offset = msg->offset,
    };
    int ret;

    if (msg->epoch) {
        return wsm_dest_sync_end(sync, conn, &answer, errp);
    }
    ret = wsm_dest_disks_flush(sync->disks);
    if (ret < 0) {
        answer.bytes = -ret;
    } else {
        wsm_session_advance(sync->session, WSM_PHASE_DISK_PRECOPY,
                            WSM_PHASE_RAM_PRECOPY);
    }
    return wsm_dest_conn_send(conn, &answer, NULL) == 0;
}
