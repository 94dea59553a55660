/*
 * For unit tests: what the user is warned of, instead of on stderr
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "monitor/monitor.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "wsm-warnings.h"

static QemuMutex lock;
static GString *said;                   /* @lock */

static void __attribute__((constructor)) warnings_init(void)
{
    qemu_mutex_init(&lock);
    said = g_string_new("");
}

/* In the place of those of QEMU's stubs */

int error_vprintf(const char *fmt, va_list ap)
{
    g_autofree char *text = g_strdup_vprintf(fmt, ap);

    QEMU_LOCK_GUARD(&lock);
    g_string_append(said, text);
    g_test_message("%s", text);
    return strlen(text);
}

int error_vprintf_unless_qmp(const char *fmt, va_list ap)
{
    return error_vprintf(fmt, ap);
}

void warnings_expect(const char *text)
{
    QEMU_LOCK_GUARD(&lock);
    if (!strstr(said->str, text)) {
        g_error("'%s' is not in '%s'", text, said->str);
    }
    g_string_truncate(said, 0);
}

void warnings_expect_none(void)
{
    QEMU_LOCK_GUARD(&lock);
    g_assert_cmpstr(said->str, ==, "");
}
