/*
 * Whole-system migration: how far the source is
 *
 * Main thread, unless it says so.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_PROGRESS_H
#define MIGRATION_WSM_SOURCE_PROGRESS_H

#include "migration/wsm/policy/expect.h"
#include "migration/wsm/source/source.h"

/* How far it is; and what is left, with the rates of @e */
void wsm_source_sample(WsmSource *s, WsmSample *out);
void wsm_source_expect(WsmSource *s, WsmPhase phase, WsmExpect *e);

/* Bytes of all disks: so far sent as data, found equal.  Any thread. */
int64_t wsm_source_sent(WsmSource *s);
int64_t wsm_source_equal(WsmSource *s);

#endif
