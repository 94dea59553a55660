/*
 * Unit tests of migration/wsm/image/record-attr.c and record-store.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/syscall.h>
#include <glib/gstdio.h>
#include "qapi/error.h"
#include "qapi/util.h"
#include "qemu/units.h"
#include "qemu/xattr.h"
#include "migration/wsm/image/record-attr.h"
#include "migration/wsm/image/record-file.h"
#include "migration/wsm/image/record-store.h"
#include "migration/wsm/image/record.h"
#include "wsm-powers.h"

#define SESSION "5f1d2c70-3f0e-4b1c-9b0a-4a6a1d0c9e11"
#define POINT   "c0ffee00-1111-2222-3333-44445555666"   /* and a digit */
#define CLOSED  0111
#define OPEN    0755
#define STEPS   2000

/* ---- the kernel's calls: what was called, and what fails ---- */

static struct {
    GString *log;
    int set_error, remove_error, sync_error;
    bool fast;                  /* do not sync really */
} calls;

static int call_fails(const char *name, int error)
{
    g_string_append_printf(calls.log, "%s ", name);
    errno = error;
    return error ? -1 : 0;
}

int fsetxattr(int fd, const char *name, const void *value, size_t size,
              int flags)
{
    return call_fails(flags ? "try" : "set", calls.set_error) ?:
           syscall(SYS_fsetxattr, fd, name, value, size, flags);
}

int fremovexattr(int fd, const char *name)
{
    return call_fails("remove", calls.remove_error) ?:
           syscall(SYS_fremovexattr, fd, name);
}

int fsync(int fd)
{
    struct stat st;

    g_assert_cmpint(fstat(fd, &st), ==, 0);
    return call_fails(S_ISDIR(st.st_mode) ? "folder" : "sync",
                      calls.sync_error) ?:
           calls.fast ? 0 : syscall(SYS_fsync, fd);
}

static void reset_calls(void)
{
    g_string_set_size(calls.log, 0);
    calls.set_error = calls.remove_error = calls.sync_error = 0;
    calls.fast = false;
}

static void check_calls(const char *expected)
{
    g_assert_cmpstr(calls.log->str, ==, expected);
    reset_calls();
}

/* ---- an image ---- */

typedef struct Test {
    char *folder, *image, *path;
    WsmRecordStore *store;
} Test;

static int open_image(const char *image)
{
    int fd = open(image, O_RDONLY | O_CLOEXEC);

    g_assert_cmpint(fd, >=, 0);
    return fd;
}

static WsmRecordStore *new_store(const char *image)
{
    return wsm_record_store_new(image, image, open_image(image));
}

static void set_up(Test *t, const void *unused)
{
    GError *error = NULL;

    reset_calls();
    t->folder = g_dir_make_tmp("test-wsm-store.XXXXXX", &error);
    g_assert_no_error(error);
    t->image = g_build_filename(t->folder, "disk.raw", NULL);
    t->path = wsm_record_path(t->image);
    g_assert_true(g_file_set_contents(t->image, "data", -1, NULL));
    t->store = new_store(t->image);
}

static void set_closed(Test *t, bool closed)
{
    g_assert_cmpint(chmod(t->folder, closed ? CLOSED : OPEN), ==, 0);
    if (closed) {
        powers_drop();
    } else {
        powers_restore();
    }
}

static void tear_down(Test *t, const void *unused)
{
    const char *name;
    GDir *dir;

    reset_calls();
    set_closed(t, false);
    dir = g_dir_open(t->folder, 0, NULL);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(t->folder, name, NULL);

        g_assert_cmpint(remove(path), ==, 0);
    }
    g_dir_close(dir);
    g_assert_cmpint(g_rmdir(t->folder), ==, 0);
    wsm_record_store_free(t->store);
    g_free(t->folder);
    g_free(t->image);
    g_free(t->path);
}

/* Record number @n; if that is odd it is stale */
static WsmRecord *new_record(unsigned n)
{
    WsmRecord *record = g_new0(WsmRecord, 1);

    record->state = n % 2 ? WSM_IMAGE_STATE_HANDED_OVER
                          : WSM_IMAGE_STATE_LEAVING;
    record->session = g_strdup(SESSION);
    record->time = n;
    record->disk_size = 4;
    return record;
}

