/*
 * Whole-system migration: where the map of missing blocks of a disk is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/map-file.h"
#include "migration/wsm/image/map-node.h"
#include "migration/wsm/image/map-place.h"

#define BOOT_ID         "/proc/sys/kernel/random/boot_id"

WsmMapPlace *wsm_map_place_new(const char *file, const char *node)
{
    WsmMapPlace *place = g_new(WsmMapPlace, 1);

    if (!file && !node) {
        g_free(place);
        return NULL;
    }
    *place = (WsmMapPlace) {
        .file = node ? NULL : g_strdup(file),
        .node = g_strdup(node),
    };
    return place;
}

WsmMapPlace *wsm_map_place_copy(const WsmMapPlace *place)
{
    return wsm_map_place_new(place->file, place->node);
}

void wsm_map_place_free(WsmMapPlace *place)
{
    if (place) {
        g_free(place->file);
        g_free(place->node);
        g_free(place);
    }
}

char *wsm_map_place_name(const WsmMapPlace *place)
{
    return place->node ? g_strdup_printf("block node '%s'", place->node)
                       : wsm_map_path(place->file);
}

bool wsm_map_place_create(const WsmMapPlace *place, const char *path,
                          int64_t size, Error **errp)
{
    GLOBAL_STATE_CODE();
    return place->node ? wsm_map_node_create(place->node, path, size, errp)
                       : wsm_map_file_create(place->file, errp);
}

BlockBackend *wsm_map_place_open(const WsmMapPlace *place, Error **errp)
{
    GLOBAL_STATE_CODE();
    return place->node ? wsm_map_node_open(place->node, errp)
                       : wsm_map_file_open(place->file, errp);
}

WsmMapState wsm_map_place_load(const WsmMapPlace *place,
                               const WsmMapWanted *wanted, WsmMapContents *out,
                               Error **errp)
{
    WsmMapWanted now = *wanted;

    GLOBAL_STATE_CODE();
    now.boot = wsm_map_boot();
    return place->node ? wsm_map_node_load(place->node, &now, out, errp)
                       : wsm_map_file_load(place->file, &now, out, errp);
}

bool wsm_map_place_remove(const WsmMapPlace *place, Error **errp)
{
    GLOBAL_STATE_CODE();
    return place->node ? wsm_map_node_clear(place->node, errp)
                       : wsm_map_file_remove(place->file, errp);
}

/* Null where it is not told; then nothing is believed that asks for one */
QemuUUID wsm_map_boot(void)
{
    g_autofree char *text = NULL;
    QemuUUID boot = {};

    if (g_file_get_contents(BOOT_ID, &text, NULL, NULL)) {
        g_strchomp(text);
        if (qemu_uuid_parse(text, &boot) < 0) {
            boot = (QemuUUID) {};
        }
    }
    return boot;
}
