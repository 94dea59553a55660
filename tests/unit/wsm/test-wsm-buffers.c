/*
 * Unit tests of migration/wsm/link/buffers.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "migration/wsm/link/buffers.h"

#define HELD                    40      /* more than are ever kept */
#define ROUNDS                  10000

typedef struct Held {
    uint8_t *buf;
    size_t size;
    uint8_t mark;
} Held;

static const size_t sizes[] = {
    1, 512, 4 * KiB, 256 * KiB - 512, 256 * KiB, 256 * KiB + 512, 1 * MiB,
    1 * MiB + 512, 3 * MiB,
};

/* What one holds is not given to another, and is as long as was wanted */
static void held_check(const Held *h)
{
    g_assert_cmpint(h->buf[0], ==, h->mark);
    g_assert_cmpint(h->buf[h->size / 2], ==, h->mark);
    g_assert_cmpint(h->buf[h->size - 1], ==, h->mark);
}

static void held_get(WsmBuffers *b, Held *h, size_t size, uint8_t mark)
{
    *h = (Held) {
        .buf = wsm_buffers_get(b, size), .size = size, .mark = mark,
    };
    g_assert_true(QEMU_PTR_IS_ALIGNED(h->buf, qemu_real_host_page_size()));
    h->buf[0] = h->buf[size / 2] = h->buf[size - 1] = mark;
}

static void held_put(WsmBuffers *b, Held *h)
{
    held_check(h);
    wsm_buffers_put(b, h->buf, h->size);
    h->buf = NULL;
}

/* Gets and puts of all sizes in any order */
static void test_any_order(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    Held held[HELD] = {};
    WsmBuffers b;

    wsm_buffers_init(&b);
    for (int i = 0; i < ROUNDS; i++) {
        Held *h = &held[g_rand_int_range(rand, 0, HELD)];

        if (h->buf) {
            held_put(&b, h);
        } else {
            held_get(&b, h, sizes[g_rand_int_range(rand, 0,
                                                   ARRAY_SIZE(sizes))],
                     g_rand_int(rand));
        }
    }
    for (int i = 0; i < HELD; i++) {
        if (held[i].buf) {
            held_put(&b, &held[i]);
        }
    }
    wsm_buffers_destroy(&b);
}

/* One that was put back is the next that is given, whatever its size */
static void test_used_again(void)
{
    WsmBuffers b;
    void *first;

    wsm_buffers_init(&b);
    first = wsm_buffers_get(&b, 256 * KiB);
    wsm_buffers_put(&b, first, 256 * KiB);
    g_assert_true(wsm_buffers_get(&b, 1 * MiB) == first);
    wsm_buffers_put(&b, first, 1 * MiB);
    wsm_buffers_put(&b, NULL, 1 * MiB);
    wsm_buffers_destroy(&b);
}

/* Memory is not kept without bound */
static void test_few_are_kept(void)
{
    Held held[HELD];
    WsmBuffers b;

    wsm_buffers_init(&b);
    for (int i = 0; i < HELD; i++) {
        held_get(&b, &held[i], 1 * MiB, i);
    }
    for (int i = 0; i < HELD; i++) {
        held_put(&b, &held[i]);
    }
    g_assert_cmpint(b.spare->len, >, 0);
    g_assert_cmpint(b.spare->len, <=, 8);
    wsm_buffers_destroy(&b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/buffers/any-order", test_any_order);
    g_test_add_func("/wsm/buffers/used-again", test_used_again);
    g_test_add_func("/wsm/buffers/few-are-kept", test_few_are_kept);
    return g_test_run();
}
