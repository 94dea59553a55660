/*
 * Whole-system migration: messages on a block channel
 *
 * Pure encoding, decoding and checking; no I/O, no state.  The same text
 * for people who read bytes is docs/protocol.md.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_WIRE_MESSAGE_H
#define MIGRATION_WSM_WIRE_MESSAGE_H

#include "qapi/qapi-types-wsm.h"
#include "qemu/units.h"
#include "qemu/uuid.h"

#define WSM_PROTOCOL_VERSION    4
#define WSM_PROTOCOL_OLDEST     4       /* that this one can speak as well */

/* Bits of START.  A source has them only if it was told to use them. */
#define WSM_FEATURE_MEMORY      (1u << 0)       /* memory by reference */
#define WSM_FEATURE_ZSTD        (1u << 1)       /* and the rest made smaller */
#define WSM_FEATURE_IMAGE       (1u << 2)       /* also to older memory */
#define WSM_FEATURE_TEMPLATE    (1u << 3)       /* also to sets of templates */
#define WSM_FEATURE_PACKING     (1u << 4)       /* DATA made smaller */
#define WSM_FEATURE_LACK        (1u << 5)       /* D can say what it lacks */
#define WSM_FEATURE_TCG         (1u << 6)       /* the guest may come from, */
#define WSM_FEATURE_KVM         (1u << 7)       /* or go to, this accelerator */
#define WSM_FEATURES_ACCEL      (WSM_FEATURE_TCG | WSM_FEATURE_KVM)
#ifdef CONFIG_ZSTD
#define WSM_FEATURES            /* known here */ \
    (WSM_FEATURE_MEMORY | WSM_FEATURE_ZSTD | WSM_FEATURE_IMAGE | \
     WSM_FEATURE_TEMPLATE | WSM_FEATURE_PACKING | WSM_FEATURE_LACK | \
     WSM_FEATURES_ACCEL)
#else
#define WSM_FEATURES \
    (WSM_FEATURE_MEMORY | WSM_FEATURE_IMAGE | WSM_FEATURE_TEMPLATE | \
     WSM_FEATURE_LACK | WSM_FEATURES_ACCEL)
#endif

/* What a block channel sends first, in clear, even if TLS follows */
#define WSM_PREAMBLE            0x57534d42      /* "WSMB" */
#define WSM_PREAMBLE_SIZE       4

#define WSM_HEADER_MAGIC        0x57534d31      /* "WSM1" */
#define WSM_HEADER_SIZE         32
#define WSM_HELLO_SIZE          24      /* in each version */
#define WSM_WELCOME_SIZE        4       /* likewise */
#define WSM_MIN_CHANNELS        2               /* urgent channel + 1 */
#define WSM_MAX_CHANNELS        17              /* urgent channel + 16 */
#define WSM_MAX_DISKS           256
#define WSM_MAX_PATH            512             /* bytes of a disk's QOM path */
#define WSM_MAX_MARKS           16              /* of the storage of a disk */
#define WSM_MAX_MARK            255             /* bytes of such a mark */
#define WSM_MIN_GRANULARITY     4096
#define WSM_MAX_GRANULARITY     (1 * MiB)
#define WSM_MAX_DATA            (1 * MiB)       /* bytes of a DATA message */
#define WSM_MAX_ZERO            (64 * MiB)      /* bytes of a ZERO message */
#define WSM_MAX_TEXT            1024            /* bytes of a text for people */
#define WSM_MAX_POINTS          64              /* sync points of a disk */
#define WSM_MAX_RUNS            (1 * MiB)       /* bytes of runs in a message */
#define WSM_POINT_SIZE          2               /* bytes of POINT before runs */

#define WSM_PAGE_SIZE           4096            /* of memory, bytes */
#define WSM_MAX_PAGES           (1 * MiB)       /* bytes of a PAGE message */
#define WSM_MAX_RAM_BLOCKS      1024            /* their numbers are below */
#define WSM_MAX_RAM_NAME        255             /* bytes of a name of one */
#define WSM_SALT_SIZE           32              /* bytes of SALT */
#define WSM_MAX_SETS            16              /* of templates, in SETS */
#define WSM_MAX_SCOPE           64              /* bytes of the scope of one */
#define WSM_MAX_SET             (WSM_HASH_SIZE + 8 + 1 + WSM_MAX_SCOPE)
#define WSM_SET_MAX_PAGES       (4 * 1024 * 1024)       /* 16 GiB of them */
#define WSM_SEED_SIZE           64              /* bytes of DIGESTS, of which */
#define WSM_PRINT_SIZE          8               /* for each page so many */
#define WSM_MAX_DIGESTS         (4 * MiB)       /* of memory in a DIGESTS */

/* Any size can be rounded up to whole blocks and still be an int64_t */
#define WSM_MAX_DISK_SIZE       QEMU_ALIGN_DOWN(INT64_MAX, WSM_MAX_GRANULARITY)

#define WSM_HASH_SIZE           32              /* bytes of a block's hash */

/* Bytes of a HASHES: one hash per block of the longest range */
#define WSM_MAX_HASHES \
    (WSM_MAX_DATA / WSM_MIN_GRANULARITY * WSM_HASH_SIZE)

/*
 * Directions: S source, D destination.  @epoch is 0 before and 1 after the
 * freeze; a DATA or ZERO of an older epoch is dropped by the destination.
 */
