/*
 * Whole-system migration: write a map of missing blocks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "migration/wsm/map/log.h"
#include "migration/wsm/trace.h"

#define AREA_BEGIN      ((int64_t)WSM_MAP_HEADS * WSM_MAP_PAGE)
#define ZERO_PIECE      (1 * MiB)       /* bytes that are written at a time */
#define AREA_SPARE      (16 * WSM_MAP_PAGE)     /* behind twice the snapshot */

struct WsmMapLog {
    BlockBackend *blk;          /* set in new, never changed; reference */

    CoMutex lock;               /* protects what follows */
    /* Of the generation that is durable; generation 0: there is none */
    WsmMapHead head;
    bool begun;                 /* by this process */
    int64_t pos;                /* where its next record goes */
    uint64_t serial;            /* of its last one */
    WsmMissing *missing;        /* what it says, all in all */
    int error;                  /* what went wrong, for good; 0: nothing */
};

static int coroutine_mixed_fn read_blk(void *opaque, int64_t offset,
                                       int64_t bytes, void *buf)
{
    return blk_pread(opaque, offset, bytes, buf, 0);
}

WsmMapState coroutine_mixed_fn
wsm_map_log_load(BlockBackend *blk, const WsmMapWanted *wanted,
                 WsmMapContents *out, Error **errp)
{
    WsmMapReader reader = {
        .read = read_blk, .opaque = blk, .size = blk_getlength(blk),
    };

    *out = (WsmMapContents) {};
    if (reader.size < 0) {
        error_setg_errno(errp, -reader.size, "cannot tell how long it is");
        return WSM_MAP_DAMAGED;
    }
    return wsm_map_load(&reader, wanted, out, errp);
}

static WsmMapLog *log_new(BlockBackend *blk, const WsmMapHead *head,
                          WsmMissing *missing)
{
    WsmMapLog *log = g_new(WsmMapLog, 1);

    GLOBAL_STATE_CODE();
    *log = (WsmMapLog) { .blk = blk, .head = *head, .missing = missing };
    qemu_co_mutex_init(&log->lock);
    blk_ref(blk);
    /* A flush of the guest that a drained section waits for must get through */
    blk_set_disable_request_queuing(blk, true);
    return log;
}

WsmMapLog *wsm_map_log_new(BlockBackend *blk, const WsmMapHead *head)
{
    WsmMapHead first = *head;

    first.generation = 0;
    return log_new(blk, &first, wsm_missing_new(head->size, head->granularity));
}

WsmMapLog *wsm_map_log_reopen(BlockBackend *blk, WsmMapContents *contents)
{
    return log_new(blk, &contents->head, g_steal_pointer(&contents->missing));
}

void wsm_map_log_free(WsmMapLog *log)
{
    GLOBAL_STATE_CODE();
    if (log) {
        blk_unref(log->blk);
        wsm_missing_free(log->missing);
        g_free(log);
    }
}

bool wsm_map_log_set_missing(WsmMapLog *log, const uint8_t *runs, size_t size,
                             Error **errp)
{
    assert(!log->begun);
    return wsm_missing_set_runs(log->missing, runs, size, errp);
}

int64_t wsm_map_log_missing(const WsmMapLog *log)
{
    return qatomic_read(&log->missing->bytes);
}

const WsmMissing *wsm_map_log_peek(const WsmMapLog *log)
{
    return log->missing;
}

/*
 * Generations
 */

/*
 * An area for a snapshot of so many bytes that is not the one that counts.
 * Half of the map, so that there are two; and at least twice the snapshot, so
 * that a new one is not more than what was written since the one before.
 */
static int coroutine_fn find_area(WsmMapLog *log, uint64_t bytes,
                                  WsmMapHead *head)
{
    int64_t length = blk_co_getlength(log->blk);
    int64_t half = QEMU_ALIGN_DOWN((length - AREA_BEGIN) / 2, WSM_MAP_PAGE);
    int64_t least = 2 * wsm_map_snapshot_room(bytes) + AREA_SPARE;
    int64_t end;

    if (length < 0) {
        return length;
    }
    head->area_bytes = MAX(half, least);
    if (!log->head.generation || log->head.area - AREA_BEGIN >= least) {
        /* If it reaches over that one, that does not count any more by then */
        head->area = AREA_BEGIN;
    } else {
        head->area = log->head.area + log->head.area_bytes;
    }
    if (length - head->area >= least) {
        /* A map that cannot grow */
        head->area_bytes = MIN(head->area_bytes, QEMU_ALIGN_DOWN(
                               length - head->area, WSM_MAP_PAGE));
    }
    end = head->area + head->area_bytes;
    if (end <= length) {
        return 0;
    }
    return blk_co_truncate(log->blk, end, false, PREALLOC_MODE_OFF, 0, NULL);
}

