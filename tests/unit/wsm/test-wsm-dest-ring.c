/*
 * Unit tests of a ring at the destination: migration/wsm/dest/ring.c,
 * ring-node.c, ring-spec.c and link/dial.c
 *
 * This thread plays the nodes, which listen on Unix sockets.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <poll.h>
#include <sys/un.h>
#include "block/aio-wait.h"
#include "crypto/init.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/sockets.h"
#include "wsm-clock.h"
#include "migration/wsm/dest/ring-node.h"
#include "migration/wsm/dest/ring.h"
#include "migration/wsm/memory/tag.h"

#define NODES           3
#define PAGES           300     /* more than two batches of one node */
#define WAIT_S          10      /* what does not come by then is an error */

static char *folder;
static char *name[NODES], *address[NODES];
static int listening[NODES], fd[NODES];
static WsmRingNodeSpec node_spec[NODES];
static WsmRingNodeSpecList node_list[NODES];
static WsmRing wanted;
static WsmLoop loop;
static WsmDestRing *ring;

/* The pages that are asked for */
static struct {
    uint8_t hash[WSM_HASH_SIZE], page[WSM_PAGE_SIZE];
    char *key, *asked;          /* what a request begins with */
    int ret;
} got[PAGES];
static unsigned ended;          /* atomic */

/*
 * Nodes
 */

static void listen_on(int i)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };

    strcpy(addr.sun_path, address[i] + strlen("unix:"));
    unlink(addr.sun_path);
    listening[i] = socket(AF_UNIX, SOCK_STREAM, 0);
    g_assert_cmpint(bind(listening[i], (void *)&addr, sizeof(addr)), ==, 0);
    g_assert_cmpint(listen(listening[i], 8), ==, 0);
}

static bool wait_readable(int sock, int ms)
{
    struct pollfd p = { .fd = sock, .events = POLLIN };

    return poll(&p, 1, ms) == 1;
}

static void accept_on(int i)
{
    g_assert_true(wait_readable(listening[i], WAIT_S * 1000));
    fd[i] = accept(listening[i], NULL, NULL);
    g_assert_cmpint(fd[i], >=, 0);
}

static void say(int i, const void *buf, size_t size)
{
    g_assert_cmpint(qemu_write_full(fd[i], buf, size), ==, size);
}

static void say_text(int i, const char *text)
{
    say(i, text, strlen(text));
}

static void say_page(int i, unsigned index, uint8_t c)
{
    g_autofree char *line = g_strdup_printf("VA 4096 O%u\r\n", index);
    uint8_t page[WSM_PAGE_SIZE];

    memset(page, c, sizeof(page));
    say_text(i, line);
    say(i, page, sizeof(page));
    say_text(i, "\r\n");
}

/* Which node is asked next, other than @first? */
static unsigned asked_after(unsigned first)
{
    unsigned i = first;

    for (int n = 0; i == first || !wait_readable(fd[i], 100); n++) {
        g_assert_cmpint(n, <, WAIT_S * 10);
        i = (i + 1) % NODES;
    }
    return i;
}

/* A line, without its end; "" is the end of the connection */
static char *hear(int i)
{
    g_autoptr(GString) line = g_string_new(NULL);
    char c;

    for (;;) {
        if (recv(fd[i], &c, 1, MSG_DONTWAIT) != 1 &&
            (!wait_readable(fd[i], WAIT_S * 1000) ||
             read(fd[i], &c, 1) != 1)) {
            g_assert_cmpstr(line->str, ==, "");
            break;
        }
        g_string_append_c(line, c);
        if (g_str_has_suffix(line->str, "\r\n")) {
            g_string_truncate(line, line->len - 2);
            break;
        }
    }
    return g_strdup(line->str);
}

static void hear_end(int i)
{
    g_autofree char *line = hear(i);

    g_assert_cmpstr(line, ==, "");
    close(fd[i]);
}

