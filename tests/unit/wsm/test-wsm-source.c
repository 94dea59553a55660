/*
 * Unit tests of migration/wsm/source/source.c
 *
 * A source is started and stopped; what it takes hold of it must let go,
 * however far it came.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "block/graph-lock.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/image/record-file.h"
#include "migration/wsm/source/ops.h"
#include "wsm-origin.h"

#define BLOCK           ORIGIN_BLOCK
#define SIZE            (16 * BLOCK)

static Origin o;
static OriginDisk vda, vdb;

static void set_up(void)
{
    origin_add_disk(&vda, "vda", SIZE);
    origin_add_disk(&vdb, "vdb", SIZE - BDRV_SECTOR_SIZE);
    origin_init(&o);
}

static void tear_down(void)
{
    origin_destroy(&o);
    origin_remove_disk(&vda);
    origin_remove_disk(&vdb);
}

/* The user wants disk @name alone */
static void select_disk(const char *name)
{
    strList *disks = NULL;

    QAPI_LIST_PREPEND(disks, g_strdup(name));
    origin_set(&o, disks, disks);
}

static bool is_blocked(BlockDriverState *bs, BlockOpType op, const char *text)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    Error *err = NULL;

    if (!bdrv_op_is_blocked(bs, op, &err)) {
        return false;
    }
    disks_error(err, text);
    return true;
}

/* May a job or a snapshot begin, or somebody resize it? */
static void check_free(BlockDriverState *bs)
{
    BlockBackend *blk = blk_new(qemu_get_aio_context(), BLK_PERM_RESIZE,
                                BLK_PERM_ALL);

    g_assert_cmpint(blk_insert_bs(blk, bs, &error_abort), ==, 0);
    blk_unref(blk);
    for (int op = 0; op < BLOCK_OP_TYPE_MAX; op++) {
        g_assert_false(is_blocked(bs, op, ""));
    }
    g_assert_null(bdrv_dirty_bitmap_first(bs));
}

/*
 * Before all begins
 */

static void expect_refused(const char *text)
{
    Error *err = NULL;

    g_assert_false(wsm_source_check(&o.options, &o.images, &err));
    disks_error(err, text);
}

static void test_check(void)
{
    BlockBackend *writer;

    set_up();
    g_assert_true(wsm_source_check(&o.options, &o.images, &error_abort));
    select_disk("vdc");
    expect_refused("no disk 'vdc'");
    select_disk("vdb");
    g_assert_true(wsm_source_check(&o.options, &o.images, &error_abort));
    writer = blk_new(qemu_get_aio_context(), BLK_PERM_WRITE, BLK_PERM_ALL);
    blk_insert_bs(writer, vda.bs, &error_abort);
    expect_refused("may write to node 'vda'");
    blk_unref(writer);
    g_assert_true(wsm_source_check(&o.options, &o.images, &error_abort));
    tear_down();
}

/* As many as START has room for, and no more */
static void test_many(void)
{
    g_autofree OriginDisk *disks = g_new(OriginDisk, WSM_MAX_DISKS - 1);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);

    set_up();
    disks_unplug("vdb");
    for (unsigned i = 0; i < WSM_MAX_DISKS - 1; i++) {
        g_ptr_array_add(names, g_strdup_printf("more%u", i));
        origin_add_disk(&disks[i], g_ptr_array_index(names, i), SIZE);
    }
    g_assert_true(wsm_source_check(&o.options, &o.images, &error_abort));
    disks_plug("vdb", vdb.blk);
    expect_refused("the guest has 257 disks, at most 256 can be migrated");
    origin_destroy(&o);
    for (unsigned i = 0; i < WSM_MAX_DISKS - 1; i++) {
        origin_remove_disk(&disks[i]);
    }
    origin_init(&o);
    tear_down();
}

