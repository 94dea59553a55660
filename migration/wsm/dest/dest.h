/*
 * Whole-system migration: the destination
 *
 * The main thread sets up disks and takes away filters; the main stream is
 * loaded in the main thread, from the freeze on in a thread of QEMU's; the
 * coroutines in an IOThread of our own receive blocks; the guest's
 * requests come from any thread, through the filter's callbacks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_DEST_H
#define MIGRATION_WSM_DEST_DEST_H

#include "block/pull-on-demand.h"
#include "qemu/stats64.h"
#include "system/block-backend.h"
#include "system/iothread.h"
#include "migration/wsm/core/options.h"
#include "migration/wsm/core/session.h"
#include "migration/wsm/dest/handover.h"
#include "migration/wsm/dest/life.h"
#include "migration/wsm/dest/limits.h"
#include "migration/wsm/image/guest-disk.h"
#include "migration/wsm/image/image.h"
#include "migration/wsm/image/images.h"
#include "migration/wsm/image/nodes.h"
#include "migration/wsm/link/block-channel.h"
#include "migration/wsm/link/buffers.h"
#include "migration/wsm/policy/expect.h"
#include "migration/wsm/wire/message.h"

typedef struct WsmDest WsmDest;
typedef struct WsmDestTravel WsmDestTravel;

typedef struct WsmDestDisk {
    /* Set in start, never changed */
    WsmDest *d;
    unsigned index;
    int64_t size;               /* bytes */
    char *name, *path, *address;        /* of our device, owned */

    WsmBasis *basis;
    QemuUUID basis_point;
    BdrvDirtyBitmap *own;       /* changed here since @basis_point, or data */
    WsmDestTravel *travel;      /* the source's sync points: IOThread */

    /* BQL */
    BlockDriverState *bs;       /* below @filter; reference */
    WsmImage *image;            /* reference */
    WsmImageState state_before; /* of @image, when START came, */
    char *session_before, *peer_before;
    int64_t time_before;
    BdrvDirtyBitmap *written;   /* by the guest, through @filter */
    unsigned first_order;       /* of the source's sync points here */
    bool no_points;             /* something went wrong with them */
    char *record;               /* file whose record goes at the end, or NULL */
    bool unmarked;              /* it is gone; a job in a thread, then BQL */

    BlockDriverState *filter;   /* BQL, or IOThread unless closed */
    WsmNodes *nodes;            /* BQL: @filter and below, blocked */
    BdrvPullStats last;         /* BQL; of @filter when it was dropped */

    Stat64 received, zero, skipped, compared;
} WsmDestDisk;

/* One connection of a block channel; IOThread */
typedef struct WsmDestConn {
    WsmPlace place;
    WsmDest *d;
    WsmChannel c;
    QIOChannel *ioc;            /* until attached */
    QEMUTimer *timer;           /* until HELLO */
    unsigned users;             /* coroutines that work for it */
    WsmLoad load;               /* what these write and answer */
} WsmDestConn;

typedef struct WsmDestChannel {
    WsmDestConn *conn;          /* IOThread; NULL: down */
    bool up;                    /* atomic */
    unsigned connections;       /* atomic: how many there were */
} WsmDestChannel;

/* What must wait until the main thread has come back from a poll */
typedef struct WsmDeferred {
    QEMUBHFunc *cb;
    void *opaque;
} WsmDeferred;

struct WsmDest {
    /* Set in start, never changed */
    WsmSession *session;
    WsmOptionsStore *options;
    WsmImages *images;
    WsmStart start;             /* what the source told */
    Error *blocker;             /* why jobs and snapshots must wait */
    unsigned ndisks;
    WsmDestDisk *disk;
    int64_t *disk_size;         /* as WsmLimits wants it */
    unsigned nchannels;
    WsmDestChannel *channel;
    IOThread *iothread;
    AioContext *ctx;

    WsmDestLife life;
    WsmHandover handover;

