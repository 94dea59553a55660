/*
 * Whole-system migration: is it worth while to refer to content of a kind?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "migration/wsm/memory/worth.h"

/* Enough were seen: are they dear?  Then of these only half count. */
static bool wsm_worth_is_slow(WsmWorth *w, int64_t page_ns)
{
    bool slow = false;

    while (w->refs >= WSM_WORTH_RECENT) {
        slow |= page_ns && w->ns > page_ns * w->refs;
        w->refs /= 2;
        w->missed /= 2;
        w->ns /= 2;
    }
    return slow;
}

bool wsm_worth_ends(WsmWorth *w, unsigned refs, unsigned missed,
                    unsigned wrong, int64_t ns, int64_t page_ns,
                    WsmMemoryWhy *why)
{
    w->refs += refs;
    w->missed += missed;
    w->wrong += wrong;
    w->ns += ns;
    if (w->wrong >= WSM_WORTH_WRONG) {
        *why = WSM_MEMORY_WHY_WRONG;
        return true;
    }
    if (w->missed > WSM_WORTH_MISSED) {
        *why = WSM_MEMORY_WHY_MISSED;
        return true;
    }
    *why = WSM_MEMORY_WHY_SLOW;
    return wsm_worth_is_slow(w, page_ns);
}

void wsm_rate_add(WsmRate *r, int64_t now, uint64_t bytes)
{
    int64_t ns = now - r->since;

    if (!r->since) {
        /* What comes first has been under way before */
        r->since = now;
        return;
    }
    r->bytes += bytes;
    if (ns >= WSM_WORTH_RATE_NS) {
        r->best = MAX(r->best,
                      (double)r->bytes * NANOSECONDS_PER_SECOND / ns);
        r->since = now;
        r->bytes = 0;
    }
}

int64_t wsm_rate_ns(const WsmRate *r, uint64_t bytes)
{
    return r->best ? (double)bytes * NANOSECONDS_PER_SECOND / r->best : 0;
}

uint64_t wsm_worth_threshold(uint64_t qemu, uint64_t speed, uint64_t downtime,
                             uint64_t rounds, uint64_t content,
                             uint64_t packed)
{
    uint64_t bytes = MAX(qemu, speed * downtime / 1000);

    if (rounds < 2) {
        return qemu;
    }
    /* What is left may be of another kind, so not too much of that */
    return packed && content > packed
           ? bytes * MIN((double)content / packed, WSM_WORTH_PACKED) : bytes;
}
