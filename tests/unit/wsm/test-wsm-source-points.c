/*
 * Unit tests of migration/wsm/source/points.c and leaving.c
 *
 * Disks are real images, so that what is kept of them in the end can be looked
 * at by opening them anew, as another QEMU does.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-wsm.h"
#include "qemu/main-loop.h"
#include "qobject/qdict.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/image/record-file.h"
#include "migration/wsm/source/ops.h"
#include "migration/wsm/source/leaving.h"
#include "migration/wsm/source/points.h"
#include "migration/wsm/wire/payload.h"
#include "migration/wsm/wire/runs.h"
#include "wsm-origin.h"
#include "wsm-powers.h"

#define BLOCK           ORIGIN_BLOCK
#define BLOCKS          (DISK_SIZE / BLOCK)
#define CHANNELS        2

typedef struct Test {
    char *path;
    const char *driver;
    BlockBackend *blk;
    Origin o;
    char *session;              /* of the source that ran last */
} Test;

static QemuUUID point_id(unsigned n)
{
    QemuUUID id = { .data = { 0xab, [15] = n } };

    return id;
}

static BlockDriverState *bs_of(Test *t)
{
    return blk_bs(t->blk);
}

/* As in another QEMU: nothing is known but what is kept */
static void open_image(Test *t)
{
    t->blk = disks_open(t->path, t->driver, BDRV_O_RDWR);
    disks_plug("vda", t->blk);
    origin_init(&t->o);
}

static void close_image(Test *t)
{
    origin_destroy(&t->o);
    disks_unplug("vda");
    blk_unref(t->blk);
}

static void begin(Test *t, const char *driver)
{
    *t = (Test) { .driver = driver };
    t->path = disks_create("image", driver, NULL);
    open_image(t);
}

static void end(Test *t)
{
    close_image(t);
    wsm_record_remove(t->path, &error_abort);
    g_unlink(t->path);
    g_free(t->path);
    g_free(t->session);
}

static void start(Test *t)
{
    origin_start(&t->o, CHANNELS - 1);
    g_free(t->session);
    t->session = qemu_uuid_unparse_strdup(&t->o.s->start.session);
}

/* Up to @phase, as the migration thread does */
static void enter(Test *t, WsmPhase phase)
{
    for (WsmPhase p = WSM_PHASE_DISK_PRECOPY; p <= phase; p++) {
        wsm_session_enter(&t->o.session, p);
        if (p == WSM_PHASE_FREEZE) {
            g_assert_true(disks_inactivate(bs_of(t)));
        }
    }
}

/* The guest runs on here */
static void run_on(Test *t)
{
    g_assert_true(disks_activate(bs_of(t), &error_abort));
}

static void add_point(BlockDriverState *bs, unsigned n, unsigned rest_blocks)
{
    BdrvDirtyBitmap *rest = NULL;
    QemuUUID id = point_id(n);

    if (rest_blocks) {
        rest = bdrv_create_dirty_bitmap(bs, BLOCK, NULL, &error_abort);
        bdrv_disable_dirty_bitmap(rest);
        bdrv_set_dirty_bitmap(rest, 0, rest_blocks * BLOCK);
    }
    g_assert_true(wsm_points_add(bs, &id, BLOCK, rest, &error_abort));
    if (rest) {
        bdrv_release_dirty_bitmap(rest);
    }
}

/* Of this source's disk number 0 */
static QemuUUID new_id(Test *t)
{
    QemuUUID id;

    g_assert_cmpint(qemu_uuid_parse(t->session, &id), ==, 0);
    return wsm_points_id(&id, 0);
}