static int coroutine_fn write_snapshot(WsmMapLog *log, const WsmMapHead *head,
                                       const GByteArray *runs)
{
    int64_t room = wsm_map_snapshot_room(runs->len);
    g_autofree uint8_t *buf = g_try_malloc0(room);

    if (!buf) {
        return -ENOMEM;
    }
    if (runs->len) {
        memcpy(buf, runs->data, runs->len);
    }
    return blk_co_pwrite(log->blk, head->area, room, buf, 0);
}

static int coroutine_fn write_head(WsmMapLog *log, const WsmMapHead *head)
{
    g_autofree uint8_t *buf = g_malloc(WSM_MAP_PAGE);
    int ret;

    wsm_map_head_encode(head, buf);
    ret = blk_co_pwrite(log->blk, wsm_map_head_at(head->generation),
                        WSM_MAP_PAGE, buf, 0);
    return ret < 0 ? ret : blk_co_flush(log->blk);
}

/*
 * Of the first generation a snapshot that is torn means that there is none, and
 * the guest's first flush waits for this; so one flush is enough.  Later, a
 * snapshot that is not whole must not make the generation before it count
 * again, which may be out of date: so it is durable before its head is written.
 */
static int coroutine_fn write_generation(WsmMapLog *log, WsmMapHead *head,
                                         const GByteArray *runs)
{
    int ret = find_area(log, runs->len, head);

    if (ret < 0) {
        return ret;
    }
    head->generation++;
    head->is_void = false;
    head->snapshot_bytes = runs->len;
    head->snapshot_crc = wsm_map_crc(runs->data, runs->len);
    head->missing = log->missing->bytes;
    ret = write_snapshot(log, head, runs);
    if (ret >= 0 && head->generation > 1) {
        ret = blk_co_flush(log->blk);
    }
    return ret < 0 ? ret : write_head(log, head);
}

static int coroutine_fn begin_generation(WsmMapLog *log)
{
    g_autoptr(GByteArray) runs = g_byte_array_new();
    WsmMapHead head = log->head;
    int ret;

    if (!wsm_missing_runs(log->missing, WSM_MAP_MAX_RUNS, runs)) {
        return -EFBIG;
    }
    ret = write_generation(log, &head, runs);
    if (ret >= 0) {
        log->head = head;
        log->begun = true;
        log->serial = 0;
        log->pos = head.area + wsm_map_snapshot_room(runs->len);
    }
    return ret;
}

static int fail(WsmMapLog *log, const char *what, int ret)
{
    if (ret < 0) {
        trace_wsm_map_fail(log->head.name, what, log->head.generation,
                           log->serial, ret);
        log->error = ret;
    }
    return ret;
}

int coroutine_fn wsm_map_log_commit(WsmMapLog *log)
{
    int ret = 0;

    QEMU_LOCK_GUARD(&log->lock);
    if (log->error || log->begun) {
        return log->error;
    }
    /*
     * What was loaded may be in the host's memory only; if it were lost after
     * the next write, that would be over something that counts.
     */
    if (log->head.generation) {
        ret = blk_co_flush(log->blk);
    }
    if (ret >= 0) {
        ret = begin_generation(log);
    }
    trace_wsm_map_commit(log->head.name, log->head.generation,
                         log->missing->bytes, ret);
    return fail(log, "commit", ret);
}

/*
 * Records
 */

static int coroutine_fn append(WsmMapLog *log, const GByteArray *runs)
{
    int64_t room = wsm_map_record_room(runs->len);
    g_autofree uint8_t *buf = g_try_malloc(room);
    WsmMapRecord record = {
        .generation = log->head.generation,
        .serial = log->serial + 1,
        .runs = runs->len,
    };
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    memcpy(buf + WSM_MAP_RECORD_SIZE, runs->data, runs->len);
    wsm_map_record_encode(&record, &log->head.session, buf);
    ret = blk_co_pwrite(log->blk, log->pos, room, buf, 0);
    if (ret >= 0) {
        ret = blk_co_flush(log->blk);
    }
    if (ret >= 0) {
        log->serial++;
        log->pos += room;
    }
    return ret;
}

static bool has_room(const WsmMapLog *log, const GByteArray *runs)
{
    return runs->len <= WSM_MAP_MAX_RUNS && wsm_map_record_room(runs->len) <=
           log->head.area + log->head.area_bytes - log->pos;
}

