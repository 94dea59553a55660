/*
 * Whole-system migration: DIGESTS, the prints of what memory was
 *
 * The destination has the guest's memory of some time ago, and says the prints
 * of its pages, some after the others.  Blocks of memory are called by QEMU's
 * names: the numbers are the source's, and it has none for them yet.
 *
 * Pure; nothing of what comes is trusted.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_PRINTS_H
#define MIGRATION_WSM_MEMORY_PRINTS_H

#include "migration/wsm/memory/tag.h"

/* Pages in a message */
#define WSM_PRINTS_PAGES        (WSM_MAX_DIGESTS / WSM_PAGE_SIZE)

typedef struct WsmPrints {
    WsmSeed seed;               /* of the prints */
    char name[WSM_MAX_RAM_NAME + 1];
    const uint8_t *buf;         /* those of the pages of the range */
} WsmPrints;

/* The payload, whose prints are those of @pages; as a new array */
GByteArray *wsm_prints_encode(const WsmPrints *prints, unsigned pages);

/*
 * @payload has @msg->length bytes, @prints->buf is within it.  False, and
 * @errp.
 */
bool wsm_prints_decode(const WsmMsg *msg, const uint8_t *payload,
                       WsmPrints *prints, Error **errp);

/* The print of page @i; 0: not known */
uint64_t wsm_prints_at(const WsmPrints *prints, unsigned i);

#endif
