/*
 * Whole-system migration: how far the destination has come
 *
 * Its images, the filters above them and its coroutines go through these
 * states, and each only forwards.  Who runs the guest is another matter, see
 * dest/handover.h: the guest is ours somewhere between "sealed" and
 * "securing".
 *
 * Pure, but for a lock.  Any thread, unless it says otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_LIFE_H
#define MIGRATION_WSM_DEST_LIFE_H

#include "qemu/thread.h"

typedef enum WsmLife {
    WSM_LIFE_SETUP,             /* disks are being prepared */
    WSM_LIFE_OPEN,              /* block channels are let in, blocks written */
    WSM_LIFE_SEALED,            /* the freeze: what is missing is known */
    WSM_LIFE_SECURING,          /* nothing is; all is being flushed */
    WSM_LIFE_UNSECURED,         /* that failed; the next SYNC tries again */
    WSM_LIFE_DROPPING,          /* it is durable; filters are being dropped */
    WSM_LIFE_DROPPED,           /* they are gone; records are to go */
    WSM_LIFE_SECURED,           /* and nothing durable says otherwise */
    WSM_LIFE_SETTLED,           /* and sync points are as they stay */
    WSM_LIFE_TOLD,              /* and the source was told so */
    WSM_LIFE_STOPPING,          /* it ends, well or not; that polls */
    WSM_LIFE_RELEASED,          /* nothing is left to release */
    WSM_LIFE__MAX
} WsmLife;

typedef struct WsmDestLife {
    QemuMutex lock;             /* held while they change */
    WsmLife now;                /* atomic */
    WsmLife reached;            /* atomic: @now, or before it was stopped */
} WsmDestLife;

void wsm_life_init(WsmDestLife *l);
void wsm_life_destroy(WsmDestLife *l);

/* May @to follow directly on @from? */
bool wsm_life_legal(WsmLife from, WsmLife to);

/* Enter @to, which must be legal */
void wsm_life_enter(WsmDestLife *l, WsmLife to);

/* Enter @to if it is @from now; returns whether it was */
bool wsm_life_advance(WsmDestLife *l, WsmLife from, WsmLife to);

WsmLife wsm_life(WsmDestLife *l);

/* Did it get to @state, even if it has been stopped since? */
bool wsm_life_reached(WsmDestLife *l, WsmLife state);

/* Has it been stopped, or is it being? */
bool wsm_life_is_over(WsmDestLife *l);

/* May the filters be called, by a coroutine that does not yield before? */
bool wsm_life_has_filters(WsmDestLife *l);

/*
 * Is a function at work that polls, and so calls others that must not free
 * anything under it?
 */
bool wsm_life_polls(WsmDestLife *l);

#endif
