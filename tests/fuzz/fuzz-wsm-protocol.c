/*
 * libFuzzer target: everything of whole-system migration that parses bytes
 * of the peer, or of a node of a ring
 *
 * The first byte of the input chooses the parser, the rest depends on it; see
 * seeds.py, which writes such inputs.  Whatever a parser accepts must be
 * within the limits and encode to the same bytes again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "crypto/hash.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "migration/wsm/map/load.h"
#include "migration/wsm/memory/kept.h"
#include "migration/wsm/memory/payload.h"
#include "migration/wsm/memory/prints.h"
#include "migration/wsm/memory/ring.h"
#include "migration/wsm/wire/message.h"
#include "migration/wsm/wire/payload.h"
#include "migration/wsm/wire/runs.h"
#include "migration/wsm/wire/sets.h"

static const int64_t disk_size[] = {
    1 * GiB, 10 * MiB + 512, 512, INT64_MAX - MiB + 1,
};

/* Half of the inputs want no error text, like a caller who passes NULL */
static Error **errp_or_null(Error **err, bool want)
{
    return want ? err : NULL;
}

static void check_error(Error *err, bool ok, bool want)
{
    g_assert(!!err == (!ok && want));
    if (err) {
        g_assert(*error_get_pretty(err));
        error_free(err);
    }
}

/* The longest range of a message of this type; 0 if it has none */
static uint64_t max_bytes(uint16_t type)
{
    switch (type) {
    case WSM_MSG_DATA:
    case WSM_MSG_HASH:
    case WSM_MSG_HASHES:
        return WSM_MAX_DATA;
    case WSM_MSG_ZERO:
    case WSM_MSG_ACK:
    case WSM_MSG_FAIL:
    case WSM_MSG_PULL:
    case WSM_MSG_HAVE:
        return WSM_MAX_ZERO;
    case WSM_MSG_OWN:
    case WSM_MSG_POINT:
        return INT64_MAX;
    default:
        return 0;
    }
}

static void check_msg(const WsmMsg *msg, const WsmLimits *limits)
{
    uint64_t max = max_bytes(msg->type);

    g_assert(msg->type > 0 && msg->type < WSM_MSG__MAX);
    g_assert(msg->epoch <= 1);
    g_assert(msg->length <= (msg->type == WSM_MSG_POINT ?
                             WSM_MAX_RUNS + WSM_POINT_SIZE : WSM_MAX_DATA));
    if (msg->type == WSM_MSG_BASIS) {
        g_assert(limits && msg->disk < limits->disks);
        g_assert(msg->offset > WSM_BASIS_KIND_AUTO &&
                 msg->offset < WSM_BASIS_KIND__MAX);
    }
    if (msg->type == WSM_MSG_DATA) {
        g_assert(msg->length > 0 && msg->length <= msg->bytes);
        g_assert(msg->length == msg->bytes || (limits->packing && !msg->epoch));
    }
    if (msg->type == WSM_MSG_DONE || msg->type == WSM_MSG_STOP) {
        g_assert(msg->disk < WSM_MEMORY_KIND__MAX);
        g_assert(msg->type == WSM_MSG_DONE ||
                 msg->offset < WSM_MEMORY_WHY__MAX);
    }
    if (msg->type == WSM_MSG_HASHES) {
        g_assert(msg->length <= WSM_MAX_HASHES);
        g_assert(msg->length % WSM_HASH_SIZE == 0);
    }
    if (max) {
        g_assert(limits && msg->disk < limits->disks);
        g_assert(msg->bytes > 0 && msg->bytes <= max);
        g_assert(msg->offset <= INT64_MAX);
        g_assert(msg->offset + msg->bytes <= limits->disk_size[msg->disk]);
        g_assert(QEMU_IS_ALIGNED(msg->offset, limits->granularity));
    }
}

/* A byte of options, a header */
static void fuzz_msg(const uint8_t *data, size_t size)
{
    uint8_t options, buf[WSM_HEADER_SIZE], again[WSM_HEADER_SIZE];
    WsmLimits limits, *given;
    Error *err = NULL;
    bool ok, want;
    WsmMsg msg;

    if (size != 1 + WSM_HEADER_SIZE) {
        return;
    }
    options = data[0];
    memcpy(buf, data + 1, sizeof(buf));
    want = options & 1;
    limits = (WsmLimits) {
        .from_source = options & 4,
        .channel = options & 8 ? 3 : 0,
        .disks = options & 16 ? ARRAY_SIZE(disk_size) : 1,
        .disk_size = disk_size,
        .granularity = WSM_MIN_GRANULARITY << (options >> 5),
        .packing = options & 8,
    };
    given = options & 2 ? &limits : NULL;
    ok = wsm_msg_decode(buf, given, &msg, errp_or_null(&err, want));
    check_error(err, ok, want);
    if (ok) {
        check_msg(&msg, given);
        wsm_msg_encode(&msg, again);
        g_assert(!memcmp(buf, again, sizeof(buf)));
    }
}

