/*
 * Unit tests of memory by reference at the source: migration/wsm/source/
 * memory.c
 *
 * This thread is the loop, and a channel of multifd.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "crypto/init.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "migration/wsm/memory/prints.h"
#include "migration/wsm/source/memory.h"
#include "wsm-origin.h"
#include "wsm-ram.h"
#include "wsm-set.h"

#define BLOCKS          32

static Origin origin;
static OriginDisk disk;
static WsmSourceMemory *m;
static uint8_t salt[WSM_SALT_SIZE] = "salt";
static uint8_t page[WSM_PAGE_SIZE];
static TestRam ram;

/* Nothing of the disk is dirty; the source is not connected */
static void set_up_for(WsmMemoryKind kind)
{
    WsmMemoryKindList *kinds = NULL;

    origin_init(&origin);
    QAPI_LIST_PREPEND(kinds, kind);
    QAPI_LIST_PREPEND(kinds, WSM_MEMORY_KIND_IMAGE);
    origin_set(&origin, memory_references, kinds);
    origin_add_disk(&disk, "vd0", BLOCKS * WSM_PAGE_SIZE);
    origin_start(&origin, 1);
    bdrv_reset_dirty_bitmap(wsm_work_dirty_bitmap(origin.s->work, 0), 0,
                            BLOCKS * WSM_PAGE_SIZE);
    memset(&ram, 0, sizeof(ram));
    m = origin.s->memory;
    g_assert_nonnull(m);
}

static void set_up(void)
{
    set_up_for(WSM_MEMORY_KIND_DISK);
}

static void tear_down(void)
{
    origin_stop(&origin);
    origin_remove_disk(&disk);
    origin_destroy(&origin);
}

/* Content @n of a page */
static const uint8_t *content(unsigned n)
{
    memset(page, n, sizeof(page));
    return page;
}

static void note(unsigned block, unsigned n)
{
    wsm_source_memory_note(m, 0, block * WSM_PAGE_SIZE, WSM_PAGE_SIZE,
                           content(n));
}

/* The block that has content @n, or -1: there is no reference to it */
static int find(unsigned n)
{
    WsmRef ref;

    if (!wsm_source_memory_find(m, test_ram(&ram), 0, content(n), &ref)) {
        return -1;
    }
    g_assert_cmpint(ref.kind, ==, WSM_REF_DISK);
    g_assert_cmpint(ref.disk, ==, 0);
    g_assert_true(wsm_page_has_tag(salt, content(n), ref.tag));
    return ref.block;
}

/* References are made with all that they need, and only then */
static void test_find(void)
{
    set_up();
    note(3, 7);
    g_assert_cmpint(find(7), ==, -1);
    wsm_source_memory_up(m, true);
    g_assert_cmpint(find(7), ==, -1);
    wsm_source_memory_salt(m, salt);
    g_assert_cmpint(find(7), ==, 3);
    g_assert_cmpint(find(8), ==, -1);
    g_assert_true(wsm_source_memory_has_zstd(m));

    /* NACK could not come */
    wsm_source_memory_down(m);
    g_assert_cmpint(find(7), ==, -1);
    wsm_source_memory_up(m, false);
    g_assert_cmpint(find(7), ==, 3);
    g_assert_false(wsm_source_memory_has_zstd(m));

    /* The guest writes: the destination has it as it was, or will have */
    bdrv_set_dirty_bitmap(wsm_work_dirty_bitmap(origin.s->work, 0),
                          3 * WSM_PAGE_SIZE, WSM_PAGE_SIZE);
    g_assert_cmpint(find(7), ==, -1);
    bdrv_reset_dirty_bitmap(wsm_work_dirty_bitmap(origin.s->work, 0),
                            3 * WSM_PAGE_SIZE, WSM_PAGE_SIZE);
    note(3, 8);
    g_assert_cmpint(find(7), ==, -1);
    g_assert_cmpint(find(8), ==, 3);
    wsm_source_memory_note(m, 0, 0, 8 * WSM_PAGE_SIZE, NULL);
    g_assert_cmpint(find(8), ==, -1);

    /* Zeroes are told otherwise */
    note(4, 0);
    g_assert_cmpint(find(0), ==, -1);

    /* The tracking is about to end; a channel of multifd goes on */
    note(5, 9);
    g_assert_cmpint(find(9), ==, 5);
    wsm_source_memory_ref(m);
    tear_down();
    g_assert_cmpint(find(9), ==, -1);
    wsm_source_memory_unref(m);
}

