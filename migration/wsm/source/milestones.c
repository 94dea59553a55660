/*
 * Whole-system migration: what the source has reached
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "migration/wsm/source/milestones.h"

void wsm_milestones_init(WsmMilestones *ms, WsmSession *session)
{
    *ms = (WsmMilestones) { .session = session };
    qemu_mutex_init(&ms->lock);
    qemu_cond_init(&ms->cond);
}

void wsm_milestones_destroy(WsmMilestones *ms)
{
    error_free(ms->fatal);
    qemu_cond_destroy(&ms->cond);
    qemu_mutex_destroy(&ms->lock);
}

void wsm_reach(WsmMilestones *ms, WsmMilestone m)
{
    QEMU_LOCK_GUARD(&ms->lock);

    ms->reached[m] = true;
    qemu_cond_broadcast(&ms->cond);
}

void wsm_unreach(WsmMilestones *ms, WsmMilestone m)
{
    QEMU_LOCK_GUARD(&ms->lock);

    ms->reached[m] = false;
}

bool wsm_has_reached(WsmMilestones *ms, WsmMilestone m)
{
    return wsm_wait(ms, m, 0);
}

bool wsm_has_reached_by(WsmMilestones *ms, WsmMilestone m, int64_t until)
{
    QEMU_LOCK_GUARD(&ms->lock);

    ms->missed[m] |= !ms->reached[m] && wsm_now() >= until;
    return ms->reached[m] && !ms->missed[m];
}

bool wsm_wait(WsmMilestones *ms, WsmMilestone m, int timeout_ms)
{
    QEMU_LOCK_GUARD(&ms->lock);

    if (!ms->reached[m] && timeout_ms > 0) {
        qemu_cond_timedwait(&ms->cond, &ms->lock, timeout_ms);
    }
    return ms->reached[m];
}

void wsm_wake_waiting(WsmMilestones *ms)
{
    QEMU_LOCK_GUARD(&ms->lock);

    qemu_cond_broadcast(&ms->cond);
}

void wsm_fail(WsmMilestones *ms, Error *err)
{
    wsm_session_set_error(ms->session, err);
    WITH_QEMU_LOCK_GUARD(&ms->lock) {
        if (!ms->fatal) {
            ms->fatal = g_steal_pointer(&err);
            qemu_cond_broadcast(&ms->cond);
        }
    }
    error_free(err);
}

Error *wsm_fatal(WsmMilestones *ms)
{
    QEMU_LOCK_GUARD(&ms->lock);

    return ms->fatal ? error_copy(ms->fatal) : NULL;
}
