/*
 * Whole-system migration: may the destination's disks be written to?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_CHECK_H
#define MIGRATION_WSM_DEST_CHECK_H

#include "migration/wsm/image/images.h"
#include "migration/wsm/wire/message.h"
#include "migration/wsm/wire/start.h"

/*
 * Main thread, before anything is activated or written: our disks in the order
 * of @start, as WsmDisk of @all.  Returns NULL and sets @errp if one is missing
 * or does not fit, is the source's own, or has what exists nowhere else.
 */
GPtrArray *wsm_dest_check_disks(WsmImages *images, GArray *all,
                                const WsmStart *start, Error **errp);

/* Main thread: has the source come?  Then images cannot be adopted any more. */
bool wsm_dest_has_begun(void);

#endif
