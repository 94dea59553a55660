/*
 * Whole-system migration: the memory of a guest that has left is kept
 *
 * Written to a file by a thread of its own, when all is over: it holds up
 * nothing.  If the guest comes back, what is in it need not be sent
 * (dest/kept.h).  The file has its name when it is whole; whatever goes wrong
 * is a warning, and there is none.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_KEEP_H
#define MIGRATION_WSM_SOURCE_KEEP_H

#include "qapi/qapi-types-wsm.h"
#include "qemu/uuid.h"

typedef struct WsmKeep WsmKeep;

/*
 * Begin to write the memory of the guest, which stands still, to @file, in
 * place of what is there.  @session is that in which it left.  Main thread.
 */
WsmKeep *wsm_keep_start(const char *file, const QemuUUID *session);

/* Wait for @ms at most.  Is it done, well or not?  Any thread. */
bool wsm_keep_wait(WsmKeep *keep, int ms);

/* Give up, soon, if it is not done.  Any thread. */
void wsm_keep_give_up(WsmKeep *keep);

/* The same, and wait for that.  Main thread. */
void wsm_keep_free(WsmKeep *keep);

/* For query-wsm.  Any thread. */
WsmKeptInfo *wsm_keep_info(WsmKeep *keep);

#endif
