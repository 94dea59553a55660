/*
 * Unit tests of migration/wsm/wire/runs.c
 *
 * The bitmaps are compared with a shadow, an array with one byte per block.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/wire/runs.h"

typedef struct Run {
    uint64_t first, count;
} Run;

static GByteArray *encode_shadow(const uint8_t *shadow, uint64_t blocks)
{
    GByteArray *out = g_byte_array_new();
    WsmRunsEncoder e;
    uint64_t i = 0;

    wsm_runs_encode_init(&e, out);
    while (i < blocks) {
        uint64_t first = i;

        while (i < blocks && shadow[i]) {
            i++;
        }
        if (i > first) {
            wsm_runs_encode(&e, first, i - first);
        } else {
            i++;
        }
    }
    return out;
}

/* Returns the number of runs */
static unsigned decode_to_shadow(const GByteArray *in, uint8_t *shadow,
                                 uint64_t blocks)
{
    WsmRunsDecoder d;
    uint64_t first, count;
    unsigned runs = 0;

    memset(shadow, 0, blocks);
    wsm_runs_decode_init(&d, in->data, in->len, blocks);
    while (wsm_runs_decode(&d, &first, &count, &error_abort)) {
        g_assert_cmpuint(count, >, 0);
        g_assert_cmpuint(first + count, <=, blocks);
        for (uint64_t i = first; i < first + count; i++) {
            g_assert_cmpuint(shadow[i], ==, 0);
            shadow[i] = 1;
        }
        runs++;
    }
    return runs;
}

#define GRANULARITY     4096

/* Marks what it is called for in bytes of @shadow, one for each 512 bytes */
static void mark_run(void *opaque, int64_t offset, int64_t bytes)
{
    uint8_t *shadow = opaque;

    g_assert_cmpint(offset % GRANULARITY, ==, 0);
    g_assert_cmpint(bytes, >, 0);
    for (int64_t i = offset / 512; i < (offset + bytes) / 512; i++) {
        g_assert_cmpuint(shadow[i], ==, 0);
        shadow[i] = 1;
    }
}

/* In bytes, of a disk whose last block has @last bytes */
static void check_for_each(const GByteArray *in, const uint8_t *shadow,
                           uint64_t blocks, int64_t last)
{
    int64_t size = (blocks - 1) * GRANULARITY + last;
    g_autofree uint8_t *marked = g_malloc0(size / 512 + 1);

    g_assert_true(wsm_runs_for_each(in->data, in->len, size, GRANULARITY,
                                    mark_run, marked, &error_abort));
    for (int64_t i = 0; i < size / 512; i++) {
        g_assert_cmpuint(marked[i], ==, shadow[i * 512 / GRANULARITY]);
    }
    g_assert_cmpuint(marked[size / 512], ==, 0);
}

static void check_round_trip(const uint8_t *shadow, uint64_t blocks)
{
    g_autoptr(GByteArray) bytes = encode_shadow(shadow, blocks);
    g_autofree uint8_t *copy = g_malloc(blocks + 1);

    decode_to_shadow(bytes, copy, blocks);
    g_assert_cmpmem(copy, blocks, shadow, blocks);
    g_assert_cmpuint(bytes->len, <=, wsm_runs_max_size(blocks));
    if (blocks) {
        check_for_each(bytes, shadow, blocks, GRANULARITY);
        check_for_each(bytes, shadow, blocks, 512);
    }
}

/* The longest list that there is */
static void test_max_size(void)
{
    for (uint64_t blocks = 0; blocks < 300; blocks++) {
        g_autofree uint8_t *shadow = g_malloc0(blocks + 1);

        for (uint64_t i = 0; i < blocks; i += 2) {
            shadow[i] = 1;
        }
        check_round_trip(shadow, blocks);
        g_assert_cmpuint(wsm_runs_max_size(blocks), ==, blocks + 10);
    }
}

