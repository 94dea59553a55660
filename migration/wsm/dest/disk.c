/*
 * Whole-system migration: the disks at the destination, and their filters
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-wsm.h"
#include "block/block.h"
#include "block/block-io.h"
#include "block/dirty-bitmap.h"
#include "migration/wsm/dest/disk.h"
#include "migration/wsm/trace.h"
#include "migration/wsm/wire/runs.h"
#include "migration/wsm/wire/start.h"

/*
 * The filter's callbacks: any thread
 */

static void wsm_dest_say_range(WsmDestDisk *disk, WsmMsgType type,
                               int64_t offset, int64_t bytes)
{
    while (bytes) {
        WsmMsg msg = {
            .type = type,
            .disk = disk->index,
            .epoch = 1,
            .offset = offset,
            .bytes = MIN(bytes, WSM_MAX_ZERO),
        };

        wsm_dest_say(disk->all->control, &msg);
        offset += msg.bytes;
        bytes -= msg.bytes;
    }
}

static void wsm_dest_pull(void *opaque, int64_t offset, int64_t bytes)
{
    wsm_dest_say_range(opaque, WSM_MSG_PULL, offset, bytes);
}

static void wsm_dest_have(void *opaque, int64_t offset, int64_t bytes)
{
    wsm_dest_say_range(opaque, WSM_MSG_HAVE, offset, bytes);
}

static void wsm_dest_complete(void *opaque)
{
    WsmDestDisk *disk = opaque;
    WsmDestDisks *disks = disk->all;

    trace_wsm_dest_complete(disk->name);
    if (qatomic_dec_fetch(&disks->incomplete) == 0) {
        disks->complete(disks->opaque);
    }
}

/*
 * Start and end
 */

void wsm_dest_disks_init(WsmDestDisks *disks, WsmOptionsStore *options,
                         WsmImages *images, const WsmStart *start, char *peer)
{
    *disks = (WsmDestDisks) {
        .options = options,
        .images = images,
        .start = start,
        .peer = peer,
        .disk = g_new0(WsmDestDisk, start->ndisks),
        .incomplete = start->ndisks,
    };
    error_setg(&disks->blocker, "the disk's contents have not arrived yet; "
               "wait until query-wsm says 'completed'");
}

void wsm_dest_disks_connect(WsmDestDisks *disks, WsmDestLife *life,
                            WsmDestControl *control, QEMUBHFunc *complete,
                            void *opaque)
{
    disks->life = life;
    disks->control = control;
    disks->complete = complete;
    disks->opaque = opaque;
}

void wsm_dest_disks_destroy(WsmDestDisks *disks)
{
    for (unsigned i = 0; i < disks->n; i++) {
        g_free(disks->disk[i].name);
        g_free(disks->disk[i].path);
        g_free(disks->disk[i].address);
        qapi_free_WsmBasis(disks->disk[i].basis);
    }
    g_free(disks->disk);
    g_free(disks->peer);
    error_free(disks->blocker);
}

WsmDestDisk *wsm_dest_disks_add(WsmDestDisks *disks, const WsmDisk *ours)
{
    WsmDestDisk *disk = &disks->disk[disks->n];

    GLOBAL_STATE_CODE();
    disk->all = disks;
    disk->index = disks->n;
    disk->size = disks->start->disk[disks->n].size;
    disk->name = g_strdup(ours->name);
    disk->path = g_strdup(ours->path);
    disk->address = g_strdup(ours->address);
    disks->n++;
    return disk;
}

bool wsm_dest_disk_open(WsmDestDisk *disk, BlockDriverState *bs, Error **errp)
{
    WsmDestDisks *disks = disk->all;

    disk->ops.pull = wsm_dest_pull;
    disk->ops.have = wsm_dest_have;
    disk->ops.complete = wsm_dest_complete;
    disk->filter = bdrv_pull_append(bs, disks->start->granularity,
                                    &disk->ops, disk, errp);
    if (!disk->filter) {
        error_prepend(errp, "disk '%s': destination: ",
                      disks->start->disk[disk->index].name);
        return false;
    }
    disk->nodes = wsm_nodes_new(disk->filter, disks->blocker);
    disk->written = bdrv_create_dirty_bitmap(disk->filter,
                                             disks->start->granularity, NULL,
                                             errp);
    return disk->written;
}

void wsm_dest_disk_close(WsmDestDisk *disk)
{
    assert(!wsm_life_has_filters(disk->all->life));
    if (disk->written) {
        bdrv_release_dirty_bitmap(g_steal_pointer(&disk->written));
    }
    wsm_nodes_free(g_steal_pointer(&disk->nodes));
    bdrv_pull_get_stats(disk->filter, &disk->last);
    bdrv_pull_drop(g_steal_pointer(&disk->filter));
}

BdrvDirtyBitmap *wsm_dest_disk_bitmap(WsmDestDisk *disk, Error **errp)
{
    BdrvDirtyBitmap *bitmap =
        bdrv_create_dirty_bitmap(disk->bs, disk->all->start->granularity, NULL,
                                 errp);

    if (bitmap) {
        bdrv_disable_dirty_bitmap(bitmap);
    }
    return bitmap;
}

