/*
 * Rounds: what the test guest has flushed is known outside of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Round r writes ranges of the disks that follow from (seed, r, number of the
 * write), with VERSION_ROUND + r, flushes all disks, and only then is r in the
 * heartbeats.  So who hears these knows, when guest and host are gone, what the
 * disks must hold: tests/crash/flushed.py, which has the same arithmetic.
 */

#ifndef GUEST_ROUNDS_H
#define GUEST_ROUNDS_H

#include <stdbool.h>
#include <stdint.h>

/* A part of a disk, in sectors */
typedef struct Region {
    uint64_t start;
    uint64_t count;
} Region;

/*
 * Do the next round, with @writes writes in @regions, one of each disk; none is
 * read-only.  @buf is as for disk_write().  One thread at a time.  False if a
 * disk has failed: then the round does not count, and none may follow.
 */
bool rounds_next(uint64_t seed, unsigned writes, const Region *regions,
                 void *buf);

#endif
