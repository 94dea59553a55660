/*
 * Unit tests of migration/wsm/source/ops.c
 *
 * What the destination says, and must not say; what the source says on the
 * urgent channel, and says again on a new connection.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "migration/migration.h"
#include "migration/wsm/core/hash.h"
#include "migration/wsm/source/ops.h"
#include "wsm-origin.h"

#define CHANNELS        3
#define BLOCK           ORIGIN_BLOCK
#define BLOCKS          16

static Origin o;
static OriginDisk disk;
static int fd[CHANNELS];

static void set_up(void)
{
    origin_add_disk(&disk, "vda", BLOCKS * BLOCK);
    memset(disk.data, 0x4d, disk.size);
    origin_init(&o);
    origin_start(&o, CHANNELS - 1);
    wsm_source_open_channels(o.s);
    target_welcome_all(fd, CHANNELS);
    origin_await(&o, WSM_WELCOME);
}

static void tear_down(void)
{
    for (unsigned i = 0; i < CHANNELS; i++) {
        close(fd[i]);
    }
    origin_destroy(&o);
    origin_remove_disk(&disk);
}

/* The channel that broke is up again */
static void reconnect(unsigned expected)
{
    unsigned channel;

    if (fd[expected] >= 0) {
        close(fd[expected]);
    }
    fd[expected] = target_welcome(&channel);
    g_assert_cmpint(channel, ==, expected);
    target_poll_until(qatomic_read(&o.s->channel[channel].up));
}

static WsmMsg range_msg(WsmMsgType type, unsigned block, unsigned blocks)
{
    return (WsmMsg) {
        .type = type, .epoch = wsm_work_is_push(o.s->work),
        .offset = (int64_t)block * BLOCK, .bytes = (int64_t)blocks * BLOCK,
    };
}

static void say(unsigned channel, WsmMsg msg)
{
    peer_send(fd[channel], &msg, NULL);
}

static void say_text(unsigned channel, WsmMsg msg, const char *text)
{
    msg.length = strlen(text);
    peer_send(fd[channel], &msg, text);
}

/* It is not taken: the channel is closed; in phase setup that is for good */
static void expect_closed(unsigned channel, const char *text)
{
    g_assert_true(peer_has_ended(fd[channel]));
    target_poll_until(origin_has_fatal(&o));
    origin_expect_fatal(&o, text);
    tear_down();
}

static WsmMsg hear(unsigned channel, WsmMsgType type)
{
    g_autofree uint8_t *payload = g_malloc(WSM_MAX_DATA);
    WsmMsg msg = target_recv(fd[channel], channel, payload, WSM_MAX_DATA);

    g_assert_cmpint(msg.type, ==, type);
    return msg;
}

/* The pass's only block or range, on whichever channel it comes */
static WsmMsg hear_request(WsmMsgType type, unsigned *channel)
{
    int64_t deadline = target_deadline();

    for (*channel = 1; peer_hears_nothing(fd[*channel]);
         *channel = 3 - *channel) {
        target_poll(deadline);
    }
    return hear(*channel, type);
}

static void leave_blocks(unsigned first, unsigned blocks)
{
    BdrvDirtyBitmap *dirty = wsm_work_start_anew(o.s->work, 0);

    if (blocks) {
        bdrv_set_dirty_bitmap(dirty, first * BLOCK, blocks * BLOCK);
    }
}

static void compare_all(void)
{
    BdrvDirtyBitmap *compare = wsm_work_start_compare(o.s->work, 0,
                                                      &error_abort);

    bdrv_set_dirty_bitmap(compare, 0, disk.size);
}

/* What was said on the urgent channel has been worked on */
static void settle(void)
{
    WsmMsg ready = { .type = WSM_MSG_READY };

    wsm_unreach(&o.s->milestones, WSM_READY);
    say(0, ready);
    origin_await(&o, WSM_READY);
}

