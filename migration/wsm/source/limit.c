/*
 * Whole-system migration: the source waits, for no more than it must
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/source/source.h"

#define WSM_SLICE_NS            (100 * SCALE_MS)

void coroutine_fn wsm_source_sleep(WsmSource *s, int64_t ns)
{
    while (ns > 0 && !qatomic_read(&s->quit)) {
        int64_t slice = MIN(ns, WSM_SLICE_NS);

        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, slice);
        ns -= slice;
    }
}

void coroutine_fn wsm_source_limit(WsmSource *s, RateLimit *limit,
                                   WsmSpeed *speed, int64_t bytes)
{
    uint64_t now = speed(s);
    int64_t ns;

    if (!now) {
        return;
    }
    ratelimit_set_speed(limit, now, WSM_SLICE_NS);
    ns = ratelimit_calculate_delay(limit, bytes);
    while (ns > 0 && speed(s) == now && !qatomic_read(&s->quit)) {
        wsm_source_sleep(s, MIN(ns, WSM_SLICE_NS));
        ns -= WSM_SLICE_NS;
    }
}
