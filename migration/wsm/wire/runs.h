/*
 * Whole-system migration: a block bitmap as a list of runs
 *
 * What the source sends in the freeze: for each disk the runs of blocks that
 * are missing at the destination.  A run is a pair of unsigned LEB128
 * numbers, in blocks: the gap since the end of the run before, and the
 * length (at least 1).  So its size depends on how much is missing and not on
 * the size of the disk.
 *
 * Pure: no I/O.  Not thread-safe.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_WIRE_RUNS_H
#define MIGRATION_WSM_WIRE_RUNS_H

typedef struct WsmRunsEncoder {
    GByteArray *out;
    uint64_t end;               /* block after the last run */
} WsmRunsEncoder;

typedef struct WsmRunsDecoder {
    const uint8_t *p, *limit;
    uint64_t end;               /* block after the last run */
    uint64_t blocks;            /* number of blocks of the disk */
} WsmRunsDecoder;

/* Appends to @out, which stays the caller's */
void wsm_runs_encode_init(WsmRunsEncoder *e, GByteArray *out);

/* @first must not be below the end of the run before, @count not 0 */
void wsm_runs_encode(WsmRunsEncoder *e, uint64_t first, uint64_t count);

/* @buf stays the caller's and must live as long as @d */
void wsm_runs_decode_init(WsmRunsDecoder *d, const uint8_t *buf, size_t size,
                          uint64_t blocks);

/*
 * How many bytes a list for @blocks blocks may have: one byte each for gaps and
 * runs of one block, and some to spare
 */
uint64_t wsm_runs_max_size(uint64_t blocks);

typedef void WsmRunFn(void *opaque, int64_t offset, int64_t bytes);

/*
 * Call @fn for each run of blocks of @granularity in @runs, with its place in a
 * range of @bytes bytes, whose last block may be shorter.  Returns false and
 * sets @errp if these are no runs within the range; by then @fn was called for
 * those before the first bad one.
 */
bool wsm_runs_for_each(const uint8_t *runs, size_t size, int64_t bytes,
                       uint32_t granularity, WsmRunFn *fn, void *opaque,
                       Error **errp);

/*
 * Returns 1 and the next run, 0 at the end, or -EINVAL and @errp if the bytes
 * are not a list of runs within the disk.
 */
int wsm_runs_decode(WsmRunsDecoder *d, uint64_t *first, uint64_t *count,
                    Error **errp);

#endif
