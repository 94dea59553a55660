/*
 * Unit tests of migration/wsm/source/control.c and milestones.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/thread.h"
#include "migration/wsm/source/control.h"
#include "migration/wsm/source/milestones.h"

#define FOR_GOOD_MS     3600000 /* meson ends a test that waits so long */

/*
 * What is said, and in which order
 */

static void assert_says(WsmControl *c, bool push, WsmMsgType type)
{
    WsmMsg msg;

    g_assert_cmpint(wsm_control_next(c, push, &msg), ==, WSM_SAY_MESSAGE);
    g_assert_cmpint(msg.type, ==, type);
    g_assert_cmpint(msg.epoch, ==, push && type != WSM_MSG_ABORT);
    g_assert_cmpint(msg.offset, ==, type == WSM_MSG_SYNC ? c->sync_serial : 0);
    g_assert_cmpint(msg.bytes, ==, 0);
    g_assert_cmpint(msg.length, ==, 0);
}

static void assert_silent(WsmControl *c)
{
    WsmMsg msg;

    g_assert_cmpint(wsm_control_next(c, true, &msg), ==, WSM_SAY_NOTHING);
}

static void assert_says_points(WsmControl *c)
{
    WsmMsg msg;

    g_assert_cmpint(wsm_control_next(c, true, &msg), ==, WSM_SAY_POINTS);
}

static void test_order(void)
{
    WsmControl c = { .abort = true, .go = true, .points = true, .sync = true };

    assert_says(&c, true, WSM_MSG_ABORT);
    assert_says(&c, true, WSM_MSG_GO);
    assert_says_points(&c);
    assert_says(&c, true, WSM_MSG_SYNC);
    assert_silent(&c);
}

/* Before the freeze a new connection brings nothing but an unanswered SYNC */
static void test_up_before(void)
{
    WsmControl c = {};

    wsm_control_up(&c, false);
    assert_silent(&c);
    c.sync = true;
    assert_says(&c, false, WSM_MSG_SYNC);
    assert_silent(&c);
    wsm_control_up(&c, false);
    assert_says(&c, false, WSM_MSG_SYNC);
    assert_silent(&c);
    g_assert_true(wsm_control_synced(&c, &(WsmMsg) { .offset = 2 }));
    wsm_control_up(&c, false);
    assert_silent(&c);
}

/* After it, all is said again each time; ABORT never is */
static void test_up_after(void)
{
    WsmControl c = { .abort = true };

    assert_says(&c, false, WSM_MSG_ABORT);
    for (int i = 0; i < 3; i++) {
        wsm_control_up(&c, true);
        assert_says(&c, true, WSM_MSG_GO);
        assert_says_points(&c);
        assert_silent(&c);
    }
    c.sync = true;
    wsm_control_up(&c, true);
    assert_says(&c, true, WSM_MSG_GO);
    assert_says_points(&c);
    assert_says(&c, true, WSM_MSG_SYNC);
    assert_silent(&c);
}

/* Only the answer to the last SYNC counts, and once */
static void test_synced(void)
{
    WsmControl c = {};

    g_assert_false(wsm_control_synced(&c, &(WsmMsg) { .offset = 0 }));
    c.sync = true;
    assert_says(&c, false, WSM_MSG_SYNC);
    g_assert_cmpint(c.sync_serial, ==, 1);
    c.sync = true;
    assert_says(&c, false, WSM_MSG_SYNC);
    g_assert_false(wsm_control_synced(&c, &(WsmMsg) { .offset = 1 }));
    g_assert_false(wsm_control_synced(&c, &(WsmMsg) { .offset = 3 }));
    g_assert_true(c.sync_awaited);
    g_assert_true(wsm_control_synced(&c, &(WsmMsg) { .offset = 2 }));
    g_assert_false(wsm_control_synced(&c, &(WsmMsg) { .offset = 2 }));
}

/*
 * Milestones
 */

static WsmSession session;
static WsmMilestones ms;

static void tell(WsmRole role, const QemuUUID *id, WsmPhase phase)
{
}

static void set_up(void)
{
    wsm_session_init(&session, tell);
    wsm_milestones_init(&ms, &session);
}

