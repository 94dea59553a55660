/*
 * Unit tests of migration/wsm/source/channel.c
 *
 * The destination is this thread, with the real channels and the real way to
 * connect in between.  What the channel reports is held against the order in
 * which it may: up, messages, down, gone, failed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/yank.h"
#include "migration/wsm/source/channel.h"
#include "wsm-target.h"

#define CHANNELS        3
#define BLOCK           4096
#define SIZE            (1 * MiB)
#define LARGE           (1 * MiB)       /* more than a socket takes */

static const WsmStart start = {
    .session = { .data = { 0x5e, [15] = 0x51 } },
    .version = WSM_PROTOCOL_VERSION, .oldest = WSM_PROTOCOL_OLDEST,
    .features = WSM_FEATURES, .channels = CHANNELS,
    .granularity = BLOCK, .ndisks = 1,
};
static const int64_t disk_size[] = { SIZE };

/* Where a connection is */
typedef enum Stage { CLOSED, UP, DOWN, ENDED } Stage;

static SocketAddress *where;            /* nobody looks at it */
static WsmLoop loop;
static WsmSourceChannel channel[CHANNELS];

/* What is reported of each channel; in the loop, counters are atomic */
static Stage stage[CHANNELS];
static unsigned ups[CHANNELS], messages[CHANNELS], downs[CHANNELS];
static unsigned gones[CHANNELS], failures[CHANNELS];
static char *last_error[CHANNELS];
static WsmMsg last_msg[CHANNELS];
static bool refuse_messages;            /* atomic */

/* A sender that is stuck; atomic */
static unsigned sending, sent;
static int send_ret;

static void coroutine_fn up(WsmSourceChannel *c)
{
    unsigned i = c->c.id;

    g_assert_true(c == &channel[i] && c->opaque == channel);
    g_assert_true(wsm_loop_is_here(&loop) && qemu_in_coroutine());
    /* After an end between two messages nothing has failed */
    g_assert_true(stage[i] == CLOSED || stage[i] == ENDED);
    g_assert_true(c->up);
    g_assert_cmpint(c->connection, ==, ups[i] + 1);
    stage[i] = UP;
    qatomic_inc(&ups[i]);
}

static bool coroutine_fn message(WsmSourceChannel *c, const WsmMsg *msg,
                                 Error **errp)
{
    unsigned i = c->c.id;

    g_assert_cmpint(stage[i], ==, UP);
    last_msg[i] = *msg;
    qatomic_inc(&messages[i]);
    if (qatomic_read(&refuse_messages)) {
        error_setg(errp, "no %s now", wsm_msg_name(msg->type));
        return false;
    }
    return true;
}

static void down(WsmSourceChannel *c)
{
    unsigned i = c->c.id;

    g_assert_cmpint(stage[i], ==, UP);
    g_assert_false(c->up);
    stage[i] = DOWN;
    qatomic_inc(&downs[i]);
}

static void gone(WsmSourceChannel *c)
{
    unsigned i = c->c.id;

    g_assert_cmpint(stage[i], ==, DOWN);
    /* Nobody sends on it any more, and it is closed */
    g_assert_cmpint(c->users, ==, 0);
    g_assert_cmpint(sending, ==, sent);
    g_assert_null(c->c.ioc);
    stage[i] = ENDED;
    qatomic_inc(&gones[i]);
}

static void failed(WsmSourceChannel *c, Error *err)
{
    unsigned i = c->c.id;

    g_assert_true(wsm_loop_is_here(&loop));
    g_assert_false(wsm_loop_is_over(&loop));
    g_assert_true(stage[i] == CLOSED || stage[i] == ENDED);
    stage[i] = CLOSED;
    g_free(last_error[i]);
    last_error[i] = g_strdup(error_get_pretty(err));
    error_free(err);
    qatomic_inc(&failures[i]);
}

static const WsmSourceChannelOps ops = {
    .up = up, .message = message, .down = down, .gone = gone, .failed = failed,
};

/*
 * Steps
 */

static void open_channel(unsigned id)
{
    wsm_source_channel_open(&channel[id], disk_size);
}

