/*
 * Crash test of block/pull-marks.c and what uses it
 *
 * Guests, the source and the list of what is missing go through random
 * histories.  After each step the power is cut: what the disk has not flushed
 * may be there or not, sector by sector, and so may what is being taken off the
 * list.  Each outcome that can be must be one that the guest may find: for each
 * sector what it has flushed last, or something newer.
 *
 * Sectors are judged one by one, so that all outcomes are looked at and none is
 * left to chance; what comes by chance is the history, and by its number it
 * comes again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "block/aio-wait.h"
#include "block/block_int.h"
#include "block/pull-on-demand.h"
#include "system/block-backend.h"
#include "../iothread.h"

#define SECTOR 512
#define PER_BLOCK 4
#define BLOCK (SECTOR * PER_BLOCK)
#define NB_BLOCKS 10
/* The last block is not a whole one */
#define NB_SECTORS (NB_BLOCKS * PER_BLOCK - 1)
#define DISK_SIZE (NB_SECTORS * SECTOR)
#define MAX_VALUES 48
#define NB_GUESTS 3
#define NB_THREADS 3

/* A sector that is old has this in it; nobody but the disk ever reads it */
#define OLD UINT64_C(0xdeadbeef)

enum { HISTORIES = 5000, THREAD_HISTORIES = 60 };

/* What somebody does wrong, so that the test must find it */
typedef enum Wrong {
    NOTHING,
    DROP_EARLY,         /* the filter goes before all is marked */
    NEVER_ARMED,        /* flushes do not mark */
    DISK_LIES,          /* it does not flush */
    LIST_LIES,          /* it answers before it is durable */
    LIST_FORGETS,       /* it takes nothing off */
    NO_LIST,            /* it is not durable before the first mark ends */
    WRONG__MAX
} Wrong;

static const char *const wrong_names[WRONG__MAX] = {
    [DROP_EARLY] = "drop-early",
    [NEVER_ARMED] = "never-armed",
    [DISK_LIES] = "disk-lies",
    [LIST_LIES] = "list-lies",
    [LIST_FORGETS] = "list-forgets",
    [NO_LIST] = "no-list",
};

/* Is it so in a durable way? */
typedef enum Sure { NO, MAYBE, YES } Sure;

typedef struct Sector {
    /* What the disk has: durably, and written since, in order */
    uint64_t durable;
    uint64_t cached[MAX_VALUES];
    unsigned ncached, flushing; /* the flush that runs covers @flushing */

    uint64_t source;            /* what the source has */

    /*
     * What the guest may find: what it has flushed last, and what it wrote
     * since.  It knows of value @known; some of them may yet come.
     */
    uint64_t legal[MAX_VALUES];
    unsigned nlegal, known;
    unsigned gone;              /* so many were overwritten and flushed */
    bool busy;                  /* a guest is at it */
} Sector;

typedef struct Sum {
    uint64_t cuts, flushes, marks, empty_marks, failures, drops;
} Sum;

typedef struct Crash {
    /* Never changed while anything runs */
    BlockDriverState *bs, *filter;
    BlockBackend *blk;
    Wrong wrong;
    int steps;                  /* of each guest */
    IOThread **threads;         /* or NULL: all is in the main thread */
    bool missing[NB_BLOCKS];    /* at the freeze */
    bool over;                  /* nobody is there to wake who sleeps */

    QemuMutex lock;             /* protects all below */
    Sector sector[NB_SECTORS];
    Sure listed;                /* the list of what is missing */
    Sure marked[NB_BLOCKS];     /* off the list */
    bool marking;
    bool list_failed;           /* once at least */
    bool go, complete, dropped; /* how far the destination is */
    bool pause;                 /* guests shall not begin anything */
    unsigned busy;              /* guests that have */
    unsigned running;           /* coroutines */
    unsigned fail_in;           /* every so manieth thing fails; 0: none */
    GArray *pulls;              /* of BdrvPullRange */
    GPtrArray *sleepers;        /* coroutines, which the test wakes */
    uint64_t stamp;
    char *broken;               /* the first thing that must not be */
    Sum *sum;
} Crash;

