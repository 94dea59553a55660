/*
 * Unit tests of migration/wsm/image/record.c, record-file.c and record-stamp.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-wsm.h"
#include "qemu/cutils.h"
#include "qobject/qbool.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "migration/wsm/image/record-file.h"
#include "migration/wsm/image/record-stamp.h"
#include "migration/wsm/image/record.h"

#define SESSION     "5f1d2c70-3f0e-4b1c-9b0a-4a6a1d0c9e11"
#define OTHER       "c0ffee00-1111-2222-3333-444455556666"
#define DISK_SIZE   (1 * MiB)
#define ROUNDS      200
#define HOUR_NS     (3600LL * 1000 * 1000 * 1000)

/* The smallest record.  The order of the members is that of QEMU's QDict. */
static const char small_body[] =
    "{\n"
    "    \"state\": \"handed-over\",\n"
    "    \"disk-size\": 1048576,\n"
    "    \"points\": [\n"
    "    ],\n"
    "    \"session\": \"" SESSION "\",\n"
    "    \"time\": 1700000000\n"
    "}\n";

/* The sum is that of sha256sum(1) */
static const char small_head[] =
    "wsm-record 1 "
    "a419ba687a317158fee8a9f5568b782117e4291bd4d3281c8c42a1f20438209b\n";

/* The same, as it is when QEMU is killed before the end */
static const char leaving_body[] =
    "{\n"
    "    \"state\": \"leaving\",\n"
    "    \"disk-size\": 1048576,\n"
    "    \"handover\": {\n"
    "        \"uri\": \"tcp:[fe80::1%eth0]:4444\",\n"
    "        \"points\": 64,\n"
    "        \"version\": 4,\n"
    "        \"granularity\": 65536,\n"
    "        \"disk\": 2,\n"
    "        \"disks\": 3,\n"
    "        \"channels\": 17,\n"
    "        \"format\": \"qcow2\",\n"
    "        \"tls\": true,\n"
    "        \"features\": 4294967295\n"
    "    },\n"
    "    \"points\": [\n"
    "    ],\n"
    "    \"session\": \"" SESSION "\",\n"
    "    \"time\": 1700000000\n"
    "}\n";

static const char leaving_head[] =
    "wsm-record 2 "
    "6baec418538e0c83680c8fca4f3f1237b0d0e675b326875279f4287f86f785c9\n";

/* ---- records in memory ---- */

static WsmRecord *small_record(void)
{
    WsmRecord *record = g_new0(WsmRecord, 1);

    record->state = WSM_IMAGE_STATE_HANDED_OVER;
    record->session = g_strdup(SESSION);
    record->time = 1700000000;
    record->disk_size = DISK_SIZE;
    return record;
}

static WsmRecord *leaving_record(void)
{
    WsmRecord *record = small_record();

    record->state = WSM_IMAGE_STATE_LEAVING;
    record->handover = g_new0(WsmRecordHandover, 1);
    *record->handover = (WsmRecordHandover) {
        .disk = 2, .disks = 3, .format = g_strdup("qcow2"), .points = 64,
        .granularity = 65536, .channels = 17, .version = 4,
        .features = UINT32_MAX, .uri = g_strdup("tcp:[fe80::1%eth0]:4444"),
        .tls = true,
    };
    return record;
}

static WsmRecordPoint *new_point(const char *id, const char *since,
                                 const char *rest)
{
    WsmRecordPoint *point = g_new0(WsmRecordPoint, 1);

    point->id = g_strdup(id);
    point->granularity = 4096;
    point->since = g_strdup(since);
    point->rest = g_strdup(rest);
    return point;
}

/* Has every member, and numbers that need all bits */
static WsmRecord *full_record(void)
{
    WsmRecord *record = small_record();
    WsmRecordPointList **tail = &record->points;

    record->state = WSM_IMAGE_STATE_CURRENT;
    record->peer = g_strdup("b\xc3\xbcro\n\"2\"\\");
    record->disk_size = UINT64_MAX;
    record->stamp = g_new0(WsmFileStamp, 1);
    *record->stamp = (WsmFileStamp) {
        .device = UINT64_MAX, .inode = 1, .size = 1ULL << 63,
        .mtime = INT64_MAX, .ctime = INT64_MIN,
    };
    QAPI_LIST_APPEND(tail, new_point(SESSION, "AAEC/+==", NULL));
    QAPI_LIST_APPEND(tail, new_point(OTHER, "", "AAEB"));
    return record;
}

