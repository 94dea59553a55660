/*
 * Unit tests of migration/wsm/source/basis.c
 *
 * The destination says what disks build on.  A shadow model has, for each
 * block, what must be sent, compared or left alone in the first pass, and the
 * messages of that pass are held against it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/source/basis.h"
#include "migration/wsm/source/ops.h"
#include "migration/wsm/wire/payload.h"
#include "migration/wsm/wire/runs.h"
#include "wsm-origin.h"

#define DISKS           2
#define CHANNELS        2
#define BLOCK           ORIGIN_BLOCK
#define BLOCKS          60
#define CUT             (5 * BDRV_SECTOR_SIZE)  /* of the last block */

/* What is to be done with a block in the first pass */
typedef enum Todo { LEAVE, SEND, COMPARE } Todo;

static Origin o;
static OriginDisk disk[DISKS];
static int fd[CHANNELS];
static Todo todo[DISKS][BLOCKS];
static unsigned said[DISKS];            /* OWN has come to this block */

static bool one_in(int n)
{
    return g_test_rand_int_range(0, n) == 0;
}

/* Disks without holes, the second of which has no whole number of blocks */
static void add_disks(void)
{
    for (unsigned d = 0; d < DISKS; d++) {
        origin_add_disk(&disk[d], d ? "vdb" : "vda",
                        (int64_t)BLOCKS * BLOCK - d * CUT);
        memset(disk[d].data, 0x5a, disk[d].size);
        said[d] = 0;
    }
    origin_init(&o);
}

static void set_todo(unsigned d, Todo what)
{
    for (unsigned b = 0; b < BLOCKS; b++) {
        todo[d][b] = what;
    }
}

static void start(void)
{
    origin_start(&o, CHANNELS - 1);
    for (unsigned d = 0; d < DISKS; d++) {
        set_todo(d, SEND);
    }
    wsm_source_open_channels(o.s);
    target_welcome_all(fd, CHANNELS);
    origin_await(&o, WSM_WELCOME);
}

static void set_up(void)
{
    add_disks();
    start();
}

static void tear_down(void)
{
    for (unsigned i = 0; i < CHANNELS; i++) {
        close(fd[i]);
    }
    origin_destroy(&o);
    for (unsigned d = 0; d < DISKS; d++) {
        origin_remove_disk(&disk[d]);
    }
}

/*
 * The destination
 */

static QemuUUID point_id(unsigned n)
{
    QemuUUID id = { .data = { 0xab, [15] = n } };

    return id;
}

static void say_basis(unsigned d, WsmBasisKind kind, unsigned point)
{
    WsmBasisMsg bm = { .kind = kind, .reason = (char *)"as it is" };
    g_autoptr(GByteArray) payload = NULL;
    WsmMsg msg = { .type = WSM_MSG_BASIS, .disk = d, .offset = kind };

    if (kind == WSM_BASIS_KIND_SYNC_POINT) {
        bm.point = point_id(point);
    }
    payload = wsm_basis_encode(&bm);
    msg.length = payload->len;
    peer_send(fd[0], &msg, payload->data);
}

static WsmMsg own_msg(unsigned d, unsigned first, unsigned blocks)
{
    WsmMsg msg = {
        .type = WSM_MSG_OWN, .disk = d, .offset = (int64_t)first * BLOCK,
    };

    msg.bytes = MIN((int64_t)blocks * BLOCK,
                    disk[d].size - (int64_t)msg.offset);
    return msg;
}

/* The next @blocks blocks of a disk, of which those with @own set are said */
static void say_own(unsigned d, unsigned blocks, const bool *own)
{
    g_autoptr(GByteArray) runs = g_byte_array_new();
    WsmMsg msg = own_msg(d, said[d], blocks);
    WsmRunsEncoder e;

    wsm_runs_encode_init(&e, runs);
    for (unsigned i = 0, n = 1; i < blocks; i += n, n = 1) {
        if (own[said[d] + i]) {
            while (i + n < blocks && own[said[d] + i + n]) {
                n++;
            }
            wsm_runs_encode(&e, i, n);
        }
    }
    msg.length = runs->len;
    peer_send(fd[0], &msg, runs->data);
    said[d] += blocks;
}

