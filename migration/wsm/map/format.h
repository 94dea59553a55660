/*
 * Whole-system migration: the bytes of a map of missing blocks
 *
 * In post-copy the guest writes to an image that misses blocks.  So that the
 * image is of use when QEMU dies then, a map beside it says which blocks are
 * missing, durably.  It is a log: two heads, of which the one with the higher
 * generation counts; an area with a snapshot of what was missing when that
 * generation began; and behind the snapshot records of what is not missing any
 * more, one after the other.  All begin at pages, and a page that is durable is
 * written again only when it does not count any more: so a power cut tears
 * nothing but what nobody relies on.  docs/records.md has it byte by byte.
 *
 * Pure: no I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MAP_FORMAT_H
#define MIGRATION_WSM_MAP_FORMAT_H

#include "qemu/units.h"
#include "qemu/uuid.h"
#include "migration/wsm/wire/message.h"

#define WSM_MAP_PAGE            4096    /* bytes */
#define WSM_MAP_HEADS           2       /* pages, the first ones */
#define WSM_MAP_RECORD_SIZE     48      /* bytes of a record before its runs */
#define WSM_MAP_MAX_RUNS        (1 * GiB)       /* bytes of a snapshot */

typedef struct WsmMapHead {
    uint64_t generation;        /* from 1 */
    QemuUUID session;           /* of the migration */
    unsigned disk, disks;       /* number of this disk, and how many */
    unsigned channels;          /* of the session, as are */
    uint16_t protocol;          /* the source's version, see WsmStart, and */
    uint32_t features;          /* what it can do */
    bool is_void;               /* do not use it; there is no area */
    uint32_t granularity;       /* bytes of a block */
    int64_t size;               /* bytes of the disk */
    int64_t area, area_bytes;   /* where it is in the map */
    uint32_t snapshot_bytes;    /* of runs, at the beginning of the area */
    uint32_t snapshot_crc;
    int64_t missing;            /* bytes of the disk, in the snapshot */
    QemuUUID boot;              /* of the kernel it is good with; null: any */
    char path[WSM_MAX_PATH + 1];        /* of the guest's disk, and its name: */
    char name[WSM_MAX_PATH + 1];        /* for people */
} WsmMapHead;

typedef enum WsmMapPage {
    WSM_MAP_PAGE_EMPTY,         /* full of zeroes: never written */
    WSM_MAP_PAGE_TORN,          /* no head */
    WSM_MAP_PAGE_HEAD,
    WSM_MAP_PAGE_UNKNOWN,       /* a head that must not be believed */
} WsmMapPage;

/* CRC-32C, as in iSCSI and ext4 */
uint32_t wsm_map_crc(const void *buf, size_t bytes);

/* The page in which the head of a generation is */
static inline int64_t wsm_map_head_at(uint64_t generation)
{
    return generation % WSM_MAP_HEADS * WSM_MAP_PAGE;
}

/* Do these WSM_MAP_PAGE bytes look like a head, be it torn? */
bool wsm_map_head_begins(const uint8_t *buf);

/* @buf has WSM_MAP_PAGE bytes */
void wsm_map_head_encode(const WsmMapHead *head, uint8_t *buf);

/*
 * What is in @buf, the page @index.  @head is set if it is a head, @errp if it
 * is an unknown one: its sum is right, but not its content.
 */
WsmMapPage wsm_map_head_decode(const uint8_t *buf, unsigned index,
                               WsmMapHead *head, Error **errp);

/* Bytes of the snapshot in the area, with padding; at least a page */
int64_t wsm_map_snapshot_room(uint64_t bytes);

typedef struct WsmMapRecord {
    uint64_t generation;
    uint64_t serial;            /* 1, 2, ... */
    uint32_t runs;              /* bytes of them, which follow */
} WsmMapRecord;

/* Bytes of a record in the area, with padding */
int64_t wsm_map_record_room(uint64_t runs);

/*
 * @buf has wsm_map_record_room() bytes, and the runs in it at
 * WSM_MAP_RECORD_SIZE: put what is in front of them, and the padding.
 */
void wsm_map_record_encode(const WsmMapRecord *record, const QemuUUID *session,
                           uint8_t *buf);

/*
 * Could a record of @session (NULL: any) begin with the WSM_MAP_RECORD_SIZE
 * bytes @buf, with no more than @max bytes of runs?  Then @record is set.
 */
bool wsm_map_record_begins(const uint8_t *buf, const QemuUUID *session,
                           int64_t max, WsmMapRecord *record);

/* Is it one?  @buf has the runs of @record, too. */
bool wsm_map_record_is_good(const WsmMapRecord *record, const uint8_t *buf);

#endif
