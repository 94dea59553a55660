/*
 * Unit tests of migration/wsm/link/block-channel.c and peer.c
 *
 * Two channels with a socket pair between them.  All coroutines run in this
 * thread, so that what is not expected to come shows in what does.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <netinet/tcp.h>
#include "block/aio.h"
#include "io/channel-buffer.h"
#include "io/channel-tls.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-yank.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "qemu/yank.h"
#include "migration/wsm/link/block-channel.h"
#include "migration/wsm/link/peer.h"

#define BLOCK           4096
#define SENDERS         5
#define MESSAGES        20
#define LONG            (256 * KiB)     /* more than a socket takes at once */

static int64_t disk_size = 1 * GiB;
static const WsmLimits limits = {
    .from_source = true, .channel = 1, .disks = 1, .disk_size = &disk_size,
    .granularity = BLOCK,
};

/* Messages go from @a to @b, or from @a to @peer */
static WsmChannel a, b;
static unsigned ended;                  /* coroutines */

static void pair(QIOChannel **ioc0, QIOChannel **ioc1)
{
    int fd[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), ==, 0);
    *ioc0 = QIO_CHANNEL(qio_channel_socket_new_fd(fd[0], &error_abort));
    *ioc1 = QIO_CHANNEL(qio_channel_socket_new_fd(fd[1], &error_abort));
}

/* Over TCP, both ends */
static void tcp_pair(QIOChannelSocket **client, QIOChannelSocket **server)
{
    SocketAddress any = {
        .type = SOCKET_ADDRESS_TYPE_INET,
        .u.inet = { .host = (char *)"127.0.0.1", .port = (char *)"0" },
    };
    QIOChannelSocket *listener = qio_channel_socket_new();
    g_autoptr(SocketAddress) addr = NULL;

    qio_channel_socket_listen_sync(listener, &any, 1, &error_abort);
    addr = qio_channel_socket_get_local_address(listener, &error_abort);
    *client = qio_channel_socket_new();
    qio_channel_socket_connect_sync(*client, addr, &error_abort);
    *server = qio_channel_socket_accept(listener, &error_abort);
    g_assert_nonnull(*server);
    object_unref(OBJECT(listener));
}

static void connect_both(void)
{
    QIOChannel *ioc0, *ioc1;

    pair(&ioc0, &ioc1);
    wsm_channel_attach(&a, ioc0);
    wsm_channel_attach(&b, ioc1);
}

static void set_up(void)
{
    ended = 0;
    wsm_channel_init(&a, 1, false);
    wsm_channel_init(&b, 1, false);
}

static void tear_down(void)
{
    wsm_channel_detach(&a);
    wsm_channel_detach(&b);
    wsm_channel_destroy(&a);
    wsm_channel_destroy(&b);
}

static void start(CoroutineEntry *entry, void *opaque)
{
    qemu_coroutine_enter(qemu_coroutine_create(entry, opaque));
}

static void await(unsigned count)
{
    while (ended < count) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_cmpuint(ended, ==, count);
}

/*
 * Sending and receiving
 */

typedef struct Sender {
    unsigned number;
    uint32_t length;
    unsigned messages;
    int ret;                    /* of the last one */
} Sender;

/* The sender's number is in each byte, that of the message is the offset */
static void coroutine_fn send_co(void *opaque)
{
    Sender *s = opaque;
    g_autofree char *payload = g_malloc(s->length);

    memset(payload, s->number, s->length);
    for (unsigned i = 0; i < s->messages; i++) {
        WsmMsg msg = {
            .type = WSM_MSG_DATA, .length = s->length,
            .offset = i * s->length, .bytes = s->length,
        };

        s->ret = wsm_channel_send(&a, &msg, payload);
    }
    ended++;
}

typedef struct Receiver {
    WsmChannel *c;
    WsmMsg msg;
    int ret;
    Error *err;
} Receiver;

static void coroutine_fn recv_co(void *opaque)
{
    Receiver *r = opaque;

    r->ret = wsm_channel_recv(r->c, &limits, &r->msg, &r->err);
    g_assert_cmpint(r->ret < 0, ==, r->err != NULL);
    ended++;
}

