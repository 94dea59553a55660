/*
 * Whole-system migration: what QEMU asks before it does something
 *
 * May the guest run, be saved in a snapshot, be migrated like this?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-misc.h"
#include "qapi/qapi-types-migration.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "migration/migration.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/section.h"
#include "migration/wsm/state.h"
#include "system/runstate.h"

/*
 * The guest's disks
 */

bool wsm_may_run(Error **errp)
{
    Wsm *w = wsm_get();

    GLOBAL_STATE_CODE();
    if (wsm_session_handed_over(&w->session)) {
        error_setg(errp, "The guest was handed over to %s and runs there",
                   w->peer);
        return false;
    }
    /* A guest that comes in is let run by whoever sends it, ... */
    if (runstate_check(RUN_STATE_INMIGRATE) ||
        /* ... and then runs here, although its images are not complete */
        (w->dest && !w->rejoin &&
         wsm_session_phase(&w->session) == WSM_PHASE_POSTCOPY)) {
        return true;
    }
    return wsm_images_check(&w->images, errp);
}

void wsm_autostart(void)
{
    Error *err = NULL;

    GLOBAL_STATE_CODE();
    qmp_cont(&err);
    if (err) {
        error_reportf_err(err, "The guest was not started: ");
    }
}

void wsm_before_close(void)
{
    GLOBAL_STATE_CODE();
    wsm_images_close(&wsm_get()->images);
}

const char *wsm_others_bitmap_name(const BdrvDirtyBitmap *bitmap)
{
    return wsm_points_is_ours(bitmap) ? NULL : bdrv_dirty_bitmap_name(bitmap);
}

bool wsm_is_idle(Wsm *w, Error **errp)
{
    GLOBAL_STATE_CODE();
    if (w->source || w->dest) {
        error_setg(errp, "a whole-system migration has not ended yet; wait "
                   "for it or cancel it");
        return false;
    }
    return true;
}

/*
 * Snapshots
 */

/* What both sides agreed on, and what is there of it, must stay as it is */
static bool wsm_has_ended(const char *what, Error **errp)
{
    Wsm *w = wsm_get();

    if (w && (w->source || w->dest || w->follows)) {
        error_setg(errp, "%s: a whole-system migration has not ended yet; wait "
                   "for it or cancel it", what);
        return false;
    }
    return true;
}

bool wsm_may_snapshot(Error **errp)
{
    GLOBAL_STATE_CODE();
    if (!wsm_has_ended("No snapshots now", errp)) {
        return false;
    }
    /* Its stream would be refused, but only when the disks were changed */
    if (migrate_whole_system()) {
        error_setg(errp, "Capability 'whole-system' does not go together with "
                   "snapshots; switch it off first");
        return false;
    }
    return true;
}

void wsm_stop_to_load(void)
{
    GLOBAL_STATE_CODE();
    if (wsm_may_snapshot(NULL)) {
        vm_stop(RUN_STATE_RESTORE_VM);
    }
}

/*
 * Migrations
 */

bool wsm_caps_check(const bool *new_caps, Error **errp)
{
    static const MigrationCapability conflicts[] = {
        MIGRATION_CAPABILITY_X_COLO,
        MIGRATION_CAPABILITY_BACKGROUND_SNAPSHOT,
        MIGRATION_CAPABILITY_MAPPED_RAM,
        /* The source may take the guest back after its memory was sent */
        MIGRATION_CAPABILITY_RELEASE_RAM,
    };

    GLOBAL_STATE_CODE();
    if (memcmp(new_caps, migrate_get_current()->capabilities,
               sizeof(migrate_get_current()->capabilities)) &&
        !wsm_has_ended("Capabilities cannot be changed now", errp)) {
        return false;
    }
    if (!new_caps[MIGRATION_CAPABILITY_WHOLE_SYSTEM]) {
        return true;
    }
    for (size_t i = 0; i < ARRAY_SIZE(conflicts); i++) {
        if (new_caps[conflicts[i]]) {
            error_setg(errp, "Capabilities 'whole-system' and '%s' do not go "
                       "together; switch one of them off",
                       MigrationCapability_str(conflicts[i]));
            return false;
        }
    }
    if (new_caps[MIGRATION_CAPABILITY_POSTCOPY_PREEMPT]) {
        /* libvirt switches it on wherever it is offered */
        warn_report_once("Capability 'postcopy-preempt' has no effect together "
                         "with 'whole-system'");
    }
    /* With -global, this comes before wsm_mig_init() */
    if (wsm_get()) {
        wsm_sections_register(wsm_get());
    }
    return true;
}
