/*
 * Whole-system migration: the source's part of the main stream
 *
 * How the phases fit into QEMU's migration: its thread copies the disks before
 * it begins its rounds (wsm_outgoing_copy_disks()), so that memory, which
 * changes faster, comes last.  Then memory is copied as ever.  When it has
 * become small enough, wsm_outgoing_may_switch_over() starts QEMU's post-copy
 * state, as a user's migrate-start-postcopy would.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/misc.h"
#include "migration/multifd.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "system/runstate.h"
#include "migration/wsm/kept.h"
#include "migration/wsm/multifd.h"
#include "migration/wsm/section.h"
#include "migration/wsm/source/phases.h"
#include "migration/wsm/source/watch.h"
#include "migration/wsm/trace.h"
#include "migration/wsm/wire/start.h"

#define WSM_POLL_MS             10
#define WSM_POSTCOPY_POLL_MS    100

/* Called with the BQL; the guest runs */
int wsm_save_prepare(void *opaque, Error **errp)
{
    Wsm *w = opaque;

    if (runstate_check(RUN_STATE_SAVE_VM)) {
        error_setg(errp, "Capability 'whole-system' does not go together "
                   "with snapshots; switch it off first");
        return -EINVAL;
    }
    if (w->dest) {
        error_setg(errp, "The guest has not all its blocks here yet; wait "
                   "until the migration to here has completed");
        return -EINVAL;
    }
    if (w->source || w->connecting) {
        error_setg(errp, w->source
                   ? "The migration before this one has not yet ended"
                   : "The migration before this one still tries to connect to "
                     "its destination; wait until that has failed");
        return -EINVAL;
    }
    if (migrate_mode() != MIG_MODE_NORMAL) {
        error_setg(errp, "Capability 'whole-system' does not go together with "
                   "migration mode '%s'", MigMode_str(migrate_mode()));
        return -EINVAL;
    }
    return wsm_multifd_check(&w->options, errp) &&
           wsm_source_check(&w->options, &w->images, errp) ? 0 : -EINVAL;
}

/* Called with the BQL */
int wsm_save_start(QEMUFile *f, Wsm *w)
{
    g_autoptr(GByteArray) start = wsm_start_encode(&w->source->start);

    qemu_put_be32(f, start->len);
    qemu_put_buffer(f, start->data, start->len);
    return 0;
}

/* Called with the BQL */
int wsm_save_setup(QEMUFile *f, void *opaque, Error **errp)
{
    Wsm *w = opaque;

    if (!w->source) {
        error_setg(errp, "the migration has ended");
        return -EINVAL;
    }
    qemu_put_byte(f, WSM_SECTION_PART);
    /*
     * START is a small packet behind another, and nothing follows until it
     * was answered: with Nagle it would wait 40 ms for a delayed TCP ACK.
     */
    qio_channel_set_delay(qemu_file_get_ioc(f), false);
    wsm_keep_alive(qemu_file_get_ioc(f));
    return 0;
}

/* Was it the destination that ended the main stream? */
static bool wsm_save_was_closed(MigrationState *ms)
{
    QEMU_LOCK_GUARD(&ms->qemu_file_lock);
    return ms->rp_state.from_dst_file &&
           qemu_file_get_error(ms->rp_state.from_dst_file);
}

/*
 * What the disks or the destination told us is why; that a stream broke, or
 * "Sibling indicated error 1", came of it, and may have been seen earlier.
 */
static void wsm_save_say_why(WsmSource *s, MigrationState *ms)
{
    bool closed = wsm_save_was_closed(ms);
    QEMU_LOCK_GUARD(&ms->error_mutex);
    Error *why = wsm_source_why(s, ms->error, closed);

    error_free(ms->error);
    ms->error = why;
}

void wsm_save_end(Wsm *w, WsmPhase phase, const Error *err)
{
    WsmSource *s = w->source;

    wsm_source_stop(s);
    if (!s->released) {
        /* QEMU ends, and we are within the stop that goes with it */
        return;
    }
    if (err) {
        wsm_session_set_error(&w->session, err);
    }
    wsm_session_enter(&w->session, phase);
    wsm_remember(w);
    w->source = NULL;
    wsm_source_free(s);
}

/* Nothing is waited for any more: now there is time to keep memory */
static void wsm_save_completed(Wsm *w)
{
    QemuUUID session = w->source->start.session;
    g_autofree char *file = wsm_kept_file(w);

    wsm_save_end(w, WSM_PHASE_COMPLETED, NULL);
    if (file && !w->source) {
        wsm_kept_begin(w, file, &session);
    }
}

