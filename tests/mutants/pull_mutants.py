# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants of the filter at the destination: when it marks, and what."""

from tests.mutants.mutants import Mutant

FILTER, MARKING, STATE = (f"block/pull-{name}.c" for name in
                          ("on-demand", "marks", "state"))

PULL = [
    Mutant("test-pull-crash", "mark-before-flush",
           "data is durable before it is marked", FILTER, """\
    int ret = bdrv_co_flush(bs->backing->bs);

    if (marks) {
        if (ret >= 0) {
            ret = s->ops->mark(s->opaque, (const BdrvPullRange *)marks->data,
                               marks->len);
            if (ret < 0) {
                trace_pull_on_demand_fail(bs, "mark", 0, s->map.size, ret);
            }
        }
        pull_state_end_marks(s, marks, ret);
    }

""", """\
    int ret = 0;

    if (marks) {
        if (ret >= 0) {
            ret = s->ops->mark(s->opaque, (const BdrvPullRange *)marks->data,
                               marks->len);
            if (ret < 0) {
                trace_pull_on_demand_fail(bs, "mark", 0, s->map.size, ret);
            }
        }
        pull_state_end_marks(s, marks, ret);
    }
    if (ret >= 0) { ret = bdrv_co_flush(bs->backing->bs); }
""", "/pull-crash/histories"),
    Mutant("test-pull-crash", "look-after-flush",
           "what is marked was written before the flush began", FILTER, """\
    GArray *marks = pull_state_begin_marks(s);
    int ret = bdrv_co_flush(bs->backing->bs);
""", """\
    int ret = bdrv_co_flush(bs->backing->bs);
    GArray *marks = pull_state_begin_marks(s);
""", "/pull-crash/histories"),
    Mutant("test-pull-crash", "no-mark",
           "a flush is answered after the marks", FILTER, """\
            ret = s->ops->mark(s->opaque, (const BdrvPullRange *)marks->data,
                               marks->len);
""", """\
            ret = 0;
""", "/pull-crash/histories"),
    Mutant("test-pull-crash", "mark-after-failure",
           "no mark after a flush that failed", FILTER, """\
    if (marks) {
        if (ret >= 0) {
            ret = s->ops->mark(s->opaque, (const BdrvPullRange *)marks->data,
                               marks->len);
            if (ret < 0) {
                trace_pull_on_demand_fail(bs, "mark", 0, s->map.size, ret);
            }
        }
        pull_state_end_marks(s, marks, ret);
    }

    return ret;
""", """\
    int fret = ret;
    if (marks) {
        if (true) {
            ret = s->ops->mark(s->opaque, (const BdrvPullRange *)marks->data,
                               marks->len);
            if (ret < 0) {
                trace_pull_on_demand_fail(bs, "mark", 0, s->map.size, ret);
            }
        }
        pull_state_end_marks(s, marks, ret);
    }
    return fret < 0 ? fret : ret;
""", "/pull-crash/histories"),
    Mutant("test-pull-crash", "arrivals-forgotten",
           "what arrives is to be marked", STATE, """\
    pull_marks_arrived(&s->marks, offset, bytes);
""", "", "/pull-crash/histories"),
    Mutant("test-pull-crash", "writes-not-urgent",
           "so is what the guest writes to then, at its flush", FILTER, """\
    /* If it has failed, the guest may yet read there what it wrote */
    pull_state_wrote(s, offset, bytes);
""", "", "/pull-crash/histories"),
    Mutant("test-pull-marks", "failed-writes-not-urgent",
           "what a failed write left may be read", FILTER, """\
    /* If it has failed, the guest may yet read there what it wrote */
    pull_state_wrote(s, offset, bytes);
""", """\
    /* If it has failed, the guest may yet read there what it wrote */
    if (ret >= 0) { pull_state_wrote(s, offset, bytes); }
"""),
    Mutant("test-pull-crash", "noted-before",
           "a write is noted when its blocks are there", FILTER, """\
    if (!bytes || !pull_state_any_missing(s)) {
        ret = pull_write_child(bs, offset, bytes, qiov, flags);
    } else {
        ret = pull_write_missing(bs, offset, bytes, qiov, flags);
    }
    /* If it has failed, the guest may yet read there what it wrote */
    pull_state_wrote(s, offset, bytes);
""", """\
    pull_state_wrote(s, offset, bytes);
    if (!bytes || !pull_state_any_missing(s)) {
        ret = pull_write_child(bs, offset, bytes, qiov, flags);
    } else {
        ret = pull_write_missing(bs, offset, bytes, qiov, flags);
    }
""", "/pull-crash/histories"),
    Mutant("test-pull-crash", "first-block-noted",
           "all blocks of a write are noted", STATE, """\
    pull_map_outer(&s->map, &offset, &bytes);
    WITH_QEMU_LOCK_GUARD(&s->lock) {
""", """\
    pull_map_outer(&s->map, &offset, &bytes);
    bytes = MIN(bytes, s->map.granularity);
    WITH_QEMU_LOCK_GUARD(&s->lock) {
""", "/pull-crash/histories"),
    Mutant("test-pull-marks", "whole-blocks-noted",
           "a part of a block is enough", STATE, """\
    pull_map_outer(&s->map, &offset, &bytes);
""", """\
    pull_map_inner(&s->map, &offset, &bytes);
"""),
    Mutant("test-pull-marks", "discards-not-urgent",
           "a discard is a write", FILTER, """\
        pull_state_wrote(s, offset, bytes);
""", ""),
    Mutant("test-pull-marks", "fua-passes",
           "FUA is a flush of the filter", FILTER, """\
    fua = ops->mark ? 0 : BDRV_REQ_FUA;
""", """\
    fua = BDRV_REQ_FUA;
"""),
    Mutant("test-pull-crash", "not-put-back",
           "what could not be marked is to be marked", MARKING, """\
            hbitmap_set(m->unmarked, r->offset, r->bytes);
""", """\
            (void)r;
""", "/pull-crash/histories"),
    Mutant("test-pull-crash", "not-urgent-again",
           "at the next flush", MARKING, """\
        m->urgent = true;
""", "", "/pull-crash/histories"),
    Mutant("test-pull-marks", "always-urgent",
           "a flush that need not mark does not", MARKING, """\
    m->urgent = false;
""", ""),
    Mutant("test-pull-crash", "urgent-lost",
           "what becomes urgent while marks are made is for the next "
           "flush", MARKING, """\
    m->marking = false;

""", """\
    m->marking = false;
    m->urgent = false;
""", "/pull-crash/histories"),
    Mutant("test-pull-marks", "armed-early",
           "nobody waits for the list before the guest may run", STATE, """\
    pull_marks_init(&s->marks, size, granularity, ops->mark);
}
""", """\
    pull_marks_init(&s->marks, size, granularity, ops->mark);
    pull_marks_arm(&s->marks);
}
"""),
    Mutant("test-pull-crash", "checkpoint-without-marks",
           "a checkpoint marks", FILTER, """\
    pull_state_want_marks(s);
""", "", "/pull-crash/histories"),
    Mutant("test-pull-marks", "resize-passes",
           "the disk keeps the size that the list is for", FILTER, """\
        if (!s->completed || (s->ops->mark && !s->dropped)) {
""", """\
        if (!s->completed) {
"""),
    Mutant("test-pull-crash", "there-before-write",
           "a block is there when it has been written", FILTER, """\

    ret = pull_write_child(bs, offset, bytes, qiov, flags);
""", """\

    pull_overwritten(s, &req);
    ret = pull_write_child(bs, offset, bytes, qiov, flags);
""", "/pull-crash/histories"),
    Mutant("test-pull-crash", "nothing-unmarked",
           "the look without lock tells the truth after a failure", STATE, """\
    pull_marks_end(&s->marks, marks, ret);
    pull_state_look_at_marks_locked(s);
""", """\
    pull_marks_end(&s->marks, marks, ret);
    qatomic_store_release(&s->any_unmarked, false);
""", "/pull-crash/histories"),
    Mutant("test-pull-crash", "unmarked-not-said",
           "and after an arrival", STATE, """\
    pull_marks_arrived(&s->marks, offset, bytes);
    pull_state_look_at_marks_locked(s);
""", """\
    pull_marks_arrived(&s->marks, offset, bytes);
""", "/pull-crash/histories"),
    Mutant("test-pull-marks", "last-block-counted",
           "the last block counts with its real size", MARKING, """\
        count -= m->granularity - tail;
""", """\
        count -= 0;
"""),
]
