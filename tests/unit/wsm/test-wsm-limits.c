/*
 * Unit tests of migration/wsm/dest/limits.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/dest/limits.h"

#define STEPS                   20000

/*
 * Connections: random ones come, say HELLO and go
 */

typedef struct Conn {
    WsmPlace place;
    unsigned number;            /* in order of arrival */
} Conn;

/* The oldest that says nothing and may still go, or NULL */
static Conn *oldest(GPtrArray *all)
{
    Conn *found = NULL;

    for (unsigned i = 0; i < all->len; i++) {
        Conn *c = g_ptr_array_index(all, i);

        if (!c->place.known && !c->place.displaced &&
            (!found || c->number < found->number)) {
            found = c;
        }
    }
    return found;
}

static unsigned count(GPtrArray *all, bool displaced)
{
    unsigned n = 0;

    for (unsigned i = 0; i < all->len; i++) {
        Conn *c = g_ptr_array_index(all, i);

        n += c->place.displaced == displaced;
    }
    return n;
}

static void conn_comes(WsmPlaces *p, GPtrArray *all, unsigned number)
{
    Conn *c = g_new0(Conn, 1), *expected;
    WsmPlace *goes;

    c->number = number;
    g_ptr_array_add(all, c);
    expected = all->len > WSM_MAX_CONNS ? oldest(all) : NULL;
    goes = wsm_places_add(p, &c->place);
    g_assert_true(goes == (expected ? &expected->place : NULL));
    if (goes) {
        g_assert_true(goes->displaced);
    }
    /* The law: no more than these have a place */
    g_assert_cmpint(count(all, false), <=, WSM_MAX_CONNS);
}

static void conn_goes(WsmPlaces *p, GPtrArray *all)
{
    Conn *c = g_ptr_array_index(all, g_test_rand_int_range(0, all->len));

    wsm_places_remove(p, &c->place);
    g_ptr_array_remove(all, c);
    g_free(c);
}

static void test_places(void)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    unsigned displaced = 0;
    WsmPlaces p;

    wsm_places_init(&p);
    for (unsigned i = 0; i < STEPS; i++) {
        /* Sometimes a crowd, sometimes hardly anybody */
        bool crowd = i / 500 % 2;

        if (!all->len || g_test_rand_int_range(0, 10) < (crowd ? 6 : 4)) {
            conn_comes(&p, all, i);
        } else if (g_test_rand_bit()) {
            conn_goes(&p, all);
        } else {
            Conn *c = g_ptr_array_index(all,
                                        g_test_rand_int_range(0, all->len));

            c->place.known |= !c->place.displaced;
        }
        g_assert_cmpint(p.n, ==, all->len);
        displaced += count(all, true);
    }
    g_assert_cmpint(displaced, >, 0);
    while (all->len) {
        conn_goes(&p, all);
    }
    g_assert_cmpint(p.n, ==, 0);
}

/* Strangers do not get in the way of the source's channels */
static void test_known_stay(void)
{
    WsmPlace known[WSM_MAX_CHANNELS] = {}, stranger[3 * WSM_MAX_CONNS] = {};
    WsmPlaces p;

    wsm_places_init(&p);
    for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
        g_assert_null(wsm_places_add(&p, &known[i]));
        known[i].known = true;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(stranger); i++) {
        WsmPlace *goes = wsm_places_add(&p, &stranger[i]);

        if (goes) {
            wsm_places_remove(&p, goes);
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
        g_assert_false(known[i].displaced);
    }
}

/* When all others are known the new one goes */
static void test_new_goes(void)
{
    WsmPlace place[WSM_MAX_CONNS + 1] = {};
    WsmPlaces p;

    wsm_places_init(&p);
    for (unsigned i = 0; i < WSM_MAX_CONNS; i++) {
        g_assert_null(wsm_places_add(&p, &place[i]));
        place[i].known = true;
    }
    g_assert_true(wsm_places_add(&p, &place[WSM_MAX_CONNS]) ==
                  &place[WSM_MAX_CONNS]);
}

/*
 * Messages that wait
 */

/* What of a message has to be kept in memory */
static int64_t memory(const WsmMsg *msg)
{
    switch (msg->type) {
    case WSM_MSG_DATA:
        return msg->length;
    case WSM_MSG_HASH:
        return msg->bytes;
    default:
        return 0;
    }
}

static WsmMsg random_message(uint32_t epoch)
{
    static const WsmMsgType types[] = {
        WSM_MSG_DATA, WSM_MSG_ZERO, WSM_MSG_HASH,
    };
    WsmMsg msg = {
        .type = types[g_test_rand_int_range(0, ARRAY_SIZE(types))],
        .epoch = epoch,
    };

    msg.bytes = 4 * KiB * g_test_rand_int_range(1, 257);
    msg.length = msg.type == WSM_MSG_DATA ? msg.bytes : 0;
    return msg;
}

