/*
 * Whole-system migration: what follows the header of a packet of multifd
 *
 * QEMU's header says which pages the packet has.  Behind it come a header of
 * ours, the references, for the first of these pages, and the content of the
 * others.  As with messages on a block channel, nothing of it is trusted.
 *
 * Pure; docs/protocol.md has it byte by byte.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_PAYLOAD_H
#define MIGRATION_WSM_MEMORY_PAYLOAD_H

#include "migration/wsm/memory/tag.h"

#define WSM_PACKET_VERSION      1
#define WSM_PACKET_SIZE         16      /* bytes of our header */
#define WSM_REF_SIZE            28      /* bytes of a reference */
#define WSM_PACKET_PAGES        128     /* at most; see multifd.h */

typedef enum WsmPacking {
    WSM_PACKING_RAW,            /* the pages as they are */
    WSM_PACKING_ZSTD,           /* goes on in the stream of the channel */
    WSM_PACKING__MAX
} WsmPacking;

/* On the wire; in the order of WsmMemoryKind */
typedef enum WsmRefKind {
    WSM_REF_DISK = 1,           /* a block of one of the guest's disks */
    WSM_REF_IMAGE,              /* the same place in older memory */
    WSM_REF_TEMPLATE = 3,       /* a page of a set that both sides have */
} WsmRefKind;

typedef struct WsmRef {
    WsmRefKind kind;
    uint8_t disk;               /* or the number of the set */
    uint64_t block;             /* in units of WSM_PAGE_SIZE */
    uint8_t tag[WSM_TAG_SIZE];
} WsmRef;

typedef struct WsmPacket {
    WsmPacking packing;
    uint16_t block;             /* number of the block of memory */
    uint16_t nrefs;
    uint32_t bytes;             /* of the content behind the references */
} WsmPacket;

/* @out has room for WSM_PACKET_SIZE and for each of @packet->nrefs */
size_t wsm_packet_encode(const WsmPacket *packet, const WsmRef *refs,
                         uint8_t *out);

/*
 * The header: @size bytes are left of the packet, which has @pages, 1 to
 * WSM_PACKET_PAGES.  What follows are wsm_packet_refs_size() bytes of
 * references and @packet->bytes of content.  False, and @errp.
 */
bool wsm_packet_decode(const uint8_t *buf, size_t size, unsigned pages,
                       WsmPacket *packet, Error **errp);
size_t wsm_packet_refs_size(const WsmPacket *packet);

/*
 * The references: each within a disk of the @disks whose sizes, in bytes, are
 * @disk_size; those to templates are to be checked by who knows these.  @refs
 * has room for all.  False, and @errp.
 */
bool wsm_refs_decode(const WsmPacket *packet, const uint8_t *buf,
                     unsigned disks, const int64_t *disk_size, WsmRef *refs,
                     Error **errp);

/* What counts what a reference of @kind does */
static inline WsmMemoryKind wsm_ref_memory_kind(WsmRefKind kind)
{
    return kind - WSM_REF_DISK + WSM_MEMORY_KIND_DISK;
}

#endif
