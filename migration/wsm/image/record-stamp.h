/*
 * Whole-system migration: was the file of an image changed?
 *
 * Any thread; nothing here is shared.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_RECORD_STAMP_H
#define MIGRATION_WSM_IMAGE_RECORD_STAMP_H

#include "qapi/qapi-types-wsm.h"

/*
 * What tells that a file was changed.  @fd is an image, which must be a regular
 * file, and @image its name, for messages.  Returns false and sets @errp if it
 * is not, or cannot be looked at.
 */
bool wsm_record_stat(int fd, const char *image, WsmFileStamp *stamp,
                     Error **errp);

/*
 * As wsm_record_stat(), but after waiting until the clock of the file system
 * has gone on, so that whoever writes to the image later leaves another
 * stamp.  Mostly some 10 ms, never more than some 50 ms.  Returns false and
 * sets @errp if that does not suffice: if the time of the image is in the
 * future, as after the clock was set back; if somebody is writing to it; or if
 * the file system keeps whole seconds only and the last write was less than
 * two seconds ago.
 */
bool wsm_record_stamp(int fd, const char *image, WsmFileStamp *stamp,
                      Error **errp);

/*
 * Is @now the stamp of an image that nobody has written to since @then?  If
 * not, returns false and sets @errp: it names what differs, with both values.
 * A stamp with an mtime in the future is never one.  Another ctime means
 * nothing: it changes with the owner, which libvirt sets at each start and
 * stop, and with our own attribute.
 */
bool wsm_record_unchanged(const WsmFileStamp *then, const WsmFileStamp *now,
                          Error **errp);

#endif
