/*
 * Whole-system migration: where the map of missing blocks of a disk is
 *
 * Beside its image (image/map-file.h), or on a block node that the user names
 * (image/map-node.h).  An image says where its map is: wsm_image_map_place().
 *
 * Main thread with the BQL, unless it says otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_MAP_PLACE_H
#define MIGRATION_WSM_IMAGE_MAP_PLACE_H

#include "system/block-backend.h"
#include "migration/wsm/map/load.h"

typedef struct WsmMapPlace {
    /* Set in new, never changed: one of them is NULL */
    char *file;                 /* the image, not the map */
    char *node;                 /* node name */
} WsmMapPlace;

/* On @node, unless that is NULL; else beside @file.  NULL if that is, too. */
WsmMapPlace *wsm_map_place_new(const char *file, const char *node);
WsmMapPlace *wsm_map_place_copy(const WsmMapPlace *place);
void wsm_map_place_free(WsmMapPlace *place);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WsmMapPlace, wsm_map_place_free)

/* For people; free with g_free() */
char *wsm_map_place_name(const WsmMapPlace *place);

/*
 * A new one that says nothing, durably, in place of one that is there: who
 * calls this has made sure that the disk, which has @size bytes and is that of
 * the device at @path, is no guest's.  False, and @errp.
 */
bool wsm_map_place_create(const WsmMapPlace *place, const char *path,
                          int64_t size, Error **errp);

/* To be written.  Nobody else can while it is open.  NULL, and @errp. */
BlockBackend *wsm_map_place_open(const WsmMapPlace *place, Error **errp);

/*
 * Read it, see wsm_map_load(): @boot of @wanted need not be set.  WSM_MAP_NONE,
 * and no @errp, if there is no file; WSM_MAP_DAMAGED if it cannot be read.
 */
WsmMapState wsm_map_place_load(const WsmMapPlace *place,
                               const WsmMapWanted *wanted, WsmMapContents *out,
                               Error **errp);

/*
 * Nobody shall believe it any more: durably; no error if there is none.  A file
 * goes, a node becomes zeroes.  Nobody has it open.  False, and @errp.
 */
bool wsm_map_place_remove(const WsmMapPlace *place, Error **errp);

/* Which kernel runs: another one after each start of the host.  Any thread. */
QemuUUID wsm_map_boot(void);

#endif
