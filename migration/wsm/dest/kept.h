/*
 * Whole-system migration: the guest's older memory, at the destination
 *
 * This host had the guest before, and kept its memory in a file when it left
 * (source/keep.h).  The source is told the prints of its pages, as DIGESTS, and
 * may refer to them.  The file is read page by page, with pread(): it is never
 * mapped, and nothing of it is in the guest's memory before its tag was
 * checked.  So whatever happens to the file costs pages that are sent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_KEPT_H
#define MIGRATION_WSM_DEST_KEPT_H

#include "migration/wsm/dest/conn.h"
#include "migration/wsm/dest/fetch.h"
#include "migration/wsm/dest/life.h"
#include "migration/wsm/memory/kept.h"
#include "migration/wsm/wire/start.h"

typedef struct WsmDestKept WsmDestKept;

/*
 * Open @file.  NULL if there is none; with @errp if it cannot be used, or is
 * not that of the guest of @start.  The other two must outlive it.  Main
 * thread.
 */
WsmDestKept *wsm_dest_kept_open(const char *file, const WsmStart *start,
                                WsmLoop *loop, WsmDestLife *life,
                                Error **errp);

/*
 * Close it, and @remove it: it is out of date.  In a thread of its own, as that
 * may take its time.  The loop has ended.  Main thread.
 */
void wsm_dest_kept_close(WsmDestKept *kept, bool remove);

/* Where the page at @offset of the block of memory @name is.  Any thread. */
WsmFetchPlace wsm_dest_kept_place(WsmDestKept *kept, const char *name,
                                  uint64_t offset);

/*
 * Begin to say DIGESTS on @conn, channel 0, slowly: no more than is needed for
 * memory that goes at 2 GiB/s.  In the loop.
 */
void wsm_dest_kept_say(WsmDestKept *kept, WsmDestConn *conn);

#endif
