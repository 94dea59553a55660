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

const char *wsm_ram_name(RAMBlock *block)
{
    return ((TestRam *)block)->name;
}

/*
 * Blocks that can be found by their names
 */

static GPtrArray *named;        /* of TestRam */

void test_ram_name(TestRam *ram, const char *name)
{
    ram->name = name;
    if (!named) {
        named = g_ptr_array_new();
    }
    g_ptr_array_add(named, ram);
}

void test_ram_forget(void)
{
    g_clear_pointer(&named, g_ptr_array_unref);
}

RAMBlock *wsm_ram_find(const char *name)
{
    for (unsigned i = 0; named && i < named->len; i++) {
        TestRam *ram = g_ptr_array_index(named, i);

        if (!strcmp(ram->name, name)) {
            return test_ram(ram);
        }
    }
    return NULL;
}

void wsm_ram_each(WsmRamFn *fn, void *opaque)
{
    for (unsigned i = 0; named && i < named->len; i++) {
        TestRam *ram = g_ptr_array_index(named, i);

        fn(opaque, ram->name, sizeof(ram->data));
    }
}

void (*test_ram_on_copy)(void);

bool wsm_ram_copy(const char *name, uint64_t offset, uint64_t bytes, void *out)
{
    RAMBlock *block = wsm_ram_find(name);

    if (test_ram_on_copy) {
        test_ram_on_copy();
    }
    if (block) {
        memcpy(out, wsm_ram_at(block, offset), bytes);
    }
    return block;
}

void wsm_ram_mark_dirty(RAMBlock *block, uint64_t offset, uint64_t bytes)
{
    g_assert_cmpuint(offset + bytes, <=, wsm_ram_size(block));
    for (uint64_t i = offset; i < offset + bytes; i += 4096) {
        ((TestRam *)block)->dirtied[i / 4096]++;
    }
}
