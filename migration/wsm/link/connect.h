/*
 * Whole-system migration: opening a block channel from the source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_LINK_CONNECT_H
#define MIGRATION_WSM_LINK_CONNECT_H

#include "io/channel.h"
#include "qapi/qapi-types-sockets.h"
#include "qemu/coroutine.h"
#include "qemu/thread.h"

/*
 * A place to wait for a connection; at most one attempt at a time.  The
 * attempt itself runs in the main thread, because TLS credentials are QOM
 * objects, and may go on after its result is no longer wanted.
 */
typedef struct WsmConnector {
    SocketAddress *const *target;       /* set in init, never changed */
    QemuMutex lock;
    struct WsmConnectAttempt *attempt;  /* NULL: none; @lock */
    bool quit;                          /* @lock */
} WsmConnector;

/*
 * *@target is where to connect to.  It is looked at in the main thread, each
 * time, and not after wsm_connector_quit().
 */
void wsm_connector_init(WsmConnector *c, SocketAddress *const *target);

/* No attempt may be waited for.  Main thread. */
void wsm_connector_destroy(WsmConnector *c);

/*
 * Connect to the target, send the preamble, do the TLS
 * handshake if migration uses TLS.  Coroutine, not in the main AioContext.
 * Returns a reference, or NULL and sets @errp.
 */
QIOChannel *coroutine_fn wsm_connect(WsmConnector *c, Error **errp);

/* Let wsm_connect() fail, now and in future.  Main thread. */
void wsm_connector_quit(WsmConnector *c);

#endif
