/*
 * Whole-system migration: opening a connection that is not to the peer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/aio.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-visit-sockets.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "migration/wsm/link/dial.h"

/* For the handshake.  To connect the kernel takes two minutes at most. */
#define WSM_HANDSHAKE_MS        10000

struct WsmDial {
    /* Set in dial, never changed */
    SocketAddress *addr;
    QCryptoTLSCreds *creds;     /* reference, or NULL */
    unsigned users;             /* atomic: the thread, and who waits */

    QemuMutex lock;             /* protects the fields below */
    Coroutine *co;              /* waits, or NULL */
    bool done;                  /* there is a result, or nobody wants it */
    QIOChannel *ioc;            /* the result, or */
    Error *err;
};

static void wsm_dial_unref(WsmDial *d)
{
    if (qatomic_fetch_dec(&d->users) > 1) {
        return;
    }
    if (d->ioc) {
        object_unref(OBJECT(d->ioc));
    }
    if (d->creds) {
        object_unref(OBJECT(d->creds));
    }
    error_free(d->err);
    qapi_free_SocketAddress(d->addr);
    qemu_mutex_destroy(&d->lock);
    g_free(d);
}

/* There is a result: @ioc or @err; or, without either, nobody wants it */
static void wsm_dial_done(WsmDial *d, QIOChannel *ioc, Error *err)
{
    Coroutine *co;

    WITH_QEMU_LOCK_GUARD(&d->lock) {
        d->done = true;
        if (ioc || err) {
            d->ioc = ioc;
            d->err = err;
        }
        co = g_steal_pointer(&d->co);
    }
    /* Not with the lock: in its own thread it may run at once */
    if (co) {
        aio_co_wake(co);
    }
}

typedef struct WsmHandshake {
    QIOChannel *sioc;
    bool done;
    Error *err;
} WsmHandshake;

static void wsm_handshake_done(QIOTask *task, gpointer opaque)
{
    WsmHandshake *h = opaque;

    qio_task_propagate_error(task, &h->err);
    h->done = true;
}

/* It is not done in time: so it fails */
static gboolean wsm_handshake_late(gpointer opaque)
{
    WsmHandshake *h = opaque;

    qio_channel_shutdown(h->sioc, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    return G_SOURCE_REMOVE;
}

/* Takes @sioc; returns NULL and sets @errp */
static QIOChannel *wsm_dial_tls(WsmDial *d, QIOChannel *sioc, Error **errp)
{
    const char *host = d->addr->type == SOCKET_ADDRESS_TYPE_INET
                       ? d->addr->u.inet.host : NULL;
    QIOChannelTLS *tioc = qio_channel_tls_new_client(sioc, d->creds, host,
                                                     errp);
    g_autoptr(GMainContext) context = g_main_context_new();
    g_autoptr(GSource) late = g_timeout_source_new(WSM_HANDSHAKE_MS);
    WsmHandshake h = { .sioc = sioc };

    if (!tioc) {
        object_unref(OBJECT(sioc));
        return NULL;
    }
    g_source_set_callback(late, wsm_handshake_late, &h, NULL);
    g_source_attach(late, context);
    qio_channel_set_blocking(QIO_CHANNEL(tioc), false, NULL);
    qio_channel_tls_handshake(tioc, wsm_handshake_done, &h, NULL, context);
    while (!h.done) {
        g_main_context_iteration(context, true);
    }
    g_source_destroy(late);
    object_unref(OBJECT(sioc));
    if (h.err) {
        error_propagate(errp, h.err);
        object_unref(OBJECT(tioc));
        return NULL;
    }
    return QIO_CHANNEL(tioc);
}

static void *wsm_dial_thread(void *opaque)
{
    WsmDial *d = opaque;
    QIOChannelSocket *sioc = qio_channel_socket_new();
    QIOChannel *ioc = QIO_CHANNEL(sioc);
    Error *err = NULL;

    if (qio_channel_socket_connect_sync(sioc, d->addr, &err) < 0) {
        g_clear_pointer(&ioc, object_unref);
    } else if (d->creds) {
        ioc = wsm_dial_tls(d, ioc, &err);
    }
    wsm_dial_done(d, ioc, err);
    wsm_dial_unref(d);
    return NULL;
}

WsmDial *wsm_dial(const SocketAddress *addr, QCryptoTLSCreds *creds)
{
    WsmDial *d = g_new0(WsmDial, 1);
    QemuThread thread;

    d->addr = QAPI_CLONE(SocketAddress, addr);
    d->creds = creds;
    if (creds) {
        object_ref(OBJECT(creds));
    }
    d->users = 2;
    qemu_mutex_init(&d->lock);
    qemu_thread_create(&thread, "wsm-dial", wsm_dial_thread, d,
                       QEMU_THREAD_DETACHED);
    return d;
}

QIOChannel *coroutine_fn wsm_dial_wait(WsmDial *d, Error **errp)
{
    QIOChannel *ioc = NULL;
    bool done;

    WITH_QEMU_LOCK_GUARD(&d->lock) {
        done = d->done;
        d->co = done ? NULL : qemu_coroutine_self();
    }
    if (!done) {
        qemu_coroutine_yield();
    }
    WITH_QEMU_LOCK_GUARD(&d->lock) {
        ioc = g_steal_pointer(&d->ioc);
        if (d->err) {
            error_propagate(errp, g_steal_pointer(&d->err));
        } else if (!ioc) {
            error_setg(errp, "the migration has ended");
        }
    }
    wsm_dial_unref(d);
    return ioc;
}

void wsm_dial_give_up(WsmDial *d)
{
    wsm_dial_done(d, NULL, NULL);
}
