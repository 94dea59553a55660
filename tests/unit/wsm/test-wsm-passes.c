/*
 * Unit tests of migration/wsm/policy/passes.c
 *
 * A simulated guest writes while its disk and then its memory are sent.  What
 * is missing after the freeze, and what was sent, is compared with what any
 * other number of passes would have led to.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/timer.h"
#include "migration/wsm/policy/passes.h"

#define BLOCKS                  20000
#define BLOCK_NS                SCALE_MS        /* to send one */
#define MAX_RESIDUE_MS          200             /* 1 % of the disk */
#define MOST                    8               /* passes to compare with */

typedef enum Pattern { EVEN, IN_TURN, MOSTLY_A_TENTH } Pattern;

static const Pattern patterns[] = { EVEN, IN_TURN, MOSTLY_A_TENTH };

typedef struct Guest {
    Pattern pattern;
    double rate;                /* writes while one block is sent */
    int64_t ram;                /* blocks' worth of memory */
    double due;                 /* writes */
    long next;                  /* IN_TURN */
    unsigned long *dirty;
    GRand *rand;
} Guest;

typedef struct Outcome {
    int passes;
    int64_t sent;               /* blocks, in passes and after the freeze */
    int64_t residue;            /* blocks, after the freeze */
} Outcome;

static long guest_place(Guest *g)
{
    switch (g->pattern) {
    case IN_TURN:
        g->next = (g->next + 1) % BLOCKS;
        return g->next;
    case MOSTLY_A_TENTH:
        return g_rand_int_range(g->rand, 0,
                                g_rand_int_range(g->rand, 0, 10) ? BLOCKS / 10
                                                                 : BLOCKS);
    default:
        return g_rand_int_range(g->rand, 0, BLOCKS);
    }
}

/* One block's time goes by */
static void guest_write(Guest *g)
{
    for (g->due += g->rate; g->due >= 1; g->due--) {
        set_bit(guest_place(g), g->dirty);
    }
}

static WsmPass guest_pass(Guest *g)
{
    WsmPass p = { .ram = g->ram };
    unsigned long place = 0;

    p.before = bitmap_count_one(g->dirty, BLOCKS);
    while ((place = find_next_bit(g->dirty, BLOCKS, place)) < BLOCKS) {
        clear_bit(place, g->dirty);
        p.sent++;
        guest_write(g);
    }
    p.ns = p.sent * BLOCK_NS;
    p.dirty = bitmap_count_one(g->dirty, BLOCKS);
    return p;
}

/* @passes: how many, 0: as many as wsm_pass_again() wants */
static Outcome simulate(Pattern pattern, double rate, int64_t ram, int passes)
{
    Guest g = {
        .pattern = pattern, .rate = rate, .ram = ram,
        .dirty = bitmap_new(BLOCKS), .rand = g_rand_new_with_seed(1),
    };
    Outcome o = {};
    bool again;

    bitmap_set(g.dirty, 0, BLOCKS);
    do {
        WsmPass p = guest_pass(&g);

        if (o.passes++ == 0) {
            p.before = INT64_MAX;
        }
        o.sent += p.sent;
        again = passes ? o.passes < passes
                       : wsm_pass_again(&p, MAX_RESIDUE_MS);
        g_assert_cmpint(o.passes, <=, MOST);
    } while (again);
    for (int64_t i = 0; i < ram; i++) {
        guest_write(&g);
    }
    o.residue = bitmap_count_one(g.dirty, BLOCKS);
    o.sent += o.residue;
    g_free(g.dirty);
    g_rand_free(g.rand);
    return o;
}

static int64_t least_residue(Pattern pattern, double rate, int64_t ram)
{
    int64_t least = INT64_MAX;

    for (int passes = 1; passes <= MOST; passes++) {
        least = MIN(least, simulate(pattern, rate, ram, passes).residue);
    }
    return least;
}

