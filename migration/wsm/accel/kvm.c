/*
 * Whole-system migration: a guest that KVM runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "cpu.h"
#include CONFIG_DEVICES
#include "hw/i386/apic_internal.h"
#include "hw/timer/i8254.h"
#include "hw/timer/i8254_internal.h"
#include "migration/wsm/accel/kvm.h"
#include "qemu/timer.h"
#include "system/hw_accel.h"
#include "system/kvm.h"
#include "target/i386/kvm/kvm_i386.h"

#define WSM_APIC_COUNT_REG      0x39    /* the timer's current count */
/* KVM takes for the same counter what differs by less than a second */
#define WSM_TSC_FAR             (1ull << 62)

/*
 * Registers
 */

typedef struct WsmMsr {
    uint32_t index;
    uint64_t value;
} WsmMsr;

typedef struct WsmKvmMsr {
    struct kvm_msrs info;
    struct kvm_msr_entry entries[1];
} WsmKvmMsr;

static void wsm_kvm_get_msr(CPUState *cs, run_on_cpu_data data)
{
    WsmMsr *msr = data.host_ptr;
    WsmKvmMsr msrs = {
        .info.nmsrs = 1,
        .entries[0].index = msr->index,
    };

    msr->value = kvm_vcpu_ioctl(cs, KVM_GET_MSRS, &msrs) == 1 ?
                 msrs.entries[0].data : 0;
}

uint64_t wsm_kvm_read_msr(CPUState *cs, uint32_t index)
{
    WsmMsr msr = { .index = index };

    run_on_cpu(cs, wsm_kvm_get_msr, RUN_ON_CPU_HOST_PTR(&msr));
    return msr.value;
}

static void wsm_kvm_set_msr(CPUState *cs, run_on_cpu_data data)
{
    const WsmMsr *msr = data.host_ptr;
    WsmKvmMsr msrs = {
        .info.nmsrs = 1,
        .entries[0] = { .index = msr->index, .data = msr->value },
    };

    if (kvm_vcpu_ioctl(cs, KVM_SET_MSRS, &msrs) != 1) {
        warn_report("KVM does not set register 0x%x; the guest's clock may "
                    "leap", msr->index);
    }
}

static void wsm_kvm_get_khz(CPUState *cs, run_on_cpu_data data)
{
    *(int *)data.host_ptr = kvm_vcpu_ioctl(cs, KVM_GET_TSC_KHZ);
}

/* The frequency of the counter of @cs, in kHz; else 0 */
static int wsm_kvm_khz(CPUState *cs)
{
    int khz;

    run_on_cpu(cs, wsm_kvm_get_khz, RUN_ON_CPU_HOST_PTR(&khz));
    return MAX(khz, 0);
}

static void wsm_kvm_put_khz(CPUState *cs, run_on_cpu_data data)
{
    int *khz = data.host_ptr;

    *khz = kvm_vcpu_ioctl(cs, KVM_SET_TSC_KHZ, *khz);
}

/*
 * Save
 */

/*
 * What has come to the APIC since the vCPU was read, and what is left of its
 * timer, which QEMU does not ask for
 */
static void wsm_kvm_save_apic(CPUState *cs, run_on_cpu_data unused)
{
    APICCommonState *s = APIC_COMMON(X86_CPU(cs)->apic_state);
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    struct kvm_lapic_state lapic;
    uint32_t left;

    /* Here it is KVM that knows; ours is as it once came */
    s->wait_for_sipi = cpu_env(cs)->mp_state == WSM_MP_UNINITIALIZED ||
                       cpu_env(cs)->mp_state == WSM_MP_INIT_RECEIVED;
    if (kvm_vcpu_ioctl(cs, KVM_GET_LAPIC, &lapic) < 0) {
        warn_report("KVM does not tell the state of the guest's APIC; its "
                    "timer may be late");
        return;
    }
    kvm_get_apic_state(DEVICE(s), &lapic);
    left = ldl_le_p(lapic.regs + (WSM_APIC_COUNT_REG << 4));
    /* It may have expired and the interrupt be lost: then once too often */
    left = MAX(left, 1);
    if (s->initial_count) {
        s->initial_count_load_time =
            now - ((int64_t)(s->initial_count - left) << s->count_shift);
        apic_next_timer(s, now);
    }
}

/*
 * What it has from KVM is the first edge since it was programmed; TCG would
 * make up for all since, one after the other.
 */
static void wsm_kvm_save_pit(void)
{
#ifdef CONFIG_I8254
    Object *pit = object_resolve_path_type("", TYPE_PIT_COMMON, NULL);
    PITChannelState *timer;

    if (pit && kvm_pit_in_kernel()) {
        timer = &PIT_COMMON(pit)->channels[0];
        timer->next_transition_time = pit_get_next_transition_time(
            timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL));
    }