/* A copy that is not current is not moved on */
static void test_stale(void)
{
    g_autofree char *path = disks_create("stale", "raw", NULL);
    BlockBackend *blk = disks_open(path, "raw", BDRV_O_RDWR);
    WsmRecord record = {
        .state = WSM_IMAGE_STATE_HANDED_OVER, .session = (char *)"",
        .peer = (char *)"gamma", .disk_size = DISK_SIZE,
    };

    set_up();
    g_assert_true(wsm_record_save(path, &record, &error_abort));
    disks_plug("stale", blk);
    expect_refused("gamma");
    disks_unplug("stale");
    wsm_record_remove(path, &error_abort);
    blk_unref(blk);
    tear_down();
}

/*
 * To start
 */

/* What the destination is told */
static void test_start(void)
{
    g_autofree char *path = disks_create("image", "raw", NULL);
    BlockBackend *blk = disks_open(path, "raw", BDRV_O_RDWR);
    QemuUUID first;
    WsmStart *s;

    set_up();
    disks_plug("file", blk);
    origin_set(&o, granularity, 64 * KiB);
    origin_new(&o, 3);
    g_assert_cmpstr(WsmPhase_str(wsm_session_phase(&o.session)), ==, "setup");
    g_assert_true(wsm_source_start(o.s, &error_abort));
    s = &o.s->start;
    g_assert_cmpint(s->version, ==, WSM_PROTOCOL_VERSION);
    g_assert_cmpint(s->oldest, ==, WSM_PROTOCOL_OLDEST);
    g_assert_cmpint(s->features, ==, WSM_FEATURE_LACK);
    g_assert_cmpint(s->required, ==, 0);
    g_assert_cmpint(s->channels, ==, 4);
    g_assert_cmpint(o.s->nchannels, ==, 4);
    g_assert_cmpint(s->granularity, ==, 64 * KiB);
    g_assert_cmpint(s->ndisks, ==, 3);
    g_assert_cmpstr(s->disk[0].name, ==, "vda");
    g_assert_cmpstr(s->disk[0].path, ==, "/dev/vda");
    g_assert_cmpint(s->disk[0].size, ==, SIZE);
    g_assert_cmpint(s->disk[1].size, ==, SIZE - BDRV_SECTOR_SIZE);
    g_assert_cmpint(s->disk[2].size, ==, DISK_SIZE);
    g_assert_nonnull(strstr(s->disk[2].file, "image"));
    g_assert_cmpint(s->disk[2].marks->len, >, 0);
    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmpint(o.s->disk_size[i], ==, s->disk[i].size);
        g_assert_cmpint(o.s->disk[i].index, ==, i);
        /* All of it is dirty */
        g_assert_cmpint(wsm_work_dirty(o.s->work, i), ==,
                        ROUND_UP(s->disk[i].size, 64 * KiB));
    }
    g_assert_cmpmem(&s->session, sizeof(QemuUUID), &o.session.id,
                    sizeof(QemuUUID));
    first = s->session;
    origin_stop(&o);

    /* The next one is another one */
    origin_start(&o, 1);
    g_assert_false(qemu_uuid_is_equal(&first, &o.s->start.session));
    g_assert_cmpint(o.s->nchannels, ==, 2);
    origin_stop(&o);
    disks_unplug("file");
    blk_unref(blk);
    tear_down();
}

/* From the start on no write goes unseen */
static void test_track(void)
{
    set_up();
    origin_start(&o, 1);
    wsm_work_start_anew(o.s->work, 0);
    wsm_work_start_anew(o.s->work, 1);
    origin_write(&vda, 3, 1, 0x33);
    origin_write(&vdb, 15, 1, 0x33);
    for (unsigned b = 0; b < 16; b++) {
        g_assert_true(origin_is_dirty(&o, 0, b) == (b == 3));
        g_assert_true(origin_is_dirty(&o, 1, b) == (b == 15));
    }
    tear_down();
}

