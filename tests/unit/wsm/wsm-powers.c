/*
 * For tests of what QEMU may not do: root gives up its capabilities
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <linux/capability.h>
#include <sys/syscall.h>
#include "wsm-powers.h"

static void set_effective(bool all)
{
    struct __user_cap_header_struct head = {
        .version = _LINUX_CAPABILITY_VERSION_3,
    };
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    g_assert_cmpint(syscall(SYS_capget, &head, data), ==, 0);
    for (int i = 0; i < ARRAY_SIZE(data); i++) {
        data[i].effective = all ? data[i].permitted : 0;
    }
    g_assert_cmpint(syscall(SYS_capset, &head, data), ==, 0);
}

void powers_drop(void)
{
    set_effective(false);
}

void powers_restore(void)
{
    set_effective(true);
}
