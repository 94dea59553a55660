/*
 * Whole-system migration: from QEMU's start to its end
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/qapi-events-wsm.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/wsm/give-up.h"
#include "migration/wsm/kept.h"
#include "migration/wsm/section.h"
#include "migration/wsm/source/phases.h"
#include "migration/wsm/state.h"
#include "migration/wsm/trace.h"
#include "system/cpus.h"
#include "system/runstate.h"

#define WSM_SHUTDOWN_GRACE_NS   (2 * NANOSECONDS_PER_SECOND)
/* A source that is there opens its channels again within seconds */
#define WSM_LEAVE_AFTER_NS      (5 * NANOSECONDS_PER_SECOND)
#define WSM_ALONE_LOOK_MS       100

static void wsm_tell_phase(WsmRole role, const QemuUUID *session,
                           WsmPhase phase)
{
    g_autofree char *uuid = qemu_uuid_unparse_strdup(session);

    trace_wsm_phase(WsmRole_str(role), WsmPhase_str(phase));
    qapi_event_send_wsm_phase(role, uuid, phase);
}

void wsm_mig_init(void)
{
    Wsm *w = g_new0(Wsm, 1);

    wsm_session_init(&w->session, wsm_tell_phase);
    wsm_options_init(&w->options);
    wsm_images_init(&w->images);
    wsm_listen_init(&w->listen, wsm_incoming_accept);
    wsm_set(w);
    wsm_give_up_init();
    wsm_hmp_init();

    if (migrate_whole_system()) {
        wsm_sections_register(w);
    }
}

/* Does either side need this process to go on, or blocks are lost? */
static bool wsm_is_needed(Wsm *w)
{
    if (w->source) {
        return wsm_session_phase(&w->session) == WSM_PHASE_POSTCOPY &&
               !wsm_source_wait_all_there(w->source, 0);
    }
    return w->dest && wsm_dest_is_needed(w->dest);
}

typedef struct WsmAlone {
    QEMUTimer *timer;           /* so that there is a look from time to time */
    int64_t since;              /* ns */
} WsmAlone;

static void wsm_alone_look(void *opaque)
{
    WsmAlone *alone = opaque;

    timer_mod(alone->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
              WSM_ALONE_LOOK_MS);
}

/* Has the source been away for long, and can another QEMU go on here? */
static bool wsm_may_leave(Wsm *w, WsmAlone *alone)
{
    if (!w->dest || !wsm_dest_may_leave(w->dest)) {
        alone->since = wsm_now();
    }
    return wsm_now() - alone->since > WSM_LEAVE_AFTER_NS;
}

/* False: the source is gone, and may bring the rest to another QEMU */
static bool wsm_wait_for_blocks(Wsm *w)
{
    WsmAlone alone = { .since = wsm_now() };
    bool left = false;

    alone.timer = timer_new_ms(QEMU_CLOCK_REALTIME, wsm_alone_look, &alone);
    wsm_alone_look(&alone);
    while (wsm_is_needed(w) && !left) {
        main_loop_wait(false);
        left = wsm_may_leave(w, &alone);
    }
    timer_free(alone.timer);
    return !left;
}

/*
 * Its maps are durable.  Not one request may fail before the guest stands
 * still, or it would hear of it.
 */
static void wsm_leave(Wsm *w)
{
    warn_report("The source cannot be reached, and blocks of the guest's disks "
                "are still there: these images are 'arriving'.  Keep those "
                "of the source, too; to go on, start QEMU with -S and the same "
                "disks, type wsm-rejoin, let the source's images be served to "
                "it with wsm-serve, and type cont");
    pause_all_vcpus();
    wsm_dest_leave(w->dest);
    vm_shutdown();
    wsm_dest_checkpoint(w->dest);
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
    if (!wsm_wait_for_blocks(w)) {
        wsm_leave(w);
        return;
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

    GLOBAL_STATE_CODE();
    wsm_scan_free(g_steal_pointer(&w->scan));
    wsm_wait_while_needed(w);
    wsm_kept_end(w);
    if (w->source) {
        wsm_source_stop(w->source);
    }
    if (w->dest) {
        wsm_dest_stop(w->dest);
    }
}
