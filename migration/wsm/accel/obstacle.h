/*
 * Whole-system migration: what keeps a guest on its accelerator
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_ACCEL_OBSTACLE_H
#define MIGRATION_WSM_ACCEL_OBSTACLE_H

/*
 * Why the guest cannot leave this accelerator for another: what of it, and the
 * remedy, as the end of a sentence.  NULL: it can.  Waits for the vCPUs.  BQL.
 */
char *wsm_accel_obstacle(void);

#endif
