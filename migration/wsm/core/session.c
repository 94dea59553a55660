/*
 * Whole-system migration: the migration that runs, or ran last
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "migration/wsm/core/session.h"

void wsm_session_init(WsmSession *s, WsmSessionTell *tell)
{
    *s = (WsmSession) { .tell = tell, .downtime_ns = -1 };
    qemu_mutex_init(&s->lock);
    wsm_phase_init(&s->phases, wsm_now());
}

void wsm_session_destroy(WsmSession *s)
{
    g_free(s->error);
    qemu_mutex_destroy(&s->lock);
}

void wsm_session_begin(WsmSession *s, WsmRole role, const QemuUUID *id)
{
    WITH_QEMU_LOCK_GUARD(&s->lock) {
        s->role = role;
        s->id = *id;
        s->downtime_ns = -1;
        g_clear_pointer(&s->error, g_free);
        wsm_phase_init(&s->phases, wsm_now());
        wsm_phase_enter(&s->phases, WSM_PHASE_SETUP, wsm_now());
    }
    s->tell(role, id, WSM_PHASE_SETUP);
}

/* Enter @to, if @from is negative or the phase now */
static void wsm_session_change(WsmSession *s, int from, WsmPhase to)
{
    QemuUUID id;
    WsmRole role;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        if ((from >= 0 && s->phases.phase != from) ||
            !wsm_phase_enter(&s->phases, to, wsm_now())) {
            return;
        }
        role = s->role;
        id = s->id;
    }
    if (role == WSM_ROLE_SOURCE && to == WSM_PHASE_POSTCOPY) {
        qatomic_set(&s->handed_over, true);
    }
    s->tell(role, &id, to);
}

void wsm_session_enter(WsmSession *s, WsmPhase phase)
{
    wsm_session_change(s, -1, phase);
}

void wsm_session_advance(WsmSession *s, WsmPhase from, WsmPhase to)
{
    wsm_session_change(s, from, to);
}

WsmPhase wsm_session_phase(WsmSession *s)
{
    QEMU_LOCK_GUARD(&s->lock);
    return s->phases.phase;
}

WsmPhase wsm_session_reached(WsmSession *s)
{
    WsmPhase phase = WSM_PHASE_SETUP;

    QEMU_LOCK_GUARD(&s->lock);
    for (int p = WSM_PHASE_SETUP; p <= WSM_PHASE_POSTCOPY; p++) {
        if (wsm_phase_ns(&s->phases, p, wsm_now()) > 0) {
            phase = p;
        }
    }
    return phase;
}

void wsm_session_set_error(WsmSession *s, const Error *err)
{
    QEMU_LOCK_GUARD(&s->lock);
    g_free(s->error);
    s->error = g_strdup(error_get_pretty(err));
}

void wsm_session_set_downtime(WsmSession *s, int64_t ns)
{
    QEMU_LOCK_GUARD(&s->lock);
    s->downtime_ns = ns;
}

bool wsm_session_handed_over(const WsmSession *s)
{
    return qatomic_read(&s->handed_over);
}

static WsmPhaseTimeList *wsm_session_phases(const WsmSession *s)
{
    WsmPhaseTimeList *list = NULL;
    int64_t now = wsm_now();

    for (int p = WSM_PHASE_POSTCOPY; p > WSM_PHASE_NONE; p--) {
        int64_t ns = wsm_phase_ns(&s->phases, p, now);

        if (ns || s->phases.phase == p) {
            WsmPhaseTime *t = g_new(WsmPhaseTime, 1);

            t->phase = p;
            t->ms = ns / SCALE_MS;
            QAPI_LIST_PREPEND(list, t);
        }
    }
    return list;
}

void wsm_session_info(WsmSession *s, WsmInfo *info)
{
    QEMU_LOCK_GUARD(&s->lock);
    info->role = s->role;
    info->phase = s->phases.phase;
    if (s->role != WSM_ROLE_NONE) {
        info->session = qemu_uuid_unparse_strdup(&s->id);
        info->has_downtime_ms = s->downtime_ns >= 0;
        info->downtime_ms = s->downtime_ns / SCALE_MS;
    }
    info->error = g_strdup(s->error);
    info->phases = wsm_session_phases(s);
}
