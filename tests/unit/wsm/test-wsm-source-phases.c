/*
 * Unit tests of migration/wsm/source/phases.c
 *
 * A second thread is the migration thread, this one is all others: the guest,
 * the destination and the user.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "exec/target_page.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "io/channel-socket.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/wsm/source/phases.h"
#include "migration/wsm/wire/payload.h"
#include "migration/wsm/wire/runs.h"
#include "wsm-origin.h"

#define CHANNELS        2
#define BLOCK           ORIGIN_BLOCK
#define BLOCKS          64

static Origin o;
static OriginDisk disk;
static int fd[CHANNELS];
static int stream;                      /* the destination's end */

/*
 * What the source asks of migration
 */

static bool running;                    /* atomic */
static uint64_t ram_left;               /* atomic */
static QemuMutex error_lock;
static Error *error;                    /* @error_lock; the first one */

bool migration_is_running(void)
{
    return qatomic_read(&running);
}

void migrate_set_error(MigrationState *s, const Error *err)
{
    QEMU_LOCK_GUARD(&error_lock);

    if (!error) {
        error = error_copy(err);
    }
}

bool migrate_has_error(MigrationState *s)
{
    QEMU_LOCK_GUARD(&error_lock);

    return error;
}

uint64_t ram_bytes_remaining(void)
{
    return qatomic_read(&ram_left);
}

uint64_t ram_bytes_total(void)
{
    return 1 * GiB;
}

/* For source/progress.c, which has other tests */
const TargetPageBits target_page;

/* The big lock */

static QemuMutex bql;
static __thread bool bql_is_mine;

bool bql_locked(void)
{
    return bql_is_mine;
}

void bql_lock_impl(const char *file, int line)
{
    g_assert_false(bql_is_mine);
    qemu_mutex_lock(&bql);
    bql_is_mine = true;
}

void bql_unlock(void)
{
    g_assert_true(bql_is_mine);
    bql_is_mine = false;
    qemu_mutex_unlock(&bql);
}

void bql_block_unlock(bool increase)
{
    g_assert_not_reached();
}

void rust_bql_mock_lock(void)
{
    g_assert_not_reached();
}

/*
 * The migration thread
 */

typedef struct Walk {
    int (*fn)(Error **errp);
    bool with_bql;
    int ret;
    Error *err;
    unsigned done;              /* atomic */
    QemuThread thread;
} Walk;

static Walk walk;

static void *walk_thread(void *opaque)
{
    Walk *w = opaque;

    if (w->with_bql) {
        bql_lock();
    }
    w->ret = w->fn(&w->err);
    if (w->with_bql) {
        bql_unlock();
    }
    qatomic_set(&w->done, 1);
    return NULL;
}

static void walk_begin(int (*fn)(Error **errp), bool with_bql)
{
    walk = (Walk) { .fn = fn, .with_bql = with_bql };
    qemu_thread_create(&walk.thread, "test-migration", walk_thread, &walk,
                       QEMU_THREAD_JOINABLE);
}

static int walk_end(void)
{
    target_await(&walk.done, 1);
    qemu_thread_join(&walk.thread);
    return walk.ret;
}

static int run(int (*fn)(Error **errp), bool with_bql)
{
    walk_begin(fn, with_bql);
    return walk_end();
}

static int disk_phase(Error **errp)
{
    return wsm_source_disk_phase(o.s);
}

static int prepare_freeze(Error **errp)
{
    return wsm_source_prepare_freeze(o.s);
}

static int freeze(Error **errp)
{
    wsm_source_freeze(o.s);
    return 0;
}

static int handover(Error **errp)
{
    return wsm_source_handover(o.s, errp);
}

static int try_handover(Error **errp)
{
    wsm_source_try_handover(o.s);
    return 0;
}

static int take_back(Error **errp)
{
    wsm_source_take_back(o.s);
    return 0;
}

static int interrupted(Error **errp)
{
    return wsm_source_interrupted(o.s);
}

/*
 * Steps
 */

static void set_up(void)
{
    MigrationState *ms = migrate_get_current();
    QIOChannelSocket *sioc;
    int theirs;

    origin_add_disk(&disk, "vda", BLOCKS * BLOCK);
    memset(disk.data, 0x4d, disk.size);
    origin_init(&o);
    origin_set(&o, switchover_timeout, 20000);
    origin_start(&o, CHANNELS - 1);
    running = true;
    ram_left = 0;
    for (unsigned i = 0; i < CHANNELS; i++) {
        fd[i] = -1;
    }
    stream = peer_pair(&theirs);
    sioc = qio_channel_socket_new_fd(theirs, &error_abort);
    ms->to_dst_file = qemu_file_new_output(QIO_CHANNEL(sioc));
    object_unref(OBJECT(sioc));
    ms->state = MIGRATION_STATUS_ACTIVE;
}

