/*
 * Whole-system migration: the guest's memory is gone through, for templates
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/ratelimit.h"
#include "qemu/rcu.h"
#include "qemu/stats64.h"
#include "qemu/thread.h"
#include "migration/wsm/memory/ram.h"
#include "migration/wsm/memory/set.h"
#include "migration/wsm/memory/tag.h"
#include "migration/wsm/scan.h"
#include "migration/wsm/trace.h"
#include "system/system.h"

#define WSM_SCAN_BYTES          (64 * KiB)      /* copied at a time */
#define WSM_SCAN_SLICE_NS       (50 * 1000 * 1000)

typedef struct WsmScanBlock {
    char *name;
    uint64_t size;
} WsmScanBlock;

struct WsmScan {
    /* Set in start, never changed */
    QemuThread thread;
    int fd;
    GArray *blocks;             /* of WsmScanBlock */
    uint64_t total;             /* bytes */

    /* The thread */
    WsmPrefixes *wanted;        /* NULL: a digest is made, */
    WsmPrefixes *digest;        /* which is this */
    RateLimit limit;
    uint8_t buf[WSM_SCAN_BYTES];

    Stat64 done, pages;         /* bytes; in the file */
    bool cancelled;             /* atomic */
    WsmScanState state;         /* atomic */
    Error *err;                 /* once it is WSM_SCAN_STATE_FAILED */
};

static bool wsm_scan_is_cancelled(WsmScan *s)
{
    return qatomic_read(&s->cancelled);
}

static bool wsm_scan_write(WsmScan *s, const void *buf, size_t size,
                           Error **errp)
{
    if (qemu_write_full(s->fd, buf, size) != size) {
        error_setg_errno(errp, errno, "cannot write to the file");
        return false;
    }
    return true;
}

/* One page, a copy.  False, and @errp. */
static bool wsm_scan_page(WsmScan *s, const uint8_t *page, Error **errp)
{
    uint8_t hash[WSM_HASH_SIZE];

    if (buffer_is_zero(page, WSM_PAGE_SIZE)) {
        return true;
    }
    wsm_page_hash(page, hash);
    if (s->digest) {
        wsm_prefixes_add(s->digest, wsm_set_prefix(hash));
        return true;
    }
    if (!wsm_prefixes_take(s->wanted, wsm_set_prefix(hash))) {
        return true;
    }
    stat64_add(&s->pages, 1);
    return wsm_scan_write(s, page, WSM_PAGE_SIZE, errp);
}

/* Wait as the limit says; the user may want to cancel it meanwhile */
static void wsm_scan_pause(WsmScan *s, uint64_t bytes)
{
    int64_t ns = ratelimit_calculate_delay(&s->limit, bytes);

    while (ns > 0 && !wsm_scan_is_cancelled(s)) {
        int64_t step = MIN(ns, WSM_SCAN_SLICE_NS);

        g_usleep(step / 1000);
        ns -= step;
    }
}

/* False: it fails, and @errp */
static bool wsm_scan_block(WsmScan *s, const WsmScanBlock *block, Error **errp)
{
    for (uint64_t at = 0; at < block->size && !wsm_scan_is_cancelled(s);
         at += WSM_SCAN_BYTES) {
        uint64_t bytes = MIN(block->size - at, WSM_SCAN_BYTES);

        /* It may have been unplugged */
        if (!wsm_ram_copy(block->name, at, bytes, s->buf)) {
            return true;
        }
        for (uint64_t i = 0; i + WSM_PAGE_SIZE <= bytes; i += WSM_PAGE_SIZE) {
            if (!wsm_scan_page(s, s->buf + i, errp)) {
                return false;
            }
        }
        stat64_add(&s->done, bytes);
        wsm_scan_pause(s, bytes);
    }
    return true;
}

/* The header comes last, so that who reads it knows that the rest is there */
static bool wsm_scan_finish(WsmScan *s, Error **errp)
{
    uint8_t header[WSM_SCAN_HEADER_SIZE];
    g_autoptr(GByteArray) prefixes = NULL;

    if (s->digest) {
        stat64_add(&s->pages, wsm_prefixes_sort(s->digest));
        prefixes = wsm_prefixes_encode(s->digest);
        if (!wsm_scan_write(s, prefixes->data, prefixes->len, errp)) {
            return false;
        }
    }
    wsm_scan_file_encode(s->digest ? WSM_SCAN_FILE_DIGEST
                                   : WSM_SCAN_FILE_PAGES,
                         stat64_get(&s->pages), &qemu_uuid, header);
    if (lseek(s->fd, 0, SEEK_SET) < 0) {
        error_setg_errno(errp, errno, "cannot write to the begin of the file");
        return false;
    }
    return wsm_scan_write(s, header, sizeof(header), errp);
}

