/*
 * Whole-system migration: the phases and the order in which they may come
 *
 * Pure; the caller's lock protects the struct.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_POLICY_PHASE_H
#define MIGRATION_WSM_POLICY_PHASE_H

#include "qapi/qapi-types-wsm.h"

typedef struct WsmPhaseLog {
    WsmPhase phase;
    int64_t since_ns;                   /* when @phase began */
    int64_t spent_ns[WSM_PHASE__MAX];   /* in phases that are over */
} WsmPhaseLog;

/* May @to follow @from? */
bool wsm_phase_legal(WsmPhase from, WsmPhase to);

/* Has the migration come to an end, good or bad? */
bool wsm_phase_is_final(WsmPhase phase);

void wsm_phase_init(WsmPhaseLog *log, int64_t now_ns);

/*
 * The only way to change the phase.  Aborts if the change is not legal.
 * Returns false and does nothing if @to is the phase already.
 */
bool wsm_phase_enter(WsmPhaseLog *log, WsmPhase to, int64_t now_ns);

/* Time spent in @phase so far, 0 if it never came */
int64_t wsm_phase_ns(const WsmPhaseLog *log, WsmPhase phase, int64_t now_ns);

#endif
