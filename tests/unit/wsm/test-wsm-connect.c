/*
 * Unit tests of migration/wsm/link/connect.c
 *
 * wsm_connect() runs in a loop, the attempt in this thread: only when it
 * polls, and it ends only when the test says so.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "io/channel-socket.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/main-loop.h"
#include "qemu/sockets.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/tls.h"
#include "migration/wsm/core/loop.h"
#include "migration/wsm/link/connect.h"
#include "migration/wsm/link/target.h"
#include "migration/wsm/wire/message.h"

static WsmLoop loop;
static WsmConnector connector;
static SocketAddress first, second, *target;

/* What the coroutine got */
static QIOChannel *ioc;
static Error *err;
static unsigned ended;                  /* atomic */

/* The attempt that is under way, and how many there have been */
static QIOTask *task;
static unsigned attempts;
static SocketAddress *attempted;        /* where it goes */
static int peer;                        /* the other end of the connection */

/*
 * What connect.c asks of migration
 */

static MigrationState state;
static bool tls;

MigrationState *migrate_get_current(void)
{
    return &state;
}

bool migrate_tls(void)
{
    return tls;
}

QIOChannelTLS *migration_tls_client_create(QIOChannel *channel,
                                           const char *hostname, Error **errp)
{
    error_setg(errp, "no TLS with %s", hostname);
    return NULL;
}

void wsm_target_connect(SocketAddress *to, QIOTaskFunc done, void *data)
{
    QIOChannelSocket *sioc;
    int fd[2];

    g_assert_true(qemu_in_main_thread());
    g_assert_null(task);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), ==, 0);
    sioc = qio_channel_socket_new_fd(fd[0], &error_abort);
    peer = fd[1];
    task = qio_task_new(OBJECT(sioc), done, data, NULL);
    attempted = to;
    attempts++;
}

/*
 * Steps
 */

static void set_up(void)
{
    attempts = ended = 0;
    peer = -1;
    tls = false;
    wsm_loop_init(&loop, "test", &error_abort);
    target = &first;
    wsm_connector_init(&connector, &target);
}

static void tear_down(void)
{
    wsm_loop_stop(&loop);
    wsm_loop_destroy(&loop);
    wsm_connector_destroy(&connector);
    g_assert_null(ioc);
    g_assert_null(err);
    g_assert_null(task);
}

static void coroutine_fn connect_co(void *opaque)
{
    QIOChannel *got = wsm_connect(&connector, &err);

    g_assert_true(wsm_loop_is_here(&loop));
    g_assert_true(!got == !!err);
    ioc = got;
    qatomic_inc(&ended);
}

static bool is_asked_for(void)
{
    QEMU_LOCK_GUARD(&connector.lock);
    return connector.attempt;
}

/* The attempt is asked for, but has not begun */
static void begin(void)
{
    g_assert_true(wsm_loop_start(&loop, connect_co, NULL));
    while (!is_asked_for() && !qatomic_read(&ended)) {
        g_usleep(100);
    }
}

