/*
 * Whole-system migration: is it worth while to make memory smaller?
 *
 * A channel whose thread is busy all the time does not wait for the link: what
 * it does to send less makes it slower.  Then it sends pages as they are, and
 * tries again now and then.
 *
 * Pure; one for each channel, in its thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_PACE_H
#define MIGRATION_WSM_MEMORY_PACE_H

#define WSM_PACE_TRIAL          16      /* packets that are measured */
#define WSM_PACE_RAW            64      /* packets until the next trial */

typedef struct WsmPace {
    int64_t busy_ns, idle_ns;   /* of this trial */
    unsigned packets;           /* of this trial, or since it */
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
