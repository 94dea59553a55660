/*
 * Whole-system migration: where the source's block channels go
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/un.h>
#include "io/channel-socket.h"
#include "qapi/error.h"
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

/* A socket for IPv6 says "::ffff:10.0.0.1"; nobody else does */
static void wsm_unmap_ipv4(struct sockaddr_storage *ss, socklen_t *size)
{
    struct sockaddr_in6 in6 = *(struct sockaddr_in6 *)ss;
    struct sockaddr_in *in = (struct sockaddr_in *)ss;

    if (ss->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
        return;
    }
    memset(ss, 0, sizeof(*ss));
    in->sin_family = AF_INET;
    in->sin_port = in6.sin6_port;
    memcpy(&in->sin_addr, &in6.sin6_addr.s6_addr[12], sizeof(in->sin_addr));
    *size = sizeof(*in);
}

/* One end of a socketpair has none, nor need a client have one */
static bool wsm_has_no_name(const struct sockaddr_storage *ss, socklen_t size)
{
    return ss->ss_family == AF_UNIX &&
           size <= offsetof(struct sockaddr_un, sun_path);
}

SocketAddress *wsm_target_of_fd(int fd, Error **errp)
{
    const char *what = wsm_not_a_stream(fd);
    struct sockaddr_storage ss = {};
    socklen_t size = sizeof(ss);

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
    wsm_unmap_ipv4(&ss, &size);
    return socket_sockaddr_to_address(&ss, size, errp);
}

void wsm_target_connect(SocketAddress *target, QIOTaskFunc done, void *opaque)
{
    QIOChannelSocket *sioc = qio_channel_socket_new();

    GLOBAL_STATE_CODE();
    qio_channel_socket_connect_async(sioc, target, done, opaque, NULL, NULL);
}
