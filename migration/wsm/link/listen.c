/*
 * Whole-system migration: who is knocking at the destination's port?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/aio.h"
#include "crypto/tlscreds.h"
#include "crypto/tlssession.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "io/net-listener.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/channel.h"
#include "migration/migration.h"
#include "migration/multifd.h"
#include "migration/options.h"
#include "migration/savevm.h"
#include "qom/object_interfaces.h"
#include "migration/wsm/link/block-channel.h"
#include "migration/wsm/link/listen.h"
#include "migration/wsm/trace.h"

#define WSM_SNIFF_BYTES         4
#define WSM_PATIENCE_MS         10000   /* for each step of a visitor */
#define WSM_STALL_MS            1000    /* a timer so late: we were away */
#define WSM_MAX_VISITORS        64
#define WSM_SNIFF_RETRY_NS      (20 * SCALE_MS)
#define WSM_HANDSHAKE_MS        2000
#define WSM_MAX_WAITING         32
#define WSM_MULTIFD_MAGIC       0x11223344
#define WSM_TLS_HANDSHAKE       0x16    /* first byte of a TLS connection */

/* A connection of which is not known yet what it is */
struct WsmVisitor {
    WsmListen *listen;
    QTAILQ_ENTRY(WsmVisitor) next;
    QIOChannelSocket *sioc;
    QEMUTimer timer;            /* shuts @sioc down, */
    int64_t deadline;           /* ms: then */
    bool late;                  /* and that has happened */
    bool displaced;             /* shut down, as others have come */
};

void wsm_listen_init(WsmListen *l, WsmListenAccept *accept)
{
    *l = (WsmListen) { .accept = accept, .waiting = g_queue_new() };
    QTAILQ_INIT(&l->visitors);
    QTAILQ_INIT(&l->undecided);
    qemu_mutex_init(&l->lock);
}

/* Takes the reference of @ioc */
static void wsm_listen_hand_over(WsmListen *l, QIOChannel *ioc)
{
    if (l->take && l->take(l->opaque, ioc)) {
        return;
    }
    if (l->news == WSM_LISTEN_OTHERS) {
        object_unref(OBJECT(ioc));
        return;
    }
    if (g_queue_get_length(l->waiting) >= WSM_MAX_WAITING) {
        object_unref(OBJECT(g_queue_pop_head(l->waiting)));
    }
    g_queue_push_tail(l->waiting, ioc);
}

void wsm_listen_set_taker(WsmListen *l, WsmListenTaker *take, void *opaque)
{
    GLOBAL_STATE_CODE();
    l->take = take;
    l->opaque = opaque;
    for (unsigned n = take ? g_queue_get_length(l->waiting) : 0; n; n--) {
        wsm_listen_hand_over(l, g_queue_pop_head(l->waiting));
    }
}

void wsm_listen_only_channels(WsmListen *l, bool only)
{
    GLOBAL_STATE_CODE();
    l->only_channels = only;
}

static QCryptoTLSCreds *wsm_listen_tls_creds(Error **errp)
{
    const char *id = migrate_tls_creds();
    Object *creds = object_resolve_path_component(object_get_objects_root(),
                                                  id);

    if (!creds || !object_dynamic_cast(creds, TYPE_QCRYPTO_TLS_CREDS)) {
        error_setg(errp, "there are no TLS credentials '%s'", id);
        return NULL;
    }
    if (!qcrypto_tls_creds_check_endpoint(QCRYPTO_TLS_CREDS(creds),
                                          QCRYPTO_TLS_CREDS_ENDPOINT_SERVER,
                                          errp)) {
        return NULL;
    }
    return QCRYPTO_TLS_CREDS(creds);
}

static bool coroutine_fn wsm_listen_handshake(QIOChannelTLS *tioc,
                                              Error **errp)
{
    int status;

    while ((status = qcrypto_tls_session_handshake(tioc->session, errp)) > 0) {
        qio_channel_yield(tioc->master, status == QCRYPTO_TLS_HANDSHAKE_SENDING
                                        ? G_IO_OUT : G_IO_IN);
    }
    return status == QCRYPTO_TLS_HANDSHAKE_COMPLETE &&
           qcrypto_tls_session_check_credentials(tioc->session, errp) == 0;
}

