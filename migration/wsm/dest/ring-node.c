/*
 * Whole-system migration: one node of a ring that keeps templates
 *
 * Two coroutines: one connects and reads, one writes.  A page that is asked for
 * is in a batch, until it was answered or the node is dead.  A batch is first
 * filled, then written, and then answered in the order of writing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "io/channel.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/stats64.h"
#include "qemu/timer.h"
#include "migration/wsm/dest/ring-node.h"
#include "migration/wsm/link/block-channel.h"
#include "migration/wsm/link/dial.h"
#include "migration/wsm/trace.h"

#define WSM_RING_READ           (64 * KiB)
/*
 * A batch gets a page to keep only as long as it is not larger than that.  With
 * TLS all of it must fit into one record: memcached sleeps on what is left of a
 * record when it has read a value.
 */
#define WSM_RING_MAX_PUT        (1 * MiB)
#define WSM_RING_MAX_PUT_TLS    (4 * KiB)

/* A page that is asked for: on the stack of who waits for it */
typedef struct WsmRingGet {
    void *page;
    Coroutine *co;
    bool done;
    WsmRingGot got;
} WsmRingGet;

typedef struct WsmRingBatch {
    QSIMPLEQ_ENTRY(WsmRingBatch) next;
    GByteArray *out;            /* NULL: it is being written, or was */
    int64_t began;              /* ms */
    unsigned n;
    WsmRingGet *get[WSM_PACKET_PAGES];          /* NULL: was answered */
} WsmRingBatch;

struct WsmRingNode {
    /* Set in new, never changed */
    char *name;
    const SocketAddress *addr;
    QCryptoTLSCreds *creds;

    WsmLoop *loop;              /* set in start, never changed */
    QEMUBH *write_bh;           /* likewise, until the stop */
    QEMUTimer *timer;

    /* In the loop */
    Coroutine *runner, *writer; /* those that wait for something to do */
    WsmDial *dial;              /* NULL: is not connecting */
    QIOChannel *ioc;            /* NULL: is not connected */
    bool over;                  /* the stop */
    bool wanted;                /* it shall be connected */
    bool writing;               /* the writer uses @ioc */
    QSIMPLEQ_HEAD(, WsmRingBatch) todo, sent;   /* oldest first */
    WsmRingParser parser;
    uint8_t buf[WSM_RING_READ];

    /* Written in the loop, read anywhere */
    bool up;                    /* atomic: @ioc can be used */
    int64_t dead_until;         /* atomic: ms */
    Stat64 hits, misses, failed, deaths, batches, ms;

    QemuMutex lock;
    char *error;                /* @lock: why it was dead, or NULL */
};

