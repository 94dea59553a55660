/*
 * Unit tests of migration/wsm/hmp.c: what a user reads and types
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-wsm.h"
#include "qapi/qapi-visit-wsm.h"
#include "qapi/qobject-input-visitor.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "migration/wsm/state.h"

#define NOTHING \
    "'phases': [], 'disks': [], 'excluded': [], 'channels': [], 'images': []"

static GHashTable *commands;    /* char *: void (*)(Monitor *, const QDict *) */
static GString *printed;
static const char *answer;      /* JSON of what is asked for */
static WsmOptions *set;
static strList *adopted;
static bool adopts_all;

/*
 * The monitor, and QMP
 */

void monitor_register_hmp(const char *name, bool info,
                          void (*cmd)(Monitor *mon, const QDict *qdict))
{
    g_hash_table_insert(commands, g_strdup_printf("%s%s", info ? "info " : "",
                                                  name), cmd);
}

int monitor_printf(Monitor *mon, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_string_append_vprintf(printed, fmt, ap);
    va_end(ap);
    return 0;
}

bool hmp_handle_error(Monitor *mon, Error *err)
{
    if (err) {
        monitor_printf(mon, "Error: %s\n", error_get_pretty(err));
        error_free(err);
    }
    return err;
}

strList *hmp_split_at_comma(const char *str)
{
    g_auto(GStrv) words = g_strsplit(str, ",", -1);
    strList *list = NULL, **tail = &list;

    for (char **word = words; *word; word++) {
        QAPI_LIST_APPEND(tail, g_strdup(*word));
    }
    return list;
}

static Visitor *visitor_of_answer(void)
{
    QObject *object = qobject_from_json(answer, &error_abort);
    Visitor *v = qobject_input_visitor_new(object);

    qobject_unref(object);
    return v;
}

WsmInfo *qmp_query_wsm(Error **errp)
{
    Visitor *v = visitor_of_answer();
    WsmInfo *info;

    visit_type_WsmInfo(v, NULL, &info, &error_abort);
    visit_free(v);
    return info;
}

WsmOptions *qmp_query_wsm_options(Error **errp)
{
    Visitor *v = visitor_of_answer();
    WsmOptions *options;

    visit_type_WsmOptions(v, NULL, &options, &error_abort);
    visit_free(v);
    return options;
}

void qmp_wsm_set_options(WsmOptions *options, Error **errp)
{
    set = QAPI_CLONE(WsmOptions, options);
    if (options->has_channels && options->channels > 16) {
        error_setg(errp, "too many");
    }
}

void qmp_wsm_adopt(bool has_disks, strList *disks, bool has_missing,
                   WsmAdoptMissing missing, Error **errp)
{
    adopts_all = !has_disks;
    adopted = QAPI_CLONE(strList, disks);
}

/* What the command says; @key of its arguments is @value unless NULL */
static const char *say(const char *command, const char *key, const char *value)
{
    void (*run)(Monitor *, const QDict *) = g_hash_table_lookup(commands,
                                                                command);
    g_autoptr(QDict) dict = qdict_new();

    g_assert_nonnull(run);
    if (value) {
        qdict_put_str(dict, key, value);
    }
    g_string_truncate(printed, 0);
    run(NULL, dict);
    return printed->str;
}

/*
 * Tests
 */

static void test_nothing(void)
{
    answer = "{ 'role': 'none', 'phase': 'none', " NOTHING " }";
    g_assert_cmpstr(say("info wsm", NULL, NULL), ==,
                    "role: none, phase: none\n");
}

static void test_all(void)
{
    answer =
        "{ 'role': 'source', 'phase': 'postcopy', 'session': 'abc',"
        "  'error': 'late', 'total': 4194304, 'remaining': 1048576,"
        "  'percent': 75, 'speed': 1024, 'ram-remaining': 2048,"
        "  'expected-handover-seconds': 3, 'expected-seconds': 4,"
        "  'downtime-ms': 5,"
        "  'phases': [ { 'phase': 'setup', 'ms': 6 },"
        "              { 'phase': 'freeze', 'ms': 7 } ],"
        "  'disks': [ { 'name': 'vd0', 'path': '/d', 'size': 4096,"
        "    'sent': 1024, 'packed': 512, 'zero': 2048, 'skipped': 0,"
        "    'dirty': 1, 'missing': 2, 'pushed': 0, 'pulled': 0,"
        "    'waiting-reads': 8, 'compared': 3, 'equal': 4,"
        "    'basis': { 'kind': 'sync-point', 'reason': 'known' } } ],"
        "  'excluded': [ { 'name': 'cd0', 'reason': 'read-only' } ],"
        "  'memory': { 'referenced': 1024, 'missed': 0, 'wrong': 0, 'late': 0,"
        "    'inline': 2048, 'packed': 512, 'missing': 0, 'asked': 0,"
        "    'index': 0, 'kinds': [ { 'kind': 'image', 'referenced': 1024,"
        "      'missed': 1, 'wrong': 2, 'late': 3 } ] },"
        "  'channels': [ { 'id': 0, 'connected': true, 'reconnects': 0 },"
        "                { 'id': 1, 'connected': false, 'reconnects': 9 } ],"
        "  'images': [ { 'name': 'vd0', 'state': 'handed-over',"
        "    'points': [ { 'id': 'p', 'changed': 0, 'interrupted': false } ],"
        "    'peer': 'b:1', 'problem': 'odd' } ] }";
    g_assert_cmpstr(say("info wsm", NULL, NULL), ==,
        "role: source, phase: postcopy, session: abc\n"
        "error: late\n"
        "progress: 75 %, 1 MiB of 4 MiB left, 1 KiB/s, memory left 2 KiB\n"
        "the guest runs at the destination in about 3 s\n"
        "all is at the destination in about 4 s\n"
        "downtime: 5 ms\n"
        "phases: setup 6 ms, freeze 7 ms\n"
        "disk vd0: 4 KiB, sent 1 KiB, packed into 512 B, zeroes 2 KiB, "
        "compared 3 B, equal 4 B, dirty 1 B, missing 2 B, 8 reads wait\n"
        "  basis sync-point: known\n"
        "left out: cd0 (read-only)\n"
        "memory by reference: 1 KiB, with content 2 KiB, sent as 512 B\n"
        "  image: 1 KiB, missed 1 B, wrong 2 B, late 3 B\n"
        "channels: 0 up, 1 down (opened again 9 times)\n"
        "image vd0: handed-over, 1 sync points, other host b:1 (odd)\n");
}

