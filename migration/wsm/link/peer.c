/*
 * Whole-system migration: what the other host is called
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/sockets.h"
#include "migration/wsm/link/block-channel.h"
#include "migration/wsm/link/peer.h"
#include "migration/wsm/link/target.h"

char *wsm_peer_of_address(SocketAddress *addr)
{
    const InetSocketAddress *inet = &addr->u.inet;

    if (addr->type != SOCKET_ADDRESS_TYPE_INET) {
        return socket_uri(addr);
    }
    return g_strdup_printf(strchr(inet->host, ':') ? "[%s]:%s" : "%s:%s",
                           inet->host, inet->port);
}

char *wsm_uri_of_address(SocketAddress *addr)
{
    g_autofree char *peer = wsm_peer_of_address(addr);

    return addr->type == SOCKET_ADDRESS_TYPE_INET
           ? g_strdup_printf("tcp:%s", peer) : g_steal_pointer(&peer);
}

char *wsm_peer_of_channel(QIOChannel *ioc)
{
    QIOChannelSocket *sioc = wsm_channel_socket(ioc);
    g_autoptr(SocketAddress) addr = NULL;

    if (!sioc) {
        return NULL;
    }
    addr = qio_channel_socket_get_remote_address(sioc, NULL);
    if (addr && addr->type == SOCKET_ADDRESS_TYPE_INET) {
        wsm_address_unmap_ipv4(addr);
        return g_strdup(addr->u.inet.host);
    }
    if (addr && addr->type == SOCKET_ADDRESS_TYPE_VSOCK) {
        return g_strdup_printf("vsock:%s", addr->u.vsock.cid);
    }
    return NULL;
}