static void tear_down(void)
{
    MigrationState *ms = migrate_get_current();

    for (unsigned i = 0; i < CHANNELS; i++) {
        if (fd[i] >= 0) {
            close(fd[i]);
        }
    }
    origin_destroy(&o);
    origin_remove_disk(&disk);
    qemu_fclose(g_steal_pointer(&ms->to_dst_file));
    close(stream);
    error_free(g_steal_pointer(&error));
    error_free(g_steal_pointer(&walk.err));
    ms->state = MIGRATION_STATUS_NONE;
}

static void say_full(void)
{
    WsmBasisMsg bm = {
        .kind = WSM_BASIS_KIND_FULL, .reason = (char *)"blank",
    };
    g_autoptr(GByteArray) payload = wsm_basis_encode(&bm);
    WsmMsg msg = {
        .type = WSM_MSG_BASIS, .offset = bm.kind, .length = payload->len,
    };

    peer_send(fd[0], &msg, payload->data);
}

static WsmMsg hear(unsigned channel)
{
    g_autofree uint8_t *payload = g_malloc(WSM_MAX_DATA);

    return target_recv(fd[channel], channel, payload, WSM_MAX_DATA);
}

/* The next block is written; returns how many there are */
static unsigned acknowledge(void)
{
    WsmMsg msg = hear(1);

    g_assert_cmpint(msg.type, ==, WSM_MSG_DATA);
    msg.type = WSM_MSG_ACK;
    msg.length = 0;
    peer_send(fd[1], &msg, NULL);
    return msg.bytes / BLOCK;
}

static void expect_phase(WsmPhase phase)
{
    g_assert_cmpstr(WsmPhase_str(wsm_session_phase(&o.session)), ==,
                    WsmPhase_str(phase));
}

/* The error on the stream and in migration, or NULL: there is none */
static void expect_error(const char *text)
{
    if (!text) {
        g_assert_null(error);
        return;
    }
    g_assert_nonnull(error);
    g_test_message("%s", error_get_pretty(error));
    g_assert_nonnull(strstr(error_get_pretty(error), text));
}

/* Up to the begin of pre-copy */
static void agree(void)
{
    walk_begin(disk_phase, false);
    target_welcome_all(fd, CHANNELS);
    say_full();
}

/* All of it: the disk is there, and SYNC is answered */
static void copy_disk(void)
{
    WsmMsg msg;

    agree();
    for (unsigned blocks = 0; blocks < BLOCKS; ) {
        blocks += acknowledge();
    }
    g_assert_cmpint(walk_end(), ==, 0);
    expect_phase(WSM_PHASE_RAM_PRECOPY);
    msg = hear(0);
    g_assert_cmpint(msg.type, ==, WSM_MSG_SYNC);
    g_assert_false(run(prepare_freeze, false));
    msg.type = WSM_MSG_SYNC_ACK;
    peer_send(fd[0], &msg, NULL);
    origin_await(&o, WSM_SYNCED);
}

static void say_ready(void)
{
    WsmMsg msg = { .type = WSM_MSG_READY, .epoch = 1 };

    peer_send(fd[0], &msg, NULL);
}

/*
 * Pre-copy
 */

/* The phases one after the other, none before its time */
static void test_disk_phase(void)
{
    set_up();
    expect_phase(WSM_PHASE_SETUP);
    walk_begin(disk_phase, false);
    target_welcome_all(fd, CHANNELS);
    origin_await(&o, WSM_WELCOME);
    /* Not before both sides agree */
    g_assert_true(peer_hears_nothing(fd[1]));
    expect_phase(WSM_PHASE_SETUP);
    say_full();
    for (unsigned blocks = 0; blocks < BLOCKS; ) {
        blocks += acknowledge();
    }
    g_assert_cmpint(walk_end(), ==, 0);
    expect_phase(WSM_PHASE_RAM_PRECOPY);
    g_assert_cmpint(hear(0).type, ==, WSM_MSG_SYNC);
    g_assert_true(peer_hears_nothing(fd[1]));
    expect_error(NULL);
    tear_down();
}