    /* IOThread */
    WsmPlaces places;           /* of all connections */
    CoQueue gone;               /* a connection has ended */
    CoQueue control;            /* there is something to say on channel 0 */
    CoQueue changed;            /* waits for @life to go on */
    CoQueue room;               /* a write or an answer has ended */
    WsmRoom space;              /* and what is there */
    WsmBuffers buffers;         /* for what is received */

    char *refusal;              /* atomic: why there is no guest, or NULL */
    unsigned coroutines;        /* atomic: how many there are */
    bool quit;                  /* atomic: they are to end */
    unsigned incomplete;        /* atomic: disks that may miss blocks */
    char *peer;                 /* the source's address; NULL: not known */
    bool wrote;                 /* IOThread, then BQL: images are changed */
    bool cleaning;              /* BQL: loading failed in the main thread */
    int64_t frozen_at;          /* BQL, ns */
    GArray *deferred;           /* BQL: of WsmDeferred */
    QEMUBH *abort_bh;           /* set in start; BQL */
    QEMUTimer *watch;           /* BQL: see wsm_dest_watch_end(), or NULL */
    int64_t alone_since;        /* BQL, ns: channel 0 is down since then */

    QemuMutex lock;
    /* @lock */
    GQueue *queue;              /* of WsmMsg: what to say on channel 0 */
};

/* --- dest/dest.c --- */

/*
 * Main thread: @start (taken) came, phase "setup" begins.  The first three must
 * outlive the destination.
 */
WsmDest *wsm_dest_new(WsmSession *session, WsmOptionsStore *options,
                      WsmImages *images, WsmStart *start);

/*
 * Main thread, not in a coroutine.  What is wrong with our disks is kept for
 * the source, see WsmDest.refusal.  With @refusal there is only that to say,
 * and no disk is looked at.
 */
void wsm_dest_start(WsmDest *d, const char *refusal);

/* Main thread, a WsmListenTaker: a block channel came, @opaque is a WsmDest */
bool wsm_dest_take_channel(void *opaque, QIOChannel *ioc);

/* Main thread: would blocks be lost, or not durable, without this QEMU? */
bool wsm_dest_is_needed(WsmDest *d);

/* Main thread.  Ends all coroutines, drops the filters.  Callable twice. */
void wsm_dest_stop(WsmDest *d);
void wsm_dest_free(WsmDest *d);

void wsm_dest_info(WsmDest *d, WsmInfo *info);

/* Main thread: how far it is; @dirty of @out is what is missing */
void wsm_dest_sample(WsmDest *d, WsmSample *out);

/* Missing bytes of all disks.  IOThread. */
int64_t wsm_dest_missing(WsmDest *d);

/*
 * The freeze: these blocks of @disk are missing; and: those were all.
 * Main thread.  Return false and set @errp.
 */
bool wsm_dest_set_missing(WsmDest *d, unsigned disk, const uint8_t *runs,
                          size_t size, Error **errp);
bool wsm_dest_seal(WsmDest *d, Error **errp);

/* Main thread: if all is there and the guest is ours, the filters may go */
void wsm_dest_drop_filters_bh(void *opaque);

/*
 * Main thread: is @d being stopped, or are its filters being dropped, by a
 * function that polls and has called us?  Then @cb(@opaque) will be scheduled
 * when that has ended; returns true.
 */
bool wsm_dest_defer(WsmDest *d, QEMUBHFunc *cb, void *opaque);

/* --- dest/stream.c --- */

/*
 * Main thread: all state is loaded; @run with @opaque after the handover.
 * Returns false and sets @errp if that must not be.
 */
bool wsm_dest_loaded(WsmDest *d, QEMUBHFunc *run, void *opaque, Error **errp);

/* What is expected has come, perhaps for the second time.  IOThread. */
void wsm_dest_go(WsmDest *d);
void wsm_dest_abort(WsmDest *d);

/* Main thread: the source lets the guest run on, so it must never run here */
void wsm_dest_abort_bh(void *opaque);

/* Does the guest run here, with blocks still missing?  BQL. */
bool wsm_dest_is_in_use(WsmDest *d);

/* The main stream said END: false if that cannot be.  Any thread. */
bool wsm_dest_end(WsmDest *d);

