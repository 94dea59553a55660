/*
 * Whole-system migration: START, which opens the "wsm" section
 *
 * It tells the destination about the session and the disks.  As with messages
 * on a block channel, nothing of it is trusted.  Pure.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_WIRE_START_H
#define MIGRATION_WSM_WIRE_START_H

#include "qapi/qapi-types-wsm.h"
#include "qemu/uuid.h"
#include "migration/wsm/wire/message.h"

/* A sync point that the source knows */
typedef struct WsmPointDesc {
    QemuUUID id;
    uint64_t changed;           /* bytes of blocks changed since, at S */
} WsmPointDesc;

/* One disk in the list that opens the "wsm" section of the main stream */
typedef struct WsmDiskDesc {
    char *path;                 /* canonical QOM path of the guest device */
    char *name;                 /* for people */
    char *address;              /* of the device, as policy/match.h; "": none */
    char *file;                 /* name of the image, for people; "": none */
    GPtrArray *marks;           /* of char *, see image/storage.h; or NULL */
    uint64_t size;              /* bytes */
    WsmBasisKind wish;
    unsigned npoints;
    WsmPointDesc *point;        /* @npoints elements, owned */
} WsmDiskDesc;

typedef struct WsmStart {
    QemuUUID session;
    uint16_t version;           /* of the source */
    uint16_t oldest;            /* that it can speak as well; of this START */
    uint32_t features;          /* bits of what the source can do */
    uint32_t required;          /* those of it without which it cannot go on */
    uint32_t unused;            /* not sent: what the destination has not */
    uint16_t channels;          /* as in WsmHello: 2..WSM_MAX_CHANNELS */
    uint32_t granularity;
    unsigned ndisks;
    WsmDiskDesc *disk;          /* @ndisks elements, owned */
} WsmStart;

/*
 * The START part of the "wsm" section.  Encoding returns a new array.
 * Decoding fails, naming field and value, unless @buf is one whole START;
 * free the result with wsm_start_destroy().
 */
GByteArray *wsm_start_encode(const WsmStart *start);
bool wsm_start_decode(const uint8_t *buf, size_t size, WsmStart *start,
                      Error **errp);
void wsm_start_destroy(WsmStart *start);

/*
 * What both sides can do, of what START has, without what is unused.  It is the
 * payload of WELCOME, of WSM_WELCOME_SIZE bytes; decoding fails, naming the
 * features, unless it is possible as an answer to @start.
 */
uint32_t wsm_features_in_use(const WsmStart *start);
void wsm_welcome_encode(uint32_t features, uint8_t *buf);
bool wsm_welcome_decode(const uint8_t *buf, const WsmStart *start,
                        uint32_t *features, Error **errp);

#endif
