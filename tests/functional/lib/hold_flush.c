/*
 * For LD_PRELOAD: fdatasync(), fsync() and unlink() that wait while a file is
 * there
 *
 * $WSM_HOLD_FLUSH names that for fdatasync(), $WSM_HOLD_SYNC that for fsync().
 * unlink() of a file IMAGE.wsm or IMAGE.wsm.map waits while there is
 * "$WSM_HOLD_UNLINK.wsm" or "$WSM_HOLD_UNLINK.map".  Whoever waits makes
 * "<file>.held" first.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define POLL_US 10000

static void wait_at(const char *path)
{
    char held[4096];

    if (path && access(path, F_OK) == 0) {
        snprintf(held, sizeof(held), "%s.held", path);
        close(open(held, O_CREAT | O_WRONLY, 0600));
        while (access(path, F_OK) == 0) {
            usleep(POLL_US);
        }
    }
}

int fdatasync(int fd)
{
    wait_at(getenv("WSM_HOLD_FLUSH"));
    return syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    wait_at(getenv("WSM_HOLD_SYNC"));
    return syscall(SYS_fsync, fd);
}

int unlink(const char *path)
{
    const char *base = getenv("WSM_HOLD_UNLINK");
    const char *dot = strrchr(path, '.');
    char gate[4096];

    if (base && dot) {
        snprintf(gate, sizeof(gate), "%s%s", base, dot);
        wait_at(gate);
    }
    return unlinkat(AT_FDCWD, path, 0);
}
