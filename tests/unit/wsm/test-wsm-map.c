/*
 * Unit tests of migration/wsm/map and of migration/wsm/image/map-file.c
 *
 * Random histories run against a shadow, a byte for each block.  In the middle
 * of each write and flush the power is cut, more than once: what is loaded then
 * must be the state before or the one after.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qapi/error.h"
#include "block/block.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/map-file.h"
#include "migration/wsm/map/log.h"
#include "migration/wsm/wire/runs.h"
#include "wsm-cut.h"

#define GRANULARITY     4096
#define PAGE            WSM_MAP_PAGE
#define HISTORIES       400
#define TIMEOUT_US      (20 * G_USEC_PER_SEC)

static const QemuUUID session = { .data = "0123456789abcdef" };

static WsmMapHead head_of(int64_t size)
{
    WsmMapHead head = {
        .session = session, .disk = 1, .disks = 2, .channels = 3,
        .protocol = 4, .features = 0x102,
        .granularity = GRANULARITY, .size = size,
        .path = "/machine/peripheral/vd0", .name = "vd0",
    };

    return head;
}

static WsmMapWanted wanted_of(int64_t size)
{
    return (WsmMapWanted) { .session = session, .size = size, .disk = 1 };
}

/*
 * Coroutines
 */

typedef struct Call {
    WsmMapLog *log;
    int (*fn)(WsmMapLog *log);
    const WsmMapRange *range;
    unsigned nb;
    int ret;
    bool done;
} Call;

static void coroutine_fn call_entry(void *opaque)
{
    Call *call = opaque;

    call->ret = call->fn ? call->fn(call->log)
                       : wsm_map_log_mark(call->log, call->range, call->nb);
    call->done = true;
}

static void call_begin(Call *call)
{
    qemu_coroutine_enter(qemu_coroutine_create(call_entry, call));
}

static int call_end(Call *call)
{
    int64_t deadline = g_get_monotonic_time() + TIMEOUT_US;

    while (!call->done) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        if (!aio_poll(qemu_get_aio_context(), false)) {
            g_usleep(1000);
        }
    }
    return call->ret;
}

static int run(WsmMapLog *log, int (*fn)(WsmMapLog *log))
{
    Call call = { .log = log, .fn = fn };

    call_begin(&call);
    return call_end(&call);
}

static int mark(WsmMapLog *log, const WsmMapRange *range, unsigned nb)
{
    Call call = { .log = log, .range = range, .nb = nb };

    call_begin(&call);
    return call_end(&call);
}

static int mark_block(WsmMapLog *log, unsigned block)
{
    WsmMapRange range = { (int64_t)block * GRANULARITY, GRANULARITY };

    return mark(log, &range, 1);
}

/*
 * Load
 */

static int read_array(void *opaque, int64_t offset, int64_t bytes, void *buf)
{
    GByteArray *image = opaque;

    g_assert_cmpint(offset, >=, 0);
    g_assert_cmpint(offset + bytes, <=, image->len);
    if (bytes) {
        memcpy(buf, image->data + offset, bytes);
    }
    return 0;
}

static WsmMapState load(GByteArray *image, const WsmMapWanted *wanted,
                        WsmMapContents *out, Error **errp)
{
    WsmMapReader reader = { read_array, image, image->len };

    return wsm_map_load(&reader, wanted, out, errp);
}

/* @image is in state @want, and @text says why; free @image */
static void check_load(GByteArray *image, WsmMapState want, const char *text)
{
    WsmMapWanted wanted = wanted_of(10 * GRANULARITY);
    WsmMapContents out;
    Error *err = NULL;

    g_assert_cmpint(load(image, &wanted, &out, &err), ==, want);
    if (want == WSM_MAP_COMMITTED) {
        g_assert_null(err);
    } else {
        g_assert_null(out.missing);
        g_assert_nonnull(err);
        g_assert_cmpstr(error_get_pretty(err), ==, text);
        error_free(err);
    }
    wsm_map_contents_destroy(&out);
    g_byte_array_unref(image);
}

/*
 * Shadow
 */

typedef enum Kind {
    NOTHING,                    /* uncommitted */
    BLOCKS,
    INVALID,                    /* void */
} Kind;

typedef struct Shadow {
    Kind kind;
    unsigned blocks;
    uint8_t *missing;           /* a byte for each block */
} Shadow;

static Shadow shadow_copy(const Shadow *s)
{
    return (Shadow) { s->kind, s->blocks, g_memdup2(s->missing, s->blocks) };
}

static void shadow_take(Shadow *to, Shadow *from)
{
    g_free(to->missing);
    *to = *from;
    from->missing = NULL;
}

static int64_t shadow_bytes(const Shadow *s, int64_t size)
{
    int64_t bytes = 0;

    for (unsigned i = 0; i < s->blocks; i++) {
        if (s->missing[i]) {
            bytes += MIN(GRANULARITY, size - (int64_t)i * GRANULARITY);
        }
    }
    return bytes;
}

static bool shadow_is(const Shadow *s, WsmMapState state,
                      const WsmMissing *missing)
{
    int64_t at = 0, bytes;
    unsigned block = 0;

    if (s->kind != BLOCKS || state != WSM_MAP_COMMITTED) {
        return (s->kind == NOTHING && state == WSM_MAP_UNCOMMITTED) ||
               (s->kind == INVALID && state == WSM_MAP_VOID);
    }
    while (wsm_missing_next(missing, at, &at, &bytes)) {
        unsigned first = at / GRANULARITY;
        unsigned end = DIV_ROUND_UP(at + bytes, GRANULARITY);

        while (block < first) {
            if (s->missing[block++]) {
                return false;
            }
        }
        while (block < end) {
            if (!s->missing[block++]) {
                return false;
            }
        }
        at += bytes;
    }
    return block == s->blocks ||
           !memchr(s->missing + block, 1, s->blocks - block);
}

/*
 * Histories
 */

typedef struct History {
    unsigned seed;
    bool garbage;
    GRand *rand;
    CutDisk *disk;
    BlockBackend *blk;
    WsmMapLog *log;
    int64_t size;
    Shadow before, after;       /* what may be loaded */
    unsigned cuts, restarts;
    unsigned times;             /* that the power is cut, at each operation */
} History;

static void check_image(History *h, GByteArray *image)
{
    WsmMapWanted wanted = wanted_of(h->size);
    WsmMapContents out;
    Error *err = NULL;
    WsmMapState state = load(image, &wanted, &out, &err);

    h->cuts++;
    if (!shadow_is(&h->before, state, out.missing) &&
        !shadow_is(&h->after, state, out.missing)) {
        g_test_message("seed %u, garbage %d, operation %u: state %d, %s",
                       h->seed, h->garbage, h->disk->ops, state,
                       err ? error_get_pretty(err) : "other blocks");
        g_test_fail();
        g_assert_not_reached();
    }
    error_free(err);
    wsm_map_contents_destroy(&out);
    g_byte_array_unref(image);
}

