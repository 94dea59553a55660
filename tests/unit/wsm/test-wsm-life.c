/*
 * Unit tests of migration/wsm/dest/life.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/dest/life.h"

#define WALKS                   2000

/* Rows: from, columns: to, both in the order of the enum */
static const char matrix[WSM_LIFE__MAX][WSM_LIFE__MAX + 1] = {
    /* soeguddsttSR */
    "-o----------",  /* setup */
    "--e-------S-",  /* open */
    "---g------S-",  /* sealed */
    "----ud----S-",  /* securing */
    "-----d----S-",  /* unsecured */
    "------d-----",  /* dropping */
    "-------s--S-",  /* dropped */
    "--------t-S-",  /* secured */
    "---------tS-",  /* settled */
    "----------S-",  /* told */
    "-----------R",  /* stopping */
    "------------",  /* released */
};

static void test_legal(void)
{
    for (int from = 0; from < WSM_LIFE__MAX; from++) {
        for (int to = 0; to < WSM_LIFE__MAX; to++) {
            bool expected = matrix[from][to] != '-';

            if (wsm_life_legal(from, to) != expected) {
                g_test_message("%d -> %d should%s be legal", from, to,
                               expected ? "" : " not");
                g_test_fail();
            }
        }
    }
}

/* Only forwards, and everything ends */
static void test_forwards(void)
{
    for (int from = 0; from < WSM_LIFE__MAX; from++) {
        for (int to = 0; to <= from; to++) {
            g_assert_false(wsm_life_legal(from, to));
        }
    }
}

static void enter_illegal(void)
{
    WsmDestLife l;

    wsm_life_init(&l);
    wsm_life_enter(&l, WSM_LIFE_SEALED);
}

static void test_enter_illegal(void)
{
    if (g_test_subprocess()) {
        enter_illegal();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*wsm_life_legal*");
}

/* What @seen says is all that there is to know */
static void check(WsmDestLife *l, const bool *seen)
{
    WsmLife now = wsm_life(l);

    for (int i = 0; i < WSM_LIFE_STOPPING; i++) {
        bool reached = false;

        for (int j = i; j < WSM_LIFE_STOPPING; j++) {
            reached |= seen[j];
        }
        g_assert_cmpint(wsm_life_reached(l, i), ==, reached);
    }
    g_assert_cmpint(wsm_life_is_over(l), ==, seen[WSM_LIFE_STOPPING]);
    g_assert_cmpint(wsm_life_has_filters(l), ==,
                    !seen[WSM_LIFE_DROPPING] && !seen[WSM_LIFE_STOPPING]);
    g_assert_cmpint(wsm_life_polls(l), ==,
                    now == WSM_LIFE_DROPPING || now == WSM_LIFE_STOPPING);
}

static void walk(void)
{
    bool seen[WSM_LIFE__MAX] = { [WSM_LIFE_SETUP] = true };
    WsmDestLife l;

    wsm_life_init(&l);
    check(&l, seen);
    while (wsm_life(&l) != WSM_LIFE_RELEASED) {
        WsmLife now = wsm_life(&l);
        WsmLife from = g_test_rand_int_range(0, WSM_LIFE__MAX);
        WsmLife to = g_test_rand_int_range(0, WSM_LIFE__MAX);

        if (from != now) {
            g_assert_false(wsm_life_advance(&l, from, to));
            g_assert_cmpint(wsm_life(&l), ==, now);
        } else if (matrix[from][to] != '-') {
            if (g_test_rand_bit()) {
                g_assert_true(wsm_life_advance(&l, from, to));
            } else {
                wsm_life_enter(&l, to);
            }
            seen[to] = true;
            g_assert_cmpint(wsm_life(&l), ==, to);
        }
        check(&l, seen);
    }
    wsm_life_destroy(&l);
}

static void test_walks(void)
{
    for (int i = 0; i < WALKS; i++) {
        walk();
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/wsm/life/legal", test_legal);
    g_test_add_func("/wsm/life/forwards", test_forwards);
    g_test_add_func("/wsm/life/enter-illegal", test_enter_illegal);
    g_test_add_func("/wsm/life/walks", test_walks);

    return g_test_run();
}
