/*
 * Whole-system migration: which block of the disks has the content of a page
 *
 * A table with open addressing.  A block that gets another content leaves its
 * entry behind, as nobody knows its old print; so each block has a number of
 * times, and an entry is good only if it has the same.  When that number has
 * gone round, an entry of old may look good: a wrong guess, no more.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "migration/wsm/memory/index.h"

#define WSM_FIRST_SLOTS         4096    /* a power of two */
#define WSM_CHUNK_BLOCKS        4096    /* 16 MiB of a disk */
#define WSM_DISK_BITS           8
#define WSM_TIMES_BITS          8
#define WSM_BLOCK_BITS          (64 - WSM_DISK_BITS - WSM_TIMES_BITS)

typedef struct WsmSlot {
    uint64_t print;
    uint64_t where;             /* block, disk, times; WSM_NOWHERE: free */
} WsmSlot;

#define WSM_NOWHERE             UINT64_MAX

struct WsmIndex {
    size_t max_bytes;           /* set in new, never changed */

    QemuMutex lock;             /* protects the fields below */
    WsmSlot *slot;
    size_t nslots, used;
    GHashTable *chunks;         /* uint64_t disk and number: uint8_t times[] */
    size_t size;                /* bytes */
};

static WsmSlot *wsm_slots_new(size_t n)
{
    WsmSlot *slot = g_new(WsmSlot, n);

    memset(slot, 0xff, n * sizeof(*slot));
    return slot;
}

WsmIndex *wsm_index_new(size_t max_bytes)
{
    WsmIndex *index = g_new0(WsmIndex, 1);

    qemu_mutex_init(&index->lock);
    index->max_bytes = max_bytes;
    index->nslots = WSM_FIRST_SLOTS;
    index->slot = wsm_slots_new(index->nslots);
    index->chunks = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
                                          g_free);
    index->size = index->nslots * sizeof(WsmSlot);
    return index;
}

void wsm_index_free(WsmIndex *index)
{
    g_hash_table_unref(index->chunks);
    g_free(index->slot);
    qemu_mutex_destroy(&index->lock);
    g_free(index);
}

static uint64_t wsm_where(unsigned disk, uint64_t block, uint8_t times)
{
    return block << (WSM_DISK_BITS + WSM_TIMES_BITS) |
           (uint64_t)disk << WSM_TIMES_BITS | times;
}

/* @lock: how often @block has changed, or NULL: it was never noted */
static uint8_t *wsm_index_times(WsmIndex *index, unsigned disk, uint64_t block,
                                bool create)
{
    uint64_t key = wsm_where(disk, block / WSM_CHUNK_BLOCKS, 0);
    uint8_t *times = g_hash_table_lookup(index->chunks, &key);

    if (!times && create) {
        times = g_new0(uint8_t, WSM_CHUNK_BLOCKS);
        g_hash_table_insert(index->chunks, g_memdup2(&key, sizeof(key)),
                            times);
        index->size += WSM_CHUNK_BLOCKS;
    }
    return times ? &times[block % WSM_CHUNK_BLOCKS] : NULL;
}

/* @lock: where @print is, or has its place */
static WsmSlot *wsm_index_slot(WsmIndex *index, uint64_t print)
{
    size_t i = print & (index->nslots - 1);

    while (index->slot[i].where != WSM_NOWHERE &&
           index->slot[i].print != print) {
        i = (i + 1) & (index->nslots - 1);
    }
    return &index->slot[i];
}

/* @lock: is there room for one more?  Makes some if it may. */
static bool wsm_index_has_room(WsmIndex *index)
{
    WsmSlot *old = index->slot;
    size_t n = index->nslots, more = n * sizeof(WsmSlot);

    if (index->used < n / 4 * 3) {
        return true;
    }
    if (index->size + more > index->max_bytes) {
        return false;
    }
    index->nslots = 2 * n;
    index->slot = wsm_slots_new(index->nslots);
    index->size += more;
    for (size_t i = 0; i < n; i++) {
        if (old[i].where != WSM_NOWHERE) {
            *wsm_index_slot(index, old[i].print) = old[i];
        }
    }
    g_free(old);
    return true;
}

void wsm_index_put(WsmIndex *index, unsigned disk, uint64_t block,
                   uint64_t print)
{
    QEMU_LOCK_GUARD(&index->lock);
    WsmSlot *slot = wsm_index_slot(index, print);
    bool room = slot->where != WSM_NOWHERE || wsm_index_has_room(index);
    uint8_t *times;

    assert(disk < 1u << WSM_DISK_BITS);
    if (block >> (WSM_BLOCK_BITS - 1)) {
        return;
    }
    times = wsm_index_times(index, disk, block,
                            room && index->size < index->max_bytes);
    if (!times) {
        return;
    }
    ++*times;
    if (room) {
        slot = wsm_index_slot(index, print);
        index->used += slot->where == WSM_NOWHERE;
        *slot = (WsmSlot) {
            .print = print, .where = wsm_where(disk, block, *times),
        };
    }
}

void wsm_index_drop(WsmIndex *index, unsigned disk, uint64_t block,
                    uint64_t blocks)
{
    QEMU_LOCK_GUARD(&index->lock);

    while (blocks) {
        uint64_t n = MIN(blocks, WSM_CHUNK_BLOCKS - block % WSM_CHUNK_BLOCKS);
        uint8_t *times = wsm_index_times(index, disk, block, false);

        for (uint64_t i = 0; times && i < n; i++) {
            times[i]++;
        }
        block += n;
        blocks -= n;
    }
}

bool wsm_index_find(WsmIndex *index, uint64_t print, unsigned *disk,
                    uint64_t *block)
{
    QEMU_LOCK_GUARD(&index->lock);
    WsmSlot *slot = wsm_index_slot(index, print);
    uint64_t where = slot->where;
    uint8_t *times;

    if (where == WSM_NOWHERE) {
        return false;
    }
    *block = where >> (WSM_DISK_BITS + WSM_TIMES_BITS);
    *disk = where >> WSM_TIMES_BITS & ((1u << WSM_DISK_BITS) - 1);
    times = wsm_index_times(index, *disk, *block, false);
    return times && *times == (uint8_t)where;
}

size_t wsm_index_size(WsmIndex *index)
{
    QEMU_LOCK_GUARD(&index->lock);
    return index->size;
}
