/*
 * Unit tests of migration/wsm/image/hold.c
 *
 * What other processes may do with an image is looked up in the locks of its
 * file, from outside.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qapi/error.h"
#include "qemu/bitops.h"
#include "qemu/main-loop.h"
#include "../iothread.h"
#include "migration/wsm/image/hold.h"
#include "wsm-disks.h"
#include "wsm-warnings.h"

#define SHARED_BASE     200     /* file-posix.c's locks of what is not shared */

typedef struct Test {
    char *path, *base;
    BlockBackend *blk;
    WsmNodes *nodes;
    WsmHold *hold;
    bool handed_over;
    Error *reason;
} Test;

/*
 * Steps
 */

static void hold(Test *t)
{
    t->hold = wsm_hold_new(t->nodes, "vda", &t->handed_over);
}

static void begin(Test *t, const char *driver)
{
    *t = (Test) { .path = disks_create("image", driver, NULL) };
    t->blk = disks_open(t->path, driver, BDRV_O_RDWR);
    error_setg(&t->reason, "it is moving");
    t->nodes = wsm_nodes_new_jobs(blk_bs(t->blk), t->reason);
}

/* A qcow2 image with a base */
static void begin_on_base(Test *t)
{
    *t = (Test) {
        .path = disks_path("image"), .base = disks_create("base", "raw", NULL),
    };
    bdrv_img_create(t->path, "qcow2", t->base, "raw", NULL, DISK_SIZE, 0, true,
                    &error_abort);
    t->blk = disks_open(t->path, "qcow2", BDRV_O_RDWR);
    error_setg(&t->reason, "it is moving");
    t->nodes = wsm_nodes_new_jobs(blk_bs(t->blk), t->reason);
}

static void end(Test *t)
{
    wsm_hold_free(t->hold);
    wsm_nodes_free(t->nodes);
    blk_unref(t->blk);
    error_free(t->reason);
    g_unlink(t->path);
    if (t->base) {
        g_unlink(t->base);
    }
    g_free(t->path);
    g_free(t->base);
    warnings_expect_none();
}

static bool others_may(const char *path, uint64_t perm)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    int ret;

    g_assert_cmpint(fd, >=, 0);
    ret = qemu_lock_fd_test(fd, SHARED_BASE + ctz64(perm), 1, true);
    close(fd);
    return ret == 0;
}

static bool is_inactive(Test *t)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return bdrv_is_inactive(blk_bs(t->blk));
}

static void freeze(Test *t)
{
    g_assert_true(disks_inactivate(blk_bs(t->blk)));
    g_assert_true(is_inactive(t));
}

static void wake(Test *t)
{
    disks_activate(blk_bs(t->blk), &error_abort);
    g_assert_false(is_inactive(t));
}

static void check_locked(const char *path, bool locked)
{
    g_assert_cmpint(others_may(path, BLK_PERM_WRITE), ==, !locked);
    g_assert_cmpint(others_may(path, BLK_PERM_RESIZE), ==, !locked);
    g_assert_true(others_may(path, BLK_PERM_CONSISTENT_READ));
}

/*
 * Tests
 */

/* Why there is a hold: QEMU lets others write from the freeze on */
static void test_none(void)
{
    Test t;

    begin(&t, "raw");
    wsm_hold_free(NULL);
    freeze(&t);
    check_locked(t.path, false);
    end(&t);
}

/*
 * While the guest runs all is shared, and again when it runs on; what is locked
 * is so from the freeze on, for good, the next time, too.
 */
static void test_failed(void)
{
    Test t;

    begin(&t, "raw");
    hold(&t);
    check_locked(t.path, false);
    for (int i = 0; i < 3; i++) {
        freeze(&t);
        check_locked(t.path, true);
        wake(&t);
        check_locked(t.path, false);
        disks_write(t.blk, 0);
    }
    end(&t);
}

static void check_refused(Test *t)
{
    Error *err = NULL;

    g_assert_false(disks_activate(blk_bs(t->blk), &err));
    disks_error(err, "the guest was handed over to another host, which still "
                "needs the image of disk 'vda'");
    g_assert_true(is_inactive(t));
    check_locked(t->path, true);
}

/* The guest is elsewhere: nothing here may write, until that is over */
static void test_handed_over(void)
{
    Test t;

    begin(&t, "raw");
    hold(&t);
    freeze(&t);
    t.handed_over = true;
    check_refused(&t);
    check_refused(&t);
    wsm_hold_end(t.hold);
    check_locked(t.path, true);
    wake(&t);
    check_locked(t.path, false);
    end(&t);
}

/* The lock goes although the nodes stay as they are */
static void test_free(void)
{
    Test t;

    begin(&t, "raw");
    hold(&t);
    freeze(&t);
    t.handed_over = true;
    wsm_hold_free(g_steal_pointer(&t.hold));
    g_assert_true(is_inactive(&t));
    check_locked(t.path, false);
    wake(&t);
    end(&t);

    /* When nothing was locked, too */
    begin(&t, "raw");
    hold(&t);
    wsm_hold_free(g_steal_pointer(&t.hold));
    g_assert_false(is_inactive(&t));
    disks_write(t.blk, 0);
    end(&t);
}

/* All that the disk's data is in is locked, and nothing between */
static void test_leaves(void)
{
    Test t;

    begin_on_base(&t);
    hold(&t);
    disks_write(t.blk, 0);
    freeze(&t);
    check_locked(t.path, true);
    check_locked(t.base, true);
    t.handed_over = true;
    check_refused(&t);
    wsm_hold_free(g_steal_pointer(&t.hold));
    check_locked(t.path, false);
    check_locked(t.base, false);
    end(&t);
}

