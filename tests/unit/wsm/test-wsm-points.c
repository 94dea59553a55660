/*
 * Unit tests of migration/wsm/image/points.c
 *
 * The sync points are compared with a shadow model: an array of points with
 * one byte per sector for each bitmap.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qobject/qdict.h"
#include "block/block.h"
#include "block/block_int.h"
#include "system/block-backend.h"
#include "migration/wsm/image/bitmap-runs.h"
#include "migration/wsm/image/points-store.h"
#include "migration/wsm/image/points.h"

#define SECTORS     2053            /* no multiple of a granularity */
#define SIZE        (SECTORS * BDRV_SECTOR_SIZE)
#define KIB         1024
#define MAX_POINTS  16

typedef uint8_t Set[SECTORS];

typedef struct Model {
    QemuUUID id;
    unsigned order;
    uint32_t granularity;
    bool has_rest, enabled;
    Set since, rest;
} Model;

static Model model[MAX_POINTS];
static unsigned model_len;

static BlockBackend *open_disk(int64_t size)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "null-co");
    qdict_put_int(options, "size", size);
    return blk_new_open(NULL, NULL, options, BDRV_O_RDWR, &error_abort);
}

static BlockBackend *open_file(const char *path, const char *driver, int flags)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", driver);
    return blk_new_open(path, NULL, options, flags, &error_abort);
}

static void write_sectors(BlockBackend *blk, int64_t first, int64_t count)
{
    g_autofree uint8_t *buf = g_malloc0(count * BDRV_SECTOR_SIZE);
    int ret = blk_pwrite(blk, first * BDRV_SECTOR_SIZE,
                         count * BDRV_SECTOR_SIZE, buf, 0);

    g_assert_cmpint(ret, ==, 0);
}

/* Points of the single cases are called by a small number */
static QemuUUID uuid_of(unsigned n)
{
    QemuUUID id = { .data = { 0xab, [15] = n } };

    return id;
}

static char *name_of(unsigned order, int64_t size, unsigned n,
                     const char *suffix)
{
    QemuUUID id = uuid_of(n);
    g_autofree char *uuid = qemu_uuid_unparse_strdup(&id);

    return g_strdup_printf("wsm-%010u-%" PRId64 "-%s%s", order, size, uuid,
                           suffix);
}

static void add(BlockBackend *blk, unsigned n)
{
    QemuUUID id = uuid_of(n);

    wsm_points_add(blk_bs(blk), &id, 4 * KIB, NULL, &error_abort);
}

static bool find(BlockBackend *blk, unsigned n, WsmPoint *p)
{
    QemuUUID id = uuid_of(n);

    return wsm_points_find(blk_bs(blk), &id, p);
}

static void forget(BlockBackend *blk, unsigned n)
{
    QemuUUID id = uuid_of(n);

    wsm_points_forget(blk_bs(blk), &id);
}

static int64_t changed(BlockBackend *blk, unsigned n)
{
    QemuUUID id = uuid_of(n);

    return wsm_points_changed_bytes(blk_bs(blk), &id);
}

static unsigned count_bitmaps(BlockBackend *blk)
{
    BdrvDirtyBitmap *bitmap;
    unsigned count = 0;

    FOR_EACH_DIRTY_BITMAP(blk_bs(blk), bitmap) {
        count++;
    }
    return count;
}

/* Are the sync points those with these digits as numbers, the oldest first? */
static void check_points(BlockBackend *blk, const char *digits)
{
    g_autoptr(GArray) points = wsm_points_list(blk_bs(blk));
    g_autoptr(GString) is = g_string_new("");

    for (unsigned i = 0; i < points->len; i++) {
        WsmPoint *p = &g_array_index(points, WsmPoint, i);

        g_string_append_c(is, '0' + p->id.data[15]);
        g_assert_true(find(blk, p->id.data[15], NULL));
    }
    g_assert_cmpstr(is->str, ==, digits);
}

/* Only the newest point's bitmap may be enabled */
static void check_tracking(BlockBackend *blk)
{
    g_autoptr(GArray) points = wsm_points_list(blk_bs(blk));

    for (unsigned i = 0; i < points->len; i++) {
        WsmPoint *p = &g_array_index(points, WsmPoint, i);

        g_assert_cmpint(bdrv_dirty_bitmap_enabled(p->since), ==,
                        i + 1 == points->len);
        g_assert_false(p->rest && bdrv_dirty_bitmap_enabled(p->rest));
    }
}

static BdrvDirtyBitmap *new_bitmap(BlockBackend *blk, uint32_t granularity,
                                   const char *name)
{
    BdrvDirtyBitmap *bitmap = bdrv_create_dirty_bitmap(blk_bs(blk), granularity,
                                                       name, &error_abort);

    bdrv_disable_dirty_bitmap(bitmap);
    return bitmap;
}

/* The shadow model */

static void set_range(uint8_t *set, uint32_t granularity, unsigned first,
                      unsigned count)
{
    unsigned block = granularity / BDRV_SECTOR_SIZE;
    unsigned end = MIN(ROUND_UP(first + count, block), SECTORS);

    if (count) {
        first = QEMU_ALIGN_DOWN(first, block);
        memset(set + first, 1, end - first);
    }
}

static void merge(uint8_t *dest, uint32_t granularity, const uint8_t *src)
{
    for (unsigned i = 0; i < SECTORS; i++) {
        if (src[i]) {
            set_range(dest, granularity, i, 1);
        }
    }
}

static int model_find(const QemuUUID *id)
{
    for (unsigned i = 0; i < model_len; i++) {
        if (qemu_uuid_is_equal(&model[i].id, id)) {
            return i;
        }
    }
    return -1;
}

static void model_remove(unsigned i)
{
    model_len--;
    memmove(&model[i], &model[i + 1], (model_len - i) * sizeof(model[0]));
}

static void model_forget(int i)
{
    if (i > 0) {
        merge(model[i - 1].since, model[i - 1].granularity, model[i].since);
        model[i - 1].enabled |= model[i].enabled;
    }
    if (i >= 0) {
        model_remove(i);
    }
}

/* Make room for a point before index @i */
static Model *model_insert(unsigned i)
{
    g_assert_cmpuint(model_len, <, MAX_POINTS);
    memmove(&model[i + 1], &model[i], (model_len - i) * sizeof(model[0]));
    model_len++;
    model[i] = (Model) { 0 };
    return &model[i];
}