/* Returns the channel that is behind TLS, NULL on failure */
static QIOChannel *coroutine_fn wsm_listen_tls(QIOChannel *ioc, Error **errp)
{
    QCryptoTLSCreds *creds = wsm_listen_tls_creds(errp);
    QIOChannelTLS *tioc;

    tioc = creds ? qio_channel_tls_new_server(ioc, creds, migrate_tls_authz(),
                                              errp) : NULL;
    if (!tioc) {
        return NULL;
    }
    qio_channel_set_name(QIO_CHANNEL(tioc), "wsm-tls-incoming");
    if (!wsm_listen_handshake(tioc, errp)) {
        object_unref(OBJECT(tioc));
        return NULL;
    }
    return QIO_CHANNEL(tioc);
}

static void wsm_visitor_be_patient(WsmVisitor *v)
{
    v->deadline = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + WSM_PATIENCE_MS;
    timer_mod(&v->timer, v->deadline);
}

static void wsm_visitor_timeout(void *opaque)
{
    WsmVisitor *v = opaque;

    if (qemu_clock_get_ms(QEMU_CLOCK_REALTIME) > v->deadline + WSM_STALL_MS) {
        /* This thread was away, preparing disks, say; that is not its fault */
        wsm_visitor_be_patient(v);
        return;
    }
    v->late = true;
    qio_channel_shutdown(QIO_CHANNEL(v->sioc), QIO_CHANNEL_SHUTDOWN_BOTH,
                         NULL);
}

/* It leaves the list, sooner than its coroutine ends if it is displaced */
static void wsm_visitor_unlist(WsmVisitor *v)
{
    GLOBAL_STATE_CODE();
    QTAILQ_REMOVE(&v->listen->visitors, v, next);
    v->listen->nvisitors--;
}

/* If there are too many, a new one takes the place of the oldest */
static void wsm_visitor_enlist(WsmVisitor *v)
{
    WsmListen *l = v->listen;

    if (l->nvisitors >= WSM_MAX_VISITORS) {
        WsmVisitor *oldest = QTAILQ_FIRST(&l->visitors);

        warn_report_once("Too many connections to the migration port: the "
                         "oldest that say nothing are closed");
        oldest->displaced = true;
        qio_channel_shutdown(QIO_CHANNEL(oldest->sioc),
                             QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
        wsm_visitor_unlist(oldest);
    }
    QTAILQ_INSERT_TAIL(&l->visitors, v, next);
    l->nvisitors++;
}

/* The preamble has been seen: take it off the socket, go on with TLS if any */
static void coroutine_fn wsm_visitor_is_block_channel(WsmVisitor *v)
{
    QIOChannel *ioc = QIO_CHANNEL(v->sioc);
    char preamble[WSM_PREAMBLE_SIZE];
    QIOChannel *channel = NULL;
    Error *err = NULL;

    qio_channel_set_name(ioc, "wsm-incoming");
    if (qio_channel_read_all(ioc, preamble, sizeof(preamble), &err) == 0) {
        if (migrate_tls()) {
            wsm_visitor_be_patient(v);
            channel = wsm_listen_tls(ioc, &err);
            timer_del(&v->timer);
        } else {
            channel = QIO_CHANNEL(object_ref(OBJECT(ioc)));
        }
    }
    if (channel) {
        wsm_listen_hand_over(v->listen, channel);
        return;
    }
    if (v->displaced) {
        error_free(err);
        return;
    }
    if (v->late) {
        error_prepend(&err, "no TLS handshake within %d s: ",
                      WSM_PATIENCE_MS / 1000);
    }
    error_prepend(&err, "block channel: ");
    warn_report_err(err);
}

/* What QEMU does with a connection if there is no hook; takes a reference */
static void wsm_listen_migration_bh(void *opaque)
{
    QIOChannel *ioc = opaque;

    if (migration_has_all_channels()) {
        warn_report("Extra incoming migration connection; ignoring");
    } else {
        qio_channel_set_name(ioc, "migration-socket-incoming");
        migration_channel_process_incoming(ioc);
    }
    object_unref(OBJECT(ioc));
}

static bool wsm_is_migration(const WsmListen *l, const uint8_t *buf)
{
    MigrationIncomingState *mis = migration_incoming_get_current();
    uint32_t magic = ldl_be_p(buf);

    if (l->only_channels) {
        return false;
    }
    if (migrate_tls()) {
        return buf[0] == WSM_TLS_HANDSHAKE;
    }
    if (qatomic_read(&mis->state) == MIGRATION_STATUS_POSTCOPY_PAUSED) {
        /* A stream that goes on has no header, it begins with a command */
        return buf[0] == QEMU_VM_COMMAND;
    }
    return magic == QEMU_VM_FILE_MAGIC ||
           (migrate_multifd() && magic == WSM_MULTIFD_MAGIC);
}

/*
 * Behind TLS, QEMU takes the first connection for the main stream.  That is the
 * first that has shaken hands, so no other may begin meanwhile.
 */
static bool wsm_visitor_must_wait(WsmVisitor *v, const uint8_t *buf)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (!migrate_tls() || buf[0] != WSM_TLS_HANDSHAKE ||
        migration_incoming_get_current()->from_src_file) {
        return false;
    }
    if (now < v->listen->handshake_until) {
        return true;
    }
    v->listen->handshake_until = now + WSM_HANDSHAKE_MS;
    return false;
}

