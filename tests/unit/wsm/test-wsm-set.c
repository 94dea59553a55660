/*
 * Unit tests of migration/wsm/memory/set.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "crypto/hash.h"
#include "crypto/init.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "migration/wsm/memory/set.h"

#define COUNT   3000            /* the list takes more than one read */
#define ROUNDS  300

/* The shadow: what each page has, by its number, and its hash */
typedef struct Page {
    uint8_t hash[WSM_HASH_SIZE];
    uint32_t seed;
} Page;

static Page page[COUNT];
static char *folder;

static void fill(uint32_t seed, uint8_t *buf)
{
    for (int i = 0; i < WSM_PAGE_SIZE; i += 4) {
        seed = seed * 1664525 + 1013904223;
        stl_le_p(buf + i, seed);
    }
}

static void sha256(const void *buf, size_t size, uint8_t *hash)
{
    uint8_t *out = hash;
    size_t out_size = WSM_HASH_SIZE;

    qcrypto_hash_bytes(QCRYPTO_HASH_ALGO_SHA256, buf, size, &out, &out_size,
                       &error_abort);
}

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, WSM_HASH_SIZE);
}

static void make_pages(void)
{
    uint8_t buf[WSM_PAGE_SIZE];

    for (int i = 0; i < COUNT; i++) {
        page[i].seed = i;
        fill(i, buf);
        sha256(buf, sizeof(buf), page[i].hash);
    }
    qsort(page, COUNT, sizeof(page[0]), compare);
}

/* As docs/templates.md has it, and not as set.c */
static GByteArray *make_set(WsmSetKind kind, uint64_t count)
{
    GByteArray *set = g_byte_array_new();
    g_autoptr(GByteArray) list = g_byte_array_new();
    uint8_t buf[WSM_PAGE_SIZE];

    for (uint64_t i = 0; i < count; i++) {
        g_byte_array_append(list, page[i].hash, WSM_HASH_SIZE);
    }
    g_byte_array_set_size(set, 4096);
    memset(set->data, 0, 4096);
    memcpy(set->data, "WSM-SET\n", 8);
    stl_be_p(set->data + 8, 1);
    stl_be_p(set->data + 12, kind);
    stl_be_p(set->data + 16, 4096);
    stq_be_p(set->data + 24, count);
    sha256(list->data, list->len, set->data + 32);
    for (uint64_t i = 0; i < count; i++) {
        g_byte_array_append(set, page[i].hash,
                            kind == WSM_SET_INDEX ? 8 : WSM_HASH_SIZE);
    }
    while (set->len % 4096) {
        g_byte_array_append(set, (uint8_t []) { 0 }, 1);
    }
    for (uint64_t i = 0; kind == WSM_SET_PAGES && i < count; i++) {
        fill(page[i].seed, buf);
        g_byte_array_append(set, buf, sizeof(buf));
    }
    return set;
}

static char *write_set(const GByteArray *set)
{
    char *file = g_build_filename(folder, "set", NULL);

    g_assert_true(g_file_set_contents(file, (char *)set->data, set->len,
                                      NULL));
    return file;
}

static WsmSet *open_set(const GByteArray *bytes, Error **errp)
{
    g_autofree char *file = write_set(bytes);

    return wsm_set_open(file, errp);
}

/* The files of a set: what they find and have, against the shadow */
static void test_kinds(void)
{
    for (WsmSetKind kind = WSM_SET_PAGES; kind < WSM_SET__MAX; kind++) {
        g_autoptr(GByteArray) bytes = make_set(kind, COUNT);
        WsmSet *set = open_set(bytes, &error_abort);
        uint8_t buf[WSM_PAGE_SIZE], good[WSM_PAGE_SIZE];
        uint64_t number;

        g_assert_cmpint(wsm_set_header(set)->kind, ==, kind);
        g_assert_cmpuint(wsm_set_header(set)->count, ==, COUNT);
        g_assert_cmpint(wsm_set_is_servable(set, true), ==,
                        kind != WSM_SET_INDEX);
        g_assert_cmpint(wsm_set_is_servable(set, false), ==,
                        kind == WSM_SET_PAGES);
        g_assert_cmpmem(wsm_set_header(set)->id, WSM_HASH_SIZE,
                        bytes->data + 32, WSM_HASH_SIZE);
        for (int i = 0; i < COUNT; i++) {
            uint64_t prefix = wsm_set_prefix(page[i].hash);

            g_assert_true(wsm_set_find(set, prefix, &number));
            g_assert_cmpuint(number, ==, i);
            g_assert_false(wsm_set_find(set, prefix + 1, &number));
            g_assert_false(wsm_set_find(set, prefix - 1, &number));

            g_assert_cmpint(wsm_set_read_hash(set, i, buf), ==,
                            kind == WSM_SET_INDEX ? -ENOTSUP : 0);
            if (kind != WSM_SET_INDEX) {
                g_assert_cmpmem(buf, WSM_HASH_SIZE, page[i].hash,
                                WSM_HASH_SIZE);
            }
            g_assert_cmpint(wsm_set_read_pages(set, i, 1, buf), ==,
                            kind == WSM_SET_PAGES ? 0 : -ENOTSUP);
            if (kind == WSM_SET_PAGES) {
                fill(page[i].seed, good);
                g_assert_cmpmem(buf, sizeof(buf), good, sizeof(good));
            }
        }
        g_assert_false(wsm_set_find(set, 0, &number));
        g_assert_false(wsm_set_find(set, UINT64_MAX, &number));
        wsm_set_free(set);
    }
}

