/*
 * Whole-system migration: messages on a block channel
 *
 * Nothing that comes from the wire is trusted: each decoder checks every
 * field before it hands anything out, and allocates nothing whose size the
 * peer could choose beyond the limits in wire/message.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "migration/wsm/wire/message.h"

#define WSM_MAX_EPOCH           1

/* Properties of a message type */
enum {
    FROM_SOURCE = BIT(0),       /* sent by the source, else the destination */
    ANY_SESSION = BIT(1),       /* does not need a session to be agreed on */
    ON_URGENT   = BIT(2),       /* comes on channel 0 only */
    HAS_RANGE   = BIT(3),       /* about a range: @disk, @offset, @bytes */
    HAS_OFFSET  = BIT(4),       /* @offset is a number without bound */
    HAS_BYTES   = BIT(5),       /* @bytes is a number without bound */
    HAS_DATA    = BIT(6),       /* the payload is the content of the range */
    HAS_HASHES  = BIT(7),       /* the payload has its hashes, or nothing */
    HAS_KIND    = BIT(8),       /* about @disk; @offset is a WsmBasisKind */
    ON_BULK     = BIT(9),       /* comes on all channels but 0 */
    EPOCH_0     = BIT(10),      /* comes before the freeze only */
    EPOCH_1     = BIT(11),      /* comes after it only */
    HAS_PAGES   = BIT(12),      /* about pages of a block of memory, @disk */
    HAS_MEMORY  = BIT(13),      /* @disk is a WsmMemoryKind */
    HAS_WHY     = BIT(14),      /* @offset is a WsmMemoryWhy */
    MAY_PACK    = BIT(15),      /* with HAS_DATA: or packed, and so shorter */
};

typedef struct WsmMsgRule {
    const char *name;
    unsigned flags;
    uint32_t min_length, max_length;    /* of the payload */
    uint64_t max_bytes;                 /* of the range, if HAS_RANGE */
} WsmMsgRule;

