/*
 * Unit tests of migration/wsm/memory/: holes.c, index.c, pace.c, pack.c, tag.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "crypto/init.h"
#include "qapi/error.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "migration/wsm/memory/holes.h"
#include "migration/wsm/memory/index.h"
#include "migration/wsm/memory/pace.h"
#include "migration/wsm/memory/pack.h"
#include "migration/wsm/memory/tag.h"
#include "migration/wsm/memory/worth.h"
#include "migration/wsm/wire/message.h"

static void fill_random(uint8_t *buf, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        buf[i] = g_test_rand_int();
    }
}

/*
 * Prints and tags
 */

static void test_tag(void)
{
    /* Of the salt 00 01 02 ... 1f and a page of 0xa5 */
    static const uint8_t known[] = {
        0x69, 0x16, 0x8c, 0x75, 0xe2, 0x0c, 0x91, 0xcf,
        0x04, 0xfd, 0xb6, 0xdc, 0x77, 0xa6, 0x0d, 0xb3,
    };
    uint8_t salt[WSM_SALT_SIZE], page[WSM_PAGE_SIZE], tag[WSM_TAG_SIZE];

    for (int i = 0; i < WSM_SALT_SIZE; i++) {
        salt[i] = i;
    }
    memset(page, 0xa5, sizeof(page));
    wsm_page_tag(salt, page, tag);
    g_assert_cmpmem(tag, sizeof(tag), known, sizeof(known));
    g_assert_true(wsm_page_has_tag(salt, page, tag));
    for (int i = 0; i < WSM_TAG_SIZE; i++) {
        tag[i] ^= 1;
        g_assert_false(wsm_page_has_tag(salt, page, tag));
        tag[i] ^= 1;
    }
    salt[WSM_SALT_SIZE - 1] ^= 1;
    g_assert_false(wsm_page_has_tag(salt, page, tag));
}

/* Each bit of a page matters, and so does the seed */
static void test_print(void)
{
    uint8_t page[WSM_PAGE_SIZE];
    uint64_t print;
    WsmSeed seed, other;

    wsm_seed_init(&seed);
    wsm_seed_init(&other);
    fill_random(page, sizeof(page));
    print = wsm_page_print(&seed, page);
    g_assert_cmphex(print, ==, wsm_page_print(&seed, page));
    g_assert_cmphex(print, !=, wsm_page_print(&other, page));
    for (int bit = 0; bit < WSM_PAGE_SIZE * 8; bit++) {
        page[bit / 8] ^= 1 << bit % 8;
        g_assert_cmphex(print, !=, wsm_page_print(&seed, page));
        page[bit / 8] ^= 1 << bit % 8;
    }
}

/*
 * Index, against a shadow that knows all
 */

#define DISKS           3
#define DISK_BLOCKS     6000    /* more than one chunk */
#define PRINTS          900     /* many blocks have each */

static void test_index_random(void)
{
    static uint64_t print[DISKS][DISK_BLOCKS];  /* 0: not known */
    WsmIndex *index = wsm_index_new(64 * MiB);
    unsigned found = 0;

    memset(print, 0, sizeof(print));
    for (int i = 0; i < 200000; i++) {
        unsigned disk = g_test_rand_int_range(0, DISKS);
        uint64_t block = g_test_rand_int_range(0, DISK_BLOCKS);
        /* Low bits alike, so that they meet in the table */
        uint64_t p = (uint64_t)g_test_rand_int_range(1, PRINTS) << 8;

        switch (g_test_rand_int_range(0, 4)) {
        case 0:
            for (int n = 0; n < 3 && block + n < DISK_BLOCKS; n++) {
                print[disk][block + n] = 0;
            }
            wsm_index_drop(index, disk, block, 3);
            break;
        case 1:
            wsm_index_put(index, disk, block, p);
            print[disk][block] = p;
            break;
        default:
            if (wsm_index_find(index, p, &disk, &block)) {
                g_assert_cmphex(print[disk][block], ==, p);
                found++;
            }
        }
    }
    g_assert_cmpint(found, >, 1000);
    wsm_index_free(index);
}

