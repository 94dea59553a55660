/*
 * For unit tests of the destination: the source, byte by byte
 *
 * It is the other end of a socket pair, and reads and writes in the test's
 * thread.  Whatever does not come within some seconds is an error.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef WSM_PEER_H
#define WSM_PEER_H

#include "migration/wsm/dest/conn.h"

/* A connection to @conns; returns our end, for close() */
int peer_connect(WsmDestConns *conns);

/* Say HELLO as the session wants it, or another one */
WsmHello peer_good_hello(WsmDestConns *conns, unsigned channel);
void peer_send_hello(int fd, WsmHello hello);

/* The same, and the answer is WELCOME */
int peer_open(WsmDestConns *conns, unsigned channel);
void peer_expect_welcome(int fd);

/* @payload has @msg->length bytes */
void peer_send(int fd, const WsmMsg *msg, const void *payload);

/* The next message.  Its payload has at most @max bytes, and is in @payload. */
WsmMsg peer_recv(int fd, WsmDestConns *conns, void *payload, size_t max);

/* Wait until it is closed; and: is there nothing to read, for a while? */
bool peer_has_ended(int fd);
bool peer_hears_nothing(int fd);

#endif
