/*
 * Whole-system migration: who is knocking at the destination's port?
 *
 * The main stream, multifd channels, block channels and strangers all come to
 * the same port, in any order.  They are told apart by the first bytes, at
 * which is only peeked; so those that are not ours go on as if nothing had
 * been.  TLS comes later on each of them.
 *
 * Everything here runs with the BQL held unless it says so, and in the main
 * AioContext, not in the main loop: that is still served while the main
 * thread, or a vCPU under the BQL, waits for the guest's disk requests.  Such
 * a request may wait for a missing block, and so for a block channel that
 * must be let in first.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_LINK_LISTEN_H
#define MIGRATION_WSM_LINK_LISTEN_H

#include "io/channel-socket.h"
#include "io/net-listener.h"
#include "qemu/queue.h"
#include "qemu/thread.h"

/*
 * A connection came to a listener that is served here: goes the way of those
 * that come by QEMU's own main loop.  Does not take a reference.
 */
typedef bool WsmListenAccept(QIOChannelSocket *sioc);

/* A block channel came: returns true if it takes the reference of @ioc */
typedef bool WsmListenTaker(void *opaque, QIOChannel *ioc);

typedef struct WsmVisitor WsmVisitor;

/* Are there block channels?  What begins the main stream tells. */
typedef enum WsmListenNews {
    WSM_LISTEN_UNKNOWN,
    WSM_LISTEN_OURS,
    WSM_LISTEN_OTHERS,
} WsmListenNews;

/* One per QEMU */
typedef struct WsmListen {
    WsmListenAccept *accept;    /* set in init, never changed */

    /* BQL.  Who knocks: oldest first, without those that are displaced */
    QTAILQ_HEAD(, WsmVisitor) visitors;
    unsigned nvisitors;
    /* Block channels that came before there was a taker */
    GQueue *waiting;
    WsmListenTaker *take;       /* NULL: nobody takes them */
    void *opaque;
    /* ms: until then the main stream's TLS handshake has precedence */
    int64_t handshake_until;
    /* For wsm_listen_wonder() */
    bool begun;                 /* the first connection has come */
    WsmListenNews news;
    bool only_channels;         /* block channels: no migration comes here */
    QTAILQ_HEAD(, WsmVisitor) undecided;
    unsigned nundecided;

    QemuMutex lock;
    QIONetListener *served;     /* @lock: by the AioContext, or NULL */
} WsmListen;

void wsm_listen_init(WsmListen *l, WsmListenAccept *accept);

/*
 * Look at @sioc when its first bytes are there.  Then it becomes a block
 * channel, goes the way of other migration connections, or is closed.
 */
void wsm_listen_accept(WsmListen *l, QIOChannelSocket *sioc);

/*
 * The same at a destination that was not told that block channels may come.
 * Returns false if @sioc is QEMU's.  True: it will be, unless its first bytes
 * or the main stream say that it is a block channel.  So a connection that says
 * nothing waits for wsm_listen_decide() at the longest.
 */
bool wsm_listen_wonder(WsmListen *l, QIOChannelSocket *sioc);

/* The main stream has said whether there are block channels, or had to */
void wsm_listen_decide(WsmListen *l, bool ours);

/*
 * Block channels go to @take from now on, also those that came before; with
 * NULL they wait, the oldest of too many go.
 */
void wsm_listen_set_taker(WsmListen *l, WsmListenTaker *take, void *opaque);

/* From now on all but block channels are closed, or not any more */
void wsm_listen_only_channels(WsmListen *l, bool only);

/*
 * Accept connections also while the main thread waits for disk requests.  Ends
 * with wsm_listen_disconnect().
 */
void wsm_listen_serve(WsmListen *l, QIONetListener *listener);

/*
 * There is another listener: serve it soon, if there is a taker.  Any thread,
 * without the BQL, too.
 */
void wsm_listen_add(WsmListen *l, QIONetListener *listener);

/*
 * Disconnect @listener, and before that stop to serve it.  Any thread, without
 * the BQL, too.
 */
void wsm_listen_disconnect(WsmListen *l, QIONetListener *listener);

#endif