/* Not much more is missing than if one had known how many passes are best */
static void test_residue(void)
{
    static const double rates[] = { 0.01, 0.1, 0.25 };
    static const int64_t rams[] = { 0, BLOCKS / 8, BLOCKS, 4 * BLOCKS };

    for (int i = 0; i < ARRAY_SIZE(patterns); i++) {
        for (int j = 0; j < ARRAY_SIZE(rates); j++) {
            for (int k = 0; k < ARRAY_SIZE(rams); k++) {
                Outcome o = simulate(patterns[i], rates[j], rams[k], 0);
                int64_t least = least_residue(patterns[i], rates[j], rams[k]);

                g_test_message("pattern %d, rate %.2f, memory %" PRId64
                               ": %d passes, residue %" PRId64 ", least %"
                               PRId64, patterns[i], rates[j], rams[k],
                               o.passes, o.residue, least);
                g_assert_cmpint(o.residue, <=, 3 * least + BLOCKS / 100);
            }
        }
    }
}

/* With little memory, passes go on until little is left */
static void test_little_memory(void)
{
    for (int i = 0; i < ARRAY_SIZE(patterns); i++) {
        Outcome o = simulate(patterns[i], 0.2, 0, 0);

        g_assert_cmpint(o.passes, >, 1);
        g_assert_cmpint(o.residue, <=, BLOCKS / 100);
    }
}

/* With much memory, no block is sent in vain, but post-copy must not be long */
static void test_much_memory(void)
{
    for (int i = 0; i < ARRAY_SIZE(patterns); i++) {
        Outcome o = simulate(patterns[i], 0.08, BLOCKS, 0);

        g_assert_cmpint(o.passes, ==, 1);
        g_assert_cmpint(o.sent, <,
                        simulate(patterns[i], 0.08, BLOCKS, 2).sent);
    }
    g_assert_cmpint(simulate(IN_TURN, 0.2, BLOCKS, 0).passes, ==, 2);
}

/* The guest writes faster than can be sent; to a tenth of the disk: twice */
static void test_too_fast(void)
{
    for (int i = 0; i < ARRAY_SIZE(patterns); i++) {
        int passes = patterns[i] == MOSTLY_A_TENTH ? 2 : 1;

        g_assert_cmpint(simulate(patterns[i], 5, 0, 0).passes, ==, passes);
        g_assert_cmpint(simulate(patterns[i], 5, BLOCKS, 0).passes, ==, passes);
    }
}

/* A quiet guest: nothing was sent, nothing is left, no disk at all */
static void test_nothing(void)
{
    WsmPass p = { .before = INT64_MAX, .ns = 1, .ram = 1 };

    g_assert_cmpfloat(wsm_pass_left_ms(&p), ==, 0);
    g_assert_false(wsm_pass_again(&p, 0));
    p.sent = 1;
    g_assert_false(wsm_pass_again(&p, 0));
    g_assert_cmpint(simulate(EVEN, 0, 0, 0).passes, ==, 1);
}

/* A pass that mostly compared does not know how fast it could send */
static void test_compared(void)
{
    WsmPass p = {
        .before = INT64_MAX, .sent = 10, .equal = 11, .ns = SCALE_MS,
        .dirty = 9,
    };

    g_assert_true(wsm_pass_again(&p, 1000));
    p.sent = 0;
    g_assert_true(wsm_pass_again(&p, 1000));
    p.dirty = 0;
    g_assert_false(wsm_pass_again(&p, 0));
    p.sent = 12;
    p.dirty = 9;
    g_assert_false(wsm_pass_again(&p, 1000));
}

/* The greatest disks and times do not overflow */
static void test_huge(void)
{
    WsmPass p = {
        .before = INT64_MAX, .sent = INT64_MAX / 2, .ns = INT64_MAX / 2,
        .dirty = INT64_MAX / 16, .ram = INT64_MAX / 8,
    };

    g_assert_true(wsm_pass_again(&p, INT64_MAX / 1000000000));
    p.ram = INT64_MAX;
    g_assert_false(wsm_pass_again(&p, INT64_MAX / 100000000));
    g_assert_true(wsm_pass_again(&p, 0));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/passes/residue", test_residue);
    g_test_add_func("/wsm/passes/little-memory", test_little_memory);
    g_test_add_func("/wsm/passes/much-memory", test_much_memory);
    g_test_add_func("/wsm/passes/too-fast", test_too_fast);
    g_test_add_func("/wsm/passes/nothing", test_nothing);
    g_test_add_func("/wsm/passes/compared", test_compared);
    g_test_add_func("/wsm/passes/huge", test_huge);
    return g_test_run();
}
