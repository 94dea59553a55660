/*
 * Whole-system migration: the attribute of an image that has its record
 *
 * Where QEMU may not create files in the folder of an image, as under libvirt's
 * defaults, the record is an extended attribute of the image itself.  It goes
 * where the file goes, whatever its name, but has few KiB at most (ext4: one
 * block).
 *
 * Any thread; nothing here is shared.  See image/record.h for what is in it.
 * @fd is the image, a regular file, open in any mode but O_PATH: what counts is
 * who QEMU is, not how it was opened.  @image is its name, for messages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_RECORD_ATTR_H
#define MIGRATION_WSM_IMAGE_RECORD_ATTR_H

#include "qapi/qapi-types-wsm.h"

#define WSM_RECORD_ATTR "user.wsm"

/* Could there be one?  Changes nothing.  If not, returns false, sets @errp. */
bool wsm_record_attr_possible(int fd, const char *image, Error **errp);

bool wsm_record_attr_exists(int fd);

/*
 * As wsm_record_load().  An attribute that QEMU may not even read counts as
 * none: it could not have been written like that.
 */
bool wsm_record_attr_load(int fd, const char *image, WsmRecord **record,
                          Error **errp);

/*
 * Set it, as a whole; durable when this returns true.  Returns false and sets
 * @errp if that fails, also if it does not fit: then the old one is there.
 */
bool wsm_record_attr_save(int fd, const char *image, WsmRecord *record,
                          Error **errp);

/* As wsm_record_remove() */
bool wsm_record_attr_remove(int fd, const char *image, Error **errp);

#endif
