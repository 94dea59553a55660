/*
 * Unit tests of migration/wsm/memory/kept.c and prints.c, and of
 * migration/wsm/source/keep.c, which writes such a file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/resource.h>
#include <glib/gstdio.h>
#include "crypto/init.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "migration/wsm/memory/kept.h"
#include "migration/wsm/memory/prints.h"
#include "migration/wsm/memory/scan-file.h"
#include "migration/wsm/source/keep.h"
#include "wsm-ram.h"
#include "wsm-warnings.h"

static const QemuUUID session = { .data = "0123456789abcdef" };

static WsmKept sample(void)
{
    WsmKept kept = { .session = session };

    for (int i = 0; i < WSM_SEED_WORDS; i++) {
        kept.seed.word[i] = i + 1;
    }
    wsm_kept_add(&kept, "pc.ram", 3);
    wsm_kept_add(&kept, "/rom@etc", 1);
    return kept;
}

static bool decode(const uint8_t *buf, uint64_t size, WsmKept *kept,
                   Error **errp)
{
    return wsm_kept_decode(buf, kept, errp) &&
           wsm_kept_decode_table(buf + WSM_KEPT_HEADER_SIZE, size, kept, errp);
}

/* What docs/protocol.md shows */
static void test_bytes(void)
{
    WsmKept kept = sample(), again;
    g_autoptr(GByteArray) head = wsm_kept_encode(&kept);
    static const uint8_t begin[] = {
        'W', 'S', 'M', '-', 'K', 'E', 'P', 'T', 0, 0, 0, 1, 0, 0, 0, 2,
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd',
        'e', 'f', 0, 0, 0, 0, 0, 0, 0, 1,
    };
    static const uint8_t entry[] = {
        0, 0, 0, 0, 0, 0, 0, 3, 'p', 'c', '.', 'r', 'a', 'm', 0,
    };

    g_assert_cmpuint(head->len, ==, 128 + 2 * 264);
    g_assert_cmpmem(head->data, sizeof(begin), begin, sizeof(begin));
    g_assert_cmpmem(head->data + 128, sizeof(entry), entry, sizeof(entry));
    g_assert_cmpuint(wsm_kept_print_at(&kept, 0), ==, 656);
    g_assert_cmpuint(wsm_kept_print_at(&kept, 3), ==, 680);
    g_assert_cmpuint(wsm_kept_page_at(&kept, 1), ==, 8192);
    g_assert_cmpuint(wsm_kept_size(&kept), ==, 20480);

    g_assert_true(decode(head->data, 20480, &again, &error_abort));
    g_assert_cmpmem(&again.seed, sizeof(again.seed), &kept.seed,
                    sizeof(kept.seed));
    g_assert_cmpuint(again.pages, ==, 4);
    g_assert_cmpuint(again.nblocks, ==, 2);
    g_assert_cmpuint(wsm_kept_find(&again, "/rom@etc")->first, ==, 3);
    g_assert_cmpuint(wsm_kept_find(&again, "pc.ram")->pages, ==, 3);
    g_assert_null(wsm_kept_find(&again, "pc.ra"));
    wsm_kept_destroy(&again);
    wsm_kept_destroy(&kept);
}

/* A point of the same session, whatever the disk; no other */
static void test_guest(void)
{
    QemuUUID point = session;
    WsmKept kept = sample();

    g_assert_true(wsm_kept_is_of(&kept, &point));
    point.data[15] ^= 3;
    g_assert_true(wsm_kept_is_of(&kept, &point));
    point.data[13] ^= 1;
    g_assert_false(wsm_kept_is_of(&kept, &point));
    wsm_kept_destroy(&kept);
}

