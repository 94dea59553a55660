/*
 * Whole-system migration: comparing the content of disks by hashes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/thread-pool.h"
#include "crypto/hash.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "migration/wsm/core/hash.h"

QEMU_BUILD_BUG_ON(WSM_HASH_SIZE != QCRYPTO_HASH_DIGEST_LEN_SHA256);

typedef struct WsmHashJob {
    const void *buf;
    size_t bytes;
    uint32_t granularity;
    uint8_t *out;
} WsmHashJob;

static void hash_block(const uint8_t *buf, size_t bytes, uint8_t *out)
{
    size_t size = WSM_HASH_SIZE;

    if (buffer_is_zero(buf, bytes)) {
        memset(out, 0, WSM_HASH_SIZE);
        return;
    }
    /*
     * Every library that QEMU can be built with has SHA-256; it fails only
     * for lack of memory, which ends QEMU elsewhere, too.
     */
    qcrypto_hash_bytes(QCRYPTO_HASH_ALGO_SHA256, (const char *)buf, bytes,
                       &out, &size, &error_abort);
}

void wsm_hash_blocks(const void *buf, size_t bytes, uint32_t granularity,
                     uint8_t *out)
{
    const uint8_t *p = buf;

    while (bytes) {
        size_t step = MIN(bytes, granularity);

        hash_block(p, step, out);
        p += step;
        bytes -= step;
        out += WSM_HASH_SIZE;
    }
}

static int hash_job(void *opaque)
{
    WsmHashJob *job = opaque;

    wsm_hash_blocks(job->buf, job->bytes, job->granularity, job->out);
    return 0;
}

void coroutine_fn wsm_co_hash_blocks(const void *buf, size_t bytes,
                                     uint32_t granularity, uint8_t *out)
{
    WsmHashJob job = {
        .buf = buf, .bytes = bytes, .granularity = granularity, .out = out,
    };

    thread_pool_submit_co(hash_job, &job);
}

static bool differs(const uint8_t *a, const uint8_t *b, size_t block)
{
    static const uint8_t zero[WSM_HASH_SIZE];

    return memcmp(a ? a + block * WSM_HASH_SIZE : zero,
                  b ? b + block * WSM_HASH_SIZE : zero, WSM_HASH_SIZE) != 0;
}

void wsm_hash_diff(const uint8_t *a, const uint8_t *b, size_t blocks,
                   void (*fn)(void *opaque, size_t first, size_t count),
                   void *opaque)
{
    size_t first, i = 0;

    while (i < blocks) {
        first = i;
        while (i < blocks && differs(a, b, i)) {
            i++;
        }
        if (i > first) {
            fn(opaque, first, i - first);
        }
        i++;    /* the end, or equal */
    }
}
