/*
 * Unit tests of migration/wsm/source/watch.c
 *
 * While disks move, what an admin can do is done to them, and to what is
 * around them: it must be found, and said by name.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "migration/wsm/source/watch.h"
#include "wsm-origin.h"

#define BLOCK           ORIGIN_BLOCK
#define SIZE            (16 * BLOCK)

static Origin o;
static OriginDisk vda, vdb;

/*
 * The big lock, which here nobody else ever has
 */

static bool locked;
static unsigned looks;

bool bql_locked(void)
{
    return locked;
}

void bql_lock_impl(const char *file, int line)
{
    g_assert_false(locked);
    locked = true;
}

void bql_unlock(void)
{
    g_assert_true(locked);
    locked = false;
}

void bql_block_unlock(bool increase)
{
    g_assert_not_reached();
}

void rust_bql_mock_lock(void)
{
    g_assert_not_reached();
}

/*
 * Steps
 */

static void set_up(void)
{
    origin_add_disk(&vda, "vda", SIZE);
    origin_add_disk(&vdb, "vdb", SIZE);
    origin_init(&o);
    origin_start(&o, 1);
    g_assert_true(wsm_source_look(o.s, &error_abort));
}

static void tear_down(void)
{
    origin_destroy(&o);
    origin_remove_disk(&vda);
    origin_remove_disk(&vdb);
}

static void expect_found(const char *text)
{
    Error *err = NULL;

    g_assert_false(wsm_source_look(o.s, &err));
    disks_error(err, text);
}

static void expect_nothing(void)
{
    g_assert_true(wsm_source_look(o.s, &error_abort));
}

/*
 * What may change, and what may not
 */

/* The guest writes: that is what it is all about */
static void test_same(void)
{
    set_up();
    g_assert_cmpint(o.s->ndisks, ==, 2);
    g_assert_null(o.s->excluded);
    origin_write(&vda, 3, 2, 0x44);
    expect_nothing();
    tear_down();
}

/* A disk that was plugged in would not be copied, unless it need not be */
static void test_inserted(void)
{
    OriginDisk vdc;

    set_up();
    origin_add_disk(&vdc, "vdc", SIZE);
    expect_found("disk 'vdc': node 'vdc' was inserted during migration and is "
                 "not copied");
    origin_remove_disk(&vdc);
    expect_nothing();
    tear_down();
}

static void test_read_only(void)
{
    g_autofree char *path = disks_create("cdrom", "raw", NULL);
    BlockBackend *blk;

    set_up();
    blk = disks_open(path, "raw", 0);
    disks_plug("cdrom", blk);
    expect_nothing();
    g_assert_cmpstr(o.s->excluded->value->name, ==, "cdrom");
    g_assert_null(o.s->excluded->next);
    expect_nothing();
    g_assert_null(o.s->excluded->next);
    disks_unplug("cdrom");
    blk_unref(blk);
    expect_nothing();
    g_assert_null(o.s->excluded);
    tear_down();
}

static void test_unplugged(void)
{
    set_up();
    disks_unplug("vdb");
    expect_found("disk 'vdb': its block graph was changed during migration");
    disks_plug("vdb", vdb.blk);
    disks_unplug("vda");
    expect_found("disk 'vda': its block graph was changed during migration");
    disks_plug("vda", vda.blk);
    expect_nothing();
    tear_down();
}

/* Two devices that changed their media */
static void test_swapped(void)
{
    set_up();
    disks_unplug("vda");
    disks_unplug("vdb");
    disks_plug("vda", vdb.blk);
    disks_plug("vdb", vda.blk);
    /* All nodes are there still, and each is copied */
    expect_nothing();
    tear_down();
}

/* Another node below the device, which our bitmap does not see */
static void test_replaced(void)
{
    OriginDisk other;

    set_up();
    origin_add_disk(&other, "other", SIZE);
    disks_unplug("other");
    blk_remove_bs(vda.blk);
    blk_insert_bs(vda.blk, other.bs, &error_abort);
    expect_found("disk 'vda': node 'other' was inserted");
    blk_remove_bs(vda.blk);
    blk_insert_bs(vda.blk, vda.bs, &error_abort);
    expect_nothing();
    origin_remove_disk(&other);
    tear_down();
}

/* A node below the one that is tracked */
static void test_below(void)
{
    g_autofree char *top = disks_create("top", "qcow2", NULL);
    g_autofree char *base = disks_create("base", "qcow2", NULL);
    BlockBackend *blk, *below;

    origin_init(&o);
    blk = disks_open(top, "qcow2", BDRV_O_RDWR);
    below = disks_open(base, "qcow2", 0);
    disks_plug("vda", blk);
    origin_start(&o, 1);
    expect_nothing();
    bdrv_set_backing_hd(blk_bs(blk), blk_bs(below), &error_abort);
    expect_found("disk 'vda': its block graph was changed during migration");
    bdrv_set_backing_hd(blk_bs(blk), NULL, &error_abort);
    expect_nothing();
    origin_destroy(&o);
    disks_unplug("vda");
    blk_unref(below);
    blk_unref(blk);
}