/* The number of the page that @line asks for, and what the answer calls it */
static unsigned asked_for(const char *line, unsigned *index)
{
    for (unsigned i = 0; i < PAGES; i++) {
        if (g_str_has_prefix(line, got[i].asked)) {
            *index = atoi(line + strlen(got[i].asked));
            return i;
        }
    }
    g_assert_not_reached();
}

/*
 * Answer what node @i is asked, and with @has all of it: the content of a page
 * is its number.  Until @n were asked for.
 */
static void serve(int i, unsigned n, bool has)
{
    while (n) {
        g_autofree char *line = hear(i);
        unsigned index;

        if (g_str_equal(line, "mn")) {
            say_text(i, "MN\r\n");
            continue;
        }
        n--;
        if (has) {
            unsigned page = asked_for(line, &index);

            say_page(i, index, page);
        }
    }
}

static void serve_end(int i)
{
    g_autofree char *line = hear(i);

    g_assert_cmpstr(line, ==, "mn");
    say_text(i, "MN\r\n");
}

/*
 * Who asks
 */

static void coroutine_fn get_co(void *opaque)
{
    unsigned i = (uintptr_t)opaque;

    got[i].ret = wsm_dest_ring_get(ring, got[i].hash, got[i].page);
    qatomic_inc(&ended);
}

static void get(unsigned i)
{
    g_assert_true(wsm_loop_start(&loop, get_co, (void *)(uintptr_t)i));
}

static void start_bh(void *opaque)
{
    for (unsigned i = 0; i < PAGES; i++) {
        get(i);
    }
}

/* All at once: no piece of them goes out before the last one is there */
static void get_all(void)
{
    aio_wait_bh_oneshot(loop.ctx, start_bh, NULL);
}

static void await(unsigned n)
{
    for (int ms = 0; qatomic_load_acquire(&ended) < n; ms++) {
        g_assert_cmpint(ms, <, WAIT_S * 1000);
        g_usleep(1000);
    }
    g_assert_cmpint(qatomic_read(&ended), ==, n);
}

static void expect_hit(unsigned i)
{
    g_assert_cmpint(got[i].ret, ==, 0);
    for (int k = 0; k < WSM_PAGE_SIZE; k++) {
        g_assert_cmphex(got[i].page[k], ==, (uint8_t)i);
    }
}

static WsmRingNodeInfo *info_of(int i)
{
    WsmRingNodeInfoList *list = NULL, **tail = &list, *rest;
    WsmRingNodeInfo *info = NULL;

    wsm_dest_ring_info(ring, &tail);
    for (rest = list; rest; rest = rest->next) {
        if (g_str_equal(rest->value->name, name[i])) {
            info = g_steal_pointer(&rest->value);
        }
    }
    qapi_free_WsmRingNodeInfoList(list);
    return info;
}

static void nothing_bh(void *opaque)
{
}

static void expect_info(int i, WsmRingNodeState state, int hits, int misses,
                        int failed, int failures)
{
    g_autoptr(WsmRingNodeInfo) info = NULL;

    /* A connection's end is seen here before the loop has done with it */
    aio_wait_bh_oneshot(loop.ctx, nothing_bh, NULL);
    info = info_of(i);
    g_assert_cmpint(info->state, ==, state);
    g_assert_cmpint(info->hits, ==, hits);
    g_assert_cmpint(info->misses, ==, misses);
    g_assert_cmpint(info->failed, ==, failed);
    g_assert_cmpint(info->gets, ==, hits + misses + failed);
    g_assert_cmpint(info->failures, ==, failures);
    g_assert_true(!info->error == !failures);
}

/* Which node has the page first */
static unsigned first_of(unsigned page)
{
    uint64_t seed[NODES];
    unsigned choice[1];

    for (int i = 0; i < NODES; i++) {
        seed[i] = wsm_ring_seed(name[i]);
    }
    wsm_ring_choose(seed, wanted.nodes->next ? NODES : 1, got[page].hash,
                    choice, 1);
    return choice[0];
}

