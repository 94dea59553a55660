/*
 * Whole-system migration: where the source's block channels go
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/un.h>
#include "io/channel-socket.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/sockets.h"
#include "migration/wsm/link/target.h"

/* What @fd is, or NULL for a socket that carries a stream */
static const char *wsm_not_a_stream(int fd)
{
    socklen_t size = sizeof(int);
    struct stat st;
    int type;

    if (fstat(fd, &st) < 0) {
        return "not open";
    }
    switch (st.st_mode & S_IFMT) {
    case S_IFSOCK:
        return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ||
               type != SOCK_STREAM ? "a socket for datagrams" : NULL;
    case S_IFIFO:
        return "a pipe";
    case S_IFREG:
        return "a file";
    default:
        return "no socket";
    }
}

/* One end of a socketpair has none, nor need a client have one */
static bool wsm_has_no_name(const struct sockaddr_storage *ss, socklen_t size)
{
    return ss->ss_family == AF_UNIX &&
           size <= offsetof(struct sockaddr_un, sun_path);
}

void wsm_address_unmap_ipv4(SocketAddress *addr)
{
    InetSocketAddress *inet = &addr->u.inet;
    const char *ipv4;
    char *host;

    if (addr->type != SOCKET_ADDRESS_TYPE_INET ||
        !strstart(inet->host, "::ffff:", &ipv4) || !strchr(ipv4, '.')) {
        return;
    }
    host = g_strdup(ipv4);
    g_free(inet->host);
    inet->host = host;
    inet->has_ipv6 = inet->ipv6 = false;
    inet->has_ipv4 = inet->ipv4 = true;
}

SocketAddress *wsm_target_of_fd(int fd, Error **errp)
{
    const char *what = wsm_not_a_stream(fd);
    struct sockaddr_storage ss = {};
    socklen_t size = sizeof(ss);
    SocketAddress *target;

    if (what) {
        error_setg(errp, "%s", what);
        return NULL;
    }
    if (getpeername(fd, (struct sockaddr *)&ss, &size) < 0) {
        error_setg(errp, "a socket that is not connected");
        return NULL;
    }
    if (wsm_has_no_name(&ss, size)) {
        error_setg(errp, "a socket whose other end has no address, as that of "
                   "a socketpair");
        return NULL;
    }
    target = socket_sockaddr_to_address(&ss, size, errp);
    if (target) {
        wsm_address_unmap_ipv4(target);
    }
    return target;
}

void wsm_target_connect(SocketAddress *target, QIOTaskFunc done, void *opaque)
{
    QIOChannelSocket *sioc = qio_channel_socket_new();

    GLOBAL_STATE_CODE();
    qio_channel_socket_connect_async(sioc, target, done, opaque, NULL, NULL);
}
