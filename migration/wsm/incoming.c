/*
 * Whole-system migration: who is knocking at the destination's port?
 *
 * The main stream, multifd channels, block channels and strangers all come to
 * the same port, in any order.  They are told apart by the first bytes, at
 * which is only peeked; so those that are not ours go on as if nothing had
 * been.  TLS comes later on each of them.
 *
 * Everything here runs in the main thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "crypto/tlscreds.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "migration/channel.h"
#include "migration/migration.h"
#include "migration/multifd.h"
#include "migration/options.h"
#include "migration/savevm.h"
#include "qom/object_interfaces.h"
#include "dest.h"
#include "trace.h"

#define WSM_SNIFF_BYTES         4
#define WSM_SNIFF_TIMEOUT_MS    10000
#define WSM_SNIFF_RETRY_MS      20
#define WSM_HANDSHAKE_MS        2000
#define WSM_MAX_WAITING         32
#define WSM_MULTIFD_MAGIC       0x11223344
#define WSM_TLS_HANDSHAKE       0x16    /* first byte of a TLS connection */

/* A connection of which is not known yet what it is */
typedef struct WsmVisitor {
    QIOChannelSocket *sioc;
    int64_t deadline;           /* ms */
    guint watch, timer;         /* sources, until it has said something */
} WsmVisitor;

/* Block channels that came before START told us about the session */
static GQueue waiting = G_QUEUE_INIT;

/* ms: until then the main stream's TLS handshake has precedence */
static int64_t handshake_until;

static void wsm_visitor_free(WsmVisitor *v)
{
    object_unref(OBJECT(v->sioc));
    g_free(v);
}

static void wsm_incoming_channel(QIOChannel *ioc)
{
    WsmDest *d = wsm_get()->dest;

    object_ref(OBJECT(ioc));
    if (d && !d->stopped) {
        wsm_dest_new_channel(d, ioc);
        return;
    }
    if (g_queue_get_length(&waiting) >= WSM_MAX_WAITING) {
        object_unref(OBJECT(g_queue_pop_head(&waiting)));
    }
    g_queue_push_tail(&waiting, ioc);
}

void wsm_incoming_adopt(WsmDest *d)
{
    QIOChannel *ioc;

    while ((ioc = g_queue_pop_head(&waiting))) {
        wsm_dest_new_channel(d, ioc);
    }
}

static void wsm_incoming_tls_done(QIOTask *task, gpointer opaque)
{
    QIOChannel *ioc = QIO_CHANNEL(qio_task_get_source(task));
    Error *err = NULL;

    if (qio_task_propagate_error(task, &err)) {
        error_prepend(&err, "block channel: ");
        warn_report_err(err);
    } else {
        wsm_incoming_channel(ioc);
    }
    object_unref(OBJECT(ioc));
}

static QCryptoTLSCreds *wsm_incoming_tls_creds(Error **errp)
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

static bool wsm_incoming_start_tls(QIOChannel *ioc, Error **errp)
{
    QCryptoTLSCreds *creds = wsm_incoming_tls_creds(errp);
    QIOChannelTLS *tioc;

    tioc = creds ? qio_channel_tls_new_server(ioc, creds, migrate_tls_authz(),
                                              errp) : NULL;
    if (!tioc) {
        return false;
    }
    qio_channel_set_name(QIO_CHANNEL(tioc), "wsm-tls-incoming");
    qio_channel_tls_handshake(tioc, wsm_incoming_tls_done, NULL, NULL, NULL);
    return true;
}

/* The preamble has been seen: take it off the socket, go on with TLS if any */
static void wsm_visitor_is_block_channel(WsmVisitor *v)
{
    QIOChannel *ioc = QIO_CHANNEL(v->sioc);
    char preamble[WSM_PREAMBLE_SIZE];
    Error *err = NULL;

    qio_channel_set_name(ioc, "wsm-incoming");
    if (qio_channel_read_all(ioc, preamble, sizeof(preamble), &err) < 0 ||
        (migrate_tls() && !wsm_incoming_start_tls(ioc, &err))) {
        error_prepend(&err, "block channel: ");
        warn_report_err(err);
    } else if (!migrate_tls()) {
        wsm_incoming_channel(ioc);
    }
}

