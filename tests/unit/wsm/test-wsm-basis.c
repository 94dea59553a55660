/*
 * Test of what the migration of a disk builds on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/policy/basis.h"

static QemuUUID id_of(unsigned char n)
{
    QemuUUID id = {};

    id.data[15] = n;
    return id;
}

static WsmPointDesc point(unsigned char n, uint64_t changed)
{
    return (WsmPointDesc) { .id = id_of(n), .changed = changed };
}

static void check(const WsmBasisInput *in, WsmBasisKind kind, int n,
                  const char *reason)
{
    g_autoptr(WsmBasis) basis = wsm_basis_choose(in, &error_abort);

    g_assert_cmpint(basis->kind, ==, kind);
    if (n >= 0) {
        QemuUUID id = id_of(n);
        g_autofree char *text = qemu_uuid_unparse_strdup(&id);

        g_assert_cmpstr(basis->point, ==, text);
    } else {
        g_assert_null(basis->point);
    }
    g_assert_nonnull(strstr(basis->reason, reason));
}

static void test_no_points(void)
{
    WsmPointDesc one = point(1, 0);
    WsmBasisInput in = { .blank = true };

    check(&in, WSM_BASIS_KIND_FULL, -1, "blank");
    in.blank = false;
    check(&in, WSM_BASIS_KIND_CONTENT, -1, "the source's image has no");
    in.theirs = &one;
    in.ntheirs = 1;
    check(&in, WSM_BASIS_KIND_CONTENT, -1, "the destination's image has no");
    in.problem = "record is torn";
    check(&in, WSM_BASIS_KIND_CONTENT, -1, "record is torn");
}

static void test_not_shared(void)
{
    WsmPointDesc theirs[] = { point(1, 0), point(2, 0) };
    WsmPointDesc ours[] = { point(3, 0) };
    WsmBasisInput in = {
        .theirs = theirs, .ntheirs = 2, .ours = ours, .nours = 1,
    };

    check(&in, WSM_BASIS_KIND_CONTENT, -1, "none of the source's 2 and the "
          "destination's 1");
}

/* Both sides' changes count; the older point may be the better one */
static void test_best(void)
{
    WsmPointDesc theirs[] = { point(1, 100), point(2, 60), point(3, 0) };
    WsmPointDesc ours[] = { point(2, 50), point(1, 0), point(4, 0) };
    WsmBasisInput in = {
        .theirs = theirs, .ntheirs = 3, .ours = ours, .nours = 3,
        .blank = true,
    };

    check(&in, WSM_BASIS_KIND_SYNC_POINT, 1, "written since");
    ours[0].changed = 39;
    check(&in, WSM_BASIS_KIND_SYNC_POINT, 2, "written since");
}

static void test_wish(void)
{
    WsmPointDesc one = point(1, 5);
    WsmBasisInput in = {
        .theirs = &one, .ntheirs = 1, .ours = &one, .nours = 1,
        .wish = WSM_BASIS_KIND_FULL,
    };

    check(&in, WSM_BASIS_KIND_FULL, -1, "option");
    in.wish = WSM_BASIS_KIND_CONTENT;
    in.blank = true;
    check(&in, WSM_BASIS_KIND_CONTENT, -1, "option");
    in.wish = WSM_BASIS_KIND_SYNC_POINT;
    check(&in, WSM_BASIS_KIND_SYNC_POINT, 1, "written since");
}

static void test_wish_not_possible(void)
{
    WsmPointDesc one = point(1, 5);
    WsmBasisInput in = {
        .theirs = &one, .ntheirs = 1, .wish = WSM_BASIS_KIND_SYNC_POINT,
        .problem = "mtime differs",
    };
    Error *err = NULL;

    g_assert_null(wsm_basis_choose(&in, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "mtime differs"));
    error_free(err);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/basis/no-points", test_no_points);
    g_test_add_func("/wsm/basis/not-shared", test_not_shared);
    g_test_add_func("/wsm/basis/best", test_best);
    g_test_add_func("/wsm/basis/wish", test_wish);
    g_test_add_func("/wsm/basis/wish-not-possible", test_wish_not_possible);
    return g_test_run();
}
