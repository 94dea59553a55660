/*
 * Unit tests of migration/wsm/image/storage.c
 *
 * Both sides are here: what one says of its disks the other one compares with
 * its own.  Real files, which are the same or not under any name.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <sys/resource.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "block/qdict.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "migration/wsm/image/storage.h"
#include "wsm-disks.h"

#define KIB 1024

/* As -blockdev, but without locks: those of two hosts do not meet */
static BlockBackend *open_json(const char *format, ...) G_GNUC_PRINTF(1, 2);

static BlockBackend *open_json(const char *format, ...)
{
    g_autofree char *text = NULL;
    QDict *opts;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    opts = qobject_to(QDict, qobject_from_json(text, &error_abort));
    qdict_flatten(opts);
    return blk_new_open(NULL, NULL, opts, BDRV_O_RDWR, &error_abort);
}

#define FILE_JSON "{'driver': 'file', 'filename': '%s', 'locking': 'off'}"
#define RAW_JSON "{'driver': 'raw', 'file': " FILE_JSON "}"
#define QCOW2_JSON "{'driver': 'qcow2', 'file': " FILE_JSON "}"

/*
 * The source
 */

/* Says of its disks what is to be said; there are @n, on @blk */
static WsmStart start_of(BlockBackend **blk, unsigned n)
{
    WsmStart start = {
        .session = { .data = { 0xab } }, .ndisks = n,
        .disk = g_new0(WsmDiskDesc, n),
    };

    for (unsigned i = 0; i < n; i++) {
        start.disk[i].name = g_strdup_printf("theirs%u", i);
        start.disk[i].file = wsm_storage_name(blk_bs(blk[i]));
        start.disk[i].marks = wsm_storage_marks(blk_bs(blk[i]));
    }
    return start;
}

/* It is another host, or another boot of this one */
static void forget_marks(WsmStart *start)
{
    for (unsigned i = 0; i < start->ndisks; i++) {
        g_ptr_array_set_size(start->disk[i].marks, 0);
    }
}

/*
 * The destination
 */

static void check_free(BlockBackend *blk, const WsmStart *start)
{
    g_assert_true(wsm_storage_check(blk_bs(blk), "ours", start, &error_abort));
}

static void check_theirs(BlockBackend *blk, const WsmStart *start,
                         const char *name)
{
    g_autofree char *what = g_strdup_printf("disk 'ours': its image at the "
                                            "destination, '%s', is one of "
                                            "those of disk '%s' at the source,",
                                            blk_bs(blk)->filename, name);
    Error *err = NULL;

    g_assert_false(wsm_storage_check(blk_bs(blk), "ours", start, &err));
    disks_error(err, what);
}

/* Would the disk @theirs have been written to by one on @ours? */
static void check_pair(BlockBackend *theirs, BlockBackend *ours, bool same)
{
    WsmStart start = start_of(&theirs, 1);
    Error *err = NULL;

    g_assert_cmpint(wsm_storage_check(blk_bs(ours), "ours", &start, &err), ==,
                    !same);
    error_free(err);
    wsm_start_destroy(&start);
    blk_unref(theirs);
    blk_unref(ours);
}

/*
 * Files
 */

static void test_file(void)
{
    g_autofree char *a = disks_create("a", "raw", NULL);
    g_autofree char *b = disks_create("b", "raw", NULL);
    g_autofree char *hard = disks_path("hard");
    g_autofree char *soft = disks_path("soft");
    const char *const same[] = { a, hard, soft };
    BlockBackend *theirs = open_json(RAW_JSON, a);
    WsmStart start = start_of(&theirs, 1);
    BlockBackend *ours;

    g_assert_cmpint(link(a, hard), ==, 0);
    g_assert_cmpint(symlink("a", soft), ==, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(same); i++) {
        ours = open_json(RAW_JSON, same[i]);
        check_theirs(ours, &start, "theirs0");
        blk_unref(ours);
    }

    ours = open_json(RAW_JSON, b);
    check_free(ours, &start);
    blk_unref(ours);

    /* What has its name now is another one */
    g_unlink(a);
    g_assert_cmpint(g_rename(b, a), ==, 0);
    ours = open_json(RAW_JSON, a);
    check_free(ours, &start);
    blk_unref(ours);
    wsm_start_destroy(&start);
    blk_unref(theirs);
}

