/*
 * Whole-system migration: opening a block channel from the source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/aio.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "qemu/bswap.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/tls.h"
#include "migration/wsm/link/connect.h"
#include "migration/wsm/link/target.h"
#include "migration/wsm/wire/message.h"

typedef struct WsmConnectAttempt {
    WsmConnector *connector;    /* NULL: abandoned; protected by @lock */
    SocketAddress *const *target;   /* the connector's */
    QemuMutex lock;
    Coroutine *co;              /* waits for the result */
    QIOChannel *ioc;            /* the result, or */
    Error *err;
    bool done;                  /* @lock */
} WsmConnectAttempt;

void wsm_connector_init(WsmConnector *c, SocketAddress *const *target)
{
    *c = (WsmConnector) { .target = target };
    qemu_mutex_init(&c->lock);
}

void wsm_connector_destroy(WsmConnector *c)
{
    GLOBAL_STATE_CODE();
    assert(!c->attempt);
    qemu_mutex_destroy(&c->lock);
}

static void wsm_attempt_free(WsmConnectAttempt *a)
{
    qemu_mutex_destroy(&a->lock);
    error_free(a->err);
    if (a->ioc) {
        object_unref(OBJECT(a->ioc));
    }
    g_free(a);
}

/* Main thread, and there it is told to quit: false stays so for the caller */
static bool wsm_attempt_is_abandoned(WsmConnectAttempt *a)
{
    GLOBAL_STATE_CODE();
    QEMU_LOCK_GUARD(&a->lock);
    return !a->connector;
}

/* Main thread: the attempt is over; wake who waits, or clean up for it */
static void wsm_attempt_finish(WsmConnectAttempt *a)
{
    bool abandoned;

    GLOBAL_STATE_CODE();
    WITH_QEMU_LOCK_GUARD(&a->lock) {
        abandoned = !a->connector;
        a->done = true;
    }
    if (abandoned) {
        wsm_attempt_free(a);
    } else {
        aio_co_wake(a->co);
    }
}

static void wsm_attempt_tls_done(QIOTask *task, gpointer opaque)
{
    WsmConnectAttempt *a = opaque;

    qio_task_propagate_error(task, &a->err);
    wsm_attempt_finish(a);
}

/* Returns true if the attempt goes on */
static bool wsm_attempt_start_tls(WsmConnectAttempt *a)
{
    MigrationState *s = migrate_get_current();
    QIOChannelTLS *tioc;

    tioc = migration_tls_client_create(a->ioc, s->hostname, &a->err);
    if (!tioc) {
        return false;
    }
    object_unref(OBJECT(a->ioc));
    a->ioc = QIO_CHANNEL(tioc);
    qio_channel_set_name(a->ioc, "wsm-tls-outgoing");
    /* The other side may take its time, and this is the main thread */
    qio_channel_set_blocking(a->ioc, false, NULL);
    qio_channel_tls_handshake(tioc, wsm_attempt_tls_done, a, NULL, NULL);
    return true;
}

static void wsm_attempt_connected(QIOTask *task, gpointer opaque)
{
    WsmConnectAttempt *a = opaque;
    QIOChannel *ioc = QIO_CHANNEL(qio_task_get_source(task));
    uint8_t preamble[WSM_PREAMBLE_SIZE];

    if (qio_task_propagate_error(task, &a->err)) {
        object_unref(OBJECT(ioc));
        wsm_attempt_finish(a);
        return;
    }

    a->ioc = ioc;
    if (wsm_attempt_is_abandoned(a)) {
        /* The parameters for TLS are no longer those of its migration */
        wsm_attempt_finish(a);
        return;
    }
    qio_channel_set_name(ioc, "wsm-outgoing");
    stl_be_p(preamble, WSM_PREAMBLE);
    /* A new socket has room for four bytes: this does not block */
    if (qio_channel_write_all(ioc, (char *)preamble, sizeof(preamble),
                              &a->err) < 0 ||
        !migrate_tls() || !wsm_attempt_start_tls(a)) {
        wsm_attempt_finish(a);
    }
}

/* An end that comes before us may have freed the target already */
static void wsm_attempt_start_bh(void *opaque)
{
    WsmConnectAttempt *a = opaque;

    if (wsm_attempt_is_abandoned(a)) {
        wsm_attempt_finish(a);
    } else {
        wsm_target_connect(*a->target, wsm_attempt_connected, a);
    }
}

/* Returns NULL if the connector is told to quit */
static WsmConnectAttempt *wsm_attempt_new(WsmConnector *c)
{
    WsmConnectAttempt *a;

    QEMU_LOCK_GUARD(&c->lock);
    if (c->quit) {
        return NULL;
    }
    assert(!c->attempt);
    a = g_new0(WsmConnectAttempt, 1);
    qemu_mutex_init(&a->lock);
    a->connector = c;
    a->target = c->target;
    a->co = qemu_coroutine_self();
    c->attempt = a;
    return a;
}

QIOChannel *coroutine_fn wsm_connect(WsmConnector *c, Error **errp)
{
    WsmConnectAttempt *a = wsm_attempt_new(c);
    QIOChannel *ioc = NULL;
    bool abandoned;

    assert(qemu_in_coroutine() &&
           qemu_get_current_aio_context() != qemu_get_aio_context());
    if (!a) {
        error_setg(errp, "the migration has ended");
        return NULL;
    }

    aio_bh_schedule_oneshot(qemu_get_aio_context(), wsm_attempt_start_bh, a);
    qemu_coroutine_yield();

    WITH_QEMU_LOCK_GUARD(&c->lock) {
        abandoned = !c->attempt;
        c->attempt = NULL;
    }
    if (abandoned) {
        error_setg(errp, "the migration has ended");
        return NULL;
    }
    if (a->err) {
        error_propagate(errp, g_steal_pointer(&a->err));
    } else {
        ioc = g_steal_pointer(&a->ioc);
    }
    wsm_attempt_free(a);
    return ioc;
}

void wsm_connector_quit(WsmConnector *c)
{
    WsmConnectAttempt *a;
    Coroutine *co;

    GLOBAL_STATE_CODE();
    QEMU_LOCK_GUARD(&c->lock);
    c->quit = true;
    a = c->attempt;
    if (!a) {
        return;
    }
    co = a->co;
    WITH_QEMU_LOCK_GUARD(&a->lock) {
        if (a->done) {
            return;
        }
        a->connector = NULL;
    }
    c->attempt = NULL;
    /* From here on the main thread may free the attempt at any time */
    aio_co_wake(co);
}