/* What was written meanwhile goes in another pass, if it is worth one */
static void test_passes(void)
{
    unsigned blocks = 0;

    set_up();
    origin_set(&o, max_residue, 0);
    agree();
    origin_await(&o, WSM_AGREED);
    while (blocks < BLOCKS) {
        if (!blocks) {
            /* The first was read, and the pass is not over */
            target_poll_until(qatomic_read(&disk.reads) > 0);
            origin_write(&disk, 5, 2, 0x55);
        }
        blocks += acknowledge();
    }
    blocks = 0;
    while (blocks < 2) {
        blocks += acknowledge();
    }
    g_assert_cmpint(walk_end(), ==, 0);
    expect_phase(WSM_PHASE_RAM_PRECOPY);
    g_assert_cmpint(wsm_work_all_dirty(o.s->work), ==, 0);
    tear_down();
}

/* A disk phase without disks */
static void test_no_disks(void)
{
    set_up();
    origin_stop(&o);
    disks_unplug("vda");
    origin_destroy(&o);
    origin_init(&o);
    origin_start(&o, CHANNELS - 1);
    walk_begin(disk_phase, false);
    target_welcome_all(fd, CHANNELS);
    g_assert_cmpint(walk_end(), ==, 0);
    expect_phase(WSM_PHASE_RAM_PRECOPY);
    tear_down();
}

/* The two sides do not agree after all */
static void test_bad_basis(void)
{
    static const uint8_t bad[] = { 0x00, 0x03 };
    WsmBasisMsg bm = {
        .kind = WSM_BASIS_KIND_CONTENT, .reason = (char *)"data",
    };
    g_autoptr(GByteArray) payload = wsm_basis_encode(&bm);
    WsmMsg basis = {
        .type = WSM_MSG_BASIS, .offset = bm.kind, .length = payload->len,
    };
    WsmMsg own = { .type = WSM_MSG_OWN, .bytes = 2 * BLOCK,
                   .length = sizeof(bad) };

    set_up();
    walk_begin(disk_phase, false);
    target_welcome_all(fd, CHANNELS);
    peer_send(fd[0], &basis, payload->data);
    peer_send(fd[0], &own, bad);
    own.offset = 2 * BLOCK;
    own.bytes = (BLOCKS - 2) * BLOCK;
    own.length = 0;
    peer_send(fd[0], &own, NULL);
    g_assert_cmpint(walk_end(), ==, -EINVAL);
    expect_error("OWN of disk 'vda': ");
    origin_expect_error(&o, "OWN of disk 'vda': ");
    expect_phase(WSM_PHASE_SETUP);
    tear_down();
}

/*
 * Whatever it waits for, there are reasons not to wait any more
 */

static void cancel(void)
{
    qatomic_set(&migrate_get_current()->state, MIGRATION_STATUS_CANCELLING);
}

static void end_migration(void)
{
    qatomic_set(&running, false);
}

static void break_stream(void)
{
    qemu_file_set_error(migrate_get_current()->to_dst_file, -EPIPE);
}

static void set_other_error(void)
{
    g_autoptr(Error) err = NULL;

    error_setg(&err, "the return path broke");
    migrate_set_error(migrate_get_current(), err);
}

static void end_loop(void)
{
    wsm_loop_quit(&o.s->loop);
}

static void fail(void)
{
    Error *err = NULL;

    error_setg(&err, "it burns");
    wsm_fail(&o.s->milestones, err);
}

static const struct {
    void (*fn)(void);
    const char *error;          /* of migration, then */
    int stream_error;
} reasons[] = {
    { cancel },
    { end_migration },
    { break_stream, NULL, -EPIPE },
    { set_other_error, "the return path broke", -EIO },
    { end_loop },
    { fail, "it burns", -EIO },
};

static void check_reason(unsigned i)
{
    QEMUFile *f = migrate_get_current()->to_dst_file;

    expect_error(reasons[i].error);
    g_assert_cmpint(qemu_file_get_error(f), ==, reasons[i].stream_error);
}

static void test_interrupted(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(reasons); i++) {
        /* Before the channels are there, before BASIS, in a pass */
        for (unsigned when = 0; when < 3; when++) {
            set_up();
            g_assert_false(run(interrupted, false));
            walk_begin(disk_phase, false);
            if (when > 0) {
                target_welcome_all(fd, CHANNELS);
            }
            if (when > 1) {
                say_full();
                hear(1);
            }
            g_assert_cmpint(qatomic_read(&walk.done), ==, 0);
            reasons[i].fn();
            g_assert_cmpint(walk_end(), ==, -ECANCELED);
            expect_phase(when > 1 ? WSM_PHASE_DISK_PRECOPY : WSM_PHASE_SETUP);
            check_reason(i);
            g_assert_true(run(interrupted, false));
            tear_down();
        }
    }
}

