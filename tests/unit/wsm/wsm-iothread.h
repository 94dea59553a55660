/*
 * IOThreads as migration/wsm/core/loop.c wants them, for unit tests
 *
 * The unit tests' own IOThread is no object.  What makes and ends it is in
 * tests/unit/iothread.h, which cannot be included beside QEMU's header.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef WSM_IOTHREAD_H
#define WSM_IOTHREAD_H

#include "system/iothread.h"

IOThread *iothread_new(void);
void iothread_join(IOThread *iothread);

#endif
