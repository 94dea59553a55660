/*
 * Whole-system migration: bitmaps as lists of runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/image/bitmap-runs.h"
#include "migration/wsm/wire/runs.h"

void wsm_bitmap_to_runs(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes,
                        uint32_t granularity, GByteArray *out)
{
    int64_t start = offset, count;
    uint64_t done = 0;
    WsmRunsEncoder e;

    wsm_runs_encode_init(&e, out);
    while (bdrv_dirty_bitmap_next_dirty_area(bitmap, start, offset + bytes,
                                             INT64_MAX, &start, &count)) {
        /* Two areas may lie in the same block */
        uint64_t first = MAX((start - offset) / granularity, done);

        start += count;
        done = DIV_ROUND_UP(start - offset, granularity);
        if (done > first) {
            wsm_runs_encode(&e, first, done - first);
        }
    }
}

typedef struct WsmBitmapRange {
    BdrvDirtyBitmap *bitmap;
    int64_t offset;
} WsmBitmapRange;

static void set_run(void *opaque, int64_t offset, int64_t bytes)
{
    WsmBitmapRange *r = opaque;

    bdrv_set_dirty_bitmap(r->bitmap, r->offset + offset, bytes);
}

bool wsm_bitmap_from_runs(BdrvDirtyBitmap *bitmap, int64_t offset,
                          int64_t bytes, const uint8_t *runs, size_t size,
                          uint32_t granularity, Error **errp)
{
    int64_t disk = bdrv_dirty_bitmap_size(bitmap);
    WsmBitmapRange r = { .bitmap = bitmap, .offset = offset };

    if (offset < 0 || bytes < 0 || offset > disk || bytes > disk - offset) {
        error_setg(errp, "list of runs: its range, offset %" PRId64 ", bytes %"
                   PRId64 ", is beyond the %" PRId64 " bytes of the disk",
                   offset, bytes, disk);
        return false;
    }
    return wsm_runs_for_each(runs, size, bytes, granularity, set_run, &r,
                             errp);
}
