/*
 * Whole-system migration: how fast it goes, and how long it will take
 *
 * Pure: the arithmetic of what query-wsm guesses.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_POLICY_EXPECT_H
#define MIGRATION_WSM_POLICY_EXPECT_H

#include "qemu/timer.h"

/* How far a migration has come at a moment; all but @ns in bytes */
typedef struct WsmSample {
    int64_t ns;
    int64_t ram;                /* sent */
    /* Of the disks: */
    int64_t data;               /* sent, or received */
    int64_t equal;              /* compared, need not be sent */
    int64_t zero;               /* sent as zeroes */
    int64_t dirty;              /* or missing */
} WsmSample;

#define WSM_SAMPLES             32
#define WSM_LEAST_NS            (200 * SCALE_MS)        /* says something */

/* The samples of the last seconds; not thread-safe.  All 0: empty. */
typedef struct WsmMeter {
    WsmSample sample[WSM_SAMPLES];
    unsigned count;             /* how many there were */
} WsmMeter;

/* Bytes per second */
typedef struct WsmRates {
    double moved;               /* disk data and memory */
    double done;                /* of the disks: sent, or found equal */
    double written;             /* of the disks: made dirty by the guest */
} WsmRates;

/* Samples come in the order of time; the oldest is dropped */
void wsm_meter_add(WsmMeter *m, const WsmSample *s);

/* From the oldest sample until @now.  All 0 if it is not old enough. */
WsmRates wsm_meter_rates(const WsmMeter *m, const WsmSample *now);

/* What is left to do, in bytes, and how fast it goes */
typedef struct WsmExpect {
    int64_t disks_before;       /* of the disks, sent before memory */
    int64_t disks_after;        /* of the disks, sent after the handover */
    int64_t disks_most;         /* of the disks, that the guest may dirty */
    int64_t ram;                /* memory, sent before the handover */
    double ram_written;         /* bytes per second that the guest dirties */
    WsmRates rates;
} WsmExpect;

/*
 * Seconds until the guest runs at the destination, and until everything is
 * there; negative: cannot be told.
 *
 * Disks and memory go at the speed of now, which is not known for memory while
 * disks are mostly compared.  Memory that the guest dirties
 * while memory is sent has to be sent again, and what it writes to its disks
 * until the handover is sent after it.
 */
double wsm_expect_handover(const WsmExpect *e);
double wsm_expect_all(const WsmExpect *e);

/* How much of @done + @left is done, from 0 to 99: 100 is for the end */
int wsm_percent(int64_t done, int64_t left);

#endif
