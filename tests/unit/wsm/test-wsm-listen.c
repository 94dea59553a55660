/*
 * Unit tests of migration/wsm/link/listen.c
 *
 * Visitors are real sockets, and time passes when the test says so.  Nothing
 * runs the main loop: all must work with the main AioContext alone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "block/aio.h"
#include "crypto/init.h"
#include "crypto/tlscreds.h"
#include "crypto/tlssession.h"
#include "io/channel-tls.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/sockets.h"
#include "qom/object_interfaces.h"
#include "migration/channel.h"
#include "migration/migration.h"
#include "migration/multifd.h"
#include "migration/options.h"
#include "migration/savevm.h"
#include "migration/wsm/link/listen.h"
#include "wsm-clock.h"
#include "wsm-warnings.h"

#define SOON_S          20              /* on any machine */
#define PATIENCE_MS     10000           /* as the code has them */
#define RETRY_MS        20
#define HANDSHAKE_MS    2000
#define MAX_VISITORS    64
#define MAX_WAITING     32

static WsmListen l;
static GPtrArray *taken, *loaded;       /* of QIOChannel */
static unsigned knocks;                 /* atomic; at a listener */
static bool willing;                    /* to take channels */

/*
 * What listen.c asks of migration
 */

static MigrationState state;
static MigrationIncomingState incoming;
static bool tls, multifd, complete;
static const char *creds_id;

MigrationState *migrate_get_current(void)
{
    return &state;
}

MigrationIncomingState *migration_incoming_get_current(void)
{
    return &incoming;
}

bool migrate_tls(void)
{
    return tls;
}

const char *migrate_tls_creds(void)
{
    return creds_id;
}

const char *migrate_tls_authz(void)
{
    return NULL;
}

bool migrate_multifd(void)
{
    return multifd;
}

bool migration_has_all_channels(void)
{
    return complete;
}

void migration_channel_process_incoming(QIOChannel *ioc)
{
    g_assert_false(qemu_in_coroutine());
    g_assert_cmpstr(ioc->name, ==, "migration-socket-incoming");
    g_assert_false(ioc->follow_coroutine_ctx);
    g_ptr_array_add(loaded, object_ref(OBJECT(ioc)));
}

static bool take(void *opaque, QIOChannel *ioc)
{
    g_assert_true(opaque == &willing);
    if (willing) {
        g_ptr_array_add(taken, ioc);
    }
    return willing;
}

static bool accept_knock(QIOChannelSocket *sioc)
{
    qatomic_inc(&knocks);
    wsm_listen_accept(&l, sioc);
    return true;
}

/*
 * Steps
 */

static void poll_all(void)
{
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* more may follow */
    }
}

/* @ms later, which this thread has noticed */
static void pass(int64_t ms)
{
    clock_pass_ms(ms);
    poll_all();
}

#define AWAIT(cond) do {                                                \
        int64_t until_ = g_get_real_time() + SOON_S * G_USEC_PER_SEC;   \
        while (!(cond)) {                                               \
            g_assert_cmpint(g_get_real_time(), <, until_);              \
            poll_all();                                                 \
            g_usleep(100);                                              \
        }                                                               \
    } while (0)

static void set_up(void)
{
    state.send_configuration = true;
    incoming.state = MIGRATION_STATUS_SETUP;
    incoming.from_src_file = NULL;
    tls = multifd = complete = false;
    creds_id = "none";
    willing = true;
    taken = g_ptr_array_new_with_free_func(object_unref);
    loaded = g_ptr_array_new_with_free_func(object_unref);
    knocks = 0;
    wsm_listen_init(&l, accept_knock);
    wsm_listen_set_taker(&l, take, &willing);
}

/* All visitors must have gone, or go now */
static void tear_down(void)
{
    willing = true;
    wsm_listen_set_taker(&l, take, &willing);
    while (l.nvisitors) {
        poll_all();
        /* Less than would make them think that we were away */
        pass(PATIENCE_MS / 20);
    }
    g_assert_true(QTAILQ_EMPTY(&l.visitors));
    g_assert_null(l.served);
    g_queue_free(l.waiting);
    qemu_mutex_destroy(&l.lock);
    g_ptr_array_unref(taken);
    g_ptr_array_unref(loaded);
}

