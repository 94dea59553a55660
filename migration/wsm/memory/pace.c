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

/* ns of this trial, until all that was given to the kernel is out */
static double wsm_pace_ns(const WsmPace *pace, uint64_t queued)
{
    double ns = pace->busy_ns + pace->idle_ns;
    double out = (double)pace->sent + pace->queued - queued;

    if (pace->sent) {
        ns *= pace->sent / MAX(out, 1);
    }
    /* Less came in than went out of what was there before */
    return MAX(ns, pace->busy_ns);
}

static void wsm_pace_begin(WsmPace *pace, uint64_t queued)
{
    pace->packets = 0;
    pace->busy_ns = pace->idle_ns = 0;
    pace->sent = 0;
    pace->queued = queued;
}

/*
 * Raw pages took @ns so far; is that in vain?  Else the trial goes on.  The
 * first ones went into empty buffers, so at first it must be plain.
 */
static bool wsm_pace_is_vain(const WsmPace *pace, double ns)
{
    double packed = (double)pace->packed_ns * pace->packets / WSM_PACE_TRIAL;

    return pace->packets >= WSM_PACE_LEAST &&
           ns > (pace->packets < WSM_PACE_TRIAL / 2 ? 2 * packed : packed);
}

/* Returns whether the trial is over */
static bool wsm_pace_was_raw(WsmPace *pace, double ns)
{
    if (wsm_pace_is_vain(pace, ns)) {
        pace->wait = MIN(4 * pace->wait + 3, WSM_PACE_MAX_WAIT);
        pace->raws = 0;
        wsm_pace_turn(pace, false);
        return true;
    }
    if (pace->packets < WSM_PACE_TRIAL) {
        return false;
    }
    if (++pace->trials >= MAX(pace->raws, WSM_PACE_RAW)) {
        pace->wait = 0;
        pace->raws = MIN(4 * pace->trials, WSM_PACE_MAX_RAW);
        wsm_pace_turn(pace, false);
    }
    return true;
}

/* Likewise */
static bool wsm_pace_was_packed(WsmPace *pace, double ns)
{
    if (pace->packets < WSM_PACE_TRIAL) {
        return false;
    }
    pace->packed_ns = MIN(ns, INT64_MAX / 2);
    if (++pace->trials > pace->wait &&
        (ns - pace->busy_ns) * WSM_PACE_WAITS < ns) {
        wsm_pace_turn(pace, true);
    }
    return true;
}

void wsm_pace_done(WsmPace *pace, const WsmPaceStep *step)
{
    double ns;

    pace->busy_ns += step->busy_ns;
    pace->idle_ns += step->idle_ns;
    pace->sent += step->sent;
    pace->packets++;
    ns = wsm_pace_ns(pace, step->queued);
    if (pace->raw ? wsm_pace_was_raw(pace, ns)
                  : wsm_pace_was_packed(pace, ns)) {
        wsm_pace_begin(pace, step->queued);
    }
}
