/*
 * Whole-system migration: the file that has the record of an image
 *
 * Any thread; nothing here is shared.  See image/record.h for what is in it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_RECORD_FILE_H
#define MIGRATION_WSM_IMAGE_RECORD_FILE_H

#include "qapi/qapi-types-wsm.h"

/* "IMAGE.wsm"; free with g_free() */
char *wsm_record_path(const char *image);

bool wsm_record_exists(const char *image);

/*
 * Read the record of @image.  *@record is NULL if there is none; free it with
 * qapi_free_WsmRecord().  Returns false and sets @errp if there is one that
 * cannot be used.
 */
bool wsm_record_load(const char *image, WsmRecord **record, Error **errp);

/*
 * Write it; durable when this returns true.  @image must be a regular file; the
 * record gets its mode, and its owner if that is allowed.  Returns false and
 * sets @errp if that fails, also if it would have more than
 * WSM_RECORD_MAX_BYTES; then the caller should leave out @points rather than
 * the rest.
 */
bool wsm_record_save(const char *image, WsmRecord *record, Error **errp);

/*
 * Remove it, durably; no error if there is none.  Returns false and sets @errp
 * if it cannot be removed.
 */
bool wsm_record_remove(const char *image, Error **errp);

#endif