static void set_up(void)
{
    for (unsigned i = 0; i < CHANNELS; i++) {
        stage[i] = CLOSED;
        ups[i] = messages[i] = downs[i] = gones[i] = failures[i] = 0;
    }
    refuse_messages = false;
    sending = sent = 0;
    yank_register_instance(MIGRATION_YANK_INSTANCE, &error_abort);
    target_init(&start, disk_size);
    wsm_loop_init(&loop, "test", &error_abort);
    for (unsigned i = 0; i < CHANNELS; i++) {
        wsm_source_channel_init(&channel[i], i, &start, &where, &loop, &ops,
                                channel);
        g_assert_false(channel[i].up);
    }
}

static void quit(void)
{
    wsm_loop_quit(&loop);
    for (unsigned i = 0; i < CHANNELS; i++) {
        wsm_source_channel_quit(&channel[i]);
    }
    wsm_loop_stop(&loop);
}

static void tear_down(void)
{
    quit();
    target_cleanup();
    for (unsigned i = 0; i < CHANNELS; i++) {
        /* Each that came up went down, and each that did was closed */
        g_assert_cmpint(downs[i], ==, ups[i]);
        g_assert_cmpint(gones[i], ==, ups[i]);
        g_assert_cmpint(channel[i].connection, ==, ups[i]);
        g_assert_false(channel[i].up);
        wsm_source_channel_destroy(&channel[i]);
        g_clear_pointer(&last_error[i], g_free);
    }
    wsm_loop_destroy(&loop);
    yank_unregister_instance(MIGRATION_YANK_INSTANCE);
}

/* A connection of channel @id that is up; it was up @before times */
static int welcome(unsigned id)
{
    unsigned before = ups[id], which;
    int fd = target_welcome(&which);

    g_assert_cmpint(which, ==, id);
    target_await(&ups[id], before + 1);
    g_assert_true(qatomic_read(&channel[id].up));
    return fd;
}

static void expect_failure(unsigned id, unsigned count, const char *text)
{
    target_await(&failures[id], count);
    g_test_message("%s", last_error[id]);
    g_assert_cmpint(failures[id], ==, count);
    g_assert_nonnull(strstr(last_error[id], text));
}

static WsmMsg ack_msg(int64_t offset)
{
    return (WsmMsg) {
        .type = WSM_MSG_ACK, .offset = offset, .bytes = BLOCK,
    };
}

static void send_ack(int fd, int64_t offset)
{
    WsmMsg msg = ack_msg(offset);

    peer_send(fd, &msg, NULL);
}

static void transmit_co(void *opaque)
{
    WsmMsg msg = { .type = WSM_MSG_DATA, .bytes = LARGE, .length = LARGE };
    g_autofree uint8_t *payload = g_malloc0(LARGE);

    qatomic_inc(&sending);
    qatomic_set(&send_ret, wsm_source_transmit(opaque, &msg, payload));
    qatomic_inc(&sent);
}

static void transmit(unsigned id)
{
    g_assert_true(wsm_loop_start(&loop, transmit_co, &channel[id]));
}

/*
 * To open
 */

/* Each says who it is */
static void test_hello(void)
{
    bool seen[CHANNELS] = {};
    int fd[CHANNELS];

    set_up();
    for (unsigned i = 0; i < CHANNELS; i++) {
        open_channel(i);
    }
    for (unsigned i = 0; i < CHANNELS; i++) {
        WsmHello hello;

        fd[i] = target_accept(&hello);
        g_assert_cmpmem(&hello.session, sizeof(QemuUUID), &start.session,
                        sizeof(QemuUUID));
        g_assert_cmpint(hello.version, ==, start.version);
        g_assert_cmpint(hello.channels, ==, CHANNELS);
        g_assert_cmpint(hello.features, ==, start.features);
        g_assert_cmpint(hello.channel, <, CHANNELS);
        g_assert_false(seen[hello.channel]);
        seen[hello.channel] = true;
        /* It is up when it is welcome, not before, and says nothing more */
        g_assert_true(peer_hears_nothing(fd[i]));
        g_assert_cmpint(qatomic_read(&ups[hello.channel]), ==, 0);
        target_say_welcome(fd[i], 0);
        target_await(&ups[hello.channel], 1);
    }
    tear_down();
    for (unsigned i = 0; i < CHANNELS; i++) {
        g_assert_true(peer_has_ended(fd[i]));
        g_assert_cmpint(failures[i], ==, 0);
        close(fd[i]);
    }
    g_assert_cmpint(target_attempts(), ==, CHANNELS);
}

