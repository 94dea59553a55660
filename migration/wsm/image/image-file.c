/*
 * Whole-system migration: the file that has the data of a disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/graph-lock.h"
#include "block/raw-fd.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/image-file.h"

/*
 * Of one file that several nodes share (part of a raw file), or one of several
 * that make an image (vmdk), the times tell nothing of the image.
 */
static bool GRAPH_RDLOCK wsm_image_is_whole(BlockDriverState *bs,
                                            BlockDriverState *below,
                                            Error **errp)
{
    const char *format = bs->drv->format_name;

    if (!below || !strcmp(format, "vmdk")) {
        error_setg(errp, "an image of format '%s' may have its data in more "
                   "than one file", format);
        return false;
    }
    if (bs->drv == &bdrv_raw && bs->total_sectors != below->total_sectors) {
        error_setg(errp, "it is only a part of '%s'", below->filename);
        return false;
    }
    return true;
}

BlockDriverState *wsm_image_file_node(BlockDriverState *bs, Error **errp)
{
    GLOBAL_STATE_CODE();
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    while (bs && bs->drv && !bs->drv->protocol_name) {
        BlockDriverState *below = bdrv_primary_bs(bs);

        if (!wsm_image_is_whole(bs, below, errp)) {
            return NULL;
        }
        bs = below;
    }
    if (!bs || !bs->drv || bdrv_raw_fd(bs) < 0) {
        error_setg(errp, "its data is not in a file of this host (driver '%s')",
                   bs && bs->drv ? bs->drv->format_name : "none");
        return NULL;
    }
    return bs;
}

char *wsm_image_format(BlockDriverState *bs)
{
    GString *format = g_string_new(NULL);

    GLOBAL_STATE_CODE();
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    while (bs && bs->drv && !bs->drv->protocol_name) {
        if (!bs->drv->is_filter && bs->drv != &bdrv_raw) {
            g_string_append_printf(format, "%s%s", format->len ? " in " : "",
                                   bs->drv->format_name);
        }
        bs = bdrv_primary_bs(bs);
    }
    if (!format->len) {
        g_string_append(format, "raw");
    }
    return g_string_free(format, false);
}

static bool wsm_is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Takes @path; returns it if that is the name of @st, else NULL */
static char *wsm_image_if_same(char *path, const struct stat *st)
{
    struct stat now;

    if (path && stat(path, &now) == 0 && wsm_is_same_file(&now, st)) {
        return path;
    }
    g_free(path);
    return NULL;
}

char *wsm_image_file_name(BlockDriverState *node, Error **errp)
{
    int fd = bdrv_raw_fd(node);
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
    struct stat st;
    char *path;

    GLOBAL_STATE_CODE();
    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "cannot look at '%s'", node->filename);
        return NULL;
    }
    if (!S_ISREG(st.st_mode)) {
        error_setg(errp, "'%s' is no regular file", node->filename);
        return NULL;
    }
    path = wsm_image_if_same(g_file_read_link(link, NULL), &st);
    if (!path) {
        /* Without /proc, as in a chroot */
        g_autofree char *real = realpath(node->filename, NULL);

        path = wsm_image_if_same(g_strdup(real), &st);
    }
    if (!path && st.st_nlink == 0) {
        error_setg(errp, "'%s' was removed or replaced while QEMU has it open",
                   node->filename);
    } else if (!path) {
        error_setg(errp, "QEMU does not see the file that it opened as '%s' "
                   "under any name; it may be in another mount namespace",
                   node->filename);
    }
    return path;
}

/*
 * The file of @fd, opened once more by the name @path.  A copy of @fd would do
 * as well, but for QEMU's locks, which would live as long as the copy.
 */
static int wsm_image_reopen(int fd, const char *path)
{
    struct stat st, now;
    int own = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (own >= 0 && (fstat(fd, &st) < 0 || fstat(own, &now) < 0 ||
                     !wsm_is_same_file(&st, &now))) {
        close(own);
        return -1;
    }
    return own;
}

WsmRecordStore *wsm_image_file_store(BlockDriverState *node, Error **errp)
{
    int fd = bdrv_raw_fd(node), own = -1;
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree char *file = NULL;
    Error *err = NULL;
    struct stat st;

    GLOBAL_STATE_CODE();
    file = wsm_image_file_name(node, &err);
    /* Not a device, nor a file that has no name in any namespace */
    if (file || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink)) {
        own = wsm_image_reopen(fd, link);
    }
    if (file && own < 0) {
        own = wsm_image_reopen(fd, file);
    }
    if (!file && own < 0) {
        error_propagate(errp, err);
        return NULL;
    }
    error_free(err);
    return wsm_record_store_new(file, file ?: node->filename, own);
}

static bool GRAPH_RDLOCK wsm_image_node_has_data_file(BlockDriverState *bs)
{
    BdrvChild *primary = bdrv_primary_child(bs);
    BdrvChild *child;

    QLIST_FOREACH(child, &bs->children, next) {
        if (child != primary && (child->role & BDRV_CHILD_DATA)) {
            return true;
        }
    }
    return primary && wsm_image_node_has_data_file(primary->bs);
}

bool wsm_image_has_data_file(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return wsm_image_node_has_data_file(bs);
}

static bool GRAPH_RDLOCK wsm_image_node_is_flushed(BlockDriverState *bs)
{
    BdrvChild *child;

    if (bs->open_flags & BDRV_O_NO_FLUSH) {
        return false;
    }
    QLIST_FOREACH(child, &bs->children, next) {
        if (!(child->role & BDRV_CHILD_COW) &&
            !wsm_image_node_is_flushed(child->bs)) {
            return false;
        }
    }
    return true;
}

bool wsm_image_is_flushed(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return wsm_image_node_is_flushed(bs);
}
