/*
 * Whole-system migration: a record beside an image, or in an attribute of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/image/record-attr.h"
#include "migration/wsm/image/record-file.h"
#include "migration/wsm/image/record-store.h"

WsmRecordStore *wsm_record_store_new(const char *file, const char *name,
                                     int fd)
{
    WsmRecordStore *store = g_new(WsmRecordStore, 1);

    *store = (WsmRecordStore) {
        .file = g_strdup(file), .name = g_strdup(name), .fd = fd,
    };
    return store;
}

void wsm_record_store_free(WsmRecordStore *store)
{
    if (store) {
        if (store->fd >= 0) {
            close(store->fd);
        }
        g_free(store->file);
        g_free(store->name);
        g_free(store);
    }
}

/* Takes both; either may be NULL, not both */
static void cannot_keep(Error *file_err, Error *attr_err, Error **errp)
{
    if (file_err && attr_err) {
        error_setg(errp, "%s; %s", error_get_pretty(file_err),
                   error_get_pretty(attr_err));
        error_free(file_err);
        error_free(attr_err);
    } else {
        error_propagate(errp, file_err ?: attr_err);
    }
}

static bool check_folder(const char *file, Error **errp)
{
    g_autofree char *folder = g_path_get_dirname(file);

    if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) < 0) {
        error_setg_errno(errp, errno, "cannot create files in '%s', the folder "
                         "of '%s'", folder, file);
        return false;
    }
    return true;
}

bool wsm_record_store_check(const WsmRecordStore *store, Error **errp)
{
    Error *file_err = NULL, *attr_err = NULL;

    if ((store->file && check_folder(store->file, &file_err)) ||
        (store->fd >= 0 &&
         wsm_record_attr_possible(store->fd, store->name, &attr_err))) {
        error_free(file_err);
        return true;
    }
    cannot_keep(file_err, attr_err, errp);
    return false;
}

bool wsm_record_store_load(const WsmRecordStore *store, WsmRecord **record,
                           Error **errp)
{
    *record = NULL;
    if (store->fd >= 0 &&
        (!wsm_record_attr_load(store->fd, store->name, record, errp) ||
         *record)) {
        return *record;
    }
    return !store->file || wsm_record_load(store->file, record, errp);
}

/* The newest is the one that the next migration builds on, as a rule */
static bool drop_oldest(WsmRecord *record)
{
    WsmRecordPointList *oldest = record->points;

    if (oldest) {
        record->points = oldest->next;
        oldest->next = NULL;
        qapi_free_WsmRecordPointList(oldest);
    }
    return oldest;
}

static bool save_attr_that_fits(const WsmRecordStore *store, WsmRecord *record,
                                Error **errp)
{
    Error *err = NULL;

    while (!wsm_record_attr_save(store->fd, store->name, record, &err)) {
        if (!drop_oldest(record)) {
            error_propagate(errp, err);
            return false;
        }
        g_clear_pointer(&err, error_free);
    }
    return true;
}

bool wsm_record_store_save(const WsmRecordStore *store, WsmRecord *record,
                           Error **errp)
{
    bool has_attr = store->fd >= 0 && wsm_record_attr_exists(store->fd);
    Error *file_err = NULL, *attr_err = NULL;

    if (has_attr &&
        wsm_record_attr_save(store->fd, store->name, record, NULL)) {
        return true;
    }
    if (store->file && wsm_record_save(store->file, record, &file_err)) {
        /* In between the old one counts: the image was not current before */
        return !has_attr ||
               wsm_record_attr_remove(store->fd, store->name, errp);
    }
    if (store->fd >= 0 && save_attr_that_fits(store, record, &attr_err)) {
        error_free(file_err);
        return true;
    }
    cannot_keep(file_err, attr_err, errp);
    return false;
}

/* Outweighs a file that says something else */
static bool save_current(const WsmRecordStore *store)
{
    WsmRecord record = {
        .state = WSM_IMAGE_STATE_CURRENT,
        .session = (char *)"",
        .time = g_get_real_time() / G_USEC_PER_SEC,
    };
    struct stat st;

    if (store->fd < 0 || fstat(store->fd, &st) < 0) {
        return false;
    }
    record.disk_size = st.st_size;
    return wsm_record_attr_save(store->fd, store->name, &record, NULL);
}

bool wsm_record_store_remove(const WsmRecordStore *store, Error **errp)
{
    Error *err = NULL;

    if (store->file && !wsm_record_remove(store->file, &err)) {
        if (save_current(store)) {
            error_free(err);
            return true;
        }
        error_propagate(errp, err);
        return false;
    }
    return store->fd < 0 ||
           wsm_record_attr_remove(store->fd, store->name, errp);
}
