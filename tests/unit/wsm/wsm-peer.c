/*
 * For unit tests of the destination: the source, byte by byte
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "io/channel-socket.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "wsm-peer.h"

int peer_connect(WsmDestConns *conns)
{
    QIOChannelSocket *sioc;
    int theirs, fd = peer_pair(&theirs);

    sioc = qio_channel_socket_new_fd(theirs, &error_abort);
    wsm_dest_conns_add(conns, QIO_CHANNEL(sioc));
    return fd;
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

WsmMsg peer_recv(int fd, WsmDestConns *conns, void *payload, size_t max)
{
    WsmLimits limits = {
        .channel = PEER_ANY_CHANNEL,
        .disks = conns->start->ndisks,
        .disk_size = conns->disk_size,
        .granularity = conns->start->granularity,
    };

    return peer_recv_msg(fd, limits, payload, max);
}

void peer_expect_welcome(int fd)
{
    uint8_t header[WSM_HEADER_SIZE + WSM_WELCOME_SIZE];

    peer_read(fd, header, sizeof(header));
    g_assert_cmpint(lduw_be_p(header + 4), ==, WSM_MSG_WELCOME);
}

int peer_open(WsmDestConns *conns, unsigned channel)
{
    int fd = peer_connect(conns);

    peer_send_hello(fd, peer_good_hello(conns, channel));
    peer_expect_welcome(fd);
    return fd;
}
