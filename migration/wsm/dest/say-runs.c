/*
 * Whole-system migration: the destination says which blocks of a disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/dest/say-runs.h"

/* Blocks in one message; at worst a byte for each */
#define WSM_SAY_BLOCKS          (512 * KiB)

int coroutine_fn wsm_dest_say_runs(WsmDestDisk *disk, WsmDestConn *conn,
                                   WsmMsgType type, uint32_t epoch,
                                   WsmDestRunsFn *fn)
{
    int64_t step = WSM_SAY_BLOCKS * (int64_t)disk->all->start->granularity;
    int ret = 0;

    for (int64_t offset = 0; offset < disk->size && ret == 0; offset += step) {
        g_autoptr(GByteArray) runs = NULL;
        WsmMsg msg = {
            .type = type,
            .disk = disk->index,
            .epoch = epoch,
            .offset = offset,
            .bytes = MIN(step, disk->size - offset),
        };

        runs = fn(disk, msg.offset, msg.bytes);
        msg.length = runs->len;
        ret = wsm_dest_conn_send(conn, &msg, runs->data);
    }
    return ret;
}
