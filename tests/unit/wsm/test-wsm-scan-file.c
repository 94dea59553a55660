/*
 * Unit tests of migration/wsm/memory/scan-file.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "migration/wsm/memory/scan-file.h"

#define ROUNDS  200

static const QemuUUID guest = { .data = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
                                          12, 13, 14, 15, 16 } };

/* What docs/templates.md says: two prefixes */
static const uint8_t bytes[] = {
    'W', 'S', 'M', '-', 'M', 'E', 'M', '\n', 0, 0, 0, 1, 0, 0, 0, 1,
    0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 5,
    0x80, 0, 0, 0, 0, 0, 0, 1,
};

static void test_bytes(void)
{
    WsmPrefixes *digest = wsm_prefixes_new();
    uint8_t header[WSM_SCAN_HEADER_SIZE];
    g_autoptr(GByteArray) list = NULL;

    wsm_prefixes_add(digest, 0x8000000000000001);
    wsm_prefixes_add(digest, 5);
    wsm_prefixes_add(digest, 0x8000000000000001);
    g_assert_cmpuint(wsm_prefixes_sort(digest), ==, 2);
    wsm_scan_file_encode(WSM_SCAN_FILE_DIGEST, 2, &guest, header);
    list = wsm_prefixes_encode(digest);
    g_assert_cmpmem(header, sizeof(header), bytes, 64);
    g_assert_cmpmem(list->data, list->len, bytes + 64, 16);
    wsm_prefixes_free(digest);

    digest = wsm_prefixes_decode(bytes, sizeof(bytes), &error_abort);
    g_assert_false(wsm_prefixes_take(digest, 4));
    g_assert_false(wsm_prefixes_take(digest, 6));
    g_assert_true(wsm_prefixes_take(digest, 5));
    g_assert_false(wsm_prefixes_take(digest, 5));
    g_assert_true(wsm_prefixes_take(digest, 0x8000000000000001));
    g_assert_false(wsm_prefixes_take(digest, 0x8000000000000001));
    wsm_prefixes_free(digest);
}

static void assert_refused(const uint8_t *buf, size_t size, const char *text)
{
    Error *err = NULL;

    g_assert_null(wsm_prefixes_decode(buf, size, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), text));
    error_free(err);
}

static void test_bad(void)
{
    static const struct {
        size_t at;
        uint8_t byte;
        int more;
        const char *text;
    } bad[] = {
        { 0, 'w', 0, "that this QEMU knows" },
        { 11, 2, 0, "that this QEMU knows" },
        { 15, 2, 0, "that this QEMU knows" },
        { 18, 0, 0, "that this QEMU knows" },
        { 23, 1, 0, "that this QEMU knows" },
        { 63, 1, 0, "that this QEMU knows" },
        { 31, 3, 0, "80 bytes are not a list of 3 pages" },
        { 31, 1, 0, "80 bytes are not a list of 1 pages" },
        { 24, 0x20, 0, "are not a list of" },
        { 0, 'W', -1, "79 bytes are not a list of 2 pages" },
        { 0, 'W', -17, "63 bytes are no list of pages" },
        { 64, 0x90, 0, "entry 1 of the list is not behind the one before" },
        { 72, 0, 0, "entry 1 of the list is not behind the one before" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        uint8_t buf[sizeof(bytes)];

        memcpy(buf, bytes, sizeof(buf));
        buf[bad[i].at] = bad[i].byte;
        if (bad[i].at == 72) {
            buf[79] = 5;        /* the same one twice */
        }
        assert_refused(buf, sizeof(buf) + bad[i].more, bad[i].text);
    }
}

/* Against a hash table */
static void test_random(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        g_autoptr(GHashTable) shadow = g_hash_table_new(g_int64_hash,
                                                        g_int64_equal);
        WsmPrefixes *digest = wsm_prefixes_new(), *again;
        g_autoptr(GByteArray) file = g_byte_array_new(), list = NULL;
        unsigned n = g_test_rand_int_range(0, 300);
        g_autofree uint64_t *value = g_new(uint64_t, n);

        for (unsigned i = 0; i < n; i++) {
            value[i] = (uint64_t)g_test_rand_int_range(0, 100) << 57 |
                       g_test_rand_int_range(0, 4);
            wsm_prefixes_add(digest, value[i]);
            g_hash_table_add(shadow, &value[i]);
        }
        g_assert_cmpuint(wsm_prefixes_sort(digest), ==,
                         g_hash_table_size(shadow));
        list = wsm_prefixes_encode(digest);
        g_byte_array_set_size(file, WSM_SCAN_HEADER_SIZE);
        wsm_scan_file_encode(WSM_SCAN_FILE_DIGEST, list->len / 8, &guest,
                             file->data);
        g_byte_array_append(file, list->data, list->len);
        again = wsm_prefixes_decode(file->data, file->len, &error_abort);
        for (unsigned i = 0; i < n; i++) {
            g_assert_cmpint(wsm_prefixes_take(again, value[i]), ==,
                            g_hash_table_remove(shadow, &value[i]));
        }
        wsm_prefixes_free(digest);
        wsm_prefixes_free(again);
    }
}

static void test_read(void)
{
    g_autofree char *folder = g_dir_make_tmp("wsm-digest-XXXXXX", NULL);
    g_autofree char *file = g_build_filename(folder, "list", NULL);
    WsmPrefixes *digest;
    Error *err = NULL;

    g_assert_true(g_file_set_contents(file, (const char *)bytes,
                                      sizeof(bytes), NULL));
    digest = wsm_prefixes_read(file, &error_abort);
    g_assert_true(wsm_prefixes_take(digest, 5));
    wsm_prefixes_free(digest);
    g_assert_cmpint(truncate(file, 80 + (64LL << 20)), ==, 0);
    g_assert_null(wsm_prefixes_read(file, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "or too large"));
    error_free(err);
    err = NULL;
    unlink(file);
    g_assert_null(wsm_prefixes_read(folder, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "no regular file"));
    error_free(err);
    rmdir(folder);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/scan-file/bytes", test_bytes);
    g_test_add_func("/wsm/scan-file/bad", test_bad);
    g_test_add_func("/wsm/scan-file/random", test_random);
    g_test_add_func("/wsm/scan-file/read", test_read);
    return g_test_run();
}
