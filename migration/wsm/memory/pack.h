/*
 * Whole-system migration: pages of memory, made smaller
 *
 * One stream of zstd for each channel of multifd and direction: what it has
 * seen in one packet makes the next ones smaller.  Without zstd there are no
 * packers, and WSM_FEATURES has no WSM_FEATURE_ZSTD.
 *
 * The thread of the channel.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_PACK_H
#define MIGRATION_WSM_MEMORY_PACK_H

typedef struct WsmPacker WsmPacker;
typedef struct WsmUnpacker WsmUnpacker;

/* @level as migration's multifd-zstd-level.  NULL, and @errp. */
WsmPacker *wsm_packer_new(int level, Error **errp);
void wsm_packer_free(WsmPacker *packer);

/* Bytes that @size bytes may take at most */
size_t wsm_pack_bound(size_t size);

/*
 * Pack @size bytes into @out, which has wsm_pack_bound() of them.  Returns how
 * many it took; 0, and @errp.
 */
size_t wsm_pack(WsmPacker *packer, const void *in, size_t size, void *out,
                size_t out_size, Error **errp);

WsmUnpacker *wsm_unpacker_new(Error **errp);
void wsm_unpacker_free(WsmUnpacker *unpacker);

/* It must be exactly @out_size bytes, from all of @in.  False, and @errp. */
bool wsm_unpack(WsmUnpacker *unpacker, const void *in, size_t size, void *out,
                size_t out_size, Error **errp);

#endif
