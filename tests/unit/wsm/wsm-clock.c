/*
 * For unit tests: a clock that stands still until the test moves it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/syscall.h>
#include "qemu/atomic.h"
#include "qemu/timer.h"
#include "wsm-clock.h"

static int64_t now = 1000 * NANOSECONDS_PER_SECOND;     /* atomic */

/* In the place of libc's */
int clock_gettime(clockid_t id, struct timespec *ts)
{
    int64_t ns = qatomic_read(&now);

    if (id != CLOCK_MONOTONIC) {
        return syscall(SYS_clock_gettime, id, ts);
    }
    ts->tv_sec = ns / NANOSECONDS_PER_SECOND;
    ts->tv_nsec = ns % NANOSECONDS_PER_SECOND;
    return 0;
}

void clock_pass_ms(int64_t ms)
{
    qatomic_add(&now, ms * SCALE_MS);
}
