/*
 * Whole-system migration: records of the images below a disk's own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/block_int.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/image-below.h"
#include "migration/wsm/image/image-file.h"
#include "migration/wsm/image/nodes.h"
#include "migration/wsm/image/record-file.h"
#include "migration/wsm/image/record.h"

/* The files below @disk that can have a record, but for its own */
static GPtrArray *wsm_image_below_files(const WsmDisk *disk)
{
    BlockDriverState *top = wsm_disk_bs(disk);
    BlockDriverState *own = wsm_image_file_node(top, NULL);
    g_autoptr(GPtrArray) nodes = wsm_nodes_list(top);
    GPtrArray *files = g_ptr_array_new_with_free_func(g_free);

    for (unsigned i = 0; i < nodes->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(nodes, i);
        char *file = NULL;

        if (bs != own && bs->drv == &bdrv_file) {
            file = wsm_image_file_name(bs, NULL);
        }
        if (file) {
            g_ptr_array_add(files, file);
        }
    }
    return files;
}

static bool wsm_image_below_check_file(const WsmDisk *disk, const char *file,
                                       Error **errp)
{
    ERRP_GUARD();
    g_autoptr(WsmRecord) record = NULL;

    if (!wsm_record_load(file, &record, errp)) {
        error_prepend(errp, "disk '%s': whether '%s', on which it is based, is "
                      "current is not known: ", disk->name, file);
        return false;
    }
    if (!record || record->state == WSM_IMAGE_STATE_CURRENT) {
        return true;
    }
    if (record->state == WSM_IMAGE_STATE_INCOMPLETE) {
        error_setg(errp, "disk '%s': it is based on '%s', to which a migration "
                   "began and did not end, so that is no consistent disk; "
                   "migrate the guest to it again", disk->name, file);
        return false;
    }
    error_setg(errp, "disk '%s': it is based on '%s', a stale copy of a guest "
               "that was handed over to %s; base it on another image, or, if "
               "the guest is lost there, make this copy the current one with "
               "wsm-adopt, and then cont", disk->name, file,
               record->peer ?: "another host");
    return false;
}

bool wsm_image_below_check(const WsmDisk *disk, Error **errp)
{
    g_autoptr(GPtrArray) files = wsm_image_below_files(disk);

    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < files->len; i++) {
        if (!wsm_image_below_check_file(disk, g_ptr_array_index(files, i),
                                        errp)) {
            return false;
        }
    }
    return true;
}

bool wsm_image_below_adopt(const WsmDisk *disk, Error **errp)
{
    g_autoptr(GPtrArray) files = wsm_image_below_files(disk);

    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < files->len; i++) {
        const char *file = g_ptr_array_index(files, i);

        /* One that is good may have sync points of another guest: it stays */
        if (!wsm_image_below_check_file(disk, file, NULL) &&
            !wsm_record_remove(file, errp)) {
            return false;
        }
    }
    return true;
}
