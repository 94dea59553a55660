/*
 * Whole-system migration: the source's images stay locked in post-copy
 *
 * In the freeze QEMU makes the images inactive, and with that gives up the
 * locks that keep other processes from writing to them.  The guest at the
 * destination still reads from them.  So each file or device that a disk's
 * data is in gets one more parent here, which shares all as long as the guest
 * runs, and does not let others write or resize when it has stopped.
 *
 * When the guest was handed over, no node can be made active again before the
 * hold has ended: nothing may write to it here either.
 *
 * Main thread with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_HOLD_H
#define MIGRATION_WSM_IMAGE_HOLD_H

#include "migration/wsm/image/nodes.h"

typedef struct WsmHold WsmHold;

/*
 * @name of the disk is for warnings; it, @nodes and @handed_over (atomic: the
 * guest is elsewhere) are kept by the caller.
 */
WsmHold *wsm_hold_new(const WsmNodes *nodes, const char *name,
                      const bool *handed_over);

/* From now on nodes can be made active; only then give up the lock */
void wsm_hold_end(WsmHold *hold);

/* Give up the locks.  @hold may be NULL. */
void wsm_hold_free(WsmHold *hold);

#endif
