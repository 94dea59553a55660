/*
 * Whole-system migration: the source's block channels
 *
 * Each channel has a coroutine that opens it, receives from it, and opens it
 * again when it breaks.
 *
 * Everything here runs in the IOThread of the migration.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/source/channel.h"
#include "migration/wsm/trace.h"
#include "migration/wsm/wire/start.h"

#define WSM_BACKOFF_MIN_NS      (100 * SCALE_MS)
#define WSM_BACKOFF_MAX_NS      (2 * NANOSECONDS_PER_SECOND)

int coroutine_fn wsm_source_transmit(WsmSourceChannel *c, const WsmMsg *msg,
                                     const void *payload)
{
    int ret;

    c->users++;
    ret = wsm_channel_send(&c->c, msg, payload);
    c->users--;
    qemu_co_queue_restart_all(&c->idle);
    return ret;
}

/* Send HELLO.  Returns false and sets @errp. */
static bool coroutine_fn wsm_source_hello(WsmSourceChannel *c, Error **errp)
{
    WsmHello hello = {
        .session = c->start->session,
        .version = c->start->version,
        .channel = c->c.id,
        .channels = c->start->channels,
        .features = c->start->features,
    };
    WsmMsg msg = { .type = WSM_MSG_HELLO, .length = WSM_HELLO_SIZE };
    uint8_t payload[WSM_HELLO_SIZE];

    wsm_hello_encode(&hello, payload);
    if (wsm_channel_send(&c->c, &msg, payload) < 0) {
        error_setg(errp, "block channel %u: the connection broke", c->c.id);
        return false;
    }
    return true;
}

/* Wait for the answer to HELLO */
static bool coroutine_fn wsm_source_welcome(WsmSourceChannel *c, Error **errp)
{
    g_autofree char *text = NULL;
    uint8_t payload[WSM_WELCOME_SIZE];
    WsmMsg msg;
    int ret;

    ret = wsm_channel_recv(&c->c, NULL, &msg, errp);
    if (ret < 0) {
        return false;
    }
    if (ret == 0) {
        error_setg(errp, "block channel %u: the destination closed the "
                   "connection before it answered", c->c.id);
        return false;
    }
    c->answered = true;
    if (msg.type == WSM_MSG_REFUSE) {
        text = wsm_channel_recv_text(&c->c, msg.length, errp);
        if (text) {
            error_setg(errp, "the destination refuses: %s", text);
        }
        return false;
    }
    if (msg.type != WSM_MSG_WELCOME) {
        error_setg(errp, "block channel %u: %s instead of WELCOME",
                   c->c.id, wsm_msg_name(msg.type));
        return false;
    }
    return wsm_channel_recv_payload(&c->c, payload, sizeof(payload), errp) &&
           wsm_welcome_decode(payload, c->start, &c->features, errp);
}

static void coroutine_fn wsm_source_channel_up(WsmSourceChannel *c)
{
    qatomic_set(&c->connection, c->connection + 1);
    qatomic_set(&c->up, true);
    trace_wsm_source_channel_up(c->c.id, c->connection);
    c->ops->up(c);
}

static void coroutine_fn wsm_source_channel_down(WsmSourceChannel *c)
{
    qatomic_set(&c->up, false);
    c->ops->down(c);
    wsm_channel_shutdown(&c->c);
    while (c->users) {
        qemu_co_queue_wait(&c->idle, NULL);
    }
    wsm_channel_detach(&c->c);
    c->ops->gone(c);
}

static bool coroutine_fn wsm_source_open(WsmSourceChannel *c, Error **errp)
{
    QIOChannel *ioc = wsm_connect(&c->connector, errp);

    if (!ioc) {
        return false;
    }
    wsm_channel_attach(&c->c, ioc);
    if (wsm_loop_is_over(c->loop)) {
        error_setg(errp, "the migration has ended");
    } else if (wsm_source_hello(c, errp) && wsm_source_welcome(c, errp)) {
        return true;
    }
    wsm_channel_detach(&c->c);
    return false;
}

static void coroutine_fn wsm_source_receive(WsmSourceChannel *c, Error **errp)
{
    WsmLimits limits = {
        .channel = c->c.id,
        .disks = c->start->ndisks,
        .disk_size = c->disk_size,
        .granularity = c->start->granularity,
    };
    WsmMsg msg;

    while (wsm_channel_recv(&c->c, &limits, &msg, errp) > 0 &&
           c->ops->message(c, &msg, errp)) {
        /* go on */
    }
}

static void coroutine_fn wsm_source_channel_co(void *opaque)
{
    WsmSourceChannel *c = opaque;
    int64_t back_off = WSM_BACKOFF_MIN_NS;

    while (!wsm_loop_is_over(c->loop)) {
        Error *err = NULL;

        if (wsm_source_open(c, &err)) {
            back_off = WSM_BACKOFF_MIN_NS;
            wsm_source_channel_up(c);
            wsm_source_receive(c, &err);
            wsm_source_channel_down(c);
            trace_wsm_source_channel_down(c->c.id);
        }
        if (err && !wsm_loop_is_over(c->loop)) {
            trace_wsm_channel_error(c->c.id, error_get_pretty(err));
            c->ops->failed(c, g_steal_pointer(&err));
        }
        error_free(err);
        wsm_loop_sleep(c->loop, back_off);
        back_off = MIN(2 * back_off, WSM_BACKOFF_MAX_NS);
    }
}

void wsm_source_channel_init(WsmSourceChannel *c, unsigned id,
                             const WsmStart *start,
                             SocketAddress *const *target, WsmLoop *loop,
                             const WsmSourceChannelOps *ops, void *opaque)
{
    *c = (WsmSourceChannel) {
        .start = start,
        .loop = loop,
        .ops = ops,
        .opaque = opaque,
    };
    wsm_channel_init(&c->c, id, true);
    wsm_connector_init(&c->connector, target);
    qemu_co_queue_init(&c->idle);
}

void wsm_source_channel_destroy(WsmSourceChannel *c)
{
    wsm_channel_destroy(&c->c);
    wsm_connector_destroy(&c->connector);
}

void wsm_source_channel_open(WsmSourceChannel *c, const int64_t *disk_size)
{
    c->disk_size = disk_size;
    wsm_loop_start(c->loop, wsm_source_channel_co, c);
}

void wsm_source_channel_quit(WsmSourceChannel *c)
{
    wsm_connector_quit(&c->connector);
    wsm_channel_shutdown(&c->c);
}
