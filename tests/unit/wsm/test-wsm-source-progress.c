/*
 * Unit tests of migration/wsm/source/progress.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "exec/target_page.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "migration/migration-stats.h"
#include "migration/ram.h"
#include "migration/wsm/source/progress.h"
#include "wsm-origin.h"

#define DISKS           2
#define BLOCK           ORIGIN_BLOCK
#define BLOCKS          1000
#define SIZE            ((int64_t)BLOCKS * BLOCK)
#define PAGE_BITS       12

static Origin o;
static OriginDisk disk[DISKS];

/*
 * The guest's memory
 */

static uint64_t ram_total, ram_remaining;

uint64_t ram_bytes_total(void)
{
    return ram_total;
}

uint64_t ram_bytes_remaining(void)
{
    return ram_remaining;
}

const TargetPageBits target_page = {
    .decided = true, .bits = PAGE_BITS, .mask = -1 << PAGE_BITS,
};

/*
 * Steps
 */

static void set_up(void)
{
    for (unsigned d = 0; d < DISKS; d++) {
        origin_add_disk(&disk[d], d ? "vdb" : "vda", SIZE);
    }
    origin_init(&o);
    origin_start(&o, 1);
    for (unsigned d = 0; d < DISKS; d++) {
        wsm_work_start_anew(o.s->work, d);
    }
    ram_total = ram_remaining = 0;
    stat64_set(&mig_stats.dirty_sync_count, 2);
    stat64_set(&mig_stats.dirty_pages_rate, 0);
    stat64_set(&mig_stats.qemu_file_transferred, 0);
}

static void tear_down(void)
{
    origin_destroy(&o);
    for (unsigned d = 0; d < DISKS; d++) {
        origin_remove_disk(&disk[d]);
    }
}

/* So many blocks are dirty, and no others; the rest in blocks, too */
static void set_disk(unsigned d, int64_t dirty, int64_t allocated,
                     int64_t sent, int64_t equal, int64_t zero)
{
    WsmSourceDisk *sd = &o.s->disk[d];

    wsm_work_start_anew(o.s->work, d);
    if (dirty) {
        bdrv_set_dirty_bitmap(wsm_work_dirty_bitmap(o.s->work, d), 0,
                              dirty * BLOCK);
    }
    sd->allocated = allocated < 0 ? allocated : allocated * BLOCK;
    stat64_set(&sd->sent, sent * BLOCK);
    stat64_set(&sd->equal, equal * BLOCK);
    stat64_set(&sd->zero, zero * BLOCK);
}

static WsmExpect expect(WsmPhase phase)
{
    WsmExpect e = {};

    wsm_source_expect(o.s, phase, &e);
    return e;
}

/* How much is left of the disks, in blocks */
static void check_left(int64_t blocks)
{
    WsmExpect e = expect(WSM_PHASE_DISK_PRECOPY);

    g_assert_cmpint(e.disks_before, ==, blocks * BLOCK);
    g_assert_cmpint(e.disks_after, ==, 0);
    e = expect(WSM_PHASE_RAM_PRECOPY);
    g_assert_cmpint(e.disks_before, ==, 0);
    g_assert_cmpint(e.disks_after, ==, blocks * BLOCK);
}

/*
 * How far it is
 */

static void test_sample(void)
{
    WsmSample s = {};

    set_up();
    wsm_source_sample(o.s, &s);
    g_assert_cmpint(s.ram + s.data + s.equal + s.zero + s.dirty, ==, 0);
    stat64_set(&mig_stats.qemu_file_transferred, 12345);
    set_disk(0, 3, 50, 10, 20, 30);
    set_disk(1, 4, 50, 100, 200, 300);
    wsm_source_sample(o.s, &s);
    g_assert_cmpint(s.ram, ==, 12345);
    g_assert_cmpint(s.data, ==, 110 * BLOCK);
    g_assert_cmpint(s.equal, ==, 220 * BLOCK);
    g_assert_cmpint(s.zero, ==, 330 * BLOCK);
    g_assert_cmpint(s.dirty, ==, 7 * BLOCK);
    g_assert_cmpint(wsm_source_sent(o.s), ==, 110 * BLOCK);
    g_assert_cmpint(wsm_source_equal(o.s), ==, 220 * BLOCK);
    tear_down();
}