/* After the handover a failure of ours is only shown */
static void test_not_interrupted(void)
{
    set_up();
    for (WsmPhase p = WSM_PHASE_DISK_PRECOPY; p <= WSM_PHASE_POSTCOPY; p++) {
        wsm_session_enter(&o.session, p);
    }
    fail();
    g_assert_false(run(interrupted, false));
    expect_error(NULL);
    origin_expect_error(&o, "it burns");
    cancel();
    g_assert_true(run(interrupted, false));
    tear_down();
}

/* What is found while it waits ends it */
static void test_watched(void)
{
    set_up();
    walk_begin(disk_phase, false);
    bql_lock();
    disks_unplug("vda");
    bql_unlock();
    g_assert_cmpint(walk_end(), ==, -ECANCELED);
    expect_error("disk 'vda': its block graph was changed");
    tear_down();
}

/*
 * The freeze
 */

static void await_prepared(void)
{
    target_poll_until(run(prepare_freeze, false));
}

/* Own disks are flushed once, when the destination has flushed its own */
static void test_prepare_freeze(void)
{
    unsigned flushes;

    set_up();
    origin_write(&disk, 1, 1, 0x11);
    copy_disk();
    g_assert_cmpint(disk.flushes, ==, 0);
    g_assert_false(o.s->marked);
    await_prepared();
    g_assert_cmpint(disk.flushes, ==, 1);
    g_assert_true(o.s->marked);
    flushes = disk.flushes;
    origin_write(&disk, 2, 1, 0x22);
    g_assert_true(run(prepare_freeze, false));
    g_assert_cmpint(disk.flushes, ==, flushes);
    wsm_loop_quit(&o.s->loop);
    g_assert_false(run(prepare_freeze, false));
    tear_down();
}

/* That is found out when the guest is stopped */
static void test_flush_error(void)
{
    set_up();
    copy_disk();
    origin_write(&disk, 1, 1, 0x11);
    qatomic_set(&disk.flush_error, -EIO);
    await_prepared();
    expect_error(NULL);
    g_assert_cmpint(disk.flushes, >, 0);
    qatomic_set(&disk.flush_error, 0);
    tear_down();
}

static void check_residue(const bool *expected)
{
    g_autoptr(GByteArray) runs = wsm_source_residue(o.s, 0);
    bool is[BLOCKS] = {};
    WsmRunsDecoder d;
    uint64_t first, count;
    int ret;

    wsm_runs_decode_init(&d, runs->data, runs->len, BLOCKS);
    while ((ret = wsm_runs_decode(&d, &first, &count, &error_abort)) > 0) {
        for (uint64_t b = first; b < first + count; b++) {
            is[b] = true;
        }
    }
    g_assert_cmpint(ret, ==, 0);
    g_assert_cmpmem(is, sizeof(is), expected, sizeof(is));
}

/* What is dirty then is missing at the destination */
static void test_residue(void)
{
    bool expected[BLOCKS] = {};

    set_up();
    copy_disk();
    check_residue(expected);
    for (int i = 0; i < 10; i++) {
        unsigned b = g_test_rand_int_range(0, BLOCKS);

        origin_write(&disk, b, 1, 0x33);
        expected[b] = true;
    }
    check_residue(expected);
    run(freeze, true);
    expect_phase(WSM_PHASE_FREEZE);
    g_assert_cmpint(o.s->frozen_at, >, 0);
    expect_error(NULL);
    check_residue(expected);
    tear_down();
}

static void test_freeze_finds(void)
{
    set_up();
    copy_disk();
    disks_unplug("vda");
    run(freeze, true);
    expect_phase(WSM_PHASE_FREEZE);
    expect_error("disk 'vda': its block graph was changed");
    origin_expect_fatal(&o, "disk 'vda': its block graph was changed");
    g_assert_true(run(interrupted, false));
    tear_down();
}

/*
 * The handover: one owner
 */

static void set_up_frozen(void)
{
    set_up();
    copy_disk();
    await_prepared();
    origin_write(&disk, 7, 1, 0x77);
    run(freeze, true);
}

