/*
 * Unit tests of migration/wsm/memory/payload.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "migration/wsm/memory/payload.h"

/* Disk 1 ends within a page, and that end is none */
static const int64_t disk_size[] = { 1 * GiB, 10 * KiB, 512 };

static const WsmRef two[] = {
    { .kind = WSM_REF_DISK, .disk = 1, .block = 1,
      .tag = "0123456789abcde" },
    { .kind = WSM_REF_DISK, .disk = 0, .block = 262143,
      .tag = { 0xff } },
};

/* What docs/protocol.md shows */
static const uint8_t bytes[] = {
    1, 1, 0, 7, 0, 2, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0,
    1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e',
    0,
    1, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0xff, 0xff,
    0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
};

static void test_bytes(void)
{
    WsmPacket packet = {
        .packing = WSM_PACKING_ZSTD, .block = 7, .nrefs = 2, .bytes = 9,
    }, out;
    uint8_t buf[sizeof(bytes)];
    WsmRef refs[2];

    g_assert_cmpuint(wsm_packet_encode(&packet, two, buf), ==, sizeof(buf));
    g_assert_cmpmem(buf, sizeof(buf), bytes, sizeof(bytes));
    g_assert_true(wsm_packet_decode(buf, sizeof(buf) + 9, 3, &out,
                                    &error_abort));
    g_assert_cmpint(out.packing, ==, packet.packing);
    g_assert_cmpint(out.block, ==, packet.block);
    g_assert_cmpint(out.nrefs, ==, packet.nrefs);
    g_assert_cmpint(out.bytes, ==, packet.bytes);
    g_assert_cmpuint(wsm_packet_refs_size(&out), ==,
                     sizeof(bytes) - WSM_PACKET_SIZE);
    g_assert_true(wsm_refs_decode(&out, buf + WSM_PACKET_SIZE,
                                  ARRAY_SIZE(disk_size), disk_size, refs,
                                  &error_abort));
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(refs[i].kind, ==, two[i].kind);
        g_assert_cmpint(refs[i].disk, ==, two[i].disk);
        g_assert_cmpuint(refs[i].block, ==, two[i].block);
        g_assert_cmpmem(refs[i].tag, WSM_TAG_SIZE, two[i].tag, WSM_TAG_SIZE);
    }
}

/* What is not of a disk is checked by who knows what there is */
static void test_template(void)
{
    WsmRef ref = {
        .kind = WSM_REF_TEMPLATE, .disk = 255, .block = UINT64_MAX,
    }, out;
    WsmPacket packet = { .nrefs = 1 };
    uint8_t buf[WSM_PACKET_SIZE + WSM_REF_SIZE];

    wsm_packet_encode(&packet, &ref, buf);
    g_assert_cmpint(buf[WSM_PACKET_SIZE], ==, 3);
    g_assert_true(wsm_refs_decode(&packet, buf + WSM_PACKET_SIZE, 0, NULL,
                                  &out, &error_abort));
    g_assert_cmpint(out.kind, ==, WSM_REF_TEMPLATE);
    g_assert_cmpint(out.disk, ==, 255);
    g_assert_cmpuint(out.block, ==, UINT64_MAX);
}

static void assert_error(Error *err, const char *text)
{
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
}

