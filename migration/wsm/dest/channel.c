/*
 * Whole-system migration: the destination's block channels
 *
 * Each connection has a coroutine that receives.  What it receives is
 * written, and then acknowledged, by coroutines of their own, so that
 * writes run in parallel.  When a channel comes in again, the connection
 * before it must be gone, with all its writes, before the source is welcomed:
 * after that nothing old can be written any more.
 *
 * Everything here runs in the IOThread of the migration, unless it says so.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/aio-wait.h"
#include "block/block-io.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "migration/wsm/dest/dest.h"
#include "migration/wsm/trace.h"

#define WSM_HELLO_TIMEOUT_NS    (10 * NANOSECONDS_PER_SECOND)
#define WSM_MAX_QUEUE           (64 * KiB)      /* messages to say */

typedef struct WsmDestWrite {
    WsmDestConn *conn;
    WsmMsg msg;
    void *buf;                  /* NULL: zeroes */
} WsmDestWrite;

void wsm_dest_co_end(WsmDest *d)
{
    qatomic_dec(&d->coroutines);
    aio_wait_kick();
}

static void coroutine_fn wsm_dest_wake_co(void *opaque)
{
    WsmDest *d = opaque;

    qemu_co_queue_restart_all(&d->control);
    qemu_co_queue_restart_all(&d->changed);
    wsm_dest_co_end(d);
}

void wsm_dest_kick(WsmDest *d)
{
    qatomic_inc(&d->coroutines);
    aio_co_schedule(d->ctx, qemu_coroutine_create(wsm_dest_wake_co, d));
}

void wsm_dest_say(WsmDest *d, const WsmMsg *msg)
{
    WITH_QEMU_LOCK_GUARD(&d->lock) {
        WsmMsg *last = g_queue_peek_tail(d->queue);

        /* A lost HAVE costs no more than a block that is sent in vain */
        if (msg->type == WSM_MSG_HAVE &&
            g_queue_get_length(d->queue) >= WSM_MAX_QUEUE) {
            return;
        }
        if (last && last->type == msg->type && last->disk == msg->disk &&
            msg->bytes && last->offset + last->bytes == msg->offset &&
            last->bytes + msg->bytes <= WSM_MAX_DATA) {
            last->bytes += msg->bytes;
            return;
        }
        g_queue_push_tail(d->queue, g_memdup2(msg, sizeof(*msg)));
    }
    wsm_dest_kick(d);
}

static WsmMsg *wsm_dest_next_message(WsmDest *d)
{
    QEMU_LOCK_GUARD(&d->lock);

    return d->channel[0].conn ? g_queue_pop_head(d->queue) : NULL;
}

static void coroutine_fn wsm_dest_control_co(void *opaque)
{
    WsmDest *d = opaque;

    while (!qatomic_read(&d->quit)) {
        g_autofree WsmMsg *msg = wsm_dest_next_message(d);
        WsmDestConn *conn = d->channel[0].conn;

        if (!msg) {
            qemu_co_queue_wait(&d->control, NULL);
            continue;
        }
        conn->users++;
        wsm_channel_send(&conn->c, msg, NULL);
        conn->users--;
        qemu_co_queue_restart_all(&d->room);
    }
    wsm_dest_co_end(d);
}

void wsm_dest_start_control(WsmDest *d)
{
    qatomic_inc(&d->coroutines);
    aio_co_schedule(d->ctx, qemu_coroutine_create(wsm_dest_control_co, d));
}

static void wsm_dest_repeat_bh(void *opaque)
{
    WsmDest *d = opaque;

    for (unsigned i = 0; i < d->ndisks && wsm_life_has_filters(&d->life);
         i++) {
        bdrv_pull_repeat(d->disk[i].filter);
    }
    wsm_dest_co_end(d);
}

/* The urgent channel is up: say again what may have been lost with it */
static void wsm_dest_say_again(WsmDest *d)
{
    WsmMsg ready = { .type = WSM_MSG_READY, .epoch = 1 };

    if (wsm_handover_says_ready(&d->handover)) {
        wsm_dest_say(d, &ready);
    }
    if (wsm_life_reached(&d->life, WSM_LIFE_SEALED)) {
        qatomic_inc(&d->coroutines);
        aio_bh_schedule_oneshot(d->ctx, wsm_dest_repeat_bh, d);
    }
    wsm_dest_kick(d);
}

