/*
 * Unit tests of migration/wsm/dest/conn.c and control.c
 *
 * The source is this thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "wsm-peer.h"
#include "migration/wsm/dest/control.h"

#define CHANNELS        3
#define BLOCK           4096
#define SOON_S          20              /* on any machine */

static WsmStart start = { .version = WSM_PROTOCOL_VERSION, .channels = CHANNELS,
                          .granularity = BLOCK, .ndisks = 1 };
static WsmDiskDesc disk = { .size = 1 * GiB };

static WsmLoop loop;
static WsmDestConns conns;
static WsmDestControl control;

/* What the connections have told; atomic */
static unsigned ups, messages, failures;
static WsmDestConn *holding;            /* by the first message, if @hold is */
static bool hold;

static bool coroutine_fn up(void *opaque, WsmDestConn *conn)
{
    g_assert_true(wsm_dest_conns_get(&conns, conn->c.id) == conn);
    qatomic_inc(&ups);
    wsm_dest_control_up(&control);
    return true;
}

static bool coroutine_fn message(void *opaque, WsmDestConn *conn,
                                 const WsmMsg *msg, Error **errp)
{
    if (qatomic_read(&hold) && !holding) {
        wsm_dest_conn_hold(conn);
        qatomic_set(&holding, conn);
    }
    qatomic_inc(&messages);
    return true;
}

static void failed(void *opaque, Error *err)
{
    g_test_message("%s", error_get_pretty(err));
    error_free(err);
    qatomic_inc(&failures);
}

static const WsmDestConnOps ops = {
    .up = up, .message = message, .failed = failed,
};

static void set_up(void)
{
    start.disk = &disk;
    ups = messages = failures = 0;
    holding = NULL;
    hold = false;
    wsm_loop_init(&loop, "test", &error_abort);
    wsm_dest_conns_init(&conns, &loop, &start, &ops, NULL);
    wsm_dest_control_init(&control, &loop, &conns);
    wsm_dest_control_start(&control);
}

static void shutdown_bh(void *opaque)
{
    wsm_dest_conns_shutdown(&conns);
}

static void tear_down(void)
{
    wsm_loop_quit(&loop);
    aio_wait_bh_oneshot(loop.ctx, shutdown_bh, NULL);
    wsm_loop_stop(&loop);
    wsm_loop_destroy(&loop);
    wsm_dest_control_destroy(&control);
    /* Asserts that none is left */
    wsm_dest_conns_destroy(&conns);
}

static void await(const unsigned *what, unsigned count)
{
    int64_t until = g_get_monotonic_time() + SOON_S * G_USEC_PER_SEC;

    while (qatomic_load_acquire(what) < count) {
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        g_usleep(1000);
    }
}

/*
 * Connections
 */

static void test_welcome(void)
{
    WsmMsg zero = { .type = WSM_MSG_ZERO, .bytes = BLOCK };
    int fd;

    set_up();
    g_assert_false(wsm_dest_conns_is_up(&conns, 1));
    fd = peer_open(&conns, 1);
    await(&ups, 1);
    g_assert_true(wsm_dest_conns_is_up(&conns, 1));
    g_assert_false(wsm_dest_conns_is_up(&conns, 0));
    peer_send(fd, &zero, NULL);
    peer_send(fd, &zero, NULL);
    await(&messages, 2);
    /* Beyond the end of the disk */
    zero.offset = disk.size;
    peer_send(fd, &zero, NULL);
    g_assert_true(peer_has_ended(fd));
    await(&failures, 1);
    g_assert_cmpint(messages, ==, 2);
    close(fd);
    tear_down();
}

static void expect_refusal(WsmHello hello, const char *text)
{
    char payload[WSM_MAX_TEXT + 1] = {};
    int fd = peer_connect(&conns);
    WsmMsg msg;

    peer_send_hello(fd, hello);
    msg = peer_recv(fd, &conns, payload, WSM_MAX_TEXT);
    g_assert_cmpint(msg.type, ==, WSM_MSG_REFUSE);
    g_assert_nonnull(strstr(payload, text));
    g_assert_true(peer_has_ended(fd));
    close(fd);
}

