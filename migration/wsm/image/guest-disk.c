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
#include "qemu/main-loop.h"
#include "migration/wsm/image/guest-disk.h"
#include "migration/wsm/policy/match.h"

void wsm_disk_destroy(WsmDisk *disk)
{
    GLOBAL_STATE_CODE();
    g_free(disk->path);
    g_free(disk->name);
    g_free(disk->address);
}

/*
 * The id that the user gave the device: the block device of a virtio-blk-pci
 * is a child of the one with the id, hence the look at the whole path.
 */
static char *wsm_disk_name(BlockBackend *blk, const char *path)
{
    char *id = wsm_match_id(path);

    if (id) {
        return id;
    }
    if (*blk_name(blk)) {
        return g_strdup(blk_name(blk));
    }
    return g_strdup(path);
}

/* NULL: it has none */
static char *wsm_disk_address(DeviceState *dev)
{
    g_autofree char *controller = NULL, *place = NULL;
    char *address = qdev_get_dev_path(dev);
    BusClass *bc;
    int64_t unit;

    if (address || !dev->parent_bus || !dev->parent_bus->parent) {
        return address;
    }
    controller = wsm_disk_address(dev->parent_bus->parent);
    bc = BUS_GET_CLASS(dev->parent_bus);
    place = controller && bc->get_fw_dev_path ? bc->get_fw_dev_path(dev) : NULL;
    if (!place) {
        return NULL;
    }
    unit = object_property_find(OBJECT(dev), "unit")
           ? object_property_get_int(OBJECT(dev), "unit", NULL) : -1;
    return unit < 0 ? g_strdup_printf("%s/%s", controller, place)
                    : g_strdup_printf("%s/%s/%" PRId64, controller, place,
                                      unit);
}

/* What does not tell disks apart is no address */
static void wsm_disk_check_addresses(GArray *all)
{
    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);
        bool unique = strlen(disk->address) <= WSM_MAX_PATH;

        for (unsigned j = i + 1; j < all->len; j++) {
            WsmDisk *other = &g_array_index(all, WsmDisk, j);

            if (*disk->address && !strcmp(disk->address, other->address)) {
                unique = false;
                *other->address = '\0';
            }
        }
        if (!unique) {
            *disk->address = '\0';
        }
    }
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

    GLOBAL_STATE_CODE();
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
        disk.address = wsm_disk_address(dev) ?: g_strdup("");
        g_array_append_val(all, disk);
    }
    wsm_disk_check_addresses(all);
    return all;
}

char *wsm_disk_shown_address(const char *address)
{
    return *address ? g_strdup(address) : NULL;
}

bool wsm_disk_is_called(const WsmDisk *disk, const char *name)
{
    GLOBAL_STATE_CODE();
    return !strcmp(name, disk->name) || !strcmp(name, disk->path) ||
           !strcmp(name, blk_name(disk->blk)) ||
           !strcmp(name, bdrv_get_node_name(blk_bs(disk->blk)));
}

WsmDisk *wsm_disk_called(GArray *all, const char *name)
{
    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);

        if (wsm_disk_is_called(disk, name)) {
            return disk;
        }
    }
    return NULL;
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
        WsmDisk *found = wsm_disk_called(all, wanted->value);

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

    GLOBAL_STATE_CODE();
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
    GLOBAL_STATE_CODE();
    return bdrv_skip_implicit_filters(blk_bs(disk->blk));
}

WsmDisk *wsm_disk_find(GArray *all, const WsmDiskDesc *desc, Error **errp)
{
    g_autoptr(GArray) ours = g_array_new(false, false, sizeof(WsmMatch));
    int found;

    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);
        WsmMatch m = { .path = disk->path, .address = disk->address };

        g_array_append_val(ours, m);
    }
    found = wsm_match(ours, desc, errp);
    return found < 0 ? NULL : &g_array_index(all, WsmDisk, found);
}
