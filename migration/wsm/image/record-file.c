/*
 * Whole-system migration: the record beside an image, as a file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "migration/wsm/image/beside.h"
#include "migration/wsm/image/record-file.h"
#include "migration/wsm/image/record.h"

#define RECORD_SUFFIX   ".wsm"

char *wsm_record_path(const char *image)
{
    return g_strconcat(image, RECORD_SUFFIX, NULL);
}

bool wsm_record_exists(const char *image)
{
    g_autofree char *path = wsm_record_path(image);
    struct stat st;

    /* If that cannot be told, loading it says why */
    return stat(path, &st) == 0 || !wsm_beside_is_absent(errno);
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
        if (wsm_beside_is_absent(errno)) {
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

typedef struct RecordText {
    const GString *text;
    struct stat image;
} RecordText;

/* WsmBesideFn */
static bool write_text(void *opaque, int fd, const char *path, Error **errp)
{
    const RecordText *r = opaque;

    return wsm_beside_copy_access(fd, path, &r->image, errp) &&
           wsm_beside_write(fd, path, r->text->str, r->text->len, errp);
}

static bool replace_file(const char *image, const char *path,
                         const GString *text, Error **errp)
{
    RecordText r = { .text = text };

    return wsm_beside_stat_image(image, "record", &r.image, errp) &&
           wsm_beside_replace(path, write_text, &r, errp);
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
    folder = wsm_beside_open_folder(path, errp);
    if (folder < 0) {
        return false;
    }
    ok = replace_file(image, path, text, errp) &&
         wsm_beside_sync_folder(folder, path, errp);
    close(folder);
    return ok;
}

bool wsm_record_remove(const char *image, Error **errp)
{
    g_autofree char *path = wsm_record_path(image);

    return wsm_beside_remove(path, errp);
}
