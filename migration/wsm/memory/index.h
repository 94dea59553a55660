/*
 * Whole-system migration: which block of the disks has the content of a page
 *
 * The source notes the print of each block that it sends or compares, and finds
 * by the print of a page where that is on a disk.  What it finds is a guess:
 * the destination checks the tag.  So what is forgotten, or found wrongly,
 * costs a page that is sent after all.
 *
 * Any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_INDEX_H
#define MIGRATION_WSM_MEMORY_INDEX_H

typedef struct WsmIndex WsmIndex;

/* It takes at most @max_bytes of memory, and notes nothing new beyond that */
WsmIndex *wsm_index_new(size_t max_bytes);
void wsm_index_free(WsmIndex *index);

/*
 * @block of @disk (below 256), a number, has this print now, and none that it
 * had before.  Of blocks with the same print the last is found.
 */
void wsm_index_put(WsmIndex *index, unsigned disk, uint64_t block,
                   uint64_t print);

/* @blocks of @disk from @block on have another content, which is not known */
void wsm_index_drop(WsmIndex *index, unsigned disk, uint64_t block,
                    uint64_t blocks);

/* Is there a block with this print?  Then @disk and @block are set. */
bool wsm_index_find(WsmIndex *index, uint64_t print, unsigned *disk,
                    uint64_t *block);

/* Bytes of memory that it takes now */
size_t wsm_index_size(WsmIndex *index);

#endif