/* One more point, newer than those that are there, with @size bytes of runs */
static void add_point(WsmRecord *record, size_t size)
{
    WsmRecordPointList **tail = &record->points;
    WsmRecordPoint *point = g_new0(WsmRecordPoint, 1);

    while (*tail) {
        tail = &(*tail)->next;
    }
    point->id = g_strdup_printf(POINT "%u",
                                (unsigned)QAPI_LIST_LENGTH(record->points));
    point->granularity = 4 * KiB;
    point->since = g_strnfill(size, 'A');
    QAPI_LIST_APPEND(tail, point);
}

static void save(Test *t, unsigned n)
{
    g_autoptr(WsmRecord) record = new_record(n);

    g_assert_true(wsm_record_store_save(t->store, record, &error_abort));
}

static void check_error(Error *err, const char *part)
{
    g_assert_nonnull(err);
    g_test_message("%s", error_get_pretty(err));
    g_assert_nonnull(strstr(error_get_pretty(err), part));
    error_free(err);
}

static void check_save_fails(Test *t, const char *part)
{
    g_autoptr(WsmRecord) record = new_record(9);
    Error *err = NULL;

    g_assert_false(wsm_record_store_save(t->store, record, &err));
    check_error(err, part);
}

static void check_remove_fails(Test *t, const char *part)
{
    Error *err = NULL;

    g_assert_false(wsm_record_store_remove(t->store, &err));
    check_error(err, part);
}

static void check_load_fails(Test *t, const char *part)
{
    WsmRecord *record = (WsmRecord *)t;
    Error *err = NULL;

    g_assert_false(wsm_record_store_load(t->store, &record, &err));
    g_assert_null(record);
    check_error(err, part);
}

/* The number of the record that is found, 0: none */
static unsigned load_from(const WsmRecordStore *store)
{
    g_autoptr(WsmRecord) record = (WsmRecord *)store;

    g_assert_true(wsm_record_store_load(store, &record, &error_abort));
    return record ? record->time : 0;
}

static void check_is(Test *t, unsigned n, bool in_attr)
{
    g_assert_cmpuint(load_from(t->store), ==, n);
    g_assert_cmpint(wsm_record_attr_exists(t->store->fd), ==, n && in_attr);
    g_assert_cmpint(wsm_record_exists(t->image), ==, n && !in_attr);
}

static void set_attr(Test *t, const char *value, size_t size)
{
    g_assert_cmpint(setxattr(t->image, WSM_RECORD_ATTR, value, size, 0), ==, 0);
}

/* ---- the attribute ---- */

static void test_attr(Test *t, const void *unused)
{
    g_autoptr(WsmRecord) record = new_record(1), found = NULL;
    g_autoptr(GString) text = NULL;
    int fd = t->store->fd;
    char value[1 * KiB];

    add_point(record, 100);
    text = wsm_record_encode(record);
    g_assert_true(wsm_record_attr_load(fd, "x", &found, &error_abort));
    g_assert_null(found);
    g_assert_false(wsm_record_attr_exists(fd));
    g_assert_true(wsm_record_attr_remove(fd, "x", &error_abort));
    check_calls("");

    g_assert_true(wsm_record_attr_save(fd, "x", record, &error_abort));
    g_assert_true(wsm_record_attr_exists(fd));
    g_assert_cmpmem(text->str, text->len, value,
                    fgetxattr(fd, "user.wsm", value, sizeof(value)));
    g_assert_true(wsm_record_attr_load(fd, "x", &found, &error_abort));
    g_assert_cmpint(found->state, ==, WSM_IMAGE_STATE_HANDED_OVER);
    g_assert_cmpstr(found->points->value->since, ==,
                    record->points->value->since);
    g_assert_false(wsm_record_exists(t->image));

    g_assert_true(wsm_record_attr_remove(fd, "x", &error_abort));
    g_assert_false(wsm_record_attr_exists(fd));
}