/* Whatever the answer to HELLO is, if it is not WELCOME it is tried again */
static void test_not_welcome(void)
{
    WsmMsg hello_msg = { .type = WSM_MSG_HELLO, .length = WSM_HELLO_SIZE };
    WsmMsg ack = ack_msg(0);
    WsmMsg torn = { .type = WSM_MSG_WELCOME, .length = WSM_WELCOME_SIZE };
    uint8_t header[WSM_HEADER_SIZE];
    WsmHello hello;
    int fd;

    set_up();
    open_channel(1);
    target_fail("nobody there");
    expect_failure(1, 1, "nobody there");
    g_assert_false(channel[1].answered);

    fd = target_accept(&hello);
    target_say_refuse(fd, "no disk\n'vda' here");
    expect_failure(1, 2, "the destination refuses: no disk 'vda' here");
    g_assert_true(peer_has_ended(fd));
    close(fd);

    close(target_accept(&hello));
    expect_failure(1, 3, "closed the connection before it answered");
    g_assert_true(channel[1].answered);

    fd = target_accept(&hello);
    wsm_msg_encode(&hello_msg, header);
    g_assert_cmpint(write(fd, header, sizeof(header)), ==, sizeof(header));
    expect_failure(1, 4, "HELLO instead of WELCOME");
    g_assert_true(peer_has_ended(fd));
    close(fd);

    /* Not before there is a session */
    fd = target_accept(&hello);
    peer_send(fd, &ack, NULL);
    target_await(&failures[1], 5);
    close(fd);

    /* What this side did not offer */
    fd = target_accept(&hello);
    target_say_welcome(fd, 0x80000000);
    expect_failure(1, 6, "features");
    close(fd);

    fd = target_accept(&hello);
    wsm_msg_encode(&torn, header);
    g_assert_cmpint(write(fd, header, sizeof(header)), ==, sizeof(header));
    close(fd);
    target_await(&failures[1], 7);

    g_assert_cmpint(ups[1], ==, 0);
    g_assert_cmpint(messages[1], ==, 0);
    close(welcome(1));
    tear_down();
}

/*
 * The times between attempts become longer while it does not come up, and
 * short again when it was up.  So one that is always let in, and then closed,
 * tries more often than one that is never let in.
 */
static void test_back_off(void)
{
    unsigned in = 0, out = 0;

    set_up();
    open_channel(1);
    open_channel(2);
    while (in < 2 * out + 4) {
        WsmHello hello;
        int fd = target_accept(&hello);

        if (hello.channel == 1) {
            target_say_welcome(fd, 0);
            target_await(&ups[1], ++in);
        } else {
            g_assert_cmpint(hello.channel, ==, 2);
            target_say_refuse(fd, "not yet");
            target_await(&failures[2], ++out);
        }
        close(fd);
        g_assert_cmpint(in + out, <, 300);
    }
    g_assert_cmpint(out, >, 0);
    tear_down();
}

/*
 * To receive
 */

static void test_messages(void)
{
    WsmMsg sync_ack = { .type = WSM_MSG_SYNC_ACK, .offset = 3, .bytes = 5 };
    WsmMsg hashes = {
        .type = WSM_MSG_HASHES, .offset = BLOCK, .bytes = BLOCK,
    };
    int fd;

    set_up();
    open_channel(0);
    fd = welcome(0);
    peer_send(fd, &sync_ack, NULL);
    send_ack(fd, 5 * BLOCK);
    target_await(&messages[0], 2);
    g_assert_cmpint(last_msg[0].type, ==, WSM_MSG_ACK);
    g_assert_cmpint(last_msg[0].offset, ==, 5 * BLOCK);

    /* What is not of the session closes the connection, and is not passed on */
    send_ack(fd, SIZE);
    expect_failure(0, 1, "ACK");
    g_assert_true(peer_has_ended(fd));
    close(fd);

    fd = welcome(0);
    g_assert_cmpint(messages[0], ==, 2);
    /* Hashes do not come on the urgent channel */
    peer_send(fd, &hashes, NULL);
    expect_failure(0, 2, "HASHES");
    g_assert_cmpint(messages[0], ==, 2);
    close(fd);
    tear_down();

    /* Nor do sync's answers on another one */
    set_up();
    open_channel(1);
    fd = welcome(1);
    peer_send(fd, &hashes, NULL);
    target_await(&messages[1], 1);
    peer_send(fd, &sync_ack, NULL);
    expect_failure(1, 1, "SYNC_ACK");
    close(fd);
    tear_down();
}

