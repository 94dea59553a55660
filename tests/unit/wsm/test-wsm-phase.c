/*
 * Unit tests of migration/wsm/policy/phase.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/policy/phase.h"

/*
 * Rows: from, columns: to, both in the order of the enum, which management
 * sees: none, setup, disk-precopy, ram-precopy, freeze, postcopy, completed,
 * failed, cancelled.
 */
static const char matrix[WSM_PHASE__MAX][WSM_PHASE__MAX + 1] = {
    /* nsdrfpcFC */
    "-s-------",    /* none */
    "--d--p-FC",    /* setup: p after a crash */
    "---r---FC",    /* disk-precopy */
    "----f--FC",    /* ram-precopy */
    "-----p-FC",    /* freeze */
    "------cF-",    /* postcopy */
    "-s-------",    /* completed */
    "-s-------",    /* failed */
    "-s-------",    /* cancelled */
};

static const WsmPhase good_way[] = {
    WSM_PHASE_SETUP, WSM_PHASE_DISK_PRECOPY, WSM_PHASE_RAM_PRECOPY,
    WSM_PHASE_FREEZE, WSM_PHASE_POSTCOPY, WSM_PHASE_COMPLETED,
};

static void test_names(void)
{
    static const char *const names[WSM_PHASE__MAX] = {
        "none", "setup", "disk-precopy", "ram-precopy", "freeze", "postcopy",
        "completed", "failed", "cancelled",
    };

    for (int i = 0; i < WSM_PHASE__MAX; i++) {
        g_assert_cmpstr(WsmPhase_str(i), ==, names[i]);
    }
}

static void test_legal(void)
{
    for (int from = 0; from < WSM_PHASE__MAX; from++) {
        for (int to = 0; to < WSM_PHASE__MAX; to++) {
            bool expected = matrix[from][to] != '-';

            if (wsm_phase_legal(from, to) != expected) {
                g_test_message("%s -> %s should%s be legal",
                               WsmPhase_str(from), WsmPhase_str(to),
                               expected ? "" : " not");
                g_test_fail();
            }
        }
    }
}

static void test_final(void)
{
    for (int i = 0; i < WSM_PHASE__MAX; i++) {
        g_assert_cmpint(wsm_phase_is_final(i), ==, i >= WSM_PHASE_COMPLETED);
    }
}

/* A log in @phase that began at @now_ns; as no caller would make it */
static WsmPhaseLog log_in(WsmPhase phase, int64_t now_ns)
{
    WsmPhaseLog log;

    wsm_phase_init(&log, now_ns);
    log.phase = phase;
    return log;
}

static void test_enter_legal(void)
{
    for (int from = 0; from < WSM_PHASE__MAX; from++) {
        for (int to = 0; to < WSM_PHASE__MAX; to++) {
            WsmPhaseLog log = log_in(from, 0);

            if (matrix[from][to] != '-') {
                g_assert_true(wsm_phase_enter(&log, to, 1));
                g_assert_cmpint(log.phase, ==, to);
            }
        }
    }
}

/* To enter the same phase again changes nothing, not even the clock */
static void test_enter_same(void)
{
    for (int i = 0; i < WSM_PHASE__MAX; i++) {
        WsmPhaseLog log = log_in(i, 10);

        g_assert_false(wsm_phase_enter(&log, i, 15));
        g_assert_cmpint(log.phase, ==, i);
        g_assert_cmpint(wsm_phase_ns(&log, i, 20), ==, 10);
    }
}

static void enter_illegal(void)
{
    WsmPhaseLog log = log_in(WSM_PHASE_POSTCOPY, 0);

    wsm_phase_enter(&log, WSM_PHASE_CANCELLED, 1);
}

