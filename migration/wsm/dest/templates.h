/*
 * Whole-system migration: templates that the destination can serve
 *
 * Of the sets that this QEMU has, those whose pages it can get.  Their order is
 * what references call them by.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_TEMPLATES_H
#define MIGRATION_WSM_DEST_TEMPLATES_H

#include "migration/wsm/dest/conn.h"
#include "migration/wsm/dest/fetch.h"
#include "migration/wsm/dest/ring-spec.h"
#include "migration/wsm/memory/templates.h"

typedef struct WsmDestTemplates WsmDestTemplates;

/*
 * Keeps a reference to @all.  What only lists hashes is in @ring, which may be
 * NULL, and is asked in @loop, which must not end before the stop.  Main
 * thread.
 */
WsmDestTemplates *wsm_dest_templates_new(WsmTemplates *all, WsmRingSpec *ring,
                                         WsmLoop *loop);

/* Nothing is found in the ring any more.  Main thread.  @t may be NULL. */
void wsm_dest_templates_stop(WsmDestTemplates *t);

/* After the loop has ended.  Any thread, as all that follows. */
void wsm_dest_templates_free(WsmDestTemplates *t);

/* Is there what @ref, of kind WSM_REF_TEMPLATE, names?  False, and @errp. */
bool wsm_dest_templates_check(const WsmDestTemplates *t, const WsmRef *ref,
                              Error **errp);

/* Where its content is got; it was checked.  As long as @t is there. */
WsmFetchPlace wsm_dest_templates_place(WsmDestTemplates *t, const WsmRef *ref);

/* For query-wsm: the nodes of the ring.  @t may be NULL. */
void wsm_dest_templates_info(WsmDestTemplates *t, WsmMemoryInfo *info);

/* In the loop: say SETS, unless there is none.  0 or -errno. */
int coroutine_fn wsm_dest_templates_say(const WsmDestTemplates *t,
                                        WsmDestConn *conn);

#endif