/* The handler has the last word */
static void test_closed_by_handler(void)
{
    uint8_t both[2 * WSM_HEADER_SIZE];
    WsmMsg msg = ack_msg(0);
    int fd;

    set_up();
    open_channel(1);
    fd = welcome(1);
    qatomic_set(&refuse_messages, true);
    wsm_msg_encode(&msg, both);
    wsm_msg_encode(&msg, both + WSM_HEADER_SIZE);
    g_assert_cmpint(write(fd, both, sizeof(both)), ==, sizeof(both));
    expect_failure(1, 1, "no ACK now");
    g_assert_true(peer_has_ended(fd));
    close(fd);
    g_assert_cmpint(messages[1], ==, 1);
    qatomic_set(&refuse_messages, false);
    fd = welcome(1);
    send_ack(fd, 0);
    target_await(&messages[1], 2);
    close(fd);
    tear_down();
}

/* An end between two messages is no failure, one within is */
static void test_end(void)
{
    uint8_t header[WSM_HEADER_SIZE];
    WsmMsg ack = ack_msg(0);
    int fd;

    set_up();
    open_channel(1);
    close(welcome(1));
    target_await(&gones[1], 1);
    fd = welcome(1);
    g_assert_cmpint(failures[1], ==, 0);
    wsm_msg_encode(&ack, header);
    g_assert_cmpint(write(fd, header, 7), ==, 7);
    close(fd);
    target_await(&failures[1], 1);
    close(welcome(1));
    tear_down();
}

/*
 * To send
 */

static void test_transmit(void)
{
    g_autofree uint8_t *payload = g_malloc(LARGE);
    WsmMsg msg;
    int fd;

    set_up();
    open_channel(1);
    transmit(1);
    target_await(&sent, 1);
    g_assert_cmpint(send_ret, ==, -ENOTCONN);
    fd = welcome(1);
    transmit(1);
    transmit(1);
    for (int i = 0; i < 2; i++) {
        /* Not mixed up */
        msg = target_recv(fd, 1, payload, LARGE);
        g_assert_cmpint(msg.type, ==, WSM_MSG_DATA);
        g_assert_cmpint(msg.length, ==, LARGE);
    }
    target_await(&sent, 3);
    g_assert_cmpint(send_ret, ==, 0);
    g_assert_cmpint(channel[1].users, ==, 0);
    close(fd);
    tear_down();
}

/*
 * The destination does not read and breaks a rule: those that send are told to
 * end, and the channel is gone when they have.
 */
static void test_stuck_senders(void)
{
    int fd;

    set_up();
    open_channel(1);
    fd = welcome(1);
    for (unsigned i = 0; i < 3; i++) {
        transmit(1);
    }
    target_await(&sending, 3);
    g_assert_cmpint(qatomic_read(&sent), ==, 0);
    send_ack(fd, SIZE);
    /* gone() looks whether they have ended */
    target_await(&gones[1], 1);
    g_assert_cmpint(sent, ==, 3);
    g_assert_cmpint(send_ret, <, 0);
    close(fd);
    close(welcome(1));
    tear_down();
}

/*
 * To end: wherever it is, it ends, and does not say that this is a failure
 */

static void test_quit(void)
{
    WsmHello hello;
    int fd;

    /* Before it was opened */
    set_up();
    tear_down();

    /* Waits for a connection */
    set_up();
    open_channel(1);
    target_await_attempt();
    tear_down();

    /* Waits for the answer to HELLO */
    set_up();
    open_channel(1);
    fd = target_accept(&hello);
    tear_down();
    g_assert_true(peer_has_ended(fd));
    close(fd);

    /* Is up, and somebody sends */
    set_up();
    open_channel(1);
    fd = welcome(1);
    transmit(1);
    target_await(&sending, 1);
    tear_down();
    g_assert_cmpint(sent, ==, 1);
    close(fd);

    /* Sleeps after a failure */
    set_up();
    open_channel(1);
    target_fail("nobody there");
    target_await(&failures[1], 1);
    tear_down();
    g_assert_cmpint(failures[1], ==, 1);

    /* Is not opened any more */
    set_up();
    quit();
    open_channel(1);
    tear_down();
    g_assert_cmpint(target_attempts(), ==, 0);
}

