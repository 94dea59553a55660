/*
 * Whole-system migration: blocks of the guest's memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "exec/ram_addr.h"
#include "migration/ram.h"
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

void wsm_ram_mark_dirty(RAMBlock *block, uint64_t offset, uint64_t bytes)
{
    /* Not DIRTY_MEMORY_CODE, which says that TCG has no code of that page */
    cpu_physical_memory_set_dirty_range(block->offset + offset, bytes,
                                        1 << DIRTY_MEMORY_MIGRATION);
}
