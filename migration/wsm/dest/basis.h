/*
 * Whole-system migration: what the destination's images build on
 *
 * At START each image is looked at, and decided; channel 0 says it to the
 * source before the first pass.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_BASIS_H
#define MIGRATION_WSM_DEST_BASIS_H

#include "migration/wsm/dest/disk.h"

/*
 * Decide what @disk, which is active, builds on; and see what has changed here
 * since, or what there is to compare.  Main thread.  Returns false, sets @errp.
 */
bool wsm_dest_basis_choose(WsmDestDisk *disk, Error **errp);

/* Say what was decided: BASIS and OWN.  In the loop; 0 or -errno. */
int coroutine_fn wsm_dest_basis_say(WsmDestDisks *disks, WsmDestConn *conn);

/* The source knows it by now, or never will.  Main thread. */
void wsm_dest_basis_release(WsmDestDisk *disk);

#endif
