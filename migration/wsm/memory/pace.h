/*
 * Whole-system migration: is it worth while to make memory smaller?
 *
 * A channel whose thread is busy nearly all the time does not wait for the
 * link: what it does to send less may make it slower.  Then it sends pages as
 * they are, and goes on with that as long as it is faster; now and then it
 * tries the other way again.  On a slow link the buffers of a socket make raw
 * pages look fast at first, so each try that was in vain makes the next one
 * later.
 *
 * Pure; one for each channel, in its thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_PACE_H
#define MIGRATION_WSM_MEMORY_PACE_H

#define WSM_PACE_TRIAL          16      /* packets, measured together */
#define WSM_PACE_RAW            4       /* trials with raw pages at a time */
#define WSM_PACE_MAX_WAIT       64      /* trials until raw pages, at most */

typedef struct WsmPace {
    int64_t busy_ns, idle_ns;   /* of this trial, */
    unsigned packets;           /* and so many of it */
    int64_t packed_ns;          /* what the last one with packing took */
    unsigned trials;            /* with raw pages, or with packing since */
    unsigned wait;              /* so many of the latter come first */
    bool raw;
} WsmPace;

/* Shall the next packet be made smaller? */
bool wsm_pace_pack(const WsmPace *pace);

/*
 * A packet took @busy ns of the thread's own, and @idle ns in which it waited
 * for the link or had nothing to do.
 */
void wsm_pace_done(WsmPace *pace, int64_t busy, int64_t idle);

#endif
