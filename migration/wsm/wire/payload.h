/*
 * Whole-system migration: what follows the header of BASIS and POINT
 *
 * Pure; see wire/message.h for the messages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_WIRE_PAYLOAD_H
#define MIGRATION_WSM_WIRE_PAYLOAD_H

#include "migration/wsm/wire/start.h"

/* What BASIS says; the kind is in the header, the rest in the payload */
typedef struct WsmBasisMsg {
    WsmBasisKind kind;          /* not WSM_BASIS_KIND_AUTO */
    QemuUUID point;             /* zero unless WSM_BASIS_KIND_SYNC_POINT */
    char *reason;               /* for people, not empty; owned */
} WsmBasisMsg;

/* The payload of POINT */
typedef struct WsmPointMsg {
    uint8_t index;              /* into the points of the disk in START */
    bool rest;                  /* bits of its rest, else of its since */
    const uint8_t *runs;        /* wire/runs.h; within the payload, not owned */
    size_t size;                /* bytes of @runs */
} WsmPointMsg;

/*
 * The payload of BASIS.  Encoding returns a new array; of a reason beyond
 * WSM_MAX_TEXT bytes the begin is taken.  Decoding takes the @msg that
 * wsm_msg_decode() gave, and its payload of @msg->length bytes; control
 * characters in the reason become spaces.  Free with wsm_basis_destroy().
 */
GByteArray *wsm_basis_encode(const WsmBasisMsg *basis);
bool wsm_basis_decode(const WsmMsg *msg, const uint8_t *payload,
                      WsmBasisMsg *basis, Error **errp);
void wsm_basis_destroy(WsmBasisMsg *basis);

/*
 * The payload of POINT.  Encoding appends what comes before the runs, to
 * which the caller then appends these.  Decoding likewise leaves the runs to
 * wire/runs.h: they are not checked.  @payload has @msg->length bytes.
 */
void wsm_point_encode(uint8_t index, bool rest, GByteArray *out);
bool wsm_point_decode(const WsmMsg *msg, const uint8_t *payload,
                      const WsmDiskDesc *disk, WsmPointMsg *point,
                      Error **errp);

#endif
