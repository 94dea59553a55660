/*
 * Whole-system migration: the phases and the order in which they may come
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "migration/wsm/policy/phase.h"

/* What ends an attempt while the guest still belongs to the source */
#define GIVEN_UP (BIT(WSM_PHASE_FAILED) | BIT(WSM_PHASE_CANCELLED))

/*
 * Which phases may follow each phase.  After the handover there is no
 * "cancelled": only the destination may run the guest then, so the attempt
 * can only complete, or fail when one of the hosts is given up.
 */
static const uint32_t followers[WSM_PHASE__MAX] = {
    [WSM_PHASE_NONE]         = BIT(WSM_PHASE_SETUP),
    [WSM_PHASE_SETUP]        = BIT(WSM_PHASE_DISK_PRECOPY) | GIVEN_UP |
                               /* After a crash, see dest/rejoin.h */
                               BIT(WSM_PHASE_POSTCOPY),
    [WSM_PHASE_DISK_PRECOPY] = BIT(WSM_PHASE_RAM_PRECOPY) | GIVEN_UP,
    [WSM_PHASE_RAM_PRECOPY]  = BIT(WSM_PHASE_FREEZE) | GIVEN_UP,
    [WSM_PHASE_FREEZE]       = BIT(WSM_PHASE_POSTCOPY) | GIVEN_UP,
    [WSM_PHASE_POSTCOPY]     = BIT(WSM_PHASE_COMPLETED) |
                               BIT(WSM_PHASE_FAILED),
    [WSM_PHASE_COMPLETED]    = BIT(WSM_PHASE_SETUP),
    [WSM_PHASE_FAILED]       = BIT(WSM_PHASE_SETUP),
    [WSM_PHASE_CANCELLED]    = BIT(WSM_PHASE_SETUP),
};

bool wsm_phase_legal(WsmPhase from, WsmPhase to)
{
    assert(from < WSM_PHASE__MAX);
    assert(to < WSM_PHASE__MAX);

    return followers[from] & BIT(to);
}

bool wsm_phase_is_final(WsmPhase phase)
{
    return phase == WSM_PHASE_COMPLETED || phase == WSM_PHASE_FAILED ||
           phase == WSM_PHASE_CANCELLED;
}

void wsm_phase_init(WsmPhaseLog *log, int64_t now_ns)
{
    *log = (WsmPhaseLog) {
        .phase = WSM_PHASE_NONE,
        .since_ns = now_ns,
    };
}

/*
 * A caller may have read the clock before it had the lock, so @now_ns can
 * lie a little before the last change.
 */
static int64_t current_ns(const WsmPhaseLog *log, int64_t now_ns)
{
    return MAX(now_ns - log->since_ns, 0);
}

bool wsm_phase_enter(WsmPhaseLog *log, WsmPhase to, int64_t now_ns)
{
    if (to == log->phase) {
        return false;
    }
    assert(wsm_phase_legal(log->phase, to));

    log->spent_ns[log->phase] = wsm_phase_ns(log, log->phase, now_ns);
    log->since_ns = MAX(log->since_ns, now_ns);
    log->phase = to;
    if (to == WSM_PHASE_SETUP) {
        /* A new attempt: the times of the one before do not count */
        memset(log->spent_ns, 0, sizeof(log->spent_ns));
    }
    return true;
}

int64_t wsm_phase_ns(const WsmPhaseLog *log, WsmPhase phase, int64_t now_ns)
{
    assert(phase < WSM_PHASE__MAX);

    /* No phase comes twice in an attempt: it is either over or current */
    return phase == log->phase ? current_ns(log, now_ns)
                               : log->spent_ns[phase];
}