/* Digits of those made here, "+" for the source's own */
static void check_points(Test *t, const char *expected)
{
    g_autoptr(GArray) points = wsm_points_list(bs_of(t));
    g_autoptr(GString) is = g_string_new("");
    QemuUUID ours = t->session ? new_id(t) : point_id(0);

    for (unsigned i = 0; i < points->len; i++) {
        const QemuUUID *id = &g_array_index(points, WsmPoint, i).id;

        g_string_append_c(is, qemu_uuid_is_equal(id, &ours)
                              ? '+' : '0' + id->data[15]);
    }
    g_assert_cmpstr(is->str, ==, expected);
}

static int64_t changed(Test *t, QemuUUID id)
{
    return wsm_points_changed_bytes(bs_of(t), &id);
}

static void write_block(Test *t, unsigned block)
{
    disks_write(t->blk, block * BLOCK);
}

/* @state: of the record beside the image, -1: there is none */
static void check_record(Test *t, int state, unsigned npoints)
{
    g_autoptr(WsmRecord) record = NULL;
    unsigned n = 0;

    g_assert_true(wsm_record_load(t->path, &record, &error_abort));
    g_assert_cmpint(record ? (int)record->state : -1, ==, state);
    for (WsmRecordPointList *p = record ? record->points : NULL; p;
         p = p->next) {
        n++;
    }
    g_assert_cmpint(n, ==, npoints);
    if (record && state != WSM_IMAGE_STATE_CURRENT) {
        g_assert_cmpstr(record->session, ==, t->session);
        g_assert_cmpstr(record->peer, ==, ORIGIN_PEER);
    }
}

/* Take what is kept into memory, as it is done before a guest runs */
static void take(Test *t)
{
    g_autoptr(GArray) all = wsm_disk_list();
    WsmImage *image = wsm_image_get(&t->o.images,
                                    &g_array_index(all, WsmDisk, 0));

    g_assert_true(wsm_image_take(image, bs_of(t), &error_abort));
    g_assert_null(image->problem);
}

/*
 * At the begin
 */

/* What START says of them; nobody else gets at them */
static void test_add(void)
{
    WsmDiskDesc *desc;
    WsmSourceDisk *d;
    Test t;

    begin(&t, "raw");
    add_point(bs_of(&t), 1, 0);
    write_block(&t, 3);
    add_point(bs_of(&t), 2, 4);
    write_block(&t, 9);
    write_block(&t, 10);
    start(&t);
    d = &t.o.s->disk[0];
    desc = &t.o.s->start.disk[0];
    g_assert_cmpint(desc->npoints, ==, 2);
    g_assert_cmpint(desc->point[0].id.data[15], ==, 1);
    g_assert_cmpint(desc->point[0].changed, ==, 3 * BLOCK);
    g_assert_cmpint(desc->point[1].id.data[15], ==, 2);
    g_assert_cmpint(desc->point[1].changed, ==, 6 * BLOCK);
    /* Ours alone: our own functions do not see them, nor do they forget them */
    g_assert_cmpint(d->points->len, ==, 2);
    check_points(&t, "");
    wsm_points_clear(bs_of(&t));

    wsm_source_hold_points(d, false);
    check_points(&t, "12");
    wsm_source_hold_points(d, true);
    check_points(&t, "");

    /* A record for the freeze, not written yet */
    g_assert_cmpint(d->leaving->state, ==, WSM_IMAGE_STATE_LEAVING);
    g_assert_cmpstr(d->store->file, ==, t.path);
    check_record(&t, -1, 0);
    origin_stop(&t.o);
    check_points(&t, "12");
    end(&t);
}

/* No more than START has room for: the newest */
static void test_many(void)
{
    WsmDiskDesc *desc;
    Test t;

    begin(&t, "raw");
    for (unsigned i = 1; i <= WSM_MAX_POINTS + 3; i++) {
        add_point(bs_of(&t), i, 0);
    }
    start(&t);
    desc = &t.o.s->start.disk[0];
    g_assert_cmpint(desc->npoints, ==, WSM_MAX_POINTS);
    g_assert_cmpint(desc->point[0].id.data[15], ==, 4);
    g_assert_cmpint(desc->point[WSM_MAX_POINTS - 1].id.data[15], ==,
                    WSM_MAX_POINTS + 3);
    end(&t);
}

