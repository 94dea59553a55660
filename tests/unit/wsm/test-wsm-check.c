/*
 * Unit tests of migration/wsm/dest/check.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qapi/error.h"
#include "qapi/qapi-visit-wsm.h"
#include "migration/migration.h"
#include "migration/wsm/dest/check.h"
#include "migration/wsm/image/map-file.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/image/record-file.h"
#include "migration/wsm/image/storage.h"
#include "wsm-disks.h"

#define DISKS   3

static MigrationIncomingState incoming;

MigrationIncomingState *migration_incoming_get_current(void)
{
    return &incoming;
}

static const char *const names[DISKS] = { "vda", "vdb", "vdc" };
static char *path[DISKS];
static BlockBackend *blk[DISKS];
static WsmImages images;
static WsmDiskDesc descs[DISKS];
static WsmStart start;

static QemuUUID uuid_of(unsigned n)
{
    /* What a disk's number changes is at the end */
    return (QemuUUID) { .data = { 0xab, [5] = n } };
}

static void plug(unsigned i, int flags)
{
    blk[i] = disks_open(path[i], "raw", flags);
    disks_plug(names[i], blk[i]);
}

static void unplug(unsigned i)
{
    disks_unplug(names[i]);
    blk_unref(blk[i]);
}

/* The source has vdc, vda and vdb, in this order; so has the destination */
static void set_up(void)
{
    start = (WsmStart) {
        .session = uuid_of(9), .ndisks = DISKS, .disk = descs,
    };
    for (unsigned i = 0; i < DISKS; i++) {
        unsigned other = (i + 2) % DISKS;

        path[i] = disks_create(names[i], "raw", NULL);
        plug(i, BDRV_O_RDWR);
        descs[i] = (WsmDiskDesc) {
            .name = g_strdup_printf("their-%s", names[other]),
            .path = g_strdup_printf("/dev/%s", names[other]),
            .file = g_strdup("over-there"), .size = DISK_SIZE,
            .marks = g_ptr_array_new_with_free_func(g_free),
        };
    }
    wsm_images_init(&images);
}

static void tear_down(void)
{
    g_ptr_array_unref(images.list);
    for (unsigned i = 0; i < DISKS; i++) {
        unplug(i);
        wsm_record_remove(path[i], &error_abort);
        g_unlink(path[i]);
        g_free(path[i]);
        g_free(descs[i].name);
        g_free(descs[i].path);
        g_free(descs[i].file);
        g_ptr_array_unref(descs[i].marks);
    }
}

static void check_good(void)
{
    g_autoptr(GArray) all = wsm_disk_list();
    g_autoptr(GPtrArray) found = wsm_dest_check_disks(&images, all, &start,
                                                      &error_abort);

    g_assert_cmpint(found->len, ==, start.ndisks);
    for (unsigned i = 0; i < found->len; i++) {
        WsmDisk *disk = g_ptr_array_index(found, i);

        g_assert_cmpstr(disk->path, ==, descs[i].path);
        g_assert_true(disk >= &g_array_index(all, WsmDisk, 0) &&
                      disk < &g_array_index(all, WsmDisk, all->len));
    }
}

static void check_bad(const char *text)
{
    g_autoptr(GArray) all = wsm_disk_list();
    Error *err = NULL;

    g_assert_null(wsm_dest_check_disks(&images, all, &start, &err));
    disks_error(err, text);
}

static void test_order(void)
{
    set_up();
    check_good();
    /* The destination may have more than move */
    start.ndisks = 2;
    check_good();
    start.ndisks = 0;
    check_good();
    tear_down();
}

static void test_missing(void)
{
    set_up();
    disks_unplug("vdb");
    check_bad("disk 'their-vdb': not there");
    disks_plug("vdb", blk[1]);
    check_good();
    tear_down();
}

static void test_read_only(void)
{
    set_up();
    unplug(1);
    plug(1, 0);
    check_bad("disk 'their-vdb': it is read-only at the destination; make it "
              "writable there");
    tear_down();
}

static void test_size(void)
{
    set_up();
    descs[1].size = DISK_SIZE - 512;
    check_bad("disk 'their-vda': destination is 1048576 bytes, source is "
              "1048064; create it with the same size, or use a part of it: "
              "driver raw with 'size' above its file");
    descs[1].size = DISK_SIZE + 512;
    check_bad("destination is 1048576 bytes, source is 1049088; create it with "
              "the same size");
    descs[1].size = DISK_SIZE;
    check_good();
    tear_down();
}