static Crash *c;

/*
 * Who sleeps: without threads it is up to the test, and so by chance, who goes
 * on, and nothing depends on time
 */

static void coroutine_fn nap(void)
{
    if (c->over) {
        return;
    }
    if (c->threads) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, g_random_int_range(0, 60000));
    } else {
        g_ptr_array_add(c->sleepers, qemu_coroutine_self());
        qemu_coroutine_yield();
    }
}

static void coroutine_fn perhaps_nap(void)
{
    if (g_random_int_range(0, 3)) {
        nap();
    }
}

static bool fails(void)
{
    QEMU_LOCK_GUARD(&c->lock);
    if (c->fail_in && g_random_int_range(0, c->fail_in) == 0) {
        c->sum->failures++;
        return true;
    }
    return false;
}

/*
 * The power is cut.  Called with lock held.
 */

static bool is_legal(const Sector *s, uint64_t v)
{
    for (unsigned i = 0; i < s->nlegal; i++) {
        if (s->legal[i] == v) {
            return true;
        }
    }
    return false;
}

static void judge(int i, uint64_t v, const char *where)
{
    static const char *const sure[] = {
        "not marked", "being marked", "marked",
    };
    const Sector *s = &c->sector[i];

    if (!c->broken && !is_legal(s, v)) {
        c->broken = g_strdup_printf(
            "sector %d has %" PRIx64 " from the %s; flushed %" PRIx64
            ", newest %" PRIx64 "; block %d was %s, %s", i, v, where,
            s->legal[0], s->legal[s->nlegal - 1], i / PER_BLOCK,
            c->missing[i / PER_BLOCK] ? "missing" : "there",
            sure[c->marked[i / PER_BLOCK]]);
    }
}

static void cut_power(void)
{
    c->sum->cuts++;
    for (int i = 0; i < NB_SECTORS; i++) {
        const Sector *s = &c->sector[i];
        bool missing = c->missing[i / PER_BLOCK];
        Sure marked = c->marked[i / PER_BLOCK];

        if (c->listed != YES || (missing && marked != YES)) {
            judge(i, s->source, "source");
        }
        if (c->listed != NO && (!missing || marked != NO)) {
            judge(i, s->durable, "disk");
            for (unsigned j = 0; j < s->ncached; j++) {
                judge(i, s->cached[j], "disk's cache");
            }
        }
    }
}

/*
 * The disk
 */

static uint64_t disk_now(const Sector *s)
{
    return s->ncached ? s->cached[s->ncached - 1] : s->durable;
}

static void disk_put(int i, uint64_t v, BdrvRequestFlags flags)
{
    Sector *s = &c->sector[i];

    QEMU_LOCK_GUARD(&c->lock);
    if (flags & BDRV_REQ_FUA) {
        s->durable = v;
        s->ncached = s->flushing = 0;
    } else {
        if (s->ncached == MAX_VALUES) {
            /* The cache is full, and writes the oldest out */
            s->durable = s->cached[0];
            memmove(s->cached, s->cached + 1,
                    (MAX_VALUES - 1) * sizeof(s->cached[0]));
            s->ncached--;
            s->flushing -= !!s->flushing;
        }
        s->cached[s->ncached++] = v;
    }
    cut_power();
}

/* @values NULL: zeroes.  If it fails, some sectors are written. */
static int coroutine_fn disk_write(int64_t offset, int64_t bytes,
                                   const uint64_t *values,
                                   BdrvRequestFlags flags)
{
    int first = offset / SECTOR, n = bytes / SECTOR;
    int good = fails() ? g_random_int_range(0, n) : n;

    perhaps_nap();
    for (int i = 0; i < good; i++) {
        disk_put(first + i, values ? values[i * SECTOR / 8] : 0, flags);
        if (g_random_int_range(0, 8) == 0) {
            nap();
        }
    }
    perhaps_nap();
    return good < n ? -EIO : 0;
}

