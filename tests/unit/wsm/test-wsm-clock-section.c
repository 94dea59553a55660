/*
 * Unit tests of migration/wsm/clock.c: the section "wsm-clock"
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
#include "migration/wsm/state.h"

/* The guest, and what runs it here */
static struct {
    WsmAccel accel;
    const char *obstacle;
    bool paced, registered, fails;
    WsmClock clock;
    unsigned saves, loads, outgoing, incoming;
    char *error;                /* of QEMU's migration */
} here;

static Wsm wsm;
static WsmSource source;
static const VMStateDescription *section;

static struct {
    uint32_t accel;
    char *only_here;
    bool paced;
} told;

WsmAccel wsm_accel(void)
{
    return here.accel;
}

void wsm_accel_register(const bool *told)
{
    g_assert_true(told == &wsm.has_clock);
    here.registered = true;
}

void wsm_accel_outgoing(void)
{
    here.outgoing++;
}

void wsm_accel_incoming(void)
{
    here.incoming++;
}

char *wsm_accel_obstacle(void)
{
    return g_strdup(here.obstacle);
}

bool wsm_accel_is_paced(void)
{
    return here.paced;
}

void wsm_accel_save(WsmClock *clock)
{
    here.saves++;
    *clock = here.clock;
}

bool wsm_accel_load(const WsmClock *clock, Error **errp)
{
    here.loads++;
    here.clock = *clock;
    if (here.fails) {
        error_setg(errp, "cannot");
    }
    return !here.fails;
}

bool wsm_source_tells_clock(const WsmSource *s)
{
    return s->accel_there && s->accel_there != s->accel;
}

void wsm_source_set_accel(WsmSource *s, uint32_t accel, char *only_here,
                          bool paced)
{
    told.accel = accel;
    told.only_here = only_here;
    told.paced = paced;
}

MigrationState *migrate_get_current(void)
{
    return NULL;
}

void migrate_set_error(MigrationState *s, const Error *error)
{
    g_assert_null(here.error);
    here.error = g_strdup(error_get_pretty(error));
}

int vmstate_register_with_alias_id(VMStateIf *obj, uint32_t instance_id,
                                   const VMStateDescription *vmsd,
                                   void *base, int alias_id,
                                   int required_for_version, Error **errp)
{
    g_assert_true(base == &wsm);
    section = vmsd;
    return 0;
}

static void tell(WsmRole role, const QemuUUID *id, WsmPhase phase)
{
}

static void set_up(WsmAccel accel, uint32_t there)
{
    memset(&here, 0, sizeof(here));
    memset(&source, 0, sizeof(source));
    memset(&wsm, 0, sizeof(wsm));
    here.accel = accel;
    here.clock = (WsmClock) { .tsc = 12345, .khz = 678 };
    source.accel = accel == WSM_ACCEL_KVM ? WSM_FEATURE_KVM : WSM_FEATURE_TCG;
    source.accel_there = there;
    wsm_session_init(&wsm.session, tell);
    wsm_milestones_init(&source.milestones, &wsm.session);
    wsm.source = &source;
    wsm_clock_register(&wsm);
    g_assert_true(here.registered);
}

static void tear_down(void)
{
    g_free(here.error);
    wsm_milestones_destroy(&source.milestones);
    wsm_session_destroy(&wsm.session);
}

/* As docs/protocol.md has it; first of all, as others ask whether it came */
static void test_layout(void)
{
    set_up(WSM_ACCEL_TCG, 0);
    g_assert_cmpstr(section->name, ==, "wsm-clock");
    g_assert_cmpint(section->version_id, ==, 1);
    g_assert_cmpint(section->priority, ==, MIG_PRI_MAX);
    g_assert_true(section->fields[0].offset == offsetof(Wsm, clock.tsc) &&
                  section->fields[0].info == &vmstate_info_uint64);
    g_assert_true(section->fields[1].offset == offsetof(Wsm, clock.khz) &&
                  section->fields[1].info == &vmstate_info_uint32);
    g_assert_null(section->fields[2].name);
    tear_down();
}

/* It is in the stream only of a migration whose destination has to know */
static void test_needed(void)
{
    set_up(WSM_ACCEL_TCG, WSM_FEATURE_KVM);
    g_assert_true(section->needed(&wsm));
    source.accel_there = WSM_FEATURE_TCG;
    g_assert_false(section->needed(&wsm));
    wsm.source = NULL;
    g_assert_false(section->needed(&wsm));
    tear_down();
}

