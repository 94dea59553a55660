/*
 * Whole-system migration: who would make the freeze fail
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-block-export.h"
#include "block/block_int.h"
#include "block/blockjob.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/busy.h"
#include "migration/wsm/image/guest-disk.h"
#include "migration/wsm/image/nodes.h"

/* The nodes that @job uses, for people */
static char *wsm_busy_job_nodes(BlockJob *job)
{
    GString *names = g_string_new(NULL);

    for (GSList *l = job->nodes; l; l = l->next) {
        BdrvChild *child = l->data;

        g_string_append_printf(names, "%s'%s'", names->len ? ", " : "",
                               bdrv_get_node_name(child->bs));
    }
    return g_string_free(names, FALSE);
}

static bool wsm_busy_job_uses(BlockJob *job, const GPtrArray *moving)
{
    for (GSList *l = job->nodes; l; l = l->next) {
        BdrvChild *child = l->data;

        for (unsigned i = 0; i < moving->len; i++) {
            const WsmDisk *disk = g_ptr_array_index(moving, i);

            if (wsm_nodes_below(blk_bs(disk->blk), child->bs)) {
                return true;
            }
        }
    }
    return false;
}

/* Called with the job mutex */
static bool wsm_busy_check_job(BlockJob *job, const GPtrArray *moving,
                               Error **errp)
{
    g_autofree char *nodes = NULL;

    if (job->job.status >= JOB_STATUS_CONCLUDED ||
        (job_type(&job->job) == JOB_TYPE_MIRROR &&
         !wsm_busy_job_uses(job, moving))) {
        return true;
    }
    nodes = wsm_busy_job_nodes(job);
    error_setg(errp, "block job '%s' (%s) uses node %s and would make the "
               "handover fail; wait until it has ended, or cancel it",
               job->job.id, job_type_str(&job->job), nodes);
    return false;
}

/* The export that uses @node, or NULL.  Free with g_free(). */
static char *wsm_busy_export(const char *node)
{
    BlockExportInfoList *list = qmp_query_block_exports(NULL);
    char *id = NULL;

    for (BlockExportInfoList *e = list; e && !id; e = e->next) {
        if (!strcmp(e->value->node_name, node)) {
            id = g_strdup(e->value->id);
        }
    }
    qapi_free_BlockExportInfoList(list);
    return id;
}

static bool wsm_busy_check_blk(BlockBackend *blk, Error **errp)
{
    g_autofree char *export = NULL;
    const char *node;

    if (!blk_bs(blk) || blk_can_inactivate(blk)) {
        return true;
    }
    node = bdrv_get_node_name(blk_bs(blk));
    export = wsm_busy_export(node);
    if (export) {
        error_setg(errp, "export '%s' may write to node '%s' and would make "
                   "the handover fail; remove it, or make it with "
                   "'allow-inactive'", export, node);
    } else {
        error_setg(errp, "something that is no device of the guest may write "
                   "to node '%s' and would make the handover fail; end it",
                   node);
    }
    return false;
}

/* It writes to its target even if nobody writes to it */
static bool wsm_busy_check_node(BlockDriverState *bs, Error **errp)
{
    BdrvChild *child;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    if (!bs->drv || strcmp(bs->drv->format_name, "copy-before-write")) {
        return true;
    }
    QLIST_FOREACH(child, &bs->children, next) {
        if (!(child->role & BDRV_CHILD_FILTERED)) {
            error_setg(errp, "node '%s' (copy-before-write) may write to node "
                       "'%s' and would make the handover fail; remove it",
                       bdrv_get_node_name(bs), bdrv_get_node_name(child->bs));
            return false;
        }
    }
    return true;
}

static bool wsm_busy_check_jobs(const GPtrArray *moving, Error **errp)
{
    BlockJob *job = NULL;

    JOB_LOCK_GUARD();
    while ((job = block_job_next_locked(job))) {
        if (!wsm_busy_check_job(job, moving, errp)) {
            return false;
        }
    }
    return true;
}

bool wsm_busy_check(const GPtrArray *moving, Error **errp)
{
    BlockDriverState *bs;
    BlockBackend *blk;

    GLOBAL_STATE_CODE();
    if (!wsm_busy_check_jobs(moving, errp)) {
        return false;
    }
    for (blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        if (!wsm_busy_check_blk(blk, errp)) {
            return false;
        }
    }
    for (bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        if (!wsm_busy_check_node(bs, errp)) {
            return false;
        }
    }
    return true;
}
