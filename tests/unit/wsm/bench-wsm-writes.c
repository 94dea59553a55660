/*
 * Benchmark: what sync points cost a write
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Opens a disk, gives it sync points and writes blocks of 4 KiB at random
 * places.  Run it with two numbers of writes under a tool that counts
 * instructions: the difference is what the writes took.  The places are the
 * same each time.  "scripts/bench --only tracking" does that.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "block/block.h"
#include "block/block_int.h"
#include "system/block-backend.h"
#include "migration/wsm/image/points.h"

#define BLOCK       (4 * KiB)
#define DISK_BLOCKS (512 * MiB / BLOCK)
#define DATA_BLOCKS (256 * MiB / BLOCK)

/* @path NULL: a disk that stores nothing, for the block layer alone */
static BlockBackend *open_disk(const char *path)
{
    QDict *options = qdict_new();

    if (path) {
        qdict_put_str(options, "driver", "raw");
    } else {
        qdict_put_str(options, "driver", "null-co");
        qdict_put_int(options, "size", DISK_BLOCKS * BLOCK);
    }
    return blk_new_open(path, NULL, options, BDRV_O_RDWR, &error_fatal);
}

static void add_points(BlockBackend *blk, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        QemuUUID id = { .data = { [15] = i + 1 } };

        wsm_points_add(blk_bs(blk), &id, BLOCK, NULL, &error_fatal);
    }
}

static void write_blocks(BlockBackend *blk, unsigned long count)
{
    g_autofree uint8_t *buf = g_malloc0(BLOCK);
    uint64_t random = 1;

    memset(buf, 0xa5, BLOCK);
    while (count--) {
        random = random * 6364136223846793005 + 1442695040888963407;
        if (blk_pwrite(blk, (random >> 33) % DATA_BLOCKS * BLOCK, BLOCK, buf,
                       0) < 0) {
            error_report("cannot write");
            exit(1);
        }
    }
}

int main(int argc, char **argv)
{
    BlockBackend *blk;
    unsigned points;
    unsigned long writes;

    if (argc < 3 || argc > 4 || qemu_strtoui(argv[1], NULL, 10, &points) < 0 ||
        qemu_strtoul(argv[2], NULL, 10, &writes) < 0) {
        fprintf(stderr, "usage: %s POINTS WRITES [RAW-IMAGE]\n", argv[0]);
        return 1;
    }
    qemu_init_main_loop(&error_fatal);
    bdrv_init();
    blk = open_disk(argv[3]);
    add_points(blk, points);
    write_blocks(blk, writes);
    blk_unref(blk);
    return 0;
}
