/*
 * Unit tests of migration/wsm/policy/match.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/policy/match.h"

#define ID(name)    "/machine/peripheral/" name "/virtio-backend"
#define ANON(n)     "/machine/peripheral-anon/device[" n "]/virtio-backend"
#define FLASH       "/machine/system.flash1"

/* Find @path, @address among @ours, of which the last has no path */
static int find(const WsmMatch *ours, const char *path, const char *address,
                Error **errp)
{
    g_autoptr(GArray) all = g_array_new(false, false, sizeof(WsmMatch));
    WsmDiskDesc desc = {
        .path = (char *)path, .name = (char *)"d", .address = (char *)address,
    };

    for (; ours->path; ours++) {
        g_array_append_val(all, *ours);
    }
    return wsm_match(all, &desc, errp);
}

static void assert_refused(const WsmMatch *ours, const char *path,
                           const char *address, const char *text)
{
    Error *err = NULL;

    g_assert_cmpint(find(ours, path, address, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
}

static void test_id(void)
{
    static const struct {
        const char *path, *id;
    } cases[] = {
        { "/machine/peripheral/vd0", "vd0" },
        { ID("vd0"), "vd0" },
        { ANON("0"), NULL },
        { FLASH, NULL },
        { "/machine/unattached/device[3]", NULL },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *id = wsm_match_id(cases[i].path);

        g_assert_cmpstr(id, ==, cases[i].id);
    }
}

static void test_found(void)
{
    static const WsmMatch ours[] = {
        { ID("vd0"), "0:4" }, { ANON("0"), "0:6" }, { ANON("1"), "0:5" },
        { FLASH, "" }, {},
    };

    g_assert_cmpint(find(ours, ID("vd0"), "0:4", &error_abort), ==, 0);
    /* Another id that is unknown here, or none */
    g_assert_cmpint(find(ours, ID("root"), "0:4", &error_abort), ==, 0);
    g_assert_cmpint(find(ours, ANON("7"), "0:4", &error_abort), ==, 0);
    /* Without ids the address counts: also if the path is that of another */
    g_assert_cmpint(find(ours, ANON("0"), "0:5", &error_abort), ==, 2);
    g_assert_cmpint(find(ours, ANON("1"), "0:6", &error_abort), ==, 1);
    g_assert_cmpint(find(ours, ANON("0"), "0:6", &error_abort), ==, 1);
    /* Without an address the path */
    g_assert_cmpint(find(ours, FLASH, "", &error_abort), ==, 3);
}

static void test_refused(void)
{
    static const WsmMatch ours[] = {
        { ID("x"), "0:5" }, { ID("y"), "0:4" }, { ANON("0"), "0:6" },
        { FLASH, "" }, {},
    };

    assert_refused(ours, ID("x"), "0:4",
                   "disk 'd': device 'x' is at address '0:4' at the source, "
                   "but at '0:5' at the destination, where 'y' is at '0:4'; "
                   "give the -device options in the same order on both sides, "
                   "or set addr= (or bus=, scsi-id=, lun=)");
    assert_refused(ours, ID("x"), "0:6",
                   "disk 'd': device 'x' is at address '0:6' at the source, "
                   "but at '0:5' at the destination, where '" ANON("0") "' is "
                   "at '0:6'; give the -device options in the same order on "
                   "both sides, or set addr= (or bus=, scsi-id=, lun=)");
    assert_refused(ours, ID("x"), "0:9",
                   "disk 'd': device 'x' is at address '0:9' at the source, "
                   "but at '0:5' at the destination; give the -device options "
                   "in the same order on both sides, or set addr= (or bus=, "
                   "scsi-id=, lun=)");
    assert_refused(ours, ANON("0"), "0:9",
                   "disk 'd': the destination has no disk at address '0:9'; "
                   "start it with the same devices at the same addresses");
    assert_refused(ours, ID("z"), "0:9",
                   "disk 'd': the destination has no disk at address '0:9'; "
                   "start it with the same devices at the same addresses");
    /* Flash memory is no device of a bus */
    assert_refused(ours, "/machine/system.flash0", "",
                   "disk 'd': the destination has no disk at path "
                   "'/machine/system.flash0'; start it with the same devices "
                   "at the same addresses");
    assert_refused(ours, ANON("0"), "",
                   "disk 'd': the destination has no disk at path '"
                   ANON("0") "'; start it with the same devices at the same "
                   "addresses");
    assert_refused(ours, FLASH, "0:7",
                   "disk 'd': the destination has no disk at address '0:7'; "
                   "start it with the same devices at the same addresses");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/match/id", test_id);
    g_test_add_func("/wsm/match/found", test_found);
    g_test_add_func("/wsm/match/refused", test_refused);
    return g_test_run();
}