#endif
}

void wsm_kvm_save(WsmClock *clock)
{
    CPUState *cs;

    /* QEMU keeps what it was told, even where KVM could not do that */
    *clock = (WsmClock) {
        .khz = wsm_kvm_khz(first_cpu) ?: cpu_env(first_cpu)->tsc_khz,
    };
    CPU_FOREACH(cs) {
        cpu_synchronize_state(cs);
        /* They were read one after the other; none may go back */
        clock->tsc = MAX(clock->tsc, cpu_env(cs)->tsc);
        /* KVM has no such gate, whatever devices think */
        cpu_env(cs)->a20_mask = ~0;
        if (kvm_irqchip_in_kernel() && X86_CPU(cs)->apic_state) {
            run_on_cpu(cs, wsm_kvm_save_apic, RUN_ON_CPU_NULL);
        }
    }
    wsm_kvm_save_pit();
}

/*
 * Load
 */

/*
 * KVM keeps the counters of vCPUs equal: one that is set to nearly what another
 * was set to gets what that one has by now.  Here that is the age of this QEMU,
 * of which the guest knows nothing, so let it be far from that.
 */
static void wsm_kvm_leave_tsc(CPUState *cs, uint64_t tsc)
{
    WsmMsr msr = { .index = MSR_IA32_TSC, .value = tsc ^ WSM_TSC_FAR };

    run_on_cpu(cs, wsm_kvm_set_msr, RUN_ON_CPU_HOST_PTR(&msr));
}

/*
 * What comes in env->tsc_khz says nothing of this host: TCG passes on what it
 * was told by an earlier KVM.
 */
static bool wsm_kvm_set_khz(CPUState *cs, uint32_t khz, Error **errp)
{
    CPUX86State *env = cpu_env(cs);
    int here = wsm_kvm_khz(cs), set = khz;

    if (!here) {
        return true;
    }
    if (!khz || wsm_khz_alike(khz, here)) {
        env->tsc_khz = here;
        return true;
    }
    if (!env->user_tsc_khz) {
        run_on_cpu(cs, wsm_kvm_put_khz, RUN_ON_CPU_HOST_PTR(&set));
    }
    if (env->user_tsc_khz || set < 0) {
        error_setg(errp, "The guest's time stamp counter has %u kHz, but %s "
                   "%d kHz; %s", khz,
                   env->user_tsc_khz ? "'tsc-frequency' here says"
                                     : "this host, which cannot scale to "
                                       "that, has",
                   here,
                   env->user_tsc_khz ? "leave that out"
                                     : "move it to another host");
        return false;
    }
    env->tsc_khz = khz;
    return true;
}

/*
 * TCG's PIT holds its line up for most of its period, KVM's makes pulses.  The
 * first of these would be no edge and so be lost, and KVM waits until the guest
 * has acknowledged it: no other would ever come.
 */
static void wsm_kvm_lower_pit(void)
{
    if (kvm_pit_in_kernel()) {
        kvm_set_irq(kvm_state, 0, 0);
    }
}

/* What KVM has to be told of a vCPU; TCG has it in another way or not at all */
static void wsm_kvm_load_cpu(CPUState *cs)
{
    CPUX86State *env = cpu_env(cs);
    DeviceState *apic = X86_CPU(cs)->apic_state;

    /* A vCPU that waits for its start does so here, too */
    env->mp_state = kvm_irqchip_in_kernel() && apic &&
                    APIC_COMMON(apic)->wait_for_sipi && cs->halted ?
                    WSM_MP_INIT_RECEIVED : WSM_MP_RUNNABLE;
    if (kvm_irqchip_in_kernel() && apic) {
        APIC_COMMON(apic)->wait_for_sipi = 0;
    }
    /* Else KVM takes the FPU to be as after a reset */
    env->xstate_bv |= XSTATE_FP_MASK | XSTATE_SSE_MASK | env->xcr0;
    /* TCG has the descriptor as it was before the task; Intel insists */
    if (env->tr.flags & DESC_P_MASK) {
        env->tr.flags |= DESC_TSS_BUSY_MASK;
    }
    /* KVM would leave it as it is, and TCG find it when the guest comes back */
    env->hflags &= ~HF_INHIBIT_IRQ_MASK;
}

bool wsm_kvm_load(const WsmClock *clock, Error **errp)
{
    CPUState *cs;

    CPU_FOREACH(cs) {
        wsm_kvm_load_cpu(cs);
        if (!wsm_kvm_set_khz(cs, clock->khz, errp)) {
            return false;
        }
        cpu_env(cs)->tsc = clock->tsc;
        wsm_kvm_leave_tsc(cs, clock->tsc);
    }
    wsm_kvm_lower_pit();
    return true;
}
