/*
 * Unit tests of migration/wsm/dest/rejoin.c
 *
 * Images with records and maps as a destination leaves them that is killed, and
 * each way in which they can be wrong.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "migration/wsm/dest/rejoin.h"
#include "migration/wsm/image/map-file.h"
#include "migration/wsm/image/record-file.h"
#include "wsm-disks.h"

#define BLOCK   4096
#define NAMES   3

typedef struct Runs {
    uint8_t data[4];
    size_t size;
} Runs;

static const Runs none, four = { { 0, 4 }, 2 }, three = { { 8, 1, 1, 2 }, 4 };
static const char *const name[NAMES] = { "vda", "vdb", "vdc" };
static char *path[NAMES];
static BlockBackend *blk[NAMES];
static WsmImages images;
static GArray *all;               /* what the result of find() refers to */

static QemuUUID uuid_of(unsigned n)
{
    return (QemuUUID) { .data = { 0xab, [15] = n } };
}

static WsmMapHead head_of(unsigned disk, unsigned disks)
{
    WsmMapHead head = {
        .session = uuid_of(1), .disk = disk, .disks = disks, .channels = 3,
        .protocol = WSM_PROTOCOL_VERSION, .features = 0xe5,
        .granularity = BLOCK,
        .size = DISK_SIZE,
    };

    g_snprintf(head.path, sizeof(head.path), "/dev/source-%u", disk);
    g_snprintf(head.name, sizeof(head.name), "disk-%u", disk);
    return head;
}

/*
 * What the dead QEMU left
 */

static void put_record(unsigned i, WsmImageState state, unsigned session,
                       const char *peer)
{
    QemuUUID id = uuid_of(session);
    g_autoptr(WsmRecord) record = g_new0(WsmRecord, 1);

    record->state = state;
    record->session = qemu_uuid_unparse_strdup(&id);
    record->time = 1700000000;
    record->disk_size = DISK_SIZE;
    record->peer = g_strdup(peer);
    wsm_record_save(path[i], record, &error_abort);
}

typedef struct Write {
    WsmMapLog *log;
    bool commit, make_void;
} Write;

static void coroutine_fn write_co(void *opaque)
{
    Write *write = opaque;

    if (write->commit) {
        g_assert_cmpint(wsm_map_log_commit(write->log), ==, 0);
    }
    if (write->make_void) {
        g_assert_cmpint(wsm_map_log_void(write->log), ==, 0);
    }
    write->log = NULL;
}

static void put_map_as(unsigned i, const WsmMapHead *head, const Runs *runs,
                       bool commit, bool make_void)
{
    BlockBackend *map;
    WsmMapLog *log;
    Write write = { .commit = commit, .make_void = make_void };

    wsm_map_file_create(path[i], &error_abort);
    map = wsm_map_file_open(path[i], &error_abort);
    log = write.log = wsm_map_log_new(map, head);
    wsm_map_log_set_missing(log, runs->data, runs->size, &error_abort);
    qemu_coroutine_enter(qemu_coroutine_create(write_co, &write));
    while (write.log) {
        aio_poll(qemu_get_aio_context(), true);
    }
    wsm_map_log_free(log);
    blk_unref(map);
}

static void put_map(unsigned i, const WsmMapHead *head, const Runs *runs)
{
    put_map_as(i, head, runs, true, false);
}

/* Image @i is disk @disk of @disks */
static void put(unsigned i, unsigned disk, unsigned disks, const Runs *runs)
{
    WsmMapHead head = head_of(disk, disks);

    put_record(i, WSM_IMAGE_STATE_INCOMPLETE, 1, "alpha");
    put_map(i, &head, runs);
}

static void damage(unsigned i, off_t offset)
{
    g_autofree char *map = wsm_map_path(path[i]);
    int fd = open(map, O_WRONLY);

    g_assert_cmpint(pwrite(fd, "?", 1, offset), ==, 1);
    close(fd);
}

/*
 * A new QEMU has them
 */

static void plug(unsigned i, int flags)
{
    blk[i] = disks_open(path[i], "raw", flags);
    if (flags & BDRV_O_RDWR) {
        blk_set_perm(blk[i], BLK_PERM_WRITE, BLK_PERM_ALL, &error_abort);
    }
    disks_plug(name[i], blk[i]);
}

static void set_up(void)
{
    for (unsigned i = 0; i < NAMES; i++) {
        path[i] = disks_create(name[i], "raw", NULL);
    }
    wsm_images_init(&images);
}