/*
 * What is left
 */

/* In the first pass no more than what is allocated, then what is dirty */
static void test_first_pass(void)
{
    set_up();
    set_disk(1, 0, 0, 0, 0, BLOCKS);
    /* dirty, allocated, sent, equal, zero */
    set_disk(0, BLOCKS, 400, 0, 0, 0);
    check_left(400);
    set_disk(0, 900, 400, 100, 0, 0);
    check_left(300);
    set_disk(0, 900, 400, 60, 40, 0);
    check_left(300);
    /* Zeroes are not what is allocated */
    set_disk(0, 500, 400, 100, 0, 400);
    check_left(300);
    /* Less is dirty than that */
    set_disk(0, 200, 400, 100, 0, 600);
    check_left(200);
    /* More was sent, as the guest has written: something is left still */
    set_disk(0, 500, 400, 450, 0, 0);
    check_left(4);
    set_disk(0, 2, 400, 450, 0, 0);
    check_left(2);
    /* It is over: what is dirty was written since */
    set_disk(0, 50, 400, 400, 0, 600);
    check_left(50);
    set_disk(0, 500, 400, 200, 300, 500);
    check_left(500);
    tear_down();
}

/* Nobody knows what is allocated; or what is dirty is known not to be a hole */
static void test_all_dirty(void)
{
    WsmBasis basis = { .kind = WSM_BASIS_KIND_SYNC_POINT };

    set_up();
    set_disk(0, 900, -ENOTSUP, 0, 0, 0);
    set_disk(1, 0, 0, 0, 0, BLOCKS);
    check_left(900);
    set_disk(0, 900, 100, 0, 0, 0);
    check_left(100);
    o.s->disk[0].basis = &basis;
    check_left(900);
    basis.kind = WSM_BASIS_KIND_CONTENT;
    check_left(100);
    o.s->disk[0].basis = NULL;
    tear_down();
}

/* All disks; what the guest may dirty of them is what they have, or all */
static void test_disks(void)
{
    WsmExpect e;

    set_up();
    set_disk(0, 900, 100, 0, 0, 0);
    set_disk(1, 30, 200, BLOCKS, 0, 0);
    check_left(130);
    e = expect(WSM_PHASE_DISK_PRECOPY);
    g_assert_cmpint(e.disks_most, ==, 300 * BLOCK);
    set_disk(1, 30, -ENOTSUP, BLOCKS, 0, 0);
    e = expect(WSM_PHASE_DISK_PRECOPY);
    g_assert_cmpint(e.disks_most, ==, (100 + BLOCKS) * BLOCK);
    set_disk(1, 30, 0, BLOCKS, 0, 0);
    e = expect(WSM_PHASE_POSTCOPY);
    g_assert_cmpint(e.disks_most, ==, (100 + BLOCKS) * BLOCK);
    tear_down();
}

