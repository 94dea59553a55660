/*
 * Whole-system migration: all block nodes of a guest's disk
 *
 * While a disk moves, its nodes stay as they are: the top one because our
 * bitmap, or our filter, is there, and those below because a snapshot there
 * would take writes to another file, and a job read what is not complete.
 *
 * Main thread with the BQL, unless it says otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_NODES_H
#define MIGRATION_WSM_IMAGE_NODES_H

#include "block/block.h"

typedef struct WsmNodes WsmNodes;

/*
 * Take @top and all nodes below it, backing files too.  No block job, snapshot
 * or resize can begin on any of them until wsm_nodes_free(); their error has
 * @reason, which the caller keeps until then.
 */
WsmNodes *wsm_nodes_new(BlockDriverState *top, Error *reason);

/* The same for block jobs only */
WsmNodes *wsm_nodes_new_jobs(BlockDriverState *top, Error *reason);

/* Are these still the nodes, in the same places? */
bool wsm_nodes_unchanged(const WsmNodes *nodes);

/* @top and all below it, each once, parents first; no references */
GPtrArray *wsm_nodes_list(BlockDriverState *top);

/* Is @bs the node @top, or below it? */
bool wsm_nodes_below(BlockDriverState *top, const BlockDriverState *bs);

/* @nodes may be NULL */
void wsm_nodes_free(WsmNodes *nodes);

/* Call @fn for each that has no node below it: a file, a device, a server */
void wsm_nodes_foreach_leaf(const WsmNodes *nodes,
                            void (*fn)(BlockDriverState *bs, void *opaque),
                            void *opaque);

#endif
