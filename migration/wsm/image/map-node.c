/*
 * Whole-system migration: the map of missing blocks on a block node
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/block_int.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/map-node.h"
#include "migration/wsm/image/nodes.h"
#include "migration/wsm/map/log.h"

#define HEADS_BYTES     ((int64_t)WSM_MAP_HEADS * WSM_MAP_PAGE)
#define PIECE           (1 * MiB)       /* bytes that are read at a time */

const char *wsm_map_node_of(const WsmMapNodeList *maps, const WsmDisk *disk)
{
    for (; maps; maps = maps->next) {
        if (wsm_disk_is_called(disk, maps->value->disk)) {
            return maps->value->node;
        }
    }
    return NULL;
}

/*
 * Is it fit?
 */

static BlockDriverState *find_node(const char *node, Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(node);

    if (!bs) {
        error_setg(errp, "there is no such node; add one with blockdev-add");
    }
    return bs;
}

/* Nobody else may use it, not even to read: what is read would be ours */
static bool check_free(BlockDriverState *bs, Error **errp)
{
    g_autofree char *user = NULL;
    BdrvChild *parent;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    parent = QLIST_FIRST(&bs->parents);
    if (parent) {
        user = parent->klass->get_parent_desc(parent);
        error_setg(errp, "it is in use by %s; a map needs a node of its own",
                   user);
        return false;
    }
    return true;
}

static bool check_geometry(BlockDriverState *bs, Error **errp)
{
    int64_t size = bdrv_getlength(bs);

    if (bdrv_is_read_only(bs)) {
        error_setg(errp, "it is read-only; make it writable");
        return false;
    }
    if (size < 0) {
        error_setg_errno(errp, -size, "cannot tell how long it is");
        return false;
    }
    if (size < WSM_MAP_NODE_MIN || size > WSM_MAP_NODE_MAX) {
        error_setg(errp, "it has %" PRId64 " bytes, and must have from %" PRId64
                   " to %" PRId64 "%s", size, (int64_t)WSM_MAP_NODE_MIN,
                   (int64_t)WSM_MAP_NODE_MAX,
                   size < WSM_MAP_NODE_MIN ? "" : "; use a part of it: driver "
                   "raw with 'size' above it");
        return false;
    }
    if (bs->bl.request_alignment > WSM_MAP_PAGE) {
        error_setg(errp, "it is written in blocks of %" PRIu32 " bytes, and "
                   "must be in %d or less", bs->bl.request_alignment,
                   WSM_MAP_PAGE);
        return false;
    }
    return true;
}

/*
 * What is in it?
 */

/* 1: it has only zeroes, 0: it has not, -errno */
static int is_zero(BlockBackend *blk)
{
    g_autofree uint8_t *buf = g_malloc(PIECE);
    int64_t size = blk_getlength(blk), n;
    int ret = 1;

    for (int64_t pos = 0; ret == 1 && pos < size; pos += n) {
        n = MIN(PIECE, size - pos);
        ret = blk_pread(blk, pos, n, buf, 0);
        if (ret >= 0) {
            ret = buffer_is_zero(buf, n);
        }
    }
    return ret;
}

/* 1: it has a map, 0: it has not, -errno */
static int is_map(BlockBackend *blk)
{
    g_autofree uint8_t *buf = g_malloc(HEADS_BYTES);
    int ret = blk_pread(blk, 0, HEADS_BYTES, buf, 0);

    return ret < 0 ? ret : wsm_map_head_begins(buf) ||
                           wsm_map_head_begins(buf + WSM_MAP_PAGE);
}

/* A map that is there: not if it says what is missing of another disk */
static bool check_map(BlockBackend *blk, const char *path, int64_t size,
                      Error **errp)
{
    WsmMapWanted wanted = { .disk = -1 };
    WsmMapContents contents;
    WsmMapState state = wsm_map_log_load(blk, &wanted, &contents, NULL);
    bool ok = true;

    if (state == WSM_MAP_COMMITTED && contents.missing->bytes &&
        (contents.head.size != size || strcmp(contents.head.path, path))) {
        error_setg(errp, "it has the map of another disk, '%s' with %" PRId64
                   " bytes, of which %" PRId64 " are missing; use another "
                   "node, or fill this one with zeroes if that disk is not "
                   "needed any more", contents.head.path, contents.head.size,
                   contents.missing->bytes);
        ok = false;
    }
    wsm_map_contents_destroy(&contents);
    return ok;
}

