/*
 * Whole-system migration: where a disk is kept
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "block/block_int.h"
#include "block/graph-lock.h"
#include "block/raw-fd.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/image-file.h"
#include "migration/wsm/image/storage.h"
#include "migration/wsm/policy/marks.h"
#include "migration/wsm/trace.h"
#include "migration/wsm/wire/start.h"

/* Something that has the data of an image: a file, a device, an export */
typedef struct WsmLeaf {
    BlockDriverState *bs;
    char *slice;                /* the part of it, or NULL */
} WsmLeaf;

static void wsm_leaf_clear(void *opaque)
{
    WsmLeaf *leaf = opaque;

    g_free(leaf->slice);
}

/* Bytes that an option of a node says, as a number or as text ("1M"), or 0 */
static uint64_t wsm_option_bytes(BlockDriverState *bs, const char *name)
{
    QObject *value = qdict_get(bs->options, name);
    g_autoptr(GString) text = value ? qobject_to_json(value) : NULL;
    uint64_t bytes;

    return text && qemu_strtosz(g_strstrip(g_strdelimit(text->str, "\"", ' ')),
                                NULL, &bytes) == 0 ? bytes : 0;
}

/* The part of the node below that a node of driver "raw" shows, or NULL */
static char *wsm_slice_of(BlockDriverState *bs)
{
    uint64_t size = bs->total_sectors * BDRV_SECTOR_SIZE;

    if (bs->drv != &bdrv_raw || (!qdict_haskey(bs->options, "offset") &&
                                 !qdict_haskey(bs->options, "size"))) {
        return NULL;
    }
    return g_strdup_printf("%" PRIu64 "+%" PRIu64,
                           wsm_option_bytes(bs, "offset"), size);
}

static void GRAPH_RDLOCK wsm_add_leaves(BlockDriverState *bs,
                                        const char *slice, bool backing,
                                        GArray *leaves)
{
    g_autofree char *own = wsm_slice_of(bs);
    BdrvChild *child;

    if (QLIST_EMPTY(&bs->children)) {
        WsmLeaf leaf = { .bs = bs, .slice = g_strdup(slice) };

        g_array_append_val(leaves, leaf);
        return;
    }
    QLIST_FOREACH(child, &bs->children, next) {
        if (backing || !(child->role & BDRV_CHILD_COW)) {
            wsm_add_leaves(child->bs, own, backing, leaves);
        }
    }
}

/* Elements are WsmLeaf, the nodes not referenced; free: g_array_unref() */
static GArray *wsm_leaves(BlockDriverState *bs, bool backing)
{
    GArray *leaves = g_array_new(false, false, sizeof(WsmLeaf));

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    g_array_set_clear_func(leaves, wsm_leaf_clear);
    wsm_add_leaves(bs, NULL, backing, leaves);
    return leaves;
}

static bool wsm_leaf_is_local(const WsmLeaf *leaf)
{
    return bdrv_raw_fd(leaf->bs) >= 0;
}

/* This host, this boot of it, and our network namespace; NULL: not known */
static char *wsm_boot(bool with_net)
{
    g_autofree char *net = with_net ? g_file_read_link("/proc/self/ns/net",
                                                       NULL) : NULL;
    char *boot;

    if ((with_net && !net) ||
        !g_file_get_contents("/proc/sys/kernel/random/boot_id", &boot, NULL,
                             NULL)) {
        return NULL;
    }
    g_strstrip(boot);
    if (net) {
        char *both = g_strdup_printf("%s %s", boot, net);

        g_free(boot);
        boot = both;
    }
    return boot;
}

static GPtrArray *wsm_marks_of_leaves(const GArray *leaves)
{
    GPtrArray *marks = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *boot = wsm_boot(false), *net = wsm_boot(true);

    for (unsigned i = 0; i < leaves->len; i++) {
        const WsmLeaf *leaf = &g_array_index(leaves, WsmLeaf, i);
        struct stat st;

        if (!wsm_leaf_is_local(leaf)) {
            wsm_marks_of_name(marks, leaf->bs->filename, leaf->slice, net);
        } else if (fstat(bdrv_raw_fd(leaf->bs), &st) == 0) {
            wsm_marks_of_stat(marks, &st, leaf->slice, boot, "/sys");
        }
    }
    return marks;
}

GPtrArray *wsm_storage_marks(BlockDriverState *bs)
{
    g_autoptr(GArray) leaves = wsm_leaves(bs, true);

    GLOBAL_STATE_CODE();
    return wsm_marks_of_leaves(leaves);
}

