/*
 * Whole-system migration: where the source's block channels go
 *
 * To where the main stream goes.  That is the address that the user named, or,
 * if the user gave a file descriptor, the other end of that.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_LINK_TARGET_H
#define MIGRATION_WSM_LINK_TARGET_H

#include "io/task.h"
#include "qapi/qapi-types-sockets.h"

/*
 * A socket for IPv6 calls a host "::ffff:10.0.0.1" that all others know as
 * "10.0.0.1": make that of it.
 */
void wsm_address_unmap_ipv4(SocketAddress *addr);

/*
 * What @fd is connected to, with IPv4 as such also on a socket for IPv6.
 * Returns NULL and sets @errp to what it is instead ("a pipe") if that is
 * nothing that more connections can be opened to.  @fd stays the caller's.
 */
SocketAddress *wsm_target_of_fd(int fd, Error **errp);

/* Begin to connect; @done gets a new QIOChannelSocket.  Main thread. */
void wsm_target_connect(SocketAddress *target, QIOTaskFunc done,
                        void *opaque);

#endif
