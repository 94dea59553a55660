/*
 * Unit tests of migration/wsm/image/image.c, images.c and image-below.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qapi/error.h"
#include "qapi/qapi-visit-wsm.h"
#include "qemu/main-loop.h"
#include "qemu/xattr.h"
#include "block/graph-lock.h"
#include "migration/wsm/image/images.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/image/record-attr.h"
#include "migration/wsm/image/record-file.h"
#include "wsm-disks.h"
#include "wsm-powers.h"

#define KIB 1024

typedef struct Test {
    char *path;
    BlockBackend *blk;
    WsmImages images;
} Test;

static QemuUUID uuid_of(unsigned n)
{
    QemuUUID id = { .data = { 0xab, [15] = n } };

    return id;
}

/* As in another QEMU: nothing is known but what is kept */
static void start(Test *t, const char *driver, int flags)
{
    t->blk = disks_open(t->path, driver, flags);
    disks_plug("vda", t->blk);
    wsm_images_init(&t->images);
}

static void stop(Test *t)
{
    g_ptr_array_unref(t->images.list);
    disks_unplug("vda");
    blk_unref(t->blk);
}

static void restart(Test *t, const char *driver)
{
    stop(t);
    start(t, driver, BDRV_O_RDWR);
}

static void begin(Test *t, const char *driver)
{
    t->path = disks_create("image", driver, NULL);
    start(t, driver, BDRV_O_RDWR);
}

static void end(Test *t)
{
    stop(t);
    wsm_record_remove(t->path, &error_abort);
    g_unlink(t->path);
    g_free(t->path);
}

static WsmImage *image_of(Test *t)
{
    g_autoptr(GArray) all = wsm_disk_list();

    return wsm_image_get(&t->images, &g_array_index(all, WsmDisk, 0));
}

static void add_point(Test *t, unsigned n, const BdrvDirtyBitmap *rest)
{
    QemuUUID id = uuid_of(n);

    wsm_image_add_point(image_of(t), blk_bs(t->blk), &id, 4 * KIB, rest, 8);
}

static void check_points(Test *t, const char *digits)
{
    g_autoptr(GArray) points = wsm_points_list(blk_bs(t->blk));
    g_autoptr(GString) is = g_string_new("");

    for (unsigned i = 0; i < points->len; i++) {
        g_string_append_c(is, '0' + g_array_index(points, WsmPoint,
                                                  i).id.data[15]);
    }
    g_assert_cmpstr(is->str, ==, digits);
}

static int64_t changed(Test *t, unsigned n)
{
    QemuUUID id = uuid_of(n);

    return wsm_points_changed_bytes(blk_bs(t->blk), &id);
}

/* Points 1 and 2, 2 with a rest; then they are put back */
static void make_points(Test *t)
{
    BdrvDirtyBitmap *rest;

    wsm_images_check(&t->images, &error_abort);
    add_point(t, 1, NULL);
    disks_write(t->blk, 64 * KIB);
    rest = bdrv_create_dirty_bitmap(blk_bs(t->blk), 4 * KIB, NULL,
                                    &error_abort);
    bdrv_disable_dirty_bitmap(rest);
    bdrv_set_dirty_bitmap(rest, 256 * KIB, 8 * KIB);
    add_point(t, 2, rest);
    bdrv_release_dirty_bitmap(rest);
    disks_write(t->blk, 512 * KIB);
    wsm_images_close(&t->images);
}

static void check_made_points(Test *t)
{
    QemuUUID id = uuid_of(2);
    WsmPoint p;

    check_points(t, "12");
    g_assert_cmpint(changed(t, 1), ==, 8 * KIB);
    g_assert_cmpint(changed(t, 2), ==, 12 * KIB);
    g_assert_true(wsm_points_find(blk_bs(t->blk), &id, &p));
    g_assert_true(bdrv_dirty_bitmap_get(p.since, 512 * KIB));
    g_assert_true(bdrv_dirty_bitmap_get(p.rest, 260 * KIB));
    g_assert_true(bdrv_dirty_bitmap_enabled(p.since));
}