/* All of it, in parts */
static void say_all_own(unsigned d, const bool *own)
{
    while (said[d] < BLOCKS) {
        say_own(d, MIN(g_test_rand_int_range(1, 25), BLOCKS - said[d]), own);
    }
}

static bool is_agreed(void)
{
    return wsm_has_reached(&o.s->milestones, WSM_AGREED);
}

/* What was said before this has been worked on */
static void settle(void)
{
    WsmMsg ready = { .type = WSM_MSG_READY, .epoch = 1 };

    wsm_unreach(&o.s->milestones, WSM_READY);
    peer_send(fd[0], &ready, NULL);
    origin_await(&o, WSM_READY);
}

/*
 * The first pass
 */

static void check_message(const WsmMsg *msg)
{
    unsigned first = msg->offset / BLOCK;

    for (unsigned i = 0; i < DIV_ROUND_UP(msg->bytes, BLOCK); i++) {
        Todo *t = &todo[msg->disk][first + i];

        g_assert_cmpint(*t, ==, msg->type == WSM_MSG_HASH ? COMPARE : SEND);
        *t = LEAVE;
    }
}

/* Each is done as it should be, and all that should */
static void check_pass(void)
{
    int64_t expected = 0;

    for (unsigned d = 0; d < DISKS; d++) {
        for (unsigned b = 0; b < BLOCKS; b++) {
            g_assert_true(origin_is_dirty(&o, d, b) == (todo[d][b] != LEAVE));
            expected += todo[d][b] != LEAVE;
        }
    }
    origin_begin_pass(&o);
    while (expected) {
        g_autofree uint8_t *payload = g_malloc(WSM_MAX_DATA);
        WsmMsg msg = target_recv(fd[1], 1, payload, WSM_MAX_DATA);

        check_message(&msg);
        expected -= DIV_ROUND_UP(msg.bytes, BLOCK);
    }
    g_assert_true(peer_hears_nothing(fd[1]));
}

/*
 * What disks build on
 */

/* On nothing: all goes, and there is no OWN to wait for */
static void test_full(void)
{
    set_up();
    g_assert_null(o.s->disk[0].basis);
    say_basis(0, WSM_BASIS_KIND_FULL, 0);
    settle();
    g_assert_false(is_agreed());
    say_basis(1, WSM_BASIS_KIND_FULL, 0);
    origin_await(&o, WSM_AGREED);
    for (unsigned d = 0; d < DISKS; d++) {
        g_assert_cmpint(o.s->disk[d].basis->kind, ==, WSM_BASIS_KIND_FULL);
        g_assert_cmpstr(o.s->disk[d].basis->reason, ==, "as it is");
        g_assert_null(o.s->disk[d].basis->point);
    }
    g_assert_true(wsm_source_apply_basis(o.s, &error_abort));
    check_pass();
    tear_down();
}

static void make_own(bool *own)
{
    for (unsigned b = 0; b < BLOCKS; b++) {
        own[b] = !one_in(3);
    }
}

/* Where the destination has data that is compared, the rest goes */
static void test_content(void)
{
    bool own[BLOCKS];

    for (int i = 0; i < 6; i++) {
        set_up();
        make_own(own);
        say_basis(1, WSM_BASIS_KIND_CONTENT, 0);
        say_all_own(1, own);
        settle();
        g_assert_false(is_agreed());
        say_basis(0, WSM_BASIS_KIND_FULL, 0);
        origin_await(&o, WSM_AGREED);
        g_assert_true(wsm_source_apply_basis(o.s, &error_abort));
        for (unsigned b = 0; b < BLOCKS; b++) {
            todo[1][b] = own[b] ? COMPARE : SEND;
        }
        check_pass();
        tear_down();
    }
}

