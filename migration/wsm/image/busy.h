/*
 * Whole-system migration: who would make the freeze fail
 *
 * In the freeze QEMU makes all block nodes inactive, those of disks that do
 * not move as well.  That fails if anybody but a guest's device may still
 * write to one of them, and QEMU does not say who.  We do, before anything is
 * copied.
 *
 * Main thread with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_BUSY_H
#define MIGRATION_WSM_IMAGE_BUSY_H

/*
 * False and @errp if there is such a user, or a block job on one of @moving,
 * which are of WsmDisk.  A mirror of another disk is the user's business.
 */
bool wsm_busy_check(const GPtrArray *moving, Error **errp);

#endif
