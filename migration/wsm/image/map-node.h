/*
 * Whole-system migration: the map of missing blocks on a block node
 *
 * For disks beside whose image no file can be made (image/map-file.h), the user
 * names a block node.  It has nothing but the map.  When all is there the map
 * stays, and says that nothing is missing.
 *
 * Of what is no file there is no record either.  Then the map counts by itself,
 * with the path of the guest's device in it.
 *
 * Main thread with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_MAP_NODE_H
#define MIGRATION_WSM_IMAGE_MAP_NODE_H

#include "system/block-backend.h"
#include "migration/wsm/image/guest-disk.h"
#include "migration/wsm/map/load.h"

/* Bytes of a node: less has no room, and more is not what was meant */
#define WSM_MAP_NODE_MIN        (4 * MiB)
#define WSM_MAP_NODE_MAX        (1 * GiB)

/*
 * Is each of @maps one of a disk of @all, of WsmDisk, on a node that is fit for
 * it, as wsm_map_node_create() would find it now?  Nothing is changed.  False,
 * and @errp with what to do.
 */
bool wsm_map_nodes_check(GArray *all, const WsmMapNodeList *maps,
                         Error **errp);

/* The name of the node for @disk, or NULL */
const char *wsm_map_node_of(const WsmMapNodeList *maps, const WsmDisk *disk);

/*
 * A new map that says nothing, durably, of the disk at @path with @size bytes,
 * in place of an old one: who calls this has made sure that the disk is no
 * guest's.  The node is activated.  False, and @errp, if the node is not fit,
 * has something else, or cannot be written.
 */
bool wsm_map_node_create(const char *node, const char *path, int64_t size,
                         Error **errp);

/* See wsm_map_file_open() */
BlockBackend *wsm_map_node_open(const char *node, Error **errp);

/*
 * Read it, see wsm_map_load().  The node may be inactive.  WSM_MAP_DAMAGED if
 * it cannot be read, or there is no such node.
 */
WsmMapState wsm_map_node_load(const char *node, const WsmMapWanted *wanted,
                              WsmMapContents *out, Error **errp);

/* Nothing is left of the map, durably.  False, and @errp. */
bool wsm_map_node_clear(const char *node, Error **errp);

#endif