/* A connection, and @fd is its other end */
static QIOChannelSocket *visitor_new(int *fd)
{
    QIOChannelSocket *sioc;
    int pair[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    sioc = qio_channel_socket_new_fd(pair[1], &error_abort);
    /* As one that was accepted has it */
    qio_channel_set_feature(QIO_CHANNEL(sioc),
                            QIO_CHANNEL_FEATURE_READ_MSG_PEEK);
    *fd = pair[0];
    return sioc;
}

/* Somebody knocks; returns the other end of the connection */
static int visit(void)
{
    int fd;
    QIOChannelSocket *sioc = visitor_new(&fd);

    wsm_listen_accept(&l, sioc);
    object_unref(OBJECT(sioc));
    poll_all();
    return fd;
}

static void say(int fd, const void *bytes, size_t size)
{
    g_assert_cmpint(send(fd, bytes, size, MSG_NOSIGNAL), ==, size);
    poll_all();
}

static bool has_ended(int fd)
{
    char c;
    ssize_t n = recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);

    return n == 0 || (n < 0 && errno == ECONNRESET);
}

static void expect_end(int fd)
{
    AWAIT(has_ended(fd));
    close(fd);
}

/* The next of @size bytes of @ioc, which are there */
static void expect_bytes(QIOChannel *ioc, const void *bytes, size_t size)
{
    g_autofree char *buf = g_malloc(size);

    g_assert_cmpint(qio_channel_read(ioc, buf, size, &error_abort), ==, size);
    g_assert_cmpmem(buf, size, bytes, size);
}

/*
 * Who is it?
 */

enum { BLOCKS, STREAM, MULTIFD, COMMAND, HANDSHAKE, STRANGER, WORD_MAX };

static const uint8_t words[WORD_MAX][4] = {
    [BLOCKS] = { 'W', 'S', 'M', 'B' }, [STREAM] = { 'Q', 'E', 'V', 'M' },
    [MULTIFD] = { 0x11, 0x22, 0x33, 0x44 },
    [COMMAND] = { QEMU_VM_COMMAND, 0, 3, 0 }, [HANDSHAKE] = { 0x16, 3, 1, 0 },
    [STRANGER] = { 'G', 'E', 'T', ' ' },
};

typedef enum Fate { TAKEN, LOADED, CLOSED } Fate;

static Fate fate_of(unsigned word)
{
    bool paused = incoming.state == MIGRATION_STATUS_POSTCOPY_PAUSED;

    switch (word) {
    case BLOCKS:
        return TAKEN;
    case STREAM:
        return tls || paused ? CLOSED : LOADED;
    case MULTIFD:
        return tls || paused || !multifd ? CLOSED : LOADED;
    case COMMAND:
        return tls || !paused ? CLOSED : LOADED;
    case HANDSHAKE:
        return tls ? LOADED : CLOSED;
    default:
        return CLOSED;
    }
}

/* The last one has come to where it belongs, and nothing of it is lost */
static void check_fate(int fd, unsigned word)
{
    Fate fate = fate_of(word);

    g_assert_cmpint(taken->len, ==, fate == TAKEN);
    g_assert_cmpint(loaded->len, ==, fate == LOADED);
    if (fate == TAKEN) {
        expect_bytes(taken->pdata[0], "more", 4);
    } else if (fate == LOADED) {
        expect_bytes(loaded->pdata[0], words[word], 4);
        expect_bytes(loaded->pdata[0], "more", 4);
    }
    g_assert_cmpint(has_ended(fd), ==, fate == CLOSED);
    close(fd);
    if (fate == CLOSED) {
        warnings_expect("was closed: it began with 0x");
    }
    warnings_expect_none();
    g_assert_cmpint(l.nvisitors, ==, 0);
}

static void check_sort(unsigned how, unsigned word)
{
    int fd;

    set_up();
    tls = how & 1;
    multifd = how & 2;
    incoming.state = how & 4 ? MIGRATION_STATUS_POSTCOPY_PAUSED
                             : MIGRATION_STATUS_SETUP;
    fd = visit();
    g_assert_cmpint(l.nvisitors, ==, 1);
    say(fd, words[word], 2);
    g_assert_cmpint(taken->len + loaded->len, ==, 0);
    g_assert_false(has_ended(fd));
    say(fd, words[word] + 2, 2);
    say(fd, "more", 4);
    pass(RETRY_MS);
    check_fate(fd, word);
    tear_down();
}

