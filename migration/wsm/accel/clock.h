/*
 * Whole-system migration: the guest's time stamp counter, whoever runs it
 *
 * Pure.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_ACCEL_CLOCK_H
#define MIGRATION_WSM_ACCEL_CLOCK_H

/* What the guest reads when it stands still, and how fast that grows */
typedef struct WsmClock {
    uint64_t tsc;               /* of all vCPUs */
    uint32_t khz;               /* of it; 0: not known */
} WsmClock;

/* Are the two so near that the guest's own corrections cope with it? */
bool wsm_khz_alike(uint32_t a, uint32_t b);

/* @ticks, which may be negative, of a counter of @from kHz in those of @to */
int64_t wsm_ticks_convert(int64_t ticks, uint32_t from, uint32_t to);

/* The frequency of a counter that made @ticks in @ns; 0: not known */
uint32_t wsm_khz_of(uint64_t ticks, int64_t ns);

#endif