static bool find_template(unsigned n, WsmRef *ref)
{
    return wsm_source_memory_find(m, test_ram(&ram), 0, content(n), ref) &&
           ref->kind == WSM_REF_TEMPLATE &&
           wsm_page_has_tag(salt, content(n), ref->tag);
}

/* A set is used if this kind is on, and what makes a miss known is there */
static void test_templates_used(void)
{
    static const char *const scope[] = { "public" };
    char *file = test_set_write(WSM_SET_INDEX, (uint8_t []) { 7 }, 1);
    WsmTemplates *own = test_templates(1, &file, scope, &error_abort);
    WsmSetDesc desc = { .count = 1, .scope = "public" };
    g_autoptr(GByteArray) said = NULL;
    WsmRef ref;

    memcpy(desc.id, wsm_set_header(wsm_templates_set(own, 0))->id,
           sizeof(desc.id));
    said = wsm_sets_encode(&desc, 1);
    for (int on = 0; on < 2; on++) {
        set_up_for(on ? WSM_MEMORY_KIND_TEMPLATE : WSM_MEMORY_KIND_DISK);
        wsm_source_memory_set_templates(m, own);
        wsm_source_memory_up(m, true);
        wsm_source_memory_salt(m, salt);
        g_assert_false(find_template(7, &ref));
        g_assert_true(wsm_source_memory_sets(m, said->data, said->len,
                                             &error_abort));
        g_assert_cmpint(find_template(7, &ref), ==, on);
        g_assert_false(find_template(8, &ref));
        wsm_source_memory_down(m);
        g_assert_false(find_template(7, &ref));
        tear_down();
    }
    wsm_templates_unref(own);
    test_set_remove(file);
}

static WsmMsg pages(WsmMsgType type, unsigned block, unsigned first,
                    unsigned count)
{
    return (WsmMsg) {
        .type = type, .disk = block, .offset = first * WSM_PAGE_SIZE,
        .bytes = count * WSM_PAGE_SIZE,
    };
}

/* What is found for content @n of page @i: 0, or the kind of the reference */
static unsigned kind(unsigned i, unsigned n)
{
    WsmRef ref;

    if (!wsm_source_memory_find(m, test_ram(&ram), i * WSM_PAGE_SIZE,
                                content(n), &ref)) {
        return 0;
    }
    g_assert_true(wsm_page_has_tag(salt, content(n), ref.tag));
    return ref.kind;
}

static const WsmSeed seed = { .word = { 1, 2, 3, 4, 5, 6, 7, 8 } };

/* At the destination, page @first + i of @name once had content @n + i */
static void digests(const char *name, const WsmSeed *of, unsigned first,
                    unsigned count, unsigned n)
{
    uint8_t prints[8 * WSM_PRINT_SIZE];
    WsmPrints d = { .seed = *of, .buf = prints };
    WsmMsg msg = pages(WSM_MSG_DIGESTS, 0, first, count);
    g_autoptr(GByteArray) payload = NULL;

    for (unsigned i = 0; i < count; i++) {
        stq_be_p(prints + i * WSM_PRINT_SIZE,
                 n + i ? wsm_page_print(of, content(n + i)) : 0);
    }
    g_strlcpy(d.name, name, sizeof(d.name));
    payload = wsm_prints_encode(&d, count);
    msg.length = payload->len;
    g_assert_true(wsm_source_memory_digests(m, &msg, payload->data,
                                            &error_abort));
}