/* The last of them is the source's own image: none is found good */
static void test_storage(void)
{
    g_autoptr(GPtrArray) marks = NULL;

    set_up();
    marks = wsm_storage_marks(blk_bs(blk[1]));
    g_ptr_array_add(descs[0].marks, g_strdup(marks->pdata[0]));
    check_bad("disk 'their-vdb': its image at the destination, '");
    check_bad("is one of those of disk 'their-vdc' at the source, "
              "'over-there'");
    tear_down();
}

/*
 * What exists nowhere else
 */

/* QEMU was killed when vda's record said this */
static void leave(WsmImageState state)
{
    QemuUUID session = uuid_of(1);
    g_autoptr(WsmRecord) record = g_new0(WsmRecord, 1);

    record->state = state;
    record->session = qemu_uuid_unparse_strdup(&session);
    record->peer = g_strdup("beta");
    record->time = 1000000000;
    record->disk_size = DISK_SIZE;
    wsm_record_save(path[0], record, &error_abort);
}

static void test_leaving(void)
{
    WsmPointDesc points[3] = {};
    QemuUUID session = uuid_of(1);

    set_up();
    leave(WSM_IMAGE_STATE_LEAVING);
    check_bad("disk 'their-vda': the image '");
    check_bad(path[0]);
    check_bad("was about to be handed over to beta at 2001-09-09 01:46:40 UTC");
    check_bad("type wsm-adopt at the destination before migrate-incoming");

    /* The source's sync points are of other sessions */
    descs[1].point = points;
    descs[1].npoints = ARRAY_SIZE(points);
    for (unsigned i = 0; i < ARRAY_SIZE(points); i++) {
        session = uuid_of(10 + i);
        points[i].id = wsm_points_id(&session, 0);
    }
    check_bad("may be the only complete one");
    session = uuid_of(1);

    /* One is of that: then the source has all of it, whatever its number */
    points[2].id = wsm_points_id(&session, 0);
    check_good();
    points[2].id = wsm_points_id(&session, WSM_MAX_DISKS - 1);
    check_good();
    descs[1].npoints = 2;
    check_bad("may be the only complete one");

    /* That of another disk proves nothing */
    descs[0].point = points;
    descs[0].npoints = 3;
    check_bad("may be the only complete one");
    tear_down();
}

/* Others may be overwritten: they are not current, or the user wants it */
static void test_other_states(void)
{
    static const WsmImageState states[] = {
        WSM_IMAGE_STATE_CURRENT, WSM_IMAGE_STATE_INCOMPLETE,
        WSM_IMAGE_STATE_HANDED_OVER,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(states); i++) {
        set_up();
        leave(states[i]);
        check_good();
        tear_down();
    }
}

static void test_peer_unknown(void)
{
    g_autoptr(WsmRecord) record = g_new0(WsmRecord, 1);

    set_up();
    record->state = WSM_IMAGE_STATE_LEAVING;
    record->session = g_strdup("");
    wsm_record_save(path[0], record, &error_abort);
    check_bad("was about to be handed over to another host at");
    tear_down();
}

/* It may have said so */
static void test_unknown(void)
{
    g_autoptr(GArray) all = NULL;
    g_autoptr(GPtrArray) adopted = g_ptr_array_new();
    g_autofree char *record = NULL;

    set_up();
    record = wsm_record_path(path[0]);
    g_assert_true(g_file_set_contents(record, "{", -1, NULL));
    check_bad("disk 'their-vda': whether the image '");
    check_bad("may be the only complete one is not known: ");
    check_bad("type wsm-adopt at the destination before migrate-incoming");

    all = wsm_disk_list();
    g_ptr_array_add(adopted, &g_array_index(all, WsmDisk, 0));
    wsm_images_adopt(&images, adopted, WSM_ADOPT_MISSING_REFUSE,
                     &error_abort);
    check_good();
    tear_down();
}

/* From then on it is too late for that */
static void test_begun(void)
{
    for (int state = 0; state < MIGRATION_STATUS__MAX; state++) {
        incoming.state = state;
        g_assert_cmpint(wsm_dest_has_begun(), ==,
                        state != MIGRATION_STATUS_NONE &&
                        state != MIGRATION_STATUS_SETUP);
    }
}

