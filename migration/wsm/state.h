/*
 * Whole-system migration: all there is of it in this QEMU
 *
 * For the roof only: the files of this folder, which is what QEMU calls.  Those
 * of the folders below are given what they need.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_STATE_H
#define MIGRATION_WSM_STATE_H

#include "qemu/notify.h"
#include "migration/wsm.h"
#include "migration/wsm/accel/clock.h"
#include "migration/wsm/core/options.h"
#include "migration/wsm/core/session.h"
#include "migration/wsm/dest/dest.h"
#include "migration/wsm/image/images.h"
#include "migration/wsm/link/listen.h"
#include "migration/wsm/policy/expect.h"
#include "migration/wsm/scan.h"
#include "migration/wsm/source/keep.h"
#include "migration/wsm/source/source.h"

typedef struct WsmRejoin WsmRejoin;

/*
 * One per QEMU.  Lives as long as QEMU; the parts of a migration are made
 * when it starts and freed when it is over, only @last remains.
 */
typedef struct Wsm {
    WsmSession session;         /* has a lock of its own */
    WsmOptionsStore options;    /* likewise */
    WsmListen listen;           /* likewise */

    /* BQL */
    WsmImages images;
    WsmSource *source;          /* NULL unless a migration from here runs */
    WsmDest *dest;              /* NULL unless a migration to here runs */
    WsmRejoin *rejoin;          /* @dest is of a crash: rejoin.c; or NULL */
    bool connecting;            /* the main stream may yet be connected */
    WsmInfo *last;              /* final state of the last migration */
    WsmKeep *keep;              /* the memory of the guest that left, or NULL */
    WsmMeter meter;             /* how fast it goes */
    WsmPhase meter_phase;       /* of the last sample in @meter */
    QEMUTimer *meter_timer;
    char *peer;                 /* where "migrate" goes to, see link/peer.h */
    WsmTemplates *templates;    /* NULL: none */
    WsmRingSpec *ring;          /* NULL: none; has pages of @templates */
    WsmScan *scan;             /* of the guest's memory; NULL: never begun */

    void (*end_transport)(void *opaque);    /* QEMU's, for a listener */

    WsmClock clock;             /* of the guest that is saved or loaded */
    bool has_clock;             /* that has come, and is not set yet */

    bool follows;               /* the capability is on as the source has it */
    bool source_lacks_it;       /* what loads comes from one without it */

    bool cleaning;              /* BQL: loading failed in the main thread, */
    /* The thread of post-copy touches nothing any more: wsm_load_cleanup() */
    QemuEvent thread_left;

    bool registered;            /* our sections and handlers are there */
    NotifierWithReturn notifier;
} Wsm;

/* Hooks have no opaque pointer: the object that wsm_mig_init() made, or NULL */
Wsm *wsm_get(void);
void wsm_set(Wsm *w);

/* gates.c: does no migration run?  Else false, and @errp.  BQL. */
bool wsm_is_idle(Wsm *w, Error **errp);

/* info.c: keep the final state for query-wsm.  BQL. */
void wsm_remember(Wsm *w);

/* info.c: the migration that runs or ran last; without its images.  BQL. */
WsmInfo *wsm_last_info(Wsm *w);

/* hmp.c: register the commands of the human monitor.  Main thread, once. */
void wsm_hmp_init(void);

/*
 * incoming.c: START came, or something else that @refusal is said to.  Makes
 * Wsm.dest.  Main thread, not in a coroutine.
 */
void wsm_incoming_begin(Wsm *w, WsmStart *start, const char *refusal);

/* incoming.c: what a WsmDest tells us of; for wsm_get() */
const WsmDestOps *wsm_incoming_ops(void);

/* incoming.c: Wsm.dest is over, and may be stopped: it goes.  Main thread. */
void wsm_incoming_release(Wsm *w);

/* incoming.c: it is over; the capability is as it was before.  BQL. */
void wsm_incoming_unfollow(Wsm *w);

#endif
