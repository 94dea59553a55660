/*
 * Whole-system migration: the source's sync points
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_POINTS_H
#define MIGRATION_WSM_SOURCE_POINTS_H

#include "migration/wsm/image/guest-disk.h"
#include "migration/wsm/source/source.h"

/* Main thread: take the sync points of @d into account */
bool wsm_source_add_points(WsmSource *s, WsmSourceDisk *d, const WsmDisk *disk,
                           Error **errp);

/* Are they ours alone, not even our own functions'?  BQL. */
void wsm_source_hold_points(WsmSourceDisk *d, bool hold);

/* Tell the destination of all sync points.  IOThread. */
void coroutine_fn wsm_source_send_points(WsmSource *s);

/* The migration is over: keep a sync point.  Main thread. */
void wsm_source_settle(WsmSource *s, WsmSourceDisk *d);
void wsm_source_free_points(WsmSourceDisk *d);

#endif
