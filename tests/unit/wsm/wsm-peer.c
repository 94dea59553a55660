/*
 * For unit tests of the destination: the source, byte by byte
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <poll.h>
#include "io/channel-socket.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/sockets.h"
#include "wsm-peer.h"

#define SOON_S          20              /* on any machine */

int peer_connect(WsmDestConns *conns)
{
    struct timeval patience = { .tv_sec = SOON_S };
    QIOChannelSocket *sioc;
    int fd[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), ==, 0);
    setsockopt(fd[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    sioc = qio_channel_socket_new_fd(fd[1], &error_abort);
    wsm_dest_conns_add(conns, QIO_CHANNEL(sioc));
    return fd[0];
}

void peer_send(int fd, const WsmMsg *msg, const void *payload)
{
    uint8_t header[WSM_HEADER_SIZE];

    wsm_msg_encode(msg, header);
    g_assert_cmpint(qemu_write_full(fd, header, sizeof(header)), ==,
                    sizeof(header));
    if (msg->length) {
        g_assert_cmpint(qemu_write_full(fd, payload, msg->length), ==,
                        msg->length);
    }
}

WsmHello peer_good_hello(WsmDestConns *conns, unsigned channel)
{
    const WsmStart *start = conns->start;

    return (WsmHello) {
        .session = start->session, .version = start->version,
        .channel = channel, .channels = start->channels,
    };
}

void peer_send_hello(int fd, WsmHello hello)
{
    WsmMsg msg = { .type = WSM_MSG_HELLO, .length = WSM_HELLO_SIZE };
    uint8_t payload[WSM_HELLO_SIZE];

    wsm_hello_encode(&hello, payload);
    peer_send(fd, &msg, payload);
}

static void read_all(int fd, void *buf, size_t size)
{
    for (size_t done = 0; done < size; ) {
        ssize_t n = RETRY_ON_EINTR(read(fd, (char *)buf + done, size - done));

        if (n < 0) {
            g_test_message("read: %s", g_strerror(errno));
        }
        g_assert_cmpint(n, >, 0);
        done += n;
    }
}

WsmMsg peer_recv(int fd, WsmDestConns *conns, void *payload, size_t max)
{
    WsmLimits limits = {
        .disks = conns->start->ndisks,
        .disk_size = conns->disk_size,
        .granularity = conns->start->granularity,
    };
    uint8_t header[WSM_HEADER_SIZE];
    bool early;
    WsmMsg msg;

    read_all(fd, header, sizeof(header));
    early = lduw_be_p(header + 4) <= WSM_MSG_REFUSE;
    /* All others that are tested can come on the urgent channel */
    limits.channel = lduw_be_p(header + 4) == WSM_MSG_HASHES;
    g_assert_true(wsm_msg_decode(header, early ? NULL : &limits, &msg,
                                 &error_abort));
    g_assert_cmpint(msg.length, <=, max);
    read_all(fd, payload, msg.length);
    return msg;
}

bool peer_has_ended(int fd)
{
    char c;
    ssize_t n = RETRY_ON_EINTR(read(fd, &c, 1));

    /* What was not read over there makes it a reset */
    return n == 0 || (n < 0 && errno == ECONNRESET);
}

bool peer_hears_nothing(int fd)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };

    return poll(&pfd, 1, 100) == 0;
}

void peer_expect_welcome(int fd)
{
    uint8_t header[WSM_HEADER_SIZE + WSM_WELCOME_SIZE];

    read_all(fd, header, sizeof(header));
    g_assert_cmpint(lduw_be_p(header + 4), ==, WSM_MSG_WELCOME);
}

int peer_open(WsmDestConns *conns, unsigned channel)
{
    int fd = peer_connect(conns);

    peer_send_hello(fd, peer_good_hello(conns, channel));
    peer_expect_welcome(fd);
    return fd;
}
