/*
 * Whole-system migration: what the source's channels and its work report
 *
 * The table of messages, and what follows when a channel comes up or goes down,
 * or a pass is over.  One coroutine says what is to be said on the urgent
 * channel.
 *
 * Everything here runs in the IOThread of the migration.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/migration.h"
#include "migration/wsm/source/basis.h"
#include "migration/wsm/source/lack.h"
#include "migration/wsm/source/ops.h"
#include "migration/wsm/source/points.h"
#include "migration/wsm/source/send.h"
#include "migration/wsm/trace.h"

#define WSM_MAX_ERRNO           4095    /* as in Linux's IS_ERR() */

/*
 * Messages
 */

/* The request that @msg answers, or NULL and @errp */
static WsmReq *wsm_source_find_req(WsmSourceChannel *c, const WsmMsg *msg,
                                   Error **errp)
{
    WsmSource *s = c->opaque;
    WsmReq *req = wsm_work_find(s->work, c->c.id, msg->disk, msg->offset,
                                msg->bytes, msg->epoch);

    if (!req) {
        error_setg(errp, "block channel %u: %s: range 0x%" PRIx64 "+0x%" PRIx64
                   " of disk %u is not in flight", c->c.id,
                   wsm_msg_name(msg->type), msg->offset, msg->bytes,
                   msg->disk);
    }
    return req;
}

/* The destination has written, or not (@ok), what we sent */
static bool wsm_source_on_answer(WsmSourceChannel *c, const WsmMsg *msg,
                                 bool ok, Error **errp)
{
    WsmReq *req = wsm_source_find_req(c, msg, errp);

    if (!req) {
        return false;
    }
    if (ok && req->kind == WSM_REQ_COMPARE) {
        error_setg(errp, "block channel %u: ACK for a range that is compared",
                   c->c.id);
        return false;
    }
    wsm_req_answer(req, ok, wsm_now());
    return true;
}

static bool coroutine_fn wsm_source_on_hashes(WsmSourceChannel *c,
                                              const WsmMsg *msg, Error **errp)
{
    g_autofree uint8_t *theirs = NULL;
    WsmReq *req;

    if (msg->length) {
        theirs = g_malloc(msg->length);
        if (!wsm_channel_recv_payload(&c->c, theirs, msg->length, errp)) {
            return false;
        }
    }
    req = wsm_source_find_req(c, msg, errp);
    if (!req) {
        return false;
    }
    if (req->kind != WSM_REQ_COMPARE) {
        error_setg(errp, "block channel %u: HASHES for a range that is not "
                   "compared", c->c.id);
        return false;
    }
    req->theirs = g_steal_pointer(&theirs);
    wsm_req_answer(req, true, wsm_now());
    return true;
}

/*
 * All is there.  If the main stream broke, QEMU waits for a new one: let the
 * migration thread look again, which then completes.
 */
