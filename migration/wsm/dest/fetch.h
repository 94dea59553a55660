/*
 * Whole-system migration: what pages of memory refer to is read
 *
 * For a thread outside of the loop, which waits for a limited time.  What comes
 * later than that is thrown away.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_FETCH_H
#define MIGRATION_WSM_DEST_FETCH_H

#include "migration/wsm/core/loop.h"
#include "migration/wsm/memory/payload.h"

typedef struct WsmFetch WsmFetch;

/*
 * Read @bytes from @offset on of a disk, or of a file, that @opaque is.  In the
 * loop; 0 or more, or -errno.
 */
typedef int coroutine_fn WsmFetchRead(void *opaque, int64_t offset,
                                      int64_t bytes, void *buf);

/* Where a page is; those that follow on each other are read at once */
typedef struct WsmFetchPlace {
    WsmFetchRead *read;         /* NULL: nowhere */
    void *opaque;
    int64_t offset;             /* bytes */
} WsmFetchPlace;

/* What became of a page */
typedef enum WsmFetched {
    WSM_FETCHED_NOT,            /* it was not read in time, */
    WSM_FETCHED_FAIL,           /* could not be, */
    WSM_FETCHED_GOOD,           /* or was */
} WsmFetched;

/*
 * Have @n pages, 1 to WSM_PACKET_PAGES, read.  What they are in must stay as
 * long as the loop.  Any thread; the loop must not end within.
 */
WsmFetch *wsm_fetch_start(WsmLoop *loop, const WsmFetchPlace *places,
                          unsigned n);

/* Wait until all are, at most @ms milliseconds.  Not in the loop. */
void wsm_fetch_wait(WsmFetch *fetch, int ms);

/* After that: what became of page @i, and its content if it was read */
WsmFetched wsm_fetch_get(const WsmFetch *fetch, unsigned i,
                         const void **content);

/* Reads that are under way go on, and then it is gone */
void wsm_fetch_free(WsmFetch *fetch);

#endif