static const WsmMsgRule rules[WSM_MSG__MAX] = {
    [WSM_MSG_HELLO] = {
        .name = "HELLO", .flags = FROM_SOURCE | ANY_SESSION,
        .min_length = WSM_HELLO_SIZE, .max_length = WSM_HELLO_SIZE,
    },
    [WSM_MSG_WELCOME] = {
        .name = "WELCOME", .flags = ANY_SESSION,
        .min_length = WSM_WELCOME_SIZE, .max_length = WSM_WELCOME_SIZE,
    },
    [WSM_MSG_REFUSE] = {
        .name = "REFUSE", .flags = ANY_SESSION,
        .max_length = WSM_MAX_TEXT,
    },
    [WSM_MSG_DATA] = {
        .name = "DATA", .flags = FROM_SOURCE | HAS_RANGE | HAS_DATA | MAY_PACK,
        .min_length = 1, .max_length = WSM_MAX_DATA, .max_bytes = WSM_MAX_DATA,
    },
    [WSM_MSG_ZERO] = {
        .name = "ZERO", .flags = FROM_SOURCE | HAS_RANGE,
        .max_bytes = WSM_MAX_ZERO,
    },
    [WSM_MSG_ACK] = {
        .name = "ACK", .flags = HAS_RANGE,
        .max_bytes = WSM_MAX_ZERO,
    },
    [WSM_MSG_FAIL] = {
        .name = "FAIL", .flags = HAS_RANGE,
        .max_length = WSM_MAX_TEXT, .max_bytes = WSM_MAX_ZERO,
    },
    [WSM_MSG_SYNC] = {
        .name = "SYNC", .flags = FROM_SOURCE | ON_URGENT | HAS_OFFSET,
    },
    [WSM_MSG_SYNC_ACK] = {
        .name = "SYNC_ACK", .flags = ON_URGENT | HAS_OFFSET | HAS_BYTES,
    },
    [WSM_MSG_READY] = {
        .name = "READY", .flags = ON_URGENT,
    },
    [WSM_MSG_GO] = {
        .name = "GO", .flags = FROM_SOURCE | ON_URGENT,
    },
    [WSM_MSG_ABORT] = {
        .name = "ABORT", .flags = FROM_SOURCE | ON_URGENT,
    },
    [WSM_MSG_PULL] = {
        .name = "PULL", .flags = ON_URGENT | HAS_RANGE,
        .max_bytes = WSM_MAX_ZERO,
    },
    [WSM_MSG_HAVE] = {
        .name = "HAVE", .flags = ON_URGENT | HAS_RANGE,
        .max_bytes = WSM_MAX_ZERO,
    },
    [WSM_MSG_BASIS] = {
        .name = "BASIS", .flags = ON_URGENT | EPOCH_0 | HAS_KIND,
        .min_length = sizeof(QemuUUID) + 1,
        .max_length = sizeof(QemuUUID) + WSM_MAX_TEXT,
    },
    [WSM_MSG_OWN] = {
        .name = "OWN", .flags = ON_URGENT | EPOCH_0 | HAS_RANGE,
        .max_length = WSM_MAX_RUNS, .max_bytes = WSM_MAX_DISK_SIZE,
    },
    [WSM_MSG_HASH] = {
        .name = "HASH", .flags = FROM_SOURCE | ON_BULK | EPOCH_0 | HAS_RANGE,
        .max_bytes = WSM_MAX_DATA,
    },
    [WSM_MSG_HASHES] = {
        .name = "HASHES", .flags = ON_BULK | EPOCH_0 | HAS_RANGE | HAS_HASHES,
        .max_length = WSM_MAX_HASHES, .max_bytes = WSM_MAX_DATA,
    },
    [WSM_MSG_POINT] = {
        .name = "POINT",
        .flags = FROM_SOURCE | ON_URGENT | EPOCH_1 | HAS_RANGE,
        .min_length = WSM_POINT_SIZE,
        .max_length = WSM_POINT_SIZE + WSM_MAX_RUNS,
        .max_bytes = WSM_MAX_DISK_SIZE,
    },
    [WSM_MSG_GIVE_UP] = {
        .name = "GIVE_UP", .flags = ON_URGENT,
        .min_length = 1, .max_length = WSM_MAX_TEXT,
    },
    [WSM_MSG_SALT] = {
        .name = "SALT", .flags = ON_URGENT | EPOCH_0,
        .min_length = WSM_SALT_SIZE, .max_length = WSM_SALT_SIZE,
    },
    [WSM_MSG_NACK] = {
        .name = "NACK", .flags = ON_URGENT | EPOCH_0 | HAS_PAGES,
        .max_bytes = WSM_MAX_PAGES,
    },
    [WSM_MSG_WANT] = {
        .name = "WANT", .flags = ON_URGENT | EPOCH_1 | HAS_PAGES,
        .max_bytes = WSM_MAX_PAGES,
    },
    [WSM_MSG_PAGE] = {
        .name = "PAGE",
        .flags = FROM_SOURCE | ON_URGENT | EPOCH_1 | HAS_PAGES | HAS_DATA,
        .max_length = WSM_MAX_PAGES, .max_bytes = WSM_MAX_PAGES,
    },
    [WSM_MSG_DONE] = {
        .name = "DONE",
        .flags = ON_URGENT | EPOCH_0 | HAS_MEMORY | HAS_OFFSET | HAS_BYTES,
    },
    [WSM_MSG_SETS] = {
        .name = "SETS", .flags = ON_URGENT | EPOCH_0,
        .min_length = WSM_MAX_SET - WSM_MAX_SCOPE + 1,
        .max_length = WSM_MAX_SETS * WSM_MAX_SET,
    },
    [WSM_MSG_DIGESTS] = {
        .name = "DIGESTS", .flags = ON_URGENT | EPOCH_0 | HAS_PAGES,
        .min_length = WSM_SEED_SIZE + 1,
        .max_length = WSM_SEED_SIZE + 1 + WSM_MAX_RAM_NAME +
                      WSM_MAX_DIGESTS / WSM_PAGE_SIZE * WSM_PRINT_SIZE,
        .max_bytes = WSM_MAX_DIGESTS,
    },
    [WSM_MSG_STOP] = {
        .name = "STOP", .flags = ON_URGENT | EPOCH_0 | HAS_MEMORY | HAS_WHY,
    },
    [WSM_MSG_LACK] = {
        .name = "LACK", .flags = ON_URGENT | EPOCH_1 | HAS_RANGE,
        .max_length = WSM_MAX_RUNS, .max_bytes = WSM_MAX_DISK_SIZE,
    },
    [WSM_MSG_ANEW] = {
        .name = "ANEW", .flags = ON_URGENT | EPOCH_1,
    },
};

