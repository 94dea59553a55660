/*
 * Whole-system migration: pages of memory that the destination lacks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "migration/wsm/memory/holes.h"

typedef struct WsmHolesBlock {
    unsigned long *bits;        /* one for each page */
    uint64_t nbits;             /* those that there is room for */
} WsmHolesBlock;

struct WsmHoles {
    QemuMutex lock;             /* protects what is not atomic */
    WsmHolesBlock block[WSM_MAX_RAM_BLOCKS];
    size_t count;               /* atomic; changed with @lock */
};

WsmHoles *wsm_holes_new(void)
{
    WsmHoles *holes = g_new0(WsmHoles, 1);

    qemu_mutex_init(&holes->lock);
    return holes;
}

void wsm_holes_free(WsmHoles *holes)
{
    for (unsigned i = 0; i < WSM_MAX_RAM_BLOCKS; i++) {
        g_free(holes->block[i].bits);
    }
    qemu_mutex_destroy(&holes->lock);
    g_free(holes);
}

/* @lock: is there a bit for @page?  Twice the room is needed seldom. */
static void wsm_holes_grow(WsmHolesBlock *b, uint64_t page)
{
    uint64_t nbits = MAX(ROUND_UP(page + 1, BITS_PER_LONG), 2 * b->nbits);

    if (page >= b->nbits) {
        b->bits = bitmap_zero_extend(b->bits, b->nbits, nbits);
        b->nbits = nbits;
    }
}

static bool wsm_holes_test(const WsmHolesBlock *b, uint64_t page)
{
    return page < b->nbits && test_bit(page, b->bits);
}

void wsm_holes_add(WsmHoles *holes, unsigned block, uint64_t page)
{
    WsmHolesBlock *b = &holes->block[block];

    assert(block < WSM_MAX_RAM_BLOCKS);
    QEMU_LOCK_GUARD(&holes->lock);
    wsm_holes_grow(b, page);
    if (!test_and_set_bit(page, b->bits)) {
        qatomic_set(&holes->count, holes->count + 1);
    }
}

bool wsm_holes_fill(WsmHoles *holes, unsigned block, uint64_t page)
{
    WsmHolesBlock *b = &holes->block[block];

    assert(block < WSM_MAX_RAM_BLOCKS);
    /* Seldom is there any, and each page that comes is looked for */
    if (!qatomic_read(&holes->count)) {
        return false;
    }
    QEMU_LOCK_GUARD(&holes->lock);
    if (!wsm_holes_test(b, page)) {
        return false;
    }
    clear_bit(page, b->bits);
    qatomic_set(&holes->count, holes->count - 1);
    return true;
}

bool wsm_holes_has(WsmHoles *holes, unsigned block, uint64_t page)
{
    QEMU_LOCK_GUARD(&holes->lock);
    return block < WSM_MAX_RAM_BLOCKS &&
           wsm_holes_test(&holes->block[block], page);
}

uint64_t wsm_holes_count(WsmHoles *holes)
{
    QEMU_LOCK_GUARD(&holes->lock);
    return holes->count;
}

static void wsm_holes_each_of(const WsmHolesBlock *b, unsigned block,
                              uint64_t max, WsmHolesFn *fn, void *opaque)
{
    uint64_t first = find_first_bit(b->bits, b->nbits), end;

    while (first < b->nbits) {
        end = find_next_zero_bit(b->bits, b->nbits, first);
        end = MIN(end, first + max);
        fn(opaque, block, first, end - first);
        first = find_next_bit(b->bits, b->nbits, end);
    }
}

void wsm_holes_each(WsmHoles *holes, uint64_t max, WsmHolesFn *fn,
                    void *opaque)
{
    QEMU_LOCK_GUARD(&holes->lock);
    for (unsigned i = 0; i < WSM_MAX_RAM_BLOCKS; i++) {
        if (holes->block[i].bits) {
            wsm_holes_each_of(&holes->block[i], i, max, fn, opaque);
        }
    }
}
