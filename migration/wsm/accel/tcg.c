/*
 * Whole-system migration: a guest that TCG runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "cpu.h"
#include "hw/i386/apic.h"
#include "hw/i386/apic_internal.h"
#include "hw/intc/i8259.h"
#include "migration/vmstate.h"
#include "migration/wsm/accel/kvm.h"
#include "migration/wsm/accel/tcg.h"
#include "qemu/seqlock.h"
#include "qemu/timer.h"
#include "system/accel-ops.h"
#include "system/cpu-timers.h"
#include "system/cpu-timers-internal.h"

/* The two clocks cannot be read at once: of so many readings the best */
#define WSM_READINGS            8

/* The host's counter at some instant */
typedef struct WsmInstant {
    int64_t ticks, ns;
} WsmInstant;

/* When this migration began */
static WsmInstant wsm_begun;

/*
 * Under TCG the guest's counter is the host's plus an offset.  A guest that
 * comes from where it ran at another pace gets one of its own.  BQL; the vCPUs
 * read it, but not while it changes.
 */
static struct {
    uint32_t khz;               /* of the guest; 0: it has the host's pace */
    uint32_t host_khz;
    int64_t since;              /* both counters were equal then */
} wsm_pace;

static WsmInstant wsm_read_clocks(void)
{
    WsmInstant best = {};
    int64_t apart = INT64_MAX;

    for (int i = 0; i < WSM_READINGS; i++) {
        int64_t before = get_clock();
        int64_t ticks = cpu_get_host_ticks();
        int64_t after = get_clock();

        if (after - before < apart) {
            apart = after - before;
            best = (WsmInstant) { ticks, before + apart / 2 };
        }
    }
    return best;
}

void wsm_tcg_measure(void)
{
    wsm_begun = wsm_read_clocks();
}

/*
 * What KVM has and TCG has not
 */

typedef struct WsmIgnored {
    const bool *told;           /* did wsm-clock come? */
    uint64_t clock;
    bool reliable;
} WsmIgnored;

static bool wsm_never(void *opaque)
{
    return false;
}

static const VMStateDescription wsm_vmstate_reliable = {
    .name = "kvmclock/clock_is_reliable",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = wsm_never,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(reliable, WsmIgnored),
        VMSTATE_END_OF_LIST()
    },
};

/* Else nothing of the guest would be put into our terms */
static int wsm_kvmclock_pre_load(void *opaque)
{
    WsmIgnored *ignored = opaque;

    if (!*ignored->told) {
        error_report("The guest comes from KVM, and not by a whole-system "
                     "migration of a QEMU that knows how it can go to TCG");
        return -EINVAL;
    }
    return 0;
}

/* Machines have it under KVM, whether their guest uses it or not */
static const VMStateDescription wsm_vmstate_kvmclock = {
    .name = "kvmclock",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = wsm_never,
    .pre_load = wsm_kvmclock_pre_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(clock, WsmIgnored),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription * const []) {
        &wsm_vmstate_reliable,
        NULL
    },
};

void wsm_tcg_register(const bool *told)
{
    static WsmIgnored ignored;

    ignored.told = told;
    vmstate_register(NULL, 0, &wsm_vmstate_kvmclock, &ignored);
}

/*
 * The guest's counter
 */

static uint32_t wsm_host_khz(void)
{
    WsmInstant now = wsm_read_clocks();

    return wsm_khz_of(now.ticks - wsm_begun.ticks,
                      now.ns - wsm_begun.ns);
}

static int64_t wsm_paced_ticks(void)
{
    return wsm_pace.since + wsm_ticks_convert(cpu_get_ticks() - wsm_pace.since,
                                              wsm_pace.host_khz, wsm_pace.khz);
}

bool wsm_tcg_is_paced(void)
{
    return wsm_pace.khz;
}

void wsm_tcg_save(WsmClock *clock)
{
    clock->tsc = cpus_get_elapsed_ticks();
    clock->khz = wsm_pace.khz ?: wsm_host_khz();
}

static void wsm_tcg_set_ticks(int64_t ticks)
{
    seqlock_write_lock(&timers_state.vm_clock_seqlock,
                       &timers_state.vm_clock_lock);
    assert(!timers_state.cpu_ticks_enabled);
    timers_state.cpu_ticks_offset = timers_state.cpu_ticks_prev = ticks;
    seqlock_write_unlock(&timers_state.vm_clock_seqlock,
                         &timers_state.vm_clock_lock);
}

