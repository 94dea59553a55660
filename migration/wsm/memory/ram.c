/*
 * Whole-system migration: blocks of the guest's memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "exec/ram_addr.h"
#include "migration/migration.h"
#include "migration/ram.h"
#include "qemu/rcu.h"
#include "migration/wsm/memory/ram.h"

uint64_t wsm_ram_size(const RAMBlock *block)
{
    return block->used_length;
}

void *wsm_ram_at(RAMBlock *block, uint64_t offset)
{
    return block->host + offset;
}

void wsm_ram_received(RAMBlock *block, uint64_t offset)
{
    ramblock_recv_bitmap_set_offset(block, offset);
}

const char *wsm_ram_name(RAMBlock *block)
{
    return block->idstr;
}

RAMBlock *wsm_ram_find(const char *name)
{
    RCU_READ_LOCK_GUARD();
    return qemu_ram_block_by_name(name);
}

typedef struct WsmRamEach {
    WsmRamFn *fn;
    void *opaque;
} WsmRamEach;

static int wsm_ram_each_block(RAMBlock *block, void *opaque)
{
    WsmRamEach *each = opaque;

    each->fn(each->opaque, block->idstr, block->used_length);
    return 0;
}

void wsm_ram_each(WsmRamFn *fn, void *opaque)
{
    WsmRamEach each = { .fn = fn, .opaque = opaque };

    foreach_not_ignored_block(wsm_ram_each_block, &each);
}

bool wsm_ram_copy(const char *name, uint64_t offset, uint64_t bytes, void *out)
{
    RCU_READ_LOCK_GUARD();
    RAMBlock *block = qemu_ram_block_by_name(name);

    if (!block || bytes > block->used_length ||
        offset > block->used_length - bytes) {
        return false;
    }
    memcpy(out, block->host + offset, bytes);
    return true;
}

void wsm_ram_mark_dirty(RAMBlock *block, uint64_t offset, uint64_t bytes)
{
    /* Not DIRTY_MEMORY_CODE, which says that TCG has no code of that page */
    cpu_physical_memory_set_dirty_range(block->offset + offset, bytes,
                                        1 << DIRTY_MEMORY_MIGRATION);
}