/* A HELLO */
static void fuzz_hello(const uint8_t *data, size_t size)
{
    uint8_t buf[WSM_HELLO_SIZE], again[WSM_HELLO_SIZE];
    Error *err = NULL;
    WsmHello hello;
    bool ok;

    if (size != WSM_HELLO_SIZE) {
        return;
    }
    memcpy(buf, data, sizeof(buf));
    ok = wsm_hello_decode(buf, &hello, &err);
    check_error(err, ok, true);
    if (ok) {
        g_assert(hello.channel < hello.channels);
        g_assert(hello.channels <= WSM_MAX_CHANNELS);
        wsm_hello_encode(&hello, again);
        g_assert(!memcmp(buf, again, sizeof(buf)));
    }
}

static void check_start(const WsmStart *start)
{
    g_assert(start->ndisks <= WSM_MAX_DISKS);
    g_assert(start->channels <= WSM_MAX_CHANNELS);
    g_assert(start->version >= WSM_PROTOCOL_OLDEST);
    g_assert(start->oldest <= WSM_PROTOCOL_VERSION);
    g_assert((wsm_features_in_use(start) & ~start->features) == 0);
    g_assert((start->required & ~wsm_features_in_use(start)) == 0);
    g_assert(is_power_of_2(start->granularity));
    for (unsigned i = 0; i < start->ndisks; i++) {
        const WsmDiskDesc *disk = &start->disk[i];

        g_assert(disk->size > 0 && disk->size <= INT64_MAX);
        g_assert(strlen(disk->path) > 0 && strlen(disk->path) <= WSM_MAX_PATH);
        g_assert(strlen(disk->name) > 0 && strlen(disk->name) <= WSM_MAX_PATH);
        g_assert(disk->wish < WSM_BASIS_KIND__MAX);
        g_assert(disk->npoints <= WSM_MAX_POINTS);
        for (unsigned n = 0; n < disk->npoints; n++) {
            g_assert(disk->point[n].changed <=
                     ROUND_UP(disk->size, start->granularity));
        }
    }
}

/* A START */
static void fuzz_start(const uint8_t *data, size_t size)
{
    /* Of exactly this size, so that the sanitizer sees each overrun */
    g_autofree uint8_t *buf = g_memdup2(data, size);
    Error *err = NULL;
    WsmStart start;
    bool ok;

    ok = wsm_start_decode(buf, size, &start, &err);
    check_error(err, ok, true);
    if (ok) {
        g_autoptr(GByteArray) again = wsm_start_encode(&start);

        check_start(&start);
        g_assert(again->len == size);
        g_assert(!memcmp(buf, again->data, size));
    }
    wsm_start_destroy(&start);
}

/* The number of blocks, a list of runs */
static void fuzz_runs(const uint8_t *data, size_t size)
{
    g_autoptr(GByteArray) again = g_byte_array_new();
    g_autofree uint8_t *buf = NULL;
    uint64_t blocks, first, count, end = 0;
    Error *err = NULL;
    WsmRunsDecoder d;
    WsmRunsEncoder e;
    int ret;

    if (size < sizeof(blocks)) {
        return;
    }
    blocks = ldq_be_p(data);
    size -= sizeof(blocks);
    buf = g_memdup2(data + sizeof(blocks), size);

    wsm_runs_encode_init(&e, again);
    wsm_runs_decode_init(&d, buf, size, blocks);
    while ((ret = wsm_runs_decode(&d, &first, &count, &err)) == 1) {
        g_assert(first >= end && first < blocks);
        g_assert(count > 0 && count <= blocks - first);
        end = first + count;
        wsm_runs_encode(&e, first, count);
    }
    g_assert(ret == 0 || ret == -EINVAL);
    check_error(err, ret == 0, true);
    g_assert(again->len <= size);
    g_assert(ret < 0 || again->len == size);
    g_assert(again->len == 0 || !memcmp(buf, again->data, again->len));
}

/*
 * The header of the message whose payload is fuzzed; false if such a length is
 * not let through
 */
