/*
 * Unit tests of migration/wsm/core/hash.c
 *
 * With "-m perf" it also says how fast blocks are hashed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio.h"
#include "crypto/init.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "migration/wsm/core/hash.h"

#define BLOCK   4096
#define BLOCKS  300             /* at most, in a test of differences */

static const uint8_t zero_hash[WSM_HASH_SIZE];

static void assert_hash(const uint8_t *hash, const char *hex)
{
    g_autoptr(GString) text = g_string_new("");

    for (int i = 0; i < WSM_HASH_SIZE; i++) {
        g_string_append_printf(text, "%02x", hash[i]);
    }
    g_assert_cmpstr(text->str, ==, hex);
}

static void fill_random(uint8_t *buf, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        buf[i] = g_test_rand_int();
    }
}

/*
 * Hashing
 */

/* FIPS 180-2, appendix B: known results, here as blocks of all lengths */
static void test_hash_vectors(void)
{
    static const char two[] =
        "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    g_autofree char *million = g_strnfill(1000000, 'a');
    uint8_t hash[WSM_HASH_SIZE];

    wsm_hash_blocks("abc", 3, BLOCK, hash);
    assert_hash(hash, "ba7816bf8f01cfea414140de5dae2223"
                      "b00361a396177a9cb410ff61f20015ad");
    wsm_hash_blocks(two, 56, BLOCK, hash);
    assert_hash(hash, "248d6a61d20638b8e5c026930c3e6039"
                      "a33ce45964ff2167f6ecedd419db06c1");
    wsm_hash_blocks(million, 1000000, 1 * MiB, hash);
    assert_hash(hash, "cdc76e5c9914fb9281a1c7e284d73e67"
                      "f1809a48a497200e046d39ccc7112cd0");
}

/* Whole blocks; the bytes of a block are its number */
static void test_hash_blocks(void)
{
    uint8_t buf[3 * BLOCK], hash[4 * WSM_HASH_SIZE];

    memset(buf, 1, BLOCK);
    memset(buf + BLOCK, 2, BLOCK);
    memset(buf + 2 * BLOCK, 1, BLOCK);
    memset(hash, 0xee, sizeof(hash));
    wsm_hash_blocks(buf, sizeof(buf), BLOCK, hash);
    assert_hash(hash, "3431383721510cf1c211de027cf958c1"
                      "83e16db5fabb6b230eb284c85e196aa9");
    assert_hash(hash + 32, "30d6bc164ea54188aa9df0c14f20c4fb"
                           "c8a155c5644bcc9ef9eb05901cb07d70");
    g_assert_cmpmem(hash + 64, 32, hash, 32);
    /* and nothing behind them */
    for (int i = 96; i < sizeof(hash); i++) {
        g_assert_cmphex(hash[i], ==, 0xee);
    }
}

/* The last block has its real length: it is as if hashed alone */
static void test_hash_short_block(void)
{
    g_autofree uint8_t *buf = g_malloc(BLOCK + 512);
    uint8_t hash[2 * WSM_HASH_SIZE], alone[WSM_HASH_SIZE];

    fill_random(buf, BLOCK + 512);
    wsm_hash_blocks(buf, BLOCK + 512, BLOCK, hash);
    wsm_hash_blocks(buf + BLOCK, 512, BLOCK, alone);
    g_assert_cmpmem(hash + 32, 32, alone, 32);
    wsm_hash_blocks(buf + BLOCK, 512, 512, alone);
    g_assert_cmpmem(hash + 32, 32, alone, 32);
    wsm_hash_blocks(buf, BLOCK, BLOCK, alone);
    g_assert_cmpmem(hash, 32, alone, 32);
    wsm_hash_blocks("abc", 3, 2, hash);
    wsm_hash_blocks("c", 1, BLOCK, alone);
    g_assert_cmpmem(hash + 32, 32, alone, 32);
}

static void test_hash_zero(void)
{
    g_autofree uint8_t *buf = g_malloc0(2 * BLOCK + 512);
    uint8_t hash[3 * WSM_HASH_SIZE];

    memset(hash, 0xee, sizeof(hash));
    wsm_hash_blocks(buf, 2 * BLOCK + 512, BLOCK, hash);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpmem(hash + i * 32, 32, zero_hash, 32);
    }

    /* a single bit at either end of a block makes it another */
    buf[BLOCK] = 0x80;
    buf[2 * BLOCK + 511] = 1;
    wsm_hash_blocks(buf, 2 * BLOCK + 512, BLOCK, hash);
    g_assert_cmpmem(hash, 32, zero_hash, 32);
    g_assert_cmpint(memcmp(hash + 32, zero_hash, 32), !=, 0);
    g_assert_cmpint(memcmp(hash + 64, zero_hash, 32), !=, 0);
    buf[BLOCK] = 0;
    buf[2 * BLOCK - 1] = 1;
    wsm_hash_blocks(buf, 2 * BLOCK + 512, BLOCK, hash);
    g_assert_cmpint(memcmp(hash + 32, zero_hash, 32), !=, 0);
}