static void check_handover_equal(const WsmRecordHandover *a,
                                 const WsmRecordHandover *b)
{
    g_assert_cmpuint(a->disk, ==, b->disk);
    g_assert_cmpuint(a->disks, ==, b->disks);
    g_assert_cmpstr(a->format, ==, b->format);
    g_assert_cmpuint(a->points, ==, b->points);
    g_assert_cmpuint(a->granularity, ==, b->granularity);
    g_assert_cmpuint(a->channels, ==, b->channels);
    g_assert_cmpuint(a->version, ==, b->version);
    g_assert_cmpuint(a->features, ==, b->features);
    g_assert_cmpstr(a->uri, ==, b->uri);
    g_assert_cmpint(a->tls, ==, b->tls);
}

static void check_equal(const WsmRecord *a, const WsmRecord *b)
{
    const WsmRecordPointList *p = a->points, *q = b->points;

    g_assert_cmpint(a->state, ==, b->state);
    g_assert_cmpstr(a->session, ==, b->session);
    g_assert_cmpint(a->time, ==, b->time);
    g_assert_cmpstr(a->peer, ==, b->peer);
    g_assert_cmpuint(a->disk_size, ==, b->disk_size);
    g_assert_true(!a->stamp == !b->stamp);
    if (a->stamp) {
        g_assert_cmpmem(a->stamp, sizeof(*a->stamp),
                        b->stamp, sizeof(*b->stamp));
    }
    g_assert_true(!a->handover == !b->handover);
    if (a->handover) {
        check_handover_equal(a->handover, b->handover);
    }
    while (p && q) {
        g_assert_cmpstr(p->value->id, ==, q->value->id);
        g_assert_cmpuint(p->value->granularity, ==, q->value->granularity);
        g_assert_cmpstr(p->value->since, ==, q->value->since);
        g_assert_cmpstr(p->value->rest, ==, q->value->rest);
        p = p->next;
        q = q->next;
    }
    g_assert_true(!p && !q);
}

/* A record with @body and the right sum */
static GString *with_sum(const char *body, size_t size)
{
    g_autofree char *sum = g_compute_checksum_for_data(
        G_CHECKSUM_SHA256, (const guchar *)body, size);
    GString *text = g_string_new("wsm-record 1 ");

    g_string_append_printf(text, "%s\n", sum);
    g_string_append_len(text, body, size);
    return text;
}

/* @text is refused, and the error has @part in it */
static void check_refused(const char *text, size_t size, const char *part)
{
    /* A copy of just this size, so that reading beyond it is noticed */
    g_autofree char *copy = g_memdup2(text, size);
    Error *err = NULL;
    WsmRecord *record = wsm_record_decode(copy, size, &err);

    g_assert_null(record);
    g_assert_nonnull(err);
    if (!strstr(error_get_pretty(err), part)) {
        g_test_message("'%s' is not in: %s", part, error_get_pretty(err));
        g_test_fail();
    }
    error_free(err);
    g_assert_null(wsm_record_decode(copy, size, NULL));
}

static void check_body_refused(const char *body, const char *part)
{
    g_autoptr(GString) text = with_sum(body, strlen(body));

    check_refused(text->str, text->len, part);
}

static void check_round_trip(WsmRecord *record)
{
    g_autoptr(GString) text = wsm_record_encode(record);
    g_autofree char *copy = g_memdup2(text->str, text->len);
    g_autoptr(WsmRecord) again = wsm_record_decode(copy, text->len,
                                                   &error_abort);

    check_equal(record, again);
}

static void test_round_trip(void)
{
    g_autoptr(WsmRecord) small = small_record();
    g_autoptr(WsmRecord) full = full_record();
    g_autoptr(WsmRecord) leaving = leaving_record();

    check_round_trip(small);
    check_round_trip(full);
    check_round_trip(leaving);
    for (int state = 0; state < WSM_IMAGE_STATE_ARRIVING; state++) {
        small->state = state;
        check_round_trip(small);
    }
}