char *wsm_storage_name(BlockDriverState *bs)
{
    g_autoptr(GArray) leaves = wsm_leaves(bs, false);
    const char *name = leaves->len ? g_array_index(leaves, WsmLeaf, 0)
                                     .bs->filename : "";

    GLOBAL_STATE_CODE();
    return g_strndup(name, WSM_MAX_PATH);
}

/* NULL: there can be none */
static char *wsm_note_name(const WsmLeaf *leaf, const QemuUUID *session)
{
    g_autofree char *uuid = qemu_uuid_unparse_strdup(session);
    g_autofree char *path = NULL, *folder = NULL, *file = NULL;

    path = wsm_leaf_is_local(leaf) ? wsm_image_file_name(leaf->bs, NULL) : NULL;
    if (!path) {
        return NULL;
    }
    folder = g_path_get_dirname(path);
    file = g_path_get_basename(path);
    return g_strdup_printf("%s/.%s.wsm-%s", folder, file, uuid);
}

/* @text is short: all of it or nothing is written */
static bool wsm_note_write(const char *name, const char *text)
{
    int fd = open(name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    bool ok;

    if (fd < 0) {
        return false;
    }
    ok = write(fd, text, strlen(text)) == strlen(text);
    close(fd);
    if (!ok) {
        unlink(name);
    }
    return ok;
}

void wsm_storage_leave_notes(BlockDriverState *bs, unsigned disk,
                             const QemuUUID *session, GPtrArray *made)
{
    g_autoptr(GArray) leaves = wsm_leaves(bs, true);
    g_autofree char *text = g_strdup_printf("%u", disk);

    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < leaves->len; i++) {
        g_autofree char *name =
            wsm_note_name(&g_array_index(leaves, WsmLeaf, i), session);

        if (name && wsm_note_write(name, text)) {
            trace_wsm_storage_note(name);
            g_ptr_array_add(made, g_steal_pointer(&name));
        }
    }
}

void wsm_storage_remove_notes(GPtrArray *made)
{
    for (unsigned i = 0; i < made->len; i++) {
        unlink(g_ptr_array_index(made, i));
    }
    g_ptr_array_set_size(made, 0);
}

/* The disk of @start beside one of whose files we see the note, or NULL */
static const WsmDiskDesc *wsm_find_note(const GArray *leaves,
                                        const WsmStart *start)
{
    for (unsigned i = 0; i < leaves->len; i++) {
        g_autofree char *name = wsm_note_name(&g_array_index(leaves, WsmLeaf,
                                                             i),
                                              &start->session);
        g_autofree char *text = NULL;
        uint64_t disk;

        if (name && g_file_get_contents(name, &text, NULL, NULL) &&
            parse_uint(text, NULL, 10, &disk) == 0 && disk < start->ndisks) {
            return &start->disk[disk];
        }
    }
    return NULL;
}

static bool wsm_shares_mark(const GPtrArray *ours, const GPtrArray *theirs)
{
    for (unsigned i = 0; i < ours->len; i++) {
        for (unsigned j = 0; j < theirs->len; j++) {
            if (wsm_marks_same(g_ptr_array_index(ours, i),
                               g_ptr_array_index(theirs, j))) {
                return true;
            }
        }
    }
    return false;
}

static const WsmDiskDesc *wsm_find_mark(const GArray *leaves,
                                        const WsmStart *start)
{
    g_autoptr(GPtrArray) ours = wsm_marks_of_leaves(leaves);

    for (unsigned i = 0; i < start->ndisks; i++) {
        if (wsm_shares_mark(ours, start->disk[i].marks)) {
            return &start->disk[i];
        }
    }
    return NULL;
}

bool wsm_storage_check(BlockDriverState *bs, const char *disk,
                       const WsmStart *start, Error **errp)
{
    g_autoptr(GArray) leaves = wsm_leaves(bs, false);
    g_autofree char *name = wsm_storage_name(bs);
    const WsmDiskDesc *theirs = wsm_find_mark(leaves, start) ?:
                                wsm_find_note(leaves, start);

    GLOBAL_STATE_CODE();
    if (!theirs) {
        return true;
    }
    error_setg(errp, "disk '%s': its image at the destination, '%s', is one of "
               "those of disk '%s' at the source, '%s', so the migration would "
               "write to the disk of the running guest; give the destination "
               "an image of its own, or, if it is to be shared, leave the disk "
               "out with option 'disks'", disk, name, theirs->name,
               theirs->file);
    return false;
}
