/*
 * Whole-system migration: a block channel
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#ifdef CONFIG_LINUX
#include <linux/sockios.h>
#endif
#include "block/aio.h"
#include "io/channel-tls.h"
#include "qemu/lockable.h"
#include "migration/yank_functions.h"
#include "migration/wsm/link/block-channel.h"
#include "migration/wsm/trace.h"

#define WSM_KEEPALIVE_IDLE_S    30
#define WSM_KEEPALIVE_COUNT     30      /* unanswered, with as much between */

QIOChannelSocket *wsm_channel_socket(QIOChannel *ioc)
{
    QIOChannelTLS *tioc = (QIOChannelTLS *)
        object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_TLS);

    return (QIOChannelSocket *)
        object_dynamic_cast(OBJECT(tioc ? tioc->master : ioc),
                            TYPE_QIO_CHANNEL_SOCKET);
}

uint64_t wsm_channel_queued(QIOChannel *ioc)
{
    QIOChannelSocket *sioc = wsm_channel_socket(ioc);
    int queued = 0;

#ifdef SIOCOUTQ
    /* Other sockets count something else */
    if (sioc && (sioc->remoteAddr.ss_family == AF_INET ||
                 sioc->remoteAddr.ss_family == AF_INET6) &&
        ioctl(sioc->fd, SIOCOUTQ, &queued) < 0) {
        return 0;
    }
#endif
    return MAX(queued, 0);
}

static void wsm_set_option(QIOChannelSocket *sioc, int level, int option,
                           int value)
{
    /* Not all sockets have them all; those that lack them need them not */
    setsockopt(sioc->fd, level, option, &value, sizeof(value));
}

void wsm_keep_alive(QIOChannel *ioc)
{
    QIOChannelSocket *sioc = wsm_channel_socket(ioc);

    if (sioc) {
        wsm_set_option(sioc, SOL_SOCKET, SO_KEEPALIVE, 1);
        wsm_set_option(sioc, IPPROTO_TCP, TCP_KEEPIDLE, WSM_KEEPALIVE_IDLE_S);
        wsm_set_option(sioc, IPPROTO_TCP, TCP_KEEPINTVL, WSM_KEEPALIVE_IDLE_S);
        wsm_set_option(sioc, IPPROTO_TCP, TCP_KEEPCNT, WSM_KEEPALIVE_COUNT);
    }
}

void wsm_channel_init(WsmChannel *c, unsigned id, bool yank)
{
    c->id = id;
    c->yank = yank;
    c->ctx = NULL;
    c->ioc = NULL;
    qemu_co_mutex_init(&c->send_lock);
    qemu_mutex_init(&c->lock);
}

void wsm_channel_destroy(WsmChannel *c)
{
    assert(!c->ioc);
    qemu_mutex_destroy(&c->lock);
}

/* Where its coroutines run; before the first attach there are none */
static bool wsm_channel_is_here(const WsmChannel *c)
{
    return !c->ctx || c->ctx == qemu_get_current_aio_context();
}

void wsm_channel_attach(WsmChannel *c, QIOChannel *ioc)
{
    assert(!c->ioc && wsm_channel_is_here(c));
    c->ctx = qemu_get_current_aio_context();
    qio_channel_set_blocking(ioc, false, NULL);
    qio_channel_set_follow_coroutine_ctx(ioc, true);
    qio_channel_set_delay(ioc, false);
    wsm_keep_alive(ioc);
    if (c->yank) {
        migration_ioc_register_yank(ioc);
    }
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        c->ioc = ioc;
    }
}

void wsm_channel_detach(WsmChannel *c)
{
    QIOChannel *ioc;

    assert(wsm_channel_is_here(c));
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        ioc = g_steal_pointer(&c->ioc);
    }
    if (ioc) {
        if (c->yank) {
            migration_ioc_unregister_yank(ioc);
        }
        qio_channel_close(ioc, NULL);
        object_unref(OBJECT(ioc));
    }
}

/*
 * The kernel does not wake who waits for room in a Unix socket that was shut
 * down here, as long as the other side neither reads nor closes.  In the
 * IOThread, so that who begins to wait is either seen, or sees the shutdown.
 */
static void wsm_channel_wake_sender_bh(void *opaque)
{
    g_autoptr(QIOChannel) ioc = opaque;
    Coroutine *co = qatomic_xchg(&ioc->write_coroutine, NULL);

    if (co) {
        aio_co_wake(co);
    }
}

void wsm_channel_shutdown(WsmChannel *c)
{
    QEMU_LOCK_GUARD(&c->lock);

    if (c->ioc) {
        qio_channel_shutdown(c->ioc, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
        aio_bh_schedule_oneshot(c->ctx, wsm_channel_wake_sender_bh,
                                object_ref(OBJECT(c->ioc)));
    }
}

int coroutine_fn wsm_channel_send(WsmChannel *c, const WsmMsg *msg,
                                  const void *payload)
{
    uint8_t header[WSM_HEADER_SIZE];
    struct iovec iov[2] = {
        { .iov_base = header, .iov_len = sizeof(header) },
        { .iov_base = (void *)payload, .iov_len = msg->length },
    };
    Error *err = NULL;
    int ret = -ENOTCONN;

    assert(qemu_in_coroutine() && wsm_channel_is_here(c));
    wsm_msg_encode(msg, header);

    qemu_co_mutex_lock(&c->send_lock);
    if (c->ioc) {
        ret = qio_channel_writev_all(c->ioc, iov, msg->length ? 2 : 1, &err);
    }
    qemu_co_mutex_unlock(&c->send_lock);

    trace_wsm_channel_send(c->id, wsm_msg_name(msg->type), msg->disk,
                           msg->epoch, msg->offset, msg->bytes, ret);
    if (err) {
        trace_wsm_channel_error(c->id, error_get_pretty(err));
        error_free(err);
        return -EIO;
    }
    return ret;
}

int coroutine_fn wsm_channel_recv(WsmChannel *c, const WsmLimits *limits,
                                  WsmMsg *msg, Error **errp)
{
    uint8_t header[WSM_HEADER_SIZE];
    int ret;

    assert(qemu_in_coroutine() && wsm_channel_is_here(c));
    ret = qio_channel_read_all_eof(c->ioc, (char *)header, sizeof(header),
                                   errp);
    if (ret <= 0) {
        return ret;
    }
    if (!wsm_msg_decode(header, limits, msg, errp)) {
        return -1;
    }
    trace_wsm_channel_recv(c->id, wsm_msg_name(msg->type), msg->disk,
                           msg->epoch, msg->offset, msg->bytes);
    return 1;
}

bool coroutine_fn wsm_channel_recv_payload(WsmChannel *c, void *buf,
                                           size_t length, Error **errp)
{
    assert(qemu_in_coroutine() && wsm_channel_is_here(c));
    return qio_channel_read_all(c->ioc, buf, length, errp) == 0;
}

char *coroutine_fn wsm_channel_recv_text(WsmChannel *c, size_t length,
                                         Error **errp)
{
    g_autofree char *buf = g_malloc(length + 1);

    if (!wsm_channel_recv_payload(c, buf, length, errp)) {
        return NULL;
    }
    return wsm_text_decode(buf, length);
}

void wsm_channel_info(WsmInfo *info, unsigned id, bool up,
                      unsigned connections)
{
    WsmChannelInfo *ci = g_new(WsmChannelInfo, 1);

    ci->id = id;
    ci->connected = up;
    ci->reconnects = connections ? connections - 1 : 0;
    QAPI_LIST_PREPEND(info->channels, ci);
}