/* The connection was made just before: the destination hears no HELLO */
static void test_quit_connected(void)
{
    uint8_t preamble[WSM_PREAMBLE_SIZE];
    int fd;

    set_up();
    open_channel(1);
    target_await_attempt();
    wsm_loop_quit(&loop);
    fd = target_connect();
    peer_read(fd, preamble, sizeof(preamble));
    g_assert_true(peer_has_ended(fd));
    close(fd);
    tear_down();
    g_assert_cmpint(failures[1], ==, 0);
}

/*
 * Anything at random, on all channels.  The model is the number of times that
 * each was let in; what is reported is checked as it comes.
 */

typedef struct Model {
    int fd[CHANNELS];           /* -1: not connected */
    unsigned ups, messages;
} Model;

static void random_connect(Model *m)
{
    WsmHello hello;
    int fd;

    if (g_test_rand_int_range(0, 8) == 0) {
        target_fail("not now");
        return;
    }
    fd = target_accept(&hello);
    g_assert_cmpint(m->fd[hello.channel], ==, -1);
    if (g_test_rand_int_range(0, 8) == 0) {
        target_say_refuse(fd, "not yet");
        close(fd);
        return;
    }
    target_say_welcome(fd, 0);
    m->fd[hello.channel] = fd;
    m->ups++;
}

static void random_step(Model *m)
{
    unsigned i = g_test_rand_int_range(0, CHANNELS);
    int open = 0;

    for (unsigned j = 0; j < CHANNELS; j++) {
        open += m->fd[j] >= 0;
    }
    if (open < CHANNELS && (!open || g_test_rand_int_range(0, 4) == 0)) {
        random_connect(m);
    } else if (m->fd[i] >= 0) {
        if (g_test_rand_int_range(0, 6) == 0) {
            close(m->fd[i]);
            m->fd[i] = -1;
        } else {
            send_ack(m->fd[i], g_test_rand_int_range(0, SIZE / BLOCK) * BLOCK);
            m->messages++;
        }
    }
}

static unsigned sum(const unsigned *counters)
{
    unsigned n = 0;

    for (unsigned i = 0; i < CHANNELS; i++) {
        n += qatomic_read(&counters[i]);
    }
    return n;
}

static void test_random(void)
{
    Model m = {};

    set_up();
    for (unsigned i = 0; i < CHANNELS; i++) {
        m.fd[i] = -1;
        open_channel(i);
    }
    for (int i = 0; i < 150; i++) {
        random_step(&m);
    }
    for (unsigned i = 0; i < CHANNELS; i++) {
        if (m.fd[i] >= 0) {
            close(m.fd[i]);
        }
    }
    /* All that was sent is read before the end is seen */
    target_poll_until(sum(gones) == m.ups);
    g_assert_cmpint(sum(ups), ==, m.ups);
    g_assert_cmpint(sum(messages), ==, m.messages);
    tear_down();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    qemu_init_main_loop(&error_abort);

    g_test_add_func("/wsm/source-channel/hello", test_hello);
    g_test_add_func("/wsm/source-channel/not-welcome", test_not_welcome);
    g_test_add_func("/wsm/source-channel/back-off", test_back_off);
    g_test_add_func("/wsm/source-channel/messages", test_messages);
    g_test_add_func("/wsm/source-channel/closed-by-handler",
                    test_closed_by_handler);
    g_test_add_func("/wsm/source-channel/end", test_end);
    g_test_add_func("/wsm/source-channel/transmit", test_transmit);
    g_test_add_func("/wsm/source-channel/stuck-senders", test_stuck_senders);
    g_test_add_func("/wsm/source-channel/quit", test_quit);
    g_test_add_func("/wsm/source-channel/quit-connected",
                    test_quit_connected);
    g_test_add_func("/wsm/source-channel/random", test_random);
    return g_test_run();
}
