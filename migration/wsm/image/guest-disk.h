/*
 * Whole-system migration: which disks there are and what they are called
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_GUEST_DISK_H
#define MIGRATION_WSM_IMAGE_GUEST_DISK_H

#include "qapi/qapi-types-wsm.h"
#include "system/block-backend.h"
#include "migration/wsm/wire/message.h"
#include "migration/wsm/wire/start.h"

/* A disk of a guest device; with the BQL */
typedef struct WsmDisk {
    char *path;                 /* canonical QOM path of the device, owned */
    char *name;                 /* for people, owned */
    char *address;              /* where the guest sees it, see below; owned */
    BlockBackend *blk;          /* the device's own; not owned */
} WsmDisk;

void wsm_disk_destroy(WsmDisk *disk);

/*
 * The address by which QEMU's migration knows the device: of a bus that tells
 * it (PCI, SCSI, USB, virtio-mmio, and what is on those), else made from that
 * of the controller, the device's place on it, and its property "unit" (IDE,
 * floppy).  "" for a device that is on no bus or on the system bus (flash
 * memory), and for disks that would have the same address: their QOM path
 * counts.
 *
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

/* An address as query-wsm shows it: NULL if there is none.  g_free(). */
char *wsm_disk_shown_address(const char *address);

/* Is @name one of the names that the user may call @disk? */
bool wsm_disk_is_called(const WsmDisk *disk, const char *name);

/* The first of @all that is called so, or NULL */
WsmDisk *wsm_disk_called(GArray *all, const char *name);

/*
 * That of @all which the source describes as @desc.  Returns NULL and sets
 * @errp if there is none, or if it is doubtful.
 */
WsmDisk *wsm_disk_find(GArray *all, const WsmDiskDesc *desc, Error **errp);

#endif
