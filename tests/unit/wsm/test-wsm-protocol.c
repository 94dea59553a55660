/*
 * Unit tests of migration/wsm/wire/: message.c, start.c, payload.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "migration/wsm/wire/message.h"
#include "migration/wsm/wire/payload.h"

#define LAST_DISK_END   (INT64_MAX - MiB + 1)

/* Disk 1 ends within a block, disk 2 is less than one, disk 3 is the largest */
static const int64_t disk_size[] = {
    1 * GiB, 10 * MiB + 512, 512, LAST_DISK_END,
};

static WsmLimits limits_for(bool from_source, uint16_t channel)
{
    return (WsmLimits) {
        .from_source = from_source,
        .channel = channel,
        .disks = ARRAY_SIZE(disk_size),
        .disk_size = disk_size,
        .granularity = 4096,
    };
}

/* "00 1aff" -> 3 bytes */
static GByteArray *unhex(const char *hex)
{
    GByteArray *out = g_byte_array_new();

    while (*hex) {
        uint8_t byte;

        if (*hex == ' ') {
            hex++;
            continue;
        }
        byte = g_ascii_xdigit_value(hex[0]) << 4 |
               g_ascii_xdigit_value(hex[1]);
        g_byte_array_append(out, &byte, 1);
        hex += 2;
    }
    return out;
}

static void assert_error(Error *err, const char *text)
{
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
}

/* What a source of version @v, a string, is told */
#define OTHER_VERSION(v) \
    "the source has version " v " of the protocol (qemu-wsm 0." v "), the " \
    "destination has version 4 (qemu-wsm 0.4); run the same version of " \
    "qemu-wsm on both hosts"

static void assert_msg_equal(const WsmMsg *a, const WsmMsg *b)
{
    g_assert_cmpuint(a->type, ==, b->type);
    g_assert_cmpuint(a->disk, ==, b->disk);
    g_assert_cmpuint(a->epoch, ==, b->epoch);
    g_assert_cmpuint(a->length, ==, b->length);
    g_assert_cmpuint(a->offset, ==, b->offset);
    g_assert_cmpuint(a->bytes, ==, b->bytes);
}

/*
 * The message types, as docs/protocol.md has them and independent of the
 * table in protocol.c: number, name, who sends it, a good message in numbers
 * and in bytes.  @place: a any channel, u the urgent one, b the others.  Only
 * the letters of @may are allowed to differ from 0: r a range, o offset,
 * b bytes, k disk and a kind of basis in offset, p pages of memory.
 */
typedef struct Sample {
    uint16_t type;
    const char *name;
    bool from_source, any_session;
    char place;
    const char *epochs;
    const char *may;
    uint32_t min_length, max_length;
    uint64_t max_bytes;
    WsmMsg msg;
    const char *hex;
} Sample;

static const Sample samples[] = {
    { 1, "HELLO", true, true, 'a', "01", "", 24, 24, 0,
      { .type = WSM_MSG_HELLO, .length = 24 },
      "57534d31 0001 0000 00000000 00000018 0000000000000000 0000000000000000"
    },
    { 2, "WELCOME", false, true, 'a', "01", "", 4, 4, 0,
      { .type = WSM_MSG_WELCOME, .length = 4 },
      "57534d31 0002 0000 00000000 00000004 0000000000000000 0000000000000000"
    },
    { 3, "REFUSE", false, true, 'a', "01", "", 0, 1024, 0,
      { .type = WSM_MSG_REFUSE, .length = 1024 },
      "57534d31 0003 0000 00000000 00000400 0000000000000000 0000000000000000"
    },
    { 4, "DATA", true, false, 'a', "01", "r", 1, 1048576, 1048576,
      { .type = WSM_MSG_DATA, .disk = 1, .epoch = 1, .length = 0x2000,
        .offset = 0x30000, .bytes = 0x2000 },
      "57534d31 0004 0001 00000001 00002000 0000000000030000 0000000000002000"
    },
    { 5, "ZERO", true, false, 'a', "01", "r", 0, 0, 67108864,
      { .type = WSM_MSG_ZERO, .offset = 0x1000, .bytes = 0x4000000 },
      "57534d31 0005 0000 00000000 00000000 0000000000001000 0000000004000000"
    },
    { 6, "ACK", false, false, 'a', "01", "r", 0, 0, 67108864,
      { .type = WSM_MSG_ACK, .disk = 1, .epoch = 1,
        .offset = 0xa00000, .bytes = 512 },
      "57534d31 0006 0001 00000001 00000000 0000000000a00000 0000000000000200"
    },
    { 7, "FAIL", false, false, 'a', "01", "r", 0, 1024, 67108864,
      { .type = WSM_MSG_FAIL, .disk = 3, .length = 5,
        .offset = 0x7fffffffffeff000, .bytes = 0x1000 },
      "57534d31 0007 0003 00000000 00000005 7fffffffffeff000 0000000000001000"
    },
    { 8, "SYNC", true, false, 'u', "01", "o", 0, 0, 0,
      { .type = WSM_MSG_SYNC, .offset = 0x0123456789abcdef },
      "57534d31 0008 0000 00000000 00000000 0123456789abcdef 0000000000000000"
    },
    { 9, "SYNC_ACK", false, false, 'u', "01", "ob", 0, 0, 0,
      { .type = WSM_MSG_SYNC_ACK, .epoch = 1, .offset = 7,
        .bytes = 0xfedcba9876543210 },
      "57534d31 0009 0000 00000001 00000000 0000000000000007 fedcba9876543210"
    },
    { 10, "READY", false, false, 'u', "01", "", 0, 0, 0,
      { .type = WSM_MSG_READY, .epoch = 1 },
      "57534d31 000a 0000 00000001 00000000 0000000000000000 0000000000000000"
    },
    { 11, "GO", true, false, 'u', "01", "", 0, 0, 0,
      { .type = WSM_MSG_GO, .epoch = 1 },
      "57534d31 000b 0000 00000001 00000000 0000000000000000 0000000000000000"
    },
    { 12, "ABORT", true, false, 'u', "01", "", 0, 0, 0,
      { .type = WSM_MSG_ABORT },
      "57534d31 000c 0000 00000000 00000000 0000000000000000 0000000000000000"
    },
    { 13, "PULL", false, false, 'u', "01", "r", 0, 0, 67108864,
      { .type = WSM_MSG_PULL, .disk = 2, .epoch = 1, .bytes = 512 },
      "57534d31 000d 0002 00000001 00000000 0000000000000000 0000000000000200"
    },
    { 14, "HAVE", false, false, 'u', "01", "r", 0, 0, 67108864,
      { .type = WSM_MSG_HAVE, .epoch = 1,
        .offset = 0x3ffff000, .bytes = 0x1000 },
      "57534d31 000e 0000 00000001 00000000 000000003ffff000 0000000000001000"
    },
    { 15, "BASIS", false, false, 'u', "0", "k", 17, 1040, 0,
      { .type = WSM_MSG_BASIS, .disk = 2, .length = 20, .offset = 3 },
      "57534d31 000f 0002 00000000 00000014 0000000000000003 0000000000000000"
    },
    { 16, "OWN", false, false, 'u', "0", "r", 0, 1048576, LAST_DISK_END,
      { .type = WSM_MSG_OWN, .disk = 3, .length = 4,
        .bytes = 0x7ffffffffff00000 },
      "57534d31 0010 0003 00000000 00000004 0000000000000000 7ffffffffff00000"
    },
    { 17, "HASH", true, false, 'b', "0", "r", 0, 0, 1048576,
      { .type = WSM_MSG_HASH, .disk = 1, .offset = 0x9ff000,
        .bytes = 0x1200 },
      "57534d31 0011 0001 00000000 00000000 00000000009ff000 0000000000001200"
    },
    { 18, "HASHES", false, false, 'b', "0", "r", 0, 8192, 1048576,
      { .type = WSM_MSG_HASHES, .disk = 1, .length = 64,
        .offset = 0x9ff000, .bytes = 0x1200 },
      "57534d31 0012 0001 00000000 00000040 00000000009ff000 0000000000001200"
    },
    { 19, "POINT", true, false, 'u', "1", "r", 2, 1048578, LAST_DISK_END,
      { .type = WSM_MSG_POINT, .epoch = 1, .length = 6,
        .bytes = 0x40000000 },
      "57534d31 0013 0000 00000001 00000006 0000000000000000 0000000040000000"
    },
    { 20, "GIVE_UP", false, false, 'u', "01", "", 1, 1024, 0,
      { .type = WSM_MSG_GIVE_UP, .length = 9 },
      "57534d31 0014 0000 00000000 00000009 0000000000000000 0000000000000000"
    },
    { 21, "SALT", false, false, 'u', "0", "", 32, 32, 0,
      { .type = WSM_MSG_SALT, .length = 32 },
      "57534d31 0015 0000 00000000 00000020 0000000000000000 0000000000000000"
    },
    { 22, "NACK", false, false, 'u', "0", "p", 0, 0, 1048576,
      { .type = WSM_MSG_NACK, .disk = 1023, .offset = 0x123456000,
        .bytes = 0x100000 },
      "57534d31 0016 03ff 00000000 00000000 0000000123456000 0000000000100000"
    },
    { 23, "WANT", false, false, 'u', "1", "p", 0, 0, 1048576,
      { .type = WSM_MSG_WANT, .epoch = 1, .bytes = 0x1000 },
      "57534d31 0017 0000 00000001 00000000 0000000000000000 0000000000001000"
    },
    { 24, "PAGE", true, false, 'u', "1", "p", 4096, 1048576, 1048576,
      { .type = WSM_MSG_PAGE, .disk = 2, .epoch = 1, .length = 0x2000,
        .offset = 0x7000, .bytes = 0x2000 },
      "57534d31 0018 0002 00000001 00002000 0000000000007000 0000000000002000"
    },
    { 25, "DONE", false, false, 'u', "0", "mob", 0, 0, 0,
      { .type = WSM_MSG_DONE, .disk = 2, .offset = 0x20000, .bytes = 3 },
      "57534d31 0019 0002 00000000 00000000 0000000000020000 0000000000000003"
    },
    { 26, "SETS", false, false, 'u', "0", "", 42, 1680, 0,
      { .type = WSM_MSG_SETS, .length = 47 },
      "57534d31 001a 0000 00000000 0000002f 0000000000000000 0000000000000000"
    },
    { 27, "DIGESTS", false, false, 'u', "0", "p", 65, 8512, 4194304,
      { .type = WSM_MSG_DIGESTS, .length = 79, .offset = 0x7fff000,
        .bytes = 0x1000 },
      "57534d31 001b 0000 00000000 0000004f 0000000007fff000 0000000000001000"
    },
    { 28, "STOP", false, false, 'u', "0", "mw", 0, 0, 0,
      { .type = WSM_MSG_STOP, .disk = 1, .offset = 2 },
      "57534d31 001c 0001 00000000 00000000 0000000000000002 0000000000000000"
    },
    { 29, "LACK", false, false, 'u', "1", "r", 0, 1048576, LAST_DISK_END,
      { .type = WSM_MSG_LACK, .disk = 1, .epoch = 1, .length = 3,
        .bytes = 0xa00200 },
      "57534d31 001d 0001 00000001 00000003 0000000000000000 0000000000a00200"
    },
    { 30, "ANEW", false, false, 'u', "1", "", 0, 0, 0,
      { .type = WSM_MSG_ANEW, .epoch = 1 },
      "57534d31 001e 0000 00000001 00000000 0000000000000000 0000000000000000"
    },
};