static void test_refused(void)
{
    WsmHello hello;

    set_up();
    hello = peer_good_hello(&conns, 1);
    hello.session.data[3]++;
    expect_refusal(hello, "no session");
    hello = peer_good_hello(&conns, 1);
    hello.channels++;
    expect_refusal(hello, "1 of 4");
    hello = peer_good_hello(&conns, 1);
    hello.features = 1;
    expect_refusal(hello, "features");
    await(&failures, 3);

    g_assert_null(wsm_dest_conns_refusal(&conns));
    g_assert_true(wsm_dest_conns_refuse(&conns, "no disk here"));
    g_assert_false(wsm_dest_conns_refuse(&conns, "another reason"));
    expect_refusal(peer_good_hello(&conns, 1), "no disk here");
    g_assert_cmpint(ups, ==, 0);
    tear_down();
}

/* Something else than HELLO, or nothing */
static void test_no_hello(void)
{
    WsmMsg zero = { .type = WSM_MSG_ZERO, .bytes = BLOCK };
    int fd;

    set_up();
    fd = peer_connect(&conns);
    peer_send(fd, &zero, NULL);
    g_assert_true(peer_has_ended(fd));
    close(fd);
    close(peer_connect(&conns));
    await(&failures, 2);
    tear_down();
}

static void release_bh(void *opaque)
{
    wsm_dest_conn_release(holding);
}

/*
 * The fence: the source is welcomed on a new connection when nobody works for
 * the old one any more, and not before.
 */
static void test_fence(void)
{
    WsmMsg zero = { .type = WSM_MSG_ZERO, .bytes = BLOCK };
    int old, new, other;

    set_up();
    hold = true;
    old = peer_open(&conns, 1);
    peer_send(old, &zero, NULL);
    await(&messages, 1);

    new = peer_connect(&conns);
    peer_send_hello(new, peer_good_hello(&conns, 1));
    g_assert_true(peer_has_ended(old));
    g_assert_true(peer_hears_nothing(new));
    /* No other channel has to wait for that */
    other = peer_open(&conns, 2);
    g_assert_true(peer_hears_nothing(new));

    aio_bh_schedule_oneshot(loop.ctx, release_bh, NULL);
    peer_expect_welcome(new);
    await(&ups, 3);
    g_assert_true(wsm_dest_conns_is_up(&conns, 1));
    close(old);
    close(new);
    close(other);
    tear_down();
}

/* Strangers that say nothing do not keep the source out */
static void test_strangers(void)
{
    int stranger[2 * WSM_MAX_CONNS], fd;

    set_up();
    fd = peer_open(&conns, 1);
    for (unsigned i = 0; i < ARRAY_SIZE(stranger); i++) {
        stranger[i] = peer_connect(&conns);
    }
    /* The first ones have gone, and the last ones are still there */
    g_assert_true(peer_has_ended(stranger[0]));
    g_assert_true(peer_hears_nothing(stranger[ARRAY_SIZE(stranger) - 1]));
    close(peer_open(&conns, 0));
    g_assert_true(wsm_dest_conns_is_up(&conns, 1));
    for (unsigned i = 0; i < ARRAY_SIZE(stranger); i++) {
        close(stranger[i]);
    }
    close(fd);
    tear_down();
}

/* One that comes when all is to end */
static void test_late(void)
{
    int fd;

    set_up();
    wsm_loop_quit(&loop);
    fd = peer_connect(&conns);
    g_assert_true(peer_has_ended(fd));
    close(fd);
    tear_down();
}

/*
 * Channel 0
 */

static void say(WsmMsgType type, int64_t offset, int64_t bytes)
{
    WsmMsg msg = {
        .type = type, .epoch = type != WSM_MSG_DONE, .offset = offset,
        .bytes = bytes,
    };

    wsm_dest_say(&control, &msg);
}

static void expect_msg(int fd, WsmMsgType type, int64_t offset, int64_t bytes)
{
    uint8_t payload[WSM_MAX_TEXT];
    WsmMsg msg = peer_recv(fd, &conns, payload, WSM_MAX_TEXT);

    g_assert_cmpint(msg.type, ==, type);
    g_assert_cmpint(msg.offset, ==, offset);
    g_assert_cmpint(msg.bytes, ==, bytes);
}

