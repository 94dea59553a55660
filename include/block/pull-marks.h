/*
 * Which blocks that were missing are there without being marked, and when
 * they must be marked.  No I/O.
 *
 * After a crash somebody has to know for each block whether this disk has it
 * or only the source.  The user of the filter keeps a list of what is missing
 * that survives a power cut, and takes blocks off it: they are marked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PULL_MARKS_H
#define PULL_MARKS_H

#include "qemu/hbitmap.h"
#include "block/pull-on-demand.h"

/*
 * The laws, as "Crash safety" of docs/design.md has them:
 *
 *  1. A block is marked only after a flush of the disk below that began after
 *     the block was written there, and succeeded.
 *  2. A flush of the guest is acknowledged only when all that the guest has
 *     written before it is marked: blocks that it overwrote while they were
 *     missing, and those that had arrived and that it then wrote to, in whole
 *     or in part.
 *  3. And not before the list of what is missing is durable.
 *  4. Within a session blocks are only ever taken off the list.
 *  5. When nothing is missing, all is marked before the filter goes: what
 *     passes it by is noted by nobody.
 *
 * Cut the power at any time and give each block the source's content if it is
 * on the list, else what this disk has.  Then
 *
 *  - a block on the list has nothing that the guest has written and flushed
 *    here (2), so the source's content is one that a disk may have after a
 *    power cut;
 *  - a block off the list, but missing at the freeze, has durably here what
 *    arrived or what the guest wrote (1), and later writes are those to any
 *    disk;
 *  - without a durable list no flush was acknowledged (3), so the source's
 *    disk is the guest's.
 *
 * Which is why a flush goes data, marks, answer.  Marks that come too late
 * only cost that a block is fetched again; one that comes too early loses it.
 *
 * Blocks that the guest has not written to may be marked at any time; it need
 * not wait for that.  So a flush marks only if it is urgent, and then all
 * there is.
 *
 * The API is not thread-safe.  The struct is public to be part of another
 * structure and is protected by the lock of that one.
 */
typedef struct PullMarks {
    /* Set in init, never changed */
    int64_t size;               /* of the disk in bytes */
    uint32_t granularity;       /* size of a block, a power of two */
    HBitmap *unmarked;          /* there, not marked; or NULL: no marks */

    bool urgent;                /* the next flush marks */
    bool armed;                 /* flushes mark */
    bool marking;               /* between begin and end */
} PullMarks;

/* @wanted: somebody keeps marks.  Else nothing below changes anything. */
void pull_marks_init(PullMarks *m, int64_t size, uint32_t granularity,
                     bool wanted);
void pull_marks_destroy(PullMarks *m);

/* These whole blocks are there, and were missing: somebody has written them */
void pull_marks_arrived(PullMarks *m, int64_t offset, int64_t bytes);

/*
 * The guest has written to these whole blocks, if only to a part of them, and
 * will be told so after this
 */
void pull_marks_wrote(PullMarks *m, int64_t offset, int64_t bytes);

/*
 * From now on flushes mark, the first one in any case, as that waits for the
 * list.  Or they do not any more.
 */
void pull_marks_arm(PullMarks *m);
void pull_marks_disarm(PullMarks *m);

/* The next flush marks */
void pull_marks_want(PullMarks *m);

/* Is there anything that a write could make urgent? */
bool pull_marks_any(const PullMarks *m);

/* Number of unmarked bytes; the last block counts with its real size */
int64_t pull_marks_bytes(const PullMarks *m);

/*
 * A flush is about to begin; flushes come one at a time.  If it has to mark,
 * return what (BdrvPullRange), which all was written before; that may be
 * nothing.  NULL: it need not.
 */
GArray *pull_marks_begin(PullMarks *m);

/*
 * It has: they are marked, or some are and nobody knows which (@ret < 0).  Then
 * they are urgent, as the guest may flush again.  Frees @marks.
 */
void pull_marks_end(PullMarks *m, GArray *marks, int ret);

#endif /* PULL_MARKS_H */
