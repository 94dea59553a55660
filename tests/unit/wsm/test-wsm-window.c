/*
 * Unit tests of migration/wsm/policy/window.c
 *
 * On a simulated link with one queue: it must be busy, and what is put into
 * the queue at any moment must not wait for long.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "migration/wsm/policy/window.h"

#define MBIT                    (1000 * 1000 / 8)
#define SECONDS                 8
#define WARM_UP                 (SECONDS * NANOSECONDS_PER_SECOND / 2)
#define ALLOWED_NS              (5 * SCALE_MS)

typedef struct Message {
    int64_t bytes;
    int64_t sent_ns, ack_ns;
} Message;

typedef struct Link {
    WsmWindow w;
    unsigned channels;
    int64_t slow_ns;            /* from half of the warm-up on: disk's part */
    int64_t limit;              /* bytes per second that are sent at most */
    int64_t rate;               /* bytes per second */
    int64_t round_trip_ns;
    int64_t noise_ns;           /* each answer comes up to so much later */
    int64_t now_ns;
    int64_t free_ns;            /* when the queue will be empty */
    int64_t next_ns;            /* when the limit lets the next one go */
    int64_t in_flight;
    GQueue *messages;
    GRand *rand;
    /* After the warm-up */
    int64_t delivered;
    int64_t longest_queue_ns;
} Link;

/* As wsm_may_send(), with all channels used evenly */
static bool link_may_send(const Link *l)
{
    if (l->next_ns > l->now_ns) {
        return false;
    }
    return !l->in_flight || l->in_flight + l->channels *
                            wsm_window_chunk(&l->w) <= l->w.bytes;
}

static void link_fill(Link *l)
{
    while (link_may_send(l)) {
        Message *m = g_new(Message, 1);

        m->bytes = wsm_window_chunk(&l->w);
        m->sent_ns = l->now_ns;
        if (l->limit) {
            l->next_ns = l->now_ns +
                         m->bytes * NANOSECONDS_PER_SECOND / l->limit;
        }
        l->free_ns = MAX(l->free_ns, m->sent_ns) +
                     m->bytes * NANOSECONDS_PER_SECOND / l->rate;
        m->ack_ns = l->free_ns + l->round_trip_ns;
        if (l->now_ns > WARM_UP / 2) {
            m->ack_ns += l->slow_ns;
        }
        if (l->noise_ns) {
            m->ack_ns += g_rand_int_range(l->rand, 0, l->noise_ns);
        }
        l->in_flight += m->bytes;
        g_queue_push_tail(l->messages, m);
    }
    if (l->now_ns > WARM_UP) {
        l->longest_queue_ns = MAX(l->longest_queue_ns,
                                  l->free_ns - l->now_ns);
    }
}

static void link_run(Link *l)
{
    l->messages = g_queue_new();
    l->rand = g_rand_new_with_seed(1);
    wsm_window_init(&l->w);
    while (l->now_ns < SECONDS * NANOSECONDS_PER_SECOND) {
        g_autofree Message *m = NULL;

        if (!l->in_flight) {
            l->now_ns = MAX(l->now_ns, l->next_ns);
        }
        link_fill(l);
        m = g_queue_pop_head(l->messages);
        l->now_ns = MAX(l->now_ns, m->ack_ns);
        wsm_window_ack(&l->w, m->bytes, l->in_flight, l->now_ns,
                       l->now_ns - m->sent_ns);
        l->in_flight -= m->bytes;
        if (l->now_ns > WARM_UP) {
            l->delivered += m->bytes;
        }
        g_assert_cmpint(l->w.bytes, >=, WSM_WINDOW_MIN);
        g_assert_cmpint(l->w.bytes, <=, WSM_WINDOW_MAX);
    }
    g_queue_free_full(l->messages, g_free);
    g_rand_free(l->rand);
}

/* Share of the link's speed that was used */
static double link_used(const Link *l)
{
    return (double)l->delivered / l->rate /
           ((SECONDS * NANOSECONDS_PER_SECOND - WARM_UP) /
            (double)NANOSECONDS_PER_SECOND);
}

