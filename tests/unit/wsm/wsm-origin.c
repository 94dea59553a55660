/*
 * For unit tests of the source: a source, its guest's disks, and what it asks
 * of QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "crypto/init.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-block-export.h"
#include "qapi/qapi-types-migration.h"
#include "qapi/qapi-visit-wsm.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/yank.h"
#include "migration/options.h"
#include "migration/wsm/image/points.h"
#include "migration/wsm/link/peer.h"
#include "wsm-origin.h"

/*
 * What the source asks of QEMU
 */

uint64_t origin_max_bandwidth, origin_max_postcopy_bandwidth;
bool origin_dirty_bitmaps;
const char *origin_export_node;
void (*origin_on_select)(void);

uint64_t migrate_max_bandwidth(void)
{
    return qatomic_read(&origin_max_bandwidth);
}

uint64_t migrate_max_postcopy_bandwidth(void)
{
    return qatomic_read(&origin_max_postcopy_bandwidth);
}

bool migrate_dirty_bitmaps(void)
{
    return origin_dirty_bitmaps;
}

/* Instead of link/peer.c; there is no target at first */
char *wsm_uri_of_address(SocketAddress *addr)
{
    return g_strdup_printf("unix:%s", addr ? addr->u.q_unix.path
                                           : ORIGIN_PATH);
}

BlockExportInfoList *qmp_query_block_exports(Error **errp)
{
    BlockExportInfoList *list = NULL;

    if (origin_export_node) {
        BlockExportInfo *info = g_new0(BlockExportInfo, 1);

        info->id = g_strdup("export0");
        info->node_name = g_strdup(origin_export_node);
        QAPI_LIST_PREPEND(list, info);
    }
    return list;
}

/* Instead of image/guest-disk.c, beside wsm-disks.c */

static bool is_wanted(const WsmDisk *disk, strList *wanted)
{
    bool found = !wanted;

    for (; wanted && !found; wanted = wanted->next) {
        found = wsm_disk_is_called(disk, wanted->value);
    }
    return found;
}

GPtrArray *wsm_disk_select(GArray *all, strList *wanted,
                           WsmExcludedDiskList **excluded, Error **errp)
{
    GPtrArray *selected = g_ptr_array_new();

    if (origin_on_select) {
        origin_on_select();
    }
    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);
        WsmExcludedDisk *e;

        if (is_wanted(disk, wanted) && blk_supports_write_perm(disk->blk)) {
            g_ptr_array_add(selected, disk);
            continue;
        }
        e = g_new0(WsmExcludedDisk, 1);
        e->name = g_strdup(disk->name);
        e->reason = g_strdup("not selected");
        QAPI_LIST_PREPEND(*excluded, e);
    }
    if (wanted && !selected->len) {
        error_setg(errp, "no disk '%s'", wanted->value);
        g_ptr_array_unref(selected);
        return NULL;
    }
    return selected;
}

/*
 * Disks in memory
 */

typedef struct OriginState {
    OriginDisk *d;              /* NULL until it is open */
} OriginState;

static OriginDisk *disk_of(BlockDriverState *bs)
{
    OriginState *state = bs->opaque;

    return state->d;
}

static int coroutine_fn mem_co_preadv(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, QEMUIOVector *qiov,
                                      BdrvRequestFlags flags)
{
    OriginDisk *d = disk_of(bs);

    qatomic_inc(&d->reads);
    qemu_iovec_from_buf(qiov, 0, d->data + offset, bytes);
    return qatomic_read(&d->read_error);
}

static int coroutine_fn mem_co_pwritev(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       BdrvRequestFlags flags)
{
    qemu_iovec_to_buf(qiov, 0, disk_of(bs)->data + offset, bytes);
    return 0;
}

static int coroutine_fn mem_co_flush(BlockDriverState *bs)
{
    qatomic_inc(&disk_of(bs)->flushes);
    return qatomic_read(&disk_of(bs)->flush_error);
}

