/*
 * Whole-system migration: what tells one page of memory from another
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "crypto/hash.h"
#include "crypto/random.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "migration/wsm/memory/tag.h"

#define WSM_LANES               (WSM_SEED_WORDS / 2)
#define WSM_LANE_BYTES          16

QEMU_BUILD_BUG_ON(WSM_PAGE_SIZE % (WSM_LANES * WSM_LANE_BYTES));

void wsm_seed_init(WsmSeed *seed)
{
    qcrypto_random_bytes(seed->word, sizeof(seed->word), &error_abort);
}

void wsm_salt_init(uint8_t *salt)
{
    qcrypto_random_bytes(salt, WSM_SALT_SIZE, &error_abort);
}

/* Both halves of the product, so that each bit matters to many */
static inline uint64_t wsm_fold(uint64_t a, uint64_t b)
{
    uint64_t low, high;

    mulu64(&low, &high, a, b);
    return low ^ high;
}

uint64_t wsm_page_print(const WsmSeed *seed, const void *page)
{
    const uint8_t *p = page, *end = p + WSM_PAGE_SIZE;
    uint64_t lane[WSM_LANES] = {}, print = WSM_PAGE_SIZE;

    /* Lanes do not wait for each other's multiplication */
    while (p < end) {
        for (int i = 0; i < WSM_LANES; i++, p += WSM_LANE_BYTES) {
            lane[i] = wsm_fold(ldq_le_p(p) ^ seed->word[2 * i] ^ lane[i],
                               ldq_le_p(p + 8) ^ seed->word[2 * i + 1]);
        }
    }
    for (int i = 0; i < WSM_LANES; i++) {
        print = wsm_fold(print ^ lane[i] ^ seed->word[i],
                         seed->word[WSM_LANES + i]);
    }
    return print;
}

void wsm_page_hash(const void *page, uint8_t *hash)
{
    size_t size = WSM_HASH_SIZE;

    /* As in core/hash.c, it fails only for lack of memory */
    qcrypto_hash_bytes(QCRYPTO_HASH_ALGO_SHA256, page, WSM_PAGE_SIZE, &hash,
                       &size, &error_abort);
}

void wsm_page_tag(const uint8_t *salt, const void *page, uint8_t *tag)
{
    struct iovec iov[] = {
        { .iov_base = (void *)salt, .iov_len = WSM_SALT_SIZE },
        { .iov_base = (void *)page, .iov_len = WSM_PAGE_SIZE },
    };
    uint8_t hash[QCRYPTO_HASH_DIGEST_LEN_SHA256], *out = hash;
    size_t size = sizeof(hash);

    /* As in core/hash.c, it fails only for lack of memory */
    qcrypto_hash_bytesv(QCRYPTO_HASH_ALGO_SHA256, iov, ARRAY_SIZE(iov), &out,
                        &size, &error_abort);
    memcpy(tag, hash, WSM_TAG_SIZE);
}

bool wsm_page_has_tag(const uint8_t *salt, const void *page,
                      const uint8_t *tag)
{
    uint8_t own[WSM_TAG_SIZE];

    wsm_page_tag(salt, page, own);
    return memcmp(own, tag, WSM_TAG_SIZE) == 0;
}