static const WsmMsgRule *find_rule(uint16_t type)
{
    return type < WSM_MSG__MAX && rules[type].name ? &rules[type] : NULL;
}

const char *wsm_msg_name(uint16_t type)
{
    const WsmMsgRule *rule = find_rule(type);

    return rule ? rule->name : "unknown";
}

char *wsm_text_decode(const void *buf, size_t length)
{
    char *text = g_malloc(length + 1);

    memcpy(text, buf, length);
    text[length] = '\0';
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)text[i] < ' ') {
            text[i] = ' ';
        }
    }
    return text;
}

/*
 * Header
 */

void wsm_msg_encode(const WsmMsg *msg, uint8_t *buf)
{
    assert(find_rule(msg->type));

    stl_be_p(buf, WSM_HEADER_MAGIC);
    stw_be_p(buf + 4, msg->type);
    stw_be_p(buf + 6, msg->disk);
    stl_be_p(buf + 8, msg->epoch);
    stl_be_p(buf + 12, msg->length);
    stq_be_p(buf + 16, msg->offset);
    stq_be_p(buf + 24, msg->bytes);
}

static WsmMsg parse_header(const uint8_t *buf)
{
    return (WsmMsg) {
        .type = lduw_be_p(buf + 4),
        .disk = lduw_be_p(buf + 6),
        .epoch = ldl_be_p(buf + 8),
        .length = ldl_be_p(buf + 12),
        .offset = ldq_be_p(buf + 16),
        .bytes = ldq_be_p(buf + 24),
    };
}

/* May this type come from this peer on this channel? */
static bool check_place(const WsmMsgRule *rule, const WsmLimits *limits,
                        Error **errp)
{
    bool from_source = rule->flags & FROM_SOURCE;

    if (!limits) {
        if (!(rule->flags & ANY_SESSION)) {
            error_setg(errp, "comes before a session is agreed on");
            return false;
        }
        return true;
    }
    if (from_source != limits->from_source) {
        error_setg(errp, "comes from the %s, but only the %s sends it",
                   limits->from_source ? "source" : "destination",
                   from_source ? "source" : "destination");
        return false;
    }
    if ((rule->flags & ON_URGENT) && limits->channel != 0) {
        error_setg(errp, "comes on channel %u, but belongs on channel 0",
                   limits->channel);
        return false;
    }
    if ((rule->flags & ON_BULK) && limits->channel == 0) {
        error_setg(errp, "comes on channel 0, but belongs on the others");
        return false;
    }
    return true;
}

static bool check_epoch(const WsmMsgRule *rule, const WsmMsg *msg,
                        Error **errp)
{
    if (msg->epoch > WSM_MAX_EPOCH) {
        error_setg(errp, "epoch %" PRIu32 " is above %d",
                   msg->epoch, WSM_MAX_EPOCH);
        return false;
    }
    if ((rule->flags & (msg->epoch ? EPOCH_0 : EPOCH_1)) != 0) {
        error_setg(errp, "epoch is %" PRIu32 ", but must be %d",
                   msg->epoch, msg->epoch ? 0 : 1);
        return false;
    }
    return true;
}

