/*
 * Whole-system migration: what the user has set with wsm-set-options
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-wsm.h"
#include "qemu/bitops.h"
#include "qemu/host-utils.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "migration/wsm/core/options.h"
#include "migration/wsm/wire/message.h"

void wsm_options_init(WsmOptionsStore *store)
{
    qemu_mutex_init(&store->lock);
    store->options = g_new(WsmOptions, 1);
    *store->options = (WsmOptions) {
        .has_channels = true, .channels = 2,
        .has_granularity = true, .granularity = WSM_MIN_GRANULARITY,
        .has_disks = true, .disks = NULL,
        .has_bandwidth = true, .bandwidth = 0,
        .has_max_residue = true, .max_residue = 1000,
        .has_switchover_timeout = true, .switchover_timeout = 10000,
        .has_basis = true, .basis = NULL,
        .has_sync_points = true, .sync_points = 8,
        .has_compare_bandwidth = true, .compare_bandwidth = 0,
        .has_x_push_delay = true, .x_push_delay = 0,
        .has_x_memory_pack = true, .x_memory_pack = true,
        .has_memory_references = true, .memory_references = NULL,
        .has_memory_adaptive = true, .memory_adaptive = true,
        .has_disk_packing = true, .disk_packing = false,
        .has_keep_memory = true, .keep_memory = false,
        .keep_memory_file = g_strdup(""),
        .has_crash_safe = true, .crash_safe = ON_OFF_AUTO_AUTO,
        .has_maps = true, .maps = NULL,
    };
}

void wsm_options_destroy(WsmOptionsStore *store)
{
    qapi_free_WsmOptions(store->options);
    qemu_mutex_destroy(&store->lock);
}

static unsigned wsm_kinds_of(const WsmMemoryKindList *list)
{
    unsigned kinds = 0;

    for (; list; list = list->next) {
        kinds |= BIT(list->value);
    }
    return kinds;
}

int64_t wsm_option(WsmOptionsStore *store, WsmOption option)
{
    const WsmOptions *o = store->options;

    QEMU_LOCK_GUARD(&store->lock);
    switch (option) {
    case WSM_OPT_CHANNELS:
        return o->channels;
    case WSM_OPT_GRANULARITY:
        return o->granularity;
    case WSM_OPT_BANDWIDTH:
        return o->bandwidth;
    case WSM_OPT_MAX_RESIDUE:
        return o->max_residue;
    case WSM_OPT_SWITCHOVER_TIMEOUT:
        return o->switchover_timeout;
    case WSM_OPT_SYNC_POINTS:
        return o->sync_points;
    case WSM_OPT_COMPARE_BANDWIDTH:
        return o->compare_bandwidth;
    case WSM_OPT_PUSH_DELAY:
        return o->x_push_delay;
    case WSM_OPT_MEMORY_PACK:
        return o->x_memory_pack;
    case WSM_OPT_MEMORY_REFERENCES:
        return wsm_kinds_of(o->memory_references);
    case WSM_OPT_MEMORY_ADAPTIVE:
        return o->memory_adaptive;
    case WSM_OPT_DISK_PACKING:
        return o->disk_packing;
    case WSM_OPT_CRASH_SAFE:
        return o->crash_safe;
    case WSM_OPT_KEEP_MEMORY:
        return o->keep_memory;
    }
    g_assert_not_reached();
}

static bool wsm_check_range(const char *name, bool present, int64_t value,
                            int64_t min, int64_t max, Error **errp)
{
    if (present && (value < min || value > max)) {
        error_setg(errp, "Option '%s' is %" PRId64 ", but must be from %"
                   PRId64 " to %" PRId64, name, value, min, max);
        return false;
    }
    return true;
}

/* What is negative comes as a very large number */
static bool wsm_check_speed(const char *name, bool present, uint64_t value,
                            Error **errp)
{
    return wsm_check_range(name, present, (int64_t)value, 0, INT64_MAX, errp);
}

