/*
 * Whole-system migration: memory by reference, at the destination
 *
 * A channel of multifd gets references, and has the blocks read that they name:
 * below the filters, in the loop, for which it waits a second at most.  A page
 * is written to memory only if it has the tag that the reference says.  If not,
 * it is a hole (memory/holes.h), and NACK asks for it.  What are still holes
 * when all else was loaded, is asked for with WANT, and READY waits for it.
 *
 * It has a count of references of its own, as channels of multifd may outlive
 * the destination's end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_MEMORY_H
#define MIGRATION_WSM_DEST_MEMORY_H

#include "exec/cpu-common.h"
#include "migration/wsm/dest/disk.h"
#include "migration/wsm/dest/kept.h"
#include "migration/wsm/dest/ring-spec.h"
#include "migration/wsm/memory/payload.h"
#include "migration/wsm/memory/templates.h"

typedef struct WsmDestMemory WsmDestMemory;

/*
 * All must stay until the stop.  @filled of @opaque: the last hole that was
 * wanted is gone; in the loop.  Main thread.
 */
WsmDestMemory *wsm_dest_memory_new(WsmLoop *loop, WsmDestDisks *disks,
                                   WsmDestControl *control,
                                   void (*filled)(void *opaque), void *opaque);

/*
 * The sets of templates that this side has, and the ring that keeps pages of
 * them, or NULL.  Main thread, once, after the loop was made and before
 * channels are let in.
 */
void wsm_dest_memory_set_templates(WsmDestMemory *m, WsmTemplates *own,
                                   WsmRingSpec *ring);

WsmDestMemory *wsm_dest_memory_ref(WsmDestMemory *m);
void wsm_dest_memory_unref(WsmDestMemory *m);

/*
 * There is older memory of the guest, which must stay as long as the loop.
 * Main thread, before channels are let in.
 */
void wsm_dest_memory_set_kept(WsmDestMemory *m, WsmDestKept *kept);

/* Nothing is read any more, or said.  Main thread, before the loop ends. */
void wsm_dest_memory_stop(WsmDestMemory *m);

/*
 * Channels of multifd.  Offsets are of pages in the block of memory @ram.
 */

/* The references of a packet, decoded.  False, and @errp. */
bool wsm_dest_memory_refs(WsmDestMemory *m, const WsmPacket *packet,
                          const uint8_t *buf, WsmRef *refs, Error **errp);

/*
 * The source calls @ram by the number of @packet, whose references @refs are
 * for the pages at @offset: fill these, or make holes of them.  Waits.  False,
 * and @errp.
 */
bool wsm_dest_memory_resolve(WsmDestMemory *m, const WsmPacket *packet,
                             const WsmRef *refs, RAMBlock *ram,
                             const ram_addr_t *offset, Error **errp);

/* These pages have come with their content, or are zeroes */
void wsm_dest_memory_came(WsmDestMemory *m, RAMBlock *ram,
                          const ram_addr_t *offset, unsigned pages);

/*
 * So many bytes have come over the link for a disk: that tells what it takes.
 * If a kind is missed too often, or takes longer than the link would, STOP is
 * said.  Any thread.
 */
void wsm_dest_memory_link(WsmDestMemory *m, uint64_t bytes);

/*
 * What came with its content, in pages, and the bytes that it took.  If disks
 * took less than a second it is this that tells what the link takes.
 */
void wsm_dest_memory_count(WsmDestMemory *m, unsigned pages, uint64_t packed);

/*
 * All else is loaded.  Are there holes?  Then WANT is said for them, and
 * @filled is called when they are gone.  Main thread, load coroutine.
 */
bool wsm_dest_memory_want(WsmDestMemory *m);

/* In the loop: channel 0 is up.  Say SALT, and for all holes what was said. */
int coroutine_fn wsm_dest_memory_up(WsmDestMemory *m, WsmDestConn *conn);

/* PAGE has come.  False, and @errp. */
bool coroutine_fn wsm_dest_on_page(WsmDestMemory *m, WsmDestConn *conn,
                                   const WsmMsg *msg, Error **errp);

/* For query-wsm.  Any thread. */
WsmMemoryInfo *wsm_dest_memory_info(WsmDestMemory *m);

#endif
