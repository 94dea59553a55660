/*
 * Whole-system migration: progress, as query-wsm shows it
 *
 * A timer takes samples, so that the speed is that of the last seconds and not
 * the mean since the start, whenever somebody asks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <math.h>
#include "migration/migration.h"
#include "migration/ram.h"
#include "migration/wsm/progress.h"
#include "migration/wsm/source/progress.h"

#define WSM_SAMPLE_MS           200     /* times WSM_SAMPLES: 6.4 s */

static WsmSample wsm_progress_now(Wsm *w)
{
    WsmSample now = { .ns = wsm_now() };

    if (w->source) {
        wsm_source_sample(w->source, &now);
    } else if (w->dest) {
        wsm_dest_sample(w->dest, &now);
    }
    return now;
}

static void wsm_progress_tick(void *opaque)
{
    Wsm *w = opaque;
    WsmPhase phase = wsm_session_phase(&w->session);
    WsmSample now;

    if (!w->source && !w->dest) {
        return;
    }
    if (phase != w->meter_phase && phase != WSM_PHASE_FREEZE) {
        /* Each phase has a speed of its own */
        w->meter.count = 0;
    }
    w->meter_phase = phase;
    now = wsm_progress_now(w);
    wsm_meter_add(&w->meter, &now);
    timer_mod(w->meter_timer, now.ns / SCALE_MS + WSM_SAMPLE_MS);
}

void wsm_progress_start(Wsm *w)
{
    if (!w->meter_timer) {
        w->meter_timer = timer_new_ms(QEMU_CLOCK_REALTIME, wsm_progress_tick,
                                      w);
    }
    w->meter.count = 0;
    w->meter_phase = WSM_PHASE_NONE;
    wsm_progress_tick(w);
}

static void wsm_info_left(WsmInfo *info, int64_t done, int64_t left)
{
    info->has_total = info->has_remaining = info->has_percent = true;
    info->total = done + left;
    info->remaining = left;
    info->percent = info->phase == WSM_PHASE_COMPLETED
                    ? 100 : wsm_percent(done, left);
}

static void wsm_info_expect(WsmInfo *info, const WsmExpect *e)
{
    double handover = wsm_expect_handover(e), all = wsm_expect_all(e);

    if (info->phase < WSM_PHASE_FREEZE && handover >= 0) {
        info->has_expected_handover_seconds = true;
        info->expected_handover_seconds = ceil(handover);
    }
    if (all >= 0) {
        info->has_expected_seconds = true;
        info->expected_seconds = ceil(all);
    }
}

static void wsm_progress_source(Wsm *w, WsmInfo *info, const WsmSample *now,
                                WsmExpect *e)
{
    wsm_source_expect(w->source, info->phase, e);
    info->has_ram_remaining = true;
    info->ram_remaining = ram_bytes_remaining();
    wsm_info_left(info, now->data + now->equal + now->ram,
                  e->disks_before + e->disks_after + e->ram);
}

/* Before the freeze the destination does not know what will come */
static void wsm_progress_dest(WsmInfo *info, const WsmSample *now,
                              WsmExpect *e)
{
    if (info->phase >= WSM_PHASE_POSTCOPY) {
        e->disks_after = now->dirty;
        wsm_info_left(info, now->data, now->dirty);
    }
}

void wsm_progress_info(Wsm *w, WsmInfo *info)
{
    WsmSample now;
    WsmExpect e = {};

    if ((!w->source && !w->dest) || info->phase < WSM_PHASE_DISK_PRECOPY ||
        info->phase > WSM_PHASE_COMPLETED) {
        return;
    }
    now = wsm_progress_now(w);
    e.rates = wsm_meter_rates(&w->meter, &now);
    if (w->source) {
        wsm_progress_source(w, info, &now, &e);
    } else {
        wsm_progress_dest(info, &now, &e);
    }
    if (info->phase == WSM_PHASE_COMPLETED) {
        return;
    }
    info->has_speed = true;
    info->speed = e.rates.moved;
    if (info->has_total) {
        wsm_info_expect(info, &e);
    }
}
