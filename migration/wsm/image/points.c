/*
 * Whole-system migration: the sync points of an image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "block/block.h"
#include "block/block_int.h"
#include "migration/wsm/image/points.h"

QemuUUID wsm_points_id(const QemuUUID *session, unsigned disk)
{
    QemuUUID id = *session;

    stw_be_p(id.data + 14, lduw_be_p(id.data + 14) ^ disk);
    return id;
}

/* What the name of a bitmap says */
typedef struct PointName {
    QemuUUID id;
    unsigned order;
    int64_t size;               /* of the node when the point was made */
    bool is_rest;
} PointName;

static char *name_format(const PointName *n)
{
    g_autofree char *uuid = qemu_uuid_unparse_strdup(&n->id);

    return g_strdup_printf("wsm-%010u-%" PRId64 "-%s%s", n->order, n->size,
                           uuid, n->is_rest ? "-rest" : "");
}

static bool name_parse(const char *name, PointName *n)
{
    const size_t uuid_len = UUID_STR_LEN - 1;
    g_autofree char *uuid = NULL;
    g_autofree char *again = NULL;
    const char *p;

    if (!name || !strstart(name, "wsm-", &p) ||
        qemu_strtoui(p, &p, 10, &n->order) < 0 || *p++ != '-' ||
        qemu_strtoi64(p, &p, 10, &n->size) < 0 || *p++ != '-') {
        return false;
    }
    uuid = g_strndup(p, uuid_len);
    if (qemu_uuid_parse(uuid, &n->id) < 0) {
        return false;
    }
    n->is_rest = strlen(p) > uuid_len;

    /* Signs, blanks, missing zeroes, more text: it is not one of ours */
    again = name_format(n);
    return n->order > 0 && !strcmp(name, again);
}

static bool bitmap_parse(const BdrvDirtyBitmap *bitmap, PointName *n)
{
    return name_parse(bdrv_dirty_bitmap_name(bitmap), n);
}

bool wsm_points_is_seal(const BdrvDirtyBitmap *bitmap)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);

    return name && g_str_has_prefix(name, WSM_SEAL_PREFIX);
}

bool wsm_points_is_ours(const BdrvDirtyBitmap *bitmap)
{
    PointName n;

    return bitmap_parse(bitmap, &n) || wsm_points_is_seal(bitmap);
}

/* Shut out the user's commands, or let ourselves in */
static void set_held(const BdrvDirtyBitmap *bitmap, bool held)
{
    if (wsm_points_is_ours(bitmap)) {
        bdrv_dirty_bitmap_set_held((BdrvDirtyBitmap *)bitmap, held);
    }
}

/* Is it fit for use?  The user's commands keep off it from now on. */
static bool bitmap_check(BdrvDirtyBitmap *bitmap, uint32_t flags, Error **errp)
{
    bool ok;

    set_held(bitmap, false);
    ok = !bdrv_dirty_bitmap_check(bitmap, flags, errp);
    set_held(bitmap, true);
    return ok;
}

bool wsm_points_merge(BdrvDirtyBitmap *dest, const BdrvDirtyBitmap *src,
                      Error **errp)
{
    bool ok;

    GLOBAL_STATE_CODE();
    set_held(dest, false);
    set_held(src, false);
    ok = bdrv_merge_dirty_bitmap(dest, src, NULL, errp);
    set_held(dest, true);
    set_held(src, true);
    return ok;
}

static WsmPoint *point_at(GArray *points, unsigned i)
{
    return &g_array_index(points, WsmPoint, i);
}

static int compare_order(const void *a, const void *b)
{
    const WsmPoint *p = a, *q = b;

    return p->order < q->order ? -1 : p->order > q->order;
}

static BdrvDirtyBitmap *find_rest(BlockDriverState *bs, PointName n)
{
    g_autofree char *name = NULL;

    n.is_rest = true;
    name = name_format(&n);
    return bdrv_find_dirty_bitmap(bs, name);
}

/* All points, usable or not, oldest first */
static GArray *list_all(BlockDriverState *bs)
{
    GArray *points = g_array_new(false, false, sizeof(WsmPoint));
    BdrvDirtyBitmap *bitmap;
    PointName n;

    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (bitmap_parse(bitmap, &n) && !n.is_rest) {
            WsmPoint p = {
                .id = n.id,
                .order = n.order,
                .since = bitmap,
                .rest = find_rest(bs, n),
            };

            g_array_append_val(points, p);
        }
    }
    g_array_sort(points, compare_order);
    return points;
}