/* The error has what the user knows both by */
static void test_error(void)
{
    g_autofree char *a = disks_create("a", "raw", NULL);
    g_autofree char *b = disks_create("b", "raw", NULL);
    g_autofree char *said = NULL;
    BlockBackend *blk[2] = {
        open_json(RAW_JSON, a), open_json(RAW_JSON, b),
    };
    WsmStart start = start_of(blk, 2);
    Error *err = NULL;

    check_theirs(blk[0], &start, "theirs0");
    check_theirs(blk[1], &start, "theirs1");
    wsm_storage_check(blk_bs(blk[1]), "ours", &start, &err);
    said = g_strdup_printf("at the source, '%s', so", b);
    disks_error(err, said);
    wsm_start_destroy(&start);
    blk_unref(blk[0]);
    blk_unref(blk[1]);
}

/*
 * A base is read: it may be one that the source reads as well, but nothing
 * that the source reads may be written to.
 */
static void test_backing(void)
{
    g_autofree char *base = disks_create("base", "raw", NULL);
    g_autofree char *a = disks_path("a");
    g_autofree char *b = disks_path("b");
    BlockBackend *theirs, *ours;
    WsmStart start;

    bdrv_img_create(a, "qcow2", base, "raw", NULL, DISK_SIZE, 0, true,
                    &error_abort);
    bdrv_img_create(b, "qcow2", base, "raw", NULL, DISK_SIZE, 0, true,
                    &error_abort);
    theirs = open_json(QCOW2_JSON, a);
    start = start_of(&theirs, 1);
    g_assert_cmpint(start.disk[0].marks->len, ==, 2);
    g_assert_cmpstr(start.disk[0].file, ==, a);

    ours = open_json(QCOW2_JSON, b);
    check_free(ours, &start);
    blk_unref(ours);
    ours = open_json(RAW_JSON, base);
    check_theirs(ours, &start, "theirs0");
    blk_unref(ours);
    wsm_start_destroy(&start);
    blk_unref(theirs);
}

static void test_data_file(void)
{
    g_autofree char *data = disks_path("data");
    g_autofree char *options = g_strdup_printf("data_file=%s", data);
    g_autofree char *a = disks_create("a", "qcow2", options);
    BlockBackend *theirs = open_json(QCOW2_JSON, a);

    check_pair(theirs, open_json(RAW_JSON, data), true);
}

/*
 * Parts of files.  What was written to is a range of bytes, in whatever way it
 * was asked for.
 */

static const struct {
    const char *theirs, *ours;  /* options of driver "raw" */
    bool same;
} slices[] = {
    { "", "", true },
    { "", "'offset': 524288, 'size': 524288,", true },
    { "'offset': 524288, 'size': 524288,", "", true },
    { "'offset': 524288, 'size': 524288,",
      "'offset': 524288, 'size': 524288,", true },
    { "'offset': 0, 'size': 524288,",
      "'offset': 524288, 'size': 524288,", false },
    { "'offset': 524288,", "'size': 524288,", false },
    /* The same part in other words */
    { "'offset': 0,", "'size': 1048576,", true },
    { "'offset': 524288,", "'offset': 524288, 'size': 524288,", true },
    { "'size': '512k',", "'offset': 0, 'size': 524288,", true },
    { "'offset': '512k', 'size': '524288',",
      "'offset': 524288, 'size': 524288,", true },
    /* They have some bytes in common */
    { "'offset': 0, 'size': 524288,",
      "'offset': 262144, 'size': 524288,", true },
    { "'offset': 0, 'size': 1048576,",
      "'offset': 262144, 'size': 512,", true },
    { "'offset': 0, 'size': 262144,",
      "'offset': 261632, 'size': 512,", true },
    { "'offset': 0, 'size': 262144,",
      "'offset': 262144, 'size': 512,", false },
};