static void cut_now(void *opaque)
{
    History *h = opaque;

    for (unsigned i = 0; i < h->times; i++) {
        check_image(h, cut_power(h->disk, h->rand, h->garbage));
    }
}

static void history_open(History *h)
{
    WsmMapHead head = head_of(h->size);

    h->blk = cut_open(h->disk);
    h->log = wsm_map_log_new(h->blk, &head);
}

static void history_close(History *h)
{
    wsm_map_log_free(h->log);
    blk_unref(h->blk);
}

static void history_begin(History *h, unsigned seed, bool garbage)
{
    unsigned blocks;

    *h = (History) { .seed = seed, .garbage = garbage, .times = 2 };
    h->rand = g_rand_new_with_seed(seed);
    blocks = g_rand_int_range(h->rand, 1, seed % 4 ? 300 : 3000);
    h->size = (int64_t)blocks * GRANULARITY -
              g_rand_int_range(h->rand, 0, 8) * 512;
    h->disk = cut_disk_new(g_rand_int_range(h->rand, 2, 40) * PAGE);
    h->disk->hook = cut_now;
    h->disk->opaque = h;
    h->before = (Shadow) { NOTHING, blocks, g_malloc0(blocks) };
    h->after = shadow_copy(&h->before);
    history_open(h);
}

static void history_end(History *h)
{
    history_close(h);
    cut_disk_free(h->disk);
    g_free(h->before.missing);
    g_free(h->after.missing);
    g_rand_free(h->rand);
}

/* Some runs are missing; sometimes in two lists, or all, or nothing */
static void history_missing(History *h)
{
    unsigned some = g_rand_int_range(h->rand, 0, 11);

    for (int n = 0; n < 2; n++) {
        g_autoptr(GByteArray) runs = g_byte_array_new();
        WsmRunsEncoder e;

        wsm_runs_encode_init(&e, runs);
        for (unsigned i = 0; i < h->after.blocks; i++) {
            if (g_rand_int_range(h->rand, 0, 10) < some) {
                wsm_runs_encode(&e, i, 1);
                h->after.missing[i] = 1;
            }
        }
        g_assert_true(wsm_map_log_set_missing(h->log, runs->data, runs->len,
                                              &error_abort));
    }
    h->after.kind = BLOCKS;
    g_assert_cmpint(wsm_map_log_missing(h->log), ==,
                    shadow_bytes(&h->after, h->size));
}

/* What was begun is durable */
static void history_step(History *h)
{
    Shadow copy = shadow_copy(&h->after);

    shadow_take(&h->before, &copy);
    cut_now(h);
}

static void history_commit(History *h)
{
    g_assert_cmpint(run(h->log, wsm_map_log_commit), ==, 0);
    history_step(h);
    g_assert_cmpint(wsm_map_log_missing(h->log), ==,
                    shadow_bytes(&h->after, h->size));
}

static unsigned history_ranges(History *h, WsmMapRange *range, unsigned max)
{
    unsigned nb = 0, at = 0;

    while (nb < max && at < h->after.blocks) {
        unsigned first = g_rand_int_range(h->rand, at, h->after.blocks);
        unsigned end = g_rand_int_range(h->rand, first + 1,
                                        MIN(first + 30, h->after.blocks) + 1);
        int64_t offset = (int64_t)first * GRANULARITY;
        int64_t to = MIN((int64_t)end * GRANULARITY, h->size);

        range[nb++] = (WsmMapRange) { offset, to - offset };
        memset(h->after.missing + first, 0, end - first);
        at = end;
    }
    return nb;
}

static void history_mark(History *h)
{
    WsmMapRange range[40];
    unsigned nb = history_ranges(h, range, g_rand_int_range(h->rand, 1, 40));

    g_assert_cmpint(mark(h->log, range, nb), ==, 0);
    history_step(h);
    g_assert_cmpint(wsm_map_log_missing(h->log), ==,
                    shadow_bytes(&h->after, h->size));
}

/* Another process goes on with what it finds */
static void history_reopen(History *h)
{
    WsmMapWanted wanted = wanted_of(h->size);
    WsmMapContents out;

    h->blk = cut_open(h->disk);
    g_assert_cmpint(wsm_map_log_load(h->blk, &wanted, &out, &error_abort), ==,
                    WSM_MAP_COMMITTED);
    /* Which of the two it is, is decided now, but for the next power cut */
    g_assert_true(shadow_is(&h->before, WSM_MAP_COMMITTED, out.missing) ||
                  shadow_is(&h->after, WSM_MAP_COMMITTED, out.missing));
    if (!shadow_is(&h->after, WSM_MAP_COMMITTED, out.missing)) {
        Shadow copy = shadow_copy(&h->before);

        shadow_take(&h->after, &copy);
    }
    h->log = wsm_map_log_reopen(h->blk, &out);
    h->restarts++;
    history_commit(h);
}

/* Closing it would flush it */
static void history_kill(History *h)
{
    h->disk->fail_from = 1;
    history_close(h);
    h->disk->fail_from = 0;
}

/* The process ends, maybe in the middle, maybe with the host */
static void history_restart(History *h)
{
    history_kill(h);
    if (g_rand_boolean(h->rand)) {
        cut_disk_set(h->disk, cut_power(h->disk, h->rand, h->garbage));
    }
    history_reopen(h);
}

/* The process dies in the middle of a mark, at operation @n of it */
static void history_mark_and_die(History *h)
{
    WsmMapRange range[40];
    unsigned nb = history_ranges(h, range, g_rand_int_range(h->rand, 1, 40));

    h->disk->fail_from = h->disk->ops + g_rand_int_range(h->rand, 1, 6);
    if (mark(h->log, range, nb) == 0) {
        history_step(h);
    }
    history_restart(h);
}

static void history_run(unsigned seed, bool garbage)
{
    History h;
    unsigned steps;

    history_begin(&h, seed, garbage);
    cut_now(&h);
    history_missing(&h);
    history_commit(&h);
    steps = g_rand_int_range(h.rand, 1, 30);
    for (unsigned i = 0; i < steps; i++) {
        switch (g_rand_int_range(h.rand, 0, 16)) {
        case 0:
            history_restart(&h);
            break;
        case 1 ... 3:
            history_mark_and_die(&h);
            break;
        default:
            history_mark(&h);
        }
    }
    if (seed % 8 == 0) {
        h.after.kind = INVALID;
        g_assert_cmpint(run(h.log, wsm_map_log_void), ==, 0);
        history_step(&h);
        g_assert_cmpint(mark_block(h.log, 0), ==, -ECANCELED);
    }
    g_assert_cmpint(h.cuts, >, 4);
    history_end(&h);
}

