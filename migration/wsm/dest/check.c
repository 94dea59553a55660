/*
 * Whole-system migration: may the destination's disks be written to?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/migration.h"
#include "migration/wsm/dest/check.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/image/storage.h"
#include "migration/wsm/wire/start.h"

#define WSM_ONLY_COPY_REMEDY \
    "if it is not needed any more, type wsm-adopt at the destination before " \
    "migrate-incoming, or else give it another image"

static bool wsm_dest_check_disk(const WsmDiskDesc *desc, const WsmDisk *ours,
                                Error **errp)
{
    int64_t size;

    if (!blk_supports_write_perm(ours->blk)) {
        error_setg(errp, "disk '%s': it is read-only at the destination; "
                   "make it writable there", desc->name);
        return false;
    }
    size = blk_getlength(ours->blk);
    if (size < 0) {
        error_setg_errno(errp, -size, "disk '%s': the destination cannot get "
                         "its size", desc->name);
        return false;
    }
    if (size != desc->size) {
        error_setg(errp, "disk '%s': destination is %" PRId64 " bytes, source "
                   "is %" PRIu64 "; create it with the same size%s",
                   desc->name, size, desc->size,
                   size > desc->size ? ", or use a part of it: driver raw with "
                                       "'size' above its file" : "");
        return false;
    }
    return true;
}

/* Was one of the source's sync points made by @session, for any disk? */
static bool wsm_descends_from(const WsmDiskDesc *desc, const char *session)
{
    QemuUUID uuid;

    if (!session || qemu_uuid_parse(session, &uuid) < 0) {
        return false;
    }
    for (unsigned i = 0; i < desc->npoints; i++) {
        for (unsigned n = 0; n < WSM_MAX_DISKS; n++) {
            QemuUUID id = wsm_points_id(&uuid, n);

            if (qemu_uuid_is_equal(&desc->point[i].id, &id)) {
                return true;
            }
        }
    }
    return false;
}

/*
 * The QEMU of a "leaving" image ended in the handover or in post-copy.  Then
 * it has all that the guest had, and the other host may lack some of it, unless
 * that has a sync point of this session, which it gets when it has everything.
 */
static bool wsm_dest_check_only_copy(const WsmDiskDesc *desc,
                                     const WsmImage *image, Error **errp)
{
    g_autoptr(GDateTime) when = g_date_time_new_from_unix_utc(image->time);
    g_autofree char *time = g_date_time_format(when, "%Y-%m-%d %H:%M:%S UTC");

    if (image->state != WSM_IMAGE_STATE_LEAVING ||
        wsm_descends_from(desc, image->session)) {
        return true;
    }
    if (!image->session) {
        /* Its record cannot be read, and may have said so */
        error_setg(errp, "disk '%s': whether the image '%s' at the destination "
                   "may be the only complete one is not known: %s; "
                   WSM_ONLY_COPY_REMEDY, desc->name,
                   image->file ?: image->name, image->problem);
        return false;
    }
    error_setg(errp, "disk '%s': the image '%s' at the destination may be the "
               "only complete one of another guest, or of this one: its guest "
               "was about to be handed over to %s at %s when QEMU ended, and "
               "nothing shows that the source has all of it; "
               WSM_ONLY_COPY_REMEDY, desc->name, image->file ?: image->name,
               image->peer ?: "another host", time);
    return false;
}

/* What the guest has flushed here is nowhere else */
static bool wsm_dest_check_arriving(const WsmDiskDesc *desc,
                                    const WsmImage *image, Error **errp)
{
    const char *arriving = wsm_image_is_arriving(image);

    if (!arriving) {
        return true;
    }
    error_setg(errp, "disk '%s': the image '%s' at the destination is the disk "
               "of a guest that came there from %s, and QEMU ended before all "
               "of it was there: %s; if it is not needed any more, type "
               "wsm-adopt with 'missing': 'stale' at the destination before "
               "migrate-incoming, or else give it another image", desc->name,
               image->file ?: image->name, image->peer ?: "another host",
               arriving);
    return false;
}

GPtrArray *wsm_dest_check_disks(WsmImages *images, GArray *all,
                                const WsmStart *start, Error **errp)
{
    g_autoptr(GPtrArray) found = g_ptr_array_new();

    for (unsigned i = 0; i < start->ndisks; i++) {
        const WsmDiskDesc *desc = &start->disk[i];
        WsmDisk *ours = wsm_disk_find(all, desc, errp);

        if (!ours || !wsm_dest_check_disk(desc, ours, errp) ||
            !wsm_storage_check(wsm_disk_bs(ours), desc->name, start, errp) ||
            !wsm_dest_check_only_copy(desc, wsm_image_get(images, ours),
                                      errp) ||
            !wsm_dest_check_arriving(desc, wsm_image_get(images, ours),
                                     errp)) {
            return NULL;
        }
        g_ptr_array_add(found, ours);
    }
    return g_steal_pointer(&found);
}

bool wsm_dest_has_begun(void)
{
    MigrationStatus state = migration_incoming_get_current()->state;

    return state != MIGRATION_STATUS_NONE && state != MIGRATION_STATUS_SETUP;
}
