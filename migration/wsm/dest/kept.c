/*
 * Whole-system migration: the guest's older memory, at the destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/thread-pool.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "migration/wsm/dest/kept.h"
#include "migration/wsm/memory/file.h"
#include "migration/wsm/memory/prints.h"
#include "migration/wsm/trace.h"

#define WSM_DIGESTS_NS          (2 * SCALE_MS)  /* for each message */

struct WsmDestKept {
    /* Set in open, never changed */
    WsmLoop *loop;
    WsmDestLife *life;
    char *file;
    int fd;
    WsmKept kept;
};

/*
 * Reading
 */

typedef struct WsmKeptRead {
    int fd;
    int64_t offset, bytes;
    uint8_t *buf;
} WsmKeptRead;

static int wsm_kept_read_job(void *opaque)
{
    WsmKeptRead *r = opaque;

    return wsm_file_read(r->fd, r->offset, r->buf, r->bytes);
}

/* A WsmFetchRead */
static int coroutine_fn wsm_dest_kept_read(void *opaque, int64_t offset,
                                           int64_t bytes, void *buf)
{
    WsmDestKept *k = opaque;
    WsmKeptRead r = {
        .fd = k->fd, .offset = offset, .bytes = bytes, .buf = buf,
    };

    return thread_pool_submit_co(wsm_kept_read_job, &r);
}

WsmFetchPlace wsm_dest_kept_place(WsmDestKept *k, const char *name,
                                  uint64_t offset)
{
    const WsmKeptBlock *b = wsm_kept_find(&k->kept, name);
    uint64_t page = offset / WSM_PAGE_SIZE;

    if (!b || page >= b->pages) {
        return (WsmFetchPlace) {};
    }
    return (WsmFetchPlace) {
        .read = wsm_dest_kept_read,
        .opaque = k,
        .offset = wsm_kept_page_at(&k->kept, b->first + page),
    };
}

/*
 * Opening
 */

/* Of regular files only, and nothing happens to others.  -1, and @errp. */
static int wsm_kept_open_file(const char *file, struct stat *st, Error **errp)
{
    int fd = open(file, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (fd < 0) {
        if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG) {
            error_setg_errno(errp, errno, "cannot open it");
        }
        return -1;
    }
    if (fstat(fd, st) < 0 || !S_ISREG(st->st_mode)) {
        error_setg(errp, "it is no regular file");
        close(fd);
        return -1;
    }
    return fd;
}

static bool wsm_kept_load(int fd, uint64_t size, WsmKept *kept, Error **errp)
{
    uint8_t header[WSM_KEPT_HEADER_SIZE];
    g_autofree uint8_t *table = NULL;
    int ret = wsm_file_read(fd, 0, header, sizeof(header));

    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot read it");
        return false;
    }
    if (!wsm_kept_decode(header, kept, errp)) {
        return false;
    }
    table = g_malloc(wsm_kept_table(kept));
    ret = wsm_file_read(fd, sizeof(header), table, wsm_kept_table(kept));
    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot read it");
        return false;
    }
    return wsm_kept_decode_table(table, size, kept, errp);
}

/* Does the source know the sync point of that session? */
static bool wsm_kept_check_guest(const WsmKept *kept, const WsmStart *start,
                                 Error **errp)
{
    for (unsigned i = 0; i < start->ndisks; i++) {
        for (unsigned j = 0; j < start->disk[i].npoints; j++) {
            if (wsm_kept_is_of(kept, &start->disk[i].point[j].id)) {
                return true;
            }
        }
    }
    error_setg(errp, "it is the memory of another guest, or too old: the "
               "source knows no sync point of that migration");
    return false;
}

WsmDestKept *wsm_dest_kept_open(const char *file, const WsmStart *start,
                                WsmLoop *loop, WsmDestLife *life, Error **errp)
{
    ERRP_GUARD();
    WsmKept kept = {};
    WsmDestKept *k;
    struct stat st;
    int fd;

    GLOBAL_STATE_CODE();
    fd = wsm_kept_open_file(file, &st, errp);
    if (fd < 0 || !wsm_kept_load(fd, st.st_size, &kept, errp) ||
        !wsm_kept_check_guest(&kept, start, errp)) {
        if (*errp) {
            error_prepend(errp, "'%s': ", file);
        }
        if (fd >= 0) {
            close(fd);
        }
        wsm_kept_destroy(&kept);
        return NULL;
    }
    k = g_new(WsmDestKept, 1);
    *k = (WsmDestKept) {
        .loop = loop, .life = life, .file = g_strdup(file), .fd = fd,
        .kept = kept,
    };
    trace_wsm_dest_kept(file, kept.pages);
    return k;
}