static void test_histories(const void *opaque)
{
    for (unsigned seed = 0; seed < HISTORIES; seed++) {
        history_run(seed, GPOINTER_TO_INT(opaque));
    }
}

/*
 * Errors
 */

static int scripted_step(WsmMapLog *log, unsigned i)
{
    return i ? mark_block(log, i) : run(log, wsm_map_log_commit);
}

static void all_missing(WsmMapLog *log, unsigned blocks)
{
    g_autoptr(GByteArray) runs = g_byte_array_new();
    WsmRunsEncoder e;

    wsm_runs_encode_init(&e, runs);
    wsm_runs_encode(&e, 0, blocks);
    g_assert_true(wsm_map_log_set_missing(log, runs->data, runs->len,
                                          &error_abort));
}

/* What is begun: the commit, or one block less */
static void scripted_shadow(History *h, unsigned i)
{
    if (i) {
        h->after.missing[i] = 0;
    } else {
        h->after.kind = BLOCKS;
        memset(h->after.missing, 1, h->after.blocks);
    }
}

static void error_history(History *h, int64_t blocks)
{
    *h = (History) {
        .size = blocks * GRANULARITY, .garbage = true, .times = 2,
    };
    h->rand = g_rand_new_with_seed(1);
    /* After 20 records or so the area is full */
    h->disk = cut_disk_new(4 * PAGE);
    h->disk->hook = cut_now;
    h->disk->opaque = h;
    h->before = (Shadow) { NOTHING, blocks, g_malloc0(blocks) };
    h->after = shadow_copy(&h->before);
    history_open(h);
    all_missing(h->log, blocks);
}

/* One step after the other, until one fails: returns that error */
static int scripted_run(History *h)
{
    int ret = 0;

    for (unsigned i = 0; i < 40 && ret == 0; i++) {
        scripted_shadow(h, i);
        ret = scripted_step(h->log, i);
        if (ret == 0) {
            history_step(h);
        }
    }
    return ret;
}

/* The operation number @n fails; returns false if there are not so many */
static bool fail_at(unsigned n, bool forgets)
{
    unsigned ops;
    History h;
    int ret;

    error_history(&h, 100);
    h.disk->fail_at = n;
    h.disk->forgets = forgets;
    ret = scripted_run(&h);
    if (ret) {
        g_assert_cmpint(ret, ==, -EIO);
        g_assert_cmpint(wsm_map_log_missing(h.log), ==,
                        h.before.kind == NOTHING ? h.size :
                        shadow_bytes(&h.before, h.size));
        /* Nothing goes on */
        ops = h.disk->ops;
        g_assert_cmpint(run(h.log, wsm_map_log_commit), ==, -EIO);
        g_assert_cmpint(mark_block(h.log, 50), ==, -EIO);
        g_assert_cmpint(h.disk->ops, ==, ops);
        cut_now(&h);
        /* Until it is void there may be what was, or what was tried */
        h.disk->hook = NULL;
        g_assert_cmpint(run(h.log, wsm_map_log_void), ==, 0);
        h.after.kind = INVALID;
        history_step(&h);
        g_assert_cmpint(mark_block(h.log, 50), ==, -EIO);
    }
    history_end(&h);
    return ret;
}

static void test_errors(const void *opaque)
{
    unsigned n = 1;

    while (fail_at(n, GPOINTER_TO_INT(opaque))) {
        n++;
    }
    /* 3 of the commit, 2 for each mark, and a new generation or more */
    g_assert_cmpint(n, >, 3 + 2 * 39 + 2);
}

/*
 * The process is killed at operation @n.  What it has written is there, but not
 * durable; and when the next one writes, the power is cut.
 */
static bool kill_at(unsigned n)
{
    History h;
    int ret;

    error_history(&h, 100);
    h.disk->fail_from = n;
    ret = scripted_run(&h);
    if (ret && h.before.kind == BLOCKS) {
        h.times = 20;
        history_kill(&h);
        history_reopen(&h);
        h.after.missing[90] = 0;
        g_assert_cmpint(mark_block(h.log, 90), ==, 0);
        history_step(&h);
    }
    history_end(&h);
    return ret;
}

static void test_killed(void)
{
    unsigned n = 1;

    while (kill_at(n)) {
        n++;
    }
    g_assert_cmpint(n, >, 3 + 2 * 39 + 2);
}

/* A list that has no room where the first one was */
static void test_list_grows(void)
{
    const unsigned blocks = 100000, marked = 40000;
    g_autofree WsmMapRange *range = g_new(WsmMapRange, marked);
    History h;

    error_history(&h, blocks);
    for (unsigned i = 0; i < 20; i++) {
        scripted_shadow(&h, i);
        g_assert_cmpint(scripted_step(h.log, i), ==, 0);
        history_step(&h);
    }
    for (unsigned i = 0; i < marked; i++) {
        range[i] = (WsmMapRange) { (int64_t)2 * i * GRANULARITY, GRANULARITY };
        h.after.missing[2 * i] = 0;
    }
    h.times = 20;
    g_assert_cmpint(mark(h.log, range, marked), ==, 0);
    history_step(&h);
    h.after.missing[blocks - 1] = 0;
    g_assert_cmpint(mark_block(h.log, blocks - 1), ==, 0);
    history_step(&h);
    history_end(&h);
}

/* All fails from operation @n on, to make it void, too */
static bool fail_from(unsigned n)
{
    History h;
    int ret;

    error_history(&h, 100);
    h.disk->fail_from = n;
    ret = scripted_run(&h);
    if (ret) {
        h.disk->hook = NULL;
        g_assert_cmpint(run(h.log, wsm_map_log_void), ==, -EIO);
    }
    for (int i = 0; ret && i < 20; i++) {
        g_autoptr(GByteArray) image = cut_power(h.disk, h.rand, true);
        WsmMapWanted wanted = wanted_of(h.size);
        WsmMapContents out;
        WsmMapState state = load(image, &wanted, &out, NULL);

        g_assert_true(state == WSM_MAP_VOID ||
                      shadow_is(&h.before, state, out.missing) ||
                      shadow_is(&h.after, state, out.missing));
        wsm_map_contents_destroy(&out);
    }
    history_end(&h);
    return ret;
}

