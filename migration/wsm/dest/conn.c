/*
 * Whole-system migration: connections of block channels at the destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/wsm/dest/conn.h"
#include "migration/wsm/trace.h"
#include "migration/wsm/wire/start.h"

#define WSM_HELLO_TIMEOUT_NS    (10 * NANOSECONDS_PER_SECOND)

void wsm_dest_conns_init(WsmDestConns *conns, WsmLoop *loop,
                         const WsmStart *start, const WsmDestConnOps *ops,
                         void *opaque)
{
    *conns = (WsmDestConns) {
        .loop = loop,
        .ops = ops,
        .opaque = opaque,
        .start = start,
        .disk_size = g_new(int64_t, start->ndisks),
        .nchannels = start->channels,
        .channel = g_new0(WsmDestChannel, start->channels),
    };
    for (unsigned i = 0; i < start->ndisks; i++) {
        conns->disk_size[i] = start->disk[i].size;
    }
    wsm_places_init(&conns->places);
    qemu_co_queue_init(&conns->gone);
    qemu_co_queue_init(&conns->idle);
}

void wsm_dest_conns_destroy(WsmDestConns *conns)
{
    assert(!conns->places.n);
    g_free(conns->disk_size);
    g_free(conns->channel);
    g_free(conns->refusal);
}

bool wsm_dest_conns_refuse(WsmDestConns *conns, const char *text)
{
    GLOBAL_STATE_CODE();
    if (conns->refusal) {
        return false;
    }
    qatomic_set(&conns->refusal, g_strdup(text));
    return true;
}

const char *wsm_dest_conns_refusal(WsmDestConns *conns)
{
    return qatomic_read(&conns->refusal);
}

void wsm_dest_conns_shutdown(WsmDestConns *conns)
{
    WsmPlace *place;

    assert(wsm_loop_is_here(conns->loop));
    QTAILQ_FOREACH(place, &conns->places.all, next) {
        wsm_channel_shutdown(&container_of(place, WsmDestConn, place)->c);
    }
}

WsmDestConn *wsm_dest_conns_get(WsmDestConns *conns, unsigned id)
{
    assert(wsm_loop_is_here(conns->loop));
    return conns->channel[id].conn;
}

bool wsm_dest_conns_is_up(WsmDestConns *conns, unsigned id)
{
    return qatomic_read(&conns->channel[id].up);
}

void wsm_dest_conns_info(WsmDestConns *conns, WsmInfo *info)
{
    for (int i = conns->nchannels - 1; i >= 0; i--) {
        WsmDestChannel *c = &conns->channel[i];

        wsm_channel_info(info, i, qatomic_read(&c->up),
                         qatomic_read(&c->connections));
    }
}

void wsm_dest_conn_hold(WsmDestConn *conn)
{
    assert(wsm_loop_is_here(conn->all->loop));
    conn->users++;
}

void wsm_dest_conn_release(WsmDestConn *conn)
{
    conn->users--;
    qemu_co_queue_restart_all(&conn->all->idle);
}

int coroutine_fn wsm_dest_conn_send(WsmDestConn *conn, const WsmMsg *msg,
                                    const void *payload)
{
    int ret;

    wsm_dest_conn_hold(conn);
    ret = wsm_channel_send(&conn->c, msg, payload);
    wsm_dest_conn_release(conn);
    return ret;
}

/*
 * A connection: from HELLO to its end
 */

static void coroutine_fn wsm_dest_conn_refuse(WsmDestConn *conn,
                                              const char *text)
{
    WsmMsg msg = {
        .type = WSM_MSG_REFUSE,
        .length = MIN(strlen(text), WSM_MAX_TEXT),
    };

    wsm_dest_conn_send(conn, &msg, text);
}

static bool wsm_dest_check_hello(WsmDestConns *conns, const WsmHello *hello,
                                 Error **errp)
{
    g_autofree char *uuid = qemu_uuid_unparse_strdup(&hello->session);
    const WsmStart *start = conns->start;

    if (!qemu_uuid_is_equal(&hello->session, &start->session)) {
        error_setg(errp, "block channel: there is no session %s here", uuid);
        return false;
    }
    if (hello->version != start->version ||
        hello->features != start->features) {
        error_setg(errp, "block channel: the source has version %u of the "
                   "protocol and features 0x%" PRIx32 " here, but had version "
                   "%u and features 0x%" PRIx32 " in START", hello->version,
                   hello->features, start->version, start->features);
        return false;
    }
    if (hello->channels != conns->nchannels ||
        hello->channel >= conns->nchannels) {
        error_setg(errp, "block channel %u of %u, but the session has %u",
                   hello->channel, hello->channels, conns->nchannels);
        return false;
    }
    return true;
}

/* Receive HELLO, unchecked.  Returns false and sets @errp. */
static bool coroutine_fn wsm_dest_recv_hello(WsmDestConn *conn,
                                             uint8_t *payload, Error **errp)
{
    WsmMsg msg;
    int ret = wsm_channel_recv(&conn->c, NULL, &msg, errp);

    if (ret <= 0) {
        if (ret == 0) {
            error_setg(errp, "block channel: closed before HELLO");
        }
        return false;
    }
    if (msg.type != WSM_MSG_HELLO) {
        error_setg(errp, "block channel: %s instead of HELLO",
                   wsm_msg_name(msg.type));
        return false;
    }
    return wsm_channel_recv_payload(&conn->c, payload, WSM_HELLO_SIZE, errp);
}