/* That is told by a map */
static void test_arriving(void)
{
    g_autoptr(WsmRecord) record = small_record();
    g_autoptr(GString) text = NULL;
    Error *err = NULL;

    record->state = WSM_IMAGE_STATE_ARRIVING;
    text = wsm_record_encode(record);
    g_assert_null(wsm_record_decode(text->str, text->len, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "no usable wsm record: state "
                    "'arriving' is for a map to tell");
    error_free(err);
}

static void check_bytes(WsmRecord *record, const char *head, const char *body)
{
    g_autoptr(GString) text = wsm_record_encode(record);
    g_autofree char *expected = g_strconcat(head, body, NULL);

    g_assert_cmpstr(text->str, ==, expected);
    g_assert_cmpuint(text->len, ==, strlen(expected));
}

static void test_bytes(void)
{
    g_autoptr(WsmRecord) small = small_record();
    g_autoptr(WsmRecord) leaving = leaving_record();

    check_bytes(small, small_head, small_body);
    check_bytes(leaving, leaving_head, leaving_body);
}

static void test_torn(void)
{
    g_autoptr(WsmRecord) record = leaving_record();
    g_autoptr(GString) text = wsm_record_encode(record);

    for (size_t size = 0; size < text->len; size++) {
        check_refused(text->str, size, "no usable wsm record: ");
    }
}

static void test_longer(void)
{
    g_autoptr(WsmRecord) record = small_record();
    g_autoptr(GString) text = wsm_record_encode(record);

    g_string_append_c(text, '\n');
    check_refused(text->str, text->len, "torn or was changed");
}

static void test_flipped(void)
{
    g_autoptr(WsmRecord) record = full_record();
    g_autoptr(GString) text = wsm_record_encode(record);

    for (size_t i = 0; i < text->len; i++) {
        char right = text->str[i];

        for (int bit = 0; bit < 8; bit++) {
            text->str[i] = right ^ (1 << bit);
            check_refused(text->str, text->len, "no usable wsm record: ");
        }
        text->str[i] = ~right;
        check_refused(text->str, text->len, "no usable wsm record: ");
        text->str[i] = right;
    }
}

static void test_version(void)
{
    const char *wrong[] = { "0", "3", "10", "01", "999999999" };
    const char *none[] = { "", "-1", "x", "1x", "1000000000000000000000" };

    for (int i = 0; i < ARRAY_SIZE(wrong); i++) {
        g_autofree char *text = g_strdup_printf("wsm-record %s what ever\n",
                                                wrong[i]);
        g_autofree char *part = g_strdup_printf(
            "it has version %s, but this QEMU reads only versions 1 and 2",
            wrong[i]);

        check_refused(text, strlen(text), part);
    }
    for (int i = 0; i < ARRAY_SIZE(none); i++) {
        g_autofree char *text = g_strdup_printf("wsm-record %s x\n", none[i]);

        check_refused(text, strlen(text), "no version number");
    }
    check_refused("WSM-record 1 ", 13, "does not begin with 'wsm-record '");
}

/* ---- what the JSON may be ---- */

static QDict *small_dict(void)
{
    return qobject_to(QDict, qobject_from_json(small_body, &error_abort));
}

static void check_dict_refused(QDict *dict, const char *part)
{
    g_autoptr(GString) body = qobject_to_json(QOBJECT(dict));

    check_body_refused(body->str, part);
    qobject_unref(dict);
}

static void test_json(void)
{
    g_autoptr(GString) nul = with_sum(small_body, sizeof(small_body));

    check_refused(nul->str, nul->len, "NUL");
    check_body_refused("\n", "JSON");
    check_body_refused("{", "JSON");
    check_body_refused("{} {}", "JSON");
    check_body_refused("7", "object");
    check_body_refused("[]", "object");
    check_body_refused("{}", "'state' is missing");
}

static void test_members(void)
{
    const char *needed[] = { "state", "session", "time", "disk-size",
                             "points" };
    QDict *dict;

    for (int i = 0; i < ARRAY_SIZE(needed); i++) {
        g_autofree char *part = g_strdup_printf("'%s' is missing", needed[i]);

        dict = small_dict();
        qdict_del(dict, needed[i]);
        check_dict_refused(dict, part);
    }
    dict = small_dict();
    qdict_put_str(dict, "colour", "blue");
    check_dict_refused(dict, "'colour' is unexpected");
    dict = small_dict();
    qdict_put_str(dict, "state", "asleep");
    check_dict_refused(dict, "asleep");
    dict = small_dict();
    qdict_put_str(dict, "time", "noon");
    check_dict_refused(dict, "'time'");
    dict = small_dict();
    qdict_put_bool(dict, "disk-size", true);
    check_dict_refused(dict, "'disk-size'");
}

static void check_point_refused(const char *point, const char *part)
{
    QDict *dict = small_dict();
    g_autofree char *list = g_strdup_printf("[ { %s } ]", point);

    qdict_put_obj(dict, "points", qobject_from_json(list, &error_abort));
    check_dict_refused(dict, part);
}

static void test_points(void)
{
    check_point_refused("'id': 'me', 'granularity': 4096, 'since': ''",
                        "'me', is no UUID");
    check_point_refused("'id': '" OTHER "', 'granularity': 0, 'since': ''",
                        "0, is no power of two");
    check_point_refused("'id': '" OTHER "', 'granularity': 5000, 'since': ''",
                        "5000, is no power of two");
    check_point_refused("'id': '" OTHER "', 'granularity': 4294967296, "
                        "'since': ''", "granularity");
    check_point_refused("'id': '" OTHER "', 'granularity': 4096",
                        "'points[0].since' is missing");
    check_point_refused("'id': '" OTHER "', 'granularity': 4096, 'since': '', "
                        "'until': ''", "'points[0].until' is unexpected");
}

/* ---- files ---- */

typedef struct Files {
    char *folder, *image, *path, *new_path;
} Files;

static void write_text(const char *path, const char *text, gssize size)
{
    GError *error = NULL;

    g_file_set_contents(path, text, size, &error);
    g_assert_no_error(error);
}

static void set_up(Files *files, const void *unused)
{
    GError *error = NULL;

    files->folder = g_dir_make_tmp("test-wsm-record.XXXXXX", &error);
    g_assert_no_error(error);
    files->image = g_build_filename(files->folder, "disk.raw", NULL);
    files->path = wsm_record_path(files->image);
    files->new_path = g_strconcat(files->image, ".wsm.new", NULL);
    write_text(files->image, "data of a disk", -1);
}

static void tear_down(Files *files, const void *unused)
{
    const char *name;
    GDir *dir = g_dir_open(files->folder, 0, NULL);

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(files->folder, name, NULL);

        g_assert_cmpint(remove(path), ==, 0);
    }
    g_dir_close(dir);
    g_assert_cmpint(rmdir(files->folder), ==, 0);
    g_free(files->folder);
    g_free(files->image);
    g_free(files->path);
    g_free(files->new_path);
}

