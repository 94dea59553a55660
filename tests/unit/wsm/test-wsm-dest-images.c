/*
 * Unit tests of migration/wsm/dest/images.c
 *
 * The image is a real file below a driver whose flushes fail when the test
 * says so; what counts is what the record beside it says in the end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qapi/error.h"
#include "qapi/qapi-visit-wsm.h"
#include "migration/wsm/dest/images.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/image/record-file.h"
#include "wsm-disks.h"
#include "wsm-flaky.h"
#include "wsm-powers.h"
#include "wsm-warnings.h"

#define KIB 1024

/*
 * The destination: one disk
 */

static char *path;
static BlockBackend *blk;
static WsmImages images;
static WsmOptionsStore options;
static WsmDestLife life;
static WsmDiskDesc desc;
static WsmStart start;
static WsmDestDisks disks;
static WsmDestDisk disk;

static QemuUUID uuid_of(unsigned n)
{
    return (QemuUUID) { .data = { 0xab, [15] = n } };
}

static void open_image(void)
{
    blk = disks_open(path, "test-flaky", BDRV_O_RDWR);
    disks_plug("vda", blk);
    wsm_images_init(&images);
}

static void close_image(void)
{
    wsm_images_close(&images);
    g_ptr_array_unref(images.list);
    disks_unplug("vda");
    blk_unref(blk);
}

static WsmImage *image(void)
{
    g_autoptr(GArray) all = wsm_disk_list();

    return wsm_image_get(&images, &g_array_index(all, WsmDisk, 0));
}

static void set_max_points(uint64_t max)
{
    WsmOptions new = { .has_sync_points = true, .sync_points = max };

    wsm_options_set(&options, &new);
}

/* START has come: the image is looked at and taken */
static void begin(void)
{
    g_autoptr(GArray) all = wsm_disk_list();
    const WsmDisk *ours = &g_array_index(all, WsmDisk, 0);

    desc = (WsmDiskDesc) { .name = (char *)"vda", .size = DISK_SIZE };
    start = (WsmStart) {
        .session = uuid_of(7), .granularity = 4 * KIB, .ndisks = 1,
        .disk = &desc,
    };
    disks = (WsmDestDisks) {
        .options = &options, .images = &images, .start = &start,
        .peer = (char *)"alpha", .life = &life, .n = 1, .disk = &disk,
    };
    disk = (WsmDestDisk) { .all = &disks, .name = (char *)"vda" };
    wsm_life_init(&life);
    wsm_dest_image_look(&disk, ours);
    g_assert_true(wsm_dest_image_take(&disk, blk_bs(blk), &error_abort));
    wsm_dest_images_mark_incomplete(&disks);
}

/* It comes as far as that */
static void live(WsmLife state)
{
    while (wsm_life(&life) < state) {
        wsm_life_enter(&life, wsm_life(&life) == WSM_LIFE_SECURING &&
                       state > WSM_LIFE_UNSECURED ? WSM_LIFE_DROPPING
                                                  : wsm_life(&life) + 1);
    }
}

static void leave(WsmPhase phase)
{
    live(MAX(wsm_life(&life), WSM_LIFE_OPEN));
    wsm_life_enter(&life, WSM_LIFE_STOPPING);
    wsm_dest_image_leave(&disk, phase);
    g_assert_null(disk.image);
    g_assert_null(disk.bs);
    g_assert_null(disk.store);
    wsm_life_enter(&life, WSM_LIFE_RELEASED);
    wsm_life_destroy(&life);
}

static void set_up(void)
{
    flaky.ret = 0;
    path = disks_create("image", "raw", NULL);
    wsm_options_init(&options);
    set_max_points(8);
    open_image();
}

static void tear_down(void)
{
    flaky.ret = 0;
    close_image();
    wsm_options_destroy(&options);
    wsm_record_remove(path, &error_abort);
    g_unlink(path);
    g_free(path);
    warnings_expect_none();
}