/* What comes before the first that is bad was told */
static void test_for_each_bad(void)
{
    static const uint8_t runs[] = { 0, 1, 1, 9 };
    uint8_t shadow[10 * GRANULARITY / 512] = {};
    Error *err = NULL;

    g_assert_false(wsm_runs_for_each(runs, sizeof(runs), 10 * GRANULARITY,
                                     GRANULARITY, mark_run, shadow, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "list of runs: gap 1 + length 9 "
                    "after block 1 is beyond the 10 blocks of the disk");
    error_free(err);
    for (int i = 0; i < ARRAY_SIZE(shadow); i++) {
        g_assert_cmpuint(shadow[i], ==, i < GRANULARITY / 512);
    }
}

/* Encode @n runs, compare with the bytes @expected, decode them again */
static void check_runs(const Run *run, unsigned n, uint64_t blocks,
                       const uint8_t *expected, size_t size)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    WsmRunsEncoder e;
    WsmRunsDecoder d;
    uint64_t first, count;

    wsm_runs_encode_init(&e, out);
    for (unsigned i = 0; i < n; i++) {
        wsm_runs_encode(&e, run[i].first, run[i].count);
    }
    g_assert_cmpmem(out->data, out->len, expected, size);

    wsm_runs_decode_init(&d, out->data, out->len, blocks);
    for (unsigned i = 0; i < n; i++) {
        g_assert_cmpint(wsm_runs_decode(&d, &first, &count, &error_abort),
                        ==, 1);
        g_assert_cmpuint(first, ==, run[i].first);
        g_assert_cmpuint(count, ==, run[i].count);
    }
    g_assert_cmpint(wsm_runs_decode(&d, &first, &count, &error_abort), ==, 0);
}

#define CHECK_RUNS(blocks, runs, ...) \
    do { \
        static const uint8_t bytes[] = { __VA_ARGS__ }; \
        check_runs(runs, ARRAY_SIZE(runs), blocks, bytes, sizeof(bytes)); \
    } while (0)

static void test_bytes(void)
{
    static const Run one[] = { { 0, 1 } };
    static const Run two[] = { { 2, 3 }, { 7, 1 } };
    static const Run adjacent[] = { { 1, 2 }, { 3, 4 } };
    static const Run wide[] = { { 127, 128 }, { 16638, 16384 } };
    static const Run last[] = { { UINT64_MAX - 1, 1 } };
    static const Run all[] = { { 0, UINT64_MAX } };

    CHECK_RUNS(1, one, 0x00, 0x01);
    CHECK_RUNS(8, two, 0x02, 0x03, 0x02, 0x01);
    CHECK_RUNS(7, adjacent, 0x01, 0x02, 0x00, 0x04);
    CHECK_RUNS(1 << 20, wide,
               0x7f, 0x80, 0x01, 0xff, 0x7f, 0x80, 0x80, 0x01);
    CHECK_RUNS(UINT64_MAX, last,
               0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
               0x01);
    CHECK_RUNS(UINT64_MAX, all, 0x00,
               0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01);
}

static void test_nothing(void)
{
    WsmRunsDecoder d;
    uint64_t first, count;

    wsm_runs_decode_init(&d, NULL, 0, 0);
    g_assert_cmpint(wsm_runs_decode(&d, &first, &count, &error_abort), ==, 0);
    wsm_runs_decode_init(&d, NULL, 0, 5);
    g_assert_cmpint(wsm_runs_decode(&d, &first, &count, &error_abort), ==, 0);
}

static void test_shapes(void)
{
    static const uint64_t sizes[] = {
        0, 1, 2, 63, 64, 65, 127, 128, 129, 16383, 16384, 16385, 40000,
    };

    for (int i = 0; i < ARRAY_SIZE(sizes); i++) {
        uint64_t n = sizes[i];
        g_autofree uint8_t *shadow = g_malloc0(n + 1);

        check_round_trip(shadow, n);
        if (n) {
            shadow[n - 1] = 1;
            check_round_trip(shadow, n);
            shadow[0] = 1;
            check_round_trip(shadow, n);
        }
        memset(shadow, 1, n);
        check_round_trip(shadow, n);
        for (uint64_t b = 0; b < n; b += 2) {
            shadow[b] = 0;
        }
        check_round_trip(shadow, n);
    }
}

