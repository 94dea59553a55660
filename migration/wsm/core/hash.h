/*
 * Whole-system migration: comparing the content of disks by hashes
 *
 * If nobody knows what has changed, both sides hash their own blocks and only
 * those with different hashes are sent.  That is slower than to know, but
 * much faster than to send them all over a network.
 *
 * The hash is SHA-256: a block that is thought equal but is not would be a
 * silently corrupt disk, and a guest can choose what is in its blocks.  A block
 * of zeroes is not hashed and has 32 bytes of zero instead, no matter how long
 * it is: much of a disk is empty.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_CORE_HASH_H
#define MIGRATION_WSM_CORE_HASH_H

#include "migration/wsm/wire/message.h"

/*
 * Hash @bytes at @buf in blocks of @granularity into @out, which has
 * WSM_HASH_SIZE bytes for each.  The last block may be shorter, and is hashed
 * at its real length.  Pure; any thread, after qcrypto_init().
 */
void wsm_hash_blocks(const void *buf, size_t bytes, uint32_t granularity,
                     uint8_t *out);

/*
 * The same in a worker thread of the current AioContext, so that several
 * coroutines use several CPUs and none stops the others.  @buf and @out must
 * stay until it returns.
 */
void coroutine_fn wsm_co_hash_blocks(const void *buf, size_t bytes,
                                     uint32_t granularity, uint8_t *out);

/*
 * Call fn(opaque, first, count) for each run of blocks in which @a and @b, both
 * the hashes of @blocks blocks, differ: in ascending order, none
 * adjacent to the next.  Either may be NULL: all blocks read as zeroes.
 */
void wsm_hash_diff(const uint8_t *a, const uint8_t *b, size_t blocks,
                   void (*fn)(void *opaque, size_t first, size_t count),
                   void *opaque);

#endif
