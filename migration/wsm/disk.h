/*
 * Whole-system migration: which disks there are and what they are called
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DISK_H
#define MIGRATION_WSM_DISK_H

#include "qapi/qapi-types-wsm.h"
#include "system/block-backend.h"
#include "wsm.h"

/* A disk of a guest device; main thread */
struct WsmDisk {
    char *path;                 /* canonical QOM path of the device, owned */
    char *name;                 /* for people, owned */
    BlockBackend *blk;          /* the device's own; not owned */
};

void wsm_disk_destroy(WsmDisk *disk);

/*
 * All disks that have a medium, in a stable order.  Elements are WsmDisk; free
 * with g_array_unref().
 */
GArray *wsm_disk_list(void);

/*
 * Those of @all to migrate: writable, and in @wanted unless that is empty.
 * The elements still belong to @all.  The reasons why others are left out are
 * added to @excluded.  Returns NULL and sets @errp if @wanted has an unknown
 * or read-only disk.
 */
GPtrArray *wsm_disk_select(GArray *all, strList *wanted,
                           WsmExcludedDiskList **excluded, Error **errp);

/* Its top node but for filters of our own: what has its sync points */
BlockDriverState *wsm_disk_bs(const WsmDisk *disk);

/* Is @name one of the names that the user may call @disk? */
bool wsm_disk_is_called(const WsmDisk *disk, const char *name);

/* The disk of the device at @path, or NULL */
WsmDisk *wsm_disk_find(GArray *all, const char *path);

#endif
