/*
 * Unit tests of memory by reference at the destination: migration/wsm/dest/
 * memory.c and fetch.c
 *
 * This thread is a channel of multifd, and the source on channel 0.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "crypto/init.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "pull-test.h"
#include "wsm-peer.h"
#include "wsm-ram.h"
#include "wsm-set.h"
#include "migration/wsm/dest/fetch.h"
#include "migration/wsm/dest/memory.h"
#include "migration/wsm/memory/prints.h"
#include "migration/wsm/source/keep.h"

#define BLOCKS          64
#define SIZE            (BLOCKS * BLOCK)
#define NUMBER          5               /* of the block of memory */

/* One of the session in which memory was kept */
static WsmPointDesc point = { .id = { .data = "0123456789abcdef" } };
static WsmDiskDesc desc = {
    .name = (char *)"disk", .size = SIZE, .npoints = 1, .point = &point,
};
static WsmStart start = {
    .version = WSM_PROTOCOL_VERSION, .channels = 2, .granularity = BLOCK,
    .ndisks = 1, .disk = &desc,
};

static PullTest t;
static WsmOptionsStore options;
static WsmDestLife life;
static WsmLoop loop;
static WsmDestConns conns;
static WsmDestControl control;
static WsmDestDisks disks;
static WsmDestMemory *memory;
static TestRam ram, before;
static uint8_t salt[WSM_SALT_SIZE];
static unsigned filled;                 /* atomic */
static int fd;                          /* channel 0 */

/* The real ones know all devices, and sync points */
char *wsm_disk_shown_address(const char *address)
{
    return g_strdup(address);
}

static bool coroutine_fn up(void *opaque, WsmDestConn *conn)
{
    g_assert_cmpint(wsm_dest_memory_up(memory, conn), ==, 0);
    wsm_dest_control_up(&control);
    return true;
}

static bool coroutine_fn message(void *opaque, WsmDestConn *conn,
                                 const WsmMsg *msg, Error **errp)
{
    return wsm_dest_on_page(memory, conn, msg, errp);
}

static void failed(void *opaque, Error *err)
{
    error_free(err);
}

static const WsmDestConnOps ops = {
    .up = up, .message = message, .failed = failed,
};

static void complete(void *opaque)
{
}

static void on_filled(void *opaque)
{
    qatomic_inc(&filled);
}

/* The next message but DONE */
static WsmMsg receive(void *payload, size_t max)
{
    WsmMsg msg;

    do {
        msg = peer_recv(fd, &conns, payload, max);
    } while (msg.type == WSM_MSG_DONE);
    return msg;
}

static void expect(WsmMsgType type, unsigned page, unsigned pages)
{
    WsmMsg msg = receive(NULL, 0);

    g_assert_cmpint(msg.type, ==, type);
    g_assert_cmpint(msg.disk, ==, NUMBER);
    g_assert_cmpint(msg.offset, ==, page * BLOCK);
    g_assert_cmpint(msg.bytes, ==, pages * BLOCK);
}

static void nothing_bh(void *opaque)
{
}

/* Channel 0 says first what the tags have in them */
static void connect_urgent(void)
{
    WsmMsg msg;

    fd = peer_open(&conns, 0);
    msg = receive(salt, sizeof(salt));
    g_assert_cmpint(msg.type, ==, WSM_MSG_SALT);
    /* That is seen here before the loop has done with up() */
    aio_wait_bh_oneshot(loop.ctx, nothing_bh, NULL);
}

/*
 * Older memory
 */

static const QemuUUID session = { .data = "0123456789abcdef" };
static char *folder, *file;
static WsmDestKept *kept;

/* Each page of memory, but the first, was full of its number and @add once */
static void keep_memory(unsigned add)
{
    WsmKeep *k;

    for (unsigned i = 1; i < TEST_RAM_PAGES; i++) {
        memset(ram.data[i], i + add, BLOCK);
    }
    k = wsm_keep_start(file, &session);
    while (!wsm_keep_wait(k, 60 * 1000)) {
        /* go on */
    }
    wsm_keep_free(k);
    memset(&ram.data, 0, sizeof(ram.data));
}

static void make_kept(void)
{
    folder = g_dir_make_tmp("wsm-kept-XXXXXX", NULL);
    file = g_strconcat(folder, "/memory", NULL);
    test_ram_name(&ram, "ram");
    keep_memory(100);
}

