/*
 * Whole-system migration: what changes around the disks while they move
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_WATCH_H
#define MIGRATION_WSM_SOURCE_WATCH_H

#include "migration/wsm/source/source.h"

/*
 * Are the guest's disks as they were in start, and can the freeze succeed?
 * Brings @excluded up to date.  BQL, any thread.
 */
bool wsm_source_look(WsmSource *s, Error **errp);

/*
 * Look, once in a second, and give up if not.  Migration thread, without the
 * BQL, before the freeze.
 */
void wsm_source_watch(WsmSource *s);

#endif
