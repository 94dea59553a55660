/*
 * For the tests of the pull-on-demand filter: a disk in memory, a guest, and
 * a record of what the filter has told the source
 *
 * What the disk has at first is OLD: a byte in a wrong place tells where it
 * comes from.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PULL_TEST_H
#define PULL_TEST_H

#include "block/block_int.h"
#include "block/pull-on-demand.h"
#include "system/block-backend.h"

#define BLOCK 4096

enum { OLD = 0xee, SOURCE = 0x55, GUEST = 0x99 };

typedef struct MemState {
    uint8_t *data;
    int64_t size;

    /* Set when nothing is in flight */
    int write_error;        /* 0, or what the next write returns */
    int flush_error;        /* 0, or what the next flush returns */
    bool slow;              /* sleep now and then, fail now and then */
    bool unmap_unsupported;
    int read_error;         /* atomic: 0, or what reads return */
    bool hold_reads;        /* atomic: reads wait, and then see what is there */

    QemuMutex lock;         /* protects all below */
    bool hold;              /* writes wait in @held */
    CoQueue held;
    int zero_writes, flushes;
} MemState;

extern BlockDriver bdrv_mem;

typedef struct Range {
    int64_t offset, bytes;
} Range;

typedef struct PullTest {
    BlockDriverState *bs;
    MemState *mem;
    BlockBackend *blk;
    BlockDriverState *filter;
    int64_t size;

    QemuMutex lock;         /* protects all below */
    GArray *pulls, *haves;
    int completed;
} PullTest;

extern const BdrvPullOps pull_test_ops;

/* A disk and a guest with @perm who shares @shared, but no filter */
void pull_test_init_disk(PullTest *t, int64_t size, uint64_t perm,
                         uint64_t shared, int flags);

/* With a filter above, nothing missing */
void pull_test_init(PullTest *t, int64_t size);

/* Remove the filter */
void pull_test_drop(PullTest *t);

/* Remove everything that is there */
void pull_test_cleanup(PullTest *t);

int pull_test_completed(PullTest *t);
BdrvPullStats pull_test_stats(PullTest *t);

/* A graph change that changes nothing */
void pull_test_graph_change(void);

#endif /* PULL_TEST_H */