static void coroutine_fn recv_all_co(void *opaque)
{
    unsigned next[SENDERS] = {};
    g_autofree uint8_t *payload = g_malloc(LONG);

    for (unsigned i = 0; i < SENDERS * MESSAGES; i++) {
        WsmMsg msg;

        g_assert_cmpint(wsm_channel_recv(&b, &limits, &msg, &error_abort), ==,
                        1);
        g_assert_cmpint(msg.type, ==, WSM_MSG_DATA);
        g_assert_cmpint(msg.length, ==, LONG);
        g_assert_true(wsm_channel_recv_payload(&b, payload, LONG,
                                               &error_abort));
        g_assert_cmpint(payload[0], <, SENDERS);
        for (unsigned j = 1; j < LONG; j++) {
            g_assert_cmpint(payload[j], ==, payload[0]);
        }
        g_assert_cmpint(msg.offset, ==, next[payload[0]]++ * LONG);
    }
    ended++;
}

/* Each message comes whole, those of a sender in their order */
static void test_senders(void)
{
    Sender s[SENDERS];

    set_up();
    connect_both();
    for (unsigned i = 0; i < SENDERS; i++) {
        s[i] = (Sender) { i, LONG, MESSAGES, -1 };
        start(send_co, &s[i]);
    }
    start(recv_all_co, NULL);
    await(SENDERS + 1);
    for (unsigned i = 0; i < SENDERS; i++) {
        g_assert_cmpint(s[i].ret, ==, 0);
    }
    tear_down();
}

static void coroutine_fn text_co(void *opaque)
{
    Receiver r = { .c = &b };
    g_autofree char *text = NULL;

    r.ret = wsm_channel_recv(&b, NULL, &r.msg, &error_abort);
    g_assert_cmpint(r.ret, ==, 1);
    text = wsm_channel_recv_text(&b, r.msg.length, &error_abort);
    g_assert_cmpstr(text, ==, "no  disk");
    ended++;
}

static void coroutine_fn send_text_co(void *opaque)
{
    WsmMsg msg = { .type = WSM_MSG_REFUSE, .length = 8 };

    g_assert_cmpint(wsm_channel_send(&a, &msg, "no\n disk"), ==, 0);
    ended++;
}

static void test_text(void)
{
    set_up();
    connect_both();
    start(text_co, NULL);
    start(send_text_co, NULL);
    await(2);
    tear_down();
}

/*
 * What is no message
 */

/* @size bytes, and then the end */
static Receiver receive(const void *buf, size_t size)
{
    Receiver r = { .c = &b };
    QIOChannel *ioc, *peer;

    set_up();
    pair(&ioc, &peer);
    wsm_channel_attach(&b, ioc);
    g_assert_cmpint(qio_channel_write_all(peer, buf, size, &error_abort), ==,
                    0);
    object_unref(OBJECT(peer));
    start(recv_co, &r);
    await(1);
    return r;
}

static void test_wrong(void)
{
    WsmMsg msg = { .type = WSM_MSG_ZERO, .bytes = BLOCK };
    uint8_t header[WSM_HEADER_SIZE];
    Receiver r;

    wsm_msg_encode(&msg, header);
    r = receive(header, sizeof(header));
    g_assert_cmpint(r.ret, ==, 1);
    g_assert_cmpint(r.msg.bytes, ==, BLOCK);
    tear_down();

    /* Beyond the end of the disk */
    msg.offset = disk_size;
    wsm_msg_encode(&msg, header);
    r = receive(header, sizeof(header));
    g_assert_cmpint(r.ret, ==, -1);
    error_free_or_abort(&r.err);
    tear_down();

    header[0]++;
    r = receive(header, sizeof(header));
    g_assert_cmpint(r.ret, ==, -1);
    error_free_or_abort(&r.err);
    tear_down();
}

static void coroutine_fn short_co(void *opaque)
{
    Error *err = NULL;
    char buf[8];

    g_assert_false(wsm_channel_recv_payload(&b, buf, sizeof(buf), &err));
    error_free_or_abort(&err);
    g_assert_null(wsm_channel_recv_text(&b, sizeof(buf), &err));
    error_free_or_abort(&err);
    ended++;
}

