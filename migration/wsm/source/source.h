/*
 * Whole-system migration: the source
 *
 * Three parties meet here.  The migration thread walks through the phases; the
 * main thread starts and stops; the coroutines in an IOThread of our own send
 * blocks.  The thread and the coroutines meet in the fields under @lock
 * and in the functions below, and nowhere else.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_SOURCE_H
#define MIGRATION_WSM_SOURCE_SOURCE_H

#include "migration/migration.h"
#include "qemu/ratelimit.h"
#include "qemu/stats64.h"
#include "system/block-backend.h"
#include "migration/wsm/core/options.h"
#include "migration/wsm/core/session.h"
#include "migration/wsm/core/loop.h"
#include "migration/wsm/image/guest-disk.h"
#include "migration/wsm/image/hold.h"
#include "migration/wsm/image/image.h"
#include "migration/wsm/image/images.h"
#include "migration/wsm/image/nodes.h"
#include "migration/wsm/link/block-channel.h"
#include "migration/wsm/link/buffers.h"
#include "migration/wsm/link/connect.h"
#include "migration/wsm/source/work.h"
#include "migration/wsm/wire/message.h"

typedef struct WsmSource WsmSource;
typedef struct WsmSourceChannel WsmSourceChannel;

typedef struct WsmSourceDisk {
    /* Set in start, never changed */
    unsigned index;
    int64_t size;               /* bytes */
    const char *name;           /* in WsmSource.start */
    BlockBackend *blk;
    BlockDriverState *bs;       /* of @blk; is tracked; must not change */
    WsmNodes *nodes;            /* @bs and below: blocked, must not change */
    WsmHold *hold;              /* keeps the images locked in post-copy */
    int64_t allocated;          /* bytes, when we began; < 0: not known */

    /*
     * What the migration builds on.  @basis: IOThread, read elsewhere under
     * WsmSource.lock, or when @agreed is true
     */
    WsmBasis *basis;
    QemuUUID basis_point;       /* as @basis */
    GPtrArray *theirs;          /* IOThread: of the destination's blocks, OWN */
    int64_t own_until;          /* IOThread: @theirs goes to here, bytes */

    /* Set in start: */
    WsmSource *s;
    BlockDriverState *bs_points;        /* has the sync points; reference */
    WsmImage *image;            /* reference; BQL */
    GArray *points;             /* of WsmPoint; their bitmaps are busy */
    WsmRecord *leaving;         /* the image's record in the freeze, or NULL */
    char *leaving_file;         /* the image's file when the migration began */

    /* Bytes */
    Stat64 sent, zero, pushed, pulled, compared, equal;
} WsmSourceDisk;

struct WsmSourceChannel {
    WsmSource *s;
    WsmChannel c;
    WsmConnector connector;

    /* IOThread; the first two are read by query-wsm (atomic) */
    bool up;
    unsigned connection;        /* number of connections there were */
    unsigned users;             /* coroutines that are sending */
    CoQueue idle;               /* waits for @users to be 0 */
};

struct WsmSource {
    /* Set in start, never changed */
    WsmSession *session;
    WsmOptionsStore *options;
    WsmImages *images;
    const char *peer;           /* where the guest goes to; NULL: not known */
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

    /* IOThread */
    uint64_t sync_serial;
    bool sync_wanted;           /* a SYNC is to be sent */
    bool sync_awaited;          /* its answer has not come */
    bool go_wanted, abort_wanted;
    bool abort_sent;
    WsmBuffers buffers;         /* for what is read */
    RateLimit limit;            /* has a lock of its own */
    RateLimit compare_limit;    /* likewise */
    bool points_wanted;         /* the destination is to be told of them */

    int64_t watch_ns;           /* migration thread: when to look again */

    bool aborting;              /* atomic: not yet, ABORT is to be sent */
    bool stopped;               /* BQL: wsm_source_stop() has begun, */
    bool released;              /* BQL: has ended; it polls in between */
    bool marked;                /* job of a coroutine, then BQL: see records */

    QemuMutex lock;
    QemuCond cond;              /* something below has changed */
    /* @lock */
    unsigned welcome;           /* channels that are or were up, and */
    bool all_welcome;           /* are those all? */
    unsigned nagreed;           /* disks of which the basis is known, and */
    bool agreed;                /* are those all? */
    bool pass_done;
    bool synced;                /* the destination has flushed */
    bool all_there;             /* the destination misses nothing */
    bool ready;                 /* the destination could run the guest */
    bool too_late;              /* that did not come in time */
    Error *fatal;               /* before the handover: give up */
    bool flushing, flushed;     /* our images, ahead of the freeze */
    int64_t frozen_at;          /* ns, 0: not */

    int64_t ready_until;        /* ns; migration thread, then never changed */
};

/* --- source/source.c: main thread, BQL --- */

/* Returns false and sets @errp if the disks or options do not allow it */
bool wsm_source_check(const WsmOptionsStore *options, WsmImages *images,
                      Error **errp);

/* Begin phase "setup".  All arguments must outlive the source. */
WsmSource *wsm_source_new(WsmSession *session, WsmOptionsStore *options,
                          WsmImages *images, const char *peer);

/*
 * Begin to track writes.  It drains, so it can take as long as a guest's
 * request does.  Returns false and sets @errp; then only stop and free it.
 */
