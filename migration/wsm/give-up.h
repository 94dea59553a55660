/*
 * Whole-system migration: tell the source why the guest cannot come
 *
 * The user sits at the source.  What QEMU knows of a stream that it cannot
 * load goes to stderr here, and the source hears that something is wrong.  So
 * the first error that is reported while the stream is loaded is kept, and
 * said on the block channels before QEMU ends.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_GIVE_UP_H
#define MIGRATION_WSM_GIVE_UP_H

#include "migration/wsm/state.h"

/* Main thread, once: begin to listen to error_report() */
void wsm_give_up_init(void);

/*
 * The source lacks the capability and cannot be told on block channels.  Tell
 * it @reason on the main stream, and wait until it hangs up, or for a moment.
 * Main thread, in the coroutine that loads the stream.
 */
void coroutine_fn wsm_give_up_at_once(const char *reason);

/*
 * Loading failed.  Say why, if the source has not been told, and wait until it
 * hangs up, or for some seconds.  Main thread, in the coroutine that loads the
 * stream.
 */
void coroutine_fn wsm_give_up(Wsm *w);

#endif