/* What is where it was is told by that place, before a disk is looked at */
static void test_image(void)
{
    static const WsmSeed other = { .word = { 8, 7, 6, 5, 4, 3, 2, 1 } };
    WsmMsg nack = pages(WSM_MSG_NACK, 0, 5, 2);

    set_up();
    test_ram_name(&ram, "ram");
    wsm_source_memory_number(m, test_ram(&ram));
    wsm_source_memory_up(m, true);
    wsm_source_memory_salt(m, salt);
    digests("ram", &seed, 4, 4, 40);
    digests("another", &seed, 0, 4, 50);
    g_assert_cmpint(kind(4, 40), ==, WSM_REF_IMAGE);
    g_assert_cmpint(kind(7, 43), ==, WSM_REF_IMAGE);
    g_assert_cmpint(kind(7, 42), ==, 0);
    g_assert_cmpint(kind(3, 40), ==, 0);
    g_assert_cmpint(kind(8, 44), ==, 0);
    g_assert_cmpint(kind(0, 50), ==, 0);
    note(3, 41);
    note(4, 60);
    g_assert_cmpint(kind(5, 41), ==, WSM_REF_IMAGE);
    g_assert_cmpint(kind(5, 60), ==, WSM_REF_DISK);

    /* What was not found is not looked for there again */
    g_assert_true(wsm_source_memory_nack(m, &nack, &error_abort));
    g_assert_cmpint(kind(4, 40), ==, WSM_REF_IMAGE);
    g_assert_cmpint(kind(5, 41), ==, WSM_REF_DISK);
    g_assert_cmpint(kind(6, 42), ==, 0);
    g_assert_cmpint(kind(7, 43), ==, WSM_REF_IMAGE);

    /* What is beyond our memory is nothing to us; 0 is no print */
    digests("ram", &seed, TEST_RAM_PAGES - 1, 3, 70);
    g_assert_cmpint(kind(TEST_RAM_PAGES - 1, 70), ==, WSM_REF_IMAGE);
    digests("ram", &seed, 4, 1, 0);
    g_assert_cmpint(kind(4, 40), ==, 0);

    /* It is another file now */
    digests("ram", &other, 0, 1, 90);
    g_assert_cmpint(kind(0, 90), ==, WSM_REF_IMAGE);
    g_assert_cmpint(kind(7, 43), ==, 0);

    wsm_source_memory_down(m);
    g_assert_cmpint(kind(0, 90), ==, 0);
    wsm_source_memory_up(m, true);
    g_assert_cmpint(kind(0, 90), ==, WSM_REF_IMAGE);
    /* Nothing else ends with it */
    wsm_source_memory_end(m, WSM_MEMORY_KIND_IMAGE, WSM_MEMORY_WHY_WRONG);
    g_assert_cmpint(kind(0, 90), ==, 0);
    g_assert_cmpint(kind(5, 60), ==, WSM_REF_DISK);
    test_ram_forget();
    tear_down();
}

