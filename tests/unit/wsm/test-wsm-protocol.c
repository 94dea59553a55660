/*
 * Unit tests of migration/wsm/protocol.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "migration/wsm/protocol.h"

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
 * and in bytes.  Only the letters of @may are allowed to differ from 0:
 * r a range, o offset, b bytes.
 */
typedef struct Sample {
    uint16_t type;
    const char *name;
    bool from_source, any_session, urgent;
    const char *may;
    uint32_t min_length, max_length;
    uint64_t max_bytes;
    WsmMsg msg;
    const char *hex;
} Sample;

static const Sample samples[] = {
    { 1, "HELLO", true, true, false, "", 24, 24, 0,
      { .type = WSM_MSG_HELLO, .length = 24 },
      "57534d31 0001 0000 00000000 00000018 0000000000000000 0000000000000000"
    },
    { 2, "WELCOME", false, true, false, "", 0, 0, 0,
      { .type = WSM_MSG_WELCOME },
      "57534d31 0002 0000 00000000 00000000 0000000000000000 0000000000000000"
    },
    { 3, "REFUSE", false, true, false, "", 0, 1024, 0,
      { .type = WSM_MSG_REFUSE, .length = 1024 },
      "57534d31 0003 0000 00000000 00000400 0000000000000000 0000000000000000"
    },
    { 4, "DATA", true, false, false, "r", 1, 1048576, 1048576,
      { .type = WSM_MSG_DATA, .disk = 1, .epoch = 1, .length = 0x2000,
        .offset = 0x30000, .bytes = 0x2000 },
      "57534d31 0004 0001 00000001 00002000 0000000000030000 0000000000002000"
    },
    { 5, "ZERO", true, false, false, "r", 0, 0, 67108864,
      { .type = WSM_MSG_ZERO, .offset = 0x1000, .bytes = 0x4000000 },
      "57534d31 0005 0000 00000000 00000000 0000000000001000 0000000004000000"
    },
    { 6, "ACK", false, false, false, "r", 0, 0, 67108864,
      { .type = WSM_MSG_ACK, .disk = 1, .epoch = 1,
        .offset = 0xa00000, .bytes = 512 },
      "57534d31 0006 0001 00000001 00000000 0000000000a00000 0000000000000200"
    },
    { 7, "FAIL", false, false, false, "r", 0, 1024, 67108864,
      { .type = WSM_MSG_FAIL, .disk = 3, .length = 5,
        .offset = 0x7fffffffffeff000, .bytes = 0x1000 },
      "57534d31 0007 0003 00000000 00000005 7fffffffffeff000 0000000000001000"
    },
    { 8, "SYNC", true, false, true, "o", 0, 0, 0,
      { .type = WSM_MSG_SYNC, .offset = 0x0123456789abcdef },
      "57534d31 0008 0000 00000000 00000000 0123456789abcdef 0000000000000000"
    },
    { 9, "SYNC_ACK", false, false, true, "ob", 0, 0, 0,
      { .type = WSM_MSG_SYNC_ACK, .epoch = 1, .offset = 7,
        .bytes = 0xfedcba9876543210 },
      "57534d31 0009 0000 00000001 00000000 0000000000000007 fedcba9876543210"
    },
    { 10, "READY", false, false, true, "", 0, 0, 0,
      { .type = WSM_MSG_READY, .epoch = 1 },
      "57534d31 000a 0000 00000001 00000000 0000000000000000 0000000000000000"
    },
    { 11, "GO", true, false, true, "", 0, 0, 0,
      { .type = WSM_MSG_GO, .epoch = 1 },
      "57534d31 000b 0000 00000001 00000000 0000000000000000 0000000000000000"
    },
    { 12, "ABORT", true, false, true, "", 0, 0, 0,
      { .type = WSM_MSG_ABORT },
      "57534d31 000c 0000 00000000 00000000 0000000000000000 0000000000000000"
    },
    { 13, "PULL", false, false, true, "r", 0, 0, 67108864,
      { .type = WSM_MSG_PULL, .disk = 2, .epoch = 1, .bytes = 512 },
      "57534d31 000d 0002 00000001 00000000 0000000000000000 0000000000000200"
    },
    { 14, "HAVE", false, false, true, "r", 0, 0, 67108864,
      { .type = WSM_MSG_HAVE, .epoch = 1,
        .offset = 0x3ffff000, .bytes = 0x1000 },
      "57534d31 000e 0000 00000001 00000000 000000003ffff000 0000000000001000"
    },
};

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
        WsmLimits limits = limits_for(s->from_source, 0);
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
    g_assert_cmpint(WSM_PROTOCOL_VERSION, ==, 1);
    g_assert_cmpint(WSM_HEADER_SIZE, ==, 32);
    g_assert_cmpint(WSM_HELLO_SIZE, ==, 24);
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
        WsmLimits right = limits_for(samples[i].from_source, 0);
        WsmLimits wrong = limits_for(!samples[i].from_source, 0);

        g_assert_true(accepts(&samples[i].msg, &right));
        g_assert_false(accepts(&samples[i].msg, &wrong));
    }
}

