/*
 * Whole-system migration: which blocks of a disk are missing durably
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "migration/wsm/map/missing.h"
#include "migration/wsm/wire/runs.h"

WsmMissing *wsm_missing_new(int64_t size, uint32_t granularity)
{
    WsmMissing *m = g_new(WsmMissing, 1);

    assert(size > 0 && is_power_of_2(granularity));
    *m = (WsmMissing) {
        .size = size,
        .granularity = granularity,
        .bits = hbitmap_alloc(size, ctz32(granularity)),
    };
    return m;
}

void wsm_missing_free(WsmMissing *m)
{
    if (m) {
        hbitmap_free(m->bits);
        g_free(m);
    }
}

/* The last block may be shorter */
static void count(WsmMissing *m)
{
    int64_t bytes = hbitmap_count(m->bits);
    int64_t rest = m->size % m->granularity;

    if (rest && hbitmap_get(m->bits, m->size - 1)) {
        bytes -= m->granularity - rest;
    }
    qatomic_set(&m->bytes, bytes);
}

static void set_run(void *opaque, int64_t offset, int64_t bytes)
{
    hbitmap_set(opaque, offset, bytes);
}

static void clear_run(void *opaque, int64_t offset, int64_t bytes)
{
    hbitmap_reset(opaque, offset, bytes);
}

bool wsm_missing_set_runs(WsmMissing *m, const uint8_t *runs, size_t size,
                          Error **errp)
{
    bool ok = wsm_runs_for_each(runs, size, m->size, m->granularity, set_run,
                                m->bits, errp);

    count(m);
    return ok;
}

bool wsm_missing_clear_runs(WsmMissing *m, const uint8_t *runs, size_t size,
                            Error **errp)
{
    bool ok = wsm_runs_for_each(runs, size, m->size, m->granularity, clear_run,
                                m->bits, errp);

    count(m);
    return ok;
}

bool wsm_missing_next(const WsmMissing *m, int64_t offset, int64_t *start,
                      int64_t *bytes)
{
    return hbitmap_next_dirty_area(m->bits, offset, m->size, INT64_MAX, start,
                                   bytes);
}

static void put_run(const WsmMissing *m, WsmRunsEncoder *e, int64_t offset,
                    int64_t bytes)
{
    wsm_runs_encode(e, offset / m->granularity,
                    DIV_ROUND_UP(bytes, m->granularity));
}

static void put_range(const WsmMissing *m, WsmRunsEncoder *e,
                      const WsmMapRange *range)
{
    int64_t at = range->offset, end = at + range->bytes, bytes;

    assert(QEMU_IS_ALIGNED(at, m->granularity));
    assert(QEMU_IS_ALIGNED(end, m->granularity) || end == m->size);
    while (hbitmap_next_dirty_area(m->bits, at, end, INT64_MAX, &at, &bytes)) {
        put_run(m, e, at, bytes);
        at += bytes;
    }
}

void wsm_missing_runs_in(const WsmMissing *m, const WsmMapRange *range,
                         unsigned nb, GByteArray *out)
{
    WsmRunsEncoder e;

    wsm_runs_encode_init(&e, out);
    for (unsigned i = 0; i < nb; i++) {
        put_range(m, &e, &range[i]);
    }
}

bool wsm_missing_runs(const WsmMissing *m, size_t max, GByteArray *out)
{
    int64_t at = 0, bytes;
    size_t before = out->len;
    WsmRunsEncoder e;

    wsm_runs_encode_init(&e, out);
    while (wsm_missing_next(m, at, &at, &bytes)) {
        put_run(m, &e, at, bytes);
        at += bytes;
        if (out->len - before > max) {
            return false;
        }
    }
    return true;
}
