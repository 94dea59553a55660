/*
 * Whole-system migration: what the source's disks build on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_BASIS_H
#define MIGRATION_WSM_SOURCE_BASIS_H

#include "migration/wsm/source/source.h"

/* BASIS and OWN have come.  IOThread. */
bool coroutine_fn wsm_source_on_basis(WsmSourceChannel *c, const WsmMsg *msg,
                                      Error **errp);
bool coroutine_fn wsm_source_on_own(WsmSourceChannel *c, const WsmMsg *msg,
                                    Error **errp);

/* At WSM_AGREED: only what can differ is dirty.  BQL, any thread. */
bool wsm_source_apply_basis(WsmSource *s, Error **errp);

#endif
