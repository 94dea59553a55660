/*
 * Unit tests of migration/wsm/image/busy.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-block-export.h"
#include "qemu/main-loop.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "block/blockjob_int.h"
#include "migration/wsm/image/busy.h"
#include "wsm-disks.h"

#define NODES   4               /* n0 and n1 move, n1 is a filter above n3 */
#define MOVING  2

static BlockDriverState *node[NODES];
static WsmDisk disk[MOVING];
static GPtrArray *moving;

/* The export that there is, or NULL; QEMU's own are in the block server */
static const char *export_id, *export_node;

BlockExportInfoList *qmp_query_block_exports(Error **errp)
{
    BlockExportInfoList *list = NULL;
    BlockExportInfo *info;

    if (export_id) {
        info = g_new0(BlockExportInfo, 1);
        info->id = g_strdup(export_id);
        info->node_name = g_strdup(export_node);
        QAPI_LIST_PREPEND(list, info);
        info = g_new0(BlockExportInfo, 1);
        info->id = g_strdup("another");
        info->node_name = g_strdup("n");
        QAPI_LIST_PREPEND(list, info);
    }
    return list;
}

static BlockDriverState *open_node(const char *json)
{
    QDict *options = qobject_to(QDict, qobject_from_json(json, &error_abort));

    return bdrv_open(NULL, NULL, options, BDRV_O_RDWR, &error_abort);
}

/* As a guest's device has it: it lets its node be made inactive */
static BlockBackend *user_of(BlockDriverState *bs, uint64_t perm, bool device)
{
    BlockBackend *blk = blk_new(qemu_get_aio_context(), perm, BLK_PERM_ALL);

    blk_insert_bs(blk, bs, &error_abort);
    if (device) {
        blk_set_force_allow_inactivate(blk);
    }
    return blk;
}

#define NULL_JSON(name) \
    "{'driver': 'null-co', 'size': 1048576, 'node-name': '" name "'}"

static void set_up(void)
{
    node[0] = open_node(NULL_JSON("n0"));
    node[2] = open_node(NULL_JSON("n2"));
    node[3] = open_node(NULL_JSON("n3"));
    node[1] = open_node("{'driver': 'raw', 'node-name': 'n1', 'file': 'n3'}");
    moving = g_ptr_array_new();
    for (unsigned i = 0; i < MOVING; i++) {
        disk[i].blk = user_of(node[i], BLK_PERM_CONSISTENT_READ |
                              BLK_PERM_WRITE, true);
        g_ptr_array_add(moving, &disk[i]);
    }
    export_id = export_node = NULL;
    g_assert_true(wsm_busy_check(moving, &error_abort));
}

static void tear_down(void)
{
    g_assert_true(wsm_busy_check(moving, &error_abort));
    g_ptr_array_unref(moving);
    for (unsigned i = 0; i < MOVING; i++) {
        blk_unref(disk[i].blk);
    }
    bdrv_unref(node[1]);
    bdrv_unref(node[0]);
    bdrv_unref(node[2]);
    bdrv_unref(node[3]);
}

static void check_busy(const char *text)
{
    Error *err = NULL;

    g_assert_false(wsm_busy_check(moving, &err));
    disks_error(err, text);
}

/*
 * Block jobs
 */

static int coroutine_fn job_run(Job *job, Error **errp)
{
    return 0;
}

#define JOB_DRIVER(type) {                              \
        .job_driver = {                                 \
            .instance_size = sizeof(BlockJob),          \
            .job_type      = JOB_TYPE_ ## type,         \
            .free          = block_job_free,            \
            .user_resume   = block_job_user_resume,     \
            .run           = job_run,                   \
        },                                              \
    }

static const BlockJobDriver drivers[] = {
    JOB_DRIVER(BACKUP), JOB_DRIVER(COMMIT), JOB_DRIVER(MIRROR),
    JOB_DRIVER(STREAM),
};
#define MIRROR 2

static BlockJob *job_new(const char *id, const BlockJobDriver *driver,
                         BlockDriverState *bs)
{
    return block_job_create(id, driver, NULL, bs, 0, BLK_PERM_ALL, 0,
                            JOB_MANUAL_DISMISS, NULL, NULL, &error_abort);
}

static bool is_concluded(BlockJob *job)
{
    JOB_LOCK_GUARD();
    return job->job.status == JOB_STATUS_CONCLUDED;
}

