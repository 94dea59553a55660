/*
 * Whole-system migration: what the migration of a disk builds on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/policy/basis.h"

static const WsmPointDesc *wsm_basis_find(const WsmBasisInput *in,
                                          const QemuUUID *id)
{
    for (unsigned i = 0; i < in->nours; i++) {
        if (qemu_uuid_is_equal(&in->ours[i].id, id)) {
            return &in->ours[i];
        }
    }
    return NULL;
}

/* The shared point with the fewest changes, or NULL */
static const WsmPointDesc *wsm_basis_best(const WsmBasisInput *in)
{
    const WsmPointDesc *best = NULL;
    uint64_t best_bytes = 0;

    for (unsigned i = 0; i < in->ntheirs; i++) {
        const WsmPointDesc *theirs = &in->theirs[i];
        const WsmPointDesc *ours = wsm_basis_find(in, &theirs->id);

        if (ours && (!best || theirs->changed + ours->changed < best_bytes)) {
            best = theirs;
            best_bytes = theirs->changed + ours->changed;
        }
    }
    return best;
}

static WsmBasis *wsm_basis_new(WsmBasisKind kind, const QemuUUID *point,
                               char *reason)
{
    WsmBasis *basis = g_new0(WsmBasis, 1);

    basis->kind = kind;
    basis->point = point ? qemu_uuid_unparse_strdup(point) : NULL;
    basis->reason = reason;
    return basis;
}

/* Why there is no sync point to build on */
static char *wsm_basis_no_point(const WsmBasisInput *in)
{
    if (in->problem) {
        return g_strdup_printf("no sync point: destination: %s", in->problem);
    }
    if (!in->ntheirs) {
        return g_strdup("the source's image has no sync point");
    }
    if (!in->nours) {
        return g_strdup("the destination's image has no sync point");
    }
    return g_strdup_printf("none of the source's %u and the destination's %u "
                           "sync points is the same", in->ntheirs, in->nours);
}

WsmBasis *wsm_basis_choose(const WsmBasisInput *in, Error **errp)
{
    const WsmPointDesc *best = wsm_basis_best(in);
    g_autofree char *why_not = best ? NULL : wsm_basis_no_point(in);

    switch (in->wish) {
    case WSM_BASIS_KIND_FULL:
    case WSM_BASIS_KIND_CONTENT:
        return wsm_basis_new(in->wish, NULL,
                             g_strdup("option 'basis' says so"));
    case WSM_BASIS_KIND_SYNC_POINT:
        if (!best) {
            error_setg(errp, "option 'basis' asks for a sync point, but %s; "
                       "set it to 'auto'", why_not);
            return NULL;
        }
        break;
    default:
        break;
    }

    if (best) {
        return wsm_basis_new(WSM_BASIS_KIND_SYNC_POINT, &best->id,
                             g_strdup("both sides know what was written "
                                      "since"));
    }
    if (in->blank) {
        return wsm_basis_new(WSM_BASIS_KIND_FULL, NULL,
                             g_strdup("the destination's image is blank"));
    }
    return wsm_basis_new(WSM_BASIS_KIND_CONTENT, NULL,
                         g_steal_pointer(&why_not));
}
