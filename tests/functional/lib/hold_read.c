/*
 * For LD_PRELOAD: reads of a whole page or more that bring something else
 *
 * While "$WSM_HOLD_READ.wrong" is there, the first byte is another; with .fail
 * they fail; with .late they wait until it is gone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define POLL_US 10000
#define PAGE 4096

static int is_shut(const char *how)
{
    const char *base = getenv("WSM_HOLD_READ");
    char path[4096];

    snprintf(path, sizeof(path), "%s.%s", base ? base : "", how);
    return base && access(path, F_OK) == 0;
}

static ssize_t spoil(ssize_t ret, char *data)
{
    while (ret >= PAGE && is_shut("late")) {
        usleep(POLL_US);
    }
    if (ret >= PAGE && is_shut("fail")) {
        errno = EIO;
        return -1;
    }
    if (ret >= PAGE && is_shut("wrong")) {
        *data ^= 1;
    }
    return ret;
}

ssize_t pread64(int fd, void *buf, size_t count, off64_t offset)
{
    return spoil(syscall(SYS_pread64, fd, buf, count, offset), buf);
}

ssize_t preadv64(int fd, const struct iovec *iov, int n, off64_t offset)
{
    return spoil(syscall(SYS_preadv, fd, iov, n, (long)offset, 0),
                 n ? iov->iov_base : NULL);
}