static int coroutine_fn disk_co_preadv(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       BdrvRequestFlags flags)
{
    g_autofree uint64_t *buf = g_malloc(bytes);

    perhaps_nap();
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        for (int64_t i = 0; i < bytes / 8; i++) {
            buf[i] = disk_now(&c->sector[(offset + i * 8) / SECTOR]);
        }
    }
    qemu_iovec_from_buf(qiov, 0, buf, bytes);
    return 0;
}

static int coroutine_fn disk_co_pwritev(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes, QEMUIOVector *qiov,
                                        BdrvRequestFlags flags)
{
    g_autofree uint64_t *buf = g_malloc(bytes);

    qemu_iovec_to_buf(qiov, 0, buf, bytes);
    return disk_write(offset, bytes, buf, flags);
}

static int coroutine_fn disk_co_pwrite_zeroes(BlockDriverState *bs,
                                              int64_t offset, int64_t bytes,
                                              BdrvRequestFlags flags)
{
    if (g_random_int_range(0, 8) == 0) {
        return -ENOTSUP;
    }
    return disk_write(offset, bytes, NULL, flags);
}

/* Zeroes it, or does nothing */
static int coroutine_fn disk_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes)
{
    perhaps_nap();
    for (int64_t i = offset / SECTOR; i < (offset + bytes) / SECTOR; i++) {
        if (g_random_boolean()) {
            disk_put(i, 0, 0);
        }
    }
    perhaps_nap();
    return fails() ? -EIO : 0;
}

static int coroutine_fn disk_co_flush(BlockDriverState *bs)
{
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        c->sum->flushes++;
        for (int i = 0; i < NB_SECTORS; i++) {
            c->sector[i].flushing = c->sector[i].ncached;
        }
    }
    perhaps_nap();
    if (fails()) {
        return -EIO;
    }
    if (c->wrong == DISK_LIES) {
        return 0;
    }
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        for (int i = 0; i < NB_SECTORS; i++) {
            Sector *s = &c->sector[i];

            if (s->flushing) {
                s->durable = s->cached[s->flushing - 1];
                s->ncached -= s->flushing;
                memmove(s->cached, s->cached + s->flushing,
                        s->ncached * sizeof(s->cached[0]));
                s->flushing = 0;
            }
        }
        cut_power();
    }
    perhaps_nap();
    return 0;
}

static int coroutine_fn disk_co_block_status(BlockDriverState *bs,
                                             bool want_zero, int64_t offset,
                                             int64_t bytes, int64_t *pnum,
                                             int64_t *map,
                                             BlockDriverState **file)
{
    QEMU_LOCK_GUARD(&c->lock);

    *pnum = MIN(bytes, SECTOR);
    *map = offset;
    *file = bs;
    return BDRV_BLOCK_OFFSET_VALID |
           (disk_now(&c->sector[offset / SECTOR]) ? BDRV_BLOCK_DATA
                                                  : BDRV_BLOCK_ZERO);
}

static int64_t coroutine_fn disk_co_getlength(BlockDriverState *bs)
{
    return DISK_SIZE;
}

static int disk_open(BlockDriverState *bs, QDict *options, int flags,
                     Error **errp)
{
    bs->supported_write_flags = BDRV_REQ_FUA;
    bs->supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP |
                               BDRV_REQ_NO_FALLBACK;
    return 0;
}

static BlockDriver bdrv_crash = {
    .format_name            = "test-crash",
    .bdrv_open              = disk_open,
    .bdrv_co_preadv         = disk_co_preadv,
    .bdrv_co_pwritev        = disk_co_pwritev,
    .bdrv_co_pwrite_zeroes  = disk_co_pwrite_zeroes,
    .bdrv_co_pdiscard       = disk_co_pdiscard,
    .bdrv_co_flush          = disk_co_flush,
    .bdrv_co_block_status   = disk_co_block_status,
    .bdrv_co_getlength      = disk_co_getlength,
    .bdrv_child_perm        = bdrv_default_perms,
};

/*
 * The list of what is missing
 */

static void set_listed(Sure listed)
{
    QEMU_LOCK_GUARD(&c->lock);
    c->listed = listed;
    cut_power();
}

static bool is_listed(void)
{
    QEMU_LOCK_GUARD(&c->lock);
    return c->listed == YES;
}