static void freeze(void)
{
    wsm_session_enter(&o.session, WSM_PHASE_DISK_PRECOPY);
    wsm_session_enter(&o.session, WSM_PHASE_RAM_PRECOPY);
    wsm_session_enter(&o.session, WSM_PHASE_FREEZE);
    wsm_session_enter(&o.session, WSM_PHASE_POSTCOPY);
    origin_begin_push(&o);
}

/*
 * Channels
 */

/* START as from TCG or KVM; the destination answers with @features */
static void accel_set_up(uint32_t accel, const char *only_here, bool paced,
                         uint32_t features)
{
    origin_add_disk(&disk, "vda", BLOCKS * BLOCK);
    origin_init(&o);
    origin_new(&o, CHANNELS - 1);
    wsm_source_set_accel(o.s, accel, g_strdup(only_here), paced);
    g_assert_true(wsm_source_start(o.s, &error_abort));
    target_init(&o.s->start, o.s->disk_size);
    wsm_source_open_channels(o.s);
    for (unsigned i = 0; i < CHANNELS; i++) {
        WsmHello hello;
        int new = target_accept(&hello);

        g_assert_cmphex(hello.features & WSM_FEATURES_ACCEL, ==,
                        accel ? WSM_FEATURES_ACCEL : 0);
        fd[hello.channel] = new;
        target_say_welcome(new, features);
    }
    for (unsigned i = 0; i < CHANNELS; i++) {
        target_poll_until(qatomic_read(&o.s->channel[i].up));
    }
}

/*
 * It goes on wherever the guest can; to where it cannot, nothing is copied.
 * The counter is told if the two differ, or if it is one of the guest's own.
 */
static void test_accel(void)
{
    static const struct {
        uint32_t here, there;
        const char *only_here, *fatal;
        bool tells, paced;
    } rows[] = {
        { 0, 0, NULL, NULL, false },
        { WSM_FEATURE_TCG, 0, "lame", NULL, false },
        { WSM_FEATURE_KVM, 0, "lame", NULL, false },
        { WSM_FEATURE_TCG, WSM_FEATURE_TCG, "lame", NULL, false },
        { WSM_FEATURE_KVM, WSM_FEATURE_KVM, "lame", NULL, false },
        { WSM_FEATURE_TCG, WSM_FEATURE_KVM, NULL, NULL, true },
        { WSM_FEATURE_KVM, WSM_FEATURE_TCG, NULL, NULL, true },
        { WSM_FEATURE_TCG, WSM_FEATURE_KVM, "it is lame",
          "The guest runs on TCG and the destination on KVM, where it cannot "
          "go: it is lame", true },
        { WSM_FEATURE_KVM, WSM_FEATURE_TCG, "it is lame",
          "The guest runs on KVM and the destination on TCG, where it cannot "
          "go: it is lame", true },
        { WSM_FEATURE_TCG, WSM_FEATURE_TCG, "lame", NULL, true, true },
        { WSM_FEATURE_TCG, WSM_FEATURE_KVM, NULL, NULL, true, true },
        { WSM_FEATURE_TCG, 0, "lame",
          "The guest's time stamp counter does not have the frequency of this "
          "host's, and the destination cannot be told", false, true },
    };

    for (int i = 0; i < ARRAY_SIZE(rows); i++) {
        accel_set_up(rows[i].here, rows[i].only_here, rows[i].paced,
                     rows[i].there);
        if (rows[i].fatal) {
            target_poll_until(origin_has_fatal(&o));
            origin_expect_fatal(&o, rows[i].fatal);
            g_assert_false(wsm_has_reached(&o.s->milestones, WSM_WELCOME));
        } else {
            origin_await(&o, WSM_WELCOME);
            g_assert_false(origin_has_fatal(&o));
        }
        g_assert_cmpint(wsm_source_tells_clock(o.s), ==, rows[i].tells);
        tear_down();
    }
}

