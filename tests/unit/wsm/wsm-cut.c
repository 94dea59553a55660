/*
 * For unit tests: a small disk in memory, and what a power cut leaves of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/graph-lock.h"
#include "qemu/coroutine.h"
#include "qobject/qdict.h"
#include "wsm-cut.h"

#define SECTOR  512

typedef struct CutWrite {
    size_t offset, bytes;
    uint8_t *buf;
} CutWrite;

typedef struct CutState {
    CutDisk *disk;
} CutState;

static CutDisk *to_open;        /* options cannot have a pointer */

static void write_free(void *opaque)
{
    CutWrite *w = opaque;

    g_free(w->buf);
    g_free(w);
}

static GByteArray *copy_of(const GByteArray *array)
{
    GByteArray *copy = g_byte_array_sized_new(array->len);

    g_byte_array_append(copy, array->data, array->len);
    return copy;
}

static void grow(GByteArray *array, size_t size)
{
    size_t before = array->len;

    if (size > before) {
        g_byte_array_set_size(array, size);
        memset(array->data + before, 0, size - before);
    }
}

/*
 * Power cuts
 */

typedef enum Fate {
    FATE_LOST,
    FATE_THERE,
    FATE_TORN,
} Fate;

static void tear(GByteArray *image, const CutWrite *w, GRand *rand,
                 bool garbage)
{
    for (size_t at = 0; at < w->bytes; at += SECTOR) {
        uint8_t *to = image->data + w->offset + at;
        int dice = g_rand_int_range(rand, 0, 8);

        if (dice < 4) {
            memcpy(to, w->buf + at, SECTOR);
        } else if (dice == 4 && garbage) {
            for (int i = 0; i < SECTOR; i += 4) {
                stl_he_p(to + i, g_rand_int(rand));
            }
        }
    }
}

GByteArray *cut_power(CutDisk *disk, GRand *rand, bool garbage)
{
    GByteArray *image = copy_of(disk->durable);

    for (guint i = 0; i < disk->writes->len; i++) {
        const CutWrite *w = g_ptr_array_index(disk->writes, i);
        Fate fate = g_rand_int_range(rand, FATE_LOST, FATE_TORN + 1);

        if (fate != FATE_LOST) {
            grow(image, w->offset + w->bytes);
        }
        if (fate == FATE_THERE) {
            memcpy(image->data + w->offset, w->buf, w->bytes);
        } else if (fate == FATE_TORN) {
            tear(image, w, rand, garbage);
        }
    }
    return image;
}

void cut_disk_set(CutDisk *disk, GByteArray *image)
{
    g_byte_array_unref(disk->now);
    g_byte_array_unref(disk->durable);
    disk->durable = image;
    disk->now = copy_of(image);
    g_ptr_array_set_size(disk->writes, 0);
}

/*
 * The driver
 */

static int cut_open_node(BlockDriverState *bs, QDict *options, int flags,
                         Error **errp)
{
    CutState *s = bs->opaque;

    s->disk = to_open;
    return 0;
}

/* True if it shall fail */
static bool begin_op(CutDisk *disk)
{
    disk->ops++;
    return disk->ops == disk->fail_at ||
           (disk->fail_from && disk->ops >= disk->fail_from);
}

static void tell(CutDisk *disk)
{
    if (disk->hook) {
        disk->hook(disk->opaque);
    }
}

static int coroutine_fn GRAPH_RDLOCK
cut_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
           QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    CutDisk *disk = ((CutState *)bs->opaque)->disk;

    g_assert_cmpint(offset + bytes, <=, disk->now->len);
    qemu_iovec_from_buf(qiov, 0, disk->now->data + offset, bytes);
    return 0;
}

