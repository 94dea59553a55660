/*
 * Whole-system migration: read a map of missing blocks, and judge it
 *
 * What is read was left by a crash, maybe in the middle of a write.  A map says
 * nothing (it is not there, or QEMU died before it was whole for the first
 * time: then the source's image is the guest's disk), or what is missing; or it
 * is not to be used.  That is never taken for "nothing is missing", nor for a
 * map as it was earlier: what was marked since would be overwritten.
 *
 * Pure: who calls it says how bytes are read.  Any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MAP_LOAD_H
#define MIGRATION_WSM_MAP_LOAD_H

#include "migration/wsm/map/format.h"
#include "migration/wsm/map/missing.h"

typedef struct WsmMapReader {
    /* Read all of these bytes; 0 or -errno.  They are within @size. */
    int (*read)(void *opaque, int64_t offset, int64_t bytes, void *buf);
    void *opaque;
    int64_t size;               /* of the map, in bytes */
} WsmMapReader;

/* What it must be of */
typedef struct WsmMapWanted {
    QemuUUID session;           /* null: any, there is no record of it */
    int64_t size;               /* bytes of the disk; 0: any */
    int disk;                   /* its number; -1: any */
    const char *path;           /* of its device here; NULL: any */
    QemuUUID boot;              /* of the kernel that runs */
} WsmMapWanted;

typedef enum WsmMapState {
    WSM_MAP_NONE,               /* there is none; not of wsm_map_load() */
    WSM_MAP_UNCOMMITTED,        /* nothing of the guest is in the image */
    WSM_MAP_COMMITTED,          /* what is missing is known */
    WSM_MAP_VOID,               /* it could not be kept up */
    WSM_MAP_OTHER,              /* it is of another migration */
    WSM_MAP_DAMAGED,            /* or of another disk, or cannot be read */
} WsmMapState;

typedef struct WsmMapContents {
    WsmMapHead head;            /* of what counts */
    WsmMissing *missing;        /* now, not in the snapshot */
    uint64_t records;           /* that count */
} WsmMapContents;

/*
 * Read it.  If the state is WSM_MAP_COMMITTED @out is set, to be destroyed;
 * else @errp says what is wrong.
 */
WsmMapState wsm_map_load(const WsmMapReader *reader, const WsmMapWanted *wanted,
                         WsmMapContents *out, Error **errp);
void wsm_map_contents_destroy(WsmMapContents *contents);

#endif