/* All of them are or were up: who comes twice counts once */
static void test_welcome(void)
{
    origin_add_disk(&disk, "vda", BLOCKS * BLOCK);
    origin_init(&o);
    origin_start(&o, CHANNELS - 1);
    wsm_source_open_channels(o.s);
    for (unsigned i = 0; i < CHANNELS; i++) {
        WsmHello hello;
        int new = target_accept(&hello);

        fd[hello.channel] = new;
    }
    target_say_welcome(fd[0], 0);
    target_say_welcome(fd[1], 0);
    for (unsigned i = 2; i < 4; i++) {
        target_poll_until(qatomic_read(&o.s->channel[1].up));
        reconnect(1);
        target_await(&o.s->channel[1].connection, i);
    }
    g_assert_false(wsm_has_reached(&o.s->milestones, WSM_WELCOME));
    target_say_welcome(fd[2], 0);
    origin_await(&o, WSM_WELCOME);
    tear_down();
}

/* In phase setup a failure is for good, later it is only shown */
static void test_failed(void)
{
    set_up();
    say(1, range_msg(WSM_MSG_ACK, 0, 1));
    expect_closed(1, "ACK: range 0x0+0x1000 of disk 0 is not in flight");

    set_up();
    wsm_session_enter(&o.session, WSM_PHASE_DISK_PRECOPY);
    say(1, range_msg(WSM_MSG_ACK, 0, 1));
    g_assert_true(peer_has_ended(fd[1]));
    reconnect(1);
    origin_expect_error(&o, "ACK: range 0x0+0x1000 of disk 0 is not in flight");
    origin_expect_fatal(&o, NULL);
    tear_down();
}

/*
 * Answers
 */

static void test_ack(void)
{
    unsigned channel;
    WsmMsg msg;

    set_up();
    leave_blocks(3, 2);
    origin_begin_pass(&o);
    msg = hear_request(WSM_MSG_DATA, &channel);
    g_assert_cmpint(msg.offset, ==, 3 * BLOCK);
    g_assert_cmpint(msg.bytes, ==, 2 * BLOCK);
    g_assert_false(wsm_has_reached(&o.s->milestones, WSM_PASS_DONE));
    say(channel, range_msg(WSM_MSG_ACK, 3, 2));
    origin_await(&o, WSM_PASS_DONE);
    origin_expect_fatal(&o, NULL);
    /* Once is enough */
    say(channel, range_msg(WSM_MSG_ACK, 3, 2));
    expect_closed(channel, "is not in flight");
}

/* Nearly what is in flight; @epoch: likewise */
static void try_wrong_ack(unsigned block, unsigned blocks, uint32_t epoch,
                          bool other_channel)
{
    unsigned channel;
    WsmMsg ack;

    set_up();
    leave_blocks(3, 2);
    origin_begin_pass(&o);
    hear_request(WSM_MSG_DATA, &channel);
    ack = range_msg(WSM_MSG_ACK, block, blocks);
    ack.epoch = epoch;
    channel = other_channel ? 3 - channel : channel;
    say(channel, ack);
    expect_closed(channel, "is not in flight");
}

static void test_wrong_ack(void)
{
    try_wrong_ack(3, 1, 0, false);
    try_wrong_ack(4, 1, 0, false);
    try_wrong_ack(3, 3, 0, false);
    try_wrong_ack(3, 2, 1, false);
    try_wrong_ack(3, 2, 0, true);
}