/* Who would make the freeze fail */
static void test_busy(void)
{
    BlockBackend *writer;

    set_up();
    writer = blk_new(qemu_get_aio_context(), BLK_PERM_WRITE, BLK_PERM_ALL);
    blk_insert_bs(writer, vdb.bs, &error_abort);
    expect_found("something that is no device of the guest may write to node "
                 "'vdb'");
    origin_export_node = "vda";
    expect_found("something that is no device");
    origin_export_node = "vdb";
    expect_found("export 'export0' may write to node 'vdb'");
    /* It gives that up when it is to */
    blk_set_force_allow_inactivate(writer);
    expect_nothing();
    blk_unref(writer);
    tear_down();
}

/* The user's choice does not fit any more */
static void test_not_wanted(void)
{
    strList *disks = NULL;

    origin_add_disk(&vda, "vda", SIZE);
    origin_add_disk(&vdb, "vdb", SIZE);
    origin_init(&o);
    QAPI_LIST_PREPEND(disks, g_strdup("vdb"));
    origin_set(&o, disks, disks);
    origin_start(&o, 1);
    g_assert_cmpint(o.s->ndisks, ==, 1);
    expect_nothing();
    g_assert_cmpstr(o.s->excluded->value->name, ==, "vda");
    disks_unplug("vdb");
    expect_found("no disk 'vdb'");
    g_assert_cmpstr(o.s->excluded->value->name, ==, "vda");
    disks_plug("vdb", vdb.blk);
    expect_nothing();
    tear_down();
}

/*
 * To watch: what look says, now and then, and with the lock
 */

static void on_select(void)
{
    g_assert_true(locked);
    looks++;
}

static void test_watch(void)
{
    OriginDisk vdc;
    int64_t before;

    set_up();
    looks = 0;
    origin_on_select = on_select;
    before = wsm_now();
    wsm_source_watch(o.s);
    g_assert_cmpint(looks, ==, 1);
    g_assert_false(locked);
    /* Not again before a second has gone by */
    g_assert_cmpint(o.s->watch_ns, >=, before + NANOSECONDS_PER_SECOND);
    o.s->watch_ns = INT64_MAX;
    origin_add_disk(&vdc, "vdc", SIZE);
    wsm_source_watch(o.s);
    g_assert_cmpint(looks, ==, 1);
    origin_expect_fatal(&o, NULL);

    o.s->watch_ns = wsm_now();
    wsm_source_watch(o.s);
    g_assert_cmpint(looks, ==, 2);
    g_assert_false(locked);
    origin_expect_fatal(&o, "disk 'vdc': node 'vdc' was inserted");
    origin_expect_error(&o, "disk 'vdc': node 'vdc' was inserted");
    g_assert_cmpint(o.s->watch_ns, >=, before + NANOSECONDS_PER_SECOND);
    origin_remove_disk(&vdc);
    tear_down();
}

/* The disks are not ours any more, and may change */
static void test_watch_stopped(void)
{
    int64_t before;

    set_up();
    wsm_source_stop(o.s);
    disks_unplug("vda");
    looks = 0;
    origin_on_select = on_select;
    before = wsm_now();
    wsm_source_watch(o.s);
    g_assert_cmpint(looks, ==, 0);
    g_assert_false(locked);
    g_assert_cmpint(o.s->watch_ns, >=, before + NANOSECONDS_PER_SECOND);
    origin_expect_fatal(&o, NULL);
    tear_down();
}

int main(int argc, char **argv)
{
    int ret;

    origin_init_tests(&argc, &argv);
    g_test_add_func("/wsm/source-watch/same", test_same);
    g_test_add_func("/wsm/source-watch/inserted", test_inserted);
    g_test_add_func("/wsm/source-watch/read-only", test_read_only);
    g_test_add_func("/wsm/source-watch/unplugged", test_unplugged);
    g_test_add_func("/wsm/source-watch/swapped", test_swapped);
    g_test_add_func("/wsm/source-watch/replaced", test_replaced);
    g_test_add_func("/wsm/source-watch/below", test_below);
    g_test_add_func("/wsm/source-watch/busy", test_busy);
    g_test_add_func("/wsm/source-watch/not-wanted", test_not_wanted);
    g_test_add_func("/wsm/source-watch/watch", test_watch);
    g_test_add_func("/wsm/source-watch/watch-stopped", test_watch_stopped);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
