/*
 * Whole-system migration: delta by content, at the source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_COMPARE_H
#define MIGRATION_WSM_SOURCE_COMPARE_H

#include "migration/wsm/source/source.h"

/* Compare the range of @req, which is then another's.  IOThread. */
void coroutine_fn wsm_source_compare(WsmSourceChannel *c, WsmReq *req);

#endif