/* The guest is theirs: GO, and what is missing follows */
static void expect_handed_over(void)
{
    g_autoptr(WsmInfo) info = g_new0(WsmInfo, 1);
    WsmMsg msg = hear(0);

    g_assert_cmpint(msg.type, ==, WSM_MSG_GO);
    expect_phase(WSM_PHASE_POSTCOPY);
    g_assert_true(wsm_session_handed_over(&o.session));
    wsm_session_info(&o.session, info);
    g_assert_true(info->has_downtime_ms);
    msg = hear(1);
    g_assert_cmpint(msg.type, ==, WSM_MSG_DATA);
    g_assert_cmpint(msg.offset, ==, 7 * BLOCK);
    g_assert_cmpint(msg.epoch, ==, 1);
}

/* The guest is ours, and the destination is told */
static void expect_taken_back(void)
{
    g_assert_cmpint(hear(0).type, ==, WSM_MSG_ABORT);
    target_poll_until(!qatomic_read(&o.s->aborting));
    expect_phase(WSM_PHASE_FREEZE);
    g_assert_false(wsm_session_handed_over(&o.session));
    g_assert_true(peer_hears_nothing(fd[0]));
    g_assert_true(peer_hears_nothing(fd[1]));
}

static void test_handover(void)
{
    set_up_frozen();
    walk_begin(handover, true);
    g_assert_true(peer_hears_nothing(fd[0]));
    g_assert_cmpint(qatomic_read(&walk.done), ==, 0);
    expect_phase(WSM_PHASE_FREEZE);
    /* The lock is free meanwhile */
    bql_lock();
    bql_unlock();
    say_ready();
    g_assert_true(walk_end());
    expect_handed_over();
    g_assert_false(wsm_source_wait_all_there(o.s, 0));
    expect_error(NULL);
    tear_down();
}

/* READY was there before */
static void test_handover_at_once(void)
{
    set_up_frozen();
    say_ready();
    origin_await(&o, WSM_READY);
    g_assert_true(run(handover, true));
    expect_handed_over();
    tear_down();
}

/* It does not come in time: then it never has */
static void test_no_ready(void)
{
    set_up_frozen();
    origin_set(&o, switchover_timeout, 50);
    g_assert_false(run(handover, true));
    disks_error(g_steal_pointer(&walk.err), "option switchover-timeout: 50 ms");
    expect_taken_back();
    say_ready();
    origin_await(&o, WSM_READY);
    run(try_handover, false);
    expect_phase(WSM_PHASE_FREEZE);
    g_assert_true(peer_hears_nothing(fd[0]));
    tear_down();
}

/* Whatever it waits for, and even if READY has come */
static void test_handover_interrupted(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(reasons); i++) {
        bool ready = i % 2;

        if (reasons[i].fn == end_loop) {
            continue;
        }
        set_up_frozen();
        if (ready) {
            say_ready();
            origin_await(&o, WSM_READY);
            reasons[i].fn();
            g_assert_false(run(handover, true));
        } else {
            walk_begin(handover, true);
            reasons[i].fn();
            g_assert_false(walk_end());
        }
        g_assert_nonnull(walk.err);
        check_reason(i);
        expect_taken_back();
        tear_down();
    }
}

/* With memory left the caller goes on with that, and asks again */
static void test_try_handover(void)
{
    set_up_frozen();
    qatomic_set(&ram_left, 5 * MiB);
    g_assert_true(run(handover, true));
    expect_phase(WSM_PHASE_FREEZE);
    run(try_handover, false);
    expect_phase(WSM_PHASE_FREEZE);
    g_assert_true(peer_hears_nothing(fd[0]));
    say_ready();
    origin_await(&o, WSM_READY);
    run(try_handover, false);
    expect_handed_over();
    tear_down();
}

/* Not if the migration has failed, or was stopped, meanwhile */
static void test_try_handover_not(void)
{
    set_up_frozen();
    qatomic_set(&ram_left, 5 * MiB);
    g_assert_true(run(handover, true));
    say_ready();
    origin_await(&o, WSM_READY);
    fail();
    run(try_handover, false);
    expect_phase(WSM_PHASE_FREEZE);
    g_assert_true(peer_hears_nothing(fd[0]));
    tear_down();

    set_up_frozen();
    qatomic_set(&ram_left, 5 * MiB);
    g_assert_true(run(handover, true));
    say_ready();
    origin_await(&o, WSM_READY);
    wsm_source_stop(o.s);
    run(try_handover, false);
    expect_phase(WSM_PHASE_FREEZE);
    tear_down();
}

