/*
 * Unit tests of migration/wsm/memory/ring.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/memory/ring.h"

/*
 * Who keeps what
 */

static void hash_of(const char *text, uint8_t *hash)
{
    gsize size = WSM_HASH_SIZE;
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);

    g_checksum_update(sum, (const uint8_t *)text, strlen(text));
    g_checksum_get_digest(sum, hash, &size);
}

static void check_vector(const char *names, const char *text, const char *key,
                         const char *expected)
{
    g_auto(GStrv) name = g_strsplit(names, " ", 0);
    g_autoptr(GString) chosen = g_string_new(NULL);
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_autofree char *request = g_strdup_printf("mg %s v q O5\r\n", key);
    unsigned choice[WSM_RING_MAX_REPLICAS], n;
    uint64_t seed[WSM_RING_MAX_NODES];
    uint8_t hash[WSM_HASH_SIZE];

    for (n = 0; name[n]; n++) {
        seed[n] = wsm_ring_seed(name[n]);
    }
    hash_of(text, hash);
    n = wsm_ring_choose(seed, n, hash, choice, WSM_RING_MAX_REPLICAS);
    for (unsigned i = 0; i < n; i++) {
        g_string_append_printf(chosen, i ? " %u" : "%u", choice[i]);
    }
    g_assert_cmpstr(chosen->str, ==, expected);

    g_assert_cmpint(strlen(key), ==, WSM_RING_KEY_SIZE);
    wsm_ring_encode_get(hash, 5, out);
    g_assert_cmpmem(out->data, out->len, request, strlen(request));
}

static void test_vectors(void)
{
#define WSM_RING_VECTOR(names, text, key, expected)     \
    check_vector(names, text, key, expected);
#include "wsm-ring-vectors.h"
}

#define NODES           8
#define PAGES           20000

/* All keep about as much; a node that goes changes only what it had kept */
static void test_shares(void)
{
    unsigned share[NODES] = {}, all[3], rest[3];
    uint64_t seed[NODES];

    for (int i = 0; i < NODES; i++) {
        g_autofree char *name = g_strdup_printf("10.0.0.%d:11211", i);

        seed[i] = wsm_ring_seed(name);
    }
    for (int i = 0; i < PAGES; i++) {
        g_autofree char *text = g_strdup_printf("%d", i);
        uint8_t hash[WSM_HASH_SIZE];
        unsigned n = 0;

        hash_of(text, hash);
        g_assert_cmpint(wsm_ring_choose(seed, NODES, hash, all, 3), ==, 3);
        g_assert_cmpint(wsm_ring_choose(seed, NODES - 1, hash, rest, 2), ==,
                        2);
        for (int k = 0; k < 3; k++) {
            share[all[k]]++;
            g_assert_true(all[k] != all[(k + 1) % 3]);
            if (all[k] != NODES - 1 && n < 2) {
                g_assert_cmpint(all[k], ==, rest[n++]);
            }
        }
    }
    for (int i = 0; i < NODES; i++) {
        g_assert_cmpint(share[i], >, PAGES * 3 / NODES * 9 / 10);
        g_assert_cmpint(share[i], <, PAGES * 3 / NODES * 11 / 10);
    }
    g_assert_cmpint(wsm_ring_choose(seed, 2, (uint8_t[WSM_HASH_SIZE]) {}, all,
                                    3), ==, 2);
    g_assert_cmpint(wsm_ring_choose(seed, 0, (uint8_t[WSM_HASH_SIZE]) {}, all,
                                    3), ==, 0);
}

static void test_encode(void)
{
    static const uint8_t hash[WSM_HASH_SIZE] = { 0xff, 0xff, 0xff };
    static const char put[] =
        "ms ////AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= 4096 q ME\r\n";
    g_autoptr(GByteArray) out = g_byte_array_new();
    uint8_t page[WSM_PAGE_SIZE];

    memset(page, 'p', sizeof(page));
    wsm_ring_encode_put(hash, page, out);
    g_assert_cmpmem(out->data, strlen(put), put, strlen(put));
    g_assert_cmpmem(out->data + strlen(put), WSM_PAGE_SIZE, page,
                    sizeof(page));
    g_assert_cmpmem(out->data + strlen(put) + WSM_PAGE_SIZE,
                    out->len - strlen(put) - WSM_PAGE_SIZE, "\r\n", 2);
    g_byte_array_set_size(out, 0);
    wsm_ring_encode_end(out);
    g_assert_cmpmem(out->data, out->len, "mn\r\n", 4);
}

/*
 * What is answered
 */