static void test_wish(void)
{
    WsmBasisWishList *list = NULL;
    Test t;

    begin(&t, "raw");
    for (unsigned i = 0; i < 2; i++) {
        WsmBasisWish *wish = g_new0(WsmBasisWish, 1);

        wish->disk = g_strdup(i ? "vdb" : "/dev/vda");
        wish->kind = i ? WSM_BASIS_KIND_FULL : WSM_BASIS_KIND_SYNC_POINT;
        QAPI_LIST_PREPEND(list, wish);
    }
    origin_set(&t.o, basis, list);
    start(&t);
    g_assert_cmpint(t.o.s->start.disk[0].wish, ==, WSM_BASIS_KIND_SYNC_POINT);
    end(&t);
}

/* Somebody else has the image: the migration does not begin */
static void test_not_active(void)
{
    BlockBackend *other;
    Error *err = NULL;
    Test t;

    begin(&t, "raw");
    g_assert_true(disks_inactivate(bs_of(&t)));
    other = disks_open(t.path, "raw", BDRV_O_RDWR | BDRV_O_NO_SHARE);
    origin_new(&t.o, CHANNELS - 1);
    g_assert_false(wsm_source_start(t.o.s, &err));
    disks_error(err, "disk 'vda': ");
    g_assert_null(t.o.s->disk[0].points);
    origin_stop(&t.o);
    blk_unref(other);
    run_on(&t);
    end(&t);
}

/* Of an image without a file there is no record; its points stay in memory */
static void test_no_file(void)
{
    QDict *options = qdict_new();
    QemuUUID id = point_id(1);
    Test t = {};

    qdict_put_str(options, "driver", "null-co");
    qdict_put_int(options, "size", DISK_SIZE);
    t.blk = blk_new_open(NULL, NULL, options, BDRV_O_RDWR, &error_abort);
    blk_set_force_allow_inactivate(t.blk);
    disks_plug("vda", t.blk);
    origin_init(&t.o);
    add_point(bs_of(&t), 1, 0);
    start(&t);
    g_assert_null(t.o.s->disk[0].store);
    g_assert_cmpint(wsm_source_mark_leaving(t.o.s), ==, 0);
    g_assert_true(t.o.s->marked);
    enter(&t, WSM_PHASE_POSTCOPY);
    origin_stop(&t.o);
    check_points(&t, "1+");
    g_assert_cmpint(changed(&t, id), ==, 0);
    wsm_points_clear(bs_of(&t));
    close_image(&t);
    g_free(t.session);
}

/*
 * Soon the guest may be elsewhere
 */

static void test_leaving(void)
{
    Test t;

    begin(&t, "raw");
    start(&t);
    g_assert_false(t.o.s->marked);
    g_assert_cmpint(wsm_source_mark_leaving(t.o.s), ==, 0);
    g_assert_true(t.o.s->marked);
    check_record(&t, WSM_IMAGE_STATE_LEAVING, 0);
    /* It did not leave, after all */
    enter(&t, WSM_PHASE_RAM_PRECOPY);
    origin_stop(&t.o);
    check_record(&t, -1, 0);
    end(&t);
}

/* The migration ends meanwhile: what was not written is not */
static WsmRecordHandover *handover_of(Test *t)
{
    g_autoptr(WsmRecord) record = NULL;

    g_assert_true(wsm_record_load(t->path, &record, &error_abort));
    g_assert_nonnull(record);
    return record->handover ? QAPI_CLONE(WsmRecordHandover, record->handover)
                            : NULL;
}

