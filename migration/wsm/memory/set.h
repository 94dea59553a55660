/*
 * Whole-system migration: a set of templates
 *
 * Templates are pages that several guests have in memory.  A set of them never
 * changes.  Its ID is the hash of its list, which is the sorted hashes of its
 * pages: so who has a set of the same ID has the same pages in the same order.
 * docs/templates.md has its files byte by byte.
 *
 * A file is read with pread(), never mapped: one that becomes shorter is an
 * error where it is read, and nothing to the guest.  What a page has is not
 * checked here: who uses it knows its hash, or its tag.
 *
 * Pure.  Any thread, once it is open, after qcrypto_init().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_SET_H
#define MIGRATION_WSM_MEMORY_SET_H

#include "migration/wsm/wire/message.h"

#define WSM_SET_HEADER_SIZE     4096
#define WSM_PREFIX_SIZE         8       /* bytes */

/* What a file of a set has behind its header */
typedef enum WsmSetKind {
    WSM_SET_PAGES = 1,          /* list and pages */
    WSM_SET_LIST,               /* the list; the pages are elsewhere */
    WSM_SET_INDEX,              /* of each hash the first 8 bytes */
    WSM_SET__MAX
} WsmSetKind;

typedef struct WsmSetHeader {
    WsmSetKind kind;
    uint64_t count;             /* of pages, 1 to WSM_SET_MAX_PAGES */
    uint8_t id[WSM_HASH_SIZE];
} WsmSetHeader;

/*
 * The header of a file of @size bytes.  @buf has WSM_SET_HEADER_SIZE of them.
 * False, and @errp.
 */
bool wsm_set_decode(const uint8_t *buf, uint64_t size, WsmSetHeader *header,
                    Error **errp);

/* Where the page of this number is in a file of kind WSM_SET_PAGES */
uint64_t wsm_set_page_offset(const WsmSetHeader *header, uint64_t number);

/* What the list has of a page, from its hash: numbers that can be compared */
uint64_t wsm_set_prefix(const uint8_t *hash);

typedef struct WsmSet WsmSet;

/*
 * Read all of @file but the pages, and check it.  Takes 8 bytes of memory for
 * each page, and time: not in a thread that others wait for.  NULL, and @errp.
 */
WsmSet *wsm_set_open(const char *file, Error **errp);
void wsm_set_free(WsmSet *set);

/* Both as long as @set is there */
const WsmSetHeader *wsm_set_header(const WsmSet *set);
const char *wsm_set_file(const WsmSet *set);

/* Can its pages be got: from the file, or from a ring, if there is @ring? */
bool wsm_set_is_servable(const WsmSet *set, bool ring);

/* Is there a page whose hash begins like that?  Then @number is its number. */
bool wsm_set_find(const WsmSet *set, uint64_t prefix, uint64_t *number);

/*
 * From a file that has the list, or has the pages: the hash of a page, or the
 * content of @n pages from @number on, which must be in the set.  -errno;
 * -ENODATA if the file is shorter than it was, -ENOTSUP if it never had them.
 */
int wsm_set_read_hash(const WsmSet *set, uint64_t number, uint8_t *hash);
int wsm_set_read_pages(const WsmSet *set, uint64_t number, uint64_t n,
                       void *pages);

#endif