static void test_hash_nothing(void)
{
    uint8_t hash[WSM_HASH_SIZE];

    memset(hash, 0xee, sizeof(hash));
    wsm_hash_blocks(NULL, 0, BLOCK, hash);
    g_assert_cmphex(hash[0], ==, 0xee);
}

/* Every bit counts */
static void test_hash_bits(void)
{
    g_autofree uint8_t *buf = g_malloc(BLOCK);
    uint8_t before[WSM_HASH_SIZE], after[WSM_HASH_SIZE];

    fill_random(buf, BLOCK);
    wsm_hash_blocks(buf, BLOCK, BLOCK, before);
    for (int i = 0; i < 1000; i++) {
        int bit = g_test_rand_int_range(0, BLOCK * 8);

        buf[bit / 8] ^= 1 << bit % 8;
        wsm_hash_blocks(buf, BLOCK, BLOCK, after);
        g_assert_cmpint(memcmp(before, after, 32), !=, 0);
        buf[bit / 8] ^= 1 << bit % 8;
    }
    wsm_hash_blocks(buf, BLOCK, BLOCK, after);
    g_assert_cmpmem(before, 32, after, 32);
}

/*
 * Hashing in worker threads
 */

#define JOBS        8
#define JOB_BYTES   (64 * KiB + 512)
#define JOB_BLOCKS  17

typedef struct Job {
    uint8_t *buf;
    uint8_t hash[JOB_BLOCKS * WSM_HASH_SIZE];
    int *running;
} Job;

static void coroutine_fn job_entry(void *opaque)
{
    Job *job = opaque;

    wsm_co_hash_blocks(job->buf, JOB_BYTES, BLOCK, job->hash);
    --*job->running;
}

static void test_hash_co(void)
{
    Job jobs[JOBS];
    int running = JOBS;

    for (int i = 0; i < JOBS; i++) {
        jobs[i].running = &running;
        jobs[i].buf = g_malloc0(JOB_BYTES);
        fill_random(jobs[i].buf, JOB_BYTES - i * BLOCK);
        qemu_coroutine_enter(qemu_coroutine_create(job_entry, &jobs[i]));
    }
    /* None has waited for another, or for its worker */
    g_assert_cmpint(running, ==, JOBS);
    while (running) {
        aio_poll(qemu_get_aio_context(), true);
    }
    for (int i = 0; i < JOBS; i++) {
        uint8_t hash[JOB_BLOCKS * WSM_HASH_SIZE];

        wsm_hash_blocks(jobs[i].buf, JOB_BYTES, BLOCK, hash);
        g_assert_cmpmem(jobs[i].hash, sizeof(hash), hash, sizeof(hash));
        g_free(jobs[i].buf);
    }
}

/*
 * Differences
 */

typedef struct Found {
    bool block[BLOCKS];
    size_t end;                 /* of the last run */
    unsigned runs;
} Found;

static void found_run(void *opaque, size_t first, size_t count)
{
    Found *found = opaque;

    /* in order, not empty, not adjacent to the one before */
    g_assert_cmpuint(count, >, 0);
    g_assert_true(found->runs == 0 || first > found->end);
    g_assert_cmpuint(first + count, <=, BLOCKS);
    for (size_t i = first; i < first + count; i++) {
        found->block[i] = true;
    }
    found->end = first + count;
    found->runs++;
}

/* Compare with a shadow: block by block, a missing array being zeroes */
static Found check_diff(const uint8_t *a, const uint8_t *b, size_t blocks)
{
    Found found = {};

    wsm_hash_diff(a, b, blocks, found_run, &found);
    g_assert_cmpuint(found.end, <=, blocks);
    for (size_t i = 0; i < blocks; i++) {
        bool differs = false;

        for (int n = 0; n < 32; n++) {
            differs |= (a ? a[i * 32 + n] : 0) != (b ? b[i * 32 + n] : 0);
        }
        g_assert_cmpint(found.block[i], ==, differs);
    }
    return found;
}

static void test_diff_random(void)
{
    for (int i = 0; i < 2000; i++) {
        size_t blocks = g_test_rand_int_range(0, BLOCKS + 1);
        g_autofree uint8_t *a = g_malloc0(blocks * 32 + 1);
        g_autofree uint8_t *b = g_malloc0(blocks * 32 + 1);
        int often = g_test_rand_int_range(1, 20);

        for (size_t n = 0; n < blocks; n++) {
            if (g_test_rand_int_range(0, often)) {
                fill_random(a + n * 32, 32);
            }
            memcpy(b + n * 32, a + n * 32, 32);
            if (!g_test_rand_int_range(0, often)) {
                b[n * 32 + g_test_rand_int_range(0, 32)] ^= 0x10;
            }
        }
        check_diff(a, b, blocks);
        check_diff(b, a, blocks);
        check_diff(a, NULL, blocks);
        check_diff(NULL, b, blocks);
    }
}