/* At rest the record has the points, and in use memory alone */
static void test_raw_points(void)
{
    Test t;

    begin(&t, "raw");
    g_assert_false(image_of(&t)->taken);
    make_points(&t);
    g_assert_false(image_of(&t)->taken);
    g_assert_true(wsm_record_exists(t.path));
    check_points(&t, "");

    for (int i = 0; i < 2; i++) {
        wsm_images_check(&t.images, &error_abort);
        g_assert_true(image_of(&t)->taken);
        g_assert_null(image_of(&t)->problem);
        g_assert_false(wsm_record_exists(t.path));
        check_made_points(&t);
        wsm_images_close(&t.images);
        restart(&t, "raw");
    }

    /* Without points, an image that is current needs no record */
    wsm_images_check(&t.images, &error_abort);
    wsm_points_clear(blk_bs(t.blk));
    wsm_images_close(&t.images);
    g_assert_false(wsm_record_exists(t.path));
    end(&t);
}

/* Once taken, what is kept is not looked at again */
static void test_take_once(void)
{
    g_autofree char *record = NULL;
    Test t;

    begin(&t, "raw");
    record = wsm_record_path(t.path);
    make_points(&t);
    wsm_images_check(&t.images, &error_abort);
    add_point(&t, 3, NULL);
    g_assert_true(g_file_set_contents(record, "{", -1, NULL));
    wsm_image_take(image_of(&t), blk_bs(t.blk), &error_abort);
    check_points(&t, "123");
    end(&t);
}

/* Nor is anything put back that was not taken */
static void test_put_not_taken(void)
{
    Test t;

    begin(&t, "raw");
    make_points(&t);
    restart(&t, "raw");
    wsm_images_close(&t.images);
    wsm_images_check(&t.images, &error_abort);
    check_made_points(&t);
    end(&t);
}

/* The image itself has the points, and there is no record */
static void test_qcow2_points(void)
{
    Test t;

    begin(&t, "qcow2");
    make_points(&t);
    g_assert_true(image_of(&t)->taken);
    g_assert_false(wsm_record_exists(t.path));
    restart(&t, "qcow2");
    wsm_images_check(&t.images, &error_abort);
    check_made_points(&t);
    end(&t);
}

/* Put back without closing: inactive, and somebody else may open the image */
static void test_inactivate(void)
{
    Test t, other;

    begin(&t, "qcow2");
    make_points(&t);
    wsm_image_put(image_of(&t), blk_bs(t.blk), true);
    g_assert_false(image_of(&t)->taken);
    bdrv_graph_rdlock_main_loop();
    g_assert_true(bdrv_is_inactive(blk_bs(t.blk)));
    bdrv_graph_rdunlock_main_loop();

    other = t;
    disks_unplug("vda");
    start(&other, "qcow2", BDRV_O_RDWR);
    wsm_images_check(&other.images, &error_abort);
    check_made_points(&other);
    wsm_images_close(&other.images);
    stop(&other);

    disks_plug("vda", t.blk);
    /* At the end an inactive image is left alone */
    wsm_images_close(&t.images);
    wsm_images_limit_points(&t.images, 1);
    g_assert_false(image_of(&t)->taken);
    wsm_images_check(&t.images, &error_abort);
    check_made_points(&t);
    end(&t);
}

