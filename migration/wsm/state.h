/*
 * Whole-system migration: what both sides share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_STATE_H
#define MIGRATION_WSM_STATE_H

#include "migration/wsm.h"
#include "qapi/qapi-types-wsm.h"
#include "qemu/notify.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qemu/uuid.h"
#include "migration/wsm/policy/expect.h"
#include "migration/wsm/policy/phase.h"

/* Nanoseconds, for all times of a migration */
static inline int64_t wsm_now(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

typedef struct WsmSource WsmSource;
typedef struct WsmDest WsmDest;
typedef struct WsmDisk WsmDisk;

/*
 * One per QEMU.  Lives as long as QEMU; the parts of a migration are made
 * when it starts and freed when it is over, only @last remains.
 */
typedef struct Wsm {
    WsmOptions *options;        /* all members present; @lock */

    QemuMutex lock;             /* protects the fields below */
    WsmRole role;
    QemuUUID session;
    WsmPhaseLog phases;
    int64_t downtime_ns;        /* -1: not known */
    char *error;                /* the last one, or NULL */

    /* BQL */
    WsmSource *source;          /* NULL unless a migration from here runs */
    WsmDest *dest;              /* NULL unless a migration to here runs */
    bool connecting;            /* the main stream may yet be connected */
    WsmInfo *last;              /* final state of the last migration */
    bool handed_over;           /* the guest is elsewhere; atomic, for good */
    GPtrArray *images;          /* of WsmImage: see image/image.h */
    WsmMeter meter;             /* how fast it goes */
    WsmPhase meter_phase;       /* of the last sample in @meter */
    QEMUTimer *meter_timer;
    char *peer;                 /* where "migrate" goes to, see link/peer.h */

    bool registered;            /* our sections and handlers are there */
    NotifierWithReturn notifier;
} Wsm;

/* The object that wsm_mig_init() made; any thread */
Wsm *wsm_get(void);

/* Begin a new attempt: phase "setup", no error.  Any thread. */
void wsm_begin(Wsm *w, WsmRole role, const QemuUUID *session);

/* Enter a phase and tell the world.  Any thread, not under @lock. */
void wsm_enter(Wsm *w, WsmPhase phase);

/* Enter @to if the phase is @from, or else leave it */
void wsm_advance(Wsm *w, WsmPhase from, WsmPhase to);

WsmPhase wsm_phase(Wsm *w);

/* Keep the final state for query-wsm.  BQL. */
void wsm_remember(Wsm *w);

/* The migration that runs or ran last; without @images.  BQL. */
WsmInfo *wsm_last_info(Wsm *w);

/* Remember @err (not owned) as the last error.  Any thread. */
void wsm_set_error(Wsm *w, const Error *err);

/* Put a channel that had @connections so far at the head of the list */
void wsm_info_add_channel(WsmInfo *info, unsigned id, bool up,
                          unsigned connections);

/* Register the commands of the human monitor.  Main thread, once. */
void wsm_hmp_init(void);

/* All members present, with their defaults */
WsmOptions *wsm_options_new(void);

/* Milliseconds or bytes per second of an option that can change live */
int64_t wsm_option_max_residue(Wsm *w);
int64_t wsm_option_switchover_timeout(Wsm *w);
int64_t wsm_option_push_delay(Wsm *w);
unsigned wsm_option_sync_points(Wsm *w);
uint64_t wsm_option_compare_bandwidth(Wsm *w);

/* What the user wants the migration of @disk to build on */
WsmBasisKind wsm_option_basis(Wsm *w, const WsmDisk *disk);
uint64_t wsm_option_bandwidth(Wsm *w);

#endif
