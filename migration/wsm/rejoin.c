/*
 * Whole-system migration: a destination that crashed goes on
 *
 * Its guest boots again, from images that miss blocks, while these are fetched
 * from the source's image, which wsm-serve serves, or from a source that still
 * waits.  There is no main stream: what it would bring was lost in the crash.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-wsm.h"
#include "io/net-listener.h"
#include "qemu/main-loop.h"
#include "migration/blocker.h"
#include "migration/migration.h"
#include "migration/wsm/progress.h"
#include "migration/wsm/state.h"
#include "migration/wsm/transport.h"
#include "system/runstate.h"

/* More come than there are channels: a new one before the old is given up */
#define WSM_BACKLOG     (2 * WSM_MAX_CHANNELS)

struct WsmRejoin {
    QIONetListener *listener;
    Error *blocker;             /* why the guest cannot be migrated */
};

static void wsm_rejoin_free(WsmRejoin *r)
{
    if (r) {
        migrate_del_blocker(&r->blocker);
        object_unref(OBJECT(r->listener));
        g_free(r);
    }
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WsmRejoin, wsm_rejoin_free)

static bool wsm_rejoin_check(Wsm *w, Error **errp)
{
    if (!wsm_is_idle(w, errp)) {
        return false;
    }
    if (wsm_session_handed_over(&w->session)) {
        error_setg(errp, "this QEMU has handed its guest over to %s", w->peer);
        return false;
    }
    if (runstate_check(RUN_STATE_INMIGRATE)) {
        error_setg(errp, "this QEMU waits for a guest (-incoming), and the one "
                   "that came is to go on: start QEMU without -incoming, with "
                   "-S");
        return false;
    }
    if (!runstate_check(RUN_STATE_PRELAUNCH) &&
        !runstate_check(RUN_STATE_PAUSED)) {
        error_setg(errp, "wsm-rejoin is for a guest that is paused (-S); it is "
                   "in state '%s'", RunState_str(runstate_get()));
        return false;
    }
    return true;
}

static WsmRejoin *wsm_rejoin_listen(const char *uri, Error **errp)
{
    g_autoptr(WsmRejoin) r = g_new0(WsmRejoin, 1);
    g_autoptr(SocketAddress) address = wsm_transport_place(uri, errp);

    r->listener = qio_net_listener_new();
    qio_net_listener_set_name(r->listener, "wsm-rejoin-listener");
    if (!address || qio_net_listener_open_sync(r->listener, address,
                                               WSM_BACKLOG, errp) < 0) {
        return NULL;
    }
    error_setg(&r->blocker, "blocks of the guest's disks are still missing "
               "here (wsm-rejoin); wait until query-wsm says 'completed'");
    return migrate_add_blocker_internal(&r->blocker, errp) < 0 ? NULL
                                                      : g_steal_pointer(&r);
}

/* Nothing is missing, and who could be told has been */
static void wsm_rejoin_over_bh(void *opaque)
{
    Wsm *w = opaque;
    WsmRejoin *r = w->rejoin;

    if (wsm_dest_defer(w->dest, wsm_rejoin_over_bh, w)) {
        return;
    }
    wsm_session_enter(&w->session, WSM_PHASE_COMPLETED);
    wsm_incoming_release(w);
    wsm_listen_only_channels(&w->listen, false);
    wsm_listen_disconnect(&w->listen, r->listener);
    w->rejoin = NULL;
    wsm_rejoin_free(r);
}

static void wsm_rejoin_over(void *opaque)
{
    aio_bh_schedule_oneshot(qemu_get_aio_context(), wsm_rejoin_over_bh, opaque);
}

static void wsm_rejoin_begin(Wsm *w, WsmDest *d, WsmRejoin *r)
{
    w->dest = d;
    w->rejoin = r;
    wsm_progress_start(w);
    wsm_listen_only_channels(&w->listen, true);
    wsm_listen_set_taker(&w->listen, wsm_dest_take_channel, d);
    wsm_listen_serve(&w->listen, r->listener);
}

void qmp_wsm_rejoin(const char *uri, Error **errp)
{
    g_autoptr(GArray) all = wsm_disk_list();
    g_autoptr(WsmRejoin) r = NULL;
    g_autoptr(WsmLeft) left = NULL;
    Wsm *w = wsm_get();
    WsmDest *d;

    if (!wsm_rejoin_check(w, errp)) {
        return;
    }
    left = wsm_left_find(&w->images, all, errp);
    r = left ? wsm_rejoin_listen(uri, errp) : NULL;
    if (!r) {
        return;
    }
    d = wsm_dest_new_rejoined(&w->session, &w->options, &w->images, left,
                              wsm_incoming_ops(), w);
    if (!wsm_dest_rejoin(d, left, wsm_rejoin_over, errp)) {
        wsm_dest_free(d);
        return;
    }
    wsm_rejoin_begin(w, d, g_steal_pointer(&r));
}
