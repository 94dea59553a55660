/*
 * Whole-system migration: what both sides share, and the ties to QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-wsm.h"
#include "qapi/qapi-types-migration.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/vmstate.h"
#include "system/runstate.h"
#include "migration/wsm/dest/dest.h"
#include "migration/wsm/give-up.h"
#include "migration/wsm/image/image.h"
#include "migration/wsm/link/block-channel.h"
#include "migration/wsm/link/peer.h"
#include "migration/wsm/section.h"
#include "migration/wsm/source/source.h"
#include "migration/wsm/state.h"
#include "migration/wsm/trace.h"

#define WSM_SHUTDOWN_GRACE_NS   (2 * NANOSECONDS_PER_SECOND)

/* Hooks in QEMU have no opaque pointer; everything else is passed this one */
static Wsm *the_wsm;

Wsm *wsm_get(void)
{
    return the_wsm;
}

bool migrate_whole_system(void)
{
    return migrate_get_current()->
           capabilities[MIGRATION_CAPABILITY_WHOLE_SYSTEM];
}

static void wsm_announce(Wsm *w, WsmRole role, const QemuUUID *session,
                         WsmPhase phase)
{
    g_autofree char *uuid = qemu_uuid_unparse_strdup(session);

    trace_wsm_phase(WsmRole_str(role), WsmPhase_str(phase));
    qapi_event_send_wsm_phase(role, uuid, phase);
}

void wsm_begin(Wsm *w, WsmRole role, const QemuUUID *session)
{
    WITH_QEMU_LOCK_GUARD(&w->lock) {
        w->role = role;
        w->session = *session;
        w->downtime_ns = -1;
        g_clear_pointer(&w->error, g_free);
        wsm_phase_init(&w->phases, wsm_now());
        wsm_phase_enter(&w->phases, WSM_PHASE_SETUP, wsm_now());
    }
    wsm_announce(w, role, session, WSM_PHASE_SETUP);
}

/* Enter @to, if @from is negative or the phase now */
static void wsm_change(Wsm *w, int from, WsmPhase to)
{
    QemuUUID session;
    WsmRole role;

    WITH_QEMU_LOCK_GUARD(&w->lock) {
        if ((from >= 0 && w->phases.phase != from) ||
            !wsm_phase_enter(&w->phases, to, wsm_now())) {
            return;
        }
        role = w->role;
        session = w->session;
    }
    if (role == WSM_ROLE_SOURCE && to == WSM_PHASE_POSTCOPY) {
        qatomic_set(&w->handed_over, true);
    }
    wsm_announce(w, role, &session, to);
}

void wsm_enter(Wsm *w, WsmPhase phase)
{
    wsm_change(w, -1, phase);
}

void wsm_advance(Wsm *w, WsmPhase from, WsmPhase to)
{
    wsm_change(w, from, to);
}

WsmPhase wsm_phase(Wsm *w)
{
    QEMU_LOCK_GUARD(&w->lock);
    return w->phases.phase;
}

void wsm_set_error(Wsm *w, const Error *err)
{
    QEMU_LOCK_GUARD(&w->lock);
    g_free(w->error);
    w->error = g_strdup(error_get_pretty(err));
}

