/*
 * Whole-system migration: what the destination has of older memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "migration/wsm/memory/ram.h"
#include "migration/wsm/source/prints.h"

typedef struct WsmPrintsBlock {
    const RAMBlock *ram;
    uint64_t pages;
    uint64_t *print;            /* @pages elements; 0: not known */
} WsmPrintsBlock;

struct WsmSourcePrints {
    QemuMutex lock;             /* protects the fields below */
    WsmSeed seed;
    GArray *blocks;             /* of WsmPrintsBlock, a few */
};

static void wsm_source_prints_clear_block(void *opaque)
{
    WsmPrintsBlock *b = opaque;

    g_free(b->print);
}

WsmSourcePrints *wsm_source_prints_new(void)
{
    WsmSourcePrints *p = g_new0(WsmSourcePrints, 1);

    qemu_mutex_init(&p->lock);
    p->blocks = g_array_new(false, false, sizeof(WsmPrintsBlock));
    g_array_set_clear_func(p->blocks, wsm_source_prints_clear_block);
    return p;
}

void wsm_source_prints_free(WsmSourcePrints *p)
{
    g_array_unref(p->blocks);
    qemu_mutex_destroy(&p->lock);
    g_free(p);
}

/* @lock */
static WsmPrintsBlock *wsm_source_prints_block(WsmSourcePrints *p,
                                               const RAMBlock *ram)
{
    for (unsigned i = 0; i < p->blocks->len; i++) {
        WsmPrintsBlock *b = &g_array_index(p->blocks, WsmPrintsBlock, i);

        if (b->ram == ram) {
            return b;
        }
    }
    return NULL;
}

/* @lock: as large as the memory is, whatever the destination says */
static WsmPrintsBlock *wsm_source_prints_add(WsmSourcePrints *p,
                                             const RAMBlock *ram)
{
    WsmPrintsBlock b = {
        .ram = ram, .pages = wsm_ram_size(ram) / WSM_PAGE_SIZE,
    };

    b.print = g_new0(uint64_t, b.pages);
    g_array_append_val(p->blocks, b);
    return &g_array_index(p->blocks, WsmPrintsBlock, p->blocks->len - 1);
}

void wsm_source_prints_put(WsmSourcePrints *p, const WsmMsg *msg,
                           const WsmPrints *prints)
{
    const RAMBlock *ram = wsm_ram_find(prints->name);
    uint64_t first = msg->offset / WSM_PAGE_SIZE;
    QEMU_LOCK_GUARD(&p->lock);
    WsmPrintsBlock *b;

    if (!ram) {
        return;
    }
    if (memcmp(&p->seed, &prints->seed, sizeof(p->seed))) {
        g_array_set_size(p->blocks, 0);
        p->seed = prints->seed;
    }
    b = wsm_source_prints_block(p, ram) ?: wsm_source_prints_add(p, ram);
    for (uint64_t i = 0; i < msg->bytes / WSM_PAGE_SIZE; i++) {
        if (first + i < b->pages) {
            b->print[first + i] = wsm_prints_at(prints, i);
        }
    }
}

/* The print at this place, and its @seed; or 0 */
static uint64_t wsm_source_prints_get(WsmSourcePrints *p, const RAMBlock *ram,
                                      uint64_t page, WsmSeed *seed)
{
    QEMU_LOCK_GUARD(&p->lock);
    WsmPrintsBlock *b = wsm_source_prints_block(p, ram);

    *seed = p->seed;
    return b && page < b->pages ? b->print[page] : 0;
}

bool wsm_source_prints_find(WsmSourcePrints *p, const RAMBlock *ram,
                            uint64_t offset, const void *page)
{
    WsmSeed seed;
    uint64_t print = wsm_source_prints_get(p, ram, offset / WSM_PAGE_SIZE,
                                           &seed);

    return print && print == wsm_page_print(&seed, page);
}

void wsm_source_prints_drop(WsmSourcePrints *p, const RAMBlock *ram,
                            uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset / WSM_PAGE_SIZE;
    QEMU_LOCK_GUARD(&p->lock);
    WsmPrintsBlock *b = wsm_source_prints_block(p, ram);

    for (uint64_t i = 0; b && i < bytes / WSM_PAGE_SIZE; i++) {
        if (first + i < b->pages) {
            b->print[first + i] = 0;
        }
    }
}
