/*
 * Whole-system migration: what tells storage from all other
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/sysmacros.h>
#include "qemu/cutils.h"
#include "migration/wsm/policy/marks.h"
#include "migration/wsm/wire/message.h"

#define WSM_PART        " @"
#define WSM_MAX_STACK   8       /* of device mapper's devices */
#define WSM_SYSFS_SECTOR 512    /* bytes, whatever the device's sectors are */

/* @part: " @OFFSET+SIZE"; false if it is not */
static bool parse_part(const char *part, uint64_t *offset, uint64_t *size)
{
    return part &&
           parse_uint(part + strlen(WSM_PART), &part, 10, offset) == 0 &&
           *part == '+' && parse_uint_full(part + 1, 10, size) == 0;
}

static bool parts_meet(const char *a, const char *b)
{
    uint64_t offset_a, size_a, offset_b, size_b;

    if (!parse_part(a, &offset_a, &size_a) ||
        !parse_part(b, &offset_b, &size_b)) {
        return true;
    }
    return offset_a <= offset_b ? offset_b - offset_a < size_a
                                : offset_a - offset_b < size_b;
}

bool wsm_marks_same(const char *a, const char *b)
{
    const char *part_a = strstr(a, WSM_PART), *part_b = strstr(b, WSM_PART);
    size_t length_a = part_a ? part_a - a : strlen(a);
    size_t length_b = part_b ? part_b - b : strlen(b);

    return length_a == length_b && !memcmp(a, b, length_a) &&
           parts_meet(part_a, part_b);
}

/* @mark is taken */
static void add(GPtrArray *marks, char *mark, const char *slice)
{
    g_autofree char *whole = mark;
    char *text = slice ? g_strdup_printf("%s" WSM_PART "%s", whole, slice)
                       : g_strdup(whole);

    if (strlen(text) > WSM_MAX_MARK) {
        g_autofree char *sum =
            g_compute_checksum_for_string(G_CHECKSUM_SHA256, whole, -1);

        g_free(text);
        text = g_strdup_printf("sha256 %s%s%.100s", sum,
                               slice ? WSM_PART : "", slice ?: "");
    }
    if (marks->len < WSM_MAX_MARKS) {
        g_ptr_array_add(marks, g_steal_pointer(&text));
    }
    g_free(text);
}

/* The first line of a file of sysfs, without space around it; or NULL */
static char *read_line(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    char *text;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return NULL;
    }
    text[strcspn(text, "\n")] = '\0';
    g_strstrip(text);
    if (!*text) {
        g_clear_pointer(&text, g_free);
    }
    return text;
}

/*
 * The name that the maker gave the device.  Only those that are unique in the
 * world: what virtual disks call themselves is the same in many machines.
 */
static char *maker_name(const char *dir)
{
    static const char *const files[] = { "wwid", "device/wwid" };

    for (int i = 0; i < ARRAY_SIZE(files); i++) {
        g_autofree char *name = read_line(dir, files[i]);

        if (name && (g_str_has_prefix(name, "naa.") ||
                     g_str_has_prefix(name, "eui.") ||
                     g_str_has_prefix(name, "uuid."))) {
            return g_steal_pointer(&name);
        }
    }
    return NULL;
}

/* Where a partition is on its disk, as " @OFFSET+SIZE"; "" if not known */
static char *partition_part(const char *dir)
{
    g_autofree char *start = read_line(dir, "start");
    g_autofree char *size = read_line(dir, "size");
    uint64_t first, count;

    if (!start || parse_uint_full(start, 10, &first) < 0 ||
        !size || parse_uint_full(size, 10, &count) < 0) {
        return g_strdup("");
    }
    return g_strdup_printf(WSM_PART "%" PRIu64 "+%" PRIu64,
                           first * WSM_SYSFS_SECTOR, count * WSM_SYSFS_SECTOR);
}

static char *device_mark(const char *dir, unsigned depth);

