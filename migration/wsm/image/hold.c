/*
 * Whole-system migration: the source's images stay locked in post-copy
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/block_int.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/hold.h"

struct WsmHold {
    const char *name;           /* of the disk */
    const bool *handed_over;    /* atomic */
    GPtrArray *leaves;          /* of WsmHoldLeaf */
    bool ending;
};

typedef struct WsmHoldLeaf {
    WsmHold *hold;
    BlockDriverState *bs;       /* of @child, before it is attached, too */
    BdrvChild *child;
    bool tight;                 /* others may not write */
} WsmHoldLeaf;

static char *wsm_hold_get_parent_desc(BdrvChild *child)
{
    WsmHoldLeaf *leaf = child->opaque;

    return g_strdup_printf("the migration of disk '%s'", leaf->hold->name);
}

/* We do no I/O of our own and follow the node wherever it goes */
static AioContext *wsm_hold_get_parent_aio_context(BdrvChild *child)
{
    WsmHoldLeaf *leaf = child->opaque;

    return bdrv_get_aio_context(leaf->bs);
}

static bool wsm_hold_change_aio_ctx(BdrvChild *child, AioContext *ctx,
                                    GHashTable *visited, Transaction *tran,
                                    Error **errp)
{
    return true;
}

/*
 * The parents that write give it up one after the other.  If the guest's
 * device uses this node directly it may come after us: let it go first.
 */
static int GRAPH_RDLOCK wsm_hold_inactivate(BdrvChild *child)
{
    WsmHoldLeaf *leaf = child->opaque;
    Error *err = NULL;
    BdrvChild *other;

    if (leaf->tight || leaf->hold->ending) {
        return 0;
    }
    QLIST_FOREACH(other, &leaf->bs->parents, next_parent) {
        if (other != child && other->klass->inactivate &&
            other->klass->inactivate(other) < 0) {
            /* It is asked again, and then this is an error */
            return 0;
        }
    }
    if (bdrv_child_try_set_perm(child, BLK_PERM_CONSISTENT_READ,
                                BLK_PERM_ALL & ~(BLK_PERM_WRITE |
                                                 BLK_PERM_RESIZE),
                                &err) < 0) {
        warn_reportf_err(err, "disk '%s': its image is not locked while the "
                         "destination reads from it: ", leaf->hold->name);
        return 0;
    }
    leaf->tight = true;
    return 0;
}

static void GRAPH_RDLOCK wsm_hold_activate(BdrvChild *child, Error **errp)
{
    WsmHoldLeaf *leaf = child->opaque;

    if (!leaf->hold->ending && qatomic_read(leaf->hold->handed_over)) {
        error_setg(errp, "the guest was handed over to another host, which "
                   "still needs the image of disk '%s'; wait until query-wsm "
                   "says 'completed'", leaf->hold->name);
        return;
    }
    if (leaf->tight) {
        /* To share more does not fail */
        bdrv_child_try_set_perm(child, 0, BLK_PERM_ALL, &error_abort);
        leaf->tight = false;
    }
}

static const BdrvChildClass wsm_hold_class = {
    .get_parent_desc = wsm_hold_get_parent_desc,
    .get_parent_aio_context = wsm_hold_get_parent_aio_context,
    .change_aio_ctx = wsm_hold_change_aio_ctx,
    .activate = wsm_hold_activate,
    .inactivate = wsm_hold_inactivate,
    .stay_at_node = true,
};

static void wsm_hold_add(BlockDriverState *bs, void *opaque)
{
    WsmHold *hold = opaque;
    WsmHoldLeaf *leaf = g_new0(WsmHoldLeaf, 1);

    leaf->hold = hold;
    leaf->bs = bs;
    bdrv_ref(bs);
    bdrv_graph_wrlock();
    /* It asks for nothing and shares all, so it cannot fail */
    leaf->child = bdrv_root_attach_child(bs, "wsm-hold", &wsm_hold_class, 0, 0,
                                         BLK_PERM_ALL, leaf, &error_abort);
    bdrv_graph_wrunlock();
    g_ptr_array_add(hold->leaves, leaf);
}

WsmHold *wsm_hold_new(const WsmNodes *nodes, const char *name,
                      const bool *handed_over)
{
    WsmHold *hold = g_new0(WsmHold, 1);

    GLOBAL_STATE_CODE();
    hold->name = name;
    hold->handed_over = handed_over;
    hold->leaves = g_ptr_array_new_with_free_func(g_free);
    wsm_nodes_foreach_leaf(nodes, wsm_hold_add, hold);
    return hold;
}

void wsm_hold_end(WsmHold *hold)
{
    GLOBAL_STATE_CODE();
    hold->ending = true;
}

/* An inactive node keeps its locks whatever its parents say: wake it up */
static void wsm_hold_release(WsmHoldLeaf *leaf)
{
    BlockDriverState *bs = leaf->bs;
    bool again = leaf->tight;
    Error *err = NULL;

    bdrv_ref(bs);
    if (again) {
        GRAPH_RDLOCK_GUARD_MAINLOOP();
        if (bdrv_activate(bs, &err) < 0) {
            warn_reportf_err(err, "disk '%s': its image stays locked: ",
                             leaf->hold->name);
            again = false;
        }
    }
    bdrv_graph_wrlock();
    bdrv_root_unref_child(leaf->child);
    bdrv_graph_wrunlock();
    if (again) {
        bdrv_inactivate(bs, NULL);
    }
    bdrv_unref(bs);
}

void wsm_hold_free(WsmHold *hold)
{
    GLOBAL_STATE_CODE();
    if (!hold) {
        return;
    }
    wsm_hold_end(hold);
    for (unsigned i = 0; i < hold->leaves->len; i++) {
        wsm_hold_release(g_ptr_array_index(hold->leaves, i));
    }
    g_ptr_array_unref(hold->leaves);
    g_free(hold);
}
