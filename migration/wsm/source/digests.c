/*
 * Whole-system migration: what the destination has of older memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "migration/wsm/memory/ram.h"
#include "migration/wsm/source/digests.h"

typedef struct WsmDigestsBlock {
    const RAMBlock *ram;
    uint64_t pages;
    uint64_t *print;            /* @pages elements; 0: not known */
} WsmDigestsBlock;

struct WsmDigests {
    QemuMutex lock;             /* protects the fields below */
    WsmSeed seed;
    GArray *blocks;             /* of WsmDigestsBlock, a few */
};

static void wsm_digests_clear_block(void *opaque)
{
    WsmDigestsBlock *b = opaque;

    g_free(b->print);
}

WsmDigests *wsm_digests_new(void)
{
    WsmDigests *d = g_new0(WsmDigests, 1);

    qemu_mutex_init(&d->lock);
    d->blocks = g_array_new(false, false, sizeof(WsmDigestsBlock));
    g_array_set_clear_func(d->blocks, wsm_digests_clear_block);
    return d;
}

void wsm_digests_free(WsmDigests *d)
{
    g_array_unref(d->blocks);
    qemu_mutex_destroy(&d->lock);
    g_free(d);
}

/* @lock */
static WsmDigestsBlock *wsm_digests_block(WsmDigests *d, const RAMBlock *ram)
{
    for (unsigned i = 0; i < d->blocks->len; i++) {
        WsmDigestsBlock *b = &g_array_index(d->blocks, WsmDigestsBlock, i);

        if (b->ram == ram) {
            return b;
        }
    }
    return NULL;
}

/* @lock: as large as the memory is, whatever the destination says */
static WsmDigestsBlock *wsm_digests_add(WsmDigests *d, const RAMBlock *ram)
{
    WsmDigestsBlock b = {
        .ram = ram, .pages = wsm_ram_size(ram) / WSM_PAGE_SIZE,
    };

    b.print = g_new0(uint64_t, b.pages);
    g_array_append_val(d->blocks, b);
    return &g_array_index(d->blocks, WsmDigestsBlock, d->blocks->len - 1);
}

void wsm_digests_put(WsmDigests *d, const WsmMsg *msg,
                     const WsmDigestsMsg *digests)
{
    const RAMBlock *ram = wsm_ram_find(digests->name);
    uint64_t first = msg->offset / WSM_PAGE_SIZE;
    QEMU_LOCK_GUARD(&d->lock);
    WsmDigestsBlock *b;

    if (!ram) {
        return;
    }
    if (memcmp(&d->seed, &digests->seed, sizeof(d->seed))) {
        g_array_set_size(d->blocks, 0);
        d->seed = digests->seed;
    }
    b = wsm_digests_block(d, ram) ?: wsm_digests_add(d, ram);
    for (uint64_t i = 0; i < msg->bytes / WSM_PAGE_SIZE; i++) {
        if (first + i < b->pages) {
            b->print[first + i] = wsm_digests_print(digests, i);
        }
    }
}

/* The print at this place, and its @seed; or 0 */
static uint64_t wsm_digests_get(WsmDigests *d, const RAMBlock *ram,
                                uint64_t page, WsmSeed *seed)
{
    QEMU_LOCK_GUARD(&d->lock);
    WsmDigestsBlock *b = wsm_digests_block(d, ram);

    *seed = d->seed;
    return b && page < b->pages ? b->print[page] : 0;
}

bool wsm_digests_find(WsmDigests *d, const RAMBlock *ram, uint64_t offset,
                      const void *page)
{
    WsmSeed seed;
    uint64_t print = wsm_digests_get(d, ram, offset / WSM_PAGE_SIZE, &seed);

    return print && print == wsm_page_print(&seed, page);
}

void wsm_digests_drop(WsmDigests *d, const RAMBlock *ram, uint64_t offset,
                      uint64_t bytes)
{
    uint64_t first = offset / WSM_PAGE_SIZE;
    QEMU_LOCK_GUARD(&d->lock);
    WsmDigestsBlock *b = wsm_digests_block(d, ram);

    for (uint64_t i = 0; b && i < bytes / WSM_PAGE_SIZE; i++) {
        if (first + i < b->pages) {
            b->print[first + i] = 0;
        }
    }
}