/* It could not be written: it is dirty, and sent again */
static void test_fail(void)
{
    unsigned channel;

    set_up();
    leave_blocks(3, 2);
    origin_begin_pass(&o);
    hear_request(WSM_MSG_DATA, &channel);
    say_text(channel, range_msg(WSM_MSG_FAIL, 3, 2), "no\tspace");
    target_poll_until(origin_has_fatal(&o));
    origin_expect_fatal(&o, "the destination cannot use disk 'vda': no space");
    hear_request(WSM_MSG_DATA, &channel);
    g_assert_false(wsm_has_reached(&o.s->milestones, WSM_PASS_DONE));
    say(channel, range_msg(WSM_MSG_ACK, 3, 2));
    origin_await(&o, WSM_PASS_DONE);
    /* What is not in flight cannot fail */
    say_text(channel, range_msg(WSM_MSG_FAIL, 3, 2), "no space");
    g_assert_true(peer_has_ended(fd[channel]));
    tear_down();
}

static void test_fail_in_push(void)
{
    unsigned channel;

    set_up();
    leave_blocks(3, 2);
    freeze();
    hear_request(WSM_MSG_DATA, &channel);
    say_text(channel, range_msg(WSM_MSG_FAIL, 3, 2), "no space");
    target_poll_until(origin_has_fatal(&o));
    origin_expect_error(&o, "the destination cannot use disk 'vda': no space");
    hear_request(WSM_MSG_DATA, &channel);
    say(channel, range_msg(WSM_MSG_ACK, 3, 2));
    hear(0, WSM_MSG_SYNC);
    tear_down();
}

/*
 * Comparison
 */

static void say_hashes(unsigned channel, const uint8_t *data, unsigned block,
                       unsigned blocks)
{
    uint8_t hashes[BLOCKS * WSM_HASH_SIZE];
    WsmMsg msg = range_msg(WSM_MSG_HASHES, block, blocks);

    wsm_hash_blocks(data, blocks * BLOCK, BLOCK, hashes);
    msg.length = blocks * WSM_HASH_SIZE;
    peer_send(fd[channel], &msg, hashes);
}

static void flip_bh(void *opaque)
{
    disk.data[5 * BLOCK + 7] ^= 1;
}

static void test_hashes(void)
{
    unsigned channel;
    WsmMsg msg;

    set_up();
    compare_all();
    origin_begin_pass(&o);
    hear_request(WSM_MSG_HASH, &channel);
    origin_run(&o, flip_bh, NULL);
    say_hashes(channel, disk.data, 0, BLOCKS);
    /* What was read before that differs */
    origin_run(&o, flip_bh, NULL);
    msg = hear_request(WSM_MSG_DATA, &channel);
    g_assert_cmpint(msg.offset, ==, 5 * BLOCK);
    g_assert_cmpint(msg.bytes, ==, BLOCK);
    say(channel, range_msg(WSM_MSG_ACK, 5, 1));
    origin_await(&o, WSM_PASS_DONE);
    g_assert_cmpint(stat64_get(&o.s->disk[0].compared), ==, disk.size);
    g_assert_cmpint(stat64_get(&o.s->disk[0].equal), ==, disk.size - BLOCK);
    /* No second time */
    say_hashes(channel, disk.data, 0, BLOCKS);
    expect_closed(channel, "is not in flight");
}

static void test_no_hashes(void)
{
    unsigned channel;

    /* It is written there, or not: but it was not sent */
    set_up();
    compare_all();
    origin_begin_pass(&o);
    hear_request(WSM_MSG_HASH, &channel);
    say(channel, range_msg(WSM_MSG_ACK, 0, BLOCKS));
    expect_closed(channel, "ACK for a range that is compared");

    set_up();
    leave_blocks(3, 2);
    origin_begin_pass(&o);
    hear_request(WSM_MSG_DATA, &channel);
    say_hashes(channel, disk.data, 3, 2);
    expect_closed(channel, "HASHES for a range that is not compared");
}

