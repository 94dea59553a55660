/*
 * Whole-system migration: what arrived becomes durable at the destination
 *
 * Before the freeze SYNC asks for a flush.  In post-copy there is one when
 * nothing is missing, whether or not the source is there to hear of it; then
 * the filters are dropped, then the records go, and SYNC waits for that.  In
 * this order: without a filter nobody notes what the guest overwrites and
 * flushes.  To drop is to drain, but nothing of ours is in flight then: the
 * guest need not wait for the flush.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_SYNC_H
#define MIGRATION_WSM_DEST_SYNC_H

#include "migration/wsm/core/session.h"
#include "migration/wsm/dest/disk.h"
#include "migration/wsm/dest/stream.h"

/* Set before the first call, never changed */
typedef struct WsmDestSync {
    WsmLoop *loop;
    WsmSession *session;
    WsmDestDisks *disks;
    WsmDestStream *stream;
    WsmDestMaps *maps;
    QEMUBHFunc *durable;        /* all is: drop the filters; may come twice */
    void *opaque;
} WsmDestSync;

/*
 * Nothing is missing ("securing"): make it durable, then call @durable.  Main
 * thread.
 */
void wsm_dest_secure(WsmDestSync *sync);

/*
 * The filters have been dropped: no record shall say that something is missing,
 * and the images are current.  Main thread.
 */
void wsm_dest_remove_records(WsmDestSync *sync);

/*
 * SYNC came: flush, or in post-copy wait until all is there and durable, and
 * answer.  In the loop.  Returns false if the connection shall end, and may
 * set @errp.
 */
bool coroutine_fn wsm_dest_on_sync(WsmDestSync *sync, WsmDestConn *conn,
                                   const WsmMsg *msg, Error **errp);

#endif