/* One byte of the example is another, and the size may be */
static void test_bad_packet(void)
{
    static const struct {
        size_t at;
        uint8_t byte;
        int more;
        unsigned pages;
        const char *text;
    } bad[] = {
        { 0, 1, -72, 3, "9 bytes are no packet" },
        { 0, 2, 0, 3, "version 2 is not 1" },
        { 1, 2, 0, 3, "packing 2 is not below 2" },
        { 2, 4, 0, 3, "block of memory 1031 is not below 1024" },
        { 4, 1, 0, 3, "258 references are more than 3 pages" },
        { 5, 4, 0, 3, "4 references are more than 3 pages" },
        { 6, 1, 0, 3, "reserved is 256, but must be 0" },
        { 15, 1, 0, 3, "reserved is 1, but must be 0" },
        { 8, 0xff, 0, 3, "2 references and 4278190089 bytes of content are "
          "not the 81 bytes of the packet" },
        { 0, 1, 1, 3, "2 references and 9 bytes of content are not the 82 "
          "bytes of the packet" },
        { 1, 0, 0, 3, "9 bytes of content are not that of 1 pages" },
        { 0, 1, 0, 2, "9 bytes of content are not that of 0 pages" },
        { 11, 0, -9, 3, "0 bytes of content are not that of 1 pages" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        uint8_t buf[sizeof(bytes)];
        Error *err = NULL;
        WsmPacket packet;

        memcpy(buf, bytes, sizeof(buf));
        buf[bad[i].at] = bad[i].byte;
        g_assert_false(wsm_packet_decode(buf, sizeof(buf) + 9 + bad[i].more,
                                         bad[i].pages, &packet, &err));
        assert_error(err, bad[i].text);
    }
}

static void test_bad_ref(void)
{
    static const struct {
        size_t at;
        uint8_t byte;
        const char *text;
    } bad[] = {
        { 0, 0, "reference 0: kind 0 is unknown" },
        { 28, 4, "reference 1: kind 4 is unknown" },
        { 1, 3, "reference 0: disk 3 is not below the number of disks 3" },
        { 3, 1, "reference 0: reserved is 1, but must be 0" },
        /* The end of this disk is no page, and all of that one is none */
        { 11, 2, "reference 0: block 2 is beyond disk 1 of size 10240" },
        { 1, 2, "reference 0: block 1 is beyond disk 2 of size 512" },
        /* Its offset in bytes would not fit */
        { 32, 0xff, "reference 1: block 18374686479671885823 is beyond disk 0 "
          "of size 1073741824" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        WsmPacket packet = { .nrefs = 2 };
        uint8_t buf[2 * WSM_REF_SIZE];
        Error *err = NULL;
        WsmRef refs[2];

        memcpy(buf, bytes + WSM_PACKET_SIZE, sizeof(buf));
        buf[bad[i].at] = bad[i].byte;
        g_assert_false(wsm_refs_decode(&packet, buf, ARRAY_SIZE(disk_size),
                                       disk_size, refs, &err));
        assert_error(err, bad[i].text);
    }
}

/* What is accepted is within all limits, and encodes to the same bytes */
static void test_random(void)
{
    unsigned accepted = 0;

    for (int i = 0; i < 200000; i++) {
        uint8_t buf[sizeof(bytes)], again[sizeof(bytes)];
        unsigned pages = g_test_rand_int_range(1, 5);
        size_t size = sizeof(buf) + g_test_rand_int_range(0, 12);
        WsmPacket packet;
        WsmRef refs[WSM_PACKET_PAGES];

        memcpy(buf, bytes, sizeof(buf));
        for (int n = g_test_rand_int_range(0, 3); n; n--) {
            buf[g_test_rand_int_range(0, sizeof(buf))] =
                g_test_rand_int_range(0, 4);
        }
        if (!wsm_packet_decode(buf, size, pages, &packet, NULL) ||
            packet.nrefs > 2 ||
            !wsm_refs_decode(&packet, buf + WSM_PACKET_SIZE,
                             ARRAY_SIZE(disk_size), disk_size, refs, NULL)) {
            continue;
        }
        accepted++;
        g_assert_cmpint(packet.nrefs, <=, pages);
        g_assert_cmpuint(WSM_PACKET_SIZE + wsm_packet_refs_size(&packet) +
                         packet.bytes, ==, size);
        for (int r = 0; r < packet.nrefs; r++) {
            g_assert_true(refs[r].kind == WSM_REF_DISK ||
                          refs[r].kind == WSM_REF_TEMPLATE);
            if (refs[r].kind != WSM_REF_DISK) {
                continue;
            }
            g_assert_cmpint((refs[r].block + 1) * WSM_PAGE_SIZE, <=,
                            disk_size[refs[r].disk]);
        }
        wsm_packet_encode(&packet, refs, again);
        g_assert_cmpmem(buf, WSM_PACKET_SIZE + wsm_packet_refs_size(&packet),
                        again,
                        WSM_PACKET_SIZE + wsm_packet_refs_size(&packet));
    }
    g_assert_cmpint(accepted, >, 100);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/packet/bytes", test_bytes);
    g_test_add_func("/wsm/packet/bad", test_bad_packet);
    g_test_add_func("/wsm/packet/bad-reference", test_bad_ref);
    g_test_add_func("/wsm/packet/template", test_template);
    g_test_add_func("/wsm/packet/random", test_random);
    return g_test_run();
}
