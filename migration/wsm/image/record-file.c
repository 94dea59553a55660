/*
 * Whole-system migration: the record beside an image, as a file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "migration/wsm/image/record-file.h"
#include "migration/wsm/image/record.h"

#define RECORD_SUFFIX   ".wsm"
#define NEW_SUFFIX      ".wsm.new"  /* not yet the record; left by a crash */
#define MODE_MASK       0666

char *wsm_record_path(const char *image)
{
    return g_strconcat(image, RECORD_SUFFIX, NULL);
}

/* With a name that is too long there cannot be a file */
static bool means_absent(int error)
{
    return error == ENOENT || error == ENOTDIR || error == ENAMETOOLONG;
}

bool wsm_record_exists(const char *image)
{
    g_autofree char *path = wsm_record_path(image);
    struct stat st;

    /* If that cannot be told, loading it says why */
    return stat(path, &st) == 0 || !means_absent(errno);
}

static bool check_regular(const char *path, const struct stat *st,
                          Error **errp)
{
    if (!S_ISREG(st->st_mode)) {
        error_setg(errp, "'%s' is no regular file", path);
        return false;
    }
    if (st->st_size > WSM_RECORD_MAX_BYTES) {
        error_setg(errp, "'%s' has %" PRId64 " bytes, but a record has at most "
                   "%" PRId64, path, (int64_t)st->st_size,
                   (int64_t)WSM_RECORD_MAX_BYTES);
        return false;
    }
    return true;
}

/* Reads up to @size bytes; returns how many there were, or -errno */
static ssize_t read_full(int fd, char *buf, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t ret = RETRY_ON_EINTR(read(fd, buf + done, size - done));

        if (ret < 0) {
            return -errno;
        }
        if (ret == 0) {
            break;
        }
        done += ret;
    }
    return done;
}

static WsmRecord *read_record(int fd, const char *path, size_t size,
                              Error **errp)
{
    ERRP_GUARD();
    g_autofree char *text = g_malloc(size + 1);
    ssize_t got = read_full(fd, text, size);
    WsmRecord *record;

    if (got < 0) {
        error_setg_errno(errp, -got, "cannot read '%s'", path);
        return NULL;
    }
    record = wsm_record_decode(text, got, errp);
    if (!record) {
        error_prepend(errp, "'%s': ", path);
    }
    return record;
}

bool wsm_record_load(const char *image, WsmRecord **record, Error **errp)
{
    g_autofree char *path = wsm_record_path(image);
    struct stat st;
    int fd;

    *record = NULL;
    if (stat(path, &st) < 0) {
        if (means_absent(errno)) {
            return true;
        }
        error_setg_errno(errp, errno, "cannot look at '%s'", path);
        return false;
    }
    /* Looked at before, for opening a device may do something already */
    if (!check_regular(path, &st, errp)) {
        return false;
    }
    fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot open '%s'", path);
        return false;
    }
    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "cannot look at '%s'", path);
    } else if (check_regular(path, &st, errp)) {
        *record = read_record(fd, path, st.st_size, errp);
    }
    close(fd);
    return *record != NULL;
}

static int open_folder(const char *path, Error **errp)
{
    g_autofree char *folder = g_path_get_dirname(path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot open '%s', the folder of '%s'",
                         folder, path);
    }
    return fd;
}

static bool sync_folder(int fd, const char *path, Error **errp)
{
    if (fsync(fd) < 0) {
        error_setg_errno(errp, errno, "cannot sync the folder of '%s'", path);
        return false;
    }
    return true;
}

/*
 * Whoever may use the image may use its record.  Only root can set another
 * owner; where that fails the record is its writer's, who runs the guest.
 */
static bool copy_access(int fd, const char *path, const struct stat *image,
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

/* A new file, never one that somebody has put there */
static int create_file(const char *path, Error **errp)
{
    int fd;

    if (unlink(path) < 0 && errno != ENOENT) {
        error_setg_errno(errp, errno, "cannot remove the old '%s'", path);
        return -1;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot create '%s'", path);
    }
    return fd;
}

static bool write_file(const char *path, const GString *text,
                       const struct stat *image, Error **errp)
{
    int fd = create_file(path, errp);
    bool ok = false;

    if (fd < 0) {
        return false;
    }
    if (qemu_write_full(fd, text->str, text->len) != text->len) {
        error_setg_errno(errp, errno, "cannot write '%s'", path);
    } else if (copy_access(fd, path, image, errp)) {
        ok = fsync(fd) == 0;
        if (!ok) {
            error_setg_errno(errp, errno, "cannot sync '%s'", path);
        }
    }
    if (close(fd) < 0 && ok) {
        error_setg_errno(errp, errno, "cannot close '%s'", path);
        ok = false;
    }
    if (!ok) {
        unlink(path);
    }
    return ok;
}

static bool replace_file(const char *image, const char *path,
                         const GString *text, Error **errp)
{
    g_autofree char *new_path = g_strconcat(image, NEW_SUFFIX, NULL);
    struct stat st;

    if (stat(image, &st) < 0) {
        error_setg_errno(errp, errno, "cannot look at '%s'", image);
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        error_setg(errp, "'%s' is no regular file, so it has no record",
                   image);
        return false;
    }
    if (!write_file(new_path, text, &st, errp)) {
        return false;
    }
    if (rename(new_path, path) < 0) {
        error_setg_errno(errp, errno, "cannot rename '%s' to '%s'",
                         new_path, path);
        unlink(new_path);
        return false;
    }
    return true;
}

bool wsm_record_save(const char *image, WsmRecord *record, Error **errp)
{
    g_autofree char *path = wsm_record_path(image);
    g_autoptr(GString) text = wsm_record_encode(record);
    int folder;
    bool ok;

    if (text->len > WSM_RECORD_MAX_BYTES) {
        error_setg(errp, "'%s' would have %zu bytes, but a record has at most "
                   "%" PRId64, path, text->len, (int64_t)WSM_RECORD_MAX_BYTES);
        return false;
    }
    /* If this cannot be done, better before anything is changed */
    folder = open_folder(path, errp);
    if (folder < 0) {
        return false;
    }
    ok = replace_file(image, path, text, errp) &&
         sync_folder(folder, path, errp);
    close(folder);
    return ok;
}

bool wsm_record_remove(const char *image, Error **errp)
{
    g_autofree char *path = wsm_record_path(image);
    int folder;
    bool ok;

    if (!wsm_record_exists(image)) {
        return true;
    }
    folder = open_folder(path, errp);
    if (folder < 0) {
        return false;
    }
    if (unlink(path) < 0 && errno != ENOENT) {
        error_setg_errno(errp, errno, "cannot remove '%s'", path);
        ok = false;
    } else {
        ok = sync_folder(folder, path, errp);
    }
    close(folder);
    return ok;
}