static bool check_contents(BlockBackend *blk, const char *path, int64_t size,
                           Error **errp)
{
    int map = is_map(blk);
    int zero = map ? 0 : is_zero(blk);

    if (map < 0 || zero < 0) {
        error_setg_errno(errp, -MIN(map, zero), "cannot read it");
        return false;
    }
    if (map) {
        return check_map(blk, path, size, errp);
    }
    if (!zero) {
        error_setg(errp, "it has data that is no map; if nobody needs it, fill "
                   "the node with zeroes");
        return false;
    }
    return true;
}

/*
 * It must not be that one is not fit for its own disk, and nobody says so
 * before the guest moves
 */
static bool check_node(const char *node, const char *path, int64_t size,
                       Error **errp)
{
    BlockDriverState *bs = find_node(node, errp);
    BlockBackend *blk;
    bool ok;

    if (!bs || !check_free(bs, errp) || !check_geometry(bs, errp)) {
        return false;
    }
    blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, errp);
    ok = blk && check_contents(blk, path, size, errp);
    blk_unref(blk);
    return ok;
}

static bool check_is_other(GArray *all, const WsmMapNode *map, Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(map->node);

    for (unsigned i = 0; bs && i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);

        if (wsm_nodes_below(blk_bs(disk->blk), bs)) {
            error_setg(errp, "it is a node of disk '%s' itself; a map needs a "
                       "node of its own", disk->name);
            return false;
        }
    }
    return true;
}

/* @maps begins with the one in question */
static bool check_is_once(const WsmMapNodeList *maps, const WsmDisk *disk,
                          Error **errp)
{
    for (const WsmMapNodeList *l = maps->next; l; l = l->next) {
        if (!strcmp(l->value->node, maps->value->node)) {
            error_setg(errp, "it is there for two disks; each map needs a node "
                       "of its own");
            return false;
        }
        if (wsm_disk_is_called(disk, l->value->disk)) {
            error_setg(errp, "so is node '%s'; a disk has one map",
                       l->value->node);
            return false;
        }
    }
    return true;
}

static bool check_one(GArray *all, const WsmMapNodeList *maps, Error **errp)
{
    ERRP_GUARD();
    const WsmMapNode *map = maps->value;
    WsmDisk *disk = wsm_disk_called(all, map->disk);
    int64_t size;

    if (!disk) {
        error_setg(errp, "disk '%s' in option 'maps' is no disk of a guest "
                   "device", map->disk);
        return false;
    }
    size = blk_getlength(disk->blk);
    if (!check_is_once(maps, disk, errp) || !check_is_other(all, map, errp) ||
        !check_node(map->node, disk->path, size, errp)) {
        error_prepend(errp, "block node '%s' cannot have the map of disk "
                      "'%s': ", map->node, map->disk);
        return false;
    }
    return true;
}

bool wsm_map_nodes_check(GArray *all, const WsmMapNodeList *maps, Error **errp)
{
    GLOBAL_STATE_CODE();
    for (; maps; maps = maps->next) {
        if (!check_one(all, maps, errp)) {
            return false;
        }
    }
    return true;
}

/*
 * Use it
 */

static bool activate(BlockDriverState *bs, Error **errp)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return bdrv_activate(bs, errp) == 0;
}

BlockBackend *wsm_map_node_open(const char *node, Error **errp)
{
    BlockDriverState *bs = find_node(node, errp);

    GLOBAL_STATE_CODE();
    if (!bs || !activate(bs, errp)) {
        return NULL;
    }
    return blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                           BLK_PERM_RESIZE, BLK_PERM_CONSISTENT_READ, errp);
}

bool wsm_map_node_clear(const char *node, Error **errp)
{
    BlockBackend *blk = wsm_map_node_open(node, errp);
    int ret;

    GLOBAL_STATE_CODE();
    if (!blk) {
        return false;
    }
    ret = wsm_map_erase(blk);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot write block node '%s'", node);
    }
    blk_unref(blk);
    return ret >= 0;
}

bool wsm_map_node_create(const char *node, const char *path, int64_t size,
                         Error **errp)
{
    ERRP_GUARD();

    GLOBAL_STATE_CODE();
    if (!check_node(node, path, size, errp)) {
        error_prepend(errp, "block node '%s': ", node);
        return false;
    }
    return wsm_map_node_clear(node, errp);
}

WsmMapState wsm_map_node_load(const char *node, const WsmMapWanted *wanted,
                              WsmMapContents *out, Error **errp)
{
    BlockDriverState *bs = find_node(node, errp);
    WsmMapState state;
    BlockBackend *blk;

    GLOBAL_STATE_CODE();
    *out = (WsmMapContents) {};
    if (!bs) {
        return WSM_MAP_DAMAGED;
    }
    blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, errp);
    if (!blk) {
        return WSM_MAP_DAMAGED;
    }
    state = wsm_map_log_load(blk, wanted, out, errp);
    blk_unref(blk);
    return state;
}