/* A peer and a channel from which such a message may come */
static WsmLimits limits_of(const Sample *s)
{
    return limits_for(s->from_source, s->place == 'b');
}

/*
 * Header
 */

static bool decode(const WsmMsg *msg, const WsmLimits *limits, WsmMsg *out,
                   Error **errp)
{
    uint8_t buf[WSM_HEADER_SIZE];

    wsm_msg_encode(msg, buf);
    return wsm_msg_decode(buf, limits, out, errp);
}

static bool accepts(const WsmMsg *msg, const WsmLimits *limits)
{
    WsmMsg out = { .type = 0xffff };
    Error *err = NULL;
    bool ok = decode(msg, limits, &out, &err);

    g_assert_cmpint(ok, ==, !err);
    if (ok) {
        assert_msg_equal(&out, msg);
    } else {
        g_assert_true(g_str_has_prefix(error_get_pretty(err),
                                       "block channel"));
        g_assert_cmpuint(out.type, ==, 0xffff);
    }
    error_free(err);
    return ok;
}

static void test_msg_bytes(void)
{
    g_assert_cmpint(ARRAY_SIZE(samples), ==, WSM_MSG__MAX - 1);
    for (int i = 0; i < ARRAY_SIZE(samples); i++) {
        const Sample *s = &samples[i];
        WsmLimits limits = limits_of(s);
        g_autoptr(GByteArray) bytes = unhex(s->hex);
        uint8_t buf[WSM_HEADER_SIZE];
        WsmMsg msg;

        g_assert_cmpuint(s->msg.type, ==, s->type);
        wsm_msg_encode(&s->msg, buf);
        g_assert_cmpmem(buf, sizeof(buf), bytes->data, bytes->len);
        g_assert_true(wsm_msg_decode(buf, &limits, &msg, &error_abort));
        assert_msg_equal(&msg, &s->msg);
    }
}

static void test_msg_name(void)
{
    for (int i = 0; i < ARRAY_SIZE(samples); i++) {
        g_assert_cmpstr(wsm_msg_name(samples[i].type), ==, samples[i].name);
    }
    g_assert_cmpstr(wsm_msg_name(0), ==, "unknown");
    g_assert_cmpstr(wsm_msg_name(WSM_MSG__MAX), ==, "unknown");
    g_assert_cmpstr(wsm_msg_name(0xffff), ==, "unknown");
}

static void test_msg_constants(void)
{
    g_assert_cmphex(WSM_PREAMBLE, ==, 0x57534d42);
    g_assert_cmpint(WSM_PROTOCOL_VERSION, ==, 4);
    g_assert_cmpint(WSM_PROTOCOL_OLDEST, ==, 4);
    g_assert_cmpint(WSM_HEADER_SIZE, ==, 32);
    g_assert_cmpint(WSM_HASH_SIZE, ==, 32);
    g_assert_cmpint(WSM_MAX_HASHES, ==, 8192);
    g_assert_cmpint(WSM_HELLO_SIZE, ==, 24);
    g_assert_cmpint(WSM_WELCOME_SIZE, ==, 4);
}

static void test_msg_magic(void)
{
    for (int bit = 0; bit < 32; bit++) {
        g_autoptr(GByteArray) bytes = unhex(samples[0].hex);
        Error *err = NULL;
        WsmMsg msg;

        bytes->data[bit / 8] ^= 1 << bit % 8;
        g_assert_false(wsm_msg_decode(bytes->data, NULL, &msg, &err));
        g_assert_nonnull(strstr(error_get_pretty(err),
                                "block channel: magic 0x"));
        error_free(err);
    }
}

static void test_msg_type(void)
{
    static const uint16_t bad[] = { 0, WSM_MSG__MAX, 0x100, 0x0401, 0xffff };
    WsmLimits limits = limits_for(true, 2);

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(GByteArray) bytes = unhex(samples[0].hex);
        g_autofree char *text = NULL;
        Error *err = NULL;
        WsmMsg msg;

        bytes->data[4] = bad[i] >> 8;
        bytes->data[5] = bad[i];
        text = g_strdup_printf("block channel 2: type %u is unknown", bad[i]);
        g_assert_false(wsm_msg_decode(bytes->data, &limits, &msg, &err));
        assert_error(err, text);
    }
}

static void test_msg_no_session(void)
{
    for (int i = 0; i < ARRAY_SIZE(samples); i++) {
        g_assert_cmpint(accepts(&samples[i].msg, NULL),
                        ==, samples[i].any_session);
    }
}

static void test_msg_direction(void)
{
    for (int i = 0; i < ARRAY_SIZE(samples); i++) {
        WsmLimits right = limits_of(&samples[i]);
        WsmLimits wrong = right;

        wrong.from_source = !right.from_source;
        g_assert_true(accepts(&samples[i].msg, &right));
        g_assert_false(accepts(&samples[i].msg, &wrong));
    }
}

static void test_msg_channel(void)
{
    for (int i = 0; i < ARRAY_SIZE(samples); i++) {
        WsmLimits urgent = limits_for(samples[i].from_source, 0);
        WsmLimits one = limits_for(samples[i].from_source, 1);
        WsmLimits last = limits_for(samples[i].from_source, 16);

        g_assert_cmpint(accepts(&samples[i].msg, &urgent),
                        ==, samples[i].place != 'b');
        g_assert_cmpint(accepts(&samples[i].msg, &one),
                        ==, samples[i].place != 'u');
        g_assert_cmpint(accepts(&samples[i].msg, &last),
                        ==, samples[i].place != 'u');
    }
}

static void test_msg_epoch(void)
{
    for (int i = 0; i < ARRAY_SIZE(samples); i++) {
        WsmLimits limits = limits_of(&samples[i]);
        WsmMsg msg = samples[i].msg;

        msg.epoch = 0;
        g_assert_cmpint(accepts(&msg, &limits),
                        ==, !!strchr(samples[i].epochs, '0'));
        msg.epoch = 1;
        g_assert_cmpint(accepts(&msg, &limits),
                        ==, !!strchr(samples[i].epochs, '1'));
        msg.epoch = 2;
        g_assert_false(accepts(&msg, &limits));
        msg.epoch = UINT32_MAX;
        g_assert_false(accepts(&msg, &limits));
    }
}

static void test_msg_unused(void)
{
    for (int i = 0; i < ARRAY_SIZE(samples); i++) {
        const Sample *s = &samples[i];
        WsmLimits limits = limits_of(s);
        WsmMsg msg = s->msg;

        if (strpbrk(s->may, "rkp")) {
            continue;
        }
        msg.disk = 1;
        g_assert_cmpint(accepts(&msg, &limits), ==, !!strchr(s->may, 'm'));
        msg.disk = WSM_MEMORY_KIND__MAX;
        g_assert_false(accepts(&msg, &limits));
        msg = s->msg;
        msg.offset = 1;
        g_assert_cmpint(accepts(&msg, &limits), ==, !!strpbrk(s->may, "ow"));
        msg.offset = WSM_MEMORY_WHY__MAX;
        g_assert_cmpint(accepts(&msg, &limits), ==, !!strchr(s->may, 'o'));
        msg = s->msg;
        msg.bytes = 1ULL << 63;
        g_assert_cmpint(accepts(&msg, &limits), ==, !!strchr(s->may, 'b'));
    }
}

static void test_msg_length(void)
{
    for (int i = 0; i < ARRAY_SIZE(samples); i++) {
        const Sample *s = &samples[i];
        WsmLimits limits = limits_of(s);
        WsmMsg msg = s->msg;

        /* They depend on the range, too */
        if (s->type == WSM_MSG_DATA || s->type == WSM_MSG_HASHES ||
            s->type == WSM_MSG_PAGE) {
            continue;
        }
        msg.length = s->max_length;
        g_assert_true(accepts(&msg, &limits));
        msg.length = s->max_length + 1;
        g_assert_false(accepts(&msg, &limits));
        msg.length = UINT32_MAX;
        g_assert_false(accepts(&msg, &limits));
        msg.length = s->min_length;
        g_assert_true(accepts(&msg, &limits));
        msg.length = s->min_length - 1;     /* may wrap */
        g_assert_false(accepts(&msg, &limits));
    }
}