static void test_void_fails(void)
{
    unsigned n = 1;

    while (fail_from(n)) {
        n++;
    }
    g_assert_cmpint(n, >, 3 + 2 * 39 + 2);
}

/* A power cut while it is erased: never a list that was true earlier */
static void erase_cut(void *opaque)
{
    History *h = opaque;

    for (int i = 0; i < 50; i++) {
        g_autoptr(GByteArray) image = cut_power(h->disk, h->rand, h->garbage);
        WsmMapWanted wanted = wanted_of(h->size);
        WsmMapContents out;
        WsmMapState state;

        /* Who looks sees that it was a map, or nothing but zeroes and heads */
        g_assert_true(wsm_map_head_begins(image->data) ||
                      wsm_map_head_begins(image->data + PAGE) ||
                      buffer_is_zero(image->data + 2 * PAGE,
                                     image->len - 2 * PAGE));
        /* There may be no record that tells of which migration it is */
        wanted.session = i % 2 ? session : (QemuUUID) {};
        state = load(image, &wanted, &out, NULL);
        g_assert_true(state != WSM_MAP_COMMITTED ||
                      shadow_is(&h->after, state, out.missing));
        wsm_map_contents_destroy(&out);
    }
}

static void check_erase(unsigned blocks, bool garbage)
{
    History h;

    error_history(&h, blocks);
    h.garbage = garbage;
    g_assert_cmpint(scripted_run(&h), ==, 0);
    h.disk->hook = erase_cut;
    if (blocks % 2) {
        g_assert_cmpint(run(h.log, wsm_map_log_erase), ==, 0);
        g_assert_cmpint(mark_block(h.log, 3), ==, -ECANCELED);
    } else {
        g_assert_cmpint(wsm_map_erase(h.blk), ==, 0);
    }
    g_assert_true(buffer_is_zero(h.disk->durable->data,
                                 h.disk->durable->len));
    h.disk->hook = NULL;
    history_end(&h);
}

static void test_erase(void)
{
    for (int i = 0; i < 8; i++) {
        check_erase(100 + i, i & 2);
    }
}

static void test_erase_fails(void)
{
    for (unsigned n = 1; n < 6; n++) {
        History h;

        error_history(&h, 100);
        g_assert_cmpint(scripted_run(&h), ==, 0);
        h.disk->fail_at = h.disk->ops + n;
        h.disk->hook = erase_cut;
        g_assert_cmpint(wsm_map_erase(h.blk), ==, -EIO);
        h.disk->hook = NULL;
        history_end(&h);
    }
}

/* It has room for one generation only */
static void test_cannot_grow(void)
{
    WsmMapHead head = head_of(20 * GRANULARITY);
    CutDisk *disk = cut_disk_new((2 + 18) * PAGE);
    BlockBackend *blk = cut_open(disk);
    WsmMapLog *log = wsm_map_log_new(blk, &head);
    unsigned marks = 0;
    int ret;

    disk->fixed = true;
    all_missing(log, 20);
    g_assert_cmpint(run(log, wsm_map_log_commit), ==, 0);
    do {
        ret = mark_block(log, marks);
        marks += !ret;
    } while (!ret);
    g_assert_cmpint(ret, ==, -ENOTSUP);
    g_assert_cmpint(marks, ==, 17);
    g_assert_cmpint(run(log, wsm_map_log_void), ==, 0);
    wsm_map_log_free(log);
    blk_unref(blk);
    cut_disk_free(disk);
}

/*
 * Requests at the same time
 */

/* The second one is not written before the first one is durable */
static void test_one_at_a_time(void)
{
    WsmMapHead head = head_of(20 * GRANULARITY);
    CutDisk *disk = cut_disk_new(100 * PAGE);
    BlockBackend *blk = cut_open(disk);
    WsmMapLog *log = wsm_map_log_new(blk, &head);
    WsmMapRange range[] = { { 0, PAGE }, { 2 * PAGE, PAGE } };
    Call first = { .log = log, .range = &range[0], .nb = 1 };
    Call second = { .log = log, .range = &range[1], .nb = 1 };

    all_missing(log, 20);
    g_assert_cmpint(run(log, wsm_map_log_commit), ==, 0);
    disk->ops = 0;
    disk->hold = true;
    call_begin(&first);
    call_begin(&second);
    g_assert_cmpuint(disk->waiting, ==, 1);
    g_assert_cmpuint(disk->ops, ==, 2);
    g_assert_cmpuint(disk->writes->len, ==, 1);
    disk->hold = false;
    g_assert_cmpint(call_end(&first), ==, 0);
    g_assert_cmpint(call_end(&second), ==, 0);
    g_assert_cmpuint(disk->ops, ==, 4);
    g_assert_cmpint(wsm_map_log_missing(log), ==, 18 * PAGE);
    /* What is there already takes no write */
    g_assert_cmpint(mark(log, range, 2), ==, 0);
    g_assert_cmpint(mark(log, range, 0), ==, 0);
    g_assert_cmpint(run(log, wsm_map_log_commit), ==, 0);
    g_assert_cmpuint(disk->ops, ==, 4);
    wsm_map_log_free(log);
    blk_unref(blk);
    cut_disk_free(disk);
}

/* A drained section waits for the guest's flush, and that for this */
static void test_drained(void)
{
    WsmMapHead head = head_of(20 * GRANULARITY);
    CutDisk *disk = cut_disk_new(100 * PAGE);
    BlockBackend *blk = cut_open(disk);
    WsmMapLog *log = wsm_map_log_new(blk, &head);

    all_missing(log, 20);
    bdrv_drain_all_begin();
    g_assert_cmpint(run(log, wsm_map_log_commit), ==, 0);
    g_assert_cmpint(mark_block(log, 3), ==, 0);
    bdrv_drain_all_end();
    g_assert_cmpint(wsm_map_log_missing(log), ==, 19 * PAGE);
    wsm_map_log_free(log);
    blk_unref(blk);
    cut_disk_free(disk);
}

/*
 * Bytes
 */

/* Blocks 2 to 4 and 9 of 10 are missing, then 3 is not: docs/records.md */
static GByteArray *sample(void)
{
    static const uint8_t runs[] = { 2, 3, 4, 1 };
    WsmMapHead head = head_of(10 * GRANULARITY);
    CutDisk *disk = cut_disk_new(42 * PAGE);
    BlockBackend *blk = cut_open(disk);
    WsmMapLog *log = wsm_map_log_new(blk, &head);
    GByteArray *image;

    g_assert_true(wsm_map_log_set_missing(log, runs, sizeof(runs),
                                          &error_abort));
    g_assert_cmpint(run(log, wsm_map_log_commit), ==, 0);
    g_assert_cmpint(mark_block(log, 3), ==, 0);
    wsm_map_log_free(log);
    blk_unref(blk);
    g_assert_cmpuint(disk->writes->len, ==, 0);
    image = g_byte_array_ref(disk->durable);
    cut_disk_free(disk);
    return image;
}