/*
 * Closing
 */

static void wsm_kept_remove(WsmDestKept *k)
{
    struct stat ours, now;

    /* Not a newer one */
    if (fstat(k->fd, &ours) == 0 && stat(k->file, &now) == 0 &&
        ours.st_dev == now.st_dev && ours.st_ino == now.st_ino) {
        unlink(k->file);
    }
}

static void wsm_kept_free(WsmDestKept *k)
{
    close(k->fd);
    wsm_kept_destroy(&k->kept);
    g_free(k->file);
    g_free(k);
}

static void *wsm_kept_close_thread(void *opaque)
{
    wsm_kept_free(opaque);
    return NULL;
}

void wsm_dest_kept_close(WsmDestKept *k, bool remove)
{
    QemuThread thread;

    GLOBAL_STATE_CODE();
    if (!remove) {
        wsm_kept_free(k);
        return;
    }
    wsm_kept_remove(k);
    /* Its blocks are freed by whoever closes it last: that is what lasts */
    qemu_thread_create(&thread, "wsm-kept", wsm_kept_close_thread, k,
                       QEMU_THREAD_DETACHED);
}

/*
 * DIGESTS
 */

typedef struct WsmKeptSay {
    WsmDestKept *kept;
    WsmDestConn *conn;          /* held */
} WsmKeptSay;

/* Is there any use in it? */
static bool wsm_kept_is_over(WsmDestKept *k)
{
    return wsm_loop_is_over(k->loop) ||
           wsm_life_reached(k->life, WSM_LIFE_SEALED);
}

/* The prints of @pages of @b from @first on.  0 or -errno. */
static int coroutine_fn wsm_kept_say_some(WsmKeptSay *say,
                                          const WsmKeptBlock *b,
                                          uint64_t first, unsigned pages)
{
    WsmDestKept *k = say->kept;
    size_t size = pages * WSM_PRINT_SIZE;
    g_autofree uint8_t *prints = g_malloc(size);
    g_autoptr(GByteArray) payload = NULL;
    WsmPrints said = { .seed = k->kept.seed, .buf = prints };
    WsmMsg msg = {
        .type = WSM_MSG_DIGESTS,
        .offset = first * WSM_PAGE_SIZE,
        .bytes = pages * (uint64_t)WSM_PAGE_SIZE,
    };
    int ret = wsm_dest_kept_read(k, wsm_kept_print_at(&k->kept,
                                                      b->first + first),
                                 size, prints);

    if (ret < 0 || buffer_is_zero(prints, size) || wsm_kept_is_over(k)) {
        return ret;
    }
    pstrcpy(said.name, sizeof(said.name), b->name);
    payload = wsm_prints_encode(&said, pages);
    msg.length = payload->len;
    ret = wsm_dest_conn_send(say->conn, &msg, payload->data);
    if (ret >= 0) {
        wsm_loop_sleep(k->loop, WSM_DIGESTS_NS);
    }
    return ret;
}

/* In the order in which the source sends them: so they come in time */
static int coroutine_fn wsm_kept_say_block(WsmKeptSay *say,
                                           const WsmKeptBlock *b)
{
    int ret = 0;

    for (uint64_t i = 0; i < b->pages && ret >= 0; i += WSM_PRINTS_PAGES) {
        if (wsm_kept_is_over(say->kept)) {
            return -ECANCELED;
        }
        ret = wsm_kept_say_some(say, b, i, MIN(WSM_PRINTS_PAGES,
                                               b->pages - i));
    }
    return ret;
}

static void coroutine_fn wsm_kept_say_co(void *opaque)
{
    WsmKeptSay *say = opaque;
    WsmDestKept *k = say->kept;
    int ret = 0;

    for (unsigned i = 0; i < k->kept.nblocks && ret >= 0; i++) {
        ret = wsm_kept_say_block(say, &k->kept.block[i]);
    }
    trace_wsm_dest_kept_said(ret);
    wsm_dest_conn_release(say->conn);
    g_free(say);
}

void wsm_dest_kept_say(WsmDestKept *k, WsmDestConn *conn)
{
    WsmKeptSay *say = g_new(WsmKeptSay, 1);

    *say = (WsmKeptSay) { .kept = k, .conn = conn };
    wsm_dest_conn_hold(conn);
    wsm_loop_enter(k->loop, wsm_kept_say_co, say);
}
