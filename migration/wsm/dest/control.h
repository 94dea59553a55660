/*
 * Whole-system migration: what the destination says on channel 0
 *
 * What the guest's requests, the main stream and the main thread have to say
 * is queued, and said as soon as the channel is up.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_CONTROL_H
#define MIGRATION_WSM_DEST_CONTROL_H

#include "qemu/thread.h"
#include "migration/wsm/dest/conn.h"

#define WSM_MAX_QUEUE           (64 * KiB)      /* messages to say */

typedef struct WsmDestControl {
    WsmLoop *loop;              /* set in init, as is */
    WsmDestConns *conns;
    QemuMutex lock;
    GQueue *queue;              /* @lock; of WsmMsg, to be said */
} WsmDestControl;

/* Main thread; the loop must be gone in the end */
void wsm_dest_control_init(WsmDestControl *control, WsmLoop *loop,
                           WsmDestConns *conns);
void wsm_dest_control_destroy(WsmDestControl *control);

/* Start the coroutine that says what is in the queue.  Main thread. */
void wsm_dest_control_start(WsmDestControl *control);

/*
 * Channel 0 is up again: what was said on the connection before may be lost,
 * and is for the caller to say again; what is in the queue is said now.  In
 * the loop.
 */
void wsm_dest_control_up(WsmDestControl *control);

/*
 * Say @msg, which has no payload.  Ranges of the same kind that touch become
 * one.  A HAVE may be dropped, which costs no more than a block that is sent in
 * vain.  Any thread; does not block.
 */
void wsm_dest_say(WsmDestControl *control, const WsmMsg *msg);

#endif