/* Is the file still there?  Then it goes. */
static void forget_kept(bool is_there)
{
    g_assert_cmpint(unlink(file), ==, is_there ? 0 : -1);
    g_assert_cmpint(rmdir(folder), ==, 0);
    g_clear_pointer(&file, g_free);
    g_clear_pointer(&folder, g_free);
    test_ram_forget();
}

static void open_kept(void)
{
    make_kept();
    kept = wsm_dest_kept_open(file, &start, &loop, &life, &error_abort);
    g_assert_nonnull(kept);
    wsm_dest_memory_set_kept(memory, kept);
}

/* Each block has another content */
static void set_up_with(bool with_kept)
{
    const WsmDisk ours = {
        .name = (char *)"disk", .path = (char *)"/disk",
        .address = (char *)"",
    };

    pull_test_init_disk(&t, SIZE, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                        BLK_PERM_ALL & ~BLK_PERM_WRITE, BDRV_O_RDWR);
    for (int i = 0; i < BLOCKS; i++) {
        memset(t.mem->data + i * BLOCK, i + 1, BLOCK);
    }
    memset(&ram, 0, sizeof(ram));
    before = ram;
    filled = 0;
    wsm_options_init(&options);
    wsm_life_init(&life);
    wsm_loop_init(&loop, "test", &error_abort);
    wsm_dest_conns_init(&conns, &loop, &start, &ops, NULL);
    wsm_dest_control_init(&control, &loop, &conns);
    wsm_dest_disks_init(&disks, &options, NULL, &start, NULL);
    wsm_dest_disks_connect(&disks, &life, &control, complete, NULL);
    wsm_dest_control_start(&control);
    wsm_dest_disks_add(&disks, &ours)->bs = t.bs;
    g_assert_true(wsm_dest_disk_open(&disks.disk[0], t.bs, &error_abort));
    memory = wsm_dest_memory_new(&loop, &disks, &control, on_filled, NULL);
    if (with_kept) {
        open_kept();
    }
    wsm_life_enter(&life, WSM_LIFE_OPEN);
    connect_urgent();
}

static void set_up(void)
{
    set_up_with(false);
}

static void shut_down_bh(void *opaque)
{
    wsm_dest_conns_shutdown(&conns);
}

static void tear_down(void)
{
    close(fd);
    wsm_life_enter(&life, WSM_LIFE_STOPPING);
    wsm_dest_memory_stop(memory);
    wsm_loop_quit(&loop);
    aio_wait_bh_oneshot(loop.ctx, shut_down_bh, NULL);
    wsm_dest_disk_close(&disks.disk[0]);
    wsm_loop_stop(&loop);
    wsm_loop_destroy(&loop);
    if (kept) {
        wsm_dest_kept_close(g_steal_pointer(&kept), true);
        forget_kept(false);
    }
    wsm_dest_memory_unref(memory);
    wsm_dest_disks_destroy(&disks);
    wsm_dest_control_destroy(&control);
    wsm_dest_conns_destroy(&conns);
    wsm_life_destroy(&life);
    pull_test_cleanup(&t);
    wsm_options_destroy(&options);
}

/* The source means @block of the disk, which it believes to be full of @c */
static WsmRef refer(unsigned block, uint8_t c)
{
    WsmRef ref = { .kind = WSM_REF_DISK, .block = block };
    uint8_t page[BLOCK];

    memset(page, c, sizeof(page));
    wsm_page_tag(salt, page, ref.tag);
    return ref;
}

static void resolve(const WsmRef *refs, const ram_addr_t *offset, unsigned n)
{
    WsmPacket packet = { .block = NUMBER, .nrefs = n };

    g_assert_true(wsm_dest_memory_resolve(memory, &packet, refs,
                                          test_ram(&ram), offset,
                                          &error_abort));
}

static void resolve_one(unsigned page, WsmRef ref)
{
    ram_addr_t offset = page * BLOCK;

    resolve(&ref, &offset, 1);
}

static bool is_full_of(const void *page, uint8_t c)
{
    const uint8_t *p = page;

    return *p == c && memcmp(p, p + 1, BLOCK - 1) == 0;
}

static void check_page(unsigned page, uint8_t c)
{
    for (int i = 0; i < BLOCK; i++) {
        g_assert_cmphex(ram.data[page][i], ==, c);
    }
}

static WsmMemoryInfo *info(void)
{
    return wsm_dest_memory_info(memory);
}

static void came(unsigned page, uint8_t c)
{
    ram_addr_t offset = page * BLOCK;

    memset(ram.data[page], c, BLOCK);
    wsm_dest_memory_came(memory, test_ram(&ram), &offset, 1);
}

