/*
 * Whole-system migration: memory by reference, at the source
 *
 * The disks go first, and their blocks are noted as they go.  Then each channel
 * of multifd asks, page by page, for a block that has the same content: one
 * that the destination has acknowledged and that has not been written since.
 * If the destination does not find it as it was said, it says NACK, and the
 * page counts as written: so it is sent again in the next round.
 *
 * It has a count of references of its own, as channels of multifd may outlive
 * the source's end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_MEMORY_H
#define MIGRATION_WSM_SOURCE_MEMORY_H

#include "migration/wsm/memory/payload.h"
#include "migration/wsm/memory/templates.h"
#include "migration/wsm/source/work.h"

typedef struct WsmSourceMemory WsmSourceMemory;

/*
 * For references of the set @kinds, bits by WsmMemoryKind.  None is made before
 * wsm_source_memory_start() and SALT.
 */
WsmSourceMemory *wsm_source_memory_new(unsigned kinds);
WsmSourceMemory *wsm_source_memory_ref(WsmSourceMemory *m);
void wsm_source_memory_unref(WsmSourceMemory *m);

/*
 * From now on it looks at what is dirty of the disks of @work.  Their tracking
 * ends after the stop, from which on it finds nothing.  Main thread.
 */
void wsm_source_memory_start(WsmSourceMemory *m, WsmWork *work);
void wsm_source_memory_stop(WsmSourceMemory *m);

/* The sets of templates that this side has.  Main thread, before the start. */
void wsm_source_memory_set_templates(WsmSourceMemory *m, WsmTemplates *own);

/*
 * In the loop
 */

/* Channel 0 is up, and @zstd is in use; or it is down, and no NACK can come */
void wsm_source_memory_up(WsmSourceMemory *m, bool zstd);
void wsm_source_memory_down(WsmSourceMemory *m);

/* SALT has come; it has WSM_SALT_SIZE bytes */
void wsm_source_memory_salt(WsmSourceMemory *m, const uint8_t *salt);

/* The payload of SETS.  False, and @errp. */
bool wsm_source_memory_sets(WsmSourceMemory *m, const uint8_t *payload,
                            size_t length, Error **errp);

/* DIGESTS has come, with this payload.  False, and @errp. */
bool wsm_source_memory_digests(WsmSourceMemory *m, const WsmMsg *msg,
                               const uint8_t *payload, Error **errp);

/* The range has this content, or zeroes if @buf is NULL */
void wsm_source_memory_note(WsmSourceMemory *m, unsigned disk, int64_t offset,
                            int64_t bytes, const void *buf);

/* The pages of a NACK are to be sent again.  False, and @errp. */
bool wsm_source_memory_nack(WsmSourceMemory *m, const WsmMsg *msg,
                            Error **errp);

/* DONE: how many references the destination has dealt with, or missed */
void wsm_source_memory_done(WsmSourceMemory *m, const WsmMsg *msg);

/* STOP: no more references of this kind.  Says so to the user, once. */
void wsm_source_memory_end(WsmSourceMemory *m, WsmMemoryKind kind,
                           WsmMemoryWhy why);

/* The memory of a WANT; the guest is stopped.  NULL, and @errp. */
const void *wsm_source_memory_want(WsmSourceMemory *m, const WsmMsg *msg,
                                   Error **errp);

/* May there be references of this kind?  Any thread. */
bool wsm_source_memory_uses(WsmSourceMemory *m, WsmMemoryKind kind);

/*
 * Channels of multifd
 */

/* Is the other side able to read what zstd has packed? */
bool wsm_source_memory_has_zstd(WsmSourceMemory *m);

/* The number of a block of memory, or WSM_MAX_RAM_BLOCKS: there are too many */
unsigned wsm_source_memory_number(WsmSourceMemory *m, RAMBlock *block);

/*
 * Is the content of @page at the destination?  It is a copy of what @block has
 * at @offset, and must not change meanwhile.  True, and @ref says where.
 */
bool wsm_source_memory_find(WsmSourceMemory *m, const RAMBlock *block,
                            uint64_t offset, const void *page, WsmRef *ref);

/*
 * @nrefs references were sent, and @pages with their content, which took
 * @packed bytes
 */
void wsm_source_memory_sent(WsmSourceMemory *m, const WsmRef *refs,
                            unsigned nrefs, unsigned pages, uint64_t packed);

/*
 * Of the last pages that were sent with their content: how many bytes, and what
 * these took.  Any thread.
 */
void wsm_source_memory_packing(WsmSourceMemory *m, uint64_t *content,
                               uint64_t *packed);

/*
 * Has the destination so many references before it that it would hold up a
 * guest that is stopped now?  Any thread.
 */
bool wsm_source_memory_is_behind(WsmSourceMemory *m);

/* For query-wsm.  Any thread. */
WsmMemoryInfo *wsm_source_memory_info(WsmSourceMemory *m);

#endif