/* What was said before the channel was there, and in order; then at once */
static void test_say(void)
{
    int fd;

    set_up();
    say(WSM_MSG_PULL, 8 * BLOCK, BLOCK);
    say(WSM_MSG_HAVE, 0, BLOCK);
    say(WSM_MSG_READY, 0, 0);
    close(peer_open(&conns, 1));
    fd = peer_open(&conns, 0);
    expect_msg(fd, WSM_MSG_PULL, 8 * BLOCK, BLOCK);
    expect_msg(fd, WSM_MSG_HAVE, 0, BLOCK);
    expect_msg(fd, WSM_MSG_READY, 0, 0);
    g_assert_true(peer_hears_nothing(fd));
    say(WSM_MSG_PULL, 2 * BLOCK, 2 * BLOCK);
    expect_msg(fd, WSM_MSG_PULL, 2 * BLOCK, 2 * BLOCK);
    close(fd);
    tear_down();
}

/* Ranges that touch become one, those of different kinds or too long do not */
static void test_join(void)
{
    int fd;

    set_up();
    say(WSM_MSG_PULL, 0, BLOCK);
    say(WSM_MSG_PULL, BLOCK, BLOCK);
    say(WSM_MSG_HAVE, 2 * BLOCK, BLOCK);
    say(WSM_MSG_HAVE, 4 * BLOCK, BLOCK);
    say(WSM_MSG_HAVE, 5 * BLOCK, WSM_MAX_DATA - BLOCK);
    say(WSM_MSG_HAVE, 4 * BLOCK + WSM_MAX_DATA, BLOCK);
    say(WSM_MSG_READY, 0, 0);
    say(WSM_MSG_READY, 0, 0);
    /* These numbers are no range */
    say(WSM_MSG_DONE, 1, 1);
    say(WSM_MSG_DONE, 2, 1);
    say(WSM_MSG_READY, 0, 0);
    fd = peer_open(&conns, 0);
    expect_msg(fd, WSM_MSG_PULL, 0, 2 * BLOCK);
    expect_msg(fd, WSM_MSG_HAVE, 2 * BLOCK, BLOCK);
    expect_msg(fd, WSM_MSG_HAVE, 4 * BLOCK, WSM_MAX_DATA);
    expect_msg(fd, WSM_MSG_HAVE, 4 * BLOCK + WSM_MAX_DATA, BLOCK);
    expect_msg(fd, WSM_MSG_READY, 0, 0);
    expect_msg(fd, WSM_MSG_READY, 0, 0);
    expect_msg(fd, WSM_MSG_DONE, 2, 1);
    expect_msg(fd, WSM_MSG_READY, 0, 0);
    close(fd);
    tear_down();
}

/* A guest that writes while nobody listens: only HAVE is dropped */
static void test_full(void)
{
    int fd;

    set_up();
    for (unsigned i = 0; i < WSM_MAX_QUEUE + 100; i++) {
        say(WSM_MSG_HAVE, 2 * i % 1000 * BLOCK, BLOCK);
    }
    say(WSM_MSG_PULL, 7 * BLOCK, BLOCK);
    fd = peer_open(&conns, 0);
    for (unsigned i = 0; i < WSM_MAX_QUEUE; i++) {
        expect_msg(fd, WSM_MSG_HAVE, 2 * i % 1000 * BLOCK, BLOCK);
    }
    expect_msg(fd, WSM_MSG_PULL, 7 * BLOCK, BLOCK);
    close(fd);
    tear_down();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    qemu_init_main_loop(&error_abort);

    g_test_add_func("/wsm/conn/welcome", test_welcome);
    g_test_add_func("/wsm/conn/refused", test_refused);
    g_test_add_func("/wsm/conn/no-hello", test_no_hello);
    g_test_add_func("/wsm/conn/fence", test_fence);
    g_test_add_func("/wsm/conn/strangers", test_strangers);
    g_test_add_func("/wsm/conn/late", test_late);
    g_test_add_func("/wsm/control/say", test_say);
    g_test_add_func("/wsm/control/join", test_join);
    g_test_add_func("/wsm/control/full", test_full);

    return g_test_run();
}
