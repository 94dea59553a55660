/*
 * Rounds: what the test guest has flushed is known outside of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "rounds.h"
#include "disk.h"

#define MAX_COUNT 64

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static uint64_t draw(uint64_t seed, uint64_t round, unsigned number)
{
    return mix(mix(mix(seed) + round) + number);
}

static bool write_once(uint64_t dice, uint32_t version, const Region *regions,
                       void *buf)
{
    Disk *d = &disks[dice % disk_count];
    const Region *r = &regions[d->id];
    unsigned kind = dice >> 8 & 7;
    uint64_t count = dice >> 11 & (MAX_COUNT - 1);
    uint64_t place = (dice >> 17) % r->count;

    if (kind < 4) {             /* a whole block */
        count = BLOCK_SECTORS;
        place = place / BLOCK_SECTORS * BLOCK_SECTORS;
    } else if (kind < 6) {      /* a part of one, or of two */
        count = 1 + count % (BLOCK_SECTORS - 1);
    } else {
        count = 1 + count;
    }
    if (place + count > r->count) {
        count = r->count - place;
    }
    return disk_write_version(d, r->start + place, count, version, buf);
}

bool rounds_next(uint64_t seed, unsigned writes, const Region *regions,
                 void *buf)
{
    uint64_t round = counters.rounds + 1;

    for (unsigned i = 0; i < writes; i++) {
        if (!write_once(draw(seed, round, i), VERSION_ROUND + round, regions,
                        buf)) {
            return false;
        }
    }
    for (int i = 0; i < disk_count; i++) {
        if (!disk_flush(&disks[i])) {
            return false;
        }
    }
    __atomic_store_n(&counters.rounds, round, __ATOMIC_RELEASE);
    return true;
}