/* Returns how many of the first bytes are there, negative: it has ended */
static int wsm_visitor_peek(WsmVisitor *v, uint8_t *buf)
{
    struct iovec iov = { .iov_base = buf, .iov_len = WSM_SNIFF_BYTES };
    ssize_t n = qio_channel_readv_full(QIO_CHANNEL(v->sioc), &iov, 1, NULL,
                                       NULL, QIO_CHANNEL_READ_FLAG_MSG_PEEK,
                                       NULL);

    if (n == QIO_CHANNEL_ERR_BLOCK) {
        return 0;
    }
    return n > 0 ? n : -1;
}

/* The same; if not all are there, it waits before it returns */
static int coroutine_fn wsm_visitor_await(WsmVisitor *v, uint8_t *buf)
{
    int n = wsm_visitor_peek(v, buf);

    if (n == 0) {
        qio_channel_yield(QIO_CHANNEL(v->sioc), G_IO_IN);
    } else if (n > 0 && n < WSM_SNIFF_BYTES) {
        /* They nearly always come together; to yield would not wait now */
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, WSM_SNIFF_RETRY_NS);
    }
    return n;
}

/* Wait for the first bytes.  False: they did not come. */
static bool coroutine_fn wsm_visitor_speaks(WsmVisitor *v, uint8_t *buf)
{
    int n;

    while (!v->late && (n = wsm_visitor_await(v, buf)) < WSM_SNIFF_BYTES) {
        if (n < 0) {
            return false;
        }
    }
    return !v->late;
}

/* @buf has the first bytes */
static void coroutine_fn wsm_visitor_sort(WsmVisitor *v, const uint8_t *buf)
{
    int64_t deadline = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                       WSM_PATIENCE_MS;

    trace_wsm_incoming(ldl_be_p(buf));
    if (ldl_be_p(buf) == WSM_PREAMBLE) {
        wsm_visitor_is_block_channel(v);
        return;
    }
    while (!v->displaced && wsm_visitor_must_wait(v, buf) &&
           qemu_clock_get_ms(QEMU_CLOCK_REALTIME) < deadline) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, WSM_SNIFF_RETRY_NS);
    }
    if (v->displaced) {
        return;
    }
    if (wsm_is_migration(v->listen, buf)) {
        /* QEMU's loading is for the main loop, and not begun in a coroutine */
        qio_channel_set_follow_coroutine_ctx(QIO_CHANNEL(v->sioc), false);
        aio_bh_schedule_oneshot(qemu_get_aio_context(),
                                wsm_listen_migration_bh,
                                object_ref(OBJECT(v->sioc)));
    } else {
        warn_report("A connection to the migration port was closed: it began "
                    "with 0x%08x, which is no %s%s", ldl_be_p(buf),
                    v->listen->only_channels ? "block channel" : "migration",
                    migrate_tls() ? " with TLS" : "");
    }
}