static void coroutine_fn wsm_source_end_pause_co(void *opaque)
{
    MigrationState *ms = migrate_get_current();
    WsmSource *s = opaque;

    while (!wsm_loop_is_over(&s->loop)) {
        if (qatomic_read(&ms->state) == MIGRATION_STATUS_POSTCOPY_PAUSED) {
            qemu_sem_post(&ms->postcopy_pause_sem);
        }
        wsm_loop_sleep(&s->loop, NANOSECONDS_PER_SECOND);
    }
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

/* An error of our peer's, or what we have sent has not arrived */
static void wsm_source_not_synced(WsmSource *s, uint64_t bytes)
{
    Error *err = NULL;

    if (!wsm_work_is_push(s->work)) {
        wsm_set_flush_error(&err, bytes);
        wsm_fail(&s->milestones, err);
        return;
    }
    if (wsm_source_may_lack(s)) {
        /* LACK says what, and when that is sent there is another SYNC */
        return;
    }
    error_setg(&err, "the destination lacks %" PRIu64 " bytes that were sent; "
               "keep both sides running and report this bug", bytes);
    wsm_session_set_error(s->session, err);
    error_free(err);
}

static void coroutine_fn wsm_source_on_sync_ack(WsmSource *s,
                                                const WsmMsg *msg)
{
    if (!wsm_control_synced(&s->control, msg)) {
        return;
    }
    if (msg->bytes) {
        wsm_source_not_synced(s, msg->bytes);
    } else if (wsm_work_is_push(s->work)) {
        wsm_reach(&s->milestones, WSM_ALL_THERE);
        wsm_loop_start(&s->loop, wsm_source_end_pause_co, s);
    } else {
        wsm_reach(&s->milestones, WSM_SYNCED);
    }
}

/*
 * The destination says that it fails, and why; @what comes before that.  With
 * postcopy-ram it may be after the handover, and is only shown.
 */
static bool coroutine_fn wsm_source_recv_failure(WsmSourceChannel *c,
                                                 const WsmMsg *msg,
                                                 const char *what,
                                                 Error **errp)
{
    WsmSource *s = c->opaque;
    g_autofree char *text = wsm_channel_recv_text(&c->c, msg->length, errp);
    Error *err = NULL;

    if (!text) {
        return false;
    }
    error_setg(&err, "the destination %s: %s", what, text);
    wsm_fail(&s->milestones, err);
    return true;
}

static bool coroutine_fn wsm_source_on_fail(WsmSourceChannel *c,
                                            const WsmMsg *msg, Error **errp)
{
    WsmSource *s = c->opaque;
    g_autofree char *what = g_strdup_printf("cannot use disk '%s'",
                                            s->disk[msg->disk].name);

    if (!wsm_source_recv_failure(c, msg, what, errp)) {
        return false;
    }
    /* It is tried again in post-copy; the error may last */
    if (wsm_work_is_push(s->work)) {
        wsm_loop_sleep(&s->loop, NANOSECONDS_PER_SECOND);
    }
    return wsm_source_on_answer(c, msg, false, errp);
}

static bool coroutine_fn wsm_source_on_sets(WsmSourceChannel *c,
                                            const WsmMsg *msg, Error **errp)
{
    uint8_t payload[WSM_MAX_SETS * WSM_MAX_SET];
    WsmSource *s = c->opaque;

    assert(msg->length <= sizeof(payload));
    return wsm_channel_recv_payload(&c->c, payload, msg->length, errp) &&
           wsm_source_memory_sets(s->memory, payload, msg->length, errp);
}

static bool coroutine_fn wsm_source_on_digests(WsmSourceChannel *c,
                                               const WsmMsg *msg,
                                               Error **errp)
{
    g_autofree uint8_t *payload = g_malloc(msg->length);
    WsmSource *s = c->opaque;

    return wsm_channel_recv_payload(&c->c, payload, msg->length, errp) &&
           wsm_source_memory_digests(s->memory, msg, payload, errp);
}

/* A user who does not want it adaptive has said that time does not matter */
static void wsm_source_on_stop(WsmSource *s, const WsmMsg *msg)
{
    if (msg->offset != WSM_MEMORY_WHY_SLOW ||
        wsm_option(s->options, WSM_OPT_MEMORY_ADAPTIVE)) {
        wsm_source_memory_end(s->memory, msg->disk, msg->offset);
    }
}

/* Memory by reference: is it in use?  Else false, and @errp. */
static bool coroutine_fn wsm_source_on_memory(WsmSourceChannel *c,
                                              const WsmMsg *msg, Error **errp)
{
    WsmMsg page = {
        .type = WSM_MSG_PAGE, .epoch = 1, .disk = msg->disk,
        .length = msg->bytes, .offset = msg->offset, .bytes = msg->bytes,
    };
    WsmSource *s = c->opaque;
    uint8_t salt[WSM_SALT_SIZE];
    const void *content;

    switch (msg->type) {
    case WSM_MSG_SALT:
        if (!wsm_channel_recv_payload(&c->c, salt, sizeof(salt), errp)) {
            return false;
        }
        wsm_source_memory_salt(s->memory, salt);
        return true;
    case WSM_MSG_NACK:
        return wsm_source_memory_nack(s->memory, msg, errp);
    case WSM_MSG_DONE:
        wsm_source_memory_done(s->memory, msg);
        return true;
    case WSM_MSG_SETS:
        return wsm_source_on_sets(c, msg, errp);
    case WSM_MSG_STOP:
        wsm_source_on_stop(s, msg);
        return true;
    default:
        content = wsm_source_memory_want(s->memory, msg, errp);
        if (content) {
            /* If it breaks, that is seen elsewhere, and it is asked for anew */
            wsm_source_transmit(c, &page, content);
        }
        return content;
    }
}

/* Has the guest stopped, so that its memory can be sent as it is? */
static bool wsm_source_is_frozen(WsmSource *s)
{
    WsmPhase phase = wsm_session_phase(s->session);

    return phase == WSM_PHASE_FREEZE || phase == WSM_PHASE_POSTCOPY;
}

/* Returns false and sets @errp to close the channel */
static bool coroutine_fn wsm_source_message(WsmSourceChannel *c,
                                            const WsmMsg *msg, Error **errp)
{
    WsmSource *s = c->opaque;

    switch (msg->type) {
    case WSM_MSG_ACK:
        return wsm_source_on_answer(c, msg, true, errp);
    case WSM_MSG_FAIL:
        return wsm_source_on_fail(c, msg, errp);
    case WSM_MSG_SYNC_ACK:
        wsm_source_on_sync_ack(s, msg);
        return true;
    case WSM_MSG_GIVE_UP:
        return wsm_source_recv_failure(c, msg, "gives up", errp);
    case WSM_MSG_HASHES:
        return wsm_source_on_hashes(c, msg, errp);
    case WSM_MSG_BASIS:
        return wsm_source_on_basis(c, msg, errp);
    case WSM_MSG_OWN:
        return wsm_source_on_own(c, msg, errp);
    case WSM_MSG_READY:
        wsm_reach(&s->milestones, WSM_READY);
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
    case WSM_MSG_LACK:
        if (wsm_work_is_push(s->work) && wsm_source_may_lack(s)) {
            return wsm_source_on_lack(c, msg, errp);
        }
        break;
    case WSM_MSG_ANEW:
        if (wsm_source_may_lack(s)) {
            qatomic_set(&s->anew, true);
            return true;
        }
        break;
    case WSM_MSG_DIGESTS:
        if (s->memory && (c->features & WSM_FEATURE_IMAGE)) {
            return wsm_source_on_digests(c, msg, errp);
        }
        break;
    case WSM_MSG_SALT:
    case WSM_MSG_NACK:
    case WSM_MSG_DONE:
    case WSM_MSG_SETS:
    case WSM_MSG_STOP:
    case WSM_MSG_WANT:
        if (s->memory &&
            (msg->type != WSM_MSG_WANT || wsm_source_is_frozen(s))) {
            return wsm_source_on_memory(c, msg, errp);
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

/*
 * Channels
 */

static const char *wsm_source_accel_name(uint32_t feature)
{
    return feature & WSM_FEATURE_KVM ? "KVM" : "TCG";
}

/* Can the destination run the guest?  Nothing was copied yet. */
static bool wsm_source_check_accel(WsmSource *s, uint32_t features)
{
    uint32_t there = features & WSM_FEATURES_ACCEL;
    Error *err = NULL;

    qatomic_set(&s->accel_there, there);
    if (!there && s->paced) {
        error_setg(&err, "The guest's time stamp counter does not have the "
                   "frequency of this host's, and the destination cannot be "
                   "told: its QEMU is too old, or has neither TCG nor KVM");
    } else if (there && !(there & s->accel) && s->only_here) {
        error_setg(&err, "The guest runs on %s and the destination on %s, "
                   "where it cannot go: %s", wsm_source_accel_name(s->accel),
                   wsm_source_accel_name(there), s->only_here);
    }
    if (err) {
        wsm_fail(&s->milestones, err);
        return false;
    }
    return true;
}

/* What the channel carried when it broke is sent again */
static void coroutine_fn wsm_source_up(WsmSourceChannel *c)
{
    WsmSource *s = c->opaque;

    qatomic_set(&s->answered, true);
    wsm_work_lane_up(s->work, c->c.id);
    if (c->c.id == 0) {
        wsm_control_up(&s->control, wsm_work_is_push(s->work));
        if (s->memory) {
            wsm_source_memory_up(s->memory, c->features & WSM_FEATURE_ZSTD);
        }
    }
    if (c->connection == 1 && wsm_source_check_accel(s, c->features) &&
        ++s->nwelcome == s->start.channels) {
        wsm_reach(&s->milestones, WSM_WELCOME);
    }
    wsm_loop_wake(&s->loop);
}

static void wsm_source_down(WsmSourceChannel *c)
{
    WsmSource *s = c->opaque;

    wsm_work_lane_down(s->work, c->c.id);
    if (s->memory && c->c.id == 0) {
        wsm_source_memory_down(s->memory);
    }
}

static void wsm_source_gone(WsmSourceChannel *c)
{
    WsmSource *s = c->opaque;

    wsm_work_lane_gone(s->work, c->c.id);
}

Error *wsm_source_unanswered(WsmSource *s, const Error *cause)
{
    Error *err = NULL;

    error_setg(&err, "%s; is qemu-wsm installed at the destination (its log "
               "may say more), and if %s is a proxy or a tunnel, does it take "
               "several connections?", error_get_pretty(cause), s->peer);
    return err;
}

/* A failure while the two sides get to know each other is for good */
static void wsm_source_failed(WsmSourceChannel *c, Error *err)
{
    WsmSource *s = c->opaque;

    if (wsm_session_phase(s->session) == WSM_PHASE_SETUP) {
        if (!c->answered && !qatomic_read(&s->answered)) {
            g_autoptr(Error) cause = err;

            err = wsm_source_unanswered(s, cause);
        }
        wsm_fail(&s->milestones, err);
    } else {
        wsm_session_set_error(s->session, err);
        error_free(err);
    }
}

const WsmSourceChannelOps wsm_source_channel_ops = {
    .up = wsm_source_up,
    .message = wsm_source_message,
    .down = wsm_source_down,
    .gone = wsm_source_gone,
    .failed = wsm_source_failed,
};

static void coroutine_fn wsm_source_control_co(void *opaque)
{
    WsmSource *s = opaque;
    WsmSourceChannel *c = &s->channel[0];

    while (!wsm_loop_is_over(&s->loop)) {
        bool push = wsm_work_is_push(s->work);
        WsmMsg msg;

        switch (c->up ? wsm_control_next(&s->control, push, &msg)
                      : WSM_SAY_NOTHING) {
        case WSM_SAY_MESSAGE:
            wsm_source_transmit(c, &msg, NULL);
            s->control.abort_sent |= msg.type == WSM_MSG_ABORT;
            break;
        case WSM_SAY_POINTS:
            wsm_source_send_points(s);
            break;
        case WSM_SAY_NOTHING:
            wsm_loop_wait(&s->loop);
            break;
        }
    }
}

void wsm_source_open_channels(WsmSource *s)
{
    qatomic_set(&s->opened, true);
    for (unsigned i = 0; i < s->nchannels; i++) {
        wsm_source_channel_open(&s->channel[i], s->disk_size);
        if (i > 0) {
            wsm_source_start_senders(&s->channel[i]);
        }
    }
    wsm_loop_start(&s->loop, wsm_source_control_co, s);
}

/*
 * Work
 */

static void wsm_source_changed(void *opaque)
{
    WsmSource *s = opaque;

    wsm_loop_wake(&s->loop);
}

static void wsm_source_pass_over(void *opaque, WsmPassState pass)
{
    WsmSource *s = opaque;

    if (pass == WSM_PASS_PUSH) {
        s->control.sync = true;
        wsm_loop_wake(&s->loop);
    } else {
        wsm_reach(&s->milestones, WSM_PASS_DONE);
    }
}

static void wsm_source_compared(void *opaque, const WsmReq *req,
                                int64_t differ)
{
    WsmSource *s = opaque;

    wsm_source_disk_compared(&s->disk[req->disk], req, differ);
}

const WsmWorkOps wsm_source_work_ops = {
    .changed = wsm_source_changed,
    .pass_over = wsm_source_pass_over,
    .compared = wsm_source_compared,
};