/* One that fails may have been done all the same */
static int coroutine_fn GRAPH_RDLOCK
cut_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
            QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    CutDisk *disk = ((CutState *)bs->opaque)->disk;
    bool fails = begin_op(disk);
    CutWrite *w = g_new(CutWrite, 1);

    g_assert_cmpint(offset % SECTOR, ==, 0);
    g_assert_cmpint(bytes % SECTOR, ==, 0);
    g_assert_cmpint(offset + bytes, <=, disk->now->len);
    *w = (CutWrite) { offset, bytes, g_malloc(bytes) };
    qemu_iovec_to_buf(qiov, 0, w->buf, bytes);
    memcpy(disk->now->data + offset, w->buf, bytes);
    g_ptr_array_add(disk->writes, w);
    tell(disk);
    return fails ? -EIO : 0;
}

static void make_durable(CutDisk *disk)
{
    for (guint i = 0; i < disk->writes->len; i++) {
        const CutWrite *w = g_ptr_array_index(disk->writes, i);

        grow(disk->durable, w->offset + w->bytes);
        memcpy(disk->durable->data + w->offset, w->buf, w->bytes);
    }
    grow(disk->durable, disk->now->len);
    g_ptr_array_set_size(disk->writes, 0);
}

/*
 * What a flush that fails has not written, the kernel takes for clean from then
 * on: the next one, which succeeds, does not write it either.
 */
static void forget_some(CutDisk *disk)
{
    for (guint i = 0; i < disk->writes->len; i++) {
        g_ptr_array_remove_index(disk->writes, i);
    }
}

static int coroutine_fn GRAPH_RDLOCK cut_flush(BlockDriverState *bs)
{
    CutDisk *disk = ((CutState *)bs->opaque)->disk;
    bool fails = begin_op(disk);

    disk->waiting++;
    while (disk->hold) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
    }
    disk->waiting--;
    tell(disk);
    if (!fails) {
        make_durable(disk);
        return 0;
    }
    if (disk->forgets) {
        forget_some(disk);
    }
    return -EIO;
}

static int64_t coroutine_fn GRAPH_RDLOCK cut_getlength(BlockDriverState *bs)
{
    return ((CutState *)bs->opaque)->disk->now->len;
}

static int coroutine_fn GRAPH_RDLOCK
cut_truncate(BlockDriverState *bs, int64_t offset, bool exact,
             PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    CutDisk *disk = ((CutState *)bs->opaque)->disk;

    g_assert_cmpint(offset, >=, disk->now->len);
    if (disk->fixed) {
        error_setg(errp, "it cannot grow");
        return -ENOTSUP;
    }
    grow(disk->now, offset);
    return 0;
}

static BlockDriver bdrv_cut = {
    .format_name        = "test-cut",
    .protocol_name      = "test-cut",
    .instance_size      = sizeof(CutState),
    .bdrv_open          = cut_open_node,
    .bdrv_co_preadv     = cut_preadv,
    .bdrv_co_pwritev    = cut_pwritev,
    .bdrv_co_flush      = cut_flush,
    .bdrv_co_getlength  = cut_getlength,
    .bdrv_co_truncate   = cut_truncate,
};

void cut_register(void)
{
    bdrv_register(&bdrv_cut);
}

CutDisk *cut_disk_new(size_t size)
{
    CutDisk *disk = g_new0(CutDisk, 1);

    disk->now = g_byte_array_new();
    grow(disk->now, size);
    disk->durable = copy_of(disk->now);
    disk->writes = g_ptr_array_new_with_free_func(write_free);
    return disk;
}

void cut_disk_free(CutDisk *disk)
{
    g_byte_array_unref(disk->now);
    g_byte_array_unref(disk->durable);
    g_ptr_array_unref(disk->writes);
    g_free(disk);
}

BlockBackend *cut_open(CutDisk *disk)
{
    QDict *options = qdict_new();

    to_open = disk;
    qdict_put_str(options, "driver", "test-cut");
    return blk_new_open(NULL, NULL, options, BDRV_O_RDWR | BDRV_O_RESIZE |
                        BDRV_O_PROTOCOL, &error_abort);
}