static bool header_of(uint16_t type, uint64_t kind, size_t size, WsmMsg *msg)
{
    WsmMsg good = {
        .type = type, .epoch = type == WSM_MSG_POINT, .length = size,
        .offset = type == WSM_MSG_BASIS ? kind : 0,
        .bytes = type == WSM_MSG_POINT ? disk_size[0] : 0,
    };
    WsmLimits limits = {
        .from_source = type == WSM_MSG_POINT,
        .disks = ARRAY_SIZE(disk_size),
        .disk_size = disk_size,
        .granularity = WSM_MIN_GRANULARITY,
    };
    uint8_t buf[WSM_HEADER_SIZE];

    wsm_msg_encode(&good, buf);
    return wsm_msg_decode(buf, &limits, msg, NULL);
}

/* A kind, the payload of BASIS */
static void fuzz_basis(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *buf = NULL;
    Error *err = NULL;
    WsmBasisMsg basis;
    WsmMsg msg;
    bool ok;

    if (size < 1 || !header_of(WSM_MSG_BASIS, data[0], size - 1, &msg)) {
        return;
    }
    buf = g_memdup2(data + 1, msg.length);
    ok = wsm_basis_decode(&msg, buf, &basis, &err);
    check_error(err, ok, true);
    if (ok) {
        g_autoptr(GByteArray) again = wsm_basis_encode(&basis);

        g_assert(again->len == size - 1);
        for (size_t i = 0; i < again->len; i++) {
            /* control characters of the reason were replaced */
            g_assert(again->data[i] == buf[i] ||
                     (i >= 16 && buf[i] < ' ' && again->data[i] == ' '));
        }
    }
    wsm_basis_destroy(&basis);
}

/* The number of points, the payload of POINT */
static void fuzz_point(const uint8_t *data, size_t size)
{
    g_autoptr(GByteArray) again = g_byte_array_new();
    g_autofree uint8_t *buf = NULL;
    WsmDiskDesc disk = {};
    Error *err = NULL;
    WsmPointMsg point;
    WsmMsg msg;
    bool ok;

    if (size < 1 || !header_of(WSM_MSG_POINT, 0, size - 1, &msg)) {
        return;
    }
    disk.npoints = MIN(data[0], WSM_MAX_POINTS);
    buf = g_memdup2(data + 1, msg.length);
    ok = wsm_point_decode(&msg, buf, &disk, &point, &err);
    check_error(err, ok, true);
    if (ok) {
        g_assert(point.index < disk.npoints);
        wsm_point_encode(point.index, point.rest, again);
        g_byte_array_append(again, point.runs, point.size);
        g_assert(again->len == size - 1);
        g_assert(!memcmp(again->data, buf, again->len));
    }
}

/* What the source offers and needs, the payload of WELCOME */
static void fuzz_welcome(const uint8_t *data, size_t size)
{
    uint8_t again[WSM_WELCOME_SIZE];
    uint32_t features;
    Error *err = NULL;
    WsmStart start;
    bool ok;

    if (size != 8 + WSM_WELCOME_SIZE) {
        return;
    }
    start = (WsmStart) {
        .features = ldl_be_p(data), .required = ldl_be_p(data + 4),
    };
    ok = wsm_welcome_decode(data + 8, &start, &features, &err);
    check_error(err, ok, true);
    if (ok) {
        g_assert((features & ~start.features) == 0);
        g_assert((start.required & ~features) == 0);
        wsm_welcome_encode(features, again);
        g_assert(!memcmp(data + 8, again, sizeof(again)));
    }
}