/* Sector by sector, as long as it is the same */
static int coroutine_fn mem_co_block_status(BlockDriverState *bs,
                                            bool want_zero, int64_t offset,
                                            int64_t bytes, int64_t *pnum,
                                            int64_t *map,
                                            BlockDriverState **file)
{
    OriginDisk *d = disk_of(bs);
    bool zero = buffer_is_zero(d->data + offset, BDRV_SECTOR_SIZE);
    int ret = qatomic_read(&d->status_error);

    if (ret < 0) {
        return ret;
    }
    for (*pnum = BDRV_SECTOR_SIZE; *pnum < bytes; *pnum += BDRV_SECTOR_SIZE) {
        if (buffer_is_zero(d->data + offset + *pnum,
                           BDRV_SECTOR_SIZE) != zero) {
            break;
        }
    }
    *map = offset;
    *file = bs;
    return BDRV_BLOCK_OFFSET_VALID | (zero ? BDRV_BLOCK_ZERO
                                           : BDRV_BLOCK_DATA);
}

static int64_t coroutine_fn mem_co_getlength(BlockDriverState *bs)
{
    return disk_of(bs) ? qatomic_read(&disk_of(bs)->size_error) ?:
                         disk_of(bs)->size : 0;
}

static int64_t coroutine_fn mem_co_allocated(BlockDriverState *bs)
{
    return disk_of(bs)->allocated;
}

static int mem_open(BlockDriverState *bs, QDict *options, int flags,
                    Error **errp)
{
    return 0;
}

/* So that it is asked for its size */
static void mem_refresh_limits(BlockDriverState *bs, Error **errp)
{
    bs->bl.has_variable_length = true;
}

static BlockDriver bdrv_origin = {
    .format_name                    = "test-origin",
    .instance_size                  = sizeof(OriginState),
    .bdrv_open                      = mem_open,
    .bdrv_refresh_limits            = mem_refresh_limits,
    .bdrv_co_preadv                 = mem_co_preadv,
    .bdrv_co_pwritev                = mem_co_pwritev,
    .bdrv_co_flush                  = mem_co_flush,
    .bdrv_co_block_status           = mem_co_block_status,
    .bdrv_co_getlength              = mem_co_getlength,
    .bdrv_co_get_allocated_file_size = mem_co_allocated,
    .bdrv_child_perm                = bdrv_default_perms,
};

void origin_add_disk(OriginDisk *d, const char *name, int64_t size)
{
    OriginState *state;

    *d = (OriginDisk) {
        .name = name, .size = size, .data = g_malloc0(size), .allocated = size,
    };
    d->bs = bdrv_new_open_driver(&bdrv_origin, name, BDRV_O_RDWR, &error_abort);
    state = d->bs->opaque;
    state->d = d;
    d->bs->total_sectors = size / BDRV_SECTOR_SIZE;
    d->blk = blk_new(qemu_get_aio_context(),
                     BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL);
    blk_insert_bs(d->blk, d->bs, &error_abort);
    blk_set_force_allow_inactivate(d->blk);
    disks_plug(name, d->blk);
}

void origin_remove_disk(OriginDisk *d)
{
    disks_unplug(d->name);
    wsm_points_clear(d->bs);
    blk_unref(d->blk);
    g_assert_cmpint(d->bs->refcnt, ==, 1);
    bdrv_unref(d->bs);
    g_free(d->data);
}

void origin_write(OriginDisk *d, unsigned block, unsigned blocks, uint8_t byte)
{
    int64_t offset = (int64_t)block * ORIGIN_BLOCK;
    int64_t bytes = MIN((int64_t)blocks * ORIGIN_BLOCK, d->size - offset);
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    g_assert_cmpint(blk_pwrite(d->blk, offset, bytes, buf, 0), ==, 0);
}

/*
 * The source
 */

void origin_init_tests(int *argc, char ***argv)
{
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    disks_init(argc, argv);
    qcrypto_init(&error_abort);
}

static void tell(WsmRole role, const QemuUUID *id, WsmPhase phase)
{
    g_assert_cmpint(role, ==, WSM_ROLE_SOURCE);
}

