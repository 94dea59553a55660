/*
 * Whole-system migration: disks that came here in the life of another QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "migration/wsm/dest/rejoin.h"

static void wsm_left_disk_free(void *opaque)
{
    WsmLeftDisk *disk = opaque;

    wsm_map_contents_destroy(&disk->map);
    blk_unref(disk->blk);
    wsm_map_place_free(disk->place);
    g_free(disk);
}

void wsm_left_free(WsmLeft *left)
{
    GLOBAL_STATE_CODE();
    wsm_start_destroy(&left->start);
    g_ptr_array_unref(left->disks);
    g_free(left->peer);
    g_free(left);
}

/*
 * Find
 */

/* The map that @image has, open and read */
static WsmLeftDisk *wsm_left_open(const WsmImage *image, const WsmDisk *ours,
                                  Error **errp)
{
    WsmMapWanted wanted = {
        .size = blk_getlength(ours->blk), .disk = image->map_disk,
        .boot = wsm_map_boot(),
    };
    BlockBackend *blk = wsm_map_place_open(image->map_place, errp);
    WsmLeftDisk *disk;

    if (!blk) {
        return NULL;
    }
    disk = g_new0(WsmLeftDisk, 1);
    disk->ours = ours;
    disk->blk = blk;
    disk->place = wsm_map_place_copy(image->map_place);
    qemu_uuid_parse(image->session, &wanted.session);
    if (wsm_map_log_load(blk, &wanted, &disk->map, errp) != WSM_MAP_COMMITTED) {
        wsm_left_disk_free(disk);
        return NULL;
    }
    return disk;
}

/* An image that has no part in it must be good on its own */
static bool wsm_left_check_other(const WsmImage *image, Error **errp)
{
    const char *peer = image->peer ?: "the source";

    if (image->state == WSM_IMAGE_STATE_CURRENT) {
        return true;
    }
    if (wsm_image_is_arriving(image)) {
        error_setg(errp, "%s; its disk is at %s as it was at the handover",
                   wsm_image_is_arriving(image), peer);
    } else if (image->state == WSM_IMAGE_STATE_INCOMPLETE) {
        error_setg(errp, "the migration to this image ended before the guest "
                   "was here, or it kept no map (option 'crash-safe'); the "
                   "guest's disk is at %s", peer);
    } else {
        error_setg(errp, "the image is a copy that was left behind ('%s'), and "
                   "no part of a guest that came here",
                   WsmImageState_str(image->state));
    }
    return false;
}

static bool wsm_left_add(WsmLeft *left, WsmImages *images,
                         const WsmDisk *ours, Error **errp)
{
    ERRP_GUARD();
    WsmImage *image = wsm_image_get(images, ours);
    WsmLeftDisk *disk;

    if (image->map != WSM_MAP_COMMITTED) {
        if (!wsm_left_check_other(image, errp)) {
            error_prepend(errp, "disk '%s': ", ours->name);
            return false;
        }
        return true;
    }
    disk = wsm_left_open(image, ours, errp);
    if (!disk) {
        error_prepend(errp, "disk '%s': ", ours->name);
        return false;
    }
    g_ptr_array_add(left->disks, disk);
    if (!left->peer) {
        left->peer = g_strdup(image->peer);
    }
    return true;
}

/*
 * Do they belong together?
 */

static int wsm_left_compare(gconstpointer a, gconstpointer b)
{
    const WsmLeftDisk *const *x = a, *const *y = b;

    return (int)(*x)->map.head.disk - (int)(*y)->map.head.disk;
}

static WsmLeftDisk *wsm_left_disk(const WsmLeft *left, unsigned i)
{
    return g_ptr_array_index(left->disks, i);
}

