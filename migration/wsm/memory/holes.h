/*
 * Whole-system migration: pages of memory that the destination lacks
 *
 * The law: a page whose content the destination was told of and does not have
 * is a hole, until newer content of it has come.  While there is one the guest
 * must not run.
 *
 * A page is told by the number of its block of memory, and its own in that.
 * Any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_HOLES_H
#define MIGRATION_WSM_MEMORY_HOLES_H

#include "migration/wsm/wire/message.h"

typedef struct WsmHoles WsmHoles;

WsmHoles *wsm_holes_new(void);
void wsm_holes_free(WsmHoles *holes);

/* The page is a hole from now on */
void wsm_holes_add(WsmHoles *holes, unsigned block, uint64_t page);

/* It has content.  Was it a hole? */
bool wsm_holes_fill(WsmHoles *holes, unsigned block, uint64_t page);
bool wsm_holes_has(WsmHoles *holes, unsigned block, uint64_t page);

/* How many are there */
uint64_t wsm_holes_count(WsmHoles *holes);

/* @pages holes of @block from @first on, but none at either end */
typedef void WsmHolesFn(void *opaque, unsigned block, uint64_t first,
                        uint64_t pages);

/* Call @fn, which must not come back here, for each run of at most @max */
void wsm_holes_each(WsmHoles *holes, uint64_t max, WsmHolesFn *fn,
                    void *opaque);

#endif
