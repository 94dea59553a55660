/*
 * Whole-system migration: ids of sync points, their bitmaps as lists of runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/wire/runs.h"

QemuUUID wsm_points_id(const QemuUUID *session, unsigned disk)
{
    QemuUUID id = *session;

    stw_be_p(id.data + 14, lduw_be_p(id.data + 14) ^ disk);
    return id;
}

void wsm_points_to_runs(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes,
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

bool wsm_points_from_runs(BdrvDirtyBitmap *bitmap, int64_t offset,
                          int64_t bytes, const uint8_t *runs, size_t size,
                          uint32_t granularity, Error **errp)
{
    int64_t disk = bdrv_dirty_bitmap_size(bitmap);
    uint64_t first, count;
    WsmRunsDecoder d;
    int ret;

    if (offset < 0 || bytes < 0 || offset > disk || bytes > disk - offset) {
        error_setg(errp, "list of runs: its range, offset %" PRId64 ", bytes %"
                   PRId64 ", is beyond the %" PRId64 " bytes of the disk",
                   offset, bytes, disk);
        return false;
    }
    wsm_runs_decode_init(&d, runs, size, DIV_ROUND_UP(bytes, granularity));
    while ((ret = wsm_runs_decode(&d, &first, &count, errp)) > 0) {
        int64_t start = first * granularity;
        int64_t end = (first + count) * granularity;

        bdrv_set_dirty_bitmap(bitmap, offset + start,
                              MIN(end, bytes) - start);
    }
    return ret == 0;
}