static void test_sort(void)
{
    for (unsigned how = 0; how < 8; how++) {
        for (unsigned word = how & 1; word < WORD_MAX; word++) {
            check_sort(how, word);
        }
    }
}

static void test_extra(void)
{
    int fd;

    set_up();
    complete = true;
    fd = visit();
    say(fd, words[STREAM], 4);
    expect_end(fd);
    g_assert_cmpint(loaded->len, ==, 0);
    warnings_expect("Extra incoming migration connection");
    tear_down();
}

/* It goes before it has said who it is: nobody is told */
static void test_hangs_up(void)
{
    int fd;

    set_up();
    fd = visit();
    g_assert_cmpint(l.nvisitors, ==, 1);
    close(fd);
    AWAIT(!l.nvisitors);
    warnings_expect_none();
    tear_down();
}

/*
 * Too many, too slow
 */

/* Nobody may stay for ever by saying nothing, or not enough */
static void check_silent(unsigned nbytes)
{
    int fd;

    set_up();
    fd = visit();
    if (nbytes) {
        say(fd, words[STREAM], nbytes);
    }
    pass(PATIENCE_MS - 1);
    g_assert_false(has_ended(fd));
    pass(1);
    pass(RETRY_MS);
    expect_end(fd);
    warnings_expect("it said nothing for 10 s");
    tear_down();
}

static void test_silent(void)
{
    check_silent(0);
    check_silent(3);
}

/* This thread was busy: who has come meanwhile gets all of the time */
static void test_away(void)
{
    int fd, other;

    set_up();
    fd = visit();
    other = visit();
    pass(PATIENCE_MS + 1001);
    g_assert_false(has_ended(fd));
    pass(PATIENCE_MS - 1);
    g_assert_false(has_ended(fd));
    say(other, words[STREAM], 4);
    g_assert_cmpint(loaded->len, ==, 1);
    pass(1);
    expect_end(fd);
    g_assert_false(has_ended(other));
    close(other);
    tear_down();
}

static void test_too_many(void)
{
    int fd[MAX_VISITORS + 2];

    set_up();
    for (unsigned i = 0; i < MAX_VISITORS; i++) {
        fd[i] = visit();
    }
    g_assert_false(has_ended(fd[0]));
    for (unsigned i = MAX_VISITORS; i < ARRAY_SIZE(fd); i++) {
        fd[i] = visit();
        g_assert_cmpint(l.nvisitors, ==, MAX_VISITORS);
        expect_end(fd[i - MAX_VISITORS]);
    }
    g_assert_false(has_ended(fd[2]));
    say(fd[2], words[STREAM], 4);
    g_assert_cmpint(loaded->len, ==, 1);
    g_assert_cmpint(l.nvisitors, ==, MAX_VISITORS - 1);
    for (unsigned i = 2; i < ARRAY_SIZE(fd); i++) {
        close(fd[i]);
    }
    tear_down();
}

/*
 * Behind TLS the first that shakes hands is the main stream.  The next one may
 * begin when that is known, or the first one has had two seconds.
 */
static void test_precedence(void)
{
    int fd[4];

    set_up();
    tls = true;
    for (unsigned i = 0; i < 4; i++) {
        fd[i] = visit();
        say(fd[i], words[HANDSHAKE], 4);
        g_assert_cmpint(loaded->len, ==, 1);
    }
    pass(HANDSHAKE_MS - 1);
    g_assert_cmpint(loaded->len, ==, 1);
    pass(RETRY_MS);
    g_assert_cmpint(loaded->len, ==, 2);
    pass(RETRY_MS);
    g_assert_cmpint(loaded->len, ==, 2);
    incoming.from_src_file = (QEMUFile *)&incoming;
    pass(RETRY_MS);
    g_assert_cmpint(loaded->len, ==, 4);
    for (unsigned i = 0; i < 4; i++) {
        close(fd[i]);
    }
    tear_down();
}

