/*
 * Whole-system migration: the section "wsm-clock"
 *
 * The guest's time stamp counter and its frequency, in terms of what the guest
 * reads, for a destination on which something else may run it (accel/guest.h).
 * It comes with the device state, before all devices.  Main thread, BQL, unless
 * it says otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_CLOCK_H
#define MIGRATION_WSM_CLOCK_H

#include "migration/wsm/state.h"
#include "migration/wsm/wire/start.h"

void wsm_clock_register(Wsm *w);

/* Wsm.source is new: what can it tell the destination of accelerators? */
void wsm_clock_outgoing(Wsm *w);

/* @start came: WELCOME is to name the accelerator that is here */
void wsm_clock_incoming(Wsm *w, WsmStart *start);

/* The guest is all there, and about to be run.  False, and @errp: not here. */
bool wsm_clock_loaded(Wsm *w, Error **errp);

#endif
