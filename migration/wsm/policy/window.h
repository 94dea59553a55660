/*
 * Whole-system migration: how much is pushed at a time
 *
 * In post-copy a block that the guest waits for shares the link with those
 * that are pushed unasked, and waits behind what of them is on its way.  So
 * no more is pushed at a time than keeps the link busy.  The queue shows in the
 * time until a message is acknowledged: what is longer than the shortest time
 * seen.  The window grows while that is below a target and shrinks beyond
 * it, as in LEDBAT (RFC 6817); the target is half of the shortest time and
 * 1.5 ms, which a guest that reads hardly notices.
 *
 * The time has the destination's disk in it, and another way through the net
 * may be longer.  If the least window does not help for a second, the delay
 * is not our queue's, and becomes the new shortest time.
 *
 * Pure.  Not thread-safe.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_POLICY_WINDOW_H
#define MIGRATION_WSM_POLICY_WINDOW_H

#include "qemu/units.h"

#define WSM_WINDOW_MIN          (32 * KiB)
#define WSM_WINDOW_MAX          (32 * MiB)
#define WSM_PULL_WINDOW         (8 * MiB)       /* asked for, at a time */
#define WSM_COST_MIN            (4 * KiB)       /* of a message, in either */

typedef struct WsmWindow {
    int64_t bytes;              /* that may be unacknowledged */
    int64_t least_ns;           /* shortest time until ACK so far */
    int64_t stuck_since;        /* at the least window since then, or 0; */
    int64_t stuck_least_ns;     /* shortest time since then */
} WsmWindow;

void wsm_window_init(WsmWindow *w);

/*
 * A message of @bytes was acknowledged at @now (ns, any clock), @ns after it
 * was sent; with it @in_flight bytes were on their way.
 */
void wsm_window_ack(WsmWindow *w, int64_t bytes, int64_t in_flight,
                    int64_t now, int64_t ns);

/* Bytes of one message, a power of two: some of them fill the window */
int64_t wsm_window_chunk(const WsmWindow *w);

#endif
