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

#endif
