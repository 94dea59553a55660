/*
 * Whole-system migration: a guest that KVM runs
 *
 * Of accel/ alone, where the target is known; only while KVM runs it.  BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_ACCEL_KVM_H
#define MIGRATION_WSM_ACCEL_KVM_H

#include "hw/core/cpu.h"
#include "migration/wsm/accel/clock.h"

/* KVM's numbers of what a vCPU does, which are in QEMU's stream */
#define WSM_MP_RUNNABLE         0
#define WSM_MP_UNINITIALIZED    1
#define WSM_MP_INIT_RECEIVED    2

#ifdef CONFIG_KVM

/* As their namesakes in guest.h */
void wsm_kvm_save(WsmClock *clock);
bool wsm_kvm_load(const WsmClock *clock, Error **errp);

/* A register of @cs; 0 if KVM does not have it */
uint64_t wsm_kvm_read_msr(CPUState *cs, uint32_t index);

#else

static inline void wsm_kvm_save(WsmClock *clock)
{
    g_assert_not_reached();
}

static inline bool wsm_kvm_load(const WsmClock *clock, Error **errp)
{
    g_assert_not_reached();
}

static inline uint64_t wsm_kvm_read_msr(CPUState *cs, uint32_t index)
{
    g_assert_not_reached();
}

#endif

#endif