static void hash_page(unsigned i)
{
    uint8_t page[WSM_PAGE_SIZE];

    memset(page, i, sizeof(page));
    memcpy(page, &i, sizeof(i) * (i > UINT8_MAX));
    wsm_page_hash(page, got[i].hash);
    got[i].key = g_base64_encode(got[i].hash, WSM_HASH_SIZE);
    got[i].asked = g_strdup_printf("mg %s v q O", got[i].key);
}

/* A ring of @nodes, all of which are connected */
static void set_up(int nodes)
{
    WsmRingSpec *spec;

    ended = 0;
    for (unsigned i = 0; i < PAGES; i++) {
        memset(got[i].page, 0, sizeof(got[i].page));
    }
    wsm_loop_init(&loop, "test", &error_abort);
    wanted.nodes = &node_list[0];
    for (int i = 0; i < NODES; i++) {
        listen_on(i);
        node_list[i] = (WsmRingNodeSpecList) {
            .value = &node_spec[i],
            .next = i + 1 < nodes ? &node_list[i + 1] : NULL,
        };
    }
    spec = wsm_ring_spec_new(&wanted, &error_abort);
    ring = wsm_dest_ring_new(spec, &loop);
    wsm_ring_spec_unref(spec);
    for (int i = 0; i < nodes; i++) {
        accept_on(i);
    }
}

static void stop(void)
{
    wsm_dest_ring_stop(ring);
    wsm_loop_stop(&loop);
}

static void clean_up(void)
{
    wsm_loop_destroy(&loop);
    wsm_dest_ring_free(ring);
    for (int i = 0; i < NODES; i++) {
        close(listening[i]);
    }
    wanted = (WsmRing) {};
}

static void tear_down(void)
{
    stop();
    clean_up();
}

/*
 * Tests
 */

/* One node, many pages, in few batches */
static void test_good(void)
{
    set_up(1);
    get_all();
    serve(0, PAGES, true);
    serve_end(0);
    await(PAGES);
    for (unsigned i = 0; i < PAGES; i++) {
        expect_hit(i);
    }
    expect_info(0, WSM_RING_NODE_STATE_UP, PAGES, 0, 0, 0);
    close(fd[0]);
    tear_down();
}

/* What one has not the other has, and what none has is missed */
static void test_replica(void)
{
    unsigned first, second;

    set_up(NODES);
    first = first_of(7);
    get(7);
    serve(first, 1, false);
    serve_end(first);
    second = asked_after(first);
    serve(second, 1, true);
    serve_end(second);
    await(1);
    expect_hit(7);

    get(7);
    serve(first, 1, false);
    serve_end(first);
    serve(second, 1, false);
    serve_end(second);
    await(2);
    g_assert_cmpint(got[7].ret, ==, -ENOENT);
    expect_info(first, WSM_RING_NODE_STATE_UP, 0, 2, 0, 0);
    expect_info(second, WSM_RING_NODE_STATE_UP, 1, 1, 0, 0);
    for (int i = 0; i < NODES; i++) {
        close(fd[i]);
    }
    tear_down();
}

/* A value of another size is none; some answers are only counted */
static void test_odd(void)
{
    g_autofree char *line = NULL;
    unsigned index;

    wanted.has_replicas = true;
    wanted.replicas = 1;
    set_up(1);
    get(9);
    line = hear(0);
    g_assert_cmpint(asked_for(line, &index), ==, 9);
    say_text(0, "SERVER_ERROR out of memory\r\nNS\r\nVA 3 O0\r\nabc\r\n");
    serve_end(0);
    await(1);
    g_assert_cmpint(got[9].ret, ==, -ENOENT);
    expect_info(0, WSM_RING_NODE_STATE_UP, 0, 1, 0, 0);
    close(fd[0]);
    tear_down();
}