static void expect_bad(WsmMsg msg, const char *text)
{
    Error *err = NULL;

    g_assert_false(wsm_source_memory_nack(m, &msg, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
}

static void test_nack(void)
{
    WsmMsg nack = pages(WSM_MSG_NACK, 1, 5, 3);
    WsmMsg want = pages(WSM_MSG_WANT, 1, 6, 2);
    g_autoptr(WsmMemoryInfo) info = NULL;
    TestRam other;

    set_up();
    expect_bad(nack, "NACK: no memory of block 1 was sent by reference");
    g_assert_cmpint(wsm_source_memory_number(m, test_ram(&other)), ==, 0);
    g_assert_cmpint(wsm_source_memory_number(m, test_ram(&ram)), ==, 1);
    g_assert_cmpint(wsm_source_memory_number(m, test_ram(&other)), ==, 0);
    g_assert_true(wsm_source_memory_nack(m, &nack, &error_abort));
    for (int i = 0; i < TEST_RAM_PAGES; i++) {
        g_assert_cmpint(ram.dirtied[i], ==, i >= 5 && i < 8);
    }
    expect_bad(pages(WSM_MSG_NACK, 1, TEST_RAM_PAGES - 1, 2),
               "NACK: offset 0x3f000 + bytes 8192 is beyond block 1 of "
               "memory, of 262144 bytes");
    g_assert_true(wsm_source_memory_want(m, &want, &error_abort) ==
                  ram.data[6]);
    info = wsm_source_memory_info(m);
    g_assert_cmpint(info->asked, ==, 2 * WSM_PAGE_SIZE);
    tear_down();
}

/* So many references to a disk go out */
static void sent(unsigned n)
{
    g_autofree WsmRef *refs = g_new0(WsmRef, n);

    for (unsigned i = 0; i < n; i++) {
        refs[i].kind = WSM_REF_DISK;
    }
    wsm_source_memory_sent(m, refs, n, 0, 0);
}

/* STOP: no more references, and the reason is known */
static void test_end(void)
{
    WsmMemoryKindInfoList *last;
    g_autoptr(WsmMemoryInfo) info = NULL;

    set_up();
    wsm_source_memory_up(m, true);
    wsm_source_memory_salt(m, salt);
    note(3, 7);
    wsm_source_memory_end(m, WSM_MEMORY_KIND_TEMPLATE, WSM_MEMORY_WHY_WRONG);
    g_assert_cmpint(find(7), ==, 3);
    g_assert_true(wsm_source_memory_uses(m, WSM_MEMORY_KIND_DISK));
    wsm_source_memory_end(m, WSM_MEMORY_KIND_DISK, WSM_MEMORY_WHY_MISSED);
    wsm_source_memory_end(m, WSM_MEMORY_KIND_DISK, WSM_MEMORY_WHY_MISSED);
    g_assert_cmpint(find(7), ==, -1);
    g_assert_false(wsm_source_memory_uses(m, WSM_MEMORY_KIND_DISK));
    info = wsm_source_memory_info(m);
    g_assert_true(info->kinds->value->has_off);
    g_assert_cmpint(info->kinds->value->off, ==, WSM_MEMORY_WHY_MISSED);
    for (last = info->kinds; last->next; last = last->next) {
        /* go on */
    }
    g_assert_cmpint(last->value->kind, ==, WSM_MEMORY_KIND_TEMPLATE);
    g_assert_cmpint(last->value->off, ==, WSM_MEMORY_WHY_WRONG);
    tear_down();
}

/* DONE, which also says that one was missed */
static void done(WsmMemoryKind kind, uint64_t refs)
{
    WsmMsg msg = {
        .type = WSM_MSG_DONE, .disk = kind, .offset = refs, .bytes = 1,
    };

    wsm_source_memory_done(m, &msg);
}

static void test_behind(void)
{
    g_autoptr(WsmMemoryInfo) info = NULL;

    set_up();
    g_assert_false(wsm_source_memory_is_behind(m));
    sent(1024);
    g_assert_false(wsm_source_memory_is_behind(m));
    sent(1);
    g_assert_true(wsm_source_memory_is_behind(m));
    done(WSM_MEMORY_KIND_DISK, 1);
    g_assert_false(wsm_source_memory_is_behind(m));
    /* What is said again may be older */
    sent(1);
    done(WSM_MEMORY_KIND_DISK, 2);
    done(WSM_MEMORY_KIND_DISK, 1);
    g_assert_false(wsm_source_memory_is_behind(m));
    /* All kinds count */
    sent(1);
    g_assert_true(wsm_source_memory_is_behind(m));
    done(WSM_MEMORY_KIND_TEMPLATE, 1);
    g_assert_false(wsm_source_memory_is_behind(m));
    info = wsm_source_memory_info(m);
    g_assert_cmpint(info->referenced, ==, 1027 * WSM_PAGE_SIZE);
    g_assert_cmpint(info->missed, ==, WSM_PAGE_SIZE);
    g_assert_cmpint(info->kinds->value->kind, ==, WSM_MEMORY_KIND_DISK);
    g_assert_cmpint(info->kinds->value->missed, ==, WSM_PAGE_SIZE);
    /* It is switched on, and counts nothing */
    g_assert_cmpint(info->kinds->next->value->kind, ==,
                    WSM_MEMORY_KIND_IMAGE);
    g_assert_cmpint(info->kinds->next->value->referenced, ==, 0);
    g_assert_null(info->kinds->next->next);
    /* With what is slow few take long, so none may be left */
    wsm_source_memory_end(m, WSM_MEMORY_KIND_TEMPLATE, WSM_MEMORY_WHY_SLOW);
    g_assert_true(wsm_source_memory_is_behind(m));
    done(WSM_MEMORY_KIND_DISK, 1025);
    g_assert_true(wsm_source_memory_is_behind(m));
    done(WSM_MEMORY_KIND_DISK, 1026);
    g_assert_false(wsm_source_memory_is_behind(m));
    tear_down();
}

int main(int argc, char **argv)
{
    origin_init_tests(&argc, &argv);
    qcrypto_init(&error_abort);
    g_test_add_func("/wsm/source-memory/find", test_find);
    g_test_add_func("/wsm/source-memory/templates", test_templates_used);
    g_test_add_func("/wsm/source-memory/image", test_image);
    g_test_add_func("/wsm/source-memory/nack", test_nack);
    g_test_add_func("/wsm/source-memory/end", test_end);
    g_test_add_func("/wsm/source-memory/behind", test_behind);
    return g_test_run();
}