static BlockBackend *open_slice(const char *options, const char *path)
{
    return open_json("{'driver': 'raw', %s 'file': " FILE_JSON "}", options,
                     path);
}

static void test_slices(void)
{
    g_autofree char *a = disks_create("a", "raw", NULL);

    for (unsigned i = 0; i < ARRAY_SIZE(slices); i++) {
        g_test_message("slices %u", i);
        check_pair(open_slice(slices[i].theirs, a),
                   open_slice(slices[i].ours, a), slices[i].same);
    }
}

/* All that is somewhere in a format's file counts */
static void test_slice_of_format(void)
{
    g_autofree char *a = disks_create("a", "qcow2", NULL);
    BlockBackend *theirs, *ours;

    theirs = open_json("{'driver': 'raw', 'offset': 0, 'size': 4096, 'file': "
                       QCOW2_JSON "}", a);
    ours = open_json("{'driver': 'raw', 'offset': 65536, 'size': 4096, 'file': "
                     QCOW2_JSON "}", a);
    check_pair(theirs, ours, true);
}

/*
 * Random disks: each writes to one range of one of few files.
 */

#define FILES   3
#define UNIT    (256 * KIB)             /* a file has four */

typedef struct Model {
    unsigned file, from, count;
} Model;

static char *files[FILES];

static Model random_model(void)
{
    Model m = {
        .file = g_test_rand_int_range(0, FILES),
        .from = g_test_rand_int_range(0, 4),
    };

    m.count = g_test_rand_int_range(1, 5 - m.from);
    return m;
}

static BlockBackend *open_model(const Model *m)
{
    g_autofree char *options = NULL;

    if (m->from + m->count == 4 && g_test_rand_bit()) {
        options = m->from || g_test_rand_bit()
                  ? g_strdup_printf("'offset': %u,", m->from * UNIT)
                  : g_strdup("");
    } else {
        options = m->from || g_test_rand_bit()
                  ? g_strdup_printf("'offset': %u, 'size': '%uk',",
                                    m->from * UNIT, m->count * UNIT / KIB)
                  : g_strdup_printf("'size': %u,", m->count * UNIT);
    }
    return open_slice(options, files[m->file]);
}

static bool models_meet(const Model *a, const Model *b)
{
    return a->file == b->file && a->from < b->from + b->count &&
           b->from < a->from + a->count;
}

static void random_round(void)
{
    Model theirs[2] = { random_model(), random_model() };
    Model ours = random_model();
    BlockBackend *blk[2] = { open_model(theirs), open_model(theirs + 1) };
    BlockBackend *mine = open_model(&ours);
    WsmStart start = start_of(blk, 2);

    if (models_meet(&ours, &theirs[0])) {
        check_theirs(mine, &start, "theirs0");
    } else if (models_meet(&ours, &theirs[1])) {
        check_theirs(mine, &start, "theirs1");
    } else {
        check_free(mine, &start);
    }
    wsm_start_destroy(&start);
    blk_unref(blk[0]);
    blk_unref(blk[1]);
    blk_unref(mine);
}

static void test_random(void)
{
    for (unsigned i = 0; i < FILES; i++) {
        g_autofree char *name = g_strdup_printf("file%u", i);

        files[i] = disks_create(name, "raw", NULL);
    }
    for (unsigned i = 0; i < 300; i++) {
        random_round();
    }
    for (unsigned i = 0; i < FILES; i++) {
        g_free(files[i]);
    }
}

/*
 * Disks that are no files of this host
 */