GPtrArray *wsm_points_bitmaps(BlockDriverState *bs)
{
    GPtrArray *bitmaps = g_ptr_array_new();
    BdrvDirtyBitmap *bitmap;

    GLOBAL_STATE_CODE();
    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (wsm_points_is_ours(bitmap)) {
            g_ptr_array_add(bitmaps, bitmap);
        }
    }
    return bitmaps;
}

/*
 * When a node is resized, the block layer gives its bitmaps the same size, with
 * clean blocks in the new area.  Hence the comparison with the size in the
 * name.
 */
static bool bitmap_is_usable(BdrvDirtyBitmap *bitmap, int64_t size)
{
    PointName n;

    return bitmap_parse(bitmap, &n) && n.size == size &&
        bdrv_dirty_bitmap_size(bitmap) == size &&
        bitmap_check(bitmap, BDRV_BITMAP_BUSY | BDRV_BITMAP_INCONSISTENT,
                     NULL);
}

static bool point_is_usable(const WsmPoint *p, int64_t size)
{
    return bitmap_is_usable(p->since, size) &&
        (!p->rest || bitmap_is_usable(p->rest, size));
}

GArray *wsm_points_list(BlockDriverState *bs)
{
    GArray *points = list_all(bs);
    int64_t size = bdrv_getlength(bs);

    GLOBAL_STATE_CODE();
    /* Older points need all newer bitmaps */
    for (unsigned i = points->len; i > 0; i--) {
        if (!point_is_usable(point_at(points, i - 1), size)) {
            g_array_remove_range(points, 0, i);
            break;
        }
    }
    return points;
}

/* Returns the index of point @id, the newest if there are several, or -1 */
static int find_index(GArray *points, const QemuUUID *id)
{
    int i;

    for (i = (int)points->len - 1; i >= 0; i--) {
        if (qemu_uuid_is_equal(&point_at(points, i)->id, id)) {
            break;
        }
    }
    return i;
}

bool wsm_points_find(BlockDriverState *bs, const QemuUUID *id,
                     WsmPoint *point)
{
    g_autoptr(GArray) points = wsm_points_list(bs);
    int i = find_index(points, id);

    GLOBAL_STATE_CODE();
    if (i < 0) {
        return false;
    }
    if (point) {
        *point = *point_at(points, i);
    }
    return true;
}

unsigned wsm_points_last_order(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap;
    unsigned last = 0;
    PointName n;

    GLOBAL_STATE_CODE();
    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (bitmap_parse(bitmap, &n)) {
            last = MAX(last, n.order);
        }
    }
    return last;
}

bool wsm_points_unstore(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                        Error **errp)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);

    GLOBAL_STATE_CODE();
    if (!bdrv_dirty_bitmap_get_persistence(bitmap)) {
        return true;
    }
    if (bdrv_is_read_only(bs) || (bdrv_get_flags(bs) & BDRV_O_INACTIVE)) {
        error_setg(errp, "Bitmap '%s' cannot be removed from the image of "
                   "node '%s', which is not writable now", name,
                   bdrv_get_node_name(bs));
        return false;
    }
    if (bdrv_remove_persistent_dirty_bitmap(bs, name, errp) < 0) {
        return false;
    }
    bdrv_dirty_bitmap_set_persistence(bitmap, false);
    return true;
}

/*
 * A bitmap that a job of the user's works with cannot be removed; its point
 * is not usable as long as that lasts.
 */
void wsm_points_release(BlockDriverState *bs, BdrvDirtyBitmap *bitmap)
{
    GLOBAL_STATE_CODE();
    if (!bitmap || !bitmap_check(bitmap, BDRV_BITMAP_BUSY, NULL)) {
        return;
    }
    /* After an error the image has one that is marked as inconsistent */
    wsm_points_unstore(bs, bitmap, NULL);
    bdrv_release_dirty_bitmap(bitmap);
}

static void release_bitmaps(BlockDriverState *bs, GPtrArray *bitmaps)
{
    for (unsigned i = 0; i < bitmaps->len; i++) {
        wsm_points_release(bs, bitmaps->pdata[i]);
    }
}

