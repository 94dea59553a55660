/*
 * Whole-system migration: the bytes of a map of missing blocks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/crc32c.h"
#include "qemu/cutils.h"
#include "qemu/host-utils.h"
#include "migration/wsm/map/format.h"
#include "migration/wsm/wire/runs.h"

#define MAP_MAGIC       "WSMMAP\n\x1a"
#define MAP_VERSION     1
#define RECORD_MAGIC    "WSMR"
#define FLAG_VOID       1

/* Places in a head; what is between them is reserved and 0 */
enum {
    HEAD_VERSION = 8,
    HEAD_CRC = 12,
    HEAD_GENERATION = 16,
    HEAD_SESSION = 24,
    HEAD_DISK = 40,
    HEAD_DISKS = 42,
    HEAD_CHANNELS = 44,
    HEAD_FLAGS = 46,
    HEAD_GRANULARITY = 48,
    HEAD_SNAPSHOT = 52,
    HEAD_SIZE = 56,
    HEAD_AREA = 64,
    HEAD_AREA_BYTES = 72,
    HEAD_SNAPSHOT_CRC = 80,
    HEAD_MISSING = 88,
    HEAD_BOOT = 96,
    HEAD_PROTOCOL = 112,
    HEAD_FEATURES = 116,
    HEAD_FEATURES_END = 120,
    HEAD_PATH = 160,
    HEAD_NAME = HEAD_PATH + 2 + WSM_MAX_PATH,
    HEAD_END = HEAD_NAME + 2 + WSM_MAX_PATH,
};

QEMU_BUILD_BUG_ON(HEAD_END > WSM_MAP_PAGE);

/* QEMU's function inverts at the end only */
#define CRC_BEGIN       0xffffffff

/* In pieces: a length is an unsigned int there */
static uint32_t crc_more(uint32_t crc, const uint8_t *buf, size_t bytes)
{
    while (bytes) {
        size_t n = MIN(bytes, 1 * GiB);

        crc = crc32c(crc ^ CRC_BEGIN, buf, n);
        buf += n;
        bytes -= n;
    }
    return crc;
}

uint32_t wsm_map_crc(const void *buf, size_t bytes)
{
    return crc_more(0, buf, bytes);
}

/* Of @buf, with 4 bytes of zeroes at @at, where the sum itself is */
static uint32_t crc_without(const uint8_t *buf, size_t bytes, size_t at)
{
    static const uint8_t zero[4];
    uint32_t crc = crc_more(0, buf, at);

    crc = crc_more(crc, zero, sizeof(zero));
    return crc_more(crc, buf + at + sizeof(zero), bytes - at - sizeof(zero));
}

/*
 * Heads
 */

static void put_text(uint8_t *buf, const char *text)
{
    size_t length = strlen(text);

    assert(length <= WSM_MAX_PATH);
    stw_be_p(buf, length);
    memcpy(buf + 2, text, length);
}

/* With room for WSM_MAX_PATH + 1 bytes in @text */
static bool get_text(const uint8_t *buf, char *text)
{
    size_t length = lduw_be_p(buf);

    if (length > WSM_MAX_PATH || memchr(buf + 2, 0, length) ||
        !buffer_is_zero(buf + 2 + length, WSM_MAX_PATH - length)) {
        return false;
    }
    memcpy(text, buf + 2, length);
    text[length] = 0;
    return true;
}

bool wsm_map_head_begins(const uint8_t *buf)
{
    return !memcmp(buf, MAP_MAGIC, 8);
}

void wsm_map_head_encode(const WsmMapHead *head, uint8_t *buf)
{
    memset(buf, 0, WSM_MAP_PAGE);
    memcpy(buf, MAP_MAGIC, 8);
    stl_be_p(buf + HEAD_VERSION, MAP_VERSION);
    stq_be_p(buf + HEAD_GENERATION, head->generation);
    memcpy(buf + HEAD_SESSION, head->session.data, sizeof(head->session.data));
    stw_be_p(buf + HEAD_DISK, head->disk);
    stw_be_p(buf + HEAD_DISKS, head->disks);
    stw_be_p(buf + HEAD_CHANNELS, head->channels);
    stw_be_p(buf + HEAD_FLAGS, head->is_void ? FLAG_VOID : 0);
    stl_be_p(buf + HEAD_GRANULARITY, head->granularity);
    stl_be_p(buf + HEAD_SNAPSHOT, head->snapshot_bytes);
    stq_be_p(buf + HEAD_SIZE, head->size);
    stq_be_p(buf + HEAD_AREA, head->area);
    stq_be_p(buf + HEAD_AREA_BYTES, head->area_bytes);
    stl_be_p(buf + HEAD_SNAPSHOT_CRC, head->snapshot_crc);
    stq_be_p(buf + HEAD_MISSING, head->missing);
    memcpy(buf + HEAD_BOOT, head->boot.data, sizeof(head->boot.data));
    stw_be_p(buf + HEAD_PROTOCOL, head->protocol);
    stl_be_p(buf + HEAD_FEATURES, head->features);
    put_text(buf + HEAD_PATH, head->path);
    put_text(buf + HEAD_NAME, head->name);
    stl_be_p(buf + HEAD_CRC, crc_without(buf, WSM_MAP_PAGE, HEAD_CRC));
}

