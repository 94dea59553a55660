/*
 * Whole-system migration: the destination's part of the main stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/aio.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "migration/migration.h"
#include "migration/qemu-file.h"
#include "migration/wsm/clock.h"
#include "migration/wsm/dest/dest.h"
#include "migration/wsm/give-up.h"
#include "migration/wsm/multifd.h"
#include "migration/wsm/section.h"
#include "migration/wsm/wire/start.h"

typedef struct WsmLoadEnd {
    Wsm *w;
    Coroutine *co;
} WsmLoadEnd;

typedef struct WsmLoadStart {
    Wsm *w;
    WsmStart *start;
    Coroutine *co;
} WsmLoadStart;

static void wsm_load_start_bh(void *opaque)
{
    g_autofree char *refusal = NULL;
    WsmLoadStart *ls = opaque;

    refusal = wsm_multifd_refusal(ls->start);
    wsm_incoming_begin(ls->w, ls->start, refusal);
    aio_co_wake(ls->co);
}

/* Read @size bytes, which the stream has yet to bring.  NULL on failure. */
static uint8_t *wsm_load_bytes(QEMUFile *f, size_t size)
{
    g_autofree uint8_t *buf = g_try_malloc(size);

    if (size && !buf) {
        error_report("section 'wsm': no memory for %zu bytes", size);
        return NULL;
    }
    return qemu_get_buffer(f, buf, size) == size ? g_steal_pointer(&buf)
                                                 : NULL;
}

/* START comes in the main thread, in the coroutine that loads the stream */
int wsm_load_start(QEMUFile *f, Wsm *w)
{
    g_autofree uint8_t *buf = NULL;
    size_t size = qemu_get_be32(f);
    Error *err = NULL;
    WsmStart start;

    if (!migrate_whole_system()) {
        error_report("Capability 'whole-system' is on at the source, but off "
                     "here; switch it on at both");
        return -EINVAL;
    }
    if (size > WSM_MAX_START_SIZE) {
        error_report("section 'wsm-start': START has %zu bytes, at most %"
                     PRIu64 " are allowed", size, (uint64_t)WSM_MAX_START_SIZE);
        return -EINVAL;
    }
    buf = wsm_load_bytes(f, size);
    if (!buf) {
        return -EIO;
    }
    if (!wsm_start_decode(buf, size, &start, &err)) {
        error_prepend(&err, "section 'wsm-start': ");
        error_report_err(err);
        return -EINVAL;
    }
    if (w->dest || !qemu_in_coroutine()) {
        error_report("section 'wsm-start': START came twice");
        wsm_start_destroy(&start);
        return -EINVAL;
    }

    wsm_clock_incoming(w, &start);
    /* Block nodes can be changed only outside of coroutines */
    WsmLoadStart ls = {
        .w = w, .start = &start, .co = qemu_coroutine_self(),
    };
    aio_bh_schedule_oneshot(qemu_get_aio_context(), wsm_load_start_bh, &ls);
    qemu_coroutine_yield();
    return wsm_dest_refusal(w->dest) ? -EINVAL : 0;
}

/* All that was missing is here, or the source would not say so */
static int wsm_load_end(Wsm *w)
{
    if (!w->dest || !wsm_dest_end(w->dest)) {
        error_report("section 'wsm': END came, but blocks are missing");
        return -EINVAL;
    }
    return 0;
}

/* Called with the BQL before the freeze, without it later */
int wsm_load_state(QEMUFile *f, void *opaque, int version_id)
{
    Wsm *w = opaque;
    int tag = qemu_get_byte(f);

    if (!w->dest) {
        error_report("section 'wsm' came before START");
        return -EINVAL;
    }
    switch (tag) {
    case WSM_SECTION_PART:
        return 0;
    case WSM_SECTION_END:
        return wsm_load_end(w);
    default:
        error_report("section 'wsm': unknown part %d", tag);
        return -EINVAL;
    }
}

static int wsm_load_residue(QEMUFile *f, WsmDest *d, unsigned disk)
{
    g_autofree uint8_t *buf = NULL;
    size_t size = qemu_get_be32(f);
    Error *err = NULL;

    if (size > wsm_dest_max_runs(d, disk)) {
        error_report("section 'wsm-freeze': disk %u: %zu bytes are too many "
                     "for its size", disk, size);
        return -EINVAL;
    }
    buf = wsm_load_bytes(f, size);
    if (size && !buf) {
        return -EIO;
    }
    if (!wsm_dest_set_missing(d, disk, buf, size, &err)) {
        error_prepend(&err, "section 'wsm-freeze': disk %u: ", disk);
        error_report_err(err);
        return -EINVAL;
    }
    return 0;
}

