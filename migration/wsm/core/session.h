/*
 * Whole-system migration: the migration that runs, or ran last
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_CORE_SESSION_H
#define MIGRATION_WSM_CORE_SESSION_H

#include "qapi/qapi-types-wsm.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qemu/uuid.h"
#include "migration/wsm/policy/phase.h"

/* Nanoseconds, for all times of a migration */
static inline int64_t wsm_now(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

/* A phase has begun.  Any thread, without any lock of ours. */
typedef void WsmSessionTell(WsmRole role, const QemuUUID *id, WsmPhase phase);

/*
 * One per QEMU.  Its functions can be called in any thread, but not under
 * @lock.
 */
typedef struct WsmSession {
    WsmSessionTell *tell;       /* set in init, never changed */

    QemuMutex lock;             /* protects the fields below */
    WsmRole role;
    QemuUUID id;
    WsmPhaseLog phases;
    int64_t downtime_ns;        /* -1: not known */
    char *error;                /* the last one, or NULL */

    bool handed_over;           /* the guest is elsewhere; atomic, for good */
} WsmSession;

/* @tell hears of each phase that begins, after it has begun */
void wsm_session_init(WsmSession *s, WsmSessionTell *tell);
void wsm_session_destroy(WsmSession *s);

/* Begin a new attempt: phase "setup", no error */
void wsm_session_begin(WsmSession *s, WsmRole role, const QemuUUID *id);

/*
 * Enter a phase, unless it is the one now.  It must be one that may follow, see
 * policy/phase.h.
 */
void wsm_session_enter(WsmSession *s, WsmPhase phase);

/* Enter @to if the phase is @from, or else leave it */
void wsm_session_advance(WsmSession *s, WsmPhase from, WsmPhase to);

WsmPhase wsm_session_phase(WsmSession *s);

/* How far it came, whatever the last phase says of the end */
WsmPhase wsm_session_reached(WsmSession *s);

/* Remember @err (not owned) as the last error */
void wsm_session_set_error(WsmSession *s, const Error *err);

/* The guest stood still for @ns nanoseconds */
void wsm_session_set_downtime(WsmSession *s, int64_t ns);

/*
 * Has the guest been handed over to another host?  Then it must not run here
 * again, whatever becomes of the migration.
 */
bool wsm_session_handed_over(const WsmSession *s);

/* Fill in what there is to say: role, phases, downtime, error */
void wsm_session_info(WsmSession *s, WsmInfo *info);

#endif
