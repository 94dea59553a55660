/*
 * Unit tests of migration/wsm/core/session.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/core/session.h"

#define SESSIONS    20
#define STEPS       200

/* What the world was told last, and how often */
static unsigned events;
static WsmRole told_role;
static QemuUUID told_id;
static WsmPhase told;

static void tell(WsmRole role, const QemuUUID *id, WsmPhase phase)
{
    events++;
    told_role = role;
    told_id = *id;
    told = phase;
}

static QemuUUID uuid_of(uint8_t n)
{
    return (QemuUUID) { .data = { n } };
}

static void test_begin(void)
{
    QemuUUID id = uuid_of(0x5a);
    Error *err = NULL;
    WsmSession s;

    wsm_session_init(&s, tell);
    g_assert_cmpint(wsm_session_phase(&s), ==, WSM_PHASE_NONE);
    g_assert_false(wsm_session_handed_over(&s));
    events = 0;

    wsm_session_begin(&s, WSM_ROLE_DESTINATION, &id);
    g_assert_cmpint(wsm_session_phase(&s), ==, WSM_PHASE_SETUP);
    g_assert_cmpint(events, ==, 1);
    g_assert_cmpint(told, ==, WSM_PHASE_SETUP);
    g_assert_cmpint(told_role, ==, WSM_ROLE_DESTINATION);
    g_assert_true(qemu_uuid_is_equal(&told_id, &id));

    /* What was of the attempt before is forgotten */
    error_setg(&err, "the reason");
    wsm_session_set_error(&s, err);
    error_free(err);
    wsm_session_set_downtime(&s, 7);
    g_assert_cmpstr(s.error, ==, "the reason");
    wsm_session_enter(&s, WSM_PHASE_FAILED);
    id = uuid_of(1);
    wsm_session_begin(&s, WSM_ROLE_SOURCE, &id);
    g_assert_null(s.error);
    g_assert_cmpint(s.downtime_ns, ==, -1);
    g_assert_cmpint(wsm_session_reached(&s), ==, WSM_PHASE_SETUP);
    wsm_session_destroy(&s);
}

static void test_advance(void)
{
    QemuUUID id = uuid_of(2);
    WsmSession s;

    wsm_session_init(&s, tell);
    wsm_session_begin(&s, WSM_ROLE_DESTINATION, &id);
    events = 0;
    /* Not from there: nothing happens, and nobody is told */
    wsm_session_advance(&s, WSM_PHASE_DISK_PRECOPY, WSM_PHASE_RAM_PRECOPY);
    g_assert_cmpint(wsm_session_phase(&s), ==, WSM_PHASE_SETUP);
    g_assert_cmpint(events, ==, 0);
    wsm_session_advance(&s, WSM_PHASE_SETUP, WSM_PHASE_DISK_PRECOPY);
    wsm_session_advance(&s, WSM_PHASE_SETUP, WSM_PHASE_DISK_PRECOPY);
    g_assert_cmpint(wsm_session_phase(&s), ==, WSM_PHASE_DISK_PRECOPY);
    g_assert_cmpint(events, ==, 1);
    wsm_session_destroy(&s);
}