/* It may end between two messages only */
static void test_end(void)
{
    WsmMsg msg = { .type = WSM_MSG_DATA, .length = BLOCK, .bytes = BLOCK };
    uint8_t header[WSM_HEADER_SIZE + 3] = {};
    Receiver r;

    wsm_msg_encode(&msg, header);
    r = receive(NULL, 0);
    g_assert_cmpint(r.ret, ==, 0);
    tear_down();

    r = receive(header, WSM_HEADER_SIZE - 1);
    g_assert_cmpint(r.ret, ==, -1);
    error_free_or_abort(&r.err);
    tear_down();

    r = receive(header, sizeof(header));
    g_assert_cmpint(r.ret, ==, 1);
    start(short_co, NULL);
    await(2);
    tear_down();
}

/*
 * Connections come and go
 */

/* One waits for the socket, another for its turn, and one receives */
static void shut_down(void (*how)(void))
{
    Sender s[2] = { { 0, LONG, 10 * MESSAGES }, { 1, LONG, 1 } };
    Receiver r = { .c = &a };

    for (unsigned i = 0; i < ARRAY_SIZE(s); i++) {
        start(send_co, &s[i]);
    }
    start(recv_co, &r);
    g_assert_cmpuint(ended, ==, 0);
    how();
    await(3);
    g_assert_cmpint(s[0].ret, ==, -EIO);
    g_assert_cmpint(s[1].ret, ==, -EIO);
    g_assert_cmpint(r.ret, <=, 0);
    error_free(r.err);
}

static void shutdown_a(void)
{
    wsm_channel_shutdown(&a);
}

static void connect_by_tcp(void)
{
    QIOChannelSocket *client, *server;

    tcp_pair(&client, &server);
    wsm_channel_attach(&a, QIO_CHANNEL(client));
    wsm_channel_attach(&b, QIO_CHANNEL(server));
}

/*
 * The kernel does not wake who waits for room in a Unix socket, as long as the
 * other end neither reads nor closes.
 */
static void test_shutdown(void)
{
    set_up();
    /* Nothing to shut down */
    wsm_channel_shutdown(&a);
    connect_by_tcp();
    shut_down(shutdown_a);
    tear_down();

    set_up();
    connect_both();
    shut_down(shutdown_a);
    tear_down();
}

static void test_again(void)
{
    Sender s = { 3, BLOCK, 1 };
    Receiver r = { .c = &b };

    set_up();
    start(send_co, &s);
    await(1);
    g_assert_cmpint(s.ret, ==, -ENOTCONN);

    for (unsigned i = 0; i < 3; i++) {
        ended = 0;
        connect_both();
        start(recv_co, &r);
        start(send_co, &s);
        await(2);
        g_assert_cmpint(s.ret, ==, 0);
        g_assert_cmpint(r.ret, ==, 1);
        g_assert_cmpint(r.msg.bytes, ==, BLOCK);

        /* The payload is left over, and of no interest to the next one */
        wsm_channel_shutdown(&b);
        wsm_channel_detach(&b);
        wsm_channel_detach(&a);
        start(send_co, &s);
        await(3);
        g_assert_cmpint(s.ret, ==, -ENOTCONN);
    }
    tear_down();
}

/* The other end learns of it even if somebody else has a reference */
static void test_detach_closes(void)
{
    Receiver r = { .c = &b };
    QIOChannel *ioc;

    set_up();
    connect_both();
    ioc = QIO_CHANNEL(object_ref(OBJECT(a.ioc)));
    wsm_channel_detach(&a);
    g_assert_cmpint(OBJECT(ioc)->ref, ==, 1);
    start(recv_co, &r);
    await(1);
    g_assert_cmpint(r.ret, ==, 0);
    object_unref(OBJECT(ioc));
    tear_down();
}

static void yank_migration(void)
{
    YankInstanceList list = { .value = MIGRATION_YANK_INSTANCE };

    qmp_yank(&list, &error_abort);
}

