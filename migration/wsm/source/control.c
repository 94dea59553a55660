/*
 * Whole-system migration: what the source has to say on the urgent channel
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/source/control.h"

WsmSay wsm_control_next(WsmControl *control, bool push, WsmMsg *msg)
{
    *msg = (WsmMsg) {};
    if (control->abort) {
        control->abort = false;
        msg->type = WSM_MSG_ABORT;
    } else if (control->go) {
        control->go = false;
        msg->type = WSM_MSG_GO;
        msg->epoch = push;
    } else if (control->points) {
        control->points = false;
        return WSM_SAY_POINTS;
    } else if (control->sync) {
        control->sync = false;
        control->sync_awaited = true;
        msg->type = WSM_MSG_SYNC;
        msg->epoch = push;
        msg->offset = ++control->sync_serial;
    } else {
        return WSM_SAY_NOTHING;
    }
    return WSM_SAY_MESSAGE;
}

void wsm_control_up(WsmControl *control, bool push)
{
    control->sync |= control->sync_awaited;
    control->go |= push;
    control->points |= push;
}

bool wsm_control_synced(WsmControl *control, const WsmMsg *msg)
{
    bool first = control->sync_awaited && msg->offset == control->sync_serial;

    control->sync_awaited &= !first;
    return first;
}
