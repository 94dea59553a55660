/*
 * Whole-system migration: templates that a ring of nodes keeps
 *
 * A page is asked for at the first of the nodes that keep it, then at the next
 * one, until one has it.  With that it takes as many times WSM_RING_NODE_MS as
 * there are replicas, at most; who waits for all of it has a limit of his own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_RING_H
#define MIGRATION_WSM_DEST_RING_H

#include "migration/wsm/core/loop.h"
#include "migration/wsm/dest/ring-spec.h"

typedef struct WsmDestRing WsmDestRing;

/* Begin to connect.  @loop must not end before the stop.  Main thread. */
WsmDestRing *wsm_dest_ring_new(WsmRingSpec *spec, WsmLoop *loop);

/* Nothing is found any more, and nobody waits.  Main thread. */
void wsm_dest_ring_stop(WsmDestRing *ring);

/* After the loop has ended.  Any thread. */
void wsm_dest_ring_free(WsmDestRing *ring);

/*
 * Is the page of this hash in the ring?  Then @page, of WSM_PAGE_SIZE bytes,
 * has what a node says is that: the caller must look whether it is.  In the
 * loop; 0 or -ENOENT.
 */
int coroutine_fn wsm_dest_ring_get(WsmDestRing *ring, const uint8_t *hash,
                                   void *page);

/* For query-wsm: add the nodes to *@tail.  Any thread. */
void wsm_dest_ring_info(WsmDestRing *ring, WsmRingNodeInfoList ***tail);

#endif
