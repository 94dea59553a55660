/*
 * Whole-system migration: one node of a ring that keeps templates
 *
 * It is asked over one connection, for many pages at a time: what is asked for
 * while the loop is busy goes out together.  A node that does not answer within
 * WSM_RING_NODE_MS, breaks the connection while it is asked, or says what is no
 * answer, is dead: its connection is closed, and it is not asked for
 * WSM_RING_DEAD_MS.  So it costs one such time in all, not one for each page.
 *
 * In the loop, unless it says otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_RING_NODE_H
#define MIGRATION_WSM_DEST_RING_NODE_H

#include "crypto/tlscreds.h"
#include "migration/wsm/core/loop.h"
#include "migration/wsm/memory/ring.h"
#include "qapi/qapi-types-sockets.h"
#include "qapi/qapi-types-wsm.h"

#define WSM_RING_NODE_MS        200
#define WSM_RING_DEAD_MS        30000

typedef struct WsmRingNode WsmRingNode;

/* What became of a page that a node was asked for */
typedef enum WsmRingGot {
    WSM_RING_HIT,               /* here it is */
    WSM_RING_MISS,              /* it has none */
    WSM_RING_DEAD,              /* it does not say */
} WsmRingGot;

/*
 * @addr, and @creds unless they are NULL, must stay as long as the node.  Main
 * thread.
 */
WsmRingNode *wsm_ring_node_new(const char *name, const SocketAddress *addr,
                               QCryptoTLSCreds *creds);

/* After the loop has ended.  Any thread. */
void wsm_ring_node_free(WsmRingNode *node);

/* Begin to connect.  @loop ends after the stop.  Main thread. */
void wsm_ring_node_start(WsmRingNode *node, WsmLoop *loop);

/* Whoever waits goes on, and no more is asked.  A bottom half in the loop. */
void wsm_ring_node_stop(WsmRingNode *node);

/*
 * Is the page of this hash there?  Then @page, of WSM_PAGE_SIZE bytes, has what
 * it says is that; nobody has looked whether it is.
 */
WsmRingGot coroutine_fn wsm_ring_node_get(WsmRingNode *node,
                                          const uint8_t *hash, void *page);

/* It may keep this page, if it is up */
void wsm_ring_node_put(WsmRingNode *node, const uint8_t *hash,
                       const void *page);

/* For query-wsm.  Any thread. */
WsmRingNodeInfo *wsm_ring_node_info(WsmRingNode *node);

#endif
