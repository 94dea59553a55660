/*
 * Whole-system migration: what was sent by reference, by kind
 *
 * A kind is where the destination has the content of a page already: each has
 * its own counters, and each can be switched on and off.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_KINDS_H
#define MIGRATION_WSM_MEMORY_KINDS_H

#include "qapi/qapi-types-wsm.h"
#include "qemu/stats64.h"

/* Any thread */
typedef struct WsmKindCounts {
    Stat64 referenced, missed, wrong, late;     /* bytes of memory */
    unsigned off;               /* atomic; 0, or 1 + the WsmMemoryWhy */
} WsmKindCounts;

/*
 * The counters of all kinds, @counts[WSM_MEMORY_KIND__MAX], and their sums.
 * @info names the kinds of the set @shown, bits by WsmMemoryKind, and those
 * that count anything.
 */
void wsm_kinds_info(WsmKindCounts *counts, unsigned shown,
                    WsmMemoryInfo *info);

#endif