/* What was not asked for, twice, or is no answer: the connection is closed */
static void bad(const char *answer, bool page, unsigned index)
{
    g_autofree char *line = NULL, *end = NULL;

    set_up(1);
    get(9);
    line = hear(0);
    end = hear(0);
    g_assert_cmpstr(end, ==, "mn");
    if (page) {
        say_page(0, index, 9);
    }
    say_text(0, answer);
    hear_end(0);
    await(1);
    expect_info(0, WSM_RING_NODE_STATE_DEAD, page && !index, 0,
                !page || index, 1);

    /* It is asked no more, for a while */
    get(10);
    await(2);
    g_assert_cmpint(got[10].ret, ==, -ENOENT);
    expect_info(0, WSM_RING_NODE_STATE_DEAD, page && !index, 0,
                !page || index, 1);
    g_assert_false(wait_readable(listening[0], 0));
    tear_down();
}

static void test_bad(void)
{
    bad("ERROR\r\n", false, 0);
    bad("", true, 1);
    bad("", true, 127);
    bad("VA 1048577 O0\r\n", false, 0);
    bad("MN\r\nMN\r\n", true, 0);
}

static void test_twice(void)
{
    g_autofree char *line = NULL;

    set_up(1);
    get(9);
    line = hear(0);
    say_page(0, 0, 9);
    say_page(0, 0, 77);
    g_free(hear(0));
    hear_end(0);
    await(1);
    expect_hit(9);
    expect_info(0, WSM_RING_NODE_STATE_DEAD, 1, 0, 0, 1);
    tear_down();
}

/* An answer that nobody wants */
static void test_unasked(void)
{
    set_up(1);
    say_text(0, "MN\r\n");
    hear_end(0);
    expect_info(0, WSM_RING_NODE_STATE_DEAD, 0, 0, 0, 1);
    tear_down();
}

/* It breaks while it is asked: at once the next one is */
static void test_broken(void)
{
    unsigned first, second;

    set_up(NODES);
    first = first_of(7);
    get(7);
    g_free(hear(first));
    close(listening[first]);
    close(fd[first]);
    second = asked_after(first);
    serve(second, 1, true);
    serve_end(second);
    await(1);
    expect_hit(7);
    expect_info(first, WSM_RING_NODE_STATE_DEAD, 0, 0, 1, 1);
    listening[first] = -1;
    for (int i = 0; i < NODES; i++) {
        if (i != first) {
            close(fd[i]);
        }
    }
    tear_down();
}

/*
 * @page, the @n-th that is asked for, is the first that the only node has, over
 * a new connection
 */
static void get_anew(unsigned page, unsigned n, int failed, int failures)
{
    get(page);
    accept_on(0);
    serve(0, 1, true);
    serve_end(0);
    await(n);
    expect_hit(page);
    expect_info(0, WSM_RING_NODE_STATE_UP, 1, 0, failed, failures);
    close(fd[0]);
}

/* It does not answer: it is waited for once, and not for each page */
static void test_silent(void)
{
    set_up(1);
    get(1);
    g_free(hear(0));
    g_free(hear(0));
    clock_pass_ms(WSM_RING_NODE_MS - 1);
    /* What comes here shows that the loop has seen what time it is */
    get(2);
    g_free(hear(0));
    g_assert_cmpint(qatomic_read(&ended), ==, 0);
    clock_pass_ms(1);
    await(2);
    g_assert_cmpint(got[1].ret, ==, -ENOENT);
    g_assert_cmpint(got[2].ret, ==, -ENOENT);
    expect_info(0, WSM_RING_NODE_STATE_DEAD, 0, 0, 2, 1);
    close(fd[0]);

    clock_pass_ms(WSM_RING_DEAD_MS - 1);
    get(3);
    await(3);
    expect_info(0, WSM_RING_NODE_STATE_DEAD, 0, 0, 2, 1);
    g_assert_false(wait_readable(listening[0], 0));

    /* Then it gets another chance */
    clock_pass_ms(1);
    get_anew(4, 4, 2, 1);
    tear_down();
}

