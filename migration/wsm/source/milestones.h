/*
 * Whole-system migration: what the source has reached
 *
 * Where the migration thread and the coroutines meet: these say that something
 * has happened, that one waits for it.  All functions: any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_MILESTONES_H
#define MIGRATION_WSM_SOURCE_MILESTONES_H

#include "qemu/thread.h"
#include "migration/wsm/core/session.h"

typedef enum WsmMilestone {
    WSM_WELCOME,                /* all channels were up */
    WSM_AGREED,                 /* the basis of all disks is known */
    WSM_PASS_DONE,              /* of those before the freeze */
    WSM_SYNCED,                 /* the destination has flushed */
    WSM_FLUSHED,                /* our images are, ahead of the freeze */
    WSM_READY,                  /* the destination could run the guest */
    WSM_ALL_THERE,              /* the destination misses nothing */
    WSM_MILESTONE__MAX
} WsmMilestone;

typedef struct WsmMilestones {
    WsmSession *session;        /* set in init, never changed */
    QemuMutex lock;
    QemuCond cond;              /* something below has changed */
    /* @lock */
    bool reached[WSM_MILESTONE__MAX];
    bool missed[WSM_MILESTONE__MAX];    /* too late: it does not count */
    Error *fatal;               /* before the handover: give up */
} WsmMilestones;

void wsm_milestones_init(WsmMilestones *ms, WsmSession *session);
void wsm_milestones_destroy(WsmMilestones *ms);

void wsm_reach(WsmMilestones *ms, WsmMilestone m);

/* It is to be reached once more.  Nobody may be waiting for it. */
void wsm_unreach(WsmMilestones *ms, WsmMilestone m);

bool wsm_has_reached(WsmMilestones *ms, WsmMilestone m);

/* Was it reached before @until (wsm_now())?  If not by then it never will be */
bool wsm_has_reached_by(WsmMilestones *ms, WsmMilestone m, int64_t until);

/*
 * If it is not reached wait up to @timeout_ms for any change; then, is it?  The
 * caller looks for reasons not to wait any more.
 */
bool wsm_wait(WsmMilestones *ms, WsmMilestone m, int timeout_ms);

/* Who waits is to look for such a reason */
void wsm_wake_waiting(WsmMilestones *ms);

/*
 * Give up, unless the guest was handed over: then it is only shown.  @err is
 * taken.
 */
void wsm_fail(WsmMilestones *ms, Error *err);

/* The first that made us give up, a copy; or NULL */
Error *wsm_fatal(WsmMilestones *ms);

#endif