/*
 * Writing
 */

/* Returns 0 or -errno; -ECANCELED: nobody is to be told */
static int coroutine_fn wsm_dest_write(WsmDest *d, const WsmMsg *msg,
                                       const void *buf)
{
    WsmDestDisk *disk = &d->disk[msg->disk];
    int64_t n = 0;
    int ret;

    if (!wsm_life_has_filters(&d->life)) {
        return wsm_life_is_over(&d->life) ? -ECANCELED : 0;
    }
    d->wrote = true;
    if (msg->epoch) {
        ret = bdrv_pull_store(disk->filter, msg->offset, msg->bytes, buf, NULL);
    } else {
        ret = bdrv_pull_write(disk->filter, msg->offset, msg->bytes, buf, &n);
        stat64_add(&disk->skipped, n);
    }
    if (ret == 0) {
        stat64_add(buf ? &disk->received : &disk->zero, msg->bytes);
    } else {
        trace_wsm_dest_write_fail(disk->name, msg->offset, msg->bytes, ret);
    }
    /* The freeze came in between: it is dropped, and in the list of missing */
    return ret == -EPERM && !msg->epoch ? -ECANCELED : ret;
}

static void coroutine_fn wsm_dest_write_co(void *opaque)
{
    WsmDestWrite *wr = opaque;
    WsmDestConn *conn = wr->conn;
    WsmDest *d = conn->d;
    WsmMsg answer = wr->msg;
    g_autofree uint8_t *hashes = NULL;
    const void *payload = NULL;
    int ret;

    answer.type = WSM_MSG_ACK;
    answer.length = 0;
    if (wr->msg.type == WSM_MSG_HASH) {
        ret = wsm_dest_hash(d, &wr->msg, &answer, &hashes);
        payload = hashes;
    } else {
        ret = wsm_dest_write(d, &wr->msg, wr->buf);
        wsm_buffers_put(&d->buffers, wr->buf, wr->msg.length);
    }
    if (ret < 0) {
        answer.type = WSM_MSG_FAIL;
        payload = g_strerror(-ret);
        answer.length = strlen(payload);
    }
    if (ret != -ECANCELED) {
        conn->load.answers++;
        wsm_channel_send(&conn->c, &answer, payload);
        conn->load.answers--;
    }

    conn->users--;
    wsm_room_give(&d->space, &conn->load, &wr->msg);
    qemu_co_queue_restart_all(&d->room);
    g_free(wr);
    wsm_dest_co_end(d);
}

static void coroutine_fn wsm_dest_await_room(WsmDestConn *conn,
                                             const WsmMsg *msg)
{
    WsmDest *d = conn->d;

    while (!wsm_room_for(&d->space, &conn->load, conn->c.id, msg)) {
        qemu_co_queue_wait(&d->room, NULL);
    }
}

/* Receive the payload of DATA; write it or the ZERO; or answer HASH */
static bool coroutine_fn wsm_dest_receive_block(WsmDestConn *conn,
                                                const WsmMsg *msg,
                                                Error **errp)
{
    WsmDest *d = conn->d;
    WsmDestWrite *wr;
    void *buf = NULL;

    wsm_dest_await_room(conn, msg);
    if (msg->type == WSM_MSG_DATA) {
        buf = wsm_buffers_get(&d->buffers, msg->length);
        if (!wsm_channel_recv_payload(&conn->c, buf, msg->length, errp)) {
            wsm_buffers_put(&d->buffers, buf, msg->length);
            return false;
        }
    }

    wr = g_new(WsmDestWrite, 1);
    *wr = (WsmDestWrite) { .conn = conn, .msg = *msg, .buf = buf };
    conn->users++;
    wsm_room_take(&d->space, &conn->load, msg);
    qatomic_inc(&d->coroutines);
    qemu_coroutine_enter(qemu_coroutine_create(wsm_dest_write_co, wr));
    return true;
}