/* The device is on the node with the file: it is asked after the hold */
static void test_direct(void)
{
    Test t;

    begin(&t, "file");
    hold(&t);
    freeze(&t);
    check_locked(t.path, true);
    wake(&t);
    check_locked(t.path, false);
    disks_write(t.blk, 0);
    freeze(&t);
    t.handed_over = true;
    check_refused(&t);
    wsm_hold_free(g_steal_pointer(&t.hold));
    g_assert_true(is_inactive(&t));
    check_locked(t.path, false);
    end(&t);
}

/* One who writes and does not let go: the freeze fails, as without us */
static void test_direct_writer(void)
{
    BlockBackend *writer;
    Test t;

    begin(&t, "file");
    hold(&t);
    writer = blk_new(qemu_get_aio_context(), BLK_PERM_WRITE, BLK_PERM_ALL);
    blk_insert_bs(writer, blk_bs(t.blk), &error_abort);
    g_assert_false(disks_inactivate(blk_bs(t.blk)));
    g_assert_false(is_inactive(&t));
    blk_unref(writer);
    end(&t);
}

/*
 * Somebody writes to the image, as the user allowed: this is no reason not to
 * migrate.
 */
static void test_shared(void)
{
    BlockBackend *other;
    Test t;

    begin(&t, "raw");
    hold(&t);
    other = disks_open(t.path, "raw", BDRV_O_RDWR);
    freeze(&t);
    warnings_expect("disk 'vda': its image is not locked while the "
                    "destination reads from it: ");
    check_locked(t.path, false);
    disks_write(other, 0);

    /* It could be locked now, but this is no freeze */
    blk_unref(other);
    check_locked(t.path, false);
    wake(&t);
    freeze(&t);
    check_locked(t.path, true);
    end(&t);
}

/* A disk can go to another thread */
static void test_follows(void)
{
    IOThread *iothread = iothread_new();
    AioContext *ctx = iothread_get_aio_context(iothread);
    Test t;

    begin(&t, "raw");
    hold(&t);
    blk_set_allow_aio_context_change(t.blk, true);
    g_assert_cmpint(blk_set_aio_context(t.blk, ctx, &error_abort), ==, 0);
    g_assert_true(bdrv_get_aio_context(blk_bs(t.blk)) == ctx);
    freeze(&t);
    check_locked(t.path, true);
    wake(&t);
    blk_set_aio_context(t.blk, qemu_get_aio_context(), &error_abort);
    end(&t);
    iothread_join(iothread);
}

/* What the user reads about who is in the way */
static void test_name(void)
{
    Test t;
    GPtrArray *all;
    unsigned found = 0;

    begin(&t, "qcow2");
    hold(&t);
    all = wsm_nodes_list(blk_bs(t.blk));
    for (unsigned i = 0; i < all->len; i++) {
        BlockDriverState *bs = all->pdata[i];
        BdrvChild *parent;

        GRAPH_RDLOCK_GUARD_MAINLOOP();
        QLIST_FOREACH(parent, &bs->parents, next_parent) {
            g_autofree char *name = parent->klass->get_parent_desc(parent);

            found += !strcmp(name, "the migration of disk 'vda'");
        }
    }
    g_assert_cmpint(found, ==, 1);
    g_ptr_array_unref(all);
    end(&t);
}

/*
 * Any order of what can happen.  A hold is made while the guest runs.
 */
static void random_step(Test *t, bool *frozen, bool *tight, bool *ending)
{
    Error *err = NULL;

    switch (g_test_rand_int_range(0, 8)) {
    case 0 ... 1:
        if (!*frozen) {
            *tight = t->hold && !*ending;
        }
        *frozen = true;
        freeze(t);
        break;
    case 2 ... 3:
        if (*frozen && t->hold && t->handed_over && !*ending) {
            g_assert_false(disks_activate(blk_bs(t->blk), &err));
            error_free_or_abort(&err);
        } else {
            wake(t);
            *frozen = *tight = false;
        }
        break;
    case 4:
        t->handed_over = *frozen && g_test_rand_bit();
        break;
    case 5:
        if (t->hold && g_test_rand_bit()) {
            wsm_hold_end(t->hold);
            *ending = true;
        }
        break;
    default:
        if (t->hold && g_test_rand_bit()) {
            wsm_hold_free(g_steal_pointer(&t->hold));
            *tight = false;
        } else if (!t->hold && !*frozen) {
            t->handed_over = *ending = false;
            hold(t);
        }
    }
    g_assert_cmpint(is_inactive(t), ==, *frozen);
    /* The format locks its file as long as it writes to it */
    check_locked(t->path, *tight || !*frozen);
    check_locked(t->base, *tight);
}

static void test_random(void)
{
    bool frozen = false, tight = false, ending = false;
    Test t;

    begin_on_base(&t);
    for (int i = 0; i < 500; i++) {
        random_step(&t, &frozen, &tight, &ending);
    }
    end(&t);
}

int main(int argc, char **argv)
{
    int ret;

    disks_init(&argc, &argv);
    if (!qemu_has_ofd_lock()) {
        disks_cleanup();
        return 0;
    }
    g_test_add_func("/wsm/hold/none", test_none);
    g_test_add_func("/wsm/hold/failed", test_failed);
    g_test_add_func("/wsm/hold/handed-over", test_handed_over);
    g_test_add_func("/wsm/hold/free", test_free);
    g_test_add_func("/wsm/hold/leaves", test_leaves);
    g_test_add_func("/wsm/hold/direct", test_direct);
    g_test_add_func("/wsm/hold/direct-writer", test_direct_writer);
    g_test_add_func("/wsm/hold/shared", test_shared);
    g_test_add_func("/wsm/hold/follows", test_follows);
    g_test_add_func("/wsm/hold/name", test_name);
    g_test_add_func("/wsm/hold/random", test_random);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
