/*
 * Unit tests of templates: migration/wsm/memory/templates.c, wire/sets.c and
 * source/templates.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "crypto/init.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "migration/wsm/memory/tag.h"
#include "migration/wsm/source/templates.h"
#include "wsm-set.h"

#define ROUNDS  2000

/* What docs/protocol.md shows */
static const WsmSetDesc shown[] = {
    { .id = "0123456789abcdef0123456789abcde", .count = 3, .scope = "public" },
    { .id = { 0xff }, .count = 4194304, .scope = "x" },
};
static const uint8_t bytes[] =
    "0123456789abcdef0123456789abcde\0"
    "\0\0\0\0\0\0\0\3" "\6" "public"
    "\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    "\0\0\0\0\0\x40\0\0" "\1" "x";
#define SIZE    (sizeof(bytes) - 1)

static void assert_error(Error *err, const char *text)
{
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
}

static void test_bytes(void)
{
    g_autoptr(GByteArray) out = wsm_sets_encode(shown, 2);
    WsmSetDesc desc[WSM_MAX_SETS];
    unsigned n;

    g_assert_cmpmem(out->data, out->len, bytes, SIZE);
    g_assert_true(wsm_sets_decode(bytes, SIZE, desc, &n, &error_abort));
    g_assert_cmpuint(n, ==, 2);
    for (unsigned i = 0; i < n; i++) {
        g_assert_cmpmem(desc[i].id, 32, shown[i].id, 32);
        g_assert_cmpuint(desc[i].count, ==, shown[i].count);
        g_assert_cmpstr(desc[i].scope, ==, shown[i].scope);
    }
}

static void test_bad(void)
{
    static const struct {
        size_t at;
        uint8_t byte;
        int more;
        const char *text;
    } bad[] = {
        { 39, 0, 0, "SETS: set 0: 0 pages are not 1 to 4194304" },
        { 47 + 39, 1, 0, "SETS: set 1: 4194305 pages are not 1 to 4194304" },
        { 32, 0x80, 0, "SETS: set 0: 9223372036854775811 pages are not 1 to "
          "4194304" },
        { 40, 0, 0, "SETS: set 0: its scope is no name" },
        { 41, '/', 0, "SETS: set 0: its scope is no name" },
        { 41, 0, 0, "SETS: set 0: its scope is no name" },
        { 87, 2, 0, "SETS: set 1: 42 bytes are left of it, too few" },
        { 87, 0, 0, "SETS: set 1: its scope is no name" },
        { 0, '0', -1, "SETS: set 1: 41 bytes are left of it, too few" },
        { 0, '0', -2, "SETS: set 1: 40 bytes are left of it, too few" },
        { 0, '0', -41, "SETS: set 1: 1 bytes are left of it, too few" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        WsmSetDesc desc[WSM_MAX_SETS];
        uint8_t buf[SIZE];
        Error *err = NULL;
        unsigned n;

        memcpy(buf, bytes, SIZE);
        buf[bad[i].at] = bad[i].byte;
        g_assert_false(wsm_sets_decode(buf, SIZE + bad[i].more, desc, &n,
                                       &err));
        assert_error(err, bad[i].text);
    }
}

static void test_too_many(void)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    WsmSetDesc desc[WSM_MAX_SETS];
    Error *err = NULL;
    unsigned n;

    for (int i = 0; i < WSM_MAX_SETS; i++) {
        g_byte_array_append(out, bytes, 47);
    }
    g_assert_true(wsm_sets_decode(out->data, out->len, desc, &n,
                                  &error_abort));
    g_assert_cmpuint(n, ==, WSM_MAX_SETS);
    g_byte_array_append(out, bytes, 47);
    g_assert_false(wsm_sets_decode(out->data, out->len, desc, &n, &err));
    assert_error(err, "SETS: more than 16 sets");
}

/* What is taken for good is that, and encodes to the same */
static void test_fuzz(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        size_t size = g_test_rand_int_range(0, SIZE + 1);
        g_autofree uint8_t *buf = g_memdup2(bytes, SIZE), *in = NULL;
        WsmSetDesc desc[WSM_MAX_SETS];
        Error *err = NULL;
        unsigned n;

        for (int i = g_test_rand_int_range(0, 3); i > 0; i--) {
            buf[g_test_rand_int_range(0, SIZE)] = g_test_rand_int();
        }
        /* So that a sanitizer sees what is read beyond it */
        in = g_memdup2(buf, round % 2 ? SIZE : size);
        if (wsm_sets_decode(in, round % 2 ? SIZE : size, desc, &n, &err)) {
            g_autoptr(GByteArray) out = wsm_sets_encode(desc, n);

            g_assert_cmpmem(out->data, out->len, in,
                            round % 2 ? SIZE : size);
        } else {
            error_free(err);
        }
    }
}

static void test_scopes(void)
{
    static const char *const good[] = { "x", "public", "a-b_c.D9" };
    static const char *const bad[] = { "", "a b", "a/b", "\303\244", "\n" };
    g_autofree char *length = g_strnfill(WSM_MAX_SCOPE + 1, 'a');

    for (int i = 0; i < ARRAY_SIZE(good); i++) {
        g_assert_true(wsm_scope_is_good(good[i], strlen(good[i])));
    }
    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_assert_false(wsm_scope_is_good(bad[i], strlen(bad[i])));
    }
    g_assert_false(wsm_scope_is_good(length, WSM_MAX_SCOPE + 1));
    g_assert_true(wsm_scope_is_good(length, WSM_MAX_SCOPE));
}

