/*
 * Whole-system migration: the destination says which blocks of a disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_SAY_RUNS_H
#define MIGRATION_WSM_DEST_SAY_RUNS_H

#include "migration/wsm/dest/conn.h"
#include "migration/wsm/dest/disk.h"

/* Those of a range, which begins at a block: new runs (wire/runs.h) */
typedef GByteArray *WsmDestRunsFn(WsmDestDisk *disk, int64_t offset,
                                  int64_t bytes);

/*
 * Say all of @disk on @conn, in messages of this type and epoch, one range
 * after the other, with what @fn has of each.  In the loop; 0 or -errno.
 */
int coroutine_fn wsm_dest_say_runs(WsmDestDisk *disk, WsmDestConn *conn,
                                   WsmMsgType type, uint32_t epoch,
                                   WsmDestRunsFn *fn);

#endif
