/*
 * Whole-system migration: the end of the main stream at the destination
 *
 * When all is here and durable, or the guest never runs here, the stream has
 * nothing left to bring.  QEMU may wait for it all the same, or for a new one
 * when it broke.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_STREAM_H
#define MIGRATION_WSM_DEST_STREAM_H

#include "migration/wsm/core/session.h"
#include "migration/wsm/dest/conn.h"
#include "migration/wsm/dest/handover.h"
#include "migration/wsm/dest/life.h"

typedef struct WsmDestStream {
    WsmSession *session;        /* set in init, as are */
    WsmHandover *handover;
    WsmDestLife *life;
    WsmDestConns *conns;
    QEMUTimer *watch;           /* BQL: or NULL */
    int64_t alone_since;        /* BQL, ns: channel 0 is down since then */
    bool told;                  /* BQL: the user, that it will not end alone */

    /* There is no main stream: all is over; BQL, set before the end */
    QEMUBHFunc *over;
    void *opaque;
} WsmDestStream;

/* Main thread */
void wsm_dest_stream_init(WsmDestStream *stream, WsmSession *session,
                          WsmHandover *handover, WsmDestLife *life,
                          WsmDestConns *conns);

/*
 * There is none, as it broke in the life of another QEMU: @over(@opaque) will
 * be called once when it would not be needed any more.  Main thread.
 */
void wsm_dest_stream_is_none(WsmDestStream *stream, QEMUBHFunc *over,
                             void *opaque);

/* May the main stream end now, the migration being over?  Any thread. */
bool wsm_dest_stream_may_end(WsmDestStream *stream);

/*
 * The stream is not needed any more; or it must end, as the guest never runs
 * here.  See to it that it ends even if QEMU waits for a new one, until
 * wsm_dest_stream_stop().  Both can be called again.  Main thread.
 */
void wsm_dest_stream_end(WsmDestStream *stream);
void wsm_dest_stream_stop(WsmDestStream *stream);

#endif