static void check_error(Error *err, const char *part, const char *other)
{
    g_assert_nonnull(err);
    g_test_message("%s", error_get_pretty(err));
    g_assert_nonnull(strstr(error_get_pretty(err), part));
    g_assert_nonnull(strstr(error_get_pretty(err), other));
    error_free(err);
}

static void check_load_refused(Files *files, const char *part)
{
    WsmRecord *record = (WsmRecord *)files;
    Error *err = NULL;

    g_assert_true(wsm_record_exists(files->image));
    g_assert_false(wsm_record_load(files->image, &record, &err));
    g_assert_null(record);
    check_error(err, files->path, part);
}

static void check_save_refused(const char *image, const char *path,
                               const char *part)
{
    g_autoptr(WsmRecord) record = small_record();
    Error *err = NULL;

    g_assert_false(wsm_record_save(image, record, &err));
    check_error(err, path, part);
}

static void check_loads(const Files *files, const WsmRecord *expected)
{
    g_autoptr(WsmRecord) record = NULL;

    g_assert_true(wsm_record_exists(files->image));
    g_assert_true(wsm_record_load(files->image, &record, &error_abort));
    g_assert_nonnull(record);
    check_equal(record, expected);
}

static void check_none(const char *image)
{
    WsmRecord *record = (WsmRecord *)image;

    g_assert_false(wsm_record_exists(image));
    g_assert_true(wsm_record_load(image, &record, &error_abort));
    g_assert_null(record);
    g_assert_true(wsm_record_remove(image, &error_abort));
}

static void test_save(Files *files, const void *unused)
{
    g_autofree char *expected = g_strconcat(files->image, ".wsm", NULL);
    g_autoptr(WsmRecord) record = full_record();
    g_autoptr(GString) text = wsm_record_encode(record);
    g_autofree char *content = NULL;
    gsize size;

    g_assert_cmpstr(files->path, ==, expected);
    check_none(files->image);
    g_assert_true(wsm_record_save(files->image, record, &error_abort));
    check_loads(files, record);
    g_assert_true(g_file_get_contents(files->path, &content, &size, NULL));
    g_assert_cmpmem(content, size, text->str, text->len);
    g_assert_cmpint(access(files->new_path, F_OK), ==, -1);

    g_assert_true(wsm_record_remove(files->image, &error_abort));
    check_none(files->image);
}

