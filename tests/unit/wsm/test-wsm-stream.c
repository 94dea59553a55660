/*
 * Unit tests of migration/wsm/dest/stream.c
 *
 * QEMU's side of it is here; time passes when the test says so.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "io/channel-socket.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/wsm/dest/stream.h"
#include "wsm-clock.h"

#define WATCH_MS        100             /* as the code has them */
#define ALONE_MS        10000

/*
 * What stream.c asks of migration
 */

static MigrationIncomingState incoming;
static bool ram;

MigrationIncomingState *migration_incoming_get_current(void)
{
    return &incoming;
}

bool migrate_postcopy_ram(void)
{
    return ram;
}

void migrate_set_state(MigrationStatus *state, MigrationStatus old_state,
                       MigrationStatus new_state)
{
    if (*state == old_state) {
        *state = new_state;
    }
}

/*
 * Steps
 */

static WsmSession session;
static WsmHandover handover;
static WsmDestLife life;
static WsmDestConns conns;
static WsmDestStream stream;
static WsmStart start = { .channels = 2 };
static int peer = -1;                   /* the source's end of the stream */

static void run(void *opaque)
{
}

static void open_stream(void)
{
    int fd[2];
    QIOChannelSocket *sioc;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), ==, 0);
    sioc = qio_channel_socket_new_fd(fd[1], &error_abort);
    incoming.from_src_file = qemu_file_new_input(QIO_CHANNEL(sioc));
    object_unref(OBJECT(sioc));
    peer = fd[0];
}

static bool is_hung_up(void)
{
    char c;

    return recv(peer, &c, 1, MSG_DONTWAIT) == 0;
}

static void set_up(void)
{
    ram = false;
    wsm_session_init(&session, NULL);
    incoming.state = MIGRATION_STATUS_POSTCOPY_ACTIVE;
    incoming.have_fault_thread = false;
    qemu_sem_init(&incoming.postcopy_pause_sem_dst, 0);
    qemu_sem_init(&incoming.postcopy_pause_sem_fault, 0);
    wsm_handover_init(&handover);
    wsm_life_init(&life);
    wsm_dest_conns_init(&conns, NULL, &start, NULL, NULL);
    wsm_dest_stream_init(&stream, &session, &handover, &life, &conns);
    open_stream();
}

static void close_files(void)
{
    if (incoming.from_src_file) {
        qemu_fclose(g_steal_pointer(&incoming.from_src_file));
    }
    if (incoming.to_src_file) {
        qemu_fclose(g_steal_pointer(&incoming.to_src_file));
    }
}

static void tear_down(void)
{
    wsm_dest_stream_stop(&stream);
    wsm_dest_stream_stop(&stream);
    g_assert_null(stream.watch);
    close_files();
    close(peer);
    wsm_dest_conns_destroy(&conns);
    wsm_life_destroy(&life);
    wsm_handover_destroy(&handover);
    wsm_session_destroy(&session);
    qemu_sem_destroy(&incoming.postcopy_pause_sem_dst);
    qemu_sem_destroy(&incoming.postcopy_pause_sem_fault);
}

static void pass(int64_t ms)
{
    clock_pass_ms(ms);
    qemu_clock_run_timers(QEMU_CLOCK_REALTIME);
}

static void live(WsmLife state)
{
    while (wsm_life(&life) < state) {
        wsm_life_enter(&life, wsm_life(&life) == WSM_LIFE_SECURING &&
                       state > WSM_LIFE_UNSECURED ? WSM_LIFE_DROPPING
                                                  : wsm_life(&life) + 1);
    }
}

static void load(void)
{
    g_assert_true(wsm_handover_loaded(&handover, true, run, NULL,
                                      &error_abort));
}

static void become_ours(void)
{
    load();
    g_assert_true(wsm_handover_go(&handover));
}

static void set_channel_0(bool up)
{
    qatomic_set(&conns.channel[0].up, up);
}

/* The stream broke, and QEMU waits for a new one */
static void pause_stream(void)
{
    close_files();
    incoming.state = MIGRATION_STATUS_POSTCOPY_PAUSED;
}

static bool was_posted(QemuSemaphore *sem)
{
    return qemu_sem_timedwait(sem, 0) == 0;
}

static void check_paused(void)
{
    g_assert_cmpint(incoming.state, ==, MIGRATION_STATUS_POSTCOPY_PAUSED);
    g_assert_null(incoming.from_src_file);
    g_assert_false(was_posted(&incoming.postcopy_pause_sem_dst));
    g_assert_false(was_posted(&incoming.postcopy_pause_sem_fault));
}