static void test_bad(void)
{
    static const struct {
        unsigned at;
        uint8_t byte;
        int more;
        const char *text;
    } bad[] = {
        { 3, '+', 0, "it is not the kept memory of a guest" },
        { 11, 2, 0, "version 2 is not 1" },
        { 14, 4, 0, "1026 blocks of memory are more than 1024" },
        { 136, 0, 0, "block of memory 0: the name is empty, too long, or "
          "there twice" },
        { 129, 2, 0, "block of memory 0: 562949953421315 pages are too many" },
        { 135, 4, 0, "it has 20480 bytes, and not 24576 as with all of its "
          "pages" },
        { 0, 'W', -1, "it has 20479 bytes, and not 20480 as with all of its "
          "pages" },
        { 0, 'W', 1, "it has 20481 bytes, and not 20480 as with all of its "
          "pages" },
    };
    WsmKept kept = sample(), out;
    g_autoptr(GByteArray) head = wsm_kept_encode(&kept);
    g_autofree uint8_t *buf = NULL;
    Error *err = NULL;

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        buf = g_memdup2(head->data, head->len);
        buf[bad[i].at] = bad[i].byte;
        g_assert_false(decode(buf, 20480 + bad[i].more, &out, &err));
        g_assert_cmpstr(error_get_pretty(err), ==, bad[i].text);
        g_assert_null(out.block);
        g_clear_pointer(&err, error_free);
        g_clear_pointer(&buf, g_free);
    }
    /* A name without an end, and the same twice */
    buf = g_memdup2(head->data, head->len);
    memset(buf + 136, 'x', WSM_MAX_RAM_NAME + 1);
    g_assert_false(decode(buf, 20480, &out, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "the name is"));
    g_clear_pointer(&err, error_free);
    memcpy(buf + 136, head->data + 136 + 264, 256);
    g_assert_false(decode(buf, 20480, &out, NULL));
    wsm_kept_destroy(&kept);
}