/* Who is waiting for that may be displaced, and is not the main stream then */
static void test_displaced_in_turn(void)
{
    int fd[MAX_VISITORS + 2];

    set_up();
    tls = true;
    for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
        fd[i] = visit();
        if (i < 2) {
            say(fd[i], words[HANDSHAKE], 4);
        }
    }
    g_assert_true(has_ended(fd[1]));
    pass(RETRY_MS);
    g_assert_cmpint(loaded->len, ==, 1);
    incoming.from_src_file = (QEMUFile *)&incoming;
    pass(RETRY_MS);
    g_assert_cmpint(loaded->len, ==, 1);
    g_assert_false(has_ended(fd[2]));
    for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
        close(fd[i]);
    }
    tear_down();
}

/*
 * Any number of visitors say what they say in pieces, in any order; some go.
 * The model: who is still expected to say more, oldest first.
 */

typedef struct Visit {
    int fd;                     /* -1: it has gone, but has begun to speak */
    unsigned word, said;
    uint8_t number;             /* follows what it says */
} Visit;

static GQueue *expected;                /* of Visit */
static GArray *block_channels;          /* numbers, in the order of TAKEN */
static unsigned streams;

static void forget(Visit *v, bool ended)
{
    g_queue_remove(expected, v);
    if (v->fd >= 0) {
        g_assert_cmpint(has_ended(v->fd), ==, ended);
        close(v->fd);
    }
    g_free(v);
}

static void random_visit(unsigned step)
{
    Visit *v = g_new0(Visit, 1);

    v->fd = visit();
    v->word = g_test_rand_int_range(0, WORD_MAX);
    v->number = step;
    g_queue_push_tail(expected, v);
    if (g_queue_get_length(expected) > MAX_VISITORS) {
        forget(g_queue_peek_head(expected), true);
    }
}

static void random_words(Visit *v)
{
    unsigned n = g_test_rand_int_range(1, 5 - v->said);
    Fate fate = fate_of(v->word);
    uint8_t whole[5];

    memcpy(whole, words[v->word], 4);
    whole[4] = v->number;
    if (v->said + n < 4) {
        say(v->fd, whole + v->said, n);
        v->said += n;
        return;
    }
    say(v->fd, whole + v->said, 5 - v->said);
    pass(RETRY_MS);
    if (fate == TAKEN) {
        g_array_append_val(block_channels, v->number);
    }
    streams += fate == LOADED;
    forget(v, fate == CLOSED);
}

static void random_step(unsigned step)
{
    unsigned n = g_queue_get_length(expected);
    Visit *v = n ? g_queue_peek_nth(expected, g_test_rand_int_range(0, n))
                 : NULL;

    switch (v && v->fd >= 0 ? g_test_rand_int_range(0, 20) : 0) {
    case 0 ... 11:
        random_visit(step);
        break;
    case 12 ... 18:
        random_words(v);
        break;
    default:
        if (v->said) {
            close(v->fd);
            v->fd = -1;
        } else {
            forget(v, false);
        }
        pass(RETRY_MS);
    }
    g_assert_cmpint(g_queue_get_length(expected), ==, l.nvisitors);
    g_assert_cmpint(block_channels->len, ==, taken->len);
    g_assert_cmpint(streams, ==, loaded->len);
}

static void test_random(void)
{
    set_up();
    multifd = true;
    streams = 0;
    expected = g_queue_new();
    block_channels = g_array_new(false, false, 1);
    /* Fewer than there is patience for: 400 times 20 ms is less than 10 s */
    for (unsigned step = 0; step < 400; step++) {
        random_step(step);
    }
    for (unsigned i = 0; i < taken->len; i++) {
        expect_bytes(taken->pdata[i], block_channels->data + i, 1);
    }
    while (!g_queue_is_empty(expected)) {
        forget(g_queue_peek_head(expected), false);
    }
    tear_down();
    g_queue_free(expected);
    g_array_unref(block_channels);
}

/*
 * Block channels and who takes them
 */

static int block_channel(char number)
{
    int fd = visit();

    say(fd, words[BLOCKS], 4);
    say(fd, &number, 1);
    return fd;
}