/* What was put is found until its block is another's or dropped */
static void test_index_keeps(void)
{
    WsmIndex *index = wsm_index_new(64 * MiB);
    uint64_t block;
    unsigned disk;

    for (uint64_t i = 0; i < 100000; i++) {
        wsm_index_put(index, 255, i, i * 0x9e3779b97f4a7c15 + 1);
    }
    for (uint64_t i = 0; i < 100000; i++) {
        g_assert_true(wsm_index_find(index, i * 0x9e3779b97f4a7c15 + 1, &disk,
                                     &block));
        g_assert_cmpuint(disk, ==, 255);
        g_assert_cmpuint(block, ==, i);
    }
    wsm_index_put(index, 255, 7, 42);
    g_assert_false(wsm_index_find(index, 7 * 0x9e3779b97f4a7c15 + 1, &disk,
                                  &block));
    wsm_index_put(index, 1, 5, 42);
    g_assert_true(wsm_index_find(index, 42, &disk, &block));
    g_assert_cmpuint(block, ==, 5);
    wsm_index_drop(index, 1, 0, 5);
    wsm_index_drop(index, 1, 6, 100000);
    g_assert_true(wsm_index_find(index, 42, &disk, &block));
    wsm_index_drop(index, 1, 4095, 1);
    wsm_index_drop(index, 1, 0, 4097);
    g_assert_false(wsm_index_find(index, 42, &disk, &block));
    /* Beyond what an entry can name */
    wsm_index_put(index, 0, 1ULL << 60, 43);
    g_assert_false(wsm_index_find(index, 43, &disk, &block));
    wsm_index_free(index);
}

/* It does not grow beyond its limit, and what it knows stays right */
static void test_index_limit(void)
{
    WsmIndex *index = wsm_index_new(MiB);
    uint64_t block, found = 0;
    unsigned disk;

    for (uint64_t i = 0; i < 200000; i++) {
        wsm_index_put(index, 0, i * 512, i * 0x9e3779b97f4a7c15 + 1);
    }
    g_assert_cmpuint(wsm_index_size(index), <=, MiB + 8 * KiB);
    for (uint64_t i = 0; i < 200000; i++) {
        if (wsm_index_find(index, i * 0x9e3779b97f4a7c15 + 1, &disk, &block)) {
            g_assert_cmpuint(block, ==, i * 512);
            found++;
        }
    }
    g_assert_cmpuint(found, >, 1000);
    /* A block that is known and changes is not found by what it was */
    wsm_index_put(index, 0, 0, 42);
    g_assert_false(wsm_index_find(index, 1, &disk, &block));
    wsm_index_free(index);
}

/*
 * Holes, against a shadow
 */

#define BLOCKS          3
#define PAGES           300

static bool hole[WSM_MAX_RAM_BLOCKS][PAGES], told[WSM_MAX_RAM_BLOCKS][PAGES];
static unsigned longest;

static void tell(void *opaque, unsigned block, uint64_t first, uint64_t pages)
{
    g_assert_cmpuint(pages, >, 0);
    g_assert_cmpuint(pages, <=, *(uint64_t *)opaque);
    longest = MAX(longest, pages);
    for (uint64_t i = first; i < first + pages; i++) {
        g_assert_false(told[block][i]);
        told[block][i] = true;
    }
}

static void test_holes(void)
{
    static const unsigned blocks[BLOCKS] = { 0, 7, WSM_MAX_RAM_BLOCKS - 1 };
    WsmHoles *holes = wsm_holes_new();
    uint64_t count = 0, ever = 0, max;

    memset(hole, 0, sizeof(hole));
    for (int i = 0; i < 20000; i++) {
        unsigned block = blocks[g_test_rand_int_range(0, BLOCKS)];
        uint64_t page = g_test_rand_int_range(0, PAGES);

        g_assert_cmpint(wsm_holes_has(holes, block, page), ==,
                        hole[block][page]);
        if (g_test_rand_bit()) {
            count += !hole[block][page];
            ever += !hole[block][page];
            hole[block][page] = true;
            wsm_holes_add(holes, block, page);
        } else {
            count -= hole[block][page];
            g_assert_cmpint(wsm_holes_fill(holes, block, page), ==,
                            hole[block][page]);
            hole[block][page] = false;
        }
        g_assert_cmpuint(wsm_holes_count(holes), ==, count);
        if (i % 100 == 0) {
            max = g_test_rand_int_range(1, 5);
            memset(told, 0, sizeof(told));
            wsm_holes_each(holes, max, tell, &max);
            g_assert_cmpmem(told, sizeof(told), hole, sizeof(hole));
        }
    }
    g_assert_cmpuint(longest, ==, 4);
    g_assert_cmpuint(ever, >, PAGES);
    wsm_holes_free(holes);
}

/*
 * Pace
 */