/* What a scan of memory has written is no kept memory, nor the other way */
static void test_scan(void)
{
    WsmKept kept = sample(), out;
    g_autoptr(GByteArray) head = wsm_kept_encode(&kept);
    uint8_t scan[WSM_KEPT_HEADER_SIZE] = {};
    Error *err = NULL;

    wsm_scan_file_encode(WSM_SCAN_FILE_DIGEST, 8, &session, scan);
    g_assert_false(wsm_kept_decode(scan, &out, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "it is not the kept memory of a "
                    "guest");
    g_clear_pointer(&err, error_free);
    g_assert_null(wsm_prefixes_decode(head->data, head->len, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "it is no list of pages that "
                    "this QEMU knows");
    error_free(err);
    wsm_kept_destroy(&kept);
}

/* What is accepted is within its file, and encodes to the same */
static void test_random(void)
{
    WsmKept kept = sample(), out;
    g_autoptr(GByteArray) head = wsm_kept_encode(&kept);
    uint64_t size = wsm_kept_size(&kept);
    unsigned accepted = 0;

    for (int i = 0; i < 100000; i++) {
        g_autofree uint8_t *buf = g_memdup2(head->data, head->len);

        for (int n = g_test_rand_int_range(0, 4); n; n--) {
            buf[g_test_rand_int_range(0, head->len)] = g_test_rand_int();
        }
        /* No more than the table that there is room for */
        if (ldl_be_p(buf + 12) > 2 || !decode(buf, size, &out, NULL)) {
            continue;
        }
        for (unsigned b = 0; b < out.nblocks; b++) {
            const WsmKeptBlock *block = &out.block[b];

            g_assert_cmpuint(block->first + block->pages, <=, out.pages);
            g_assert_true(wsm_kept_find(&out, block->name) == block);
        }
        g_assert_cmpuint(wsm_kept_page_at(&out, out.pages), ==, size);
        wsm_kept_destroy(&out);
        accepted++;
    }
    g_assert_cmpuint(accepted, >, 1000);
    wsm_kept_destroy(&kept);
}

/*
 * DIGESTS
 */

static void test_digests(void)
{
    uint8_t prints[2 * WSM_PRINT_SIZE] = { 0, 0, 0, 0, 0, 0, 1, 2, 0xff };
    WsmPrints d = { .name = "pc.ram", .buf = prints }, out;
    g_autoptr(GByteArray) payload = NULL;
    WsmMsg msg = { .type = WSM_MSG_DIGESTS, .bytes = 2 * WSM_PAGE_SIZE };
    Error *err = NULL;

    d.seed.word[7] = 0x1234;
    payload = wsm_prints_encode(&d, 2);
    g_assert_cmpuint(payload->len, ==, 64 + 1 + 6 + 16);
    g_assert_cmphex(payload->data[63], ==, 0x34);
    g_assert_cmphex(payload->data[64], ==, 6);
    msg.length = payload->len;
    g_assert_true(wsm_prints_decode(&msg, payload->data, &out, &error_abort));
    g_assert_cmpstr(out.name, ==, "pc.ram");
    g_assert_cmphex(out.seed.word[7], ==, 0x1234);
    g_assert_cmphex(wsm_prints_at(&out, 0), ==, 0x102);
    g_assert_cmphex(wsm_prints_at(&out, 1), ==, 0xff00000000000000);

    payload->data[64] = 7;
    g_assert_false(wsm_prints_decode(&msg, payload->data, &out, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "DIGESTS: length 87 is not that "
                    "of a name of 7 bytes and of 2 prints");
    error_free(err);
    payload->data[64] = 6;
    payload->data[66] = 0;
    g_assert_false(wsm_prints_decode(&msg, payload->data, &out, NULL));
    payload->data[66] = 'c';
    msg.disk = 1;
    g_assert_false(wsm_prints_decode(&msg, payload->data, &out, NULL));
    /* No name, but the right length */
    msg.disk = 0;
    msg.bytes = WSM_PAGE_SIZE;
    msg.length = 64 + 1 + 8;
    payload->data[64] = 0;
    g_assert_false(wsm_prints_decode(&msg, payload->data, &out, NULL));
}

/*
 * Writing
 */

static TestRam ram[2];
static char *folder, *file;

static void set_up(void)
{
    folder = g_dir_make_tmp("wsm-kept-XXXXXX", NULL);
    file = g_strconcat(folder, "/memory", NULL);
    memset(ram, 0, sizeof(ram));
    test_ram_name(&ram[0], "one");
    test_ram_name(&ram[1], "two");
    for (int i = 0; i < TEST_RAM_PAGES; i++) {
        /* Runs of zeroes at the begin, in between and at the end */
        if (i && i % 5 < 3 && i < TEST_RAM_PAGES - 2) {
            memset(ram[i % 2].data[i], i, WSM_PAGE_SIZE);
        }
    }
}

static void tear_down(void)
{
    g_autofree char *new = g_strconcat(file, ".new", NULL);

    /* Nothing else is left */
    g_assert_cmpint(g_access(new, F_OK), ==, -1);
    unlink(file);
    g_assert_cmpint(rmdir(folder), ==, 0);
    g_free(file);
    g_free(folder);
    test_ram_forget();
}

static WsmKeptInfo *keep(void)
{
    WsmKeep *k = wsm_keep_start(file, &session);
    WsmKeptInfo *info;

    while (!wsm_keep_wait(k, 60 * 1000)) {
        /* go on */
    }
    info = wsm_keep_info(k);
    wsm_keep_free(k);
    return info;
}

/* What is in the file is what is in memory, each page at its place */
static void test_keep(void)
{
    g_autoptr(WsmKeptInfo) info = NULL;
    g_autofree char *text = NULL;
    uint64_t pages = 0;
    struct stat st;
    WsmKept kept;
    size_t size;

    set_up();
    info = keep();
    g_assert_cmpint(info->state, ==, WSM_KEEP_STATE_KEPT);
    g_assert_null(info->error);
    g_assert_true(g_file_get_contents(file, &text, &size, NULL));
    g_assert_cmpint(stat(file, &st), ==, 0);
    g_assert_cmphex(st.st_mode & 0777, ==, 0600);
    g_assert_true(decode((uint8_t *)text, size, &kept, &error_abort));
    g_assert_true(wsm_kept_is_of(&kept, &session));
    for (int b = 0; b < 2; b++) {
        const WsmKeptBlock *block = wsm_kept_find(&kept, b ? "two" : "one");

        g_assert_cmpuint(block->pages, ==, TEST_RAM_PAGES);
        for (int i = 0; i < TEST_RAM_PAGES; i++) {
            const void *page = ram[b].data[i];
            uint64_t n = block->first + i, print = 0;

            if (!buffer_is_zero(page, WSM_PAGE_SIZE)) {
                print = wsm_page_print(&kept.seed, page);
                pages++;
            }
            g_assert_cmphex(ldq_be_p(text + wsm_kept_print_at(&kept, n)), ==,
                            print);
            g_assert_cmpmem(text + wsm_kept_page_at(&kept, n), WSM_PAGE_SIZE,
                            page, WSM_PAGE_SIZE);
        }
    }
    g_assert_cmpuint(info->bytes, ==, pages * WSM_PAGE_SIZE);
    wsm_kept_destroy(&kept);
    tear_down();
}

/* A newer one takes its place; a link that was put there does not matter */
static void test_replace(void)
{
    g_autofree char *new = NULL, *text = NULL, *other = NULL;
    g_autoptr(WsmKeptInfo) info = NULL;
    struct stat st;

    set_up();
    new = g_strconcat(file, ".new", NULL);
    other = g_strconcat(folder, "/other", NULL);
    g_assert_true(g_file_set_contents(file, "old", -1, NULL));
    g_assert_true(g_file_set_contents(other, "theirs", -1, NULL));
    g_assert_cmpint(symlink(other, new), ==, 0);
    info = keep();
    g_assert_cmpint(info->state, ==, WSM_KEEP_STATE_KEPT);
    g_assert_cmpint(stat(file, &st), ==, 0);
    g_assert_cmpint(st.st_size, >, 2 * TEST_RAM_PAGES * WSM_PAGE_SIZE);
    g_assert_true(g_file_get_contents(other, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "theirs");
    unlink(other);
    tear_down();
}

/* What cannot be written is a warning, and the older one stays */
static void test_fail(void)
{
    g_autoptr(WsmKeptInfo) info = NULL, nowhere = NULL;
    g_autofree char *text = NULL;
    struct rlimit limit, old;

    set_up();
    g_assert_true(g_file_set_contents(file, "old", -1, NULL));
    getrlimit(RLIMIT_FSIZE, &old);
    limit = (struct rlimit) { .rlim_cur = 65536, .rlim_max = old.rlim_max };
    setrlimit(RLIMIT_FSIZE, &limit);
    info = keep();
    setrlimit(RLIMIT_FSIZE, &old);
    g_assert_cmpint(info->state, ==, WSM_KEEP_STATE_FAILED);
    g_assert_nonnull(strstr(info->error, "as long as memory: File too large"));
    warnings_expect("The guest's memory is not kept in '");
    g_assert_true(g_file_get_contents(file, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "old");

    unlink(file);
    g_assert_cmpint(rmdir(folder), ==, 0);
    nowhere = keep();
    g_assert_cmpint(nowhere->state, ==, WSM_KEEP_STATE_FAILED);
    g_assert_nonnull(strstr(nowhere->error, "cannot create"));
    warnings_expect("The guest's memory is not kept in '");
    g_assert_cmpint(g_mkdir(folder, 0700), ==, 0);
    tear_down();
}

static QemuEvent go_on;
static unsigned copied;         /* the thread's, then ours */

static void on_copy(void)
{
    copied++;
    qemu_event_wait(&go_on);
}

/* QEMU ends in the middle of it */
static void test_quit(void)
{
    WsmKeep *k;

    set_up();
    qemu_event_init(&go_on, false);
    test_ram_on_copy = on_copy;
    k = wsm_keep_start(file, &session);
    g_assert_false(wsm_keep_wait(k, 0));
    wsm_keep_give_up(k);
    qemu_event_set(&go_on);
    wsm_keep_free(k);
    test_ram_on_copy = NULL;
    qemu_event_destroy(&go_on);
    warnings_expect("QEMU ended too soon");
    g_assert_cmpint(copied, <=, 1);
    g_assert_cmpint(g_access(file, F_OK), ==, -1);
    tear_down();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGXFSZ, SIG_IGN);
    qcrypto_init(&error_abort);
    qemu_init_main_loop(&error_abort);
    g_test_add_func("/wsm/kept/bytes", test_bytes);
    g_test_add_func("/wsm/kept/guest", test_guest);
    g_test_add_func("/wsm/kept/bad", test_bad);
    g_test_add_func("/wsm/kept/scan", test_scan);
    g_test_add_func("/wsm/kept/random", test_random);
    g_test_add_func("/wsm/kept/digests", test_digests);
    g_test_add_func("/wsm/kept/keep", test_keep);
    g_test_add_func("/wsm/kept/replace", test_replace);
    g_test_add_func("/wsm/kept/fail", test_fail);
    g_test_add_func("/wsm/kept/quit", test_quit);
    return g_test_run();
}
