/*
 * Unit tests of migration/wsm/core/options.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/core/options.h"

/* The numbers: where they are in WsmOptions, default, range */
static const struct {
    WsmOption option;
    const char *name;
    size_t has, value;
    int64_t normal, min, max;
} numbers[] = {
#define NUMBER(option, name, member, normal, min, max)          \
    { option, name, offsetof(WsmOptions, has_##member),         \
      offsetof(WsmOptions, member), normal, min, max }
    NUMBER(WSM_OPT_CHANNELS, "channels", channels, 2, 1, 16),
    NUMBER(WSM_OPT_GRANULARITY, "granularity", granularity, 4096, 4096,
           1048576),
    NUMBER(WSM_OPT_BANDWIDTH, "bandwidth", bandwidth, 0, 0, INT64_MAX),
    NUMBER(WSM_OPT_MAX_RESIDUE, "max-residue", max_residue, 1000, 0, 1000000),
    NUMBER(WSM_OPT_SWITCHOVER_TIMEOUT, "switchover-timeout",
           switchover_timeout, 10000, 1, 1000000),
    NUMBER(WSM_OPT_SYNC_POINTS, "sync-points", sync_points, 8, 0, 64),
    NUMBER(WSM_OPT_COMPARE_BANDWIDTH, "compare-bandwidth", compare_bandwidth,
           0, 0, INT64_MAX),
    NUMBER(WSM_OPT_PUSH_DELAY, "x-push-delay", x_push_delay, 0, 0, 1000000),
#undef NUMBER
};

/* All members are 64 bits wide; only the sign differs */
static WsmOptions with(unsigned i, int64_t value)
{
    WsmOptions o = {};

    *(bool *)((char *)&o + numbers[i].has) = true;
    *(int64_t *)((char *)&o + numbers[i].value) = value;
    return o;
}

/* All numbers are @expected[], each in its place */
static void check_numbers(WsmOptionsStore *store, const int64_t *expected)
{
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++) {
        g_assert_cmpint(wsm_option(store, numbers[i].option), ==,
                        expected[i]);
    }
}

static void test_numbers(void)
{
    int64_t expected[ARRAY_SIZE(numbers)];
    WsmOptionsStore store;

    wsm_options_init(&store);
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++) {
        expected[i] = numbers[i].normal;
    }
    check_numbers(&store, expected);
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++) {
        WsmOptions o = with(i, 100 + i);

        wsm_options_set(&store, &o);
        expected[i] = 100 + i;
        check_numbers(&store, expected);
    }
    wsm_options_destroy(&store);
}

/* What is not mentioned stays */
static void test_switches(void)
{
    WsmOptions adaptive = { .has_memory_adaptive = true };
    WsmOptions pack = { .has_x_memory_pack = true };
    WsmOptionsStore store;

    wsm_options_init(&store);
    g_assert_cmpint(wsm_option(&store, WSM_OPT_MEMORY_ADAPTIVE), ==, 1);
    g_assert_cmpint(wsm_option(&store, WSM_OPT_MEMORY_PACK), ==, 1);
    wsm_options_set(&store, &adaptive);
    g_assert_cmpint(wsm_option(&store, WSM_OPT_MEMORY_ADAPTIVE), ==, 0);
    g_assert_cmpint(wsm_option(&store, WSM_OPT_MEMORY_PACK), ==, 1);
    wsm_options_set(&store, &pack);
    g_assert_cmpint(wsm_option(&store, WSM_OPT_MEMORY_ADAPTIVE), ==, 0);
    g_assert_cmpint(wsm_option(&store, WSM_OPT_MEMORY_PACK), ==, 0);
    wsm_options_destroy(&store);
}

