/*
 * Whole-system migration: which disk of one side is which of the other
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/policy/match.h"

#define WSM_REMEDY  "give the -device options in the same order on both " \
                    "sides, or set addr= (or bus=, scsi-id=, lun=)"

char *wsm_match_id(const char *path)
{
    static const char prefix[] = "/machine/peripheral/";
    const char *id;

    if (!g_str_has_prefix(path, prefix)) {
        return NULL;
    }
    id = path + strlen(prefix);
    return g_strndup(id, strchrnul(id, '/') - id);
}

static const WsmMatch *get(const GArray *ours, int i)
{
    return &g_array_index(ours, WsmMatch, i);
}

static int find_address(const GArray *ours, const char *address)
{
    for (int i = 0; i < ours->len; i++) {
        if (*address && !strcmp(get(ours, i)->address, address)) {
            return i;
        }
    }
    return -1;
}

static int find_path(const GArray *ours, const char *path)
{
    for (int i = 0; i < ours->len; i++) {
        if (!strcmp(get(ours, i)->path, path)) {
            return i;
        }
    }
    return -1;
}

/* The guest sees the device with this id elsewhere on the two sides */
static void error_moved(const WsmDiskDesc *desc, const char *id,
                        const WsmMatch *by_path, const WsmMatch *by_address,
                        Error **errp)
{
    g_autofree char *other = by_address ? wsm_match_id(by_address->path) : NULL;

    if (by_address) {
        error_setg(errp, "disk '%s': device '%s' is at address '%s' at the "
                   "source, but at '%s' at the destination, where '%s' is at "
                   "'%s'; " WSM_REMEDY, desc->name, id, desc->address,
                   by_path->address, other ?: by_address->path,
                   desc->address);
    } else {
        error_setg(errp, "disk '%s': device '%s' is at address '%s' at the "
                   "source, but at '%s' at the destination; " WSM_REMEDY,
                   desc->name, id, desc->address, by_path->address);
    }
}

int wsm_match(const GArray *ours, const WsmDiskDesc *desc, Error **errp)
{
    const char *address = desc->address ?: "";
    g_autofree char *id = wsm_match_id(desc->path);
    int by_address = find_address(ours, address);
    int by_path = find_path(ours, desc->path);

    if (by_path >= 0 && !strcmp(get(ours, by_path)->address, address)) {
        return by_path;
    }
    if (id && by_path >= 0) {
        error_moved(desc, id, get(ours, by_path),
                    by_address < 0 ? NULL : get(ours, by_address), errp);
        return -1;
    }
    if (by_address < 0) {
        error_setg(errp, "disk '%s': the destination has no disk at %s '%s'; "
                   "start it with the same devices at the same addresses",
                   desc->name, *address ? "address" : "path",
                   *address ? address : desc->path);
    }
    return by_address;
}
