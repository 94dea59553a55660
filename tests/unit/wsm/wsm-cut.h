/*
 * For unit tests: a small disk in memory, and what a power cut leaves of it
 *
 * What was written since the last flush is lost, there, or torn: each of its
 * sectors is the old one, the new one, or something else.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef WSM_CUT_H
#define WSM_CUT_H

#include "system/block-backend.h"

typedef struct CutDisk {
    GByteArray *now;            /* what is read */
    GByteArray *durable;
    GPtrArray *writes;          /* of CutWrite, in order: since the flush */

    unsigned ops;               /* writes and flushes that have begun */
    unsigned fail_at;           /* number of one that fails, from 1; or 0 */
    unsigned fail_from;         /* from this one on all do; 0: none */
    bool forgets;               /* what a flush that fails has to write */
    bool hold;                  /* flushes wait until it is false again */
    unsigned waiting;           /* those that do */
    bool fixed;                 /* it cannot grow */

    /* May be NULL: called in the middle of each write and flush */
    void (*hook)(void *opaque);
    void *opaque;
} CutDisk;

void cut_register(void);

/* Full of zeroes, durably.  Free it when no node is above it any more. */
CutDisk *cut_disk_new(size_t size);
void cut_disk_free(CutDisk *disk);

/* A node above it, opened to be written */
BlockBackend *cut_open(CutDisk *disk);

/* What a power cut would leave now, as a new array; @garbage: anything */
GByteArray *cut_power(CutDisk *disk, GRand *rand, bool garbage);

/* And does leave: @image (taken) is what is there, durably */
void cut_disk_set(CutDisk *disk, GByteArray *image);

#endif