static void coroutine_fn wsm_visitor_serve(WsmVisitor *v)
{
    uint8_t buf[WSM_SNIFF_BYTES];

    wsm_keep_alive(QIO_CHANNEL(v->sioc));
    aio_timer_init(qemu_get_aio_context(), &v->timer, QEMU_CLOCK_REALTIME,
                   SCALE_MS, wsm_visitor_timeout, v);
    wsm_visitor_be_patient(v);
    wsm_visitor_enlist(v);
    if (wsm_visitor_speaks(v, buf)) {
        timer_del(&v->timer);
        wsm_visitor_sort(v, buf);
    } else if (v->late) {
        warn_report("A connection to the migration port was closed: it said "
                    "nothing for %d s", WSM_PATIENCE_MS / 1000);
    }
    timer_del(&v->timer);
    if (!v->displaced) {
        wsm_visitor_unlist(v);
    }
}

typedef struct WsmKnock {
    WsmListen *listen;
    QIOChannelSocket *sioc;     /* a reference */
} WsmKnock;

static void coroutine_fn wsm_visitor_co(void *opaque)
{
    g_autofree WsmKnock *knock = opaque;
    WsmVisitor v = { .listen = knock->listen, .sioc = knock->sioc };

    wsm_visitor_serve(&v);
    object_unref(OBJECT(v.sioc));
}

static void wsm_listen_look(WsmListen *l, QIOChannelSocket *sioc,
                            CoroutineEntry *co)
{
    WsmKnock *knock = g_new(WsmKnock, 1);

    GLOBAL_STATE_CODE();
    *knock = (WsmKnock) {
        .listen = l, .sioc = QIO_CHANNEL_SOCKET(object_ref(OBJECT(sioc))),
    };
    qio_channel_set_blocking(QIO_CHANNEL(sioc), false, NULL);
    /* Else a coroutine's channel is served by the main loop only */
    qio_channel_set_follow_coroutine_ctx(QIO_CHANNEL(sioc), true);
    aio_co_schedule(qemu_get_aio_context(), qemu_coroutine_create(co, knock));
}

void wsm_listen_accept(WsmListen *l, QIOChannelSocket *sioc)
{
    wsm_listen_look(l, sioc, wsm_visitor_co);
}

/*
 * Without the capability
 */

static bool coroutine_fn wsm_visitor_is_ours(WsmVisitor *v)
{
    uint8_t buf[WSM_SNIFF_BYTES];
    int n = 0;

    while (v->listen->news == WSM_LISTEN_UNKNOWN &&
           (n = wsm_visitor_await(v, buf)) < WSM_SNIFF_BYTES) {
        if (n < 0) {
            return false;
        }
    }
    return v->listen->news == WSM_LISTEN_OURS ||
           (n == WSM_SNIFF_BYTES && ldl_be_p(buf) == WSM_PREAMBLE);
}

static void coroutine_fn wsm_undecided_co(void *opaque)
{
    g_autofree WsmKnock *knock = opaque;
    WsmListen *l = knock->listen;
    WsmVisitor v = { .listen = l, .sioc = knock->sioc };
    bool ours;

    QTAILQ_INSERT_TAIL(&l->undecided, &v, next);
    ours = wsm_visitor_is_ours(&v);
    QTAILQ_REMOVE(&l->undecided, &v, next);
    l->nundecided--;
    if (ours) {
        wsm_visitor_serve(&v);
        object_unref(OBJECT(v.sioc));
        return;
    }
    /* As if nothing had been */
    qio_channel_set_follow_coroutine_ctx(QIO_CHANNEL(v.sioc), false);
    qio_channel_set_blocking(QIO_CHANNEL(v.sioc), true, NULL);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), wsm_listen_migration_bh,
                            v.sioc);
}

