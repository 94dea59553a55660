/*
 * Whole-system migration: what the destination says on channel 0
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "migration/wsm/dest/control.h"

void wsm_dest_control_init(WsmDestControl *control, WsmLoop *loop,
                           WsmDestConns *conns)
{
    control->loop = loop;
    control->conns = conns;
    control->queue = g_queue_new();
    qemu_mutex_init(&control->lock);
}

void wsm_dest_control_destroy(WsmDestControl *control)
{
    g_queue_free_full(control->queue, g_free);
    qemu_mutex_destroy(&control->lock);
}

/*
 * Does @msg go on where @last ends?  Then that becomes longer.  A DONE says all
 * that the last one of its kind said.
 */
static bool wsm_dest_join(WsmMsg *last, const WsmMsg *msg)
{
    if (!last || last->type != msg->type || last->disk != msg->disk) {
        return false;
    }
    if (msg->type == WSM_MSG_DONE) {
        *last = *msg;
        return true;
    }
    if (!msg->bytes || last->offset + last->bytes != msg->offset ||
        last->bytes + msg->bytes > WSM_MAX_DATA) {
        return false;
    }
    last->bytes += msg->bytes;
    return true;
}

void wsm_dest_say(WsmDestControl *control, const WsmMsg *msg)
{
    WITH_QEMU_LOCK_GUARD(&control->lock) {
        if ((msg->type == WSM_MSG_HAVE &&
             g_queue_get_length(control->queue) >= WSM_MAX_QUEUE) ||
            wsm_dest_join(g_queue_peek_tail(control->queue), msg)) {
            return;
        }
        g_queue_push_tail(control->queue, g_memdup2(msg, sizeof(*msg)));
    }
    wsm_loop_wake(control->loop);
}

void wsm_dest_control_up(WsmDestControl *control)
{
    assert(wsm_loop_is_here(control->loop));
    wsm_loop_wake(control->loop);
}

static WsmMsg *wsm_dest_next_message(WsmDestControl *control)
{
    QEMU_LOCK_GUARD(&control->lock);
    return g_queue_pop_head(control->queue);
}

static void coroutine_fn wsm_dest_control_co(void *opaque)
{
    WsmDestControl *control = opaque;

    while (!wsm_loop_is_over(control->loop)) {
        WsmDestConn *conn = wsm_dest_conns_get(control->conns, 0);
        g_autofree WsmMsg *msg = conn ? wsm_dest_next_message(control) : NULL;

        if (msg) {
            wsm_dest_conn_send(conn, msg, NULL);
        } else {
            wsm_loop_wait(control->loop);
        }
    }
}

void wsm_dest_control_start(WsmDestControl *control)
{
    wsm_loop_start(control->loop, wsm_dest_control_co, control);
}