/* It has none after all */
static void test_no_content(void)
{
    bool own[BLOCKS] = {};

    set_up();
    say_basis(0, WSM_BASIS_KIND_CONTENT, 0);
    say_basis(1, WSM_BASIS_KIND_CONTENT, 0);
    say_own(0, BLOCKS, own);
    say_own(1, BLOCKS - 1, own);
    settle();
    g_assert_false(is_agreed());
    say_own(1, 1, own);
    origin_await(&o, WSM_AGREED);
    g_assert_true(wsm_source_apply_basis(o.s, &error_abort));
    check_pass();
    tear_down();
}

static void guest_writes(unsigned d, bool *written)
{
    for (int i = 0; i < 8; i++) {
        unsigned b = g_test_rand_int_range(0, BLOCKS);

        origin_write(&disk[d], b, 1, 0x60 + i);
        written[b] = true;
    }
}

static void add_point(unsigned d, unsigned n)
{
    QemuUUID id = point_id(n);

    g_assert_true(wsm_points_add(disk[d].bs, &id, BLOCK, NULL, &error_abort));
}

/*
 * On a sync point: what has changed since, on either side, goes; what the
 * guest writes until the basis is applied, and afterwards, is among it.
 */
static void test_point(void)
{
    for (int i = 0; i < 6; i++) {
        bool before[BLOCKS] = {}, since[BLOCKS] = {}, own[BLOCKS];
        g_autoptr(GArray) free_points = NULL;

        add_disks();
        add_point(0, 1);
        guest_writes(0, before);
        add_point(0, 2);
        guest_writes(0, since);
        start();
        g_assert_cmpint(o.s->start.disk[0].npoints, ==, 2);
        guest_writes(0, since);
        make_own(own);
        say_basis(0, WSM_BASIS_KIND_SYNC_POINT, 2);
        say_all_own(0, own);
        say_basis(1, WSM_BASIS_KIND_FULL, 0);
        origin_await(&o, WSM_AGREED);
        g_assert_cmpint(o.s->disk[0].basis->kind, ==,
                        WSM_BASIS_KIND_SYNC_POINT);
        g_assert_nonnull(o.s->disk[0].basis->point);
        guest_writes(0, since);
        g_assert_true(wsm_source_apply_basis(o.s, &error_abort));
        /* They are ours alone, as before */
        free_points = wsm_points_list(disk[0].bs);
        g_assert_cmpint(free_points->len, ==, 0);
        guest_writes(0, since);
        for (unsigned b = 0; b < BLOCKS; b++) {
            todo[0][b] = since[b] || own[b] ? SEND : LEAVE;
        }
        check_pass();
        tear_down();
    }
}

/* On the older one: what was written between the two goes as well */
static void test_older_point(void)
{
    bool since[BLOCKS] = {}, own[BLOCKS] = { [7] = true };

    add_disks();
    add_point(1, 1);
    guest_writes(1, since);
    add_point(1, 2);
    guest_writes(1, since);
    start();
    say_basis(0, WSM_BASIS_KIND_FULL, 0);
    say_basis(1, WSM_BASIS_KIND_SYNC_POINT, 1);
    say_all_own(1, own);
    origin_await(&o, WSM_AGREED);
    g_assert_true(wsm_source_apply_basis(o.s, &error_abort));
    for (unsigned b = 0; b < BLOCKS; b++) {
        todo[1][b] = since[b] || own[b] ? SEND : LEAVE;
    }
    check_pass();
    tear_down();
}

/*
 * What the user wants
 */

static void wish(const char *name, WsmBasisKind kind)
{
    WsmBasisWishList *list = NULL;
    WsmBasisWish *w = g_new0(WsmBasisWish, 1);

    w->disk = g_strdup(name);
    w->kind = kind;
    QAPI_LIST_PREPEND(list, w);
    origin_set(&o, basis, list);
}