/* What it says is what another program needs to serve the image */
static void test_leaving_handover(const void *driver)
{
    g_autoptr(WsmRecordHandover) h = NULL;
    Test t;

    begin(&t, driver);
    add_point(bs_of(&t), 1, 0);
    add_point(bs_of(&t), 2, 0);
    target_says_tls = true;
    start(&t);
    g_assert_cmpint(wsm_source_mark_leaving(t.o.s), ==, 0);
    h = handover_of(&t);
    g_assert_cmpint(h->disk, ==, 0);
    g_assert_cmpint(h->disks, ==, 1);
    g_assert_cmpstr(h->format, ==, driver);
    g_assert_cmpint(h->points, ==, 2);
    g_assert_cmpint(h->granularity, ==, BLOCK);
    g_assert_cmpint(h->channels, ==, CHANNELS);
    g_assert_cmpint(h->version, ==, WSM_PROTOCOL_VERSION);
    g_assert_cmpint(h->features, ==, t.o.s->start.features);
    g_assert_cmpstr(h->uri, ==, "unix:" ORIGIN_PATH);
    g_assert_true(h->tls);
    target_says_tls = false;
    enter(&t, WSM_PHASE_POSTCOPY);
    origin_stop(&t.o);
    /* It says no more than what is needed then */
    check_record(&t, WSM_IMAGE_STATE_HANDED_OVER, !strcmp(driver, "raw") * 3);
    g_assert_null(handover_of(&t));
    end(&t);
}

/* The destination has moved: known only while somebody may need to know */
static void test_leaving_redirect(void)
{
    static const WsmPhase phases[] = {
        WSM_PHASE_POSTCOPY, WSM_PHASE_FREEZE, WSM_PHASE_COMPLETED,
    };

    for (int i = 0; i < ARRAY_SIZE(phases); i++) {
        g_autoptr(WsmRecordHandover) h = NULL;
        SocketAddress *target = g_new0(SocketAddress, 1);
        Test t;

        target->type = SOCKET_ADDRESS_TYPE_UNIX;
        target->u.q_unix.path = g_strdup("/elsewhere");
        begin(&t, "raw");
        start(&t);
        g_assert_cmpint(wsm_source_mark_leaving(t.o.s), ==, 0);
        enter(&t, phases[i]);
        wsm_source_set_target(t.o.s, target);
        h = handover_of(&t);
        g_assert_cmpstr(h->uri, ==, i ? "unix:" ORIGIN_PATH
                                      : "unix:/elsewhere");
        end(&t);
    }
}

static void test_leaving_over(void)
{
    Test t;

    begin(&t, "raw");
    start(&t);
    wsm_loop_quit(&t.o.s->loop);
    g_assert_cmpint(wsm_source_mark_leaving(t.o.s), ==, 0);
    check_record(&t, -1, 0);
    end(&t);
}

/* It cannot be written: that is told, once, and no reason not to migrate */
static void test_leaving_fails(void)
{
    g_autofree char *record = NULL;
    Test t;

    begin(&t, "raw");
    start(&t);
    record = wsm_record_path(t.path);
    g_assert_cmpint(g_mkdir(record, 0700), ==, 0);
    g_assert_false(t.o.s->disk[0].image->told);
    /* Nor as an attribute */
    g_assert_cmpint(chmod(t.path, 0444), ==, 0);
    powers_drop();
    g_assert_cmpint(wsm_source_mark_leaving(t.o.s), ==, 0);
    powers_restore();
    g_assert_cmpint(chmod(t.path, 0644), ==, 0);
    g_assert_true(t.o.s->disk[0].image->told);
    g_rmdir(record);
    origin_stop(&t.o);
    end(&t);
}

/*
 * After the handover: the destination is told
 */

/* More blocks than are said in one message */
#define MANY            (150 * 1024)
#define MANY_SIZE       ((int64_t)MANY * BLOCK - 3 * BDRV_SECTOR_SIZE)

typedef struct Told {
    int fd[CHANNELS];
    BdrvDirtyBitmap *expected[2][2];    /* by point and rest */
    uint8_t *got[2][2];                 /* a byte for each block */
    unsigned point;                     /* for set_told() */
    bool rest;
    int64_t offset;
    unsigned messages;
} Told;