static void test_msg_length_data(void)
{
    WsmLimits limits = limits_for(true, 1);
    WsmMsg msg = { .type = WSM_MSG_DATA, .bytes = 8192, .length = 8192 };

    g_assert_true(accepts(&msg, &limits));
    msg.length = 8191;
    g_assert_false(accepts(&msg, &limits));
    msg.length = 4096;
    g_assert_false(accepts(&msg, &limits));
    msg.length = 0;
    g_assert_false(accepts(&msg, &limits));
    msg.length = 12288;
    g_assert_false(accepts(&msg, &limits));
    msg.bytes += 1ULL << 32;
    msg.length = 8192;
    g_assert_false(accepts(&msg, &limits));
}

/* Before the freeze it may be shorter, where both can do that */
static void test_msg_packed(void)
{
    WsmLimits limits = limits_for(true, 1);
    WsmMsg msg = { .type = WSM_MSG_DATA, .bytes = 8192, .length = 8191 };

    g_assert_false(accepts(&msg, &limits));
    limits.packing = true;
    g_assert_true(accepts(&msg, &limits));
    msg.length = 1;
    g_assert_true(accepts(&msg, &limits));
    msg.length = 0;
    g_assert_false(accepts(&msg, &limits));
    msg.length = 8193;
    g_assert_false(accepts(&msg, &limits));
    msg.length = 8191;
    msg.epoch = 1;
    g_assert_false(accepts(&msg, &limits));
    msg.length = 8192;
    g_assert_true(accepts(&msg, &limits));
    msg = (WsmMsg) {
        .type = WSM_MSG_PAGE, .epoch = 0, .bytes = 8192, .length = 4096,
    };
    limits.channel = 0;
    g_assert_false(accepts(&msg, &limits));
}

/* Is a HASHES of this length for this range accepted? */
static bool hashes_ok(uint32_t granularity, uint16_t disk, uint64_t offset,
                      uint64_t bytes, uint32_t length)
{
    WsmLimits limits = limits_for(false, 1);
    WsmMsg msg = {
        .type = WSM_MSG_HASHES, .disk = disk, .offset = offset,
        .bytes = bytes, .length = length,
    };

    limits.granularity = granularity;
    return accepts(&msg, &limits);
}

static void test_msg_length_hashes(void)
{
    /* as many as blocks, or none */
    g_assert_true(hashes_ok(4096, 0, 8192, 12288, 96));
    g_assert_true(hashes_ok(4096, 0, 8192, 12288, 0));
    g_assert_false(hashes_ok(4096, 0, 8192, 12288, 1));
    g_assert_false(hashes_ok(4096, 0, 8192, 12288, 32));
    g_assert_false(hashes_ok(4096, 0, 8192, 12288, 64));
    g_assert_false(hashes_ok(4096, 0, 8192, 12288, 95));
    g_assert_false(hashes_ok(4096, 0, 8192, 12288, 97));
    g_assert_false(hashes_ok(4096, 0, 8192, 12288, 128));

    /* a short block counts as one */
    g_assert_true(hashes_ok(4096, 1, 10 * MiB, 512, 32));
    g_assert_true(hashes_ok(4096, 1, 10 * MiB - 4096, 4096 + 512, 64));
    g_assert_false(hashes_ok(4096, 1, 10 * MiB - 4096, 4096 + 512, 32));
    g_assert_true(hashes_ok(4096, 2, 0, 512, 32));
    g_assert_false(hashes_ok(4096, 2, 0, 512, 64));

    /* the most */
    g_assert_true(hashes_ok(4096, 0, 0, 1 * MiB, 8192));
    g_assert_false(hashes_ok(4096, 0, 0, 1 * MiB, 8160));
    g_assert_false(hashes_ok(4096, 0, 0, 1 * MiB, 8224));
    g_assert_false(hashes_ok(4096, 0, 0, 1 * MiB, UINT32_MAX));

    /* other blocks */
    g_assert_true(hashes_ok(65536, 0, 65536, 131072, 64));
    g_assert_false(hashes_ok(65536, 0, 65536, 131072, 1024));
    g_assert_true(hashes_ok(1 * MiB, 0, 0, 1 * MiB, 32));
    g_assert_false(hashes_ok(1 * MiB, 0, 0, 1 * MiB, 8192));
}

/* Is a BASIS with these numbers accepted? */
static bool basis_ok(uint16_t disk, uint64_t kind, uint64_t bytes)
{
    WsmLimits limits = limits_for(false, 0);
    WsmMsg msg = {
        .type = WSM_MSG_BASIS, .disk = disk, .length = 17,
        .offset = kind, .bytes = bytes,
    };

    return accepts(&msg, &limits);
}

static void test_msg_kind(void)
{
    g_assert_false(basis_ok(0, 0, 0));
    g_assert_true(basis_ok(0, 1, 0));
    g_assert_true(basis_ok(0, 2, 0));
    g_assert_true(basis_ok(0, 3, 0));
    g_assert_false(basis_ok(0, 4, 0));
    g_assert_false(basis_ok(0, (1ULL << 32) + 1, 0));
    g_assert_false(basis_ok(0, UINT64_MAX, 0));
    g_assert_true(basis_ok(3, 1, 0));
    g_assert_false(basis_ok(4, 1, 0));
    g_assert_false(basis_ok(0xffff, 1, 0));
    g_assert_false(basis_ok(0, 1, 1));
    g_assert_false(basis_ok(0, 1, 4096));
}

/* Is @bytes at @offset of @disk accepted in a message like @s? */
static bool range_ok(const Sample *s, uint16_t disk, uint64_t offset,
                     uint64_t bytes)
{
    WsmLimits limits = limits_of(s);
    WsmMsg msg = {
        .type = s->type, .disk = disk, .offset = offset, .bytes = bytes,
        .epoch = s->epochs[0] - '0',
        .length = s->type == WSM_MSG_DATA ? bytes : s->min_length,
    };

    return accepts(&msg, &limits);
}

static void check_range(const Sample *s)
{
    uint64_t end = disk_size[0], last = LAST_DISK_END;
    bool any = s->max_bytes == last;

    /* disk */
    g_assert_true(range_ok(s, 3, 0, 4096));
    g_assert_false(range_ok(s, 4, 0, 4096));
    g_assert_false(range_ok(s, 0xffff, 0, 4096));

    /* bytes, at least and at most */
    g_assert_false(range_ok(s, 0, 0, 0));
    g_assert_false(range_ok(s, 2, 512, 0));
    g_assert_true(range_ok(s, 3, 0, s->max_bytes));
    g_assert_false(range_ok(s, 3, 0, s->max_bytes + 1));
    g_assert_false(range_ok(s, 3, 0, s->max_bytes + 4096));
    g_assert_cmpint(range_ok(s, 3, 0, last), ==, any);
    g_assert_cmpint(range_ok(s, 0, 0, end), ==, any);
    g_assert_false(range_ok(s, 0, 0, end + 4096));

    /* offset + bytes */
    g_assert_true(range_ok(s, 0, end - 4096, 4096));
    g_assert_false(range_ok(s, 0, end - 4096, 8192));
    g_assert_false(range_ok(s, 0, end, 4096));
    g_assert_false(range_ok(s, 2, 0, 4096));
    g_assert_true(range_ok(s, 3, last - 4096, 4096));
    g_assert_false(range_ok(s, 3, last, 4096));
    g_assert_false(range_ok(s, 3, 0ULL - 4096, 4096));
    g_assert_false(range_ok(s, 3, 0ULL - 4096, 8192));
    g_assert_false(range_ok(s, 0, 1ULL << 63, 4096));
    g_assert_false(range_ok(s, 0, 4096, 0ULL - 4096));

    /* alignment, also of the end of a disk */
    g_assert_false(range_ok(s, 0, 512, 4096));
    g_assert_false(range_ok(s, 0, 4095, 4096));
    g_assert_false(range_ok(s, 0, 4097, 4096));
    g_assert_false(range_ok(s, 0, 0, 512));
    g_assert_false(range_ok(s, 0, 0, 4095));
    g_assert_false(range_ok(s, 0, 0, 4097));
    g_assert_true(range_ok(s, 1, 10 * MiB, 512));
    g_assert_true(range_ok(s, 1, 10 * MiB - 4096, 4096 + 512));
    g_assert_false(range_ok(s, 1, 10 * MiB - 4096, 512));
    g_assert_false(range_ok(s, 1, 10 * MiB, 511));
    g_assert_false(range_ok(s, 1, 10 * MiB, 513));
    g_assert_false(range_ok(s, 1, 10 * MiB, 4096));
    g_assert_false(range_ok(s, 1, 10 * MiB + 256, 256));
    g_assert_true(range_ok(s, 2, 0, 512));
}

static void test_msg_range(void)
{
    for (int i = 0; i < ARRAY_SIZE(samples); i++) {
        if (strchr(samples[i].may, 'r')) {
            check_range(&samples[i]);
        }
    }
}

static void test_msg_no_disks(void)
{
    WsmLimits limits = {
        .from_source = true, .granularity = WSM_MAX_GRANULARITY,
    };
    WsmMsg zero = { .type = WSM_MSG_ZERO, .bytes = 1 * MiB };
    WsmMsg sync = { .type = WSM_MSG_SYNC };

    g_assert_false(accepts(&zero, &limits));
    g_assert_true(accepts(&sync, &limits));
}

typedef struct BadMsg {
    bool from_source;
    uint16_t channel;
    WsmMsg msg;
    const char *text;
} BadMsg;

static void check_msg_text(const BadMsg *bad)
{
    WsmLimits limits = limits_for(bad->from_source, bad->channel);
    Error *err = NULL;
    WsmMsg msg;

    g_assert_false(decode(&bad->msg, &limits, &msg, &err));
    assert_error(err, bad->text);
}

