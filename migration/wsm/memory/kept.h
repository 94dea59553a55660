/*
 * Whole-system migration: the file that has a guest's memory of some time ago
 *
 * When a guest has left, its memory is kept in a file: each page at its place,
 * and of each that is not full of zeroes the print.  When it comes back, most
 * of it is found there.  What is found is checked elsewhere, by its tag; so a
 * file that is damaged, or of another guest, can do no harm.  But it is not
 * trusted to be what it says: each size is checked.
 *
 * A header, a table of blocks of memory, the prints, the pages.  Pages that are
 * full of zeroes are not written, so the file is sparse.  docs/protocol.md has
 * it byte by byte.
 *
 * Pure.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_KEPT_H
#define MIGRATION_WSM_MEMORY_KEPT_H

#include "migration/wsm/memory/tag.h"

#define WSM_KEPT_HEADER_SIZE    128     /* bytes */
#define WSM_KEPT_ENTRY_SIZE     264     /* of a block in the table */
#define WSM_KEPT_MAX_PAGES      (1ULL << 40)    /* of a block */

typedef struct WsmKeptBlock {
    char name[WSM_MAX_RAM_NAME + 1];
    uint64_t pages;
    uint64_t first;             /* number of its first page in the file */
} WsmKeptBlock;

typedef struct WsmKept {
    QemuUUID session;           /* of the migration in which the guest left */
    WsmSeed seed;               /* of the prints */
    unsigned nblocks;
    WsmKeptBlock *block;        /* @nblocks elements, owned */
    uint64_t pages;             /* of all blocks */
} WsmKept;

/* "IMAGE.wsm-memory"; free with g_free() */
char *wsm_kept_path(const char *image);

/* There are no more than WSM_MAX_RAM_BLOCKS.  Encode gets @first and @pages. */
void wsm_kept_add(WsmKept *kept, const char *name, uint64_t pages);
void wsm_kept_destroy(WsmKept *kept);

/* The block of this name, or NULL */
const WsmKeptBlock *wsm_kept_find(const WsmKept *kept, const char *name);

/* Header and table, as a new array */
GByteArray *wsm_kept_encode(const WsmKept *kept);

/*
 * The header: sets all but @block and @pages.  The table, of wsm_kept_table()
 * bytes, which follows: sets these.  @size is that of the file.  False, and
 * @errp, and nothing to destroy.
 */
bool wsm_kept_decode(const uint8_t *buf, WsmKept *kept, Error **errp);
size_t wsm_kept_table(const WsmKept *kept);
bool wsm_kept_decode_table(const uint8_t *buf, uint64_t size, WsmKept *kept,
                           Error **errp);

/* Where the print of a page is in the file, and the page; and how long it is */
uint64_t wsm_kept_print_at(const WsmKept *kept, uint64_t page);
uint64_t wsm_kept_page_at(const WsmKept *kept, uint64_t page);
uint64_t wsm_kept_size(const WsmKept *kept);

/* Is it of a guest that knows this sync point (image/points.h)? */
bool wsm_kept_is_of(const WsmKept *kept, const QemuUUID *point);

#endif
