/*
 * Unit tests of migration/wsm/policy/ending.c
 *
 * The whole table, for each phase: none, setup, disk-precopy, ram-precopy,
 * freeze, postcopy, completed, failed, cancelled.  A letter for points, state
 * and record each.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/policy/ending.h"

typedef const char *Row[WSM_PHASE__MAX];

static const char points[] = "-gbn";    /* stay, go, broke, new */
static const char states[] = "-bcl";    /* stays, before, current, left */
static const char records[] = "-mp";    /* stays, mark, put */

static void check_row(WsmEndingInput in, const Row row)
{
    for (int i = 0; i < WSM_PHASE__MAX; i++) {
        WsmEnding end;
        char is[4] = {};

        in.phase = i;
        end = wsm_ending(&in);
        is[0] = points[end.points];
        is[1] = states[end.state];
        is[2] = records[end.record];
        g_test_message("%s %s", WsmRole_str(in.role), WsmPhase_str(i));
        g_assert_cmpstr(is, ==, row[i]);
    }
}

static void check_source(bool marked, bool replaced, const Row row)
{
    WsmEndingInput in = {
        .role = WSM_ROLE_SOURCE, .marked = marked, .replaced = replaced,
    };

    check_row(in, row);
    /* They are of the other side */
    in.wrote = in.complete = true;
    check_row(in, row);
}

static void check_destination(bool wrote, bool complete, const Row row)
{
    WsmEndingInput in = {
        .role = WSM_ROLE_DESTINATION, .wrote = wrote, .complete = complete,
    };

    check_row(in, row);
    in.marked = in.replaced = true;
    check_row(in, row);
}

static void test_source(void)
{
    static const Row plain = {
        "---", "---", "b--", "b--", "b--", "nlp", "nlp", "---", "---",
    };
    static const Row marked = {
        "--m", "--m", "b-m", "b-m", "b-m", "nlp", "nlp", "--m", "--m",
    };
    static const Row replaced = {
        "g--", "g--", "g--", "g--", "g--", "g--", "g--", "g--", "g--",
    };
    static const Row replaced_marked = {
        "g-m", "g-m", "g-m", "g-m", "g-m", "g--", "g--", "g--", "g--",
    };

    check_source(false, false, plain);
    check_source(true, false, marked);
    check_source(false, true, replaced);
    check_source(true, true, replaced_marked);
}

static void test_destination(void)
{
    static const Row untouched = {
        "n-p", "-bp", "n-p", "n-p", "n-p", "g-p", "g-p", "g-p", "g-p",
    };
    static const Row wrote = {
        "n-p", "n-p", "n-p", "n-p", "n-p", "g-p", "g-p", "g-p", "g-p",
    };
    static const Row complete = {
        "-cm", "-cm", "-cm", "-cm", "-cm", "-cm", "-cm", "-cm", "-cm",
    };

    check_destination(false, false, untouched);
    check_destination(true, false, wrote);
    check_destination(false, true, complete);
    check_destination(true, true, complete);
}

/*
 * The laws behind it, when the guest was or was not handed over: who has the
 * guest has a current image, and nobody else has; and the two sides agree on a
 * sync point only if both know what differs.
 */
static void test_sides_fit(void)
{
    for (WsmPhase p = WSM_PHASE_SETUP; p <= WSM_PHASE_POSTCOPY; p++) {
        WsmEndingInput s = { .role = WSM_ROLE_SOURCE, .phase = p };
        WsmEndingInput d = {
            .role = WSM_ROLE_DESTINATION, .phase = p, .wrote = true,
        };
        WsmEnding source = wsm_ending(&s), broke = wsm_ending(&d), complete;
        bool over_there = p == WSM_PHASE_POSTCOPY;

        g_assert_cmpint(source.state == WSM_ENDING_STATE_LEFT, ==, over_there);
        g_assert_cmpint(broke.points == WSM_ENDING_POINTS_GO, ==, over_there);
        g_assert_cmpint(broke.state, !=, WSM_ENDING_STATE_CURRENT);
        d.complete = true;
        complete = wsm_ending(&d);
        g_assert_cmpint(complete.state, ==, WSM_ENDING_STATE_CURRENT);
        g_assert_cmpint(complete.points, ==, WSM_ENDING_POINTS_STAY);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/wsm/ending/source", test_source);
    g_test_add_func("/wsm/ending/destination", test_destination);
    g_test_add_func("/wsm/ending/sides-fit", test_sides_fit);

    return g_test_run();
}