/* As docs/design.md has it */
static int64_t most_memory(unsigned channels, uint32_t epoch)
{
    int64_t all = epoch ? 40 * MiB : 8 * MiB;

    return all + channels * MiB;
}

static void test_room(unsigned channels, uint32_t epoch)
{
    g_autofree WsmLoad *load = g_new0(WsmLoad, channels);
    g_autoptr(GArray) waiting = g_array_new(false, false, sizeof(WsmMsg));
    g_autoptr(GArray) on = g_array_new(false, false, sizeof(unsigned));
    WsmRoom r = { .channels = channels };
    int64_t sum = 0, most = 0;

    for (unsigned i = 0; i < STEPS; i++) {
        unsigned channel = g_test_rand_int_range(0, channels);
        WsmMsg msg = random_message(epoch);

        if (g_test_rand_int_range(0, 10) < 7) {
            if (wsm_room_for(&r, &load[channel], channel, &msg)) {
                wsm_room_take(&r, &load[channel], &msg);
                g_array_append_val(waiting, msg);
                g_array_append_val(on, channel);
                sum += memory(&msg);
            }
        } else if (waiting->len) {
            unsigned n = g_test_rand_int_range(0, waiting->len);

            msg = g_array_index(waiting, WsmMsg, n);
            wsm_room_give(&r, &load[g_array_index(on, unsigned, n)], &msg);
            g_array_remove_index_fast(waiting, n);
            g_array_remove_index_fast(on, n);
            sum -= memory(&msg);
        }
        most = MAX(most, sum);
        g_assert_cmpint(sum, <=, most_memory(channels, epoch));
        g_assert_cmpint(r.writes, ==, waiting->len);
        g_assert_cmpint(r.writes, <=, WSM_MAX_WRITES);
    }
    /* It was used */
    g_assert_cmpint(most, >, most_memory(channels, epoch) / 2);
}

static void test_rooms(void)
{
    for (unsigned channels = WSM_MIN_CHANNELS; channels <= WSM_MAX_CHANNELS;
         channels += 5) {
        test_room(channels, 0);
        test_room(channels, 1);
    }
}

/* Let in messages of @bytes on @channel, @all in sum; all of them fit */
static void let_in(WsmRoom *r, WsmLoad *load, unsigned channel, int64_t all,
                   int64_t bytes)
{
    WsmMsg msg = {
        .type = WSM_MSG_DATA, .epoch = 1, .bytes = bytes, .length = bytes,
    };

    while (all >= bytes) {
        g_assert_true(wsm_room_for(r, load, channel, &msg));
        wsm_room_take(r, load, &msg);
        all -= bytes;
    }
}

/*
 * All that the source may have in flight in post-copy is read, whatever the
 * sizes: what a drained disk waits for may be the last of it.
 */
static void test_all_in_flight(void)
{
    for (int64_t bytes = WSM_COST_MIN; bytes <= WSM_MAX_DATA; bytes *= 2) {
        for (unsigned n = WSM_MIN_CHANNELS; n <= WSM_MAX_CHANNELS; n++) {
            g_autofree WsmLoad *load = g_new0(WsmLoad, n);
            WsmRoom r = { .channels = n };

            let_in(&r, &load[0], 0, WSM_PULL_WINDOW, bytes);
            for (unsigned i = 1; i < n; i++) {
                let_in(&r, &load[i], i, WSM_WINDOW_MAX / (n - 1), bytes);
            }
        }
    }
}

/* Whoever does not read answers is not read from */
static void test_answers(void)
{
    WsmMsg msg = { .type = WSM_MSG_ZERO, .bytes = 4096 };
    WsmLoad deaf = { .answers = WSM_MAX_ANSWERS }, other = {};
    WsmRoom r = { .channels = 2 };

    g_assert_false(wsm_room_for(&r, &deaf, 1, &msg));
    g_assert_true(wsm_room_for(&r, &other, 1, &msg));
    deaf.answers--;
    g_assert_true(wsm_room_for(&r, &deaf, 1, &msg));
}

/* Each of them has a coroutine, even if it takes no memory */
static void test_writes(void)
{
    WsmMsg msg = { .type = WSM_MSG_ZERO, .bytes = 4096, .epoch = 1 };
    WsmRoom r = { .channels = 2 };
    WsmLoad load = {};

    for (unsigned i = 0; i < WSM_MAX_WRITES; i++) {
        g_assert_true(wsm_room_for(&r, &load, 1, &msg));
        wsm_room_take(&r, &load, &msg);
    }
    g_assert_false(wsm_room_for(&r, &load, 1, &msg));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/wsm/limits/places", test_places);
    g_test_add_func("/wsm/limits/known-stay", test_known_stay);
    g_test_add_func("/wsm/limits/new-goes", test_new_goes);
    g_test_add_func("/wsm/limits/room", test_rooms);
    g_test_add_func("/wsm/limits/all-in-flight", test_all_in_flight);
    g_test_add_func("/wsm/limits/answers", test_answers);
    g_test_add_func("/wsm/limits/writes", test_writes);

    return g_test_run();
}