static void test_diff_runs(void)
{
    uint8_t a[8 * 32] = {}, b[8 * 32] = {};

    /* both ends of the array, both ends of a hash */
    b[0] = 1;
    b[3 * 32 + 31] = 1;
    b[4 * 32] = 1;
    b[7 * 32 + 31] = 1;
    g_assert_cmpuint(check_diff(a, b, 8).runs, ==, 3);
    g_assert_cmpuint(check_diff(a, b, 7).runs, ==, 2);
    g_assert_cmpuint(check_diff(a, b, 4).runs, ==, 2);
    g_assert_cmpuint(check_diff(a, b, 1).runs, ==, 1);
    g_assert_cmpuint(check_diff(a, b, 0).runs, ==, 0);
    memset(b, 0xff, sizeof(b));
    g_assert_cmpuint(check_diff(a, b, 8).runs, ==, 1);
    g_assert_cmpuint(check_diff(b, b, 8).runs, ==, 0);
}

static void test_diff_null(void)
{
    uint8_t a[4 * 32] = {};

    g_assert_cmpuint(check_diff(NULL, NULL, BLOCKS).runs, ==, 0);
    g_assert_cmpuint(check_diff(NULL, NULL, 0).runs, ==, 0);
    g_assert_cmpuint(check_diff(a, NULL, 4).runs, ==, 0);
    g_assert_cmpuint(check_diff(NULL, a, 4).runs, ==, 0);
    a[2 * 32 + 5] = 1;
    g_assert_cmpuint(check_diff(a, NULL, 4).runs, ==, 1);
    g_assert_cmpuint(check_diff(NULL, a, 4).runs, ==, 1);
}

/* From blocks to runs: what differs, also in a short last block */
static void test_diff_of_blocks(void)
{
    size_t bytes = 20 * BLOCK + 512;
    g_autofree uint8_t *a = g_malloc(bytes), *b = NULL;
    uint8_t hash_a[21 * 32], hash_b[21 * 32];
    Found found;

    fill_random(a, bytes);
    b = g_memdup2(a, bytes);
    b[3 * BLOCK - 1] ^= 1;
    b[3 * BLOCK] ^= 1;
    memset(b + 7 * BLOCK, 0, BLOCK);
    b[bytes - 1] ^= 1;
    wsm_hash_blocks(a, bytes, BLOCK, hash_a);
    wsm_hash_blocks(b, bytes, BLOCK, hash_b);
    found = check_diff(hash_a, hash_b, 21);
    g_assert_cmpuint(found.runs, ==, 3);
    for (int i = 0; i < 21; i++) {
        g_assert_cmpint(found.block[i],
                        ==, i == 2 || i == 3 || i == 7 || i == 20);
    }
}

/*
 * Speed
 */

static void measure(const char *what, const uint8_t *buf, size_t bytes,
                    uint32_t granularity)
{
    g_autofree uint8_t *hash = g_malloc(bytes / granularity * WSM_HASH_SIZE);
    size_t done = 0;
    clock_t begin = clock(), ticks;
    double speed;

    /* CPU time, so that others on the machine do not count */
    do {
        wsm_hash_blocks(buf, bytes, granularity, hash);
        done += bytes;
        ticks = clock() - begin;
    } while (ticks < CLOCKS_PER_SEC);
    speed = (double)done * CLOCKS_PER_SEC / ticks / 1e6;
    g_test_maximized_result(speed, "%s in blocks of %" PRIu32 ": %.0f MB/s",
                            what, granularity, speed);
}

static void test_speed(void)
{
    static const uint32_t granularity[] = { 4 * KiB, 64 * KiB, 1 * MiB };
    g_autofree uint8_t *buf = g_malloc0(8 * MiB);

    for (int i = 0; i < ARRAY_SIZE(granularity); i++) {
        measure("zeroes", buf, 8 * MiB, granularity[i]);
    }
    fill_random(buf, 8 * MiB);
    for (int i = 0; i < ARRAY_SIZE(granularity); i++) {
        measure("data", buf, 8 * MiB, granularity[i]);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qcrypto_init(&error_abort);
    qemu_init_main_loop(&error_abort);

    g_test_add_func("/wsm/hash/hash/vectors", test_hash_vectors);
    g_test_add_func("/wsm/hash/hash/blocks", test_hash_blocks);
    g_test_add_func("/wsm/hash/hash/short-block", test_hash_short_block);
    g_test_add_func("/wsm/hash/hash/zero", test_hash_zero);
    g_test_add_func("/wsm/hash/hash/nothing", test_hash_nothing);
    g_test_add_func("/wsm/hash/hash/bits", test_hash_bits);
    g_test_add_func("/wsm/hash/hash/co", test_hash_co);
    g_test_add_func("/wsm/hash/diff/random", test_diff_random);
    g_test_add_func("/wsm/hash/diff/runs", test_diff_runs);
    g_test_add_func("/wsm/hash/diff/null", test_diff_null);
    g_test_add_func("/wsm/hash/diff/of-blocks", test_diff_of_blocks);
    if (g_test_perf()) {
        g_test_add_func("/wsm/hash/speed", test_speed);
    }

    return g_test_run();
}