int coroutine_fn wsm_dest_disk_read(void *opaque, int64_t offset,
                                    int64_t bytes, void *buf)
{
    WsmDestDisk *disk = opaque;
    bool zero = false;
    int ret;

    if (!wsm_life_has_filters(disk->all->life)) {
        return -ECANCELED;
    }
    ret = bdrv_pull_read(disk->filter, offset, bytes, buf, &zero);
    if (ret >= 0 && zero) {
        memset(buf, 0, bytes);
    }
    return ret;
}

/*
 * What is missing
 */

int64_t wsm_dest_disks_missing(WsmDestDisks *disks)
{
    int64_t missing = 0;

    for (unsigned i = 0; i < disks->n && wsm_life_has_filters(disks->life);
         i++) {
        BdrvPullStats stats;

        bdrv_pull_get_stats(disks->disk[i].filter, &stats);
        missing += stats.missing;
    }
    return missing;
}

static void wsm_dest_run_is_missing(void *opaque, int64_t offset, int64_t bytes)
{
    bdrv_pull_set_missing(opaque, offset, bytes);
}

bool wsm_dest_disk_set_missing(WsmDestDisk *disk, const uint8_t *runs,
                               size_t size, Error **errp)
{
    return wsm_runs_for_each(runs, size, disk->size,
                             disk->all->start->granularity,
                             wsm_dest_run_is_missing, disk->filter, errp);
}

bool wsm_dest_disks_seal(WsmDestDisks *disks, Error **errp)
{
    for (unsigned i = 0; i < disks->n; i++) {
        int ret = bdrv_pull_seal(disks->disk[i].filter);

        if (ret < 0) {
            error_setg_errno(errp, -ret, "disk '%s': blocks are still being "
                             "written", disks->disk[i].name);
            return false;
        }
    }
    wsm_life_enter(disks->life, WSM_LIFE_SEALED);
    return true;
}

void wsm_dest_disks_repeat(WsmDestDisks *disks)
{
    for (unsigned i = 0; i < disks->n && wsm_life_has_filters(disks->life);
         i++) {
        bdrv_pull_repeat(disks->disk[i].filter);
    }
}

int coroutine_fn wsm_dest_disks_flush(WsmDestDisks *disks)
{
    int ret = 0;

    for (unsigned i = 0; i < disks->n && ret == 0; i++) {
        GRAPH_RDLOCK_GUARD();
        /* The filter may be gone by now */
        ret = bdrv_co_flush(disks->disk[i].bs);
        if (ret < 0) {
            trace_wsm_dest_flush_fail(disks->disk[i].name, ret);
        }
    }
    return ret;
}

int64_t wsm_dest_disks_unmarked(WsmDestDisks *disks)
{
    int64_t unmarked = 0;

    for (unsigned i = 0; i < disks->n && wsm_life_has_filters(disks->life);
         i++) {
        BdrvPullStats stats;

        bdrv_pull_get_stats(disks->disk[i].filter, &stats);
        unmarked += stats.unmarked;
    }
    return unmarked;
}

int coroutine_fn wsm_dest_disks_checkpoint(WsmDestDisks *disks)
{
    int ret = 0;

    for (unsigned i = 0; i < disks->n && ret == 0; i++) {
        WsmDestDisk *disk = &disks->disk[i];

        ret = wsm_life_has_filters(disks->life)
              ? bdrv_pull_checkpoint(disk->filter) : -ECANCELED;
        if (ret < 0) {
            trace_wsm_dest_flush_fail(disk->name, ret);
        }
    }
    return ret;
}

/*
 * What query-wsm tells
 */

static BdrvPullStats wsm_dest_disk_stats(WsmDestDisk *disk)
{
    BdrvPullStats stats = disk->last;

    if (disk->filter) {
        bdrv_pull_get_stats(disk->filter, &stats);
    }
    return stats;
}

void wsm_dest_disks_sample(WsmDestDisks *disks, WsmSample *out)
{
    for (unsigned i = 0; i < disks->n; i++) {
        out->data += stat64_get(&disks->disk[i].received);
        out->dirty += wsm_dest_disk_stats(&disks->disk[i]).missing;
    }
}

static WsmDiskInfo *wsm_dest_disk_info(WsmDestDisk *disk)
{
    WsmDiskInfo *info = g_new0(WsmDiskInfo, 1);
    BdrvPullStats stats = wsm_dest_disk_stats(disk);

    info->name = g_strdup(disk->name);
    info->path = g_strdup(disk->path);
    info->address = wsm_disk_shown_address(disk->address);
    info->size = disk->size;
    info->sent = stat64_get(&disk->received);
    info->packed = stat64_get(&disk->packed);
    info->zero = stat64_get(&disk->zero);
    info->skipped = stat64_get(&disk->skipped);
    info->missing = stats.missing;
    info->pushed = stats.pushed;
    info->pulled = stats.pulled;
    info->waiting_reads = stats.waiting;
    info->compared = stat64_get(&disk->compared);
    info->basis = disk->basis ? QAPI_CLONE(WsmBasis, disk->basis) : NULL;
    return info;
}

void wsm_dest_disks_info(WsmDestDisks *disks, WsmInfo *info)
{
    for (int i = disks->n - 1; i >= 0; i--) {
        QAPI_LIST_PREPEND(info->disks, wsm_dest_disk_info(&disks->disk[i]));
    }
}
