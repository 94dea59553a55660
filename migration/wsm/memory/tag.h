/*
 * Whole-system migration: what tells one page of memory from another
 *
 * Two hashes of a page.  The print is fast, and finds candidates: equal prints
 * are no proof.  The tag is: SHA-256 over a salt and the whole page.  Who knows
 * it has the page, and as no guest knows the salt, none can make two pages
 * that have the same.
 *
 * Pure.  Any thread, after qcrypto_init().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_TAG_H
#define MIGRATION_WSM_MEMORY_TAG_H

#include "qemu/bswap.h"
#include "migration/wsm/wire/message.h"

#define WSM_TAG_SIZE            16      /* bytes, the first of the hash */
#define WSM_SEED_WORDS          (WSM_SEED_SIZE / 8)

/* For prints.  A guest that knew it could make pages with equal prints. */
typedef struct WsmSeed {
    uint64_t word[WSM_SEED_WORDS];
} WsmSeed;

/* Random; fails only where QEMU has no source of randomness, and then aborts */
void wsm_seed_init(WsmSeed *seed);
void wsm_salt_init(uint8_t *salt);

/* WSM_SEED_SIZE bytes */
static inline void wsm_seed_encode(const WsmSeed *seed, uint8_t *buf)
{
    for (int i = 0; i < WSM_SEED_WORDS; i++) {
        stq_be_p(buf + 8 * i, seed->word[i]);
    }
}

static inline void wsm_seed_decode(const uint8_t *buf, WsmSeed *seed)
{
    for (int i = 0; i < WSM_SEED_WORDS; i++) {
        seed->word[i] = ldq_be_p(buf + 8 * i);
    }
}

/* @page has WSM_PAGE_SIZE bytes, aligned or not */
uint64_t wsm_page_print(const WsmSeed *seed, const void *page);

/* SHA-256 of the page, without a salt: @hash gets WSM_HASH_SIZE bytes */
void wsm_page_hash(const void *page, uint8_t *hash);

/* @salt has WSM_SALT_SIZE bytes, @tag gets WSM_TAG_SIZE */
void wsm_page_tag(const uint8_t *salt, const void *page, uint8_t *tag);

/* Does @page have this tag? */
bool wsm_page_has_tag(const uint8_t *salt, const void *page,
                      const uint8_t *tag);

#endif
