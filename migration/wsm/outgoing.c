/*
 * Whole-system migration: hooks in QEMU's own migration, at the source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/wsm/progress.h"
#include "migration/wsm/section.h"
#include "migration/wsm/state.h"

bool wsm_outgoing_start(Error **errp)
{
    ERRP_GUARD();
    Wsm *w = wsm_get();

    if (!migrate_whole_system()) {
        return true;
    }
    assert(!w->source);
    w->source = wsm_source_new(&w->session, &w->options, &w->images, w->peer);
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

    if (w->source) {
        wsm_save_end(w, WSM_PHASE_CANCELLED, NULL);
    }
}

bool wsm_outgoing_is_complete(void)
{
    WsmSource *s = wsm_get()->source;

    return s && !migrate_postcopy_ram() && wsm_source_wait_all_there(s, 0);
}

bool wsm_outgoing_takes_back(void)
{
    WsmSource *s = wsm_get()->source;

    if (!s || wsm_session_phase(&wsm_get()->session) != WSM_PHASE_FREEZE) {
        return false;
    }
    wsm_source_take_back(s);
    return true;
}

bool wsm_outgoing_is_handed_over(void)
{
    return wsm_session_handed_over(&wsm_get()->session);
}
