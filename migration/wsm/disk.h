/*
 * Whole-system migration: which disks there are and what they are called
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DISK_H
#define MIGRATION_WSM_DISK_H

#include "qapi/qapi-types-wsm.h"
#include "system/block-backend.h"

/* A disk of a guest device; main thread */
typedef struct WsmDisk {
    char *path;                 /* canonical QOM path of the device, owned */
    char *name;                 /* for people, owned */
    BlockBackend *blk;          /* the device's own; not owned */
} WsmDisk;

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

/* The disk of the device at @path, or NULL */
WsmDisk *wsm_disk_find(GArray *all, const char *path);

#endif