/* The guest stops: that is the freeze if the migration stops it */
static void wsm_vm_change_state(void *opaque, bool running, RunState state)
{
    Wsm *w = opaque;

    if (state == RUN_STATE_FINISH_MIGRATE && w->source &&
        wsm_phase(w) == WSM_PHASE_RAM_PRECOPY) {
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
    .state_pending_estimate = wsm_save_pending_estimate,
    .state_pending_exact = wsm_save_pending_exact,
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
static void wsm_register(Wsm *w)
{
    if (w->registered) {
        return;
    }
    w->registered = true;
    vmstate_register(NULL, 0, &wsm_vmstate_start, w);
    register_savevm_live("wsm", 0, WSM_SECTION_VERSION, &wsm_handlers, w);
    vmstate_register(NULL, 0, &wsm_vmstate_freeze, w);
    migration_add_notifier(&w->notifier, wsm_notify);
    qemu_add_vm_change_state_handler(wsm_vm_change_state, w);
}

void wsm_mig_init(void)
{
    Wsm *w = g_new0(Wsm, 1);

    qemu_mutex_init(&w->lock);
    w->options = wsm_options_new();
    w->images = g_ptr_array_new_with_free_func((GDestroyNotify)
                                               wsm_image_unref);
    wsm_phase_init(&w->phases, wsm_now());
    the_wsm = w;
    wsm_give_up_init();
    wsm_hmp_init();

    if (migrate_whole_system()) {
        wsm_register(w);
    }
}

/* Does either side need this process to go on, or blocks are lost? */
static bool wsm_is_needed(Wsm *w)
{
    if (w->source) {
        return wsm_phase(w) == WSM_PHASE_POSTCOPY &&
               !wsm_source_wait_all_there(w->source, 0);
    }
    return w->dest && wsm_dest_is_needed(w->dest);
}

/*
 * In post-copy each host has blocks that the other one lacks.  So if the guest
 * powers off or the user quits, first get them across.
 */
static void wsm_wait_while_needed(Wsm *w)
{
    int64_t deadline;

    if (!wsm_is_needed(w)) {
        return;
    }
    warn_report("Blocks of the guest's disks are still on their way between "
                "the hosts; QEMU ends when they have arrived");
    while (wsm_is_needed(w)) {
        main_loop_wait(false);
    }
    /* Let the migration complete in good order as well, if it can */
    deadline = wsm_now() + WSM_SHUTDOWN_GRACE_NS;
    while ((w->source || w->dest) && wsm_now() < deadline) {
        main_loop_wait(true);
    }
}

void wsm_shutdown(void)
{
    Wsm *w = wsm_get();

    wsm_wait_while_needed(w);
    if (w->source) {
        wsm_source_stop(w->source);
    }
    if (w->dest) {
        wsm_dest_stop(w->dest);
    }
}

/* What both sides agreed on, and what is there of it, must stay as it is */
static bool wsm_has_ended(const char *what, Error **errp)
{
    if (the_wsm && (the_wsm->source || the_wsm->dest)) {
        error_setg(errp, "%s: a whole-system migration has not ended yet; wait "
                   "for it or cancel it", what);
        return false;
    }
    return true;
}

bool wsm_may_snapshot(Error **errp)
{
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
    if (wsm_may_snapshot(NULL)) {
        vm_stop(RUN_STATE_RESTORE_VM);
    }
}

bool wsm_caps_check(const bool *new_caps, Error **errp)
{
    static const MigrationCapability conflicts[] = {
        MIGRATION_CAPABILITY_X_COLO,
        MIGRATION_CAPABILITY_BACKGROUND_SNAPSHOT,
        MIGRATION_CAPABILITY_MAPPED_RAM,
        MIGRATION_CAPABILITY_POSTCOPY_PREEMPT,
        /* The source may take the guest back after its memory was sent */
        MIGRATION_CAPABILITY_RELEASE_RAM,
    };

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
    /* With -global, this comes before wsm_mig_init() */
    if (the_wsm) {
        wsm_register(the_wsm);
    }
    return true;
}

/*
 * Also of where we listen, but then nobody asks for it.  A "migrate" that is
 * refused, since the guest moves or has moved, comes here before that is found.
 */
static void wsm_set_peer(Wsm *w, SocketAddress *address)
{
    if (!w->source && !wsm_outgoing_is_handed_over()) {
        g_free(w->peer);
        w->peer = wsm_peer_of_address(address);
    }
}

bool wsm_transport_check(const MigrationAddress *addr, Error **errp)
{
    const char *name = MigrationAddressType_str(addr->transport);

    if (!migrate_whole_system()) {
        return true;
    }
    if (addr->transport == MIGRATION_ADDRESS_TYPE_SOCKET) {
        SocketAddressType type = addr->u.socket.type;

        if (type == SOCKET_ADDRESS_TYPE_INET ||
            type == SOCKET_ADDRESS_TYPE_UNIX ||
            type == SOCKET_ADDRESS_TYPE_VSOCK) {
            wsm_set_peer(the_wsm, (SocketAddress *)&addr->u.socket);
            return true;
        }
        name = SocketAddressType_str(type);
    }
    error_setg(errp, "Capability 'whole-system' needs a transport that more "
               "connections can be opened to ('tcp:', 'unix:' or 'vsock:'), "
               "not '%s:'", name);
    return false;
}
