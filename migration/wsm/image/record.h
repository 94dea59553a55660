/*
 * Whole-system migration: the record beside an image
 *
 * A small file IMAGE.wsm says whether the image is current, and keeps the sync
 * points of images whose format cannot.  It has one line
 *
 *     wsm-record 1 SHA256
 *
 * and then a WsmRecord (qapi/wsm.json) as JSON, of which SHA256 is the sum.
 * So a torn one is found out, and people can read it.
 *
 * The file is replaced as a whole (new file, fsync, rename, fsync of the
 * folder), so that after a power cut it is the old one or the new one.
 *
 * Any thread; nothing here is shared.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_RECORD_H
#define MIGRATION_WSM_IMAGE_RECORD_H

#include "qemu/units.h"
#include "qapi/qapi-types-wsm.h"

/*
 * A file with more bytes is no record: it is neither read nor written.
 * QEMU's JSON parser takes no more than 64 MiB.
 */
#define WSM_RECORD_MAX_BYTES    (63 * MiB)

/*
 * Pure.  Encode into a new string; decode all of @text (@size bytes, need not
 * end with NUL).  Decoding returns NULL and sets @errp if it is no record,
 * torn, or of another version, and says which.
 */
GString *wsm_record_encode(WsmRecord *record);
WsmRecord *wsm_record_decode(const char *text, size_t size, Error **errp);

/*
 * What tells that a file was changed.  @image must be a regular file.  Returns
 * false and sets @errp if it is not, or cannot be looked at.
 */
bool wsm_record_stat(const char *image, WsmFileStamp *stamp, Error **errp);

/*
 * As wsm_record_stat(), but after waiting until the clock of the file system
 * has gone on, so that whoever writes to the image later leaves another
 * stamp.  Mostly some 10 ms, never more than some 50 ms.  Returns false and
 * sets @errp if that does not suffice: if the time of the image is in the
 * future, as after the clock was set back; if somebody is writing to it; or if
 * the file system keeps whole seconds only and the last write was less than
 * two seconds ago.
 */
bool wsm_record_stamp(const char *image, WsmFileStamp *stamp, Error **errp);

/*
 * Is @now the stamp of an image that nobody has touched since @then?  If not,
 * returns false and sets @errp: it names what differs, with both values.  A
 * stamp with a time in the future is never one.
 */
bool wsm_record_unchanged(const WsmFileStamp *then, const WsmFileStamp *now,
                          Error **errp);

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
