/*
 * Unit tests of migration/wsm/link/refusal.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "io/channel-socket.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/main-loop.h"
#include "migration/wsm/link/refusal.h"
#include "migration/wsm/wire/message.h"

static QIOChannel *source, *destination;
static int raw;                         /* the destination's end */

static void set_up(void)
{
    int fd[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), ==, 0);
    source = QIO_CHANNEL(qio_channel_socket_new_fd(fd[0], &error_abort));
    destination = QIO_CHANNEL(qio_channel_socket_new_fd(fd[1], &error_abort));
    raw = fd[1];
}

static void tear_down(void)
{
    object_unref(OBJECT(source));
    object_unref(OBJECT(destination));
}

static void coroutine_fn send_co(void *opaque)
{
    wsm_refusal_send(destination, opaque);
}

static void refuse(const char *reason)
{
    qemu_coroutine_enter(qemu_coroutine_create(send_co, (void *)reason));
}

static void expect(const char *reason)
{
    g_autofree char *text = wsm_refusal_look(source);

    g_assert_cmpstr(text, ==, reason);
}

static void test_told(void)
{
    set_up();
    refuse("we are closed");
    expect("we are closed");
    tear_down();
}

/* It closes without having read what we sent: that resets the connection */
static void test_reset(void)
{
    set_up();
    g_assert_cmpint(qio_channel_write(source, "x", 1, &error_abort), ==, 1);
    refuse("we are closed");
    qio_channel_close(destination, &error_abort);
    expect("we are closed");
    tear_down();
}

/* It must not wait for what may never come */
static void test_nothing(void)
{
    set_up();
    expect(NULL);
    tear_down();
}

static void put(uint16_t type, uint16_t length, const char *text)
{
    uint8_t header[4];

    stw_be_p(header, type);
    stw_be_p(header + 2, length);
    g_assert_cmpint(write(raw, header, sizeof(header)), ==, sizeof(header));
    g_assert_cmpint(write(raw, text, strlen(text)), ==, strlen(text));
}

static void test_other(void)
{
    set_up();
    put(WSM_REFUSAL_TYPE - 1, 3, "abc");
    expect(NULL);
    tear_down();
    set_up();
    g_assert_cmpint(write(raw, "WS\0", 3), ==, 3);
    expect(NULL);
    tear_down();
}

static void test_cut(void)
{
    set_up();
    put(WSM_REFUSAL_TYPE, 4, "abc");
    expect(NULL);
    tear_down();
}

static void test_long(void)
{
    g_autofree char *text = g_strnfill(2 * WSM_MAX_TEXT, 'a');
    g_autofree char *begin = g_strndup(text, WSM_MAX_TEXT);

    set_up();
    refuse(text);
    expect(begin);
    tear_down();
    set_up();
    put(WSM_REFUSAL_TYPE, WSM_MAX_TEXT + 1, text);
    expect(NULL);
    tear_down();
    g_assert_null(wsm_refusal_text(WSM_REFUSAL_TYPE, text, WSM_MAX_TEXT + 1));
}

/* It goes to a terminal */
static void test_control_characters(void)
{
    g_autofree char *text = wsm_refusal_text(WSM_REFUSAL_TYPE, "a\033[1mb\n",
                                             7);

    for (const char *c = text; *c; c++) {
        g_assert_cmpint(*c, >=, ' ');
    }
    g_assert_null(wsm_refusal_text(0x1234, "abc", 3));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    qemu_init_main_loop(&error_abort);

    g_test_add_func("/wsm/refusal/told", test_told);
    g_test_add_func("/wsm/refusal/reset", test_reset);
    g_test_add_func("/wsm/refusal/nothing", test_nothing);
    g_test_add_func("/wsm/refusal/other", test_other);
    g_test_add_func("/wsm/refusal/cut", test_cut);
    g_test_add_func("/wsm/refusal/long", test_long);
    g_test_add_func("/wsm/refusal/control-characters",
                    test_control_characters);
    return g_test_run();
}