static void test_wish(void)
{
    bool own[BLOCKS] = {};

    add_disks();
    wish("vdb", WSM_BASIS_KIND_CONTENT);
    start();
    g_assert_cmpint(o.s->start.disk[0].wish, ==, WSM_BASIS_KIND_AUTO);
    g_assert_cmpint(o.s->start.disk[1].wish, ==, WSM_BASIS_KIND_CONTENT);
    say_basis(0, WSM_BASIS_KIND_FULL, 0);
    say_basis(1, WSM_BASIS_KIND_CONTENT, 0);
    say_all_own(1, own);
    origin_await(&o, WSM_AGREED);
    tear_down();
}

/*
 * What the destination must not say.  In phase setup that ends the migration.
 */

static void expect_refused(const char *text)
{
    target_poll_until(origin_has_fatal(&o));
    origin_expect_fatal(&o, text);
    g_assert_true(peer_has_ended(fd[0]));
    g_assert_false(is_agreed());
    tear_down();
}

static void test_not_wished(void)
{
    add_disks();
    wish("vda", WSM_BASIS_KIND_FULL);
    start();
    say_basis(0, WSM_BASIS_KIND_CONTENT, 0);
    expect_refused("BASIS of disk 'vda' is 'content', but option 'basis' wants "
                   "'full'");
}

static void test_twice(void)
{
    set_up();
    say_basis(1, WSM_BASIS_KIND_FULL, 0);
    say_basis(1, WSM_BASIS_KIND_FULL, 0);
    expect_refused("BASIS of disk 'vdb' came twice");
}

static void test_unknown_point(void)
{
    add_disks();
    add_point(0, 1);
    start();
    /* Another disk has it */
    say_basis(1, WSM_BASIS_KIND_SYNC_POINT, 1);
    expect_refused("BASIS of disk 'vdb': this side has no sync point ab0000");

    add_disks();
    add_point(0, 1);
    start();
    say_basis(0, WSM_BASIS_KIND_SYNC_POINT, 2);
    expect_refused("this side has no sync point ab0000");
}

/* Before BASIS, without need, not from the begin, with a gap, once more */
static void test_out_of_order(void)
{
    bool own[BLOCKS] = {};

    set_up();
    say_own(0, BLOCKS, own);
    expect_refused("OWN of disk 'vda' at 0x0 is out of order");

    set_up();
    say_basis(0, WSM_BASIS_KIND_FULL, 0);
    say_own(0, BLOCKS, own);
    expect_refused("OWN of disk 'vda' at 0x0 is out of order");

    set_up();
    say_basis(0, WSM_BASIS_KIND_CONTENT, 0);
    said[0] = 1;
    say_own(0, 1, own);
    expect_refused("OWN of disk 'vda' at 0x1000 is out of order");

    set_up();
    say_basis(0, WSM_BASIS_KIND_CONTENT, 0);
    say_own(0, 5, own);
    said[0] = 6;
    say_own(0, 1, own);
    expect_refused("OWN of disk 'vda' at 0x6000 is out of order");

    set_up();
    say_basis(1, WSM_BASIS_KIND_CONTENT, 0);
    say_own(1, 5, own);
    said[1] = 0;
    say_own(1, 5, own);
    expect_refused("OWN of disk 'vdb' at 0x0 is out of order");
}

/* More bytes than any list for so many blocks has: no memory is taken */
static void test_too_long(void)
{
    WsmMsg msg;

    set_up();
    say_basis(0, WSM_BASIS_KIND_CONTENT, 0);
    msg = own_msg(0, 0, 2);
    msg.length = wsm_runs_max_size(2) + 1;
    peer_send(fd[0], &msg, (uint8_t[64]) {});
    expect_refused("bytes are too many for a range of 8192");
}

