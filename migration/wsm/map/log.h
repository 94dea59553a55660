/*
 * Whole-system migration: write a map of missing blocks
 *
 * The order that all depends on is kept by who calls it: data durable, then
 * wsm_map_log_mark(), then the guest's flush is acknowledged.  What is kept
 * here: when a function returns 0, what it wrote is durable, and at each moment
 * before, a crash leaves the map as it was or as it becomes.
 *
 * A process never goes on with the log of another one, whose last record may be
 * torn: after a restart all begins with a new generation, the commit.
 *
 * After an error nothing is known of what was written.  Then all fail but
 * wsm_map_log_void(), which is what to do: the guest runs on, so soon the map
 * would be wrong.
 *
 * One coroutine at a time does something; others wait.  In any AioContext, also
 * in a drained section: the request that is waited for may wait for this.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MAP_LOG_H
#define MIGRATION_WSM_MAP_LOG_H

#include "system/block-backend.h"
#include "migration/wsm/map/load.h"

typedef struct WsmMapLog WsmMapLog;

/* Read what is in @blk, see wsm_map_load().  In a coroutine or with the BQL. */
WsmMapState coroutine_mixed_fn
wsm_map_log_load(BlockBackend *blk, const WsmMapWanted *wanted,
                 WsmMapContents *out, Error **errp);

/*
 * @blk (a reference is taken) may be written, and is full of zeroes, durably.
 * @head says what the map is of; its generation and area are not looked at.
 * Nothing is missing.  BQL.
 */
WsmMapLog *wsm_map_log_new(BlockBackend *blk, const WsmMapHead *head);

/* After a restart: @contents (taken) was loaded from @blk.  BQL. */
WsmMapLog *wsm_map_log_reopen(BlockBackend *blk, WsmMapContents *contents);

/* No coroutine is in it.  BQL. */
void wsm_map_log_free(WsmMapLog *log);

/*
 * These blocks (wire/runs.h) are missing, beside others.  Before the commit.
 * Returns false and sets @errp if these are no runs of the disk.
 */
bool wsm_map_log_set_missing(WsmMapLog *log, const uint8_t *runs, size_t size,
                             Error **errp);

/*
 * From now on the map counts: a new generation with what is missing.  0 or
 * -errno; 0 at once if that was done.
 */
int coroutine_fn wsm_map_log_commit(WsmMapLog *log);

/*
 * What is in these ranges (in order, of whole blocks but for the end of the
 * disk) is durable in the image: it is not missing any more.  After the commit.
 * What is not missing already is no error.  0 or -errno.
 */
int coroutine_fn wsm_map_log_mark(WsmMapLog *log, const WsmMapRange *range,
                                  unsigned nb);

/* Nobody shall believe the map any more.  0 or -errno. */
int coroutine_fn wsm_map_log_void(WsmMapLog *log);

/*
 * Nothing is left of the map, nor of what was there before: @blk is full of
 * zeroes, durably.  A power cut leaves it as it was, or what nobody believes.
 * 0 or -errno.  In a coroutine or with the BQL; nothing else uses @blk.
 */
int coroutine_mixed_fn wsm_map_erase(BlockBackend *blk);

/* The same for one in use, which cannot be used then */
int coroutine_fn wsm_map_log_erase(WsmMapLog *log);

/* Bytes that are missing durably.  Any thread. */
int64_t wsm_map_log_missing(const WsmMapLog *log);

/* What is missing, to go through it.  No coroutine is in @log. */
const WsmMissing *wsm_map_log_peek(const WsmMapLog *log);

#endif