/* Only a destination that sees the same folder sees this */
static void test_notes(void)
{
    g_autofree char *path = disks_create("image", "raw", NULL);
    BlockBackend *blk = disks_open(path, "raw", BDRV_O_RDWR);
    g_autofree char *session = NULL, *name = NULL, *note = NULL;

    origin_init(&o);
    disks_plug("file", blk);
    origin_start(&o, 1);
    session = qemu_uuid_unparse_strdup(&o.s->start.session);
    name = g_strdup_printf(".image.wsm-%s", session);
    note = disks_path(name);
    g_assert_true(g_file_test(note, G_FILE_TEST_IS_REGULAR));
    wsm_source_stop(o.s);
    g_assert_false(g_file_test(note, G_FILE_TEST_EXISTS));
    origin_destroy(&o);
    disks_unplug("file");
    blk_unref(blk);
}

/* Nobody touches a disk that moves, and no job runs on one that stays */
static void test_blocked(void)
{
    const char *why = "the disk is being migrated";
    const char *why_other = "the guest is being migrated, and a block job";
    BlockBackend *blk;
    Error *err = NULL;

    set_up();
    check_free(vda.bs);
    select_disk("vda");
    origin_start(&o, 1);
    g_assert_cmpint(o.s->ndisks, ==, 1);
    for (int op = 0; op < BLOCK_OP_TYPE_MAX; op++) {
        g_assert_true(is_blocked(vda.bs, op, why));
    }
    g_assert_true(is_blocked(vdb.bs, BLOCK_OP_TYPE_MIRROR_SOURCE, why_other));
    g_assert_true(is_blocked(vdb.bs, BLOCK_OP_TYPE_BACKUP_TARGET, why_other));
    g_assert_true(is_blocked(vdb.bs, BLOCK_OP_TYPE_STREAM, why_other));
    g_assert_false(is_blocked(vdb.bs, BLOCK_OP_TYPE_RESIZE, why_other));
    g_assert_false(is_blocked(vdb.bs, BLOCK_OP_TYPE_EXTERNAL_SNAPSHOT,
                              why_other));
    blk = blk_new(qemu_get_aio_context(), BLK_PERM_RESIZE, BLK_PERM_ALL);
    g_assert_cmpint(blk_insert_bs(blk, vda.bs, &err), <, 0);
    error_free_or_abort(&err);
    blk_unref(blk);
    origin_write(&vda, 1, 1, 0x11);
    origin_stop(&o);
    check_free(vda.bs);
    check_free(vdb.bs);
    tear_down();
}

/*
 * What goes wrong in between is told by name, and what was taken let go
 */

static void expect_not_started(const char *text)
{
    Error *err = NULL;

    origin_new(&o, 1);
    g_assert_false(wsm_source_start(o.s, &err));
    disks_error(err, text);
    wsm_source_stop(o.s);
    check_free(vda.bs);
    origin_stop(&o);
}

static void test_not_started(void)
{
    g_autofree char *name = g_strnfill(WSM_MAX_PATH + 1, 'x');
    BlockBackend *blk;

    set_up();
    select_disk("vdc");
    expect_not_started("no disk 'vdc'");
    origin_set(&o, disks, NULL);

    vda.size_error = -EIO;
    expect_not_started("disk 'vda': cannot get its size: Input/output error");
    vda.size_error = 0;

    /* The first is there already when the second fails */
    blk = blk_new(qemu_get_aio_context(), BLK_PERM_RESIZE, BLK_PERM_ALL);
    blk_insert_bs(blk, vdb.bs, &error_abort);
    expect_not_started("disk 'vdb': ");
    blk_unref(blk);

    disks_unplug("vdb");
    disks_plug(name, vdb.blk);
    expect_not_started("its path or name has more than 512 bytes");
    disks_unplug(name);
    name[WSM_MAX_PATH] = '\0';
    disks_plug(name, vdb.blk);
    expect_not_started("its path or name has more than 512 bytes");
    disks_unplug(name);
    name[WSM_MAX_PATH - strlen("/dev/")] = '\0';
    disks_plug(name, vdb.blk);
    origin_start(&o, 1);
    g_assert_cmpint(strlen(o.s->start.disk[1].path), ==, WSM_MAX_PATH);
    origin_stop(&o);
    disks_unplug(name);
    disks_plug("vdb", vdb.blk);

    /* And when all is well again it starts */
    origin_start(&o, 1);
    g_assert_cmpint(o.s->ndisks, ==, 2);
    tear_down();
}

