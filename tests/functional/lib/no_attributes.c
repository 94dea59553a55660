/*
 * For LD_PRELOAD: a file system that has no extended attributes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <sys/xattr.h>

int fsetxattr(int fd, const char *name, const void *value, size_t size,
              int flags)
{
    (void)fd;
    (void)name;
    (void)value;
    (void)size;
    (void)flags;
    errno = ENOTSUP;
    return -1;
}

ssize_t fgetxattr(int fd, const char *name, void *value, size_t size)
{
    return fsetxattr(fd, name, value, size, 0);
}