static void set_marked(const BdrvPullRange *r, Sure marked)
{
    QEMU_LOCK_GUARD(&c->lock);
    for (int64_t offset = r->offset; offset < r->offset + r->bytes;
         offset += BLOCK) {
        Sure *now = &c->marked[offset / BLOCK];

        g_assert_cmpint(offset % BLOCK, ==, 0);
        g_assert_true(c->missing[offset / BLOCK]);
        /* What is off the list stays off, and comes again only in doubt */
        g_assert_true(*now != YES || c->list_failed);
        *now = MAX(*now, marked);
    }
    g_assert_cmpint(r->bytes, >, 0);
    g_assert_true(r->bytes % BLOCK == 0 || r->offset + r->bytes == DISK_SIZE);
    cut_power();
}

static int coroutine_fn list_write(const BdrvPullRange *ranges, size_t nb)
{
    bool failed = fails();

    WITH_QEMU_LOCK_GUARD(&c->lock) {
        c->list_failed |= failed;
    }
    for (size_t i = 0; i < nb; i++) {
        set_marked(&ranges[i], MAYBE);
        perhaps_nap();
    }
    perhaps_nap();
    /* If it fails, some are durable, and others may yet become so */
    for (size_t i = 0; i < nb; i++) {
        if (!failed || g_random_boolean()) {
            set_marked(&ranges[i], YES);
        }
    }
    return failed ? -EIO : 0;
}

static int coroutine_fn list_mark(void *opaque, const BdrvPullRange *ranges,
                                  size_t nb)
{
    int ret;

    WITH_QEMU_LOCK_GUARD(&c->lock) {
        g_assert_true(c->go && !c->marking && !c->dropped);
        c->marking = true;
        c->sum->marks += nb > 0;
        c->sum->empty_marks += nb == 0;
    }
    while (c->wrong != NO_LIST && !is_listed()) {
        nap();
    }
    if (c->wrong == LIST_LIES || c->wrong == LIST_FORGETS) {
        for (size_t i = 0; i < nb && c->wrong == LIST_LIES; i++) {
            set_marked(&ranges[i], MAYBE);
        }
        ret = 0;
    } else {
        ret = list_write(ranges, nb);
    }
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        c->marking = false;
    }
    perhaps_nap();
    return ret;
}

static void coroutine_exit(void)
{
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        c->running--;
    }
    aio_wait_kick();
}

static void coroutine_fn list_commit(void *opaque)
{
    set_listed(MAYBE);
    do {
        nap();
        perhaps_nap();
    } while (fails());
    set_listed(YES);
    coroutine_exit();
}

static void list_pull(void *opaque, int64_t offset, int64_t bytes)
{
    BdrvPullRange r = { offset, bytes };

    QEMU_LOCK_GUARD(&c->lock);
    g_array_append_val(c->pulls, r);
}

static void list_have(void *opaque, int64_t offset, int64_t bytes)
{
}

static void list_complete(void *opaque)
{
    QEMU_LOCK_GUARD(&c->lock);
    c->complete = true;
}

static const BdrvPullOps list_ops = {
    .pull = list_pull,
    .have = list_have,
    .complete = list_complete,
    .mark = list_mark,
};

/*
 * Guests
 */

/* Sectors that nobody is at, and of which one more value can be kept */
static bool guest_claim(int first, int n)
{
    QEMU_LOCK_GUARD(&c->lock);
    for (int i = first; i < first + n; i++) {
        if (c->sector[i].busy || c->sector[i].nlegal == MAX_VALUES) {
            return false;
        }
    }
    for (int i = first; i < first + n; i++) {
        c->sector[i].busy = true;
    }
    return true;
}

static void guest_give_back(int first, int n)
{
    QEMU_LOCK_GUARD(&c->lock);
    for (int i = first; i < first + n; i++) {
        c->sector[i].busy = false;
    }
}

/* What came before value @upto cannot be there any more */
static void legal_flushed(Sector *s, unsigned upto)
{
    s->nlegal -= upto;
    s->known -= upto;
    s->gone += upto;
    memmove(s->legal, s->legal + upto, s->nlegal * sizeof(s->legal[0]));
}