/* Whoever has the old record open still reads the old one, to its end */
static void test_replace(Files *files, const void *unused)
{
    g_autoptr(WsmRecord) old = full_record();
    g_autoptr(WsmRecord) new = small_record();
    g_autoptr(GString) text = wsm_record_encode(old);
    g_autofree char *content = g_malloc(text->len + 1);
    int fd;

    g_assert_true(wsm_record_save(files->image, old, &error_abort));
    fd = open(files->path, O_RDONLY);
    g_assert_cmpint(fd, >=, 0);
    g_assert_true(wsm_record_save(files->image, new, &error_abort));
    check_loads(files, new);
    g_assert_cmpint(read(fd, content, text->len + 1), ==, text->len);
    g_assert_cmpmem(content, text->len, text->str, text->len);
    close(fd);
}

/* A crash before the rename leaves half a new file, and the old one */
static void test_left_over(Files *files, const void *unused)
{
    g_autoptr(WsmRecord) old = full_record();
    g_autoptr(WsmRecord) new = small_record();
    const char *victim = "data of a disk";
    g_autofree char *content = NULL;

    write_text(files->new_path, "wsm-rec", -1);
    check_none(files->image);
    g_assert_true(wsm_record_save(files->image, old, &error_abort));
    write_text(files->new_path, "wsm-rec", -1);
    check_loads(files, old);

    g_assert_true(wsm_record_save(files->image, new, &error_abort));
    check_loads(files, new);
    g_assert_cmpint(access(files->new_path, F_OK), ==, -1);

    /* It is not written through, whatever it is */
    g_assert_cmpint(symlink(files->image, files->new_path), ==, 0);
    g_assert_true(wsm_record_save(files->image, old, &error_abort));
    check_loads(files, old);
    g_assert_true(g_file_get_contents(files->image, &content, NULL, NULL));
    g_assert_cmpstr(content, ==, victim);
    g_assert_cmpint(mkfifo(files->new_path, 0600), ==, 0);
    g_assert_true(wsm_record_save(files->image, new, &error_abort));
    check_loads(files, new);
}

static void test_mode(Files *files, const void *unused)
{
    const mode_t modes[] = { 0600, 0640, 0666, 0444, 0755, 0 };
    g_autoptr(WsmRecord) record = small_record();
    struct stat st;

    for (int i = 0; i < ARRAY_SIZE(modes); i++) {
        g_assert_cmpint(chmod(files->image, modes[i]), ==, 0);
        g_assert_true(wsm_record_save(files->image, record, &error_abort));
        g_assert_cmpint(stat(files->path, &st), ==, 0);
        g_assert_cmphex(st.st_mode & 07777, ==, modes[i] & 0666);
    }
    if (geteuid() != 0) {
        check_load_refused(files, "cannot open");
        return;
    }
    g_assert_cmpint(chown(files->image, 1234, 4321), ==, 0);
    g_assert_true(wsm_record_save(files->image, record, &error_abort));
    g_assert_cmpint(stat(files->path, &st), ==, 0);
    g_assert_cmpint(st.st_uid, ==, 1234);
    g_assert_cmpint(st.st_gid, ==, 4321);
}

static void test_unwritable(Files *files, const void *unused)
{
    g_autoptr(WsmRecord) record = full_record();
    Error *err = NULL;

    /* Not even root can create files there */
    check_save_refused("/proc/version", "/proc/version.wsm", "cannot ");
    check_save_refused("/nowhere/disk", "/nowhere/disk.wsm", "No such file");
    check_save_refused(files->folder, files->folder, "no regular file");

    g_assert_cmpint(mkdir(files->new_path, 0700), ==, 0);
    check_save_refused(files->image, files->new_path, "cannot remove");
    g_assert_cmpint(rmdir(files->new_path), ==, 0);

    if (geteuid() == 0) {
        return;
    }
    g_assert_true(wsm_record_save(files->image, record, &error_abort));
    g_assert_cmpint(chmod(files->folder, 0500), ==, 0);
    check_save_refused(files->image, files->path, "Permission denied");
    g_assert_false(wsm_record_remove(files->image, &err));
    check_error(err, files->path, "Permission denied");
    check_loads(files, record);
    g_assert_cmpint(chmod(files->folder, 0), ==, 0);
    check_load_refused(files, "Permission denied");
    g_assert_cmpint(chmod(files->folder, 0700), ==, 0);
}

