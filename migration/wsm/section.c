/*
 * Whole-system migration: its sections and handlers, as QEMU wants them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/qemu-file.h"
#include "migration/vmstate.h"
#include "system/runstate.h"
#include "migration/wsm/clock.h"
#include "migration/wsm/section.h"
#include "migration/wsm/source/phases.h"

/* The guest stops: that is the freeze if the migration stops it */
static void wsm_vm_change_state(void *opaque, bool running, RunState state)
{
    Wsm *w = opaque;

    if (state == RUN_STATE_FINISH_MIGRATE && w->source &&
        wsm_session_phase(&w->session) == WSM_PHASE_RAM_PRECOPY) {
        wsm_source_freeze(w->source);
    }
}

static int wsm_notify(NotifierWithReturn *n, MigrationEvent *e, Error **errp)
{
    return wsm_save_notify(container_of(n, Wsm, notifier), e, errp);
}

static bool wsm_is_active(void *opaque)
{
    return migrate_whole_system();
}

static bool wsm_has_postcopy(void *opaque)
{
    return true;
}

static int wsm_resume_prepare(MigrationState *s, void *opaque)
{
    /* Block channels are opened again on their own */
    wsm_keep_alive(qemu_file_get_ioc(s->to_dst_file));
    return 0;
}

static const SaveVMHandlers wsm_handlers = {
    .save_prepare = wsm_save_prepare,
    .save_setup = wsm_save_setup,
    .save_cleanup = wsm_save_cleanup,
    .save_live_complete_precopy = wsm_save_complete_precopy,
    .save_live_complete_postcopy = wsm_save_complete_postcopy,
    .is_active = wsm_is_active,
    .has_postcopy = wsm_has_postcopy,
    .save_live_iterate = wsm_save_iterate,
    .load_state = wsm_load_state,
    .load_cleanup = wsm_load_cleanup,
    .resume_prepare = wsm_resume_prepare,
};

static int wsm_freeze_put(QEMUFile *f, void *pv, size_t size,
                          const VMStateField *field, JSONWriter *vmdesc)
{
    return wsm_save_freeze(f, wsm_get());
}

static int wsm_freeze_get(QEMUFile *f, void *pv, size_t size,
                          const VMStateField *field)
{
    return wsm_load_freeze(f, wsm_get());
}

static const VMStateInfo wsm_freeze_info = {
    .name = "wsm residue",
    .put = wsm_freeze_put,
    .get = wsm_freeze_get,
};

static int wsm_start_put(QEMUFile *f, void *pv, size_t size,
                         const VMStateField *field, JSONWriter *vmdesc)
{
    return wsm_save_start(f, wsm_get());
}

static int wsm_start_get(QEMUFile *f, void *pv, size_t size,
                         const VMStateField *field)
{
    return wsm_load_start(f, wsm_get());
}

static const VMStateInfo wsm_start_info = {
    .name = "wsm start",
    .put = wsm_start_put,
    .get = wsm_start_get,
};

static bool wsm_section_needed(void *opaque)
{
    Wsm *w = opaque;

    return w->source && migrate_whole_system();
}

/* With the highest priority and early_setup it comes before memory's setup */
static const VMStateDescription wsm_vmstate_start = {
    .name = "wsm-start",
    .version_id = WSM_SECTION_VERSION,
    .minimum_version_id = WSM_SECTION_VERSION,
    .early_setup = true,
    .priority = MIG_PRI_MAX,
    .needed = wsm_section_needed,
    .fields = (const VMStateField[]) {
        {
            .name = "start",
            .info = &wsm_start_info,
            .flags = VMS_SINGLE,
        },
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription wsm_vmstate_freeze = {
    .name = "wsm-freeze",
    .version_id = WSM_SECTION_VERSION,
    .minimum_version_id = WSM_SECTION_VERSION,
    .needed = wsm_section_needed,
    .fields = (const VMStateField[]) {
        {
            .name = "residue",
            .info = &wsm_freeze_info,
            .flags = VMS_SINGLE,
        },
        VMSTATE_END_OF_LIST()
    },
};

/*
 * Not before the capability is switched on for the first time: each section
 * that is registered changes the numbers of those behind it in the stream.
 */
void wsm_sections_register(Wsm *w)
{
    if (w->registered) {
        return;
    }
    w->registered = true;
    vmstate_register(NULL, 0, &wsm_vmstate_start, w);
    register_savevm_live("wsm", 0, WSM_SECTION_VERSION, &wsm_handlers, w);
    vmstate_register(NULL, 0, &wsm_vmstate_freeze, w);
    wsm_clock_register(w);
    migration_add_notifier(&w->notifier, wsm_notify);
    qemu_add_vm_change_state_handler(wsm_vm_change_state, w);
}
