/*
 * Whole-system migration: tell the source why the guest cannot come
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <poll.h>
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "migration/migration.h"
#include "migration/qemu-file.h"
#include "migration/wsm/dest/dest.h"
#include "migration/wsm/give-up.h"
#include "migration/wsm/link/refusal.h"
#include "migration/wsm/wire/start.h"

#define WSM_HANG_UP_NS      (10 * NANOSECONDS_PER_SECOND)
#define WSM_REFUSAL_NS      (2 * NANOSECONDS_PER_SECOND)
#define WSM_HANG_UP_POLL_NS (10 * SCALE_MS)

/* The first report of the coroutine that loads the stream; main thread */
static char *first_report;

static void G_GNUC_PRINTF(1, 0) wsm_give_up_note(const char *fmt, va_list ap)
{
    Coroutine *loads = migration_incoming_get_current()->loadvm_co;
    va_list copy;

    if (loads && qemu_in_coroutine() && qemu_coroutine_self() == loads &&
        !first_report) {
        va_copy(copy, ap);
        first_report = g_strdup_vprintf(fmt, copy);
        va_end(copy);
    }
}

void wsm_give_up_init(void)
{
    error_report_tap = wsm_give_up_note;
}

/* Has the source closed the main stream, or is there none? */
static bool wsm_source_hung_up(void)
{
    QEMUFile *f = migration_incoming_get_current()->from_src_file;
    QIOChannelSocket *sioc = f ? wsm_channel_socket(qemu_file_get_ioc(f))
                               : NULL;
    struct pollfd pfd = { .events = POLLRDHUP };

    if (!sioc) {
        return true;
    }
    pfd.fd = sioc->fd;
    return poll(&pfd, 1, 0) != 0;
}

static void coroutine_fn wsm_await_hang_up(int64_t limit)
{
    int64_t deadline = wsm_now() + limit;

    while (!wsm_source_hung_up() && wsm_now() < deadline) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, WSM_HANG_UP_POLL_NS);
    }
}

/*
 * What is said must be read before QEMU closes anything.  The main stream would
 * be reset, as nobody has read the RAM in it, and a source that meets this, or
 * a closed multifd channel, as it writes does not read any more (under TLS it
 * cannot).  One without a return path reads only then: so do not wait long.
 */
void coroutine_fn wsm_give_up_at_once(const char *reason)
{
    QEMUFile *f = migration_incoming_get_current()->from_src_file;

    wsm_refusal_send(qemu_file_get_ioc(f), reason);
    wsm_await_hang_up(WSM_REFUSAL_NS);
}

typedef struct WsmGiveUp {
    Wsm *w;
    const char *reason;
    Coroutine *co;
} WsmGiveUp;

/* There was no START that we understand: just listen, and refuse */
static void wsm_give_up_start_bh(void *opaque)
{
    WsmGiveUp *g = opaque;
    WsmStart start = {
        .channels = WSM_MIN_CHANNELS, .granularity = WSM_MIN_GRANULARITY,
    };

    wsm_incoming_begin(g->w, &start, g->reason);
    aio_co_wake(g->co);
}

static void coroutine_fn wsm_give_up_reason(Wsm *w, const char *reason)
{
    WsmGiveUp g = { .w = w, .reason = reason, .co = qemu_coroutine_self() };

    if (!w->dest) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), wsm_give_up_start_bh,
                                &g);
        qemu_coroutine_yield();
    } else {
        wsm_dest_refuse(w->dest, reason);
    }
}

void coroutine_fn wsm_give_up(Wsm *w)
{
    g_autofree char *report = g_steal_pointer(&first_report);
    const char *reason = report ?: "it cannot load the guest; its log has the "
                                   "reason";

    if (w->source_lacks_it || wsm_source_hung_up()) {
        return;
    }
    wsm_give_up_reason(w, reason);
    wsm_await_hang_up(WSM_HANG_UP_NS);
}
