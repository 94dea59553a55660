/*
 * Whole-system migration: what becomes of a disk's image in the end
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/policy/ending.h"

static WsmEnding wsm_ending_source(const WsmEndingInput *in)
{
    /* The guest runs on here */
    WsmEnding end = {
        .record = in->marked ? WSM_ENDING_RECORD_MARK
                             : WSM_ENDING_RECORD_STAYS,
    };

    if (in->replaced) {
        /* A job that ran before put another node in its place */
        end.points = WSM_ENDING_POINTS_GO;
        if (in->phase > WSM_PHASE_FREEZE) {
            end.record = WSM_ENDING_RECORD_STAYS;
        }
        return end;
    }
    switch (in->phase) {
    case WSM_PHASE_DISK_PRECOPY:
    case WSM_PHASE_RAM_PRECOPY:
    case WSM_PHASE_FREEZE:
        /* Broke off: next time what has arrived need not be sent */
        end.points = WSM_ENDING_POINTS_BROKE;
        return end;
    case WSM_PHASE_POSTCOPY:
    case WSM_PHASE_COMPLETED:
        return (WsmEnding) {
            .points = WSM_ENDING_POINTS_NEW,
            .state = WSM_ENDING_STATE_LEFT,
            .record = WSM_ENDING_RECORD_PUT,
        };
    default:
        return end;
    }
}

static WsmEnding wsm_ending_destination(const WsmEndingInput *in)
{
    /* No guest may run from it */
    WsmEnding end = { .record = WSM_ENDING_RECORD_PUT };

    if (in->complete) {
        /* Although the source may not know.  The guest may still run. */
        end.state = WSM_ENDING_STATE_CURRENT;
        end.record = WSM_ENDING_RECORD_MARK;
    } else if (in->phase == WSM_PHASE_SETUP && !in->wrote) {
        /* Nothing came: the image is what it was before START */
        end.state = WSM_ENDING_STATE_BEFORE;
    } else if (in->phase < WSM_PHASE_POSTCOPY) {
        /* What has arrived is good, the source knows the rest */
        end.points = WSM_ENDING_POINTS_NEW;
    } else {
        /* The guest has run here, and blocks are missing */
        end.points = WSM_ENDING_POINTS_GO;
    }
    return end;
}

WsmEnding wsm_ending(const WsmEndingInput *in)
{
    return in->role == WSM_ROLE_SOURCE ? wsm_ending_source(in)
                                       : wsm_ending_destination(in);
}