static void test_net(void)
{
    BlockBackend *theirs = disks_open_null(), *ours = disks_open_null();
    g_autofree char *a = disks_create("a", "raw", NULL);
    BlockBackend *file = open_json(RAW_JSON, a);
    WsmStart start = start_of(&theirs, 1);

    /* Of these nothing is known, and they are two */
    g_assert_cmpint(start.disk[0].marks->len, ==, 0);
    check_free(ours, &start);
    wsm_start_destroy(&start);

    pstrcpy(blk_bs(theirs)->filename, sizeof(blk_bs(theirs)->filename),
            "rbd:pool/vm");
    start = start_of(&theirs, 1);
    g_assert_cmpint(start.disk[0].marks->len, ==, 1);
    g_assert_cmpstr(start.disk[0].marks->pdata[0], ==, "name rbd:pool/vm");
    check_free(ours, &start);
    check_free(file, &start);
    pstrcpy(blk_bs(ours)->filename, sizeof(blk_bs(ours)->filename),
            "rbd:pool/vm");
    check_theirs(ours, &start, "theirs0");
    wsm_start_destroy(&start);
    blk_unref(theirs);
    blk_unref(ours);
    blk_unref(file);
}

/* A name is cut, so that the other side takes it */
static void test_long_name(void)
{
    g_autofree char *a = disks_create("a", "raw", NULL);
    g_autoptr(GString) path = g_string_new("");
    g_autofree char *folder = g_path_get_dirname(a);
    g_autofree char *name = NULL;
    BlockBackend *blk;

    g_string_append(path, folder);
    while (path->len < 2 * WSM_MAX_PATH) {
        g_string_append(path, "/.");
    }
    g_string_append(path, "/a");
    blk = open_json(RAW_JSON, path->str);
    name = wsm_storage_name(blk_bs(blk));
    g_assert_cmpint(strlen(name), ==, WSM_MAX_PATH);
    g_assert_true(g_str_has_prefix(path->str, name));
    blk_unref(blk);
}

/*
 * Notes
 */

static void expect_note(const char *path, const char *text)
{
    g_autofree char *is = NULL;
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmphex(st.st_mode & 0777, ==, 0600);
    g_assert_true(g_file_get_contents(path, &is, NULL, NULL));
    g_assert_cmpstr(is, ==, text);
}

/* Who sees the same folder finds it, whatever its host says of the file */
static void test_notes(void)
{
    g_autofree char *a = disks_create("a", "raw", NULL);
    g_autofree char *b = disks_create("b", "raw", NULL);
    g_autofree char *note = disks_path(".b.wsm-ab000000-0000-0000-0000-"
                                       "000000000000");
    g_autoptr(GPtrArray) made = g_ptr_array_new_with_free_func(g_free);
    BlockBackend *blk[2] = {
        open_json(RAW_JSON, a), open_json(RAW_JSON, b),
    };
    WsmStart start = start_of(blk, 2);

    forget_marks(&start);
    check_free(blk[1], &start);
    wsm_storage_leave_notes(blk_bs(blk[1]), 1, &start.session, made);
    g_assert_cmpint(made->len, ==, 1);
    g_assert_cmpstr(made->pdata[0], ==, note);
    expect_note(note, "1");
    check_free(blk[0], &start);
    check_theirs(blk[1], &start, "theirs1");

    /* It is of one migration only */
    start.session.data[0]++;
    check_free(blk[1], &start);
    start.session.data[0]--;

    /* Those that are there are not ours, and stay as they are */
    wsm_storage_leave_notes(blk_bs(blk[1]), 0, &start.session, made);
    g_assert_cmpint(made->len, ==, 1);
    expect_note(note, "1");

    wsm_storage_remove_notes(made);
    g_assert_cmpint(made->len, ==, 0);
    g_assert_cmpint(access(note, F_OK), ==, -1);
    check_free(blk[1], &start);

    wsm_start_destroy(&start);
    blk_unref(blk[0]);
    blk_unref(blk[1]);
}

