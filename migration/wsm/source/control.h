/*
 * Whole-system migration: what the source has to say on the urgent channel
 *
 * What comes first is decided here, and what is said again on a new connection:
 * ABORT before all else; then GO; then the sync points; SYNC not before the
 * destination has these.
 *
 * Pure.  Not thread-safe: the source uses it in its IOThread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_CONTROL_H
#define MIGRATION_WSM_SOURCE_CONTROL_H

#include "migration/wsm/wire/message.h"

typedef enum WsmSay {
    WSM_SAY_NOTHING,
    WSM_SAY_MESSAGE,            /* that is ABORT, GO or SYNC */
    WSM_SAY_POINTS,             /* all POINT messages */
} WsmSay;

typedef struct WsmControl {
    uint64_t sync_serial;       /* of the last SYNC */
    bool abort, go, points, sync;       /* are to be said */
    bool sync_awaited;          /* the answer to the last SYNC has not come */
    bool abort_sent;
} WsmControl;

/*
 * The next to say, which counts as said then.  @push: we are behind the freeze.
 * *@msg is set for WSM_SAY_MESSAGE.
 */
WsmSay wsm_control_next(WsmControl *control, bool push, WsmMsg *msg);

/* There is a new connection: what may have been lost is to be said again */
void wsm_control_up(WsmControl *control, bool push);

/* An answer to SYNC: is it to the last one, and comes for the first time? */
bool wsm_control_synced(WsmControl *control, const WsmMsg *msg);

#endif
