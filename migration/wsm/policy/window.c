/*
 * Whole-system migration: how much is pushed at a time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/timer.h"
#include "migration/wsm/policy/window.h"

#define WSM_WINDOW_BEGIN        (128 * KiB)
#define WSM_CHUNK_MIN           (8 * KiB)
#define WSM_CHUNK_MAX           (256 * KiB)
#define WSM_CHUNKS              16              /* in a window */
#define WSM_QUEUE_NS            (1500 * SCALE_US)
#define WSM_STUCK_NS            NANOSECONDS_PER_SECOND
/*
 * Growing doubles the window in a round trip at most.  To shrink as fast
 * would go on for one round trip too long, and leave the link idle.
 */
#define WSM_SHRINK              4

void wsm_window_init(WsmWindow *w)
{
    *w = (WsmWindow) {
        .bytes = WSM_WINDOW_BEGIN,
        .least_ns = INT64_MAX,
    };
}

/* As small as it gets, for long: what delays is not what we send */
static void wsm_window_look_if_stuck(WsmWindow *w, int64_t now, int64_t ns)
{
    if (w->bytes > WSM_WINDOW_MIN) {
        w->stuck_since = 0;
    } else if (!w->stuck_since) {
        w->stuck_since = now;
        w->stuck_least_ns = ns;
    } else {
        w->stuck_least_ns = MIN(w->stuck_least_ns, ns);
        if (now - w->stuck_since >= WSM_STUCK_NS) {
            w->least_ns = w->stuck_least_ns;
            w->stuck_since = 0;
        }
    }
}

void wsm_window_ack(WsmWindow *w, int64_t bytes, int64_t in_flight,
                    int64_t now, int64_t ns)
{
    double target, room;

    if (ns <= 0) {
        return;
    }
    w->least_ns = MIN(w->least_ns, ns);
    target = WSM_QUEUE_NS + w->least_ns / 2;
    /* 1: no queue; 0: as long as it may be; -1: twice that, or longer */
    room = MAX(1 - (ns - w->least_ns) / target, -1);
    bytes = MIN(bytes, w->bytes);
    if (room < 0) {
        w->bytes -= bytes * -room / WSM_SHRINK;
    } else if (in_flight > w->bytes / 2) {
        /* If less is sent than may be, it says nothing about the link */
        w->bytes += bytes * room;
    }
    w->bytes = MIN(MAX(w->bytes, WSM_WINDOW_MIN), WSM_WINDOW_MAX);
    wsm_window_look_if_stuck(w, now, ns);
}

int64_t wsm_window_chunk(const WsmWindow *w)
{
    int64_t chunk = pow2floor(w->bytes / WSM_CHUNKS);

    return MIN(MAX(chunk, WSM_CHUNK_MIN), WSM_CHUNK_MAX);
}
