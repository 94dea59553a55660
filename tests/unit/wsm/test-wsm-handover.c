/*
 * Unit tests of migration/wsm/dest/handover.c
 *
 * Random events, in any order that a broken link or a lying source could make
 * of them.  A model that keeps what has happened, not what follows from it,
 * says what the answers are, and after each event the laws of the handover are
 * looked at.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/dest/handover.h"

#define WALKS                   20000
#define STEPS                   40

/* What has happened so far */
typedef struct Model {
    WsmHandover h;
    WsmPhase phase;
    bool sealed, dropped, durable, ram;

    bool ready;                 /* READY was said */
    bool go;                    /* and then a GO was obeyed */
    bool aborted;               /* an ABORT was obeyed */
    bool broke_early;           /* the stream broke before READY */
    bool broke_late;            /* or when there was something to wait for */
    bool ended;                 /* a good END has come */
    bool scheduled;             /* the guest is to run */
    unsigned runs;              /* it was let run so often */
    unsigned hung_up;
} Model;

static void run(void *opaque)
{
    Model *m = opaque;

    m->runs++;
}

static void hang_up(void *opaque)
{
    Model *m = opaque;

    m->hung_up++;
}

static bool lost(const Model *m)
{
    return m->aborted || m->broke_early;
}

static void check(Model *m)
{
    /* The laws */
    g_assert_cmpint(m->runs, <=, 1);
    g_assert_false(m->runs && !m->go);
    g_assert_false(m->go && !m->ready);
    g_assert_false(m->go && lost(m));
    g_assert_false(m->ended && !(m->go && m->dropped));

    /* The answers */
    g_assert_cmpint(wsm_handover_is_ours(&m->h), ==, m->go);
    g_assert_cmpint(wsm_handover_is_lost(&m->h), ==, lost(m));
    g_assert_cmpint(wsm_handover_runs(&m->h), ==, m->runs == 1);
    g_assert_cmpint(wsm_handover_says_ready(&m->h), ==,
                    m->ready && !m->go && !lost(m));
    g_assert_cmpint(wsm_handover_may_end(&m->h, m->durable, m->ram), ==,
                    m->ended || (m->go && m->durable && !m->ram));
}

static void event_loaded(Model *m)
{
    bool expected = m->sealed && !m->ready && !lost(m);
    Error *err = NULL;

    g_assert_cmpint(wsm_handover_loaded(&m->h, m->sealed, run, m, &err), ==,
                    expected);
    if (expected) {
        m->ready = true;
        return;
    }
    g_assert_nonnull(strstr(error_get_pretty(err),
                            !m->sealed ? "without" :
                            m->ready ? "twice" : "too late"));
    error_free(err);
}

static void event_go(Model *m)
{
    WsmMsg msg = { .type = WSM_MSG_GO, .epoch = 1 };
    bool expected = m->ready && !lost(m);

    g_assert_cmpint(wsm_handover_expects(&m->h, &msg, m->phase), ==, expected);
    if (expected) {
        g_assert_cmpint(wsm_handover_go(&m->h), ==, !m->go);
        m->scheduled |= !m->go;
        m->go = true;
    }
}

/* One that should not have been let through, or before something else came */
static void event_late_go(Model *m)
{
    if (!m->ready || m->go || lost(m)) {
        g_assert_false(wsm_handover_go(&m->h));
    }
}

static void event_abort(Model *m)
{
    WsmMsg msg = { .type = WSM_MSG_ABORT, .epoch = 1 };
    bool expected = m->go || m->phase == WSM_PHASE_RAM_PRECOPY ||
                    m->phase == WSM_PHASE_FREEZE;

    g_assert_cmpint(wsm_handover_expects(&m->h, &msg, m->phase), ==, expected);
    if (expected) {
        bool first = !m->go && !lost(m);

        g_assert_cmpint(wsm_handover_abort(&m->h), ==, first);
        m->aborted |= first;
    }
}

