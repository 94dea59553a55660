/*
 * Whole-system migration: QMP commands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-wsm.h"
#include "system/runstate.h"
#include "migration/wsm/dest/check.h"
#include "migration/wsm/image/guest-disk.h"
#include "migration/wsm/image/map-node.h"
#include "migration/wsm/kept.h"
#include "migration/wsm/state.h"
#include "migration/wsm/wire/message.h"

/* May this be set while a migration runs? */
static bool wsm_check_live(Wsm *w, const WsmOptions *o, Error **errp)
{
    const char *name = o->has_channels ? "channels" :
                       o->has_granularity ? "granularity" :
                       o->has_disks ? "disks" :
                       o->has_memory_references ? "memory-references" :
                       o->has_disk_packing ? "disk-packing" :
                       o->has_basis ? "basis" : NULL;

    if (w->dest && o->has_maps) {
        error_setg(errp, "Option 'maps' cannot be set while a migration to "
                   "here runs");
        return false;
    }
    if (w->source && name) {
        error_setg(errp, "Option '%s' cannot be set while a migration runs",
                   name);
        return false;
    }
    return true;
}

/* Disks can be unplugged later, so migrate looks at 'disks' once more */
static bool wsm_check_disks(const WsmOptions *o, Error **errp)
{
    g_autoptr(GArray) all = wsm_disk_list();
    g_autoptr(GPtrArray) selected = NULL;
    WsmExcludedDiskList *excluded = NULL;

    for (WsmBasisWishList *l = o->has_basis ? o->basis : NULL; l;
         l = l->next) {
        if (!wsm_disk_called(all, l->value->disk)) {
            error_setg(errp, "disk '%s' in option 'basis' is no disk of a "
                       "guest device", l->value->disk);
            return false;
        }
    }
    if (o->has_maps && !wsm_map_nodes_check(all, o->maps, errp)) {
        return false;
    }
    selected = wsm_disk_select(all, o->has_disks ? o->disks : NULL, &excluded,
                               errp);
    qapi_free_WsmExcludedDiskList(excluded);
    return selected;
}

void qmp_wsm_set_options(WsmOptions *new, Error **errp)
{
    Wsm *w = wsm_get();

    if (new->has_disk_packing && new->disk_packing &&
        !(WSM_FEATURES & WSM_FEATURE_PACKING)) {
        error_setg(errp, "Option 'disk-packing' needs zstd, without which this "
                   "QEMU was built; leave it off");
        return;
    }

    if (!wsm_options_check(new, errp) || !wsm_check_live(w, new, errp) ||
        !wsm_check_disks(new, errp)) {
        return;
    }
    if (new->has_sync_points && !w->source && !w->dest) {
        wsm_images_limit_points(&w->images, new->sync_points);
    }
    if (new->has_maps) {
        wsm_images_set_maps(&w->images, new->maps);
    }

    wsm_options_set(&w->options, new);
}

WsmOptions *qmp_query_wsm_options(Error **errp)
{
    return wsm_options_get(&wsm_get()->options);
}

WsmInfo *qmp_query_wsm(Error **errp)
{
    Wsm *w = wsm_get();
    WsmInfo *info = wsm_last_info(w);

    info->images = wsm_images_info(&w->images);
    info->kept_memory = w->keep ? wsm_keep_info(w->keep) : NULL;
    return info;
}

void qmp_wsm_adopt(bool has_disks, strList *disks, bool has_missing,
                   WsmAdoptMissing missing, Error **errp)
{
    g_autoptr(GArray) all = wsm_disk_list();
    g_autoptr(GPtrArray) selected = NULL;
    WsmExcludedDiskList *excluded = NULL;
    Wsm *w = wsm_get();

    if (runstate_is_running() || runstate_check(RUN_STATE_FINISH_MIGRATE) ||
        (runstate_check(RUN_STATE_INMIGRATE) && wsm_dest_has_begun())) {
        error_setg(errp, "wsm-adopt is for a guest that is not running; it is "
                   "in state '%s'", RunState_str(runstate_get()));
        return;
    }
    if (!w->source && wsm_session_handed_over(&w->session)) {
        error_setg(errp, "this QEMU has handed its guest over to %s; if it is "
                   "lost there, end this QEMU, start another one with these "
                   "images, and say wsm-adopt to that", w->peer);
        return;
    }
    if (!wsm_is_idle(w, errp)) {
        return;
    }
    selected = wsm_disk_select(all, has_disks ? disks : NULL, &excluded, errp);
    qapi_free_WsmExcludedDiskList(excluded);
    if (selected &&
        wsm_images_adopt(&w->images, selected,
                         has_missing ? missing : WSM_ADOPT_MISSING_REFUSE,
                         errp)) {
        wsm_kept_forget(w, selected);
    }
}
