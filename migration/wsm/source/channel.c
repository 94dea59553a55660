/*
 * Whole-system migration: the source's block channels
 *
 * Each channel has a coroutine that opens it, receives from it, and opens it
 * again when it breaks.  One more coroutine says what is to be said on the
 * urgent channel.
 *
 * Everything here runs in the IOThread of the migration.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "migration/wsm/source/source.h"
#include "migration/wsm/trace.h"

#define WSM_BACKOFF_MIN_NS      (100 * SCALE_MS)
#define WSM_MAX_ERRNO           4095    /* as in Linux's IS_ERR() */
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

void wsm_source_fail(WsmSource *s, Error *err)
{
    wsm_session_set_error(s->session, err);
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        if (!s->fatal) {
            s->fatal = g_steal_pointer(&err);
            qemu_cond_broadcast(&s->cond);
        }
    }
    error_free(err);
}

static bool wsm_source_in_setup(WsmSource *s)
{
    return wsm_session_phase(s->session) == WSM_PHASE_SETUP;
}

/* Send HELLO.  Returns false and sets @errp. */
static bool coroutine_fn wsm_source_hello(WsmSourceChannel *c, Error **errp)
{
    WsmHello hello = {
        .session = c->s->start.session,
        .version = c->s->start.version,
        .channel = c->c.id,
        .channels = c->s->nchannels,
        .features = c->s->start.features,
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
    uint32_t features;
    WsmMsg msg;
    int ret;

    ret = wsm_channel_recv(&c->c, NULL, &msg, errp);
    if (ret < 0) {
        return false;
    }
    if (ret == 0) {
        error_setg(errp, "block channel %u: the destination closed the "
                   "connection before it answered; is capability "
                   "'whole-system' on there? Its log has the reason",
                   c->c.id);
        return false;
    }
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
           wsm_welcome_decode(payload, &c->s->start, &features, errp);
}

/* The channel is open: what it carried when it broke is sent again */
static void coroutine_fn wsm_source_channel_up(WsmSourceChannel *c)
{
    WsmSource *s = c->s;

    qatomic_set(&c->connection, c->connection + 1);
    qatomic_set(&c->up, true);
    trace_wsm_source_channel_up(c->c.id, c->connection);
    wsm_work_lane_up(s->work, c->c.id);
    if (c->c.id == 0) {
        s->sync_wanted |= s->sync_awaited;
        s->go_wanted |= wsm_work_is_push(s->work);
        s->points_wanted |= wsm_work_is_push(s->work);
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        if (c->connection == 1) {
            s->all_welcome = ++s->welcome == s->nchannels;
        }
        qemu_cond_broadcast(&s->cond);
    }
    wsm_loop_wake(&s->loop);
}

static void coroutine_fn wsm_source_channel_down(WsmSourceChannel *c)
{
    qatomic_set(&c->up, false);
    wsm_work_lane_down(c->s->work, c->c.id);
    wsm_channel_shutdown(&c->c);
    while (c->users) {
        qemu_co_queue_wait(&c->idle, NULL);
    }
    wsm_channel_detach(&c->c);
    wsm_work_lane_gone(c->s->work, c->c.id);
}

static bool coroutine_fn wsm_source_open(WsmSourceChannel *c, Error **errp)
{
    QIOChannel *ioc = wsm_connect(&c->connector, errp);

    if (!ioc) {
        return false;
    }
    wsm_channel_attach(&c->c, ioc);
    if (wsm_loop_is_over(&c->s->loop)) {
        error_setg(errp, "the migration has ended");
    } else if (wsm_source_hello(c, errp) && wsm_source_welcome(c, errp)) {
        return true;
    }
    wsm_channel_detach(&c->c);
    return false;
}

/* The number is Linux's, and the destination may send any */
static void wsm_set_flush_error(Error **errp, uint64_t number)
{
    if (number <= WSM_MAX_ERRNO) {
        error_setg_errno(errp, number,
                         "the destination cannot flush its disks");
    } else {
        error_setg(errp, "the destination cannot flush its disks: error "
                   "%" PRIu64, number);
    }
}

static void coroutine_fn wsm_source_synced(WsmSource *s, const WsmMsg *msg)
{
    if (msg->offset != s->sync_serial || !s->sync_awaited) {
        return;
    }
    s->sync_awaited = false;
    if (!wsm_work_is_push(s->work) && msg->bytes) {
        Error *err = NULL;

        wsm_set_flush_error(&err, msg->bytes);
        wsm_source_fail(s, err);
        return;
    }
    if (msg->bytes) {
        g_autoptr(Error) err = NULL;

        error_setg(&err, "the destination lacks %" PRIu64 " bytes that were "
                   "sent; keep both sides running and report this bug",
                   msg->bytes);
        wsm_session_set_error(s->session, err);
        return;
    }
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->synced = true;
        s->all_there = wsm_work_is_push(s->work);
        qemu_cond_broadcast(&s->cond);
    }
    if (wsm_work_is_push(s->work)) {
        wsm_source_end_pause(s);
    }
}

