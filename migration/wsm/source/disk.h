/*
 * Whole-system migration: a disk at the source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_DISK_H
#define MIGRATION_WSM_SOURCE_DISK_H

#include "block/block.h"
#include "qemu/stats64.h"
#include "system/block-backend.h"
#include "migration/wsm/core/loop.h"
#include "migration/wsm/image/hold.h"
#include "migration/wsm/image/image.h"
#include "migration/wsm/image/nodes.h"
#include "migration/wsm/source/milestones.h"
#include "migration/wsm/source/work.h"
#include "migration/wsm/wire/start.h"

typedef struct WsmSource WsmSource;

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

    /* What the migration builds on.  Set once in the IOThread, @basis last. */
    QemuUUID basis_point;
    WsmBasis *basis;            /* atomic; NULL: not known yet */
    GPtrArray *theirs;          /* IOThread: of the destination's blocks, OWN */
    int64_t own_until;          /* IOThread: @theirs goes to here, bytes */

    /* Set in start: */
    WsmSource *s;
    BlockDriverState *bs_points;        /* has the sync points; reference */
    WsmImage *image;            /* reference; BQL */
    GArray *points;             /* of WsmPoint; their bitmaps are busy */
    WsmRecord *leaving;         /* the image's record in the freeze */
    WsmRecordStore *store;      /* where it goes, or NULL */

    /* Bytes */
    Stat64 sent, packed, zero, pushed, pulled, compared, equal;
} WsmSourceDisk;

/*
 * Open @bs for us: nobody may resize it while we have it.  Sets @blk, @bs and
 * what is known of them.  Main thread.
 */
bool wsm_source_disk_open(WsmSourceDisk *d, BlockDriverState *bs,
                          Error *blocker, Error **errp);

/*
 * Read the range of @req.  An error ends the migration while that can be done,
 * else it is tried again, by others, after the second that this takes then.  0
 * or -errno.  In @loop.
 */
int coroutine_fn wsm_source_disk_read(WsmSourceDisk *d, const WsmReq *req,
                                      void *buf, WsmMilestones *ms,
                                      WsmLoop *loop);

/*
 * @req was sent, and took @packed bytes; its comparison has found @differ
 * bytes.  Any thread.
 */
void wsm_source_disk_sent(WsmSourceDisk *d, const WsmReq *req,
                          uint32_t packed);
void wsm_source_disk_compared(WsmSourceDisk *d, const WsmReq *req,
                              int64_t differ);

/* For query-wsm; @desc is what START said, @dirty in bytes */
WsmDiskInfo *wsm_source_disk_info(WsmSourceDisk *d, const WsmDiskDesc *desc,
                                  int64_t dirty, bool postcopy);

#endif