static void set_told(void *opaque, int64_t offset, int64_t bytes)
{
    Told *told = opaque;

    for (int64_t at = offset; at < offset + bytes; at += BLOCK) {
        uint8_t *got = &told->got[told->point][told->rest]
                                 [(told->offset + at) / BLOCK];

        g_assert_cmpint(*got, ==, 0);
        *got = 1;
    }
}

/* Each POINT up to GO, which is said before them, or up to their end */
static void hear_points(Test *t, Told *told, unsigned messages)
{
    g_autofree uint8_t *payload = g_malloc(WSM_MAX_RUNS + WSM_POINT_SIZE);

    for (; messages; messages--) {
        WsmMsg msg = target_recv(told->fd[0], 0, payload,
                                 WSM_MAX_RUNS + WSM_POINT_SIZE);
        WsmPointMsg pm;

        if (msg.type == WSM_MSG_GO) {
            messages++;
            continue;
        }
        g_assert_cmpint(msg.type, ==, WSM_MSG_POINT);
        g_assert_cmpint(msg.epoch, ==, 1);
        g_assert_cmpint(msg.bytes, <=, 64 * KiB * BLOCK);
        g_assert_true(wsm_point_decode(&msg, payload, &t->o.s->start.disk[0],
                                       &pm, &error_abort));
        told->point = pm.index;
        told->rest = pm.rest;
        told->offset = msg.offset;
        g_assert_cmpint(pm.size, >, 0);
        g_assert_true(wsm_runs_for_each(pm.runs, pm.size, msg.bytes, BLOCK,
                                        set_told, told, &error_abort));
        told->messages++;
    }
}

/* All of it was heard, and nothing else */
static void check_told(Told *told)
{
    for (unsigned i = 0; i < 4; i++) {
        BdrvDirtyBitmap *bitmap = told->expected[i / 2][i % 2];

        for (int64_t b = 0; b < MANY; b++) {
            bool expected = bitmap && bdrv_dirty_bitmap_get(bitmap, b * BLOCK);

            g_assert_cmpint(told->got[i / 2][i % 2][b], ==, expected);
        }
        memset(told->got[i / 2][i % 2], 0, MANY);
    }
}

static void set_randomly(BdrvDirtyBitmap *bitmap)
{
    for (int i = 0; i < 2000; i++) {
        bdrv_set_dirty_bitmap(bitmap, g_test_rand_int_range(0, MANY) *
                              (int64_t)BLOCK, 1);
    }
    bdrv_set_dirty_bitmap(bitmap, MANY_SIZE - 1, 1);
}

static void say_points_bh(void *opaque)
{
    WsmSource *s = opaque;

    s->control.points = true;
    wsm_loop_wake(&s->loop);
}

static void make_told(Test *t, Told *told)
{
    QDict *options = qdict_new();

    *t = (Test) {};
    *told = (Told) {};
    qdict_put_str(options, "driver", "null-co");
    qdict_put_int(options, "size", MANY_SIZE);
    t->blk = blk_new_open(NULL, NULL, options, BDRV_O_RDWR, &error_abort);
    blk_set_force_allow_inactivate(t->blk);
    disks_plug("vda", t->blk);
    origin_init(&t->o);
    for (unsigned i = 0; i < 4; i++) {
        told->got[i / 2][i % 2] = g_malloc0(MANY);
    }
    add_point(bs_of(t), 1, 0);
    add_point(bs_of(t), 2, 2);
    start(t);
    for (unsigned i = 0; i < 2; i++) {
        WsmPoint *point = &g_array_index(t->o.s->disk[0].points, WsmPoint, i);

        told->expected[i][0] = point->since;
        told->expected[i][1] = point->rest;
    }
    wsm_source_open_channels(t->o.s);
    target_welcome_all(told->fd, CHANNELS);
    origin_await(&t->o, WSM_WELCOME);
    /* Nothing is pushed meanwhile */
    wsm_work_start_anew(t->o.s->work, 0);
    origin_begin_push(&t->o);
}

