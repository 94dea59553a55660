/*
 * Whole-system migration: what the source has to do, and who does it
 *
 * The one owner of the bits and of the requests.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_WORK_H
#define MIGRATION_WSM_SOURCE_WORK_H

#include "block/aio.h"
#include "block/dirty-bitmap.h"
#include "qemu/queue.h"

/*
 * The law: a block that the destination lacks is dirty, or in exactly one
 * request.
 *
 *     dirty --take, pull: clear bit--> READING --> SENDING --> SENT
 *       ^                                 |           |          |
 *       '--------- put back: set bit -----+--- FAILED-+--ARRIVED-+--> clean
 *
 * A request that could have got onto the wire ends before the freeze only by
 * its answer, or when its channel is welcomed again: only then it is certain
 * that the destination will not write it late.  After the freeze the end of its
 * channel is enough, as nothing is written twice there.
 *
 * The guest sets bits whenever it likes, so before the freeze a block can be
 * dirty and in a request.  Two requests never overlap: the new content could
 * overtake the old one.
 *
 * It knows no channel, no disk and no thread: a lane stands for a channel, and
 * WsmWorkOps say what goes on.  Lane 0 is the urgent one, on which only what is
 * asked for goes out.
 *
 * All functions are called in one thread, that of @ctx, unless they say else.
 * Offsets and lengths are bytes.
 */
typedef struct WsmWork WsmWork;

/* What is done with a range */
typedef enum WsmReqKind {
    WSM_REQ_DATA,
    WSM_REQ_ZERO,               /* it reads as zeroes */
    WSM_REQ_COMPARE,            /* what differs, by hashes, is dirty again */
} WsmReqKind;

typedef enum WsmReqState {
    WSM_REQ_READING,            /* its coroutine has it, nothing was sent */
    WSM_REQ_SENDING,            /* its coroutine has it, an answer may come */
    WSM_REQ_SENT,               /* no coroutine has it: waits for its answer */
    WSM_REQ_ARRIVED,            /* answered; a coroutine may still have it */
    WSM_REQ_FAILED,             /* likewise, but it has not arrived */
    WSM_REQ__MAX
} WsmReqState;

/* A range on its way.  Changed by the functions below alone. */
typedef struct WsmReq {
    QTAILQ_ENTRY(WsmReq) next;
    WsmWork *work;
    unsigned lane, disk;
    int64_t offset, bytes;
    uint32_t epoch;             /* 1: it was taken after the freeze */
    WsmReqKind kind;
    WsmReqState state;
    bool pull;                  /* the guest waits for it */
    unsigned connection;        /* of its lane, when it was taken */
    int64_t sent_ns;            /* when it was sent */
    uint8_t *mine, *theirs;     /* hashes; @theirs NULL: zeroes, too */
} WsmReq;

typedef enum WsmPassState {
    WSM_PASS_NONE,              /* before the freeze: none runs */
    WSM_PASS_SEND,              /* each block that is dirty goes out once */
    WSM_PASS_PUSH,              /* after the freeze: until all has arrived */
    WSM_PASS_PUSHED,            /* it has */
    WSM_PASS__MAX
} WsmPassState;

typedef struct WsmWorkOps {
    /* There may be something to take for somebody who found nothing */
    void (*changed)(void *opaque);
    /* WSM_PASS_SEND or WSM_PASS_PUSH has ended: nothing is in flight */
    void (*pass_over)(void *opaque, WsmPassState pass);
    /* Both sides have hashed the range of @req; so much of it differs */
    void (*compared)(void *opaque, const WsmReq *req, int64_t differ);
} WsmWorkOps;

/*
 * Begin and end: main thread
 */

/* @granularity of the bitmaps; @lanes: at least 2, that are down */
WsmWork *wsm_work_new(AioContext *ctx, unsigned lanes, uint32_t granularity,
                      const WsmWorkOps *ops, void *opaque);

/*
 * Track writes to @bs, of which all is dirty.  Disks are numbered in the order
 * in which they are added.  Returns false and sets @errp.
 */
bool wsm_work_add_disk(WsmWork *work, BlockDriverState *bs, int64_t size,
                       Error **errp);

/*
 * Nobody runs in @ctx any more: what was in flight has not arrived.  @work may
 * be NULL.
 */
void wsm_work_stop(WsmWork *work);

/* Track the disk no more.  After wsm_work_stop(), or before all began. */
void wsm_work_release_disk(WsmWork *work, unsigned disk);

/* All disks are released; @work may be NULL */
void wsm_work_free(WsmWork *work);

/*
 * Before the first pass, BQL, any thread: what the migration builds on.  The
 * caller sets bits in the bitmap that is returned.
 */