/* It has ended, and the user has not yet looked at it */
static void conclude(BlockJob *job)
{
    job_start(&job->job);
    while (!is_concluded(job)) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

static void dismiss(BlockJob *job)
{
    Job *j = &job->job;

    JOB_LOCK_GUARD();
    job_dismiss_locked(&j, &error_abort);
}

static void test_job(void)
{
    BlockJob *job;

    set_up();
    for (unsigned i = 0; i < ARRAY_SIZE(drivers); i++) {
        g_autofree char *text =
            g_strdup_printf("block job 'job' (%s) uses node 'n0' and would "
                            "make the handover fail; wait until it has ended",
                            JobType_str(drivers[i].job_driver.job_type));

        job = job_new("job", &drivers[i], node[0]);
        check_busy(text);
        job_early_fail(&job->job);

        job = job_new("job", &drivers[i], node[0]);
        conclude(job);
        g_assert_true(wsm_busy_check(moving, &error_abort));
        dismiss(job);
    }
    tear_down();
}

/* A mirror of another disk is the user's business, any other job is not */
static void test_other_disk(void)
{
    BlockJob *job, *second;

    set_up();
    for (unsigned i = 0; i < ARRAY_SIZE(drivers); i++) {
        job = job_new("job", &drivers[i], node[2]);
        if (i == MIRROR) {
            g_assert_true(wsm_busy_check(moving, &error_abort));
            /* Behind it may be one that is not */
            second = job_new("second", &drivers[0], node[2]);
            check_busy("block job 'second' (backup) uses node 'n2' and");
            job_early_fail(&second->job);
        } else {
            check_busy("uses node 'n2' and");
        }
        job_early_fail(&job->job);
    }

    /* It mirrors to a disk that moves, or from below one */
    job = job_new("job", &drivers[MIRROR], node[2]);
    bdrv_graph_wrlock();
    block_job_add_bdrv(job, "target", node[0], 0, BLK_PERM_ALL, &error_abort);
    bdrv_graph_wrunlock();
    check_busy("block job 'job' (mirror) uses node 'n0', 'n2' and");
    job_early_fail(&job->job);
    job = job_new("job", &drivers[MIRROR], node[3]);
    check_busy("block job 'job' (mirror) uses node 'n3' and");
    job_early_fail(&job->job);
    tear_down();
}

/*
 * Others who write
 */

static void test_writer(void)
{
    BlockBackend *blk;

    set_up();
    blk = user_of(node[2], BLK_PERM_CONSISTENT_READ, false);
    g_assert_true(wsm_busy_check(moving, &error_abort));
    blk_set_perm(blk, BLK_PERM_WRITE, BLK_PERM_ALL, &error_abort);
    check_busy("something that is no device of the guest may write to node "
               "'n2' and would make the handover fail");

    export_id = "exp";
    export_node = "n0";
    check_busy("something that is no device");
    export_node = "n2";
    check_busy("export 'exp' may write to node 'n2' and would make the "
               "handover fail; remove it, or make it with 'allow-inactive'");

    /* As 'allow-inactive' does */
    blk_set_force_allow_inactivate(blk);
    g_assert_true(wsm_busy_check(moving, &error_abort));
    blk_unref(blk);
    tear_down();
}

/* A drive of the old kind, and an empty one */
static void test_named(void)
{
    BlockBackend *blk, *empty;

    set_up();
    blk = user_of(node[2], BLK_PERM_WRITE, false);
    check_busy("no device of the guest");
    monitor_add_blk(blk, "drive0", &error_abort);
    empty = blk_new(qemu_get_aio_context(), BLK_PERM_WRITE, BLK_PERM_ALL);
    g_assert_true(wsm_busy_check(moving, &error_abort));
    blk_unref(empty);
    monitor_remove_blk(blk);
    blk_unref(blk);
    tear_down();
}

/* It writes to its target although nobody writes to it */
static void test_copy_before_write(void)
{
    BlockDriverState *target, *bs;

    set_up();
    target = open_node(NULL_JSON("target"));
    bs = open_node("{'driver': 'copy-before-write', 'node-name': 'cbw',"
                   " 'file': 'n2', 'target': 'target'}");
    check_busy("node 'cbw' (copy-before-write) may write to node 'target' and "
               "would make the handover fail; remove it");
    bdrv_unref(bs);
    bdrv_unref(target);
    tear_down();
}

/* What is found is what makes the freeze fail, and the other way round */
static void random_round(void)
{
    BlockBackend *blk[3];
    Error *err = NULL;
    bool ok = true;

    for (unsigned i = 0; i < ARRAY_SIZE(blk); i++) {
        static const uint64_t perms[] = {
            0, BLK_PERM_CONSISTENT_READ, BLK_PERM_WRITE,
            BLK_PERM_WRITE | BLK_PERM_RESIZE,
        };

        blk[i] = user_of(node[g_test_rand_int_range(0, NODES)],
                         perms[g_test_rand_int_range(0, 4)],
                         g_test_rand_int_range(0, 4));
    }
    ok = wsm_busy_check(moving, &err);
    g_assert_cmpint(ok, ==, !err);
    error_free(err);
    g_assert_cmpint(bdrv_inactivate_all(), ==, ok ? 0 : -EPERM);
    bdrv_activate_all(&error_abort);
    for (unsigned i = 0; i < ARRAY_SIZE(blk); i++) {
        blk_unref(blk[i]);
    }
}

static void test_random(void)
{
    set_up();
    for (unsigned i = 0; i < 300; i++) {
        random_round();
    }
    tear_down();
}

int main(int argc, char **argv)
{
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/busy/job", test_job);
    g_test_add_func("/wsm/busy/other-disk", test_other_disk);
    g_test_add_func("/wsm/busy/writer", test_writer);
    g_test_add_func("/wsm/busy/named", test_named);
    g_test_add_func("/wsm/busy/copy-before-write", test_copy_before_write);
    g_test_add_func("/wsm/busy/random", test_random);
    return g_test_run();
}
