/*
 * For unit tests: blocks of memory, in place of migration/wsm/memory/ram.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "wsm-ram.h"

uint64_t wsm_ram_size(const RAMBlock *block)
{
    return sizeof(((TestRam *)block)->data);
}

void *wsm_ram_at(RAMBlock *block, uint64_t offset)
{
    g_assert_cmpuint(offset, <, wsm_ram_size(block));
    return ((TestRam *)block)->data[0] + offset;
}

void wsm_ram_received(RAMBlock *block, uint64_t offset)
{
    ((TestRam *)block)->received[offset / 4096] = true;
}

void wsm_ram_mark_dirty(RAMBlock *block, uint64_t offset, uint64_t bytes)
{
    g_assert_cmpuint(offset + bytes, <=, wsm_ram_size(block));
    for (uint64_t i = offset; i < offset + bytes; i += 4096) {
        ((TestRam *)block)->dirtied[i / 4096]++;
    }
}