/* Pages, bytes of content, what else the packet has */
static void fuzz_packet(const uint8_t *data, size_t size)
{
    uint8_t again[WSM_PACKET_SIZE + WSM_PACKET_PAGES * WSM_REF_SIZE];
    WsmRef refs[WSM_PACKET_PAGES];
    g_autofree uint8_t *buf = NULL;
    Error *err = NULL;
    WsmPacket packet;
    unsigned pages;
    size_t total;
    bool ok;

    if (size < 3 + WSM_PACKET_SIZE) {
        return;
    }
    pages = 1 + data[0] % WSM_PACKET_PAGES;
    total = size - 3 + lduw_be_p(data + 1);
    buf = g_memdup2(data + 3, size - 3);
    ok = wsm_packet_decode(buf, total, pages, &packet, &err);
    check_error(err, ok, true);
    if (!ok || WSM_PACKET_SIZE + wsm_packet_refs_size(&packet) > size - 3) {
        return;
    }
    g_assert(packet.nrefs <= pages);
    err = NULL;
    ok = wsm_refs_decode(&packet, buf + WSM_PACKET_SIZE, ARRAY_SIZE(disk_size),
                         disk_size, refs, &err);
    check_error(err, ok, true);
    if (ok) {
        g_assert(WSM_PACKET_SIZE + wsm_packet_refs_size(&packet) +
                 packet.bytes == total);
        for (unsigned i = 0; i < packet.nrefs; i++) {
            g_assert(refs[i].kind == WSM_REF_TEMPLATE ||
                     (refs[i].kind == WSM_REF_IMAGE && !refs[i].disk &&
                      !refs[i].block) ||
                     (refs[i].kind == WSM_REF_DISK && refs[i].block <
                      disk_size[refs[i].disk] / WSM_PAGE_SIZE));
        }
        size = wsm_packet_encode(&packet, refs, again);
        g_assert(!memcmp(again, buf, size));
    }
}

/* How long the pieces are, what a node of a ring says */
static void fuzz_ring(const uint8_t *data, size_t size)
{
    g_autofree WsmRingParser *p = g_new(WsmRingParser, 1);
    WsmRingAnswer answer = WSM_RING_MORE;
    size_t piece;

    if (size < 1) {
        return;
    }
    piece = 1 + data[0];
    wsm_ring_parser_init(p);
    for (size_t at = 1; at < size && answer != WSM_RING_BAD;) {
        size_t left = MIN(piece, size - at);
        /* Of exactly this size, so that the sanitizer sees each overrun */
        g_autofree uint8_t *copy = g_memdup2(data + at, left);
        const uint8_t *buf = copy;

        at += left;
        while (left && answer != WSM_RING_BAD) {
            size_t before = left;

            answer = wsm_ring_parse(p, &buf, &left);
            g_assert(left < before);
            g_assert(answer != WSM_RING_MORE || !left);
            g_assert(answer != WSM_RING_PAGE || p->index < WSM_PACKET_PAGES);
        }
    }
}

/* The payload of SETS */
static void fuzz_sets(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *buf = g_memdup2(data, size);
    g_autoptr(GByteArray) again = NULL;
    WsmSetDesc sets[WSM_MAX_SETS];
    Error *err = NULL;
    unsigned n;
    bool ok = wsm_sets_decode(buf, size, sets, &n, &err);

    check_error(err, ok, true);
    if (ok) {
        g_assert(n <= WSM_MAX_SETS);
        again = wsm_sets_encode(sets, n);
        g_assert(again->len == size && (!size ||
                                        !memcmp(again->data, buf, size)));
    }
}

/* Pages, the payload of DIGESTS */
static void fuzz_digests(const uint8_t *data, size_t size)
{
    g_autoptr(GByteArray) again = NULL;
    g_autofree uint8_t *buf = NULL;
    WsmPrints digests;
    Error *err = NULL;
    WsmMsg msg;
    bool ok;

    if (size < 2 + WSM_SEED_SIZE || !data[0]) {
        return;
    }
    msg = (WsmMsg) {
        .type = WSM_MSG_DIGESTS, .length = size - 1,
        .bytes = (uint64_t)data[0] * WSM_PAGE_SIZE,
    };
    buf = g_memdup2(data + 1, size - 1);
    ok = wsm_prints_decode(&msg, buf, &digests, &err);
    check_error(err, ok, true);
    if (ok) {
        again = wsm_prints_encode(&digests, data[0]);
        g_assert(again->len == size - 1 && !memcmp(again->data, buf, size - 1));
    }
}

/* The size of a file of kept memory, its header and table */
static void fuzz_kept(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *buf = NULL;
    g_autoptr(GByteArray) again = NULL;
    Error *err = NULL;
    WsmKept kept;
    uint64_t total;
    bool ok;

    if (size < 8 + WSM_KEPT_HEADER_SIZE) {
        return;
    }
    total = ldq_be_p(data);
    buf = g_memdup2(data + 8, size - 8);
    ok = wsm_kept_decode(buf, &kept, &err);
    check_error(err, ok, true);
    if (!ok || WSM_KEPT_HEADER_SIZE + wsm_kept_table(&kept) > size - 8) {
        return;
    }
    err = NULL;
    ok = wsm_kept_decode_table(buf + WSM_KEPT_HEADER_SIZE, total, &kept, &err);
    check_error(err, ok, true);
    if (ok) {
        g_assert(wsm_kept_size(&kept) == total && total <= INT64_MAX);
        again = wsm_kept_encode(&kept);
        g_assert(again->len <= size - 8);
        g_assert(!memcmp(again->data, buf, 32 + WSM_SEED_SIZE));
        wsm_kept_destroy(&kept);
    }
}

