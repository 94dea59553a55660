/*
 * Whole-system migration: an image whose missing blocks are lost for good
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/units.h"
#include "migration/wsm/image/beside.h"
#include "migration/wsm/image/salvage.h"

#define WSM_ZERO_STEP   (64 * MiB)      /* bytes in one request */

char *wsm_salvage_list_path(const char *image)
{
    return g_strconcat(image, ".wsm.lost", NULL);
}

/* What the map says of it, so far */
static WsmMissing *wsm_salvage_missing(const WsmImage *image, int64_t size,
                                       Error **errp)
{
    WsmMapWanted wanted = { .size = size, .disk = image->map_disk };
    WsmMapContents contents;

    if (qemu_uuid_parse(image->session, &wanted.session) < 0 ||
        wsm_map_place_load(image->map_place, &wanted, &contents, errp) !=
        WSM_MAP_COMMITTED) {
        return NULL;
    }
    return contents.missing;
}

/* The list */

static bool wsm_salvage_fill(void *opaque, int fd, const char *path,
                             Error **errp)
{
    GString *text = opaque;

    return wsm_beside_write(fd, path, text->str, text->len, errp);
}

static bool wsm_salvage_list(const char *image, const WsmMissing *missing,
                             Error **errp)
{
    g_autofree char *path = wsm_salvage_list_path(image);
    g_autoptr(GString) text = g_string_new(NULL);
    int64_t offset = 0, bytes = 0;
    int folder = wsm_beside_open_folder(path, errp);
    bool ok;

    if (folder < 0) {
        return false;
    }
    while (wsm_missing_next(missing, offset + bytes, &offset, &bytes)) {
        g_string_append_printf(text, "%" PRId64 " %" PRId64 "\n", offset,
                               bytes);
    }
    ok = wsm_beside_replace(path, wsm_salvage_fill, text, errp) &&
         wsm_beside_sync_folder(folder, path, errp);
    close(folder);
    return ok;
}

/* Zeroes */

static int wsm_salvage_zero_all(BlockBackend *blk, const WsmMissing *missing)
{
    int64_t offset = 0, bytes = 0;

    while (wsm_missing_next(missing, offset + bytes, &offset, &bytes)) {
        for (int64_t done = 0; done < bytes; done += WSM_ZERO_STEP) {
            int ret = blk_pwrite_zeroes(blk, offset + done,
                                        MIN(bytes - done, WSM_ZERO_STEP), 0);

            if (ret < 0) {
                return ret;
            }
        }
    }
    return blk_flush(blk);
}

bool wsm_salvage_zero(const WsmImage *image, BlockBackend *blk, Error **errp)
{
    g_autoptr(WsmMissing) missing = NULL;
    int ret;

    GLOBAL_STATE_CODE();
    missing = wsm_salvage_missing(image, blk_getlength(blk), errp);
    if (!missing ||
        (image->file && !wsm_salvage_list(image->file, missing, errp))) {
        return false;
    }
    ret = wsm_salvage_zero_all(blk, missing);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "disk '%s': cannot write zeroes where "
                         "blocks are lost", image->name);
    }
    return ret >= 0;
}
