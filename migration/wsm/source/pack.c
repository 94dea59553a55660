/*
 * Whole-system migration: is disk data made smaller before it is sent?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "migration/wsm/source/pack.h"
#include "migration/wsm/wire/message.h"

static void wsm_source_pack_count(WsmSourcePack *p, int64_t now)
{
    if (p->waiting) {
        p->waited += now - p->waiting_since;
    }
    p->waiting_since = now;
}

void wsm_source_pack_waits(WsmSourcePack *p, int64_t now)
{
    wsm_source_pack_count(p, now);
    p->waiting++;
}

void wsm_source_pack_goes_on(WsmSourcePack *p, int64_t now)
{
    wsm_source_pack_count(p, now);
    p->waiting--;
}

bool wsm_source_pack_wants(WsmSourcePack *p, uint64_t bytes)
{
    if (bytes < WSM_PACK_LEAST || !wsm_pace_pack(&p->pace)) {
        return false;
    }
    if (p->skip) {
        p->skip--;
        return false;
    }
    return true;
}

void wsm_source_pack_tried(WsmSourcePack *p, bool smaller)
{
    p->skips = smaller ? 0 : MIN(2 * p->skips + 1, WSM_PACK_MAX_SKIP);
    p->skip = p->skips;
}

void wsm_source_pack_done(WsmSourcePack *p, int64_t now, uint64_t bytes,
                          uint64_t sent, uint64_t queued)
{
    wsm_source_pack_count(p, now);
    if (bytes < WSM_PACK_LEAST) {
        return;
    }
    if (p->last) {
        /* Trials are compared: each as if requests were of the same length */
        double scale = (double)WSM_MAX_DATA / bytes;
        WsmPaceStep step = {
            .busy_ns = (now - p->last - p->waited) * scale,
            .idle_ns = p->waited * scale,
            .sent = sent,
            .queued = queued,
        };

        wsm_pace_done(&p->pace, &step);
    }
    p->last = now;
    p->waited = 0;
}
