/*
 * Whole-system migration: what keeps a guest on its accelerator
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "cpu.h"
#include "hw/core/cpu.h"
#include "hw/xen/xen.h"
#include "migration/wsm/accel/guest.h"
#include "migration/wsm/accel/kvm.h"
#include "migration/wsm/accel/obstacle.h"
#include "system/hw_accel.h"
#include "system/kvm.h"
#include "target/i386/cpu-internal.h"

static void wsm_add(GString *list, const char *separator, const char *name)
{
    g_string_append_printf(list, "%s%s", list->len ? separator : "", name);
}

/* Features of the CPU that TCG lacks: their names, and how to be without */
static void wsm_add_features(X86CPU *cpu, GString *names, GString *without)
{
    for (FeatureWord w = 0; w < FEATURE_WORDS; w++) {
        uint64_t lacks = cpu->env.features[w] &
                         ~feature_word_info[w].tcg_features;

        for (int bit = 0; bit < 64; bit++) {
            const char *name = feature_word_info[w].feat_names[bit];

            if (!(lacks & (1ull << bit)) || !name) {
                continue;
            }
            wsm_add(names, ", ", name);
            if (w != FEAT_KVM && w != FEAT_KVM_HINTS) {
                g_string_append_printf(without, ",-%s", name);
            }
        }
    }
    if (cpu->env.features[FEAT_KVM] | cpu->env.features[FEAT_KVM_HINTS]) {
        g_string_prepend(without, ",kvm=off");
    }
}

static char *wsm_features_obstacle(X86CPU *cpu)
{
    g_autoptr(GString) names = g_string_new(NULL);
    g_autoptr(GString) without = g_string_new(NULL);

    wsm_add_features(cpu, names, without);
    if (names->len) {
        return g_strdup_printf("its CPU has features that TCG lacks: %s; start "
                               "the guest with '-cpu ...%s' on both hosts",
                               names->str, without->str);
    }
    if (cpu->enable_pmu) {
        return g_strdup("its CPU has a PMU, which TCG lacks; start the guest "
                        "with '-cpu ...,pmu=off' on both hosts");
    }
    if (xen_mode != XEN_DISABLED) {
        return g_strdup("it was started as one of Xen, which TCG cannot run; "
                        "start it without 'xen-version'");
    }
    if (cpu->hyperv_features) {
        return g_strdup("it was started with Hyper-V's enlightenments, which "
                        "TCG lacks; start it without 'hv-...' in '-cpu'");
    }
    return NULL;
}

/*
 * What a guest can have asked KVM for even if its CPU does not offer it.  In
 * each of these bit 0 is "on".
 */
static const struct {
    uint32_t msr;
    const char *name;
} wsm_pv_msr[] = {
    { 0x4b564d01, "kvmclock" },
    { 0x4b564d02, "kvm-asyncpf" },
    { 0x4b564d03, "kvm-steal-time" },
    { 0x4b564d04, "kvm-pv-eoi" },
};

/* The first of these that is in use, or NULL */
static const char *wsm_uses_pv(CPUState *cs)
{
    for (int i = 0; kvm_enabled() && i < ARRAY_SIZE(wsm_pv_msr); i++) {
        if (wsm_kvm_read_msr(cs, wsm_pv_msr[i].msr) & 1) {
            return wsm_pv_msr[i].name;
        }
    }
    return NULL;
}

static char *wsm_state_obstacle(CPUState *cs)
{
    CPUX86State *env = cpu_env(cs);
    const char *pv;

    if (env->efer & MSR_EFER_SVME || env->cr[4] & CR4_VMXE_MASK) {
        return g_strdup_printf(
            "it runs virtual machines of its own, or is ready to (%s is on), "
            "and what the accelerator has of these cannot be moved; stop them "
            "and unload the guest's hypervisor, such as with 'modprobe -r %s'",
            env->efer & MSR_EFER_SVME ? "SVM" : "VMX",
            env->efer & MSR_EFER_SVME ? "kvm_amd" : "kvm_intel");
    }
    pv = wsm_uses_pv(cs);
    if (pv) {
        return g_strdup_printf("it uses %s, which TCG lacks; start the guest "
                               "with '-cpu ...,kvm=off' on both hosts", pv);
    }
    return NULL;
}

char *wsm_accel_obstacle(void)
{
    CPUState *cs;

    CPU_FOREACH(cs) {
        char *why = NULL;

        if (wsm_accel() == WSM_ACCEL_KVM) {
            why = wsm_features_obstacle(X86_CPU(cs));
        }
        if (!why) {
            cpu_synchronize_state(cs);
            why = wsm_state_obstacle(cs);
        }
        if (why) {
            return why;
        }
    }
    return NULL;
}
