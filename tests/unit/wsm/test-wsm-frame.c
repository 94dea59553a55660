/*
 * Unit tests of migration/wsm/link/frame.c and source/pack.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "migration/wsm/link/frame.h"
#include "migration/wsm/source/pack.h"
#include "migration/wsm/wire/message.h"

#define SIZE            (64 * KiB)

static uint8_t in[SIZE], out[SIZE], back[SIZE + 1];

/* The first @random bytes of @in are random, the others are text */
static void fill(size_t random)
{
    for (size_t i = 0; i < SIZE; i++) {
        in[i] = i < random ? g_test_rand_int() : "disk"[i % 4];
    }
}

static void test_round(void)
{
    size_t packed;

    fill(SIZE / 4);
    packed = wsm_frame_pack(in, SIZE, out);
    if (!(WSM_FEATURES & WSM_FEATURE_PACKING)) {
        g_assert_cmpint(packed, ==, 0);
        return;
    }
    g_assert_cmpint(packed, >, SIZE / 4);
    g_assert_cmpint(packed, <, SIZE / 2);
    g_assert_true(wsm_frame_unpack(out, packed, back, SIZE));
    g_assert_cmpmem(back, SIZE, in, SIZE);

    /* It must be just as long as was said, and whole; nobody writes beyond */
    back[SIZE - 1] = 0xee;
    g_assert_false(wsm_frame_unpack(out, packed, back, SIZE - 1));
    g_assert_cmphex(back[SIZE - 1], ==, 0xee);
    g_assert_false(wsm_frame_unpack(out, packed, back, SIZE + 1));
    g_assert_false(wsm_frame_unpack(out, packed - 1, back, SIZE));
    memset(out, 0xff, 4);
    g_assert_false(wsm_frame_unpack(out, packed, back, SIZE));
}

/* What does not become much smaller is sent as it is */
static void test_random(void)
{
    fill(SIZE);
    g_assert_cmpint(wsm_frame_pack(in, SIZE, out), ==, 0);
    fill(SIZE - SIZE / 20);
    g_assert_cmpint(wsm_frame_pack(in, SIZE, out), ==, 0);
}

/* Whatever comes is refused, or is as long as was said */
static void test_fuzz(void)
{
    size_t packed;

    fill(SIZE / 2);
    packed = wsm_frame_pack(in, SIZE, out);
    for (int i = 0; packed && i < 2000; i++) {
        g_autofree uint8_t *bad = g_memdup2(out, packed);
        g_autofree uint8_t *small = g_malloc(SIZE / 2);

        for (int n = g_test_rand_int_range(1, 5); n; n--) {
            bad[g_test_rand_int_range(0, i % 2 ? packed : 20)] =
                g_test_rand_int();
        }
        wsm_frame_unpack(bad, packed, small, SIZE / 2);
        wsm_frame_unpack(bad, g_test_rand_int_range(1, packed), small,
                         g_test_rand_int_range(1, SIZE / 2));
    }
}

/* The longer in vain, the more go without a trial */
static void test_skip(void)
{
    WsmSourcePack p = {};
    unsigned tried = 0;

    g_assert_false(wsm_source_pack_wants(&p, WSM_PACK_LEAST - 1));
    for (int i = 0; i < 1000; i++) {
        if (wsm_source_pack_wants(&p, 1 * MiB)) {
            tried++;
            wsm_source_pack_tried(&p, false);
        }
    }
    g_assert_cmpint(tried, >, 1000 / 9);
    g_assert_cmpint(tried, <, 1000 / 7);
    while (!wsm_source_pack_wants(&p, 1 * MiB)) {
        /* until the next trial */
    }
    wsm_source_pack_tried(&p, true);
    g_assert_true(wsm_source_pack_wants(&p, 1 * MiB));
}

/*
 * @n requests, each of which takes @busy ns, and then @waits on the link with
 * another sender that waits longer.  How many of them are to be packed?
 */
static unsigned run(WsmSourcePack *p, int64_t *now, int n, int64_t busy,
                    int64_t waits)
{
    unsigned packed = 0;

    while (n--) {
        packed += wsm_source_pack_wants(p, 1 * MiB);
        *now += busy;
        wsm_source_pack_waits(p, *now);
        wsm_source_pack_waits(p, *now);
        *now += waits / 2;
        wsm_source_pack_goes_on(p, *now);
        *now += waits / 2;
        wsm_source_pack_goes_on(p, *now);
        wsm_source_pack_done(p, *now, 1 * MiB, 1 * MiB, 0);
    }
    return packed;
}

/* Who waits for the link packs, and who never does so tries not to */
static void test_pace(void)
{
    WsmSourcePack p = {};
    int64_t now = 1000;

    g_assert_cmpint(run(&p, &now, 500, 100, 900), ==, 500);
    p = (WsmSourcePack) {};
    g_assert_cmpint(run(&p, &now, 500, 1000, 10), <, 450);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/frame/round", test_round);
    g_test_add_func("/wsm/frame/random", test_random);
    g_test_add_func("/wsm/frame/fuzz", test_fuzz);
    g_test_add_func("/wsm/pack/skip", test_skip);
    g_test_add_func("/wsm/pack/pace", test_pace);
    return g_test_run();
}
