/*
 * Whole-system migration: blocks of the disks that memory refers to are read
 *
 * For a thread outside of the loop, which waits for a limited time.  What comes
 * later than that is thrown away.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_FETCH_H
#define MIGRATION_WSM_DEST_FETCH_H

#include "migration/wsm/dest/disk.h"
#include "migration/wsm/memory/payload.h"

typedef struct WsmFetch WsmFetch;

/* What became of a block */
typedef enum WsmFetched {
    WSM_FETCHED_NOT,            /* it was not read in time, */
    WSM_FETCHED_FAIL,           /* could not be, */
    WSM_FETCHED_GOOD,           /* or was */
} WsmFetched;

/*
 * Have the blocks of @n references, 1 to WSM_PACKET_PAGES, read.  @disks must
 * stay as long as the loop.  Any thread; the loop must not end within.
 */
WsmFetch *wsm_fetch_start(WsmLoop *loop, WsmDestDisks *disks,
                          const WsmRef *refs, unsigned n);

/* Wait until all are, at most @ms milliseconds.  Not in the loop. */
void wsm_fetch_wait(WsmFetch *fetch, int ms);

/*
 * After that: what became of the block of reference @i, and its content, of
 * WSM_PAGE_SIZE bytes, if it was read.
 */
WsmFetched wsm_fetch_get(const WsmFetch *fetch, unsigned i,
                         const void **content);

/* Reads that are under way go on, and then it is gone */
void wsm_fetch_free(WsmFetch *fetch);

#endif