/* Those that came before wait, and come in their order; too many do not */
static void test_waiting(void)
{
    int fd[MAX_WAITING + 3];

    set_up();
    wsm_listen_set_taker(&l, NULL, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
        fd[i] = block_channel(i);
        g_assert_cmpint(l.nvisitors, ==, 0);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
        g_assert_cmpint(has_ended(fd[i]), ==, i < 3);
    }
    /* One who takes none of them changes nothing */
    willing = false;
    wsm_listen_set_taker(&l, take, &willing);
    wsm_listen_set_taker(&l, NULL, NULL);
    g_assert_cmpint(taken->len, ==, 0);
    willing = true;
    wsm_listen_set_taker(&l, take, &willing);
    g_assert_cmpint(taken->len, ==, MAX_WAITING);
    for (unsigned i = 0; i < MAX_WAITING; i++) {
        expect_bytes(taken->pdata[i], &(char) { i + 3 }, 1);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
        close(fd[i]);
    }
    tear_down();
}

static void test_taker(void)
{
    int fd[3];

    set_up();
    fd[0] = block_channel(0);
    g_assert_cmpint(taken->len, ==, 1);
    willing = false;
    fd[1] = block_channel(1);
    wsm_listen_set_taker(&l, NULL, NULL);
    fd[2] = block_channel(2);
    g_assert_cmpint(taken->len, ==, 1);
    g_assert_false(has_ended(fd[1]));
    willing = true;
    wsm_listen_set_taker(&l, take, &willing);
    g_assert_cmpint(taken->len, ==, 3);
    for (unsigned i = 0; i < 3; i++) {
        expect_bytes(taken->pdata[i], &(char) { i }, 1);
        close(fd[i]);
    }
    tear_down();
}

/*
 * TLS
 */

static char *dir;

static Object *add_creds(const char *id, const char *endpoint, const char *key)
{
    g_autofree char *folder = g_build_filename(dir, id, NULL);
    g_autofree char *file = g_build_filename(folder, "keys.psk", NULL);
    g_autofree char *line = g_strdup_printf("qemu:%s\n", key);

    g_assert_cmpint(g_mkdir(folder, 0700), ==, 0);
    g_assert_true(g_file_set_contents(file, line, -1, NULL));
    return object_new_with_props("tls-creds-psk", object_get_objects_root(),
                                 id, &error_abort, "endpoint", endpoint,
                                 "dir", folder, "priority", "NORMAL", NULL);
}

static void remove_creds(Object *creds, const char *id)
{
    g_autofree char *folder = g_build_filename(dir, id, NULL);
    g_autofree char *file = g_build_filename(folder, "keys.psk", NULL);

    object_unparent(creds);
    g_unlink(file);
    g_rmdir(folder);
}

typedef struct Client {
    QemuThread thread;
    QIOChannelTLS *tioc;
    unsigned ended;             /* atomic */
    int status;                 /* of the handshake */
} Client;

/* Blocks, so not in the thread that polls */
static void *client_thread(void *opaque)
{
    Client *c = opaque;

    do {
        c->status = qcrypto_tls_session_handshake(c->tioc->session, NULL);
    } while (c->status > 0);
    if (c->status == QCRYPTO_TLS_HANDSHAKE_COMPLETE) {
        c->status = qio_channel_write_all(QIO_CHANNEL(c->tioc), "secret", 6,
                                          NULL);
    }
    qatomic_inc(&c->ended);
    return NULL;
}

/* A block channel comes, and shakes hands with @creds; returns its end */
static int shake_hands(Client *c, Object *creds)
{
    int fd = visit();
    QIOChannelSocket *sioc = qio_channel_socket_new_fd(dup(fd), &error_abort);

    say(fd, words[BLOCKS], 4);
    *c = (Client) {};
    c->tioc = qio_channel_tls_new_client(QIO_CHANNEL(sioc),
                                         QCRYPTO_TLS_CREDS(creds), "localhost",
                                         &error_abort);
    object_unref(OBJECT(sioc));
    qemu_thread_create(&c->thread, "client", client_thread, c,
                       QEMU_THREAD_JOINABLE);
    AWAIT(qatomic_read(&c->ended));
    qemu_thread_join(&c->thread);
    object_unref(OBJECT(c->tioc));
    return fd;
}

static void check_no_tls(const char *id, const char *text)
{
    int fd = visit();

    creds_id = id;
    say(fd, words[BLOCKS], 4);
    expect_end(fd);
    warnings_expect(text);
    g_assert_cmpint(taken->len, ==, 0);
}

