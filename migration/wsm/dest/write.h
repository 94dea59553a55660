/*
 * Whole-system migration: what comes is written, and answered
 *
 * What a connection receives is written, and then acknowledged, by coroutines
 * of their own, so that writes run in parallel.
 *
 * In the loop unless it says otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_WRITE_H
#define MIGRATION_WSM_DEST_WRITE_H

#include "migration/wsm/dest/disk.h"
#include "migration/wsm/link/buffers.h"

typedef struct WsmDestWriter {
    WsmLoop *loop;              /* set in init, as is */
    WsmDestDisks *disks;

    /* In the loop */
    WsmRoom room;
    CoQueue more_room;          /* a write or an answer has ended */
    WsmBuffers buffers;         /* for what is received */
} WsmDestWriter;

/* Main thread; the loop must be gone in the end */
void wsm_dest_writer_init(WsmDestWriter *writer, WsmLoop *loop,
                          WsmDestDisks *disks);
void wsm_dest_writer_destroy(WsmDestWriter *writer);

/*
 * @msg is DATA, ZERO or HASH: when there is room receive its payload, and see
 * to it that it is written or hashed, and answered.  Returns false and sets
 * @errp if the payload did not come.
 */
bool coroutine_fn wsm_dest_on_block(WsmDestWriter *writer, WsmDestConn *conn,
                                    const WsmMsg *msg, Error **errp);

#endif