/* QEMU goes on, with a stream in which there is nothing but its end */
static void check_pause_ended(void)
{
    g_assert_cmpint(incoming.state, ==, MIGRATION_STATUS_POSTCOPY_ACTIVE);
    g_assert_true(was_posted(&incoming.postcopy_pause_sem_dst));
    g_assert_false(was_posted(&incoming.postcopy_pause_sem_dst));
    g_assert_cmpint(was_posted(&incoming.postcopy_pause_sem_fault), ==,
                    incoming.have_fault_thread);
    g_assert_cmpint(qemu_get_byte(incoming.from_src_file), ==, QEMU_VM_EOF);
    g_assert_cmpint(qemu_file_get_error(incoming.from_src_file), ==, 0);
    qemu_get_byte(incoming.from_src_file);
    g_assert_cmpint(qemu_file_get_error(incoming.from_src_file), !=, 0);
    qemu_put_byte(incoming.to_src_file, 1);
    g_assert_cmpint(qemu_fflush(incoming.to_src_file), ==, 0);
}

/*
 * May it end?
 */

static void test_may_end(void)
{
    for (unsigned how = 0; how < 8; how++) {
        bool ours = how & 1, durable = how & 4;

        set_up();
        ram = how & 2;
        if (ours) {
            become_ours();
        } else {
            load();
        }
        live(durable ? WSM_LIFE_SECURED : WSM_LIFE_UNSECURED);
        g_assert_cmpint(wsm_dest_stream_may_end(&stream), ==,
                        ours && durable && !ram);

        /* The source has said END: it has sent all memory */
        g_assert_cmpint(wsm_handover_end(&handover, true), ==, ours);
        g_assert_cmpint(wsm_dest_stream_may_end(&stream), ==, ours);
        tear_down();
    }
}

/* What was reached counts, also when it has been stopped since */
static void test_stopped(void)
{
    set_up();
    become_ours();
    live(WSM_LIFE_SECURED);
    wsm_life_enter(&life, WSM_LIFE_STOPPING);
    g_assert_true(wsm_dest_stream_may_end(&stream));
    tear_down();
}

/*
 * All blocks are here, but memory may not be: that is told once, when nobody
 * is there who could bring it
 */
static void test_tell(void)
{
    set_up();
    ram = true;
    become_ours();
    live(WSM_LIFE_UNSECURED);
    set_channel_0(true);
    pause_stream();
    wsm_dest_stream_end(&stream);
    pass(2 * ALONE_MS);
    set_channel_0(false);
    pass(2 * ALONE_MS);
    /* Not durable yet */
    g_assert_null(session.error);
    live(WSM_LIFE_SETTLED);
    set_channel_0(true);
    pass(WATCH_MS);
    set_channel_0(false);
    pass(ALONE_MS - WATCH_MS);
    g_assert_null(session.error);
    pass(2 * WATCH_MS);
    g_assert_nonnull(strstr(session.error, "postcopy-ram"));
    g_clear_pointer(&session.error, g_free);
    pass(ALONE_MS);
    g_assert_null(session.error);
    check_paused();
    tear_down();
}

/* Not if the stream lives, nor of a guest that is not ours */
static void test_tell_not(void)
{
    for (unsigned how = 0; how < 3; how++) {
        set_up();
        ram = how != 0;
        become_ours();
        live(WSM_LIFE_SECURED);
        if (how != 1) {
            pause_stream();
        }
        if (how == 2) {
            g_assert_true(wsm_handover_end(&handover, true));
        }
        wsm_dest_stream_end(&stream);
        pass(ALONE_MS + 2 * WATCH_MS);
        g_assert_null(session.error);
        tear_down();
    }
}

/*
 * The guest is lost
 */

/* Whoever reads the stream must not wait for what never comes */
static void test_hang_up(void)
{
    set_up();
    wsm_handover_abort(&handover);
    g_assert_false(is_hung_up());
    wsm_dest_stream_end(&stream);
    g_assert_true(is_hung_up());
    wsm_dest_stream_end(&stream);
    tear_down();

    /* It is gone already */
    set_up();
    close_files();
    wsm_handover_abort(&handover);
    wsm_dest_stream_end(&stream);
    tear_down();
}

/* Of a guest that is ours the stream stays as it is */
static void test_no_hang_up(void)
{
    set_up();
    become_ours();
    live(WSM_LIFE_TOLD);
    wsm_dest_stream_end(&stream);
    pass(10 * WATCH_MS);
    g_assert_false(is_hung_up());
    g_assert_cmpint(incoming.state, ==, MIGRATION_STATUS_POSTCOPY_ACTIVE);
    tear_down();
}