static void free_told(Test *t, Told *told)
{
    for (unsigned i = 0; i < CHANNELS; i++) {
        close(told->fd[i]);
    }
    origin_stop(&t->o);
    wsm_points_clear(bs_of(t));
    close_image(t);
    g_free(t->session);
    for (unsigned i = 0; i < 4; i++) {
        g_free(told->got[i / 2][i % 2]);
    }
}

static void hear_sync(Told *told)
{
    WsmMsg msg = target_recv(told->fd[0], 0, NULL, 0);

    g_assert_cmpint(msg.type, ==, WSM_MSG_SYNC);
}

static void test_tell(void)
{
    Test t;
    Told told;

    make_told(&t, &told);
    hear_sync(&told);
    /* One block of the first: one message; of the rest, what it has */
    bdrv_set_dirty_bitmap(told.expected[0][0], 130 * 1024 * (int64_t)BLOCK, 1);
    origin_run(&t.o, say_points_bh, t.o.s);
    hear_points(&t, &told, 2);
    check_told(&told);
    g_assert_true(peer_hears_nothing(told.fd[0]));

    set_randomly(told.expected[0][0]);
    set_randomly(told.expected[1][0]);
    set_randomly(told.expected[1][1]);
    origin_run(&t.o, say_points_bh, t.o.s);
    hear_points(&t, &told, 9);
    check_told(&told);
    g_assert_true(peer_hears_nothing(told.fd[0]));
    free_told(&t, &told);
}

/*
 * The channel breaks while they are told: all are told again, and SYNC, which
 * says that the destination has them, comes after that.  @how: SHUT_RDWR, or
 * SHUT_RD: that is only found when something is sent.
 */
static void tell_again(int how)
{
    unsigned channel;
    Test t;
    Told told;
    int old;

    make_told(&t, &told);
    hear_sync(&told);
    /* More than a socket takes */
    for (int64_t b = 0; b < MANY; b += 2) {
        bdrv_set_dirty_bitmap(told.expected[0][0], b * BLOCK, 1);
        bdrv_set_dirty_bitmap(told.expected[1][1], b * BLOCK, 1);
    }
    origin_run(&t.o, say_points_bh, t.o.s);
    hear_points(&t, &told, 1);
    old = told.fd[0];
    g_assert_cmpint(shutdown(old, how), ==, 0);
    told.fd[0] = target_welcome(&channel);
    close(old);
    g_assert_cmpint(channel, ==, 0);
    for (unsigned i = 0; i < 4; i++) {
        memset(told.got[i / 2][i % 2], 0, MANY);
    }
    hear_points(&t, &told, 6);
    check_told(&told);
    hear_sync(&told);
    g_assert_true(peer_hears_nothing(told.fd[0]));
    free_told(&t, &told);
}

static void test_tell_again(void)
{
    tell_again(SHUT_RDWR);
    tell_again(SHUT_RD);
}

/*
 * In the end
 */

/* It ends before anything was sent: as if it had not been */
static void test_setup(void)
{
    Test t;

    begin(&t, "raw");
    add_point(bs_of(&t), 1, 0);
    start(&t);
    write_block(&t, 5);
    origin_stop(&t.o);
    check_points(&t, "1");
    g_assert_cmpint(changed(&t, point_id(1)), ==, BLOCK);
    check_record(&t, -1, 0);
    end(&t);
}