/* What must come of it: a letter, and of a page its index and what it is of */
static void add_event(GString *events, const WsmRingParser *p,
                      WsmRingAnswer answer)
{
    switch (answer) {
    case WSM_RING_PAGE:
        for (int i = 1; i < WSM_PAGE_SIZE; i++) {
            g_assert_cmphex(p->page[i], ==, p->page[0]);
        }
        g_string_append_printf(events, "P%u:%02x ", p->index, p->page[0]);
        break;
    case WSM_RING_ODD:
        g_string_append(events, "odd ");
        break;
    case WSM_RING_END:
        g_string_append(events, "end ");
        break;
    case WSM_RING_BAD:
        g_string_append(events, "bad");
        break;
    case WSM_RING_MORE:
        break;
    }
}

/*
 * The events of @bytes, in pieces of at most @piece; each is of its own size,
 * so that a sanitizer sees each overrun
 */
static char *events_of(const GByteArray *bytes, size_t piece)
{
    GString *events = g_string_new(NULL);
    WsmRingParser *p = g_new(WsmRingParser, 1);
    WsmRingAnswer answer = WSM_RING_MORE;

    wsm_ring_parser_init(p);
    for (size_t at = 0; at < bytes->len && answer != WSM_RING_BAD;) {
        size_t left = MIN(piece, bytes->len - at);
        g_autofree uint8_t *copy = g_memdup2(bytes->data + at, left);
        const uint8_t *buf = copy;

        at += left;
        while (left && answer != WSM_RING_BAD) {
            const uint8_t *before = buf;

            answer = wsm_ring_parse(p, &buf, &left);
            g_assert_true(buf > before);
            g_assert_true(answer != WSM_RING_MORE || !left);
            add_event(events, p, answer);
        }
    }
    g_free(p);
    return g_string_free(events, false);
}

static void add_text(GByteArray *out, const char *text)
{
    g_byte_array_append(out, (const uint8_t *)text, strlen(text));
}

static void add_value(GByteArray *out, size_t size, const char *flags,
                      uint8_t c)
{
    g_autofree char *line = g_strdup_printf("VA %zu%s\r\n", size, flags);
    g_autofree uint8_t *value = g_malloc(size + 1);

    memset(value, c, size);
    add_text(out, line);
    g_byte_array_append(out, value, size);
    add_text(out, "\r\n");
}

static void expect_bytes(const GByteArray *bytes, const char *expected)
{
    static const size_t pieces[] = { 1, 2, 3, 7, 4096, 65536 };

    for (int i = 0; i < ARRAY_SIZE(pieces); i++) {
        g_autofree char *events = events_of(bytes, pieces[i]);

        g_assert_cmpstr(events, ==, expected);
    }
}

static void expect_text(const char *text, const char *expected)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    add_text(bytes, text);
    expect_bytes(bytes, expected);
}

/* What real nodes say */
static void test_good(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    add_value(bytes, WSM_PAGE_SIZE, " O12", 0x41);
    add_value(bytes, WSM_PAGE_SIZE, " f0 O0 kabc", '\r');
    add_value(bytes, WSM_PAGE_SIZE - 1, " O1", '\n');
    add_value(bytes, WSM_PAGE_SIZE + 1, " O1", 0);
    add_value(bytes, 0, " O1", 0);
    add_value(bytes, MiB, " O1", 0x42);
    add_text(bytes, "MN\r\nNS\r\nSERVER_ERROR out of memory\r\nMN\r\n");
    add_value(bytes, WSM_PAGE_SIZE, " O127", 'M');
    expect_bytes(bytes, "P12:41 P0:0d odd odd odd odd end odd end P127:4d ");
}

/* Each piece of it may end anywhere */
static void test_split(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    add_value(bytes, WSM_PAGE_SIZE, " O7", 0x5a);
    add_text(bytes, "MN\r\n");
    for (size_t i = 1; i < bytes->len; i++) {
        g_autofree char *events = events_of(bytes, i);

        g_assert_cmpstr(events, ==, "P7:5a end ");
    }
}

