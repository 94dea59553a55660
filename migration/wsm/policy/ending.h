/*
 * Whole-system migration: what becomes of a disk's image in the end
 *
 * However a migration ends, each side's image is left so that nobody runs a
 * guest from it who must not, and so that the next migration sends as little
 * as can be.
 *
 * Pure.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_POLICY_ENDING_H
#define MIGRATION_WSM_POLICY_ENDING_H

#include "qapi/qapi-types-wsm.h"

typedef struct WsmEndingInput {
    WsmRole role;
    WsmPhase phase;             /* how far it came */
    bool marked;                /* source: the record says "leaving" */
    bool replaced;              /* source: another node has the disk's place */
    bool wrote;                 /* destination: something was written */
    bool complete;              /* destination: nothing is missing */
} WsmEndingInput;

/* Its sync points */
typedef enum WsmEndingPoints {
    WSM_ENDING_POINTS_STAY,
    WSM_ENDING_POINTS_GO,       /* nobody knows what was written since */
    WSM_ENDING_POINTS_BROKE,    /* a new one, with what did not arrive */
    WSM_ENDING_POINTS_NEW,      /* a new one, with what is missing, if it is */
} WsmEndingPoints;

/* What it is good for */
typedef enum WsmEndingState {
    WSM_ENDING_STATE_STAYS,
    WSM_ENDING_STATE_BEFORE,    /* what it was before the migration */
    WSM_ENDING_STATE_CURRENT,
    WSM_ENDING_STATE_LEFT,      /* handed over: a stale copy */
} WsmEndingState;

/* What the record beside it, or the image itself, says from now on */
typedef enum WsmEndingRecord {
    WSM_ENDING_RECORD_STAYS,
    WSM_ENDING_RECORD_MARK,     /* that state; the image is in use */
    WSM_ENDING_RECORD_PUT,      /* all of it: the image is at rest */
} WsmEndingRecord;

typedef struct WsmEnding {
    WsmEndingPoints points;
    WsmEndingState state;
    WsmEndingRecord record;
} WsmEnding;

WsmEnding wsm_ending(const WsmEndingInput *in);

#endif
