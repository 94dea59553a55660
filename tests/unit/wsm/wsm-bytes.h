/*
 * For unit tests of both sides: the other end of a block channel
 *
 * It is one end of a socket pair, and is read and written in the test's
 * thread.  Whatever does not come within some seconds is an error.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef WSM_BYTES_H
#define WSM_BYTES_H

#include "migration/wsm/wire/message.h"

/* A new pair; returns our end, *@theirs is the other one */
int peer_pair(int *theirs);

/* @payload has @msg->length bytes */
void peer_send(int fd, const WsmMsg *msg, const void *payload);

/* The next @size bytes */
void peer_read(int fd, void *buf, size_t size);

#define PEER_ANY_CHANNEL        UINT16_MAX

/*
 * The next message, which must be within @limits; those may have the channel
 * above.  Its payload has at most @max bytes, and is in @payload.
 */
WsmMsg peer_recv_msg(int fd, WsmLimits limits, void *payload, size_t max);

/* Wait until it is closed; and: is there nothing to read, for a while? */
bool peer_has_ended(int fd);
bool peer_hears_nothing(int fd);

#endif
