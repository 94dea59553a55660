/*
 * For unit tests of the source: a source, its guest's disks, and what it asks
 * of QEMU; wsm-target.h is the other side
 *
 * Disks are in memory, so that they can fail when the test wants it, or are
 * images made with wsm-disks.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef WSM_ORIGIN_H
#define WSM_ORIGIN_H

#include "migration/wsm/source/source.h"
#include "wsm-disks.h"
#include "wsm-target.h"

#define ORIGIN_BLOCK    4096
#define ORIGIN_PEER     "beta:4444"
#define ORIGIN_PATH     "/run/beta"

typedef struct OriginDisk {
    const char *name;
    BlockDriverState *bs;
    BlockBackend *blk;          /* the guest's */
    int64_t size;
    uint8_t *data;
    /* Atomic; 0 or -errno: what is returned until it is changed */
    int read_error, status_error, flush_error, size_error;
    int64_t allocated;          /* or -errno */
    unsigned reads, flushes;    /* atomic: how many there were */
} OriginDisk;

typedef struct Origin {
    WsmSession session;
    WsmOptionsStore options;
    WsmImages images;
    WsmSource *s;
} Origin;

/* What the stubs for QEMU say; atomic */
extern uint64_t origin_max_bandwidth, origin_max_postcopy_bandwidth;
extern bool origin_dirty_bitmaps;
/* The node of an export, or NULL: there is none */
extern const char *origin_export_node;
/* Called when the source looks which disks there are, unless NULL */
extern void (*origin_on_select)(void);

/* Once, instead of disks_init() and before the tests */
void origin_init_tests(int *argc, char ***argv);

/* A disk of the guest, full of zeroes; it is gone then */
void origin_add_disk(OriginDisk *d, const char *name, int64_t size);
void origin_remove_disk(OriginDisk *d);

/* The guest writes: @blocks blocks of @byte */
void origin_write(OriginDisk *d, unsigned block, unsigned blocks, uint8_t byte);

/* Options have their defaults then, but for the size of blocks */
void origin_init(Origin *o);

/* A source, with @bulk bulk channels, which is not started; false: @errp */
void origin_new(Origin *o, unsigned bulk);

/* The same and start it, and make it known to wsm-target.h */
void origin_start(Origin *o, unsigned bulk);

/* Stop and free the source, if there is one */
void origin_stop(Origin *o);

/* All that is there */
void origin_destroy(Origin *o);

/* Set one option, by the name of its member in WsmOptions */
#define origin_set(o, member, value)                                    \
    do {                                                                \
        WsmOptions *new_ = g_new0(WsmOptions, 1);                       \
                                                                        \
        new_->has_##member = true;                                      \
        new_->member = (value);                                         \
        wsm_options_set(&(o)->options, new_);                           \
        qapi_free_WsmOptions(new_);                                     \
    } while (0)

/* Poll until a milestone is reached */
void origin_await(Origin *o, WsmMilestone m);

/* Run @fn in the loop of the source, as a bottom half, and wait for it */
void origin_run(Origin *o, void (*fn)(void *opaque), void *opaque);

/* Begin a pass, or the push after the freeze.  In the loop. */
void origin_begin_pass(Origin *o);
void origin_begin_push(Origin *o);

/* Is a block dirty? */
bool origin_is_dirty(Origin *o, unsigned disk, unsigned block);

/* Did it give up?  That is the error why, or NULL: it did not */
bool origin_has_fatal(Origin *o);
void origin_expect_fatal(Origin *o, const char *text);

/* The last error that query-wsm shows */
void origin_expect_error(Origin *o, const char *text);

#endif
