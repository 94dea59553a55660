/*
 * Whole-system migration: files beside an image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/image/beside.h"

#define NEW_SUFFIX      ".new"  /* not whole yet; left by a crash */
#define MODE_MASK       0666

bool wsm_beside_is_absent(int error)
{
    return error == ENOENT || error == ENOTDIR || error == ENAMETOOLONG;
}

int wsm_beside_open_folder(const char *path, Error **errp)
{
    g_autofree char *folder = g_path_get_dirname(path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot open '%s', the folder of '%s'",
                         folder, path);
    }
    return fd;
}

bool wsm_beside_sync_folder(int fd, const char *path, Error **errp)
{
    if (fsync(fd) < 0) {
        error_setg_errno(errp, errno, "cannot sync the folder of '%s'", path);
        return false;
    }
    return true;
}

int wsm_beside_create(const char *path, Error **errp)
{
    int fd;

    if (unlink(path) < 0 && errno != ENOENT) {
        error_setg_errno(errp, errno, "cannot remove the old '%s'", path);
        return -1;
    }
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot create '%s'", path);
    }
    return fd;
}

bool wsm_beside_write(int fd, const char *path, const void *buf, size_t size,
                      Error **errp)
{
    if (qemu_write_full(fd, buf, size) != size) {
        error_setg_errno(errp, errno, "cannot write '%s'", path);
        return false;
    }
    if (fsync(fd) < 0) {
        error_setg_errno(errp, errno, "cannot sync '%s'", path);
        return false;
    }
    return true;
}

bool wsm_beside_replace(const char *path, WsmBesideFn *fill, void *opaque,
                        Error **errp)
{
    g_autofree char *new_path = g_strconcat(path, NEW_SUFFIX, NULL);
    int fd = wsm_beside_create(new_path, errp);
    bool ok;

    if (fd < 0) {
        return false;
    }
    ok = fill(opaque, fd, new_path, errp);
    if (close(fd) < 0 && ok) {
        error_setg_errno(errp, errno, "cannot close '%s'", new_path);
        ok = false;
    }
    if (ok && rename(new_path, path) < 0) {
        error_setg_errno(errp, errno, "cannot rename '%s' to '%s'", new_path,
                         path);
        ok = false;
    }
    if (!ok) {
        unlink(new_path);
    }
    return ok;
}

bool wsm_beside_stat_image(const char *image, const char *what,
                           struct stat *st, Error **errp)
{
    if (stat(image, st) < 0) {
        error_setg_errno(errp, errno, "cannot look at '%s'", image);
        return false;
    }
    if (!S_ISREG(st->st_mode)) {
        error_setg(errp, "'%s' is no regular file, so it has no %s", image,
                   what);
        return false;
    }
    return true;
}

bool wsm_beside_copy_access(int fd, const char *path, const struct stat *image,
                            Error **errp)
{
    G_GNUC_UNUSED int ignored;

    if (fchmod(fd, image->st_mode & MODE_MASK) < 0) {
        error_setg_errno(errp, errno, "cannot set the mode of '%s'", path);
        return false;
    }
    ignored = fchown(fd, image->st_uid, image->st_gid);
    return true;
}

bool wsm_beside_remove(const char *path, Error **errp)
{
    struct stat st;
    int folder;
    bool ok;

    /* A folder that may not be looked into has none of ours, either */
    if (lstat(path, &st) < 0 && wsm_beside_is_absent(errno)) {
        return true;
    }
    folder = wsm_beside_open_folder(path, errp);
    if (folder < 0) {
        return false;
    }
    if (unlink(path) < 0 && errno != ENOENT) {
        error_setg_errno(errp, errno, "cannot remove '%s'", path);
        ok = false;
    } else {
        ok = wsm_beside_sync_folder(folder, path, errp);
    }
    close(folder);
    return ok;
}