static bool coroutine_fn wsm_dest_dispatch(WsmDestConn *conn,
                                           const WsmMsg *msg, Error **errp)
{
    WsmDest *d = conn->d;

    if (!wsm_handover_expects(&d->handover, msg,
                              wsm_session_phase(d->session))) {
        error_setg(errp, "block channel %u: %s of epoch %u in phase '%s'",
                   conn->c.id, wsm_msg_name(msg->type), msg->epoch,
                   WsmPhase_str(wsm_session_phase(d->session)));
        return false;
    }
    switch (msg->type) {
    case WSM_MSG_DATA:
    case WSM_MSG_ZERO:
    case WSM_MSG_HASH:
        return wsm_dest_receive_block(conn, msg, errp);
    case WSM_MSG_SYNC:
        return wsm_dest_sync(conn, msg, errp);
    case WSM_MSG_POINT:
        return wsm_dest_point(conn, msg, errp);
    case WSM_MSG_GO:
        wsm_dest_go(d);
        return true;
    case WSM_MSG_ABORT:
        wsm_dest_abort(d);
        return true;
    default:
        error_setg(errp, "block channel %u: %s in the middle of a session",
                   conn->c.id, wsm_msg_name(msg->type));
        return false;
    }
}

/*
 * A connection: from HELLO to its end
 */

static void coroutine_fn wsm_dest_refuse(WsmDestConn *conn, const char *text)
{
    WsmMsg msg = {
        .type = WSM_MSG_REFUSE,
        .length = MIN(strlen(text), WSM_MAX_TEXT),
    };

    wsm_channel_send(&conn->c, &msg, text);
}

static bool wsm_dest_check_hello(WsmDest *d, const WsmHello *hello,
                                 Error **errp)
{
    g_autofree char *uuid = qemu_uuid_unparse_strdup(&hello->session);

    if (!qemu_uuid_is_equal(&hello->session, &d->start.session)) {
        error_setg(errp, "block channel: there is no session %s here", uuid);
        return false;
    }
    if (hello->version != d->start.version ||
        hello->features != d->start.features) {
        error_setg(errp, "block channel: the source has version %u of the "
                   "protocol and features 0x%" PRIx32 " here, but had version "
                   "%u and features 0x%" PRIx32 " in START", hello->version,
                   hello->features, d->start.version, d->start.features);
        return false;
    }
    if (hello->channels != d->nchannels || hello->channel >= d->nchannels) {
        error_setg(errp, "block channel %u of %u, but the session has %u",
                   hello->channel, hello->channels, d->nchannels);
        return false;
    }
    return true;
}

/* Receive HELLO; returns false and sets @errp, after telling the peer */
static bool coroutine_fn wsm_dest_hello(WsmDestConn *conn, WsmHello *hello,
                                        Error **errp)
{
    ERRP_GUARD();
    uint8_t payload[WSM_HELLO_SIZE];
    WsmDest *d = conn->d;
    const char *refusal;
    WsmMsg msg;
    int ret;

    ret = wsm_channel_recv(&conn->c, NULL, &msg, errp);
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
    if (!wsm_channel_recv_payload(&conn->c, payload, sizeof(payload), errp)) {
        return false;
    }
    timer_del(conn->timer);
    refusal = qatomic_read(&d->refusal);
    if (refusal) {
        error_setg(errp, "%s", refusal);
    }
    if (refusal || !wsm_hello_decode(payload, hello, errp) ||
        !wsm_dest_check_hello(d, hello, errp)) {
        wsm_dest_refuse(conn, error_get_pretty(*errp));
        return false;
    }
    conn->place.known = true;
    return true;
}

/* One more connection has come; perhaps another has to go */
static void wsm_dest_make_room(WsmDestConn *conn)
{
    WsmPlace *goes = wsm_places_add(&conn->d->places, &conn->place);

    if (goes) {
        warn_report_once("Too many connections to the migration port: the "
                         "oldest that say nothing are closed");
        wsm_channel_shutdown(&container_of(goes, WsmDestConn, place)->c);
    }
}