static void model_enable(void)
{
    for (unsigned i = 0; i < model_len; i++) {
        model[i].enabled = i + 1 == model_len;
    }
}

static void check_set(BdrvDirtyBitmap *bitmap, const uint8_t *set)
{
    for (unsigned i = 0; i < SECTORS; i++) {
        g_assert_cmpint(bdrv_dirty_bitmap_get(bitmap, i * BDRV_SECTOR_SIZE),
                        ==, set[i]);
    }
}

/* An upper bound: each bitmap counts by itself */
static void check_changed_bytes(BlockBackend *blk, unsigned i, int64_t exact)
{
    g_autoptr(GArray) points = wsm_points_list(blk_bs(blk));
    WsmPoint *point = &g_array_index(points, WsmPoint, i);
    int64_t bytes = point->rest ? bdrv_get_dirty_count(point->rest) : 0;
    int64_t told = wsm_points_changed_bytes(blk_bs(blk), &point->id);

    for (unsigned j = i; j < points->len; j++) {
        point = &g_array_index(points, WsmPoint, j);
        bytes += bdrv_get_dirty_count(point->since);
    }
    g_assert_cmpint(told, ==, MIN(bytes, SIZE));
    g_assert_cmpint(told, >=, exact);
}

static void check_changed(BlockBackend *blk, unsigned i)
{
    BdrvDirtyBitmap *dest = new_bitmap(blk, BDRV_SECTOR_SIZE, NULL);
    Set set = { [7] = 1 };

    /* A bit that was set stays so */
    bdrv_set_dirty_bitmap(dest, 7 * BDRV_SECTOR_SIZE, BDRV_SECTOR_SIZE);
    wsm_points_changed(blk_bs(blk), &model[i].id, dest, &error_abort);
    merge(set, BDRV_SECTOR_SIZE, model[i].rest);
    for (unsigned j = i; j < model_len; j++) {
        merge(set, BDRV_SECTOR_SIZE, model[j].since);
    }
    check_set(dest, set);

    bdrv_reset_dirty_bitmap(dest, 7 * BDRV_SECTOR_SIZE, BDRV_SECTOR_SIZE);
    check_changed_bytes(blk, i, MIN(bdrv_get_dirty_count(dest),
                                    SIZE - BDRV_SECTOR_SIZE));
    bdrv_release_dirty_bitmap(dest);
}

static void check_model(BlockBackend *blk)
{
    g_autoptr(GArray) points = wsm_points_list(blk_bs(blk));
    unsigned bitmaps = 0;

    g_assert_cmpuint(points->len, ==, model_len);
    for (unsigned i = 0; i < model_len; i++) {
        WsmPoint *p = &g_array_index(points, WsmPoint, i);
        Model *m = &model[i];

        g_assert_true(qemu_uuid_is_equal(&p->id, &m->id));
        g_assert_cmpuint(p->order, ==, m->order);
        g_assert_cmpint(bdrv_dirty_bitmap_enabled(p->since), ==, m->enabled);
        check_set(p->since, m->since);
        g_assert_cmpint(!!p->rest, ==, m->has_rest);
        if (p->rest) {
            g_assert_false(bdrv_dirty_bitmap_enabled(p->rest));
            check_set(p->rest, m->rest);
        }
        check_changed(blk, i);
        bitmaps += 1 + m->has_rest;
    }
    g_assert_cmpuint(count_bitmaps(blk), ==, bitmaps);
}

static uint32_t random_granularity(void)
{
    return BDRV_SECTOR_SIZE << g_test_rand_int_range(0, 8);
}

static void step_write(BlockBackend *blk)
{
    unsigned first = g_test_rand_int_range(0, SECTORS);
    unsigned count = g_test_rand_int_range(1, MIN(64, SECTORS - first + 1));

    count = MIN(count, SECTORS - first);
    write_sectors(blk, first, count);
    for (unsigned i = 0; i < model_len; i++) {
        if (model[i].enabled) {
            set_range(model[i].since, model[i].granularity, first, count);
        }
    }
}

/* Set some bits in @bitmap (may be of any granularity) and in @set */
static void random_bits(BdrvDirtyBitmap *bitmap, uint8_t *set)
{
    for (int n = g_test_rand_int_range(0, 6); n > 0; n--) {
        unsigned first = g_test_rand_int_range(0, SECTORS);

        bdrv_set_dirty_bitmap(bitmap, first * BDRV_SECTOR_SIZE,
                              BDRV_SECTOR_SIZE);
        set_range(set, bdrv_dirty_bitmap_granularity(bitmap), first, 1);
    }
}

static void step_add(BlockBackend *blk, const QemuUUID *id)
{
    unsigned order = model_len ? model[model_len - 1].order + 1 : 1;
    uint32_t granularity = random_granularity();
    BdrvDirtyBitmap *rest = NULL;
    Set bits = { 0 };
    Model *m;

    if (g_test_rand_int_range(0, 3) == 0) {
        rest = new_bitmap(blk, random_granularity(), NULL);
        random_bits(rest, bits);
    }
    wsm_points_add(blk_bs(blk), id, granularity, rest, &error_abort);

    m = model_insert(model_len);
    m->id = *id;
    m->order = order;
    m->granularity = granularity;
    if (rest) {
        bdrv_release_dirty_bitmap(rest);
        m->has_rest = true;
        merge(m->rest, granularity, bits);
    }
    model_enable();
    if (model_find(id) < model_len - 1) {
        model_forget(model_find(id));
    }
}

/* Copy random bits by way of runs into @dest and @set */
static void fill_by_runs(BlockBackend *blk, BdrvDirtyBitmap *dest,
                         uint8_t *set)
{
    uint32_t granularity = random_granularity();
    BdrvDirtyBitmap *src = new_bitmap(blk, random_granularity(), NULL);
    int64_t begin = QEMU_ALIGN_DOWN(g_test_rand_int_range(0, SIZE),
                                    granularity);
    g_autoptr(GByteArray) head = g_byte_array_new();
    g_autoptr(GByteArray) tail = g_byte_array_new();
    Set bits = { 0 }, wire = { 0 };

    random_bits(src, bits);
    merge(wire, granularity, bits);
    wsm_bitmap_to_runs(src, 0, begin, granularity, head);
    wsm_bitmap_to_runs(src, begin, SIZE - begin, granularity, tail);
    bdrv_release_dirty_bitmap(src);

    wsm_bitmap_from_runs(dest, 0, begin, head->data, head->len, granularity,
                         &error_abort);
    wsm_bitmap_from_runs(dest, begin, SIZE - begin, tail->data, tail->len,
                         granularity, &error_abort);
    merge(set, bdrv_dirty_bitmap_granularity(dest), wire);
}

