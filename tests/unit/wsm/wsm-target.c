/*
 * For unit tests of the source: its destination, byte by byte
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "io/channel-socket.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/main-loop.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/tls.h"
#include "migration/wsm/link/target.h"
#include "wsm-target.h"

#define SOON_S          20              /* on any machine */

typedef struct Attempt {
    QIOTask *task;
    int fd;                     /* our end */
} Attempt;

static const WsmStart *start;
static const int64_t *disk_size;
static GQueue attempts = G_QUEUE_INIT;          /* of Attempt */
static unsigned nattempts;
static MigrationState state;

/*
 * What link/connect.c asks of migration, and link/target.c
 */

MigrationState *migrate_get_current(void)
{
    return &state;
}

bool target_says_tls;

bool migrate_tls(void)
{
    return target_says_tls;
}

QIOChannelTLS *migration_tls_client_create(QIOChannel *channel,
                                           const char *hostname, Error **errp)
{
    g_assert_not_reached();
}

void wsm_target_connect(SocketAddress *where, QIOTaskFunc done, void *opaque)
{
    Attempt *a = g_new(Attempt, 1);
    int theirs;

    g_assert_true(qemu_in_main_thread());
    a->fd = peer_pair(&theirs);
    a->task = qio_task_new(OBJECT(qio_channel_socket_new_fd(theirs,
                                                            &error_abort)),
                           done, opaque, NULL);
    g_queue_push_tail(&attempts, a);
    nattempts++;
}

/*
 * Connections
 */

void target_init(const WsmStart *new_start, const int64_t *new_disk_size)
{
    g_assert_true(g_queue_is_empty(&attempts));
    start = new_start;
    disk_size = new_disk_size;
    nattempts = 0;
}

unsigned target_attempts(void)
{
    return nattempts;
}

int64_t target_deadline(void)
{
    return g_get_monotonic_time() + SOON_S * G_USEC_PER_SEC;
}

void target_poll(int64_t deadline)
{
    g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* go on */
    }
    g_usleep(100);
}

void target_await(const unsigned *what, unsigned count)
{
    target_poll_until(qatomic_load_acquire(what) >= count);
}

bool target_is_asked(void)
{
    return !g_queue_is_empty(&attempts);
}

void target_await_attempt(void)
{
    target_poll_until(target_is_asked());
}

/* Take the oldest attempt, and end it */
static int target_complete(const char *error)
{
    g_autofree Attempt *a = NULL;
    Error *err = NULL;

    target_await_attempt();
    a = g_queue_pop_head(&attempts);
    if (error) {
        error_setg(&err, "%s", error);
        qio_task_set_error(a->task, err);
    }
    qio_task_complete(a->task);
    qio_task_free(a->task);
    return a->fd;
}

void target_fail(const char *error)
{
    close(target_complete(error));
}

int target_connect(void)
{
    return target_complete(NULL);
}

void target_cleanup(void)
{
    while (!g_queue_is_empty(&attempts)) {
        target_fail("the test is over");
    }
    /* Those that were only asked for */
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* go on */
    }
    g_assert_true(g_queue_is_empty(&attempts));
}

int target_accept(WsmHello *hello)
{
    uint8_t preamble[WSM_PREAMBLE_SIZE], payload[WSM_HELLO_SIZE];
    int fd = target_connect();
    WsmMsg msg;

    peer_read(fd, preamble, sizeof(preamble));
    g_assert_cmphex(ldl_be_p(preamble), ==, WSM_PREAMBLE);
    msg = target_recv(fd, 0, payload, sizeof(payload));
    g_assert_cmpint(msg.type, ==, WSM_MSG_HELLO);
    g_assert_true(wsm_hello_decode(payload, hello, &error_abort));
    return fd;
}

void target_say_welcome(int fd, uint32_t features)
{
    WsmMsg msg = { .type = WSM_MSG_WELCOME, .length = WSM_WELCOME_SIZE };
    uint8_t payload[WSM_WELCOME_SIZE];

    wsm_welcome_encode(features, payload);
    peer_send(fd, &msg, payload);
}

void target_say_refuse(int fd, const char *text)
{
    WsmMsg msg = { .type = WSM_MSG_REFUSE, .length = strlen(text) };

    peer_send(fd, &msg, text);
}

int target_welcome(unsigned *channel)
{
    WsmHello hello;
    int fd = target_accept(&hello);

    g_assert_cmpint(hello.channel, <, start->channels);
    *channel = hello.channel;
    target_say_welcome(fd, wsm_features_in_use(start));
    return fd;
}

void target_welcome_all(int *fd, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        fd[i] = -1;
    }
    for (unsigned i = 0; i < count; i++) {
        unsigned channel;
        int new = target_welcome(&channel);

        g_assert_cmpint(channel, <, count);
        g_assert_cmpint(fd[channel], ==, -1);
        fd[channel] = new;
    }
}

WsmMsg target_recv(int fd, unsigned channel, void *payload, size_t max)
{
    WsmLimits limits = {
        .from_source = true,
        .channel = channel,
        .disks = start->ndisks,
        .disk_size = disk_size,
        .granularity = start->granularity,
    };

    return peer_recv_msg(fd, limits, payload, max);
}