static void test_tls(void)
{
    Object *server, *client, *stranger;
    Client c;
    int fd;

    if (!object_class_by_name("tls-creds-psk")) {
        g_test_skip("no TLS");
        return;
    }
    set_up();
    tls = true;
    server = add_creds("server", "server", "009d5638c40fde0c");
    client = add_creds("client", "client", "009d5638c40fde0c");
    stranger = add_creds("stranger", "client", "10ffa6a2c42f0388");

    check_no_tls("none", "block channel: there are no TLS credentials 'none'");
    check_no_tls("client", "endpoint");
    creds_id = "server";

    fd = shake_hands(&c, client);
    g_assert_cmpint(c.status, ==, 0);
    AWAIT(taken->len == 1);
    expect_bytes(taken->pdata[0], "secret", 6);
    close(fd);
    warnings_expect_none();

    fd = shake_hands(&c, stranger);
    expect_end(fd);
    warnings_expect("block channel: ");
    g_assert_cmpint(taken->len, ==, 1);

    /* Silence counts from the preamble on, and has another name */
    fd = visit();
    pass(PATIENCE_MS - 1);
    say(fd, words[BLOCKS], 4);
    pass(PATIENCE_MS - 1);
    g_assert_false(has_ended(fd));
    pass(1);
    expect_end(fd);
    warnings_expect("block channel: no TLS handshake within 10 s: ");

    /* The handshake over, it has all the time of the world */
    g_assert_cmpint(l.nvisitors, ==, 0);
    tear_down();
    remove_creds(stranger, "stranger");
    remove_creds(client, "client");
    remove_creds(server, "server");
}

/*
 * The listener
 */