/* One page, and as many as fill the list's last block exactly, or do not */
static void test_sizes(void)
{
    static const uint64_t count[] = { 1, 127, 128, 129, 512, 2048, 2049 };

    for (WsmSetKind kind = WSM_SET_PAGES; kind < WSM_SET__MAX; kind++) {
        for (int i = 0; i < ARRAY_SIZE(count); i++) {
            g_autoptr(GByteArray) bytes = make_set(kind, count[i]);
            uint64_t last = wsm_set_prefix(page[count[i] - 1].hash), number;
            WsmSet *set = open_set(bytes, &error_abort);

            g_assert_true(wsm_set_find(set, last, &number));
            g_assert_cmpuint(number, ==, count[i] - 1);
            wsm_set_free(set);
        }
    }
}

/* The file changes under us: that is an error or another page, no more */
static void test_changes(void)
{
    g_autoptr(GByteArray) bytes = make_set(WSM_SET_PAGES, 10);
    g_autofree char *file = write_set(bytes);
    WsmSet *set = wsm_set_open(file, &error_abort);
    uint64_t second = wsm_set_page_offset(wsm_set_header(set), 1);
    uint8_t buf[3 * WSM_PAGE_SIZE];

    g_assert_cmpstr(wsm_set_file(set), ==, file);
    g_assert_cmpint(wsm_set_read_pages(set, 7, 3, buf), ==, 0);
    g_assert_cmpmem(buf, sizeof(buf), bytes->data + bytes->len - sizeof(buf),
                    sizeof(buf));
    g_assert_cmpint(truncate(file, second + 1), ==, 0);
    g_assert_cmpint(wsm_set_read_pages(set, 0, 1, buf), ==, 0);
    g_assert_cmpint(wsm_set_read_pages(set, 1, 1, buf), ==, -ENODATA);
    g_assert_cmpint(wsm_set_read_pages(set, 9, 1, buf), ==, -ENODATA);
    g_assert_cmpint(wsm_set_read_hash(set, 9, buf), ==, 0);
    g_assert_cmpint(unlink(file), ==, 0);
    g_assert_cmpint(wsm_set_read_pages(set, 0, 1, buf), ==, 0);
    wsm_set_free(set);
}

static void assert_refused(const GByteArray *bytes, const char *text)
{
    g_autofree char *file = write_set(bytes);
    g_autofree char *said = g_strdup_printf("set of templates '%s': %s", file,
                                            text);
    Error *err = NULL;

    g_assert_null(wsm_set_open(file, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, said);
    error_free(err);
}

static void test_bad_header(void)
{
    static const struct {
        size_t at;
        uint8_t byte;
        const char *text;
    } bad[] = {
        { 0, 'w', "it is no set of templates" },
        { 7, 0, "it is no set of templates" },
        { 11, 2, "version 2 is not 1" },
        { 15, 0, "kind 0 is unknown" },
        { 15, 4, "kind 4 is unknown" },
        { 12, 0xff, "kind 4278190081 is unknown" },
        { 18, 0x20, "its pages have 8192 bytes, and not 4096" },
        { 23, 1, "what is reserved in its header is not 0" },
        { 64, 1, "what is reserved in its header is not 0" },
        { 4095, 1, "what is reserved in its header is not 0" },
        { 31, 0, "0 pages are not 1 to 4194304" },
        { 29, 0x40, "4194307 pages are not 1 to 4194304" },
        { 24, 0xff, "18374686479671623683 pages are not 1 to 4194304" },
        { 31, 4, "20480 bytes are not the 24576 that 4 pages take" },
        { 31, 2, "20480 bytes are not the 16384 that 2 pages take" },
        { 15, 2, "20480 bytes are not the 8192 that 3 pages take" },
    };
    static const size_t id[] = { 32, 63, 4096 + 8, 4096 + 31 };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(GByteArray) bytes = make_set(WSM_SET_PAGES, 3);

        bytes->data[bad[i].at] = bad[i].byte;
        assert_refused(bytes, bad[i].text);
    }
    for (int i = 0; i < ARRAY_SIZE(id); i++) {
        g_autoptr(GByteArray) bytes = make_set(WSM_SET_LIST, 3);

        bytes->data[id[i]] ^= 1;
        assert_refused(bytes, "its ID is not that of its list");
    }
}