static const uint8_t sample_head[] = {
    'W', 'S', 'M', 'M', 'A', 'P', '\n', 0x1a, 0, 0, 0, 1,
    0x45, 0x29, 0xe9, 0x5f,                             /* sum */
    0, 0, 0, 0, 0, 0, 0, 1,
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e',
    'f', 0, 1, 0, 2, 0, 3, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 4,
    0, 0, 0, 0, 0, 0, 0xa0, 0,                          /* size */
    0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 1, 0x40, 0,   /* area */
    0xa1, 0xcf, 0x4a, 0xea, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0x40, 0,                          /* missing */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,     /* boot */
    0, 4, 0, 0, 0, 0, 1, 2,                             /* protocol */
};

static const uint8_t sample_record[] = {
    'W', 'S', 'M', 'R', 0xd0, 0x74, 0x9b, 0xb7, 0, 0, 0, 0, 0, 0, 0, 1,
    0, 0, 0, 0, 0, 0, 0, 1,
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e',
    'f', 0, 0, 0, 2, 0, 0, 0, 0, 3, 1, 0,
};

static void test_bytes(void)
{
    g_autoptr(GByteArray) image = sample();
    const uint8_t *head = image->data + PAGE, *area = image->data + 2 * PAGE;

    /* The check value of CRC-32C */
    g_assert_cmphex(wsm_map_crc("123456789", 9), ==, 0xe3069283);
    g_assert_true(buffer_is_zero(image->data, PAGE));
    g_assert_cmpmem(head, sizeof(sample_head), sample_head,
                    sizeof(sample_head));
    g_assert_true(buffer_is_zero(head + 120, 160 - 120));
    g_assert_cmpmem(head + 160, 26, "\0\x17/machine/peripheral/vd0", 26);
    g_assert_cmpmem(head + 674, 6, "\0\3vd0", 6);
    g_assert_true(buffer_is_zero(head + 680, PAGE - 680));
    g_assert_cmpmem(area, 5, "\2\3\4\1", 5);
    g_assert_cmpmem(area + PAGE, sizeof(sample_record), sample_record,
                    sizeof(sample_record));
    g_assert_true(buffer_is_zero(area + 2 * PAGE, image->len - 4 * PAGE));
}

/* Set what is at @at, and put the sum right */
static void forge(GByteArray *image, unsigned page, unsigned at, uint8_t byte)
{
    uint8_t *buf = image->data + page * PAGE;
    static const uint8_t zero[4];

    buf[at] = byte;
    memcpy(buf + 12, zero, 4);
    stl_be_p(buf + 12, wsm_map_crc(buf, PAGE));
}

#define OF_SESSION " 30313233-3435-3637-3839-616263646566"