static void run(WsmPace *pace, unsigned packets, int64_t busy, int64_t idle)
{
    WsmPaceStep step = { .busy_ns = busy, .idle_ns = idle, .sent = 1000 };

    while (packets--) {
        wsm_pace_done(pace, &step);
    }
}

static void test_pace(void)
{
    WsmPace pace = {};
    unsigned raw = WSM_PACE_RAW;

    g_assert_true(wsm_pace_pack(&pace));
    /* A fifth of the time it waits: the link is what is slow */
    run(&pace, 10 * WSM_PACE_TRIAL, 80, 20);
    g_assert_true(wsm_pace_pack(&pace));
    /* A little less, and it is not; but not before the trial is over */
    run(&pace, WSM_PACE_TRIAL - 1, 81, 19);
    g_assert_true(wsm_pace_pack(&pace));
    run(&pace, 1, 81, 19);
    g_assert_false(wsm_pace_pack(&pace));
    /* It is faster, and then it tries again to pack, ever less often */
    for (int i = 0; i < 10; i++) {
        run(&pace, raw * WSM_PACE_TRIAL - 1, 1, 99);
        g_assert_false(wsm_pace_pack(&pace));
        run(&pace, 1, 1, 99);
        g_assert_true(wsm_pace_pack(&pace));
        run(&pace, WSM_PACE_TRIAL, 100, 0);
        g_assert_false(wsm_pace_pack(&pace));
        raw = MIN(4 * raw, WSM_PACE_MAX_RAW);
    }
}

/* It is not faster: that is seen at once, and tried ever less often */
static void test_pace_vain(void)
{
    WsmPace pace = {};

    for (unsigned wait = 0, i = 0; i < 10; i++) {
        run(&pace, (wait + 1) * WSM_PACE_TRIAL - 1, 100, 0);
        g_assert_true(wsm_pace_pack(&pace));
        run(&pace, 1, 100, 0);
        g_assert_false(wsm_pace_pack(&pace));
        /* A little slower takes some more packets than much slower */
        run(&pace, i % 2 ? 1 : WSM_PACE_TRIAL / 2 - 1, 1, i % 2 ? 250 : 110);
        g_assert_false(wsm_pace_pack(&pace));
        run(&pace, 1, 1, i % 2 ? 250 : 110);
        g_assert_true(wsm_pace_pack(&pace));
        wait = MIN(4 * wait + 3, WSM_PACE_MAX_WAIT);
    }
}

/* A thread and a link, in ns and bytes, whose buffer takes what it can */
typedef struct Road {
    double now, queued;
    double rate, room;          /* bytes in a ns; bytes */
} Road;

static void road_pass(Road *road, double ns)
{
    road->now += ns;
    road->queued = MAX(0, road->queued - ns * road->rate);
}

static void road_put(Road *road, double bytes)
{
    if (road->queued + bytes > road->room) {
        road_pass(road, (road->queued + bytes - road->room) / road->rate);
    }
    road->queued += bytes;
}

#define RAW_BYTES       (512.0 * KiB)
#define RAW_NS          250000.0

/* ns for so many packets; @pace NULL: all packed, or all @raw */
static double road_run(Road road, unsigned packets, WsmPace *pace, bool raw,
                       double busy, double bytes)
{
    WsmPaceStep step = {};
    double left = 0;

    while (packets--) {
        bool pack = pace ? wsm_pace_pack(pace) : !raw;

        step.idle_ns = road.now - left;
        step.busy_ns = pack ? busy : RAW_NS;
        road_pass(&road, step.busy_ns);
        left = road.now;
        step.queued = road.queued;
        if (pace) {
            wsm_pace_done(pace, &step);
        }
        step.sent = pack ? bytes : RAW_BYTES;
        road_put(&road, step.sent);
    }
    return road.now + road.queued / road.rate;
}

/*
 * Whatever the link, its buffer, and how small and how fast packets become, it
 * takes about as long as the better of both ways, and what it costs to see
 * which that is: some packets of either.
 */