static void step_insert(BlockBackend *blk, const QemuUUID *id)
{
    unsigned order = g_test_rand_int_range(0, 40);
    uint32_t granularity = random_granularity();
    bool with_rest = g_test_rand_bit();
    bool ok = order > 0 && model_find(id) < 0;
    Error *err = NULL;
    unsigned i = 0;
    WsmPoint p;
    Model *m;

    while (i < model_len && model[i].order < order) {
        i++;
    }
    ok &= i == model_len || model[i].order != order;
    g_assert_cmpint(wsm_points_insert(blk_bs(blk), id, order, granularity,
                                      with_rest, &p, &err), ==, ok);
    if (!ok) {
        error_free_or_abort(&err);
        return;
    }
    m = model_insert(i);
    m->id = *id;
    m->order = order;
    m->granularity = granularity;
    m->has_rest = with_rest;
    fill_by_runs(blk, p.since, m->since);
    if (with_rest) {
        fill_by_runs(blk, p.rest, m->rest);
    }
}

static void step_forget_interrupted(BlockBackend *blk)
{
    wsm_points_forget_interrupted(blk_bs(blk));
    for (unsigned i = 0; i < model_len;) {
        if (model[i].has_rest) {
            model_forget(i);
        } else {
            i++;
        }
    }
}

static void step_limit(BlockBackend *blk)
{
    unsigned max = g_test_rand_int_range(0, 10);

    wsm_points_limit(blk_bs(blk), max);
    while (model_len > max) {
        model_remove(0);
    }
}

static void random_step(BlockBackend *blk)
{
    QemuUUID id = uuid_of(g_test_rand_int_range(0, 9));

    switch (g_test_rand_int_range(0, 24)) {
    case 0 ... 9:
        step_write(blk);
        break;
    case 10 ... 14:
        step_add(blk, &id);
        break;
    case 15 ... 17:
        step_insert(blk, &id);
        break;
    case 18 ... 19:
        wsm_points_forget(blk_bs(blk), &id);
        model_forget(model_find(&id));
        break;
    case 20:
        step_forget_interrupted(blk);
        break;
    case 21:
        step_limit(blk);
        break;
    default:
        wsm_points_enable(blk_bs(blk));
        model_enable();
        break;
    }
}

static void test_random(void)
{
    for (int round = 0; round < 20; round++) {
        BlockBackend *blk = open_disk(SIZE);

        model_len = 0;
        for (int i = 0; i < 100; i++) {
            random_step(blk);
            check_model(blk);
            g_assert_cmpuint(wsm_points_last_order(blk_bs(blk)), ==,
                             model_len ? model[model_len - 1].order : 0);
        }
        wsm_points_clear(blk_bs(blk));
        g_assert_cmpuint(count_bitmaps(blk), ==, 0);
        blk_unref(blk);
    }
}

/* Single cases */

/* Three points, the blocks 1, 2, 3 (of 4 KiB) written after each */
static BlockBackend *three_points(void)
{
    BlockBackend *blk = open_disk(SIZE);

    for (unsigned n = 1; n <= 3; n++) {
        add(blk, n);
        write_sectors(blk, 8 * n, 1);
    }
    check_points(blk, "123");
    return blk;
}

static void test_names(void)
{
    BlockBackend *blk = three_points();
    g_autofree char *name = name_of(2, SIZE, 2, "");
    WsmPoint p;

    g_assert_true(find(blk, 2, &p));
    g_assert_cmpstr(bdrv_dirty_bitmap_name(p.since), ==, name);
    g_assert_null(p.rest);
    g_assert_true(wsm_points_is_ours(p.since));
    blk_unref(blk);
}

static void test_foreign(void)
{
    static const char *const names[] = {
        "wsm-x", "wsm-", "wsm", "x",
        "wsm-0000000001-notauuid",
        "wsm-0000000001-5-notauuid",
        /* no size, order 0, order with 9, 11 digits or a sign, too high */
        "wsm-0000000009-ab000000-0000-0000-0000-000000000001",
        "wsm-0000000000-1051136-ab000000-0000-0000-0000-000000000001",
        "wsm-000000009-1051136-ab000000-0000-0000-0000-000000000001",
        "wsm-00000000009-1051136-ab000000-0000-0000-0000-000000000001",
        "wsm-+000000009-1051136-ab000000-0000-0000-0000-000000000001",
        "wsm-4294967296-1051136-ab000000-0000-0000-0000-000000000001",
        "wsm-9999999999-1051136-ab000000-0000-0000-0000-000000000001",
        /* the size, the UUID, what comes after it */
        "wsm-0000000009-01051136-ab000000-0000-0000-0000-000000000001",
        "wsm-0000000009- 1051136-ab000000-0000-0000-0000-000000000001",
        "wsm-0000000009-1051136-AB000000-0000-0000-0000-000000000001",
        "wsm-0000000009-1051136-ab000000-0000-0000-0000-00000000001",
        "wsm-0000000009-1051136-ab000000-0000-0000-0000-000000000001-",
        "wsm-0000000009-1051136-ab000000-0000-0000-0000-000000000001-res",
        "wsm-0000000009-1051136-ab000000-0000-0000-0000-000000000001-rest1",
        "Wsm-0000000009-1051136-ab000000-0000-0000-0000-000000000001",
    };
    BlockBackend *blk = open_disk(SIZE);
    BlockDriverState *bs = blk_bs(blk);
    unsigned count = ARRAY_SIZE(names) + 1;
    BdrvDirtyBitmap *anonymous = new_bitmap(blk, 4 * KIB, NULL);

    QEMU_BUILD_BUG_ON(SIZE != 1051136);
    for (int i = 0; i < ARRAY_SIZE(names); i++) {
        BdrvDirtyBitmap *bitmap = new_bitmap(blk, 4 * KIB, names[i]);

        bdrv_enable_dirty_bitmap(bitmap);
        g_assert_false(wsm_points_is_ours(bitmap));
    }
    g_assert_false(wsm_points_is_ours(anonymous));
    check_points(blk, "");
    g_assert_cmpuint(wsm_points_last_order(bs), ==, 0);
    add(blk, 1);
    add(blk, 2);
    forget(blk, 2);
    wsm_points_limit(bs, 0);
    wsm_points_clear(bs);
    wsm_points_enable(bs);
    g_assert_true(wsm_points_unpersist(bs, &error_abort));
    g_assert_cmpuint(count_bitmaps(blk), ==, count);
    for (int i = 0; i < ARRAY_SIZE(names); i++) {
        g_assert_true(bdrv_dirty_bitmap_enabled(
                          bdrv_find_dirty_bitmap(bs, names[i])));
    }
    bdrv_release_dirty_bitmap(anonymous);
    blk_unref(blk);
}

