/*
 * Whole-system migration: the source
 *
 * Three parties meet here.  The migration thread walks through the phases; the
 * main thread starts and stops; the coroutines in an IOThread of our own send
 * blocks.  The thread and the coroutines meet in the milestones and in the
 * bottom halves that the thread schedules, and nowhere else.
 *
 * What is below is shared by the modules of source/, whose structs it has; the
 * roof uses the functions, here and in source/phases.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_SOURCE_H
#define MIGRATION_WSM_SOURCE_SOURCE_H

#include "qemu/ratelimit.h"
#include "migration/wsm/core/loop.h"
#include "migration/wsm/core/options.h"
#include "migration/wsm/core/session.h"
#include "migration/wsm/image/images.h"
#include "migration/wsm/link/buffers.h"
#include "migration/wsm/source/channel.h"
#include "migration/wsm/source/control.h"
#include "migration/wsm/source/disk.h"
#include "migration/wsm/source/memory.h"
#include "migration/wsm/source/milestones.h"
#include "migration/wsm/source/work.h"
#include "migration/wsm/wire/message.h"
#include "migration/wsm/wire/start.h"

struct WsmSource {
    /* Set in start, never changed */
    WsmSession *session;
    WsmOptionsStore *options;
    WsmImages *images;
    const char *peer;           /* where the guest goes to, as the user said */
    WsmStart start;             /* what the destination is told */
    unsigned ndisks;
    WsmSourceDisk *disk;
    int64_t *disk_size;         /* as WsmLimits wants it */
    unsigned nchannels;         /* with the urgent one, which is 0 */
    WsmSourceChannel *channel;
    WsmExcludedDiskList *excluded;
    Error *blocker;             /* why jobs and snapshots must wait, */
    Error *other_blocker;       /* and why jobs on other disks must */
    GPtrArray *others;          /* of WsmNodes, of those disks */
    GPtrArray *notes;           /* names of files, see image/storage.h; BQL */
    WsmLoop loop;               /* its thread is the IOThread */
    WsmWork *work;              /* NULL: there is no thread */
    WsmMilestones milestones;   /* has a lock of its own */
    WsmSourceMemory *memory;    /* as is; NULL: none goes by reference */
    uint32_t accel;             /* feature of what runs the guest here, or 0 */
    char *only_here;            /* why nothing else can run it, or NULL */
    bool paced;                 /* whoever takes it has to be told its TSC */

    /* IOThread */
    WsmControl control;
    unsigned nwelcome;          /* channels that are or were up */
    unsigned nagreed;           /* disks of which the basis is known */
    bool opened;                /* atomic: channels were asked for, */
    bool answered;              /* atomic: and one of them was welcome */
    bool anew;                  /* atomic: the guest needs no memory of ours */
    uint32_t accel_there;       /* atomic: as @accel, at the destination */
    WsmBuffers buffers;         /* for what is read */
    RateLimit limit;            /* has a lock of its own */
    RateLimit compare_limit;    /* likewise */

    /* Migration thread */
    int64_t watch_ns;           /* when to look again */
    int64_t frozen_at;          /* ns, 0: not */
    bool flushing;              /* our images, ahead of the freeze; or done */
    int64_t ready_until;        /* ns; set once, before a clock starts */
    int64_t most_sent;          /* bytes in one pass of the disks, */
    double speed;               /* and how fast, bytes per second */

    SocketAddress *target;      /* main thread: where block channels go */
    bool aborting;              /* atomic: not yet, ABORT is to be sent */
    bool stopped;               /* BQL: wsm_source_stop() has begun, */
    bool released;              /* BQL: has ended; it polls in between */
    bool marked;                /* job of a coroutine, then BQL: see records */
};

/* The functions below: main thread, BQL */

/* Returns false and sets @errp if the disks or options do not allow it */
bool wsm_source_check(const WsmOptionsStore *options, WsmImages *images,
                      Error **errp);

/*
 * Begin phase "setup".  All arguments must outlive the source, but @target,
 * which is taken: where block channels go.
 */
WsmSource *wsm_source_new(WsmSession *session, WsmOptionsStore *options,
                          WsmImages *images, const char *peer,
                          SocketAddress *target);

/*
 * Before the start: the guest runs on the accelerator of the feature @accel,
 * and, because of @only_here (which is taken) unless that is NULL, on no other.
 * If @paced, whoever takes the guest has to be told its counter.
 */
void wsm_source_set_accel(WsmSource *s, uint32_t accel, char *only_here,
                          bool paced);

/* Does the destination have to be told the guest's counter? */
bool wsm_source_tells_clock(const WsmSource *s);

/*
 * The main stream goes elsewhere from now on.  @target is taken.  Records are
 * written anew, which syncs them.
 */
void wsm_source_set_target(WsmSource *s, SocketAddress *target);

/*
 * Begin to track writes.  It drains, so it can take as long as a guest's
 * request does.  Returns false and sets @errp; then only stop and free it.
 */
bool wsm_source_start(WsmSource *s, Error **errp);

/* End all coroutines, release all block nodes.  Can be called twice. */
void wsm_source_stop(WsmSource *s);

/*
 * Why it failed, a new error or NULL.  @seen is what is known of the main
 * stream; it may be NULL.  @closed: the destination ended that.
 */
Error *wsm_source_why(WsmSource *s, const Error *seen, bool closed);

void wsm_source_free(WsmSource *s);

/*
 * Had the guest to boot once more at the destination, so that it needs no
 * memory of ours?  Any thread.
 */
bool wsm_source_is_anew(WsmSource *s);

void wsm_source_info(WsmSource *s, WsmInfo *info);

#endif
