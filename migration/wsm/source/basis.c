/*
 * Whole-system migration: what the source's disks build on
 *
 * Before the first pass the destination says what each disk's migration
 * builds on, and which of its own blocks have changed since.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "migration/wsm/image/bitmap-runs.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/source/basis.h"
#include "migration/wsm/source/points.h"
#include "migration/wsm/trace.h"
#include "migration/wsm/wire/payload.h"
#include "migration/wsm/wire/runs.h"

/* What the destination has changed, or has, in one part of a disk */
typedef struct WsmOwnPart {
    int64_t offset, bytes;
    uint8_t *runs;
    size_t size;
} WsmOwnPart;

static void wsm_own_part_free(void *opaque)
{
    WsmOwnPart *part = opaque;

    g_free(part->runs);
    g_free(part);
}

static void wsm_source_disk_agreed(WsmSource *s)
{
    if (++s->nagreed == s->ndisks) {
        wsm_reach(&s->milestones, WSM_AGREED);
    }
}

static bool wsm_source_has_point(WsmSource *s, unsigned disk,
                                 const QemuUUID *id)
{
    const WsmDiskDesc *desc = &s->start.disk[disk];

    for (unsigned i = 0; i < desc->npoints; i++) {
        if (qemu_uuid_is_equal(&desc->point[i].id, id)) {
            return true;
        }
    }
    return false;
}

static bool wsm_source_check_basis(WsmSource *s, WsmSourceDisk *d,
                                   const WsmBasisMsg *bm, Error **errp)
{
    WsmBasisKind wish = s->start.disk[d->index].wish;

    if (d->basis) {
        error_setg(errp, "BASIS of disk '%s' came twice", d->name);
        return false;
    }
    if (wish != WSM_BASIS_KIND_AUTO && wish != bm->kind) {
        error_setg(errp, "BASIS of disk '%s' is '%s', but option 'basis' wants "
                   "'%s'", d->name, WsmBasisKind_str(bm->kind),
                   WsmBasisKind_str(wish));
        return false;
    }
    if (bm->kind == WSM_BASIS_KIND_SYNC_POINT &&
        !wsm_source_has_point(s, d->index, &bm->point)) {
        g_autofree char *id = qemu_uuid_unparse_strdup(&bm->point);

        error_setg(errp, "BASIS of disk '%s': this side has no sync point %s",
                   d->name, id);
        return false;
    }
    return true;
}

static void wsm_source_set_basis(WsmSource *s, WsmSourceDisk *d,
                                 const WsmBasisMsg *bm)
{
    WsmBasis *basis = g_new0(WsmBasis, 1);

    basis->kind = bm->kind;
    basis->reason = g_strdup(bm->reason);
    if (bm->kind == WSM_BASIS_KIND_SYNC_POINT) {
        basis->point = qemu_uuid_unparse_strdup(&bm->point);
    }
    trace_wsm_source_basis(d->name, WsmBasisKind_str(bm->kind), bm->reason);
    d->theirs = g_ptr_array_new_with_free_func(wsm_own_part_free);
    d->basis_point = bm->point;
    qatomic_store_release(&d->basis, basis);
    if (bm->kind == WSM_BASIS_KIND_FULL) {
        wsm_source_disk_agreed(s);
    }
}

bool coroutine_fn wsm_source_on_basis(WsmSourceChannel *c, const WsmMsg *msg,
                                      Error **errp)
{
    WsmSource *s = c->opaque;
    WsmSourceDisk *d = &s->disk[msg->disk];
    g_autofree uint8_t *payload = g_malloc(msg->length);
    WsmBasisMsg bm = {};
    bool ok;

    if (!wsm_channel_recv_payload(&c->c, payload, msg->length, errp) ||
        !wsm_basis_decode(msg, payload, &bm, errp)) {
        return false;
    }
    ok = wsm_source_check_basis(s, d, &bm, errp);
    if (ok) {
        wsm_source_set_basis(s, d, &bm);
    }
    wsm_basis_destroy(&bm);
    return ok;
}