static void test_forged_heads(void)
{
    static const struct {
        unsigned at;
        uint8_t byte;
        WsmMapState state;
        const char *text;
    } bad[] = {
        { 11, 2, WSM_MAP_DAMAGED, "version 2 is not 1" },
        { 23, 2, WSM_MAP_DAMAGED, "generation 2 is in page 1" },
        { 23, 3, WSM_MAP_DAMAGED,
          "it has generation 3, but not the one before" },
        { 24, '1', WSM_MAP_OTHER,
          "it is of migration 31313233-3435-3637-3839-616263646566, and the "
          "image of" OF_SESSION },
        { 41, 0, WSM_MAP_DAMAGED, "it is of disk 0, and the image of disk 1" },
        { 43, 1, WSM_MAP_DAMAGED,
          "disk 1 of 1 with 3 channels is not allowed" },
        { 42, 2, WSM_MAP_DAMAGED,
          "disk 1 of 514 with 3 channels is not allowed" },
        { 45, 18, WSM_MAP_DAMAGED,
          "disk 1 of 2 with 18 channels is not allowed" },
        { 47, 2, WSM_MAP_DAMAGED, "its head has what is not known" },
        { 47, 1, WSM_MAP_DAMAGED,
          "an area of 81920 bytes at 8192 is not allowed" },
        { 51, 1, WSM_MAP_DAMAGED, "a block of 4097 bytes is not allowed" },
        { 50, 8, WSM_MAP_DAMAGED, "a block of 2048 bytes is not allowed" },
        { 49, 32, WSM_MAP_DAMAGED, "a block of 2101248 bytes is not allowed" },
        { 53, 1, WSM_MAP_DAMAGED, "a list of 65540 bytes with 16384 bytes of a "
          "disk of 40960 is not allowed" },
        { 55, 5, WSM_MAP_DAMAGED, "record 1 of generation 1 is there, but not "
          "all before it" },
        { 56, 128, WSM_MAP_DAMAGED, "a disk of -9223372036854734848 bytes is "
          "not allowed" },
        { 63, 1, WSM_MAP_DAMAGED, "it is of a disk of 40961 bytes, and the "
          "image has 40960" },
        { 70, 16, WSM_MAP_DAMAGED, "an area of 81920 bytes at 4096 is not "
          "allowed" },
        { 70, 33, WSM_MAP_DAMAGED, "an area of 81920 bytes at 8448 is not "
          "allowed" },
        { 64, 128, WSM_MAP_DAMAGED, "an area of 81920 bytes at "
          "-9223372036854767616 is not allowed" },
        { 79, 1, WSM_MAP_DAMAGED, "an area of 81921 bytes at 8192 is not "
          "allowed" },
        { 77, 3, WSM_MAP_DAMAGED, "record 1 of generation 1 is there, but not "
          "all before it" },
        { 87, 1, WSM_MAP_DAMAGED, "its head has what is not known" },
        { 94, 0x30, WSM_MAP_DAMAGED, "its list has 16384 bytes missing, and "
          "its head says 12288" },
        { 88, 128, WSM_MAP_DAMAGED, NULL },
        { 96, 1, WSM_MAP_DAMAGED, "the image was not flushed to its disk "
          "(cache mode 'unsafe'), and the host was started again since" },
        { 45, 1, WSM_MAP_DAMAGED,
          "disk 1 of 2 with 1 channels is not allowed" },
        { 115, 1, WSM_MAP_DAMAGED, "its head has what is not known" },
        { 120, 1, WSM_MAP_DAMAGED, "its head has what is not known" },
        { 161, 22, WSM_MAP_DAMAGED, "its head has what is not known" },
        { 160, 3, WSM_MAP_DAMAGED, "its head has what is not known" },
        { 170, 0, WSM_MAP_DAMAGED, "its head has what is not known" },
        { 1188, 1, WSM_MAP_DAMAGED, "its head has what is not known" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        GByteArray *image = sample();
        WsmMapWanted wanted = wanted_of(10 * GRANULARITY);
        WsmMapContents out;
        Error *err = NULL;

        forge(image, 1, bad[i].at, bad[i].byte);
        g_assert_cmpint(load(image, &wanted, &out, &err), ==, bad[i].state);
        if (bad[i].text) {
            g_assert_cmpstr(error_get_pretty(err), ==, bad[i].text);
        }
        error_free(err);
        g_assert_null(out.missing);
        g_byte_array_unref(image);
    }
}

static GByteArray *changed(GByteArray *image, unsigned at, uint8_t byte)
{
    image->data[at] ^= byte;
    return image;
}

static GByteArray *shorter(GByteArray *image, unsigned bytes)
{
    g_byte_array_set_size(image, bytes);
    return image;
}

/* A map of another state, after the sample one has got a generation 2 */
static GByteArray *second(void)
{
    static const uint8_t runs[] = { 2, 3, 4, 1 };
    WsmMapHead head = head_of(10 * GRANULARITY);
    CutDisk *disk = cut_disk_new(42 * PAGE);
    BlockBackend *blk = cut_open(disk);
    WsmMapLog *log = wsm_map_log_new(blk, &head);
    WsmMapWanted wanted = wanted_of(10 * GRANULARITY);
    WsmMapContents out;
    GByteArray *image;

    g_assert_true(wsm_map_log_set_missing(log, runs, sizeof(runs),
                                          &error_abort));
    g_assert_cmpint(run(log, wsm_map_log_commit), ==, 0);
    g_assert_cmpint(mark_block(log, 3), ==, 0);
    wsm_map_log_free(log);
    g_assert_cmpint(wsm_map_log_load(blk, &wanted, &out, &error_abort), ==,
                    WSM_MAP_COMMITTED);
    g_assert_cmpuint(out.records, ==, 1);
    log = wsm_map_log_reopen(blk, &out);
    g_assert_cmpint(run(log, wsm_map_log_commit), ==, 0);
    g_assert_cmpint(mark_block(log, 2), ==, 0);
    g_assert_cmpint(mark_block(log, 9), ==, 0);
    wsm_map_log_free(log);
    blk_unref(blk);
    image = g_byte_array_ref(disk->durable);
    cut_disk_free(disk);
    return image;
}

#define RECORD(n, generation) \
    "record " #n " of generation " #generation " is there, but not all " \
    "before it"
#define UNCOMMITTED \
    "the guest has not run here: its list of missing blocks was not yet written"

/* Pages of second(): heads, area of 1, area of 2 with 2 records */
static void test_damage(void)
{
    const unsigned area2 = (2 + 20) * PAGE;
    GByteArray *image;

    check_load(sample(), WSM_MAP_COMMITTED, NULL);
    check_load(second(), WSM_MAP_COMMITTED, NULL);
    /* Never "nothing is missing" */
    check_load(shorter(sample(), 0), WSM_MAP_DAMAGED,
               "it has 0 bytes, and the heads alone 8192");
    check_load(shorter(sample(), 8191), WSM_MAP_DAMAGED,
               "it has 8191 bytes, and the heads alone 8192");
    check_load(shorter(second(), area2 - 1), WSM_MAP_DAMAGED,
               "it has 90111 bytes, and should have 172032");
    check_load(changed(sample(), PAGE + 20, 1), WSM_MAP_DAMAGED, RECORD(1, 1));
    check_load(changed(sample(), 2 * PAGE, 1), WSM_MAP_DAMAGED, RECORD(1, 1));
    check_load(changed(second(), 0, 1), WSM_MAP_DAMAGED, RECORD(1, 2));
    check_load(changed(second(), area2, 1), WSM_MAP_DAMAGED,
               "the list of missing blocks of generation 2 is not whole");
    check_load(changed(second(), area2 + PAGE + 9, 1), WSM_MAP_DAMAGED,
               RECORD(2, 2));
    check_load(changed(changed(second(), 0, 1), PAGE, 1), WSM_MAP_DAMAGED,
               "its heads are damaged");
    /* The last record may be torn, what does not count any more whatever */
    check_load(changed(second(), area2 + 2 * PAGE + 9, 1), WSM_MAP_COMMITTED,
               NULL);
    check_load(changed(second(), PAGE + 9, 1), WSM_MAP_COMMITTED, NULL);
    check_load(changed(second(), 3 * PAGE + 9, 1), WSM_MAP_COMMITTED, NULL);
    /* Nothing was written behind it */
    check_load(changed(changed(sample(), PAGE + 20, 1), 3 * PAGE, 1),
               WSM_MAP_UNCOMMITTED, UNCOMMITTED);
    check_load(changed(changed(sample(), 2 * PAGE, 1), 3 * PAGE, 1),
               WSM_MAP_UNCOMMITTED, UNCOMMITTED);
    check_load(shorter(sample(), 3 * PAGE), WSM_MAP_UNCOMMITTED, UNCOMMITTED);
    /* Sizes that are too large */
    image = sample();
    forge(image, 1, 64, 127);
    forge(image, 1, 72, 127);
    check_load(image, WSM_MAP_DAMAGED, "an area of 9151314442816929792 bytes "
               "at 9151314442816856064 is not allowed");
    image = sample();
    forge(image, 1, 49, 32);
    forge(image, 1, 50, 0);
    check_load(image, WSM_MAP_DAMAGED,
               "a block of 2097152 bytes is not allowed");
    /* Two heads that do not fit together */
    image = second();
    forge(image, 1, 23, 5);
    check_load(image, WSM_MAP_DAMAGED,
               "generation 5 cannot follow the 2 that is there");
    image = second();
    forge(image, 1, 24, 1);
    check_load(image, WSM_MAP_DAMAGED,
               "generation 2 cannot follow the 1 that is there");
}

/* What may be where the next record would be */
static void test_next_record(void)
{
    static const uint8_t runs[] = { 2, 1 };
    static const struct {
        uint64_t generation, serial;
        uint8_t session;
        WsmMapState state;
        unsigned missing;       /* blocks */
    } next[] = {
        { 1, 2, '0', WSM_MAP_COMMITTED, 2 },
        /* Of an earlier generation, of another migration: there before */
        { 0, 2, '0', WSM_MAP_COMMITTED, 3 },
        { 1, 1, '0', WSM_MAP_COMMITTED, 3 },
        { 1, 2, '1', WSM_MAP_COMMITTED, 3 },
        /* Later ones */
        { 1, 3, '0', WSM_MAP_DAMAGED, 0 },
        { 2, 2, '0', WSM_MAP_DAMAGED, 0 },
    };

    for (int i = 0; i < ARRAY_SIZE(next); i++) {
        g_autoptr(GByteArray) image = sample();
        WsmMapWanted wanted = wanted_of(10 * GRANULARITY);
        WsmMapRecord record = {
            next[i].generation, next[i].serial, sizeof(runs),
        };
        QemuUUID id = session;
        WsmMapContents out;

        id.data[0] = next[i].session;
        memcpy(image->data + 4 * PAGE + WSM_MAP_RECORD_SIZE, runs,
               sizeof(runs));
        wsm_map_record_encode(&record, &id, image->data + 4 * PAGE);
        g_assert_cmpint(load(image, &wanted, &out, NULL), ==, next[i].state);
        if (out.missing) {
            g_assert_cmpint(out.missing->bytes, ==, next[i].missing * PAGE);
        }
        wsm_map_contents_destroy(&out);
    }
}

/* Any byte of what counts, of the last record as well */
static void test_each_byte(void)
{
    g_autoptr(GByteArray) image = second();
    WsmMapWanted wanted = wanted_of(10 * GRANULARITY);
    unsigned counts[] = {
        0, PAGE, 22 * PAGE, 2, 23 * PAGE, 50, 24 * PAGE, 50,
    };

    for (int n = 0; n < ARRAY_SIZE(counts); n += 2) {
        for (unsigned i = 0; i < counts[n + 1]; i++) {
            uint8_t *byte = &image->data[counts[n] + i], before = *byte;
            WsmMapContents out;
            WsmMapState state;

            *byte ^= 0x55;
            state = load(image, &wanted, &out, NULL);
            if (n < 6) {
                g_assert_cmpint(state, ==, WSM_MAP_DAMAGED);
            } else {
                g_assert_cmpint(state, ==, WSM_MAP_COMMITTED);
                g_assert_cmpint(out.missing->bytes, ==, 2 * PAGE);
            }
            wsm_map_contents_destroy(&out);
            *byte = before;
        }
    }
}

/* What it cannot be read of */
static int read_fails(void *opaque, int64_t offset, int64_t bytes, void *buf)
{
    unsigned *left = opaque;

    if (!(*left)--) {
        return -EIO;
    }
    return read_array(*(GByteArray **)(left + 2), offset, bytes, buf);
}

static void test_read_error(void)
{
    g_autoptr(GByteArray) image = second();
    WsmMapWanted wanted = wanted_of(10 * GRANULARITY);
    struct {
        unsigned left, pad;
        GByteArray *image;
    } source = { .image = image };
    WsmMapReader reader = { read_fails, &source, image->len };
    WsmMapState state;
    unsigned n = 0;

    do {
        WsmMapContents out;
        Error *err = NULL;

        source.left = n++;
        state = wsm_map_load(&reader, &wanted, &out, &err);
        if (state != WSM_MAP_COMMITTED) {
            g_assert_cmpint(state, ==, WSM_MAP_DAMAGED);
            g_assert_true(g_str_has_prefix(error_get_pretty(err),
                                           "cannot read "));
            error_free(err);
        }
        wsm_map_contents_destroy(&out);
    } while (state != WSM_MAP_COMMITTED);
    g_assert_cmpuint(n, >, 8);
}

/* Without a record it is known by the device's path alone */
static void test_any(void)
{
    g_autoptr(GByteArray) image = second();
    WsmMapWanted wanted = { .disk = -1, .path = "/machine/peripheral/vd0" };
    WsmMapContents out;
    Error *err = NULL;

    g_assert_cmpint(load(image, &wanted, &out, &error_abort), ==,
                    WSM_MAP_COMMITTED);
    g_assert_true(qemu_uuid_is_equal(&out.head.session, &session));
    wsm_map_contents_destroy(&out);
    wanted.path = "/machine/peripheral/vd1";
    g_assert_cmpint(load(image, &wanted, &out, &err), ==, WSM_MAP_OTHER);
    g_assert_cmpstr(error_get_pretty(err), ==, "it is of disk "
                    "'/machine/peripheral/vd0', and not of "
                    "'/machine/peripheral/vd1'");
    error_free(err);
    /* Its head is gone, and not what followed on it */
    memset(image->data, 0, 2 * PAGE);
    g_assert_cmpint(load(image, &wanted, &out, NULL), ==, WSM_MAP_DAMAGED);
}

/*
 * The file
 */

static char *folder;

static char *in_folder(const char *name)
{
    return g_build_filename(folder, name, NULL);
}

static void check_error(Error *err, const char *text)
{
    g_assert_nonnull(err);
    g_assert_nonnull(strstr(error_get_pretty(err), text));
    error_free(err);
}

static void test_file(void)
{
    static const int cuts[] = {
        WSM_MAP_FILE_BYTES - 1, 3 * PAGE, 2 * PAGE, 2 * PAGE - 1, 0,
    };
    g_autofree char *image = in_folder("disk.raw");
    g_autofree char *path = wsm_map_path(image);
    WsmMapWanted wanted = wanted_of(10 * GRANULARITY);
    WsmMapHead head = head_of(10 * GRANULARITY);
    WsmMapContents out;
    BlockBackend *blk;
    Error *err = NULL;
    struct stat st;
    WsmMapLog *log;

    g_assert_true(g_str_has_suffix(path, "/disk.raw.wsm.map"));
    g_assert_true(g_file_set_contents(image, "", 0, NULL));
    g_assert_cmpint(chmod(image, 0640), ==, 0);
    g_assert_cmpint(wsm_map_file_load(image, &wanted, &out, &error_abort), ==,
                    WSM_MAP_NONE);
    g_assert_true(wsm_map_file_remove(image, &error_abort));
    g_assert_null(wsm_map_file_open(image, &err));
    check_error(g_steal_pointer(&err), "No such file");

    g_assert_true(g_file_set_contents(path, "old", 3, NULL));
    g_assert_cmpint(wsm_map_file_load(image, &wanted, &out, &err), ==,
                    WSM_MAP_DAMAGED);
    check_error(g_steal_pointer(&err), "it has 3 bytes");
    g_assert_true(wsm_map_file_create(image, &error_abort));
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 0777, ==, 0640);
    g_assert_cmpint(st.st_size, ==, WSM_MAP_FILE_BYTES);
    /* Not a hole */
    g_assert_cmpint(st.st_blocks * 512, >=, WSM_MAP_FILE_BYTES);
    g_assert_cmpint(wsm_map_file_load(image, &wanted, &out, &err), ==,
                    WSM_MAP_UNCOMMITTED);
    check_error(g_steal_pointer(&err), UNCOMMITTED);

    blk = wsm_map_file_open(image, &error_abort);
    g_assert_null(wsm_map_file_open(image, &err));
    check_error(g_steal_pointer(&err), "lock");
    log = wsm_map_log_new(blk, &head);
    all_missing(log, 10);
    g_assert_cmpint(run(log, wsm_map_log_commit), ==, 0);
    g_assert_cmpint(mark_block(log, 9), ==, 0);
    /* Also while it is being written */
    g_assert_cmpint(wsm_map_file_load(image, &wanted, &out, &error_abort), ==,
                    WSM_MAP_COMMITTED);
    g_assert_cmpint(out.missing->bytes, ==, 9 * PAGE);
    g_assert_cmpuint(out.head.channels, ==, 3);
    g_assert_cmpstr(out.head.name, ==, "vd0");
    wsm_map_contents_destroy(&out);
    wsm_map_log_free(log);
    blk_unref(blk);

    /* Not "the guest has not run here", although nothing else is left of it */
    for (int i = 0; i < ARRAY_SIZE(cuts); i++) {
        g_assert_cmpint(truncate(path, cuts[i]), ==, 0);
        g_assert_cmpint(wsm_map_file_load(image, &wanted, &out, &err), ==,
                        WSM_MAP_DAMAGED);
        check_error(g_steal_pointer(&err), "it was cut off");
    }
    g_assert_true(wsm_map_file_create(image, &error_abort));
    g_assert_true(wsm_map_file_remove(image, &error_abort));
    g_assert_cmpint(stat(path, &st), ==, -1);
    g_assert_true(wsm_map_file_remove(image, &error_abort));
    g_unlink(image);
}