/* What somebody sees who comes after us; NULL: there is no record */
static WsmRecord *record_now(void)
{
    WsmRecord *record = NULL;

    g_assert_true(wsm_record_load(path, &record, &error_abort));
    return record;
}

static void check_record(WsmImageState state, unsigned session,
                         const char *peer)
{
    g_autoptr(WsmRecord) record = record_now();
    QemuUUID id = uuid_of(session);
    g_autofree char *uuid = qemu_uuid_unparse_strdup(&id);

    if (state == WSM_IMAGE_STATE_CURRENT) {
        g_assert_null(record);
        return;
    }
    g_assert_nonnull(record);
    g_assert_cmpint(record->state, ==, state);
    g_assert_cmpstr(record->session, ==, uuid);
    g_assert_cmpstr(record->peer, ==, peer);
}

static unsigned count_points(void)
{
    g_autoptr(WsmRecord) record = record_now();
    unsigned n = 0;

    for (WsmRecordPointList *p = record ? record->points : NULL; p;
         p = p->next) {
        n++;
    }
    return n;
}

/* The image was in @state before, with one sync point */
static void set_before(WsmImageState state)
{
    QemuUUID point = uuid_of(1), session = uuid_of(3);

    wsm_image_take(image(), blk_bs(blk), &error_abort);
    wsm_image_add_point(image(), blk_bs(blk), &point, 4 * KIB, NULL, 8);
    wsm_image_set_state(image(), state, &session, "beta");
    wsm_image_mark(image(), blk_bs(blk));
    close_image();
    open_image();
}

/*
 * Tests
 */

static void test_mark(void)
{
    set_up();
    set_before(WSM_IMAGE_STATE_HANDED_OVER);
    begin();
    g_assert_cmpint(disk.state_before, ==, WSM_IMAGE_STATE_HANDED_OVER);
    g_assert_cmpstr(disk.peer_before, ==, "beta");
    g_assert_true(disk.bs == blk_bs(blk));
    check_record(WSM_IMAGE_STATE_INCOMPLETE, 7, "alpha");
    /* In the record there are none, for nobody keeps them up to date now */
    g_assert_cmpint(count_points(), ==, 0);
    leave(WSM_PHASE_SETUP);
    tear_down();
}

/* All is there: first durable, then the record goes, then it is current */
static void test_complete(void)
{
    set_up();
    begin();
    live(WSM_LIFE_DROPPING);
    wsm_dest_images_find_records(&disks);
    g_assert_cmpstr(disk.store->file, ==, path);
    check_record(WSM_IMAGE_STATE_INCOMPLETE, 7, "alpha");
    live(WSM_LIFE_DROPPED);
    wsm_dest_images_remove_records(&disks);
    g_assert_true(disk.unmarked);
    check_record(WSM_IMAGE_STATE_CURRENT, 0, NULL);
    g_assert_cmpint(image()->state, ==, WSM_IMAGE_STATE_INCOMPLETE);
    live(WSM_LIFE_SECURED);
    wsm_dest_images_mark_current(&disks);
    g_assert_cmpint(image()->state, ==, WSM_IMAGE_STATE_CURRENT);
    g_assert_cmpstr(image()->peer, ==, "alpha");
    check_record(WSM_IMAGE_STATE_CURRENT, 0, NULL);

    /* The guest runs, and its image may be handed over before we leave */
    wsm_image_set_state(image(), WSM_IMAGE_STATE_CURRENT, NULL, "gamma");
    wsm_dest_images_mark_current(&disks);
    g_assert_cmpstr(image()->peer, ==, "gamma");
    leave(WSM_PHASE_COMPLETED);
    check_record(WSM_IMAGE_STATE_CURRENT, 0, NULL);
    g_assert_true(image()->taken);
    tear_down();
}

