/*
 * Whole-system migration: hooks in QEMU's own migration, at the source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/wsm/clock.h"
#include "migration/wsm/link/block-channel.h"
#include "migration/wsm/link/refusal.h"
#include "migration/wsm/memory/worth.h"
#include "migration/wsm/progress.h"
#include "migration/wsm/section.h"
#include "migration/wsm/source/phases.h"
#include "migration/wsm/state.h"
#include "migration/wsm/transport.h"
#include "system/runstate.h"

#define WSM_NEARLY              4       /* times what can be sent stopped */
/* A destination that is behind is waited for a second at most, in steps */
#define WSM_BEHIND_MS           20
#define WSM_BEHIND_WAITS        50

bool wsm_outgoing_start(const MigrationAddress *addr, bool resume,
                        Error **errp)
{
    ERRP_GUARD();
    Wsm *w = wsm_get();
    SocketAddress *target;

    GLOBAL_STATE_CODE();
    if (!migrate_whole_system() || (resume && !w->source)) {
        return true;
    }
    target = wsm_transport_target(addr, errp);
    if (!target) {
        return false;
    }
    if (resume) {
        wsm_source_set_target(w->source, target);
        return true;
    }
    assert(!w->source);
    w->source = wsm_source_new(&w->session, &w->options, &w->images, w->peer,
                               target);
    wsm_clock_outgoing(w);
    if (w->source->memory && w->templates) {
        wsm_source_memory_set_templates(w->source->memory, w->templates);
    }
    wsm_progress_start(w);
    if (!wsm_source_start(w->source, errp)) {
        wsm_save_end(w, WSM_PHASE_FAILED, *errp);
        return false;
    }
    w->connecting = true;
    return true;
}

void wsm_outgoing_cancelled(void)
{
    Wsm *w = wsm_get();

    GLOBAL_STATE_CODE();
    if (w->source) {
        wsm_save_end(w, WSM_PHASE_CANCELLED, NULL);
    }
}

void wsm_outgoing_copy_disks(void)
{
    QEMUFile *f = migrate_get_current()->to_dst_file;
    WsmSource *s = wsm_get()->source;
    int ret;

    assert(!bql_locked());
    if (!s || qatomic_read(&migrate_get_current()->state) !=
        MIGRATION_STATUS_ACTIVE) {
        /* It was cancelled before it began */
        return;
    }
    /* The destination needs our START before it lets channels in */
    qemu_fflush(f);
    ret = wsm_source_disk_phase(s);
    if (ret < 0 && !qemu_file_get_error(f)) {
        qemu_file_set_error(f, ret);
    }
}

/* QEMU sets the threshold anew every 100 ms: see memory/worth.h */
static void wsm_outgoing_correct(WsmSource *s, MigrationState *ms,
                                 uint64_t *pending)
{
    uint64_t content, packed, fits, must_precopy, can_postcopy;

    if (!s->memory || migrate_avail_switchover_bandwidth()) {
        return;
    }
    wsm_source_memory_packing(s->memory, &content, &packed);
    fits = wsm_worth_threshold(ms->threshold_size, s->speed,
                               migrate_downtime_limit(),
                               stat64_get(&mig_stats.dirty_sync_count),
                               content, packed);
    if (fits <= ms->threshold_size) {
        return;
    }
    if (*pending >= ms->threshold_size && *pending < fits) {
        /* QEMU has not looked what the guest has written since */
        qemu_savevm_state_pending_exact(&must_precopy, &can_postcopy);
        *pending = must_precopy + can_postcopy;
    }
    ms->threshold_size = fits;
}

/*
 * The destination has yet to read much of what memory refers to.  Another pass
 * would only send what the guest writes meanwhile, so wait, but not for long:
 * somebody may want to cancel.
 */
static void wsm_outgoing_wait_for_behind(WsmSourceMemory *memory,
                                         MigrationState *ms)
{
    for (int i = 0; i < WSM_BEHIND_WAITS; i++) {
        if (qatomic_read(&ms->state) != MIGRATION_STATUS_ACTIVE ||
            !wsm_source_memory_is_behind(memory)) {
            return;
        }
        if (qemu_sem_timedwait(&ms->rate_limit_sem, WSM_BEHIND_MS) == 0) {
            /* Something is urgent, and is not done here */
            qemu_sem_post(&ms->rate_limit_sem);
            return;
        }
    }
}

