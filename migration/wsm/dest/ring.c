/*
 * Whole-system migration: templates that a ring of nodes keeps
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "qemu/main-loop.h"
#include "migration/wsm/dest/ring-node.h"
#include "migration/wsm/dest/ring.h"
#include "migration/wsm/memory/tag.h"

struct WsmDestRing {
    /* Set in new, never changed */
    WsmLoop *loop;
    WsmRingSpec *spec;          /* reference */
    uint64_t seed[WSM_RING_MAX_NODES];
    WsmRingNode *node[WSM_RING_MAX_NODES];
};

WsmDestRing *wsm_dest_ring_new(WsmRingSpec *spec, WsmLoop *loop)
{
    WsmDestRing *ring = g_new0(WsmDestRing, 1);

    GLOBAL_STATE_CODE();
    ring->loop = loop;
    ring->spec = wsm_ring_spec_ref(spec);
    for (unsigned i = 0; i < spec->nodes; i++) {
        ring->seed[i] = wsm_ring_seed(spec->name[i]);
        ring->node[i] = wsm_ring_node_new(spec->name[i], spec->addr[i],
                                          spec->creds);
        wsm_ring_node_start(ring->node[i], loop);
    }
    return ring;
}

static void wsm_dest_ring_stop_bh(void *opaque)
{
    WsmDestRing *ring = opaque;

    for (unsigned i = 0; i < ring->spec->nodes; i++) {
        wsm_ring_node_stop(ring->node[i]);
    }
}

void wsm_dest_ring_stop(WsmDestRing *ring)
{
    GLOBAL_STATE_CODE();
    aio_wait_bh_oneshot(ring->loop->ctx, wsm_dest_ring_stop_bh, ring);
}

void wsm_dest_ring_free(WsmDestRing *ring)
{
    for (unsigned i = 0; i < ring->spec->nodes; i++) {
        wsm_ring_node_free(ring->node[i]);
    }
    wsm_ring_spec_unref(ring->spec);
    g_free(ring);
}

/* Is it what a node may keep by this hash? */
static bool wsm_dest_ring_is_true(const uint8_t *hash, const void *page)
{
    uint8_t own[WSM_HASH_SIZE];

    wsm_page_hash(page, own);
    return memcmp(own, hash, sizeof(own)) == 0;
}

/* The @missed were asked and do not have it */
static void wsm_dest_ring_repair(WsmDestRing *ring, WsmRingNode **missed,
                                 unsigned n, const uint8_t *hash,
                                 const void *page)
{
    if (!n || !ring->spec->repair || !wsm_dest_ring_is_true(hash, page)) {
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        wsm_ring_node_put(missed[i], hash, page);
    }
}

int coroutine_fn wsm_dest_ring_get(WsmDestRing *ring, const uint8_t *hash,
                                   void *page)
{
    WsmRingNode *missed[WSM_RING_MAX_REPLICAS];
    unsigned choice[WSM_RING_MAX_REPLICAS], n_missed = 0;
    unsigned n = wsm_ring_choose(ring->seed, ring->spec->nodes, hash, choice,
                                 ring->spec->replicas);

    for (unsigned i = 0; i < n; i++) {
        WsmRingNode *node = ring->node[choice[i]];

        switch (wsm_ring_node_get(node, hash, page)) {
        case WSM_RING_HIT:
            wsm_dest_ring_repair(ring, missed, n_missed, hash, page);
            return 0;
        case WSM_RING_MISS:
            missed[n_missed++] = node;
            break;
        case WSM_RING_DEAD:
            break;
        }
    }
    return -ENOENT;
}

void wsm_dest_ring_info(WsmDestRing *ring, WsmRingNodeInfoList ***tail)
{
    for (unsigned i = 0; i < ring->spec->nodes; i++) {
        QAPI_LIST_APPEND(*tail, wsm_ring_node_info(ring->node[i]));
    }
}