/* Whatever is wrong with it, it is not "no record" */
static void test_torn(Test *t, const void *unused)
{
    g_autoptr(WsmRecord) record = new_record(1);
    g_autoptr(GString) text = wsm_record_encode(record);

    for (size_t size = 0; size < text->len; size++) {
        set_attr(t, text->str, size);
        check_load_fails(t, "attribute 'user.wsm' of '");
    }
    text->str[text->len / 2] ^= 1;
    set_attr(t, text->str, text->len);
    check_load_fails(t, "torn");
    /* Nor does a good file help */
    g_assert_true(wsm_record_save(t->image, record, &error_abort));
    check_load_fails(t, t->image);
    /* The way out: either of these */
    save(t, 2);
    g_assert_cmpuint(load_from(t->store), ==, 2);
    set_attr(t, "", 0);
    g_assert_true(wsm_record_store_remove(t->store, &error_abort));
    check_is(t, 0, false);
}

static void test_too_large(Test *t, const void *unused)
{
    const size_t sizes[] = { 64 * KiB - 200, 64 * KiB, 63 * MiB };
    Error *err = NULL;

    set_closed(t, true);
    save(t, 1);
    for (int i = 0; i < ARRAY_SIZE(sizes); i++) {
        g_autoptr(WsmRecord) record = new_record(3);

        add_point(record, sizes[i]);
        g_assert_false(wsm_record_attr_save(t->store->fd, t->image, record,
                                            &err));
        check_error(err, "cannot set attribute 'user.wsm'");
        err = NULL;
        check_is(t, 1, true);
    }
}

/* Durable before anybody builds on it, and no success without that */
static void test_order(Test *t, const void *unused)
{
    set_closed(t, true);
    save(t, 1);
    check_calls("set sync ");
    g_assert_true(wsm_record_store_remove(t->store, &error_abort));
    check_calls("remove sync ");

    calls.sync_error = EIO;
    check_save_fails(t, "cannot sync");
    check_calls("set sync ");
    calls.sync_error = EIO;
    check_remove_fails(t, "cannot sync");
    check_calls("remove sync ");
    check_is(t, 0, true);
}

/* The record is the image's, whatever the name and whoever opens it */
static void test_names(Test *t, const void *unused)
{
    g_autofree char *other = g_strconcat(t->image, ".other", NULL);
    g_autoptr(WsmRecordStore) linked = NULL, moved = NULL, nameless = NULL;

    g_assert_cmpint(link(t->image, other), ==, 0);
    set_closed(t, true);
    save(t, 1);
    set_closed(t, false);
    linked = new_store(other);
    g_assert_cmpuint(load_from(linked), ==, 1);
    g_assert_cmpint(g_unlink(other), ==, 0);
    g_assert_cmpint(symlink(t->image, other), ==, 0);
    g_clear_pointer(&linked, wsm_record_store_free);
    linked = new_store(other);
    g_assert_cmpuint(load_from(linked), ==, 1);
    g_assert_cmpint(g_unlink(other), ==, 0);
    g_assert_cmpint(g_rename(t->image, other), ==, 0);
    moved = new_store(other);
    g_assert_cmpuint(load_from(moved), ==, 1);
    nameless = wsm_record_store_new(NULL, "fd 7", open_image(other));
    g_assert_cmpuint(load_from(nameless), ==, 1);
    g_assert_true(wsm_record_store_remove(nameless, &error_abort));
    g_assert_cmpuint(load_from(moved), ==, 0);
}

/* As with an image of another user's that was handed to us as a descriptor */
static void test_not_ours(Test *t, const void *unused)
{
    Error *err = NULL;

    set_closed(t, true);
    save(t, 1);
    g_assert_cmpint(chmod(t->image, 0444), ==, 0);
    g_assert_cmpuint(load_from(t->store), ==, 1);
    g_assert_false(wsm_record_store_check(t->store, &err));
    check_error(err, "Permission denied");
    check_save_fails(t, "Permission denied");
    check_remove_fails(t, "Permission denied");
    g_assert_cmpint(chmod(t->image, 0), ==, 0);
    g_assert_cmpuint(load_from(t->store), ==, 0);
    g_assert_true(wsm_record_store_remove(t->store, &error_abort));
    g_assert_cmpint(chmod(t->image, 0644), ==, 0);
    check_is(t, 1, true);
}

/* ---- which of the two ---- */

