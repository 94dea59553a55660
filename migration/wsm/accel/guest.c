/*
 * Whole-system migration: a guest that goes from one accelerator to another
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/accel/guest.h"
#include "migration/wsm/accel/obstacle.h"
#ifdef TARGET_I386
#include "cpu.h"
#include "migration/wsm/accel/kvm.h"
#include "migration/wsm/accel/tcg.h"
#include "system/cpu-timers.h"
#include "system/kvm.h"
#include "system/tcg.h"

WsmAccel wsm_accel(void)
{
    if (tcg_enabled()) {
        /* With icount, instructions are the time: nobody else counts them */
        return icount_enabled() ? WSM_ACCEL_OTHER : WSM_ACCEL_TCG;
    }
    return kvm_enabled() ? WSM_ACCEL_KVM : WSM_ACCEL_OTHER;
}

void wsm_accel_register(const bool *told)
{
    if (wsm_accel() == WSM_ACCEL_TCG) {
        wsm_tcg_register(told);
    }
}

void wsm_accel_outgoing(void)
{
    wsm_tcg_measure();
}

void wsm_accel_incoming(void)
{
    wsm_tcg_measure();
    if (wsm_accel() == WSM_ACCEL_TCG) {
        wsm_tcg_reset();
    }
}

bool wsm_accel_is_paced(void)
{
    return wsm_accel() == WSM_ACCEL_TCG && wsm_tcg_is_paced();
}

void wsm_accel_save(WsmClock *clock)
{
    if (wsm_accel() == WSM_ACCEL_KVM) {
        wsm_kvm_save(clock);
    } else {
        wsm_tcg_save(clock);
    }
}

bool wsm_accel_load(const WsmClock *clock, Error **errp)
{
    if (wsm_accel() == WSM_ACCEL_KVM) {
        return wsm_kvm_load(clock, errp);
    }
    if (wsm_accel() != WSM_ACCEL_TCG) {
        error_setg(errp, "The guest comes from TCG or KVM; here is neither");
        return false;
    }
    if (cpu_env(first_cpu)->system_time_msr & 1) {
        error_setg(errp, "The guest uses kvmclock, which TCG lacks; start it "
                   "with '-cpu ...,kvm=off' on both hosts");
        return false;
    }
    wsm_tcg_load(clock);
    return true;
}

#else /* !TARGET_I386: other targets have no common ground yet */

WsmAccel wsm_accel(void)
{
    return WSM_ACCEL_OTHER;
}

void wsm_accel_register(const bool *told)
{
}

void wsm_accel_outgoing(void)
{
}

void wsm_accel_incoming(void)
{
}

char *wsm_accel_obstacle(void)
{
    return NULL;
}

bool wsm_accel_is_paced(void)
{
    return false;
}

void wsm_accel_save(WsmClock *clock)
{
    *clock = (WsmClock) {};
}

bool wsm_accel_load(const WsmClock *clock, Error **errp)
{
    error_setg(errp, "Guests like this one do not move between accelerators");
    return false;
}

#endif
