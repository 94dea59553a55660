/*
 * Whole-system migration: disk data, made smaller
 *
 * Each message is one by itself, so that their order does not matter.  Without
 * zstd nothing is packed, and WSM_FEATURES has no WSM_FEATURE_PACKING.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_LINK_FRAME_H
#define MIGRATION_WSM_LINK_FRAME_H

/*
 * Pack @size bytes into @out, which has as many.  Returns how many it took; 0:
 * they do not become much smaller.  In a thread of the pool.
 */
size_t coroutine_fn wsm_co_frame_pack(const void *in, size_t size, void *out);

/*
 * It must be exactly @out_size bytes, from all of @in.  False, and @errp.  In a
 * thread of the pool.
 */
bool coroutine_fn wsm_co_frame_unpack(const void *in, size_t size, void *out,
                                      size_t out_size, Error **errp);

/* The same in this thread, for tests */
size_t wsm_frame_pack(const void *in, size_t size, void *out);
bool wsm_frame_unpack(const void *in, size_t size, void *out, size_t out_size);

#endif
