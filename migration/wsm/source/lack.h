/*
 * Whole-system migration: what the destination lacks in post-copy, says it
 *
 * It says so when channel 0 comes back, for it may be another QEMU than the one
 * that had acknowledged what was sent: that one died before it was durable.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_LACK_H
#define MIGRATION_WSM_SOURCE_LACK_H

#include "migration/wsm/source/source.h"

/* LACK came on channel 0.  Returns false and sets @errp to close it. */
bool coroutine_fn wsm_source_on_lack(WsmSourceChannel *c, const WsmMsg *msg,
                                     Error **errp);

/* May the destination be another one than the one that was told to SYNC? */
bool wsm_source_may_lack(const WsmSource *s);

#endif