void origin_init(Origin *o)
{
    *o = (Origin) {};
    origin_max_bandwidth = origin_max_postcopy_bandwidth = 0;
    origin_dirty_bitmaps = false;
    origin_export_node = NULL;
    origin_on_select = NULL;
    wsm_session_init(&o->session, tell);
    wsm_options_init(&o->options);
    wsm_images_init(&o->images);
    origin_set(o, granularity, ORIGIN_BLOCK);
}

/* Of disks in memory there is no record: that need not be said each time */
static void keep_quiet(Origin *o)
{
    g_autoptr(GArray) all = wsm_disk_list();

    for (unsigned i = 0; i < all->len; i++) {
        WsmDisk *disk = &g_array_index(all, WsmDisk, i);
        WsmImage *image = blk_bs(disk->blk) ? wsm_image_get(&o->images, disk)
                                            : NULL;

        if (image && !image->file) {
            image->told = true;
        }
    }
}

void origin_new(Origin *o, unsigned bulk)
{
    keep_quiet(o);
    origin_set(o, channels, bulk);
    yank_register_instance(MIGRATION_YANK_INSTANCE, &error_abort);
    o->s = wsm_source_new(&o->session, &o->options, &o->images, ORIGIN_PEER,
                          NULL);
}

void origin_start(Origin *o, unsigned bulk)
{
    origin_new(o, bulk);
    g_assert_true(wsm_source_start(o->s, &error_abort));
    target_init(&o->s->start, o->s->disk_size);
}

void origin_stop(Origin *o)
{
    if (o->s) {
        wsm_source_stop(o->s);
        target_cleanup();
        wsm_source_free(g_steal_pointer(&o->s));
        yank_unregister_instance(MIGRATION_YANK_INSTANCE);
    }
}

void origin_destroy(Origin *o)
{
    origin_stop(o);
    g_ptr_array_unref(o->images.list);
    wsm_options_destroy(&o->options);
    wsm_session_destroy(&o->session);
}

void origin_await(Origin *o, WsmMilestone m)
{
    target_poll_until(wsm_has_reached(&o->s->milestones, m));
}

typedef struct Run {
    void (*fn)(void *opaque);
    void *opaque;
    bool done;                  /* atomic; so that TSan sees who waited */
} Run;

static void run_bh(void *opaque)
{
    Run *run = opaque;

    run->fn(run->opaque);
    qatomic_store_release(&run->done, true);
}

void origin_run(Origin *o, void (*fn)(void *opaque), void *opaque)
{
    Run run = { .fn = fn, .opaque = opaque };

    aio_wait_bh_oneshot(o->s->loop.ctx, run_bh, &run);
    g_assert_true(qatomic_load_acquire(&run.done));
}

static void begin_pass_bh(void *opaque)
{
    Origin *o = opaque;

    wsm_work_begin_pass(o->s->work);
}

void origin_begin_pass(Origin *o)
{
    wsm_unreach(&o->s->milestones, WSM_PASS_DONE);
    origin_run(o, begin_pass_bh, o);
}

static void begin_push_bh(void *opaque)
{
    Origin *o = opaque;

    wsm_work_begin_push(o->s->work);
}

void origin_begin_push(Origin *o)
{
    origin_run(o, begin_push_bh, o);
}

bool origin_is_dirty(Origin *o, unsigned disk, unsigned block)
{
    return bdrv_dirty_bitmap_get(wsm_work_dirty_bitmap(o->s->work, disk),
                                 (int64_t)block * ORIGIN_BLOCK);
}

bool origin_has_fatal(Origin *o)
{
    g_autoptr(Error) err = wsm_fatal(&o->s->milestones);

    return err;
}

void origin_expect_fatal(Origin *o, const char *text)
{
    Error *err = wsm_fatal(&o->s->milestones);

    if (text) {
        disks_error(err, text);
    } else if (err) {
        g_error("gave up: %s", error_get_pretty(err));
    }
}

void origin_expect_error(Origin *o, const char *text)
{
    g_autoptr(WsmInfo) info = g_new0(WsmInfo, 1);

    wsm_session_info(&o->session, info);
    g_assert_nonnull(info->error);
    g_test_message("%s", info->error);
    g_assert_nonnull(strstr(info->error, text));
}