/* What may be there from now on */
static void legal_add(int first, int n, const uint64_t *values)
{
    QEMU_LOCK_GUARD(&c->lock);
    for (int i = 0; i < n; i++) {
        Sector *s = &c->sector[first + i];

        s->legal[s->nlegal++] = values ? values[i * SECTOR / 8] : 0;
    }
}

/* The newest is there, durably if @fua */
static void legal_known(int first, int n, bool fua)
{
    QEMU_LOCK_GUARD(&c->lock);
    for (int i = first; i < first + n; i++) {
        Sector *s = &c->sector[i];

        s->known = s->nlegal - 1;
        if (fua) {
            legal_flushed(s, s->known);
        }
    }
}

/* Read; if it is not known what is there, it is known now */
static void coroutine_fn guest_read(int first, int n, bool known)
{
    g_autofree uint64_t *buf = g_malloc(n * SECTOR);
    int ret = blk_co_pread(c->blk, first * SECTOR, n * SECTOR, buf, 0);

    g_assert_cmpint(ret, ==, 0);
    QEMU_LOCK_GUARD(&c->lock);
    for (int i = 0; i < n; i++) {
        Sector *s = &c->sector[first + i];
        unsigned j = s->nlegal;

        if (known) {
            g_assert_cmphex(buf[i * SECTOR / 8], ==, s->legal[s->known]);
            continue;
        }
        while (j-- && s->legal[j] != buf[i * SECTOR / 8]) {
            /* Look for the newest that is the same */
        }
        g_assert_cmpint(j, !=, -1);
        g_assert_cmpint(j, >=, s->known);
        s->known = j;
    }
}

static void coroutine_fn guest_write(int first, int n)
{
    bool fua = g_random_int_range(0, 6) == 0;
    bool durable = fua || !blk_enable_write_cache(c->blk);
    g_autofree uint64_t *buf = g_malloc(n * SECTOR);
    int ret;

    WITH_QEMU_LOCK_GUARD(&c->lock) {
        for (int i = 0; i < n * SECTOR / 8; i++) {
            buf[i] = c->stamp + i * 8 / SECTOR;
        }
        c->stamp += n;
    }
    legal_add(first, n, buf);
    ret = blk_co_pwrite(c->blk, first * SECTOR, n * SECTOR, buf,
                        fua ? BDRV_REQ_FUA : 0);
    if (ret == 0) {
        legal_known(first, n, durable);
    } else {
        guest_read(first, n, false);
    }
}

static void coroutine_fn guest_zero(int first, int n)
{
    bool fua = g_random_int_range(0, 6) == 0;
    bool durable = fua || !blk_enable_write_cache(c->blk);
    int ret;

    legal_add(first, n, NULL);
    ret = blk_co_pwrite_zeroes(c->blk, first * SECTOR, n * SECTOR,
                               (fua ? BDRV_REQ_FUA : 0) |
                               (g_random_boolean() ? BDRV_REQ_MAY_UNMAP : 0));
    if (ret == 0) {
        legal_known(first, n, durable);
    } else {
        guest_read(first, n, false);
    }
}

static void coroutine_fn guest_discard(int first, int n)
{
    legal_add(first, n, NULL);
    blk_co_pdiscard(c->blk, first * SECTOR, n * SECTOR, 0);
    guest_read(first, n, false);
}

static void coroutine_fn guest_look(int first, int n)
{
    guest_read(first, n, true);
}

static void coroutine_fn guest_flush(void)
{
    unsigned upto[NB_SECTORS];

    WITH_QEMU_LOCK_GUARD(&c->lock) {
        for (int i = 0; i < NB_SECTORS; i++) {
            upto[i] = c->sector[i].gone + c->sector[i].known;
        }
    }
    if (blk_co_flush(c->blk) < 0) {
        return;
    }
    QEMU_LOCK_GUARD(&c->lock);
    for (int i = 0; i < NB_SECTORS; i++) {
        Sector *s = &c->sector[i];

        /* Another flush may have been faster */
        if (upto[i] > s->gone) {
            legal_flushed(s, upto[i] - s->gone);
        }
    }
    cut_power();
}