static int64_t wsm_ring_now(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

WsmRingNode *wsm_ring_node_new(const char *name, const SocketAddress *addr,
                               QCryptoTLSCreds *creds)
{
    WsmRingNode *node = g_new0(WsmRingNode, 1);

    GLOBAL_STATE_CODE();
    node->name = g_strdup(name);
    node->addr = addr;
    node->creds = creds;
    node->wanted = true;
    QSIMPLEQ_INIT(&node->todo);
    QSIMPLEQ_INIT(&node->sent);
    qemu_mutex_init(&node->lock);
    return node;
}

void wsm_ring_node_free(WsmRingNode *node)
{
    assert(!node->ioc && !node->timer);
    assert(QSIMPLEQ_EMPTY(&node->todo) && QSIMPLEQ_EMPTY(&node->sent));
    qemu_mutex_destroy(&node->lock);
    g_free(node->error);
    g_free(node->name);
    g_free(node);
}

static void coroutine_fn wsm_ring_wait(Coroutine **place)
{
    assert(!*place);
    *place = qemu_coroutine_self();
    qemu_coroutine_yield();
}

static void wsm_ring_wake(Coroutine **place)
{
    if (*place) {
        aio_co_wake(g_steal_pointer(place));
    }
}

/*
 * Batches
 */

static void wsm_ring_batch_free(WsmRingBatch *batch)
{
    if (batch->out) {
        g_byte_array_unref(batch->out);
    }
    g_free(batch);
}

static void wsm_ring_batch_answer(WsmRingBatch *batch, unsigned i,
                                  WsmRingGot got)
{
    WsmRingGet *get = g_steal_pointer(&batch->get[i]);

    get->got = got;
    get->done = true;
    aio_co_wake(get->co);
}

/* All that were not answered; returns how many */
static unsigned wsm_ring_batch_end(WsmRingBatch *batch, WsmRingGot got)
{
    unsigned n = 0;

    for (unsigned i = 0; i < batch->n; i++) {
        if (batch->get[i]) {
            wsm_ring_batch_answer(batch, i, got);
            n++;
        }
    }
    wsm_ring_batch_free(batch);
    return n;
}

/* The one that is being filled */
static WsmRingBatch *wsm_ring_batch_open(WsmRingNode *node)
{
    WsmRingBatch *batch = QSIMPLEQ_LAST(&node->todo, WsmRingBatch, next);

    if (!batch || batch->n == WSM_PACKET_PAGES) {
        batch = g_new0(WsmRingBatch, 1);
        batch->out = g_byte_array_new();
        batch->began = wsm_ring_now();
        QSIMPLEQ_INSERT_TAIL(&node->todo, batch, next);
    }
    return batch;
}

/* The oldest one must be answered in time */
static void wsm_ring_set_timer(WsmRingNode *node)
{
    WsmRingBatch *batch = QSIMPLEQ_FIRST(&node->sent)
                          ?: QSIMPLEQ_FIRST(&node->todo);

    if (batch) {
        timer_mod(node->timer, batch->began + WSM_RING_NODE_MS);
    } else {
        timer_del(node->timer);
    }
}

/*
 * Up and down
 */

/* No more is read or written; the runner will close what is left */
static void wsm_ring_node_down(WsmRingNode *node)
{
    g_autoptr(QIOChannel) ioc = NULL;
    Coroutine *co;

    if (!node->up) {
        return;
    }
    qatomic_set(&node->up, false);
    ioc = QIO_CHANNEL(object_ref(OBJECT(node->ioc)));
    qio_channel_shutdown(ioc, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    /* From here on it may be closed: outside a coroutine they run at once */
    qio_channel_wake_read(ioc);
    co = qatomic_xchg(&ioc->write_coroutine, NULL);
    if (co) {
        aio_co_wake(co);
    }
}

static void wsm_ring_node_fail_all(WsmRingNode *node)
{
    WsmRingBatch *batch;
    unsigned n = 0;

    while ((batch = QSIMPLEQ_FIRST(&node->sent))) {
        QSIMPLEQ_REMOVE_HEAD(&node->sent, next);
        n += wsm_ring_batch_end(batch, WSM_RING_DEAD);
    }
    while ((batch = QSIMPLEQ_FIRST(&node->todo))) {
        QSIMPLEQ_REMOVE_HEAD(&node->todo, next);
        n += wsm_ring_batch_end(batch, WSM_RING_DEAD);
    }
    stat64_add(&node->failed, n);
    timer_del(node->timer);
}

static void wsm_ring_node_die(WsmRingNode *node, const char *why)
{
    trace_wsm_ring_node_die(node->name, why);
    wsm_ring_node_down(node);
    qatomic_set_i64(&node->dead_until, wsm_ring_now() + WSM_RING_DEAD_MS);
    stat64_add(&node->deaths, 1);
    WITH_QEMU_LOCK_GUARD(&node->lock) {
        g_free(node->error);
        node->error = g_strdup(why);
    }
    wsm_ring_node_fail_all(node);
}

static void wsm_ring_node_late(void *opaque)
{
    wsm_ring_node_die(opaque, "it has not answered in time");
}

/* The connection has ended, or cannot be opened */
static void wsm_ring_node_lost(WsmRingNode *node, Error *err)
{
    const char *why = err ? error_get_pretty(err)
                          : "it has closed the connection";

    if (!node->up || !QSIMPLEQ_EMPTY(&node->sent)) {
        wsm_ring_node_die(node, why);
    } else {
        /* It was idle: restarted, perhaps */
        wsm_ring_node_down(node);
        node->wanted = !QSIMPLEQ_EMPTY(&node->todo);
    }
    error_free(err);
}

/*
 * What it says
 */

/* Returns NULL if it was not asked for that */
static WsmRingBatch *wsm_ring_node_asked(WsmRingNode *node, unsigned index)
{
    WsmRingBatch *batch = QSIMPLEQ_FIRST(&node->sent);

    return batch && index < batch->n && batch->get[index] ? batch : NULL;
}

static bool wsm_ring_node_on_page(WsmRingNode *node)
{
    unsigned i = node->parser.index;
    WsmRingBatch *batch = wsm_ring_node_asked(node, i);

    if (!batch) {
        return false;
    }
    memcpy(batch->get[i]->page, node->parser.page, WSM_PAGE_SIZE);
    wsm_ring_batch_answer(batch, i, WSM_RING_HIT);
    stat64_add(&node->hits, 1);
    return true;
}

static bool wsm_ring_node_on_end(WsmRingNode *node)
{
    WsmRingBatch *batch = QSIMPLEQ_FIRST(&node->sent);

    if (!batch) {
        return false;
    }
    QSIMPLEQ_REMOVE_HEAD(&node->sent, next);
    stat64_add(&node->batches, 1);
    stat64_add(&node->ms, wsm_ring_now() - batch->began);
    stat64_add(&node->misses, wsm_ring_batch_end(batch, WSM_RING_MISS));
    wsm_ring_set_timer(node);
    return true;
}

static bool wsm_ring_node_on_answer(WsmRingNode *node, WsmRingAnswer answer)
{
    switch (answer) {
    case WSM_RING_PAGE:
        return wsm_ring_node_on_page(node);
    case WSM_RING_END:
        return wsm_ring_node_on_end(node);
    case WSM_RING_MORE:
    case WSM_RING_ODD:
        return true;
    case WSM_RING_BAD:
        break;
    }
    return false;
}

static void wsm_ring_node_feed(WsmRingNode *node, const uint8_t *buf,
                               size_t size)
{
    while (size) {
        WsmRingAnswer answer = wsm_ring_parse(&node->parser, &buf, &size);

        if (!wsm_ring_node_on_answer(node, answer)) {
            wsm_ring_node_die(node, "it says what is no answer");
            return;
        }
    }
}

static void coroutine_fn wsm_ring_node_read(WsmRingNode *node)
{
    while (node->up) {
        Error *err = NULL;
        ssize_t n = qio_channel_read(node->ioc, (char *)node->buf,
                                     sizeof(node->buf), &err);

        if (n == QIO_CHANNEL_ERR_BLOCK) {
            qio_channel_yield(node->ioc, G_IO_IN);
        } else if (n <= 0) {
            wsm_ring_node_lost(node, err);
        } else {
            wsm_ring_node_feed(node, node->buf, n);
        }
    }
}

static bool coroutine_fn wsm_ring_node_connect(WsmRingNode *node)
{
    Error *err = NULL;

    node->dial = wsm_dial(node->addr, node->creds);
    node->ioc = wsm_dial_wait(node->dial, &err);
    node->dial = NULL;
    trace_wsm_ring_node_connect(node->name,
                                err ? error_get_pretty(err) : "done");
    if (!node->ioc) {
        wsm_ring_node_lost(node, err);
        return false;
    }
    qio_channel_set_name(node->ioc, "wsm-ring");
    qio_channel_set_blocking(node->ioc, false, NULL);
    qio_channel_set_follow_coroutine_ctx(node->ioc, true);
    qio_channel_set_delay(node->ioc, false);
    wsm_keep_alive(node->ioc);
    wsm_ring_parser_init(&node->parser);
    qatomic_set(&node->up, true);
    return true;
}

static void coroutine_fn wsm_ring_node_run(void *opaque)
{
    WsmRingNode *node = opaque;

    while (!node->over) {
        if (!node->wanted) {
            wsm_ring_wait(&node->runner);
            continue;
        }
        node->wanted = false;
        if (wsm_ring_node_connect(node)) {
            if (node->over) {
                wsm_ring_node_down(node);
            }
            wsm_ring_wake(&node->writer);
            wsm_ring_node_read(node);
            while (node->writing) {
                wsm_ring_wait(&node->runner);
            }
            qio_channel_close(node->ioc, NULL);
            g_clear_pointer(&node->ioc, object_unref);
        }
    }
}

/*
 * What it is asked
 */

static void coroutine_fn wsm_ring_node_write_batch(WsmRingNode *node,
                                                   WsmRingBatch *batch)
{
    /* If the node dies meanwhile, the batch is gone */
    g_autoptr(GByteArray) out = g_steal_pointer(&batch->out);
    size_t done = 0;

    QSIMPLEQ_REMOVE_HEAD(&node->todo, next);
    QSIMPLEQ_INSERT_TAIL(&node->sent, batch, next);
    wsm_ring_encode_end(out);
    while (node->up && done < out->len) {
        Error *err = NULL;
        ssize_t n = qio_channel_write(node->ioc, (char *)out->data + done,
                                      out->len - done, &err);

        if (n == QIO_CHANNEL_ERR_BLOCK) {
            qio_channel_yield(node->ioc, G_IO_OUT);
        } else if (n < 0) {
            wsm_ring_node_lost(node, err);
        } else {
            done += n;
        }
    }
}

static void coroutine_fn wsm_ring_node_write(void *opaque)
{
    WsmRingNode *node = opaque;

    while (!node->over) {
        if (!node->up || QSIMPLEQ_EMPTY(&node->todo)) {
            wsm_ring_wait(&node->writer);
            continue;
        }
        node->writing = true;
        wsm_ring_node_write_batch(node, QSIMPLEQ_FIRST(&node->todo));
        node->writing = false;
        wsm_ring_wake(&node->runner);
    }
}

/* All that could be asked at once is in the batch */
static void wsm_ring_node_write_bh(void *opaque)
{
    WsmRingNode *node = opaque;

    wsm_ring_wake(&node->writer);
}

static bool wsm_ring_node_is_dead(WsmRingNode *node)
{
    return wsm_ring_now() < qatomic_read_i64(&node->dead_until);
}

WsmRingGot coroutine_fn wsm_ring_node_get(WsmRingNode *node,
                                          const uint8_t *hash, void *page)
{
    WsmRingGet get = { .page = page, .co = qemu_coroutine_self() };
    WsmRingBatch *batch;

    assert(wsm_loop_is_here(node->loop));
    if (node->over || wsm_ring_node_is_dead(node)) {
        return WSM_RING_DEAD;
    }
    batch = wsm_ring_batch_open(node);
    wsm_ring_encode_get(hash, batch->n, batch->out);
    batch->get[batch->n++] = &get;
    if (!timer_pending(node->timer)) {
        wsm_ring_set_timer(node);
    }
    if (!node->up && !node->dial) {
        node->wanted = true;
        wsm_ring_wake(&node->runner);
    }
    qemu_bh_schedule(node->write_bh);
    while (!get.done) {
        qemu_coroutine_yield();
    }
    return get.got;
}

void wsm_ring_node_put(WsmRingNode *node, const uint8_t *hash,
                       const void *page)
{
    size_t max = node->creds ? WSM_RING_MAX_PUT_TLS : WSM_RING_MAX_PUT;
    WsmRingBatch *batch;

    assert(wsm_loop_is_here(node->loop));
    if (node->over || !node->up || wsm_ring_node_is_dead(node)) {
        return;
    }
    batch = wsm_ring_batch_open(node);
    if (batch->out->len <= max) {
        wsm_ring_encode_put(hash, page, batch->out);
    }
    if (!timer_pending(node->timer)) {
        wsm_ring_set_timer(node);
    }
    qemu_bh_schedule(node->write_bh);
}

/*
 * Begin and end
 */

void wsm_ring_node_start(WsmRingNode *node, WsmLoop *loop)
{
    GLOBAL_STATE_CODE();
    node->loop = loop;
    node->write_bh = aio_bh_new(loop->ctx, wsm_ring_node_write_bh, node);
    node->timer = aio_timer_new(loop->ctx, QEMU_CLOCK_REALTIME, SCALE_MS,
                                wsm_ring_node_late, node);
    wsm_loop_start(loop, wsm_ring_node_run, node);
    wsm_loop_start(loop, wsm_ring_node_write, node);
}

void wsm_ring_node_stop(WsmRingNode *node)
{
    assert(wsm_loop_is_here(node->loop) && !qemu_in_coroutine());
    node->over = true;
    if (node->dial) {
        wsm_dial_give_up(node->dial);
    }
    wsm_ring_node_down(node);
    wsm_ring_node_fail_all(node);
    wsm_ring_wake(&node->writer);
    wsm_ring_wake(&node->runner);
    g_clear_pointer(&node->write_bh, qemu_bh_delete);
    g_clear_pointer(&node->timer, timer_free);
}

WsmRingNodeInfo *wsm_ring_node_info(WsmRingNode *node)
{
    WsmRingNodeInfo *info = g_new0(WsmRingNodeInfo, 1);
    uint64_t batches = stat64_get(&node->batches);

    info->name = g_strdup(node->name);
    info->state = wsm_ring_node_is_dead(node) ? WSM_RING_NODE_STATE_DEAD :
                  qatomic_read(&node->up) ? WSM_RING_NODE_STATE_UP :
                  WSM_RING_NODE_STATE_DOWN;
    info->hits = stat64_get(&node->hits);
    info->misses = stat64_get(&node->misses);
    info->failed = stat64_get(&node->failed);
    info->gets = info->hits + info->misses + info->failed;
    info->failures = stat64_get(&node->deaths);
    info->ms = batches ? stat64_get(&node->ms) / batches : 0;
    WITH_QEMU_LOCK_GUARD(&node->lock) {
        info->error = g_strdup(node->error);
    }
    return info;
}