/* In each phase: what goes before the handover, and what after it */
static void test_phases(void)
{
    static const WsmPhase phase[] = {
        WSM_PHASE_SETUP, WSM_PHASE_DISK_PRECOPY, WSM_PHASE_RAM_PRECOPY,
        WSM_PHASE_FREEZE, WSM_PHASE_POSTCOPY,
    };

    set_up();
    set_disk(0, 10, -ENOTSUP, 0, 0, 0);
    set_disk(1, 5, -ENOTSUP, 0, 0, 0);
    ram_total = ram_remaining = 7 * MiB;
    stat64_set(&mig_stats.dirty_pages_rate, 100);
    for (unsigned i = 0; i < ARRAY_SIZE(phase); i++) {
        WsmExpect e = expect(phase[i]);
        bool before = phase[i] == WSM_PHASE_DISK_PRECOPY;
        bool frozen = phase[i] >= WSM_PHASE_FREEZE;

        g_assert_cmpint(e.disks_before, ==, before ? 15 * BLOCK : 0);
        /* Memory that goes in post-copy goes with the disks */
        g_assert_cmpint(e.disks_after, ==, (before ? 0 : 15 * BLOCK) +
                        (frozen ? 7 * MiB : 0));
        g_assert_cmpint(e.ram, ==, frozen ? 0 : 7 * MiB);
        g_assert_cmpfloat(e.ram_written, ==,
                          frozen ? 0 : 100.0 * qemu_target_page_size());
    }
    tear_down();
}

/* Nothing more to do: what there was stays */
static void test_completed(void)
{
    WsmExpect e = {
        .disks_before = 1, .disks_after = 2, .disks_most = 3, .ram = 4,
    };

    set_up();
    set_disk(0, 10, -ENOTSUP, 0, 0, 0);
    ram_remaining = 7 * MiB;
    wsm_source_expect(o.s, WSM_PHASE_COMPLETED, &e);
    g_assert_cmpint(e.disks_before, ==, 1);
    g_assert_cmpint(e.disks_after, ==, 2);
    g_assert_cmpint(e.disks_most, ==, 3);
    g_assert_cmpint(e.ram, ==, 4);
    tear_down();
}

/*
 * Before memory was looked at twice, untouched pages count as nothing: they are
 * not resident.  This process stands for the guest.
 */
static void test_ram(void)
{
    g_autofree uint8_t *touched = g_malloc(64 * MiB);
    int64_t in_use, more;

    set_up();
    memset(touched, 1, 32 * MiB);
    stat64_set(&mig_stats.dirty_sync_count, 1);
    /* Of 1 TiB most is not in use; what is left is all */
    ram_total = ram_remaining = 1 * TiB;
    in_use = expect(WSM_PHASE_RAM_PRECOPY).ram;
    g_assert_cmpint(in_use, >, 32 * MiB);
    g_assert_cmpint(in_use, <, 256 * GiB);
    memset(touched + 32 * MiB, 1, 32 * MiB);
    more = expect(WSM_PHASE_RAM_PRECOPY).ram;
    g_assert_cmpint(more, >, in_use + 16 * MiB);
    /* Half is left, of what is in use as well */
    ram_remaining = 1 * TiB / 2;
    g_assert_cmpint(expect(WSM_PHASE_RAM_PRECOPY).ram, <, more * 3 / 4);
    /* No more than all of it is in use, however large QEMU is */
    ram_total = ram_remaining = 1 * MiB;
    g_assert_cmpint(expect(WSM_PHASE_RAM_PRECOPY).ram, ==, 1 * MiB);
    ram_total = 0;
    g_assert_cmpint(expect(WSM_PHASE_RAM_PRECOPY).ram, ==, 1 * MiB);
    /* From the second look on all that is left was written to */
    ram_total = ram_remaining = 1 * TiB;
    stat64_set(&mig_stats.dirty_sync_count, 2);
    g_assert_cmpint(expect(WSM_PHASE_RAM_PRECOPY).ram, ==, 1 * TiB);
    tear_down();
}

int main(int argc, char **argv)
{
    int ret;

    origin_init_tests(&argc, &argv);
    g_test_add_func("/wsm/source-progress/sample", test_sample);
    g_test_add_func("/wsm/source-progress/first-pass", test_first_pass);
    g_test_add_func("/wsm/source-progress/all-dirty", test_all_dirty);
    g_test_add_func("/wsm/source-progress/disks", test_disks);
    g_test_add_func("/wsm/source-progress/phases", test_phases);
    g_test_add_func("/wsm/source-progress/completed", test_completed);
    g_test_add_func("/wsm/source-progress/ram", test_ram);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
