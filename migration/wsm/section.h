/*
 * Whole-system migration: its part of the main stream
 *
 * The section "wsm-start" has the length of a START and the START
 * (wire/start.h).  Each part of the section "wsm" is one byte, which says what
 * it is.  The section "wsm-freeze" comes with the device state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SECTION_H
#define MIGRATION_WSM_SECTION_H

#include "migration/misc.h"
#include "migration/register.h"
#include "migration/vmstate.h"
#include "migration/wsm/state.h"

#define WSM_SECTION_VERSION     1
#define WSM_MAX_START_SIZE      (2 * MiB)

enum {
    WSM_SECTION_PART = 0,
    WSM_SECTION_END = 2,
};

/* save.c: the source's handlers */
int wsm_save_prepare(void *opaque, Error **errp);
int wsm_save_setup(QEMUFile *f, void *opaque, Error **errp);
void wsm_save_cleanup(void *opaque);
int wsm_save_iterate(QEMUFile *f, void *opaque);
int wsm_save_complete_precopy(QEMUFile *f, void *opaque);
int wsm_save_complete_postcopy(QEMUFile *f, void *opaque);

/*
 * Start section: the first of all, so that what the disks lack is said before
 * anything else can fail.  The source writes it with the BQL.
 */
int wsm_save_start(QEMUFile *f, Wsm *w);

/* Freeze section: the source writes it with the BQL */
int wsm_save_freeze(QEMUFile *f, Wsm *w);

/*
 * The final word on a migration that is over, well or not: Wsm.source goes.
 * @err, not owned, is why it failed, or NULL.  Main thread.
 */
void wsm_save_end(Wsm *w, WsmPhase phase, const Error *err);

/* Before and after the handover; see migration/misc.h for the events */
int wsm_save_notify(Wsm *w, MigrationEvent *e, Error **errp);

/* load.c: the destination's handlers */
int wsm_load_state(QEMUFile *f, void *opaque, int version_id);
int wsm_load_cleanup(void *opaque);
int wsm_load_start(QEMUFile *f, Wsm *w);
int wsm_load_freeze(QEMUFile *f, Wsm *w);

/*
 * section.c: our sections and handlers take part in migrations from now on.
 * Main thread.
 */
void wsm_sections_register(Wsm *w);

#endif
