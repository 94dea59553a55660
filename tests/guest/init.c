/*
 * /init of the test guest: loads the drivers, then serves the host's commands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Runs as process 1 of an initramfs that holds this one static program and the
 * kernel modules named in /modules/list, in the order they are loaded.
 */

#define _GNU_SOURCE
#include "disk.h"
#include "link.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void load_module(const char *name)
{
    char path[128];
    int fd;

    snprintf(path, sizeof(path), "/modules/%s", name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0) {
        perror(path);
    }
    close(fd);
}

static void load_modules(void)
{
    FILE *list = fopen("/modules/list", "r");
    char name[64];

    while (list && fscanf(list, "%63s", name) == 1) {
        load_module(name);
    }
    if (list) {
        fclose(list);
    }
}

int main(void)
{
    mkdir("/dev", 0755);
    mkdir("/sys", 0755);
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    mount("sys", "/sys", "sysfs", 0, NULL);
    freopen("/dev/console", "r", stdin);
    freopen("/dev/console", "w", stdout);
    freopen("/dev/console", "w", stderr);
    setlinebuf(stdout);

    load_modules();
    disks_open();
    link_serve();

    printf("workload: giving up\n");
    sync();
    reboot(RB_POWER_OFF);
    return 1;
}
