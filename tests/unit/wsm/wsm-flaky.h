/*
 * For unit tests: an image that is a file, but may not be flushed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef WSM_FLAKY_H
#define WSM_FLAKY_H

/* All images of driver "test-flaky"; atomic */
typedef struct Flaky {
    int ret;                    /* what a flush returns if not 0 */
    int next_ret;               /* what the next one returns if not 0 */
    bool hold;                  /* flushes wait until it is false again */
    unsigned waiting;           /* those that do */
    unsigned flushes;           /* that have ended, well or not */
} Flaky;

extern Flaky flaky;

void flaky_register(void);

#endif