/* Nothing comes after the highest order; nothing has changed then */
static void test_last_order(void)
{
    BlockBackend *blk = open_disk(SIZE);
    QemuUUID id = uuid_of(1), id2 = uuid_of(2);
    Error *err = NULL;
    WsmPoint p;

    wsm_points_insert(blk_bs(blk), &id, UINT_MAX - 1, 4 * KIB, false, &p,
                      &error_abort);
    add(blk, 2);
    g_assert_cmpuint(wsm_points_last_order(blk_bs(blk)), ==, UINT_MAX);
    check_points(blk, "12");
    g_assert_false(wsm_points_add(blk_bs(blk), &id2, 4 * KIB, NULL, &err));
    error_free_or_abort(&err);
    check_points(blk, "12");
    check_tracking(blk);
    blk_unref(blk);
}

static void test_bad_arguments(void)
{
    BlockBackend *blk = three_points(), *other = open_disk(SIZE - 512);
    BdrvDirtyBitmap *rest = new_bitmap(other, 4 * KIB, NULL);
    static const uint32_t bad[] = { 0, 1, 256, 4095, 3 * KIB };
    QemuUUID id = uuid_of(2), unknown = uuid_of(9);
    Error *err = NULL;
    WsmPoint p;

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_assert_false(wsm_points_add(blk_bs(blk), &id, bad[i], NULL, &err));
        error_free_or_abort(&err);
        g_assert_false(wsm_points_insert(blk_bs(blk), &unknown, 9, bad[i],
                                         true, &p, &err));
        error_free_or_abort(&err);
    }
    /* A rest of a disk of another size */
    g_assert_false(wsm_points_add(blk_bs(blk), &id, 4 * KIB, rest, &err));
    error_free_or_abort(&err);

    g_assert_false(wsm_points_changed(blk_bs(blk), &unknown, rest, &err));
    error_free_or_abort(&err);
    g_assert_false(wsm_points_changed(blk_bs(blk), &id, rest, &err));
    error_free_or_abort(&err);
    g_assert_cmpint(changed(blk, 9), ==, 0);
    g_assert_false(find(blk, 9, &p));
    forget(blk, 9);

    check_points(blk, "123");
    check_tracking(blk);
    g_assert_cmpuint(count_bitmaps(blk), ==, 3);
    bdrv_release_dirty_bitmap(rest);
    blk_unref(other);
    blk_unref(blk);
}

static void test_inconsistent(void)
{
    BlockBackend *blk = three_points();
    WsmPoint p;

    find(blk, 2, &p);
    bdrv_dirty_bitmap_set_persistence(p.since, true);
    bdrv_dirty_bitmap_set_inconsistent(p.since);
    check_points(blk, "3");
    check_tracking(blk);
    g_assert_false(find(blk, 1, NULL));
    g_assert_cmpint(changed(blk, 1), ==, 0);

    /* Point 1 is not usable again when the reason is gone */
    forget(blk, 2);
    check_points(blk, "3");
    g_assert_cmpuint(count_bitmaps(blk), ==, 1);

    /* The newest: nothing is usable, and nothing is enabled */
    add(blk, 4);
    find(blk, 4, &p);
    bdrv_dirty_bitmap_set_persistence(p.since, true);
    bdrv_dirty_bitmap_set_inconsistent(p.since);
    check_points(blk, "");
    wsm_points_enable(blk_bs(blk));
    g_assert_false(bdrv_dirty_bitmap_enabled(p.since));
    g_assert_cmpuint(wsm_points_last_order(blk_bs(blk)), ==, 4);

    add(blk, 5);
    check_points(blk, "5");
    check_tracking(blk);
    wsm_points_limit(blk_bs(blk), 8);
    check_points(blk, "5");
    g_assert_cmpuint(count_bitmaps(blk), ==, 1);
    blk_unref(blk);
}

/* The same for the point before an unusable one, and for one's rest */
static void test_inconsistent_rest(void)
{
    BlockBackend *blk = three_points();
    BdrvDirtyBitmap *rest = new_bitmap(blk, 64 * KIB, NULL);
    QemuUUID id = uuid_of(4);
    WsmPoint p;

    wsm_points_add(blk_bs(blk), &id, 4 * KIB, rest, &error_abort);
    add(blk, 5);
    find(blk, 4, &p);
    bdrv_dirty_bitmap_set_persistence(p.rest, true);
    bdrv_dirty_bitmap_set_inconsistent(p.rest);
    check_points(blk, "5");
    forget(blk, 5);
    check_points(blk, "");
    g_assert_cmpuint(count_bitmaps(blk), ==, 1);
    bdrv_release_dirty_bitmap(rest);
    blk_unref(blk);
}

/* What a job of the user's works with is left alone and not relied upon */
static void test_busy(void)
{
    BlockBackend *blk = three_points();
    QemuUUID id = uuid_of(2);
    Error *err = NULL;
    WsmPoint p;

    find(blk, 2, &p);
    bdrv_dirty_bitmap_set_busy(p.since, true);
    check_points(blk, "3");
    g_assert_false(wsm_points_add(blk_bs(blk), &id, 4 * KIB, NULL, &err));
    error_free_or_abort(&err);
    check_points(blk, "3");
    wsm_points_clear(blk_bs(blk));
    g_assert_cmpuint(count_bitmaps(blk), ==, 1);
    bdrv_dirty_bitmap_set_busy(p.since, false);
    wsm_points_clear(blk_bs(blk));
    g_assert_cmpuint(count_bitmaps(blk), ==, 0);
    blk_unref(blk);
}