static void release_point(BlockDriverState *bs, const WsmPoint *p)
{
    wsm_points_release(bs, p->since);
    wsm_points_release(bs, p->rest);
}

/*
 * Let @before know what @p alone knows.  Where both are enabled for a moment,
 * writes are in both, so none goes unseen.
 */
static bool hand_over_writes(const WsmPoint *p, const WsmPoint *before,
                             int64_t size)
{
    if (!point_is_usable(p, size) || !point_is_usable(before, size)) {
        return false;
    }
    if (bdrv_dirty_bitmap_enabled(p->since)) {
        bdrv_enable_dirty_bitmap(before->since);
    }
    return wsm_points_merge(before->since, p->since, NULL);
}

/* If nobody can take over what the point knows, no older one is of any use */
static void forget_index(BlockDriverState *bs, GArray *all, unsigned i)
{
    const WsmPoint *p = point_at(all, i);

    if (i > 0 && !hand_over_writes(p, p - 1, bdrv_getlength(bs))) {
        for (unsigned older = 0; older < i; older++) {
            release_point(bs, point_at(all, older));
        }
    }
    release_point(bs, p);
}

void wsm_points_forget(BlockDriverState *bs, const QemuUUID *id)
{
    g_autoptr(GArray) all = list_all(bs);
    int i = find_index(all, id);

    GLOBAL_STATE_CODE();
    if (i >= 0) {
        forget_index(bs, all, i);
    }
}

void wsm_points_forget_interrupted(BlockDriverState *bs)
{
    g_autoptr(GArray) all = list_all(bs);

    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < all->len; i++) {
        if (point_at(all, i)->rest) {
            wsm_points_forget(bs, &point_at(all, i)->id);
        }
    }
}

void wsm_points_forget_unusable(BlockDriverState *bs)
{
    g_autoptr(GArray) points = wsm_points_list(bs);
    g_autoptr(GPtrArray) bitmaps = wsm_points_bitmaps(bs);

    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < points->len; i++) {
        g_ptr_array_remove(bitmaps, point_at(points, i)->since);
        g_ptr_array_remove(bitmaps, point_at(points, i)->rest);
    }
    release_bitmaps(bs, bitmaps);
}

void wsm_points_limit(BlockDriverState *bs, unsigned max)
{
    g_autoptr(GArray) points = NULL;

    GLOBAL_STATE_CODE();
    wsm_points_forget_unusable(bs);
    points = wsm_points_list(bs);
    for (unsigned i = 0; i + max < points->len; i++) {
        release_point(bs, point_at(points, i));
    }
}

void wsm_points_clear(BlockDriverState *bs)
{
    g_autoptr(GPtrArray) bitmaps = wsm_points_bitmaps(bs);

    GLOBAL_STATE_CODE();
    release_bitmaps(bs, bitmaps);
}

static BdrvDirtyBitmap *create_bitmap(BlockDriverState *bs, const WsmPoint *p,
                                      bool is_rest, uint32_t granularity,
                                      Error **errp)
{
    PointName n = {
        .id = p->id,
        .order = p->order,
        .size = bdrv_getlength(bs),
        .is_rest = is_rest,
    };
    g_autofree char *name = name_format(&n);

    return bdrv_create_dirty_bitmap(bs, granularity, name, errp);
}

/* Of @p, id and order are set.  Its bitmap is enabled, that of the rest not. */
static bool create_point(BlockDriverState *bs, WsmPoint *p,
                         uint32_t granularity, bool with_rest, Error **errp)
{
    if (!is_power_of_2(granularity) || granularity < BDRV_SECTOR_SIZE) {
        error_setg(errp, "A sync point cannot have granularity %" PRIu32,
                   granularity);
        return false;
    }
    if (with_rest) {
        p->rest = create_bitmap(bs, p, true, granularity, errp);
        if (!p->rest) {
            return false;
        }
        bdrv_disable_dirty_bitmap(p->rest);
    }
    p->since = create_bitmap(bs, p, false, granularity, errp);
    if (!p->since) {
        wsm_points_release(bs, p->rest);
        return false;
    }
    return true;
}