static bool get_head(const uint8_t *buf, WsmMapHead *head)
{
    *head = (WsmMapHead) {
        .generation = ldq_be_p(buf + HEAD_GENERATION),
        .disk = lduw_be_p(buf + HEAD_DISK),
        .disks = lduw_be_p(buf + HEAD_DISKS),
        .channels = lduw_be_p(buf + HEAD_CHANNELS),
        .is_void = lduw_be_p(buf + HEAD_FLAGS) & FLAG_VOID,
        .granularity = ldl_be_p(buf + HEAD_GRANULARITY),
        .size = ldq_be_p(buf + HEAD_SIZE),
        .area = ldq_be_p(buf + HEAD_AREA),
        .area_bytes = ldq_be_p(buf + HEAD_AREA_BYTES),
        .snapshot_bytes = ldl_be_p(buf + HEAD_SNAPSHOT),
        .snapshot_crc = ldl_be_p(buf + HEAD_SNAPSHOT_CRC),
        .missing = ldq_be_p(buf + HEAD_MISSING),
        .protocol = lduw_be_p(buf + HEAD_PROTOCOL),
        .features = ldl_be_p(buf + HEAD_FEATURES),
    };
    memcpy(head->session.data, buf + HEAD_SESSION, sizeof(head->session.data));
    memcpy(head->boot.data, buf + HEAD_BOOT, sizeof(head->boot.data));
    return get_text(buf + HEAD_PATH, head->path) &&
           get_text(buf + HEAD_NAME, head->name);
}

/* All that nobody knows is 0 */
static bool reserved_is_zero(const uint8_t *buf)
{
    return !(lduw_be_p(buf + HEAD_FLAGS) & ~FLAG_VOID) &&
           buffer_is_zero(buf + HEAD_SNAPSHOT_CRC + 4,
                          HEAD_MISSING - HEAD_SNAPSHOT_CRC - 4) &&
           !lduw_be_p(buf + HEAD_PROTOCOL + 2) &&
           buffer_is_zero(buf + HEAD_FEATURES_END,
                          HEAD_PATH - HEAD_FEATURES_END) &&
           buffer_is_zero(buf + HEAD_END, WSM_MAP_PAGE - HEAD_END);
}

static bool check_disk(const WsmMapHead *head, Error **errp)
{
    if (!is_power_of_2(head->granularity) ||
        head->granularity < WSM_MIN_GRANULARITY ||
        head->granularity > WSM_MAX_GRANULARITY) {
        error_setg(errp, "a block of %" PRIu32 " bytes is not allowed",
                   head->granularity);
        return false;
    }
    if (head->size <= 0 || head->size > WSM_MAX_DISK_SIZE) {
        error_setg(errp, "a disk of %" PRId64 " bytes is not allowed",
                   head->size);
        return false;
    }
    if (head->disk >= head->disks || head->disks > WSM_MAX_DISKS ||
        head->channels < WSM_MIN_CHANNELS ||
        head->channels > WSM_MAX_CHANNELS) {
        error_setg(errp, "disk %u of %u with %u channels is not allowed",
                   head->disk, head->disks, head->channels);
        return false;
    }
    return true;
}

/* Whether it is within the map is for others to see */
static bool check_area(const WsmMapHead *head, Error **errp)
{
    uint64_t blocks = DIV_ROUND_UP(head->size, head->granularity);

    if (head->is_void && !head->area && !head->area_bytes &&
        !head->snapshot_bytes && !head->missing) {
        return true;
    }
    if (head->is_void || head->area < WSM_MAP_HEADS * WSM_MAP_PAGE ||
        !QEMU_IS_ALIGNED(head->area, WSM_MAP_PAGE) ||
        !QEMU_IS_ALIGNED(head->area_bytes, WSM_MAP_PAGE) ||
        head->area_bytes < wsm_map_snapshot_room(head->snapshot_bytes) ||
        head->area > INT64_MAX - head->area_bytes) {
        error_setg(errp, "an area of %" PRId64 " bytes at %" PRId64
                   " is not allowed", head->area_bytes, head->area);
        return false;
    }
    if (head->snapshot_bytes > MIN(wsm_runs_max_size(blocks),
                                   WSM_MAP_MAX_RUNS) ||
        head->missing < 0 || head->missing > head->size) {
        error_setg(errp, "a list of %" PRIu32 " bytes with %" PRId64 " bytes "
                   "of a disk of %" PRId64 " is not allowed",
                   head->snapshot_bytes, head->missing, head->size);
        return false;
    }
    return true;
}

