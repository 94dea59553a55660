/*
 * Whole-system migration: connections of block channels at the destination
 *
 * A connection says which channel it is, and takes the place of the one that
 * this channel had before.  That one must be gone, with all that is done for
 * it, before the source is welcomed: after that nothing old can be written any
 * more.
 *
 * In the loop (core/loop.h) unless it says otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_CONN_H
#define MIGRATION_WSM_DEST_CONN_H

#include "migration/wsm/core/loop.h"
#include "migration/wsm/dest/limits.h"
#include "migration/wsm/link/block-channel.h"
#include "migration/wsm/wire/start.h"

typedef struct WsmDestConns WsmDestConns;

typedef struct WsmDestConn {
    WsmPlace place;
    WsmDestConns *all;
    WsmChannel c;
    QIOChannel *ioc;            /* until attached */
    QEMUTimer *timer;           /* until HELLO */
    unsigned users;             /* see wsm_dest_conn_hold() */
    WsmLoad load;               /* what is done for it: dest/write.h */
} WsmDestConn;

/* Coroutines in the loop, those of the connection */
typedef struct WsmDestConnOps {
    /* The channel is up and welcome.  Returns false if it shall end. */
    bool coroutine_fn (*up)(void *opaque, WsmDestConn *conn);

    /*
     * @msg has come, its payload can be received.  Returns false if the
     * connection shall end, and may set @errp.
     */
    bool coroutine_fn (*message)(void *opaque, WsmDestConn *conn,
                                 const WsmMsg *msg, Error **errp);

    /* It ends with @err, which is taken */
    void (*failed)(void *opaque, Error *err);
} WsmDestConnOps;

typedef struct WsmDestChannel {
    WsmDestConn *conn;          /* in the loop; NULL: down */
    bool up;                    /* atomic */
    unsigned connections;       /* atomic: how many there were */
} WsmDestChannel;

struct WsmDestConns {
    /* Set in init, never changed */
    WsmLoop *loop;
    const WsmDestConnOps *ops;
    void *opaque;
    const WsmStart *start;
    int64_t *disk_size;         /* as WsmLimits wants it */
    unsigned nchannels;
    WsmDestChannel *channel;

    char *refusal;              /* atomic: why all are refused, or NULL */

    /* In the loop */
    WsmPlaces places;
    CoQueue gone;               /* a connection has ended */
    CoQueue idle;               /* nobody works for one any more */
};

/*
 * Main thread.  @start must stay as it is; channels have their numbers from it.
 * The loop need not be there yet, and must be gone in the end.
 */
void wsm_dest_conns_init(WsmDestConns *conns, WsmLoop *loop,
                         const WsmStart *start, const WsmDestConnOps *ops,
                         void *opaque);
void wsm_dest_conns_destroy(WsmDestConns *conns);

/* One has come in; takes the reference of @ioc.  Main thread. */
void wsm_dest_conns_add(WsmDestConns *conns, QIOChannel *ioc);

/*
 * From now on say @text to all that come, once and for all.  Returns false if
 * there is a text already.  Main thread.
 */
bool wsm_dest_conns_refuse(WsmDestConns *conns, const char *text);

/* That text or NULL.  Any thread. */
const char *wsm_dest_conns_refusal(WsmDestConns *conns);

/* End all that there are */
void wsm_dest_conns_shutdown(WsmDestConns *conns);

/* The one that channel @id has now, or NULL */
WsmDestConn *wsm_dest_conns_get(WsmDestConns *conns, unsigned id);

/* Is channel @id up?  Any thread. */
bool wsm_dest_conns_is_up(WsmDestConns *conns, unsigned id);

/* What query-wsm tells.  Any thread. */
void wsm_dest_conns_info(WsmDestConns *conns, WsmInfo *info);

/* A coroutine works for @conn: it is not gone before that has let go of it */
void wsm_dest_conn_hold(WsmDestConn *conn);
void wsm_dest_conn_release(WsmDestConn *conn);

/* Send, and hold it as long as that takes.  0 or -errno. */
int coroutine_fn wsm_dest_conn_send(WsmDestConn *conn, const WsmMsg *msg,
                                    const void *payload);

#endif
