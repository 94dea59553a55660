/*
 * For unit tests: a clock that stands still until the test moves it
 *
 * It is that of timers (QEMU_CLOCK_REALTIME) and of g_get_monotonic_time(), for
 * the whole program.  So nothing comes too late on a slow machine, and nobody
 * waits for what takes seconds.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef WSM_CLOCK_H
#define WSM_CLOCK_H

void clock_pass_ms(int64_t ms);

#endif
