/*
 * Which blocks that were missing are there without being marked, and when
 * they must be marked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"

#include "block/pull-marks.h"

void pull_marks_init(PullMarks *m, int64_t size, uint32_t granularity,
                     bool wanted)
{
    *m = (PullMarks) {
        .size = size,
        .granularity = granularity,
        .unmarked = wanted ? hbitmap_alloc(size, ctz32(granularity)) : NULL,
    };
}

void pull_marks_destroy(PullMarks *m)
{
    assert(!m->marking);
    if (m->unmarked) {
        hbitmap_free(m->unmarked);
    }
}

void pull_marks_arrived(PullMarks *m, int64_t offset, int64_t bytes)
{
    if (m->unmarked) {
        hbitmap_set(m->unmarked, offset, bytes);
    }
}

void pull_marks_wrote(PullMarks *m, int64_t offset, int64_t bytes)
{
    if (m->unmarked && !m->urgent) {
        m->urgent = hbitmap_next_dirty(m->unmarked, offset, bytes) >= 0;
    }
}

void pull_marks_arm(PullMarks *m)
{
    m->armed = m->unmarked;
    m->urgent = true;       /* law 3 */
}

void pull_marks_disarm(PullMarks *m)
{
    assert(!m->marking);
    m->armed = false;
}

void pull_marks_want(PullMarks *m)
{
    m->urgent = true;
}

bool pull_marks_any(const PullMarks *m)
{
    return m->unmarked && !hbitmap_empty(m->unmarked);
}

int64_t pull_marks_bytes(const PullMarks *m)
{
    int64_t count = m->unmarked ? hbitmap_count(m->unmarked) : 0;
    int64_t tail = m->size % m->granularity;

    if (count && tail && hbitmap_get(m->unmarked, m->size - 1)) {
        count -= m->granularity - tail;
    }
    return count;
}

GArray *pull_marks_begin(PullMarks *m)
{
    BdrvPullRange r = {};
    GArray *marks;

    if (!m->armed || !m->urgent) {
        return NULL;
    }
    assert(!m->marking);
    m->marking = true;
    m->urgent = false;

    marks = g_array_new(false, false, sizeof(r));
    while (hbitmap_next_dirty_area(m->unmarked, r.offset + r.bytes, m->size,
                                   INT64_MAX, &r.offset, &r.bytes)) {
        g_array_append_val(marks, r);
        hbitmap_reset(m->unmarked, r.offset, r.bytes);
    }
    return marks;
}

void pull_marks_end(PullMarks *m, GArray *marks, int ret)
{
    assert(m->marking);
    m->marking = false;

    if (ret < 0) {
        for (unsigned i = 0; i < marks->len; i++) {
            const BdrvPullRange *r = &g_array_index(marks, BdrvPullRange, i);

            hbitmap_set(m->unmarked, r->offset, r->bytes);
        }
        m->urgent = true;
    }
    g_array_unref(marks);
}