bool wsm_listen_wonder(WsmListen *l, QIOChannelSocket *sioc)
{
    bool first = !l->begun;

    assert(bql_locked());
    l->begun = true;
    /* The main stream is the first, and must go on to tell us */
    if (first || l->news != WSM_LISTEN_UNKNOWN ||
        /* It does not begin with the capabilities */
        !migrate_get_current()->send_configuration ||
        /* QEMU closes it, as it would have done at once */
        (l->nundecided >= WSM_MAX_VISITORS && migration_has_all_channels())) {
        return false;
    }
    l->nundecided++;
    wsm_listen_look(l, sioc, wsm_undecided_co);
    return true;
}

void wsm_listen_decide(WsmListen *l, bool ours)
{
    WsmVisitor *v, *next;

    assert(bql_locked());
    l->news = ours ? WSM_LISTEN_OURS : WSM_LISTEN_OTHERS;
    while (!ours && !g_queue_is_empty(l->waiting)) {
        object_unref(OBJECT(g_queue_pop_head(l->waiting)));
    }
    QTAILQ_FOREACH_SAFE(v, &l->undecided, next, next) {
        qio_channel_wake_read(QIO_CHANNEL(v->sioc));
    }
}

/*
 * The listener
 */

static void wsm_listen_ready(void *opaque)
{
    WsmListen *l = opaque;

    QEMU_LOCK_GUARD(&l->lock);
    for (size_t i = 0; l->served && i < l->served->nsioc; i++) {
        QIOChannelSocket *sioc =
            qio_channel_socket_accept(l->served->sioc[i], NULL);

        if (sioc) {
            l->accept(sioc);
            object_unref(OBJECT(sioc));
        }
    }
}

/* With @lock, which @handler takes, too */
static void wsm_listen_set_handler(WsmListen *l, QIONetListener *listener,
                                   IOHandler *handler)
{
    for (size_t i = 0; i < listener->nsioc; i++) {
        aio_set_fd_handler(qemu_get_aio_context(), listener->sioc[i]->fd,
                           handler, NULL, NULL, NULL, l);
    }
}

void wsm_listen_serve(WsmListen *l, QIONetListener *listener)
{
    GLOBAL_STATE_CODE();
    QEMU_LOCK_GUARD(&l->lock);
    if (l->served || !qio_net_listener_is_connected(listener)) {
        return;
    }
    qio_net_listener_set_client_func_full(listener, NULL, NULL, NULL, NULL);
    for (size_t i = 0; i < listener->nsioc; i++) {
        /* Another thread may be about to accept the same connection */
        qio_channel_set_blocking(QIO_CHANNEL(listener->sioc[i]), false, NULL);
    }
    wsm_listen_set_handler(l, listener, wsm_listen_ready);
    l->served = QIO_NET_LISTENER(object_ref(OBJECT(listener)));
}

typedef struct WsmListenAdd {
    WsmListen *listen;
    QIONetListener *listener;   /* a reference */
} WsmListenAdd;

static void wsm_listen_add_bh(void *opaque)
{
    g_autofree WsmListenAdd *add = opaque;

    if (add->listen->take) {
        wsm_listen_serve(add->listen, add->listener);
    }
    object_unref(OBJECT(add->listener));
}

void wsm_listen_add(WsmListen *l, QIONetListener *listener)
{
    WsmListenAdd *add = g_new(WsmListenAdd, 1);

    add->listen = l;
    add->listener = QIO_NET_LISTENER(object_ref(OBJECT(listener)));
    aio_bh_schedule_oneshot(qemu_get_aio_context(), wsm_listen_add_bh, add);
}

void wsm_listen_disconnect(WsmListen *l, QIONetListener *listener)
{
    QEMU_LOCK_GUARD(&l->lock);

    if (l->served == listener) {
        wsm_listen_set_handler(l, listener, NULL);
        for (size_t i = 0; i < listener->nsioc; i++) {
            /* The kernel keeps it open as long as the main thread polls it */
            qio_channel_shutdown(QIO_CHANNEL(listener->sioc[i]),
                                 QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
        }
        l->served = NULL;
        object_unref(OBJECT(listener));
    }
    /* Here, so that wsm_listen_serve() cannot come in between */
    qio_net_listener_disconnect(listener);
}