/* May the payload be shorter than the range?  After the freeze it is not. */
static bool is_packed(const WsmMsgRule *rule, const WsmLimits *limits,
                      const WsmMsg *msg)
{
    return (rule->flags & MAY_PACK) && limits->packing && !msg->epoch &&
           msg->length < msg->bytes;
}

/* Does the length of the payload fit the range, which is known to be good? */
static bool check_payload(const WsmMsgRule *rule, const WsmLimits *limits,
                          const WsmMsg *msg, Error **errp)
{
    if ((rule->flags & HAS_DATA) && msg->length != msg->bytes &&
        !is_packed(rule, limits, msg)) {
        error_setg(errp, "length %" PRIu32 " differs from bytes %" PRIu64,
                   msg->length, msg->bytes);
        return false;
    }
    if ((rule->flags & HAS_HASHES) && msg->length != 0) {
        uint64_t blocks = DIV_ROUND_UP(msg->bytes, limits->granularity);

        if (msg->length != blocks * WSM_HASH_SIZE) {
            error_setg(errp, "length %" PRIu32 " is neither 0 nor that of "
                       "%" PRIu64 " hashes of %d bytes",
                       msg->length, blocks, WSM_HASH_SIZE);
            return false;
        }
    }
    return true;
}

static bool check_length(const WsmMsgRule *rule, const WsmMsg *msg,
                         Error **errp)
{
    if (msg->length < rule->min_length) {
        error_setg(errp, "length %" PRIu32 " is below %" PRIu32,
                   msg->length, rule->min_length);
        return false;
    }
    if (msg->length > rule->max_length) {
        error_setg(errp, "length %" PRIu32 " is above %" PRIu32,
                   msg->length, rule->max_length);
        return false;
    }
    return true;
}

bool wsm_check_unused(const char *field, uint64_t value, Error **errp)
{
    if (value != 0) {
        error_setg(errp, "%s is %" PRIu64 ", but must be 0", field, value);
        return false;
    }
    return true;
}

/* The field disk of a message that is not about a disk */
static bool check_number(const WsmMsgRule *rule, const WsmMsg *msg,
                         Error **errp)
{
    if (!(rule->flags & HAS_MEMORY)) {
        return wsm_check_unused("disk", msg->disk, errp);
    }
    if (msg->disk >= WSM_MEMORY_KIND__MAX) {
        error_setg(errp, "kind of memory %u in disk is not below %d",
                   msg->disk, WSM_MEMORY_KIND__MAX);
        return false;
    }
    return true;
}

/* The fields of a message that is not about a range */
static bool check_numbers(const WsmMsgRule *rule, const WsmMsg *msg,
                          Error **errp)
{
    if ((rule->flags & HAS_WHY) && msg->offset >= WSM_MEMORY_WHY__MAX) {
        error_setg(errp, "reason %" PRIu64 " in offset is not below %d",
                   msg->offset, WSM_MEMORY_WHY__MAX);
        return false;
    }
    return check_number(rule, msg, errp) &&
           ((rule->flags & (HAS_OFFSET | HAS_WHY)) ||
            wsm_check_unused("offset", msg->offset, errp)) &&
           ((rule->flags & HAS_BYTES) ||
            wsm_check_unused("bytes", msg->bytes, errp));
}

/* Is the range made of whole blocks?  It is known to be within the disk. */
static bool check_alignment(const WsmMsg *msg, uint32_t granularity,
                            uint64_t size, Error **errp)
{
    if (msg->offset % granularity) {
        error_setg(errp, "offset 0x%" PRIx64 " is not a multiple of the "
                   "granularity %" PRIu32, msg->offset, granularity);
        return false;
    }
    if (msg->bytes % granularity && msg->offset + msg->bytes != size) {
        error_setg(errp, "bytes %" PRIu64 " is not a multiple of the "
                   "granularity %" PRIu32 " and offset 0x%" PRIx64
                   " + bytes is not the end of disk %u of size %" PRIu64,
                   msg->bytes, granularity, msg->offset, msg->disk, size);
        return false;
    }
    return true;
}

