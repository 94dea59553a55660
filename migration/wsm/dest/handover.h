/*
 * Whole-system migration: whose guest is it, as the destination sees it
 *
 * The main stream, channel 0 and the disks each know a part of the answer, and
 * each of them can break or lie.  So the destination believes what follows from
 * what it has said and seen itself; what is wrong changes no owner.
 *
 *   awaited -> ready -> ours -> runs
 *      `-------> `----> lost
 *
 * The laws: the guest runs at most once, and only after a GO that came after
 * our READY, be it in a QEMU that has died since; a guest that is lost never
 * runs here, and one that is ours is never lost.
 *
 * Decisions only: what follows from them is up to the caller.  Any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_HANDOVER_H
#define MIGRATION_WSM_DEST_HANDOVER_H

#include "block/aio.h"
#include "qemu/thread.h"
#include "migration/wsm/wire/message.h"

typedef enum WsmGuest {
    WSM_GUEST_AWAITED,          /* its state is not here yet */
    WSM_GUEST_READY,            /* it could run; the source may hand it over */
    WSM_GUEST_OURS,             /* the source has */
    WSM_GUEST_RUNS,             /* it was let run here */
    WSM_GUEST_LOST,             /* it never will run here, for any reason */
    WSM_GUEST__MAX
} WsmGuest;

typedef struct WsmHandover {
    QemuMutex lock;
    /* @lock */
    WsmGuest guest;
    bool pausing;               /* the stream broke, QEMU waits or will wait */
    bool ended;                 /* the stream said END, and rightly so */
    QEMUBHFunc *run;            /* lets the guest run */
    void *run_opaque;
} WsmHandover;

void wsm_handover_init(WsmHandover *h);
void wsm_handover_destroy(WsmHandover *h);

bool wsm_guest_legal(WsmGuest from, WsmGuest to);

/*
 * All state is loaded: READY may be said; @run(@opaque) in the end.  @sealed:
 * what is missing came with it.  Returns false and sets @errp if it must not.
 */
bool wsm_handover_loaded(WsmHandover *h, bool sealed, QEMUBHFunc *run,
                         void *opaque, Error **errp);

/*
 * The guest came to these disks in the life of another QEMU: nothing is said
 * about it any more.  Before anything has come.
 */
void wsm_handover_came_before(WsmHandover *h);

/* Is READY to be said, perhaps again? */
bool wsm_handover_says_ready(WsmHandover *h);

/*
 * Can the source say @msg, in @phase?  It hands over when READY has come, and
 * gives up only in the freeze.  It begins that when SYNC has been answered; the
 * package may not be here yet.
 */
bool wsm_handover_expects(WsmHandover *h, const WsmMsg *msg, WsmPhase phase);

/*
 * GO or ABORT, which were expected, have come: return true if something
 * follows from it.  They may come again, and cross each other.
 */
bool wsm_handover_go(WsmHandover *h);
bool wsm_handover_abort(WsmHandover *h);

/* The guest is ours: let it run.  Once, in the main thread. */
void wsm_handover_run(WsmHandover *h);

/*
 * The main stream broke.  Returns true if QEMU shall wait for a new one, as the
 * source may have handed over.  False: the guest never runs here.
 */
bool wsm_handover_broke(WsmHandover *h);

/* It said END: false if that cannot be.  @dropped: the filters are gone. */
bool wsm_handover_end(WsmHandover *h, bool dropped);

/*
 * May it end now, the migration being over?  @durable: all blocks are here,
 * for good.  Without END memory may be missing, if @ram can.
 */
bool wsm_handover_may_end(WsmHandover *h, bool durable, bool ram);

/*
 * If the guest is lost and nobody waits for a new stream, call @hang_up with
 * the lock held: whoever waits closes the old one when he has had it.
 */
void wsm_handover_end_stream(WsmHandover *h, void (*hang_up)(void *opaque),
                             void *opaque);

bool wsm_handover_is_ours(WsmHandover *h);
bool wsm_handover_is_lost(WsmHandover *h);
bool wsm_handover_runs(WsmHandover *h);

#endif
