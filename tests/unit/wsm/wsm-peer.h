/*
 * For unit tests of the destination: the source, byte by byte
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef WSM_PEER_H
#define WSM_PEER_H

#include "migration/wsm/dest/conn.h"
#include "wsm-bytes.h"

/* A connection to @conns; returns our end, for close() */
int peer_connect(WsmDestConns *conns);

/* Say HELLO as the session wants it, or another one */
WsmHello peer_good_hello(WsmDestConns *conns, unsigned channel);
void peer_send_hello(int fd, WsmHello hello);

/* The same, and the answer is WELCOME */
int peer_open(WsmDestConns *conns, unsigned channel);
void peer_expect_welcome(int fd);

/* The next message.  Its payload has at most @max bytes, and is in @payload. */
WsmMsg peer_recv(int fd, WsmDestConns *conns, void *payload, size_t max);

#endif
