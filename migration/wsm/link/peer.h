/*
 * Whole-system migration: what the other host is called
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_LINK_PEER_H
#define MIGRATION_WSM_LINK_PEER_H

#include "io/channel.h"
#include "qapi/qapi-types-sockets.h"

/* As the user named it: "beta:4444", "unix:/run/beta".  Free with g_free(). */
char *wsm_peer_of_address(SocketAddress *addr);

/* The same as a URI that `migrate` takes: "tcp:beta:4444".  Likewise. */
char *wsm_uri_of_address(SocketAddress *addr);

/*
 * The address from which @ioc (perhaps with TLS) was opened, without its port,
 * which means nothing.  NULL if it has none.  Free with g_free().
 */
char *wsm_peer_of_channel(QIOChannel *ioc);

#endif
