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

static void wsm_pace_turn(WsmPace *pace, bool raw)
{
    pace->raw = raw;
    pace->trials = 0;
}

/* A trial with raw pages took @ns */
static void wsm_pace_was_raw(WsmPace *pace, int64_t ns)
{
    if (ns > pace->packed_ns) {
        pace->wait = MIN(2 * pace->wait + 1, WSM_PACE_MAX_WAIT);
        wsm_pace_turn(pace, false);
    } else if (pace->trials >= WSM_PACE_RAW) {
        pace->wait = 0;
        wsm_pace_turn(pace, false);
    }
}

static void wsm_pace_was_packed(WsmPace *pace, int64_t ns)
{
    pace->packed_ns = ns;
    if (pace->trials > pace->wait && pace->idle_ns * WSM_PACE_WAITS < ns) {
        wsm_pace_turn(pace, true);
    }
}

void wsm_pace_done(WsmPace *pace, int64_t busy, int64_t idle)
{
    int64_t ns;

    pace->busy_ns += busy;
    pace->idle_ns += idle;
    if (++pace->packets < WSM_PACE_TRIAL) {
        return;
    }
    pace->trials++;
    ns = pace->busy_ns + pace->idle_ns;
    if (pace->raw) {
        wsm_pace_was_raw(pace, ns);
    } else {
        wsm_pace_was_packed(pace, ns);
    }
    pace->packets = 0;
    pace->busy_ns = pace->idle_ns = 0;
}
