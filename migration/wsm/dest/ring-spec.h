/*
 * Whole-system migration: what the user has said of a ring that keeps templates
 *
 * Never changed, and shared: by what the user has set, and by each migration
 * that has begun since.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_RING_SPEC_H
#define MIGRATION_WSM_DEST_RING_SPEC_H

#include "crypto/tlscreds.h"
#include "migration/wsm/memory/ring.h"
#include "qapi/qapi-types-sockets.h"
#include "qapi/qapi-types-wsm.h"

typedef struct WsmRingSpec {
    unsigned users;             /* atomic: references to this */
    unsigned nodes, replicas;
    bool repair;
    char *name[WSM_RING_MAX_NODES];
    SocketAddress *addr[WSM_RING_MAX_NODES];
    QCryptoTLSCreds *creds;     /* reference, or NULL */
} WsmRingSpec;

/* NULL, and @errp: it cannot be so.  Main thread. */
WsmRingSpec *wsm_ring_spec_new(const WsmRing *ring, Error **errp);
/* Any thread */
WsmRingSpec *wsm_ring_spec_ref(WsmRingSpec *spec);
void wsm_ring_spec_unref(WsmRingSpec *spec);

#endif
