/*
 * Whole-system migration: what the user has set with wsm-set-options
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_CORE_OPTIONS_H
#define MIGRATION_WSM_CORE_OPTIONS_H

#include "qapi/qapi-types-wsm.h"
#include "qemu/thread.h"

/* Options that are a number; each in the unit of its member of WsmOptions */
typedef enum WsmOption {
    WSM_OPT_CHANNELS,
    WSM_OPT_GRANULARITY,
    WSM_OPT_BANDWIDTH,
    WSM_OPT_MAX_RESIDUE,
    WSM_OPT_SWITCHOVER_TIMEOUT,
    WSM_OPT_SYNC_POINTS,
    WSM_OPT_COMPARE_BANDWIDTH,
    WSM_OPT_PUSH_DELAY,
    WSM_OPT_MEMORY_PACK,        /* 0 or 1 */
    WSM_OPT_MEMORY_REFERENCES,  /* bits by WsmMemoryKind; 0: off */
    WSM_OPT_MEMORY_ADAPTIVE,    /* 0 or 1 */
    WSM_OPT_KEEP_MEMORY,        /* likewise */
    WSM_OPT_DISK_PACKING,       /* likewise */
    WSM_OPT_CRASH_SAFE,         /* OnOffAuto */
} WsmOption;

typedef struct WsmOptionsStore {
    QemuMutex lock;
    /*
     * All members are present; @lock.  'disks', 'basis', 'maps' and
     * 'keep-memory-file' change in the main thread with the BQL only, which
     * may read them without @lock.
     */
    WsmOptions *options;
} WsmOptionsStore;

/* Set all to their defaults */
void wsm_options_init(WsmOptionsStore *store);
void wsm_options_destroy(WsmOptionsStore *store);

/* Any thread, not under @lock */
int64_t wsm_option(WsmOptionsStore *store, WsmOption option);

/* Is each member that is present within its range?  Else false and @errp. */
bool wsm_options_check(const WsmOptions *o, Error **errp);

/* Set the members of @new that are present, whose lists are taken.  BQL. */
void wsm_options_set(WsmOptionsStore *store, WsmOptions *new);

/* A copy of all; any thread */
WsmOptions *wsm_options_get(WsmOptionsStore *store);

#endif