/* It answers some in time, and not all; each batch has its own time */
static void test_half(void)
{
    g_autofree char *line = NULL;
    unsigned index;

    set_up(1);
    get(1);
    line = hear(0);
    clock_pass_ms(WSM_RING_NODE_MS / 2);
    get(2);
    for (int i = 0; i < 3; i++) {
        g_free(hear(0));
    }
    asked_for(line, &index);
    say_page(0, index, 1);
    say_text(0, "MN\r\n");
    await(1);
    expect_hit(1);
    clock_pass_ms(WSM_RING_NODE_MS / 2);
    get(3);
    g_free(hear(0));
    g_assert_cmpint(qatomic_read(&ended), ==, 1);
    clock_pass_ms(WSM_RING_NODE_MS / 2);
    await(3);
    g_assert_cmpint(got[2].ret, ==, -ENOENT);
    expect_info(0, WSM_RING_NODE_STATE_DEAD, 1, 0, 2, 1);
    close(fd[0]);
    tear_down();
}

/* It takes nothing: what is written waits, and does not for ever */
static void test_full(void)
{
    g_autoptr(WsmRingNodeInfo) info = NULL;

    set_up(1);
    for (int round = 0; round < 20; round++) {
        get_all();
    }
    clock_pass_ms(WSM_RING_NODE_MS);
    await(20 * PAGES);
    info = info_of(0);
    g_assert_cmpint(info->state, ==, WSM_RING_NODE_STATE_DEAD);
    g_assert_cmpint(info->failures, ==, 1);
    g_assert_cmpint(info->failed, >, 0);
    close(fd[0]);
    tear_down();
}

static void await_state(int i, WsmRingNodeState state)
{
    for (int ms = 0;; ms++) {
        g_autoptr(WsmRingNodeInfo) info = info_of(i);

        if (info->state == state) {
            return;
        }
        g_assert_cmpint(ms, <, WAIT_S * 1000);
        g_usleep(1000);
    }
}

/* It was restarted while nobody asked */
static void test_restart(void)
{
    set_up(1);
    close(fd[0]);
    await_state(0, WSM_RING_NODE_STATE_DOWN);
    expect_info(0, WSM_RING_NODE_STATE_DOWN, 0, 0, 0, 0);
    get_anew(3, 1, 0, 0);
    tear_down();
}

/* It ended in the middle of a page; its successor begins a new one */
static void test_torn(void)
{
    g_autofree char *line = NULL;
    unsigned index;

    set_up(1);
    get(1);
    line = hear(0);
    g_free(hear(0));
    asked_for(line, &index);
    g_assert_cmpint(index, ==, 0);
    say_text(0, "VA 4096 O0\r\nhalf");
    close(fd[0]);
    await(1);
    g_assert_cmpint(got[1].ret, ==, -ENOENT);
    expect_info(0, WSM_RING_NODE_STATE_DEAD, 0, 0, 1, 1);
    clock_pass_ms(WSM_RING_DEAD_MS);
    get(2);
    accept_on(0);
    serve(0, 1, true);
    serve_end(0);
    await(2);
    expect_hit(2);
    close(fd[0]);
    tear_down();
}

/* Nobody is there */
static void test_away(void)
{
    g_autoptr(WsmRingNodeInfo) info = NULL;

    set_up(1);
    close(listening[0]);
    close(fd[0]);
    await_state(0, WSM_RING_NODE_STATE_DOWN);
    get(3);
    await(1);
    g_assert_cmpint(got[3].ret, ==, -ENOENT);
    expect_info(0, WSM_RING_NODE_STATE_DEAD, 0, 0, 1, 1);
    info = info_of(0);
    g_assert_nonnull(strstr(info->error, "Failed to connect"));
    listening[0] = -1;
    tear_down();
}