/* @disk is the next one, after those with the numbers up to @i */
static bool wsm_left_check_next(const WsmLeft *left, unsigned i, Error **errp)
{
    const WsmLeftDisk *first = wsm_left_disk(left, 0);
    const WsmLeftDisk *disk = wsm_left_disk(left, i);
    const WsmMapHead *a = &first->map.head, *b = &disk->map.head;

    if (!qemu_uuid_is_equal(&a->session, &b->session) ||
        a->disks != b->disks || a->channels != b->channels ||
        a->granularity != b->granularity || a->protocol != b->protocol ||
        a->features != b->features) {
        g_autofree char *x = qemu_uuid_unparse_strdup(&a->session);
        g_autofree char *y = qemu_uuid_unparse_strdup(&b->session);

        error_setg(errp, "disk '%s' came with migration %s, and disk '%s' with "
                   "%s: these images do not belong together",
                   first->ours->name, x, disk->ours->name, y);
        return false;
    }
    if (i && wsm_left_disk(left, i - 1)->map.head.disk == b->disk) {
        error_setg(errp, "disks '%s' and '%s' both have the map of disk '%s': "
                   "one image is a copy of the other",
                   wsm_left_disk(left, i - 1)->ours->name, disk->ours->name,
                   b->name);
        return false;
    }
    return true;
}

static bool wsm_left_check(WsmLeft *left, Error **errp)
{
    const WsmMapHead *head = &wsm_left_disk(left, 0)->map.head;
    unsigned n = left->disks->len;
    int64_t missing = 0;

    for (unsigned i = 0; i < n; i++) {
        if (!wsm_left_check_next(left, i, errp)) {
            return false;
        }
        missing += wsm_left_disk(left, i)->map.missing->bytes;
    }
    if (!missing) {
        error_setg(errp, "nothing is missing of this guest's disks, so there "
                   "is nothing to rejoin; let it run with cont");
        return false;
    }
    if (n < head->disks) {
        error_setg(errp, "the migration had %u disks, and %u of their images "
                   "are here: start QEMU with all of them", head->disks, n);
        return false;
    }
    return wsm_check_version(head->protocol, head->protocol, errp);
}

/* What START said, as far as it matters from now on */
static void wsm_left_set_start(WsmLeft *left)
{
    const WsmMapHead *head = &wsm_left_disk(left, 0)->map.head;
    WsmStart *start = &left->start;

    *start = (WsmStart) {
        .session = head->session,
        .version = head->protocol,
        .oldest = head->protocol,
        .features = head->features,
        /* No guest comes any more */
        .unused = WSM_FEATURES_ACCEL,
        .channels = head->channels,
        .granularity = head->granularity,
        .ndisks = left->disks->len,
        .disk = g_new0(WsmDiskDesc, left->disks->len),
    };
    for (unsigned i = 0; i < start->ndisks; i++) {
        const WsmMapHead *h = &wsm_left_disk(left, i)->map.head;

        start->disk[i] = (WsmDiskDesc) {
            .path = g_strdup(h->path),
            .name = g_strdup(h->name),
            .address = g_strdup(""),
            .file = g_strdup(""),
            .size = h->size,
        };
    }
}

WsmLeft *wsm_left_find(WsmImages *images, GArray *all, Error **errp)
{
    g_autoptr(WsmLeft) left = g_new0(WsmLeft, 1);

    GLOBAL_STATE_CODE();
    left->disks = g_ptr_array_new_with_free_func(wsm_left_disk_free);
    for (unsigned i = 0; i < all->len; i++) {
        const WsmDisk *ours = &g_array_index(all, WsmDisk, i);

        if (blk_supports_write_perm(ours->blk) &&
            !wsm_left_add(left, images, ours, errp)) {
            return NULL;
        }
    }
    if (!left->disks->len) {
        error_setg(errp, "no migration to this guest's images broke off: there "
                   "is nothing to rejoin");
        return NULL;
    }
    g_ptr_array_sort(left->disks, wsm_left_compare);
    if (!wsm_left_check(left, errp)) {
        return NULL;
    }
    wsm_left_set_start(left);
    return g_steal_pointer(&left);
}
