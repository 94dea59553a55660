/*
 * Whole-system migration: its disks in query-migrate
 *
 * Management tools look there, as they do for QEMU's own migration, and would
 * believe that nothing happens while disks are sent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "monitor/monitor.h"
#include "qapi/qapi-types-migration.h"
#include "qemu/units.h"
#include "migration/wsm.h"
#include "migration/wsm/state.h"

void wsm_outgoing_info(MigrationInfo *mi)
{
    g_autoptr(WsmInfo) info = NULL;

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