/* May the main stream end now, the migration being over?  Any thread. */
bool wsm_dest_may_end(WsmDest *d);

/*
 * Main thread: the main stream is not needed any more, as all is here and
 * durable; or it must end, as the guest never runs here.  See to it that it
 * ends even if QEMU waits for a new one, until wsm_dest_end_watching().
 */
void wsm_dest_watch_end(WsmDest *d);
void wsm_dest_end_watching(WsmDest *d);

/* --- dest/basis.c --- */

/* Main thread: look at the image of @disk, which may be inactive, ... */
void wsm_dest_look(WsmDestDisk *disk, const WsmDisk *ours);

/* ... and when its node @bs is active decide what to build on; false, @errp */
bool wsm_dest_prepare(WsmDestDisk *disk, BlockDriverState *bs, Error **errp);

/* Main thread: from now on no guest may run from the images */
void wsm_dest_mark_incomplete(WsmDest *d);

/* Say what was decided.  IOThread; 0 or -errno. */
int coroutine_fn wsm_dest_say_basis(WsmDestConn *conn);

/*
 * Answer HASH: set the type and length of @answer; *@hashes is NULL or must be
 * freed.  IOThread; 0 or -errno.
 */
int coroutine_fn wsm_dest_hash(WsmDest *d, const WsmMsg *msg, WsmMsg *answer,
                               uint8_t **hashes);

/* POINT has come.  IOThread. */
bool coroutine_fn wsm_dest_point(WsmDestConn *conn, const WsmMsg *msg,
                                 Error **errp);

/*
 * Main thread: what passes through the filter from now on, which is what the
 * guest writes, is noted.  Not in the freeze: it takes memory in proportion
 * to the disk.
 */
bool wsm_dest_watch_guest(WsmDestDisk *disk, Error **errp);

/* Main thread: @complete: nothing is missing, and the guest is ours */
void wsm_dest_drop_filter(WsmDestDisk *disk, bool complete);

/*
 * Nothing is missing.  Main thread: which records say otherwise?  In a thread,
 * when all is durable: remove them; @opaque is the WsmDest; returns 0.
 */
void wsm_dest_find_records(WsmDest *d);
int wsm_dest_remove_records(void *opaque);

/* Main thread: nothing is missing on any disk, and that is durable */
void wsm_dest_mark_current(WsmDest *d);

/* Main thread: the filters are gone and all POINTs have come */
void wsm_dest_settle(WsmDest *d);

/* Main thread: let go of the image; the migration ended in @phase */
void wsm_dest_leave_image(WsmDestDisk *disk, WsmPhase phase);

/* --- dest/data.c: main thread --- */

/* Does the image of @disk read as zeroes, as far as a quick look can tell? */
bool wsm_dest_is_blank(WsmDestDisk *disk);

/* Set the bits of @data wherever it may read as something else */
void wsm_dest_find_data(WsmDestDisk *disk, BdrvDirtyBitmap *data);

/* --- dest/channel.c --- */

/* A block channel came in; takes the reference of @ioc.  Main thread. */
void wsm_dest_new_channel(WsmDest *d, QIOChannel *ioc);

/* Start the coroutine that says what is in the queue.  Main thread. */
void wsm_dest_start_control(WsmDest *d);

/* Say something on the urgent channel.  Any thread; does not block. */
void wsm_dest_say(WsmDest *d, const WsmMsg *msg);

/* Wake all coroutines that wait for something of ours.  Any thread. */
void wsm_dest_kick(WsmDest *d);

/* The last that a coroutine or bottom half does that is counted. */
void wsm_dest_co_end(WsmDest *d);

/* --- dest/sync.c --- */

/*
 * The filters are gone: make what came durable, then the images are current.
 * Main thread.
 */
void wsm_dest_start_securing(WsmDest *d);

/*
 * SYNC came: flush, or in post-copy wait until all is there and durable, and
 * answer.  Returns false if the connection shall end.  IOThread.
 */
bool coroutine_fn wsm_dest_sync(WsmDestConn *conn, const WsmMsg *msg,
                                Error **errp);

#endif
