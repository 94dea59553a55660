/*
 * Whole-system migration: the guest's time stamp counter, whoever runs it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "migration/wsm/accel/clock.h"

/* As KVM has it: NTP corrects twice as much */
#define WSM_KHZ_PPM             250
/* Less time than that says little of a frequency */
#define WSM_KHZ_MIN_NS          (10 * 1000 * 1000)

bool wsm_khz_alike(uint32_t a, uint32_t b)
{
    uint64_t apart = a > b ? a - b : b - a;

    return apart * 1000000 <= (uint64_t)MAX(a, b) * WSM_KHZ_PPM;
}

int64_t wsm_ticks_convert(int64_t ticks, uint32_t from, uint32_t to)
{
    return ticks < 0 ? -muldiv64(-(uint64_t)ticks, to, from)
                     : muldiv64(ticks, to, from);
}

uint32_t wsm_khz_of(uint64_t ticks, int64_t ns)
{
    double khz = ns < WSM_KHZ_MIN_NS ? 0 : ticks * 1e6 / ns + 0.5;

    return khz < UINT32_MAX ? khz : 0;
}
