/*
 * Whole-system migration: disks that came here in the life of another QEMU
 *
 * QEMU died at the destination in post-copy.  The maps beside its images say
 * what is still at the source only.  All disks of that migration must be here
 * again, or none: each of them may have what another one refers to.
 *
 * Main thread with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_REJOIN_H
#define MIGRATION_WSM_DEST_REJOIN_H

#include "migration/wsm/image/images.h"
#include "migration/wsm/map/log.h"
#include "migration/wsm/wire/start.h"

/* A disk of that migration */
typedef struct WsmLeftDisk {
    const WsmDisk *ours;
    WsmMapPlace *place;         /* where its map is, and */
    BlockBackend *blk;          /* nobody else can write it */
    WsmMapContents map;
} WsmLeftDisk;

typedef struct WsmLeft {
    WsmStart start;             /* what the maps have of it */
    GPtrArray *disks;           /* of WsmLeftDisk, by their numbers */
    char *peer;                 /* the source, or NULL: not known */
} WsmLeft;

/*
 * Those of @all, our disks, which must outlive the result.  Nothing is changed.
 * NULL and @errp: there are none, or not all, or no map is to be believed; or
 * nothing is missing.
 */
WsmLeft *wsm_left_find(WsmImages *images, GArray *all, Error **errp);
void wsm_left_free(WsmLeft *left);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WsmLeft, wsm_left_free)

#endif