/* It broke off: what has not arrived is the rest of a new sync point */
static void test_broke(void)
{
    static const WsmPhase phase[] = {
        WSM_PHASE_DISK_PRECOPY, WSM_PHASE_RAM_PRECOPY, WSM_PHASE_FREEZE,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(phase); i++) {
        Test t;

        begin(&t, "raw");
        add_point(bs_of(&t), 1, 0);
        /* The one that broke off before is of no use any more */
        add_point(bs_of(&t), 2, 3);
        start(&t);
        wsm_work_start_anew(t.o.s->work, 0);
        write_block(&t, 7);
        write_block(&t, 8);
        g_assert_cmpint(wsm_source_mark_leaving(t.o.s), ==, 0);
        enter(&t, phase[i]);
        if (phase[i] == WSM_PHASE_FREEZE) {
            run_on(&t);
        }
        origin_stop(&t.o);
        check_points(&t, "1+");
        g_assert_cmpint(changed(&t, new_id(&t)), ==, 2 * BLOCK);
        write_block(&t, 20);
        g_assert_cmpint(changed(&t, new_id(&t)), ==, 3 * BLOCK);
        g_assert_cmpint(changed(&t, point_id(1)), ==, 3 * BLOCK);
        check_record(&t, -1, 0);
        end(&t);
    }
}

/* The oldest go; with 0 none is kept */
static void test_limit(void)
{
    static const char *const left[] = { "", "+", "2+", "12+" };

    for (unsigned i = 0; i < ARRAY_SIZE(left); i++) {
        Test t;

        begin(&t, "raw");
        add_point(bs_of(&t), 1, 0);
        add_point(bs_of(&t), 2, 0);
        origin_set(&t.o, sync_points, i);
        start(&t);
        enter(&t, WSM_PHASE_DISK_PRECOPY);
        origin_stop(&t.o);
        check_points(&t, left[i]);
        end(&t);
    }
}

/* Handed over: a stale copy, with a sync point that has nothing changed */
static void check_left(const char *driver, WsmPhase phase)
{
    Test t;

    begin(&t, driver);
    add_point(bs_of(&t), 1, 0);
    write_block(&t, 4);
    start(&t);
    g_assert_cmpint(wsm_source_mark_leaving(t.o.s), ==, 0);
    wsm_work_start_anew(t.o.s->work, 0);
    enter(&t, phase);
    origin_stop(&t.o);
    check_record(&t, WSM_IMAGE_STATE_HANDED_OVER,
                 !strcmp(driver, "raw") ? 2 : 0);
    if (!strcmp(driver, "raw")) {
        check_points(&t, "");
    }

    close_image(&t);
    open_image(&t);
    take(&t);
    check_points(&t, "1+");
    g_assert_cmpint(changed(&t, point_id(1)), ==, BLOCK);
    g_assert_cmpint(changed(&t, new_id(&t)), ==, 0);
    end(&t);
}

static void test_left(void)
{
    check_left("raw", WSM_PHASE_POSTCOPY);
    check_left("raw", WSM_PHASE_COMPLETED);
    check_left("qcow2", WSM_PHASE_COMPLETED);
}

/* QEMU ends before the destination has all: that is the point's rest */
static void test_left_early(void)
{
    Test t;

    begin(&t, "raw");
    start(&t);
    wsm_work_start_anew(t.o.s->work, 0);
    write_block(&t, 4);
    write_block(&t, 11);
    enter(&t, WSM_PHASE_POSTCOPY);
    origin_stop(&t.o);
    check_record(&t, WSM_IMAGE_STATE_HANDED_OVER, 1);
    close_image(&t);
    open_image(&t);
    take(&t);
    g_assert_cmpint(changed(&t, new_id(&t)), ==, 2 * BLOCK);
    end(&t);
}

