/*
 * Whole-system migration: all block nodes of a guest's disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block_int.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/nodes.h"

struct WsmNodes {
    GPtrArray *bs;              /* of BlockDriverState, with references */
    Error *reason;              /* not owned */
};

static void GRAPH_RDLOCK wsm_nodes_collect(GPtrArray *list,
                                           BlockDriverState *bs)
{
    BdrvChild *child;

    if (g_ptr_array_find(list, bs, NULL)) {
        return;
    }
    g_ptr_array_add(list, bs);
    QLIST_FOREACH(child, &bs->children, next) {
        wsm_nodes_collect(list, child->bs);
    }
}

GPtrArray *wsm_nodes_list(BlockDriverState *top)
{
    GPtrArray *list = g_ptr_array_new();

    GLOBAL_STATE_CODE();
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    wsm_nodes_collect(list, top);
    return list;
}

static WsmNodes *wsm_nodes_block(BlockDriverState *top, Error *reason,
                                 const BlockOpType *ops, size_t n)
{
    WsmNodes *nodes = g_new(WsmNodes, 1);

    nodes->bs = wsm_nodes_list(top);
    nodes->reason = reason;
    for (unsigned i = 0; i < nodes->bs->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(nodes->bs, i);

        bdrv_ref(bs);
        if (!n) {
            bdrv_op_block_all(bs, reason);
        }
        for (size_t j = 0; j < n; j++) {
            bdrv_op_block(bs, ops[j], reason);
        }
    }
    return nodes;
}

WsmNodes *wsm_nodes_new(BlockDriverState *top, Error *reason)
{
    GLOBAL_STATE_CODE();
    return wsm_nodes_block(top, reason, NULL, 0);
}

WsmNodes *wsm_nodes_new_jobs(BlockDriverState *top, Error *reason)
{
    static const BlockOpType jobs[] = {
        BLOCK_OP_TYPE_BACKUP_SOURCE, BLOCK_OP_TYPE_BACKUP_TARGET,
        BLOCK_OP_TYPE_COMMIT_SOURCE, BLOCK_OP_TYPE_COMMIT_TARGET,
        BLOCK_OP_TYPE_MIRROR_SOURCE, BLOCK_OP_TYPE_MIRROR_TARGET,
        BLOCK_OP_TYPE_STREAM,
    };

    GLOBAL_STATE_CODE();
    return wsm_nodes_block(top, reason, jobs, ARRAY_SIZE(jobs));
}

bool wsm_nodes_unchanged(const WsmNodes *nodes)
{
    g_autoptr(GPtrArray) now =
        wsm_nodes_list(g_ptr_array_index(nodes->bs, 0));

    GLOBAL_STATE_CODE();
    return now->len == nodes->bs->len &&
           !memcmp(now->pdata, nodes->bs->pdata,
                   now->len * sizeof(now->pdata[0]));
}

bool wsm_nodes_below(BlockDriverState *top, const BlockDriverState *bs)
{
    g_autoptr(GPtrArray) list = wsm_nodes_list(top);

    GLOBAL_STATE_CODE();
    return g_ptr_array_find(list, bs, NULL);
}

void wsm_nodes_foreach_leaf(const WsmNodes *nodes,
                            void (*fn)(BlockDriverState *bs, void *opaque),
                            void *opaque)
{
    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < nodes->bs->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(nodes->bs, i);
        bool leaf;

        bdrv_graph_rdlock_main_loop();
        leaf = QLIST_EMPTY(&bs->children);
        bdrv_graph_rdunlock_main_loop();
        if (leaf) {
            fn(bs, opaque);
        }
    }
}

void wsm_nodes_free(WsmNodes *nodes)
{
    GLOBAL_STATE_CODE();
    if (!nodes) {
        return;
    }
    for (unsigned i = 0; i < nodes->bs->len; i++) {
        bdrv_op_unblock_all(g_ptr_array_index(nodes->bs, i), nodes->reason);
        bdrv_unref(g_ptr_array_index(nodes->bs, i));
    }
    g_ptr_array_unref(nodes->bs);
    g_free(nodes);
}