bool wsm_points_add(BlockDriverState *bs, const QemuUUID *id,
                    uint32_t granularity, const BdrvDirtyBitmap *rest,
                    Error **errp)
{
    unsigned last = wsm_points_last_order(bs);
    WsmPoint p = { .id = *id, .order = last + 1 };
    g_autoptr(GArray) before = list_all(bs);
    int same = find_index(before, id);

    GLOBAL_STATE_CODE();
    if (last == UINT_MAX) {
        error_setg(errp, "The image's newest sync point has number %u and "
                   "there is none after it", last);
        return false;
    }
    if (same >= 0 && !bitmap_check(point_at(before, same)->since,
                                   BDRV_BITMAP_BUSY, errp)) {
        return false;
    }
    if (!create_point(bs, &p, granularity, rest, errp)) {
        return false;
    }
    if (rest && !wsm_points_merge(p.rest, rest, errp)) {
        release_point(bs, &p);
        return false;
    }
    wsm_points_enable(bs);
    if (same >= 0) {
        forget_index(bs, before, same);
    }
    return true;
}

static bool order_is_used(BlockDriverState *bs, unsigned order)
{
    BdrvDirtyBitmap *bitmap;
    PointName n;

    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (bitmap_parse(bitmap, &n) && n.order == order) {
            return true;
        }
    }
    return false;
}

bool wsm_points_insert(BlockDriverState *bs, const QemuUUID *id,
                       unsigned order, uint32_t granularity, bool with_rest,
                       WsmPoint *point, Error **errp)
{
    WsmPoint p = { .id = *id, .order = order };
    g_autoptr(GArray) all = list_all(bs);

    GLOBAL_STATE_CODE();
    if (order == 0 || order_is_used(bs, order)) {
        error_setg(errp, "A new sync point cannot have number %u", order);
        return false;
    }
    if (find_index(all, id) >= 0) {
        g_autofree char *uuid = qemu_uuid_unparse_strdup(id);

        error_setg(errp, "The image has a sync point %s already", uuid);
        return false;
    }
    if (!create_point(bs, &p, granularity, with_rest, errp)) {
        return false;
    }
    bdrv_disable_dirty_bitmap(p.since);
    *point = p;
    return true;
}

void wsm_points_enable(BlockDriverState *bs)
{
    g_autoptr(GArray) points = wsm_points_list(bs);
    g_autoptr(GPtrArray) bitmaps = wsm_points_bitmaps(bs);
    BdrvDirtyBitmap *newest = NULL;

    GLOBAL_STATE_CODE();
    if (points->len) {
        newest = point_at(points, points->len - 1)->since;
        bdrv_enable_dirty_bitmap(newest);
    }
    for (unsigned i = 0; i < bitmaps->len; i++) {
        if (bitmaps->pdata[i] != newest) {
            bdrv_disable_dirty_bitmap(bitmaps->pdata[i]);
        }
    }
}

/* Set in @dest what the point @i of @points and the later ones know */
static bool merge_changed(GArray *points, unsigned i, BdrvDirtyBitmap *dest,
                          Error **errp)
{
    BdrvDirtyBitmap *rest = point_at(points, i)->rest;

    if (rest && !wsm_points_merge(dest, rest, errp)) {
        return false;
    }
    for (; i < points->len; i++) {
        if (!wsm_points_merge(dest, point_at(points, i)->since, errp)) {
            return false;
        }
    }
    return true;
}

bool wsm_points_changed(BlockDriverState *bs, const QemuUUID *id,
                        BdrvDirtyBitmap *dest, Error **errp)
{
    g_autoptr(GArray) points = wsm_points_list(bs);
    int i = find_index(points, id);

    GLOBAL_STATE_CODE();
    if (i < 0) {
        g_autofree char *uuid = qemu_uuid_unparse_strdup(id);

        error_setg(errp, "The image has no usable sync point %s", uuid);
        return false;
    }
    return merge_changed(points, i, dest, errp);
}

int64_t wsm_points_changed_bytes(BlockDriverState *bs, const QemuUUID *id)
{
    g_autoptr(GArray) points = wsm_points_list(bs);
    int i = find_index(points, id);
    int64_t bytes = 0;

    GLOBAL_STATE_CODE();
    if (i < 0) {
        return 0;
    }
    if (point_at(points, i)->rest) {
        bytes = bdrv_get_dirty_count(point_at(points, i)->rest);
    }
    for (unsigned j = i; j < points->len; j++) {
        bytes += bdrv_get_dirty_count(point_at(points, j)->since);
    }
    return MIN(bytes, bdrv_dirty_bitmap_size(point_at(points, i)->since));
}