static bool coroutine_fn wsm_source_failed(WsmSourceChannel *c,
                                           const WsmMsg *msg, Error **errp)
{
    g_autofree char *text = wsm_channel_recv_text(&c->c, msg->length, errp);
    Error *err = NULL;

    if (!text) {
        return false;
    }
    error_setg(&err, "the destination cannot use disk '%s': %s",
               c->s->disk[msg->disk].name, text);
    wsm_source_fail(c->s, err);
    /* It is tried again in post-copy; the error may last */
    wsm_loop_sleep(&c->s->loop, wsm_work_is_push(c->s->work)
                                ? NANOSECONDS_PER_SECOND : 0);
    return wsm_source_ack(c, msg, false, errp);
}

/* With postcopy-ram it may be after the handover, and is only shown */
static bool coroutine_fn wsm_source_given_up(WsmSourceChannel *c,
                                             const WsmMsg *msg, Error **errp)
{
    g_autofree char *text = wsm_channel_recv_text(&c->c, msg->length, errp);
    Error *err = NULL;

    if (!text) {
        return false;
    }
    error_setg(&err, "the destination gives up: %s", text);
    wsm_source_fail(c->s, err);
    return true;
}

/* Returns false and sets @errp to close the channel */
static bool coroutine_fn wsm_source_dispatch(WsmSourceChannel *c,
                                             const WsmMsg *msg, Error **errp)
{
    WsmSource *s = c->s;

    switch (msg->type) {
    case WSM_MSG_ACK:
        return wsm_source_ack(c, msg, true, errp);
    case WSM_MSG_FAIL:
        return wsm_source_failed(c, msg, errp);
    case WSM_MSG_SYNC_ACK:
        wsm_source_synced(s, msg);
        return true;
    case WSM_MSG_GIVE_UP:
        return wsm_source_given_up(c, msg, errp);
    case WSM_MSG_HASHES:
        return wsm_source_hashes(c, msg, errp);
    case WSM_MSG_BASIS:
        return wsm_source_basis(c, msg, errp);
    case WSM_MSG_OWN:
        return wsm_source_own(c, msg, errp);
    case WSM_MSG_READY:
        WITH_QEMU_LOCK_GUARD(&s->lock) {
            s->ready = true;
            qemu_cond_broadcast(&s->cond);
        }
        return true;
    case WSM_MSG_PULL:
        if (wsm_work_is_push(s->work)) {
            wsm_source_pull(c, msg);
            return true;
        }
        break;
    case WSM_MSG_HAVE:
        if (wsm_work_is_push(s->work)) {
            wsm_work_have(s->work, msg->disk, msg->offset, msg->bytes);
            return true;
        }
        break;
    default:
        break;
    }
    error_setg(errp, "block channel %u: %s in phase '%s'", c->c.id,
               wsm_msg_name(msg->type),
               WsmPhase_str(wsm_session_phase(s->session)));
    return false;
}

