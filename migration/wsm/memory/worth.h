/*
 * Whole-system migration: is it worth while to refer to content of a kind?
 *
 * The destination sees what it gets out of it.  What is often not as it was
 * said, or takes longer to find than it would to come over the link, is better
 * sent.
 *
 * Pure; who has one sees to it that no two threads use it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_WORTH_H
#define MIGRATION_WSM_MEMORY_WORTH_H

#include "qapi/qapi-types-wsm.h"

/* The last references so many: of those before, half count */
#define WSM_WORTH_RECENT        1024
#define WSM_WORTH_MISSED        (WSM_WORTH_RECENT / 4)
#define WSM_WORTH_WRONG         64              /* in all */
#define WSM_WORTH_PACKED        4               /* times smaller, at most */
#define WSM_WORTH_RATE_NS       NANOSECONDS_PER_SECOND

typedef struct WsmWorth {
    unsigned refs, missed;      /* of the last ones */
    unsigned wrong;             /* in all */
    int64_t ns;                 /* that the last ones took */
} WsmWorth;

/*
 * It took @ns until what @refs references say was found, but for @missed of
 * them, of which @wrong had another content.  With its content a page takes
 * @page_ns on the link; 0: that is not known.  True, and @why: do not use this
 * kind any more.
 */
bool wsm_worth_ends(WsmWorth *w, unsigned refs, unsigned missed,
                    unsigned wrong, int64_t ns, int64_t page_ns,
                    WsmMemoryWhy *why);

/* What the link takes: the most that came within a second */
typedef struct WsmRate {
    int64_t since;              /* ns; 0: nothing has come yet */
    uint64_t bytes;             /* since then */
    uint64_t best;              /* bytes per second; 0: not known */
} WsmRate;

/* @bytes have come at @now, in ns */
void wsm_rate_add(WsmRate *r, int64_t now, uint64_t bytes);

/* How long @bytes take, in ns; 0: that is not known */
int64_t wsm_rate_ns(const WsmRate *r, uint64_t bytes);

/*
 * With how much memory left, in bytes, may the guest be stopped?  QEMU reckons
 * @qemu, by the bytes that it sends now.  Of memory that goes by reference
 * these are few, whatever the link could take, and a guest that is busy would
 * never be stopped.  The disks went at @speed, in bytes per second; @downtime
 * is in ms.  Nor counts QEMU that what is left will be packed: of late @content
 * bytes took @packed.
 *
 * Not before all memory was gone through once, in @rounds: what goes by
 * reference then must not wait until there are no references any more.
 */
uint64_t wsm_worth_threshold(uint64_t qemu, uint64_t speed, uint64_t downtime,
                             uint64_t rounds, uint64_t content,
                             uint64_t packed);

#endif
