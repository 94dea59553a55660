/*
 * Whole-system migration: is it worth while to make memory smaller?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/memory/pace.h"

#define WSM_PACE_WAITS          5       /* a fifth of the time at least */

bool wsm_pace_pack(const WsmPace *pace)
{
    return !pace->raw;
}

void wsm_pace_done(WsmPace *pace, int64_t busy, int64_t idle)
{
    bool raw = false;

    pace->packets++;
    if (pace->raw) {
        if (pace->packets == WSM_PACE_RAW) {
            *pace = (WsmPace) {};
        }
        return;
    }
    pace->busy_ns += busy;
    pace->idle_ns += idle;
    if (pace->packets == WSM_PACE_TRIAL) {
        raw = pace->idle_ns * WSM_PACE_WAITS < pace->busy_ns + pace->idle_ns;
        *pace = (WsmPace) { .raw = raw };
    }
}
