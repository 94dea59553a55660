/*
 * Whole-system migration: what query-wsm and query-migrate say
 *
 * Management tools look for progress in query-migrate, as they do for QEMU's
 * own migration, and would believe that nothing happens while disks are sent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "monitor/monitor.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-types-migration.h"
#include "qapi/qapi-visit-wsm.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "migration/wsm/progress.h"
#include "migration/wsm/state.h"

static WsmInfo *wsm_info(Wsm *w)
{
    WsmInfo *info = g_new0(WsmInfo, 1);

    wsm_session_info(&w->session, info);
    if (w->source) {
        wsm_source_info(w->source, info);
    } else if (w->dest) {
        wsm_dest_info(w->dest, info);
    }
    wsm_progress_info(w, info);
    return info;
}

WsmInfo *wsm_last_info(Wsm *w)
{
    return !w->source && !w->dest && w->last ? QAPI_CLONE(WsmInfo, w->last)
                                             : wsm_info(w);
}

void wsm_remember(Wsm *w)
{
    qapi_free_WsmInfo(w->last);
    w->last = wsm_info(w);
}

void wsm_outgoing_info(MigrationInfo *mi)
{
    g_autoptr(WsmInfo) info = NULL;

    GLOBAL_STATE_CODE();
    if (!migrate_whole_system()) {
        return;
    }
    info = wsm_last_info(wsm_get());
    if (info->role != WSM_ROLE_SOURCE) {
        return;
    }
    mi->disk = g_new0(MigrationStats, 1);
    for (WsmDiskInfoList *l = info->disks; l; l = l->next) {
        mi->disk->transferred += l->value->sent;
        mi->disk->remaining += l->value->dirty;
        mi->disk->total += l->value->size;
    }
    if (info->phase == WSM_PHASE_DISK_PRECOPY ||
        info->phase == WSM_PHASE_POSTCOPY) {
        /* Disks are what is sent, at least nearly all of it */
        mi->disk->mbps = info->speed * 8.0 / 1e6;
        mi->ram->mbps = MAX(mi->ram->mbps, mi->disk->mbps);
    }
}

void wsm_outgoing_print(Monitor *mon, const MigrationStats *stats)
{
    if (stats) {
        monitor_printf(mon, "transferred disk: %" PRIu64 " kbytes\n",
                       stats->transferred / KiB);
        monitor_printf(mon, "remaining disk: %" PRIu64 " kbytes\n",
                       stats->remaining / KiB);
        monitor_printf(mon, "total disk: %" PRIu64 " kbytes\n",
                       stats->total / KiB);
    }
}