/* It cannot be read over there: it is compared again */
static void test_hash_fails(void)
{
    unsigned channel;

    set_up();
    compare_all();
    origin_begin_pass(&o);
    hear_request(WSM_MSG_HASH, &channel);
    say_text(channel, range_msg(WSM_MSG_FAIL, 0, BLOCKS), "bad sector");
    hear_request(WSM_MSG_HASH, &channel);
    origin_expect_fatal(&o, "cannot use disk 'vda': bad sector");
    say_hashes(channel, disk.data, 0, BLOCKS);
    origin_await(&o, WSM_PASS_DONE);
    g_assert_cmpint(stat64_get(&o.s->disk[0].equal), ==, disk.size);
    tear_down();
}

/*
 * What is said when
 */

static void test_ready(void)
{
    set_up();
    g_assert_false(wsm_has_reached(&o.s->milestones, WSM_READY));
    settle();
    tear_down();
}

/* The guest does not run there yet */
static void test_too_early(void)
{
    WsmMsg msg;

    set_up();
    msg = range_msg(WSM_MSG_PULL, 3, 1);
    say(0, msg);
    expect_closed(0, "PULL in phase 'setup'");

    set_up();
    wsm_session_enter(&o.session, WSM_PHASE_DISK_PRECOPY);
    msg = range_msg(WSM_MSG_HAVE, 3, 1);
    say(0, msg);
    g_assert_true(peer_has_ended(fd[0]));
    reconnect(0);
    origin_expect_error(&o, "HAVE in phase 'disk-precopy'");
    g_assert_true(origin_is_dirty(&o, 0, 3));
    tear_down();
}

/* It was welcome already */
static void test_too_late(void)
{
    set_up();
    target_say_welcome(fd[1], 0);
    expect_closed(1, "WELCOME");

    set_up();
    target_say_refuse(fd[1], "no");
    expect_closed(1, "REFUSE");
}

static void test_have(void)
{
    set_up();
    leave_blocks(0, BLOCKS);
    origin_set(&o, x_push_delay, 60 * 60 * 1000);
    freeze();
    say(0, range_msg(WSM_MSG_HAVE, 3, 2));
    settle();
    for (unsigned b = 0; b < BLOCKS; b++) {
        g_assert_true(origin_is_dirty(&o, 0, b) == (b != 3 && b != 4));
    }
    /* The last are overwritten: then all is there */
    say(0, range_msg(WSM_MSG_HAVE, 0, BLOCKS));
    hear(0, WSM_MSG_SYNC);
    tear_down();
}

static void say_lack(const uint8_t *runs, size_t size)
{
    WsmMsg msg = range_msg(WSM_MSG_LACK, 0, BLOCKS);

    msg.epoch = 1;
    msg.length = size;
    peer_send(fd[0], &msg, runs);
}

/* All was acknowledged, but by one that has died */
static void test_lack(void)
{
    static const uint8_t runs[] = { 3, 2, 1, 1 }, bad[] = { BLOCKS, 1 };
    WsmMsg anew = { .type = WSM_MSG_ANEW, .epoch = 1 };

    set_up();
    leave_blocks(0, 0);
    origin_set(&o, x_push_delay, 60 * 60 * 1000);
    freeze();
    hear(0, WSM_MSG_SYNC);
    say_lack(runs, sizeof(runs));
    g_assert_true(peer_has_ended(fd[0]));
    reconnect(0);
    origin_expect_error(&o, "LACK in phase 'postcopy'");

    hear(0, WSM_MSG_GO);
    hear(0, WSM_MSG_SYNC);
    say(0, anew);
    say_lack(runs, sizeof(runs));
    settle();
    g_assert_true(wsm_source_is_anew(o.s));
    for (unsigned b = 0; b < BLOCKS; b++) {
        g_assert_true(origin_is_dirty(&o, 0, b) ==
                      (b == 3 || b == 4 || b == 6));
    }
    say_lack(bad, sizeof(bad));
    g_assert_true(peer_has_ended(fd[0]));
    reconnect(0);
    origin_expect_error(&o, "list of runs");
    tear_down();
}

