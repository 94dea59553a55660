/*
 * Whole-system migration: opening a connection that is not to the peer
 *
 * A thread of its own looks up the address, connects, and does the handshake
 * of TLS: none of it needs another thread, and none waits for it that does not
 * want to.  It may go on after its result is no longer wanted.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_LINK_DIAL_H
#define MIGRATION_WSM_LINK_DIAL_H

#include "crypto/tlscreds.h"
#include "io/channel.h"
#include "qapi/qapi-types-sockets.h"
#include "qemu/coroutine.h"

typedef struct WsmDial WsmDial;

/* Connect to @addr, with TLS if there are @creds.  Any thread. */
WsmDial *wsm_dial(const SocketAddress *addr, QCryptoTLSCreds *creds);

/*
 * Wait for it; once.  Coroutine.  Returns a reference, or NULL and sets @errp.
 * @dial is gone then.
 */
QIOChannel *coroutine_fn wsm_dial_wait(WsmDial *dial, Error **errp);

/* Let wsm_dial_wait() fail.  In the AioContext of who waits. */
void wsm_dial_give_up(WsmDial *dial);

#endif