/* For a function of bitmaps that nobody calls here */
int qcrypto_hash_digest(QCryptoHashAlgo alg, const char *buf, size_t len,
                        char **digest, Error **errp)
{
    abort();
}

#define MAP_PAGES       32      /* of a map of missing blocks */

/* The sums are right where that is asked for, so that more is looked at */
static void sum_map(uint8_t *image, uint8_t options)
{
    static const QemuUUID session = { .data = "0123456789abcdef" };

    for (int i = 0; i < MAP_PAGES; i++) {
        uint8_t *page = image + i * WSM_MAP_PAGE;
        WsmMapRecord record;

        if (i < WSM_MAP_HEADS && (options & 1)) {
            uint64_t area = ldq_be_p(page + 64), bytes = ldl_be_p(page + 52);
            uint64_t size = MAP_PAGES * WSM_MAP_PAGE;

            if (area <= size && bytes <= size - area) {
                stl_be_p(page + 80, wsm_map_crc(image + area, bytes));
            }
            stl_be_p(page + 12, 0);
            stl_be_p(page + 12, wsm_map_crc(page, WSM_MAP_PAGE));
        } else if ((options & 2) &&
                   wsm_map_record_begins(page, &session, WSM_MAP_PAGE -
                                         WSM_MAP_RECORD_SIZE, &record)) {
            stl_be_p(page + 4, 0);
            stl_be_p(page + 4, wsm_map_crc(page, WSM_MAP_RECORD_SIZE +
                                           record.runs));
        }
    }
}

static int read_map(void *opaque, int64_t offset, int64_t bytes, void *buf)
{
    g_assert(offset >= 0 && bytes >= 0 &&
             offset + bytes <= MAP_PAGES * WSM_MAP_PAGE);
    if (bytes) {
        memcpy(buf, opaque + offset, bytes);
    }
    return 0;
}

/*
 * Which sums are put right; the blocks of the disk; then the map: number of a
 * page, how many bytes it has, these
 */
static void fuzz_map(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *image = g_malloc0(MAP_PAGES * WSM_MAP_PAGE);
    WsmMapReader reader = {
        .read = read_map, .opaque = image, .size = MAP_PAGES * WSM_MAP_PAGE,
    };
    WsmMapWanted wanted = {
        .session.data = "0123456789abcdef", .disk = -1,
    };
    WsmMapContents out;
    Error *err = NULL;
    WsmMapState state;
    uint8_t options;

    if (size < 3) {
        return;
    }
    options = data[0];
    wanted.size = (lduw_be_p(data + 1) + 1) * 512;
    data += 3;
    size -= 3;
    while (size >= 3) {
        size_t bytes = MIN(MIN(lduw_be_p(data + 1), WSM_MAP_PAGE), size - 3);

        memcpy(image + data[0] % MAP_PAGES * WSM_MAP_PAGE, data + 3, bytes);
        data += 3 + bytes;
        size -= 3 + bytes;
    }
    sum_map(image, options);
    state = wsm_map_load(&reader, &wanted, &out, &err);
    g_assert(state > WSM_MAP_NONE && state <= WSM_MAP_DAMAGED);
    check_error(err, state == WSM_MAP_COMMITTED, true);
    g_assert(!out.missing == (state != WSM_MAP_COMMITTED));
    if (out.missing) {
        g_assert(out.missing->bytes >= 0 && out.missing->bytes <= wanted.size);
        g_assert(out.head.size == wanted.size && !out.head.is_void);
        g_assert(out.missing->bytes <= out.head.missing);
        wsm_map_contents_destroy(&out);
    }
}

/* The entry that libFuzzer calls; there is no header with its prototype */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const parsers[])(const uint8_t *data, size_t size) = {
        fuzz_msg, fuzz_hello, fuzz_start, fuzz_runs, fuzz_basis, fuzz_point,
        fuzz_welcome, fuzz_packet, fuzz_ring, fuzz_sets, fuzz_digests,
        fuzz_kept, fuzz_map,
    };

    if (size > 0) {
        parsers[data[0] % ARRAY_SIZE(parsers)](data + 1, size - 1);
    }
    return 0;
}