/* It broke when the guest could still run here; then the source took it back */
static void test_lost_in_pause(void)
{
    for (unsigned fault = 0; fault < 2; fault++) {
        set_up();
        incoming.have_fault_thread = fault;
        load();
        g_assert_true(wsm_handover_broke(&handover));
        g_assert_true(wsm_handover_abort(&handover));
        wsm_dest_stream_end(&stream);
        /* QEMU has not yet let go of it, and does so by itself */
        g_assert_false(is_hung_up());
        pause_stream();
        check_paused();
        pass(WATCH_MS - 1);
        check_paused();
        pass(1);
        check_pause_ended();
        tear_down();
    }
}

/*
 * The stream has nothing left to bring
 */

static void test_told(void)
{
    set_up();
    become_ours();
    live(WSM_LIFE_SETTLED);
    set_channel_0(true);
    pause_stream();
    wsm_dest_stream_end(&stream);
    pass(ALONE_MS + WATCH_MS);
    check_paused();
    live(WSM_LIFE_TOLD);
    pass(WATCH_MS);
    check_pause_ended();

    /* It may break again */
    pause_stream();
    pass(WATCH_MS);
    check_pause_ended();
    tear_down();
}

/* Nobody asks: when the source had time enough to come back */
static void test_alone(void)
{
    set_up();
    become_ours();
    live(WSM_LIFE_SECURED);
    set_channel_0(true);
    pause_stream();
    wsm_dest_stream_end(&stream);
    pass(ALONE_MS);
    check_paused();
    set_channel_0(false);
    pass(ALONE_MS - WATCH_MS);
    check_paused();

    /* It was back for a moment */
    set_channel_0(true);
    pass(WATCH_MS);
    set_channel_0(false);
    pass(ALONE_MS);
    check_paused();
    pass(WATCH_MS);
    check_pause_ended();
    tear_down();
}

/* It counts from when there was nothing left to bring */
static void test_alone_before(void)
{
    set_up();
    become_ours();
    live(WSM_LIFE_SECURED);
    pause_stream();
    pass(2 * ALONE_MS);
    wsm_dest_stream_end(&stream);
    check_paused();
    pass(ALONE_MS);
    check_paused();
    wsm_dest_stream_end(&stream);
    pass(WATCH_MS);
    check_pause_ended();
    tear_down();
}

/* Memory may be missing: only the source knows */
static void test_ram(void)
{
    set_up();
    ram = true;
    become_ours();
    live(WSM_LIFE_TOLD);
    pause_stream();
    wsm_dest_stream_end(&stream);
    pass(2 * ALONE_MS);
    check_paused();
    g_assert_true(wsm_handover_end(&handover, true));
    pass(WATCH_MS);
    check_pause_ended();
    tear_down();
}

/* Not durable: the source may ask until it is */
static void test_not_durable(void)
{
    set_up();
    become_ours();
    live(WSM_LIFE_UNSECURED);
    pause_stream();
    wsm_dest_stream_end(&stream);
    pass(2 * ALONE_MS);
    check_paused();
    tear_down();
}

static void test_stop(void)
{
    set_up();
    become_ours();
    live(WSM_LIFE_TOLD);
    wsm_dest_stream_stop(&stream);
    wsm_dest_stream_end(&stream);
    wsm_dest_stream_stop(&stream);
    pause_stream();
    pass(2 * ALONE_MS);
    check_paused();
    wsm_dest_stream_end(&stream);
    check_pause_ended();
    tear_down();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    qemu_init_main_loop(&error_abort);

    g_test_add_func("/wsm/stream/tell", test_tell);
    g_test_add_func("/wsm/stream/tell-not", test_tell_not);
    g_test_add_func("/wsm/stream/may-end", test_may_end);
    g_test_add_func("/wsm/stream/stopped", test_stopped);
    g_test_add_func("/wsm/stream/hang-up", test_hang_up);
    g_test_add_func("/wsm/stream/no-hang-up", test_no_hang_up);
    g_test_add_func("/wsm/stream/lost-in-pause", test_lost_in_pause);
    g_test_add_func("/wsm/stream/told", test_told);
    g_test_add_func("/wsm/stream/alone", test_alone);
    g_test_add_func("/wsm/stream/alone-before", test_alone_before);
    g_test_add_func("/wsm/stream/ram", test_ram);
    g_test_add_func("/wsm/stream/not-durable", test_not_durable);
    g_test_add_func("/wsm/stream/stop", test_stop);
    return g_test_run();
}