/* The destination ends while pages are waited for */
static void test_ends(void)
{
    set_up(1);
    get(1);
    g_free(hear(0));
    stop();
    await(1);
    g_assert_cmpint(got[1].ret, ==, -ENOENT);
    clean_up();
    close(fd[0]);
}

/* Those that should have had it get it, if the user wants that */
static void repair(bool wants, bool true_page)
{
    unsigned first, second, page = 7;
    g_autofree char *line = NULL;
    uint8_t content[WSM_PAGE_SIZE + 2];

    wanted.has_read_repair = true;
    wanted.read_repair = wants;
    set_up(NODES);
    first = first_of(page);
    get(page);
    serve(first, 1, false);
    serve_end(first);
    second = asked_after(first);
    g_free(hear(second));
    say_page(second, 0, true_page ? page : page + 1);
    serve_end(second);
    await(1);
    g_assert_cmpint(got[page].ret, ==, 0);
    if (wants && true_page) {
        g_autofree char *put = g_strdup_printf("ms %s 4096 q ME",
                                               got[page].key);

        line = hear(first);
        g_assert_cmpstr(line, ==, put);
        for (int i = 0; i < sizeof(content); i++) {
            g_assert_cmpint(read(fd[first], &content[i], 1), ==, 1);
            g_assert_cmphex(content[i], ==, i < WSM_PAGE_SIZE ? page :
                                            i == WSM_PAGE_SIZE ? '\r' : '\n');
        }
        serve_end(first);
    } else {
        g_assert_false(wait_readable(fd[first], 50));
    }
    for (int i = 0; i < NODES; i++) {
        close(fd[i]);
    }
    tear_down();
}

static void test_repair(void)
{
    repair(true, true);
    repair(true, false);
    repair(false, true);
}

/* The law: whatever nodes say, who asks gets an answer, and soon */
static void test_random(void)
{
    static const char *const words[] = {
        "VA 4096 O0\r\n", "MN\r\n", "VA 3 O1\r\nabc\r\n", "ERROR\r\n", "x",
        "SERVER_ERROR x\r\n", "NS\r\n", "\r\n",
    };

    for (int round = 0; round < 60; round++) {
        unsigned n = g_test_rand_int_range(1, 100);

        set_up(NODES);
        for (unsigned i = 0; i < n; i++) {
            get(g_test_rand_int_range(0, PAGES));
        }
        for (int i = 0; i < NODES; i++) {
            for (int k = g_test_rand_int_range(0, 4); k > 0; k--) {
                const char *word =
                    words[g_test_rand_int_range(0, ARRAY_SIZE(words))];

                /* It may have closed the connection */
                (void)!send(fd[i], word, strlen(word), MSG_NOSIGNAL);
            }
            if (g_test_rand_bit()) {
                close(fd[i]);
                fd[i] = -1;
            }
        }
        if (g_test_rand_bit()) {
            while (qatomic_load_acquire(&ended) < n) {
                clock_pass_ms(10);
                g_usleep(1000);
            }
        }
        tear_down();
        g_assert_cmpint(ended, ==, n);
        for (int i = 0; i < NODES; i++) {
            close(fd[i]);
        }
    }
}

/*
 * What the user says
 */