static bool check_disk(const WsmLimits *limits, const WsmMsg *msg,
                       Error **errp)
{
    if (msg->disk >= limits->disks) {
        error_setg(errp, "disk %u is not below the number of disks %u",
                   msg->disk, limits->disks);
        return false;
    }
    return true;
}

/* The fields of a message that says a disk's kind of basis */
static bool check_kind(const WsmLimits *limits, const WsmMsg *msg,
                       Error **errp)
{
    if (!check_disk(limits, msg, errp)) {
        return false;
    }
    if (msg->offset < WSM_BASIS_KIND_FULL ||
        msg->offset > WSM_BASIS_KIND_SYNC_POINT) {
        error_setg(errp, "kind %" PRIu64 " in offset is not between %d and %d",
                   msg->offset, WSM_BASIS_KIND_FULL,
                   WSM_BASIS_KIND_SYNC_POINT);
        return false;
    }
    return wsm_check_unused("bytes", msg->bytes, errp);
}

static bool check_bytes(const WsmMsgRule *rule, const WsmMsg *msg,
                        Error **errp)
{
    if (msg->bytes == 0 || msg->bytes > rule->max_bytes) {
        error_setg(errp, "bytes %" PRIu64 " is not between 1 and %" PRIu64,
                   msg->bytes, rule->max_bytes);
        return false;
    }
    return true;
}

static bool check_range(const WsmMsgRule *rule, const WsmLimits *limits,
                        const WsmMsg *msg, Error **errp)
{
    uint64_t size;

    if (!check_disk(limits, msg, errp) || !check_bytes(rule, msg, errp)) {
        return false;
    }
    size = limits->disk_size[msg->disk];
    if (msg->bytes > size || msg->offset > size - msg->bytes) {
        error_setg(errp, "offset 0x%" PRIx64 " + bytes %" PRIu64
                   " is beyond disk %u of size %" PRIu64,
                   msg->offset, msg->bytes, msg->disk, size);
        return false;
    }
    return check_alignment(msg, limits->granularity, size, errp);
}

/* How much memory there is, who has it will see */
static bool check_pages(const WsmMsgRule *rule, const WsmMsg *msg,
                        Error **errp)
{
    if (msg->disk >= WSM_MAX_RAM_BLOCKS) {
        error_setg(errp, "block of memory %u is not below %d", msg->disk,
                   WSM_MAX_RAM_BLOCKS);
        return false;
    }
    if (!check_bytes(rule, msg, errp)) {
        return false;
    }
    if ((msg->offset | msg->bytes) % WSM_PAGE_SIZE ||
        msg->offset > INT64_MAX - msg->bytes) {
        error_setg(errp, "offset 0x%" PRIx64 " and bytes %" PRIu64
                   " are not those of pages of %d bytes", msg->offset,
                   msg->bytes, WSM_PAGE_SIZE);
        return false;
    }
    return true;
}

/* The fields that say what the message is about */
static bool check_subject(const WsmMsgRule *rule, const WsmLimits *limits,
                          const WsmMsg *msg, Error **errp)
{
    if (rule->flags & HAS_RANGE) {
        return check_range(rule, limits, msg, errp);
    }
    if (rule->flags & HAS_PAGES) {
        return check_pages(rule, msg, errp);
    }
    if (rule->flags & HAS_KIND) {
        return check_kind(limits, msg, errp);
    }
    return check_numbers(rule, msg, errp);
}