static void test_stray_rest(void)
{
    BlockBackend *blk = open_disk(SIZE);
    g_autofree char *name = name_of(7, SIZE, 1, "-rest");
    BdrvDirtyBitmap *stray = new_bitmap(blk, 4 * KIB, name);
    QemuUUID id = uuid_of(1);
    Error *err = NULL;
    WsmPoint p;

    g_assert_true(wsm_points_is_ours(stray));
    check_points(blk, "");
    g_assert_cmpuint(wsm_points_last_order(blk_bs(blk)), ==, 7);
    g_assert_false(wsm_points_insert(blk_bs(blk), &id, 7, 4 * KIB, false, &p,
                                     &err));
    error_free_or_abort(&err);

    /* It does not become the rest of a new point of that id */
    add(blk, 1);
    check_points(blk, "1");
    find(blk, 1, &p);
    g_assert_null(p.rest);
    g_assert_cmpuint(p.order, ==, 8);
    wsm_points_limit(blk_bs(blk), 1);
    check_points(blk, "1");
    g_assert_cmpuint(count_bitmaps(blk), ==, 1);

    new_bitmap(blk, 4 * KIB, name);
    wsm_points_clear(blk_bs(blk));
    g_assert_cmpuint(count_bitmaps(blk), ==, 0);
    blk_unref(blk);
}

static void test_granularities(void)
{
    BlockBackend *blk = open_disk(SIZE);
    QemuUUID id = uuid_of(1), id2 = uuid_of(2), id3 = uuid_of(3);

    wsm_points_add(blk_bs(blk), &id, 64 * KIB, NULL, &error_abort);
    write_sectors(blk, 0, 1);
    wsm_points_add(blk_bs(blk), &id2, 4 * KIB, NULL, &error_abort);
    write_sectors(blk, 128, 1);
    wsm_points_add(blk_bs(blk), &id3, 1024 * KIB, NULL, &error_abort);
    g_assert_cmpint(changed(blk, 1), ==, 68 * KIB);
    g_assert_cmpint(changed(blk, 2), ==, 4 * KIB);
    g_assert_cmpint(changed(blk, 3), ==, 0);

    /* Fine into coarse: more, not less */
    forget(blk, 2);
    g_assert_cmpint(changed(blk, 1), ==, 128 * KIB);

    /* The last block goes beyond the end of the disk */
    write_sectors(blk, SECTORS - 1, 1);
    g_assert_cmpint(changed(blk, 3), ==, 1024 * KIB);
    write_sectors(blk, 0, SECTORS);
    g_assert_cmpint(changed(blk, 3), ==, SIZE);
    blk_unref(blk);
}

static void test_same_id(void)
{
    BlockBackend *blk = three_points();
    WsmPoint p;

    add(blk, 2);
    check_points(blk, "132");
    check_tracking(blk);
    g_assert_cmpint(changed(blk, 1), ==, 12 * KIB);
    g_assert_cmpint(changed(blk, 3), ==, 4 * KIB);
    g_assert_cmpint(changed(blk, 2), ==, 0);

    /* The newest again, with a rest that is its own bitmap */
    write_sectors(blk, 80, 16);
    find(blk, 2, &p);
    wsm_points_add(blk_bs(blk), &p.id, 4 * KIB, p.since, &error_abort);
    check_points(blk, "132");
    check_tracking(blk);
    g_assert_cmpint(changed(blk, 3), ==, 12 * KIB);
    g_assert_cmpint(changed(blk, 2), ==, 8 * KIB);
    find(blk, 2, &p);
    g_assert_nonnull(p.rest);
    g_assert_cmpuint(p.order, ==, 5);
    blk_unref(blk);
}

static void test_forget(void)
{
    BlockBackend *blk = three_points();

    forget(blk, 2);
    check_points(blk, "13");
    check_tracking(blk);
    g_assert_cmpint(changed(blk, 1), ==, 12 * KIB);
    g_assert_cmpint(changed(blk, 3), ==, 4 * KIB);

    /* Without the newest, the one before it sees what is written */
    forget(blk, 3);
    check_points(blk, "1");
    check_tracking(blk);
    g_assert_cmpint(changed(blk, 1), ==, 12 * KIB);
    write_sectors(blk, 80, 1);
    g_assert_cmpint(changed(blk, 1), ==, 16 * KIB);

    forget(blk, 1);
    check_points(blk, "");
    g_assert_cmpuint(count_bitmaps(blk), ==, 0);
    blk_unref(blk);

    /* The oldest: nobody needs its bits */
    blk = three_points();
    forget(blk, 1);
    check_points(blk, "23");
    check_tracking(blk);
    g_assert_cmpint(changed(blk, 2), ==, 8 * KIB);
    blk_unref(blk);
}

static void test_limit(void)
{
    BlockBackend *blk = three_points();

    wsm_points_limit(blk_bs(blk), 3);
    check_points(blk, "123");
    wsm_points_limit(blk_bs(blk), 2);
    check_points(blk, "23");
    g_assert_cmpint(changed(blk, 2), ==, 8 * KIB);
    wsm_points_limit(blk_bs(blk), 0);
    check_points(blk, "");
    g_assert_cmpuint(count_bitmaps(blk), ==, 0);
    wsm_points_limit(blk_bs(blk), 0);
    blk_unref(blk);
}

static void test_from_runs(void)
{
    static const struct {
        int64_t offset, bytes;
        uint8_t runs[4];
        size_t size;
    } bad[] = {
        { 0, SIZE + 1, { 0, 1 }, 2 },
        { 512, SIZE, { 0, 1 }, 2 },
        { SIZE + 512, 0, { 0 }, 0 },
        { -512, 512, { 0, 1 }, 2 },
        { 0, -512, { 0, 1 }, 2 },
        { 0, 4 * KIB, { 0, 2 }, 2 },
        { 0, 4 * KIB, { 1, 1 }, 2 },
        { 0, 4 * KIB, { 0 }, 1 },
        { 0, 4 * KIB, { 0, 0 }, 2 },
    };
    BlockBackend *blk = open_disk(SIZE);
    BdrvDirtyBitmap *bitmap = new_bitmap(blk, 4 * KIB, NULL);
    Error *err = NULL;

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_assert_false(wsm_bitmap_from_runs(bitmap, bad[i].offset,
                                            bad[i].bytes, bad[i].runs,
                                            bad[i].size, 4 * KIB, &err));
        error_free_or_abort(&err);
        g_assert_cmpint(bdrv_get_dirty_count(bitmap), ==, 0);
    }
    wsm_bitmap_from_runs(bitmap, SIZE, 0, NULL, 0, 4 * KIB, &error_abort);
    g_assert_cmpint(bdrv_get_dirty_count(bitmap), ==, 0);

    /* A last block that is cut off at the end of the disk */
    wsm_bitmap_from_runs(bitmap, SIZE - 2560, 2560,
                         (const uint8_t []) { 0, 1 }, 2, 4 * KIB,
                         &error_abort);
    g_assert_cmpint(bdrv_get_dirty_count(bitmap), ==, 4 * KIB);
    bdrv_release_dirty_bitmap(bitmap);
    blk_unref(blk);
}

