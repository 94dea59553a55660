/*
 * Whole-system migration: the map of missing blocks beside an image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "qemu/cutils.h"
#include "migration/wsm/image/beside.h"
#include "migration/wsm/image/map-file.h"

#define MAP_SUFFIX      ".wsm.map"

char *wsm_map_path(const char *image)
{
    return g_strconcat(image, MAP_SUFFIX, NULL);
}

/*
 * Create
 */

static bool write_zeroes(int fd, const char *path, Error **errp)
{
    g_autofree uint8_t *zero = g_malloc0(WSM_MAP_FILE_BYTES);

    return wsm_beside_write(fd, path, zero, WSM_MAP_FILE_BYTES, errp);
}

static bool fill_new(void *opaque, int fd, const char *path, Error **errp)
{
    const struct stat *image = opaque;

    return wsm_beside_copy_access(fd, path, image, errp) &&
           write_zeroes(fd, path, errp);
}

bool wsm_map_file_create(const char *image, Error **errp)
{
    g_autofree char *path = wsm_map_path(image);
    struct stat st;
    int folder;
    bool ok;

    if (!wsm_beside_stat_image(image, "map", &st, errp)) {
        return false;
    }
    folder = wsm_beside_open_folder(path, errp);
    if (folder < 0) {
        return false;
    }
    /* It is never there with less in it, see wsm_map_file_load() */
    ok = wsm_beside_replace(path, fill_new, &st, errp) &&
         wsm_beside_sync_folder(folder, path, errp);
    close(folder);
    return ok;
}

bool wsm_map_file_remove(const char *image, Error **errp)
{
    g_autofree char *path = wsm_map_path(image);

    return wsm_beside_remove(path, errp);
}

BlockBackend *wsm_map_file_open(const char *image, Error **errp)
{
    g_autofree char *path = wsm_map_path(image);
    QDict *options = qdict_new();

    GLOBAL_STATE_CODE();
    qdict_put_str(options, "driver", "file");
    qdict_put_str(options, "filename", path);
    return blk_new_open(NULL, NULL, options, BDRV_O_RDWR | BDRV_O_RESIZE |
                        BDRV_O_NO_SHARE | BDRV_O_PROTOCOL, errp);
}

/*
 * Load
 */

static int read_file(void *opaque, int64_t offset, int64_t bytes, void *buf)
{
    int fd = *(int *)opaque;

    while (bytes) {
        ssize_t ret = RETRY_ON_EINTR(pread(fd, buf, bytes, offset));

        if (ret <= 0) {
            return ret < 0 ? -errno : -EIO;     /* it became shorter */
        }
        buf += ret;
        offset += ret;
        bytes -= ret;
    }
    return 0;
}

/* -1 and @errp; no @errp if there is none */
static int open_map(const char *path, int64_t *size, Error **errp)
{
    struct stat st;
    int fd;

    /* Looked at before, for opening a device may do something already */
    if (stat(path, &st) < 0) {
        if (!wsm_beside_is_absent(errno)) {
            error_setg_errno(errp, errno, "cannot look at '%s'", path);
        }
        return -1;
    }
    if (!S_ISREG(st.st_mode)) {
        error_setg(errp, "'%s' is no regular file", path);
        return -1;
    }
    fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "cannot open '%s'", path);
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    *size = st.st_size;
    return fd;
}

WsmMapState wsm_map_file_load(const char *image, const WsmMapWanted *wanted,
                              WsmMapContents *out, Error **errp)
{
    ERRP_GUARD();
    g_autofree char *path = wsm_map_path(image);
    WsmMapReader reader = { .read = read_file };
    WsmMapState state;
    int fd = open_map(path, &reader.size, errp);

    *out = (WsmMapContents) {};
    if (fd < 0) {
        return *errp ? WSM_MAP_DAMAGED : WSM_MAP_NONE;
    }
    reader.opaque = &fd;
    if (reader.size < WSM_MAP_FILE_BYTES) {
        /* What is gone may have told of the guest's writes */
        error_setg(errp, "it was cut off: it has %" PRId64 " bytes, and was "
                   "made with %d", reader.size, (int)WSM_MAP_FILE_BYTES);
        state = WSM_MAP_DAMAGED;
    } else {
        state = wsm_map_load(&reader, wanted, out, errp);
    }
    close(fd);
    if (*errp) {
        error_prepend(errp, "'%s': ", path);
    }
    return state;
}
