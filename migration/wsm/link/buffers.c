/*
 * Whole-system migration: buffers that are used again
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "migration/wsm/link/buffers.h"

#define WSM_BUFFER_SIZE         (1 * MiB)       /* of those that are kept */
#define WSM_BUFFER_USE_FROM     (256 * KiB)     /* for less it would be waste */
#define WSM_BUFFERS_SPARE       8               /* at most */

void wsm_buffers_init(WsmBuffers *b)
{
    b->spare = g_ptr_array_new_with_free_func(qemu_vfree);
}

void wsm_buffers_destroy(WsmBuffers *b)
{
    g_clear_pointer(&b->spare, g_ptr_array_unref);
}

static bool wsm_buffers_keep(size_t size)
{
    return size >= WSM_BUFFER_USE_FROM && size <= WSM_BUFFER_SIZE;
}

void *wsm_buffers_get(WsmBuffers *b, size_t size)
{
    if (!wsm_buffers_keep(size)) {
        return qemu_memalign(qemu_real_host_page_size(), size);
    }
    if (b->spare->len) {
        /* The last one is most likely in the CPU's cache */
        return g_ptr_array_steal_index_fast(b->spare, b->spare->len - 1);
    }
    return qemu_memalign(qemu_real_host_page_size(), WSM_BUFFER_SIZE);
}

void wsm_buffers_put(WsmBuffers *b, void *buf, size_t size)
{
    if (buf && wsm_buffers_keep(size) && b->spare->len < WSM_BUFFERS_SPARE) {
        g_ptr_array_add(b->spare, buf);
    } else {
        qemu_vfree(buf);
    }
}
