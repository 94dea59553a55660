/*
 * Whole-system migration: what the destination's images build on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/dirty-bitmap.h"
#include "migration/wsm/dest/basis.h"
#include "migration/wsm/dest/data.h"
#include "migration/wsm/dest/say-runs.h"
#include "migration/wsm/image/bitmap-runs.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/policy/basis.h"
#include "migration/wsm/trace.h"
#include "migration/wsm/wire/payload.h"

static GArray *wsm_dest_point_descs(BlockDriverState *bs)
{
    g_autoptr(GArray) points = wsm_points_list(bs);
    GArray *descs = g_array_new(false, true, sizeof(WsmPointDesc));

    for (unsigned i = 0; i < points->len; i++) {
        WsmPoint *point = &g_array_index(points, WsmPoint, i);
        WsmPointDesc desc = {
            .id = point->id,
            .changed = wsm_points_changed_bytes(bs, &point->id),
        };

        g_array_append_val(descs, desc);
    }
    return descs;
}

/* The bits of @own: what has changed here since, or what there is to compare */
static bool wsm_dest_find_own(WsmDestDisk *disk, Error **errp)
{
    if (disk->basis->kind == WSM_BASIS_KIND_FULL) {
        return true;
    }
    disk->own = wsm_dest_disk_bitmap(disk, errp);
    if (!disk->own) {
        return false;
    }
    if (disk->basis->kind == WSM_BASIS_KIND_CONTENT) {
        wsm_data_find(disk->bs, disk->size, disk->own);
        return true;
    }
    qemu_uuid_parse(disk->basis->point, &disk->basis_point);
    return wsm_points_changed(disk->bs, &disk->basis_point, disk->own, errp);
}

bool wsm_dest_basis_choose(WsmDestDisk *disk, Error **errp)
{
    ERRP_GUARD();
    const WsmDiskDesc *desc = &disk->all->start->disk[disk->index];
    g_autoptr(GArray) ours = wsm_dest_point_descs(disk->bs);
    WsmBasisInput in = {
        .wish = desc->wish,
        .blank = wsm_data_is_blank(disk->bs, disk->size),
        .problem = disk->image->problem,
        .theirs = desc->point,
        .ntheirs = desc->npoints,
        .ours = (WsmPointDesc *)ours->data,
        .nours = ours->len,
    };

    disk->basis = wsm_basis_choose(&in, errp);
    if (!disk->basis) {
        error_prepend(errp, "disk '%s': ", desc->name);
        return false;
    }
    trace_wsm_dest_basis(disk->name, WsmBasisKind_str(disk->basis->kind),
                         disk->basis->reason);
    return wsm_dest_find_own(disk, errp);
}

static GByteArray *wsm_dest_own_runs(WsmDestDisk *disk, int64_t offset,
                                     int64_t bytes)
{
    GByteArray *runs = g_byte_array_new();

    wsm_bitmap_to_runs(disk->own, offset, bytes, disk->all->start->granularity,
                       runs);
    return runs;
}

int coroutine_fn wsm_dest_basis_say(WsmDestDisks *disks, WsmDestConn *conn)
{
    int ret = 0;

    for (unsigned i = 0; i < disks->n && ret == 0; i++) {
        WsmDestDisk *disk = &disks->disk[i];
        g_autoptr(GByteArray) payload = NULL;
        WsmBasisMsg bm = {
            .kind = disk->basis->kind,
            .point = disk->basis_point,
            .reason = disk->basis->reason,
        };
        WsmMsg msg = {
            .type = WSM_MSG_BASIS, .disk = i, .offset = bm.kind,
        };

        payload = wsm_basis_encode(&bm);
        msg.length = payload->len;
        ret = wsm_dest_conn_send(conn, &msg, payload->data);
        if (ret == 0 && disk->own) {
            ret = wsm_dest_say_runs(disk, conn, WSM_MSG_OWN, 0,
                                    wsm_dest_own_runs);
        }
    }
    return ret;
}

void wsm_dest_basis_release(WsmDestDisk *disk)
{
    if (disk->own) {
        bdrv_release_dirty_bitmap(g_steal_pointer(&disk->own));
    }
}
