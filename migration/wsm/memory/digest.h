/*
 * Whole-system migration: what a guest has in memory, in a few bytes
 *
 * A digest of memory is the prefixes of its pages, sorted, each once.  A list
 * of pages that are wanted is the same.  docs/templates.md has the file.
 *
 * Pure.  Any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_DIGEST_H
#define MIGRATION_WSM_MEMORY_DIGEST_H

#include "qemu/uuid.h"
#include "migration/wsm/wire/message.h"

#define WSM_MEMORY_FILE_SIZE    64      /* bytes of a header */
#define WSM_MAX_WANTED          WSM_SET_MAX_PAGES

/* What a file has behind its header */
typedef enum WsmMemoryFileKind {
    WSM_MEMORY_FILE_DIGEST = 1,
    WSM_MEMORY_FILE_PAGES,
} WsmMemoryFileKind;

/* @buf gets WSM_MEMORY_FILE_SIZE bytes; there are @count entries behind it */
void wsm_memory_file_encode(WsmMemoryFileKind kind, uint64_t count,
                            const QemuUUID *guest, uint8_t *buf);

/* Prefixes, as numbers */
typedef struct WsmDigest WsmDigest;

WsmDigest *wsm_digest_new(void);
void wsm_digest_free(WsmDigest *digest);
void wsm_digest_add(WsmDigest *digest, uint64_t prefix);

/* Sort them, and drop what is there twice.  Returns how many are left. */
uint64_t wsm_digest_sort(WsmDigest *digest);

/* Once it is sorted: as they are in a file, 8 bytes each.  A new array. */
GByteArray *wsm_digest_encode(const WsmDigest *digest);

/*
 * The content of a file of kind WSM_MEMORY_FILE_DIGEST, which must be sorted.
 * NULL, and @errp.
 */
WsmDigest *wsm_digest_decode(const uint8_t *buf, size_t size, Error **errp);

/* The same of a regular file.  It takes time.  NULL, and @errp. */
WsmDigest *wsm_digest_read(const char *file, Error **errp);

/* Once it is sorted: take @prefix out.  False: it is not there any more. */
bool wsm_digest_take(WsmDigest *digest, uint64_t prefix);

#endif