/* What QEMU does with a connection if there is no hook */
static void wsm_visitor_is_migration(WsmVisitor *v)
{
    QIOChannel *ioc = QIO_CHANNEL(v->sioc);

    if (migration_has_all_channels()) {
        warn_report("Extra incoming migration connection; ignoring");
        return;
    }
    qio_channel_set_name(ioc, "migration-socket-incoming");
    migration_channel_process_incoming(ioc);
}

static bool wsm_is_migration(const uint8_t *buf)
{
    MigrationIncomingState *mis = migration_incoming_get_current();
    uint32_t magic = ldl_be_p(buf);

    if (migrate_tls()) {
        return buf[0] == WSM_TLS_HANDSHAKE;
    }
    if (mis->state == MIGRATION_STATUS_POSTCOPY_PAUSED) {
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
static bool wsm_visitor_must_wait(const uint8_t *buf)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (!migrate_tls() || buf[0] != WSM_TLS_HANDSHAKE ||
        migration_incoming_get_current()->from_src_file) {
        return false;
    }
    if (now < handshake_until) {
        return true;
    }
    handshake_until = now + WSM_HANDSHAKE_MS;
    return false;
}

static void wsm_visitor_sort(WsmVisitor *v, const uint8_t *buf)
{
    trace_wsm_incoming(ldl_be_p(buf));
    if (ldl_be_p(buf) == WSM_PREAMBLE) {
        wsm_visitor_is_block_channel(v);
    } else if (wsm_is_migration(buf)) {
        wsm_visitor_is_migration(v);
    } else {
        warn_report("A connection to the migration port was closed: it began "
                    "with 0x%08x, which is no migration%s", ldl_be_p(buf),
                    migrate_tls() ? " with TLS" : "");
    }
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

static gboolean wsm_visitor_look(gpointer opaque)
{
    WsmVisitor *v = opaque;
    uint8_t buf[WSM_SNIFF_BYTES];
    int n = wsm_visitor_peek(v, buf);

    if (qemu_clock_get_ms(QEMU_CLOCK_REALTIME) < v->deadline &&
        ((n >= 0 && n < WSM_SNIFF_BYTES) ||
         (n == WSM_SNIFF_BYTES && wsm_visitor_must_wait(buf)))) {
        return G_SOURCE_CONTINUE;
    }
    if (n == WSM_SNIFF_BYTES) {
        wsm_visitor_sort(v, buf);
    } else if (n >= 0) {
        warn_report("A connection to the migration port was closed: it said "
                    "nothing for %d s", WSM_SNIFF_TIMEOUT_MS / 1000);
    }
    wsm_visitor_free(v);
    return G_SOURCE_REMOVE;
}

/*
 * Something came.  The first bytes nearly always come together.  If not, look
 * again every now and then: a watch on the socket would fire all the time.
 */
static gboolean wsm_visitor_speaks(QIOChannel *ioc, GIOCondition condition,
                                   gpointer opaque)
{
    WsmVisitor *v = opaque;

    g_source_remove(v->timer);
    if (wsm_visitor_look(v) == G_SOURCE_CONTINUE) {
        g_timeout_add(WSM_SNIFF_RETRY_MS, wsm_visitor_look, v);
    }
    return G_SOURCE_REMOVE;
}

static gboolean wsm_visitor_is_silent(gpointer opaque)
{
    WsmVisitor *v = opaque;

    g_source_remove(v->watch);
    wsm_visitor_look(v);
    return G_SOURCE_REMOVE;
}

bool wsm_incoming_accept(QIOChannelSocket *sioc)
{
    WsmVisitor *v;

    if (!migrate_whole_system()) {
        return false;
    }
    v = g_new(WsmVisitor, 1);
    v->sioc = sioc;
    v->deadline = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                  WSM_SNIFF_TIMEOUT_MS;
    object_ref(OBJECT(sioc));
    qio_channel_set_blocking(QIO_CHANNEL(sioc), false, NULL);
    v->watch = qio_channel_add_watch(QIO_CHANNEL(sioc), G_IO_IN | G_IO_HUP,
                                     wsm_visitor_speaks, v, NULL);
    /* Behind the deadline, so that this look is the last */
    v->timer = g_timeout_add(WSM_SNIFF_TIMEOUT_MS + WSM_SNIFF_RETRY_MS,
                             wsm_visitor_is_silent, v);
    return true;
}

int wsm_incoming_connections(void)
{
    return migrate_whole_system() ? WSM_MAX_CHANNELS : 0;
}
