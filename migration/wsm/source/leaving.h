/*
 * Whole-system migration: the record of an image whose guest is leaving
 *
 * From shortly before the freeze until the end it is all that is left of this
 * side if QEMU is killed: so it says what is needed to serve the image to the
 * destination without it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_LEAVING_H
#define MIGRATION_WSM_SOURCE_LEAVING_H

#include "migration/wsm/source/source.h"

/*
 * All disks are there: put into the records of them (WsmSourceDisk.leaving)
 * how the destination knows each.  Main thread.
 */
void wsm_source_describe_leaving(WsmSource *s);

/*
 * Write to the records of a WsmSource that the guest is about to leave.  A job
 * for the thread pool; returns 0.
 */
int wsm_source_mark_leaving(void *opaque);

/*
 * The destination has another address now.  Records that were written, and
 * still hold, get to know of it.  Main thread.
 */
void wsm_source_redirect_leaving(WsmSource *s);

/*
 * The guest is gone: the records get the stamps of the images, of which the
 * destination needs what is in them.  A bottom half in the main thread, as it
 * takes its time; @opaque is the WsmSource.
 */
void wsm_source_stamp_leaving(void *opaque);

#endif
