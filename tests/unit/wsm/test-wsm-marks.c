/*
 * Unit tests of migration/wsm/policy/marks.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/sysmacros.h>
#include <glib/gstdio.h>
#include "migration/wsm/policy/marks.h"
#include "migration/wsm/wire/message.h"

#define BOOT    "0a0b"

static char *sysfs;

static GPtrArray *new_marks(void)
{
    return g_ptr_array_new_with_free_func(g_free);
}

static void assert_marks(GPtrArray *marks, const char *first,
                         const char *second)
{
    g_assert_cmpuint(marks->len, ==, !!first + !!second);
    if (first) {
        g_assert_cmpstr(g_ptr_array_index(marks, 0), ==, first);
    }
    if (second) {
        g_assert_cmpstr(g_ptr_array_index(marks, 1), ==, second);
    }
}

/* A file of a sysfs of our own; @path is below it */
static void put(const char *path, const char *text)
{
    g_autofree char *full = g_build_filename(sysfs, path, NULL);
    g_autofree char *dir = g_path_get_dirname(full);

    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    g_assert_true(g_file_set_contents(full, text, -1, NULL));
}

static void put_link(const char *path, const char *target)
{
    g_autofree char *full = g_build_filename(sysfs, path, NULL);
    g_autofree char *dir = g_path_get_dirname(full);

    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    g_assert_cmpint(symlink(target, full), ==, 0);
}

static GPtrArray *marks_of_device(unsigned ma, unsigned mi, const char *slice,
                                  const char *boot)
{
    GPtrArray *marks = new_marks();
    struct stat st = { .st_mode = S_IFBLK, .st_rdev = makedev(ma, mi) };

    wsm_marks_of_stat(marks, &st, slice, boot, sysfs);
    return marks;
}

static void check_device(unsigned ma, unsigned mi, const char *slice,
                         const char *boot, const char *first,
                         const char *second)
{
    g_autoptr(GPtrArray) marks = marks_of_device(ma, mi, slice, boot);

    assert_marks(marks, first, second);
}

static void test_same(void)
{
    g_assert_true(wsm_marks_same("file a 1:2", "file a 1:2"));
    g_assert_false(wsm_marks_same("file a 1:2", "file a 1:23"));
    g_assert_false(wsm_marks_same("file a 1:23", "file a 1:2"));
    g_assert_false(wsm_marks_same("file a 1:2", "file b 1:2"));
    /* All of it and a part of it */
    g_assert_true(wsm_marks_same("x @0+4", "x"));
    g_assert_true(wsm_marks_same("x", "x @0+4"));
    g_assert_true(wsm_marks_same("x @0+4", "x @0+4"));
    g_assert_false(wsm_marks_same("x @0+4", "x @4+4"));
    g_assert_false(wsm_marks_same("x @4+4", "x @0+4"));
    /* Some bytes in common */
    g_assert_true(wsm_marks_same("x @0+5", "x @4+4"));
    g_assert_true(wsm_marks_same("x @4+4", "x @0+5"));
    g_assert_true(wsm_marks_same("x @0+9", "x @4+1"));
    g_assert_true(wsm_marks_same("x @4+18446744073709551615", "x @99+1"));
    /* What is not understood may be anything */
    g_assert_true(wsm_marks_same("x @0+", "x @4+4"));
    g_assert_true(wsm_marks_same("x @4+4", "x @a"));
    g_assert_true(wsm_marks_same("x @4+4", "x @-1+4"));
    g_assert_false(wsm_marks_same("x @0+", "y @4+4"));
    g_assert_false(wsm_marks_same("x @0+4", "y @0+4"));
    g_assert_false(wsm_marks_same("x @0+4", "xy"));
    g_assert_false(wsm_marks_same("x", ""));
}