static void test_pace_roads(void)
{
    static const double room[] = { 64e3, 1e6, 4e6, 16e6 };
    static const double busy[] = { 1e6, 2e6, 4e6, 8e6 };
    static const double bytes[] = { 20e3, 60e3, 150e3, 250e3 };
    static const unsigned packets[] = { 100, 226, 1000, 10000 };

    for (unsigned i = 0; i < 256; i++) {
        double cpu = busy[i / 4 % 4], size = bytes[i / 16 % 4];
        unsigned n = packets[i / 64];

        for (double mbit = 10; mbit < 1e5; mbit *= 1.3) {
            Road road = { .rate = mbit / 8000, .room = room[i % 4] };
            double best = MIN(road_run(road, n, NULL, false, cpu, size),
                              road_run(road, n, NULL, true, cpu, size));
            double cost = 3 * WSM_PACE_TRIAL * cpu +
                          9 * RAW_BYTES / road.rate;
            WsmPace pace = {};
            double took = road_run(road, n, &pace, false, cpu, size);

            if (took > best * 1.25 + cost) {
                g_error("%.0f Mbit/s, room %.0f, %u packets of %.0f ns, "
                        "%.0f bytes: %.0f ns, best %.0f ns", mbit, road.room,
                        n, cpu, size, took, best);
            }
        }
    }
}

/*
 * Packing
 */

static void test_pack(void)
{
    g_autofree uint8_t *in = g_malloc(MiB), *back = g_malloc(MiB), *out = NULL;
    size_t bound = wsm_pack_bound(MiB), first = 0;
    WsmUnpacker *unpacker;
    WsmPacker *packer;

    if (!(WSM_FEATURES & WSM_FEATURE_ZSTD)) {
        g_test_skip("built without zstd");
        return;
    }
    out = g_malloc(bound);
    packer = wsm_packer_new(1, &error_abort);
    unpacker = wsm_unpacker_new(&error_abort);
    for (int i = 0; i < 100; i++) {
        size_t size = i < 2 ? 16 * KiB : g_test_rand_int_range(1, 257) * 4096;
        size_t packed;

        if (i != 1) {
            fill_random(in, size);
        }
        if (i % 3 == 2) {
            memset(in, 0, size / 2);
        }
        packed = wsm_pack(packer, in, size, out, bound, &error_abort);
        g_assert_true(wsm_unpack(unpacker, out, packed, back, size,
                                 &error_abort));
        g_assert_cmpmem(in, size, back, size);
        if (i == 0) {
            first = packed;
        } else if (i == 1) {
            /* The same again: the stream has seen it */
            g_assert_cmpuint(packed, <, first / 8);
        }
    }
    wsm_packer_free(packer);
    wsm_unpacker_free(unpacker);
}

/* It must be as much as was said, and no more */
static void test_unpack_bad(void)
{
    uint8_t in[2 * WSM_PAGE_SIZE] = {}, back[3 * WSM_PAGE_SIZE];
    g_autofree uint8_t *out = g_malloc(wsm_pack_bound(sizeof(in)));
    static const size_t wrong[] = { WSM_PAGE_SIZE, 3 * WSM_PAGE_SIZE };

    if (!(WSM_FEATURES & WSM_FEATURE_ZSTD)) {
        g_test_skip("built without zstd");
        return;
    }
    for (int i = 0; i < 3; i++) {
        WsmPacker *packer = wsm_packer_new(1, &error_abort);
        WsmUnpacker *unpacker = wsm_unpacker_new(&error_abort);
        size_t packed = wsm_pack(packer, in, sizeof(in), out,
                                 wsm_pack_bound(sizeof(in)), &error_abort);
        Error *err = NULL;

        if (i == 2) {
            out[0] ^= 0xff;
        }
        g_assert_false(wsm_unpack(unpacker, out, packed, back,
                                  i < 2 ? wrong[i] : sizeof(in), &err));
        g_assert_nonnull(strstr(error_get_pretty(err),
                                i < 2 ? "bytes of compressed memory are not " :
                                        "cannot decompress memory: "));
        error_free(err);
        wsm_packer_free(packer);
        wsm_unpacker_free(unpacker);
    }
}

/* @n times @refs references, of which @missed and @wrong; does it end? */
static bool ends(WsmWorth *w, unsigned n, unsigned refs, unsigned missed,
                 unsigned wrong, int64_t ns, int64_t page_ns, WsmMemoryWhy why)
{
    while (n--) {
        WsmMemoryWhy found;

        if (wsm_worth_ends(w, refs, missed, wrong, ns, page_ns, &found)) {
            g_assert_cmpint(found, ==, why);
            return true;
        }
    }
    return false;
}

