/*
 * Whole-system migration: which blocks of a disk are missing durably
 *
 * One bit for each block.  Of the destination's disks the filter has the same
 * in memory; here a block is missing until it is known durably that it is not.
 * That can be told from what the filter has (what is missing, what is not yet
 * marked, what is being marked), but only under its locks, and after a restart
 * there is no filter yet.  A bit for each block is cheap, and what is never set
 * takes no memory.
 *
 * Pure.  Not thread-safe.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MAP_MISSING_H
#define MIGRATION_WSM_MAP_MISSING_H

#include "qemu/hbitmap.h"

typedef struct WsmMissing {
    /* Set in new, never changed */
    int64_t size;               /* bytes of the disk */
    uint32_t granularity;       /* bytes of a block */

    HBitmap *bits;              /* of bytes */
    int64_t bytes;              /* that are missing; atomic to read */
} WsmMissing;

/* Nothing is missing */
WsmMissing *wsm_missing_new(int64_t size, uint32_t granularity);
void wsm_missing_free(WsmMissing *m);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WsmMissing, wsm_missing_free)

/*
 * The blocks in @runs (wire/runs.h) are missing, or not any more.  Returns
 * false and sets @errp if these are no runs of the disk; some may count then.
 */
bool wsm_missing_set_runs(WsmMissing *m, const uint8_t *runs, size_t size,
                          Error **errp);
bool wsm_missing_clear_runs(WsmMissing *m, const uint8_t *runs, size_t size,
                            Error **errp);

/* The first run of missing bytes from @offset on.  False: there is none. */
bool wsm_missing_next(const WsmMissing *m, int64_t offset, int64_t *start,
                      int64_t *bytes);

/*
 * What is missing in these ranges, of whole blocks but for the end of the disk,
 * as runs, appended to @out.  They must be in order and not overlap.
 */
typedef struct WsmMapRange {
    int64_t offset, bytes;
} WsmMapRange;

void wsm_missing_runs_in(const WsmMissing *m, const WsmMapRange *range,
                         unsigned nb, GByteArray *out);

/*
 * All that is missing, likewise.  Returns false if that has more than @max
 * bytes, and then @out has some of it.
 */
bool wsm_missing_runs(const WsmMissing *m, size_t max, GByteArray *out);

#endif