static void test_enter_illegal(void)
{
    if (g_test_subprocess()) {
        enter_illegal();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*wsm_phase_legal*");
}

static void test_init(void)
{
    WsmPhaseLog log;

    memset(&log, 0xff, sizeof(log));
    wsm_phase_init(&log, 7);
    g_assert_cmpint(log.phase, ==, WSM_PHASE_NONE);
    for (int i = 0; i < WSM_PHASE__MAX; i++) {
        g_assert_cmpint(wsm_phase_ns(&log, i, 7), ==, 0);
    }
}

/* Enters all phases of a good migration; phase n of it takes n + 1 ns */
static int64_t go_the_good_way(WsmPhaseLog *log, int64_t now)
{
    for (int i = 0; i < ARRAY_SIZE(good_way); i++) {
        g_assert_true(wsm_phase_enter(log, good_way[i], now));
        g_assert_cmpint(wsm_phase_ns(log, good_way[i], now), ==, 0);
        now += i + 1;
        g_assert_cmpint(wsm_phase_ns(log, good_way[i], now), ==, i + 1);
    }
    return now;
}

static void test_times(void)
{
    WsmPhaseLog log;
    int64_t now;

    wsm_phase_init(&log, 1000);
    now = go_the_good_way(&log, 2000);
    for (int i = 0; i < ARRAY_SIZE(good_way); i++) {
        g_assert_cmpint(wsm_phase_ns(&log, good_way[i], now), ==, i + 1);
    }
    g_assert_cmpint(wsm_phase_ns(&log, WSM_PHASE_FAILED, now), ==, 0);
    g_assert_cmpint(wsm_phase_ns(&log, WSM_PHASE_CANCELLED, now), ==, 0);

    /* Only the current phase goes on */
    g_assert_cmpint(wsm_phase_ns(&log, WSM_PHASE_FREEZE, now + 50), ==, 4);
    g_assert_cmpint(wsm_phase_ns(&log, WSM_PHASE_COMPLETED, now + 50),
                    ==, 56);
}

/* The times of an attempt do not add up with those of the one before */
static void test_next_attempt(void)
{
    WsmPhaseLog log;
    int64_t now;

    wsm_phase_init(&log, 0);
    now = go_the_good_way(&log, 100);
    g_assert_true(wsm_phase_enter(&log, WSM_PHASE_SETUP, now));
    for (int i = 0; i < WSM_PHASE__MAX; i++) {
        g_assert_cmpint(wsm_phase_ns(&log, i, now), ==, 0);
    }
    g_assert_true(wsm_phase_enter(&log, WSM_PHASE_FAILED, now + 30));
    g_assert_cmpint(wsm_phase_ns(&log, WSM_PHASE_SETUP, now + 99), ==, 30);
    g_assert_true(wsm_phase_enter(&log, WSM_PHASE_SETUP, now + 99));
    g_assert_cmpint(wsm_phase_ns(&log, WSM_PHASE_SETUP, now + 100), ==, 1);
    g_assert_cmpint(wsm_phase_ns(&log, WSM_PHASE_FAILED, now + 100), ==, 0);
}

/* A caller that read the clock before it had the lock */
static void test_clock_before(void)
{
    WsmPhaseLog log;

    wsm_phase_init(&log, 100);
    g_assert_true(wsm_phase_enter(&log, WSM_PHASE_SETUP, 200));
    g_assert_cmpint(wsm_phase_ns(&log, WSM_PHASE_SETUP, 190), ==, 0);
    g_assert_true(wsm_phase_enter(&log, WSM_PHASE_DISK_PRECOPY, 190));
    g_assert_cmpint(wsm_phase_ns(&log, WSM_PHASE_SETUP, 195), ==, 0);
    g_assert_cmpint(wsm_phase_ns(&log, WSM_PHASE_DISK_PRECOPY, 210), ==, 10);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/wsm/phase/names", test_names);
    g_test_add_func("/wsm/phase/legal", test_legal);
    g_test_add_func("/wsm/phase/final", test_final);
    g_test_add_func("/wsm/phase/enter-legal", test_enter_legal);
    g_test_add_func("/wsm/phase/enter-same", test_enter_same);
    g_test_add_func("/wsm/phase/enter-illegal", test_enter_illegal);
    g_test_add_func("/wsm/phase/init", test_init);
    g_test_add_func("/wsm/phase/times", test_times);
    g_test_add_func("/wsm/phase/next-attempt", test_next_attempt);
    g_test_add_func("/wsm/phase/clock-before", test_clock_before);

    return g_test_run();
}
