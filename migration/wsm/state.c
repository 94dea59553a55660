/*
 * Whole-system migration: all there is of it in this QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/migration.h"
#include "migration/wsm/state.h"

/* Hooks in QEMU have no opaque pointer; everything else is passed this one */
static Wsm *the_wsm;

Wsm *wsm_get(void)
{
    return the_wsm;
}

void wsm_set(Wsm *w)
{
    assert(!the_wsm);
    the_wsm = w;
}

bool migrate_whole_system(void)
{
    return migrate_get_current()->
           capabilities[MIGRATION_CAPABILITY_WHOLE_SYSTEM];
}
