/*
 * Whole-system migration: how much is pushed at a time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/timer.h"
#include "window.h"

#define WSM_WINDOW_BEGIN        (128 * KiB)
#define WSM_CHUNK_MIN           (16 * KiB)
#define WSM_CHUNK_MAX           (256 * KiB)
#define WSM_CHUNKS              16              /* in a window */
#define WSM_QUEUE_NS            (2500 * SCALE_US)
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

void wsm_window_ack(WsmWindow *w, int64_t bytes, int64_t ns)
{
    double target, room;

    w->least_ns = MIN(w->least_ns, MAX(ns, 0));
    target = WSM_QUEUE_NS + w->least_ns / 2;
    /* 1: no queue; 0: as long as it may be; -1: twice that, or longer */
    room = MAX(1 - (ns - w->least_ns) / target, -1);
    w->bytes += bytes * (room > 0 ? room : room / WSM_SHRINK);
    w->bytes = MIN(MAX(w->bytes, WSM_WINDOW_MIN), WSM_WINDOW_MAX);
}

int64_t wsm_window_chunk(const WsmWindow *w)
{
    int64_t chunk = pow2floor(w->bytes / WSM_CHUNKS);

    return MIN(MAX(chunk, WSM_CHUNK_MIN), WSM_CHUNK_MAX);
}