static void test_torn_file(Files *files, const void *unused)
{
    g_autoptr(WsmRecord) record = small_record();
    g_autoptr(GString) text = wsm_record_encode(record);

    write_text(files->path, "", 0);
    check_load_refused(files, "does not begin");
    write_text(files->path, text->str, text->len - 1);
    check_load_refused(files, "torn");
    /* The way out: either of these works with any of them */
    g_assert_true(wsm_record_save(files->image, record, &error_abort));
    check_loads(files, record);
    write_text(files->path, "rubbish", -1);
    g_assert_true(wsm_record_remove(files->image, &error_abort));
    check_none(files->image);
}

static void test_no_file(Files *files, const void *unused)
{
    g_autoptr(WsmRecord) record = small_record();
    Error *err = NULL;

    g_assert_cmpint(mkdir(files->path, 0700), ==, 0);
    check_load_refused(files, "no regular file");
    check_save_refused(files->image, files->path, "cannot rename");
    g_assert_cmpint(access(files->new_path, F_OK), ==, -1);
    g_assert_false(wsm_record_remove(files->image, &err));
    check_error(err, files->path, "cannot remove");
    g_assert_cmpint(rmdir(files->path), ==, 0);

    g_assert_cmpint(mkfifo(files->path, 0600), ==, 0);
    check_load_refused(files, "no regular file");
    g_assert_true(wsm_record_save(files->image, record, &error_abort));
    check_loads(files, record);
    g_assert_true(wsm_record_remove(files->image, &error_abort));

    g_assert_cmpint(symlink("/dev/zero", files->path), ==, 0);
    check_load_refused(files, "no regular file");
    g_assert_true(wsm_record_remove(files->image, &error_abort));
}

static void test_link(Files *files, const void *unused)
{
    g_autoptr(WsmRecord) record = small_record();
    g_autofree char *elsewhere = g_strconcat(files->image, ".else", NULL);

    g_assert_true(wsm_record_save(files->image, record, &error_abort));
    g_assert_cmpint(rename(files->path, elsewhere), ==, 0);
    g_assert_cmpint(symlink(elsewhere, files->path), ==, 0);
    check_loads(files, record);
}

static void test_too_large(Files *files, const void *unused)
{
    g_autoptr(WsmRecord) record = small_record();
    g_autofree char *runs = g_strnfill(WSM_RECORD_MAX_BYTES, 'A');
    WsmRecordPointList **tail = &record->points;
    Error *err = NULL;
    int fd;

    /* What is just small enough to be written can be read again */
    QAPI_LIST_APPEND(tail, new_point(OTHER, runs, NULL));
    g_assert_false(wsm_record_save(files->image, record, &err));
    check_error(err, files->path, "at most");
    check_none(files->image);
    record->points->value->since[WSM_RECORD_MAX_BYTES - 1 * KiB] = 0;
    g_assert_true(wsm_record_save(files->image, record, &error_abort));
    check_loads(files, record);

    /* Many bytes without any data */
    fd = open(files->path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, 1 * TiB), ==, 0);
    close(fd);
    check_load_refused(files, "1099511627776");
}

static void test_names(Files *files, const void *unused)
{
    g_autofree char *name = g_strnfill(255, 'n');
    g_autofree char *image = g_build_filename(files->folder, name, NULL);
    g_autofree char *below = g_build_filename(files->image, "disk", NULL);

    check_none(below);
    /* An image whose record would have too long a name can still be used */
    g_assert_cmpint(rename(files->image, image), ==, 0);
    check_none(image);
    check_save_refused(image, name, "File name too long");
    check_none("/dev/fdset/7");
}

/* ---- stamps ---- */

static bool stat_file(const char *image, WsmFileStamp *stamp, Error **errp)
{
    int fd = open(image, O_RDONLY);
    bool ok = wsm_record_stat(fd, image, stamp, errp);

    close(fd);
    return ok;
}

static bool stamp_file(const char *image, WsmFileStamp *stamp, Error **errp)
{
    int fd = open(image, O_RDONLY);
    bool ok = wsm_record_stamp(fd, image, stamp, errp);

    close(fd);
    return ok;
}

static const WsmFileStamp a_stamp = {
    .device = 11, .inode = 22, .size = 33, .mtime = 44, .ctime = 55,
};

static void check_differs(const WsmFileStamp *now, const char *name,
                          const char *values)
{
    Error *err = NULL;

    g_assert_false(wsm_record_unchanged(&a_stamp, now, &err));
    check_error(err, name, values);
    g_assert_false(wsm_record_unchanged(now, &a_stamp, NULL));
}

