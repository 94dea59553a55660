/*
 * Whole-system migration: the source sends blocks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_SEND_H
#define MIGRATION_WSM_SOURCE_SEND_H

#include "migration/wsm/source/source.h"

/* Start the coroutines that send on bulk channel @c.  Any thread. */
void wsm_source_start_senders(WsmSourceChannel *c);

/* The destination asks for a range.  IOThread. */
void wsm_source_pull(WsmSourceChannel *c, const WsmMsg *msg);

#endif
