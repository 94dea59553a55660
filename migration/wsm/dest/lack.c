/*
 * Whole-system migration: the destination says what it lacks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/dest/lack.h"
#include "migration/wsm/wire/runs.h"

/* Blocks in one message; at worst a byte for each */
#define WSM_LACK_BLOCKS         (512 * KiB)

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

static int coroutine_fn wsm_dest_disk_say_lack(WsmDestDisk *disk,
                                               WsmDestConn *conn)
{
    int64_t step = WSM_LACK_BLOCKS * (int64_t)disk->all->start->granularity;
    int ret = 0;

    for (int64_t offset = 0; offset < disk->size && ret == 0; offset += step) {
        g_autoptr(GByteArray) runs = NULL;
        WsmMsg msg = {
            .type = WSM_MSG_LACK,
            .disk = disk->index,
            .epoch = 1,
            .offset = offset,
            .bytes = MIN(step, disk->size - offset),
        };

        runs = wsm_dest_lacking(disk, msg.offset, msg.bytes);
        msg.length = runs->len;
        ret = wsm_dest_conn_send(conn, &msg, runs->data);
    }
    return ret;
}

int coroutine_fn wsm_dest_say_lack(WsmDestDisks *disks, WsmDestConn *conn)
{
    int ret = 0;

    for (unsigned i = 0; i < disks->n && ret == 0; i++) {
        ret = wsm_dest_disk_say_lack(&disks->disk[i], conn);
    }
    return ret;
}