/*
 * An interrupt that KVM was about to deliver has left the APIC's queue already;
 * TCG is to take it from there.  What else KVM was about to deliver a vCPU
 * raises again when it repeats the instruction.  None of it may be there still
 * when the guest goes back to KVM.
 */
static void wsm_tcg_requeue(CPUX86State *env, APICCommonState *s)
{
    int vector = env->interrupt_injected;

    if (s && !env->soft_interrupt && vector >= 0 && vector < 256 &&
        s->isr[vector / 32] & (1u << vector % 32)) {
        s->isr[vector / 32] &= ~(1u << vector % 32);
        s->irr[vector / 32] |= 1u << vector % 32;
    }
    env->interrupt_injected = -1;
    env->soft_interrupt = 0;
    env->exception_nr = -1;
    env->exception_pending = 0;
    env->exception_injected = 0;
    env->triple_fault_pending = false;
}

static void wsm_tcg_requeue_nmi(CPUState *cs)
{
    CPUX86State *env = cpu_env(cs);

    if (env->nmi_injected) {
        env->hflags2 &= ~HF2_NMI_MASK;
    }
    if (env->nmi_injected || env->nmi_pending) {
        cpu_interrupt(cs, CPU_INTERRUPT_NMI);
    }
    env->nmi_injected = env->nmi_pending = 0;
}

/* What KVM alone knows of a vCPU, told to TCG in its own terms */
static void wsm_tcg_load_cpu(CPUState *cs)
{
    CPUX86State *env = cpu_env(cs);
    DeviceState *apic = X86_CPU(cs)->apic_state;

    wsm_tcg_requeue(env, apic ? APIC_COMMON(apic) : NULL);
    wsm_tcg_requeue_nmi(cs);
    if (apic && APIC_COMMON(apic)->wait_for_sipi) {
        cs->halted = 1;
    }
    env->mp_state = WSM_MP_RUNNABLE;
    env->pdptrs_valid = false;
    /* TCG has bits of CR4 in its flags, too, for AVX and SMAP */
    cpu_x86_update_cr4(env, env->cr[4]);
    /* What is in the queue: nobody else looks until the next comes */
    cpu_reset_interrupt(cs, CPU_INTERRUPT_HARD);
    if (apic) {
        cpu_interrupt(cs, CPU_INTERRUPT_POLL);
    }
}

/* Likewise what waits in the PIC: its line is up, and will not rise again */
static void wsm_tcg_load_pic(void)
{
    CPUState *cs;

    if (!isa_pic || !pic_get_output(isa_pic)) {
        return;
    }
    CPU_FOREACH(cs) {
        DeviceState *apic = X86_CPU(cs)->apic_state;

        if (!apic) {
            cpu_interrupt(cs, CPU_INTERRUPT_HARD);
        } else if (apic_accept_pic_intr(apic)) {
            apic_deliver_pic_intr(apic, 1);
        }
    }
}

/* QEMU's callback has no argument, so what it needs is not in an object */
static void wsm_tcg_set_pace(uint32_t khz, uint32_t host_khz, int64_t since)
{
    ObjectClass *tcg = object_class_by_name(ACCEL_OPS_NAME("tcg"));

    wsm_pace.khz = khz;
    wsm_pace.host_khz = host_khz;
    wsm_pace.since = since;
    ACCEL_OPS_CLASS(tcg)->get_elapsed_ticks = khz ? wsm_paced_ticks : NULL;
}

void wsm_tcg_reset(void)
{
    wsm_tcg_set_pace(0, 0, 0);
}

void wsm_tcg_load(const WsmClock *clock)
{
    CPUState *cs;
    uint32_t host_khz = wsm_host_khz();
    bool paced = clock->khz && host_khz &&
                 !wsm_khz_alike(clock->khz, host_khz);

    CPU_FOREACH(cs) {
        wsm_tcg_load_cpu(cs);
    }
    wsm_tcg_load_pic();
    wsm_tcg_set_ticks(clock->tsc);
    wsm_tcg_set_pace(paced ? clock->khz : 0, host_khz, clock->tsc);
}