/* What is no list of runs is found when it is applied */
static void try_bad_runs(unsigned d, WsmBasisKind kind)
{
    static const uint8_t bad[] = { 0x00, 0x03 };
    bool own[BLOCKS] = {};
    Error *err = NULL;
    WsmMsg msg;

    add_disks();
    add_point(d, 1);
    start();
    msg = own_msg(d, 0, 2);
    say_basis(!d, WSM_BASIS_KIND_FULL, 0);
    say_basis(d, kind, 1);
    msg.length = sizeof(bad);
    peer_send(fd[0], &msg, bad);
    said[d] = 2;
    say_all_own(d, own);
    origin_await(&o, WSM_AGREED);
    g_assert_false(wsm_source_apply_basis(o.s, &err));
    disks_error(err, d ? "OWN of disk 'vdb': " : "OWN of disk 'vda': ");
    tear_down();
}

static void test_bad_runs(void)
{
    try_bad_runs(0, WSM_BASIS_KIND_CONTENT);
    try_bad_runs(1, WSM_BASIS_KIND_CONTENT);
    try_bad_runs(1, WSM_BASIS_KIND_SYNC_POINT);
}

/* The sync point went meanwhile, which nobody should be able to do */
static void test_lost_point(void)
{
    bool own[BLOCKS] = {};
    Error *err = NULL;

    add_disks();
    add_point(0, 1);
    start();
    say_basis(0, WSM_BASIS_KIND_SYNC_POINT, 1);
    say_all_own(0, own);
    say_basis(1, WSM_BASIS_KIND_FULL, 0);
    origin_await(&o, WSM_AGREED);
    o.s->disk[0].basis_point = point_id(9);
    g_assert_false(wsm_source_apply_basis(o.s, &err));
    error_free_or_abort(&err);
    tear_down();
}

/* The connection breaks within a message */
static void test_torn(void)
{
    WsmMsg basis = {
        .type = WSM_MSG_BASIS, .offset = WSM_BASIS_KIND_FULL, .length = 20,
    };
    uint8_t header[WSM_HEADER_SIZE];
    WsmMsg own;

    set_up();
    wsm_msg_encode(&basis, header);
    g_assert_cmpint(write(fd[0], header, sizeof(header)), ==, sizeof(header));
    shutdown(fd[0], SHUT_WR);
    target_poll_until(origin_has_fatal(&o));
    g_assert_null(o.s->disk[0].basis);
    tear_down();

    set_up();
    say_basis(0, WSM_BASIS_KIND_CONTENT, 0);
    own = own_msg(0, 0, BLOCKS);
    own.length = 5;
    wsm_msg_encode(&own, header);
    g_assert_cmpint(write(fd[0], header, sizeof(header)), ==, sizeof(header));
    shutdown(fd[0], SHUT_WR);
    target_poll_until(origin_has_fatal(&o));
    g_assert_false(is_agreed());
    tear_down();
}

int main(int argc, char **argv)
{
    int ret;

    origin_init_tests(&argc, &argv);
    g_test_add_func("/wsm/source-basis/full", test_full);
    g_test_add_func("/wsm/source-basis/content", test_content);
    g_test_add_func("/wsm/source-basis/no-content", test_no_content);
    g_test_add_func("/wsm/source-basis/point", test_point);
    g_test_add_func("/wsm/source-basis/older-point", test_older_point);
    g_test_add_func("/wsm/source-basis/wish", test_wish);
    g_test_add_func("/wsm/source-basis/not-wished", test_not_wished);
    g_test_add_func("/wsm/source-basis/twice", test_twice);
    g_test_add_func("/wsm/source-basis/unknown-point", test_unknown_point);
    g_test_add_func("/wsm/source-basis/out-of-order", test_out_of_order);
    g_test_add_func("/wsm/source-basis/too-long", test_too_long);
    g_test_add_func("/wsm/source-basis/bad-runs", test_bad_runs);
    g_test_add_func("/wsm/source-basis/lost-point", test_lost_point);
    g_test_add_func("/wsm/source-basis/torn", test_torn);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
