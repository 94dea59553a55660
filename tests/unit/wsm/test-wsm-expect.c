/*
 * Unit tests of migration/wsm/policy/expect.c
 *
 * A simulated migration, with a link and a guest that writes, is asked at each
 * moment how long it will take; what it really took is known afterwards.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <math.h>
#include "qemu/units.h"
#include "migration/wsm/policy/expect.h"

#define STEP_NS         (200 * SCALE_MS)
#define LINK            (20.0 * MiB)            /* bytes per second */

static WsmSample at(double seconds)
{
    return (WsmSample) { .ns = seconds * NANOSECONDS_PER_SECOND };
}

/* Nothing is said from nothing */
static void test_no_sample(void)
{
    WsmMeter m = {};
    WsmSample now = at(5);
    WsmExpect e = { .disks_before = MiB, .ram = MiB };

    now.data = 100 * MiB;
    e.rates = wsm_meter_rates(&m, &now);
    g_assert_cmpfloat(e.rates.moved, ==, 0);
    g_assert_cmpfloat(wsm_expect_handover(&e), <, 0);
    g_assert_cmpfloat(wsm_expect_all(&e), <, 0);

    wsm_meter_add(&m, &now);
    now.ns += WSM_LEAST_NS - 1;
    now.data += MiB;
    g_assert_cmpfloat(wsm_meter_rates(&m, &now).moved, ==, 0);
    now.ns++;
    g_assert_cmpfloat(wsm_meter_rates(&m, &now).moved, ==, 5 * MiB);
}

/* The speed is that of the last seconds */
static void test_recent(void)
{
    WsmMeter m = {};
    WsmSample s = at(0);

    for (int i = 0; i < 100; i++) {
        s.ns += STEP_NS;
        s.data += 10 * MiB;
        wsm_meter_add(&m, &s);
    }
    for (int i = 0; i < WSM_SAMPLES; i++) {
        s.ns += STEP_NS;
        s.ram += MiB;
        wsm_meter_add(&m, &s);
    }
    s.ns += STEP_NS;
    s.ram += MiB;
    g_assert_cmpfloat(wsm_meter_rates(&m, &s).moved, ==, 5 * MiB);
    g_assert_cmpfloat(wsm_meter_rates(&m, &s).done, ==, 0);
    g_assert_cmpfloat(wsm_meter_rates(&m, &s).written, ==, 0);
}

/* What was sent and is dirty again was written; what broke off was not */
static void test_written(void)
{
    WsmMeter m = {};
    WsmSample s = at(1);

    s.dirty = 100;
    wsm_meter_add(&m, &s);
    s = at(2);
    s.data = 10;
    s.equal = 20;
    s.zero = 30;
    s.dirty = 45;
    g_assert_cmpfloat(wsm_meter_rates(&m, &s).written, ==, 5);
    g_assert_cmpfloat(wsm_meter_rates(&m, &s).done, ==, 30);
    g_assert_cmpfloat(wsm_meter_rates(&m, &s).moved, ==, 10);
    s.dirty = 20;
    g_assert_cmpfloat(wsm_meter_rates(&m, &s).written, ==, 0);
}

typedef struct Moment {
    double ns, handover, all;
} Moment;