static void test_compare(void)
{
    WsmFileStamp now = a_stamp;

    g_assert_true(wsm_record_unchanged(&a_stamp, &now, &error_abort));
    now.device = 66;
    check_differs(&now, "device", "was 11 and is 66");
    now = a_stamp;
    now.inode = UINT64_MAX;
    check_differs(&now, "inode", "was 22 and is 18446744073709551615");
    now = a_stamp;
    now.size = 0;
    check_differs(&now, "size", "was 33 and is 0");
    now = a_stamp;
    now.mtime = -1;
    check_differs(&now, "mtime", "was 44 and is -1");
    now.size = 34;
    check_differs(&now, "its size was 33 and is 34",
                  "its mtime was 44 and is -1");
    now = a_stamp;
    now.ctime = 56;
    g_assert_true(wsm_record_unchanged(&a_stamp, &now, &error_abort));
}

static void test_future(Files *files, const void *unused)
{
    int64_t now = g_get_real_time() * 1000, begin = g_get_monotonic_time();
    struct timespec times[2] = { { .tv_nsec = UTIME_OMIT } };
    WsmFileStamp stamp = a_stamp;
    Error *err = NULL;

    stamp.ctime = now + HOUR_NS;
    g_assert_true(wsm_record_unchanged(&stamp, &stamp, &error_abort));
    stamp.mtime = now + HOUR_NS;
    g_assert_false(wsm_record_unchanged(&stamp, &stamp, &err));
    check_error(err, "in the future", "clock");
    err = NULL;

    times[1].tv_sec = now / 1000000000 + 3600;
    g_assert_cmpint(utimensat(AT_FDCWD, files->image, times, 0), ==, 0);
    g_assert_true(stat_file(files->image, &stamp, &error_abort));
    g_assert_false(stamp_file(files->image, &stamp, &err));
    check_error(err, files->image, "in the future");
    /* It is some 50 ms; more for a busy machine */
    g_assert_cmpint(g_get_monotonic_time() - begin, <, G_USEC_PER_SEC);
}

static void write_again(const char *image)
{
    int fd = open(image, O_WRONLY);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pwrite(fd, "D", 1, 0), ==, 1);
    close(fd);
}

static void test_write_after(Files *files, const void *unused)
{
    for (int i = 0; i < ROUNDS; i++) {
        WsmFileStamp then, now;

        g_assert_true(stamp_file(files->image, &then, &error_abort));
        g_assert_true(stat_file(files->image, &now, &error_abort));
        g_assert_true(wsm_record_unchanged(&then, &now, &error_abort));
        write_again(files->image);
        g_assert_true(stat_file(files->image, &now, &error_abort));
        g_assert_false(wsm_record_unchanged(&then, &now, NULL));
        g_assert_cmpint(then.mtime, <, now.mtime);
        g_assert_cmpint(then.ctime, <, now.ctime);
        g_assert_cmpuint(then.size, ==, now.size);
    }
}

/* Beyond detection, and said so in docs/records.md */
static void test_put_back(Files *files, const void *unused)
{
    WsmFileStamp then, now;
    struct timespec times[2];
    struct stat st;

    g_assert_true(stamp_file(files->image, &then, &error_abort));
    g_assert_cmpint(stat(files->image, &st), ==, 0);
    write_again(files->image);
    times[0] = st.st_atim;
    times[1] = st.st_mtim;
    g_assert_cmpint(utimensat(AT_FDCWD, files->image, times, 0), ==, 0);
    g_assert_true(stat_file(files->image, &now, &error_abort));
    g_assert_cmpint(then.mtime, ==, now.mtime);
    g_assert_cmpint(then.ctime, <, now.ctime);
    g_assert_true(wsm_record_unchanged(&then, &now, &error_abort));
}

/* What libvirt, labels and administrators do to an image at rest */
static void touch_inode(Files *files, int how)
{
    g_autofree char *other = g_strconcat(files->image, ".other", NULL);

    switch (how) {
    case 0:
        g_assert_cmpint(chmod(files->image, 0600), ==, 0);
        g_assert_cmpint(chmod(files->image, 0644), ==, 0);
        break;
    case 1:
        /* Only root may give a file away; to oneself anybody */
        if (geteuid() == 0) {
            g_assert_cmpint(chown(files->image, 1234, 4321), ==, 0);
        }
        g_assert_cmpint(chown(files->image, geteuid(), getegid()), ==, 0);
        break;
    case 2:
        g_assert_cmpint(link(files->image, other), ==, 0);
        g_assert_cmpint(unlink(other), ==, 0);
        break;
    default:
        g_assert_cmpint(rename(files->image, other), ==, 0);
        g_assert_cmpint(rename(other, files->image), ==, 0);
    }
}