/* Pages are where they belong, whatever the order of blocks */
static void test_good(void)
{
    static const unsigned block[] = { 9, 3, 10, 3, 63, 11, 0 };
    WsmRef refs[ARRAY_SIZE(block)];
    ram_addr_t offset[ARRAY_SIZE(block)];
    g_autoptr(WsmMemoryInfo) i = NULL;

    set_up();
    for (int n = 0; n < ARRAY_SIZE(block); n++) {
        refs[n] = refer(block[n], block[n] + 1);
        offset[n] = (2 * n + 1) * BLOCK;
    }
    resolve(refs, offset, ARRAY_SIZE(block));
    for (int n = 0; n < ARRAY_SIZE(block); n++) {
        check_page(2 * n, 0);
        check_page(2 * n + 1, block[n] + 1);
        g_assert_true(ram.received[2 * n + 1]);
    }
    i = info();
    g_assert_cmpint(i->referenced, ==, ARRAY_SIZE(block) * BLOCK);
    g_assert_cmpint(i->missed, ==, 0);
    g_assert_false(wsm_dest_memory_want(memory));
    tear_down();
}

/* What is not what was said is not written, and asked for */
static void test_wrong(void)
{
    WsmMsg done;
    g_autoptr(WsmMemoryInfo) i = NULL;

    set_up();
    resolve_one(7, refer(3, 4));
    resolve_one(7, refer(3, 5));
    expect(WSM_MSG_NACK, 7, 1);
    check_page(7, 4);
    resolve_one(8, refer(3, 5));
    expect(WSM_MSG_NACK, 8, 1);
    check_page(8, 0);
    g_assert_false(ram.received[8]);
    i = info();
    g_assert_cmpint(i->wrong, ==, 2 * BLOCK);
    g_assert_cmpint(i->missing, ==, 2 * BLOCK);
    g_assert_cmpint(i->kinds->value->kind, ==, WSM_MEMORY_KIND_DISK);
    g_assert_cmpint(i->kinds->value->referenced, ==, 3 * BLOCK);
    g_assert_cmpint(i->kinds->value->wrong, ==, 2 * BLOCK);
    g_assert_cmpint(i->kinds->value->late, ==, 0);
    g_assert_null(i->kinds->next);

    /* References are dealt with, found or not; again after a break */
    close(fd);
    connect_urgent();
    expect(WSM_MSG_NACK, 7, 2);
    done = peer_recv(fd, &conns, NULL, 0);
    g_assert_cmpint(done.type, ==, WSM_MSG_DONE);
    g_assert_cmpint(done.disk, ==, WSM_MEMORY_KIND_DISK);
    g_assert_cmpint(done.offset, ==, 3);
    g_assert_cmpint(done.bytes, ==, 2);

    /* It comes with its content, or by a reference that is good */
    came(7, 0x77);
    resolve_one(8, refer(4, 5));
    check_page(8, 5);
    qapi_free_WsmMemoryInfo(i);
    i = info();
    g_assert_cmpint(i->missing, ==, 0);
    g_assert_false(wsm_dest_memory_want(memory));
    tear_down();
}

static void test_fail(void)
{
    g_autoptr(WsmMemoryInfo) i = NULL;

    set_up();
    qatomic_set(&t.mem->read_error, -EIO);
    resolve_one(1, refer(3, 4));
    expect(WSM_MSG_NACK, 1, 1);
    qatomic_set(&t.mem->read_error, 0);
    check_page(1, 0);
    i = info();
    g_assert_cmpint(i->missed, ==, BLOCK);
    g_assert_cmpint(i->wrong + i->late, ==, 0);
    tear_down();
}

/* It waits no longer than it may, and what comes later is not used */
static void test_late(void)
{
    g_autoptr(WsmMemoryInfo) i = NULL;

    set_up();
    qatomic_set(&t.mem->hold_reads, true);
    resolve_one(1, refer(3, 4));
    expect(WSM_MSG_NACK, 1, 1);
    came(1, 0x77);
    qatomic_set(&t.mem->hold_reads, false);
    resolve_one(2, refer(3, 4));
    check_page(2, 4);
    check_page(1, 0x77);
    i = info();
    g_assert_cmpint(i->late, ==, BLOCK);
    tear_down();
}

/* Something else than a disk: each page is full of its number plus @opaque's */
static unsigned reads;          /* in the loop */

static int coroutine_fn read_counted(void *opaque, int64_t offset,
                                     int64_t bytes, void *buf)
{
    reads++;
    for (int64_t i = 0; i < bytes; i += BLOCK) {
        memset((uint8_t *)buf + i, *(uint8_t *)opaque + (offset + i) / BLOCK,
               BLOCK);
    }
    return 0;
}

