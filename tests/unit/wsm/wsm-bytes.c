/*
 * For unit tests of both sides: the other end of a block channel
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <poll.h>
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/sockets.h"
#include "wsm-bytes.h"

#define SOON_S          20              /* on any machine */

int peer_pair(int *theirs)
{
    struct timeval patience = { .tv_sec = SOON_S };
    int fd[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), ==, 0);
    setsockopt(fd[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    *theirs = fd[1];
    return fd[0];
}

void peer_send(int fd, const WsmMsg *msg, const void *payload)
{
    size_t size = WSM_HEADER_SIZE + msg->length;
    g_autofree uint8_t *all = g_malloc(size);

    /* At once, as the other side may close the connection at the header */
    wsm_msg_encode(msg, all);
    if (msg->length) {
        memcpy(all + WSM_HEADER_SIZE, payload, msg->length);
    }
    g_assert_cmpint(qemu_write_full(fd, all, size), ==, size);
}

void peer_read(int fd, void *buf, size_t size)
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

WsmMsg peer_recv_msg(int fd, WsmLimits limits, void *payload, size_t max)
{
    uint8_t header[WSM_HEADER_SIZE];
    uint16_t type;
    WsmMsg msg;

    peer_read(fd, header, sizeof(header));
    type = lduw_be_p(header + 4);
    if (limits.channel == PEER_ANY_CHANNEL) {
        limits.channel = type == WSM_MSG_HASH || type == WSM_MSG_HASHES;
    }
    g_assert_true(wsm_msg_decode(header, type <= WSM_MSG_REFUSE ? NULL
                                                                : &limits,
                                 &msg, &error_abort));
    g_assert_cmpint(msg.length, <=, max);
    peer_read(fd, payload, msg.length);
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