/* An abstract one, which there is as long as its socket is open */
static char *address_of(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static void main_loop_accepts(QIONetListener *listener, QIOChannelSocket *sioc,
                              gpointer data)
{
    g_assert_not_reached();
}

static QIONetListener *listener_new(const char *name)
{
    g_autofree char *path = address_of(name);
    QIONetListener *listener = qio_net_listener_new();
    SocketAddress addr = {
        .type = SOCKET_ADDRESS_TYPE_UNIX,
        .u.q_unix = {
            .path = path, .has_abstract = true, .abstract = true,
            .has_tight = true, .tight = true,
        },
    };

    qio_net_listener_open_sync(listener, &addr, 1, &error_abort);
    qio_net_listener_set_client_func(listener, main_loop_accepts, NULL, NULL);
    return listener;
}

/* -1: nobody is there */
static int knock(const char *name)
{
    g_autofree char *path = address_of(name);
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    size_t size = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    pstrcpy(addr.sun_path + 1, sizeof(addr.sun_path) - 1, path);
    if (connect(fd, (struct sockaddr *)&addr, size) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Nobody else has a reference */
static void listener_free(QIONetListener *listener)
{
    g_assert_cmpint(OBJECT(listener)->ref, ==, 1);
    object_unref(OBJECT(listener));
}

static void test_serve(void)
{
    QIONetListener *listener, *other;
    int fd, late, polled;

    set_up();
    listener = listener_new("a");
    polled = dup(listener->sioc[0]->fd);
    other = listener_new("b");
    wsm_listen_serve(&l, listener);
    wsm_listen_serve(&l, other);
    g_assert_true(l.served == listener);
    wsm_listen_serve(&l, listener);
    g_assert_cmpint(OBJECT(listener)->ref, ==, 2);

    fd = knock("a");
    AWAIT(knocks == 1);
    poll_all();
    say(fd, words[STREAM], 4);
    AWAIT(loaded->len == 1);
    close(fd);

    /* That of another one does not concern us */
    wsm_listen_disconnect(&l, other);
    g_assert_true(l.served == listener);
    g_assert_cmpint(knock("b"), ==, -1);
    fd = knock("a");
    AWAIT(knocks == 2);
    close(fd);

    late = knock("a");
    g_assert_cmpint(late, >=, 0);
    wsm_listen_disconnect(&l, listener);
    g_assert_null(l.served);
    g_assert_false(qio_net_listener_is_connected(listener));
    /* Although the socket may be open yet: another thread polls it, say */
    g_assert_cmpint(knock("a"), ==, -1);
    close(polled);
    poll_all();
    g_assert_cmpint(knocks, ==, 2);
    expect_end(late);

    /* One that is disconnected is not served any more */
    wsm_listen_serve(&l, listener);
    g_assert_null(l.served);
    listener_free(listener);
    listener_free(other);
    tear_down();
}

static void test_add(void)
{
    QIONetListener *listener;

    set_up();
    listener = listener_new("a");
    wsm_listen_set_taker(&l, NULL, NULL);
    wsm_listen_add(&l, listener);
    poll_all();
    g_assert_null(l.served);

    wsm_listen_set_taker(&l, take, &willing);
    wsm_listen_add(&l, listener);
    g_assert_null(l.served);
    poll_all();
    g_assert_true(l.served == listener);
    wsm_listen_disconnect(&l, listener);
    listener_free(listener);

    /* It goes before its turn has come */
    listener = listener_new("a");
    wsm_listen_add(&l, listener);
    wsm_listen_disconnect(&l, listener);
    poll_all();
    g_assert_null(l.served);
    listener_free(listener);
    tear_down();
}

static void *disconnect_thread(void *opaque)
{
    wsm_listen_disconnect(&l, opaque);
    g_assert_cmpint(knock("a"), ==, -1);
    return NULL;
}

/* Another thread disconnects while connections come, or none comes */
static void test_disconnect_race(void)
{
    set_up();
    for (unsigned i = 0; i < 100; i++) {
        QIONetListener *listener = listener_new("a");
        QemuThread thread;
        int fd = -1;

        wsm_listen_add(&l, listener);
        if (i % 3) {
            poll_all();
            g_assert_true(l.served == listener);
        }
        if (i % 3 < 2) {
            fd = knock("a");
        }
        qemu_thread_create(&thread, "disconnect", disconnect_thread, listener,
                           QEMU_THREAD_JOINABLE);
        aio_poll(qemu_get_aio_context(), true);
        qemu_thread_join(&thread);
        poll_all();
        g_assert_null(l.served);
        close(fd);
        listener_free(listener);
    }
    tear_down();
}

/*
 * Without the capability
 */

/* Likewise; -1 if QEMU is to take it as if nothing were */
static int wonder(void)
{
    int fd;
    QIOChannelSocket *sioc = visitor_new(&fd);
    bool ours = wsm_listen_wonder(&l, sioc);

    g_assert_cmpint(OBJECT(sioc)->ref, ==, ours ? 2 : 1);
    object_unref(OBJECT(sioc));
    poll_all();
    if (!ours) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* The main stream has come, and has not said anything yet */
static void set_up_undecided(void)
{
    set_up();
    g_assert_cmpint(wonder(), ==, -1);
}

/* The last one is QEMU's, as it was when it came */
static void expect_loaded(int fd, const void *bytes, size_t size)
{
    QIOChannel *ioc;

    g_assert_cmpint(loaded->len, ==, 1);
    ioc = loaded->pdata[0];
    g_assert_false(fcntl(QIO_CHANNEL_SOCKET(ioc)->fd, F_GETFL) & O_NONBLOCK);
    if (size) {
        expect_bytes(ioc, bytes, size);
    }
    g_assert_cmpint(taken->len, ==, 0);
    g_assert_true(QTAILQ_EMPTY(&l.undecided));
    g_assert_cmpint(l.nundecided, ==, 0);
    close(fd);
}

/* QEMU alone knows whether it wants what is no block channel */
static void test_wonder_sort(void)
{
    for (unsigned word = 0; word < WORD_MAX; word++) {
        int fd;

        set_up_undecided();
        fd = wonder();
        say(fd, words[word], 2);
        g_assert_cmpint(taken->len + loaded->len, ==, 0);
        say(fd, words[word] + 2, 2);
        say(fd, "more", 4);
        pass(RETRY_MS);
        if (word == BLOCKS) {
            check_fate(fd, word);
        } else {
            expect_loaded(fd, words[word], 4);
        }
        warnings_expect_none();
        tear_down();
    }
}

/* A channel for preempt says nothing before QEMU has taken it */
static void test_wonder_silent(void)
{
    int fd;

    set_up_undecided();
    fd = wonder();
    pass(2 * PATIENCE_MS);
    g_assert_cmpint(loaded->len, ==, 0);
    wsm_listen_decide(&l, false);
    poll_all();
    expect_loaded(fd, NULL, 0);
    /* From now on QEMU is on its own */
    g_assert_cmpint(wonder(), ==, -1);
    warnings_expect_none();
    tear_down();
}

/* Block channels are there: then who says nothing is treated as ever */
static void test_wonder_ours(void)
{
    int silent, channel;

    set_up_undecided();
    silent = wonder();
    channel = wonder();
    say(channel, words[BLOCKS], 4);
    g_assert_cmpint(taken->len, ==, 1);
    wsm_listen_decide(&l, true);
    poll_all();
    g_assert_cmpint(l.nvisitors, ==, 1);
    g_assert_cmpint(l.nundecided, ==, 0);
    pass(PATIENCE_MS);
    expect_end(silent);
    warnings_expect("said nothing");
    close(channel);
    tear_down();
}

/* Somebody says that it is a block channel, and there are none */
static void test_wonder_others(void)
{
    int fd;

    set_up_undecided();
    wsm_listen_set_taker(&l, NULL, NULL);
    fd = wonder();
    say(fd, words[BLOCKS], 4);
    g_assert_cmpint(g_queue_get_length(l.waiting), ==, 1);
    wsm_listen_decide(&l, false);
    expect_end(fd);
    tear_down();
}

/* It hangs up: QEMU finds that out */
static void test_wonder_hangs_up(void)
{
    int fd;

    set_up_undecided();
    fd = wonder();
    close(fd);
    AWAIT(loaded->len == 1);
    g_assert_cmpint(l.nundecided, ==, 0);
    tear_down();
}

/* As many as multifd may have; but no more if QEMU would close them at once */
static void test_wonder_many(void)
{
    int fd[4 * MAX_VISITORS];

    set_up_undecided();
    for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
        fd[i] = wonder();
        g_assert_cmpint(fd[i], >=, 0);
    }
    complete = true;
    g_assert_cmpint(wonder(), ==, -1);
    complete = false;
    wsm_listen_decide(&l, false);
    poll_all();
    g_assert_cmpint(loaded->len, ==, ARRAY_SIZE(fd));
    for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
        close(fd[i]);
    }
    tear_down();
}

/* The main stream will never say it */
static void test_wonder_never(void)
{
    set_up_undecided();
    state.send_configuration = false;
    g_assert_cmpint(wonder(), ==, -1);
    tear_down();
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    qcrypto_init(&error_abort);
    qemu_init_main_loop(&error_abort);
    rust_bql_mock_lock();
    dir = g_dir_make_tmp("wsm-listen-XXXXXX", NULL);

    g_test_add_func("/wsm/listen/sort", test_sort);
    g_test_add_func("/wsm/listen/extra", test_extra);
    g_test_add_func("/wsm/listen/hangs-up", test_hangs_up);
    g_test_add_func("/wsm/listen/silent", test_silent);
    g_test_add_func("/wsm/listen/away", test_away);
    g_test_add_func("/wsm/listen/too-many", test_too_many);
    g_test_add_func("/wsm/listen/precedence", test_precedence);
    g_test_add_func("/wsm/listen/displaced-in-turn", test_displaced_in_turn);
    g_test_add_func("/wsm/listen/random", test_random);
    g_test_add_func("/wsm/listen/waiting", test_waiting);
    g_test_add_func("/wsm/listen/taker", test_taker);
    g_test_add_func("/wsm/listen/tls", test_tls);
    g_test_add_func("/wsm/listen/serve", test_serve);
    g_test_add_func("/wsm/listen/add", test_add);
    g_test_add_func("/wsm/listen/disconnect-race", test_disconnect_race);
    g_test_add_func("/wsm/listen/wonder/sort", test_wonder_sort);
    g_test_add_func("/wsm/listen/wonder/silent", test_wonder_silent);
    g_test_add_func("/wsm/listen/wonder/ours", test_wonder_ours);
    g_test_add_func("/wsm/listen/wonder/others", test_wonder_others);
    g_test_add_func("/wsm/listen/wonder/hangs-up", test_wonder_hangs_up);
    g_test_add_func("/wsm/listen/wonder/many", test_wonder_many);
    g_test_add_func("/wsm/listen/wonder/never", test_wonder_never);

    ret = g_test_run();
    g_rmdir(dir);
    g_free(dir);
    return ret;
}
