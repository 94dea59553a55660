/*
 * Whole-system migration: the destination says what it lacks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/dest/lack.h"
#include "migration/wsm/dest/say-runs.h"
#include "migration/wsm/wire/runs.h"

/* What is missing of a range; nothing when the filters are gone */
static GByteArray *wsm_dest_lacking(WsmDestDisk *disk, int64_t offset,
                                    int64_t bytes)
{
    uint32_t granularity = disk->all->start->granularity;
    int64_t at = offset, end = offset + bytes, count;
    GByteArray *runs = g_byte_array_new();
    WsmRunsEncoder e;

    wsm_runs_encode_init(&e, runs);
    while (wsm_life_has_filters(disk->all->life) &&
           bdrv_pull_next_missing(disk->filter, at, end - at, &at, &count)) {
        wsm_runs_encode(&e, (at - offset) / granularity,
                        DIV_ROUND_UP(count, granularity));
        at += count;
    }
    return runs;
}

int coroutine_fn wsm_dest_say_lack(WsmDestDisks *disks, WsmDestConn *conn)
{
    int ret = 0;

    for (unsigned i = 0; i < disks->n && ret == 0; i++) {
        ret = wsm_dest_say_runs(&disks->disk[i], conn, WSM_MSG_LACK, 1,
                                wsm_dest_lacking);
    }
    return ret;
}
