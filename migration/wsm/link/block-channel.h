/*
 * Whole-system migration: a block channel
 *
 * A block channel outlives its connections: when one breaks, the next is
 * attached.  All coroutines of a channel run in the AioContext in which the
 * first was attached, that of an IOThread; any number may send, one receives.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_LINK_BLOCK_CHANNEL_H
#define MIGRATION_WSM_LINK_BLOCK_CHANNEL_H

#include "block/aio.h"
#include "io/channel-socket.h"
#include "qemu/coroutine.h"
#include "qemu/thread.h"
#include "migration/wsm/wire/message.h"

/* The socket that @ioc is, TLS or not; NULL if it is another channel */
QIOChannelSocket *wsm_channel_socket(QIOChannel *ioc);

/*
 * Bytes that the kernel has of @ioc which the other side has not got yet; 0 if
 * it is not known.  Any thread that may send.
 */
uint64_t wsm_channel_queued(QIOChannel *ioc);

/*
 * Let the kernel say something now and then on a connection that has nothing to
 * say, which firewalls would forget; TLS may be on it.  It is given up when
 * nothing has come back for about as long as TCP tries to get data across, so
 * that one breaks no sooner than with data.  Any thread.
 */
void wsm_keep_alive(QIOChannel *ioc);

typedef struct WsmChannel {
    unsigned id;                /* set in init, never changed */
    bool yank;                  /* set in init: can be yanked */
    AioContext *ctx;            /* set in the first attach, never changed */
    CoMutex send_lock;          /* one message at a time */
    QemuMutex lock;             /* protects @ioc against shutdown */
    QIOChannel *ioc;            /* NULL while down; written in the IOThread */
} WsmChannel;

/* With @yank, the yank instance of migration must outlive connections */
void wsm_channel_init(WsmChannel *c, unsigned id, bool yank);

/* No connection may be attached */
void wsm_channel_destroy(WsmChannel *c);

/* IOThread; takes the caller's reference of @ioc */
void wsm_channel_attach(WsmChannel *c, QIOChannel *ioc);

/* IOThread; nobody may be sending or receiving any more */
void wsm_channel_detach(WsmChannel *c);

/* Make senders and the receiver fail, soon and in the IOThread.  Any thread. */
void wsm_channel_shutdown(WsmChannel *c);

/*
 * Send @msg and its payload of @msg->length bytes.  Coroutine in the IOThread.
 * Returns 0 or -errno.
 */
int coroutine_fn wsm_channel_send(WsmChannel *c, const WsmMsg *msg,
                                  const void *payload);

/*
 * Receive a header and check it.  Coroutine in the IOThread.  Returns 1, or 0
 * at the end of the connection, or -1 and sets @errp.
 */
int coroutine_fn wsm_channel_recv(WsmChannel *c, const WsmLimits *limits,
                                  WsmMsg *msg, Error **errp);

/* Likewise a payload.  Returns false and sets @errp on failure. */
bool coroutine_fn wsm_channel_recv_payload(WsmChannel *c, void *buf,
                                           size_t length, Error **errp);

/* Likewise a text of @length bytes as a new string, NULL on failure */
char *coroutine_fn wsm_channel_recv_text(WsmChannel *c, size_t length,
                                         Error **errp);

/*
 * For query-wsm: put a channel that had @connections so far at the head of
 * the list.  Any thread.
 */
void wsm_channel_info(WsmInfo *info, unsigned id, bool up,
                      unsigned connections);

#endif
