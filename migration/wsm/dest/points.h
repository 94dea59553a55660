/*
 * Whole-system migration: the destination's sync points
 *
 * When nothing is missing the image has a sync point with the source's image,
 * and all sync points that that one had.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_POINTS_H
#define MIGRATION_WSM_DEST_POINTS_H

#include "migration/wsm/dest/disk.h"

/* Make room for the source's, which come with POINT.  False, and @errp. */
bool wsm_dest_points_expect(WsmDestDisk *disk, Error **errp);

/* POINT has come.  In the loop.  Returns false and sets @errp. */
bool coroutine_fn wsm_dest_on_point(WsmDestDisks *disks, WsmDestConn *conn,
                                    const WsmMsg *msg, Error **errp);

/*
 * The filters go.  @complete: nothing is missing, and the guest is ours; then
 * the bitmap of what it has written through the filter becomes that of a new
 * sync point, in one drained section with the drop.  Main thread.
 */
void wsm_dest_points_drop_filter(WsmDestDisk *disk, bool complete);

/* The filters are gone and all POINTs have come.  Main thread. */
void wsm_dest_points_settle(WsmDestDisks *disks);

/* Main thread */
void wsm_dest_points_release(WsmDestDisk *disk);

#endif
