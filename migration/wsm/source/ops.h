/*
 * Whole-system migration: what the source's channels and its work report
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_OPS_H
#define MIGRATION_WSM_SOURCE_OPS_H

#include "migration/wsm/source/source.h"

/* Both: @opaque is the WsmSource */
extern const WsmSourceChannelOps wsm_source_channel_ops;
extern const WsmWorkOps wsm_source_work_ops;

/*
 * The destination has not said a word, @cause is what is known: a new error
 * that says why that may be.  Any thread.
 */
Error *wsm_source_unanswered(WsmSource *s, const Error *cause);

/* Start the coroutines of all channels.  Migration thread. */
void wsm_source_open_channels(WsmSource *s);

#endif
