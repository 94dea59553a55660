/*
 * Unit tests of what the destination does with its disks: migration/wsm/dest/
 * basis.c, data.c, disk.c, points.c and write.c
 *
 * A disk in memory with a guest above it; the source is this thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "crypto/init.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "pull-test.h"
#include "wsm-peer.h"
#include "migration/wsm/core/hash.h"
#include "migration/wsm/dest/basis.h"
#include "migration/wsm/dest/data.h"
#include "migration/wsm/dest/points.h"
#include "migration/wsm/dest/write.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/wire/payload.h"
#include "migration/wsm/wire/runs.h"

#define CHANNELS        2
#define BLOCKS          64
#define SIZE            (BLOCKS * BLOCK)
#define SOON_S          20              /* on any machine */

static WsmStart start = {
    .version = WSM_PROTOCOL_VERSION, .channels = CHANNELS,
    .granularity = BLOCK, .ndisks = 1,
};
static WsmPointDesc theirs;             /* the source's only sync point */
static WsmDiskDesc desc = {
    .name = (char *)"disk", .size = SIZE, .point = &theirs,
};

static PullTest t;
static WsmImage image;
static WsmOptionsStore options;
static WsmDestLife life;
static WsmLoop loop;
static WsmDestConns conns;
static WsmDestControl control;
static WsmDestDisks disks;
static WsmDestWriter writer;
static WsmDestDisk *disk;
static unsigned completed;              /* atomic */

/* The real one knows all devices */
char *wsm_disk_shown_address(const char *address)
{
    return g_strdup(address);
}

static bool coroutine_fn up(void *opaque, WsmDestConn *conn)
{
    if (conn->c.id == 0) {
        g_assert_cmpint(wsm_dest_basis_say(&disks, conn), ==, 0);
        wsm_dest_control_up(&control);
    }
    return true;
}

static bool coroutine_fn message(void *opaque, WsmDestConn *conn,
                                 const WsmMsg *msg, Error **errp)
{
    return msg->type == WSM_MSG_POINT
           ? wsm_dest_on_point(&disks, conn, msg, errp)
           : wsm_dest_on_block(&writer, conn, msg, errp);
}

static void failed(void *opaque, Error *err)
{
    error_free(err);
}

static const WsmDestConnOps ops = {
    .up = up, .message = message, .failed = failed,
};

static void complete(void *opaque)
{
    qatomic_inc(&completed);
}

/* A disk full of OLD, unless @blank, and all that is above it */
static void set_up(WsmBasisKind wish, unsigned npoints, bool blank)
{
    const WsmDisk ours = {
        .name = (char *)"disk", .path = (char *)"/disk",
        .address = (char *)"",
    };

    pull_test_init_disk(&t, SIZE, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                        BLK_PERM_ALL & ~BLK_PERM_WRITE,
                        BDRV_O_RDWR | BDRV_O_UNMAP);
    if (blank) {
        memset(t.mem->data, 0, SIZE);
    }
    desc.wish = wish;
    desc.npoints = npoints;
    start.disk = &desc;
    completed = 0;
    wsm_options_init(&options);
    wsm_life_init(&life);
    wsm_loop_init(&loop, "test", &error_abort);
    wsm_dest_conns_init(&conns, &loop, &start, &ops, NULL);
    wsm_dest_control_init(&control, &loop, &conns);
    wsm_dest_disks_init(&disks, &options, NULL, &start, NULL);
    wsm_dest_disks_connect(&disks, &life, &control, complete, NULL);
    wsm_dest_writer_init(&writer, &loop, &disks);
    wsm_dest_control_start(&control);

    disk = wsm_dest_disks_add(&disks, &ours);
    disk->image = &image;
    disk->bs = t.bs;
    g_assert_true(wsm_dest_basis_choose(disk, &error_abort));
    g_assert_true(wsm_dest_points_expect(disk, &error_abort));
    g_assert_true(wsm_dest_disk_open(disk, t.bs, &error_abort));
    wsm_life_enter(&life, WSM_LIFE_OPEN);
}

static void barrier_bh(void *opaque)
{
    if (opaque) {
        wsm_dest_conns_shutdown(&conns);
    }
}

/* Nothing is missing: the filter goes */
static void drop(void)
{
    wsm_life_enter(&life, WSM_LIFE_SECURING);
    wsm_life_enter(&life, WSM_LIFE_DROPPING);
    aio_wait_bh_oneshot(loop.ctx, barrier_bh, NULL);
    wsm_dest_points_drop_filter(disk, true);
    wsm_life_enter(&life, WSM_LIFE_DROPPED);
    wsm_life_enter(&life, WSM_LIFE_SECURED);
}

