/*
 * Whole-system migration: is disk data made smaller before it is sent?
 *
 * Only while the link is what the channel waits for: data that goes out faster
 * than the processors can pack it is sent as it is, see memory/pace.h.  Nor is
 * what does not become smaller: the more often in a row, the longer nothing is
 * tried.
 *
 * Pure; one for each channel, in the loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_PACK_H
#define MIGRATION_WSM_SOURCE_PACK_H

#include "qemu/units.h"
#include "migration/wsm/memory/pace.h"

#define WSM_PACK_LEAST          (16 * KiB)      /* bytes; not less */
#define WSM_PACK_MAX_SKIP       7               /* requests */

typedef struct WsmSourcePack {
    WsmPace pace;
    unsigned waiting;           /* senders that wait: for the link, or work */
    int64_t waiting_since;      /* ns; until then it is in @waited */
    int64_t waited;             /* ns, since @last */
    int64_t last;               /* ns, when a request was done; 0: none was */
    unsigned skip, skips;       /* requests: still to come, and the last time */
} WsmSourcePack;

/* A sender begins to wait for something else than the processor, and ends */
void wsm_source_pack_waits(WsmSourcePack *p, int64_t now);
void wsm_source_pack_goes_on(WsmSourcePack *p, int64_t now);

/* Shall a request of so many bytes be packed? */
bool wsm_source_pack_wants(WsmSourcePack *p, uint64_t bytes);

/* It was tried, and did it become smaller? */
void wsm_source_pack_tried(WsmSourcePack *p, bool smaller);

/*
 * A request of @bytes is out, with @sent bytes; of all that went out, the
 * kernel still has @queued.
 */
void wsm_source_pack_done(WsmSourcePack *p, int64_t now, uint64_t bytes,
                          uint64_t sent, uint64_t queued);

#endif