static void coroutine_fn guest_step(void)
{
    static void coroutine_fn (*const ops[])(int first, int n) = {
        guest_write, guest_write, guest_write, guest_write, guest_zero,
        guest_discard, guest_look,
    };
    int first, n;

    if (g_random_int_range(0, 4) == 0) {
        guest_flush();
        return;
    }
    if (g_random_boolean()) {
        n = PER_BLOCK * g_random_int_range(1, 3);
        first = g_random_int_range(0, NB_BLOCKS) * PER_BLOCK;
    } else {
        n = g_random_int_range(1, 2 * PER_BLOCK);
        first = g_random_int_range(0, NB_SECTORS);
    }
    n = MIN(n, NB_SECTORS - first);
    if (guest_claim(first, n)) {
        ops[g_random_int_range(0, ARRAY_SIZE(ops))](first, n);
        guest_give_back(first, n);
    } else {
        nap();
    }
}

static bool guest_may_begin(void)
{
    QEMU_LOCK_GUARD(&c->lock);
    if (c->pause) {
        return false;
    }
    c->busy++;
    return true;
}

static bool is_dropped(void)
{
    QEMU_LOCK_GUARD(&c->lock);
    return c->dropped;
}

/* So many steps, and some more when the filter is gone */
static void coroutine_fn guest_co(void *opaque)
{
    int more = 4;

    for (int i = 0; i < c->steps || more; i++) {
        bool dropped = is_dropped();

        if (i >= c->steps && !dropped) {
            nap();
            continue;
        }
        while (!guest_may_begin()) {
            nap();
        }
        guest_step();
        WITH_QEMU_LOCK_GUARD(&c->lock) {
            c->busy--;
        }
        more -= dropped && i >= c->steps;
        perhaps_nap();
    }
    coroutine_exit();
}

/*
 * The source, and the user of the filter
 */

static void coroutine_fn source_store(BdrvPullRange r)
{
    g_autofree uint64_t *buf = g_malloc(r.bytes);
    bool zero = true;

    for (int64_t i = 0; i < r.bytes / 8; i++) {
        buf[i] = c->sector[(r.offset + i * 8) / SECTOR].source;
        zero &= !buf[i];
    }
    while (bdrv_pull_store(c->filter, r.offset, r.bytes, zero ? NULL : buf,
                           NULL) < 0) {
        nap();
    }
}

static bool source_next_pull(BdrvPullRange *r)
{
    QEMU_LOCK_GUARD(&c->lock);
    if (!c->pulls->len) {
        return false;
    }
    *r = g_array_index(c->pulls, BdrvPullRange, 0);
    g_array_remove_index(c->pulls, 0);
    return true;
}

static bool is_complete(void)
{
    QEMU_LOCK_GUARD(&c->lock);
    return c->complete;
}

static void coroutine_fn source_co(void *opaque)
{
    int rest = g_random_int_range(1, 40);
    int next = 0;

    while (!is_complete()) {
        BdrvPullRange r;

        nap();
        if (source_next_pull(&r)) {
            source_store(r);
        } else if (g_random_int_range(0, rest) == 0) {
            r.offset = next++ % NB_BLOCKS * BLOCK;
            r.bytes = MIN(BLOCK, DISK_SIZE - r.offset);
            source_store(r);
        } else if (g_random_int_range(0, 2 * rest) == 0) {
            bdrv_pull_checkpoint(c->filter);
        }
    }
    while (c->wrong != DROP_EARLY && bdrv_pull_checkpoint(c->filter) < 0) {
        nap();
    }
    coroutine_exit();
}

/*
 * A history
 */

static void crash_start_co(CoroutineEntry *entry, int i)
{
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        c->running++;
    }
    if (c->threads) {
        aio_co_enter(iothread_get_aio_context(c->threads[i % NB_THREADS]),
                     qemu_coroutine_create(entry, NULL));
    } else {
        qemu_coroutine_enter(qemu_coroutine_create(entry, NULL));
    }
}