/* Pages come from several things at once; neighbours are read at once */
static void test_fetch(void)
{
    static uint8_t first[] = { 100, 200 };
    WsmFetchPlace place[] = {
        { .read = read_counted, .opaque = &first[0], .offset = 2 * BLOCK },
        { .read = read_counted, .opaque = &first[1], .offset = 6 * BLOCK },
        { },
        { .read = read_counted, .opaque = &first[0], .offset = BLOCK },
        { .offset = BLOCK },
        { .read = read_counted, .opaque = &first[0], .offset = 3 * BLOCK },
        { .read = read_counted, .opaque = &first[0], .offset = 5 * BLOCK },
    };
    static const uint8_t want[] = { 102, 206, 0, 101, 0, 103, 105 };
    const void *content;
    WsmFetch *f;

    set_up();
    reads = 0;
    f = wsm_fetch_start(&loop, place, ARRAY_SIZE(place));
    wsm_fetch_wait(f, 60 * 1000);
    for (int i = 0; i < ARRAY_SIZE(place); i++) {
        g_assert_cmpint(wsm_fetch_get(f, i, &content), ==,
                        want[i] ? WSM_FETCHED_GOOD : WSM_FETCHED_FAIL);
        g_assert_true(!want[i] || is_full_of(content, want[i]));
    }
    g_assert_cmpint(reads, ==, 3);
    wsm_fetch_free(f);
    tear_down();
}

/* References to templates, of two sets; what is not served has no number */
static WsmTemplates *some_templates(char **file)
{
    static const uint8_t fill[][3] = { { 1, 2, 3 }, { 4, 5, 6 }, { 7, 8, 9 } };
    static const char *const scope[] = { "public", "acme", "public" };

    file[0] = test_set_write(WSM_SET_PAGES, fill[0], 3);
    file[1] = test_set_write(WSM_SET_INDEX, fill[1], 3);
    file[2] = test_set_write(WSM_SET_PAGES, fill[2], 3);
    return test_templates(3, file, scope, &error_abort);
}

static WsmRef refer_template(unsigned set, uint64_t number, uint8_t c)
{
    WsmRef ref = refer(number, c);

    ref.kind = WSM_REF_TEMPLATE;
    ref.disk = set;
    return ref;
}