static void test_choice(Test *t, const void *unused)
{
    save(t, 1);
    check_is(t, 1, false);
    check_calls("sync folder ");
    g_assert_true(wsm_record_store_remove(t->store, &error_abort));
    check_is(t, 0, false);

    set_closed(t, true);
    save(t, 2);
    check_is(t, 2, true);

    /* Where it is, it stays, until it is removed */
    set_closed(t, false);
    save(t, 3);
    check_is(t, 3, true);
    g_assert_true(wsm_record_store_remove(t->store, &error_abort));
    save(t, 4);
    check_is(t, 4, false);
}

/* Only one is left, and never none in between */
static void test_from_attr_to_file(Test *t, const void *unused)
{
    g_autoptr(WsmRecord) large = new_record(5);

    set_closed(t, true);
    save(t, 2);
    set_closed(t, false);
    reset_calls();
    add_point(large, 70 * KiB);
    g_assert_true(wsm_record_store_save(t->store, large, &error_abort));
    check_calls("sync folder remove sync ");
    check_is(t, 5, false);
    g_assert_nonnull(large->points);
}

/* A file that cannot be removed any more does not count any more */
static void test_stuck_file(Test *t, const void *unused)
{
    g_autoptr(WsmRecord) found = NULL;

    save(t, 1);
    set_closed(t, true);
    check_is(t, 1, false);
    save(t, 2);
    g_assert_cmpuint(load_from(t->store), ==, 2);
    g_assert_true(wsm_record_store_remove(t->store, &error_abort));
    g_assert_true(wsm_record_exists(t->image));
    g_assert_true(wsm_record_store_load(t->store, &found, &error_abort));
    g_assert_cmpint(found->state, ==, WSM_IMAGE_STATE_CURRENT);
    g_assert_cmpstr(found->session, ==, "");
    g_assert_cmpint(found->time, >, 1000000000);
    g_assert_null(found->points);

    calls.set_error = ENOTSUP;
    check_remove_fails(t, t->folder);
    calls.set_error = 0;
    set_closed(t, false);
    g_assert_true(wsm_record_store_remove(t->store, &error_abort));
    check_is(t, 0, false);
}

/* The newest are kept */
static void test_points(Test *t, const void *unused)
{
    g_autoptr(WsmRecord) record = new_record(1), found = NULL;
    g_autoptr(WsmRecord) large = new_record(3);

    for (int i = 0; i < 4; i++) {
        add_point(record, i == 1 ? 70 * KiB : 100);
    }
    set_closed(t, true);
    g_assert_true(wsm_record_store_save(t->store, record, &error_abort));
    g_assert_true(wsm_record_store_load(t->store, &found, &error_abort));
    g_assert_cmpuint(QAPI_LIST_LENGTH(found->points), ==, 2);
    g_assert_cmpuint(QAPI_LIST_LENGTH(record->points), ==, 2);
    g_assert_cmpstr(found->points->value->id, ==, POINT "2");
    g_assert_cmpstr(found->points->next->value->id, ==, POINT "3");

    /* The state goes before all of them */
    add_point(large, 70 * KiB);
    g_assert_true(wsm_record_store_save(t->store, large, &error_abort));
    check_is(t, 3, true);
    g_assert_null(large->points);
}

static void test_check(Test *t, const void *unused)
{
    g_autoptr(WsmRecordStore) none = wsm_record_store_new(t->image, "x", -1);
    g_autoptr(WsmRecordStore) nameless =
        wsm_record_store_new(NULL, "x", open_image(t->image));
    struct stat before, after;
    Error *err = NULL;

    g_assert_true(wsm_record_store_check(t->store, &error_abort));
    g_assert_true(wsm_record_store_check(none, &error_abort));
    check_calls("");
    g_assert_cmpint(stat(t->image, &before), ==, 0);
    set_closed(t, true);
    g_assert_true(wsm_record_store_check(t->store, &error_abort));
    g_assert_true(wsm_record_store_check(nameless, &error_abort));
    check_calls("try try ");
    /* To ask is no change */
    g_assert_cmpint(listxattr(t->image, NULL, 0), ==, 0);
    g_assert_cmpint(stat(t->image, &after), ==, 0);
    g_assert_cmpmem(&before.st_ctim, sizeof(before.st_ctim),
                    &after.st_ctim, sizeof(after.st_ctim));

    g_assert_false(wsm_record_store_check(none, &err));
    check_error(err, t->folder);
    err = NULL;
    calls.set_error = ENOTSUP;
    g_assert_false(wsm_record_store_check(t->store, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "cannot create files in"));
    check_error(err, "attribute 'user.wsm'");
    err = NULL;
    g_assert_false(wsm_record_store_check(nameless, &err));
    check_error(err, "not supported");
    check_save_fails(t, "attribute 'user.wsm'");
    check_is(t, 0, false);
}