static void refuse(const char *expected)
{
    Error *err = NULL;

    g_assert_null(wsm_ring_spec_new(&wanted, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, expected);
    error_free(err);
}

static void test_spec(void)
{
    static WsmRingNodeSpecList many[WSM_RING_MAX_NODES + 1];
    static WsmRingNodeSpec spec[WSM_RING_MAX_NODES + 1];
    g_autofree char *longest = g_strnfill(255, 'n');
    g_autofree char *longer = g_strnfill(256, 'n');
    WsmRingSpec *made;

    wanted = (WsmRing) {};
    refuse("ring: there is no node");
    for (int i = 0; i <= WSM_RING_MAX_NODES; i++) {
        spec[i].address = g_strdup_printf("10.0.0.%d:11211", i);
        many[i].value = &spec[i];
        many[i].next = i < WSM_RING_MAX_NODES ? &many[i + 1] : NULL;
    }
    wanted.nodes = many;
    refuse("ring: there are more than 64 nodes");
    many[WSM_RING_MAX_NODES - 1].next = NULL;
    made = wsm_ring_spec_new(&wanted, &error_abort);
    g_assert_cmpint(made->nodes, ==, WSM_RING_MAX_NODES);
    g_assert_cmpint(made->replicas, ==, 2);
    g_assert_false(made->repair);
    wsm_ring_spec_unref(made);

    many[2].next = NULL;
    wanted.has_replicas = true;
    wanted.replicas = 0;
    refuse("ring: replicas are 1 to 3, not 0");
    wanted.replicas = 4;
    refuse("ring: replicas are 1 to 3, not 4");
    wanted.replicas = 3;
    spec[1].name = spec[0].address;
    refuse("ring: two nodes have the name '10.0.0.0:11211'");
    spec[1].name = (char *)"";
    refuse("ring: the name of a node has 1 to 255 characters, not 0");
    spec[1].name = longer;
    refuse("ring: the name of a node has 1 to 255 characters, not 256");
    spec[1].name = longest;
    wsm_ring_spec_unref(wsm_ring_spec_new(&wanted, &error_abort));
    spec[1].name = (char *)"beta";
    spec[1].address = (char *)"10.0.0.1";
    refuse("ring: node 'beta': error parsing address '10.0.0.1'");
    spec[1].address = (char *)"fd:7";
    refuse("ring: node 'beta' must be HOST:PORT or unix:PATH, not 'fd:7'");
    wanted.tls_creds = (char *)"tls0";
    refuse("ring: 'tls0' is no object with TLS credentials");
    wanted = (WsmRing) {};
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    qcrypto_init(&error_abort);
    qemu_init_main_loop(&error_abort);
    folder = g_dir_make_tmp("wsm-ring-XXXXXX", NULL);
    for (unsigned i = 0; i < PAGES; i++) {
        hash_page(i);
    }
    for (int i = 0; i < NODES; i++) {
        name[i] = g_strdup_printf("node%d", i);
        address[i] = g_strdup_printf("unix:%s/%d", folder, i);
        node_spec[i] = (WsmRingNodeSpec) {
            .name = name[i], .address = address[i],
        };
    }

    g_test_add_func("/wsm/dest-ring/spec", test_spec);
    g_test_add_func("/wsm/dest-ring/good", test_good);
    g_test_add_func("/wsm/dest-ring/replica", test_replica);
    g_test_add_func("/wsm/dest-ring/odd", test_odd);
    g_test_add_func("/wsm/dest-ring/bad", test_bad);
    g_test_add_func("/wsm/dest-ring/twice", test_twice);
    g_test_add_func("/wsm/dest-ring/unasked", test_unasked);
    g_test_add_func("/wsm/dest-ring/broken", test_broken);
    g_test_add_func("/wsm/dest-ring/silent", test_silent);
    g_test_add_func("/wsm/dest-ring/half", test_half);
    g_test_add_func("/wsm/dest-ring/full", test_full);
    g_test_add_func("/wsm/dest-ring/restart", test_restart);
    g_test_add_func("/wsm/dest-ring/torn", test_torn);
    g_test_add_func("/wsm/dest-ring/away", test_away);
    g_test_add_func("/wsm/dest-ring/ends", test_ends);
    g_test_add_func("/wsm/dest-ring/repair", test_repair);
    g_test_add_func("/wsm/dest-ring/random", test_random);
    return g_test_run();
}