/* Take the place of the connection before us, when that is gone */
static void coroutine_fn wsm_dest_take_place(WsmDestConn *conn, unsigned id)
{
    WsmDest *d = conn->d;
    WsmDestChannel *channel = &d->channel[id];

    while (channel->conn) {
        wsm_channel_shutdown(&channel->conn->c);
        qemu_co_queue_wait(&d->gone, NULL);
    }
    channel->conn = conn;
    conn->c.id = id;
    qatomic_set(&channel->connections, channel->connections + 1);
    qatomic_set(&channel->up, true);
}

static void coroutine_fn wsm_dest_serve(WsmDestConn *conn, Error **errp)
{
    WsmDest *d = conn->d;
    WsmMsg welcome = { .type = WSM_MSG_WELCOME, .length = WSM_WELCOME_SIZE };
    uint8_t payload[WSM_WELCOME_SIZE];
    WsmLimits limits = {
        .from_source = true,
        .channel = conn->c.id,
        .disks = d->ndisks,
        .disk_size = d->disk_size,
        .granularity = d->start.granularity,
    };
    WsmMsg msg;

    wsm_welcome_encode(wsm_features_in_use(&d->start), payload);
    if (wsm_channel_send(&conn->c, &welcome, payload) < 0) {
        return;
    }
    if (conn->c.id == 0) {
        if (wsm_session_phase(d->session) == WSM_PHASE_SETUP &&
            wsm_dest_say_basis(conn) < 0) {
            return;
        }
        wsm_session_advance(d->session, WSM_PHASE_SETUP,
                            WSM_PHASE_DISK_PRECOPY);
        wsm_dest_say_again(d);
    }
    while (!qatomic_read(&d->quit) &&
           wsm_channel_recv(&conn->c, &limits, &msg, errp) > 0 &&
           wsm_dest_dispatch(conn, &msg, errp)) {
        /* go on */
    }
}

static void coroutine_fn wsm_dest_conn_end(WsmDestConn *conn)
{
    WsmDest *d = conn->d;
    WsmDestChannel *channel = &d->channel[conn->c.id];

    wsm_channel_shutdown(&conn->c);
    while (conn->users) {
        qemu_co_queue_wait(&d->room, NULL);
    }
    if (channel->conn == conn) {
        channel->conn = NULL;
        qatomic_set(&channel->up, false);
    }
    wsm_channel_detach(&conn->c);
    wsm_places_remove(&d->places, &conn->place);
    qemu_co_queue_restart_all(&d->gone);

    timer_free(conn->timer);
    wsm_channel_destroy(&conn->c);
    g_free(conn);
    wsm_dest_co_end(d);
}

static void wsm_dest_hello_timeout(void *opaque)
{
    WsmDestConn *conn = opaque;

    wsm_channel_shutdown(&conn->c);
}

static void coroutine_fn wsm_dest_conn_co(void *opaque)
{
    WsmDestConn *conn = opaque;
    WsmDest *d = conn->d;
    Error *err = NULL;
    WsmHello hello;

    wsm_channel_attach(&conn->c, g_steal_pointer(&conn->ioc));
    conn->timer = aio_timer_new(d->ctx, QEMU_CLOCK_REALTIME, SCALE_NS,
                                wsm_dest_hello_timeout, conn);
    timer_mod(conn->timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) +
                           WSM_HELLO_TIMEOUT_NS);

    wsm_dest_make_room(conn);
    if (!qatomic_read(&d->quit) && wsm_dest_hello(conn, &hello, &err)) {
        wsm_dest_take_place(conn, hello.channel);
        trace_wsm_dest_channel_up(conn->c.id);
        wsm_dest_serve(conn, &err);
        trace_wsm_dest_channel_down(conn->c.id);
    }
    if (err && !qatomic_read(&d->quit) && !conn->place.displaced) {
        wsm_session_set_error(d->session, err);
        warn_report_err(err);
    } else {
        error_free(err);
    }
    wsm_dest_conn_end(conn);
}

void wsm_dest_new_channel(WsmDest *d, QIOChannel *ioc)
{
    WsmDestConn *conn = g_new0(WsmDestConn, 1);

    conn->d = d;
    conn->ioc = ioc;
    wsm_channel_init(&conn->c, 0, false);
    qatomic_inc(&d->coroutines);
    aio_co_schedule(d->ctx, qemu_coroutine_create(wsm_dest_conn_co, conn));
}
