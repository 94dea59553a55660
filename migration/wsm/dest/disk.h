/*
 * Whole-system migration: the disks at the destination, and their filters
 *
 * From START until nothing is missing a filter (block/pull-on-demand.h) is
 * above each of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_DISK_H
#define MIGRATION_WSM_DEST_DISK_H

#include "block/pull-on-demand.h"
#include "qemu/stats64.h"
#include "migration/wsm/core/options.h"
#include "migration/wsm/dest/control.h"
#include "migration/wsm/dest/life.h"
#include "migration/wsm/image/guest-disk.h"
#include "migration/wsm/image/image.h"
#include "migration/wsm/image/images.h"
#include "migration/wsm/image/nodes.h"
#include "migration/wsm/policy/expect.h"

typedef struct WsmDestDisks WsmDestDisks;
typedef struct WsmDestTravel WsmDestTravel;
typedef struct WsmDestMaps WsmDestMaps;
typedef struct WsmMapLog WsmMapLog;

typedef struct WsmDestDisk {
    /* Set in start, never changed */
    WsmDestDisks *all;
    unsigned index;
    int64_t size;               /* bytes */
    char *name, *path, *address;        /* of our device, owned */

    /* BQL */
    BlockDriverState *bs;       /* below @filter; reference */
    BdrvDirtyBitmap *written;   /* by the guest, through @filter */
    BlockDriverState *filter;   /* BQL, or wsm_life_has_filters() */
    WsmNodes *nodes;            /* BQL: @filter and below, blocked */
    BdrvPullStats last;         /* BQL; of @filter when it was dropped */

    Stat64 received, packed, zero, skipped, compared;

    /* Of dest/basis.h: set in start, never changed */
    WsmBasis *basis;
    QemuUUID basis_point;
    BdrvDirtyBitmap *own;       /* changed here since @basis_point, or data */

    /* Of dest/map.h: set in start, gone in the end; NULL: no map */
    WsmMapLog *map;
    WsmMapPlace *map_place;
    bool rejoined;              /* it came before this QEMU: dest/rejoin.h */

    BdrvPullOps ops;            /* of @filter; set in start, never changed */

    /* Of dest/points.h */
    WsmDestTravel *travel;      /* the source's sync points: in the loop */
    unsigned first_order;       /* BQL: of the source's sync points here */
    bool no_points;             /* BQL: something went wrong with them */

    /* Of dest/images.h: BQL */
    WsmImage *image;            /* reference */
    WsmImageState state_before; /* of @image, when START came, */
    char *session_before, *peer_before;
    int64_t time_before;
    WsmRecordStore *store;      /* whose record goes at the end, or NULL */
    bool unmarked;              /* it is gone; a job in a thread, then BQL */
} WsmDestDisk;

struct WsmDestDisks {
    /* Set in init, never changed */
    WsmOptionsStore *options;
    WsmImages *images;
    const WsmStart *start;      /* what the source told */
    char *peer;                 /* the source's address; NULL: not known */
    Error *blocker;             /* why jobs and snapshots must wait */
    WsmDestLife *life;
    WsmDestControl *control;
    QEMUBHFunc *complete;       /* nothing is missing any more; any thread */
    void *opaque;
    WsmDestMaps *maps;          /* NULL: none */

    unsigned n;                 /* set in start, as is */
    WsmDestDisk *disk;
    unsigned incomplete;        /* atomic: disks that may miss blocks */
    bool wrote;                 /* in the loop, then BQL: images are changed */
};

/*
 * Main thread.  @start must stay as it is; @peer (may be NULL) is taken.  In
 * connect they learn of what is around them; @complete gets @opaque.
 */
void wsm_dest_disks_init(WsmDestDisks *disks, WsmOptionsStore *options,
                         WsmImages *images, const WsmStart *start, char *peer);
void wsm_dest_disks_connect(WsmDestDisks *disks, WsmDestLife *life,
                            WsmDestControl *control, QEMUBHFunc *complete,
                            void *opaque);
void wsm_dest_disks_destroy(WsmDestDisks *disks);

/* Our disk @ours is the next one of @start's.  Main thread. */
WsmDestDisk *wsm_dest_disks_add(WsmDestDisks *disks, const WsmDisk *ours);

/*
 * Put the filter above @bs, which is active, with @mark of @disk->ops, if that
 * was set.  What passes through it, which
 * is what the guest writes, is noted from now on: not in the freeze, as that
 * takes memory in proportion to the disk.  Main thread.  False, and @errp.
 */
bool wsm_dest_disk_open(WsmDestDisk *disk, BlockDriverState *bs, Error **errp);

/* The filter goes.  Main thread; no coroutine calls it any more. */
void wsm_dest_disk_close(WsmDestDisk *disk);

/* A bitmap of its blocks without a name, disabled.  NULL, and @errp. */
BdrvDirtyBitmap *wsm_dest_disk_bitmap(WsmDestDisk *disk, Error **errp);

/*
 * Read what @opaque, a WsmDestDisk, has below its filter.  In the loop; 0 or
 * -errno.  A WsmFetchRead.
 */
int coroutine_fn wsm_dest_disk_read(void *opaque, int64_t offset,
                                    int64_t bytes, void *buf);

/* Missing bytes of all disks.  In the loop. */
int64_t wsm_dest_disks_missing(WsmDestDisks *disks);

/* The freeze: these blocks of @disk are missing.  Main thread; false, @errp. */
bool wsm_dest_disk_set_missing(WsmDestDisk *disk, const uint8_t *runs,
                               size_t size, Error **errp);

/* And those were all.  Main thread.  Returns false and sets @errp. */
bool wsm_dest_disks_seal(WsmDestDisks *disks, Error **errp);

/* Ask again for what is waited for.  In the loop, not in a coroutine. */
void wsm_dest_disks_repeat(WsmDestDisks *disks);

/* All that was acknowledged becomes durable.  In the loop; 0 or -errno. */
int coroutine_fn wsm_dest_disks_flush(WsmDestDisks *disks);

/* After the seal, as long as there are filters, through these; likewise */
int coroutine_fn wsm_dest_disks_checkpoint(WsmDestDisks *disks);

/*
 * Bytes that have arrived, but are not marked (block/pull-marks.h).  In the
 * loop, or main thread.
 */
int64_t wsm_dest_disks_unmarked(WsmDestDisks *disks);

/* What query-wsm tells, and what is counted for it.  Main thread. */
void wsm_dest_disks_info(WsmDestDisks *disks, WsmInfo *info);
void wsm_dest_disks_sample(WsmDestDisks *disks, WsmSample *out);

#endif
