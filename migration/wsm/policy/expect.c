/*
 * Whole-system migration: how fast it goes, and how long it will take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/policy/expect.h"

/*
 * Memory that is dirtied nearly as fast as it is sent, or faster, may never
 * converge; the guess then is that a tenth of the speed is won.
 */
#define WSM_LEAST_SPEED         0.1

void wsm_meter_add(WsmMeter *m, const WsmSample *s)
{
    m->sample[m->count++ % WSM_SAMPLES] = *s;
}

static double per_second(int64_t bytes, int64_t ns)
{
    return MAX(bytes, 0) * (double)NANOSECONDS_PER_SECOND / ns;
}

WsmRates wsm_meter_rates(const WsmMeter *m, const WsmSample *now)
{
    unsigned oldest = m->count > WSM_SAMPLES ? m->count % WSM_SAMPLES : 0;
    const WsmSample *then = &m->sample[oldest];
    int64_t ns = now->ns - then->ns;

    int64_t data = now->data - then->data;
    int64_t done = data + now->equal - then->equal;

    if (!m->count || ns < WSM_LEAST_NS) {
        return (WsmRates) {};
    }
    return (WsmRates) {
        .moved = per_second(data + now->ram - then->ram, ns),
        .done = per_second(done, ns),
        .written = per_second(done + now->zero - then->zero +
                              now->dirty - then->dirty, ns),
    };
}

/* Negative: never */
static double seconds(int64_t bytes, double speed)
{
    if (bytes <= 0) {
        return 0;
    }
    return speed > 0 ? bytes / speed : -1;
}

/* Of what is sent; 0: not known, since most is not sent but compared */
static double speed(const WsmExpect *e)
{
    return e->disks_before && e->rates.done > 2 * e->rates.moved
           ? 0 : e->rates.moved;
}

double wsm_expect_handover(const WsmExpect *e)
{
    double disks = seconds(e->disks_before, e->rates.done);
    double ram = seconds(e->ram, MAX(speed(e) - e->ram_written,
                                     speed(e) * WSM_LEAST_SPEED));

    return disks < 0 || ram < 0 ? -1 : disks + ram;
}

double wsm_expect_all(const WsmExpect *e)
{
    double handover = wsm_expect_handover(e), after;

    if (handover < 0) {
        return -1;
    }
    after = e->disks_after + e->rates.written * handover;
    after = seconds(MIN(after, MAX(e->disks_most, e->disks_after)),
                    speed(e));
    return after < 0 ? -1 : handover + after;
}

int wsm_percent(int64_t done, int64_t left)
{
    double all = (double)done + left;

    return all > 0 ? MIN(99, (int)(100.0 * done / all)) : 0;
}