static void test_save(void)
{
    set_up(WSM_ACCEL_KVM, WSM_FEATURE_TCG);
    g_assert_cmpint(section->pre_save(&wsm), ==, 0);
    g_assert_cmpint(here.saves, ==, 1);
    g_assert_cmpint(wsm.clock.tsc, ==, 12345);
    g_assert_cmpint(wsm.clock.khz, ==, 678);
    tear_down();
}

/* What it does while it is copied may keep the guest here after all */
static void test_obstacle(void)
{
    Error *fatal;

    set_up(WSM_ACCEL_KVM, WSM_FEATURE_TCG);
    here.obstacle = "it is lame";
    g_assert_cmpint(section->pre_save(&wsm), ==, -EINVAL);
    g_assert_cmpint(here.saves, ==, 0);
    fatal = wsm_fatal(&source.milestones);
    g_assert_cmpstr(error_get_pretty(fatal), ==, "The guest cannot be run "
                    "where it goes to any more: it is lame");
    g_assert_cmpstr(here.error, ==, error_get_pretty(fatal));
    error_free(fatal);
    tear_down();

    /* Where it goes to its like that does not matter */
    set_up(WSM_ACCEL_TCG, WSM_FEATURE_TCG);
    here.obstacle = "it is lame";
    g_assert_cmpint(section->pre_save(&wsm), ==, 0);
    g_assert_cmpint(here.saves, ==, 1);
    tear_down();
}

static void test_load(void)
{
    Error *err = NULL;

    set_up(WSM_ACCEL_TCG, 0);
    g_assert_true(wsm_clock_loaded(&wsm, &error_abort));
    g_assert_cmpint(here.loads, ==, 0);

    wsm.clock = (WsmClock) { .tsc = 9, .khz = 8 };
    g_assert_cmpint(section->post_load(&wsm, 1), ==, 0);
    g_assert_true(wsm_clock_loaded(&wsm, &error_abort));
    g_assert_cmpint(here.loads, ==, 1);
    g_assert_cmpint(here.clock.tsc, ==, 9);

    /* Once */
    g_assert_true(wsm_clock_loaded(&wsm, &error_abort));
    g_assert_cmpint(here.loads, ==, 1);

    section->post_load(&wsm, 1);
    here.fails = true;
    g_assert_false(wsm_clock_loaded(&wsm, &err));
    error_free_or_abort(&err);
    tear_down();
}

/* One that came in an attempt before is not that of this one */
static void test_incoming(void)
{
    static const uint32_t unused[] = {
        [WSM_ACCEL_OTHER] = WSM_FEATURES_ACCEL,
        [WSM_ACCEL_TCG] = WSM_FEATURE_KVM,
        [WSM_ACCEL_KVM] = WSM_FEATURE_TCG,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(unused); i++) {
        WsmStart start = {};

        set_up(i, 0);
        section->post_load(&wsm, 1);
        wsm_clock_incoming(&wsm, &start);
        g_assert_cmpint(here.incoming, ==, 1);
        g_assert_cmphex(start.unused, ==, unused[i]);
        g_assert_true(wsm_clock_loaded(&wsm, &error_abort));
        g_assert_cmpint(here.loads, ==, 0);
        tear_down();
    }
}

static void test_outgoing(void)
{
    set_up(WSM_ACCEL_KVM, 0);
    here.obstacle = "it is lame";
    here.paced = true;
    wsm_clock_outgoing(&wsm);
    g_assert_cmphex(told.accel, ==, WSM_FEATURE_KVM);
    g_assert_cmpstr(told.only_here, ==, "it is lame");
    g_assert_true(told.paced);
    g_assert_cmpint(here.outgoing, ==, 1);
    g_free(told.only_here);
    tear_down();

    /* Who may not leave for another is not asked why */
    set_up(WSM_ACCEL_OTHER, 0);
    here.obstacle = "it is lame";
    wsm_clock_outgoing(&wsm);
    g_assert_cmphex(told.accel, ==, 0);
    g_assert_null(told.only_here);
    tear_down();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/clock-section/layout", test_layout);
    g_test_add_func("/wsm/clock-section/needed", test_needed);
    g_test_add_func("/wsm/clock-section/save", test_save);
    g_test_add_func("/wsm/clock-section/obstacle", test_obstacle);
    g_test_add_func("/wsm/clock-section/load", test_load);
    g_test_add_func("/wsm/clock-section/incoming", test_incoming);
    g_test_add_func("/wsm/clock-section/outgoing", test_outgoing);
    return g_test_run();
}