static void tear_down(void)
{
    g_clear_pointer(&all, g_array_unref);
    g_ptr_array_unref(images.list);
    for (unsigned i = 0; i < NAMES; i++) {
        if (blk[i]) {
            disks_unplug(name[i]);
            blk_unref(blk[i]);
            blk[i] = NULL;
        }
        wsm_record_remove(path[i], &error_abort);
        wsm_map_file_remove(path[i], &error_abort);
        g_unlink(path[i]);
        g_free(path[i]);
    }
}

static WsmLeft *find(Error **errp)
{
    if (all) {
        g_array_unref(all);
    }
    all = wsm_disk_list();
    return wsm_left_find(&images, all, errp);
}

static void check_refused(const char *text)
{
    Error *err = NULL;

    g_assert_null(find(&err));
    disks_error(err, text);
}

static void plug_two(void)
{
    plug(0, BDRV_O_RDWR);
    plug(1, BDRV_O_RDWR);
}

/*
 * Good
 */

static void test_found(void)
{
    g_autoptr(WsmLeft) left = NULL;
    const WsmLeftDisk *disk;

    set_up();
    put(0, 0, 1, &four);
    plug(0, BDRV_O_RDWR);
    left = find(&error_abort);
    g_assert_cmpuint(left->disks->len, ==, 1);
    disk = g_ptr_array_index(left->disks, 0);
    g_assert_true(disk->ours->blk == blk[0]);
    g_assert_nonnull(disk->blk);
    g_assert_cmpstr(disk->place->file, ==, path[0]);
    g_assert_cmpint(disk->map.missing->bytes, ==, 4 * BLOCK);
    g_assert_cmpstr(left->peer, ==, "alpha");
    g_clear_pointer(&left, wsm_left_free);
    tear_down();
}

static void test_start(void)
{
    g_autoptr(WsmLeft) left = NULL;
    QemuUUID id = uuid_of(1);
    const WsmStart *start;

    set_up();
    put(0, 1, 2, &four);
    put(1, 0, 2, &three);
    plug_two();
    left = find(&error_abort);
    start = &left->start;
    g_assert_true(qemu_uuid_is_equal(&start->session, &id));
    g_assert_cmpuint(start->version, ==, WSM_PROTOCOL_VERSION);
    g_assert_cmpuint(start->oldest, ==, WSM_PROTOCOL_VERSION);
    g_assert_cmphex(start->features, ==, 0xe5);
    /* It has the accelerators no more: no guest comes */
    g_assert_cmphex(wsm_features_in_use(start), ==, 0x25);
    g_assert_cmpuint(start->channels, ==, 3);
    g_assert_cmpuint(start->granularity, ==, BLOCK);
    g_assert_cmpuint(start->ndisks, ==, 2);
    for (unsigned i = 0; i < 2; i++) {
        WsmMapHead head = head_of(i, 2);

        g_assert_cmpstr(start->disk[i].path, ==, head.path);
        g_assert_cmpstr(start->disk[i].name, ==, head.name);
        g_assert_cmpint(start->disk[i].size, ==, DISK_SIZE);
    }
    g_clear_pointer(&left, wsm_left_free);
    tear_down();
}

/* By the numbers in the maps, however the guest's machine has them now */
static void test_order(void)
{
    static const unsigned number[NAMES] = { 2, 0, 1 };
    g_autoptr(WsmLeft) left = NULL;

    set_up();
    for (unsigned i = 0; i < NAMES; i++) {
        put(i, number[i], NAMES, &three);
        plug(i, BDRV_O_RDWR);
    }
    left = find(&error_abort);
    g_assert_cmpuint(left->disks->len, ==, NAMES);
    for (unsigned i = 0; i < NAMES; i++) {
        const WsmLeftDisk *disk = g_ptr_array_index(left->disks, number[i]);

        g_assert_true(disk->ours->blk == blk[i]);
        g_assert_cmpint(disk->map.head.disk, ==, number[i]);
    }
    g_clear_pointer(&left, wsm_left_free);
    tear_down();
}

/* Beside its disks the guest may have others, which are good on their own */
static void test_others(void)
{
    g_autoptr(WsmLeft) left = NULL;

    set_up();
    put(0, 0, 1, &four);
    put_record(2, WSM_IMAGE_STATE_HANDED_OVER, 2, "gamma");
    plug_two();
    plug(2, 0);         /* read-only: whatever it is */
    left = find(&error_abort);
    g_assert_cmpuint(left->disks->len, ==, 1);
    g_clear_pointer(&left, wsm_left_free);
    tear_down();
}