static void check(unsigned i, int64_t value, bool good)
{
    WsmOptions o = with(i, value);
    Error *err = NULL;

    g_assert_cmpint(wsm_options_check(&o, &err), ==, good);
    if (!good) {
        g_autofree char *text = g_strdup_printf("%" PRId64, value);

        g_assert_nonnull(strstr(error_get_pretty(err), numbers[i].name));
        g_assert_nonnull(strstr(error_get_pretty(err), text));
        error_free(err);
    }
}

static void test_ranges(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++) {
        check(i, numbers[i].min, true);
        check(i, numbers[i].max, true);
        check(i, numbers[i].min - 1, false);
        check(i, (uint64_t)numbers[i].max + 1, false);
    }
    check(1, 65536, true);
    check(1, 65536 + 4096, false);      /* no power of two */
}

static void test_absent(void)
{
    WsmOptions nothing = {};

    g_assert_true(wsm_options_check(&nothing, &error_abort));
}

static strList *names(const char *name)
{
    strList *l = NULL;

    QAPI_LIST_PREPEND(l, g_strdup(name));
    return l;
}

static WsmBasisWishList *wishes(const char *disk, WsmBasisKind kind)
{
    WsmBasisWish *wish = g_new0(WsmBasisWish, 1);
    WsmBasisWishList *l = NULL;

    wish->disk = g_strdup(disk);
    wish->kind = kind;
    QAPI_LIST_PREPEND(l, wish);
    return l;
}

static WsmMemoryKindList *kinds(void)
{
    WsmMemoryKindList *l = NULL;

    QAPI_LIST_PREPEND(l, WSM_MEMORY_KIND_TEMPLATE);
    QAPI_LIST_PREPEND(l, WSM_MEMORY_KIND_DISK);
    return l;
}

/* Lists go from the caller into the store; nobody else has them then */
static void test_lists(void)
{
    WsmOptions new = {
        .has_disks = true, .disks = names("vd0"),
        .has_basis = true, .basis = wishes("vd1", WSM_BASIS_KIND_FULL),
        .has_memory_references = true, .memory_references = kinds(),
    };
    WsmOptions nothing = {};
    WsmOptions none = {
        .has_disks = true, .has_basis = true, .has_memory_references = true,
    };
    WsmOptions *copy;
    WsmOptionsStore store;

    wsm_options_init(&store);
    g_assert_cmpint(wsm_option(&store, WSM_OPT_MEMORY_REFERENCES), ==, 0);
    wsm_options_set(&store, &new);
    g_assert_null(new.disks);
    g_assert_null(new.basis);
    g_assert_null(new.memory_references);

    wsm_options_set(&store, &nothing);
    g_assert_cmpint(wsm_option(&store, WSM_OPT_MEMORY_REFERENCES), ==,
                    1 << WSM_MEMORY_KIND_DISK | 1 << WSM_MEMORY_KIND_TEMPLATE);
    copy = wsm_options_get(&store);
    wsm_options_set(&store, &none);
    g_assert_null(store.options->disks);
    g_assert_null(store.options->basis);
    g_assert_cmpint(wsm_option(&store, WSM_OPT_MEMORY_REFERENCES), ==, 0);

    g_assert_cmpstr(copy->disks->value, ==, "vd0");
    g_assert_null(copy->disks->next);
    g_assert_cmpstr(copy->basis->value->disk, ==, "vd1");
    g_assert_cmpint(copy->basis->value->kind, ==, WSM_BASIS_KIND_FULL);
    g_assert_cmpint(copy->memory_references->value, ==, WSM_MEMORY_KIND_DISK);
    g_assert_cmpint(copy->max_residue, ==, 1000);
    qapi_free_WsmOptions(copy);
    wsm_options_destroy(&store);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/options/numbers", test_numbers);
    g_test_add_func("/wsm/options/switches", test_switches);
    g_test_add_func("/wsm/options/ranges", test_ranges);
    g_test_add_func("/wsm/options/absent", test_absent);
    g_test_add_func("/wsm/options/lists", test_lists);
    return g_test_run();
}
