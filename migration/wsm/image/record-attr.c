/*
 * Whole-system migration: the record of an image, as an attribute of its file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/units.h"
#include "qemu/xattr.h"
#include "migration/wsm/image/record-attr.h"
#include "migration/wsm/image/record.h"

#define ATTR_MAX_BYTES  (64 * KiB)      /* Linux's own limit, XATTR_SIZE_MAX */
#define NO_ATTR         WSM_RECORD_ATTR ".none"

static bool means_absent(int error)
{
    return error == ENODATA || error == ENOTSUP || error == EACCES;
}

static void cannot_set(const char *image, int error, Error **errp)
{
    error_setg_errno(errp, error, "cannot set attribute '" WSM_RECORD_ATTR
                     "' of '%s'", image);
}

bool wsm_record_attr_possible(int fd, const char *image, Error **errp)
{
    /* To replace one that is not there needs the same rights */
    if (fsetxattr(fd, NO_ATTR, "", 0, XATTR_REPLACE) < 0 && errno != ENODATA) {
        cannot_set(image, errno, errp);
        return false;
    }
    return true;
}

bool wsm_record_attr_exists(int fd)
{
    /* If that cannot be told, loading it says why */
    return fgetxattr(fd, WSM_RECORD_ATTR, NULL, 0) >= 0 ||
           !means_absent(errno);
}

bool wsm_record_attr_load(int fd, const char *image, WsmRecord **record,
                          Error **errp)
{
    ERRP_GUARD();
    g_autofree char *text = g_malloc(ATTR_MAX_BYTES);
    ssize_t size = fgetxattr(fd, WSM_RECORD_ATTR, text, ATTR_MAX_BYTES);

    *record = NULL;
    if (size < 0 && means_absent(errno)) {
        return true;
    }
    if (size < 0) {
        error_setg_errno(errp, errno, "cannot read attribute '" WSM_RECORD_ATTR
                         "' of '%s'", image);
        return false;
    }
    *record = wsm_record_decode(text, size, errp);
    if (!*record) {
        error_prepend(errp, "attribute '" WSM_RECORD_ATTR "' of '%s': ", image);
    }
    return *record;
}

static bool sync_image(int fd, const char *image, Error **errp)
{
    if (fsync(fd) < 0) {
        error_setg_errno(errp, errno, "cannot sync '%s'", image);
        return false;
    }
    return true;
}

/* What cannot fit need not be encoded, which takes time */
static bool may_fit(const WsmRecord *record)
{
    size_t size = 0;

    for (const WsmRecordPointList *p = record->points; p; p = p->next) {
        size += strlen(p->value->since);
        size += p->value->rest ? strlen(p->value->rest) : 0;
    }
    return size < ATTR_MAX_BYTES;
}

bool wsm_record_attr_save(int fd, const char *image, WsmRecord *record,
                          Error **errp)
{
    g_autoptr(GString) text = may_fit(record) ? wsm_record_encode(record)
                                              : NULL;

    if (!text || text->len > ATTR_MAX_BYTES) {
        cannot_set(image, E2BIG, errp);
        return false;
    }
    if (fsetxattr(fd, WSM_RECORD_ATTR, text->str, text->len, 0) < 0) {
        cannot_set(image, errno, errp);
        return false;
    }
    return sync_image(fd, image, errp);
}

bool wsm_record_attr_remove(int fd, const char *image, Error **errp)
{
    if (!wsm_record_attr_exists(fd)) {
        return true;
    }
    if (fremovexattr(fd, WSM_RECORD_ATTR) < 0 && errno != ENODATA) {
        error_setg_errno(errp, errno, "cannot remove attribute '"
                         WSM_RECORD_ATTR "' of '%s'", image);
        return false;
    }
    return sync_image(fd, image, errp);
}