int wsm_load_freeze(QEMUFile *f, Wsm *w)
{
    WsmDest *d = w->dest;
    unsigned ndisks = qemu_get_be16(f);
    Error *err = NULL;
    int ret;

    if (!d || wsm_dest_refusal(d) || ndisks != wsm_dest_disks(d)) {
        error_report("section 'wsm-freeze': %u disks, but %u were agreed on",
                     ndisks, d ? wsm_dest_disks(d) : 0);
        return -EINVAL;
    }
    if (wsm_session_phase(&w->session) != WSM_PHASE_RAM_PRECOPY) {
        error_report("section 'wsm-freeze' came in phase '%s'",
                     WsmPhase_str(wsm_session_phase(&w->session)));
        return -EINVAL;
    }
    for (unsigned i = 0; i < ndisks; i++) {
        ret = wsm_load_residue(f, d, i);
        if (ret < 0) {
            return ret;
        }
    }
    wsm_session_advance(&w->session, WSM_PHASE_RAM_PRECOPY, WSM_PHASE_FREEZE);
    if (!wsm_dest_seal(d, &err)) {
        error_report_err(err);
        return -EINVAL;
    }
    return 0;
}

/*
 * What the main thread loads failed, so it releases all of the incoming
 * migration: nothing may be left to the thread that reads the stream on.
 */
static void wsm_load_end_thread(Wsm *w)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    if (!mis->have_listen_thread || mis->exit_on_error) {
        return;
    }
    qemu_file_shutdown(mis->from_src_file);
    bql_unlock();
    qemu_event_wait(&w->thread_left);
    bql_lock();
}

static void wsm_load_cleanup_bh(void *opaque)
{
    Wsm *w = opaque;
    WsmDest *d = w->dest;

    if (!d || wsm_dest_defer(d, wsm_load_cleanup_bh, w)) {
        return;
    }
    wsm_multifd_set_incoming(NULL);
    wsm_incoming_release(w);
    wsm_incoming_unfollow(w);
}

static void wsm_load_cleanup_co_bh(void *opaque)
{
    WsmLoadEnd *end = opaque;
    Wsm *w = end->w;

    if (w->dest && wsm_dest_defer(w->dest, wsm_load_cleanup_co_bh, end)) {
        return;
    }
    wsm_load_end_thread(w);
    wsm_load_cleanup_bh(w);
    aio_co_wake(end->co);
}

static void wsm_load_begin_cleaning(Wsm *w)
{
    if (!w->cleaning) {
        w->cleaning = true;
        qemu_event_init(&w->thread_left, false);
    }
}

/*
 * Called with the BQL, in the main thread or in that of post-copy.  In the
 * coroutine that loads the stream something failed, and QEMU may exit right
 * after this: wait until the images are left in good order.
 */
int wsm_load_cleanup(void *opaque)
{
    Wsm *w = opaque;
    WsmDest *d;

    if (qemu_in_coroutine() && migrate_whole_system()) {
        /* The thread of post-copy sees the source hang up as well */
        if (w->dest) {
            wsm_load_begin_cleaning(w);
        }
        wsm_give_up(w);
    }
    d = w->dest;
    if (!d) {
        wsm_incoming_unfollow(w);
        return 0;
    }
    if (wsm_dest_is_in_use(d)) {
        error_report("The migration ended, but blocks are missing; keep both "
                     "sides running and report this bug");
        return 0;
    }
    wsm_session_enter(&w->session,
                      wsm_dest_is_complete(d) &&
                      wsm_session_phase(&w->session) == WSM_PHASE_POSTCOPY
                      ? WSM_PHASE_COMPLETED : WSM_PHASE_FAILED);
    if (qemu_in_coroutine()) {
        WsmLoadEnd end = { .w = w, .co = qemu_coroutine_self() };

        wsm_load_begin_cleaning(w);
        aio_bh_schedule_oneshot(qemu_get_aio_context(),
                                wsm_load_cleanup_co_bh, &end);
        qemu_coroutine_yield();
    } else {
        aio_bh_schedule_oneshot(qemu_get_aio_context(),
                                wsm_load_cleanup_bh, w);
    }
    return 0;
}