/* Marks of what a device of the device mapper lies on; NULL: not of all */
static char *slaves_marks(const char *dir, unsigned depth)
{
    g_autofree char *path = g_build_filename(dir, "slaves", NULL);
    g_autoptr(GDir) slaves = g_dir_open(path, 0, NULL);
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
    const char *name;

    while (slaves && (name = g_dir_read_name(slaves))) {
        g_autofree char *slave = g_build_filename(path, name, NULL);
        char *mark = device_mark(slave, depth + 1);

        if (!mark) {
            return NULL;
        }
        for (char *p = mark; (p = strstr(p, WSM_PART)); ) {
            /* A part of it is another thing here */
            p[1] = '.';
        }
        g_ptr_array_add(list, mark);
    }
    if (!list->len) {
        return NULL;
    }
    g_ptr_array_sort(list, (GCompareFunc)qemu_pstrcmp0);
    g_ptr_array_add(list, NULL);
    return g_strjoinv(",", (char **)list->pdata);
}

/*
 * The UUID of a device of the device mapper is unique in a host, but hosts that
 * were cloned have the same.  So what it lies on must be known as well.
 */
static char *mapper_mark(const char *dir, unsigned depth)
{
    g_autofree char *uuid = read_line(dir, "dm/uuid");
    g_autofree char *below = NULL;

    if (!uuid) {
        return NULL;
    }
    if (g_str_has_prefix(uuid, "mpath-")) {
        return g_strdup_printf("dm %s", uuid);
    }
    below = depth < WSM_MAX_STACK ? slaves_marks(dir, depth) : NULL;
    return below ? g_strdup_printf("dm %s on %s", uuid, below) : NULL;
}

/* Of the block device that @dir of sysfs describes, or NULL */
static char *device_mark(const char *dir, unsigned depth)
{
    g_autofree char *disk = g_build_filename(dir, "..", NULL);
    g_autofree char *partition = read_line(dir, "partition");
    g_autofree char *part = partition ? partition_part(dir) : g_strdup("");
    g_autofree char *name = maker_name(partition ? disk : dir);

    if (!name) {
        return partition ? NULL : mapper_mark(dir, depth);
    }
    return g_strdup_printf("wwid %s%s", name, part);
}

void wsm_marks_of_stat(GPtrArray *marks, const struct stat *st,
                       const char *slice, const char *boot,
                       const char *sysfs)
{
    g_autofree char *dir = NULL;
    char *mark;

    if (S_ISREG(st->st_mode) && boot) {
        add(marks, g_strdup_printf("file %s %ju:%ju", boot,
                                   (uintmax_t)st->st_dev,
                                   (uintmax_t)st->st_ino), slice);
    }
    if (!S_ISBLK(st->st_mode)) {
        return;
    }
    if (boot) {
        add(marks, g_strdup_printf("device %s %u:%u", boot,
                                   major(st->st_rdev), minor(st->st_rdev)),
            slice);
    }
    dir = g_strdup_printf("%s/dev/block/%u:%u", sysfs, major(st->st_rdev),
                          minor(st->st_rdev));
    mark = device_mark(dir, 0);
    if (mark) {
        /* A slice of a partition: to compare the partition is good enough */
        add(marks, mark, strstr(mark, WSM_PART) ? NULL : slice);
    }
}

void wsm_marks_of_name(GPtrArray *marks, const char *name, const char *slice,
                       const char *boot)
{
    /* They mean another thing on each host */
    static const char *const local[] = {
        "localhost", "127.", "[::1]", "+unix:", "unix:",
    };
    bool is_local = false;

    if (g_str_has_prefix(name, "json:") ||
        g_str_has_prefix(name, "null-") ||
        (!strstr(name, "://") && !g_str_has_prefix(name, "rbd:"))) {
        return;
    }
    for (int i = 0; i < ARRAY_SIZE(local); i++) {
        is_local |= !!strstr(name, local[i]);
    }
    if (!is_local) {
        add(marks, g_strdup_printf("name %s", name), slice);
    } else if (boot) {
        add(marks, g_strdup_printf("name %s %s", boot, name), slice);
    }
}
