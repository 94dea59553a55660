/*
 * Whole-system migration: templates that the source may refer to
 *
 * Those of the sets that the destination has said with SETS, and that this side
 * has with the same ID and scope.  Without such a set no page is hashed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_TEMPLATES_H
#define MIGRATION_WSM_SOURCE_TEMPLATES_H

#include "migration/wsm/memory/payload.h"
#include "migration/wsm/memory/templates.h"

typedef struct WsmSourceTemplates WsmSourceTemplates;

/* Any thread, as all that follows */
WsmSourceTemplates *wsm_source_templates_new(void);
void wsm_source_templates_free(WsmSourceTemplates *t);

/* What this side has.  Once, before the other one says anything. */
void wsm_source_templates_own(WsmSourceTemplates *t, WsmTemplates *own);

/*
 * The payload of SETS.  It is said again when channel 0 is, and then must not
 * have changed.  False, and @errp.
 */
bool wsm_source_templates_said(WsmSourceTemplates *t, const uint8_t *payload,
                               size_t length, Error **errp);

/* Is @page in a set that both have?  Then @ref says where, but has no tag. */
bool wsm_source_templates_find(WsmSourceTemplates *t, const void *page,
                               WsmRef *ref);

#endif