static void refuse_template(unsigned set, uint64_t number, const char *text)
{
    WsmRef ref = refer_template(set, number, 1), out;
    WsmPacket packet = { .block = NUMBER, .nrefs = 1 };
    uint8_t buf[WSM_PACKET_SIZE + WSM_REF_SIZE];
    Error *err = NULL;

    wsm_packet_encode(&packet, &ref, buf);
    g_assert_false(wsm_dest_memory_refs(memory, &packet, buf + WSM_PACKET_SIZE,
                                        &out, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
}

/* SALT, and then which sets there are; also after a break */
static void expect_sets(const WsmTemplates *all)
{
    uint8_t payload[WSM_MAX_SETS * WSM_MAX_SET];
    WsmSetDesc desc[WSM_MAX_SETS];
    unsigned n;
    WsmMsg msg;

    close(fd);
    connect_urgent();
    msg = receive(payload, sizeof(payload));
    g_assert_cmpint(msg.type, ==, WSM_MSG_SETS);
    g_assert_true(wsm_sets_decode(payload, msg.length, desc, &n,
                                  &error_abort));
    g_assert_cmpuint(n, ==, 2);
    for (unsigned i = 0; i < n; i++) {
        const WsmSet *set = wsm_templates_set(all, 2 * i);

        g_assert_cmpmem(desc[i].id, 32, wsm_set_header(set)->id, 32);
        g_assert_cmpuint(desc[i].count, ==, 3);
        g_assert_cmpstr(desc[i].scope, ==, "public");
    }
}

static void damage(const char *file, uint64_t offset, uint8_t byte)
{
    int f = open(file, O_WRONLY);

    g_assert_cmpint(pwrite(f, &byte, 1, offset), ==, 1);
    close(f);
}

/* What a file has is used if it has the tag; what it has not is a hole */
static void test_templates_of(void)
{
    char *file[3];
    WsmTemplates *all = some_templates(file);
    const WsmSet *first = wsm_templates_set(all, 0);
    const WsmSet *second = wsm_templates_set(all, 2);
    g_autoptr(WsmMemoryInfo) i = NULL;
    uint64_t bad;

    set_up();
    refuse_template(0, 0, "reference 0: set 0 of templates is not below the "
                    "number of sets 0");
    wsm_dest_memory_set_templates(memory, all, NULL);
    expect_sets(all);
    refuse_template(2, 0, "reference 0: set 2 of templates is not below the "
                    "number of sets 2");
    refuse_template(1, 3, "reference 0: template 3 is not below the number of "
                    "templates 3 of set 1");

    resolve((WsmRef []) {
                refer_template(1, test_set_number(second, 8), 8),
                refer_template(0, test_set_number(first, 3), 3),
                refer(11, 12),
                refer_template(0, test_set_number(first, 1), 1),
            }, (ram_addr_t []) { BLOCK, 2 * BLOCK, 3 * BLOCK, 0 }, 4);
    check_page(0, 1);
    check_page(1, 8);
    check_page(2, 3);
    check_page(3, 12);
    expect_sets(all);

    /* One byte is another; the file ends there; it is removed */
    bad = test_set_number(first, 2);
    damage(file[0], wsm_set_page_offset(wsm_set_header(first), bad) + 7, 99);
    resolve_one(5, refer_template(0, bad, 2));
    expect(WSM_MSG_NACK, 5, 1);
    check_page(5, 0);
    bad = test_set_number(second, 9);
    g_assert_cmpint(truncate(file[2], wsm_set_page_offset(
                                 wsm_set_header(second), bad) + 1), ==, 0);
    resolve_one(6, refer_template(1, bad, 9));
    expect(WSM_MSG_NACK, 6, 1);
    check_page(6, 0);
    for (int n = 0; n < 3; n++) {
        test_set_remove(file[n]);
    }
    wsm_templates_unref(all);
    resolve_one(5, refer_template(0, test_set_number(first, 1), 1));
    check_page(5, 1);

    i = info();
    g_assert_cmpint(i->kinds->next->value->kind, ==,
                    WSM_MEMORY_KIND_TEMPLATE);
    g_assert_cmpint(i->kinds->next->value->referenced, ==, 6 * BLOCK);
    g_assert_cmpint(i->kinds->next->value->missed, ==, 2 * BLOCK);
    g_assert_cmpint(i->kinds->next->value->wrong, ==, BLOCK);
    tear_down();
}

/* The destination ends while a channel waits, and before it asks */
static void *end(void *opaque)
{
    resolve_one(1, refer(3, 4));
    return NULL;
}

static void test_ends(void)
{
    QemuThread thread;

    set_up();
    qatomic_set(&t.mem->hold_reads, true);
    qemu_thread_create(&thread, "multifd", end, NULL, QEMU_THREAD_JOINABLE);
    expect(WSM_MSG_NACK, 1, 1);
    wsm_dest_memory_stop(memory);
    resolve_one(2, refer(3, 4));
    check_page(2, 0);
    qatomic_set(&t.mem->hold_reads, false);
    qemu_thread_join(&thread);
    tear_down();
}

/* The source means older memory, of the same place, that it says is @c */
static WsmRef refer_image(uint8_t c)
{
    WsmRef ref = refer(0, c);

    ref.kind = WSM_REF_IMAGE;
    return ref;
}

/* DIGESTS say what there was, on each connection */
static void expect_digests(void)
{
    uint8_t payload[1024], page[BLOCK];
    WsmMsg msg = receive(payload, sizeof(payload));
    WsmPrints digests;

    g_assert_cmpint(msg.type, ==, WSM_MSG_DIGESTS);
    g_assert_cmpint(msg.offset, ==, 0);
    g_assert_cmpint(msg.bytes, ==, TEST_RAM_PAGES * BLOCK);
    g_assert_true(wsm_prints_decode(&msg, payload, &digests, &error_abort));
    g_assert_cmpstr(digests.name, ==, "ram");
    g_assert_cmphex(wsm_prints_at(&digests, 0), ==, 0);
    for (unsigned i = 1; i < TEST_RAM_PAGES; i++) {
        memset(page, i + 100, sizeof(page));
        g_assert_cmphex(wsm_prints_at(&digests, i), ==,
                        wsm_page_print(&digests.seed, page));
    }
}

static void test_image(void)
{
    WsmRef refs[3];
    ram_addr_t offset[] = { 8 * BLOCK, 3 * BLOCK, 4 * BLOCK };
    g_autoptr(WsmMemoryInfo) i = NULL;

    set_up_with(true);
    expect_digests();
    refs[0] = refer_image(108);
    refs[1] = refer(9, 10);
    refs[2] = refer_image(104);
    resolve(refs, offset, 3);
    check_page(8, 108);
    check_page(3, 10);
    check_page(4, 104);
    i = info();
    g_assert_cmpint(i->missed, ==, 0);

    /* Another content, or none */
    resolve_one(9, refer_image(110));
    expect(WSM_MSG_NACK, 9, 1);
    resolve_one(0, refer_image(100));
    expect(WSM_MSG_NACK, 0, 1);
    check_page(9, 0);
    check_page(0, 0);

    close(fd);
    connect_urgent();
    expect(WSM_MSG_NACK, 0, 1);
    expect(WSM_MSG_NACK, 9, 1);
    expect_digests();

    /* The file is shorter all of a sudden */
    g_assert_cmpint(truncate(file, 4096 + 5 * BLOCK), ==, 0);
    resolve_one(40, refer_image(140));
    expect(WSM_MSG_NACK, 40, 1);
    resolve_one(5, refer_image(105));
    expect(WSM_MSG_NACK, 5, 1);
    resolve_one(2, refer_image(102));
    check_page(2, 102);
    tear_down();
}

/* Without older memory such a reference is a hole; no DIGESTS are said */
static void test_no_image(void)
{
    set_up();
    resolve_one(5, refer_image(105));
    expect(WSM_MSG_NACK, 5, 1);
    check_page(5, 0);
    tear_down();
}

/* None are said in the freeze, and none after the end */
static void test_image_frozen(void)
{
    set_up_with(true);
    expect_digests();
    close(fd);
    wsm_life_enter(&life, WSM_LIFE_SEALED);
    connect_urgent();
    resolve_one(9, refer_image(110));
    expect(WSM_MSG_NACK, 9, 1);
    tear_down();
}

static void expect_no_kept(const WsmStart *of, const char *text)
{
    Error *err = NULL;

    g_assert_null(wsm_dest_kept_open(file, of, &loop, &life, &err));
    if (text) {
        g_assert_nonnull(strstr(error_get_pretty(err), text));
        error_free(err);
    } else {
        g_assert_null(err);
    }
}

static WsmDestKept *reopen(const WsmStart *of)
{
    return wsm_dest_kept_open(file, of, &loop, &life, &error_abort);
}

static void put_file(const char *text, size_t size)
{
    g_assert_true(g_file_set_contents(file, text, size, NULL));
}

/* Only a whole file of this guest is used */
static void test_kept_open(void)
{
    WsmPointDesc theirs = { .id = session };
    WsmDiskDesc other = { .name = (char *)"disk", .npoints = 1,
                          .point = &theirs };
    WsmStart stranger = start;
    g_autofree char *text = NULL;
    size_t size;

    set_up();
    make_kept();
    stranger.disk = &other;
    theirs.id.data[3] ^= 1;
    expect_no_kept(&stranger, "it is the memory of another guest, or too old");
    theirs.id = session;
    theirs.id.data[15] ^= 1;
    wsm_dest_kept_close(reopen(&stranger), false);

    g_assert_true(g_file_get_contents(file, &text, &size, NULL));
    put_file(text, size - 1);
    expect_no_kept(&start, "and not");
    put_file(text, 100);
    expect_no_kept(&start, "cannot read it");
    put_file(text, 130);
    expect_no_kept(&start, "cannot read it");
    g_assert_cmpint(unlink(file), ==, 0);
    expect_no_kept(&start, NULL);
    g_assert_cmpint(mkfifo(file, 0600), ==, 0);
    expect_no_kept(&start, "it is no regular file");
    g_assert_cmpint(unlink(file), ==, 0);
    put_file(text, size);
    forget_kept(true);
    tear_down();
}

/* It is removed when it is out of date, but no newer one in its place */
static void test_kept_remove(void)
{
    g_autofree char *text = NULL;
    WsmDestKept *k;
    size_t size;

    set_up();
    make_kept();
    g_assert_true(g_file_get_contents(file, &text, &size, NULL));
    wsm_dest_kept_close(reopen(&start), true);
    expect_no_kept(&start, NULL);
    put_file(text, size);
    k = reopen(&start);
    put_file(text, size);
    wsm_dest_kept_close(k, true);
    wsm_dest_kept_close(reopen(&start), false);
    forget_kept(true);
    tear_down();
}

static void send_page(unsigned page, unsigned pages, uint8_t c)
{
    g_autofree uint8_t *data = g_malloc(pages * BLOCK);
    WsmMsg msg = {
        .type = WSM_MSG_PAGE, .epoch = 1, .disk = NUMBER,
        .offset = page * BLOCK, .bytes = pages * BLOCK,
        .length = pages * BLOCK,
    };

    memset(data, c, pages * BLOCK);
    peer_send(fd, &msg, data);
}

/* A connection that breaks tells us that all before was done */
static void wait_closed(void)
{
    char byte;

    while (read(fd, &byte, 1) == 1) {
        /* DONE, perhaps */
    }
}

/* What is missing at the freeze is asked for; nothing else is written */
static void test_want(void)
{
    static const unsigned pages[] = { 4, 5, 20 };

    set_up();
    for (int i = 0; i < ARRAY_SIZE(pages); i++) {
        resolve_one(pages[i], refer(3, 5));
        expect(WSM_MSG_NACK, pages[i], 1);
    }
    g_assert_true(wsm_dest_memory_want(memory));
    expect(WSM_MSG_WANT, 4, 2);
    expect(WSM_MSG_WANT, 20, 1);
    send_page(3, 3, 0x33);
    /* Channel 0 breaks: what is left is asked for once more */
    close(fd);
    connect_urgent();
    for (;;) {
        WsmMsg msg = receive(NULL, 0);

        g_assert_cmpint(msg.type, ==, WSM_MSG_WANT);
        if (msg.offset == 20 * BLOCK) {
            break;
        }
    }
    g_assert_cmpint(qatomic_read(&filled), ==, 0);
    send_page(4, 2, 0x33);
    send_page(20, 1, 0x33);
    /* It is here now; again, it changes nothing */
    send_page(20, 1, 0x44);
    send_page(63, 2, 0x44);
    wait_closed();
    g_assert_cmpint(qatomic_read(&filled), ==, 1);
    check_page(3, 0);
    check_page(4, 0x33);
    check_page(5, 0x33);
    check_page(6, 0);
    check_page(20, 0x33);
    tear_down();
}

static void test_bad_want(void)
{
    WsmPacket packet = { .block = NUMBER, .nrefs = 1 };
    ram_addr_t offset = 0;
    Error *err = NULL;
    TestRam other;
    WsmRef ref;

    set_up();
    ref = refer(3, 5);
    resolve_one(1, ref);
    expect(WSM_MSG_NACK, 1, 1);
    g_assert_false(wsm_dest_memory_resolve(memory, &packet, &ref,
                                           test_ram(&other), &offset, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "number 5 is that of two blocks of memory");
    error_free(err);
    err = NULL;
    g_assert_true(wsm_dest_memory_want(memory));
    g_assert_false(wsm_dest_memory_resolve(memory, &packet, &ref,
                                           test_ram(&ram), &offset, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "memory comes after all was loaded");
    error_free(err);
    tear_down();
}

static void expect_stop(WsmMemoryWhy why)
{
    WsmMsg msg;

    do {
        msg = receive(NULL, 0);
    } while (msg.type == WSM_MSG_NACK);
    g_assert_cmpint(msg.type, ==, WSM_MSG_STOP);
    g_assert_cmpint(msg.disk, ==, WSM_MEMORY_KIND_DISK);
    g_assert_cmpint(msg.offset, ==, why);
}

/* What has another content too often is not wanted any more; said once */
static void test_stop_wrong(void)
{
    g_autoptr(WsmMemoryInfo) i = NULL;

    set_up();
    for (int n = 0; n < 65; n++) {
        i = info();
        g_assert_cmpint(i->kinds && i->kinds->value->has_off, ==, n == 64);
        g_clear_pointer(&i, qapi_free_WsmMemoryInfo);
        resolve_one(n % TEST_RAM_PAGES, refer(3, 5));
    }
    expect_stop(WSM_MEMORY_WHY_WRONG);
    came(0, 1);
    resolve_one(1, refer(3, 4));
    resolve_one(0, refer(3, 5));
    expect(WSM_MSG_NACK, 0, 1);
    /* Again after a break */
    close(fd);
    connect_urgent();
    expect_stop(WSM_MEMORY_WHY_WRONG);
    tear_down();
}

/* The link is faster than the disk, as @came has shown */
static void check_stop_slow(void (*came)(uint64_t bytes))
{
    set_up();
    came(1);
    qatomic_set(&t.mem->hold_reads, true);
    resolve_one(1, refer(3, 4));
    qatomic_set(&t.mem->hold_reads, false);
    for (int n = 0; n < 1100; n++) {
        resolve_one(n % TEST_RAM_PAGES, refer(3, 4));
        if (n == 1024) {
            /* As long as nobody knows what the link takes, nothing is slow */
            g_autoptr(WsmMemoryInfo) i = info();

            g_assert_false(i->kinds->value->has_off);
            came(1ULL << 38);
        }
    }
    for (int n = 0; n < 1024; n++) {
        resolve_one(n % TEST_RAM_PAGES, refer(3, 4));
    }
    expect_stop(WSM_MEMORY_WHY_SLOW);
    /* The source need not heed that, but this */
    for (int n = 0; n < 64; n++) {
        resolve_one(n % TEST_RAM_PAGES, refer(3, 5));
    }
    expect_stop(WSM_MEMORY_WHY_WRONG);
    tear_down();
}

static void came_for_disk(uint64_t bytes)
{
    wsm_dest_memory_link(memory, bytes);
}

static void came_of_memory(uint64_t bytes)
{
    wsm_dest_memory_count(memory, bytes / WSM_PAGE_SIZE, bytes);
}

static void test_stop_slow(void)
{
    check_stop_slow(came_for_disk);
}

/* The disks are on shared storage, or have hardly changed */
static void test_stop_slow_without_disks(void)
{
    check_stop_slow(came_of_memory);
}

static void send_last(unsigned page, unsigned pages, const uint8_t *last)
{
    for (unsigned i = page; i < page + pages; i++) {
        send_page(i, 1, last[i]);
    }
}

/*
 * The law: whatever was sent by reference or with content, found or not, what
 * the destination has at the end is what was sent last
 */
static void test_random(void)
{
    static uint8_t last[TEST_RAM_PAGES];
    unsigned wrong = 0;

    for (int round = 0; round < 20; round++) {
        set_up();
        memset(last, 0, sizeof(last));
        for (int i = 0; i < 200; i++) {
            unsigned page = g_test_rand_int_range(0, TEST_RAM_PAGES);
            unsigned block = g_test_rand_int_range(0, BLOCKS);

            last[page] = g_test_rand_int_range(0, 3) ? block + 1 : 0xff;
            if (g_test_rand_int_range(0, 3)) {
                resolve_one(page, refer(block, last[page]));
                wrong += last[page] != block + 1;
            } else {
                came(page, last[page]);
            }
        }
        g_autoptr(WsmMemoryInfo) i = info();

        g_assert_cmpint(wsm_dest_memory_want(memory), ==, !!i->missing);
        for (unsigned left = i->missing; left;) {
            WsmMsg msg = receive(NULL, 0);

            if (msg.type == WSM_MSG_WANT) {
                /* READY must wait for all of them */
                g_assert_cmpint(qatomic_read(&filled), ==, 0);
                send_last(msg.offset / BLOCK, msg.bytes / BLOCK, last);
                left -= msg.bytes;
            }
        }
        while (i->missing && !qatomic_read(&filled)) {
            g_usleep(1000);
        }
        for (int page = 0; page < TEST_RAM_PAGES; page++) {
            check_page(page, last[page]);
        }
        tear_down();
    }
    g_assert_cmpint(wrong, >, 100);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    bdrv_init();
    qcrypto_init(&error_abort);
    qemu_init_main_loop(&error_abort);

    g_test_add_func("/wsm/dest-memory/good", test_good);
    g_test_add_func("/wsm/dest-memory/wrong", test_wrong);
    g_test_add_func("/wsm/dest-memory/fail", test_fail);
    g_test_add_func("/wsm/dest-memory/late", test_late);
    g_test_add_func("/wsm/dest-memory/fetch", test_fetch);
    g_test_add_func("/wsm/dest-memory/templates", test_templates_of);
    g_test_add_func("/wsm/dest-memory/image", test_image);
    g_test_add_func("/wsm/dest-memory/no-image", test_no_image);
    g_test_add_func("/wsm/dest-memory/image-frozen", test_image_frozen);
    g_test_add_func("/wsm/dest-memory/kept-open", test_kept_open);
    g_test_add_func("/wsm/dest-memory/kept-remove", test_kept_remove);
    g_test_add_func("/wsm/dest-memory/ends", test_ends);
    g_test_add_func("/wsm/dest-memory/want", test_want);
    g_test_add_func("/wsm/dest-memory/bad-want", test_bad_want);
    g_test_add_func("/wsm/dest-memory/stop-wrong", test_stop_wrong);
    g_test_add_func("/wsm/dest-memory/stop-slow", test_stop_slow);
    g_test_add_func("/wsm/dest-memory/stop-slow-without-disks",
                    test_stop_slow_without_disks);
    g_test_add_func("/wsm/dest-memory/random", test_random);
    return g_test_run();
}