/* Another node has the disk's place: nobody knows what was written since */
static void check_replaced(WsmPhase phase)
{
    g_autofree char *path = disks_create("other", "raw", NULL);
    BlockBackend *other;
    Test t;

    begin(&t, "raw");
    add_point(bs_of(&t), 1, 0);
    start(&t);
    g_assert_cmpint(wsm_source_mark_leaving(t.o.s), ==, 0);
    enter(&t, phase);
    other = disks_open(path, "raw", BDRV_O_RDWR);
    blk_remove_bs(t.o.s->disk[0].blk);
    g_assert_cmpint(blk_insert_bs(t.o.s->disk[0].blk, blk_bs(other),
                                  &error_abort), ==, 0);
    origin_stop(&t.o);
    blk_unref(other);
    check_points(&t, "");
    check_record(&t, phase > WSM_PHASE_FREEZE ? WSM_IMAGE_STATE_LEAVING : -1,
                 0);
    end(&t);
}

static void test_replaced(void)
{
    check_replaced(WSM_PHASE_DISK_PRECOPY);
    check_replaced(WSM_PHASE_POSTCOPY);
}

/*
 * The user's bitmaps have gone with the guest, if the capability says so: they
 * must not be in the way when it comes back.  Ours stay.
 */
static void check_moved(bool moved, WsmPhase phase, bool stays)
{
    BdrvDirtyBitmap *bitmap;
    Test t;

    begin(&t, "qcow2");
    for (unsigned i = 0; i < 2; i++) {
        bitmap = bdrv_create_dirty_bitmap(bs_of(&t), 64 * KiB,
                                          i ? "b1" : "b0", &error_abort);
        bdrv_dirty_bitmap_set_persistence(bitmap, true);
    }
    add_point(bs_of(&t), 1, 0);
    origin_dirty_bitmaps = moved;
    start(&t);
    enter(&t, phase);
    origin_stop(&t.o);
    close_image(&t);
    open_image(&t);
    g_assert_true(!!bdrv_find_dirty_bitmap(bs_of(&t), "b0") == stays);
    g_assert_true(!!bdrv_find_dirty_bitmap(bs_of(&t), "b1") == stays);
    take(&t);
    if (phase == WSM_PHASE_COMPLETED) {
        check_points(&t, "1+");
    }
    end(&t);
}

static void test_moved_bitmaps(void)
{
    check_moved(true, WSM_PHASE_COMPLETED, false);
    check_moved(false, WSM_PHASE_COMPLETED, true);
    check_moved(true, WSM_PHASE_RAM_PRECOPY, true);
}

int main(int argc, char **argv)
{
    int ret;

    origin_init_tests(&argc, &argv);
    g_test_add_func("/wsm/source-points/add", test_add);
    g_test_add_func("/wsm/source-points/many", test_many);
    g_test_add_func("/wsm/source-points/wish", test_wish);
    g_test_add_func("/wsm/source-points/not-active", test_not_active);
    g_test_add_func("/wsm/source-points/no-file", test_no_file);
    g_test_add_func("/wsm/source-points/leaving", test_leaving);
    g_test_add_data_func("/wsm/source-points/leaving-handover/raw", "raw",
                         test_leaving_handover);
    g_test_add_data_func("/wsm/source-points/leaving-handover/qcow2", "qcow2",
                         test_leaving_handover);
    g_test_add_func("/wsm/source-points/leaving-redirect",
                    test_leaving_redirect);
    g_test_add_func("/wsm/source-points/leaving-over", test_leaving_over);
    g_test_add_func("/wsm/source-points/leaving-fails", test_leaving_fails);
    g_test_add_func("/wsm/source-points/tell", test_tell);
    g_test_add_func("/wsm/source-points/tell-again", test_tell_again);
    g_test_add_func("/wsm/source-points/setup", test_setup);
    g_test_add_func("/wsm/source-points/broke", test_broke);
    g_test_add_func("/wsm/source-points/limit", test_limit);
    g_test_add_func("/wsm/source-points/left", test_left);
    g_test_add_func("/wsm/source-points/left-early", test_left_early);
    g_test_add_func("/wsm/source-points/replaced", test_replaced);
    g_test_add_func("/wsm/source-points/moved-bitmaps", test_moved_bitmaps);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
