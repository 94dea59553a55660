/*
 * Whole-system migration: the memory of a guest that has left is kept
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "migration/wsm/image/beside.h"
#include "migration/wsm/memory/kept.h"
#include "migration/wsm/memory/ram.h"
#include "migration/wsm/source/keep.h"
#include "migration/wsm/trace.h"

#define WSM_KEEP_PAGES          256     /* at a time */

struct WsmKeep {
    /* Set in start, never changed */
    char *file;
    WsmKept kept;
    QemuThread thread;

    bool quit;                  /* atomic: it is to end */
    uint64_t bytes;             /* atomic: of pages that were written */
    uint8_t *buf;               /* the thread's */

    QemuMutex lock;             /* protects the fields below */
    QemuCond done;
    WsmKeepState state;
    char *error;                /* NULL: it has not failed */
};

/*
 * The thread
 */

static bool wsm_keep_write(int fd, const void *buf, size_t bytes,
                           uint64_t offset, Error **errp)
{
    const uint8_t *p = buf;

    while (bytes) {
        ssize_t ret = RETRY_ON_EINTR(pwrite(fd, p, bytes, offset));

        if (ret <= 0) {
            error_setg_errno(errp, ret < 0 ? errno : ENOSPC, "cannot write");
            return false;
        }
        p += ret;
        bytes -= ret;
        offset += ret;
    }
    return true;
}

/* The pages @from to @to of the buffer, of which the first is @first's */
static bool wsm_keep_run(WsmKeep *k, int fd, uint64_t first, unsigned from,
                         unsigned to, Error **errp)
{
    size_t bytes = (to - from) * (size_t)WSM_PAGE_SIZE;

    if (!bytes) {
        return true;
    }
    qatomic_set(&k->bytes, k->bytes + bytes);
    return wsm_keep_write(fd, k->buf + from * (size_t)WSM_PAGE_SIZE, bytes,
                          wsm_kept_page_at(&k->kept, first + from), errp);
}

/* What is in the buffer: @pages from @first on, but not those of zeroes */
static bool wsm_keep_pages(WsmKeep *k, int fd, uint64_t first, unsigned pages,
                           Error **errp)
{
    uint8_t prints[WSM_KEEP_PAGES * WSM_PRINT_SIZE] = {};
    unsigned from = 0;

    for (unsigned i = 0; i < pages; i++) {
        const uint8_t *page = k->buf + i * (size_t)WSM_PAGE_SIZE;

        if (buffer_is_zero(page, WSM_PAGE_SIZE)) {
            if (!wsm_keep_run(k, fd, first, from, i, errp)) {
                return false;
            }
            from = i + 1;
        } else {
            stq_be_p(prints + i * WSM_PRINT_SIZE,
                     wsm_page_print(&k->kept.seed, page));
        }
    }
    return wsm_keep_run(k, fd, first, from, pages, errp) &&
           wsm_keep_write(fd, prints, pages * WSM_PRINT_SIZE,
                          wsm_kept_print_at(&k->kept, first), errp);
}

static bool wsm_keep_block(WsmKeep *k, int fd, const WsmKeptBlock *b,
                           Error **errp)
{
    for (uint64_t i = 0; i < b->pages; i += WSM_KEEP_PAGES) {
        unsigned pages = MIN(WSM_KEEP_PAGES, b->pages - i);

        if (qatomic_read(&k->quit)) {
            error_setg(errp, "QEMU ended too soon");
            return false;
        }
        /* The guest stands still, but what is hashed is what is written */
        if (!wsm_ram_copy(b->name, i * WSM_PAGE_SIZE,
                          pages * (uint64_t)WSM_PAGE_SIZE, k->buf)) {
            error_setg(errp, "memory '%s' is gone", b->name);
            return false;
        }
        if (!wsm_keep_pages(k, fd, b->first + i, pages, errp)) {
            return false;
        }
    }
    return true;
}

/*
 * WsmBesideFn.  It is not synced: after a power cut it may have other bytes
 * than these, and these are not found then, as the tag is not theirs.
 */
