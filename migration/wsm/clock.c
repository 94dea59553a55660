/*
 * Whole-system migration: the section "wsm-clock"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/migration.h"
#include "migration/vmstate.h"
#include "migration/wsm/accel/guest.h"
#include "migration/wsm/accel/obstacle.h"
#include "migration/wsm/clock.h"
#include "migration/wsm/trace.h"

#define WSM_CLOCK_VERSION       1

static const uint32_t wsm_accel_feature[] = {
    [WSM_ACCEL_OTHER] = 0,
    [WSM_ACCEL_TCG] = WSM_FEATURE_TCG,
    [WSM_ACCEL_KVM] = WSM_FEATURE_KVM,
};

static bool wsm_clock_needed(void *opaque)
{
    Wsm *w = opaque;

    return w->source && wsm_source_tells_clock(w->source);
}

/* The guest ran on after it was looked at first */
static bool wsm_clock_may_save(WsmSource *s)
{
    g_autofree char *why = NULL;
    Error *err = NULL;

    if (qatomic_read(&s->accel_there) & s->accel) {
        return true;
    }
    why = wsm_accel_obstacle();
    if (why) {
        error_setg(&err, "The guest cannot be run where it goes to any more: "
                   "%s", why);
        /* Before QEMU has one, which would not say why */
        migrate_set_error(migrate_get_current(), err);
        wsm_fail(&s->milestones, err);
    }
    return !why;
}

static int wsm_clock_pre_save(void *opaque)
{
    Wsm *w = opaque;

    if (!wsm_clock_may_save(w->source)) {
        return -EINVAL;
    }
    wsm_accel_save(&w->clock);
    trace_wsm_clock_save(w->clock.tsc, w->clock.khz);
    return 0;
}

static int wsm_clock_post_load(void *opaque, int version_id)
{
    Wsm *w = opaque;

    w->has_clock = true;
    return 0;
}

/* Before the APIC, whose timer is read, too; set when all is loaded */
static const VMStateDescription wsm_vmstate_clock = {
    .name = "wsm-clock",
    .version_id = WSM_CLOCK_VERSION,
    .minimum_version_id = WSM_CLOCK_VERSION,
    .priority = MIG_PRI_MAX,
    .needed = wsm_clock_needed,
    .pre_save = wsm_clock_pre_save,
    .post_load = wsm_clock_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(clock.tsc, Wsm),
        VMSTATE_UINT32(clock.khz, Wsm),
        VMSTATE_END_OF_LIST()
    },
};

void wsm_clock_register(Wsm *w)
{
    vmstate_register(NULL, 0, &wsm_vmstate_clock, w);
    wsm_accel_register(&w->has_clock);
}

void wsm_clock_outgoing(Wsm *w)
{
    uint32_t feature = wsm_accel_feature[wsm_accel()];

    GLOBAL_STATE_CODE();
    wsm_accel_outgoing();
    wsm_source_set_accel(w->source, feature,
                         feature ? wsm_accel_obstacle() : NULL,
                         wsm_accel_is_paced());
}

void wsm_clock_incoming(Wsm *w, WsmStart *start)
{
    GLOBAL_STATE_CODE();
    wsm_accel_incoming();
    w->has_clock = false;
    start->unused = WSM_FEATURES_ACCEL & ~wsm_accel_feature[wsm_accel()];
}

bool wsm_clock_loaded(Wsm *w, Error **errp)
{
    if (!w->has_clock) {
        return true;
    }
    w->has_clock = false;
    trace_wsm_clock_load(w->clock.tsc, w->clock.khz);
    return wsm_accel_load(&w->clock, errp);
}