/* A whole migration; what was guessed, and when it really happened */
static void simulate(double disk, double ram, double writes, double ram_writes,
                     double tolerance)
{
    g_autoptr(GArray) moments = g_array_new(false, false, sizeof(Moment));
    WsmMeter m = {};
    WsmSample s = at(0);
    double step = STEP_NS / (double)NANOSECONDS_PER_SECOND;
    double before = disk, after = 0, handover = 0, real;

    s.dirty = disk;
    wsm_meter_add(&m, &s);
    while (before > 0 || ram > 0 || after > 0) {
        WsmExpect e = {
            .disks_before = before, .disks_most = disk, .ram_written = 0,
        };
        Moment now;

        s.ns += STEP_NS;
        if (before > 0) {
            s.data += LINK * step;
            before -= LINK * step;
        } else if (ram > 0) {
            s.ram += LINK * step;
            ram -= (LINK - ram_writes) * step;
            e.ram_written = ram_writes;
        } else {
            s.data += LINK * step;
            after -= LINK * step;
        }
        if (ram > 0) {
            after += writes * step;
            handover = s.ns;
        }
        s.dirty = before + after;
        e.disks_before = MAX(before, 0);
        e.disks_after = after;
        e.ram = ram;
        e.rates = wsm_meter_rates(&m, &s);
        wsm_meter_add(&m, &s);
        now.ns = s.ns;
        now.handover = wsm_expect_handover(&e);
        now.all = wsm_expect_all(&e);
        g_array_append_val(moments, now);
    }
    for (unsigned i = 0; i < moments->len; i++) {
        Moment *now = &g_array_index(moments, Moment, i);

        real = (s.ns - now->ns) / NANOSECONDS_PER_SECOND;
        g_test_message("at %.1f s: %.1f to the handover, %.1f in all; really "
                       "%.1f", now->ns / NANOSECONDS_PER_SECOND,
                       now->handover, now->all, real);
        g_assert_cmpfloat(fabs(now->all - real), <=, tolerance * real + 1);
        if (now->ns < handover) {
            real = (handover - now->ns) / NANOSECONDS_PER_SECOND;
            g_assert_cmpfloat(fabs(now->handover - real), <=,
                              tolerance * real + 1);
        }
    }
}

/*
 * "1 s left" at 32 s of 57 was what the disks alone told.  With memory that
 * the guest does not write to, the guess is right at all times.
 */
static void test_whole(void)
{
    simulate(640 * MiB, 500 * MiB, 0, 0, 0.01);
    simulate(640 * MiB, 500 * MiB, 6 * MiB, 0, 0.1);
    simulate(64 * MiB, 4000 * MiB, MiB, 0, 0.1);
    simulate(640 * MiB, 0, 0, 0, 0.01);
    /* How fast memory becomes dirty is not known before it is looked at */
    simulate(640 * MiB, 500 * MiB, 0, 5 * MiB, 0.25);
}

/* A guest that writes faster than the link gets a number all the same */
static void test_too_fast(void)
{
    WsmExpect e = {
        .ram = 100, .ram_written = 20, .disks_after = 10, .disks_most = 50,
        .rates = { .moved = 10, .done = 0, .written = 1000 },
    };

    g_assert_cmpfloat(wsm_expect_handover(&e), ==, 100);
    g_assert_cmpfloat(wsm_expect_all(&e), ==, 105);
}

/* While most is compared, the link's speed is not known */
static void test_compared(void)
{
    WsmExpect e = {
        .disks_before = 1000, .disks_most = 1000, .ram = 1,
        .rates = { .moved = 1, .done = 100 },
    };

    g_assert_cmpfloat(wsm_expect_handover(&e), <, 0);
    e.ram = 0;
    g_assert_cmpfloat(wsm_expect_handover(&e), ==, 10);
    g_assert_cmpfloat(wsm_expect_all(&e), ==, 10);
}

static void test_percent(void)
{
    g_assert_cmpint(wsm_percent(0, 0), ==, 0);
    g_assert_cmpint(wsm_percent(0, 5), ==, 0);
    g_assert_cmpint(wsm_percent(1, 1), ==, 50);
    g_assert_cmpint(wsm_percent(999, 1), ==, 99);
    g_assert_cmpint(wsm_percent(5, 0), ==, 99);
    g_assert_cmpint(wsm_percent(INT64_MAX, INT64_MAX), ==, 50);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/expect/no-sample", test_no_sample);
    g_test_add_func("/wsm/expect/recent", test_recent);
    g_test_add_func("/wsm/expect/written", test_written);
    g_test_add_func("/wsm/expect/whole", test_whole);
    g_test_add_func("/wsm/expect/too-fast", test_too_fast);
    g_test_add_func("/wsm/expect/compared", test_compared);
    g_test_add_func("/wsm/expect/percent", test_percent);
    return g_test_run();
}