/* One of the disks is whole already */
static void check_one_is_whole(unsigned whole)
{
    g_autoptr(WsmLeft) left = NULL;
    const WsmLeftDisk *disk;

    set_up();
    put(whole, whole, 2, &none);
    put(1 - whole, 1 - whole, 2, &three);
    plug_two();
    left = find(&error_abort);
    g_assert_cmpuint(left->disks->len, ==, 2);
    disk = g_ptr_array_index(left->disks, whole);
    g_assert_cmpint(disk->map.missing->bytes, ==, 0);
    disk = g_ptr_array_index(left->disks, 1 - whole);
    g_assert_cmpint(disk->map.missing->bytes, ==, 3 * BLOCK);
    g_clear_pointer(&left, wsm_left_free);
    tear_down();
}

static void test_one_is_whole(void)
{
    check_one_is_whole(0);
    check_one_is_whole(1);
}

/* The map is ours alone as long as it is in the result, and then free again */
static void test_locked(void)
{
    g_autoptr(WsmLeft) left = NULL;
    BlockBackend *map;
    Error *err = NULL;

    set_up();
    put(0, 0, 1, &four);
    plug(0, BDRV_O_RDWR);
    left = find(&error_abort);
    g_assert_null(wsm_map_file_open(path[0], &err));
    disks_error(err, "lock");
    g_clear_pointer(&left, wsm_left_free);
    map = wsm_map_file_open(path[0], &error_abort);
    check_refused("lock");
    blk_unref(map);
    left = find(&error_abort);
    g_clear_pointer(&left, wsm_left_free);
    tear_down();
}

/*
 * Refused
 */

static void test_nothing(void)
{
    set_up();
    check_refused("there is nothing to rejoin");        /* no disk at all */
    plug_two();
    check_refused("no migration to this guest's images broke off");
    tear_down();
}

static void test_not_all(void)
{
    set_up();
    put(0, 0, 3, &four);
    put(2, 2, 3, &four);
    plug(0, BDRV_O_RDWR);
    plug(2, BDRV_O_RDWR);
    check_refused("had 3 disks, and 2 of their images are here");
    tear_down();
}

/* What is there of it is whole, and the rest is not there */
static void test_nothing_missing(void)
{
    set_up();
    put(0, 0, 2, &none);
    plug(0, BDRV_O_RDWR);
    check_refused("nothing is missing");
    tear_down();
}

static void test_copy(void)
{
    set_up();
    put(0, 0, 2, &four);
    put(1, 0, 2, &four);
    plug_two();
    check_refused("both have the map of disk 'disk-0': one image is a copy");
    tear_down();
}

static void test_copy_of_last(void)
{
    set_up();
    put(0, 0, 2, &four);
    put(1, 1, 2, &four);
    put(2, 1, 2, &four);
    plug_two();
    plug(2, BDRV_O_RDWR);
    check_refused("both have the map of disk 'disk-1'");
    tear_down();
}

/* Each of what all of them must have alike */
static void test_other_session(void)
{
    for (unsigned what = 0; what < 6; what++) {
        WsmMapHead head = head_of(1, 2);
        unsigned session = 1;

        switch (what) {
        case 0:
            head.session = uuid_of(session = 2);
            break;
        case 1:
            head.disks = 3;
            break;
        case 2:
            head.channels = 4;
            break;
        case 3:
            head.granularity = 2 * BLOCK;
            break;
        case 4:
            head.protocol = WSM_PROTOCOL_VERSION - 1;
            break;
        case 5:
            head.features = 4;
            break;
        }
        set_up();
        put(0, 0, 2, &four);
        put_record(1, WSM_IMAGE_STATE_INCOMPLETE, session, "alpha");
        put_map(1, &head, &four);
        plug_two();
        check_refused("disk 'vda' came with migration "
                      "ab000000-0000-0000-0000-000000000001, and disk 'vdb' "
                      "with ab000000-0000-0000-0000-0");
        tear_down();
    }
}

static void test_version(void)
{
    WsmMapHead head = head_of(0, 1);

    head.protocol = WSM_PROTOCOL_VERSION + 1;
    set_up();
    put_record(0, WSM_IMAGE_STATE_INCOMPLETE, 1, "alpha");
    put_map(0, &head, &four);
    plug(0, BDRV_O_RDWR);
    check_refused("version");
    tear_down();
}

/* Of two disks the second has @state; it is told with its name */
static void check_second(WsmImageState state, const char *peer,
                         const char *text)
{
    set_up();
    put(0, 0, 1, &four);
    put_record(1, state, 2, peer);
    plug_two();
    check_refused("disk 'vdb': ");
    check_refused(text);
    tear_down();
}

static void test_stale(void)
{
    check_second(WSM_IMAGE_STATE_HANDED_OVER, "gamma",
                 "a copy that was left behind ('handed-over')");
    check_second(WSM_IMAGE_STATE_LEAVING, "gamma",
                 "a copy that was left behind ('leaving')");
}