static void coroutine_fn wsm_source_receive(WsmSourceChannel *c, Error **errp)
{
    WsmLimits limits = {
        .channel = c->c.id,
        .disks = c->s->ndisks,
        .disk_size = c->s->disk_size,
        .granularity = c->s->start.granularity,
    };
    WsmMsg msg;

    while (wsm_channel_recv(&c->c, &limits, &msg, errp) > 0 &&
           wsm_source_dispatch(c, &msg, errp)) {
        /* go on */
    }
}

/* A failure while the two sides get to know each other is for good */
static void wsm_source_report(WsmSourceChannel *c, Error *err)
{
    if (!err || wsm_loop_is_over(&c->s->loop)) {
        error_free(err);
        return;
    }
    trace_wsm_channel_error(c->c.id, error_get_pretty(err));
    if (wsm_source_in_setup(c->s)) {
        wsm_source_fail(c->s, err);
    } else {
        wsm_session_set_error(c->s->session, err);
        error_free(err);
    }
}

static void coroutine_fn wsm_source_channel_co(void *opaque)
{
    WsmSourceChannel *c = opaque;
    WsmSource *s = c->s;
    int64_t back_off = WSM_BACKOFF_MIN_NS;

    while (!wsm_loop_is_over(&s->loop)) {
        Error *err = NULL;

        if (wsm_source_open(c, &err)) {
            back_off = WSM_BACKOFF_MIN_NS;
            wsm_source_channel_up(c);
            wsm_source_receive(c, &err);
            wsm_source_channel_down(c);
            trace_wsm_source_channel_down(c->c.id);
        }
        wsm_source_report(c, err);
        wsm_loop_sleep(&s->loop, back_off);
        back_off = MIN(2 * back_off, WSM_BACKOFF_MAX_NS);
    }
}

/* What is to be said on the urgent channel; false if nothing */
static bool wsm_source_next_control(WsmSource *s, WsmMsg *msg)
{
    *msg = (WsmMsg) {};
    if (!s->channel[0].up) {
        return false;
    }
    if (s->abort_wanted) {
        s->abort_wanted = false;
        msg->type = WSM_MSG_ABORT;
    } else if (s->go_wanted) {
        s->go_wanted = false;
        msg->type = WSM_MSG_GO;
        msg->epoch = wsm_work_is_push(s->work);
    } else if (s->sync_wanted && !s->points_wanted) {
        s->sync_wanted = false;
        s->sync_awaited = true;
        msg->type = WSM_MSG_SYNC;
        msg->epoch = wsm_work_is_push(s->work);
        msg->offset = ++s->sync_serial;
    } else {
        return false;
    }
    return true;
}

static void coroutine_fn wsm_source_control_co(void *opaque)
{
    WsmSource *s = opaque;
    WsmSourceChannel *c = &s->channel[0];
    WsmMsg msg;

    while (!wsm_loop_is_over(&s->loop)) {
        if (wsm_source_next_control(s, &msg)) {
            wsm_source_transmit(c, &msg, NULL);
            s->abort_sent |= msg.type == WSM_MSG_ABORT;
        } else if (s->points_wanted && c->up) {
            s->points_wanted = false;
            wsm_source_send_points(s);
        } else {
            wsm_loop_wait(&s->loop);
        }
    }
}

void wsm_source_open_channels(WsmSource *s)
{
    for (unsigned i = 0; i < s->nchannels; i++) {
        wsm_loop_start(&s->loop, wsm_source_channel_co, &s->channel[i]);
        if (i > 0) {
            wsm_source_start_senders(&s->channel[i]);
        }
    }
    wsm_loop_start(&s->loop, wsm_source_control_co, s);
}