static void tear_down(void)
{
    wsm_milestones_destroy(&ms);
    wsm_session_destroy(&session);
}

static void test_reach(void)
{
    set_up();
    for (int m = 0; m < WSM_MILESTONE__MAX; m++) {
        g_assert_false(wsm_has_reached(&ms, m));
        wsm_reach(&ms, m);
        for (int n = 0; n < WSM_MILESTONE__MAX; n++) {
            g_assert_true(wsm_has_reached(&ms, n) == (n <= m));
        }
    }
    wsm_unreach(&ms, WSM_PASS_DONE);
    g_assert_false(wsm_has_reached(&ms, WSM_PASS_DONE));
    g_assert_true(wsm_has_reached(&ms, WSM_READY));
    tear_down();
}

static void test_in_time(void)
{
    int64_t later = wsm_now() + 3600 * NANOSECONDS_PER_SECOND;

    set_up();
    g_assert_false(wsm_has_reached_by(&ms, WSM_READY, later));
    wsm_reach(&ms, WSM_READY);
    g_assert_true(wsm_has_reached_by(&ms, WSM_READY, later));
    /* It came in time, whenever one looks */
    g_assert_true(wsm_has_reached_by(&ms, WSM_READY, wsm_now() - 1));
    tear_down();

    set_up();
    g_assert_false(wsm_has_reached_by(&ms, WSM_READY, wsm_now()));
    wsm_reach(&ms, WSM_READY);
    g_assert_false(wsm_has_reached_by(&ms, WSM_READY, later));
    tear_down();
}

/* A thread that waits for something that comes, or for any change */
static void *reach_later(void *opaque)
{
    g_usleep(20000);
    wsm_reach(&ms, WSM_AGREED);
    return NULL;
}

static void *wake_later(void *opaque)
{
    g_usleep(20000);
    wsm_wake_waiting(&ms);
    return NULL;
}

static void *fail_later(void *opaque)
{
    Error *err = NULL;

    g_usleep(20000);
    error_setg(&err, "it failed");
    wsm_fail(&ms, err);
    return NULL;
}

static bool wait_beside(void *(*fn)(void *), int ms_timeout)
{
    QemuThread thread;
    bool reached;

    qemu_thread_create(&thread, "beside", fn, NULL, QEMU_THREAD_JOINABLE);
    reached = wsm_wait(&ms, WSM_AGREED, ms_timeout);
    qemu_thread_join(&thread);
    return reached;
}

static void test_wait(void)
{
    set_up();
    g_assert_false(wsm_wait(&ms, WSM_AGREED, 0));
    g_assert_false(wsm_wait(&ms, WSM_AGREED, 1));
    g_assert_false(wait_beside(wake_later, FOR_GOOD_MS));
    g_assert_false(wait_beside(fail_later, FOR_GOOD_MS));
    g_assert_true(wait_beside(reach_later, FOR_GOOD_MS));
    g_assert_true(wsm_wait(&ms, WSM_AGREED, FOR_GOOD_MS));
    tear_down();
}

/* The first counts, the last is shown */
static void test_fatal(void)
{
    static const char *const text[] = { "first", "second" };

    set_up();
    g_assert_null(wsm_fatal(&ms));
    for (int i = 0; i < 2; i++) {
        Error *err = NULL, *fatal;

        error_setg(&err, "%s", text[i]);
        wsm_fail(&ms, err);
        fatal = wsm_fatal(&ms);
        g_assert_cmpstr(error_get_pretty(fatal), ==, "first");
        error_free(fatal);
        g_assert_cmpstr(session.error, ==, text[i]);
    }
    tear_down();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/control/order", test_order);
    g_test_add_func("/wsm/control/up-before", test_up_before);
    g_test_add_func("/wsm/control/up-after", test_up_after);
    g_test_add_func("/wsm/control/synced", test_synced);
    g_test_add_func("/wsm/milestones/reach", test_reach);
    g_test_add_func("/wsm/milestones/in-time", test_in_time);
    g_test_add_func("/wsm/milestones/wait", test_wait);
    g_test_add_func("/wsm/milestones/fatal", test_fatal);
    return g_test_run();
}
