/*
 * Whole-system migration: by which transports it can go
 *
 * Main thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_TRANSPORT_H
#define MIGRATION_WSM_TRANSPORT_H

#include "qapi/qapi-types-migration.h"
#include "qapi/qapi-types-sockets.h"

/*
 * Where block channels go beside a main stream to @addr; a new object.  Returns
 * NULL and sets @errp if there is no such place, and says what to do.
 */
SocketAddress *wsm_transport_target(const MigrationAddress *addr,
                                    Error **errp);

/*
 * Where @uri says to listen; a new object.  Returns NULL and sets @errp if that
 * is no place that connections can come to.
 */
SocketAddress *wsm_transport_place(const char *uri, Error **errp);

#endif