/* One of those that sleep goes on */
static void crash_wake_one(void)
{
    guint i = g_random_int_range(0, c->sleepers->len);
    Coroutine *co = g_ptr_array_remove_index_fast(c->sleepers, i);

    aio_co_wake(co);
}

static void crash_step(void)
{
    if (c->threads) {
        g_usleep(g_random_int_range(0, 100));
        if (g_random_int_range(0, 8) == 0) {
            bdrv_drain_all_begin();
            bdrv_drain_all_end();
        }
        aio_poll(qemu_get_aio_context(), false);
    } else {
        while (aio_poll(qemu_get_aio_context(), false)) {
            /* All that is ready */
        }
        if (c->sleepers->len) {
            crash_wake_one();
        }
    }
    QEMU_LOCK_GUARD(&c->lock);
    cut_power();
    g_assert_true(c->threads || c->sleepers->len || !c->running);
}

static unsigned crash_running(void)
{
    QEMU_LOCK_GUARD(&c->lock);
    return c->running;
}

static unsigned crash_busy(void)
{
    QEMU_LOCK_GUARD(&c->lock);
    return c->busy;
}

/* Guests must be between two requests: draining wakes nobody up */
static void crash_drop(void)
{
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        c->pause = !c->threads;
        c->fail_in = 0;
    }
    while (c->pause && crash_busy()) {
        crash_step();
    }
    bdrv_pull_drop(c->filter);
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        c->sum->drops++;
        c->dropped = true;
        c->pause = false;
    }
}

/* Pre-copy left zeroes here and there, and they are not durable */
static void coroutine_fn crash_precopy_co(void *opaque)
{
    for (int b = 0; b < NB_BLOCKS; b++) {
        int64_t bytes = MIN(BLOCK, DISK_SIZE - b * BLOCK);

        if (c->missing[b] && g_random_int_range(0, 3) == 0) {
            while (bdrv_pull_write(c->filter, b * BLOCK, bytes, NULL,
                                   NULL) < 0) {
                nap();
            }
        }
    }
    coroutine_exit();
}

static void crash_init_sectors(void)
{
    for (int b = 0; b < NB_BLOCKS; b++) {
        bool zero = g_random_int_range(0, 6) == 0;

        c->missing[b] = g_random_int_range(0, 4) > 0;
        for (int i = b * PER_BLOCK; i < MIN((b + 1) * PER_BLOCK, NB_SECTORS);
             i++) {
            Sector *s = &c->sector[i];

            s->source = zero ? 0 : 0x5000 + i;
            s->durable = c->missing[b] ? OLD : s->source;
            s->legal[0] = s->source;
            s->nlegal = 1;
        }
    }
}

static void crash_init(Sum *sum, Wrong wrong, IOThread **threads)
{
    c = g_new0(Crash, 1);
    qemu_mutex_init(&c->lock);
    c->sum = sum;
    c->wrong = wrong;
    c->threads = threads;
    c->pulls = g_array_new(false, false, sizeof(BdrvPullRange));
    c->sleepers = g_ptr_array_new();
    c->stamp = 0x100000;
    c->steps = g_random_int_range(3, 16);
    c->fail_in = g_random_boolean() ? 0 : g_random_int_range(4, 30);
    crash_init_sectors();

    c->bs = bdrv_new_open_driver(&bdrv_crash, NULL, BDRV_O_RDWR | BDRV_O_UNMAP,
                                 &error_abort);
    c->bs->total_sectors = NB_SECTORS;
    c->blk = blk_new(qemu_get_aio_context(), BLK_PERM_CONSISTENT_READ |
                     BLK_PERM_WRITE, BLK_PERM_ALL & ~BLK_PERM_WRITE);
    blk_insert_bs(c->blk, c->bs, &error_abort);
    blk_set_enable_write_cache(c->blk, g_random_int_range(0, 8));
    c->filter = bdrv_pull_append(c->bs, BLOCK, &list_ops, NULL, &error_abort);
}

static void crash_free(void)
{
    c->over = true;
    blk_unref(c->blk);
    bdrv_unref(c->bs);
    g_array_unref(c->pulls);
    g_ptr_array_unref(c->sleepers);
    qemu_mutex_destroy(&c->lock);
    g_free(c);
}