static void test_link(int64_t mbit, int64_t round_trip_us)
{
    Link l = {
        .channels = 2,
        .rate = mbit * MBIT,
        .round_trip_ns = round_trip_us * SCALE_US,
    };
    int64_t allowed;

    link_run(&l);
    /* The least window may be more than a slow link can take so quickly */
    allowed = MAX(ALLOWED_NS + l.round_trip_ns,
                  2 * WSM_WINDOW_MIN * NANOSECONDS_PER_SECOND / l.rate);
    g_test_message("%" PRId64 " Mbit/s, %" PRId64 " us: used %.2f, queue "
                   "%.1f ms", mbit, round_trip_us, link_used(&l),
                   l.longest_queue_ns / 1e6);
    g_assert_cmpfloat(link_used(&l), >=, 0.9);
    g_assert_cmpint(l.longest_queue_ns, <=, allowed);
}

static void test_links(void)
{
    static const int64_t mbit[] = { 10, 80, 160, 1000, 10000 };
    static const int64_t round_trip_us[] = { 100, 1000, 10000, 50000 };

    for (int i = 0; i < ARRAY_SIZE(mbit); i++) {
        for (int j = 0; j < ARRAY_SIZE(round_trip_us); j++) {
            /* Where the window suffices */
            if (mbit[i] * MBIT * round_trip_us[j] / 1000000 <
                WSM_WINDOW_MAX / 2) {
                test_link(mbit[i], round_trip_us[j]);
            }
        }
    }
}

static double used_with_noise(int64_t noise_ns)
{
    Link l = {
        .channels = 2,
        .rate = 160 * MBIT,
        .round_trip_ns = 200 * SCALE_US,
        .noise_ns = noise_ns,
    };

    link_run(&l);
    g_test_message("noise %.1f ms: used %.2f", noise_ns / 1e6, link_used(&l));
    return link_used(&l);
}

/* A host that is slow now and then must not stop the push */
static void test_noise(void)
{
    g_assert_cmpfloat(used_with_noise(1 * SCALE_MS), >=, 0.9);
    g_assert_cmpfloat(used_with_noise(2 * SCALE_MS), >=, 0.7);
    /* Now it is as if the queue were too long all the time */
    g_assert_cmpfloat(used_with_noise(5 * SCALE_MS), >=, 0.3);
}

/* A destination's disk that becomes slow is not taken for a queue for ever */
static void test_slower(void)
{
    Link l = {
        .channels = 2,
        .rate = 1000 * MBIT,
        .round_trip_ns = 300 * SCALE_US,
        .slow_ns = 20 * SCALE_MS,
    };

    link_run(&l);
    g_assert_cmpfloat(link_used(&l), >=, 0.7);
}

/* What a limit keeps back must not open the window */
static void test_limited(void)
{
    Link l = {
        .channels = 2,
        .rate = 1000 * MBIT,
        .limit = 320 * MBIT,
        .round_trip_ns = 300 * SCALE_US,
    };

    link_run(&l);
    g_assert_cmpint(l.w.bytes * NANOSECONDS_PER_SECOND / l.rate, <=,
                    ALLOWED_NS);
}

static void test_bounds(void)
{
    WsmWindow w;

    wsm_window_init(&w);
    for (int i = 0; i < 10000; i++) {
        wsm_window_ack(&w, 256 * KiB, w.bytes, i, 1);
    }
    g_assert_cmpint(w.bytes, ==, WSM_WINDOW_MAX);
    g_assert_cmpint(wsm_window_chunk(&w), ==, 256 * KiB);
    for (int i = 0; i < 10000; i++) {
        wsm_window_ack(&w, 256 * KiB, w.bytes, i, INT64_MAX / 2);
    }
    g_assert_cmpint(w.bytes, ==, WSM_WINDOW_MIN);
    g_assert_cmpint(wsm_window_chunk(&w), ==, 8 * KiB);
    /* A clock that goes backwards does no harm */
    wsm_window_ack(&w, 64 * KiB, w.bytes, 0, -5);
    g_assert_cmpint(w.least_ns, ==, 1);
    /* One message larger than the window does not more than double it */
    wsm_window_init(&w);
    wsm_window_ack(&w, 1 * MiB, 1 * MiB, 0, 1);
    g_assert_cmpint(w.bytes, <=, 256 * KiB);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/window/bounds", test_bounds);
    g_test_add_func("/wsm/window/links", test_links);
    g_test_add_func("/wsm/window/noise", test_noise);
    g_test_add_func("/wsm/window/slower", test_slower);
    g_test_add_func("/wsm/window/limited", test_limited);
    return g_test_run();
}
