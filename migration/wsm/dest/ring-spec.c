/*
 * Whole-system migration: what the user has said of a ring that keeps templates
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/sockets.h"
#include "migration/wsm/dest/ring-spec.h"

#define WSM_RING_REPLICAS       2       /* unless the user wants others */
#define WSM_RING_MAX_NAME       255

WsmRingSpec *wsm_ring_spec_ref(WsmRingSpec *spec)
{
    qatomic_inc(&spec->users);
    return spec;
}

void wsm_ring_spec_unref(WsmRingSpec *spec)
{
    if (!spec || qatomic_fetch_dec(&spec->users) > 1) {
        return;
    }
    for (unsigned i = 0; i < spec->nodes; i++) {
        g_free(spec->name[i]);
        qapi_free_SocketAddress(spec->addr[i]);
    }
    if (spec->creds) {
        object_unref(OBJECT(spec->creds));
    }
    g_free(spec);
}

static bool wsm_ring_spec_creds(WsmRingSpec *spec, const char *id,
                                Error **errp)
{
    Object *obj = object_resolve_path_component(object_get_objects_root(), id);
    QCryptoTLSCreds *creds = (QCryptoTLSCreds *)
        object_dynamic_cast(obj, TYPE_QCRYPTO_TLS_CREDS);

    if (!creds) {
        error_setg(errp, "ring: '%s' is no object with TLS credentials", id);
        return false;
    }
    if (!qcrypto_tls_creds_check_endpoint(creds,
                                          QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT,
                                          errp)) {
        return false;
    }
    object_ref(OBJECT(creds));
    spec->creds = creds;
    return true;
}

static bool wsm_ring_spec_check_name(const WsmRingSpec *spec, const char *name,
                                     Error **errp)
{
    if (!*name || strlen(name) > WSM_RING_MAX_NAME) {
        error_setg(errp, "ring: the name of a node has 1 to %d characters, not "
                   "%zu", WSM_RING_MAX_NAME, strlen(name));
        return false;
    }
    for (unsigned i = 0; i < spec->nodes; i++) {
        if (g_str_equal(spec->name[i], name)) {
            error_setg(errp, "ring: two nodes have the name '%s'", name);
            return false;
        }
    }
    return true;
}

static bool wsm_ring_spec_add(WsmRingSpec *spec, const WsmRingNodeSpec *node,
                              Error **errp)
{
    ERRP_GUARD();
    const char *name = node->name ?: node->address;
    SocketAddress *addr;

    if (spec->nodes == WSM_RING_MAX_NODES) {
        error_setg(errp, "ring: there are more than %d nodes",
                   WSM_RING_MAX_NODES);
        return false;
    }
    if (!wsm_ring_spec_check_name(spec, name, errp)) {
        return false;
    }
    addr = socket_parse(node->address, errp);
    if (!addr) {
        error_prepend(errp, "ring: node '%s': ", name);
        return false;
    }
    spec->name[spec->nodes] = g_strdup(name);
    spec->addr[spec->nodes++] = addr;
    if (addr->type != SOCKET_ADDRESS_TYPE_INET &&
        (addr->type != SOCKET_ADDRESS_TYPE_UNIX || spec->creds)) {
        error_setg(errp, "ring: node '%s' must be HOST:PORT%s, not '%s'", name,
                   spec->creds ? " with TLS" : " or unix:PATH", node->address);
        return false;
    }
    return true;
}

WsmRingSpec *wsm_ring_spec_new(const WsmRing *ring, Error **errp)
{
    WsmRingSpec *spec = g_new0(WsmRingSpec, 1);
    int64_t replicas = ring->has_replicas ? ring->replicas : WSM_RING_REPLICAS;

    GLOBAL_STATE_CODE();
    spec->users = 1;
    spec->repair = ring->has_read_repair && ring->read_repair;
    spec->replicas = replicas;
    if (replicas < 1 || replicas > WSM_RING_MAX_REPLICAS) {
        error_setg(errp, "ring: replicas are 1 to %d, not %" PRId64,
                   WSM_RING_MAX_REPLICAS, replicas);
        goto fail;
    }
    if (!ring->nodes) {
        error_setg(errp, "ring: there is no node");
        goto fail;
    }
    if (ring->tls_creds && !wsm_ring_spec_creds(spec, ring->tls_creds, errp)) {
        goto fail;
    }
    for (WsmRingNodeSpecList *n = ring->nodes; n; n = n->next) {
        if (!wsm_ring_spec_add(spec, n->value, errp)) {
            goto fail;
        }
    }
    return spec;

fail:
    wsm_ring_spec_unref(spec);
    return NULL;
}
