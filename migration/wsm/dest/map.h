/*
 * Whole-system migration: the destination's maps of what is missing
 *
 * With option crash-safe each disk has a map beside its image
 * (image/map-file.h) which outlives this QEMU.  It is made when START comes,
 * and counts from GO on, when the image has become the guest's disk: only then
 * it is written, while the guest begins to run, and the guest's first flush
 * waits for that.  From then on the filter tells what to take off it
 * (block/pull-marks.h); each second what has arrived is taken off as well.
 * When nothing is missing and no record says otherwise, it goes.
 *
 * One map is worth nothing without those of the other disks, so what happens
 * to one happens to all.  If one cannot be written, all are made void and the
 * guest goes on without; until they are, its flushes fail.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_MAP_H
#define MIGRATION_WSM_DEST_MAP_H

#include "migration/wsm/dest/disk.h"
#include "migration/wsm/dest/rejoin.h"

/* They are @state now, with the reason if they are lost, else NULL */
typedef void WsmDestMapsTell(void *opaque, WsmCrashSafe state, const char *why);

struct WsmDestMaps {
    /* Set in init, never changed */
    WsmDestDisks *disks;
    WsmLoop *loop;
    WsmDestMapsTell *tell;      /* in the main thread */
    void *opaque;

    bool went;                  /* BQL: it has come to GO */

    QemuMutex lock;             /* protects what follows */
    WsmCrashSafe state;
    char *why;                  /* one cannot be written, or made; or NULL */
    CoQueue waiting;            /* flushes, for the first commit */
};

/* Main thread */
void wsm_dest_maps_init(WsmDestMaps *maps, WsmDestDisks *disks, WsmLoop *loop,
                        WsmDestMapsTell *tell, void *opaque);
void wsm_dest_maps_destroy(WsmDestMaps *maps);

/*
 * If the user wants maps make that of @disk, whose node is active and has no
 * filter yet.  Returns false and sets @errp if there must be one and cannot;
 * if there need not, the user is told.  Main thread.
 */
bool wsm_dest_map_make(WsmDestMaps *maps, WsmDestDisk *disk, Error **errp);

/*
 * The same for a map that was left by another QEMU: it is @left's, which has it
 * no more after this.  False, and @errp.
 */
bool wsm_dest_map_reopen(WsmDestMaps *maps, WsmDestDisk *disk,
                         WsmLeftDisk *left, Error **errp);

/* @disk misses what its map says, instead of wsm_dest_disk_set_missing() */
void wsm_dest_map_tell_missing(WsmDestDisk *disk);

/*
 * No map that was left is written on: each gets a new generation, which is
 * durable when this returns true.  If it is not, false and @errp: the one
 * before or the new one counts.  Before wsm_dest_maps_go().  Main thread; it
 * polls.
 */
bool wsm_dest_maps_renew(WsmDestMaps *maps, Error **errp);

/* The freeze: as wsm_dest_disk_set_missing(), which is to be called as well */
bool wsm_dest_map_set_missing(WsmDestDisk *disk, const uint8_t *runs,
                              size_t size, Error **errp);

/*
 * The guest is ours, and will run when this returns: no flush of it ends
 * before the maps are written.  Main thread.
 */
void wsm_dest_maps_go(WsmDestMaps *maps);

/* If QEMU ended now, would they say what is missing?  Any thread. */
bool wsm_dest_maps_hold(WsmDestMaps *maps);

/* No record says that anything is missing.  In the loop. */
void coroutine_fn wsm_dest_maps_remove(WsmDestMaps *maps);

/*
 * It ends; filters and loop have.  The maps stay if the guest may have flushed
 * here and blocks are missing.  Main thread.
 */
void wsm_dest_maps_close(WsmDestMaps *maps);

/* What query-wsm says.  Main thread. */
WsmCrashInfo *wsm_dest_maps_info(WsmDestMaps *maps);

#endif