/* Memory alone decides when; then see that all is ready to stop the guest */
static bool wsm_outgoing_may_freeze(WsmSource *s, uint64_t *pending)
{
    MigrationState *ms = migrate_get_current();
    bool converged;
    /* The user wants memory post-copy now; without it memory must converge */
    bool started = migrate_postcopy_ram() && qatomic_read(&ms->start_postcopy);

    wsm_outgoing_correct(s, ms, pending);
    converged = *pending < ms->threshold_size;
    if (!converged && !started) {
        /* Soon: so that the flush does not hold up the freeze then */
        if (*pending < WSM_NEARLY * ms->threshold_size) {
            wsm_source_prepare_freeze(s);
        }
        return false;
    }
    if (!wsm_source_prepare_freeze(s)) {
        return false;
    }
    if (s->memory && wsm_source_memory_is_behind(s->memory)) {
        wsm_outgoing_wait_for_behind(s->memory, ms);
        return false;
    }
    qatomic_set(&ms->start_postcopy, true);
    /* Too much to leave out post-copy, in which the guest changes hands */
    *pending = MAX(*pending, MAX(ms->threshold_size, 1));
    return true;
}

bool wsm_outgoing_may_switch_over(uint64_t *pending)
{
    Wsm *w = wsm_get();

    assert(!bql_locked());
    if (!w->source) {
        return true;
    }
    switch (wsm_session_phase(&w->session)) {
    case WSM_PHASE_SETUP:
    case WSM_PHASE_DISK_PRECOPY:
        /* It broke off there */
        return false;
    case WSM_PHASE_RAM_PRECOPY:
        return wsm_outgoing_may_freeze(w->source, pending);
    case WSM_PHASE_FREEZE:
        wsm_source_try_handover(w->source);
        return false;
    case WSM_PHASE_POSTCOPY:
        return wsm_source_wait_all_there(w->source, 0);
    default:
        return true;
    }
}

bool wsm_outgoing_completes(WsmMigrationEnd *end)
{
    WsmSource *s = wsm_get()->source;

    if (!s || (migrate_postcopy_ram() && !wsm_source_is_anew(s)) ||
        !wsm_source_wait_all_there(s, 0)) {
        return false;
    }
    end(migrate_get_current());
    return true;
}

/* What it says is why, whatever else was seen of the stream, or earlier */
static void wsm_outgoing_is_refused(const char *reason)
{
    MigrationState *ms = migrate_get_current();

    QEMU_LOCK_GUARD(&ms->error_mutex);
    error_free(ms->error);
    ms->error = NULL;
    error_setg(&ms->error, "the destination refuses: %s", reason);
}

void wsm_outgoing_message(QEMUFile *rp, uint16_t type, uint16_t length,
                          Error **errp)
{
    g_autofree uint8_t *buf = g_malloc(length);
    g_autofree char *reason = NULL;

    if (type == WSM_REFUSAL_TYPE &&
        qemu_get_buffer(rp, buf, length) == length) {
        reason = wsm_refusal_text(type, buf, length);
    }
    if (reason) {
        wsm_outgoing_is_refused(reason);
    }
    error_setg(errp, "Received invalid message 0x%04x length 0x%04x", type,
               length);
}

/* Without a return path nobody has read what came, if it did */
static void wsm_outgoing_look_for_refusal(void)
{
    MigrationState *ms = migrate_get_current();
    QIOChannel *ioc = qemu_file_get_ioc(ms->to_dst_file);
    g_autofree char *reason = NULL;

    if (ms->state == MIGRATION_STATUS_FAILED &&
        !ms->rp_state.from_dst_file && wsm_channel_socket(ioc)) {
        reason = wsm_refusal_look(ioc);
    }
    if (reason) {
        wsm_outgoing_is_refused(reason);
    }
}

bool wsm_outgoing_broke(WsmMigrationEnd *end)
{
    assert(!bql_locked());
    if (wsm_get()->source) {
        bql_lock();
        bql_unlock();
    }
    return wsm_outgoing_completes(end);
}

void wsm_outgoing_end_pause(WsmMigrationEnd *end)
{
    if (migrate_get_current()->state == MIGRATION_STATUS_POSTCOPY_PAUSED) {
        wsm_outgoing_completes(end);
    }
}

bool wsm_outgoing_takes_back(void)
{
    WsmSource *s = wsm_get()->source;

    if (!s) {
        return false;
    }
    if (qatomic_read(&migrate_get_current()->state) !=
        MIGRATION_STATUS_POSTCOPY_ACTIVE) {
        return true;
    }
    if (wsm_session_phase(&wsm_get()->session) != WSM_PHASE_FREEZE) {
        return false;
    }
    wsm_source_take_back(s);
    return true;
}

bool wsm_outgoing_is_handed_over(void)
{
    return wsm_session_handed_over(&wsm_get()->session);
}

bool wsm_outgoing_stays_stopped(void)
{
    if (!migrate_whole_system()) {
        wsm_outgoing_look_for_refusal();
    }
    if (!wsm_outgoing_is_handed_over()) {
        return false;
    }
    runstate_set(RUN_STATE_POSTMIGRATE);
    return true;
}
