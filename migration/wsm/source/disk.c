/*
 * Whole-system migration: a disk at the source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-wsm.h"
#include "block/block_int.h"
#include "migration/wsm/image/guest-disk.h"
#include "migration/wsm/source/disk.h"
#include "migration/wsm/trace.h"

/* What is allocated of the image and its backing files; or -errno */
static int64_t wsm_source_allocated(BlockDriverState *bs)
{
    int64_t sum = 0;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    for (; bs; bs = bdrv_backing_chain_next(bs)) {
        int64_t bytes = bdrv_get_allocated_file_size(bs);

        if (bytes < 0) {
            return bytes;
        }
        sum += bytes;
    }
    return sum;
}

/* Nobody may resize the disk while we have it */
static BlockBackend *wsm_source_open_disk(BlockDriverState *bs, Error **errp)
{
    BlockBackend *blk = blk_new(bdrv_get_aio_context(bs),
                                BLK_PERM_CONSISTENT_READ,
                                BLK_PERM_ALL & ~BLK_PERM_RESIZE);

    blk_set_allow_aio_context_change(blk, true);
    if (blk_insert_bs(blk, bs, errp) < 0) {
        blk_unref(blk);
        return NULL;
    }
    return blk;
}

bool wsm_source_disk_open(WsmSourceDisk *d, BlockDriverState *bs,
                          Error *blocker, Error **errp)
{
    GLOBAL_STATE_CODE();
    d->blk = wsm_source_open_disk(bs, errp);
    if (!d->blk) {
        return false;
    }
    /* A new overlay would take writes that our bitmap does not see */
    d->bs = blk_bs(d->blk);
    d->nodes = wsm_nodes_new(d->bs, blocker);
    d->allocated = wsm_source_allocated(d->bs);
    return true;
}

int coroutine_fn wsm_source_disk_read(WsmSourceDisk *d, const WsmReq *req,
                                      void *buf, WsmMilestones *ms,
                                      WsmLoop *loop)
{
    Error *err = NULL;
    int ret = blk_co_pread(d->blk, req->offset, req->bytes, buf, 0);

    if (ret < 0) {
        trace_wsm_source_read_fail(d->name, req->offset, req->bytes, ret);
        error_setg_errno(&err, -ret, "disk '%s': cannot read 0x%" PRIx64
                         " bytes at 0x%" PRIx64, d->name, req->bytes,
                         req->offset);
        wsm_fail(ms, err);
        wsm_loop_sleep(loop, NANOSECONDS_PER_SECOND);
    }
    return ret;
}

void wsm_source_disk_sent(WsmSourceDisk *d, const WsmReq *req,
                          uint32_t packed)
{
    stat64_add(&d->packed, packed);
    stat64_add(req->kind == WSM_REQ_ZERO ? &d->zero : &d->sent, req->bytes);
    if (req->epoch) {
        stat64_add(req->pull ? &d->pulled : &d->pushed, req->bytes);
    }
}

void wsm_source_disk_compared(WsmSourceDisk *d, const WsmReq *req,
                              int64_t differ)
{
    stat64_add(&d->compared, req->bytes);
    stat64_add(&d->equal, req->bytes - differ);
    trace_wsm_source_compared(d->name, req->offset, req->bytes, differ);
}

WsmDiskInfo *wsm_source_disk_info(WsmSourceDisk *d, const WsmDiskDesc *desc,
                                  int64_t dirty, bool postcopy)
{
    WsmDiskInfo *info = g_new0(WsmDiskInfo, 1);
    const WsmBasis *basis = qatomic_load_acquire(&d->basis);

    info->name = g_strdup(d->name);
    info->path = g_strdup(desc->path);
    info->address = wsm_disk_shown_address(desc->address);
    info->size = d->size;
    info->sent = stat64_get(&d->sent);
    info->packed = stat64_get(&d->packed);
    info->zero = stat64_get(&d->zero);
    info->dirty = dirty;
    info->missing = postcopy ? info->dirty : 0;
    info->pushed = stat64_get(&d->pushed);
    info->pulled = stat64_get(&d->pulled);
    info->compared = stat64_get(&d->compared);
    info->equal = stat64_get(&d->equal);
    info->basis = basis ? QAPI_CLONE(WsmBasis, basis) : NULL;
    return info;
}
