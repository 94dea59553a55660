/*
 * Whole-system migration: which disks there are and what they are called
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/qdev-core.h"
#include "block/block.h"
#include "block/block_int.h"
#include "disk.h"

void wsm_disk_destroy(WsmDisk *disk)
{
    g_free(disk->path);
    g_free(disk->name);
}

/*
 * The id that the user gave the device: the block device of a virtio-blk-pci
 * is a child of the one with the id, hence the look at the whole path.
 */
static char *wsm_disk_name(BlockBackend *blk, const char *path)
{
    static const char prefix[] = "/machine/peripheral/";
    const char *id, *end;

    if (g_str_has_prefix(path, prefix)) {
        id = path + strlen(prefix);
        end = strchrnul(id, '/');
        return g_strndup(id, end - id);
    }
    if (*blk_name(blk)) {
        return g_strdup(blk_name(blk));
    }
    return g_strdup(path);
}

static bool wsm_disk_is_listed(GArray *all, BlockBackend *blk)
{
    for (unsigned i = 0; i < all->len; i++) {
        if (blk_bs(g_array_index(all, WsmDisk, i).blk) == blk_bs(blk)) {
            return true;
        }
    }
    return false;
}

GArray *wsm_disk_list(void)
{
    GArray *all = g_array_new(false, true, sizeof(WsmDisk));
    BlockBackend *blk;

    g_array_set_clear_func(all, (GDestroyNotify)wsm_disk_destroy);
    for (blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        DeviceState *dev = blk_get_attached_dev(blk);
        WsmDisk disk;

        if (!dev || !blk_is_inserted(blk) || wsm_disk_is_listed(all, blk)) {
            continue;
        }
        disk.blk = blk;
        disk.path = object_get_canonical_path(OBJECT(dev));
        disk.name = wsm_disk_name(blk, disk.path);
        g_array_append_val(all, disk);
    }
    return all;
}

bool wsm_disk_is_called(const WsmDisk *disk, const char *name)
{
    return !strcmp(name, disk->name) || !strcmp(name, disk->path) ||
           !strcmp(name, blk_name(disk->blk)) ||
           !strcmp(name, bdrv_get_node_name(blk_bs(disk->blk)));
}

static bool wsm_disk_is_wanted(const WsmDisk *disk, strList *wanted)
{
    for (; wanted; wanted = wanted->next) {
        if (wsm_disk_is_called(disk, wanted->value)) {
            return true;
        }
    }
    return false;
}

/* The guest's own SCSI commands write past the block layer, and our bitmap */
static bool wsm_disk_is_passthrough(const WsmDisk *disk)
{
    Object *dev = OBJECT(blk_get_attached_dev(disk->blk));

    return blk_is_sg(disk->blk) || object_dynamic_cast(dev, "scsi-block") ||
           object_dynamic_cast(dev, "scsi-generic");
}

/* Every name in @wanted must be that of a writable disk */
static bool wsm_disk_check_wanted(GArray *all, strList *wanted, Error **errp)
{
    for (; wanted; wanted = wanted->next) {
        WsmDisk *found = NULL;

        for (unsigned i = 0; i < all->len && !found; i++) {
            WsmDisk *disk = &g_array_index(all, WsmDisk, i);

            found = wsm_disk_is_called(disk, wanted->value) ? disk : NULL;
        }
        if (!found) {
            error_setg(errp, "disk '%s' in option 'disks' is no disk of a "
                       "guest device", wanted->value);
            return false;
        }
        if (wsm_disk_is_passthrough(found)) {
            error_setg(errp, "disk '%s' in option 'disks' is a SCSI "
                       "passthrough device, whose writes cannot be tracked",
                       wanted->value);
            return false;
        }
        if (!blk_supports_write_perm(found->blk)) {
            error_setg(errp, "disk '%s' in option 'disks' is read-only; "
                       "attach the same image at the destination instead",
                       wanted->value);
            return false;
        }
    }
    return true;
}

static void wsm_disk_exclude(WsmExcludedDiskList **excluded,
                             const WsmDisk *disk, const char *reason)
{
    WsmExcludedDisk *e = g_new(WsmExcludedDisk, 1);

    e->name = g_strdup(disk->name);
    e->reason = g_strdup(reason);
    QAPI_LIST_PREPEND(*excluded, e);
}

GPtrArray *wsm_disk_select(GArray *all, strList *wanted,
                           WsmExcludedDiskList **excluded, Error **errp)
{
    GPtrArray *selected;

    if (!wsm_disk_check_wanted(all, wanted, errp)) {
        return NULL;
    }

    selected = g_ptr_array_new();
    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);

        if (!blk_supports_write_perm(disk->blk)) {
            wsm_disk_exclude(excluded, disk, "read-only");
        } else if (wsm_disk_is_passthrough(disk)) {
            wsm_disk_exclude(excluded, disk, "SCSI passthrough");
        } else if (wanted && !wsm_disk_is_wanted(disk, wanted)) {
            wsm_disk_exclude(excluded, disk, "not in option 'disks'");
        } else {
            g_ptr_array_add(selected, disk);
        }
    }
    return selected;
}

BlockDriverState *wsm_disk_bs(const WsmDisk *disk)
{
    return bdrv_skip_implicit_filters(blk_bs(disk->blk));
}

WsmDisk *wsm_disk_find(GArray *all, const char *path)
{
    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);

        if (!strcmp(disk->path, path)) {
            return disk;
        }
    }
    return NULL;
}
