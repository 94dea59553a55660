/*
 * Whole-system migration: how far the destination has come
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/lockable.h"
#include "migration/wsm/dest/life.h"

/*
 * Not from "setup" and "dropping" to "stopping": whoever frees must wait until
 * the function that polls there has come back.
 */
static const uint32_t followers[WSM_LIFE__MAX] = {
    [WSM_LIFE_SETUP]     = BIT(WSM_LIFE_OPEN),
    [WSM_LIFE_OPEN]      = BIT(WSM_LIFE_SEALED) | BIT(WSM_LIFE_STOPPING),
    [WSM_LIFE_SEALED]    = BIT(WSM_LIFE_SECURING) | BIT(WSM_LIFE_STOPPING),
    [WSM_LIFE_SECURING]  = BIT(WSM_LIFE_DROPPING) | BIT(WSM_LIFE_UNSECURED) |
                           BIT(WSM_LIFE_STOPPING),
    [WSM_LIFE_UNSECURED] = BIT(WSM_LIFE_DROPPING) | BIT(WSM_LIFE_STOPPING),
    [WSM_LIFE_DROPPING]  = BIT(WSM_LIFE_DROPPED),
    [WSM_LIFE_DROPPED]   = BIT(WSM_LIFE_SECURED) | BIT(WSM_LIFE_STOPPING),
    [WSM_LIFE_SECURED]   = BIT(WSM_LIFE_SETTLED) | BIT(WSM_LIFE_STOPPING),
    [WSM_LIFE_SETTLED]   = BIT(WSM_LIFE_TOLD) | BIT(WSM_LIFE_STOPPING),
    [WSM_LIFE_TOLD]      = BIT(WSM_LIFE_STOPPING),
    [WSM_LIFE_STOPPING]  = BIT(WSM_LIFE_RELEASED),
};

void wsm_life_init(WsmDestLife *l)
{
    qemu_mutex_init(&l->lock);
    l->now = l->reached = WSM_LIFE_SETUP;
}

void wsm_life_destroy(WsmDestLife *l)
{
    qemu_mutex_destroy(&l->lock);
}

bool wsm_life_legal(WsmLife from, WsmLife to)
{
    assert(from < WSM_LIFE__MAX && to < WSM_LIFE__MAX);
    return followers[from] & BIT(to);
}

/* Enter @to, if @from is negative or how it is now */
static bool wsm_life_change(WsmDestLife *l, int from, WsmLife to)
{
    QEMU_LOCK_GUARD(&l->lock);

    if (from >= 0 && l->now != from) {
        return false;
    }
    assert(wsm_life_legal(l->now, to));
    if (to < WSM_LIFE_STOPPING) {
        qatomic_set(&l->reached, to);
    }
    qatomic_set(&l->now, to);
    return true;
}

void wsm_life_enter(WsmDestLife *l, WsmLife to)
{
    wsm_life_change(l, -1, to);
}

bool wsm_life_advance(WsmDestLife *l, WsmLife from, WsmLife to)
{
    return wsm_life_change(l, from, to);
}

WsmLife wsm_life(WsmDestLife *l)
{
    return qatomic_read(&l->now);
}

bool wsm_life_reached(WsmDestLife *l, WsmLife state)
{
    assert(state < WSM_LIFE_STOPPING);
    return qatomic_read(&l->reached) >= state;
}

bool wsm_life_is_over(WsmDestLife *l)
{
    return wsm_life(l) >= WSM_LIFE_STOPPING;
}

bool wsm_life_has_filters(WsmDestLife *l)
{
    return wsm_life(l) < WSM_LIFE_DROPPING;
}

bool wsm_life_polls(WsmDestLife *l)
{
    WsmLife now = wsm_life(l);

    return now == WSM_LIFE_DROPPING || now == WSM_LIFE_STOPPING;
}
