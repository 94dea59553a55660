/*
 * For unit tests: files of sets of templates
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "crypto/hash.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "migration/wsm/memory/tag.h"
#include "wsm-set.h"

typedef struct Entry {
    uint8_t hash[WSM_HASH_SIZE];
    uint8_t fill;
} Entry;

static void hash_of(uint8_t fill, uint8_t *hash)
{
    uint8_t page[WSM_PAGE_SIZE];

    memset(page, fill, sizeof(page));
    wsm_page_hash(page, hash);
}

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, WSM_HASH_SIZE);
}

static void pad(GByteArray *set)
{
    while (set->len % WSM_PAGE_SIZE) {
        g_byte_array_append(set, (uint8_t []) { 0 }, 1);
    }
}

static GByteArray *make(WsmSetKind kind, const Entry *entry, unsigned n)
{
    GByteArray *set = g_byte_array_new(), *list = g_byte_array_new();
    uint8_t head[64] = "WSM-SET\n", *id = head + 32;
    size_t size = WSM_HASH_SIZE;

    for (unsigned i = 0; i < n; i++) {
        g_byte_array_append(list, entry[i].hash, WSM_HASH_SIZE);
    }
    stl_be_p(head + 8, 1);
    stl_be_p(head + 12, kind);
    stl_be_p(head + 16, WSM_PAGE_SIZE);
    stq_be_p(head + 24, n);
    qcrypto_hash_bytes(QCRYPTO_HASH_ALGO_SHA256, (char *)list->data,
                       list->len, &id, &size, &error_abort);
    g_byte_array_append(set, head, sizeof(head));
    pad(set);
    for (unsigned i = 0; i < n; i++) {
        g_byte_array_append(set, entry[i].hash, kind == WSM_SET_INDEX
                                                ? 8 : WSM_HASH_SIZE);
    }
    pad(set);
    for (unsigned i = 0; kind == WSM_SET_PAGES && i < n; i++) {
        uint8_t page[WSM_PAGE_SIZE];

        memset(page, entry[i].fill, sizeof(page));
        g_byte_array_append(set, page, sizeof(page));
    }
    g_byte_array_unref(list);
    return set;
}

char *test_set_write(WsmSetKind kind, const uint8_t *fill, unsigned n)
{
    g_autofree Entry *entry = g_new0(Entry, n);
    g_autoptr(GByteArray) set = NULL;
    char *file;
    int fd = g_file_open_tmp("wsm-set-XXXXXX", &file, NULL);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    for (unsigned i = 0; i < n; i++) {
        entry[i].fill = fill[i];
        hash_of(fill[i], entry[i].hash);
    }
    qsort(entry, n, sizeof(entry[0]), compare);
    set = make(kind, entry, n);
    g_assert_true(g_file_set_contents(file, (char *)set->data, set->len,
                                      NULL));
    return file;
}

void test_set_remove(char *file)
{
    unlink(file);
    g_free(file);
}

uint64_t test_set_number(const WsmSet *set, uint8_t fill)
{
    uint8_t hash[WSM_HASH_SIZE];
    uint64_t number;

    hash_of(fill, hash);
    g_assert_true(wsm_set_find(set, wsm_set_prefix(hash), &number));
    return number;
}

WsmTemplates *test_templates(unsigned n, char *const *file,
                             const char *const *scope, Error **errp)
{
    WsmTemplateSetList *sets = NULL;
    WsmTemplates *t;

    while (n-- > 0) {
        WsmTemplateSet *set = g_new0(WsmTemplateSet, 1);

        set->file = g_strdup(file[n]);
        set->scope = g_strdup(scope[n]);
        QAPI_LIST_PREPEND(sets, set);
    }
    t = wsm_templates_open(sets, errp);
    qapi_free_WsmTemplateSetList(sets);
    return t;
}