/* Called with the BQL in the main thread, also if there was no setup */
void wsm_save_cleanup(void *opaque)
{
    MigrationState *ms = migrate_get_current();
    Wsm *w = opaque;

    if (!w->source) {
        return;
    }
    switch (ms->state) {
    case MIGRATION_STATUS_COMPLETED:
        if (!ms->to_dst_file) {
            /* It did so in a pause; QEMU does not look for channels then */
            multifd_send_shutdown();
        }
        wsm_save_completed(w);
        break;
    case MIGRATION_STATUS_CANCELLING:
    case MIGRATION_STATUS_CANCELLED:
        wsm_save_end(w, WSM_PHASE_CANCELLED, NULL);
        break;
    default:
        wsm_save_say_why(w->source, ms);
        wsm_save_end(w, WSM_PHASE_FAILED, ms->error);
        break;
    }
}

/* Memory is as good as done; something else must be waited for */
static bool wsm_save_is_waiting(WsmPhase phase)
{
    return phase == WSM_PHASE_RAM_PRECOPY && ram_bytes_remaining() == 0;
}

/* Called without the BQL, in the migration thread */
int wsm_save_iterate(QEMUFile *f, void *opaque)
{
    Wsm *w = opaque;
    WsmSource *s = w->source;
    WsmPhase phase = wsm_session_phase(&w->session);
    int ms = 0;

    qemu_put_byte(f, WSM_SECTION_PART);
    if (phase == WSM_PHASE_POSTCOPY) {
        /* Write something now and then, to notice a broken stream */
        qemu_fflush(f);
        ms = ram_bytes_remaining() ? 0 : WSM_POSTCOPY_POLL_MS;
    } else if (phase == WSM_PHASE_FREEZE) {
        qemu_fflush(f);
        ms = ram_bytes_remaining() ? 0 : WSM_POLL_MS;
    } else if (wsm_save_is_waiting(phase)) {
        ms = WSM_POLL_MS;
    }
    if (phase == WSM_PHASE_RAM_PRECOPY) {
        wsm_source_watch(s);
    }
    wsm_source_interrupted(s);
    wsm_source_wait_all_there(s, ms);
    return 1;
}

/* QEMU must go by the post-copy state: only there the residue is sent */
int wsm_save_complete_precopy(QEMUFile *f, void *opaque)
{
    return -EINVAL;
}

/* Called with the BQL: nothing is missing, memory neither */
int wsm_save_complete_postcopy(QEMUFile *f, void *opaque)
{
    qemu_put_byte(f, WSM_SECTION_END);
    return 0;
}

/* Called with the BQL; the guest is stopped and its images are inactive */
int wsm_save_freeze(QEMUFile *f, Wsm *w)
{
    WsmSource *s = w->source;
    g_autoptr(Error) fatal = NULL;

    if (wsm_session_phase(&w->session) != WSM_PHASE_FREEZE) {
        wsm_source_freeze(s);
    }
    fatal = wsm_fatal(&s->milestones);
    if (fatal) {
        return -EINVAL;
    }
    qemu_put_be16(f, s->ndisks);
    for (unsigned i = 0; i < s->ndisks; i++) {
        g_autoptr(GByteArray) runs = wsm_source_residue(s, i);

        trace_wsm_save_freeze(s->disk[i].name, runs->len,
                              wsm_work_dirty(s->work, i));
        qemu_put_be32(f, runs->len);
        qemu_put_buffer(f, runs->data, runs->len);
    }
    return 0;
}

/* The package with the guest's state was sent; may the destination run it? */
static void wsm_save_handover(Wsm *w)
{
    MigrationState *ms = migrate_get_current();
    g_autoptr(Error) err = NULL;

    qemu_fflush(ms->to_dst_file);
    if (!wsm_source_handover(w->source, &err)) {
        migrate_set_error(ms, err);
        wsm_session_set_error(&w->session, err);
        qemu_file_set_error(ms->to_dst_file, -ETIMEDOUT);
    }
}

/* The main stream is connected; the migration may be over by now */
static int wsm_save_connected(Wsm *w, Error **errp)
{
    MigrationState *ms = migrate_get_current();

    w->connecting = false;
    if (!migrate_whole_system() || w->source) {
        return 0;
    }
    if (ms->state == MIGRATION_STATUS_CANCELLED) {
        /* QEMU begins nevertheless: nothing of that is to go out */
        qemu_file_shutdown(ms->to_dst_file);
        return 0;
    }
    error_setg(errp, "the migration that wanted this connection has ended");
    return -EINVAL;
}

/* Called with the BQL: PRECOPY_SETUP in the main, others in any thread */
int wsm_save_notify(Wsm *w, MigrationEvent *e, Error **errp)
{
    switch (e->type) {
    case MIG_EVENT_PRECOPY_SETUP:
        return wsm_save_connected(w, errp);
    case MIG_EVENT_PRECOPY_DONE:
        if (w->source && wsm_session_phase(&w->session) == WSM_PHASE_FREEZE) {
            wsm_save_handover(w);
        }
        break;
    default:
        break;
    }
    if (!w->source) {
        /* It comes from migration_cleanup(), at the latest */
        w->connecting = false;
    }
    return 0;
}