static void test_info(void)
{
    g_autoptr(WsmInfo) before = g_new0(WsmInfo, 1);
    g_autoptr(WsmInfo) info = g_new0(WsmInfo, 1);
    QemuUUID id = uuid_of(3);
    WsmSession s;

    wsm_session_init(&s, tell);
    wsm_session_info(&s, before);
    g_assert_cmpint(before->role, ==, WSM_ROLE_NONE);
    g_assert_null(before->session);
    g_assert_null(before->phases);
    g_assert_false(before->has_downtime_ms);

    wsm_session_begin(&s, WSM_ROLE_SOURCE, &id);
    wsm_session_enter(&s, WSM_PHASE_DISK_PRECOPY);
    s.phases.spent_ns[WSM_PHASE_SETUP] = 5 * SCALE_MS;
    wsm_session_set_downtime(&s, 250 * SCALE_MS);
    wsm_session_info(&s, info);
    g_assert_cmpint(info->role, ==, WSM_ROLE_SOURCE);
    g_assert_cmpint(info->phase, ==, WSM_PHASE_DISK_PRECOPY);
    g_assert_cmpstr(info->session, ==, "03000000-0000-0000-0000-000000000000");
    g_assert_true(info->has_downtime_ms);
    g_assert_cmpint(info->downtime_ms, ==, 250);
    g_assert_cmpint(info->phases->value->phase, ==, WSM_PHASE_SETUP);
    g_assert_cmpint(info->phases->value->ms, ==, 5);
    g_assert_cmpint(info->phases->next->value->phase, ==,
                    WSM_PHASE_DISK_PRECOPY);
    g_assert_null(info->phases->next->next);
    wsm_session_destroy(&s);
}

/* What a session must be like, told again in the simplest way */
typedef struct Model {
    WsmRole role;
    WsmPhase phase, reached;
    bool handed_over;
    unsigned events;
} Model;

static void model_enter(Model *m, WsmPhase to)
{
    if (m->phase == to) {
        return;
    }
    m->phase = to;
    m->events++;
    if (to <= WSM_PHASE_POSTCOPY) {
        m->reached = to;
    }
    m->handed_over |= m->role == WSM_ROLE_SOURCE && to == WSM_PHASE_POSTCOPY;
}

static void step(WsmSession *s, Model *m)
{
    WsmPhase to = g_test_rand_int_range(0, WSM_PHASE__MAX);
    WsmPhase from = g_test_rand_int_range(0, WSM_PHASE__MAX);
    QemuUUID id = uuid_of(g_test_rand_int_range(0, 256));

    switch (g_test_rand_int_range(0, 8)) {
    case 0:
        m->role = g_test_rand_bit() ? WSM_ROLE_SOURCE : WSM_ROLE_DESTINATION;
        wsm_session_begin(s, m->role, &id);
        m->phase = m->reached = WSM_PHASE_SETUP;
        m->events++;
        break;
    case 1:
        if (from != m->phase || from == to || wsm_phase_legal(from, to)) {
            wsm_session_advance(s, from, to);
            if (from == m->phase) {
                model_enter(m, to);
            }
        }
        break;
    default:
        /* The way that migrations go, most of the time */
        if (g_test_rand_bit()) {
            to = MIN(m->phase + 1, WSM_PHASE_COMPLETED);
        }
        if (to == m->phase || wsm_phase_legal(m->phase, to)) {
            wsm_session_enter(s, to);
            model_enter(m, to);
        }
        break;
    }
}

/* Returns whether the guest left from here */
static bool run_random(void)
{
    Model m = { .reached = WSM_PHASE_SETUP };
    WsmSession s;

    wsm_session_init(&s, tell);
    events = 0;
    for (unsigned i = 0; i < STEPS; i++) {
        step(&s, &m);
        g_assert_cmpint(wsm_session_phase(&s), ==, m.phase);
        g_assert_cmpint(events, ==, m.events);
        g_assert_true(!m.events || told == m.phase);
        g_assert_cmpint(wsm_session_handed_over(&s), ==, m.handed_over);
        /* That it took any time is how it is known that it was there */
        g_usleep(1);
        g_assert_cmpint(wsm_session_reached(&s), ==, m.reached);
    }
    wsm_session_destroy(&s);
    return m.handed_over;
}

static void test_random(void)
{
    unsigned left = 0;

    for (unsigned i = 0; i < SESSIONS; i++) {
        left += run_random();
    }
    g_assert_cmpint(left, >, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/session/begin", test_begin);
    g_test_add_func("/wsm/session/advance", test_advance);
    g_test_add_func("/wsm/session/info", test_info);
    g_test_add_func("/wsm/session/random", test_random);
    return g_test_run();
}
