/*
 * Whole-system migration: what the destination has of older memory
 *
 * DIGESTS tells the prints of its pages.  A page whose print is the same as
 * that of the older one at the same place is probably the same; the destination
 * checks the tag.  So what is lost, or wrong, costs a page that is sent.
 *
 * Any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_PRINTS_H
#define MIGRATION_WSM_SOURCE_PRINTS_H

#include "migration/wsm/memory/prints.h"

typedef struct WsmSourcePrints WsmSourcePrints;

WsmSourcePrints *wsm_source_prints_new(void);
void wsm_source_prints_free(WsmSourcePrints *p);

/*
 * The prints of @msg, whose payload was decoded.  What we have no memory for is
 * left out.  With another seed than before, all before it are forgotten.
 */
void wsm_source_prints_put(WsmSourcePrints *p, const WsmMsg *msg,
                           const WsmPrints *prints);

/* Is @page, the content of @block at @offset, what was there? */
bool wsm_source_prints_find(WsmSourcePrints *p, const RAMBlock *block,
                            uint64_t offset, const void *page);

/* It was not found: not to be looked for a second time */
void wsm_source_prints_drop(WsmSourcePrints *p, const RAMBlock *block,
                            uint64_t offset, uint64_t bytes);

#endif
