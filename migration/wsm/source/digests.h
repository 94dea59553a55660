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
#ifndef MIGRATION_WSM_SOURCE_DIGESTS_H
#define MIGRATION_WSM_SOURCE_DIGESTS_H

#include "migration/wsm/memory/digests.h"

typedef struct WsmDigests WsmDigests;

WsmDigests *wsm_digests_new(void);
void wsm_digests_free(WsmDigests *d);

/*
 * The prints of @msg, whose payload was decoded.  What we have no memory for is
 * left out.  With another seed than before, all before it are forgotten.
 */
void wsm_digests_put(WsmDigests *d, const WsmMsg *msg,
                     const WsmDigestsMsg *digests);

/* Is @page, the content of @block at @offset, what was there? */
bool wsm_digests_find(WsmDigests *d, const RAMBlock *block, uint64_t offset,
                      const void *page);

/* It was not found: not to be looked for a second time */
void wsm_digests_drop(WsmDigests *d, const RAMBlock *block, uint64_t offset,
                      uint64_t bytes);

#endif