static void event_block(Model *m)
{
    static const WsmMsgType types[] = {
        WSM_MSG_DATA, WSM_MSG_ZERO, WSM_MSG_HASH, WSM_MSG_SYNC, WSM_MSG_POINT,
    };
    WsmMsg msg = {
        .type = types[g_test_rand_int_range(0, ARRAY_SIZE(types))],
        .epoch = g_test_rand_bit(),
    };
    bool end = msg.type == WSM_MSG_SYNC || msg.type == WSM_MSG_POINT;

    g_assert_cmpint(wsm_handover_expects(&m->h, &msg, m->phase), ==,
                    !msg.epoch || (end ? m->go : m->ready));
}

static void event_run(Model *m)
{
    if (m->scheduled) {
        m->scheduled = false;
        wsm_handover_run(&m->h);
    }
}

/* The stream breaks: a pause, or the end of it */
static void event_broke(Model *m)
{
    m->broke_early |= !m->ready && !lost(m);
    m->broke_late |= !lost(m);
    g_assert_cmpint(wsm_handover_broke(&m->h), ==, !lost(m));
}

static void event_end(Model *m)
{
    bool good = m->go && m->dropped;

    g_assert_cmpint(wsm_handover_end(&m->h, m->dropped), ==, good);
    m->ended |= good;
}

/* Whoever waits for a new stream has closed the old one: that may be gone */
static void event_end_stream(Model *m)
{
    unsigned before = m->hung_up;

    wsm_handover_end_stream(&m->h, hang_up, m);
    g_assert_cmpint(m->hung_up - before, ==, lost(m) && !m->broke_late);
}

static void event_phase(Model *m)
{
    if (m->phase < WSM_PHASE_POSTCOPY) {
        m->phase++;
    }
}

/* The disks: sealed in the freeze, then filters are dropped, then durable */
static void event_disks(Model *m)
{
    if (!m->sealed) {
        m->sealed = true;
    } else {
        m->durable = m->dropped;
        m->dropped = true;
    }
}

static void (*const events[])(Model *m) = {
    event_loaded, event_go, event_late_go, event_abort, event_block, event_run,
    event_broke, event_end, event_end_stream, event_phase, event_phase,
    event_disks,
};

static void walk(unsigned *runs, unsigned *aborts)
{
    Model m = { .phase = WSM_PHASE_SETUP, .ram = g_test_rand_bit() };
    /* Else it is hardly ever that anything good happens */
    bool breaks = g_test_rand_int_range(0, 4) == 0;

    wsm_handover_init(&m.h);
    check(&m);
    for (int i = 0; i < STEPS; i++) {
        unsigned n = g_test_rand_int_range(0, ARRAY_SIZE(events));

        if (events[n] != event_broke || breaks) {
            events[n](&m);
            check(&m);
        }
    }
    *runs += m.runs;
    *aborts += m.aborted;
    wsm_handover_destroy(&m.h);
}

static void test_walks(void)
{
    unsigned runs = 0, aborts = 0;

    for (int i = 0; i < WALKS; i++) {
        walk(&runs, &aborts);
    }
    /* Or we have tested nothing */
    g_assert_cmpint(runs, >, WALKS / 20);
    g_assert_cmpint(aborts, >, WALKS / 20);
}

/* Rows: from, columns: to */
static const char matrix[WSM_GUEST__MAX][WSM_GUEST__MAX + 1] = {
    /* aroRl */
    "-r--l",        /* awaited */
    "--o-l",        /* ready */
    "---R-",        /* ours */
    "-----",        /* runs */
    "-----",        /* lost */
};

static void test_legal(void)
{
    for (int from = 0; from < WSM_GUEST__MAX; from++) {
        for (int to = 0; to < WSM_GUEST__MAX; to++) {
            g_assert_cmpint(wsm_guest_legal(from, to), ==,
                            matrix[from][to] != '-');
        }
    }
}

/* The guest must not run a second time, nor before it is ours */
static void test_run_illegal(void)
{
    WsmHandover h;

    if (!g_test_subprocess()) {
        g_test_trap_subprocess(NULL, 0, 0);
        g_test_trap_assert_failed();
        g_test_trap_assert_stderr("*wsm_guest_legal*");
        return;
    }
    wsm_handover_init(&h);
    wsm_handover_loaded(&h, true, run, NULL, &error_abort);
    wsm_handover_run(&h);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/wsm/handover/legal", test_legal);
    g_test_add_func("/wsm/handover/run-illegal", test_run_illegal);
    g_test_add_func("/wsm/handover/walks", test_walks);

    return g_test_run();
}