/* A record that cannot go is tried again by who marks the image current */
static void test_record_stays(void)
{
    g_autofree char *record = NULL, *inside = NULL;

    set_up();
    begin();
    record = wsm_record_path(path);
    inside = g_build_filename(record, "x", NULL);
    live(WSM_LIFE_SECURING);
    wsm_dest_images_find_records(&disks);
    g_unlink(record);
    g_assert_cmpint(g_mkdir(record, 0700), ==, 0);
    g_assert_true(g_file_set_contents(inside, "", 0, NULL));
    /* Nor may an attribute outweigh it */
    g_assert_cmpint(chmod(path, 0444), ==, 0);
    powers_drop();
    wsm_dest_images_remove_records(&disks);
    powers_restore();
    g_assert_cmpint(chmod(path, 0644), ==, 0);
    warnings_expect("disk 'vda': this image is current, but its record still "
                    "says something else: ");
    g_assert_false(disk.unmarked);
    g_unlink(inside);
    g_rmdir(record);
    g_assert_true(g_file_set_contents(record, "{", -1, NULL));
    live(WSM_LIFE_SECURED);
    wsm_dest_images_mark_current(&disks);
    g_assert_cmpint(image()->state, ==, WSM_IMAGE_STATE_CURRENT);
    check_record(WSM_IMAGE_STATE_CURRENT, 0, NULL);
    leave(WSM_PHASE_COMPLETED);
    tear_down();
}

/*
 * It ends before anybody could make it current: if all is there it is so now,
 * but only if that is durable.
 */
static void test_late(void)
{
    set_up();
    begin();
    live(WSM_LIFE_UNSECURED);
    leave(WSM_PHASE_POSTCOPY);
    g_assert_cmpint(image()->state, ==, WSM_IMAGE_STATE_CURRENT);
    check_record(WSM_IMAGE_STATE_CURRENT, 0, NULL);
    tear_down();

    set_up();
    begin();
    live(WSM_LIFE_UNSECURED);
    flaky.ret = -EIO;
    leave(WSM_PHASE_POSTCOPY);
    g_assert_cmpint(image()->state, ==, WSM_IMAGE_STATE_INCOMPLETE);
    check_record(WSM_IMAGE_STATE_INCOMPLETE, 7, "alpha");
    tear_down();
}

/*
 * What becomes of an image that did not get all: nothing came, so it is as
 * before; or what came is good, and the source knows the rest; or the guest has
 * written to it, and nobody knows.
 */
static void check_ending(WsmImageState before, WsmPhase phase, bool wrote,
                         unsigned max)
{
    bool nothing = phase == WSM_PHASE_SETUP && !wrote;
    bool good = !nothing && phase < WSM_PHASE_POSTCOPY && max;
    QemuUUID session = uuid_of(7), id = wsm_points_id(&session, 0);
    g_autofree char *point = qemu_uuid_unparse_strdup(&id);
    g_autoptr(WsmRecord) record = NULL;

    set_up();
    set_before(before);
    begin();
    disks.wrote = wrote;
    set_max_points(max);
    live(phase < WSM_PHASE_FREEZE ? WSM_LIFE_OPEN : WSM_LIFE_SEALED);
    leave(phase);
    if (nothing) {
        g_assert_cmpint(image()->state, ==, before);
        record = record_now();
        g_assert_nonnull(record);
        g_assert_cmpint(record->state, ==, before);
        g_assert_cmpstr(record->peer, ==, "beta");
        g_assert_cmpint(count_points(), ==, 1);
        tear_down();
        return;
    }
    check_record(WSM_IMAGE_STATE_INCOMPLETE, 7, "alpha");
    record = record_now();
    g_assert_cmpint(count_points(), ==, good ? 2 : phase < WSM_PHASE_POSTCOPY);
    if (good) {
        g_assert_cmpstr(record->points->next->value->id, ==, point);
    }
    tear_down();
}