/* Files in a directory of their own */

static char *dir;

static char *file_new(const char *name, const char *format)
{
    char *path = g_build_filename(dir, name, NULL);

    bdrv_img_create(path, format, NULL, NULL, NULL, SIZE, 0, true,
                    &error_abort);
    return path;
}

static void resize(BlockBackend *blk, int64_t size)
{
    blk_truncate(blk, size, true, PREALLOC_MODE_OFF, 0, &error_abort);
}

static void check_resize(const char *driver)
{
    g_autofree char *path = file_new("resize", driver);
    BlockBackend *blk = open_file(path, driver, BDRV_O_RDWR | BDRV_O_RESIZE);

    add(blk, 1);
    resize(blk, SIZE + 64 * KIB);
    check_points(blk, "");
    add(blk, 2);
    check_points(blk, "2");
    check_tracking(blk);

    /* Point 1 fits again, but lies before one that does not */
    resize(blk, SIZE);
    check_points(blk, "");
    wsm_points_limit(blk_bs(blk), 8);
    g_assert_cmpuint(count_bitmaps(blk), ==, 0);

    add(blk, 3);
    resize(blk, SIZE - 512);
    check_points(blk, "");
    forget(blk, 3);
    g_assert_cmpuint(count_bitmaps(blk), ==, 0);
    blk_unref(blk);
    g_unlink(path);
}

/* The size is the same again, but what was cut off is not known any more */
static void check_shrink_and_grow(const char *driver)
{
    g_autofree char *path = file_new("shrink", driver);
    BlockBackend *blk = open_file(path, driver, BDRV_O_RDWR | BDRV_O_RESIZE);

    resize(blk, SIZE);
    add(blk, 1);
    g_assert_cmpint(changed(blk, 1), ==, 0);
    resize(blk, SIZE - 64 * KIB);
    resize(blk, SIZE);
    check_points(blk, "1");
    g_assert_cmpint(changed(blk, 1), >=, 64 * KIB);
    blk_unref(blk);
    g_unlink(path);
}

static void test_shrink_and_grow(void)
{
    check_shrink_and_grow("raw");
}

static void test_id(void)
{
    QemuUUID session = uuid_of(7);
    QemuUUID first = wsm_points_id(&session, 0);
    QemuUUID second = wsm_points_id(&session, 1);

    g_assert_true(qemu_uuid_is_equal(&first, &session));
    g_assert_false(qemu_uuid_is_equal(&second, &session));
    second = wsm_points_id(&second, 1);
    g_assert_true(qemu_uuid_is_equal(&second, &session));
}

static void test_resize(void)
{
    check_resize("raw");
    check_resize("qcow2");
}

static void copy_file(const char *from, const char *to)
{
    g_autofree char *data = NULL;
    gsize size;

    g_assert_true(g_file_get_contents(from, &data, &size, NULL));
    g_assert_true(g_file_set_contents(to, data, size, NULL));
}

/* How many bitmaps has the image, opened without a chance to change it? */
static unsigned bitmaps_in(const char *path)
{
    g_autofree char *copy = g_strconcat(path, ".copy", NULL);
    BlockBackend *blk;
    unsigned count;

    copy_file(path, copy);
    blk = open_file(copy, "qcow2", 0);
    count = count_bitmaps(blk);
    blk_unref(blk);
    g_unlink(copy);
    return count;
}

#define SEAL    1       /* one more bitmap in an image with points */

/* Points 1, 2 (with a rest) and 3, stored in a qcow2 image */
static char *stored_points(void)
{
    char *path = file_new("disk.qcow2", "qcow2");
    BlockBackend *blk = open_file(path, "qcow2", BDRV_O_RDWR);
    BdrvDirtyBitmap *rest = new_bitmap(blk, 4 * KIB, NULL);
    QemuUUID id = uuid_of(2);

    g_assert_true(wsm_points_can_persist(blk_bs(blk)));
    bdrv_set_dirty_bitmap(rest, 128 * KIB, 16 * KIB);
    add(blk, 1);
    write_sectors(blk, 0, 8);
    wsm_points_add(blk_bs(blk), &id, 64 * KIB, rest, &error_abort);
    write_sectors(blk, 8, 8);
    add(blk, 3);
    write_sectors(blk, SECTORS - 1, 1);
    bdrv_release_dirty_bitmap(rest);
    wsm_points_persist(blk_bs(blk));
    g_assert_cmpuint(bitmaps_in(path), ==, 0);
    blk_unref(blk);
    g_assert_cmpuint(bitmaps_in(path), ==, 4 + SEAL);
    return path;
}

static void check_stored(BlockBackend *blk)
{
    WsmPoint p;

    check_points(blk, "123");
    check_tracking(blk);
    find(blk, 2, &p);
    g_assert_cmpint(bdrv_get_dirty_count(p.since), ==, 64 * KIB);
    g_assert_true(bdrv_dirty_bitmap_get(p.rest, 128 * KIB));
    g_assert_cmpint(bdrv_get_dirty_count(p.rest), ==, 64 * KIB);
    g_assert_cmpint(changed(blk, 3), ==, 4 * KIB);
}

static void test_persist(void)
{
    g_autofree char *path = stored_points();
    BlockBackend *blk = open_file(path, "qcow2", BDRV_O_RDWR);

    /* Clean shutdown and start, several times */
    for (int i = 0; i < 3; i++) {
        check_stored(blk);
        wsm_points_persist(blk_bs(blk));
        blk_unref(blk);
        blk = open_file(path, "qcow2", BDRV_O_RDWR);
    }

    /* Gone from the image at once, and at the end; in memory they stay */
    check_stored(blk);
    wsm_points_unpersist(blk_bs(blk), &error_abort);
    g_assert_cmpuint(bitmaps_in(path), ==, 0);
    check_stored(blk);
    write_sectors(blk, 80, 8);
    g_assert_cmpint(changed(blk, 3), ==, 8 * KIB);
    g_assert_cmpuint(bitmaps_in(path), ==, 0);
    wsm_points_unpersist(blk_bs(blk), &error_abort);
    blk_unref(blk);
    g_assert_cmpuint(bitmaps_in(path), ==, 0);
    g_unlink(path);
}

