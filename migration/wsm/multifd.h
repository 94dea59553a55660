/*
 * Whole-system migration: a method of multifd that sends memory by reference
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MULTIFD_H
#define MIGRATION_WSM_MULTIFD_H

#include "migration/wsm/core/options.h"
#include "migration/wsm/dest/memory.h"
#include "migration/wsm/wire/start.h"

/*
 * Can the source do what is set?  Returns false and sets @errp if not.  Main
 * thread.
 */
bool wsm_multifd_check(WsmOptionsStore *options, Error **errp);

/*
 * What comes by reference is for @memory from now on; NULL: none must come.
 * Main thread.
 */
void wsm_multifd_set_incoming(WsmDestMemory *memory);

/* Why the destination cannot do what @start asks for, or NULL */
char *wsm_multifd_refusal(const WsmStart *start);

#endif