/* ---- a model of both ---- */

typedef struct Model {
    unsigned file, attr;        /* number of the record there; 0: none */
    bool closed, no_attr;
} Model;

#define CURRENT UINT_MAX

static bool model_save(Model *m, unsigned n)
{
    if (m->attr && !m->no_attr) {
        m->attr = n;
    } else if (!m->closed) {
        m->file = n;
        return !m->attr;
    } else if (!m->no_attr) {
        m->attr = n;
    } else {
        return false;
    }
    return true;
}

static bool model_remove(Model *m)
{
    if (m->file && m->closed) {
        m->attr = m->no_attr ? m->attr : CURRENT;
        return !m->no_attr;
    }
    m->file = 0;
    if (m->attr && m->no_attr) {
        return false;
    }
    m->attr = 0;
    return true;
}

static void model_step(Test *t, Model *m, unsigned n)
{
    g_autoptr(WsmRecord) record = new_record(n);

    switch (g_test_rand_int_range(0, 4)) {
    case 0:
        m->closed = !m->closed;
        set_closed(t, m->closed);
        break;
    case 1:
        m->no_attr = !m->no_attr;
        calls.set_error = calls.remove_error = m->no_attr ? ENOSPC : 0;
        break;
    case 2:
        g_assert_cmpint(wsm_record_store_remove(t->store, NULL), ==,
                        model_remove(m));
        break;
    default:
        g_assert_cmpint(wsm_record_store_save(t->store, record, NULL), ==,
                        model_save(m, n));
    }
}

static void check_model(Test *t, const Model *m)
{
    g_autoptr(WsmRecord) record = NULL;
    unsigned expected = m->attr ?: m->file;

    g_assert_true(wsm_record_store_load(t->store, &record, &error_abort));
    g_assert_cmpint(!record, ==, !expected);
    if (expected == CURRENT) {
        g_assert_cmpint(record->state, ==, WSM_IMAGE_STATE_CURRENT);
    } else if (record) {
        g_assert_cmpint(record->time, ==, expected);
        g_assert_cmpint(record->state, !=, WSM_IMAGE_STATE_CURRENT);
    }
    g_assert_cmpint(wsm_record_exists(t->image), ==, m->file != 0);
    g_assert_cmpint(wsm_record_attr_exists(t->store->fd), ==, m->attr != 0);
}

static void test_model(Test *t, const void *unused)
{
    Model m = { 0 };

    calls.fast = true;
    for (unsigned n = 1; n <= STEPS; n++) {
        model_step(t, &m, n);
        check_model(t, &m);
    }
}

static bool has_attributes(void)
{
    Test t;
    bool ok;

    set_up(&t, NULL);
    ok = wsm_record_attr_possible(t.store->fd, t.image, NULL);
    tear_down(&t, NULL);
    return ok;
}

static void add(const char *path, void (*function)(Test *, const void *))
{
    g_test_add(path, Test, NULL, set_up, function, tear_down);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    calls.log = g_string_new("");
    if (!has_attributes()) {
        printf("1..0 # SKIP no user attributes in %s\n", g_get_tmp_dir());
        return 0;
    }
    add("/wsm/store/attr", test_attr);
    add("/wsm/store/torn", test_torn);
    add("/wsm/store/too-large", test_too_large);
    add("/wsm/store/order", test_order);
    add("/wsm/store/names", test_names);
    add("/wsm/store/not-ours", test_not_ours);
    add("/wsm/store/choice", test_choice);
    add("/wsm/store/from-attr-to-file", test_from_attr_to_file);
    add("/wsm/store/stuck-file", test_stuck_file);
    add("/wsm/store/points", test_points);
    add("/wsm/store/check", test_check);
    add("/wsm/store/model", test_model);
    return g_test_run();
}
