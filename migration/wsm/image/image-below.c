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
#include "migration/wsm/image/record-store.h"

/* Of WsmRecordStore: of the files below @disk that can have one, not its own */
static GPtrArray *wsm_image_below_stores(const WsmDisk *disk)
{
    BlockDriverState *top = wsm_disk_bs(disk);
    BlockDriverState *own = wsm_image_file_node(top, NULL);
    g_autoptr(GPtrArray) nodes = wsm_nodes_list(top);
    GPtrArray *stores = g_ptr_array_new_with_free_func(
        (GDestroyNotify)wsm_record_store_free);

    for (unsigned i = 0; i < nodes->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(nodes, i);
        WsmRecordStore *store = NULL;

        if (bs != own && bs->drv == &bdrv_file) {
            store = wsm_image_file_store(bs, NULL);
        }
        if (store) {
            g_ptr_array_add(stores, store);
        }
    }
    return stores;
}

static bool wsm_image_below_check_one(const WsmDisk *disk,
                                      const WsmRecordStore *store,
                                      Error **errp)
{
    ERRP_GUARD();
    g_autoptr(WsmRecord) record = NULL;

    if (!wsm_record_store_load(store, &record, errp)) {
        error_prepend(errp, "disk '%s': whether '%s', on which it is based, is "
                      "current is not known: ", disk->name, store->name);
        return false;
    }
    if (!record || record->state == WSM_IMAGE_STATE_CURRENT) {
        return true;
    }
    if (record->state == WSM_IMAGE_STATE_INCOMPLETE) {
        error_setg(errp, "disk '%s': it is based on '%s', to which a migration "
                   "began and did not end, so that is no consistent disk; "
                   "migrate the guest to it again", disk->name, store->name);
        return false;
    }
    error_setg(errp, "disk '%s': it is based on '%s', a stale copy of a guest "
               "that was handed over to %s; base it on another image, or, if "
               "the guest is lost there, make this copy the current one with "
               "wsm-adopt, and then cont", disk->name, store->name,
               record->peer ?: "another host");
    return false;
}

bool wsm_image_below_check(const WsmDisk *disk, Error **errp)
{
    g_autoptr(GPtrArray) stores = wsm_image_below_stores(disk);

    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < stores->len; i++) {
        if (!wsm_image_below_check_one(disk, g_ptr_array_index(stores, i),
                                       errp)) {
            return false;
        }
    }
    return true;
}

bool wsm_image_below_adopt(const WsmDisk *disk, Error **errp)
{
    g_autoptr(GPtrArray) stores = wsm_image_below_stores(disk);

    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < stores->len; i++) {
        const WsmRecordStore *store = g_ptr_array_index(stores, i);

        /* One that is good may have sync points of another guest: it stays */
        if (!wsm_image_below_check_one(disk, store, NULL) &&
            !wsm_record_store_remove(store, errp)) {
            return false;
        }
    }
    return true;
}
