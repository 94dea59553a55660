/*
 * Whole-system migration: blocks of the guest's memory
 *
 * The little that is needed of QEMU's RAMBlock, which only files that are
 * compiled for one target can look into.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_RAM_H
#define MIGRATION_WSM_MEMORY_RAM_H

#include "qemu/typedefs.h"

/* Bytes of it that the guest uses.  Any thread. */
uint64_t wsm_ram_size(const RAMBlock *block);

/* The @bytes of memory from @offset on, which are within it.  Any thread. */
void *wsm_ram_at(RAMBlock *block, uint64_t offset);

/* Memory came to this page, whose content is there.  Any thread. */
void wsm_ram_received(RAMBlock *block, uint64_t offset);

/* What QEMU calls it, on both sides.  Any thread. */
const char *wsm_ram_name(RAMBlock *block);

/* The block of this name, or NULL.  Any thread. */
RAMBlock *wsm_ram_find(const char *name);

/* Call @fn for each block that migration sends.  Any thread. */
typedef void WsmRamFn(void *opaque, const char *name, uint64_t size);
void wsm_ram_each(WsmRamFn *fn, void *opaque);

/*
 * Copy a part of a block.  False: there is none of this name, or no such part.
 * Any thread, also while it may go.
 */
bool wsm_ram_copy(const char *name, uint64_t offset, uint64_t bytes,
                  void *out);

/*
 * The guest might have written to these pages: migration sends them again, in
 * its next round.  Any thread.
 */
void wsm_ram_mark_dirty(RAMBlock *block, uint64_t offset, uint64_t bytes);

#endif