static void await_attempt(unsigned count)
{
    while (attempts < count) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

static void await_end(unsigned count)
{
    while (qatomic_load_acquire(&ended) < count) {
        g_usleep(100);
    }
    g_assert_cmpuint(qatomic_read(&ended), ==, count);
}

static void complete(const char *error)
{
    if (error) {
        Error *local_err = NULL;

        error_setg(&local_err, "%s", error);
        qio_task_set_error(task, local_err);
    }
    qio_task_complete(task);
    g_clear_pointer(&task, qio_task_free);
}

static void expect_error(const char *text)
{
    g_assert_null(ioc);
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(g_steal_pointer(&err));
}

/* What the peer hears before the end is the preamble, or nothing */
static void expect_preamble(bool expected)
{
    uint8_t buf[WSM_PREAMBLE_SIZE + 1];
    ssize_t size = recv(peer, buf, sizeof(buf), MSG_WAITALL);

    g_assert_cmpint(size, ==, expected ? WSM_PREAMBLE_SIZE : 0);
    if (expected) {
        g_assert_cmphex(ldl_be_p(buf), ==, WSM_PREAMBLE);
    }
    close(peer);
}

/* After this the peer must hear the end, as there is no other reference */
static void drop_connection(void)
{
    g_assert_null(err);
    g_assert_nonnull(ioc);
    object_unref(OBJECT(g_steal_pointer(&ioc)));
    expect_preamble(true);
}

/*
 * Tests
 */

static void test_connected(void)
{
    set_up();
    for (unsigned i = 1; i <= 3; i++) {
        begin();
        await_attempt(i);
        g_assert_cmpuint(qatomic_read(&ended), ==, i - 1);
        complete(NULL);
        await_end(i);
        drop_connection();
    }
    tear_down();
}

static void test_refused(void)
{
    set_up();
    begin();
    await_attempt(1);
    complete("nobody there");
    await_end(1);
    expect_error("nobody there");
    expect_preamble(false);

    /* Another time it works */
    begin();
    await_attempt(2);
    complete(NULL);
    await_end(2);
    drop_connection();
    tear_down();
}

/* The main stream has gone elsewhere meanwhile */
static void test_other_target(void)
{
    set_up();
    begin();
    await_attempt(1);
    g_assert_true(attempted == &first);
    complete(NULL);
    await_end(1);
    drop_connection();

    target = &second;
    begin();
    await_attempt(2);
    g_assert_true(attempted == &second);
    complete(NULL);
    await_end(2);
    drop_connection();
    tear_down();
}

/* The preamble is in clear; whose certificate is it to be? */
static void test_no_tls(void)
{
    set_up();
    tls = true;
    state.hostname = (char *)"beta";
    begin();
    await_attempt(1);
    complete(NULL);
    await_end(1);
    expect_error("no TLS with beta");
    expect_preamble(true);
    tear_down();
}

/* The peer is gone before the preamble */
static void test_broken(void)
{
    set_up();
    begin();
    await_attempt(1);
    close(peer);
    complete(NULL);
    await_end(1);
    g_assert_null(ioc);
    error_free_or_abort(&err);
    tear_down();
}

static void test_quit_before(void)
{
    set_up();
    wsm_connector_quit(&connector);
    for (unsigned i = 1; i <= 2; i++) {
        begin();
        await_end(i);
        expect_error("the migration has ended");
    }
    wsm_connector_quit(&connector);
    tear_down();
    g_assert_cmpuint(attempts, ==, 0);
}

/* The address may be gone by then: it must not be used */
static void test_quit_asked_for(void)
{
    set_up();
    begin();
    wsm_connector_quit(&connector);
    await_end(1);
    expect_error("the migration has ended");
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* This frees the attempt */
    }
    g_assert_cmpuint(attempts, ==, 0);
    tear_down();
}

/* It does not wait for the attempt, which cleans up when it ends */
static void quit_under_way(const char *error)
{
    set_up();
    begin();
    await_attempt(1);
    wsm_connector_quit(&connector);
    await_end(1);
    expect_error("the migration has ended");
    tls = true;
    complete(error);
    expect_preamble(false);
    begin();
    await_end(2);
    expect_error("the migration has ended");
    tear_down();
    g_assert_cmpuint(attempts, ==, 1);
}

static void test_quit_under_way(void)
{
    quit_under_way(NULL);
    quit_under_way("nobody there");
}

static void wait_bh(void *opaque)
{
    qemu_sem_wait(opaque);
}

/* The coroutine is about to be woken: only once */
static void test_quit_after(void)
{
    QemuSemaphore sem;

    set_up();
    begin();
    await_attempt(1);
    qemu_sem_init(&sem, 0);
    g_assert_true(wsm_loop_bh(&loop, wait_bh, &sem));
    complete(NULL);
    wsm_connector_quit(&connector);
    g_assert_cmpuint(qatomic_read(&ended), ==, 0);
    qemu_sem_post(&sem);
    await_end(1);
    drop_connection();
    qemu_sem_destroy(&sem);
    tear_down();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    qemu_init_main_loop(&error_abort);

    g_test_add_func("/wsm/connect/connected", test_connected);
    g_test_add_func("/wsm/connect/refused", test_refused);
    g_test_add_func("/wsm/connect/other-target", test_other_target);
    g_test_add_func("/wsm/connect/no-tls", test_no_tls);
    g_test_add_func("/wsm/connect/broken", test_broken);
    g_test_add_func("/wsm/connect/quit-before", test_quit_before);
    g_test_add_func("/wsm/connect/quit-asked-for", test_quit_asked_for);
    g_test_add_func("/wsm/connect/quit-under-way", test_quit_under_way);
    g_test_add_func("/wsm/connect/quit-after", test_quit_after);
    return g_test_run();
}
