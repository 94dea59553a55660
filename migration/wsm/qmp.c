/*
 * Whole-system migration: QMP commands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-wsm.h"
#include "qapi/qapi-visit-wsm.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "migration/wsm/dest/dest.h"
#include "migration/wsm/image/guest-disk.h"
#include "migration/wsm/image/image.h"
#include "migration/wsm/progress.h"
#include "migration/wsm/source/source.h"
#include "migration/wsm/state.h"
#include "migration/wsm/wire/message.h"

WsmOptions *wsm_options_new(void)
{
    WsmOptions *o = g_new(WsmOptions, 1);

    *o = (WsmOptions) {
        .has_channels = true, .channels = 2,
        .has_granularity = true, .granularity = WSM_MIN_GRANULARITY,
        .has_disks = true, .disks = NULL,
        .has_bandwidth = true, .bandwidth = 0,
        .has_max_residue = true, .max_residue = 1000,
        .has_switchover_timeout = true, .switchover_timeout = 10000,
        .has_basis = true, .basis = NULL,
        .has_sync_points = true, .sync_points = 8,
        .has_compare_bandwidth = true, .compare_bandwidth = 0,
        .has_push_delay = true, .push_delay = 0,
    };
    return o;
}

int64_t wsm_option_max_residue(Wsm *w)
{
    QEMU_LOCK_GUARD(&w->lock);
    return w->options->max_residue;
}

int64_t wsm_option_switchover_timeout(Wsm *w)
{
    QEMU_LOCK_GUARD(&w->lock);
    return w->options->switchover_timeout;
}

int64_t wsm_option_push_delay(Wsm *w)
{
    QEMU_LOCK_GUARD(&w->lock);
    return w->options->push_delay;
}

unsigned wsm_option_sync_points(Wsm *w)
{
    QEMU_LOCK_GUARD(&w->lock);
    return w->options->sync_points;
}

uint64_t wsm_option_compare_bandwidth(Wsm *w)
{
    QEMU_LOCK_GUARD(&w->lock);
    return w->options->compare_bandwidth;
}

WsmBasisKind wsm_option_basis(Wsm *w, const WsmDisk *disk)
{
    QEMU_LOCK_GUARD(&w->lock);

    for (WsmBasisWishList *l = w->options->basis; l; l = l->next) {
        if (wsm_disk_is_called(disk, l->value->disk)) {
            return l->value->kind;
        }
    }
    return WSM_BASIS_KIND_AUTO;
}

uint64_t wsm_option_bandwidth(Wsm *w)
{
    QEMU_LOCK_GUARD(&w->lock);
    return w->options->bandwidth;
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

static bool wsm_check_options(const WsmOptions *o, Error **errp)
{
    if (o->has_granularity &&
        (o->granularity < WSM_MIN_GRANULARITY ||
         o->granularity > WSM_MAX_GRANULARITY || !is_power_of_2(o->granularity)
        )) {
        error_setg(errp, "Option 'granularity' is %" PRId64 ", but must be a "
                   "power of two from %d to %" PRIu64, (int64_t)o->granularity,
                   WSM_MIN_GRANULARITY, (uint64_t)WSM_MAX_GRANULARITY);
        return false;
    }
    return wsm_check_speed("bandwidth", o->has_bandwidth, o->bandwidth, errp) &&
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
           wsm_check_range("push-delay", o->has_push_delay, o->push_delay, 0,
                           1000000, errp);
}

/* May this be set while a migration runs? */
static bool wsm_check_live(Wsm *w, const WsmOptions *o, Error **errp)
{
    const char *name = o->has_channels ? "channels" :
                       o->has_granularity ? "granularity" :
                       o->has_disks ? "disks" :
                       o->has_basis ? "basis" : NULL;

    if (w->source && name) {
        error_setg(errp, "Option '%s' cannot be set while a migration runs",
                   name);
        return false;
    }
    return true;
}