static void test_metadata(Files *files, const void *unused)
{
    for (int how = 0; how < 4; how++) {
        WsmFileStamp then, now;

        g_assert_true(stamp_file(files->image, &then, &error_abort));
        touch_inode(files, how);
        g_assert_true(stat_file(files->image, &now, &error_abort));
        g_assert_true(how > 0 || now.ctime > then.ctime);
        g_assert_true(wsm_record_unchanged(&then, &now, &error_abort));
        /* It hides no write */
        write_again(files->image);
        touch_inode(files, how);
        g_assert_true(stat_file(files->image, &now, &error_abort));
        g_assert_false(wsm_record_unchanged(&then, &now, NULL));
    }
}

/* Another file under the name of the image, as old as it is */
static void test_replaced(Files *files, const void *unused)
{
    g_autofree char *copy = g_strconcat(files->image, ".copy", NULL);
    WsmFileStamp then, now;
    Error *err = NULL;

    write_text(copy, "data of a disk", -1);
    g_assert_true(stamp_file(files->image, &then, &error_abort));
    g_assert_cmpint(rename(copy, files->image), ==, 0);
    g_assert_true(stat_file(files->image, &now, &error_abort));
    g_assert_false(wsm_record_unchanged(&then, &now, &err));
    check_error(err, "inode", "was");
}

/* Writing the record is no change of the image */
static void test_own_record(Files *files, const void *unused)
{
    g_autoptr(WsmRecord) record = small_record();
    WsmFileStamp then, now;

    g_assert_true(stamp_file(files->image, &then, &error_abort));
    g_assert_true(wsm_record_save(files->image, record, &error_abort));
    g_assert_true(wsm_record_remove(files->image, &error_abort));
    g_assert_true(stat_file(files->image, &now, &error_abort));
    g_assert_true(wsm_record_unchanged(&then, &now, &error_abort));
}

static void test_no_image(Files *files, const void *unused)
{
    WsmFileStamp stamp;
    Error *err = NULL;

    g_assert_false(stat_file(files->folder, &stamp, &err));
    check_error(err, files->folder, "no regular file");
    err = NULL;
    g_assert_false(stamp_file("/dev/null", &stamp, &err));
    check_error(err, "/dev/null", "no regular file");
    err = NULL;
    g_assert_false(wsm_record_stamp(-1, "disk", &stamp, &err));
    check_error(err, "disk", "Bad file descriptor");
}

static void add(const char *path, void (*function)(Files *, const void *))
{
    g_test_add(path, Files, NULL, set_up, function, tear_down);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/record/round-trip", test_round_trip);
    g_test_add_func("/wsm/record/arriving", test_arriving);
    g_test_add_func("/wsm/record/bytes", test_bytes);
    g_test_add_func("/wsm/record/torn", test_torn);
    g_test_add_func("/wsm/record/longer", test_longer);
    g_test_add_func("/wsm/record/flipped", test_flipped);
    g_test_add_func("/wsm/record/version", test_version);
    g_test_add_func("/wsm/record/json", test_json);
    g_test_add_func("/wsm/record/members", test_members);
    g_test_add_func("/wsm/record/points", test_points);
    add("/wsm/record/file/save", test_save);
    add("/wsm/record/file/replace", test_replace);
    add("/wsm/record/file/left-over", test_left_over);
    add("/wsm/record/file/mode", test_mode);
    add("/wsm/record/file/unwritable", test_unwritable);
    add("/wsm/record/file/torn", test_torn_file);
    add("/wsm/record/file/no-file", test_no_file);
    add("/wsm/record/file/link", test_link);
    add("/wsm/record/file/too-large", test_too_large);
    add("/wsm/record/file/names", test_names);
    g_test_add_func("/wsm/record/stamp/compare", test_compare);
    add("/wsm/record/stamp/future", test_future);
    add("/wsm/record/stamp/write-after", test_write_after);
    add("/wsm/record/stamp/put-back", test_put_back);
    add("/wsm/record/stamp/metadata", test_metadata);
    add("/wsm/record/stamp/replaced", test_replaced);
    add("/wsm/record/stamp/own-record", test_own_record);
    add("/wsm/record/stamp/no-image", test_no_image);
    return g_test_run();
}
