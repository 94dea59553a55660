/*
 * Which blocks of a disk are missing, which of them have been asked for, and
 * which ranges are being worked on.  No I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PULL_MAP_H
#define PULL_MAP_H

#include "qemu/hbitmap.h"
#include "block/reqlist.h"

/*
 * The law: a missing block ceases to be missing only inside of an exclusive
 * range.  Who writes a block begins an exclusive range, looks whether the
 * block is (still) missing, writes it, calls pull_map_clear() and ends the
 * range.  As nobody makes a block missing again, what is not missing may be
 * read and written without an exclusive range.
 *
 * The API is not thread-safe.  The struct is public to be part of another
 * structure and is protected by the lock of that one; @size and @granularity
 * never change.
 *
 * "Whole blocks" are ranges aligned to @granularity, or up to @size.
 */
typedef struct PullMap {
    int64_t size;           /* of the disk in bytes */
    uint32_t granularity;   /* size of a block, a power of two */
    HBitmap *missing;
    HBitmap *asked;         /* subset of @missing */
    BlockReqList busy;      /* exclusive ranges, they do not overlap */
} PullMap;

void pull_map_init(PullMap *map, int64_t size, uint32_t granularity);

/* No range may be busy. */
void pull_map_destroy(PullMap *map);

/* Is this a non-empty range of whole blocks?  Any values are allowed. */
bool pull_map_is_whole(const PullMap *map, int64_t offset, int64_t bytes);

/* Grow the range to all blocks that it touches. */
void pull_map_outer(const PullMap *map, int64_t *offset, int64_t *bytes);

/* Shrink the range to the blocks that it covers; *@bytes may become 0. */
void pull_map_inner(const PullMap *map, int64_t *offset, int64_t *bytes);

/* Whole blocks. */
void pull_map_set_missing(PullMap *map, int64_t offset, int64_t bytes);

/* Number of missing bytes; the last block counts with its real size. */
int64_t pull_map_missing_bytes(const PullMap *map);

/*
 * Find the first missing part of any range.  If there is none, return false
 * and leave *@area_offset and *@area_bytes alone.
 */
bool pull_map_next(const PullMap *map, int64_t offset, int64_t bytes,
                   int64_t *area_offset, int64_t *area_bytes);

/* Is any block of the range missing? */
bool pull_map_any(const PullMap *map, int64_t offset, int64_t bytes);

/*
 * Find the first part of these whole blocks that is missing and not asked
 * for, and mark it as asked for.
 */
bool pull_map_ask(PullMap *map, int64_t offset, int64_t bytes,
                  int64_t *area_offset, int64_t *area_bytes);

/* Whole blocks; they are not asked for. */
void pull_map_forget(PullMap *map, int64_t offset, int64_t bytes);

/* A busy range that overlaps this one, or NULL.  Wait on its wait_queue. */
BlockReq *pull_map_conflict(PullMap *map, int64_t offset, int64_t bytes);

/* Begin an exclusive range of whole blocks; there must be no conflict. */
void pull_map_begin(PullMap *map, BlockReq *req, int64_t offset, int64_t bytes);

/* End it and wake who waits for it. */
void coroutine_fn pull_map_end(PullMap *map, BlockReq *req);

/*
 * These whole blocks inside of the exclusive range @req, all of which are
 * missing, are there now.  Return the number of bytes that were asked for.
 */
int64_t pull_map_clear(PullMap *map, const BlockReq *req, int64_t offset,
                       int64_t bytes);

#endif /* PULL_MAP_H */
