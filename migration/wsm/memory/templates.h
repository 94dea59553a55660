/*
 * Whole-system migration: the sets of templates that this QEMU may use
 *
 * A list that never changes: new sets make a new list, and who uses the old one
 * goes on with it.  Each set has a scope, the name of those whom it is for: a
 * migration uses a set only if both sides have it with the same ID and scope.
 *
 * Pure.  Any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_TEMPLATES_H
#define MIGRATION_WSM_MEMORY_TEMPLATES_H

#include "migration/wsm/memory/set.h"
#include "migration/wsm/wire/sets.h"

typedef struct WsmTemplates WsmTemplates;

/*
 * Open all files, as wsm_set_open() does, with the same risks to the caller's
 * thread.  NULL, and @errp.
 */
WsmTemplates *wsm_templates_open(const WsmTemplateSetList *sets, Error **errp);
WsmTemplates *wsm_templates_ref(WsmTemplates *t);
void wsm_templates_unref(WsmTemplates *t);

/* How many there are, at most WSM_MAX_SETS; and one of them */
unsigned wsm_templates_count(const WsmTemplates *t);
WsmSet *wsm_templates_set(const WsmTemplates *t, unsigned i);
const char *wsm_templates_scope(const WsmTemplates *t, unsigned i);

/* What the other side calls @desc, or NULL; as long as @t is there */
WsmSet *wsm_templates_find(const WsmTemplates *t, const WsmSetDesc *desc);

#endif