static void test_yank(void)
{
    QIOChannel *ioc, *peer;

    yank_register_instance(MIGRATION_YANK_INSTANCE, &error_abort);
    set_up();
    a.yank = true;
    connect_by_tcp();
    shut_down(yank_migration);
    wsm_channel_detach(&a);
    /* Of a connection that has gone, nothing is left to be yanked */
    pair(&ioc, &peer);
    wsm_channel_attach(&a, ioc);
    tear_down();
    object_unref(OBJECT(peer));
    /* Asserts that it has no functions left */
    yank_unregister_instance(MIGRATION_YANK_INSTANCE);
}

/*
 * Sockets
 */

static int option(QIOChannelSocket *sioc, int level, int name)
{
    int value = -1;
    socklen_t size = sizeof(value);

    g_assert_cmpint(getsockopt(sioc->fd, level, name, &value, &size), ==, 0);
    return value;
}

static void test_options(void)
{
    QIOChannelSocket *client, *server;

    set_up();
    tcp_pair(&client, &server);
    wsm_channel_attach(&a, QIO_CHANNEL(client));
    g_assert_cmpint(option(client, SOL_SOCKET, SO_KEEPALIVE), ==, 1);
    g_assert_cmpint(option(client, IPPROTO_TCP, TCP_NODELAY), ==, 1);
    /* About a quarter of an hour, as with data */
    g_assert_cmpint(option(client, IPPROTO_TCP, TCP_KEEPIDLE), ==, 30);
    g_assert_cmpint(option(client, IPPROTO_TCP, TCP_KEEPINTVL), ==, 30);
    g_assert_cmpint(option(client, IPPROTO_TCP, TCP_KEEPCNT), ==, 30);
    g_assert_true(fcntl(client->fd, F_GETFL) & O_NONBLOCK);
    object_unref(OBJECT(server));
    tear_down();
}

/* As it is before the handshake */
static QIOChannel *tls_on(QIOChannel *ioc)
{
    QIOChannelTLS *tioc = QIO_CHANNEL_TLS(object_new(TYPE_QIO_CHANNEL_TLS));

    tioc->master = QIO_CHANNEL(object_ref(OBJECT(ioc)));
    return QIO_CHANNEL(tioc);
}

/* What a reader that sleeps has not taken is with us, or already with it */
static void test_queued(void)
{
    QIOChannelSocket *client, *server;
    QIOChannel *ioc0, *ioc1, *tls;
    g_autofree char *data = g_malloc0(MiB);
    ssize_t sent = 0, n;

    tcp_pair(&client, &server);
    tls = tls_on(QIO_CHANNEL(client));
    g_assert_cmpint(wsm_channel_queued(QIO_CHANNEL(client)), ==, 0);
    qio_channel_set_blocking(QIO_CHANNEL(client), false, &error_abort);
    while ((n = qio_channel_write(QIO_CHANNEL(client), data, MiB, NULL)) > 0) {
        sent += n;
    }
    g_assert_cmpint(wsm_channel_queued(QIO_CHANNEL(client)), >, 0);
    g_assert_cmpint(wsm_channel_queued(QIO_CHANNEL(client)), <=, sent);
    g_assert_cmpint(wsm_channel_queued(tls), ==,
                    wsm_channel_queued(QIO_CHANNEL(client)));
    object_unref(OBJECT(tls));
    object_unref(OBJECT(client));
    object_unref(OBJECT(server));

    pair(&ioc0, &ioc1);
    qio_channel_write_all(ioc0, data, 100, &error_abort);
    g_assert_cmpint(wsm_channel_queued(ioc0), ==, 0);
    g_assert_cmpint(wsm_channel_queued(NULL), ==, 0);
    object_unref(OBJECT(ioc0));
    object_unref(OBJECT(ioc1));
}

static void test_socket(void)
{
    QIOChannelSocket *sioc = qio_channel_socket_new();
    QIOChannel *buffer = QIO_CHANNEL(qio_channel_buffer_new(1));
    QIOChannel *tls = tls_on(QIO_CHANNEL(sioc));
    QIOChannel *no_socket = tls_on(buffer);

    g_assert_true(wsm_channel_socket(QIO_CHANNEL(sioc)) == sioc);
    g_assert_true(wsm_channel_socket(tls) == sioc);
    g_assert_null(wsm_channel_socket(buffer));
    g_assert_null(wsm_channel_socket(no_socket));
    wsm_keep_alive(buffer);
    object_unref(OBJECT(no_socket));
    object_unref(OBJECT(tls));
    object_unref(OBJECT(buffer));
    object_unref(OBJECT(sioc));
}