/* What could outlive what it tells of is not kept */
static void test_unsafe_cache(void)
{
    Test t;

    begin(&t, "raw");
    stop(&t);
    start(&t, "raw", BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    make_points(&t);
    g_assert_false(wsm_record_exists(t.path));
    wsm_images_check(&t.images, &error_abort);
    check_points(&t, "");
    end(&t);
}

static void test_data_file(void)
{
    g_autofree char *data = disks_path("data");
    g_autofree char *options = g_strdup_printf("data_file=%s", data);
    Test t;

    t.path = disks_create("image", "qcow2", options);
    start(&t, "qcow2", BDRV_O_RDWR);
    make_points(&t);
    restart(&t, "qcow2");
    wsm_images_check(&t.images, &error_abort);
    check_points(&t, "");
    end(&t);
}

/* Somebody touched the image, or the record is not what we wrote */
enum {
    TOUCH, SIZE, NO_STAMP, BAD_ID, SAME_ID, COARSE, ODD, BAD_SINCE, BAD_REST,
    GARBAGE, SPOIL_MAX
};

static const char *const spoilt[SPOIL_MAX] = {
    [TOUCH] = "", [SIZE] = "bytes", [NO_STAMP] = "stamp",
    [BAD_ID] = "no UUID", [SAME_ID] = "", [COARSE] = "granularity",
    [ODD] = "granularity", [BAD_SINCE] = "", [BAD_REST] = "", [GARBAGE] = "",
};

static void spoil_file(Test *t, int how)
{
    if (how == TOUCH) {
        disks_write(t->blk, 0);
    } else if (how == GARBAGE) {
        g_autofree char *path = wsm_record_path(t->path);

        g_assert_true(g_file_set_contents(path, "{", -1, NULL));
    }
}

static void spoil_record(WsmRecord *record, int how)
{
    WsmRecordPoint *second = record->points->next->value;
    char **text = how == BAD_ID || how == SAME_ID ? &second->id
                  : how == BAD_SINCE ? &second->since : &second->rest;

    switch (how) {
    case SIZE:
        record->disk_size++;
        break;
    case NO_STAMP:
        g_clear_pointer(&record->stamp, qapi_free_WsmFileStamp);
        break;
    case COARSE:
        second->granularity = 1024 * 1024 * 1024;
        break;
    case ODD:
        second->granularity = 5000;
        break;
    case SAME_ID:
        g_free(second->id);
        second->id = g_strdup(record->points->value->id);
        break;
    case BAD_ID:
    case BAD_SINCE:
    case BAD_REST:
        g_free(*text);
        *text = g_strdup("////");
        break;
    }
}

static void spoil(Test *t, int how)
{
    g_autoptr(WsmRecord) record = NULL;

    wsm_record_load(t->path, &record, &error_abort);
    spoil_record(record, how);
    wsm_record_save(t->path, record, &error_abort);
    spoil_file(t, how);
}

static void test_distrust(void)
{
    for (int how = 0; how < SPOIL_MAX; how++) {
        Test t;

        begin(&t, "raw");
        make_points(&t);
        spoil(&t, how);
        wsm_image_take(image_of(&t), blk_bs(t.blk), &error_abort);
        check_points(&t, "");
        g_assert_nonnull(image_of(&t)->problem);
        g_assert_nonnull(strstr(image_of(&t)->problem, spoilt[how]));

        /* A new beginning */
        add_point(&t, 3, NULL);
        wsm_images_close(&t.images);
        wsm_images_check(&t.images, &error_abort);
        g_assert_null(image_of(&t)->problem);
        check_points(&t, "3");
        end(&t);
    }
}

/* A migration to or from the image has got to @state, and QEMU ends */
static void leave_state(Test *t, WsmImageState state, const char *peer)
{
    QemuUUID session = uuid_of(9);

    wsm_images_check(&t->images, &error_abort);
    add_point(t, 1, NULL);
    wsm_image_set_state(image_of(t), state, &session, peer);
    wsm_image_mark(image_of(t), blk_bs(t->blk));
    wsm_images_close(&t->images);
    restart(t, "raw");
}

static void check_refused(Test *t, const char *text)
{
    Error *err = NULL;

    g_assert_false(wsm_images_check(&t->images, &err));
    g_assert_false(image_of(t)->taken);
    disks_error(err, text);
}

static void adopt(Test *t)
{
    g_autoptr(GArray) all = wsm_disk_list();
    g_autoptr(GPtrArray) disks = g_ptr_array_new();

    for (unsigned i = 0; i < all->len; i++) {
        g_ptr_array_add(disks, &g_array_index(all, WsmDisk, i));
    }
    wsm_images_adopt(&t->images, disks, WSM_ADOPT_MISSING_REFUSE,
                     &error_abort);
}

static void check_state(WsmImageState state, const char *text,
                        const char *points)
{
    QemuUUID session = uuid_of(9);
    g_autofree char *uuid = qemu_uuid_unparse_strdup(&session);
    Test t;

    begin(&t, "raw");
    leave_state(&t, state, "host-b");
    g_assert_cmpint(image_of(&t)->state, ==, state);
    g_assert_cmpstr(image_of(&t)->session, ==, uuid);
    g_assert_cmpstr(image_of(&t)->peer, ==, "host-b");
    g_assert_cmpint(image_of(&t)->time, >, 0);
    check_refused(&t, text);
    check_refused(&t, "host-b");
    g_assert_true(wsm_record_exists(t.path));

    adopt(&t);
    g_assert_cmpint(image_of(&t)->state, ==, WSM_IMAGE_STATE_CURRENT);
    g_assert_null(image_of(&t)->peer);
    g_assert_false(wsm_record_exists(t.path));
    check_points(&t, points);
    wsm_images_check(&t.images, &error_abort);
    end(&t);
}

static void test_states(void)
{
    check_state(WSM_IMAGE_STATE_INCOMPLETE, "did not end", "");
    check_state(WSM_IMAGE_STATE_LEAVING, "about to be handed over", "1");
    check_state(WSM_IMAGE_STATE_HANDED_OVER, "this copy is stale", "1");
}

/* A record that cannot be read may have said anything */
static void test_unknown_state(void)
{
    g_autofree char *path = NULL;
    Test t;

    begin(&t, "raw");
    path = wsm_record_path(t.path);
    g_assert_true(g_file_set_contents(path, "{", -1, NULL));
    check_refused(&t, "is not known");
    adopt(&t);
    wsm_images_check(&t.images, &error_abort);
    end(&t);
}

/* The record of an image in use has the state and no points */
static void test_mark(void)
{
    g_autoptr(WsmRecord) record = NULL;
    Test t;

    begin(&t, "raw");
    make_points(&t);
    wsm_images_check(&t.images, &error_abort);
    wsm_image_set_state(image_of(&t), WSM_IMAGE_STATE_LEAVING, NULL, NULL);
    wsm_image_mark(image_of(&t), blk_bs(t.blk));
    wsm_record_load(t.path, &record, &error_abort);
    g_assert_cmpint(record->state, ==, WSM_IMAGE_STATE_LEAVING);
    g_assert_null(record->points);
    g_assert_cmpint(record->disk_size, ==, DISK_SIZE);
    g_assert_cmpstr(record->session, ==, "");

    wsm_image_set_state(image_of(&t), WSM_IMAGE_STATE_CURRENT, NULL, NULL);
    wsm_image_mark(image_of(&t), blk_bs(t.blk));
    g_assert_false(wsm_record_exists(t.path));
    check_made_points(&t);
    end(&t);
}

static void test_limit(void)
{
    QemuUUID id = uuid_of(4);
    Test t;

    begin(&t, "raw");
    make_points(&t);
    wsm_images_limit_points(&t.images, 1);
    g_assert_true(image_of(&t)->taken);
    check_points(&t, "2");
    add_point(&t, 3, NULL);
    wsm_image_add_point(image_of(&t), blk_bs(t.blk), &id, 4 * KIB, NULL, 2);
    check_points(&t, "34");

    /* None is allowed: none is made */
    id = uuid_of(5);
    wsm_image_add_point(image_of(&t), blk_bs(t.blk), &id, 4 * KIB, NULL, 0);
    check_points(&t, "");
    end(&t);
}

static void test_read_only(void)
{
    Test t;

    begin(&t, "raw");
    leave_state(&t, WSM_IMAGE_STATE_HANDED_OVER, NULL);
    stop(&t);
    start(&t, "raw", 0);
    wsm_images_check(&t.images, &error_abort);
    wsm_images_limit_points(&t.images, 1);
    g_assert_false(image_of(&t)->taken);
    g_assert_null(wsm_images_info(&t.images));
    wsm_images_close(&t.images);
    restart(&t, "raw");
    check_refused(&t, "another host");
    end(&t);
}

/* If one of the disks is not current, none is taken */
static void test_all_or_none(void)
{
    Test t;
    BlockBackend *other;

    begin(&t, "raw");
    leave_state(&t, WSM_IMAGE_STATE_HANDED_OVER, NULL);
    stop(&t);
    other = disks_open_null();
    disks_plug("vdb", other);
    start(&t, "raw", BDRV_O_RDWR);
    check_refused(&t, "vda");
    for (unsigned i = 0; i < t.images.list->len; i++) {
        WsmImage *image = g_ptr_array_index(t.images.list, i);

        g_assert_false(image->taken);
    }
    disks_unplug("vdb");
    blk_unref(other);
    end(&t);
}

/* Renamed it is the same image, and replaced another one */
static void test_renew(void)
{
    g_autofree char *renamed = disks_path("renamed");
    g_autoptr(GArray) all = NULL;
    WsmImage *image;
    Test t;

    begin(&t, "raw");
    all = wsm_disk_list();
    image = image_of(&t);
    g_assert_cmpstr(image->file, ==, t.path);
    g_assert_true(image_of(&t) == image);

    g_assert_cmpint(g_rename(t.path, renamed), ==, 0);
    g_assert_true(image_of(&t) == image);
    g_assert_cmpstr(image->file, ==, renamed);

    /* Another medium in the same device */
    wsm_image_ref(image);
    disks_unplug("vda");
    blk_unref(t.blk);
    g_free(disks_create("image", "raw", NULL));
    t.blk = disks_open(t.path, "raw", BDRV_O_RDWR);
    disks_plug("vda", t.blk);
    g_assert_true(image_of(&t) != image);
    g_assert_cmpuint(t.images.list->len, ==, 1);
    wsm_image_unref(image);
    end(&t);
}

/* A file put in the place of ours does not get our record */
static void test_replaced(void)
{
    WsmImageInfoList *info;
    WsmImage *image;
    Test t;

    begin(&t, "raw");
    make_points(&t);
    wsm_images_check(&t.images, &error_abort);
    image = image_of(&t);
    g_unlink(t.path);
    g_assert_true(g_file_set_contents(t.path, "other", -1, NULL));
    wsm_image_set_state(image, WSM_IMAGE_STATE_LEAVING, NULL, "host-b");
    wsm_image_mark(image, blk_bs(t.blk));
    wsm_image_put(image, blk_bs(t.blk), false);
    g_assert_false(wsm_record_exists(t.path));

    info = wsm_images_info(&t.images);
    g_assert_null(info->value->file);
    g_assert_nonnull(strstr(info->value->no_record, "removed or replaced"));
    qapi_free_WsmImageInfoList(info);

    /* In memory the points are still there */
    g_assert_true(image->taken);
    check_made_points(&t);

    g_assert_false(image->told);
    wsm_image_tell(image);
    g_assert_true(image->told);
    end(&t);
}

static void test_info(void)
{
    WsmImageInfoList *info;
    QemuUUID id = uuid_of(1);
    g_autofree char *uuid = qemu_uuid_unparse_strdup(&id);
    Test t;

    begin(&t, "raw");
    make_points(&t);
    wsm_images_check(&t.images, &error_abort);
    info = wsm_images_info(&t.images);
    g_assert_null(info->next);
    g_assert_cmpstr(info->value->name, ==, "vda");
    g_assert_cmpstr(info->value->file, ==, t.path);
    g_assert_false(info->value->has_time);
    g_assert_cmpstr(info->value->points->value->id, ==, uuid);
    g_assert_cmpint(info->value->points->value->changed, ==, 8 * KIB);
    g_assert_false(info->value->points->value->interrupted);
    g_assert_true(info->value->points->next->value->interrupted);
    g_assert_null(info->value->points->next->next);
    qapi_free_WsmImageInfoList(info);

    id = uuid_of(9);
    wsm_image_set_state(image_of(&t), WSM_IMAGE_STATE_LEAVING, &id, "host-b");
    info = wsm_images_info(&t.images);
    g_assert_cmpint(info->value->state, ==, WSM_IMAGE_STATE_LEAVING);
    g_assert_true(info->value->has_time);
    g_assert_cmpstr(info->value->peer, ==, "host-b");
    qapi_free_WsmImageInfoList(info);
    end(&t);
}

/*
 * A folder in which QEMU may not create files, or (mode 0) that it may not even
 * pass: the image was handed to it
 */

static void close_folder(mode_t mode)
{
    g_autofree char *folder = disks_path("");

    g_assert_cmpint(chmod(folder, mode), ==, 0);
    powers_drop();
}

static void open_folder(void)
{
    g_autofree char *folder = disks_path("");

    powers_restore();
    g_assert_cmpint(chmod(folder, 0755), ==, 0);
}

static bool attr_exists(Test *t)
{
    return getxattr(t->path, WSM_RECORD_ATTR, NULL, 0) > 0;
}

static bool folder_can_be_closed(void)
{
    g_autofree char *folder = disks_path("");
    bool ok = setxattr(folder, "user.wsm-test", "", 0, 0) == 0;

    if (!ok) {
        g_test_skip("no user attributes");
    }
    return ok;
}

static void test_closed_points(void)
{
    Test t;

    if (!folder_can_be_closed()) {
        return;
    }
    begin(&t, "raw");
    close_folder(0111);
    make_points(&t);
    g_assert_null(image_of(&t)->no_record);
    for (int i = 0; i < 2; i++) {
        g_assert_true(attr_exists(&t));
        g_assert_false(wsm_record_exists(t.path));
        restart(&t, "raw");
        wsm_images_check(&t.images, &error_abort);
        g_assert_null(image_of(&t)->problem);
        g_assert_false(attr_exists(&t));
        check_made_points(&t);
        wsm_images_close(&t.images);
    }

    /* Somebody else writes to it */
    disks_write(t.blk, 0);
    restart(&t, "raw");
    wsm_images_check(&t.images, &error_abort);
    g_assert_nonnull(strstr(image_of(&t)->problem, "mtime"));
    check_points(&t, "");
    open_folder();
    end(&t);
}

static void test_closed_state(void)
{
    Test t;

    if (!folder_can_be_closed()) {
        return;
    }
    begin(&t, "raw");
    close_folder(0111);
    leave_state(&t, WSM_IMAGE_STATE_HANDED_OVER, "host-b");
    g_assert_true(attr_exists(&t));
    check_refused(&t, "this copy is stale");
    check_refused(&t, "host-b");
    adopt(&t);
    g_assert_false(attr_exists(&t));
    check_points(&t, "1");
    wsm_images_check(&t.images, &error_abort);
    open_folder();
    end(&t);
}

static void test_no_name(void)
{
    WsmImage *image;
    Test t;

    if (!folder_can_be_closed()) {
        return;
    }
    begin(&t, "raw");
    wsm_images_check(&t.images, &error_abort);
    add_point(&t, 1, NULL);
    close_folder(0);
    image = image_of(&t);
    g_assert_null(image->file);
    g_assert_null(image->no_record);
    wsm_image_set_state(image, WSM_IMAGE_STATE_LEAVING, NULL, "host-b");
    wsm_image_mark(image, blk_bs(t.blk));
    open_folder();
    g_assert_true(attr_exists(&t));
    g_assert_false(wsm_record_exists(t.path));
    restart(&t, "raw");
    check_refused(&t, "about to be handed over to host-b");
    end(&t);
}

/* Neither goes: said before anything is written, and once */
static void test_nowhere(void)
{
    WsmImage *image;
    Test t;

    if (!folder_can_be_closed()) {
        return;
    }
    begin(&t, "raw");
    wsm_images_check(&t.images, &error_abort);
    g_assert_cmpint(chmod(t.path, 0444), ==, 0);
    close_folder(0111);
    image = image_of(&t);
    g_assert_nonnull(strstr(image->no_record, "cannot create files in"));
    g_assert_nonnull(strstr(image->no_record, "cannot set attribute"));
    g_assert_false(image->told);
    wsm_image_tell(image);
    g_assert_true(image->told);
    open_folder();
    end(&t);
}

/* An image on a base whose record has @state */
static void begin_on_base(Test *t, const char *base, WsmImageState state)
{
    g_autoptr(WsmRecord) record = g_new0(WsmRecord, 1);

    record->state = state;
    record->session = g_strdup("");
    record->peer = g_strdup("host-b");
    wsm_record_save(base, record, &error_abort);
    t->path = disks_path("image");
    bdrv_img_create(t->path, "qcow2", base, "raw", NULL, DISK_SIZE, 0, true,
                    &error_abort);
    start(t, "qcow2", BDRV_O_RDWR);
}

static void check_below(WsmImageState state, const char *text)
{
    g_autofree char *base = disks_create("base", "raw", NULL);
    Test t;

    begin_on_base(&t, base, state);
    if (text) {
        check_refused(&t, text);
        check_refused(&t, base);
        g_assert_true(wsm_record_exists(base));
    }
    adopt(&t);
    /* A good one's stays, for it may have sync points */
    g_assert_cmpint(wsm_record_exists(base), ==, !text);
    wsm_images_check(&t.images, &error_abort);
    end(&t);
    wsm_record_remove(base, &error_abort);
    g_unlink(base);
}

static void test_below(void)
{
    check_below(WSM_IMAGE_STATE_CURRENT, NULL);
    check_below(WSM_IMAGE_STATE_INCOMPLETE, "no consistent disk");
    check_below(WSM_IMAGE_STATE_LEAVING, "a stale copy");
    check_below(WSM_IMAGE_STATE_HANDED_OVER, "host-b");
}

static void test_below_unknown(void)
{
    g_autofree char *base = disks_create("base", "raw", NULL);
    g_autofree char *path = wsm_record_path(base);
    Test t;

    begin_on_base(&t, base, WSM_IMAGE_STATE_CURRENT);
    g_assert_true(g_file_set_contents(path, "{", -1, NULL));
    check_refused(&t, "is not known");
    adopt(&t);
    g_assert_false(wsm_record_exists(base));
    end(&t);
    g_unlink(base);
}

/* An attribute of the base counts, whatever the file beside it says */
static void test_below_attr(void)
{
    g_autofree char *base = disks_create("base", "raw", NULL);
    g_autoptr(WsmRecord) record = g_new0(WsmRecord, 1);
    int fd = open(base, O_RDONLY);
    Test t;

    g_assert_cmpint(fd, >=, 0);
    if (!folder_can_be_closed()) {
        return;
    }
    begin_on_base(&t, base, WSM_IMAGE_STATE_CURRENT);
    record->state = WSM_IMAGE_STATE_HANDED_OVER;
    record->session = g_strdup("");
    wsm_record_attr_save(fd, base, record, &error_abort);
    check_refused(&t, "a stale copy");
    check_refused(&t, base);
    adopt(&t);
    g_assert_false(wsm_record_attr_exists(fd));
    wsm_images_check(&t.images, &error_abort);
    end(&t);
    close(fd);
    g_unlink(base);
}

int main(int argc, char **argv)
{
    int ret;

    disks_init(&argc, &argv);
    g_test_add_func("/wsm/image/raw-points", test_raw_points);
    g_test_add_func("/wsm/image/take-once", test_take_once);
    g_test_add_func("/wsm/image/put-not-taken", test_put_not_taken);
    g_test_add_func("/wsm/image/qcow2-points", test_qcow2_points);
    g_test_add_func("/wsm/image/inactivate", test_inactivate);
    g_test_add_func("/wsm/image/unsafe-cache", test_unsafe_cache);
    g_test_add_func("/wsm/image/data-file", test_data_file);
    g_test_add_func("/wsm/image/distrust", test_distrust);
    g_test_add_func("/wsm/image/states", test_states);
    g_test_add_func("/wsm/image/unknown-state", test_unknown_state);
    g_test_add_func("/wsm/image/mark", test_mark);
    g_test_add_func("/wsm/image/limit", test_limit);
    g_test_add_func("/wsm/image/read-only", test_read_only);
    g_test_add_func("/wsm/image/all-or-none", test_all_or_none);
    g_test_add_func("/wsm/image/renew", test_renew);
    g_test_add_func("/wsm/image/replaced", test_replaced);
    g_test_add_func("/wsm/image/info", test_info);
    g_test_add_func("/wsm/image/closed/points", test_closed_points);
    g_test_add_func("/wsm/image/closed/state", test_closed_state);
    g_test_add_func("/wsm/image/closed/no-name", test_no_name);
    g_test_add_func("/wsm/image/closed/nowhere", test_nowhere);
    g_test_add_func("/wsm/image/below", test_below);
    g_test_add_func("/wsm/image/below/unknown", test_below_unknown);
    g_test_add_func("/wsm/image/below-attr", test_below_attr);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