static bool check_head(const uint8_t *buf, unsigned index, WsmMapHead *head,
                       Error **errp)
{
    uint32_t version = ldl_be_p(buf + HEAD_VERSION);

    if (version != MAP_VERSION) {
        error_setg(errp, "version %" PRIu32 " is not %d", version, MAP_VERSION);
        return false;
    }
    if (!get_head(buf, head) || !reserved_is_zero(buf)) {
        error_setg(errp, "its head has what is not known");
        return false;
    }
    if (!head->generation ||
        wsm_map_head_at(head->generation) != index * WSM_MAP_PAGE) {
        error_setg(errp, "generation %" PRIu64 " is in page %u",
                   head->generation, index);
        return false;
    }
    return check_disk(head, errp) && check_area(head, errp);
}

WsmMapPage wsm_map_head_decode(const uint8_t *buf, unsigned index,
                               WsmMapHead *head, Error **errp)
{
    if (buffer_is_zero(buf, WSM_MAP_PAGE)) {
        return WSM_MAP_PAGE_EMPTY;
    }
    if (!wsm_map_head_begins(buf) || ldl_be_p(buf + HEAD_CRC) !=
        crc_without(buf, WSM_MAP_PAGE, HEAD_CRC)) {
        return WSM_MAP_PAGE_TORN;
    }
    return check_head(buf, index, head, errp) ? WSM_MAP_PAGE_HEAD
                                              : WSM_MAP_PAGE_UNKNOWN;
}

int64_t wsm_map_snapshot_room(uint64_t bytes)
{
    return MAX(ROUND_UP(bytes, WSM_MAP_PAGE), WSM_MAP_PAGE);
}

/*
 * Records
 */

enum {
    RECORD_CRC = 4,
    RECORD_GENERATION = 8,
    RECORD_SERIAL = 16,
    RECORD_SESSION = 24,
    RECORD_RUNS = 40,
    RECORD_RESERVED = 44,
};

int64_t wsm_map_record_room(uint64_t runs)
{
    return ROUND_UP(WSM_MAP_RECORD_SIZE + runs, WSM_MAP_PAGE);
}

void wsm_map_record_encode(const WsmMapRecord *record, const QemuUUID *session,
                           uint8_t *buf)
{
    size_t bytes = WSM_MAP_RECORD_SIZE + record->runs;

    memset(buf, 0, WSM_MAP_RECORD_SIZE);
    memset(buf + bytes, 0, wsm_map_record_room(record->runs) - bytes);
    memcpy(buf, RECORD_MAGIC, 4);
    stq_be_p(buf + RECORD_GENERATION, record->generation);
    stq_be_p(buf + RECORD_SERIAL, record->serial);
    memcpy(buf + RECORD_SESSION, session->data, sizeof(session->data));
    stl_be_p(buf + RECORD_RUNS, record->runs);
    stl_be_p(buf + RECORD_CRC, crc_without(buf, bytes, RECORD_CRC));
}

bool wsm_map_record_begins(const uint8_t *buf, const QemuUUID *session,
                           int64_t max, WsmMapRecord *record)
{
    *record = (WsmMapRecord) {
        .generation = ldq_be_p(buf + RECORD_GENERATION),
        .serial = ldq_be_p(buf + RECORD_SERIAL),
        .runs = ldl_be_p(buf + RECORD_RUNS),
    };
    return !memcmp(buf, RECORD_MAGIC, 4) &&
           (!session || !memcmp(buf + RECORD_SESSION, session->data,
                                sizeof(session->data))) &&
           !ldl_be_p(buf + RECORD_RESERVED) && record->runs <= max;
}

bool wsm_map_record_is_good(const WsmMapRecord *record, const uint8_t *buf)
{
    return ldl_be_p(buf + RECORD_CRC) ==
           crc_without(buf, WSM_MAP_RECORD_SIZE + record->runs, RECORD_CRC);
}
