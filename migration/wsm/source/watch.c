/*
 * Whole-system migration: what changes around the disks while they move
 *
 * Op blockers and permissions keep most of it out.  A medium that is inserted,
 * another node that is put below a device, an export: these cannot be kept
 * out.  They are found within a second, not in the freeze after hours.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/wsm/image/busy.h"
#include "migration/wsm/source/watch.h"

#define WSM_WATCH_NS            NANOSECONDS_PER_SECOND

static WsmSourceDisk *wsm_source_find_disk(WsmSource *s, BlockDriverState *bs)
{
    for (unsigned i = 0; i < s->ndisks; i++) {
        if (s->disk[i].bs == bs) {
            return &s->disk[i];
        }
    }
    return NULL;
}

/* Each disk of the guest that should move does */
static bool wsm_source_all_move(WsmSource *s, const GPtrArray *moving,
                                Error **errp)
{
    for (unsigned i = 0; i < moving->len; i++) {
        const WsmDisk *disk = g_ptr_array_index(moving, i);

        if (!wsm_source_find_disk(s, blk_bs(disk->blk))) {
            error_setg(errp, "disk '%s': node '%s' was inserted during "
                       "migration and is not copied; remove it, or begin the "
                       "migration again", disk->name,
                       bdrv_get_node_name(blk_bs(disk->blk)));
            return false;
        }
    }
    return true;
}

/* Each disk that moves is still the guest's, and what it was */
static bool wsm_source_all_there_still(WsmSource *s, const GPtrArray *moving,
                                       Error **errp)
{
    for (unsigned i = 0; i < s->ndisks; i++) {
        WsmSourceDisk *d = &s->disk[i];
        bool found = false;

        for (unsigned j = 0; j < moving->len && !found; j++) {
            const WsmDisk *disk = g_ptr_array_index(moving, j);

            found = blk_bs(disk->blk) == d->bs;
        }
        if (!found || !wsm_nodes_unchanged(d->nodes)) {
            error_setg(errp, "disk '%s': its block graph was changed during "
                       "migration", d->name);
            return false;
        }
    }
    return true;
}

bool wsm_source_look(WsmSource *s, Error **errp)
{
    g_autoptr(GArray) all = wsm_disk_list();
    g_autoptr(GPtrArray) moving = NULL;
    WsmExcludedDiskList *excluded = NULL;

    moving = wsm_disk_select(all, s->options->options->disks, &excluded, errp);
    qapi_free_WsmExcludedDiskList(s->excluded);
    s->excluded = excluded;
    return moving && wsm_source_all_move(s, moving, errp) &&
           wsm_source_all_there_still(s, moving, errp) &&
           wsm_busy_check(moving, errp);
}

void wsm_source_watch(WsmSource *s)
{
    Error *err = NULL;

    if (wsm_now() < s->watch_ns) {
        return;
    }
    bql_lock();
    if (!s->stopped) {
        wsm_source_look(s, &err);
    }
    bql_unlock();
    s->watch_ns = wsm_now() + WSM_WATCH_NS;
    if (err) {
        wsm_fail(&s->milestones, err);
    }
}