static void test_msg_channel(void)
{
    for (int i = 0; i < ARRAY_SIZE(samples); i++) {
        WsmLimits one = limits_for(samples[i].from_source, 1);
        WsmLimits last = limits_for(samples[i].from_source, 16);

        g_assert_cmpint(accepts(&samples[i].msg, &one),
                        ==, !samples[i].urgent);
        g_assert_cmpint(accepts(&samples[i].msg, &last),
                        ==, !samples[i].urgent);
    }
}

static void test_msg_epoch(void)
{
    for (int i = 0; i < ARRAY_SIZE(samples); i++) {
        WsmLimits limits = limits_for(samples[i].from_source, 0);
        WsmMsg msg = samples[i].msg;

        msg.epoch = 0;
        g_assert_true(accepts(&msg, &limits));
        msg.epoch = 1;
        g_assert_true(accepts(&msg, &limits));
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
        WsmLimits limits = limits_for(s->from_source, 0);
        WsmMsg msg = s->msg;

        if (strchr(s->may, 'r')) {
            continue;
        }
        msg.disk = 1;
        g_assert_false(accepts(&msg, &limits));
        msg = s->msg;
        msg.offset = 1;
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
        WsmLimits limits = limits_for(s->from_source, 0);
        WsmMsg msg = s->msg;

        if (s->type == WSM_MSG_DATA) {
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

/* Is @bytes at @offset of @disk accepted in a message like @s? */
static bool range_ok(const Sample *s, uint16_t disk, uint64_t offset,
                     uint64_t bytes)
{
    WsmLimits limits = limits_for(s->from_source, 0);
    WsmMsg msg = {
        .type = s->type, .disk = disk, .offset = offset, .bytes = bytes,
        .length = s->type == WSM_MSG_DATA ? bytes : 0,
    };

    return accepts(&msg, &limits);
}

static void check_range(const Sample *s)
{
    uint64_t end = disk_size[0], last = LAST_DISK_END;

    /* disk */
    g_assert_true(range_ok(s, 3, 0, 4096));
    g_assert_false(range_ok(s, 4, 0, 4096));
    g_assert_false(range_ok(s, 0xffff, 0, 4096));

    /* bytes, at least and at most */
    g_assert_false(range_ok(s, 0, 0, 0));
    g_assert_false(range_ok(s, 2, 512, 0));
    g_assert_true(range_ok(s, 0, 0, s->max_bytes));
    g_assert_false(range_ok(s, 0, 0, s->max_bytes + 1));
    g_assert_false(range_ok(s, 0, 0, s->max_bytes + 4096));
    g_assert_false(range_ok(s, 3, 0, LAST_DISK_END));

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

/* The text says which field, which value, which bound */
static void test_msg_text(void)
{
    static const struct {
        bool from_source;
        uint16_t channel;
        WsmMsg msg;
        const char *text;
    } bad[] = {
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
        WsmLimits limits = limits_for(bad[i].from_source, bad[i].channel);
        Error *err = NULL;
        WsmMsg msg;

        g_assert_false(decode(&bad[i].msg, &limits, &msg, &err));
        assert_error(err, bad[i].text);
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

    if (s->from_source != l->from_source || (s->urgent && l->channel) ||
        m->epoch >= 2 || m->length < s->min_length ||
        m->length > s->max_length) {
        return false;
    }
    if (strchr(s->may, 'r')) {
        unsigned __int128 end = (unsigned __int128)m->offset + m->bytes;

        return m->disk < l->disks &&
               m->bytes >= 1 && m->bytes <= s->max_bytes &&
               end <= l->disk_size[m->disk] &&
               (m->offset & (l->granularity - 1)) == 0 &&
               ((end & (l->granularity - 1)) == 0 ||
                end == l->disk_size[m->disk]) &&
               (s->type != WSM_MSG_DATA || m->length == m->bytes);
    }
    return !m->disk && (!m->offset || strchr(s->may, 'o')) &&
           (!m->bytes || strchr(s->may, 'b'));
}

/* A number near those at which something changes */
static uint64_t random_number(void)
{
    static const uint64_t near[] = {
        0, 0, 0, 24, 512, 1024, 4096, 8192, 1 * MiB, 10 * MiB, 64 * MiB,
        1 * GiB, LAST_DISK_END, 1ULL << 32, 1ULL << 63,
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
            msg.disk = g_test_rand_int_range(0, ARRAY_SIZE(disk_size) + 1);
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
    "000102030405060708090a0b0c0d0e0f 0001 0002 0003 0000";

static void test_hello_bytes(void)
{
    g_autoptr(GByteArray) bytes = unhex(hello_hex);
    uint8_t buf[WSM_HELLO_SIZE];
    WsmHello hello;

    g_assert_true(wsm_hello_decode(bytes->data, &hello, &error_abort));
    for (int i = 0; i < 16; i++) {
        g_assert_cmpuint(hello.session.data[i], ==, i);
    }
    g_assert_cmpuint(hello.version, ==, 1);
    g_assert_cmpuint(hello.channel, ==, 2);
    g_assert_cmpuint(hello.channels, ==, 3);

    memset(buf, 0xff, sizeof(buf));
    wsm_hello_encode(&hello, buf);
    g_assert_cmpmem(buf, sizeof(buf), bytes->data, bytes->len);
}

static void test_hello_round_trip(void)
{
    for (int channels = 2; channels <= WSM_MAX_CHANNELS; channels++) {
        for (int channel = 0; channel < channels; channel++) {
            WsmHello in = {
                .version = 1, .channel = channel, .channels = channels,
            };
            uint8_t buf[WSM_HELLO_SIZE];
            WsmHello out;

            qemu_uuid_generate(&in.session);
            wsm_hello_encode(&in, buf);
            g_assert_true(wsm_hello_decode(buf, &out, &error_abort));
            g_assert_true(qemu_uuid_is_equal(&in.session, &out.session));
            g_assert_cmpuint(out.channel, ==, channel);
            g_assert_cmpuint(out.channels, ==, channels);
        }
    }
}

static void test_hello_bad(void)
{
    static const struct {
        const char *hex, *text;
    } bad[] = {
        { "0002 0000 0003 0000", "HELLO: protocol version 2 is not "
          "supported, this QEMU has 1" },
        { "0000 0000 0003 0000", "HELLO: protocol version 0 is not "
          "supported, this QEMU has 1" },
        { "0001 0000 0001 0000",
          "HELLO: channels 1 is not between 2 and 17" },
        { "0001 0000 0000 0000",
          "HELLO: channels 0 is not between 2 and 17" },
        { "0001 0000 0012 0000",
          "HELLO: channels 18 is not between 2 and 17" },
        { "0001 0003 0003 0000", "HELLO: channel 3 is not below channels 3" },
        { "0001 ffff 0011 0000",
          "HELLO: channel 65535 is not below channels 17" },
        { "0001 0000 0003 0100", "HELLO: reserved is 256, but must be 0" },
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
 * START
 */

/* version, channels, granularity, session; disks, reserved */
#define HEAD            "0001 0003 00001000 000102030405060708090a0b0c0d0e0f "
#define ONE_DISK        HEAD "0001 0000 "
/* size, lengths of path and name, "/m/a", "a" */
#define DISK_A          "0000000000200200 0004 0001 2f6d2f61 61 "
#define DISK_B          "0000000040000000 0004 0002 2f6d2f62 6262 "
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
    g_autoptr(GByteArray) bytes = unhex(HEAD "0002 0000 " DISK_A DISK_B);
    g_autoptr(GByteArray) again = NULL;
    WsmStart start;

    g_assert_true(decode_start(bytes->data, bytes->len, &start,
                               &error_abort));
    g_assert_cmpuint(start.version, ==, 1);
    g_assert_cmpuint(start.channels, ==, 3);
    g_assert_cmpuint(start.granularity, ==, 4096);
    for (int i = 0; i < 16; i++) {
        g_assert_cmpuint(start.session.data[i], ==, i);
    }
    g_assert_cmpuint(start.ndisks, ==, 2);
    g_assert_cmpuint(start.disk[0].size, ==, 2 * MiB + 512);
    g_assert_cmpstr(start.disk[0].path, ==, "/m/a");
    g_assert_cmpstr(start.disk[0].name, ==, "a");
    g_assert_cmpuint(start.disk[1].size, ==, 1 * GiB);
    g_assert_cmpstr(start.disk[1].path, ==, "/m/b");
    g_assert_cmpstr(start.disk[1].name, ==, "bb");

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
        { "", "START: header needs 28 bytes, but only 0 follow" },
        { "00", "START: header needs 28 bytes, but only 1 follow" },
        { "0001", "START: header needs 28 bytes, but only 2 follow" },
        /* Another version may have another length */
        { "0002", "START: protocol version 2 is not supported, "
          "this QEMU has 1" },
        { "0000 0003 00001000 000102030405060708090a0b0c0d0e0f 0000 0000",
          "START: protocol version 0 is not supported, this QEMU has 1" },
        { "0001 0001 00001000 000102030405060708090a0b0c0d0e0f 0000 0000",
          "START: channels 1 is not between 2 and 17" },
        { "0001 0012 00001000 000102030405060708090a0b0c0d0e0f 0000 0000",
          "START: channels 18 is not between 2 and 17" },
        { "0001 0003 00000800 000102030405060708090a0b0c0d0e0f 0000 0000",
          "START: granularity 2048 is not a power of two between 4096 "
          "and 1048576" },
        { "0001 0003 00200000 000102030405060708090a0b0c0d0e0f 0000 0000",
          "START: granularity 2097152 is not a power of two between 4096 "
          "and 1048576" },
        { "0001 0003 00003000 000102030405060708090a0b0c0d0e0f 0000 0000",
          "START: granularity 12288 is not a power of two between 4096 "
          "and 1048576" },
        { HEAD "0101 0000", "START: number of disks 257 is above 256" },
        { HEAD "0000 0001", "START: reserved is 1, but must be 0" },
        { HEAD "0000 0000 00", "START: 1 bytes follow the last disk" },
        { ONE_DISK, "START: disk 0: description needs 12 bytes, "
          "but only 0 follow" },
        { ONE_DISK DISK_A "00", "START: 1 bytes follow the last disk" },
        { ONE_DISK DISK_A DISK_B, "START: 18 bytes follow the last disk" },
        { HEAD "0002 0000 " DISK_A, "START: disk 1: description needs 12 "
          "bytes, but only 0 follow" },
        { HEAD "0002 0000 " DISK_A DISK_A,
          "START: disk 1: path '/m/a' is that of disk 0 already" },
        { ONE_DISK "0000000000000000 0004 0001 2f6d2f61 61",
          "START: disk 0: size 0 is not between 1 and "
          "9223372036853727232" },
        { ONE_DISK "7ffffffffff00200 0004 0001 2f6d2f61 61",
          "START: disk 0: size 9223372036853727744 is not between 1 and "
          "9223372036853727232" },
        { ONE_DISK "8000000000000000 0004 0001 2f6d2f61 61",
          "START: disk 0: size 9223372036854775808 is not between 1 and "
          "9223372036853727232" },
        { ONE_DISK "0000000000200201 0004 0001 2f6d2f61 61",
          "START: disk 0: size 2097665 is not a multiple of 512" },
        { ONE_DISK "0000000000200100 0004 0001 2f6d2f61 61",
          "START: disk 0: size 2097408 is not a multiple of 512" },
        { ONE_DISK "0000000000200200 0000 0001 61",
          "START: disk 0: length 0 of path is not between 1 and 512" },
        { ONE_DISK "0000000000200200 0004 0000 2f6d2f61",
          "START: disk 0: length 0 of name is not between 1 and 512" },
        { ONE_DISK "0000000000200200 0201 0001 61",
          "START: disk 0: length 513 of path is not between 1 and 512" },
        { ONE_DISK "0000000000200200 0001 ffff 61",
          "START: disk 0: length 65535 of name is not between 1 and 512" },
        { ONE_DISK "0000000000200200 0005 0001 2f6d2f61",
          "START: disk 0: path needs 5 bytes, but only 4 follow" },
        { ONE_DISK "0000000000200200 0004 0002 2f6d2f61 61",
          "START: disk 0: name needs 2 bytes, but only 1 follow" },
        { ONE_DISK "0000000000200200 0004 0001 2f6d0061 61",
          "START: disk 0: path contains a NUL byte" },
        { ONE_DISK "0000000000200200 0004 0001 2f6d2f61 00",
          "START: disk 0: name contains a NUL byte" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(GByteArray) bytes = unhex(bad[i].hex);

        check_start_bad(bytes, bad[i].text);
    }
}

static void test_start_truncated(void)
{
    g_autoptr(GByteArray) bytes = unhex(HEAD "0002 0000 " DISK_A DISK_B);
    WsmStart start;

    g_assert_true(decode_start(bytes->data, bytes->len, &start,
                               &error_abort));
    wsm_start_destroy(&start);
    while (bytes->len) {
        g_byte_array_set_size(bytes, bytes->len - 1);
        check_start_bad(bytes, NULL);
    }
}

/* A START with @ndisks disks whose strings have @length bytes */
static WsmStart make_start(unsigned ndisks, unsigned length)
{
    WsmStart start = {
        .version = 1,
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
        disk->size = 512ULL * g_test_rand_int_range(1, INT32_MAX);
    }
    return start;
}

static void assert_start_equal(const WsmStart *a, const WsmStart *b)
{
    g_assert_true(qemu_uuid_is_equal(&a->session, &b->session));
    g_assert_cmpuint(a->version, ==, b->version);
    g_assert_cmpuint(a->channels, ==, b->channels);
    g_assert_cmpuint(a->granularity, ==, b->granularity);
    g_assert_cmpuint(a->ndisks, ==, b->ndisks);
    for (unsigned i = 0; i < a->ndisks; i++) {
        g_assert_cmpstr(a->disk[i].path, ==, b->disk[i].path);
        g_assert_cmpstr(a->disk[i].name, ==, b->disk[i].name);
        g_assert_cmpuint(a->disk[i].size, ==, b->disk[i].size);
    }
}

static void check_start_round_trip(unsigned ndisks, unsigned length)
{
    WsmStart in = make_start(ndisks, length), out;
    g_autoptr(GByteArray) bytes = wsm_start_encode(&in);

    g_assert_true(decode_start(bytes->data, bytes->len, &out, &error_abort));
    assert_start_equal(&in, &out);
    wsm_start_destroy(&in);
    wsm_start_destroy(&out);
}

static void test_start_round_trip(void)
{
    check_start_round_trip(0, 1);
    check_start_round_trip(1, 1);
    check_start_round_trip(1, WSM_MAX_PATH);
    check_start_round_trip(WSM_MAX_DISKS, 3);
    check_start_round_trip(WSM_MAX_DISKS, WSM_MAX_PATH);
    for (int i = 0; i < 100; i++) {
        check_start_round_trip(g_test_rand_int_range(0, 100),
                               g_test_rand_int_range(2, 100));
    }
}

static void test_start_max_size(void)
{
    g_autoptr(GByteArray) bytes = unhex(
        ONE_DISK MAX_SIZE " 0004 0001 2f6d2f61 61");
    WsmStart start;

    g_assert_true(decode_start(bytes->data, bytes->len, &start,
                               &error_abort));
    g_assert_cmpuint(start.disk[0].size, ==, LAST_DISK_END);
    wsm_start_destroy(&start);
}

/* Damage some bytes: a START that encodes to the same bytes, or an error */
static void test_start_damaged(void)
{
    for (int i = 0; i < 5000; i++) {
        WsmStart start = make_start(3, 4), out;
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
    g_test_add_func("/wsm/protocol/msg/range", test_msg_range);
    g_test_add_func("/wsm/protocol/msg/no-disks", test_msg_no_disks);
    g_test_add_func("/wsm/protocol/msg/text", test_msg_text);
    g_test_add_func("/wsm/protocol/msg/text-fixed", test_msg_text_fixed);
    g_test_add_func("/wsm/protocol/msg/random", test_msg_random);
    g_test_add_func("/wsm/protocol/hello/bytes", test_hello_bytes);
    g_test_add_func("/wsm/protocol/hello/round-trip", test_hello_round_trip);
    g_test_add_func("/wsm/protocol/hello/bad", test_hello_bad);
    g_test_add_func("/wsm/protocol/start/bytes", test_start_bytes);
    g_test_add_func("/wsm/protocol/start/bad", test_start_bad);
    g_test_add_func("/wsm/protocol/start/truncated", test_start_truncated);
    g_test_add_func("/wsm/protocol/start/round-trip", test_start_round_trip);
    g_test_add_func("/wsm/protocol/start/max-size", test_start_max_size);
    g_test_add_func("/wsm/protocol/start/damaged", test_start_damaged);

    return g_test_run();
}