static void test_give_up(void)
{
    WsmMsg msg = { .type = WSM_MSG_GIVE_UP };

    set_up();
    say_text(0, msg, "no device 'x'");
    settle();
    origin_expect_fatal(&o, "the destination gives up: no device 'x'");
    /* The first counts */
    say_text(0, msg, "another reason");
    settle();
    origin_expect_fatal(&o, "the destination gives up: no device 'x'");
    tear_down();
}

/*
 * SYNC
 */

static void sync_bh(void *opaque)
{
    o.s->control.sync = true;
    wsm_loop_wake(&o.s->loop);
}

/* SYNC comes; its serial number */
static uint64_t hear_sync(void)
{
    WsmMsg msg = hear(0, WSM_MSG_SYNC);

    g_assert_cmpint(msg.epoch, ==, wsm_work_is_push(o.s->work));
    return msg.offset;
}

static void say_sync_ack(uint64_t serial, uint64_t bytes)
{
    WsmMsg msg = {
        .type = WSM_MSG_SYNC_ACK, .epoch = wsm_work_is_push(o.s->work),
        .offset = serial, .bytes = bytes,
    };

    say(0, msg);
}

static bool has_synced(void)
{
    settle();
    return wsm_has_reached(&o.s->milestones, WSM_SYNCED);
}

/* The answer to the last one counts, once */
static void test_sync(void)
{
    uint64_t first, second;

    set_up();
    say_sync_ack(0, 0);
    say_sync_ack(1, 0);
    g_assert_false(has_synced());
    origin_run(&o, sync_bh, NULL);
    first = hear_sync();
    say_sync_ack(first + 1, 0);
    g_assert_false(has_synced());

    /* The answer is lost: it is asked anew */
    reconnect(0);
    second = hear_sync();
    g_assert_cmpint(second, !=, first);
    say_sync_ack(first, 0);
    g_assert_false(has_synced());
    say_sync_ack(second, 0);
    g_assert_true(has_synced());
    wsm_unreach(&o.s->milestones, WSM_SYNCED);
    say_sync_ack(second, 0);
    g_assert_false(has_synced());
    origin_expect_fatal(&o, NULL);
    reconnect(0);
    g_assert_true(peer_hears_nothing(fd[0]));
    tear_down();
}

/* What the destination cannot flush is not moved there */
static void try_flush_error(uint64_t number, const char *text)
{
    set_up();
    origin_run(&o, sync_bh, NULL);
    say_sync_ack(hear_sync(), number);
    g_assert_false(has_synced());
    origin_expect_fatal(&o, text);
    tear_down();
}

static void test_flush_error(void)
{
    try_flush_error(ENOSPC, "the destination cannot flush its disks: No space");
    try_flush_error(4096, "cannot flush its disks: error 4096");
    try_flush_error(UINT64_MAX, "cannot flush its disks: error 1844674407");
}

/* After the handover: it has all, or else something is wrong */
static void test_all_there(void)
{
    MigrationState *ms = migrate_get_current();

    set_up();
    leave_blocks(0, 0);
    freeze();
    say_sync_ack(hear_sync(), 2 * BLOCK);
    settle();
    g_assert_false(wsm_has_reached(&o.s->milestones, WSM_ALL_THERE));
    origin_expect_error(&o, "lacks 8192 bytes that were sent");
    origin_expect_fatal(&o, NULL);
    tear_down();

    qemu_sem_init(&ms->postcopy_pause_sem, 0);
    qatomic_set(&ms->state, MIGRATION_STATUS_POSTCOPY_ACTIVE);
    set_up();
    leave_blocks(0, 0);
    freeze();
    say_sync_ack(hear_sync(), 0);
    origin_await(&o, WSM_ALL_THERE);
    g_assert_false(wsm_has_reached(&o.s->milestones, WSM_SYNCED));
    /* Who waits for a new main stream need not */
    g_assert_cmpint(qemu_sem_timedwait(&ms->postcopy_pause_sem, 100), <, 0);
    qatomic_set(&ms->state, MIGRATION_STATUS_POSTCOPY_PAUSED);
    g_assert_cmpint(qemu_sem_timedwait(&ms->postcopy_pause_sem, 20000), ==, 0);
    tear_down();
    qemu_sem_destroy(&ms->postcopy_pause_sem);
    qatomic_set(&ms->state, MIGRATION_STATUS_NONE);
}