static bool wsm_check_granularity(const WsmOptions *o, Error **errp)
{
    if (o->has_granularity &&
        (o->granularity < WSM_MIN_GRANULARITY ||
         o->granularity > WSM_MAX_GRANULARITY ||
         !is_power_of_2(o->granularity))) {
        error_setg(errp, "Option 'granularity' is %" PRId64 ", but must be a "
                   "power of two from %d to %" PRIu64, (int64_t)o->granularity,
                   WSM_MIN_GRANULARITY, (uint64_t)WSM_MAX_GRANULARITY);
        return false;
    }
    return true;
}

bool wsm_options_check(const WsmOptions *o, Error **errp)
{
    return wsm_check_granularity(o, errp) &&
           wsm_check_speed("bandwidth", o->has_bandwidth, o->bandwidth, errp) &&
           wsm_check_speed("compare-bandwidth", o->has_compare_bandwidth,
                           o->compare_bandwidth, errp) &&
           wsm_check_range("channels", o->has_channels, o->channels, 1,
                           WSM_MAX_CHANNELS - 1, errp) &&
           wsm_check_range("max-residue", o->has_max_residue, o->max_residue,
                           0, 1000000, errp) &&
           wsm_check_range("switchover-timeout", o->has_switchover_timeout,
                           o->switchover_timeout, 1, 1000000, errp) &&
           wsm_check_range("sync-points", o->has_sync_points, o->sync_points,
                           0, WSM_MAX_POINTS, errp) &&
           wsm_check_range("x-push-delay", o->has_x_push_delay,
                           o->x_push_delay, 0, 1000000, errp);
}

void wsm_options_set(WsmOptionsStore *store, WsmOptions *new)
{
    WsmOptions *o = store->options;

    GLOBAL_STATE_CODE();
    QEMU_LOCK_GUARD(&store->lock);
    o->channels = new->has_channels ? new->channels : o->channels;
    o->granularity = new->has_granularity ? new->granularity : o->granularity;
    if (new->has_disks) {
        qapi_free_strList(o->disks);
        o->disks = g_steal_pointer(&new->disks);
    }
    o->bandwidth = new->has_bandwidth ? new->bandwidth : o->bandwidth;
    o->max_residue = new->has_max_residue ? new->max_residue : o->max_residue;
    o->switchover_timeout = new->has_switchover_timeout
                            ? new->switchover_timeout : o->switchover_timeout;
    if (new->has_basis) {
        qapi_free_WsmBasisWishList(o->basis);
        o->basis = g_steal_pointer(&new->basis);
    }
    o->sync_points = new->has_sync_points ? new->sync_points : o->sync_points;
    o->compare_bandwidth = new->has_compare_bandwidth
                           ? new->compare_bandwidth : o->compare_bandwidth;
    o->x_push_delay = new->has_x_push_delay ? new->x_push_delay
                                            : o->x_push_delay;
    o->x_memory_pack = new->has_x_memory_pack ? new->x_memory_pack
                                              : o->x_memory_pack;
    if (new->has_memory_references) {
        qapi_free_WsmMemoryKindList(o->memory_references);
        o->memory_references = g_steal_pointer(&new->memory_references);
    }
    o->disk_packing = new->has_disk_packing ? new->disk_packing
                                            : o->disk_packing;
    o->memory_adaptive = new->has_memory_adaptive ? new->memory_adaptive
                                                  : o->memory_adaptive;
    o->crash_safe = new->has_crash_safe ? new->crash_safe : o->crash_safe;
    if (new->has_maps) {
        qapi_free_WsmMapNodeList(o->maps);
        o->maps = g_steal_pointer(&new->maps);
    }
    o->keep_memory = new->has_keep_memory ? new->keep_memory : o->keep_memory;
    if (new->keep_memory_file) {
        g_free(o->keep_memory_file);
        o->keep_memory_file = g_steal_pointer(&new->keep_memory_file);
    }
}

WsmOptions *wsm_options_get(WsmOptionsStore *store)
{
    QEMU_LOCK_GUARD(&store->lock);
    return QAPI_CLONE(WsmOptions, store->options);
}