/* A file of that name may be of anybody */
static void test_bad_notes(void)
{
    static const char *const texts[] = {
        "", "x", "-1", "2", "0x", "18446744073709551616", " 0 ",
    };
    g_autofree char *a = disks_create("a", "raw", NULL);
    g_autofree char *note = disks_path(".a.wsm-ab000000-0000-0000-0000-"
                                       "000000000000");
    BlockBackend *blk[2] = { open_json(RAW_JSON, a), open_json(RAW_JSON, a) };
    WsmStart start = start_of(blk, 2);

    forget_marks(&start);
    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
        g_assert_true(g_file_set_contents(note, texts[i], -1, NULL));
        check_free(blk[0], &start);
    }
    g_assert_true(g_file_set_contents(note, "1", -1, NULL));
    check_theirs(blk[0], &start, "theirs1");
    g_unlink(note);
    wsm_start_destroy(&start);
    blk_unref(blk[0]);
    blk_unref(blk[1]);
}

/* Each file of an image gets one: who has it as his own is found out */
static void test_backing_notes(void)
{
    g_autofree char *base = disks_create("base", "raw", NULL);
    g_autofree char *a = disks_path("a");
    g_autoptr(GPtrArray) made = g_ptr_array_new_with_free_func(g_free);
    BlockBackend *theirs, *ours;
    WsmStart start;

    bdrv_img_create(a, "qcow2", base, "raw", NULL, DISK_SIZE, 0, true,
                    &error_abort);
    theirs = open_json(QCOW2_JSON, a);
    ours = open_json(RAW_JSON, base);
    start = start_of(&theirs, 1);
    forget_marks(&start);
    wsm_storage_leave_notes(blk_bs(theirs), 0, &start.session, made);
    g_assert_cmpint(made->len, ==, 2);
    check_theirs(ours, &start, "theirs0");
    wsm_storage_remove_notes(made);
    check_free(ours, &start);
    wsm_start_destroy(&start);
    blk_unref(theirs);
    blk_unref(ours);
}

/* Where none can be made there is none, and none that is half a note */
static void test_no_notes(void)
{
    g_autofree char *a = disks_create("a", "raw", NULL);
    g_autofree char *note = disks_path(".a.wsm-ab000000-0000-0000-0000-"
                                       "000000000000");
    g_autoptr(GPtrArray) made = g_ptr_array_new_with_free_func(g_free);
    QemuUUID session = { .data = { 0xab } };
    BlockBackend *blk = disks_open_null();
    struct rlimit before, none;

    wsm_storage_leave_notes(blk_bs(blk), 0, &session, made);
    g_assert_cmpint(made->len, ==, 0);
    blk_unref(blk);

    /* The file system is full */
    blk = open_json(RAW_JSON, a);
    getrlimit(RLIMIT_FSIZE, &before);
    none = before;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_FSIZE, &none);
    wsm_storage_leave_notes(blk_bs(blk), 0, &session, made);
    setrlimit(RLIMIT_FSIZE, &before);
    g_assert_cmpint(made->len, ==, 0);
    g_assert_cmpint(access(note, F_OK), ==, -1);

    /* The image has no name any more */
    g_unlink(a);
    wsm_storage_leave_notes(blk_bs(blk), 0, &session, made);
    g_assert_cmpint(made->len, ==, 0);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    int ret;

    disks_init(&argc, &argv);
    signal(SIGXFSZ, SIG_IGN);
    g_test_add_func("/wsm/storage/file", test_file);
    g_test_add_func("/wsm/storage/error", test_error);
    g_test_add_func("/wsm/storage/backing", test_backing);
    g_test_add_func("/wsm/storage/data-file", test_data_file);
    g_test_add_func("/wsm/storage/slices", test_slices);
    g_test_add_func("/wsm/storage/slice-of-format", test_slice_of_format);
    g_test_add_func("/wsm/storage/random", test_random);
    g_test_add_func("/wsm/storage/net", test_net);
    g_test_add_func("/wsm/storage/long-name", test_long_name);
    g_test_add_func("/wsm/storage/notes", test_notes);
    g_test_add_func("/wsm/storage/bad-notes", test_bad_notes);
    g_test_add_func("/wsm/storage/backing-notes", test_backing_notes);
    g_test_add_func("/wsm/storage/no-notes", test_no_notes);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
