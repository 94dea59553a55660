/*
 * Whole-system migration: the payloads of BASIS and POINT
 *
 * As with headers, nothing of them is trusted.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/wire/payload.h"

/* What POINT's second byte says */
enum {
    WHICH_SINCE,
    WHICH_REST,
};

GByteArray *wsm_basis_encode(const WsmBasisMsg *basis)
{
    GByteArray *out = g_byte_array_new();
    size_t length = MIN(strlen(basis->reason), WSM_MAX_TEXT);

    assert(length > 0);
    assert(basis->kind == WSM_BASIS_KIND_SYNC_POINT ||
           qemu_uuid_is_null(&basis->point));

    g_byte_array_append(out, basis->point.data, sizeof(basis->point.data));
    g_byte_array_append(out, (const uint8_t *)basis->reason, length);
    return out;
}

bool wsm_basis_decode(const WsmMsg *msg, const uint8_t *payload,
                      WsmBasisMsg *basis, Error **errp)
{
    QemuUUID point;

    assert(msg->type == WSM_MSG_BASIS && msg->length > sizeof(point.data));

    *basis = (WsmBasisMsg) {};
    memcpy(point.data, payload, sizeof(point.data));
    if (msg->offset != WSM_BASIS_KIND_SYNC_POINT &&
        !qemu_uuid_is_null(&point)) {
        g_autofree char *id = qemu_uuid_unparse_strdup(&point);

        error_setg(errp, "BASIS: point is %s, but must be 0 with kind %"
                   PRIu64, id, msg->offset);
        return false;
    }
    *basis = (WsmBasisMsg) {
        .kind = msg->offset,
        .point = point,
        .reason = wsm_text_decode(payload + sizeof(point.data),
                                  msg->length - sizeof(point.data)),
    };
    return true;
}

void wsm_basis_destroy(WsmBasisMsg *basis)
{
    g_free(basis->reason);
    *basis = (WsmBasisMsg) {};
}

void wsm_point_encode(uint8_t index, bool rest, GByteArray *out)
{
    uint8_t buf[WSM_POINT_SIZE] = { index, rest ? WHICH_REST : WHICH_SINCE };

    assert(index < WSM_MAX_POINTS);
    g_byte_array_append(out, buf, sizeof(buf));
}

bool wsm_point_decode(const WsmMsg *msg, const uint8_t *payload,
                      const WsmDiskDesc *disk, WsmPointMsg *point,
                      Error **errp)
{
    assert(msg->type == WSM_MSG_POINT && msg->length >= WSM_POINT_SIZE);

    if (payload[0] >= disk->npoints) {
        error_setg(errp, "POINT: index %u is not below the number of sync "
                   "points %u", payload[0], disk->npoints);
        return false;
    }
    if (payload[1] > WHICH_REST) {
        error_setg(errp, "POINT: which %u is above %d",
                   payload[1], WHICH_REST);
        return false;
    }
    *point = (WsmPointMsg) {
        .index = payload[0],
        .rest = payload[1] == WHICH_REST,
        .runs = payload + WSM_POINT_SIZE,
        .size = msg->length - WSM_POINT_SIZE,
    };
    return true;
}