static void test_no_map(void)
{
    check_second(WSM_IMAGE_STATE_INCOMPLETE, "gamma",
                 "the guest's disk is at gamma");
    check_second(WSM_IMAGE_STATE_INCOMPLETE, NULL,
                 "the guest's disk is at the source");
}

static void test_uncommitted(void)
{
    WsmMapHead head = head_of(0, 1);

    set_up();
    put_record(0, WSM_IMAGE_STATE_INCOMPLETE, 1, "alpha");
    put_map_as(0, &head, &four, false, false);
    plug(0, BDRV_O_RDWR);
    check_refused("disk 'vda': the migration to this image ended before the "
                  "guest was here");
    tear_down();
}

static void test_void(void)
{
    WsmMapHead head = head_of(0, 1);

    set_up();
    put_record(0, WSM_IMAGE_STATE_INCOMPLETE, 1, "alpha");
    put_map_as(0, &head, &four, true, true);
    plug(0, BDRV_O_RDWR);
    check_refused("disk 'vda': what of it is still there is not known");
    check_refused("its disk is at alpha as it was at the handover");
    tear_down();
}

static void test_damaged(void)
{
    set_up();
    put(0, 0, 1, &four);
    /* The head of generation 1, without which none is left */
    damage(0, WSM_MAP_PAGE + 100);
    damage(0, 100);
    plug(0, BDRV_O_RDWR);
    check_refused("disk 'vda': what of it is still there is not known");
    tear_down();
}

/* It was good when the image was looked at, long ago */
static void test_damaged_since(void)
{
    g_autoptr(WsmLeft) left = NULL;

    set_up();
    put(0, 0, 1, &four);
    plug(0, BDRV_O_RDWR);
    left = find(&error_abort);
    g_clear_pointer(&left, wsm_left_free);
    damage(0, WSM_MAP_PAGE + 100);
    damage(0, 100);
    check_refused("disk 'vda': ");
    check_refused("damaged");
    wsm_map_file_remove(path[0], &error_abort);
    check_refused("disk 'vda': ");
    check_refused("No such file");
    tear_down();
}

/* A map of another migration, which has nothing to say of this image */
static void test_foreign_map(void)
{
    set_up();
    put(0, 0, 1, &four);
    put_record(0, WSM_IMAGE_STATE_INCOMPLETE, 2, "alpha");
    plug(0, BDRV_O_RDWR);
    check_refused("disk 'vda': the migration to this image ended before");
    tear_down();
}

static void test_resized(void)
{
    set_up();
    put(0, 0, 1, &four);
    g_assert_cmpint(truncate(path[0], DISK_SIZE + BLOCK), ==, 0);
    plug(0, BDRV_O_RDWR);
    check_refused("disk 'vda': it is of a disk of 1048576 bytes, and the image "
                  "has 1052672");
    tear_down();
}

int main(int argc, char **argv)
{
    int ret;

    disks_init(&argc, &argv);
    g_test_add_func("/wsm/rejoin/found", test_found);
    g_test_add_func("/wsm/rejoin/start", test_start);
    g_test_add_func("/wsm/rejoin/order", test_order);
    g_test_add_func("/wsm/rejoin/others", test_others);
    g_test_add_func("/wsm/rejoin/one-is-whole", test_one_is_whole);
    g_test_add_func("/wsm/rejoin/locked", test_locked);
    g_test_add_func("/wsm/rejoin/nothing", test_nothing);
    g_test_add_func("/wsm/rejoin/not-all", test_not_all);
    g_test_add_func("/wsm/rejoin/nothing-missing", test_nothing_missing);
    g_test_add_func("/wsm/rejoin/copy", test_copy);
    g_test_add_func("/wsm/rejoin/copy-of-last", test_copy_of_last);
    g_test_add_func("/wsm/rejoin/other-session", test_other_session);
    g_test_add_func("/wsm/rejoin/version", test_version);
    g_test_add_func("/wsm/rejoin/stale", test_stale);
    g_test_add_func("/wsm/rejoin/no-map", test_no_map);
    g_test_add_func("/wsm/rejoin/uncommitted", test_uncommitted);
    g_test_add_func("/wsm/rejoin/void", test_void);
    g_test_add_func("/wsm/rejoin/damaged", test_damaged);
    g_test_add_func("/wsm/rejoin/damaged-since", test_damaged_since);
    g_test_add_func("/wsm/rejoin/foreign-map", test_foreign_map);
    g_test_add_func("/wsm/rejoin/resized", test_resized);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
