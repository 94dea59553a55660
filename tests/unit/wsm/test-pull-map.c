/*
 * Unit tests of block/pull-map.c
 *
 * The map is compared with a shadow, arrays with one byte for each block.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/pull-map.h"

#define MAX_BLOCKS 5000
#define NB_BUSY 4

typedef struct Shadow {
    PullMap map;
    int64_t blocks;
    uint8_t missing[MAX_BLOCKS];
    uint8_t asked[MAX_BLOCKS];
    BlockReq busy[NB_BUSY];
    bool is_busy[NB_BUSY];
} Shadow;

typedef struct Range {
    int64_t offset, bytes;
} Range;

static void shadow_init(Shadow *t, int64_t size, uint32_t granularity)
{
    memset(t, 0, sizeof(*t));
    pull_map_init(&t->map, size, granularity);
    t->blocks = DIV_ROUND_UP(size, granularity);
    g_assert_cmpint(t->blocks, <=, MAX_BLOCKS);
}

/* The range of @count blocks, clipped at the size of the disk */
static Range blocks_range(const Shadow *t, int64_t first, int64_t count)
{
    int64_t offset = first * t->map.granularity;
    int64_t end = (first + count) * t->map.granularity;

    return (Range) { offset, MIN(end, t->map.size) - offset };
}

static Range random_blocks(const Shadow *t)
{
    int64_t first = g_test_rand_int_range(0, t->blocks);
    int64_t max = MIN(t->blocks - first, g_test_rand_bit() ? 4 : 300);

    return blocks_range(t, first, g_test_rand_int_range(1, max + 1));
}

static Range random_bytes(const Shadow *t)
{
    int64_t offset = g_test_rand_int_range(0, t->map.size);

    return (Range) {
        offset, g_test_rand_int_range(1, t->map.size - offset + 1),
    };
}

static int64_t first_block(const Shadow *t, Range r)
{
    return r.offset / t->map.granularity;
}

/* The block after the last one that the range touches */
static int64_t end_block(const Shadow *t, Range r)
{
    return DIV_ROUND_UP(r.offset + r.bytes, t->map.granularity);
}

/* The first run of blocks in [@i, @end) whose value is @value */
static bool shadow_run(const Shadow *t, const uint8_t *value, int64_t i,
                       int64_t end, Range *r)
{
    int64_t first;

    while (i < end && !value[i]) {
        i++;
    }
    for (first = i; i < end && value[i]; i++) {
        /* find the end */
    }
    *r = blocks_range(t, first, i - first);
    return i > first;
}

static void check_next(const Shadow *t, Range r)
{
    Range expected, got = { -7, -7 };
    int64_t start;
    bool any = shadow_run(t, t->missing, first_block(t, r), end_block(t, r),
                          &expected);

    g_assert_cmpint(pull_map_any(&t->map, r.offset, r.bytes), ==, any);
    g_assert_cmpint(pull_map_next(&t->map, r.offset, r.bytes,
                                  &got.offset, &got.bytes), ==, any);
    if (!any) {
        g_assert_cmpint(got.offset, ==, -7);
        g_assert_cmpint(got.bytes, ==, -7);
        return;
    }

    start = MAX(expected.offset, r.offset);
    g_assert_cmpint(got.offset, ==, start);
    g_assert_cmpint(got.bytes, ==,
                    MIN(expected.offset + expected.bytes, r.offset + r.bytes) -
                    start);
}

static void check_count(const Shadow *t)
{
    int64_t sum = 0;

    for (int64_t i = 0; i < t->blocks; i++) {
        sum += t->missing[i] ? blocks_range(t, i, 1).bytes : 0;
    }
    g_assert_cmpint(pull_map_missing_bytes(&t->map), ==, sum);
}

static void do_set_missing(Shadow *t)
{
    Range r = random_blocks(t);

    if (pull_map_conflict(&t->map, r.offset, r.bytes)) {
        return;
    }
    pull_map_set_missing(&t->map, r.offset, r.bytes);
    memset(t->missing + first_block(t, r), 1,
           end_block(t, r) - first_block(t, r));
}

static void do_ask(Shadow *t)
{
    g_autofree uint8_t *unasked = g_malloc0(t->blocks);
    Range r = random_blocks(t);
    Range expected, got;
    bool any;

    for (int64_t i = 0; i < t->blocks; i++) {
        unasked[i] = t->missing[i] && !t->asked[i];
    }
    any = shadow_run(t, unasked, first_block(t, r), end_block(t, r), &expected);

    g_assert_cmpint(pull_map_ask(&t->map, r.offset, r.bytes,
                                 &got.offset, &got.bytes), ==, any);
    if (any) {
        g_assert_cmpint(got.offset, ==, expected.offset);
        g_assert_cmpint(got.bytes, ==, expected.bytes);
        memset(t->asked + first_block(t, got), 1,
               end_block(t, got) - first_block(t, got));
    }
}