static bool wsm_scan_all(WsmScan *s, Error **errp)
{
    static const uint8_t no_header[WSM_SCAN_HEADER_SIZE];

    if (lseek(s->fd, 0, SEEK_SET) < 0 || ftruncate(s->fd, 0) < 0) {
        error_setg_errno(errp, errno, "cannot begin the file");
        return false;
    }
    if (!wsm_scan_write(s, no_header, sizeof(no_header), errp)) {
        return false;
    }
    for (unsigned i = 0; i < s->blocks->len; i++) {
        if (!wsm_scan_block(s, &g_array_index(s->blocks, WsmScanBlock, i),
                            errp)) {
            return false;
        }
    }
    return wsm_scan_is_cancelled(s) || wsm_scan_finish(s, errp);
}

static void *wsm_scan_thread(void *opaque)
{
    WsmScan *s = opaque;
    WsmScanState state;

    rcu_register_thread();
    if (!wsm_scan_all(s, &s->err)) {
        state = WSM_SCAN_STATE_FAILED;
    } else {
        state = wsm_scan_is_cancelled(s) ? WSM_SCAN_STATE_CANCELLED
                                         : WSM_SCAN_STATE_COMPLETED;
    }
    trace_wsm_scan_end(WsmScanState_str(state), stat64_get(&s->pages));
    qemu_close(s->fd);
    qatomic_store_release(&s->state, state);
    rcu_unregister_thread();
    return NULL;
}

/* WsmRamFn */
static void wsm_scan_add_block(void *opaque, const char *name, uint64_t size)
{
    WsmScan *s = opaque;
    WsmScanBlock block = { .name = g_strdup(name), .size = size };

    g_array_append_val(s->blocks, block);
    s->total += size;
}

static void wsm_scan_clear_block(gpointer block)
{
    g_free(((WsmScanBlock *)block)->name);
}

WsmScan *wsm_scan_start(int fd, WsmPrefixes *wanted, uint64_t bandwidth)
{
    WsmScan *s = g_new0(WsmScan, 1);

    GLOBAL_STATE_CODE();
    s->fd = fd;
    s->blocks = g_array_new(false, false, sizeof(WsmScanBlock));
    g_array_set_clear_func(s->blocks, wsm_scan_clear_block);
    wsm_ram_each(wsm_scan_add_block, s);
    s->wanted = wanted;
    s->digest = wanted ? NULL : wsm_prefixes_new();
    ratelimit_init(&s->limit);
    ratelimit_set_speed(&s->limit, bandwidth, WSM_SCAN_SLICE_NS);
    s->state = WSM_SCAN_STATE_RUNNING;
    qemu_thread_create(&s->thread, "wsm-scan", wsm_scan_thread, s,
                       QEMU_THREAD_JOINABLE);
    return s;
}

void wsm_scan_cancel(WsmScan *s)
{
    GLOBAL_STATE_CODE();
    qatomic_set(&s->cancelled, true);
}

void wsm_scan_free(WsmScan *s)
{
    GLOBAL_STATE_CODE();
    if (!s) {
        return;
    }
    wsm_scan_cancel(s);
    qemu_thread_join(&s->thread);
    g_array_unref(s->blocks);
    wsm_prefixes_free(s->wanted);
    wsm_prefixes_free(s->digest);
    ratelimit_destroy(&s->limit);
    error_free(s->err);
    g_free(s);
}

bool wsm_scan_runs(WsmScan *s)
{
    return qatomic_load_acquire(&s->state) == WSM_SCAN_STATE_RUNNING;
}

WsmScanInfo *wsm_scan_info(WsmScan *s)
{
    WsmScanInfo *info = g_new0(WsmScanInfo, 1);

    GLOBAL_STATE_CODE();
    info->state = qatomic_load_acquire(&s->state);
    info->total = s->total;
    info->done = stat64_get(&s->done);
    info->pages = stat64_get(&s->pages);
    if (info->state == WSM_SCAN_STATE_FAILED) {
        info->error = g_strdup(error_get_pretty(s->err));
    }
    return info;
}
