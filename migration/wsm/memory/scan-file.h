/*
 * Whole-system migration: the files that a scan of memory writes and reads
 *
 * A digest of memory is the prefixes of its pages, sorted, each once: what a
 * guest has, in a few bytes.  A list of pages that are wanted is the same.
 * docs/templates.md has the files byte by byte.
 *
 * Pure.  Any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_SCAN_FILE_H
#define MIGRATION_WSM_MEMORY_SCAN_FILE_H

#include "qemu/uuid.h"
#include "migration/wsm/wire/message.h"

#define WSM_SCAN_HEADER_SIZE    64      /* bytes of a header */
#define WSM_MAX_WANTED          WSM_SET_MAX_PAGES

/* What a file has behind its header */
typedef enum WsmScanFileKind {
    WSM_SCAN_FILE_DIGEST = 1,
    WSM_SCAN_FILE_PAGES,
} WsmScanFileKind;

/* @buf gets WSM_SCAN_HEADER_SIZE bytes; there are @count entries behind it */
void wsm_scan_file_encode(WsmScanFileKind kind, uint64_t count,
                          const QemuUUID *guest, uint8_t *buf);

/* Prefixes, as numbers */
typedef struct WsmPrefixes WsmPrefixes;

WsmPrefixes *wsm_prefixes_new(void);
void wsm_prefixes_free(WsmPrefixes *prefixes);
void wsm_prefixes_add(WsmPrefixes *prefixes, uint64_t prefix);

/* Sort them, and drop what is there twice.  Returns how many are left. */
uint64_t wsm_prefixes_sort(WsmPrefixes *prefixes);

/* Once it is sorted: as they are in a file, 8 bytes each.  A new array. */
GByteArray *wsm_prefixes_encode(const WsmPrefixes *prefixes);

/*
 * The content of a file of kind WSM_SCAN_FILE_DIGEST, which must be sorted.
 * NULL, and @errp.
 */
WsmPrefixes *wsm_prefixes_decode(const uint8_t *buf, size_t size, Error **errp);

/* The same of a regular file.  It takes time.  NULL, and @errp. */
WsmPrefixes *wsm_prefixes_read(const char *file, Error **errp);

/* Once it is sorted: take @prefix out.  False: it is not there any more. */
bool wsm_prefixes_take(WsmPrefixes *prefixes, uint64_t prefix);

#endif