/*
 * To stop
 */

static void test_stop(void)
{
    set_up();
    origin_start(&o, 2);
    wsm_source_open_channels(o.s);
    target_await_attempt();
    g_assert_false(o.s->stopped);
    wsm_source_stop(o.s);
    g_assert_true(o.s->stopped && o.s->released);
    check_free(vda.bs);
    check_free(vdb.bs);
    /* Nothing begins any more */
    g_assert_true(wsm_loop_is_over(&o.s->loop));
    /* Once is enough, twice is allowed */
    wsm_source_stop(o.s);
    tear_down();
}

/* It waits until ABORT is said, or cannot be */
static void coroutine_fn abort_co(void *opaque)
{
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 20 * SCALE_MS);
    /* Channels are there until it is said */
    g_assert_false(wsm_loop_is_over(&o.s->loop));
    qatomic_set(&o.s->aborting, false);
}

static void test_stop_aborting(void)
{
    set_up();
    origin_start(&o, 1);
    qatomic_set(&o.s->aborting, true);
    g_assert_true(wsm_loop_start(&o.s->loop, abort_co, NULL));
    wsm_source_stop(o.s);
    g_assert_false(o.s->aborting);
    tear_down();
}

/*
 * What query-wsm tells
 */

static void test_info(void)
{
    g_autoptr(WsmInfo) info = NULL;
    WsmChannelInfoList *c;
    unsigned channel, n = 0;
    int fd[3];

    set_up();
    select_disk("vdb");
    origin_start(&o, 2);
    wsm_source_open_channels(o.s);
    target_welcome_all(fd, 3);
    origin_await(&o, WSM_WELCOME);
    close(fd[2]);
    fd[2] = target_welcome(&channel);
    target_await(&o.s->channel[2].connection, 2);
    close(fd[1]);
    target_poll_until(!qatomic_read(&o.s->channel[1].up));

    info = g_new0(WsmInfo, 1);
    wsm_source_info(o.s, info);
    g_assert_cmpstr(info->disks->value->name, ==, "vdb");
    g_assert_cmpint(info->disks->value->dirty, ==, SIZE);
    g_assert_cmpint(info->disks->value->missing, ==, 0);
    g_assert_null(info->disks->next);
    g_assert_cmpstr(info->excluded->value->name, ==, "vda");
    g_assert_cmpstr(info->excluded->value->reason, ==, "not selected");
    g_assert_null(info->excluded->next);
    for (c = info->channels; c; c = c->next, n++) {
        g_assert_cmpint(c->value->id, ==, n);
        g_assert_true(c->value->connected == (n != 1));
        g_assert_cmpint(c->value->reconnects, ==, n == 2);
    }
    g_assert_cmpint(n, ==, 3);

    /* After the handover what is dirty is missing */
    for (WsmPhase p = WSM_PHASE_DISK_PRECOPY; p <= WSM_PHASE_POSTCOPY; p++) {
        wsm_session_enter(&o.session, p);
    }
    qapi_free_WsmInfo(info);
    info = g_new0(WsmInfo, 1);
    wsm_source_info(o.s, info);
    g_assert_cmpint(info->disks->value->missing, ==, SIZE);
    close(fd[0]);
    close(fd[2]);
    tear_down();
}

int main(int argc, char **argv)
{
    int ret;

    origin_init_tests(&argc, &argv);
    g_test_add_func("/wsm/source/check", test_check);
    g_test_add_func("/wsm/source/many", test_many);
    g_test_add_func("/wsm/source/stale", test_stale);
    g_test_add_func("/wsm/source/start", test_start);
    g_test_add_func("/wsm/source/track", test_track);
    g_test_add_func("/wsm/source/notes", test_notes);
    g_test_add_func("/wsm/source/blocked", test_blocked);
    g_test_add_func("/wsm/source/not-started", test_not_started);
    g_test_add_func("/wsm/source/stop", test_stop);
    g_test_add_func("/wsm/source/stop-aborting", test_stop_aborting);
    g_test_add_func("/wsm/source/info", test_info);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
