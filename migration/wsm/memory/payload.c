/*
 * Whole-system migration: what follows the header of a packet of multifd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "migration/wsm/memory/holes.h"
#include "migration/wsm/memory/payload.h"

static void wsm_ref_encode(const WsmRef *ref, uint8_t *out)
{
    memset(out, 0, WSM_REF_SIZE);
    out[0] = ref->kind;
    out[1] = ref->disk;
    stq_be_p(out + 4, ref->block);
    memcpy(out + 12, ref->tag, WSM_TAG_SIZE);
}

size_t wsm_packet_encode(const WsmPacket *packet, const WsmRef *refs,
                         uint8_t *out)
{
    assert(packet->nrefs <= WSM_PACKET_PAGES);
    assert(packet->block < WSM_MAX_RAM_BLOCKS);
    memset(out, 0, WSM_PACKET_SIZE);
    out[0] = WSM_PACKET_VERSION;
    out[1] = packet->packing;
    stw_be_p(out + 2, packet->block);
    stw_be_p(out + 4, packet->nrefs);
    stl_be_p(out + 8, packet->bytes);
    for (unsigned i = 0; i < packet->nrefs; i++) {
        wsm_ref_encode(&refs[i], out + WSM_PACKET_SIZE + i * WSM_REF_SIZE);
    }
    return WSM_PACKET_SIZE + wsm_packet_refs_size(packet);
}

size_t wsm_packet_refs_size(const WsmPacket *packet)
{
    return packet->nrefs * WSM_REF_SIZE;
}

static bool wsm_packet_check_head(const WsmPacket *p, unsigned version,
                                  unsigned reserved, unsigned pages,
                                  Error **errp)
{
    if (version != WSM_PACKET_VERSION) {
        error_setg(errp, "version %u is not %d", version, WSM_PACKET_VERSION);
    } else if (p->packing >= WSM_PACKING__MAX) {
        error_setg(errp, "packing %d is not below %d", p->packing,
                   WSM_PACKING__MAX);
    } else if (p->block >= WSM_MAX_RAM_BLOCKS) {
        error_setg(errp, "block of memory %u is not below %d", p->block,
                   WSM_MAX_RAM_BLOCKS);
    } else if (p->nrefs > pages) {
        error_setg(errp, "%u references are more than %u pages", p->nrefs,
                   pages);
    } else if (reserved) {
        error_setg(errp, "reserved is %u, but must be 0", reserved);
    } else {
        return true;
    }
    return false;
}

/* Does all that the header promises make up the packet? */
static bool wsm_packet_check_size(const WsmPacket *p, size_t size,
                                  unsigned pages, Error **errp)
{
    uint32_t raw = (pages - p->nrefs) * WSM_PAGE_SIZE;

    if (WSM_PACKET_SIZE + wsm_packet_refs_size(p) + (uint64_t)p->bytes !=
        size) {
        error_setg(errp, "%u references and %" PRIu32 " bytes of content are "
                   "not the %zu bytes of the packet", p->nrefs, p->bytes,
                   size);
        return false;
    }
    if (p->packing == WSM_PACKING_RAW ? p->bytes != raw : !p->bytes != !raw) {
        error_setg(errp, "%" PRIu32 " bytes of content are not that of %u "
                   "pages", p->bytes, pages - p->nrefs);
        return false;
    }
    return true;
}

bool wsm_packet_decode(const uint8_t *buf, size_t size, unsigned pages,
                       WsmPacket *packet, Error **errp)
{
    assert(pages && pages <= WSM_PACKET_PAGES);
    if (size < WSM_PACKET_SIZE) {
        error_setg(errp, "%zu bytes are no packet", size);
        return false;
    }
    *packet = (WsmPacket) {
        .packing = buf[1],
        .block = lduw_be_p(buf + 2),
        .nrefs = lduw_be_p(buf + 4),
        .bytes = ldl_be_p(buf + 8),
    };
    return wsm_packet_check_head(packet, buf[0],
                                 lduw_be_p(buf + 6) | ldl_be_p(buf + 12),
                                 pages, errp) &&
           wsm_packet_check_size(packet, size, pages, errp);
}

static bool wsm_ref_check_disk(const WsmRef *ref, unsigned disks,
                               const int64_t *disk_size, Error **errp)
{
    if (ref->disk >= disks) {
        error_setg(errp, "disk %u is not below the number of disks %u",
                   ref->disk, disks);
        return false;
    }
    if (ref->block >= disk_size[ref->disk] / WSM_PAGE_SIZE) {
        error_setg(errp, "block %" PRIu64 " is beyond disk %u of size %"
                   PRId64, ref->block, ref->disk, disk_size[ref->disk]);
        return false;
    }
    return true;
}

static bool wsm_ref_decode(const uint8_t *buf, unsigned disks,
                           const int64_t *disk_size, WsmRef *ref,
                           Error **errp)
{
    *ref = (WsmRef) {
        .kind = buf[0], .disk = buf[1], .block = ldq_be_p(buf + 4),
    };
    memcpy(ref->tag, buf + 12, WSM_TAG_SIZE);
    if (lduw_be_p(buf + 2)) {
        error_setg(errp, "reserved is %u, but must be 0", lduw_be_p(buf + 2));
        return false;
    }
    switch (ref->kind) {
    case WSM_REF_DISK:
        return wsm_ref_check_disk(ref, disks, disk_size, errp);
    case WSM_REF_IMAGE:
        return wsm_check_unused("disk", ref->disk, errp) &&
               wsm_check_unused("block", ref->block, errp);
    case WSM_REF_TEMPLATE:
        return true;
    default:
        error_setg(errp, "kind %d is unknown", ref->kind);
        return false;
    }
}

bool wsm_refs_decode(const WsmPacket *packet, const uint8_t *buf,
                     unsigned disks, const int64_t *disk_size, WsmRef *refs,
                     Error **errp)
{
    ERRP_GUARD();

    for (unsigned i = 0; i < packet->nrefs; i++) {
        if (!wsm_ref_decode(buf + i * WSM_REF_SIZE, disks, disk_size, &refs[i],
                            errp)) {
            error_prepend(errp, "reference %u: ", i);
            return false;
        }
    }
    return true;
}