static void test_file(void)
{
    struct stat st = { .st_mode = S_IFREG, .st_dev = 7, .st_ino = 99 };
    g_autoptr(GPtrArray) marks = new_marks();
    g_autoptr(GPtrArray) slice = new_marks();
    g_autoptr(GPtrArray) unknown = new_marks();
    g_autoptr(GPtrArray) other = new_marks();

    wsm_marks_of_stat(marks, &st, NULL, BOOT, sysfs);
    assert_marks(marks, "file 0a0b 7:99", NULL);
    wsm_marks_of_stat(slice, &st, "512+1024", BOOT, sysfs);
    assert_marks(slice, "file 0a0b 7:99 @512+1024", NULL);
    /* On another host the numbers mean nothing */
    wsm_marks_of_stat(unknown, &st, NULL, NULL, sysfs);
    assert_marks(unknown, NULL, NULL);
    st.st_mode = S_IFCHR;
    wsm_marks_of_stat(other, &st, NULL, BOOT, sysfs);
    assert_marks(other, NULL, NULL);
}

static void test_device(void)
{
    /* A SCSI disk and its first partition; NVMe */
    put("devices/sda/device/wwid", "naa.600140500001\n");
    put("devices/sda/sda1/partition", "1\n");
    put("devices/sda/sda1/start", "2048\n");
    put("devices/sda/sda1/size", "4096\n");
    put_link("dev/block/8:0", "../../devices/sda");
    put_link("dev/block/8:1", "../../devices/sda/sda1");
    put("devices/sda/sda2/partition", "2\n");
    put("devices/sda/sda2/start", "x\n");
    put_link("dev/block/8:2", "../../devices/sda/sda2");
    put("devices/nvme0n1/wwid", "eui.0025385\n");
    put_link("dev/block/259:0", "../../devices/nvme0n1");
    /* Those whose name says nothing */
    put("devices/sdb/device/wwid", "t10.QEMU    QEMU HARDDISK   d0\n");
    put_link("dev/block/8:16", "../../devices/sdb");
    put("devices/sdc/device/wwid", "\n");
    put_link("dev/block/8:32", "../../devices/sdc");

    check_device(8, 0, NULL, BOOT, "device 0a0b 8:0", "wwid naa.600140500001");
    check_device(8, 0, "0+512", BOOT, "device 0a0b 8:0 @0+512",
                 "wwid naa.600140500001 @0+512");
    check_device(8, 1, NULL, NULL,
                 "wwid naa.600140500001 @1048576+2097152", NULL);
    check_device(8, 1, "0+512", NULL,
                 "wwid naa.600140500001 @1048576+2097152", NULL);
    /* Where it is is not known: all of the disk may be meant */
    check_device(8, 2, NULL, NULL, "wwid naa.600140500001", NULL);
    check_device(259, 0, NULL, NULL, "wwid eui.0025385", NULL);
    check_device(8, 16, NULL, BOOT, "device 0a0b 8:16", NULL);
    check_device(8, 32, NULL, BOOT, "device 0a0b 8:32", NULL);
    check_device(8, 99, NULL, BOOT, "device 0a0b 8:99", NULL);
}

static void test_mapper(void)
{
    put("devices/md1/device/wwid", "naa.1\n");
    put("devices/md2/md2p3/partition", "3\n");
    put("devices/md2/md2p3/start", "10\n");
    put("devices/md2/md2p3/size", "20\n");
    put("devices/md2/device/wwid", "naa.2\n");
    put("devices/md3/device/wwid", "t10.x\n");
    put("devices/dm-0/dm/uuid", "LVM-abc\n");
    put_link("devices/dm-0/slaves/md2p3", "../../md2/md2p3");
    put_link("devices/dm-0/slaves/md1", "../../md1");
    put("devices/dm-1/dm/uuid", "CRYPT-LUKS2-x\n");
    put_link("devices/dm-1/slaves/dm-0", "../../dm-0");
    put("devices/dm-2/dm/uuid", "mpath-3600\n");
    put("devices/dm-3/dm/uuid", "LVM-def\n");
    put_link("devices/dm-3/slaves/md1", "../../md1");
    put_link("devices/dm-3/slaves/md3", "../../md3");
    put("devices/dm-4/dm/uuid", "LVM-ghi\n");
    put("devices/dm-5/dm/uuid", "LVM-itself\n");
    put_link("devices/dm-5/slaves/dm-5", "../../dm-5");
    for (int i = 0; i < 6; i++) {
        g_autofree char *link = g_strdup_printf("dev/block/253:%d", i);
        g_autofree char *target = g_strdup_printf("../../devices/dm-%d", i);

        put_link(link, target);
    }

    check_device(253, 0, NULL, NULL,
                 "dm LVM-abc on wwid naa.1,wwid naa.2 .5120+10240", NULL);
    check_device(253, 1, NULL, NULL, "dm CRYPT-LUKS2-x on dm LVM-abc on "
                 "wwid naa.1,wwid naa.2 .5120+10240", NULL);
    check_device(253, 2, NULL, NULL, "dm mpath-3600", NULL);
    /* One below is not known: cloned hosts have the same UUIDs */
    check_device(253, 3, NULL, NULL, NULL, NULL);
    check_device(253, 4, NULL, NULL, NULL, NULL);
    check_device(253, 5, NULL, NULL, NULL, NULL);
}

