/*
 * Whole-system migration: buffers that are used again
 *
 * What a buffer of some hundred KiB costs most is its memory: fresh from the
 * system, each page of it is a page fault.  So some are kept for the next one.
 *
 * Not thread-safe.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_LINK_BUFFERS_H
#define MIGRATION_WSM_LINK_BUFFERS_H

typedef struct WsmBuffers {
    GPtrArray *spare;
} WsmBuffers;

void wsm_buffers_init(WsmBuffers *b);

/* All buffers must have been put back */
void wsm_buffers_destroy(WsmBuffers *b);

/* At least @size bytes, aligned for any disk */
void *wsm_buffers_get(WsmBuffers *b, size_t size);

/* @size: as in get.  @buf may be NULL. */
void wsm_buffers_put(WsmBuffers *b, void *buf, size_t size);

#endif