bool wsm_source_start(WsmSource *s, Error **errp);

/* End all coroutines, release all block nodes.  Can be called twice. */
void wsm_source_stop(WsmSource *s);

void wsm_source_free(WsmSource *s);

void wsm_source_info(WsmSource *s, WsmInfo *info);

/* --- source/watch.c --- */

/*
 * Are the guest's disks as they were in start, and can the freeze succeed?
 * Brings @excluded up to date.  BQL, any thread.
 */
bool wsm_source_look(WsmSource *s, Error **errp);

/*
 * Look, once in a second, and give up if not.  Migration thread, without the
 * BQL, before the freeze.
 */
void wsm_source_watch(WsmSource *s);

/* --- source/phases.c: migration thread, no BQL unless it says so --- */

/* Is there a reason to stop waiting?  Sets an error on the stream then. */
bool wsm_source_interrupted(WsmSource *s);

/* Wait for block channels, then copy disks.  0 or -errno; sets the error. */
int wsm_source_disk_phase(WsmSource *s);

/* Return true if all is set for the freeze, else set about it */
bool wsm_source_prepare_freeze(WsmSource *s);

/* BQL: the guest stands still.  The runs that are missing, for all disks. */
void wsm_source_freeze(WsmSource *s);
GByteArray *wsm_source_residue(WsmSource *s, unsigned disk);

/*
 * BQL: all state is sent.  False: the guest stays here, @errp says why.  True:
 * it is the destination's now, or will be, or will come back, when memory was
 * sent of which there is some left: the phase tells.
 */
bool wsm_source_handover(WsmSource *s, Error **errp);

/* In the freeze, memory is being sent: if READY has come hand the guest over */
void wsm_source_try_handover(WsmSource *s);

/*
 * All is there.  If the main stream broke, QEMU waits for a new one: let the
 * migration thread look again, which then completes.  IOThread, in a coroutine.
 */
void coroutine_fn wsm_source_end_pause(WsmSource *s);

/* The guest will not be handed over: tell the destination */
void wsm_source_take_back(WsmSource *s);

/* Wait up to @ms for a change; is everything at the destination? */
bool wsm_source_wait_all_there(WsmSource *s, int ms);

/* Bytes of all disks: so far sent as data, found equal.  Any thread. */
int64_t wsm_source_sent(WsmSource *s);
int64_t wsm_source_equal(WsmSource *s);

/* --- source/basis.c --- */

/* Main thread: take the sync points of @d into account */
bool wsm_source_add_points(WsmSource *s, WsmSourceDisk *d, const WsmDisk *disk,
                           Error **errp);

/* BASIS and OWN have come.  IOThread. */
bool coroutine_fn wsm_source_basis(WsmSourceChannel *c, const WsmMsg *msg,
                                   Error **errp);
bool coroutine_fn wsm_source_own(WsmSourceChannel *c, const WsmMsg *msg,
                                 Error **errp);

/* When @agreed: only what can differ is dirty.  BQL, any thread. */
bool wsm_source_apply_basis(WsmSource *s, Error **errp);

/*
 * Write to the records of a WsmSource that the guest is about to leave.  A job
 * for the thread pool; returns 0.
 */
int wsm_source_mark_leaving(void *opaque);

/* Tell the destination of all sync points.  IOThread. */
void coroutine_fn wsm_source_send_points(WsmSource *s);

/* The migration is over: keep a sync point.  Main thread. */
void wsm_source_settle(WsmSource *s, WsmSourceDisk *d);
void wsm_source_free_points(WsmSourceDisk *d);

/* --- source/compare.c --- */

/* Compare the range of @req, which is busy.  IOThread. */
void coroutine_fn wsm_source_compare(WsmSourceChannel *c, WsmReq *req);

/* HASHES has come.  IOThread. */
bool coroutine_fn wsm_source_hashes(WsmSourceChannel *c, const WsmMsg *msg,
                                    Error **errp);

/* --- source/channel.c --- */

/* Start the coroutines of all channels.  Main thread. */
void wsm_source_open_channels(WsmSource *s);

/* Give up, unless the guest was handed over.  @err is taken.  Any thread. */
void wsm_source_fail(WsmSource *s, Error *err);

/* Send; the channel is not detached before it has ended.  0 or -errno. */
int coroutine_fn wsm_source_transmit(WsmSourceChannel *c, const WsmMsg *msg,
                                     const void *payload);

/* --- source/send.c --- */

/* Start the coroutines that send on bulk channel @c.  Main thread. */
void wsm_source_start_senders(WsmSourceChannel *c);

/* Read errors end the migration while that can be done, else are retried */
void coroutine_fn wsm_read_failed(WsmSource *s, const WsmReq *req, int ret);

/* The request that @msg answers, or NULL and @errp.  IOThread. */
WsmReq *wsm_source_find_req(WsmSourceChannel *c, const WsmMsg *msg,
                            Error **errp);

/* The destination asks for a range.  IOThread. */
void wsm_source_pull(WsmSourceChannel *c, const WsmMsg *msg);

/* The destination has written, or not (@ok), what we sent.  IOThread. */
bool wsm_source_ack(WsmSourceChannel *c, const WsmMsg *msg, bool ok,
                    Error **errp);

#endif
