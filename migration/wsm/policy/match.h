/*
 * Whole-system migration: which disk of one side is which of the other
 *
 * A disk is found as QEMU's migration finds its device: by the address at
 * which the guest sees it.  The QOM path is a name on the host: that of a
 * device without an id depends on how many such were made before it, and one
 * with an id may have been given to another slot.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_POLICY_MATCH_H
#define MIGRATION_WSM_POLICY_MATCH_H

#include "migration/wsm/wire/message.h"
#include "migration/wsm/wire/start.h"

/* One of our disks; the strings are not owned */
typedef struct WsmMatch {
    const char *path;
    const char *address;        /* "": it has none, the path counts */
} WsmMatch;

/*
 * The id that the user gave to the device at @path, or to the one that it
 * belongs to; NULL if there is none.  Free with g_free().
 */
char *wsm_match_id(const char *path);

/*
 * The index in @ours (of WsmMatch) of the disk that the source describes as
 * @desc.  Returns -1 and sets @errp if there is none, or if ids and addresses
 * contradict each other.
 */
int wsm_match(const GArray *ours, const WsmDiskDesc *desc, Error **errp);

#endif
