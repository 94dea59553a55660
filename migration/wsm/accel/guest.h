/*
 * Whole-system migration: a guest that goes from one accelerator to another
 *
 * What TCG and KVM have of a guest differs where one of them asks the host: in
 * the time stamp counter, in the timer of the local APIC, and in what KVM alone
 * offers.  docs/accelerators.md has the whole of it.  BQL, unless it says
 * otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_ACCEL_GUEST_H
#define MIGRATION_WSM_ACCEL_GUEST_H

#include "migration/wsm/accel/clock.h"

typedef enum WsmAccel {
    WSM_ACCEL_OTHER,            /* a guest cannot leave or enter it */
    WSM_ACCEL_TCG,
    WSM_ACCEL_KVM,
} WsmAccel;

/* Any thread */
WsmAccel wsm_accel(void);

/*
 * Under TCG, QEMU takes and ignores what KVM sends even of guests that do not
 * use it, if *@told: the guest's clock has come.  Once.
 */
void wsm_accel_register(const bool *told);

/*
 * A guest is about to go, or to come: from 10 ms later on the frequency of the
 * host's counter is known.  One that comes has no pace of its own yet.
 */
void wsm_accel_outgoing(void);
void wsm_accel_incoming(void);

/*
 * Is the guest's counter one of its own, which even the same accelerator has to
 * be told?
 */
bool wsm_accel_is_paced(void);

/*
 * The guest stands still, and is about to be saved for an accelerator that is
 * perhaps another.
 */
void wsm_accel_save(WsmClock *clock);

/*
 * The guest, all of which is loaded, does not run yet.  False and @errp if it
 * cannot be run here.
 */
bool wsm_accel_load(const WsmClock *clock, Error **errp);

#endif
