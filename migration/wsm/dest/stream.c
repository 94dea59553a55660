/*
 * Whole-system migration: the end of the main stream at the destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "io/channel-buffer.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/wsm/core/session.h"
#include "migration/wsm/dest/stream.h"
#include "migration/wsm/trace.h"

#define WSM_WATCH_MS            100
/* The source opens a channel anew within seconds, if it can */
#define WSM_ALONE_NS            (10 * NANOSECONDS_PER_SECOND)

void wsm_dest_stream_init(WsmDestStream *stream, WsmSession *session,
                          WsmHandover *handover, WsmDestLife *life,
                          WsmDestConns *conns)
{
    *stream = (WsmDestStream) {
        .session = session, .handover = handover, .life = life,
        .conns = conns,
    };
}

void wsm_dest_stream_is_none(WsmDestStream *stream, QEMUBHFunc *over,
                             void *opaque)
{
    GLOBAL_STATE_CODE();
    stream->over = over;
    stream->opaque = opaque;
}

bool wsm_dest_stream_may_end(WsmDestStream *stream)
{
    return wsm_handover_may_end(stream->handover,
                                wsm_life_reached(stream->life,
                                                 WSM_LIFE_SECURED),
                                !stream->over && migrate_postcopy_ram());
}

/* Main thread: is there nothing any more that the main stream could bring? */
static bool wsm_dest_needs_no_stream(WsmDestStream *stream)
{
    if (wsm_handover_is_lost(stream->handover)) {
        return true;
    }
    if (wsm_dest_conns_is_up(stream->conns, 0)) {
        stream->alone_since = wsm_now();
    }
    /* As long as the source may ask, it should get an answer */
    return wsm_dest_stream_may_end(stream) &&
           (wsm_life_reached(stream->life, WSM_LIFE_TOLD) ||
            wsm_now() - stream->alone_since > WSM_ALONE_NS);
}

static QEMUFile *wsm_dest_file(bool input)
{
    QIOChannelBuffer *bioc = qio_channel_buffer_new(1);
    QEMUFile *f;

    if (input) {
        bioc->data[0] = QEMU_VM_EOF;
        bioc->usage = 1;
    }
    f = input ? qemu_file_new_input(QIO_CHANNEL(bioc))
              : qemu_file_new_output(QIO_CHANNEL(bioc));
    object_unref(OBJECT(bioc));
    return f;
}

/*
 * QEMU waits for a stream to go on with, as migrate-recover would bring.  Give
 * it one in which there is nothing but its end: then it completes, or fails.
 */
static void wsm_dest_end_pause(MigrationIncomingState *mis)
{
    mis->from_src_file = wsm_dest_file(true);
    mis->to_src_file = wsm_dest_file(false);
    migrate_set_state(&mis->state, MIGRATION_STATUS_POSTCOPY_PAUSED,
                      MIGRATION_STATUS_POSTCOPY_ACTIVE);
    qemu_sem_post(&mis->postcopy_pause_sem_dst);
    if (mis->have_fault_thread) {
        qemu_sem_post(&mis->postcopy_pause_sem_fault);
    }
}

/*
 * All blocks are here, but pages of memory may not be, and nobody can say: only
 * the source had them.  If it is gone it stays so for ever.
 */
static void wsm_dest_tell(WsmDestStream *stream)
{
    g_autoptr(Error) err = NULL;

    if (stream->told || !migrate_postcopy_ram() ||
        !wsm_handover_is_ours(stream->handover) ||
        !wsm_life_reached(stream->life, WSM_LIFE_SECURED) ||
        wsm_now() - stream->alone_since <= WSM_ALONE_NS) {
        return;
    }
    stream->told = true;
    error_setg(&err, "All blocks of the disks are here, and durable, but "
               "pages of the guest's memory may be missing (capability "
               "'postcopy-ram'), which only the source's QEMU has; if that is "
               "gone the migration cannot complete: shut the guest down, if "
               "it answers, and boot it anew from these images");
    wsm_session_set_error(stream->session, err);
    warn_report("%s", error_get_pretty(err));
}

/* The stream may break, and QEMU may begin to wait, at any time */
static void wsm_dest_watch(void *opaque)
{
    MigrationIncomingState *mis = migration_incoming_get_current();
    WsmDestStream *stream = opaque;

    if (stream->over) {
        if (wsm_dest_needs_no_stream(stream)) {
            stream->over(stream->opaque);
            return;
        }
    } else if (qatomic_read(&mis->state) == MIGRATION_STATUS_POSTCOPY_PAUSED) {
        if (wsm_dest_needs_no_stream(stream)) {
            trace_wsm_dest_end_pause();
            wsm_dest_end_pause(mis);
        } else {
            wsm_dest_tell(stream);
        }
    }
    timer_mod(stream->watch,
              qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + WSM_WATCH_MS);
}

static void wsm_dest_hang_up(void *opaque)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    if (mis->from_src_file) {
        qemu_file_shutdown(mis->from_src_file);
    }
}

void wsm_dest_stream_end(WsmDestStream *stream)
{
    GLOBAL_STATE_CODE();
    wsm_handover_end_stream(stream->handover, wsm_dest_hang_up, NULL);
    if (!stream->watch) {
        stream->alone_since = wsm_now();
        stream->watch = timer_new_ms(QEMU_CLOCK_REALTIME, wsm_dest_watch,
                                     stream);
        wsm_dest_watch(stream);
    }
}

void wsm_dest_stream_stop(WsmDestStream *stream)
{
    GLOBAL_STATE_CODE();
    g_clear_pointer(&stream->watch, timer_free);
}