/*
 * What people see
 */

static void check_info(WsmChannelInfo *ci, unsigned id, bool up,
                       unsigned reconnects)
{
    g_assert_cmpint(ci->id, ==, id);
    g_assert_cmpint(ci->connected, ==, up);
    g_assert_cmpint(ci->reconnects, ==, reconnects);
}

static void test_info(void)
{
    g_autoptr(WsmInfo) info = g_new0(WsmInfo, 1);
    WsmChannelInfoList *list;

    wsm_channel_info(info, 2, true, 3);
    wsm_channel_info(info, 1, true, 1);
    wsm_channel_info(info, 0, false, 0);
    list = info->channels;
    check_info(list->value, 0, false, 0);
    check_info(list->next->value, 1, true, 0);
    check_info(list->next->next->value, 2, true, 2);
    g_assert_null(list->next->next->next);
}

static void expect_peer(SocketAddress addr, const char *expected)
{
    g_autofree char *peer = wsm_peer_of_address(&addr);
    g_autofree char *uri = wsm_uri_of_address(&addr);
    g_autofree char *with_tcp = g_strdup_printf("tcp:%s", expected);

    g_assert_cmpstr(peer, ==, expected);
    g_assert_cmpstr(uri, ==, addr.type == SOCKET_ADDRESS_TYPE_INET
                             ? with_tcp : expected);
}

static SocketAddress inet(const char *host)
{
    return (SocketAddress) {
        .type = SOCKET_ADDRESS_TYPE_INET,
        .u.inet = { .host = (char *)host, .port = (char *)"4444" },
    };
}

static void test_peer_of_address(void)
{
    expect_peer(inet("beta"), "beta:4444");
    expect_peer(inet("fe80::1"), "[fe80::1]:4444");
    expect_peer((SocketAddress) {
        .type = SOCKET_ADDRESS_TYPE_UNIX,
        .u.q_unix.path = (char *)"/run/beta",
    }, "unix:/run/beta");
}

static void test_peer_of_channel(void)
{
    QIOChannel *ioc0, *ioc1, *buffer = QIO_CHANNEL(qio_channel_buffer_new(1));
    QIOChannelSocket *client, *server;
    g_autofree char *plain = NULL, *tls = NULL;

    tcp_pair(&client, &server);
    ioc0 = tls_on(QIO_CHANNEL(server));
    plain = wsm_peer_of_channel(QIO_CHANNEL(server));
    tls = wsm_peer_of_channel(ioc0);
    g_assert_cmpstr(plain, ==, "127.0.0.1");
    g_assert_cmpstr(tls, ==, "127.0.0.1");
    object_unref(OBJECT(ioc0));
    object_unref(OBJECT(client));
    object_unref(OBJECT(server));

    pair(&ioc0, &ioc1);
    g_assert_null(wsm_peer_of_channel(ioc0));
    g_assert_null(wsm_peer_of_channel(buffer));
    object_unref(OBJECT(ioc0));
    object_unref(OBJECT(ioc1));
    object_unref(OBJECT(buffer));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    qemu_init_main_loop(&error_abort);

    g_test_add_func("/wsm/channel/senders", test_senders);
    g_test_add_func("/wsm/channel/text", test_text);
    g_test_add_func("/wsm/channel/wrong", test_wrong);
    g_test_add_func("/wsm/channel/end", test_end);
    g_test_add_func("/wsm/channel/shutdown", test_shutdown);
    g_test_add_func("/wsm/channel/again", test_again);
    g_test_add_func("/wsm/channel/detach-closes", test_detach_closes);
    g_test_add_func("/wsm/channel/yank", test_yank);
    g_test_add_func("/wsm/channel/options", test_options);
    g_test_add_func("/wsm/channel/socket", test_socket);
    g_test_add_func("/wsm/channel/queued", test_queued);
    g_test_add_func("/wsm/channel/info", test_info);
    g_test_add_func("/wsm/peer/address", test_peer_of_address);
    g_test_add_func("/wsm/peer/channel", test_peer_of_channel);
    return g_test_run();
}