static void test_random(void)
{
    for (int i = 0; i < 500; i++) {
        uint64_t n = g_test_rand_int_range(1, 5000);
        g_autofree uint8_t *shadow = g_malloc0(n);
        int mean = g_test_rand_int_range(1, 300);
        uint8_t set = 0;

        for (uint64_t b = 0; b < n; b++) {
            if (g_test_rand_int_range(0, mean) == 0) {
                set = !set;
            }
            shadow[b] = set;
        }
        check_round_trip(shadow, n);
    }
}

/* The size depends on what is missing, not on the size of the disk */
static void test_size(void)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    WsmRunsEncoder e;

    wsm_runs_encode_init(&e, out);
    wsm_runs_encode(&e, 1, 1ULL << 40);
    g_assert_cmpuint(out->len, <=, 7);
}

/* What is there already stays: several disks share one array */
static void test_append(void)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    WsmRunsEncoder e;

    g_byte_array_append(out, (const uint8_t *)"xy", 2);
    wsm_runs_encode_init(&e, out);
    wsm_runs_encode(&e, 5, 6);
    g_assert_cmpmem(out->data, out->len, "xy\x05\x06", 4);
}

/*
 * Decode until the end or an error; check that what comes before an error is
 * right: runs in order and within the disk.  Returns the last result.
 */
static int decode_all(const uint8_t *buf, size_t size, uint64_t blocks,
                      unsigned *runs, Error **errp)
{
    /* A copy of exactly this size, so that a sanitizer sees each overrun */
    g_autofree uint8_t *copy = g_memdup2(buf, size);
    WsmRunsDecoder d;
    uint64_t first, count, end = 0;
    int ret;

    *runs = 0;
    wsm_runs_decode_init(&d, copy, size, blocks);
    while ((ret = wsm_runs_decode(&d, &first, &count, errp)) == 1) {
        g_assert_cmpuint(first, >=, end);
        g_assert_cmpuint(count, >, 0);
        g_assert_cmpuint(first, <, blocks);
        g_assert_cmpuint(count, <=, blocks - first);
        end = first + count;
        ++*runs;
    }
    return ret;
}

static void test_truncated(void)
{
    static const Run run[] = { { 5, 1 }, { 300, 200 }, { 1 << 20, 1 << 30 } };
    g_autoptr(GByteArray) out = g_byte_array_new();
    size_t end_of_run[ARRAY_SIZE(run) + 1] = { 0 };
    WsmRunsEncoder e;
    unsigned whole = 0, runs;

    wsm_runs_encode_init(&e, out);
    for (unsigned i = 0; i < ARRAY_SIZE(run); i++) {
        wsm_runs_encode(&e, run[i].first, run[i].count);
        end_of_run[i + 1] = out->len;
    }
    for (size_t size = 0; size <= out->len; size++) {
        Error *err = NULL;
        int ret = decode_all(out->data, size, 1ULL << 40, &runs, &err);

        if (whole < ARRAY_SIZE(run) && size == end_of_run[whole + 1]) {
            whole++;
        }
        g_assert_cmpuint(runs, ==, whole);
        if (size == end_of_run[whole]) {
            g_assert_cmpint(ret, ==, 0);
            g_assert_null(err);
        } else {
            g_assert_cmpint(ret, ==, -EINVAL);
            g_assert_nonnull(strstr(error_get_pretty(err), "ends within"));
            error_free(err);
        }
    }
    g_assert_cmpuint(whole, ==, ARRAY_SIZE(run));
}

#define CHECK_BAD(blocks, text, ...) \
    do { \
        static const uint8_t bytes[] = { __VA_ARGS__ }; \
        check_bad(bytes, sizeof(bytes), blocks, text); \
    } while (0)

static void check_bad(const uint8_t *buf, size_t size, uint64_t blocks,
                      const char *text)
{
    Error *err = NULL;
    unsigned runs;

    g_assert_cmpint(decode_all(buf, size, blocks, &runs, &err), ==, -EINVAL);
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
}