/* It ends early, or late: with each size up to the right one and beyond */
static void test_truncated(void)
{
    for (WsmSetKind kind = WSM_SET_PAGES; kind < WSM_SET__MAX; kind++) {
        g_autoptr(GByteArray) bytes = make_set(kind, 2);
        unsigned good = bytes->len;

        g_byte_array_append(bytes, (uint8_t []) { 0 }, 1);
        for (unsigned size = good + 1; size > 0; size--) {
            g_autofree char *text = size < 4096
                ? g_strdup_printf("%u bytes are no set of templates", size)
                : g_strdup_printf("%u bytes are not the %u that 2 pages take",
                                  size, good);

            /* Each size beside the header's and the good one, of others some */
            if (size != good &&
                (size % 509 == 0 || size < 100 || size > good - 3 ||
                 (size > 4090 && size < 4200))) {
                g_byte_array_set_size(bytes, size);
                assert_refused(bytes, text);
            }
        }
    }
}

/* Two entries change places, or are the same, or begin alike */
static void test_unsorted(void)
{
    static const int place[] = { 1, 2, 2048, COUNT - 1 };

    for (WsmSetKind kind = WSM_SET_PAGES; kind < WSM_SET__MAX; kind++) {
        int size = kind == WSM_SET_INDEX ? 8 : WSM_HASH_SIZE;

        for (int i = 0; i < ARRAY_SIZE(place); i++) {
            g_autoptr(GByteArray) bytes = make_set(kind, COUNT);
            int at = place[i];
            uint8_t *second = bytes->data + 4096 + at * size;
            g_autofree char *text = g_strdup_printf(
                "entry %d of its list is not behind the one before", at);

            memcpy(second, second - size, i == 3 ? 8 : size);
            sha256(bytes->data + 4096, COUNT * size, bytes->data + 32);
            assert_refused(bytes, text);
            memset(second, 0, 8);
            sha256(bytes->data + 4096, COUNT * size, bytes->data + 32);
            assert_refused(bytes, text);
        }
    }
}

static void assert_no_set(const char *file, const char *text)
{
    Error *err = NULL;

    g_assert_null(wsm_set_open(file, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), text));
    error_free(err);
}

static void test_no_file(void)
{
    g_autofree char *fifo = g_build_filename(folder, "fifo", NULL);
    g_autoptr(GByteArray) empty = g_byte_array_new();

    assert_no_set("/no/such/file", "No such file");
    assert_no_set(folder, "it is no regular file");
    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    assert_no_set(fifo, "it is no regular file");
    unlink(fifo);
    assert_refused(empty, "0 bytes are no set of templates");
}

/* Whatever the bytes are: an error, or a set that can be used */
static void test_fuzz(void)
{
    unsigned opened = 0;

    for (int round = 0; round < ROUNDS; round++) {
        WsmSetKind kind = g_test_rand_int_range(WSM_SET_PAGES, WSM_SET__MAX);
        g_autoptr(GByteArray) bytes = make_set(kind, 5);
        uint8_t buf[WSM_PAGE_SIZE];
        uint64_t number;
        Error *err = NULL;
        WsmSet *set;

        for (int n = g_test_rand_int_range(0, 4); n > 0; n--) {
            unsigned range = n % 2 ? 72 : bytes->len;

            bytes->data[g_test_rand_int_range(0, range)] = g_test_rand_int();
        }
        if (g_test_rand_int_range(0, 8) == 0) {
            g_byte_array_set_size(bytes,
                                  g_test_rand_int_range(0, bytes->len + 1));
        }
        set = open_set(bytes, &err);
        if (!set) {
            g_assert_nonnull(err);
            error_free(err);
            continue;
        }
        opened++;
        for (uint64_t i = 0; i < wsm_set_header(set)->count; i++) {
            wsm_set_find(set, wsm_set_prefix(page[i].hash), &number);
            g_assert_cmpuint(number, <=, wsm_set_header(set)->count);
            wsm_set_read_hash(set, i, buf);
            wsm_set_read_pages(set, i, 1, buf);
        }
        wsm_set_free(set);
    }
    g_assert_cmpuint(opened, >, ROUNDS / 10);
}

int main(int argc, char **argv)
{
    g_autofree char *file = NULL;
    int ret;

    g_test_init(&argc, &argv, NULL);
    qcrypto_init(&error_abort);
    folder = g_dir_make_tmp("wsm-set-XXXXXX", NULL);
    file = g_build_filename(folder, "set", NULL);
    make_pages();
    g_test_add_func("/wsm/set/kinds", test_kinds);
    g_test_add_func("/wsm/set/sizes", test_sizes);
    g_test_add_func("/wsm/set/changes", test_changes);
    g_test_add_func("/wsm/set/bad-header", test_bad_header);
    g_test_add_func("/wsm/set/truncated", test_truncated);
    g_test_add_func("/wsm/set/unsorted", test_unsorted);
    g_test_add_func("/wsm/set/no-file", test_no_file);
    g_test_add_func("/wsm/set/fuzz", test_fuzz);
    ret = g_test_run();
    unlink(file);
    rmdir(folder);
    g_free(folder);
    return ret;
}