static void tear_down(void)
{
    wsm_life_enter(&life, WSM_LIFE_STOPPING);
    wsm_loop_quit(&loop);
    aio_wait_bh_oneshot(loop.ctx, barrier_bh, &loop);
    if (disk->filter) {
        wsm_dest_points_drop_filter(disk, false);
    }
    wsm_loop_stop(&loop);
    wsm_loop_destroy(&loop);
    wsm_dest_points_release(disk);
    wsm_dest_basis_release(disk);
    wsm_points_clear(t.bs);
    wsm_dest_writer_destroy(&writer);
    wsm_dest_disks_destroy(&disks);
    wsm_dest_control_destroy(&control);
    wsm_dest_conns_destroy(&conns);
    wsm_life_destroy(&life);
    pull_test_cleanup(&t);
    wsm_options_destroy(&options);
}

/* @count blocks from @first on are missing; then it is the freeze */
static void freeze(uint64_t first, uint64_t count)
{
    g_autoptr(GByteArray) runs = g_byte_array_new();
    WsmRunsEncoder e;

    wsm_runs_encode_init(&e, runs);
    if (count) {
        wsm_runs_encode(&e, first, count);
    }
    g_assert_true(wsm_dest_disk_set_missing(disk, runs->data, runs->len,
                                            &error_abort));
    g_assert_true(wsm_dest_disks_seal(&disks, &error_abort));
}

/*
 * The source
 */

static WsmMsg block_msg(WsmMsgType type, uint32_t epoch, unsigned block)
{
    return (WsmMsg) {
        .type = type, .epoch = epoch, .offset = block * BLOCK, .bytes = BLOCK,
        .length = type == WSM_MSG_DATA ? BLOCK : 0,
    };
}

static void send_block(int fd, WsmMsgType type, uint32_t epoch, unsigned block)
{
    uint8_t data[BLOCK];
    WsmMsg msg = block_msg(type, epoch, block);

    memset(data, SOURCE, sizeof(data));
    peer_send(fd, &msg, data);
}

static WsmMsg expect(int fd, WsmMsgType type, unsigned block, void *payload)
{
    uint8_t none[WSM_MAX_TEXT];
    WsmMsg msg = peer_recv(fd, &conns, payload ?: none, WSM_MAX_TEXT);

    g_assert_cmpint(msg.type, ==, type);
    g_assert_cmpint(msg.offset, ==, block * BLOCK);
    return msg;
}

/* Channel 0 says first what the disk builds on */
static int open_urgent(WsmBasisKind kind)
{
    int fd = peer_open(&conns, 0);
    WsmMsg msg = peer_recv(fd, &conns, (uint8_t[WSM_MAX_RUNS]) {},
                           WSM_MAX_RUNS);

    g_assert_cmpint(msg.type, ==, WSM_MSG_BASIS);
    g_assert_cmpint(msg.offset, ==, kind);
    return fd;
}

static void check_block(unsigned block, uint8_t c)
{
    for (int i = 0; i < BLOCK; i++) {
        g_assert_cmphex(t.mem->data[block * BLOCK + i], ==, c);
    }
}

/*
 * Pre-copy
 */

static void test_write(void)
{
    int fd;

    set_up(WSM_BASIS_KIND_FULL, 0, false);
    close(open_urgent(WSM_BASIS_KIND_FULL));
    fd = peer_open(&conns, 1);
    g_assert_false(disks.wrote);
    send_block(fd, WSM_MSG_DATA, 0, 3);
    expect(fd, WSM_MSG_ACK, 3, NULL);
    check_block(3, SOURCE);
    check_block(4, OLD);
    send_block(fd, WSM_MSG_ZERO, 0, 4);
    expect(fd, WSM_MSG_ACK, 4, NULL);
    check_block(4, 0);
    g_assert_true(disks.wrote);
    g_assert_cmpint(stat64_get(&disk->received), ==, BLOCK);
    g_assert_cmpint(stat64_get(&disk->zero), ==, BLOCK);

    /* One that cannot be written is not acknowledged */
    t.mem->write_error = -ENOSPC;
    send_block(fd, WSM_MSG_DATA, 0, 5);
    expect(fd, WSM_MSG_FAIL, 5, NULL);
    send_block(fd, WSM_MSG_DATA, 0, 5);
    expect(fd, WSM_MSG_ACK, 5, NULL);
    close(fd);
    tear_down();
}