typedef enum WsmMsgType {
    WSM_MSG_HELLO = 1,  /* S->D  payload WsmHello; first on each channel */
    WSM_MSG_WELCOME,    /* D->S  answer to HELLO; payload: features in use */
    WSM_MSG_REFUSE,     /* D->S  answer to HELLO; payload: text for a human */
    WSM_MSG_DATA,       /* S->D  payload: @bytes bytes of the disk, or packed */
    WSM_MSG_ZERO,       /* S->D  the range reads as zeroes */
    WSM_MSG_ACK,        /* D->S  the range of a DATA or ZERO was written */
    WSM_MSG_FAIL,       /* D->S  as ACK, but it was not; payload: text */
    WSM_MSG_SYNC,       /* S->D  flush all disks; @offset is a serial number */
    WSM_MSG_SYNC_ACK,   /*
                         * D->S  done; @offset as in SYNC.  @bytes: epoch 0:
                         * errno of the flush; epoch 1: bytes missing
                         */
    WSM_MSG_READY,      /* D->S  all state is loaded, the guest could run */
    WSM_MSG_GO,         /* S->D  the guest is yours: the handover */
    WSM_MSG_ABORT,      /* S->D  there will be no GO, the source runs on */
    WSM_MSG_PULL,       /* D->S  send this range now, ahead of all others */
    WSM_MSG_HAVE,       /* D->S  the guest has overwritten this range */
    WSM_MSG_BASIS,      /*
                         * D->S  what @disk builds on; @offset is its
                         * WsmBasisKind; payload: WsmBasisMsg
                         */
    WSM_MSG_OWN,        /* D->S  changed here since the point; payload: runs */
    WSM_MSG_HASH,       /* S->D  hash the blocks of this range */
    WSM_MSG_HASHES,     /* D->S  answer to HASH; payload: hashes, or none */
    WSM_MSG_POINT,      /* S->D  bits of a sync point; payload: WsmPointMsg */
    WSM_MSG_GIVE_UP,    /* D->S  cannot load the guest; payload: text */
    /* Memory by reference; @disk is the number of a block of memory in: */
    WSM_MSG_SALT,       /* D->S  payload: of the tags; @disk is 0 */
    WSM_MSG_NACK,       /* D->S  these pages were not found, send them again */
    WSM_MSG_WANT,       /* D->S  all is loaded but these pages, send them now */
    WSM_MSG_PAGE,       /* S->D  payload: the content of the pages */
    WSM_MSG_DONE,       /*
                         * D->S  of the kind @disk, a WsmMemoryKind, @offset
                         * references were dealt with, of which @bytes missed
                         */
    WSM_MSG_SETS,       /* D->S  templates it can serve; payload: wire/sets.h */
    WSM_MSG_DIGESTS,    /* D->S  of older memory; payload: memory/prints.h */
    WSM_MSG_STOP,       /*
                         * D->S  do not refer to the kind @disk any more, as
                         * @offset says, a WsmMemoryWhy
                         */
    WSM_MSG_LACK,       /* D->S  missing blocks of this range; payload: runs */
    WSM_MSG_ANEW,       /* D->S  the guest booted anew, it needs no memory */
    WSM_MSG__MAX
} WsmMsgType;

/* The header of each message, host byte order */
typedef struct WsmMsg {
    uint16_t type;      /* WsmMsgType */
    uint16_t disk;      /* index into the disk list; 0 if not about such */
    uint32_t epoch;
    uint32_t length;    /* payload bytes that follow the header */
    uint64_t offset;    /* bytes on the disk */
    uint64_t bytes;     /* length of the range on the disk */
} WsmMsg;

typedef struct WsmHello {
    QemuUUID session;
    uint16_t version;   /* as in WsmStart */
    uint8_t channel;    /* 0: urgent and control; from 1: bulk */
    uint8_t channels;   /* how many there will be in all */
    uint32_t features;  /* as in WsmStart */
} WsmHello;

/* What was agreed on; a received message is checked against it */
typedef struct WsmLimits {
    bool from_source;           /* the messages to check come from the source */
    uint16_t channel;           /* number of the channel they come on */
    unsigned disks;
    const int64_t *disk_size;   /* @disks elements, bytes */
    uint32_t granularity;       /* bytes, power of two */
    bool packing;               /* that feature is in use */
} WsmLimits;

const char *wsm_msg_name(uint16_t type);

/* Both: @buf has WSM_HEADER_SIZE bytes */
void wsm_msg_encode(const WsmMsg *msg, uint8_t *buf);

/*
 * Decode and check a header against @limits (NULL: only what holds for all
 * sessions, which allows nothing but HELLO, WELCOME and REFUSE).
 * Returns false and sets @errp, naming the field and its value, if a
 * well-behaved peer would not have sent it.
 */
bool wsm_msg_decode(const uint8_t *buf, const WsmLimits *limits, WsmMsg *msg,
                    Error **errp);

/* Both: @buf has WSM_HELLO_SIZE bytes */
void wsm_hello_encode(const WsmHello *hello, uint8_t *buf);
bool wsm_hello_decode(const uint8_t *buf, WsmHello *hello, Error **errp);

/*
 * A text of the peer as a string to show to people: without control
 * characters.  Free with g_free().
 */
char *wsm_text_decode(const void *buf, size_t length);

/*
 * Checks that several decoders share; false and @errp as they do.  The version
 * is that of a source that can also speak those from @oldest on.
 */
bool wsm_check_version(uint16_t version, uint16_t oldest, Error **errp);
bool wsm_check_channels(uint16_t channels, Error **errp);
bool wsm_check_unused(const char *field, uint64_t value, Error **errp);

#endif