/* The freeze, and the guest is ours */
static void crash_go(void)
{
    crash_start_co(crash_precopy_co, 0);
    while (crash_running()) {
        crash_step();
    }
    for (int b = 0; b < NB_BLOCKS; b++) {
        if (c->missing[b]) {
            bdrv_pull_set_missing(c->filter, b * BLOCK,
                                  MIN(BLOCK, DISK_SIZE - b * BLOCK));
        }
    }
    g_assert_cmpint(bdrv_pull_seal(c->filter), ==, 0);
    if (c->wrong != NEVER_ARMED) {
        bdrv_pull_arm(c->filter);
    }
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        c->go = true;
    }
}

/* Returns what was wrong, or NULL */
static char *crash_run(unsigned seed, Wrong wrong, IOThread **threads, Sum *sum)
{
    char *broken;

    g_random_set_seed(seed);
    crash_init(sum, wrong, threads);
    crash_go();
    for (int i = 0; i < NB_GUESTS; i++) {
        crash_start_co(guest_co, i);
    }
    crash_start_co(list_commit, NB_GUESTS);
    crash_start_co(source_co, NB_GUESTS + 1);
    /* The guests wait for it to be dropped */
    while (crash_running() > NB_GUESTS) {
        crash_step();
    }
    crash_drop();
    while (crash_running()) {
        crash_step();
    }
    broken = c->broken;
    crash_free();
    return broken;
}

static void report(const Sum *sum)
{
    g_test_message("%" PRIu64 " cuts, %" PRIu64 " flushes of the disk, %" PRIu64
                   " marks and %" PRIu64 " of nothing, %" PRIu64 " failures",
                   sum->cuts, sum->flushes, sum->marks, sum->empty_marks,
                   sum->failures);
    g_assert_cmpint(sum->cuts, >, 0);
    g_assert_cmpint(sum->marks, >, 0);
    g_assert_cmpint(sum->empty_marks, >, 0);
    g_assert_cmpint(sum->flushes, >, sum->marks);
    g_assert_cmpint(sum->failures, >, 0);
    g_assert_cmpint(sum->drops, >, 0);
}

static void test_histories(void)
{
    Sum sum = {};

    for (unsigned seed = 1; seed <= HISTORIES; seed++) {
        g_autofree char *broken = crash_run(seed, NOTHING, NULL, &sum);

        if (broken) {
            g_error("history %u: %s", seed, broken);
        }
    }
    report(&sum);
}

static void test_threads(void)
{
    IOThread *threads[NB_THREADS];
    Sum sum = {};

    for (int i = 0; i < NB_THREADS; i++) {
        threads[i] = iothread_new();
    }
    for (unsigned seed = 1; seed <= THREAD_HISTORIES; seed++) {
        g_autofree char *broken = crash_run(seed, NOTHING, threads, &sum);

        if (broken) {
            g_error("%s", broken);
        }
    }
    for (int i = 0; i < NB_THREADS; i++) {
        iothread_join(threads[i]);
    }
    report(&sum);
}

/* The test finds what it is for */
static void test_wrong(gconstpointer opaque)
{
    Wrong wrong = GPOINTER_TO_INT(opaque);
    Sum sum = {};

    for (unsigned seed = 1; seed <= HISTORIES; seed++) {
        g_autofree char *broken = crash_run(seed, wrong, NULL, &sum);

        if (broken) {
            g_test_message("history %u: %s", seed, broken);
            return;
        }
    }
    g_assert_not_reached();
}

int main(int argc, char **argv)
{
    bdrv_init();
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/pull-crash/histories", test_histories);
    g_test_add_func("/pull-crash/threads", test_threads);
    for (Wrong wrong = NOTHING + 1; wrong < WRONG__MAX; wrong++) {
        g_autofree char *name = g_strdup_printf("/pull-crash/found/%s",
                                                wrong_names[wrong]);

        g_test_add_data_func(name, GINT_TO_POINTER(wrong), test_wrong);
    }

    return g_test_run();
}