/*
 * The order on the urgent channel
 */

static void say_all_bh(void *opaque)
{
    o.s->control.go = o.s->control.sync = o.s->control.abort = true;
    wsm_loop_wake(&o.s->loop);
}

static void read_abort_sent_bh(void *opaque)
{
    *(bool *)opaque = o.s->control.abort_sent;
}

static bool abort_was_sent(void)
{
    bool sent;

    origin_run(&o, read_abort_sent_bh, &sent);
    return sent;
}

static void test_order(void)
{
    WsmMsg msg;

    set_up();
    leave_blocks(0, BLOCKS);
    origin_set(&o, x_push_delay, 60 * 60 * 1000);
    g_assert_true(peer_hears_nothing(fd[0]));
    freeze();
    origin_run(&o, say_all_bh, NULL);
    hear(0, WSM_MSG_ABORT);
    msg = hear(0, WSM_MSG_GO);
    g_assert_cmpint(msg.epoch, ==, 1);
    hear_sync();
    g_assert_true(peer_hears_nothing(fd[0]));
    g_assert_true(abort_was_sent());

    /* ABORT is said once; what may be lost is said again */
    reconnect(0);
    hear(0, WSM_MSG_GO);
    hear_sync();
    g_assert_true(peer_hears_nothing(fd[0]));
    tear_down();
}

/* While the channel is down it is kept, not lost */
static void test_kept(void)
{
    set_up();
    close(fd[0]);
    fd[0] = -1;
    target_poll_until(!qatomic_read(&o.s->channel[0].up));
    origin_run(&o, say_all_bh, NULL);
    target_await_attempt();
    g_assert_false(abort_was_sent());
    reconnect(0);
    hear(0, WSM_MSG_ABORT);
    hear(0, WSM_MSG_GO);
    hear_sync();
    tear_down();
}

int main(int argc, char **argv)
{
    int ret;

    origin_init_tests(&argc, &argv);
    g_test_add_func("/wsm/source-ops/welcome", test_welcome);
    g_test_add_func("/wsm/source-ops/failed", test_failed);
    g_test_add_func("/wsm/source-ops/ack", test_ack);
    g_test_add_func("/wsm/source-ops/wrong-ack", test_wrong_ack);
    g_test_add_func("/wsm/source-ops/fail", test_fail);
    g_test_add_func("/wsm/source-ops/fail-in-push", test_fail_in_push);
    g_test_add_func("/wsm/source-ops/hashes", test_hashes);
    g_test_add_func("/wsm/source-ops/no-hashes", test_no_hashes);
    g_test_add_func("/wsm/source-ops/hash-fails", test_hash_fails);
    g_test_add_func("/wsm/source-ops/ready", test_ready);
    g_test_add_func("/wsm/source-ops/too-early", test_too_early);
    g_test_add_func("/wsm/source-ops/too-late", test_too_late);
    g_test_add_func("/wsm/source-ops/have", test_have);
    g_test_add_func("/wsm/source-ops/lack", test_lack);
    g_test_add_func("/wsm/source-ops/give-up", test_give_up);
    g_test_add_func("/wsm/source-ops/sync", test_sync);
    g_test_add_func("/wsm/source-ops/flush-error", test_flush_error);
    g_test_add_func("/wsm/source-ops/all-there", test_all_there);
    g_test_add_func("/wsm/source-ops/order", test_order);
    g_test_add_func("/wsm/source-ops/kept", test_kept);
    g_test_add_func("/wsm/source-ops/accel", test_accel);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