static void test_bad(void)
{
    CHECK_BAD(100, "list of runs: the run after block 0 has length 0",
              0x05, 0x00);
    CHECK_BAD(100, "list of runs: the run after block 11 has length 0",
              0x01, 0x0a, 0x00, 0x00);
    CHECK_BAD(100, "list of runs: gap 99 + length 2 after block 0 "
              "is beyond the 100 blocks of the disk", 99, 2);
    CHECK_BAD(100, "list of runs: gap 100 + length 1 after block 0 "
              "is beyond the 100 blocks of the disk", 100, 1);
    CHECK_BAD(100, "list of runs: gap 101 + length 1 after block 0 "
              "is beyond the 100 blocks of the disk", 101, 1);
    CHECK_BAD(100, "list of runs: gap 0 + length 1 after block 100 "
              "is beyond the 100 blocks of the disk", 0, 100, 0, 1);
    CHECK_BAD(0, "list of runs: gap 0 + length 1 after block 0 "
              "is beyond the 0 blocks of the disk", 0, 1);
}

/* Sums that wrap round must not come out within the disk */
static void test_bad_overflow(void)
{
    CHECK_BAD(100, "list of runs: gap 18446744073709551615 + length 2 "
              "after block 0 is beyond the 100 blocks of the disk",
              0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 2);
    CHECK_BAD(100, "list of runs: gap 2 + length 18446744073709551615 "
              "after block 0 is beyond the 100 blocks of the disk",
              2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01);
    CHECK_BAD(UINT64_MAX, "list of runs: gap 18446744073709551615 + length 1 "
              "after block 1 is beyond the 18446744073709551615 blocks "
              "of the disk", 0, 1,
              0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1);
}

static void test_bad_encoding(void)
{
    const char *gap = "list of runs: the gap of the run after block 0 "
        "is no 64-bit number in its shortest encoding";
    const char *length = "list of runs: the length of the run after block 0 "
        "is no 64-bit number in its shortest encoding";

    /* 2^64, 2^64 in more bytes than it takes, 11 bytes */
    CHECK_BAD(100, gap, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
              0x02, 1);
    CHECK_BAD(100, gap, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
              0x03, 1);
    CHECK_BAD(100, gap, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
              0x80, 0x01, 1);
    CHECK_BAD(100, gap, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
              0x00, 1);
    /* 0 and 1 in two bytes */
    CHECK_BAD(100, gap, 0x80, 0x00, 1);
    CHECK_BAD(100, length, 0, 0x81, 0x00);
    /* Cut off after a byte that promises another */
    CHECK_BAD(100, "list of runs: ends within the gap of the run "
              "after block 0", 0x80);
    CHECK_BAD(100, "list of runs: ends within the length of the run "
              "after block 0", 0x00);
    CHECK_BAD(100, "list of runs: ends within the length of the run "
              "after block 0", 0x00, 0x81);
}

/* Whatever bytes come: runs in order and within the disk, or an error */
static void test_garbage(void)
{
    for (int i = 0; i < 20000; i++) {
        uint8_t buf[64];
        size_t size = g_test_rand_int_range(0, sizeof(buf));
        uint64_t blocks = g_test_rand_int() >> g_test_rand_int_range(0, 32);
        uint8_t mask = g_test_rand_int();
        Error *err = NULL;
        unsigned runs;
        int ret;

        for (size_t b = 0; b < size; b++) {
            buf[b] = g_test_rand_int() & mask;
        }
        ret = decode_all(buf, size, blocks, &runs, &err);
        g_assert_cmpint(ret, ==, err ? -EINVAL : 0);
        error_free(err);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/wsm/runs/bytes", test_bytes);
    g_test_add_func("/wsm/runs/max-size", test_max_size);
    g_test_add_func("/wsm/runs/for-each-bad", test_for_each_bad);
    g_test_add_func("/wsm/runs/nothing", test_nothing);
    g_test_add_func("/wsm/runs/shapes", test_shapes);
    g_test_add_func("/wsm/runs/random", test_random);
    g_test_add_func("/wsm/runs/size", test_size);
    g_test_add_func("/wsm/runs/append", test_append);
    g_test_add_func("/wsm/runs/truncated", test_truncated);
    g_test_add_func("/wsm/runs/bad", test_bad);
    g_test_add_func("/wsm/runs/bad-overflow", test_bad_overflow);
    g_test_add_func("/wsm/runs/bad-encoding", test_bad_encoding);
    g_test_add_func("/wsm/runs/garbage", test_garbage);

    return g_test_run();
}