static void do_forget(Shadow *t)
{
    Range r = random_blocks(t);

    pull_map_forget(&t->map, r.offset, r.bytes);
    memset(t->asked + first_block(t, r), 0,
           end_block(t, r) - first_block(t, r));
}

static BlockReq *shadow_conflict(Shadow *t, Range r)
{
    for (int i = 0; i < NB_BUSY; i++) {
        BlockReq *req = &t->busy[i];

        if (t->is_busy[i] && req->offset < r.offset + r.bytes &&
            r.offset < req->offset + req->bytes) {
            return req;
        }
    }
    return NULL;
}

static void do_begin(Shadow *t)
{
    int i = g_test_rand_int_range(0, NB_BUSY);
    Range r = random_blocks(t);
    BlockReq *found = pull_map_conflict(&t->map, r.offset, r.bytes);

    g_assert_cmpint(!found, ==, !shadow_conflict(t, r));
    if (found) {
        /* There may be several, any will do */
        g_assert_cmpint(found->offset, <, r.offset + r.bytes);
        g_assert_cmpint(r.offset, <, found->offset + found->bytes);
    } else if (!t->is_busy[i]) {
        pull_map_begin(&t->map, &t->busy[i], r.offset, r.bytes);
        t->is_busy[i] = true;
    }
}

static void shadow_clear(Shadow *t, const BlockReq *req, Range r)
{
    int64_t asked = 0;

    for (int64_t i = first_block(t, r); i < end_block(t, r); i++) {
        asked += t->asked[i] ? blocks_range(t, i, 1).bytes : 0;
        t->missing[i] = t->asked[i] = 0;
    }
    g_assert_cmpint(pull_map_clear(&t->map, req, r.offset, r.bytes), ==, asked);
}

/* What was missing in an exclusive range arrives, or the first part of it */
static void do_end(Shadow *t)
{
    int i = g_test_rand_int_range(0, NB_BUSY);
    BlockReq *req = &t->busy[i];
    Range r = { req->offset, req->bytes }, run;
    bool fail = g_test_rand_bit();

    if (!t->is_busy[i]) {
        return;
    }

    while (shadow_run(t, t->missing, first_block(t, r), end_block(t, r),
                      &run)) {
        shadow_clear(t, req, run);
        if (fail) {
            break;
        }
    }
    pull_map_end(&t->map, req);
    t->is_busy[i] = false;
}

static void end_all(Shadow *t)
{
    for (int i = 0; i < NB_BUSY; i++) {
        if (t->is_busy[i]) {
            pull_map_end(&t->map, &t->busy[i]);
        }
    }
    pull_map_destroy(&t->map);
}

static void run_random(int64_t size, uint32_t granularity, int steps)
{
    static void (*const ops[])(Shadow *t) = {
        do_set_missing, do_ask, do_ask, do_forget, do_begin, do_begin, do_end,
    };
    g_autofree Shadow *t = g_new(Shadow, 1);

    shadow_init(t, size, granularity);
    for (int i = 0; i < steps; i++) {
        ops[g_test_rand_int_range(0, ARRAY_SIZE(ops))](t);
        check_next(t, random_bytes(t));
        check_next(t, random_blocks(t));
        check_count(t);
    }
    check_next(t, (Range) { 0, size });
    end_all(t);
}

/* Around the boundaries of the levels of an HBitmap, and odd last blocks */
static void test_random(void)
{
    static const int64_t blocks[] = { 1, 2, 63, 64, 65, 4095, 4096, 4097 };

    for (int i = 0; i < ARRAY_SIZE(blocks); i++) {
        run_random(blocks[i] * 4096, 4096, 400);
        run_random(blocks[i] * 4096 - 512, 4096, 400);
        run_random(blocks[i] * 4096 - 3584, 4096, 400);
        run_random(blocks[i] * 512, 512, 400);
        run_random(blocks[i] * 65536 - 1, 65536, 400);
    }
}

