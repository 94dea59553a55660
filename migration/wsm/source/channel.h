/*
 * Whole-system migration: the source's block channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_CHANNEL_H
#define MIGRATION_WSM_SOURCE_CHANNEL_H

#include "migration/wsm/core/loop.h"
#include "migration/wsm/link/block-channel.h"
#include "migration/wsm/link/connect.h"
#include "migration/wsm/source/pack.h"
#include "migration/wsm/wire/start.h"

typedef struct WsmSourceChannel WsmSourceChannel;

/* In the loop, in the channel's coroutine */
typedef struct WsmSourceChannelOps {
    /* The destination has welcomed a connection */
    void coroutine_fn (*up)(WsmSourceChannel *c);
    /* A message; false and @errp to close the connection */
    bool coroutine_fn (*message)(WsmSourceChannel *c, const WsmMsg *msg,
                                 Error **errp);
    /* The connection ends; and now nobody sends on it any more */
    void (*down)(WsmSourceChannel *c);
    void (*gone)(WsmSourceChannel *c);
    /* Why it ended, or was not welcomed; @err is taken */
    void (*failed)(WsmSourceChannel *c, Error *err);
} WsmSourceChannelOps;

struct WsmSourceChannel {
    /* Set in init and open, never changed */
    const WsmStart *start;
    const int64_t *disk_size;   /* as WsmLimits wants it */
    WsmLoop *loop;
    const WsmSourceChannelOps *ops;
    void *opaque;

    WsmChannel c;
    WsmConnector connector;

    /* In the loop; the first two are read by query-wsm (atomic) */
    bool up;
    unsigned connection;        /* number of connections there were */
    unsigned users;             /* coroutines that are sending */
    CoQueue idle;               /* waits for @users to be 0 */
    bool answered;              /* the destination has ever said a word */
    uint32_t features;          /* that are in use, since the channel is up */
    WsmSourcePack pack;
};

/*
 * All that is given must outlive @c; for @target see link/connect.h.  Main
 * thread.
 */
void wsm_source_channel_init(WsmSourceChannel *c, unsigned id,
                             const WsmStart *start,
                             SocketAddress *const *target, WsmLoop *loop,
                             const WsmSourceChannelOps *ops, void *opaque);
void wsm_source_channel_destroy(WsmSourceChannel *c);

/*
 * Start its coroutine, when @start is all there.  @disk_size: of its disks; it
 * must outlive @c.  Any thread.
 */
void wsm_source_channel_open(WsmSourceChannel *c, const int64_t *disk_size);

/* The loop is to end: do not connect, receive or send.  Main thread. */
void wsm_source_channel_quit(WsmSourceChannel *c);

/*
 * Send; the channel is not detached before it has ended.  0 or -errno.  In the
 * loop.
 */
int coroutine_fn wsm_source_transmit(WsmSourceChannel *c, const WsmMsg *msg,
                                     const void *payload);

#endif