/*
 * The first two blocks of vda are missing, or none if @broken is negative; if
 * it is positive, a byte of them is bad.
 */
static void write_map(unsigned session, uint64_t generation, bool is_void,
                      int broken)
{
    g_autofree uint8_t *map = g_malloc0(WSM_MAP_FILE_BYTES);
    g_autofree char *file = wsm_map_path(path[0]);
    uint8_t *list = map + 2 * WSM_MAP_PAGE;
    WsmMapHead head = {
        .generation = generation, .session = uuid_of(session), .disks = 1,
        .channels = 2,
        .granularity = WSM_MAP_PAGE, .size = DISK_SIZE, .is_void = is_void,
    };

    list[1] = 2;
    if (!is_void) {
        head.area = 2 * WSM_MAP_PAGE;
        head.area_bytes = 6 * WSM_MAP_PAGE;
        head.snapshot_bytes = 2;
        head.snapshot_crc = wsm_map_crc(list, 2);
        head.missing = 2 * WSM_MAP_PAGE;
    }
    if (broken < 0) {
        head.snapshot_bytes = head.snapshot_crc = head.missing = 0;
        broken = 0;
    }
    wsm_map_head_encode(&head, map + wsm_map_head_at(1));
    wsm_map_head_encode(&head, map + wsm_map_head_at(generation));
    list[1] ^= broken;
    g_assert_true(g_file_set_contents(file, (char *)map, WSM_MAP_FILE_BYTES,
                                      NULL));
}

/* QEMU died when only the record was still to go */
static void test_all_here(void)
{
    g_autofree char *file = NULL, *record = NULL;

    set_up();
    file = wsm_map_path(path[0]);
    record = wsm_record_path(path[0]);
    leave(WSM_IMAGE_STATE_INCOMPLETE);
    write_map(1, 1, false, -1);
    check_good();
    g_assert_true(g_file_test(file, G_FILE_TEST_EXISTS));
    g_assert_true(wsm_images_check(&images, &error_abort));
    g_assert_false(g_file_test(file, G_FILE_TEST_EXISTS));
    g_assert_false(g_file_test(record, G_FILE_TEST_EXISTS));
    tear_down();
}

/* What the guest has flushed there is nowhere else */
static void check_arriving(unsigned session, uint64_t generation, bool is_void,
                           bool broken, const char *text)
{
    g_autofree char *file = NULL;
    Error *err = NULL;

    set_up();
    file = wsm_map_path(path[0]);
    leave(WSM_IMAGE_STATE_INCOMPLETE);
    write_map(session, generation, is_void, broken);
    if (text) {
        check_bad("is the disk of a guest that came there from beta");
        check_bad(text);
        check_bad("type wsm-adopt with 'missing': 'stale' at the destination "
                  "before migrate-incoming");
        g_assert_false(wsm_images_check(&images, &err));
        disks_error(g_steal_pointer(&err), text);
    } else {
        check_good();
        g_assert_false(wsm_images_check(&images, &err));
        disks_error(g_steal_pointer(&err), "migrate the guest to it again");
    }
    g_unlink(file);
    tear_down();
}

static void test_arriving(void)
{
    check_arriving(1, 1, false, false, "8192 bytes of it are still there");
    check_arriving(1, 1, true, false, "is not known: ");
    check_arriving(1, 3, false, false, "is not known: ");
    /* Of another migration; and QEMU died before it was written */
    check_arriving(2, 1, false, false, NULL);
    check_arriving(1, 1, false, true, NULL);
}

int main(int argc, char **argv)
{
    int ret;

    disks_init(&argc, &argv);
    g_test_add_func("/wsm/check/order", test_order);
    g_test_add_func("/wsm/check/missing", test_missing);
    g_test_add_func("/wsm/check/read-only", test_read_only);
    g_test_add_func("/wsm/check/size", test_size);
    g_test_add_func("/wsm/check/storage", test_storage);
    g_test_add_func("/wsm/check/leaving", test_leaving);
    g_test_add_func("/wsm/check/arriving", test_arriving);
    g_test_add_func("/wsm/check/all-here", test_all_here);
    g_test_add_func("/wsm/check/other-states", test_other_states);
    g_test_add_func("/wsm/check/peer-unknown", test_peer_unknown);
    g_test_add_func("/wsm/check/unknown", test_unknown);
    g_test_add_func("/wsm/check/begun", test_begun);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