static void check_outer_inner(const Shadow *t, Range r)
{
    Range outer = r, inner = r;
    int64_t first = -1, count = 0;

    pull_map_outer(&t->map, &outer.offset, &outer.bytes);
    g_assert_cmpint(outer.offset, ==,
                    blocks_range(t, first_block(t, r), 1).offset);
    g_assert_cmpint(outer.offset + outer.bytes, ==,
                    MIN(end_block(t, r) * t->map.granularity, t->map.size));

    for (int64_t i = 0; i < t->blocks; i++) {
        Range block = blocks_range(t, i, 1);

        if (block.offset >= r.offset &&
            block.offset + block.bytes <= r.offset + r.bytes) {
            first = first < 0 ? i : first;
            count++;
        }
    }
    pull_map_inner(&t->map, &inner.offset, &inner.bytes);
    if (count) {
        g_assert_cmpint(inner.offset, ==, blocks_range(t, first, 1).offset);
        g_assert_cmpint(inner.bytes, ==, blocks_range(t, first, count).bytes);
    } else {
        g_assert_cmpint(inner.bytes, ==, 0);
    }
}

static void test_outer_inner(void)
{
    static const int64_t sizes[] = { 1, 511, 512, 513, 1024, 3000, 4096 };

    for (int i = 0; i < ARRAY_SIZE(sizes); i++) {
        g_autofree Shadow *t = g_new(Shadow, 1);

        shadow_init(t, sizes[i], 512);
        for (int n = 0; n < 3000; n++) {
            check_outer_inner(t, random_bytes(t));
        }
        check_outer_inner(t, (Range) { 0, sizes[i] });
        end_all(t);
    }
}

static void test_is_whole(void)
{
    static const struct {
        int64_t offset, bytes;
        bool whole;
    } cases[] = {
        { 0, 4096, true }, { 4096, 4096, true }, { 0, 10240, true },
        { 8192, 2048, true }, { 4096, 6144, true },
        { 0, 0, false }, { 0, -4096, false }, { -4096, 4096, false },
        { 0, 2048, false }, { 2048, 4096, false }, { 8192, 4096, false },
        { 8192, 1024, false }, { 8192, 0, false }, { 10240, 4096, false },
        { 0, 12288, false }, { 12288, 4096, false }, { 9216, 1024, false },
        { 4096, INT64_MAX, false }, { INT64_MAX, 4096, false },
        { INT64_MAX - 4095, 4096, false }, { 0, INT64_MAX, false },
        { INT64_MIN, INT64_MAX, false }, { INT64_MIN, INT64_MIN, false },
    };
    PullMap map;

    pull_map_init(&map, 10240, 4096);
    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        bool whole = pull_map_is_whole(&map, cases[i].offset, cases[i].bytes);

        if (whole != cases[i].whole) {
            g_test_message("case %d is %s", i, whole ? "whole" : "not whole");
            g_test_fail();
        }
    }
    pull_map_destroy(&map);
}

static void test_empty_disk(void)
{
    PullMap map;
    int64_t offset, bytes;

    pull_map_init(&map, 0, 4096);
    g_assert_cmpint(pull_map_missing_bytes(&map), ==, 0);
    g_assert_false(pull_map_next(&map, 0, 4096, &offset, &bytes));
    g_assert_false(pull_map_any(&map, 0, 4096));
    g_assert_false(pull_map_is_whole(&map, 0, 0));
    pull_map_destroy(&map);
}

/* What breaks the law does not go on */
static void clear_outside(void)
{
    PullMap map;
    BlockReq req;

    pull_map_init(&map, 65536, 4096);
    pull_map_set_missing(&map, 0, 16384);
    pull_map_begin(&map, &req, 0, 8192);
    pull_map_clear(&map, &req, 4096, 8192);
}

static void clear_twice(void)
{
    PullMap map;
    BlockReq req;

    pull_map_init(&map, 65536, 4096);
    pull_map_set_missing(&map, 0, 4096);
    pull_map_begin(&map, &req, 0, 8192);
    pull_map_clear(&map, &req, 0, 8192);
}

static void begin_twice(void)
{
    PullMap map;
    BlockReq req[2];

    pull_map_init(&map, 65536, 4096);
    pull_map_begin(&map, &req[0], 0, 8192);
    pull_map_begin(&map, &req[1], 4096, 8192);
}

static void expect_abort(const void *data)
{
    void (*func)(void) = data;

    if (g_test_subprocess()) {
        func();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*Assertion*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/pull-map/random", test_random);
    g_test_add_func("/pull-map/outer-inner", test_outer_inner);
    g_test_add_func("/pull-map/is-whole", test_is_whole);
    g_test_add_func("/pull-map/empty-disk", test_empty_disk);
    g_test_add_data_func("/pull-map/clear-outside", clear_outside,
                         expect_abort);
    g_test_add_data_func("/pull-map/clear-twice", clear_twice, expect_abort);
    g_test_add_data_func("/pull-map/begin-twice", begin_twice, expect_abort);

    return g_test_run();
}
