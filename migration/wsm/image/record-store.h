/*
 * Whole-system migration: where the record of an image is kept
 *
 * Beside the image, in a file of its own, if QEMU may create it there; else in
 * an attribute of the image.  An attribute that is there stays the place until
 * it is removed, and outweighs a file: that one is of a time when the folder
 * was open, and cannot be removed now.
 *
 * Any thread, one at a time per store.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_RECORD_STORE_H
#define MIGRATION_WSM_IMAGE_RECORD_STORE_H

#include "qapi/qapi-types-wsm.h"

typedef struct WsmRecordStore {
    /* Set in new, never changed */
    char *file;                 /* the image's name; NULL: not known */
    char *name;                 /* for people: @file, or how it was opened */
    int fd;                     /* the image, ours to close, or -1 */
} WsmRecordStore;

/*
 * @file may be NULL, or @fd -1.  Takes @fd, which must not share a file
 * description with QEMU's own: its locks would live as long.
 */
WsmRecordStore *wsm_record_store_new(const char *file, const char *name,
                                     int fd);
void wsm_record_store_free(WsmRecordStore *store);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WsmRecordStore, wsm_record_store_free)

/*
 * As far as can be told without doing it, could a record be kept?  Returns
 * false and sets @errp if not; one may be there all the same.
 */
bool wsm_record_store_check(const WsmRecordStore *store, Error **errp);

/* As wsm_record_load() */
bool wsm_record_store_load(const WsmRecordStore *store, WsmRecord **record,
                           Error **errp);

/*
 * As wsm_record_save().  For an attribute the oldest points may have to go:
 * those that are left are in @record then.
 */
bool wsm_record_store_save(const WsmRecordStore *store, WsmRecord *record,
                           Error **errp);

/*
 * The image is current and has no points: as wsm_record_remove().  If there is
 * a file that cannot be removed, an attribute says that.
 */
bool wsm_record_store_remove(const WsmRecordStore *store, Error **errp);

#endif