/* Receive HELLO; returns false and sets @errp, after telling the peer */
static bool coroutine_fn wsm_dest_hello(WsmDestConn *conn, WsmHello *hello,
                                        Error **errp)
{
    ERRP_GUARD();
    uint8_t payload[WSM_HELLO_SIZE];
    const char *refusal;

    if (!wsm_dest_recv_hello(conn, payload, errp)) {
        return false;
    }
    timer_del(conn->timer);
    refusal = wsm_dest_conns_refusal(conn->all);
    if (refusal) {
        error_setg(errp, "%s", refusal);
    }
    if (refusal || !wsm_hello_decode(payload, hello, errp) ||
        !wsm_dest_check_hello(conn->all, hello, errp)) {
        wsm_dest_conn_refuse(conn, error_get_pretty(*errp));
        return false;
    }
    conn->place.known = true;
    return true;
}

/* One more connection has come; perhaps another has to go */
static void wsm_dest_make_room(WsmDestConn *conn)
{
    WsmPlace *goes = wsm_places_add(&conn->all->places, &conn->place);

    if (goes) {
        warn_report_once("Too many connections to the migration port: the "
                         "oldest that say nothing are closed");
        wsm_channel_shutdown(&container_of(goes, WsmDestConn, place)->c);
    }
}

/* Take the place of the connection before us, when that is gone */
static void coroutine_fn wsm_dest_take_place(WsmDestConn *conn, unsigned id)
{
    WsmDestChannel *channel = &conn->all->channel[id];

    while (channel->conn) {
        wsm_channel_shutdown(&channel->conn->c);
        qemu_co_queue_wait(&conn->all->gone, NULL);
    }
    channel->conn = conn;
    conn->c.id = id;
    qatomic_set(&channel->connections, channel->connections + 1);
    qatomic_set(&channel->up, true);
}

static void coroutine_fn wsm_dest_serve(WsmDestConn *conn, Error **errp)
{
    WsmDestConns *conns = conn->all;
    WsmMsg welcome = { .type = WSM_MSG_WELCOME, .length = WSM_WELCOME_SIZE };
    uint8_t payload[WSM_WELCOME_SIZE];
    WsmLimits limits = {
        .from_source = true,
        .channel = conn->c.id,
        .disks = conns->start->ndisks,
        .disk_size = conns->disk_size,
        .granularity = conns->start->granularity,
        .packing = wsm_features_in_use(conns->start) & WSM_FEATURE_PACKING,
    };
    WsmMsg msg;

    wsm_welcome_encode(wsm_features_in_use(conns->start), payload);
    if (wsm_dest_conn_send(conn, &welcome, payload) < 0 ||
        !conns->ops->up(conns->opaque, conn)) {
        return;
    }
    while (!wsm_loop_is_over(conns->loop) &&
           wsm_channel_recv(&conn->c, &limits, &msg, errp) > 0 &&
           conns->ops->message(conns->opaque, conn, &msg, errp)) {
        /* go on */
    }
}

static void coroutine_fn wsm_dest_conn_end(WsmDestConn *conn)
{
    WsmDestConns *conns = conn->all;
    WsmDestChannel *channel = &conns->channel[conn->c.id];

    wsm_channel_shutdown(&conn->c);
    while (conn->users) {
        qemu_co_queue_wait(&conns->idle, NULL);
    }
    if (channel->conn == conn) {
        channel->conn = NULL;
        qatomic_set(&channel->up, false);
    }
    wsm_channel_detach(&conn->c);
    wsm_places_remove(&conns->places, &conn->place);
    qemu_co_queue_restart_all(&conns->gone);

    timer_free(conn->timer);
    wsm_channel_destroy(&conn->c);
    g_free(conn);
}

static void wsm_dest_hello_timeout(void *opaque)
{
    WsmDestConn *conn = opaque;

    wsm_channel_shutdown(&conn->c);
}

static void coroutine_fn wsm_dest_conn_co(void *opaque)
{
    WsmDestConn *conn = opaque;
    WsmDestConns *conns = conn->all;
    Error *err = NULL;
    WsmHello hello;

    wsm_channel_attach(&conn->c, g_steal_pointer(&conn->ioc));
    conn->timer = aio_timer_new(conns->loop->ctx, QEMU_CLOCK_REALTIME,
                                SCALE_NS, wsm_dest_hello_timeout, conn);
    timer_mod(conn->timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) +
                           WSM_HELLO_TIMEOUT_NS);
    wsm_dest_make_room(conn);
    if (!wsm_loop_is_over(conns->loop) && wsm_dest_hello(conn, &hello, &err)) {
        wsm_dest_take_place(conn, hello.channel);
        trace_wsm_dest_channel_up(conn->c.id);
        wsm_dest_serve(conn, &err);
        trace_wsm_dest_channel_down(conn->c.id);
    }
    if (err && !wsm_loop_is_over(conns->loop) && !conn->place.displaced) {
        conns->ops->failed(conns->opaque, err);
    } else {
        error_free(err);
    }
    wsm_dest_conn_end(conn);
}

void wsm_dest_conns_add(WsmDestConns *conns, QIOChannel *ioc)
{
    WsmDestConn *conn = g_new0(WsmDestConn, 1);

    GLOBAL_STATE_CODE();
    conn->all = conns;
    conn->ioc = ioc;
    wsm_channel_init(&conn->c, 0, false);
    if (!wsm_loop_start(conns->loop, wsm_dest_conn_co, conn)) {
        object_unref(OBJECT(ioc));
        wsm_channel_destroy(&conn->c);
        g_free(conn);
    }
}
