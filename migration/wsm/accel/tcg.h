/*
 * Whole-system migration: a guest that TCG runs
 *
 * Of accel/ alone, as their namesakes in guest.h.  BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_ACCEL_TCG_H
#define MIGRATION_WSM_ACCEL_TCG_H

#include "migration/wsm/accel/clock.h"

void wsm_tcg_register(const bool *told);
void wsm_tcg_measure(void);
void wsm_tcg_reset(void);
bool wsm_tcg_is_paced(void);
void wsm_tcg_save(WsmClock *clock);
void wsm_tcg_load(const WsmClock *clock);

#endif
