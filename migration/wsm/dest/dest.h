/*
 * Whole-system migration: the destination
 *
 * The main thread sets up disks and takes away filters; the main stream is
 * loaded in the main thread, from the freeze on in a thread of QEMU's; the
 * coroutines in a loop of our own receive blocks; the guest's requests come
 * from any thread, through the filter's callbacks.
 *
 * Main thread with the BQL, unless it says otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_DEST_H
#define MIGRATION_WSM_DEST_DEST_H

#include "block/aio.h"
#include "io/channel.h"
#include "migration/wsm/core/options.h"
#include "migration/wsm/core/session.h"
#include "migration/wsm/dest/memory.h"
#include "migration/wsm/dest/rejoin.h"
#include "migration/wsm/image/images.h"
#include "migration/wsm/policy/expect.h"
#include "migration/wsm/wire/message.h"
#include "migration/wsm/wire/start.h"

typedef struct WsmDest WsmDest;

typedef struct WsmDestOps {
    /* The source has taken the guest back: it runs on there, and never here */
    void (*taken_back)(void *opaque);
    /* What has become of the maps of missing blocks, and why they are lost */
    void (*maps)(void *opaque, WsmCrashSafe state, const char *why);
} WsmDestOps;

/*
 * @start (taken) came, phase "setup" begins.  All others must outlive it;
 * @opaque is for @ops.
 */
WsmDest *wsm_dest_new(WsmSession *session, WsmOptionsStore *options,
                      WsmImages *images, WsmStart *start,
                      const WsmDestOps *ops, void *opaque);

/*
 * Not in a coroutine.  What is wrong with our disks is kept for the source,
 * see wsm_dest_refusal().  With @refusal there is only that to say, and no
 * disk is looked at.
 */
void wsm_dest_start(WsmDest *d, const char *refusal);

/*
 * Instead of these two: the guest came in the life of another QEMU, which left
 * @left (dest/rejoin.h).  @over(@opaque) is called, once, when nothing is
 * missing any more and the source was told so, or is gone: stop it then.  When
 * this returns false and sets @errp, the images are as they were; free it.
 */
WsmDest *wsm_dest_new_rejoined(WsmSession *session, WsmOptionsStore *options,
                               WsmImages *images, WsmLeft *left,
                               const WsmDestOps *ops, void *opaque);
bool wsm_dest_rejoin(WsmDest *d, WsmLeft *left, QEMUBHFunc *over,
                     Error **errp);

/* Why there is no guest, or NULL */
const char *wsm_dest_refusal(WsmDest *d);

/* There is none, if that has not been said yet: tell the source why */
void wsm_dest_refuse(WsmDest *d, const char *reason);

/* A WsmListenTaker: a block channel came, @opaque is a WsmDest */
bool wsm_dest_take_channel(void *opaque, QIOChannel *ioc);

/* Would blocks be lost, or not durable, without this QEMU? */
bool wsm_dest_is_needed(WsmDest *d);

/*
 * May it end all the same, as another QEMU can go on with these images?  The
 * maps say what is missing, and the source cannot be reached now.
 */
bool wsm_dest_may_leave(WsmDest *d);

/*
 * The guest's processors stand still for good: what waits for a missing block
 * fails, so that the guest can be stopped.
 */
void wsm_dest_leave(WsmDest *d);

/* It is stopped: what has arrived need not be fetched again.  It polls. */
void wsm_dest_checkpoint(WsmDest *d);

/* Ends all coroutines, drops the filters.  Callable twice. */
void wsm_dest_stop(WsmDest *d);
void wsm_dest_free(WsmDest *d);

/*
 * Is @d being stopped, or are its filters being dropped, by a function that
 * polls and has called us?  Then @cb(@opaque) will be scheduled when that has
 * ended; returns true.
 */
bool wsm_dest_defer(WsmDest *d, QEMUBHFunc *cb, void *opaque);

/* What comes by reference is for this; NULL: START said that none will */
WsmDestMemory *wsm_dest_memory(WsmDest *d);

/*
 * The sets of templates of this side, or NULL: the source may refer to them if
 * it wants to, and knows how.  @ring, or NULL: keeps pages of them.  Main
 * thread, after the start, before block channels are let in.
 */
void wsm_dest_set_templates(WsmDest *d, WsmTemplates *templates,
                            WsmRingSpec *ring);

void wsm_dest_info(WsmDest *d, WsmInfo *info);

/* How far it is; @dirty of @out is what is missing */
void wsm_dest_sample(WsmDest *d, WsmSample *out);

/*
 * The freeze: of that many disks, these blocks of each are missing, told in at
 * most so many bytes of runs (wire/runs.h); and: those were all.  Return false
 * and set @errp.
 */
unsigned wsm_dest_disks(WsmDest *d);
size_t wsm_dest_max_runs(WsmDest *d, unsigned disk);
bool wsm_dest_set_missing(WsmDest *d, unsigned disk, const uint8_t *runs,
                          size_t size, Error **errp);
bool wsm_dest_seal(WsmDest *d, Error **errp);

/*
 * All state is loaded; @run with @opaque after the handover.  Returns false and
 * sets @errp if that must not be.  READY is said when no page of memory is
 * missing.
 */
bool wsm_dest_loaded(WsmDest *d, QEMUBHFunc *run, void *opaque, Error **errp);

/*
 * The main stream broke.  Has the source been told that the guest could run
 * here, and is it still so?  If not, it never will be, and the guest never
 * runs.  Any thread.
 */
bool wsm_dest_broke(WsmDest *d);

/* Does the guest run here, with blocks still missing?  BQL, any thread. */
bool wsm_dest_is_in_use(WsmDest *d);

/* Is nothing missing, and the guest ours?  BQL, any thread. */
bool wsm_dest_is_complete(WsmDest *d);

/* And is that durable, and the source was told so?  Any thread. */
bool wsm_dest_was_told(WsmDest *d);

/* The main stream said END: false if that cannot be.  Any thread. */
bool wsm_dest_end(WsmDest *d);

/* May the main stream end now, the migration being over?  Any thread. */
bool wsm_dest_may_end(WsmDest *d);

#endif
