/*
 * Whole-system migration: the source's walk through the phases
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SOURCE_PHASES_H
#define MIGRATION_WSM_SOURCE_PHASES_H

#include "migration/wsm/source/source.h"

/* Migration thread, without the BQL unless it says so */

/* Is there a reason to stop waiting?  Sets an error on the stream then. */
bool wsm_source_interrupted(WsmSource *s);

/* Wait for block channels, then copy disks.  0 or -errno; sets the error. */
int wsm_source_disk_phase(WsmSource *s);

/* Return true if all is set for the freeze, else set about it */
bool wsm_source_prepare_freeze(WsmSource *s);

/* BQL: the guest stands still.  The runs that are missing, for all disks. */
void wsm_source_freeze(WsmSource *s);
GByteArray *wsm_source_residue(WsmSource *s, unsigned disk);

/*
 * BQL: all state is sent.  False: the guest stays here, @errp says why.  True:
 * it is the destination's now, or will be, or will come back, when memory was
 * sent of which there is some left: the phase tells.
 */
bool wsm_source_handover(WsmSource *s, Error **errp);

/* In the freeze, memory is being sent: if READY has come hand the guest over */
void wsm_source_try_handover(WsmSource *s);

/* The guest will not be handed over: tell the destination */
void wsm_source_take_back(WsmSource *s);

/* Wait up to @ms for a change; is everything at the destination? */
bool wsm_source_wait_all_there(WsmSource *s, int ms);

#endif
