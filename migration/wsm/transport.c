/*
 * Whole-system migration: by which transports it can go
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-sockets.h"
#include "qemu/main-loop.h"
#include "migration/migration.h"
#include "monitor/monitor.h"
#include "system/runstate.h"
#include "migration/wsm/link/peer.h"
#include "migration/wsm/link/target.h"
#include "migration/wsm/state.h"
#include "migration/wsm/transport.h"

#define WSM_NEEDS \
    "Capability 'whole-system' opens more connections to where the guest " \
    "goes, so it needs 'tcp:', 'unix:', 'vsock:', or 'fd:' of a socket that " \
    "is connected to such an address"
#define WSM_TO_A_FILE \
    ". To save the guest to a file, switch the capability off first"

static bool wsm_is_network(const MigrationAddress *addr)
{
    return addr->transport == MIGRATION_ADDRESS_TYPE_SOCKET &&
           (addr->u.socket.type == SOCKET_ADDRESS_TYPE_INET ||
            addr->u.socket.type == SOCKET_ADDRESS_TYPE_UNIX ||
            addr->u.socket.type == SOCKET_ADDRESS_TYPE_VSOCK);
}

static const char *wsm_transport_name(const MigrationAddress *addr)
{
    return addr->transport == MIGRATION_ADDRESS_TYPE_SOCKET
           ? SocketAddressType_str(addr->u.socket.type)
           : MigrationAddressType_str(addr->transport);
}

/* The monitor keeps the descriptor: `migrate` will take it from there */
static SocketAddress *wsm_target_of_name(const char *name, Error **errp)
{
    g_autoptr(Error) what = NULL;
    SocketAddress *target;
    int fd = monitor_get_fd(monitor_cur(), name, errp);

    if (fd < 0) {
        return NULL;
    }
    target = wsm_target_of_fd(fd, &what);
    monitor_add_fd(monitor_cur(), fd, name, &error_abort);
    if (!target) {
        error_setg(errp, WSM_NEEDS "; 'fd:%s' is %s" WSM_TO_A_FILE, name,
                   error_get_pretty(what));
    }
    return target;
}

SocketAddress *wsm_transport_target(const MigrationAddress *addr,
                                    Error **errp)
{
    GLOBAL_STATE_CODE();
    if (wsm_is_network(addr)) {
        return QAPI_CLONE(SocketAddress, &addr->u.socket);
    }
    if (addr->transport == MIGRATION_ADDRESS_TYPE_SOCKET) {
        return wsm_target_of_name(addr->u.socket.u.fd.str, errp);
    }
    error_setg(errp, WSM_NEEDS ", not '%s:'" WSM_TO_A_FILE,
               wsm_transport_name(addr));
    return NULL;
}

/*
 * A "migrate" that is refused, since the guest moves or has moved, comes here
 * before that is found.
 */
static void wsm_set_peer(Wsm *w, SocketAddress *address)
{
    if (!w->source && !wsm_session_handed_over(&w->session)) {
        g_free(w->peer);
        w->peer = wsm_peer_of_address(address);
    }
}

static bool wsm_transport_out(const MigrationAddress *addr, Error **errp)
{
    g_autoptr(SocketAddress) target = wsm_transport_target(addr, errp);

    if (target) {
        wsm_set_peer(wsm_get(), target);
    }
    return target;
}

/*
 * `-incoming`, migrate-incoming or migrate-recover, and not `migrate`?  Only
 * migrate-recover comes without the BQL.
 */
static bool wsm_is_incoming(void)
{
    return !bql_locked() || runstate_check(RUN_STATE_INMIGRATE) ||
           migration_incoming_get_current()->state ==
           MIGRATION_STATUS_POSTCOPY_PAUSED;
}

SocketAddress *wsm_transport_place(const char *uri, Error **errp)
{
    g_autoptr(MigrationChannel) channel = NULL;

    GLOBAL_STATE_CODE();
    if (!migrate_uri_parse(uri, &channel, errp)) {
        return NULL;
    }
    if (!wsm_is_network(channel->addr)) {
        error_setg(errp, "block channels come to 'tcp:', 'unix:' or 'vsock:', "
                   "not '%s:'", wsm_transport_name(channel->addr));
        return NULL;
    }
    return QAPI_CLONE(SocketAddress, &channel->addr->u.socket);
}

bool wsm_transport_check(const MigrationAddress *addr, Error **errp)
{
    if (!migrate_whole_system()) {
        return true;
    }
    if (!wsm_is_incoming()) {
        return wsm_transport_out(addr, errp);
    }
    if (!wsm_is_network(addr)) {
        error_setg(errp, "Capability 'whole-system' needs a place that more "
                   "connections can come to: 'tcp:', 'unix:' or 'vsock:', not "
                   "'%s:'. To load a guest that was saved to a file, switch "
                   "the capability off first", wsm_transport_name(addr));
        return false;
    }
    return true;
}
