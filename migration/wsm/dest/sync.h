/*
 * Whole-system migration: what arrived becomes durable at the destination
 *
 * Before the freeze SYNC asks for a flush.  In post-copy there is one when
 * nothing is missing and the filters are gone, whether or not the source is
 * there to hear of it; SYNC waits for that.  Not before: to drop the filters
 * is to drain, and the guest would have to wait for the flush.
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
} WsmDestSync;

/*
 * The filters are gone: make what came durable, then the images are current.
 * Main thread.
 */
void wsm_dest_secure(WsmDestSync *sync);

/*
 * SYNC came: flush, or in post-copy wait until all is there and durable, and
 * answer.  In the loop.  Returns false if the connection shall end, and may
 * set @errp.
 */
bool coroutine_fn wsm_dest_on_sync(WsmDestSync *sync, WsmDestConn *conn,
                                   const WsmMsg *msg, Error **errp);

#endif
