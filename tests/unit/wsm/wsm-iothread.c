/*
 * IOThreads as migration/wsm/core/loop.c wants them, for unit tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "wsm-iothread.h"

IOThread *iothread_create(const char *id, Error **errp)
{
    return iothread_new();
}

void iothread_destroy(IOThread *iothread)
{
    iothread_join(iothread);
}
