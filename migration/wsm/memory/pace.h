/*
 * Whole-system migration: is it worth while to make memory smaller?
 *
 * A channel whose thread is busy nearly all the time does not wait for the
 * link: what it does to send less may make it slower.  Then it sends pages as
 * they are, and goes on with that as long as it is faster; now and then it
 * tries the other way again.
 *
 * What lies in the kernel's buffers has not been sent: on a slow link they
 * would make the first raw pages look fast.  So the time that the link will
 * take for what they took in meanwhile counts as waited for.  A try that is in
 * vain ends as soon as that is seen, and each makes the next one later.
 *
 * Pure; one for each channel, in its thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_PACE_H
#define MIGRATION_WSM_MEMORY_PACE_H

#define WSM_PACE_TRIAL          8       /* packets, measured together */
#define WSM_PACE_LEAST          2       /* raw ones that can be in vain */
#define WSM_PACE_RAW            4       /* trials with raw pages, at first */
#define WSM_PACE_MAX_RAW        256     /* after many that were faster */
#define WSM_PACE_MAX_WAIT       64      /* trials until raw pages, at most */

typedef struct WsmPace {
    int64_t busy_ns, idle_ns;   /* of this trial, */
    uint64_t sent;              /* bytes, */
    unsigned packets;           /* and so many of it */
    uint64_t queued;            /* bytes in the kernel when it began */
    int64_t packed_ns;          /* what the last one with packing took */
    unsigned trials;            /* with raw pages, or with packing since */
    unsigned wait;              /* so many of the latter come first */
    unsigned raws;              /* and then so many of the former, or less */
    bool raw;
} WsmPace;

/* What one packet took */
typedef struct WsmPaceStep {
    int64_t busy_ns;            /* of the thread's own */
    int64_t idle_ns;            /* waited for the link, or had nothing to do */
    uint64_t sent;              /* bytes that were given to the kernel */
    uint64_t queued;            /* bytes it has, now, of this channel */
} WsmPaceStep;

/* Shall the next packet be made smaller? */
bool wsm_pace_pack(const WsmPace *pace);

/* A packet is done with */
void wsm_pace_done(WsmPace *pace, const WsmPaceStep *step);

#endif