/* Disks can be unplugged later, so migrate looks at 'disks' once more */
static bool wsm_check_disks(const WsmOptions *o, Error **errp)
{
    g_autoptr(GArray) all = wsm_disk_list();
    g_autoptr(GPtrArray) selected = NULL;
    WsmExcludedDiskList *excluded = NULL;

    for (WsmBasisWishList *l = o->has_basis ? o->basis : NULL; l;
         l = l->next) {
        if (!wsm_disk_called(all, l->value->disk)) {
            error_setg(errp, "disk '%s' in option 'basis' is no disk of a "
                       "guest device", l->value->disk);
            return false;
        }
    }
    selected = wsm_disk_select(all, o->has_disks ? o->disks : NULL, &excluded,
                               errp);
    qapi_free_WsmExcludedDiskList(excluded);
    return selected;
}

void qmp_wsm_set_options(WsmOptions *new, Error **errp)
{
    Wsm *w = wsm_get();
    WsmOptions *o = w->options;

    if (!wsm_check_options(new, errp) || !wsm_check_live(w, new, errp) ||
        !wsm_check_disks(new, errp)) {
        return;
    }
    if (new->has_sync_points) {
        wsm_images_limit_points(w, new->sync_points);
    }

    QEMU_LOCK_GUARD(&w->lock);
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
    o->push_delay = new->has_push_delay ? new->push_delay : o->push_delay;
}

WsmOptions *qmp_query_wsm_options(Error **errp)
{
    Wsm *w = wsm_get();

    QEMU_LOCK_GUARD(&w->lock);
    return QAPI_CLONE(WsmOptions, w->options);
}

void wsm_info_add_channel(WsmInfo *info, unsigned id, bool up,
                          unsigned connections)
{
    WsmChannelInfo *ci = g_new(WsmChannelInfo, 1);

    ci->id = id;
    ci->connected = up;
    ci->reconnects = connections ? connections - 1 : 0;
    QAPI_LIST_PREPEND(info->channels, ci);
}

static void wsm_info_phases(Wsm *w, WsmInfo *info)
{
    int64_t now = wsm_now();

    for (int p = WSM_PHASE_POSTCOPY; p > WSM_PHASE_NONE; p--) {
        int64_t ns = wsm_phase_ns(&w->phases, p, now);

        if (ns || w->phases.phase == p) {
            WsmPhaseTime *t = g_new(WsmPhaseTime, 1);

            t->phase = p;
            t->ms = ns / SCALE_MS;
            QAPI_LIST_PREPEND(info->phases, t);
        }
    }
}

static WsmInfo *wsm_info(Wsm *w)
{
    WsmInfo *info = g_new0(WsmInfo, 1);

    WITH_QEMU_LOCK_GUARD(&w->lock) {
        info->role = w->role;
        info->phase = w->phases.phase;
        if (w->role != WSM_ROLE_NONE) {
            info->session = qemu_uuid_unparse_strdup(&w->session);
            info->has_downtime_ms = w->downtime_ns >= 0;
            info->downtime_ms = w->downtime_ns / SCALE_MS;
        }
        info->error = g_strdup(w->error);
        wsm_info_phases(w, info);
    }
    if (w->source) {
        wsm_source_info(w->source, info);
    } else if (w->dest) {
        wsm_dest_info(w->dest, info);
    }
    wsm_progress_info(w, info);
    return info;
}

WsmInfo *wsm_last_info(Wsm *w)
{
    return !w->source && !w->dest && w->last ? QAPI_CLONE(WsmInfo, w->last)
                                             : wsm_info(w);
}

WsmInfo *qmp_query_wsm(Error **errp)
{
    Wsm *w = wsm_get();
    WsmInfo *info = wsm_last_info(w);

    info->images = wsm_images_info(w);
    return info;
}

void wsm_remember(Wsm *w)
{
    qapi_free_WsmInfo(w->last);
    w->last = wsm_info(w);
}
