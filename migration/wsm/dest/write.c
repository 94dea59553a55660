/*
 * Whole-system migration: what comes is written, and answered
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/memalign.h"
#include "migration/wsm/core/hash.h"
#include "migration/wsm/dest/write.h"
#include "migration/wsm/link/frame.h"
#include "migration/wsm/trace.h"

typedef struct WsmDestWrite {
    WsmDestWriter *writer;
    WsmDestConn *conn;          /* held */
    WsmMsg msg;
    void *buf;                  /* NULL: zeroes */
} WsmDestWrite;

void wsm_dest_writer_init(WsmDestWriter *writer, WsmLoop *loop,
                          WsmDestDisks *disks)
{
    *writer = (WsmDestWriter) {
        .loop = loop,
        .disks = disks,
        .room.channels = disks->start->channels,
    };
    qemu_co_queue_init(&writer->more_room);
    wsm_buffers_init(&writer->buffers);
}

void wsm_dest_writer_destroy(WsmDestWriter *writer)
{
    assert(!writer->room.writes);
    wsm_buffers_destroy(&writer->buffers);
}

/* Returns 0 or -errno; -ECANCELED: nobody is to be told */
static int coroutine_fn wsm_dest_write(WsmDestDisks *disks, const WsmMsg *msg,
                                       const void *buf)
{
    WsmDestDisk *disk = &disks->disk[msg->disk];
    int64_t n = 0;
    int ret;

    if (!wsm_life_has_filters(disks->life)) {
        return wsm_life_is_over(disks->life) ? -ECANCELED : 0;
    }
    disks->wrote = true;
    if (msg->epoch) {
        ret = bdrv_pull_store(disk->filter, msg->offset, msg->bytes, buf, NULL);
    } else {
        ret = bdrv_pull_write(disk->filter, msg->offset, msg->bytes, buf, &n);
        stat64_add(&disk->skipped, n);
    }
    if (ret == 0) {
        stat64_add(buf ? &disk->received : &disk->zero, msg->bytes);
        stat64_add(&disk->packed, msg->length);
    } else {
        trace_wsm_dest_write_fail(disk->name, msg->offset, msg->bytes, ret);
    }
    /* The freeze came in between: it is dropped, and in the list of missing */
    return ret == -EPERM && !msg->epoch ? -ECANCELED : ret;
}

/*
 * Delta by content: set the type and length of @answer; *@hashes is NULL or
 * must be freed.  Returns 0 or -errno as wsm_dest_write().
 */
static int coroutine_fn wsm_dest_hash(WsmDestDisks *disks, const WsmMsg *msg,
                                      WsmMsg *answer, uint8_t **hashes)
{
    WsmDestDisk *disk = &disks->disk[msg->disk];
    uint32_t granularity = disks->start->granularity;
    size_t size = DIV_ROUND_UP(msg->bytes, granularity) * WSM_HASH_SIZE;
    void *buf;
    bool zero;
    int ret;

    if (!wsm_life_has_filters(disks->life)) {
        return -ECANCELED;
    }
    answer->type = WSM_MSG_HASHES;
    buf = qemu_memalign(qemu_real_host_page_size(), msg->bytes);
    ret = bdrv_pull_read(disk->filter, msg->offset, msg->bytes, buf, &zero);
    if (ret >= 0 && !zero) {
        *hashes = g_malloc(size);
        wsm_co_hash_blocks(buf, msg->bytes, granularity, *hashes);
        answer->length = size;
    }
    qemu_vfree(buf);
    if (ret >= 0) {
        stat64_add(&disk->compared, msg->bytes);
    }
    return MIN(ret, 0);
}

static void coroutine_fn wsm_dest_answer(WsmDestConn *conn,
                                         const WsmMsg *answer,
                                         const void *payload)
{
    conn->load.answers++;
    wsm_channel_send(&conn->c, answer, payload);
    conn->load.answers--;
}

static void coroutine_fn wsm_dest_write_co(void *opaque)
{
    g_autofree WsmDestWrite *wr = opaque;
    WsmDestWriter *writer = wr->writer;
    WsmMsg answer = wr->msg;
    g_autofree uint8_t *hashes = NULL;
    const void *payload = NULL;
    int ret;

    answer.type = WSM_MSG_ACK;
    answer.length = 0;
    if (wr->msg.type == WSM_MSG_HASH) {
        ret = wsm_dest_hash(writer->disks, &wr->msg, &answer, &hashes);
        payload = hashes;
    } else {
        ret = wsm_dest_write(writer->disks, &wr->msg, wr->buf);
        wsm_buffers_put(&writer->buffers, wr->buf, wr->msg.bytes);
    }
    if (ret < 0) {
        answer.type = WSM_MSG_FAIL;
        payload = g_strerror(-ret);
        answer.length = strlen(payload);
    }
    if (ret != -ECANCELED) {
        wsm_dest_answer(wr->conn, &answer, payload);
    }

    wsm_room_give(&writer->room, &wr->conn->load, &wr->msg);
    qemu_co_queue_restart_all(&writer->more_room);
    wsm_dest_conn_release(wr->conn);
}

/* The content of a DATA, as it was before it was packed.  False, and @errp. */
static bool coroutine_fn wsm_dest_recv_data(WsmDestWriter *writer,
                                            WsmDestConn *conn,
                                            const WsmMsg *msg, void *buf,
                                            Error **errp)
{
    void *packed;
    bool ok;

    if (msg->length == msg->bytes) {
        return wsm_channel_recv_payload(&conn->c, buf, msg->length, errp);
    }
    packed = wsm_buffers_get(&writer->buffers, msg->length);
    ok = wsm_channel_recv_payload(&conn->c, packed, msg->length, errp) &&
         wsm_co_frame_unpack(packed, msg->length, buf, msg->bytes, errp);
    wsm_buffers_put(&writer->buffers, packed, msg->length);
    return ok;
}

bool coroutine_fn wsm_dest_on_block(WsmDestWriter *writer, WsmDestConn *conn,
                                    const WsmMsg *msg, Error **errp)
{
    WsmDestWrite *wr;
    void *buf = NULL;

    while (!wsm_room_for(&writer->room, &conn->load, conn->c.id, msg)) {
        qemu_co_queue_wait(&writer->more_room, NULL);
    }
    if (msg->type == WSM_MSG_DATA) {
        buf = wsm_buffers_get(&writer->buffers, msg->bytes);
        if (!wsm_dest_recv_data(writer, conn, msg, buf, errp)) {
            wsm_buffers_put(&writer->buffers, buf, msg->bytes);
            return false;
        }
    }

    wr = g_new(WsmDestWrite, 1);
    *wr = (WsmDestWrite) {
        .writer = writer, .conn = conn, .msg = *msg, .buf = buf,
    };
    wsm_room_take(&writer->room, &conn->load, msg);
    wsm_dest_conn_hold(conn);
    wsm_loop_enter(writer->loop, wsm_dest_write_co, wr);
    return true;
}