static bool check_msg(const WsmMsgRule *rule, const WsmLimits *limits,
                      const WsmMsg *msg, Error **errp)
{
    return check_place(rule, limits, errp) && check_epoch(rule, msg, errp) &&
           check_subject(rule, limits, msg, errp) &&
           check_length(rule, msg, errp) &&
           check_payload(rule, limits, msg, errp);
}

static bool decode_header(const uint8_t *buf, const WsmLimits *limits,
                          WsmMsg *msg, Error **errp)
{
    ERRP_GUARD();
    uint32_t magic = ldl_be_p(buf);
    WsmMsg m = parse_header(buf);
    const WsmMsgRule *rule = find_rule(m.type);

    if (magic != WSM_HEADER_MAGIC) {
        error_setg(errp, "magic 0x%08" PRIx32 " is not 0x%08x",
                   magic, WSM_HEADER_MAGIC);
        return false;
    }
    if (!rule) {
        error_setg(errp, "type %u is unknown", m.type);
        return false;
    }
    if (!check_msg(rule, limits, &m, errp)) {
        error_prepend(errp, "%s: ", rule->name);
        return false;
    }
    *msg = m;
    return true;
}

bool wsm_msg_decode(const uint8_t *buf, const WsmLimits *limits, WsmMsg *msg,
                    Error **errp)
{
    ERRP_GUARD();

    if (decode_header(buf, limits, msg, errp)) {
        return true;
    }
    if (limits) {
        error_prepend(errp, "block channel %u: ", limits->channel);
    } else {
        error_prepend(errp, "block channel: ");
    }
    return false;
}

/*
 * HELLO and WELCOME
 */

bool wsm_check_version(uint16_t version, uint16_t oldest, Error **errp)
{
    if (version < WSM_PROTOCOL_OLDEST || oldest > WSM_PROTOCOL_VERSION) {
        /* The numbers that --version shows */
        error_setg(errp, "the source has version %u of the protocol (qemu-wsm "
                   "0.%u), the destination has version %u (qemu-wsm 0.%u); "
                   "run the same version of qemu-wsm on both hosts",
                   version, version, WSM_PROTOCOL_VERSION,
                   WSM_PROTOCOL_VERSION);
        return false;
    }
    if (oldest > version) {
        error_setg(errp, "oldest version %u is above version %u", oldest,
                   version);
        return false;
    }
    return true;
}

bool wsm_check_channels(uint16_t channels, Error **errp)
{
    if (channels < WSM_MIN_CHANNELS || channels > WSM_MAX_CHANNELS) {
        error_setg(errp, "channels %u is not between %u and %u",
                   channels, WSM_MIN_CHANNELS, WSM_MAX_CHANNELS);
        return false;
    }
    return true;
}

void wsm_hello_encode(const WsmHello *hello, uint8_t *buf)
{
    memcpy(buf, hello->session.data, sizeof(hello->session.data));
    stw_be_p(buf + 16, hello->version);
    buf[18] = hello->channel;
    buf[19] = hello->channels;
    stl_be_p(buf + 20, hello->features);
}

static bool check_hello(const WsmHello *hello, Error **errp)
{
    /* How old a version it can speak as well was said in START */
    if (!wsm_check_version(hello->version, 0, errp) ||
        !wsm_check_channels(hello->channels, errp)) {
        return false;
    }
    if (hello->channel >= hello->channels) {
        error_setg(errp, "channel %u is not below channels %u",
                   hello->channel, hello->channels);
        return false;
    }
    return true;
}

bool wsm_hello_decode(const uint8_t *buf, WsmHello *hello, Error **errp)
{
    ERRP_GUARD();
    WsmHello h = {
        .version = lduw_be_p(buf + 16),
        .channel = buf[18],
        .channels = buf[19],
        .features = ldl_be_p(buf + 20),
    };

    memcpy(h.session.data, buf, sizeof(h.session.data));
    if (!check_hello(&h, errp)) {
        error_prepend(errp, "HELLO: ");
        return false;
    }
    *hello = h;
    return true;
}
