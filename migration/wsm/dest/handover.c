/*
 * Whole-system migration: whose guest is it, as the destination sees it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitops.h"
#include "qemu/lockable.h"
#include "migration/wsm/dest/handover.h"

static const uint32_t followers[WSM_GUEST__MAX] = {
    [WSM_GUEST_AWAITED] = BIT(WSM_GUEST_READY) | BIT(WSM_GUEST_LOST),
    [WSM_GUEST_READY]   = BIT(WSM_GUEST_OURS) | BIT(WSM_GUEST_LOST),
    [WSM_GUEST_OURS]    = BIT(WSM_GUEST_RUNS),
};

void wsm_handover_init(WsmHandover *h)
{
    *h = (WsmHandover) { .guest = WSM_GUEST_AWAITED };
    qemu_mutex_init(&h->lock);
}

void wsm_handover_destroy(WsmHandover *h)
{
    qemu_mutex_destroy(&h->lock);
}

bool wsm_guest_legal(WsmGuest from, WsmGuest to)
{
    assert(from < WSM_GUEST__MAX && to < WSM_GUEST__MAX);
    return followers[from] & BIT(to);
}

/* @lock */
static void wsm_handover_enter(WsmHandover *h, WsmGuest to)
{
    assert(wsm_guest_legal(h->guest, to));
    h->guest = to;
}

/* @lock */
static bool wsm_handover_ours(const WsmHandover *h)
{
    return h->guest == WSM_GUEST_OURS || h->guest == WSM_GUEST_RUNS;
}

bool wsm_handover_loaded(WsmHandover *h, bool sealed, QEMUBHFunc *run,
                         void *opaque, Error **errp)
{
    QEMU_LOCK_GUARD(&h->lock);

    if (!sealed) {
        error_setg(errp, "the guest's state came without the section "
                   "'wsm-freeze'");
        return false;
    }
    if (h->guest != WSM_GUEST_AWAITED) {
        error_setg(errp, "the guest's state came %s", h->run ? "twice"
                                                             : "too late");
        return false;
    }
    h->run = run;
    h->run_opaque = opaque;
    wsm_handover_enter(h, WSM_GUEST_READY);
    return true;
}

void wsm_handover_came_before(WsmHandover *h)
{
    QEMU_LOCK_GUARD(&h->lock);
    wsm_handover_enter(h, WSM_GUEST_READY);
    wsm_handover_enter(h, WSM_GUEST_OURS);
    wsm_handover_enter(h, WSM_GUEST_RUNS);
}

bool wsm_handover_says_ready(WsmHandover *h)
{
    QEMU_LOCK_GUARD(&h->lock);
    return h->guest == WSM_GUEST_READY;
}

bool wsm_handover_expects(WsmHandover *h, const WsmMsg *msg, WsmPhase phase)
{
    QEMU_LOCK_GUARD(&h->lock);

    switch (msg->type) {
    case WSM_MSG_GO:
        return h->guest == WSM_GUEST_READY || wsm_handover_ours(h);
    case WSM_MSG_ABORT:
        return wsm_handover_ours(h) || phase == WSM_PHASE_RAM_PRECOPY ||
               phase == WSM_PHASE_FREEZE;
    case WSM_MSG_PAGE:
        /* Before READY, which waits for it */
        return phase == WSM_PHASE_FREEZE || wsm_handover_ours(h);
    case WSM_MSG_SYNC:
    case WSM_MSG_POINT:
        return !msg->epoch || wsm_handover_ours(h);
    default:
        /* A bulk channel can be faster than the GO on channel 0 */
        return !msg->epoch || h->run || wsm_handover_ours(h);
    }
}

bool wsm_handover_go(WsmHandover *h)
{
    QEMU_LOCK_GUARD(&h->lock);

    if (h->guest != WSM_GUEST_READY) {
        return false;
    }
    wsm_handover_enter(h, WSM_GUEST_OURS);
    return true;
}

bool wsm_handover_abort(WsmHandover *h)
{
    QEMU_LOCK_GUARD(&h->lock);

    if (h->guest != WSM_GUEST_AWAITED && h->guest != WSM_GUEST_READY) {
        return false;
    }
    wsm_handover_enter(h, WSM_GUEST_LOST);
    return true;
}

void wsm_handover_run(WsmHandover *h)
{
    WITH_QEMU_LOCK_GUARD(&h->lock) {
        wsm_handover_enter(h, WSM_GUEST_RUNS);
    }
    h->run(h->run_opaque);
}

bool wsm_handover_broke(WsmHandover *h)
{
    QEMU_LOCK_GUARD(&h->lock);

    if (h->guest == WSM_GUEST_AWAITED) {
        wsm_handover_enter(h, WSM_GUEST_LOST);
    }
    h->pausing |= h->guest != WSM_GUEST_LOST;
    return h->guest != WSM_GUEST_LOST;
}

bool wsm_handover_end(WsmHandover *h, bool dropped)
{
    QEMU_LOCK_GUARD(&h->lock);
    h->ended = wsm_handover_ours(h) && dropped;
    return h->ended;
}

bool wsm_handover_may_end(WsmHandover *h, bool durable, bool ram)
{
    QEMU_LOCK_GUARD(&h->lock);
    return h->ended || (wsm_handover_ours(h) && durable && !ram);
}

void wsm_handover_end_stream(WsmHandover *h, void (*hang_up)(void *opaque),
                             void *opaque)
{
    QEMU_LOCK_GUARD(&h->lock);

    if (h->guest == WSM_GUEST_LOST && !h->pausing) {
        hang_up(opaque);
    }
}

bool wsm_handover_is_ours(WsmHandover *h)
{
    QEMU_LOCK_GUARD(&h->lock);
    return wsm_handover_ours(h);
}

bool wsm_handover_is_lost(WsmHandover *h)
{
    QEMU_LOCK_GUARD(&h->lock);
    return h->guest == WSM_GUEST_LOST;
}

bool wsm_handover_runs(WsmHandover *h)
{
    QEMU_LOCK_GUARD(&h->lock);
    return h->guest == WSM_GUEST_RUNS;
}