/* A forgotten point is not in the image either */
static void test_persist_forget(void)
{
    g_autofree char *path = stored_points();
    BlockBackend *blk = open_file(path, "qcow2", BDRV_O_RDWR);

    forget(blk, 2);
    g_assert_cmpuint(bitmaps_in(path), ==, 2 + SEAL);
    blk_unref(blk);
    blk = open_file(path, "qcow2", BDRV_O_RDWR);
    check_points(blk, "13");
    check_tracking(blk);
    g_assert_cmpint(changed(blk, 1), ==, 68 * KIB);
    blk_unref(blk);
    g_unlink(path);
}

/* An image that was open for writing when QEMU was killed */
static void test_persist_crash(void)
{
    g_autofree char *path = stored_points();
    g_autofree char *copy = g_strconcat(path, ".crash", NULL);
    BlockBackend *blk = open_file(path, "qcow2", BDRV_O_RDWR);

    copy_file(path, copy);
    blk_unref(blk);

    /* Its points are inconsistent; the image is cleared of them */
    blk = open_file(copy, "qcow2", BDRV_O_RDWR);
    g_assert_cmpuint(count_bitmaps(blk), ==, 4 + SEAL);
    check_points(blk, "");
    add(blk, 4);
    check_points(blk, "4");
    wsm_points_persist(blk_bs(blk));
    wsm_points_unpersist(blk_bs(blk), &error_abort);
    check_points(blk, "4");
    g_assert_cmpuint(count_bitmaps(blk), ==, 1);
    g_assert_cmpuint(bitmaps_in(copy), ==, 0);
    blk_unref(blk);
    g_assert_cmpuint(bitmaps_in(copy), ==, 0);
    g_unlink(copy);
    g_unlink(path);
}

/* What the user's commands ask before they touch a bitmap */
static void test_held(void)
{
    BlockBackend *blk = three_points();
    BdrvDirtyBitmap *mine = new_bitmap(blk, 4 * KIB, "mine");
    BdrvDirtyBitmap *bitmap;
    QemuUUID id = uuid_of(1);
    Error *err = NULL;
    WsmPoint p;

    check_points(blk, "123");
    FOR_EACH_DIRTY_BITMAP(blk_bs(blk), bitmap) {
        g_assert_cmpint(bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_DEFAULT,
                                                NULL), ==,
                        bitmap == mine ? 0 : -1);
    }
    find(blk, 3, &p);
    g_assert_false(bdrv_merge_dirty_bitmap(p.since, mine, NULL, &err));
    error_free_or_abort(&err);
    g_assert_cmpint(bdrv_dirty_bitmap_create_successor(p.since, NULL), <, 0);

    /* We do get at them, and they are held again then */
    wsm_points_merge(p.since, mine, &error_abort);
    wsm_points_changed(blk_bs(blk), &id, mine, &error_abort);
    g_assert_cmpint(bdrv_dirty_bitmap_check(p.since, BDRV_BITMAP_BUSY, NULL),
                    <, 0);
    g_assert_cmpint(bdrv_dirty_bitmap_check(mine, BDRV_BITMAP_BUSY, NULL), ==,
                    0);
    wsm_points_clear(blk_bs(blk));
    g_assert_cmpuint(count_bitmaps(blk), ==, 1);
    bdrv_release_dirty_bitmap(mine);
    blk_unref(blk);
}

static void remove_stored(BlockBackend *blk, BdrvDirtyBitmap *bitmap)
{
    bdrv_remove_persistent_dirty_bitmap(blk_bs(blk),
                                        bdrv_dirty_bitmap_name(bitmap),
                                        &error_abort);
    bdrv_release_dirty_bitmap(bitmap);
}

static BdrvDirtyBitmap *find_seal(BlockBackend *blk)
{
    BdrvDirtyBitmap *bitmap;

    FOR_EACH_DIRTY_BITMAP(blk_bs(blk), bitmap) {
        if (g_str_has_prefix(bdrv_dirty_bitmap_name(bitmap), "wsm-seal-")) {
            g_assert_true(wsm_points_is_ours(bitmap));
            return bitmap;
        }
    }
    g_assert_not_reached();
}

/* What qemu-img bitmap can do to an image with points 1, 2 (rest) and 3 */
enum {
    WRITE, REMOVE_NEWEST, REMOVE_OLDEST, REMOVE_REST, REMOVE_SEAL,
    DISABLE_NEWEST, ENABLE_OLDER, CLEAR_NEWEST, CLEAR_OLDER, REMOVE_AND_ENABLE,
    REMOVE_ALL, TAMPER_MAX
};

static void tamper(BlockBackend *blk, int how)
{
    WsmPoint one, two, three;

    find(blk, 1, &one);
    find(blk, 2, &two);
    find(blk, 3, &three);
    switch (how) {
    case WRITE:
        write_sectors(blk, 80, 8);
        break;
    case REMOVE_AND_ENABLE:
        bdrv_enable_dirty_bitmap(two.since);
        /* fall through */
    case REMOVE_NEWEST:
        remove_stored(blk, three.since);
        break;
    case REMOVE_OLDEST:
        remove_stored(blk, one.since);
        break;
    case REMOVE_REST:
        remove_stored(blk, two.rest);
        break;
    case REMOVE_SEAL:
        remove_stored(blk, find_seal(blk));
        break;
    case DISABLE_NEWEST:
        bdrv_disable_dirty_bitmap(three.since);
        break;
    case ENABLE_OLDER:
        bdrv_enable_dirty_bitmap(two.since);
        break;
    case CLEAR_NEWEST:
        bdrv_clear_dirty_bitmap(three.since, NULL);
        break;
    case CLEAR_OLDER:
        bdrv_clear_dirty_bitmap(two.since, NULL);
        break;
    default:
        wsm_points_clear(blk_bs(blk));
        break;
    }
}