static int coroutine_fn mark_locked(WsmMapLog *log, const GByteArray *runs)
{
    int ret;

    if (has_room(log, runs)) {
        ret = append(log, runs);
        if (ret >= 0) {
            wsm_missing_clear_runs(log->missing, runs->data, runs->len,
                                   &error_abort);
        }
        return ret;
    }
    /* The snapshot of the next generation says the same */
    wsm_missing_clear_runs(log->missing, runs->data, runs->len, &error_abort);
    ret = begin_generation(log);
    if (ret < 0) {
        wsm_missing_set_runs(log->missing, runs->data, runs->len, &error_abort);
    }
    trace_wsm_map_compact(log->head.name, log->head.generation,
                          log->missing->bytes, ret);
    return ret;
}

int coroutine_fn wsm_map_log_mark(WsmMapLog *log, const WsmMapRange *range,
                                  unsigned nb)
{
    g_autoptr(GByteArray) runs = g_byte_array_new();

    QEMU_LOCK_GUARD(&log->lock);
    if (log->error) {
        return log->error;
    }
    assert(log->begun);
    wsm_missing_runs_in(log->missing, range, nb, runs);
    if (!runs->len) {
        return 0;
    }
    return fail(log, "mark", mark_locked(log, runs));
}

/* Of what counts, that which is to count instead */
static void make_void(WsmMapHead *head)
{
    head->generation++;
    head->is_void = true;
    head->area = head->area_bytes = head->missing = 0;
    head->snapshot_bytes = head->snapshot_crc = 0;
}

/*
 * Where the next generation would go: if it was tried, that is what must not be
 * believed, and what is durable stays until this is.
 */
int coroutine_fn wsm_map_log_void(WsmMapLog *log)
{
    WsmMapHead head;
    int ret;

    QEMU_LOCK_GUARD(&log->lock);
    head = log->head;
    make_void(&head);
    ret = write_head(log, &head);
    trace_wsm_map_void(log->head.name, head.generation, ret);
    log->error = log->error ?: -ECANCELED;
    return ret;
}

/*
 * Erase
 */

static int coroutine_mixed_fn zero_range(BlockBackend *blk, int64_t from,
                                         int64_t to)
{
    g_autofree uint8_t *zero = g_malloc0(ZERO_PIECE);
    int64_t n;
    int ret = 0;

    /* Written, so that later only the content has to be synced */
    for (int64_t pos = from; ret >= 0 && pos < to; pos += n) {
        n = MIN(ZERO_PIECE, to - pos);
        ret = blk_pwrite(blk, pos, n, zero, 0);
    }
    return ret < 0 ? ret : blk_flush(blk);
}

/* The void head that follows on what is there, so far as there is anything */
static int coroutine_mixed_fn write_void(BlockBackend *blk)
{
    g_autofree uint8_t *buf = g_malloc(WSM_MAP_PAGE);
    WsmMapHead head, best = {};
    int ret;

    for (unsigned i = 0; i < WSM_MAP_HEADS; i++) {
        ret = blk_pread(blk, i * WSM_MAP_PAGE, WSM_MAP_PAGE, buf, 0);
        if (ret < 0) {
            return ret;
        }
        if (wsm_map_head_decode(buf, i, &head, NULL) == WSM_MAP_PAGE_HEAD &&
            head.generation > best.generation) {
            best = head;
        }
    }
    if (!best.generation) {
        return 0;
    }
    make_void(&best);
    wsm_map_head_encode(&best, buf);
    ret = blk_pwrite(blk, wsm_map_head_at(best.generation), WSM_MAP_PAGE, buf,
                     0);
    return ret < 0 ? ret : blk_flush(blk);
}

/*
 * Void first: with some records gone it would say that more is missing.  The
 * heads last: as long as there is one, who looks sees that it was a map.
 */
int coroutine_mixed_fn wsm_map_erase(BlockBackend *blk)
{
    int64_t size = blk_getlength(blk);
    int ret = size < 0 ? size : write_void(blk);

    if (ret >= 0) {
        ret = zero_range(blk, AREA_BEGIN, size);
    }
    return ret < 0 ? ret : zero_range(blk, 0, AREA_BEGIN);
}

int coroutine_fn wsm_map_log_erase(WsmMapLog *log)
{
    QEMU_LOCK_GUARD(&log->lock);
    log->error = -ECANCELED;
    return wsm_map_erase(log->blk);
}