/* 700 marks: over the half of the file, and back, and back again */
static void test_file_is_full(void)
{
    g_autofree char *image = in_folder("disk.raw");
    g_autofree char *path = wsm_map_path(image);
    WsmMapHead head = head_of(2000 * (int64_t)GRANULARITY);
    WsmMapWanted wanted = wanted_of(head.size);
    uint8_t runs[] = { 0, 0xd0, 0x0f };
    WsmMapContents out;
    BlockBackend *blk;
    struct stat st;
    WsmMapLog *log;

    g_assert_true(g_file_set_contents(image, "", 0, NULL));
    g_assert_true(wsm_map_file_create(image, &error_abort));
    blk = wsm_map_file_open(image, &error_abort);
    log = wsm_map_log_new(blk, &head);
    g_assert_true(wsm_map_log_set_missing(log, runs, sizeof(runs),
                                          &error_abort));
    g_assert_cmpint(run(log, wsm_map_log_commit), ==, 0);
    for (int i = 0; i < 1200; i++) {
        g_assert_cmpint(mark_block(log, i), ==, 0);
    }
    wsm_map_log_free(log);
    blk_unref(blk);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, WSM_MAP_FILE_BYTES);
    g_assert_cmpint(wsm_map_file_load(image, &wanted, &out, &error_abort), ==,
                    WSM_MAP_COMMITTED);
    g_assert_cmpint(out.missing->bytes, ==, 800 * PAGE);
    g_assert_cmpuint(out.head.generation, ==, 3);
    wsm_map_contents_destroy(&out);
    g_assert_true(wsm_map_file_remove(image, &error_abort));
    g_unlink(image);
}