static void test_bad(void)
{
    static const char *const bad[] = {
        "\r\n", "\n", "MN\n", "MNx\n", "\rMN\r\n", "MN \r\n", "mn\r\n",
        "ERROR\r\n",
        "CLIENT_ERROR bad command line format\r\n", "HD\r\n", "EN\r\n",
        "SERVER_ERROR\r\n", "VALUE key 0 4096\r\n", "VA\r\n", "VA \r\n",
        "VA 4096\r\n", "VA 4096 \r\n", "VA 4096 O\r\n", "VA 4096 Ox\r\n",
        "VA 4096 O128\r\n", "VA 4096 O-1\r\n", "VA 4096 O 1\r\n",
        "VA 4096 O1x\r\n", "VA 4096O1\r\n", "VA  4096 O1\r\n",
        "VA +4096 O1\r\n", "VA -1 O1\r\n", "VA 0x10 O1\r\n",
        "VA 1048577 O1\r\n", "VA 4294967296 O1\r\n",
        "VA 18446744073709551616 O1\r\n", "VA 4096 O4294967296\r\n",
        "VA 4096 O18446744073709551616\r\n", "VA 1 O1\r\nab\r\n",
        "VA 1 O1\r\na\n", "VA 1 O1\r\na\r\r", "VA 0 O1\r\nMN\r\n",
    };
    g_autofree char *longest = g_strnfill(WSM_RING_MAX_LINE - 14, 'x');
    g_autofree char *odd = g_strdup_printf("SERVER_ERROR %s\r\n", longest);
    g_autofree char *longer = g_strdup_printf("SERVER_ERROR %sx\r\n", longest);
    g_autofree char *endless = g_strnfill(2 * WSM_RING_MAX_LINE, 'M');
    g_autoptr(GByteArray) zero = g_byte_array_new();

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        expect_text(bad[i], "bad");
    }
    expect_text(odd, "odd ");
    expect_text(longer, "bad");
    expect_text(endless, "bad");
    g_byte_array_append(zero, (const uint8_t *)"MN\0\r\n", 5);
    expect_bytes(zero, "bad");
    expect_text("MN", "");
    expect_text("MN\r", "");
}

/* Against a shadow: what was put together is what is found, however split */
static void test_random(void)
{
    for (int round = 0; round < 300; round++) {
        g_autoptr(GByteArray) bytes = g_byte_array_new();
        g_autoptr(GString) expected = g_string_new(NULL);
        g_autofree char *events = NULL;
        unsigned n = g_test_rand_int_range(1, 12);

        for (unsigned i = 0; i < n; i++) {
            unsigned index = g_test_rand_int_range(0, WSM_PACKET_PAGES);
            g_autofree char *flags = g_strdup_printf(" O%u", index);
            uint8_t c = g_test_rand_int();

            switch (g_test_rand_int_range(0, 5)) {
            case 0:
                add_text(bytes, "MN\r\n");
                g_string_append(expected, "end ");
                break;
            case 1:
                add_text(bytes, "NS\r\n");
                break;
            case 2:
                add_value(bytes, g_test_rand_int_range(0, WSM_PAGE_SIZE),
                          flags, c);
                g_string_append(expected, "odd ");
                break;
            default:
                add_value(bytes, WSM_PAGE_SIZE, flags, c);
                g_string_append_printf(expected, "P%u:%02x ", index, c);
            }
        }
        events = events_of(bytes, g_test_rand_int_range(1, 9000));
        g_assert_cmpstr(events, ==, expected->str);
    }
}

/* Bytes of all kinds, most of them near to what is good */
static void test_noise(void)
{
    static const char *const words[] = {
        "VA ", "4096", " O", "12", "\r", "\n", "\r\n", "MN\r\n", "0", "x",
        "SERVER_ERROR ", "NS\r\n", "1048576", " ",
    };

    for (int round = 0; round < 20000; round++) {
        g_autoptr(GByteArray) bytes = g_byte_array_new();
        g_autofree char *once = NULL, *pieces = NULL;

        for (int i = g_test_rand_int_range(1, 20); i > 0; i--) {
            add_text(bytes, words[g_test_rand_int_range(0,
                                                        ARRAY_SIZE(words))]);
        }
        if (g_test_rand_bit()) {
            bytes->data[g_test_rand_int_range(0, bytes->len)] =
                g_test_rand_int();
        }
        once = events_of(bytes, bytes->len);
        pieces = events_of(bytes, g_test_rand_int_range(1, 5));
        g_assert_cmpstr(once, ==, pieces);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/wsm/ring/vectors", test_vectors);
    g_test_add_func("/wsm/ring/shares", test_shares);
    g_test_add_func("/wsm/ring/encode", test_encode);
    g_test_add_func("/wsm/ring/good", test_good);
    g_test_add_func("/wsm/ring/split", test_split);
    g_test_add_func("/wsm/ring/bad", test_bad);
    g_test_add_func("/wsm/ring/random", test_random);
    g_test_add_func("/wsm/ring/noise", test_noise);
    return g_test_run();
}
