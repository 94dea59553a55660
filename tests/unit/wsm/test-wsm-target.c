/*
 * Unit tests of migration/wsm/link/target.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/un.h>
#include "io/channel-socket.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/sockets.h"
#include "migration/wsm/link/target.h"

/* @fd is closed */
static void expect_refused(int fd, const char *text)
{
    Error *err = NULL;

    g_assert_null(wsm_target_of_fd(fd, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
    close(fd);
}

static int open_file(void)
{
    g_autofree char *name = NULL;
    int fd = g_file_open_tmp(NULL, &name, NULL);

    unlink(name);
    return fd;
}

static void test_no_stream(void)
{
    int fd[2];

    g_assert_cmpint(pipe(fd), ==, 0);
    expect_refused(fd[0], "a pipe");
    expect_refused(fd[1], "a pipe");
    expect_refused(fd[1], "not open");
    expect_refused(open_file(), "a file");
    expect_refused(open("/dev/null", O_RDWR), "no socket");
    expect_refused(socket(AF_INET, SOCK_DGRAM, 0), "a socket for datagrams");
}

static void test_not_connected(void)
{
    expect_refused(socket(AF_INET, SOCK_STREAM, 0),
                   "a socket that is not connected");
    expect_refused(socket(AF_UNIX, SOCK_STREAM, 0),
                   "a socket that is not connected");
}

static void test_no_name(void)
{
    int fd[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), ==, 0);
    expect_refused(fd[0], "a socket whose other end has no address, as that of "
                          "a socketpair");
    close(fd[1]);
}

/* Listen at @sa, connect to it from a socket of @family */
static SocketAddress *connected_to(int family, struct sockaddr *sa,
                                   struct sockaddr *to, socklen_t size)
{
    int listener = socket(sa->sa_family, SOCK_STREAM, 0);
    int client = socket(family, SOCK_STREAM, 0);
    SocketAddress *target;

    g_assert_cmpint(bind(listener, sa, size), ==, 0);
    g_assert_cmpint(listen(listener, 1), ==, 0);
    g_assert_cmpint(getsockname(listener, sa, &size), ==, 0);
    if (sa->sa_family == AF_INET && family == AF_INET6) {
        ((struct sockaddr_in6 *)to)->sin6_port =
            ((struct sockaddr_in *)sa)->sin_port;
        size = sizeof(struct sockaddr_in6);
    }
    g_assert_cmpint(connect(client, to, size), ==, 0);
    target = wsm_target_of_fd(client, &error_abort);
    /* It was only looked at */
    g_assert_cmpint(write(client, "x", 1), ==, 1);
    close(client);
    close(listener);
    return target;
}

static void expect_inet(SocketAddress *target, const char *host,
                        in_port_t port)
{
    g_autofree char *text = g_strdup_printf("%d", ntohs(port));

    g_assert_cmpint(target->type, ==, SOCKET_ADDRESS_TYPE_INET);
    g_assert_cmpstr(target->u.inet.host, ==, host);
    g_assert_cmpstr(target->u.inet.port, ==, text);
    qapi_free_SocketAddress(target);
}

static void test_ipv4(void)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    SocketAddress *target = connected_to(AF_INET, (struct sockaddr *)&in,
                                         (struct sockaddr *)&in, sizeof(in));

    expect_inet(target, "127.0.0.1", in.sin_port);
}

static void test_ipv6(void)
{
    struct sockaddr_in6 in6 = {
        .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback,
    };
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    SocketAddress *target;
    bool skip = fd < 0 || bind(fd, (struct sockaddr *)&in6, sizeof(in6)) < 0;

    close(fd);
    if (skip) {
        g_test_skip("no IPv6 here");
        return;
    }
    target = connected_to(AF_INET6, (struct sockaddr *)&in6,
                          (struct sockaddr *)&in6, sizeof(in6));
    expect_inet(target, "::1", in6.sin6_port);
}

/* A socket for IPv6 that is connected to ::ffff:127.0.0.1 */
static void test_mapped(void)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    struct sockaddr_in6 to = { .sin6_family = AF_INET6 };
    SocketAddress *target;

    g_assert_cmpint(inet_pton(AF_INET6, "::ffff:127.0.0.1", &to.sin6_addr), ==,
                    1);
    target = connected_to(AF_INET6, (struct sockaddr *)&in,
                          (struct sockaddr *)&to, sizeof(in));
    expect_inet(target, "127.0.0.1", in.sin_port);
}

static void test_unix(void)
{
    g_autofree char *folder = g_dir_make_tmp(NULL, NULL);
    g_autofree char *path = g_build_filename(folder, "socket", NULL);
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    SocketAddress *target;

    g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
    target = connected_to(AF_UNIX, (struct sockaddr *)&un,
                          (struct sockaddr *)&un, sizeof(un));
    g_assert_cmpint(target->type, ==, SOCKET_ADDRESS_TYPE_UNIX);
    g_assert_cmpstr(target->u.q_unix.path, ==, path);
    qapi_free_SocketAddress(target);
    unlink(path);
    rmdir(folder);
}

static void connected(QIOTask *task, void *opaque)
{
    bool *done = opaque;

    g_assert_false(qio_task_propagate_error(task, NULL));
    object_unref(qio_task_get_source(task));
    *done = true;
}

static void test_connect(void)
{
    QIOChannelSocket *listener = qio_channel_socket_new();
    SocketAddress any = {
        .type = SOCKET_ADDRESS_TYPE_INET,
        .u.inet = { .host = (char *)"127.0.0.1", .port = (char *)"0" },
    };
    SocketAddress *target;
    bool done = false;

    qio_channel_socket_listen_sync(listener, &any, 1, &error_abort);
    target = qio_channel_socket_get_local_address(listener, &error_abort);
    wsm_target_connect(target, connected, &done);
    /* It is not needed any more */
    qapi_free_SocketAddress(target);
    while (!done) {
        main_loop_wait(false);
    }
    object_unref(OBJECT(listener));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    qemu_init_main_loop(&error_abort);
    socket_init();

    g_test_add_func("/wsm/target/no-stream", test_no_stream);
    g_test_add_func("/wsm/target/not-connected", test_not_connected);
    g_test_add_func("/wsm/target/no-name", test_no_name);
    g_test_add_func("/wsm/target/ipv4", test_ipv4);
    g_test_add_func("/wsm/target/ipv6", test_ipv6);
    g_test_add_func("/wsm/target/mapped", test_mapped);
    g_test_add_func("/wsm/target/unix", test_unix);
    g_test_add_func("/wsm/target/connect", test_connect);
    return g_test_run();
}
