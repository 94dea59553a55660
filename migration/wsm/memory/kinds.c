/*
 * Whole-system migration: what was sent by reference, by kind
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "migration/wsm/memory/kinds.h"

void wsm_kinds_info(WsmKindCounts *counts, unsigned shown, WsmMemoryInfo *info)
{
    for (int kind = WSM_MEMORY_KIND__MAX - 1; kind >= 0; kind--) {
        WsmKindCounts *c = &counts[kind];
        uint64_t referenced = stat64_get(&c->referenced);
        WsmMemoryKindInfo *k;

        if (!referenced && !qatomic_read(&c->off) && !(shown & BIT(kind))) {
            continue;
        }
        k = g_new0(WsmMemoryKindInfo, 1);
        k->kind = kind;
        k->referenced = referenced;
        k->missed = stat64_get(&c->missed);
        k->wrong = stat64_get(&c->wrong);
        k->late = stat64_get(&c->late);
        k->has_off = qatomic_read(&c->off);
        k->off = k->has_off ? qatomic_read(&c->off) - 1 : 0;
        QAPI_LIST_PREPEND(info->kinds, k);
        info->referenced += k->referenced;
        info->missed += k->missed;
        info->wrong += k->wrong;
        info->late += k->late;
    }
}