static void test_open_bad(void)
{
    char *file[WSM_MAX_SETS + 1];
    const char *scope[WSM_MAX_SETS + 1];
    Error *err = NULL;

    for (int i = 0; i <= WSM_MAX_SETS; i++) {
        file[i] = i ? file[0] : test_set_write(WSM_SET_INDEX,
                                               (uint8_t []) { 1 }, 1);
        scope[i] = "x";
    }
    g_assert_null(test_templates(WSM_MAX_SETS + 1, file, scope, &err));
    assert_error(err, "more than 16 sets of templates; build fewer and "
                 "larger ones");
    scope[1] = "a b";
    err = NULL;
    g_assert_null(test_templates(2, file, scope, &err));
    assert_error(err, "scope 'a b' is not 1 to 64 letters, digits, '-', '_' "
                 "and '.'");
    test_set_remove(file[0]);
}

/* The source */

static WsmSourceTemplates *t;

/* The set and number that a page full of @fill is found at, or -1 */
static int find(uint8_t fill)
{
    uint8_t page[WSM_PAGE_SIZE];
    WsmRef ref;

    memset(page, fill, sizeof(page));
    if (!wsm_source_templates_find(t, page, &ref)) {
        return -1;
    }
    g_assert_cmpint(ref.kind, ==, WSM_REF_TEMPLATE);
    return ref.disk * 1000 + ref.block;
}

static WsmSetDesc describe(const WsmTemplates *all, unsigned i)
{
    const WsmSetHeader *h = wsm_set_header(wsm_templates_set(all, i));
    WsmSetDesc desc = { .count = h->count };

    memcpy(desc.id, h->id, sizeof(desc.id));
    pstrcpy(desc.scope, sizeof(desc.scope), wsm_templates_scope(all, i));
    return desc;
}

static bool say(const WsmSetDesc *desc, unsigned n, Error **errp)
{
    g_autoptr(GByteArray) out = wsm_sets_encode(desc, n);

    return wsm_source_templates_said(t, out->data, out->len, errp);
}

/* Only what both have in the same scope, by the number of the other side */
static void test_source(void)
{
    static const uint8_t fill[][3] = { { 1, 2, 3 }, { 4, 5, 6 }, { 7, 8, 9 } };
    static const char *const scope[] = { "public", "acme", "public" };
    char *file[] = {
        test_set_write(WSM_SET_INDEX, fill[0], 3),
        test_set_write(WSM_SET_PAGES, fill[1], 3),
        test_set_write(WSM_SET_LIST, fill[2], 3),
    };
    WsmTemplates *own = test_templates(3, file, scope, &error_abort);
    WsmSetDesc other = { .id = "other", .count = 3, .scope = "public" };
    WsmSetDesc said[] = {
        describe(own, 1), other, describe(own, 2), describe(own, 0),
    };
    Error *err = NULL;

    t = wsm_source_templates_new();
    wsm_source_templates_own(t, own);
    g_assert_cmpint(find(1), ==, -1);
    pstrcpy(said[2].scope, sizeof(said[2].scope), "acme");
    g_assert_true(say(said, 4, &error_abort));
    for (int i = 1; i <= 3; i++) {
        g_assert_cmpint(find(i), ==, 3000 +
                        test_set_number(wsm_templates_set(own, 0), i));
        g_assert_cmpint(find(i + 3), ==,
                        test_set_number(wsm_templates_set(own, 1), i + 3));
        g_assert_cmpint(find(i + 6), ==, -1);
        g_assert_cmpint(find(i + 9), ==, -1);
    }

    /* Again after a break, but never others */
    g_assert_true(say(said, 4, &error_abort));
    g_assert_false(say(said, 3, &err));
    assert_error(err, "SETS: they are others than before");
    err = NULL;
    pstrcpy(said[2].scope, sizeof(said[2].scope), "publ");
    g_assert_false(say(said, 4, &err));
    assert_error(err, "SETS: they are others than before");

    /* The user takes it away from us: who uses it goes on */
    wsm_templates_unref(own);
    for (int i = 0; i < 3; i++) {
        test_set_remove(file[i]);
    }
    g_assert_cmpint(find(4), >=, 0);
    wsm_source_templates_free(t);
}

/* The same ID with another count, and no set of ours at all */
static void test_source_other(void)
{
    static const uint8_t fill[] = { 1, 2 };
    static const char *const scope[] = { "public" };
    char *file = test_set_write(WSM_SET_INDEX, fill, 2);
    WsmTemplates *own = test_templates(1, &file, scope, &error_abort);
    WsmSetDesc desc = describe(own, 0);

    for (int i = 0; i < 3; i++) {
        t = wsm_source_templates_new();
        if (i) {
            wsm_source_templates_own(t, own);
        }
        desc.count = i == 1 ? 3 : 2;
        g_assert_true(say(&desc, 1, &error_abort));
        g_assert_cmpint(find(1) >= 0, ==, i == 2);
        wsm_source_templates_free(t);
    }
    wsm_templates_unref(own);
    test_set_remove(file);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qcrypto_init(&error_abort);
    g_test_add_func("/wsm/templates/bytes", test_bytes);
    g_test_add_func("/wsm/templates/bad", test_bad);
    g_test_add_func("/wsm/templates/too-many", test_too_many);
    g_test_add_func("/wsm/templates/fuzz", test_fuzz);
    g_test_add_func("/wsm/templates/scopes", test_scopes);
    g_test_add_func("/wsm/templates/open-bad", test_open_bad);
    g_test_add_func("/wsm/templates/source", test_source);
    g_test_add_func("/wsm/templates/source-other", test_source_other);
    return g_test_run();
}