static void test_endings(void)
{
    static const WsmImageState states[] = {
        WSM_IMAGE_STATE_CURRENT, WSM_IMAGE_STATE_HANDED_OVER,
        WSM_IMAGE_STATE_LEAVING, WSM_IMAGE_STATE_INCOMPLETE,
    };
    static const WsmPhase phases[] = {
        WSM_PHASE_SETUP, WSM_PHASE_DISK_PRECOPY, WSM_PHASE_RAM_PRECOPY,
        WSM_PHASE_FREEZE, WSM_PHASE_POSTCOPY,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(states); i++) {
        for (unsigned j = 0; j < ARRAY_SIZE(phases); j++) {
            for (unsigned how = 0; how < 4; how++) {
                check_ending(states[i], phases[j], how & 1, how & 2 ? 8 : 0);
            }
        }
    }
}

/* The time of what the image was before is kept as well */
static void test_time(void)
{
    g_autoptr(WsmRecord) record = NULL;

    set_up();
    set_before(WSM_IMAGE_STATE_HANDED_OVER);
    record = record_now();
    record->time = 1000000000;
    wsm_record_save(path, record, &error_abort);
    g_clear_pointer(&record, qapi_free_WsmRecord);
    begin();
    leave(WSM_PHASE_SETUP);
    g_assert_cmpint(image()->time, ==, 1000000000);
    record = record_now();
    g_assert_cmpint(record->time, ==, 1000000000);
    tear_down();
}

/* What is not durable makes no sync point, even if the next flush works */
static void check_not_durable(int *ret)
{
    set_up();
    begin();
    disks.wrote = true;
    *ret = -EIO;
    leave(WSM_PHASE_DISK_PRECOPY);
    check_record(WSM_IMAGE_STATE_INCOMPLETE, 7, "alpha");
    g_assert_cmpint(count_points(), ==, 0);
    tear_down();
}

static void test_not_durable(void)
{
    check_not_durable(&flaky.ret);
    check_not_durable(&flaky.next_ret);
}

/* It cannot be taken: it was looked at, and that is all there is to undo */
static void test_not_taken(void)
{
    g_autoptr(GArray) all = NULL;
    const WsmDisk *ours;

    set_up();
    set_before(WSM_IMAGE_STATE_HANDED_OVER);
    all = wsm_disk_list();
    ours = &g_array_index(all, WsmDisk, 0);
    disks = (WsmDestDisks) { .images = &images, .life = &life };
    disk = (WsmDestDisk) { .all = &disks };
    wsm_life_init(&life);
    wsm_dest_image_look(&disk, ours);
    leave(WSM_PHASE_SETUP);
    check_record(WSM_IMAGE_STATE_HANDED_OVER, 3, "beta");
    tear_down();
}

/* Where there can be no record the user is told so, and it goes on */
static void test_no_record(void)
{
    set_up();
    close_image();
    blk = disks_open_null();
    disks_plug("vda", blk);
    wsm_images_init(&images);
    begin();
    warnings_expect("disk 'vda': no record is kept of its image");
    live(WSM_LIFE_SECURING);
    wsm_dest_images_find_records(&disks);
    g_assert_null(disk.store);
    wsm_dest_images_remove_records(&disks);
    live(WSM_LIFE_SECURED);
    wsm_dest_images_mark_current(&disks);
    g_assert_cmpint(image()->state, ==, WSM_IMAGE_STATE_CURRENT);
    leave(WSM_PHASE_COMPLETED);
    tear_down();
}

int main(int argc, char **argv)
{
    int ret;

    disks_init(&argc, &argv);
    flaky_register();
    g_test_add_func("/wsm/dest-images/mark", test_mark);
    g_test_add_func("/wsm/dest-images/complete", test_complete);
    g_test_add_func("/wsm/dest-images/record-stays", test_record_stays);
    g_test_add_func("/wsm/dest-images/late", test_late);
    g_test_add_func("/wsm/dest-images/endings", test_endings);
    g_test_add_func("/wsm/dest-images/time", test_time);
    g_test_add_func("/wsm/dest-images/not-durable", test_not_durable);
    g_test_add_func("/wsm/dest-images/not-taken", test_not_taken);
    g_test_add_func("/wsm/dest-images/no-record", test_no_record);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
