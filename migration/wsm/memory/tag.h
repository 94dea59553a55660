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

#include "migration/wsm/wire/message.h"

#define WSM_TAG_SIZE            16      /* bytes, the first of the hash */
#define WSM_SEED_WORDS          8

/* For prints.  A guest that knew it could make pages with equal prints. */
typedef struct WsmSeed {
    uint64_t word[WSM_SEED_WORDS];
} WsmSeed;

/* Random; fails only where QEMU has no source of randomness, and then aborts */
void wsm_seed_init(WsmSeed *seed);
void wsm_salt_init(uint8_t *salt);

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