/* The text says which field, which value, which bound */
static void test_msg_text(void)
{
    static const BadMsg bad[] = {
        { true, 1, { .type = WSM_MSG_ACK },
          "block channel 1: ACK: comes from the source, "
          "but only the destination sends it" },
        { false, 1, { .type = WSM_MSG_GO },
          "block channel 1: GO: comes from the destination, "
          "but only the source sends it" },
        { false, 3, { .type = WSM_MSG_PULL },
          "block channel 3: PULL: comes on channel 3, "
          "but belongs on channel 0" },
        { true, 0, { .type = WSM_MSG_GO, .epoch = 2 },
          "block channel 0: GO: epoch 2 is above 1" },
        { true, 0, { .type = WSM_MSG_GO, .length = 3 },
          "block channel 0: GO: length 3 is above 0" },
        { true, 0, { .type = WSM_MSG_HELLO, .length = 3 },
          "block channel 0: HELLO: length 3 is below 24" },
        { true, 1, { .type = WSM_MSG_DATA, .length = 3, .bytes = 4096 },
          "block channel 1: DATA: length 3 differs from bytes 4096" },
        { true, 1, { .type = WSM_MSG_DATA, .length = 3 },
          "block channel 1: DATA: bytes 0 is not between 1 and 1048576" },
        { true, 0, { .type = WSM_MSG_SYNC, .disk = 9 },
          "block channel 0: SYNC: disk is 9, but must be 0" },
        { true, 0, { .type = WSM_MSG_GO, .offset = 9 },
          "block channel 0: GO: offset is 9, but must be 0" },
        { true, 0, { .type = WSM_MSG_SYNC, .bytes = 9 },
          "block channel 0: SYNC: bytes is 9, but must be 0" },
        { true, 2, { .type = WSM_MSG_ZERO, .disk = 4, .bytes = 4096 },
          "block channel 2: ZERO: disk 4 is not below "
          "the number of disks 4" },
        { true, 2, { .type = WSM_MSG_ZERO, .bytes = 67108865 },
          "block channel 2: ZERO: bytes 67108865 is not between 1 "
          "and 67108864" },
        { true, 2, { .type = WSM_MSG_ZERO, .disk = 1, .offset = 0xa00000,
                     .bytes = 4096 },
          "block channel 2: ZERO: offset 0xa00000 + bytes 4096 is beyond "
          "disk 1 of size 10486272" },
        { true, 2, { .type = WSM_MSG_ZERO, .offset = 0x200, .bytes = 4096 },
          "block channel 2: ZERO: offset 0x200 is not a multiple of the "
          "granularity 4096" },
        { true, 2, { .type = WSM_MSG_ZERO, .offset = 0x1000, .bytes = 512 },
          "block channel 2: ZERO: bytes 512 is not a multiple of the "
          "granularity 4096 and offset 0x1000 + bytes is not the end of "
          "disk 0 of size 1073741824" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        check_msg_text(&bad[i]);
    }
}

/* The same for the messages of incremental migration */
static void test_msg_text_basis(void)
{
    static const BadMsg bad[] = {
        { true, 0, { .type = WSM_MSG_HASH },
          "block channel 0: HASH: comes on channel 0, "
          "but belongs on the others" },
        { true, 1, { .type = WSM_MSG_HASH, .epoch = 1 },
          "block channel 1: HASH: epoch is 1, but must be 0" },
        { true, 0, { .type = WSM_MSG_POINT },
          "block channel 0: POINT: epoch is 0, but must be 1" },
        { true, 0, { .type = WSM_MSG_POINT, .epoch = 1, .length = 1,
                     .bytes = 4096 },
          "block channel 0: POINT: length 1 is below 2" },
        { false, 0, { .type = WSM_MSG_OWN },
          "block channel 0: OWN: bytes 0 is not between 1 and "
          "9223372036853727232" },
        { false, 0, { .type = WSM_MSG_BASIS, .disk = 4, .offset = 1 },
          "block channel 0: BASIS: disk 4 is not below "
          "the number of disks 4" },
        { false, 0, { .type = WSM_MSG_BASIS, .offset = 4 },
          "block channel 0: BASIS: kind 4 in offset is not between 1 and 3" },
        { false, 0, { .type = WSM_MSG_BASIS, .offset = 1, .bytes = 9 },
          "block channel 0: BASIS: bytes is 9, but must be 0" },
        { false, 0, { .type = WSM_MSG_BASIS, .offset = 1, .length = 16 },
          "block channel 0: BASIS: length 16 is below 17" },
        { false, 1, { .type = WSM_MSG_HASHES, .length = 32, .bytes = 8192 },
          "block channel 1: HASHES: length 32 is neither 0 nor that of "
          "2 hashes of 32 bytes" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        check_msg_text(&bad[i]);
    }
}

static void test_msg_text_fixed(void)
{
    g_autoptr(GByteArray) bytes = unhex(samples[0].hex);
    WsmMsg msg = { .type = WSM_MSG_DATA };
    Error *err = NULL;

    bytes->data[3] = 0x32;
    g_assert_false(wsm_msg_decode(bytes->data, NULL, &msg, &err));
    assert_error(err, "block channel: magic 0x57534d32 is not 0x57534d31");

    err = NULL;
    g_assert_false(decode(&msg, NULL, &msg, &err));
    assert_error(err, "block channel: DATA: "
                 "comes before a session is agreed on");
}

/* The rules once more, in other words: a shadow of wsm_msg_decode() */
static bool shadow_accepts(const WsmMsg *m, const WsmLimits *l)
{
    const Sample *s = &samples[m->type - 1];

    if (s->from_source != l->from_source ||
        strchr(l->channel ? "ab" : "au", s->place) == NULL ||
        m->epoch >= 2 || !strchr(s->epochs, '0' + m->epoch) ||
        m->length < s->min_length || m->length > s->max_length) {
        return false;
    }
    if (strchr(s->may, 'k')) {
        return m->disk < l->disks && !m->bytes &&
               (m->offset == 1 || m->offset == 2 || m->offset == 3);
    }
    if (strchr(s->may, 'p')) {
        return m->disk < 1024 && !(m->offset & 4095) && !(m->bytes & 4095) &&
               m->bytes >= 1 && m->bytes <= s->max_bytes &&
               m->offset <= INT64_MAX - m->bytes &&
               (s->type != WSM_MSG_PAGE || m->length == m->bytes);
    }
    if (strchr(s->may, 'r')) {
        unsigned __int128 end = (unsigned __int128)m->offset + m->bytes;

        return m->disk < l->disks &&
               m->bytes >= 1 && m->bytes <= s->max_bytes &&
               end <= l->disk_size[m->disk] &&
               (m->offset & (l->granularity - 1)) == 0 &&
               ((end & (l->granularity - 1)) == 0 ||
                end == l->disk_size[m->disk]) &&
               (s->type != WSM_MSG_DATA || m->length == m->bytes) &&
               (s->type != WSM_MSG_HASHES || !m->length ||
                m->length == (m->bytes + l->granularity - 1) /
                             l->granularity * 32);
    }
    return (!m->disk || (strchr(s->may, 'm') && m->disk < 3)) &&
           (!m->offset || strchr(s->may, 'o') ||
            (strchr(s->may, 'w') && m->offset < 3)) &&
           (!m->bytes || strchr(s->may, 'b'));
}

/* A number near those at which something changes */
static uint64_t random_number(void)
{
    static const uint64_t near[] = {
        0, 0, 0, 2, 24, 32, 64, 512, 1024, 4096, 8192, 1 * MiB, 10 * MiB,
        64 * MiB, 1 * GiB, LAST_DISK_END, 1ULL << 32, 1ULL << 63,
    };
    uint64_t n = near[g_test_rand_int_range(0, ARRAY_SIZE(near))];

    switch (g_test_rand_int_range(0, 6)) {
    case 0:
        return n + 1;
    case 1:
        return n - 1;
    case 2:
        return n - 4096;
    case 3:
        return n + 512;
    default:
        return n;
    }
}

/* A good message with up to four fields changed */
static WsmMsg random_msg(void)
{
    WsmMsg msg = samples[g_test_rand_int_range(0, ARRAY_SIZE(samples))].msg;

    for (int n = g_test_rand_int_range(0, 5); n; n--) {
        switch (g_test_rand_int_range(0, 6)) {
        case 0:
            msg.disk = g_test_rand_int_range(0, 4)
                       ? g_test_rand_int_range(0, ARRAY_SIZE(disk_size) + 1)
                       : g_test_rand_int_range(1022, 1026);
            break;
        case 1:
            msg.epoch = g_test_rand_int_range(0, 3);
            break;
        case 2:
            msg.length = random_number();
            break;
        case 3:
            msg.length = msg.bytes;
            break;
        case 4:
            msg.offset = random_number();
            break;
        case 5:
            msg.bytes = random_number();
            break;
        }
    }
    return msg;
}

static void test_msg_random(void)
{
    unsigned accepted[WSM_MSG__MAX] = { 0 }, refused[WSM_MSG__MAX] = { 0 };

    for (int i = 0; i < 200000; i++) {
        WsmMsg msg = random_msg();
        WsmLimits limits = limits_for(samples[msg.type - 1].from_source,
                                      g_test_rand_int_range(0, 2));
        bool ok = shadow_accepts(&msg, &limits);

        g_assert_cmpint(accepts(&msg, &limits), ==, ok);
        accepted[msg.type] += ok;
        refused[msg.type] += !ok;
    }
    for (int i = 1; i < WSM_MSG__MAX; i++) {
        g_assert_cmpuint(accepted[i], >, 0);
        g_assert_cmpuint(refused[i], >, 0);
    }
}

/*
 * HELLO
 */

static const char hello_hex[] =
    "000102030405060708090a0b0c0d0e0f 0004 02 03 80000001";

static void test_hello_bytes(void)
{
    g_autoptr(GByteArray) bytes = unhex(hello_hex);
    uint8_t buf[WSM_HELLO_SIZE];
    WsmHello hello;

    g_assert_true(wsm_hello_decode(bytes->data, &hello, &error_abort));
    for (int i = 0; i < 16; i++) {
        g_assert_cmpuint(hello.session.data[i], ==, i);
    }
    g_assert_cmpuint(hello.version, ==, 4);
    g_assert_cmpuint(hello.channel, ==, 2);
    g_assert_cmpuint(hello.channels, ==, 3);
    g_assert_cmphex(hello.features, ==, 0x80000001);

    memset(buf, 0xff, sizeof(buf));
    wsm_hello_encode(&hello, buf);
    g_assert_cmpmem(buf, sizeof(buf), bytes->data, bytes->len);
}

static void test_hello_round_trip(void)
{
    for (int channels = 2; channels <= WSM_MAX_CHANNELS; channels++) {
        for (int channel = 0; channel < channels; channel++) {
            WsmHello in = {
                .version = 4, .channel = channel, .channels = channels,
                .features = g_test_rand_int(),
            };
            uint8_t buf[WSM_HELLO_SIZE];
            WsmHello out;

            qemu_uuid_generate(&in.session);
            wsm_hello_encode(&in, buf);
            g_assert_true(wsm_hello_decode(buf, &out, &error_abort));
            g_assert_true(qemu_uuid_is_equal(&in.session, &out.session));
            g_assert_cmpuint(out.channel, ==, channel);
            g_assert_cmpuint(out.channels, ==, channels);
            g_assert_cmphex(out.features, ==, in.features);
        }
    }
}

static void test_hello_bad(void)
{
    static const struct {
        const char *hex, *text;
    } bad[] = {
        { "0003 00 03 00000000", "HELLO: " OTHER_VERSION("3") },
        { "0000 00 03 00000000", "HELLO: " OTHER_VERSION("0") },
        { "0004 00 01 00000000",
          "HELLO: channels 1 is not between 2 and 17" },
        { "0004 00 00 00000000",
          "HELLO: channels 0 is not between 2 and 17" },
        { "0004 00 12 00000000",
          "HELLO: channels 18 is not between 2 and 17" },
        { "0004 03 03 00000000", "HELLO: channel 3 is not below channels 3" },
        { "0004 ff 11 00000000",
          "HELLO: channel 255 is not below channels 17" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autofree char *hex = g_strdup_printf(
            "00000000000000000000000000000000 %s", bad[i].hex);
        g_autoptr(GByteArray) bytes = unhex(hex);
        Error *err = NULL;
        WsmHello hello;

        g_assert_cmpuint(bytes->len, ==, WSM_HELLO_SIZE);
        g_assert_false(wsm_hello_decode(bytes->data, &hello, &err));
        assert_error(err, bad[i].text);
    }
}

/*
 * A newer source can do more than is known here, and START says how old a
 * version it can speak
 */
static void test_hello_newer(void)
{
    g_autoptr(GByteArray) bytes = unhex(
        "00000000000000000000000000000000 0005 00 03 ffffffff");
    WsmHello hello;

    g_assert_true(wsm_hello_decode(bytes->data, &hello, &error_abort));
    g_assert_cmpuint(hello.version, ==, 5);
    g_assert_cmphex(hello.features, ==, 0xffffffff);
}

/*
 * WELCOME
 */

static void test_welcome_bytes(void)
{
    static const uint8_t bytes[] = { 0x80, 0x00, 0x00, 0x01 };
    WsmStart start = { .features = 0x80000003, .required = 0x80000000 };
    uint8_t buf[WSM_WELCOME_SIZE];
    uint32_t features;

    g_assert_true(wsm_welcome_decode(bytes, &start, &features, &error_abort));
    g_assert_cmphex(features, ==, 0x80000001);
    wsm_welcome_encode(features, buf);
    g_assert_cmpmem(buf, sizeof(buf), bytes, sizeof(bytes));
}

/* No more than the source can do, and no less than it needs */
static void test_welcome_bad(void)
{
    static const struct {
        uint32_t features, required, answer;
    } bad[] = {
        { 0, 0, 1 },
        { 0x7fffffff, 0, 0x80000000 },
        { 3, 2, 1 },
        { 3, 2, 0 },
        { 3, 2, 6 },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autofree char *text = g_strdup_printf(
            "WELCOME: the destination uses features 0x%x of the protocol, but "
            "the source has 0x%x and needs 0x%x", bad[i].answer,
            bad[i].features, bad[i].required);
        WsmStart start = {
            .features = bad[i].features, .required = bad[i].required,
        };
        uint8_t buf[WSM_WELCOME_SIZE];
        uint32_t features;
        Error *err = NULL;

        wsm_welcome_encode(bad[i].answer, buf);
        g_assert_false(wsm_welcome_decode(buf, &start, &features, &err));
        assert_error(err, text);
    }
}

/*
 * START
 */

#define SESSION         "000102030405060708090a0b0c0d0e0f "
/* version, oldest, features, required; granularity, session, channels; disks */
#define BARE            "0004 0004 00000000 00000000 "
#define HEAD            BARE "00001000 " SESSION "0003 "
#define ONE_DISK        HEAD "0001 "
/*
 * size, lengths of path and name, wish, points, lengths of address and file
 * name, marks, reserved, "/m/a", "a"
 */
#define PLAIN           "0000 0000 00 00 "
#define DISK_A          "0000000000200200 0004 0001 00 00 " PLAIN "2f6d2f61 61 "
#define DISK_B          "0000000040000000 0004 0002 03 02 0003 0004 02 00 " \
                        "2f6d2f62 6262 303a34 2f696d67 026131 03623263 " \
                        POINT_1 POINT_2
/* 2 MiB + 512 bytes, the points come behind it */
#define WITH_POINTS(n)  "0000000000200200 0004 0001 00 " n " " PLAIN \
                        "2f6d2f61 61 "
/* id, changed */
#define POINT_1         "f00102030405060708090a0b0c0d0e0f 0000000000003000 "
#define POINT_2         "f10102030405060708090a0b0c0d0e0f 0000000000000000 "
#define MAX_SIZE        "7ffffffffff00000"

/* Decodes a copy of exactly this size, so that a sanitizer sees overruns */
static bool decode_start(const uint8_t *buf, size_t size, WsmStart *start,
                         Error **errp)
{
    g_autofree uint8_t *copy = g_memdup2(buf, size);

    return wsm_start_decode(copy, size, start, errp);
}

static void assert_start_empty(const WsmStart *start)
{
    g_assert_cmpuint(start->ndisks, ==, 0);
    g_assert_null(start->disk);
}

static void check_start_bad(const GByteArray *bytes, const char *text)
{
    WsmStart start;
    Error *err = NULL;

    memset(&start, 0xff, sizeof(start));
    g_assert_false(decode_start(bytes->data, bytes->len, &start, &err));
    if (text) {
        assert_error(err, text);
    } else {
        g_assert_true(g_str_has_prefix(error_get_pretty(err), "START: "));
        error_free(err);
    }
    assert_start_empty(&start);
}

static void test_start_bytes(void)
{
    g_autoptr(GByteArray) bytes = unhex(HEAD "0002 " DISK_A DISK_B);
    g_autoptr(GByteArray) again = NULL;
    WsmStart start;

    g_assert_true(decode_start(bytes->data, bytes->len, &start,
                               &error_abort));
    g_assert_cmpuint(start.version, ==, 4);
    g_assert_cmpuint(start.oldest, ==, 4);
    g_assert_cmphex(start.features, ==, 0);
    g_assert_cmphex(start.required, ==, 0);
    g_assert_cmpuint(start.channels, ==, 3);
    g_assert_cmpuint(start.granularity, ==, 4096);
    for (int i = 0; i < 16; i++) {
        g_assert_cmpuint(start.session.data[i], ==, i);
    }
    g_assert_cmpuint(start.ndisks, ==, 2);
    g_assert_cmpuint(start.disk[0].size, ==, 2 * MiB + 512);
    g_assert_cmpstr(start.disk[0].path, ==, "/m/a");
    g_assert_cmpstr(start.disk[0].name, ==, "a");
    g_assert_cmpint(start.disk[0].wish, ==, WSM_BASIS_KIND_AUTO);
    g_assert_cmpuint(start.disk[0].npoints, ==, 0);
    g_assert_cmpuint(start.disk[1].size, ==, 1 * GiB);
    g_assert_cmpstr(start.disk[1].path, ==, "/m/b");
    g_assert_cmpstr(start.disk[1].name, ==, "bb");
    g_assert_cmpstr(start.disk[0].address, ==, "");
    g_assert_cmpstr(start.disk[0].file, ==, "");
    g_assert_cmpuint(start.disk[0].marks->len, ==, 0);
    g_assert_cmpstr(start.disk[1].address, ==, "0:4");
    g_assert_cmpstr(start.disk[1].file, ==, "/img");
    g_assert_cmpuint(start.disk[1].marks->len, ==, 2);
    g_assert_cmpstr(g_ptr_array_index(start.disk[1].marks, 0), ==, "a1");
    g_assert_cmpstr(g_ptr_array_index(start.disk[1].marks, 1), ==, "b2c");
    g_assert_cmpint(start.disk[1].wish, ==, WSM_BASIS_KIND_SYNC_POINT);
    g_assert_cmpuint(start.disk[1].npoints, ==, 2);
    g_assert_cmphex(start.disk[1].point[0].id.data[0], ==, 0xf0);
    g_assert_cmphex(start.disk[1].point[0].id.data[15], ==, 0x0f);
    g_assert_cmpuint(start.disk[1].point[0].changed, ==, 0x3000);
    g_assert_cmphex(start.disk[1].point[1].id.data[0], ==, 0xf1);
    g_assert_cmpuint(start.disk[1].point[1].changed, ==, 0);

    again = wsm_start_encode(&start);
    g_assert_cmpmem(again->data, again->len, bytes->data, bytes->len);

    wsm_start_destroy(&start);
    assert_start_empty(&start);
    wsm_start_destroy(&start);
}

static void test_start_bad(void)
{
    static const struct {
        const char *hex, *text;
    } bad[] = {
        { "", "START: header needs 36 bytes, but only 0 follow" },
        { "00", "START: header needs 36 bytes, but only 1 follow" },
        { "0004", "START: header needs 36 bytes, but only 2 follow" },
        { "0004 0004", "START: header needs 36 bytes, but only 4 follow" },
        /* Another version may have another length */
        { "0002 0003", "START: " OTHER_VERSION("2") },
        { "0003 0003", "START: " OTHER_VERSION("3") },
        { "0005 0005", "START: " OTHER_VERSION("5") },
        { "ffff 0005", "START: " OTHER_VERSION("65535") },
        { "0004 0005", "START: " OTHER_VERSION("4") },
        { "0000 0000 00000000 00000000 00001000 " SESSION "0003 0000",
          "START: " OTHER_VERSION("0") },
        { BARE "00001000 " SESSION "0001 0000",
          "START: channels 1 is not between 2 and 17" },
        { BARE "00001000 " SESSION "0012 0000",
          "START: channels 18 is not between 2 and 17" },
        { BARE "00000800 " SESSION "0003 0000",
          "START: granularity 2048 is not a power of two between 4096 "
          "and 1048576" },
        { BARE "00200000 " SESSION "0003 0000",
          "START: granularity 2097152 is not a power of two between 4096 "
          "and 1048576" },
        { BARE "00003000 " SESSION "0003 0000",
          "START: granularity 12288 is not a power of two between 4096 "
          "and 1048576" },
        { HEAD "0101", "START: number of disks 257 is above 256" },
        { HEAD "0000 00", "START: 1 bytes follow the last disk" },
        { ONE_DISK, "START: disk 0: description needs 20 bytes, "
          "but only 0 follow" },
        { ONE_DISK DISK_A "00", "START: 1 bytes follow the last disk" },
        { ONE_DISK DISK_A DISK_B, "START: 88 bytes follow the last disk" },
        { HEAD "0002 " DISK_A, "START: disk 1: description needs 20 "
          "bytes, but only 0 follow" },
        { HEAD "0002 " DISK_A DISK_A,
          "START: disk 1: path '/m/a' is that of disk 0 already" },
        { ONE_DISK "0000000000000000 0004 0001 00 00 " PLAIN "2f6d2f61 61",
          "START: disk 0: size 0 is not between 1 and "
          "9223372036853727232" },
        { ONE_DISK "7ffffffffff00200 0004 0001 00 00 " PLAIN "2f6d2f61 61",
          "START: disk 0: size 9223372036853727744 is not between 1 and "
          "9223372036853727232" },
        { ONE_DISK "8000000000000000 0004 0001 00 00 " PLAIN "2f6d2f61 61",
          "START: disk 0: size 9223372036854775808 is not between 1 and "
          "9223372036853727232" },
        { ONE_DISK "0000000000200201 0004 0001 00 00 " PLAIN "2f6d2f61 61",
          "START: disk 0: size 2097665 is not a multiple of 512" },
        { ONE_DISK "0000000000200100 0004 0001 00 00 " PLAIN "2f6d2f61 61",
          "START: disk 0: size 2097408 is not a multiple of 512" },
        { ONE_DISK "0000000000200200 0000 0001 00 00 " PLAIN "61",
          "START: disk 0: length 0 of path is not between 1 and 512" },
        { ONE_DISK "0000000000200200 0004 0000 00 00 " PLAIN "2f6d2f61",
          "START: disk 0: length 0 of name is not between 1 and 512" },
        { ONE_DISK "0000000000200200 0201 0001 00 00 " PLAIN "61",
          "START: disk 0: length 513 of path is not between 1 and 512" },
        { ONE_DISK "0000000000200200 0001 ffff 00 00 " PLAIN "61",
          "START: disk 0: length 65535 of name is not between 1 and 512" },
        { ONE_DISK "0000000000200200 0005 0001 00 00 " PLAIN "2f6d2f61",
          "START: disk 0: path needs 5 bytes, but only 4 follow" },
        { ONE_DISK "0000000000200200 0004 0002 00 00 " PLAIN "2f6d2f61 61",
          "START: disk 0: name needs 2 bytes, but only 1 follow" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 " PLAIN "2f6d0061 61",
          "START: disk 0: path contains a NUL byte" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 " PLAIN "2f6d2f61 00",
          "START: disk 0: name contains a NUL byte" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(GByteArray) bytes = unhex(bad[i].hex);

        check_start_bad(bytes, bad[i].text);
    }
}

/* A newer source that can speak our version: with what both can do */
static void test_start_newer(void)
{
    static const char *const good[] = {
        "0005 0004 80000001 00000000 00001000 " SESSION "0003 0000",
        "ffff 0000 ffffffff 00000000 00001000 " SESSION "0003 0000",
    };

    for (int i = 0; i < ARRAY_SIZE(good); i++) {
        g_autoptr(GByteArray) bytes = unhex(good[i]);
        g_autoptr(GByteArray) again = NULL;
        WsmStart start;

        g_assert_true(decode_start(bytes->data, bytes->len, &start,
                                   &error_abort));
        g_assert_cmpuint(start.version, ==, i ? 0xffff : 5);
        g_assert_cmpuint(start.oldest, ==, i ? 0 : 4);
        g_assert_cmphex(start.features, ==, i ? 0xffffffff : 0x80000001);
        g_assert_cmphex(wsm_features_in_use(&start), ==,
                        i ? WSM_FEATURES : WSM_FEATURE_MEMORY);
        /* What both know, but the destination has not; it is not sent */
        start.unused = WSM_FEATURE_MEMORY | WSM_FEATURE_KVM;
        g_assert_cmphex(wsm_features_in_use(&start), ==,
                        i ? WSM_FEATURES & ~start.unused : 0);
        again = wsm_start_encode(&start);
        g_assert_cmpmem(again->data, again->len, bytes->data, bytes->len);
        wsm_start_destroy(&start);
    }
}

#ifdef CONFIG_ZSTD
#define FEATURES "0xff"
#else
#define FEATURES "0xed"
#endif

static void test_start_bad_features(void)
{
    static const struct {
        const char *hex, *text;
    } bad[] = {
        { "0004 0004 80000001 80000000 00001000 " SESSION "0003 0000",
          "START: the source (qemu-wsm 0.4) needs features 0x80000000 of the "
          "protocol, the destination (qemu-wsm 0.4) has only features "
          FEATURES "; "
          "run the same version of qemu-wsm on both hosts" },
        { "0007 0003 40000000 40000000 00001000 " SESSION "0003 0000",
          "START: the source (qemu-wsm 0.7) needs features 0x40000000 of the "
          "protocol, the destination (qemu-wsm 0.4) has only features "
          FEATURES "; "
          "run the same version of qemu-wsm on both hosts" },
        { "0004 0004 00000001 00000003 00001000 " SESSION "0003 0000",
          "START: required features 0x3 are not all among features 0x1" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(GByteArray) bytes = unhex(bad[i].hex);

        check_start_bad(bytes, bad[i].text);
    }
}

/* Where a disk is, at the guest and at the host */
static void test_start_bad_place(void)
{
    static const struct {
        const char *hex, *text;
    } bad[] = {
        { ONE_DISK "0000000000200200 0004 0001 00 00 0201 0000 00 00 2f6d2f61 "
          "61", "START: disk 0: length 513 of address is not between 0 and "
          "512" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 0000 ffff 00 00 2f6d2f61 "
          "61", "START: disk 0: length 65535 of file name is not between 0 "
          "and 512" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 0003 0000 00 00 2f6d2f61 "
          "61 303a", "START: disk 0: address needs 3 bytes, but only 2 "
          "follow" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 0003 0000 00 00 2f6d2f61 "
          "61 300034", "START: disk 0: address contains a NUL byte" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 0000 0002 00 00 2f6d2f61 "
          "61 3000", "START: disk 0: file name contains a NUL byte" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 0000 0002 00 00 2f6d2f61 "
          "61 30", "START: disk 0: file name needs 2 bytes, but only 1 "
          "follow" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 0000 0000 11 00 2f6d2f61 "
          "61", "START: disk 0: number of marks 17 is above 16" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 0000 0000 ff 00 2f6d2f61 "
          "61", "START: disk 0: number of marks 255 is above 16" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 0000 0000 01 00 2f6d2f61 "
          "61", "START: disk 0: mark 0: length needs 1 bytes, but only 0 "
          "follow" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 0000 0000 02 00 2f6d2f61 "
          "61 0141 00", "START: disk 0: mark 1: length 0 of text is not "
          "between 1 and 255" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 0000 0000 01 00 2f6d2f61 "
          "61 0241", "START: disk 0: mark 0: text needs 2 bytes, but only 1 "
          "follow" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 0000 0000 01 00 2f6d2f61 "
          "61 024100", "START: disk 0: mark 0: text contains a NUL byte" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 0000 0000 01 00 2f6d2f61 "
          "61 0141 0142", "START: 2 bytes follow the last disk" },
        { HEAD "0002 "
          "0000000000200200 0004 0001 00 00 0003 0000 00 00 2f6d2f61 61 303a34"
          "0000000000200200 0004 0001 00 00 0003 0000 00 00 2f6d2f62 61 303a34",
          "START: disk 1: address '0:4' is that of disk 0 already" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(GByteArray) bytes = unhex(bad[i].hex);

        check_start_bad(bytes, bad[i].text);
    }
}

/* What a disk has beside its size and names */
static void test_start_bad_points(void)
{
    static const struct {
        const char *hex, *text;
    } bad[] = {
        { ONE_DISK "0000000000200200 0004 0001 04 00 " PLAIN "2f6d2f61 61",
          "START: disk 0: wish 4 is above 3" },
        { ONE_DISK "0000000000200200 0004 0001 ff 00 " PLAIN "2f6d2f61 61",
          "START: disk 0: wish 255 is above 3" },
        { ONE_DISK "0000000000200200 0004 0001 00 41 " PLAIN "2f6d2f61 61",
          "START: disk 0: number of sync points 65 is above 64" },
        { ONE_DISK "0000000000200200 0004 0001 00 ff " PLAIN "2f6d2f61 61",
          "START: disk 0: number of sync points 255 is above 64" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 0000 0000 00 01 "
          "2f6d2f61 61",
          "START: disk 0: reserved is 1, but must be 0" },
        { ONE_DISK "0000000000200200 0004 0001 00 00 0000 0000 00 80 "
          "2f6d2f61 61",
          "START: disk 0: reserved is 128, but must be 0" },
        { ONE_DISK WITH_POINTS("01"), "START: disk 0: sync point 0: "
          "description needs 24 bytes, but only 0 follow" },
        { ONE_DISK WITH_POINTS("02") POINT_1 "00", "START: disk 0: "
          "sync point 1: description needs 24 bytes, but only 1 follow" },
        { ONE_DISK WITH_POINTS("01") POINT_1 POINT_2,
          "START: 24 bytes follow the last disk" },
        { ONE_DISK WITH_POINTS("00") POINT_1,
          "START: 24 bytes follow the last disk" },
        { ONE_DISK WITH_POINTS("03") POINT_1 POINT_2
          "f10102030405060708090a0b0c0d0e0f 0000000000001000",
          "START: disk 0: sync point 2: id "
          "f1010203-0405-0607-0809-0a0b0c0d0e0f is that of sync point 1 "
          "already" },
        { ONE_DISK WITH_POINTS("01")
          "f00102030405060708090a0b0c0d0e0f 0000000000201001",
          "START: disk 0: sync point 0: changed 2101249 is above 2101248" },
        { ONE_DISK WITH_POINTS("01")
          "f00102030405060708090a0b0c0d0e0f ffffffffffffffff",
          "START: disk 0: sync point 0: changed 18446744073709551615 is "
          "above 2101248" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(GByteArray) bytes = unhex(bad[i].hex);

        check_start_bad(bytes, bad[i].text);
    }
}

static void test_start_truncated(void)
{
    g_autoptr(GByteArray) bytes = unhex(HEAD "0002 " DISK_A DISK_B);
    WsmStart start;

    g_assert_true(decode_start(bytes->data, bytes->len, &start,
                               &error_abort));
    wsm_start_destroy(&start);
    while (bytes->len) {
        g_byte_array_set_size(bytes, bytes->len - 1);
        check_start_bad(bytes, NULL);
    }
}

static void add_points(WsmDiskDesc *disk, unsigned npoints)
{
    disk->npoints = npoints;
    disk->point = g_new0(WsmPointDesc, npoints);
    for (unsigned i = 0; i < npoints; i++) {
        qemu_uuid_generate(&disk->point[i].id);
        disk->point[i].changed = g_test_rand_int_range(0, 3) * disk->size / 2;
    }
}

/* A START with @ndisks disks whose strings have @length bytes */
static WsmStart make_start(unsigned ndisks, unsigned length, unsigned npoints)
{
    WsmStart start = {
        .version = 4,
        .oldest = g_test_rand_int_range(0, 5),
        .features = g_test_rand_int(),
        .channels = g_test_rand_int_range(2, WSM_MAX_CHANNELS + 1),
        .granularity = 4096 << g_test_rand_int_range(0, 9),
        .ndisks = ndisks,
        .disk = g_new0(WsmDiskDesc, ndisks),
    };

    qemu_uuid_generate(&start.session);
    for (unsigned i = 0; i < ndisks; i++) {
        WsmDiskDesc *disk = &start.disk[i];

        disk->path = g_strdup_printf("%0*u", length, i);
        disk->name = g_strnfill(length, 'n');
        /* Two of length 0 are not the same address */
        disk->address = i % 4 == 3 ? g_strdup("") : g_strdup(disk->path);
        disk->file = g_strnfill(length - 1, 'f');
        disk->marks = g_ptr_array_new_with_free_func(g_free);
        for (unsigned j = 0; j < npoints / 4; j++) {
            g_ptr_array_add(disk->marks,
                            g_strnfill(MIN(length, WSM_MAX_MARK), 'm'));
        }
        disk->size = 512ULL * g_test_rand_int_range(1, INT32_MAX);
        disk->wish = g_test_rand_int_range(0, WSM_BASIS_KIND__MAX);
        add_points(disk, npoints);
    }
    return start;
}

static void assert_points_equal(const WsmDiskDesc *a, const WsmDiskDesc *b)
{
    g_assert_cmpuint(a->npoints, ==, b->npoints);
    for (unsigned i = 0; i < a->npoints; i++) {
        g_assert_true(qemu_uuid_is_equal(&a->point[i].id, &b->point[i].id));
        g_assert_cmpuint(a->point[i].changed, ==, b->point[i].changed);
    }
}

static void assert_marks_equal(const GPtrArray *a, const GPtrArray *b)
{
    g_assert_cmpuint(a->len, ==, b->len);
    for (unsigned i = 0; i < a->len; i++) {
        g_assert_cmpstr(g_ptr_array_index(a, i), ==, g_ptr_array_index(b, i));
    }
}

static void assert_start_equal(const WsmStart *a, const WsmStart *b)
{
    g_assert_true(qemu_uuid_is_equal(&a->session, &b->session));
    g_assert_cmpuint(a->version, ==, b->version);
    g_assert_cmpuint(a->oldest, ==, b->oldest);
    g_assert_cmphex(a->features, ==, b->features);
    g_assert_cmphex(a->required, ==, b->required);
    g_assert_cmpuint(a->channels, ==, b->channels);
    g_assert_cmpuint(a->granularity, ==, b->granularity);
    g_assert_cmpuint(a->ndisks, ==, b->ndisks);
    for (unsigned i = 0; i < a->ndisks; i++) {
        g_assert_cmpstr(a->disk[i].path, ==, b->disk[i].path);
        g_assert_cmpstr(a->disk[i].name, ==, b->disk[i].name);
        g_assert_cmpstr(a->disk[i].address, ==, b->disk[i].address);
        g_assert_cmpstr(a->disk[i].file, ==, b->disk[i].file);
        assert_marks_equal(a->disk[i].marks, b->disk[i].marks);
        g_assert_cmpuint(a->disk[i].size, ==, b->disk[i].size);
        g_assert_cmpint(a->disk[i].wish, ==, b->disk[i].wish);
        assert_points_equal(&a->disk[i], &b->disk[i]);
    }
}

static void check_start_round_trip(unsigned ndisks, unsigned length,
                                   unsigned npoints)
{
    WsmStart in = make_start(ndisks, length, npoints), out;
    g_autoptr(GByteArray) bytes = wsm_start_encode(&in);

    /* what the section may have, migration/wsm/load.c */
    g_assert_cmpuint(bytes->len, <=, 2 * MiB);
    g_assert_true(decode_start(bytes->data, bytes->len, &out, &error_abort));
    assert_start_equal(&in, &out);
    wsm_start_destroy(&in);
    wsm_start_destroy(&out);
}

static void test_start_round_trip(void)
{
    check_start_round_trip(0, 1, 0);
    check_start_round_trip(1, 1, 0);
    check_start_round_trip(1, 1, WSM_MAX_POINTS);
    check_start_round_trip(1, WSM_MAX_PATH, 1);
    check_start_round_trip(WSM_MAX_DISKS, 3, 0);
    check_start_round_trip(WSM_MAX_DISKS, WSM_MAX_PATH, WSM_MAX_POINTS);
    for (int i = 0; i < 100; i++) {
        check_start_round_trip(g_test_rand_int_range(0, 100),
                               g_test_rand_int_range(2, 100),
                               g_test_rand_int_range(0, 5));
    }
}

static void test_start_max_size(void)
{
    g_autoptr(GByteArray) bytes = unhex(
        ONE_DISK MAX_SIZE " 0004 0001 00 01 " PLAIN "2f6d2f61 61"
        "00000000000000000000000000000000" MAX_SIZE);
    WsmStart start;

    g_assert_true(decode_start(bytes->data, bytes->len, &start,
                               &error_abort));
    g_assert_cmpuint(start.disk[0].size, ==, LAST_DISK_END);
    g_assert_cmpuint(start.disk[0].point[0].changed, ==, LAST_DISK_END);
    wsm_start_destroy(&start);
}

/* Changed is counted in blocks, so it may be more than the disk's size */
static void test_start_max_changed(void)
{
    g_autoptr(GByteArray) bytes = unhex(ONE_DISK WITH_POINTS("01")
        "00000000000000000000000000000000 0000000000201000");
    WsmStart start;

    g_assert_true(decode_start(bytes->data, bytes->len, &start,
                               &error_abort));
    g_assert_cmpuint(start.disk[0].point[0].changed, ==, 0x201000);
    wsm_start_destroy(&start);
}

/* A point may be known to two disks */
static void test_start_shared_point(void)
{
    g_autoptr(GByteArray) bytes = unhex(HEAD "0002 "
        WITH_POINTS("01") POINT_1 DISK_B);
    WsmStart start;

    g_assert_true(decode_start(bytes->data, bytes->len, &start,
                               &error_abort));
    g_assert_true(qemu_uuid_is_equal(&start.disk[0].point[0].id,
                                     &start.disk[1].point[0].id));
    wsm_start_destroy(&start);
}

static void test_start_wish(void)
{
    for (int wish = 0; wish < WSM_BASIS_KIND__MAX; wish++) {
        g_autofree char *hex = g_strdup_printf(
            ONE_DISK "0000000000200200 0004 0001 %02x 00 " PLAIN "2f6d2f61 61",
            wish);
        g_autoptr(GByteArray) bytes = unhex(hex);
        WsmStart start;

        g_assert_true(decode_start(bytes->data, bytes->len, &start,
                                   &error_abort));
        g_assert_cmpint(start.disk[0].wish, ==, wish);
        wsm_start_destroy(&start);
    }
}

/* Damage some bytes: a START that encodes to the same bytes, or an error */
static void test_start_damaged(void)
{
    for (int i = 0; i < 5000; i++) {
        WsmStart start = make_start(3, 4, 2), out;
        g_autoptr(GByteArray) bytes = wsm_start_encode(&start);
        Error *err = NULL;

        for (int n = g_test_rand_int_range(1, 4); n; n--) {
            bytes->data[g_test_rand_int_range(0, bytes->len)] =
                g_test_rand_int();
        }
        if (decode_start(bytes->data, bytes->len, &out, &err)) {
            g_autoptr(GByteArray) again = wsm_start_encode(&out);

            g_assert_null(err);
            g_assert_cmpmem(again->data, again->len, bytes->data, bytes->len);
        } else {
            g_assert_nonnull(err);
            assert_start_empty(&out);
        }
        error_free(err);
        wsm_start_destroy(&out);
        wsm_start_destroy(&start);
    }
}

/*
 * BASIS
 */

#define NO_POINT        "00000000000000000000000000000000 "
#define POINT           "000102030405060708090a0b0c0d0e0f "

/* The payload in a copy of exactly its size */
static bool decode_basis(const char *hex, WsmBasisKind kind,
                         WsmBasisMsg *basis, Error **errp)
{
    g_autoptr(GByteArray) bytes = unhex(hex);
    g_autofree uint8_t *copy = g_memdup2(bytes->data, bytes->len);
    WsmMsg msg = {
        .type = WSM_MSG_BASIS, .offset = kind, .length = bytes->len,
    };

    return wsm_basis_decode(&msg, copy, basis, errp);
}

static void check_basis(const char *hex, WsmBasisKind kind, const char *reason)
{
    g_autoptr(GByteArray) bytes = unhex(hex), again = NULL;
    WsmBasisMsg basis;

    g_assert_true(decode_basis(hex, kind, &basis, &error_abort));
    g_assert_cmpint(basis.kind, ==, kind);
    g_assert_cmpmem(basis.point.data, 16, bytes->data, 16);
    g_assert_cmpstr(basis.reason, ==, reason);
    again = wsm_basis_encode(&basis);
    g_assert_cmpmem(again->data, again->len, bytes->data, bytes->len);
    wsm_basis_destroy(&basis);
    g_assert_null(basis.reason);
    wsm_basis_destroy(&basis);
}

static void test_basis_bytes(void)
{
    check_basis(NO_POINT "656d707479", 1, "empty");
    check_basis(NO_POINT "78", 2, "x");
    check_basis(POINT "626f7468", 3, "both");
    check_basis(NO_POINT "626f7468", 3, "both");
}

static void test_basis_bad(void)
{
    static const char text[] = "BASIS: point is "
        "00000000-0000-0000-0000-000000000001, but must be 0 with kind %d";

    for (int kind = 1; kind <= 2; kind++) {
        g_autofree char *expected = g_strdup_printf(text, kind);
        WsmBasisMsg basis;
        Error *err = NULL;

        memset(&basis, 0xff, sizeof(basis));
        g_assert_false(decode_basis("00000000000000000000000000000001 78",
                                    kind, &basis, &err));
        assert_error(err, expected);
        g_assert_null(basis.reason);
    }
}

static void test_basis_reason(void)
{
    g_autofree char *longest = g_strnfill(WSM_MAX_TEXT, 'y');
    g_autofree char *longer = g_strnfill(WSM_MAX_TEXT + 1, 'y');
    WsmBasisMsg basis = { .kind = WSM_BASIS_KIND_FULL, .reason = longer };
    g_autoptr(GByteArray) bytes = wsm_basis_encode(&basis);
    WsmMsg msg = {
        .type = WSM_MSG_BASIS, .offset = 1, .length = bytes->len,
    };

    g_assert_cmpuint(bytes->len, ==, 16 + 1024);
    g_assert_true(wsm_basis_decode(&msg, bytes->data, &basis, &error_abort));
    g_assert_cmpstr(basis.reason, ==, longest);
    wsm_basis_destroy(&basis);

    /* no control characters, nor an early end */
    g_assert_true(decode_basis(NO_POINT "1b 61 0a 00 7a c3a4", 1, &basis,
                               &error_abort));
    g_assert_cmpstr(basis.reason, ==, " a  z\xc3\xa4");
    wsm_basis_destroy(&basis);
}

/*
 * POINT
 */

static bool decode_point(const GByteArray *bytes, unsigned npoints,
                         WsmPointMsg *point, Error **errp)
{
    WsmDiskDesc disk = { .npoints = npoints };
    WsmMsg msg = { .type = WSM_MSG_POINT, .length = bytes->len };

    return wsm_point_decode(&msg, bytes->data, &disk, point, errp);
}

static void test_point_bytes(void)
{
    static const struct {
        const char *hex;
        uint8_t index;
        bool rest;
        unsigned runs;
    } good[] = {
        { "00 00", 0, false, 0 },
        { "02 01 02 03", 2, true, 2 },
        { "3f 00 00 7f 05", 63, false, 3 },
    };

    for (int i = 0; i < ARRAY_SIZE(good); i++) {
        g_autoptr(GByteArray) bytes = unhex(good[i].hex);
        g_autoptr(GByteArray) again = g_byte_array_new();
        WsmPointMsg point;

        g_assert_true(decode_point(bytes, WSM_MAX_POINTS, &point,
                                   &error_abort));
        g_assert_cmpuint(point.index, ==, good[i].index);
        g_assert_cmpint(point.rest, ==, good[i].rest);
        g_assert_cmpuint(point.size, ==, good[i].runs);
        g_assert_true(point.runs == bytes->data + 2);
        wsm_point_encode(point.index, point.rest, again);
        g_assert_cmpmem(again->data, again->len, bytes->data, 2);
    }
}

static void test_point_bad(void)
{
    static const struct {
        const char *hex;
        unsigned npoints;
        const char *text;
    } bad[] = {
        { "00 00", 0, "POINT: index 0 is not below the number of "
          "sync points 0" },
        { "03 00 00 01", 3, "POINT: index 3 is not below the number of "
          "sync points 3" },
        { "ff 00", 64, "POINT: index 255 is not below the number of "
          "sync points 64" },
        { "02 02", 3, "POINT: which 2 is above 1" },
        { "02 ff", 3, "POINT: which 255 is above 1" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(GByteArray) bytes = unhex(bad[i].hex);
        WsmPointMsg point;
        Error *err = NULL;

        g_assert_false(decode_point(bytes, bad[i].npoints, &point, &err));
        assert_error(err, bad[i].text);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/wsm/protocol/msg/bytes", test_msg_bytes);
    g_test_add_func("/wsm/protocol/msg/name", test_msg_name);
    g_test_add_func("/wsm/protocol/msg/constants", test_msg_constants);
    g_test_add_func("/wsm/protocol/msg/magic", test_msg_magic);
    g_test_add_func("/wsm/protocol/msg/type", test_msg_type);
    g_test_add_func("/wsm/protocol/msg/no-session", test_msg_no_session);
    g_test_add_func("/wsm/protocol/msg/direction", test_msg_direction);
    g_test_add_func("/wsm/protocol/msg/channel", test_msg_channel);
    g_test_add_func("/wsm/protocol/msg/epoch", test_msg_epoch);
    g_test_add_func("/wsm/protocol/msg/unused", test_msg_unused);
    g_test_add_func("/wsm/protocol/msg/length", test_msg_length);
    g_test_add_func("/wsm/protocol/msg/length-data", test_msg_length_data);
    g_test_add_func("/wsm/protocol/msg/packed", test_msg_packed);
    g_test_add_func("/wsm/protocol/msg/length-hashes",
                    test_msg_length_hashes);
    g_test_add_func("/wsm/protocol/msg/kind", test_msg_kind);
    g_test_add_func("/wsm/protocol/msg/range", test_msg_range);
    g_test_add_func("/wsm/protocol/msg/no-disks", test_msg_no_disks);
    g_test_add_func("/wsm/protocol/msg/text", test_msg_text);
    g_test_add_func("/wsm/protocol/msg/text-basis", test_msg_text_basis);
    g_test_add_func("/wsm/protocol/msg/text-fixed", test_msg_text_fixed);
    g_test_add_func("/wsm/protocol/msg/random", test_msg_random);
    g_test_add_func("/wsm/protocol/hello/bytes", test_hello_bytes);
    g_test_add_func("/wsm/protocol/hello/round-trip", test_hello_round_trip);
    g_test_add_func("/wsm/protocol/hello/bad", test_hello_bad);
    g_test_add_func("/wsm/protocol/hello/newer", test_hello_newer);
    g_test_add_func("/wsm/protocol/welcome/bytes", test_welcome_bytes);
    g_test_add_func("/wsm/protocol/welcome/bad", test_welcome_bad);
    g_test_add_func("/wsm/protocol/start/bytes", test_start_bytes);
    g_test_add_func("/wsm/protocol/start/newer", test_start_newer);
    g_test_add_func("/wsm/protocol/start/bad-features",
                    test_start_bad_features);
    g_test_add_func("/wsm/protocol/start/bad", test_start_bad);
    g_test_add_func("/wsm/protocol/start/bad-points", test_start_bad_points);
    g_test_add_func("/wsm/protocol/start/bad-place", test_start_bad_place);
    g_test_add_func("/wsm/protocol/start/truncated", test_start_truncated);
    g_test_add_func("/wsm/protocol/start/round-trip", test_start_round_trip);
    g_test_add_func("/wsm/protocol/start/max-size", test_start_max_size);
    g_test_add_func("/wsm/protocol/start/max-changed",
                    test_start_max_changed);
    g_test_add_func("/wsm/protocol/start/shared-point",
                    test_start_shared_point);
    g_test_add_func("/wsm/protocol/start/wish", test_start_wish);
    g_test_add_func("/wsm/protocol/start/damaged", test_start_damaged);
    g_test_add_func("/wsm/protocol/basis/bytes", test_basis_bytes);
    g_test_add_func("/wsm/protocol/basis/bad", test_basis_bad);
    g_test_add_func("/wsm/protocol/basis/reason", test_basis_reason);
    g_test_add_func("/wsm/protocol/point/bytes", test_point_bytes);
    g_test_add_func("/wsm/protocol/point/bad", test_point_bad);

    return g_test_run();
}