static bool wsm_keep_all(void *opaque, int fd, const char *path, Error **errp)
{
    WsmKeep *k = opaque;
    g_autoptr(GByteArray) head = wsm_kept_encode(&k->kept);

    if (ftruncate(fd, wsm_kept_size(&k->kept)) < 0) {
        error_setg_errno(errp, errno, "cannot make it as long as memory");
        return false;
    }
    if (!wsm_keep_write(fd, head->data, head->len, 0, errp)) {
        return false;
    }
    for (unsigned i = 0; i < k->kept.nblocks; i++) {
        if (!wsm_keep_block(k, fd, &k->kept.block[i], errp)) {
            return false;
        }
    }
    return true;
}

static void *wsm_keep_thread(void *opaque)
{
    Error *err = NULL;
    WsmKeep *k = opaque;
    bool ok;

    rcu_register_thread();
    ok = wsm_beside_replace(k->file, wsm_keep_all, k, &err);
    trace_wsm_keep(k->file, qatomic_read(&k->bytes), ok);
    WITH_QEMU_LOCK_GUARD(&k->lock) {
        k->state = ok ? WSM_KEEP_STATE_KEPT : WSM_KEEP_STATE_FAILED;
        k->error = err ? g_strdup(error_get_pretty(err)) : NULL;
        qemu_cond_broadcast(&k->done);
    }
    if (err) {
        warn_reportf_err(err, "The guest's memory is not kept in '%s': ",
                         k->file);
    }
    rcu_unregister_thread();
    return NULL;
}

/*
 * Main thread
 */

/* WsmRamFn */
static void wsm_keep_add(void *opaque, const char *name, uint64_t size)
{
    WsmKeep *k = opaque;

    if (k->kept.nblocks < WSM_MAX_RAM_BLOCKS) {
        wsm_kept_add(&k->kept, name, size / WSM_PAGE_SIZE);
    }
}

WsmKeep *wsm_keep_start(const char *file, const QemuUUID *session)
{
    WsmKeep *k = g_new0(WsmKeep, 1);

    GLOBAL_STATE_CODE();
    k->file = g_strdup(file);
    k->kept.session = *session;
    wsm_seed_init(&k->kept.seed);
    wsm_ram_each(wsm_keep_add, k);
    k->buf = g_malloc(WSM_KEEP_PAGES * WSM_PAGE_SIZE);
    qemu_mutex_init(&k->lock);
    qemu_cond_init(&k->done);
    k->state = WSM_KEEP_STATE_WRITING;
    qemu_thread_create(&k->thread, "wsm-keep", wsm_keep_thread, k,
                       QEMU_THREAD_JOINABLE);
    return k;
}

bool wsm_keep_wait(WsmKeep *k, int ms)
{
    QEMU_LOCK_GUARD(&k->lock);

    if (k->state == WSM_KEEP_STATE_WRITING && ms) {
        qemu_cond_timedwait(&k->done, &k->lock, ms);
    }
    return k->state != WSM_KEEP_STATE_WRITING;
}

void wsm_keep_give_up(WsmKeep *k)
{
    qatomic_set(&k->quit, true);
}

void wsm_keep_free(WsmKeep *k)
{
    GLOBAL_STATE_CODE();
    wsm_keep_give_up(k);
    qemu_thread_join(&k->thread);
    qemu_cond_destroy(&k->done);
    qemu_mutex_destroy(&k->lock);
    wsm_kept_destroy(&k->kept);
    g_free(k->buf);
    g_free(k->file);
    g_free(k->error);
    g_free(k);
}

WsmKeptInfo *wsm_keep_info(WsmKeep *k)
{
    WsmKeptInfo *info = g_new0(WsmKeptInfo, 1);
    QEMU_LOCK_GUARD(&k->lock);

    info->file = g_strdup(k->file);
    info->state = k->state;
    info->bytes = qatomic_read(&k->bytes);
    info->error = g_strdup(k->error);
    return info;
}