static void test_worth(void)
{
    WsmWorth w = {};

    /* 64 wrong ones, however many were right before */
    g_assert_false(ends(&w, 1000, 128, 0, 0, 0, 0, 0));
    g_assert_false(ends(&w, 63, 16, 1, 1, 0, 0, 0));
    g_assert_true(ends(&w, 1, 1, 1, 1, 0, 0, WSM_MEMORY_WHY_WRONG));

    /* Up to a quarter may be missed, and of those before fewer count */
    w = (WsmWorth) {};
    g_assert_false(ends(&w, 1000, 128, 30, 0, 0, 0, 0));
    g_assert_true(ends(&w, 100, 128, 40, 0, 0, 0, WSM_MEMORY_WHY_MISSED));
    w = (WsmWorth) {};
    g_assert_false(ends(&w, 2, 128, 128, 0, 0, 0, 0));
    g_assert_true(ends(&w, 1, 1, 1, 0, 0, 0, WSM_MEMORY_WHY_MISSED));

    /* A page takes 100 ns on the link; that is judged by 1024 */
    w = (WsmWorth) {};
    g_assert_false(ends(&w, 1000, 128, 0, 0, 12800, 100, 0));
    g_assert_false(ends(&w, 1000, 128, 0, 0, 1000000, 0, 0));
    w = (WsmWorth) {};
    g_assert_false(ends(&w, 7, 128, 0, 0, 20000, 100, 0));
    g_assert_true(ends(&w, 1, 128, 0, 0, 20000, 100, WSM_MEMORY_WHY_SLOW));
}

static void test_rate(void)
{
    WsmRate r = {};

    g_assert_cmpint(wsm_rate_ns(&r, 4096), ==, 0);
    /* What comes first tells nothing, and a moment neither */
    wsm_rate_add(&r, 5 * NANOSECONDS_PER_SECOND, 1ULL << 40);
    wsm_rate_add(&r, 5.9 * NANOSECONDS_PER_SECOND, 3000);
    g_assert_cmpint(wsm_rate_ns(&r, 4096), ==, 0);
    wsm_rate_add(&r, 7 * NANOSECONDS_PER_SECOND, 5000);
    g_assert_cmpint(wsm_rate_ns(&r, 4000), ==, NANOSECONDS_PER_SECOND);
    /* It was slower then, as there was less to send */
    wsm_rate_add(&r, 9 * NANOSECONDS_PER_SECOND, 1000);
    g_assert_cmpint(wsm_rate_ns(&r, 4000), ==, NANOSECONDS_PER_SECOND);
    wsm_rate_add(&r, 10 * NANOSECONDS_PER_SECOND, 8000);
    g_assert_cmpint(wsm_rate_ns(&r, 4000), ==, NANOSECONDS_PER_SECOND / 2);
}

static void test_threshold(void)
{
    g_assert_cmpint(wsm_worth_threshold(1000, 100000, 300, 1, 9, 3), ==, 1000);
    g_assert_cmpint(wsm_worth_threshold(1000, 100000, 300, 2, 0, 0), ==,
                    30000);
    g_assert_cmpint(wsm_worth_threshold(40000, 100000, 300, 9, 0, 0), ==,
                    40000);
    /* What is left is packed, too */
    g_assert_cmpint(wsm_worth_threshold(1000, 0, 300, 2, 9, 3), ==, 3000);
    g_assert_cmpint(wsm_worth_threshold(1000, 100000, 300, 2, 9, 3), ==,
                    90000);
    g_assert_cmpint(wsm_worth_threshold(1000, 0, 300, 2, 90, 3), ==, 4000);
    g_assert_cmpint(wsm_worth_threshold(1000, 0, 300, 2, 90, 91), ==, 1000);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qcrypto_init(&error_abort);
    g_test_add_func("/wsm/memory/tag", test_tag);
    g_test_add_func("/wsm/memory/print", test_print);
    g_test_add_func("/wsm/memory/index/random", test_index_random);
    g_test_add_func("/wsm/memory/index/keeps", test_index_keeps);
    g_test_add_func("/wsm/memory/index/limit", test_index_limit);
    g_test_add_func("/wsm/memory/holes", test_holes);
    g_test_add_func("/wsm/memory/pace", test_pace);
    g_test_add_func("/wsm/memory/pace-vain", test_pace_vain);
    g_test_add_func("/wsm/memory/pace-roads", test_pace_roads);
    g_test_add_func("/wsm/memory/worth", test_worth);
    g_test_add_func("/wsm/memory/rate", test_rate);
    g_test_add_func("/wsm/memory/threshold", test_threshold);
    g_test_add_func("/wsm/memory/pack", test_pack);
    g_test_add_func("/wsm/memory/unpack-bad", test_unpack_bad);
    return g_test_run();
}