bool coroutine_fn wsm_source_on_own(WsmSourceChannel *c, const WsmMsg *msg,
                                    Error **errp)
{
    WsmSource *s = c->opaque;
    WsmSourceDisk *d = &s->disk[msg->disk];
    WsmOwnPart *part;

    if (!d->basis || d->basis->kind == WSM_BASIS_KIND_FULL ||
        msg->offset != d->own_until) {
        error_setg(errp, "OWN of disk '%s' at 0x%" PRIx64 " is out of order",
                   d->name, msg->offset);
        return false;
    }
    if (msg->length > wsm_runs_max_size(DIV_ROUND_UP(msg->bytes,
                                                     s->start.granularity))) {
        error_setg(errp, "OWN of disk '%s': %u bytes are too many for a range "
                   "of %" PRIu64, d->name, msg->length, msg->bytes);
        return false;
    }
    d->own_until += msg->bytes;
    if (msg->length) {
        part = g_new(WsmOwnPart, 1);
        *part = (WsmOwnPart) {
            .offset = msg->offset,
            .bytes = msg->bytes,
            .runs = g_malloc(msg->length),
            .size = msg->length,
        };
        g_ptr_array_add(d->theirs, part);
        if (!wsm_channel_recv_payload(&c->c, part->runs, part->size, errp)) {
            return false;
        }
    }
    if (d->own_until == d->size) {
        wsm_source_disk_agreed(s);
    }
    return true;
}

/* Set the bits of what the destination has said */
static bool wsm_source_apply_own(WsmSource *s, WsmSourceDisk *d,
                                 BdrvDirtyBitmap *bitmap, Error **errp)
{
    ERRP_GUARD();

    for (unsigned i = 0; i < d->theirs->len; i++) {
        WsmOwnPart *part = g_ptr_array_index(d->theirs, i);

        if (!wsm_bitmap_from_runs(bitmap, part->offset, part->bytes,
                                  part->runs, part->size,
                                  s->start.granularity, errp)) {
            error_prepend(errp, "OWN of disk '%s': ", d->name);
            return false;
        }
    }
    g_ptr_array_set_size(d->theirs, 0);
    return true;
}

/* Where the destination has data, ours may be equal */
static bool wsm_source_apply_content(WsmSource *s, WsmSourceDisk *d,
                                     Error **errp)
{
    BdrvDirtyBitmap *compare;

    if (!d->theirs->len) {
        return true;
    }
    compare = wsm_work_start_compare(s->work, d->index, errp);
    return compare && wsm_source_apply_own(s, d, compare, errp);
}

/*
 * Migration thread with the BQL.  The guest writes meanwhile: what it writes
 * is in the newest point's bitmap, and in ours from the reset on.
 */
static bool wsm_source_apply_point(WsmSource *s, WsmSourceDisk *d,
                                   Error **errp)
{
    BdrvDirtyBitmap *dirty = wsm_work_start_anew(s->work, d->index);
    bool ok;

    wsm_source_hold_points(d, false);
    ok = wsm_points_changed(d->bs_points, &d->basis_point, dirty, errp);
    wsm_source_hold_points(d, true);
    return ok && wsm_source_apply_own(s, d, dirty, errp);
}

static bool wsm_source_apply_disk(WsmSource *s, WsmSourceDisk *d,
                                  Error **errp)
{
    switch (d->basis->kind) {
    case WSM_BASIS_KIND_CONTENT:
        return wsm_source_apply_content(s, d, errp);
    case WSM_BASIS_KIND_SYNC_POINT:
        return wsm_source_apply_point(s, d, errp);
    default:
        return true;
    }
}

bool wsm_source_apply_basis(WsmSource *s, Error **errp)
{
    for (unsigned i = 0; i < s->ndisks; i++) {
        if (!wsm_source_apply_disk(s, &s->disk[i], errp)) {
            return false;
        }
    }
    return true;
}