/* Nothing of the disk is dirty, but what the guest writes from now on */
BdrvDirtyBitmap *wsm_work_start_anew(WsmWork *work, unsigned disk);

/* What is set here is to be compared, not sent; NULL and @errp on failure */
BdrvDirtyBitmap *wsm_work_start_compare(WsmWork *work, unsigned disk,
                                        Error **errp);

/*
 * To look at: any thread, between add and release
 */

/* What is dirty, not to be changed; NULL: the disk is not tracked */
BdrvDirtyBitmap *wsm_work_dirty_bitmap(WsmWork *work, unsigned disk);

/* Bytes that are dirty, of one disk and of all */
int64_t wsm_work_dirty(WsmWork *work, unsigned disk);
int64_t wsm_work_all_dirty(WsmWork *work);

/*
 * Passes and channels
 */

/* Send what is dirty once, before the freeze; the pass before is over */
void wsm_work_begin_pass(WsmWork *work);

/* After the freeze, when no pass runs: send until all has arrived */
void wsm_work_begin_push(WsmWork *work);

/* Which one runs; are we behind the freeze? */
WsmPassState wsm_work_pass(const WsmWork *work);
bool wsm_work_is_push(const WsmWork *work);

/*
 * A lane can carry requests: its channel was welcomed.  It cannot any more.
 * That connection is gone, and nobody sends on it.
 */
void wsm_work_lane_up(WsmWork *work, unsigned lane);
void wsm_work_lane_down(WsmWork *work, unsigned lane);
void wsm_work_lane_gone(WsmWork *work, unsigned lane);

/*
 * Requests.  Who takes one has it until wsm_req_sent() or wsm_req_put_back(),
 * which is the last that may be done with it.
 */

/*
 * The next range of the pass for bulk lane @lane, or NULL: nothing is left, or
 * enough is in flight.  Of that range the begin is to be looked for with
 * wsm_req_fit(), if wsm_req_needs_status() with the block's status.
 */
WsmReq *wsm_work_take(WsmWork *work, unsigned lane);

/*
 * The destination has asked for a range of which *@offset up to @end is left.
 * Returns a request for the next of it that is dirty, and moves *@offset behind
 * it; or NULL: nothing is.  The rest is in flight, or the guest has overwritten
 * it.  If too much is asked for at a time, the rest is what is pushed next.
 */
WsmReq *wsm_work_pull(WsmWork *work, unsigned lane, unsigned disk,
                      int64_t *offset, int64_t end);

/*
 * The destination lacks these blocks (@runs: wire/runs.h, of the range), even
 * if it had acknowledged them: they are to be sent, or on their way.  In push.
 * Returns false and sets @errp if these are no runs of the range; some may
 * count then.
 */
bool wsm_work_lacks(WsmWork *work, unsigned disk, int64_t offset, int64_t bytes,
                    const uint8_t *runs, size_t size, Error **errp);

/* The guest has overwritten the range at the destination */
void wsm_work_have(WsmWork *work, unsigned disk, int64_t offset,
                   int64_t bytes);

/* Are there holes to look for in what was taken? */
bool wsm_req_needs_status(const WsmReq *req);

/*
 * Make a request of the hole (@zero) or of the data that @req begins with,
 * which has @bytes; 0: not known.  What is behind it is given back.
 */
void wsm_req_fit(WsmReq *req, bool zero, int64_t bytes);

/*
 * What was read is at @buf: make a request of the zeroes or of the data that it
 * begins with.  Where there is both, the rest is read again, a piece at a time.
 */
void wsm_req_find_zeroes(WsmReq *req, const uint8_t *buf);

/* Is its lane up, and has not been down since it was taken? */
bool wsm_req_can_go(const WsmReq *req);

/* It can go, and does, at @now (ns, any clock): from here on it is answered */
void wsm_req_sending(WsmReq *req, int64_t now);

/* Its coroutine has done its work; goes on when it is answered, or was */
void wsm_req_sent(WsmReq *req);

/* It has not arrived, or that does not matter any more: it is dirty again */
void wsm_req_put_back(WsmReq *req);

/* The request on @lane that waits for an answer which says this, or NULL */
WsmReq *wsm_work_find(WsmWork *work, unsigned lane, unsigned disk,
                      int64_t offset, int64_t bytes, uint32_t epoch);

/*
 * The answer has come at @now.  WSM_REQ_COMPARE that has @arrived has @theirs
 * set, if they have any hashes.  @req may be gone then.
 */
void wsm_req_answer(WsmReq *req, bool arrived, int64_t now);

/* Assert that the law holds, and all that follows.  Slow: for tests. */
void wsm_work_check(WsmWork *work);

#endif