static void test_tampered(void)
{
    for (int how = 0; how < TAMPER_MAX; how++) {
        g_autofree char *path = stored_points();
        BlockBackend *blk = open_file(path, "qcow2", BDRV_O_RDWR);
        bool good = how == WRITE || how == REMOVE_ALL;
        Error *err = NULL;

        tamper(blk, how);
        blk_unref(blk);
        blk = open_file(path, "qcow2", BDRV_O_RDWR);
        g_assert_cmpint(wsm_points_unpersist(blk_bs(blk), &err), ==, good);
        if (!good) {
            error_free_or_abort(&err);
            wsm_points_clear(blk_bs(blk));
        }
        check_points(blk, how == WRITE ? "123" : "");
        g_assert_cmpuint(count_bitmaps(blk), ==, how == WRITE ? 4 : 0);
        g_assert_cmpint(changed(blk, 3), ==, how == WRITE ? 8 * KIB : 0);
        g_assert_cmpuint(bitmaps_in(path), ==, 0);
        blk_unref(blk);
        g_unlink(path);
    }
}

/* As `qemu-img resize` or block_resize before the guest ran */
static void check_resized_at_rest(int64_t between, bool good)
{
    g_autofree char *path = file_new("disk.qcow2", "qcow2");
    BlockBackend *blk = open_file(path, "qcow2", BDRV_O_RDWR);
    Error *err = NULL;

    add(blk, 1);
    write_sectors(blk, 0, 8);
    add(blk, 2);
    wsm_points_persist(blk_bs(blk));
    blk_unref(blk);

    blk = open_file(path, "qcow2", BDRV_O_RDWR | BDRV_O_RESIZE);
    resize(blk, between);
    resize(blk, SIZE);
    blk_unref(blk);
    blk = open_file(path, "qcow2", BDRV_O_RDWR);
    g_assert_cmpint(wsm_points_unpersist(blk_bs(blk), &err), ==, good);
    if (good) {
        check_points(blk, "12");
    } else {
        error_free_or_abort(&err);
    }
    blk_unref(blk);
    g_unlink(path);
}

static void test_resized_at_rest(void)
{
    check_resized_at_rest(SIZE, true);
    check_resized_at_rest(SIZE + 64 * KIB, true);
    check_resized_at_rest(SIZE - 64 * KIB, false);
    check_resized_at_rest(64 * KIB, false);
}

/* A read-only image keeps what is stored, and nothing tries to write */
static void test_persist_read_only(void)
{
    g_autofree char *path = stored_points();
    BlockBackend *blk = open_file(path, "qcow2", 0);
    Error *err = NULL;

    check_points(blk, "123");
    g_assert_false(wsm_points_unpersist(blk_bs(blk), &err));
    error_free_or_abort(&err);
    check_points(blk, "123");
    wsm_points_persist(blk_bs(blk));
    forget(blk, 3);
    wsm_points_clear(blk_bs(blk));
    g_assert_cmpuint(count_bitmaps(blk), ==, 0);
    blk_unref(blk);

    blk = open_file(path, "qcow2", BDRV_O_RDWR);
    check_stored(blk);
    blk_unref(blk);
    g_unlink(path);
}

/* Version 2 of qcow2 has no bitmaps */
static void test_persist_old_version(void)
{
    g_autofree char *path = g_build_filename(dir, "old.qcow2", NULL);
    char options[] = "compat=0.10";
    BlockBackend *blk;

    bdrv_img_create(path, "qcow2", NULL, NULL, options, SIZE, 0, true,
                    &error_abort);
    blk = open_file(path, "qcow2", BDRV_O_RDWR);
    g_assert_false(wsm_points_can_persist(blk_bs(blk)));
    add(blk, 1);
    wsm_points_persist(blk_bs(blk));
    check_points(blk, "1");
    wsm_points_unpersist(blk_bs(blk), &error_abort);
    check_points(blk, "1");
    blk_unref(blk);
    g_assert_cmpuint(bitmaps_in(path), ==, 0);
    g_unlink(path);
}

static void test_persist_unable(void)
{
    BlockBackend *blk = three_points();
    WsmPoint p;

    g_assert_false(wsm_points_can_persist(blk_bs(blk)));
    wsm_points_persist(blk_bs(blk));
    find(blk, 3, &p);
    g_assert_false(bdrv_dirty_bitmap_get_persistence(p.since));
    wsm_points_unpersist(blk_bs(blk), &error_abort);
    check_points(blk, "123");
    check_tracking(blk);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    int ret;

    qemu_init_main_loop(&error_abort);
    bdrv_init();
    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("wsm-points-XXXXXX", NULL);
    g_assert_nonnull(dir);

    g_test_add_func("/wsm/points/random", test_random);
    g_test_add_func("/wsm/points/names", test_names);
    g_test_add_func("/wsm/points/foreign", test_foreign);
    g_test_add_func("/wsm/points/last-order", test_last_order);
    g_test_add_func("/wsm/points/bad-arguments", test_bad_arguments);
    g_test_add_func("/wsm/points/inconsistent", test_inconsistent);
    g_test_add_func("/wsm/points/inconsistent-rest", test_inconsistent_rest);
    g_test_add_func("/wsm/points/busy", test_busy);
    g_test_add_func("/wsm/points/stray-rest", test_stray_rest);
    g_test_add_func("/wsm/points/granularities", test_granularities);
    g_test_add_func("/wsm/points/same-id", test_same_id);
    g_test_add_func("/wsm/points/forget", test_forget);
    g_test_add_func("/wsm/points/limit", test_limit);
    g_test_add_func("/wsm/points/from-runs", test_from_runs);
    g_test_add_func("/wsm/points/resize", test_resize);
    g_test_add_func("/wsm/points/shrink-and-grow", test_shrink_and_grow);
    g_test_add_func("/wsm/points/resized-at-rest", test_resized_at_rest);
    g_test_add_func("/wsm/points/id", test_id);
    g_test_add_func("/wsm/points/persist", test_persist);
    g_test_add_func("/wsm/points/persist/forget", test_persist_forget);
    g_test_add_func("/wsm/points/held", test_held);
    g_test_add_func("/wsm/points/persist/tampered", test_tampered);
    g_test_add_func("/wsm/points/persist/crash", test_persist_crash);
    g_test_add_func("/wsm/points/persist/read-only", test_persist_read_only);
    g_test_add_func("/wsm/points/persist/old-version",
                    test_persist_old_version);
    g_test_add_func("/wsm/points/persist/unable", test_persist_unable);

    ret = g_test_run();
    g_rmdir(dir);
    g_free(dir);
    return ret;
}
