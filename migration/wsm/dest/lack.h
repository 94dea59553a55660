/*
 * Whole-system migration: the destination says what it lacks
 *
 * A source that comes back in post-copy may not know: it is another process
 * that serves the killed source's images, or we are another QEMU than the one
 * that acknowledged blocks (dest/rejoin.h).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_LACK_H
#define MIGRATION_WSM_DEST_LACK_H

#include "migration/wsm/dest/conn.h"
#include "migration/wsm/dest/disk.h"

/*
 * Say it of all disks on @conn, channel 0, of a source that has this feature.
 * Of blocks that come meanwhile it may be said that they are missing.  In the
 * loop; 0 or -errno.
 */
int coroutine_fn wsm_dest_say_lack(WsmDestDisks *disks, WsmDestConn *conn);

#endif