static void test_hash(void)
{
    uint8_t hash[WSM_MAX_TEXT], mine[WSM_HASH_SIZE];
    uint8_t old[BLOCK];
    WsmMsg msg;
    int fd;

    set_up(WSM_BASIS_KIND_CONTENT, 0, false);
    fd = peer_open(&conns, 1);
    send_block(fd, WSM_MSG_HASH, 0, 0);
    msg = expect(fd, WSM_MSG_HASHES, 0, hash);
    memset(old, OLD, sizeof(old));
    wsm_hash_blocks(old, BLOCK, BLOCK, mine);
    g_assert_cmpmem(hash, msg.length, mine, sizeof(mine));
    g_assert_false(disks.wrote);
    close(fd);
    tear_down();
}

/* What the destination builds on, and where it has data */
static void test_basis(void)
{
    uint8_t runs[WSM_MAX_TEXT];
    g_autoptr(GByteArray) expected = g_byte_array_new();
    WsmRunsEncoder e;
    WsmMsg msg;
    int fd;

    set_up(WSM_BASIS_KIND_AUTO, 0, true);
    g_assert_cmpint(disk->basis->kind, ==, WSM_BASIS_KIND_FULL);
    close(open_urgent(WSM_BASIS_KIND_FULL));
    tear_down();

    set_up(WSM_BASIS_KIND_AUTO, 0, false);
    fd = open_urgent(WSM_BASIS_KIND_CONTENT);
    msg = peer_recv(fd, &conns, runs, sizeof(runs));
    g_assert_cmpint(msg.type, ==, WSM_MSG_OWN);
    g_assert_cmpint(msg.bytes, ==, SIZE);
    wsm_runs_encode_init(&e, expected);
    wsm_runs_encode(&e, 0, BLOCKS);
    g_assert_cmpmem(runs, msg.length, expected->data, expected->len);
    close(fd);
    tear_down();
}

/* Zeroes at the start, in the middle and at the end are no data */
static void test_data(void)
{
    BdrvDirtyBitmap *data;

    set_up(WSM_BASIS_KIND_FULL, 0, true);
    g_assert_true(wsm_data_is_blank(t.bs, SIZE));
    memset(t.mem->data + 5 * BLOCK, OLD, BLOCK);
    memset(t.mem->data + 9 * BLOCK, OLD, 2 * BLOCK);
    g_assert_false(wsm_data_is_blank(t.bs, SIZE));
    data = wsm_dest_disk_bitmap(disk, &error_abort);
    wsm_data_find(t.bs, SIZE, data);
    g_assert_cmpint(bdrv_get_dirty_count(data), ==, 3 * BLOCK);
    g_assert_true(bdrv_dirty_bitmap_get(data, 5 * BLOCK));
    g_assert_true(bdrv_dirty_bitmap_get(data, 10 * BLOCK));
    bdrv_release_dirty_bitmap(data);
    tear_down();
}

/*
 * Post-copy
 */

static void count_cb(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 0);
    (*(unsigned *)opaque)++;
}

static void await_main(const unsigned *what, unsigned count)
{
    int64_t until = g_get_monotonic_time() + SOON_S * G_USEC_PER_SEC;

    while (qatomic_read(what) < count) {
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        aio_poll(qemu_get_aio_context(), false);
        g_usleep(100);
    }
}

/* The guest reads: PULL.  It writes: HAVE.  What comes too late is dropped. */
static void test_pull(void)
{
    uint8_t buf[BLOCK] = {}, guest[BLOCK];
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, BLOCK);
    unsigned done = 0;
    int urgent, bulk;

    set_up(WSM_BASIS_KIND_FULL, 0, false);
    urgent = open_urgent(WSM_BASIS_KIND_FULL);
    bulk = peer_open(&conns, 1);
    freeze(10, 3);
    g_assert_cmpint(completed, ==, 0);

    blk_aio_preadv(t.blk, 10 * BLOCK, &qiov, 0, count_cb, &done);
    expect(urgent, WSM_MSG_PULL, 10, NULL);
    g_assert_cmpint(done, ==, 0);
    send_block(urgent, WSM_MSG_DATA, 1, 10);
    expect(urgent, WSM_MSG_ACK, 10, NULL);
    await_main(&done, 1);
    g_assert_cmphex(buf[17], ==, SOURCE);

    memset(guest, GUEST, sizeof(guest));
    g_assert_cmpint(blk_pwrite(t.blk, 11 * BLOCK, BLOCK, guest, 0), ==, 0);
    expect(urgent, WSM_MSG_HAVE, 11, NULL);
    send_block(bulk, WSM_MSG_DATA, 1, 11);
    expect(bulk, WSM_MSG_ACK, 11, NULL);
    check_block(11, GUEST);

    /* What was on its way in pre-copy: nobody is told */
    send_block(bulk, WSM_MSG_DATA, 0, 12);
    g_assert_true(peer_hears_nothing(bulk));
    check_block(12, OLD);

    send_block(bulk, WSM_MSG_ZERO, 1, 12);
    expect(bulk, WSM_MSG_ACK, 12, NULL);
    check_block(12, 0);
    await_main(&completed, 1);
    g_assert_cmpint(completed, ==, 1);
    close(urgent);
    close(bulk);
    tear_down();
}