static void test_file_errors(void)
{
    g_autofree char *image = in_folder("none/disk.raw");
    g_autofree char *path = wsm_map_path(folder);
    WsmMapWanted wanted = wanted_of(10 * GRANULARITY);
    WsmMapContents out;
    Error *err = NULL;

    g_assert_false(wsm_map_file_create(image, &err));
    check_error(g_steal_pointer(&err), "cannot look at");
    g_assert_cmpint(wsm_map_file_load(image, &wanted, &out, &error_abort), ==,
                    WSM_MAP_NONE);
    g_assert_false(wsm_map_file_create(folder, &err));
    check_error(g_steal_pointer(&err), "is no regular file, so it has no map");
    g_assert_cmpint(g_mkdir(path, 0700), ==, 0);
    g_assert_cmpint(wsm_map_file_load(folder, &wanted, &out, &err), ==,
                    WSM_MAP_DAMAGED);
    check_error(g_steal_pointer(&err), "is no regular file");
    g_assert_false(wsm_map_file_remove(folder, &err));
    check_error(g_steal_pointer(&err), "cannot remove");
    g_rmdir(path);
}

int main(int argc, char **argv)
{
    int ret;

    qemu_init_main_loop(&error_abort);
    bdrv_init();
    cut_register();
    g_test_init(&argc, &argv, NULL);
    folder = g_dir_make_tmp("wsm-map-XXXXXX", NULL);

    g_test_add_func("/wsm/map/bytes", test_bytes);
    g_test_add_func("/wsm/map/forged-heads", test_forged_heads);
    g_test_add_func("/wsm/map/damage", test_damage);
    g_test_add_func("/wsm/map/next-record", test_next_record);
    g_test_add_func("/wsm/map/each-byte", test_each_byte);
    g_test_add_func("/wsm/map/read-error", test_read_error);
    g_test_add_func("/wsm/map/one-at-a-time", test_one_at_a_time);
    g_test_add_func("/wsm/map/drained", test_drained);
    g_test_add_func("/wsm/map/cannot-grow", test_cannot_grow);
    g_test_add_data_func("/wsm/map/errors", GINT_TO_POINTER(false),
                         test_errors);
    g_test_add_data_func("/wsm/map/errors-forgotten", GINT_TO_POINTER(true),
                         test_errors);
    g_test_add_func("/wsm/map/killed", test_killed);
    g_test_add_func("/wsm/map/list-grows", test_list_grows);
    g_test_add_func("/wsm/map/void-fails", test_void_fails);
    g_test_add_func("/wsm/map/erase", test_erase);
    g_test_add_func("/wsm/map/erase-fails", test_erase_fails);
    g_test_add_func("/wsm/map/any", test_any);
    g_test_add_data_func("/wsm/map/histories", GINT_TO_POINTER(false),
                         test_histories);
    g_test_add_data_func("/wsm/map/histories-garbage", GINT_TO_POINTER(true),
                         test_histories);
    g_test_add_func("/wsm/map/file", test_file);
    g_test_add_func("/wsm/map/file-is-full", test_file_is_full);
    g_test_add_func("/wsm/map/file-errors", test_file_errors);
    ret = g_test_run();
    g_rmdir(folder);
    g_free(folder);
    return ret;
}
