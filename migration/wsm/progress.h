/*
 * Whole-system migration: progress, as query-wsm shows it
 *
 * Main thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_PROGRESS_H
#define MIGRATION_WSM_PROGRESS_H

#include "migration/wsm/policy/expect.h"
#include "migration/wsm/state.h"

/* Take samples from now on, as long as the migration goes on */
void wsm_progress_start(Wsm *w);

/* What is left, how fast it goes, and how long it will take */
void wsm_progress_info(Wsm *w, WsmInfo *info);

#endif
