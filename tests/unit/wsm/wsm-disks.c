/*
 * For the tests of what is done with the images of the guest's disks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qobject/qdict.h"
#include "block/block.h"
#include "block/graph-lock.h"
#include "wsm-disks.h"

typedef struct Plugged {
    const char *name;
    BlockBackend *blk;
} Plugged;

static char *dir;
static Plugged plugged[WSM_MAX_DISKS + 2];

void disks_init(int *argc, char ***argv)
{
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    g_test_init(argc, argv, NULL);
    dir = g_dir_make_tmp("wsm-disks-XXXXXX", NULL);
    g_assert_nonnull(dir);
}

void disks_cleanup(void)
{
    GDir *all = g_dir_open(dir, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(all))) {
        g_autofree char *path = disks_path(name);

        g_unlink(path);
    }
    g_dir_close(all);
    g_rmdir(dir);
    g_free(dir);
}

char *disks_path(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

char *disks_create(const char *name, const char *format, char *options)
{
    char *path = disks_path(name);

    bdrv_img_create(path, format, NULL, NULL, options, DISK_SIZE, 0, true,
                    &error_abort);
    return path;
}

BlockBackend *disks_open(const char *path, const char *driver, int flags)
{
    QDict *options = qdict_new();
    BlockBackend *blk;

    qdict_put_str(options, "driver", driver);
    blk = blk_new_open(path, NULL, options, flags, &error_abort);
    blk_set_force_allow_inactivate(blk);
    return blk;
}

BlockBackend *disks_open_null(void)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "null-co");
    qdict_put_int(options, "size", DISK_SIZE);
    return blk_new_open(NULL, NULL, options, BDRV_O_RDWR, &error_abort);
}

void disks_plug(const char *name, BlockBackend *blk)
{
    for (int i = 0; i < ARRAY_SIZE(plugged); i++) {
        if (!plugged[i].blk) {
            plugged[i] = (Plugged) { name, blk };
            return;
        }
    }
    g_assert_not_reached();
}

void disks_unplug(const char *name)
{
    for (int i = 0; i < ARRAY_SIZE(plugged); i++) {
        if (plugged[i].blk && !strcmp(plugged[i].name, name)) {
            plugged[i].blk = NULL;
        }
    }
}

/* Instead of image/guest-disk.c, which asks the guest's devices */

void wsm_disk_destroy(WsmDisk *disk)
{
    g_free(disk->path);
    g_free(disk->name);
}

GArray *wsm_disk_list(void)
{
    GArray *all = g_array_new(false, true, sizeof(WsmDisk));

    g_array_set_clear_func(all, (GDestroyNotify)wsm_disk_destroy);
    for (int i = 0; i < ARRAY_SIZE(plugged); i++) {
        WsmDisk disk = { .blk = plugged[i].blk };

        if (disk.blk) {
            disk.path = g_strdup_printf("/dev/%s", plugged[i].name);
            disk.name = g_strdup(plugged[i].name);
            g_array_append_val(all, disk);
        }
    }
    return all;
}

bool wsm_disk_is_called(const WsmDisk *disk, const char *name)
{
    return !strcmp(name, disk->name) || !strcmp(name, disk->path);
}

WsmDisk *wsm_disk_called(GArray *all, const char *name)
{
    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);

        if (wsm_disk_is_called(disk, name)) {
            return disk;
        }
    }
    return NULL;
}

BlockDriverState *wsm_disk_bs(const WsmDisk *disk)
{
    return bdrv_skip_implicit_filters(blk_bs(disk->blk));
}

WsmDisk *wsm_disk_find(GArray *all, const WsmDiskDesc *desc, Error **errp)
{
    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);

        if (!strcmp(disk->path, desc->path)) {
            return disk;
        }
    }
    error_setg(errp, "disk '%s': not there", desc->name);
    return NULL;
}

char *wsm_disk_shown_address(const char *address)
{
    return g_strdup(address);
}

void disks_write(BlockBackend *blk, int64_t offset)
{
    uint8_t buf[BDRV_SECTOR_SIZE] = { 1 };

    g_assert_cmpint(blk_pwrite(blk, offset, sizeof(buf), buf, 0), ==, 0);
}

bool disks_inactivate(BlockDriverState *bs)
{
    return bdrv_inactivate(bs, NULL) == 0;
}

bool disks_activate(BlockDriverState *bs, Error **errp)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return bdrv_activate(bs, errp) == 0;
}

void disks_error(Error *err, const char *text)
{
    g_assert_nonnull(err);
    if (!strstr(error_get_pretty(err), text)) {
        g_error("'%s' is not in '%s'", text, error_get_pretty(err));
    }
    error_free(err);
}