static void repeat_bh(void *opaque)
{
    wsm_dest_disks_repeat(&disks);
}

/* The channel broke: what is waited for is asked for again */
static void test_repeat(void)
{
    uint8_t buf[BLOCK];
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, BLOCK);
    unsigned done = 0;
    int fd;

    set_up(WSM_BASIS_KIND_FULL, 0, false);
    fd = open_urgent(WSM_BASIS_KIND_FULL);
    freeze(10, 1);
    blk_aio_preadv(t.blk, 10 * BLOCK, &qiov, 0, count_cb, &done);
    expect(fd, WSM_MSG_PULL, 10, NULL);
    close(fd);
    fd = open_urgent(WSM_BASIS_KIND_FULL);
    g_assert_true(peer_hears_nothing(fd));
    aio_wait_bh_oneshot(loop.ctx, repeat_bh, NULL);
    expect(fd, WSM_MSG_PULL, 10, NULL);
    send_block(fd, WSM_MSG_DATA, 1, 10);
    await_main(&done, 1);
    close(fd);
    tear_down();
}

/*
 * When the filter goes a sync point knows what the guest has written; what the
 * source has told of its own point is there as well, in front of it.
 */
static void test_points(void)
{
    QemuUUID id = wsm_points_id(&start.session, 0);
    g_autoptr(GByteArray) payload = g_byte_array_new();
    uint8_t guest[BLOCK];
    WsmMsg msg = {
        .type = WSM_MSG_POINT, .epoch = 1, .bytes = SIZE,
    };
    WsmRunsEncoder e;
    int fd;

    set_up(WSM_BASIS_KIND_FULL, 1, false);
    theirs.id.data[0] = 0x77;
    fd = open_urgent(WSM_BASIS_KIND_FULL);
    freeze(0, 0);
    await_main(&completed, 1);
    memset(guest, GUEST, sizeof(guest));
    g_assert_cmpint(blk_pwrite(t.blk, 20 * BLOCK, BLOCK, guest, 0), ==, 0);
    drop();
    g_assert_true(blk_bs(t.blk) == t.bs);
    g_assert_cmpint(wsm_points_changed_bytes(t.bs, &id), ==, BLOCK);
    g_assert_cmpint(blk_pwrite(t.blk, 21 * BLOCK, BLOCK, guest, 0), ==, 0);
    g_assert_cmpint(wsm_points_changed_bytes(t.bs, &id), ==, 2 * BLOCK);

    /* Blocks 30 and 31 had changed at the source since its point */
    wsm_point_encode(0, false, payload);
    wsm_runs_encode_init(&e, payload);
    wsm_runs_encode(&e, 30, 2);
    msg.length = payload->len;
    peer_send(fd, &msg, payload->data);
    /* In order, so it has been worked on when this is answered */
    send_block(fd, WSM_MSG_DATA, 1, 0);
    expect(fd, WSM_MSG_ACK, 0, NULL);
    check_block(0, OLD);
    wsm_dest_points_settle(&disks);
    g_assert_cmpint(wsm_points_changed_bytes(t.bs, &theirs.id), ==,
                    4 * BLOCK);
    g_assert_cmpint(wsm_points_changed_bytes(t.bs, &id), ==, 2 * BLOCK);
    close(fd);
    tear_down();
}

/* It ends while the guest waits, and while writes are on their way */
static void test_stop(void)
{
    int fd;

    set_up(WSM_BASIS_KIND_FULL, 0, false);
    close(open_urgent(WSM_BASIS_KIND_FULL));
    fd = peer_open(&conns, 1);
    for (unsigned i = 0; i < BLOCKS; i++) {
        send_block(fd, WSM_MSG_DATA, 0, i);
    }
    tear_down();
    close(fd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    bdrv_init();
    qcrypto_init(&error_abort);
    qemu_init_main_loop(&error_abort);

    g_test_add_func("/wsm/dest/write", test_write);
    g_test_add_func("/wsm/dest/hash", test_hash);
    g_test_add_func("/wsm/dest/basis", test_basis);
    g_test_add_func("/wsm/dest/data", test_data);
    g_test_add_func("/wsm/dest/pull", test_pull);
    g_test_add_func("/wsm/dest/repeat", test_repeat);
    g_test_add_func("/wsm/dest/points", test_points);
    g_test_add_func("/wsm/dest/stop", test_stop);

    return g_test_run();
}