/* What is printed can be typed */
static void test_options(void)
{
    g_autofree char *line = NULL;

    answer =
        "{ 'channels': 2, 'granularity': 4096, 'bandwidth': 0,"
        "  'max-residue': 1000, 'switchover-timeout': 10000,"
        "  'sync-points': 8, 'compare-bandwidth': 0,"
        "  'memory-adaptive': true, 'disk-packing': false,"
        "  'keep-memory': false, 'keep-memory-file': '/k',"
        "  'crash-safe': 'auto', 'x-push-delay': 0, 'x-memory-pack': true,"
        "  'disks': [ 'vd0', 'vd1' ],"
        "  'basis': [ { 'disk': 'vd0', 'kind': 'full' } ],"
        "  'memory-references': [ 'image' ],"
        "  'maps': [ { 'disk': 'vd0', 'node': 'm' } ] }";
    line = g_strchomp(g_strdup(say("wsm_set_options", "options", NULL)));
    g_assert_cmpstr(say("wsm_set_options", "options", line), ==, "");
    g_assert_cmpint(set->channels, ==, 2);
    g_assert_cmpstr(set->keep_memory_file, ==, "/k");
    g_assert_cmpstr(set->disks->next->value, ==, "vd1");
    g_assert_cmpint(set->basis->value->kind, ==, WSM_BASIS_KIND_FULL);
    g_assert_cmpint(set->memory_references->value, ==, WSM_MEMORY_KIND_IMAGE);
    g_assert_cmpstr(set->maps->value->node, ==, "m");
    g_clear_pointer(&set, qapi_free_WsmOptions);
}

static void test_empty_lists(void)
{
    g_assert_cmpstr(say("wsm_set_options", "options",
                        "disks=,basis=,memory-references=,maps="), ==, "");
    g_assert_true(set->has_disks && !set->disks);
    g_assert_true(set->has_basis && !set->basis);
    g_assert_true(set->has_memory_references && !set->memory_references);
    g_assert_true(set->has_maps && !set->maps);
    g_clear_pointer(&set, qapi_free_WsmOptions);
}

static void test_refused(void)
{
    g_assert_cmpstr(say("wsm_set_options", "options", "chanels=3"), ==,
                    "Error: Parameter 'chanels' is unexpected\n");
    g_assert_null(set);
    g_assert_cmpstr(say("wsm_set_options", "options", "channels=17"), ==,
                    "Error: too many\n");
    g_clear_pointer(&set, qapi_free_WsmOptions);
}

static void test_adopt(void)
{
    say("wsm_adopt", "disks", NULL);
    g_assert_true(adopts_all && !adopted);
    say("wsm_adopt", "disks", "vd0,vd1");
    g_assert_false(adopts_all);
    g_assert_cmpstr(adopted->value, ==, "vd0");
    g_assert_cmpstr(adopted->next->value, ==, "vd1");
    g_clear_pointer(&adopted, qapi_free_strList);
}

int main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    commands = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    printed = g_string_new(NULL);
    wsm_hmp_init();
    g_test_add_func("/wsm/hmp/nothing", test_nothing);
    g_test_add_func("/wsm/hmp/all", test_all);
    g_test_add_func("/wsm/hmp/options", test_options);
    g_test_add_func("/wsm/hmp/empty-lists", test_empty_lists);
    g_test_add_func("/wsm/hmp/refused", test_refused);
    g_test_add_func("/wsm/hmp/adopt", test_adopt);
    status = g_test_run();
    g_string_free(printed, true);
    g_hash_table_unref(commands);
    return status;
}