/* The stream does not move, and READY does not come: it is broken off */
static void test_clock(void)
{
    char c;

    set_up_frozen();
    origin_set(&o, switchover_timeout, 50);
    qatomic_set(&ram_left, 5 * MiB);
    g_assert_true(run(handover, true));
    g_assert_cmpint(read(stream, &c, 1), ==, 0);
    target_poll_until(migrate_has_error(migrate_get_current()));
    expect_error("option switchover-timeout: 50 ms");
    origin_expect_error(&o, "the destination did not say that it has loaded");
    say_ready();
    origin_await(&o, WSM_READY);
    run(try_handover, false);
    expect_phase(WSM_PHASE_FREEZE);
    tear_down();
}

/* READY has come: the clock says nothing */
static void test_clock_ready(void)
{
    set_up_frozen();
    say_ready();
    origin_await(&o, WSM_READY);
    origin_set(&o, switchover_timeout, 300);
    qatomic_set(&ram_left, 5 * MiB);
    g_assert_true(run(handover, true));
    run(try_handover, false);
    target_poll_until(wsm_now() > o.s->ready_until + 200 * SCALE_MS);
    expect_error(NULL);
    tear_down();
}

/* To take it back does not wait for a destination that is gone */
static void test_take_back(void)
{
    set_up_frozen();
    run(take_back, false);
    expect_taken_back();
    tear_down();

    set_up_frozen();
    close(fd[0]);
    fd[0] = -1;
    target_poll_until(!qatomic_read(&o.s->channel[0].up));
    run(take_back, false);
    target_poll_until(!qatomic_read(&o.s->aborting));
    tear_down();

    /* Everything ends: nobody says anything */
    set_up_frozen();
    wsm_loop_quit(&o.s->loop);
    run(take_back, false);
    g_assert_false(qatomic_read(&o.s->aborting));
    tear_down();
}

/* All that was missing is there */
static void test_all_there(void)
{
    WsmMsg msg;

    set_up_frozen();
    say_ready();
    origin_await(&o, WSM_READY);
    g_assert_true(run(handover, true));
    g_assert_cmpint(hear(0).type, ==, WSM_MSG_GO);
    acknowledge();
    msg = hear(0);
    g_assert_cmpint(msg.type, ==, WSM_MSG_SYNC);
    g_assert_false(wsm_source_wait_all_there(o.s, 10));
    msg.type = WSM_MSG_SYNC_ACK;
    peer_send(fd[0], &msg, NULL);
    target_poll_until(wsm_source_wait_all_there(o.s, 1));
    tear_down();
}

int main(int argc, char **argv)
{
    int ret;

    origin_init_tests(&argc, &argv);
    qemu_mutex_init(&bql);
    qemu_mutex_init(&error_lock);
    qemu_mutex_init(&migrate_get_current()->qemu_file_lock);
    qemu_sem_init(&migrate_get_current()->postcopy_pause_sem, 0);
    g_test_add_func("/wsm/source-phases/disk-phase", test_disk_phase);
    g_test_add_func("/wsm/source-phases/passes", test_passes);
    g_test_add_func("/wsm/source-phases/no-disks", test_no_disks);
    g_test_add_func("/wsm/source-phases/bad-basis", test_bad_basis);
    g_test_add_func("/wsm/source-phases/interrupted", test_interrupted);
    g_test_add_func("/wsm/source-phases/not-interrupted",
                    test_not_interrupted);
    g_test_add_func("/wsm/source-phases/watched", test_watched);
    g_test_add_func("/wsm/source-phases/prepare-freeze", test_prepare_freeze);
    g_test_add_func("/wsm/source-phases/flush-error", test_flush_error);
    g_test_add_func("/wsm/source-phases/residue", test_residue);
    g_test_add_func("/wsm/source-phases/freeze-finds", test_freeze_finds);
    g_test_add_func("/wsm/source-phases/handover", test_handover);
    g_test_add_func("/wsm/source-phases/handover-at-once",
                    test_handover_at_once);
    g_test_add_func("/wsm/source-phases/no-ready", test_no_ready);
    g_test_add_func("/wsm/source-phases/handover-interrupted",
                    test_handover_interrupted);
    g_test_add_func("/wsm/source-phases/try-handover", test_try_handover);
    g_test_add_func("/wsm/source-phases/try-handover-not",
                    test_try_handover_not);
    g_test_add_func("/wsm/source-phases/clock", test_clock);
    g_test_add_func("/wsm/source-phases/clock-ready", test_clock_ready);
    g_test_add_func("/wsm/source-phases/take-back", test_take_back);
    g_test_add_func("/wsm/source-phases/all-there", test_all_there);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
