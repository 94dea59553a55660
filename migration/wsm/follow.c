/*
 * Whole-system migration: the destination has the capability if the source has
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "migration/migration.h"
#include "migration/qemu-file.h"
#include "migration/wsm/give-up.h"
#include "migration/wsm/link/block-channel.h"
#include "migration/wsm/section.h"
#include "migration/wsm/state.h"

/* Even if that cannot be: what is wrong is then said on block channels */
static bool wsm_incoming_switch_on(Wsm *w, Error **errp)
{
    ERRP_GUARD();
    MigrationIncomingState *mis = migration_incoming_get_current();
    bool *caps = migrate_get_current()->capabilities;

    w->follows = true;
    caps[MIGRATION_CAPABILITY_WHOLE_SYSTEM] = true;
    wsm_sections_register(w);
    wsm_keep_alive(qemu_file_get_ioc(mis->from_src_file));
    /* Of all transports only sockets that listen have something there */
    if (!mis->transport_data) {
        error_setg(errp, "Capability 'whole-system' is on at the source and "
                   "opens more connections, so the destination must listen: "
                   "use 'tcp:', 'unix:' or 'vsock:'");
        return false;
    }
    if (!wsm_caps_check(caps, errp)) {
        error_prepend(errp, "the source has switched on 'whole-system': ");
        return false;
    }
    return true;
}

int wsm_incoming_follow(const MigrationCapability *caps, uint32_t n)
{
    Wsm *w = wsm_get();
    Error *err = NULL;
    bool on = false;

    GLOBAL_STATE_CODE();
    if (!migration_incoming_get_current()->loadvm_co) {
        /* A snapshot */
        return 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        on |= caps[i] == MIGRATION_CAPABILITY_WHOLE_SYSTEM;
    }
    if (on && !migrate_whole_system()) {
        wsm_incoming_switch_on(w, &err);
    }
    w->source_lacks_it = !on && migrate_whole_system();
    if (w->source_lacks_it) {
        error_setg(&err, "Capability 'whole-system' is on at the destination, "
                   "but off at the source; switch it on at the source, or off "
                   "at the destination");
        wsm_give_up_at_once(error_get_pretty(err));
    }
    wsm_listen_decide(&w->listen, migrate_whole_system());
    if (err) {
        error_report_err(err);
        return -EINVAL;
    }
    return 0;
}
