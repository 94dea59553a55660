/*
 * Unit tests of migration/wsm/accel/clock.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "migration/wsm/accel/clock.h"

#define GHZ     (1000u * 1000)  /* in kHz */

/* 250 millionths of the higher one, and neither is the first */
static void test_alike(void)
{
    static const struct {
        uint32_t a, b;
        bool alike;
    } pairs[] = {
        { 2 * GHZ, 2 * GHZ, true },
        { 2 * GHZ, 2 * GHZ - 500, true },
        { 2 * GHZ, 2 * GHZ - 501, false },
        { 4 * GHZ, 4 * GHZ - 1000, true },
        { 4 * GHZ, 4 * GHZ - 1001, false },
        { 2 * GHZ, 3 * GHZ, false },
        { 1, UINT32_MAX, false },
        { 0, 1, false },
        { 0, 0, true },
    };

    for (int i = 0; i < ARRAY_SIZE(pairs); i++) {
        g_assert_cmpint(wsm_khz_alike(pairs[i].a, pairs[i].b), ==,
                        pairs[i].alike);
        g_assert_cmpint(wsm_khz_alike(pairs[i].b, pairs[i].a), ==,
                        pairs[i].alike);
    }
}

static void test_convert(void)
{
    static const struct {
        int64_t ticks;
        uint32_t from, to;
        int64_t result;
    } rows[] = {
        { 0, 3 * GHZ, 2 * GHZ, 0 },
        { 3000, 3 * GHZ, 2 * GHZ, 2000 },
        { 2000, 2 * GHZ, 3 * GHZ, 3000 },
        { -3000, 3 * GHZ, 2 * GHZ, -2000 },
        { 1, 3 * GHZ, 2 * GHZ, 0 },
        { -1, 3 * GHZ, 2 * GHZ, 0 },
        /* A host that has been up for 40 years */
        { INT64_C(3787689600000000000), 3 * GHZ, 2 * GHZ,
          INT64_C(2525126400000000000) },
        { INT64_C(2525126400000000000), 2 * GHZ, 3 * GHZ,
          INT64_C(3787689600000000000) },
        { INT64_MAX, 1, 1, INT64_MAX },
        { -INT64_MAX, 1, 1, -INT64_MAX },
    };

    for (int i = 0; i < ARRAY_SIZE(rows); i++) {
        g_assert_cmpint(wsm_ticks_convert(rows[i].ticks, rows[i].from,
                                          rows[i].to), ==, rows[i].result);
    }
}

/* However the pace, what was later stays later */
static void test_convert_forwards(void)
{
    for (uint32_t to = GHZ; to < 5 * GHZ; to += 123457) {
        int64_t last = wsm_ticks_convert(-1000, 2 * GHZ + 7, to);

        for (int64_t ticks = -999; ticks < 1000; ticks++) {
            int64_t now = wsm_ticks_convert(ticks, 2 * GHZ + 7, to);

            g_assert_cmpint(now, >=, last);
            last = now;
        }
    }
}

static void test_khz_of(void)
{
    static const struct {
        uint64_t ticks;
        int64_t ns;
        uint32_t khz;
    } rows[] = {
        { 2 * NANOSECONDS_PER_SECOND, NANOSECONDS_PER_SECOND, 2 * GHZ },
        { 20 * 1000 * 1000, 10 * 1000 * 1000, 2 * GHZ },
        /* Too soon to tell */
        { 20 * 1000 * 1000, 10 * 1000 * 1000 - 1, 0 },
        { 0, 0, 0 },
        { 1, -1, 0 },
        /* A counter that was set */
        { UINT64_MAX, NANOSECONDS_PER_SECOND, 0 },
        /* To the nearest */
        { 10000004, 10000000, GHZ },
        { 10000005, 10000000, GHZ + 1 },
    };

    for (int i = 0; i < ARRAY_SIZE(rows); i++) {
        g_assert_cmpuint(wsm_khz_of(rows[i].ticks, rows[i].ns), ==,
                         rows[i].khz);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/wsm/clock/alike", test_alike);
    g_test_add_func("/wsm/clock/convert", test_convert);
    g_test_add_func("/wsm/clock/convert-forwards", test_convert_forwards);
    g_test_add_func("/wsm/clock/khz-of", test_khz_of);

    return g_test_run();
}