static void check_name(const char *name, const char *slice, const char *mark)
{
    g_autoptr(GPtrArray) marks = new_marks();

    wsm_marks_of_name(marks, name, slice, BOOT);
    assert_marks(marks, mark, NULL);
}

static void test_name(void)
{
    g_autoptr(GPtrArray) marks = new_marks();

    check_name("nbd://store:10809/vm", NULL, "name nbd://store:10809/vm");
    check_name("rbd:pool/vm", "0+9", "name rbd:pool/vm @0+9");
    check_name("nbd://localhost:10809/vm", NULL,
               "name 0a0b nbd://localhost:10809/vm");
    check_name("nbd://127.0.0.1/", NULL, "name 0a0b nbd://127.0.0.1/");
    check_name("nbd+unix:///?socket=/s", NULL,
               "name 0a0b nbd+unix:///?socket=/s");
    check_name("json:{\"driver\":\"x\"}", NULL, NULL);
    check_name("null-co://", NULL, NULL);
    check_name("", NULL, NULL);
    check_name("/dev/x", NULL, NULL);

    /* Local, and it is not known where that is */
    wsm_marks_of_name(marks, "nbd://localhost/", NULL, NULL);
    assert_marks(marks, NULL, NULL);
}

static void test_long(void)
{
    g_autofree char *fill = g_strnfill(300, 'x');
    g_autofree char *one = g_strdup_printf("nbd://h/%s1", fill);
    g_autofree char *two = g_strdup_printf("nbd://h/%s2", fill);
    g_autoptr(GPtrArray) marks = new_marks();

    wsm_marks_of_name(marks, one, NULL, NULL);
    wsm_marks_of_name(marks, two, NULL, NULL);
    wsm_marks_of_name(marks, two, "0+1", NULL);
    for (unsigned i = 0; i < marks->len; i++) {
        g_assert_cmpuint(strlen(g_ptr_array_index(marks, i)), <=,
                         WSM_MAX_MARK);
    }
    g_assert_false(wsm_marks_same(g_ptr_array_index(marks, 0),
                                  g_ptr_array_index(marks, 1)));
    g_assert_true(wsm_marks_same(g_ptr_array_index(marks, 1),
                                 g_ptr_array_index(marks, 2)));

    /* No more than the other side takes */
    for (int i = 0; i < 100; i++) {
        wsm_marks_of_name(marks, "nbd://h/", NULL, NULL);
    }
    g_assert_cmpuint(marks->len, ==, WSM_MAX_MARKS);
}

int main(int argc, char **argv)
{
    g_autofree char *remove = NULL;
    int ret;

    g_test_init(&argc, &argv, NULL);
    sysfs = g_dir_make_tmp("test-wsm-marks-XXXXXX", NULL);
    g_assert_nonnull(sysfs);
    g_test_add_func("/wsm/marks/same", test_same);
    g_test_add_func("/wsm/marks/file", test_file);
    g_test_add_func("/wsm/marks/device", test_device);
    g_test_add_func("/wsm/marks/mapper", test_mapper);
    g_test_add_func("/wsm/marks/name", test_name);
    g_test_add_func("/wsm/marks/long", test_long);
    ret = g_test_run();
    remove = g_strdup_printf("rm -r '%s'", sysfs);
    if (system(remove)) {
        ret = 1;
    }
    g_free(sysfs);
    return ret;
}
