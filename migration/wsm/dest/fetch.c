/*
 * Whole-system migration: blocks of the disks that memory refers to are read
 *
 * The references are sorted, so that neighbours on a disk are read at once: a
 * run.  Each run is a coroutine of its own, so that they are read at the same
 * time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/memalign.h"
#include "migration/wsm/dest/fetch.h"
#include "migration/wsm/trace.h"

typedef struct WsmFetchItem {
    WsmFetch *fetch;
    uint8_t disk;
    unsigned index;             /* of the reference */
    uint64_t block;
    unsigned run;               /* of the first of a run: how many there are */
} WsmFetchItem;

struct WsmFetch {
    /* Set in start, never changed */
    WsmDestDisks *disks;
    unsigned n;
    WsmFetchItem item[WSM_PACKET_PAGES];        /* sorted by block */
    unsigned place[WSM_PACKET_PAGES];           /* of each reference in @item */
    uint8_t *buf;               /* of @item; each run writes its own part */

    QemuMutex lock;             /* protects the fields below */
    QemuCond done;
    unsigned running;           /* runs that are being read */
    bool left;                  /* nobody waits any more */
    uint8_t state[WSM_PACKET_PAGES];            /* WsmFetched, of @item */
    uint8_t seen[WSM_PACKET_PAGES];             /* when the wait ended */
};

static int wsm_fetch_compare(const void *a, const void *b)
{
    const WsmFetchItem *x = a, *y = b;

    if (x->disk != y->disk) {
        return x->disk < y->disk ? -1 : 1;
    }
    return x->block < y->block ? -1 : x->block > y->block;
}

static void wsm_fetch_destroy(WsmFetch *f)
{
    qemu_cond_destroy(&f->done);
    qemu_mutex_destroy(&f->lock);
    qemu_vfree(f->buf);
    g_free(f);
}

static int coroutine_fn wsm_fetch_read(WsmFetch *f, const WsmFetchItem *item,
                                       void *buf)
{
    WsmDestDisk *disk = &f->disks->disk[item->disk];
    int64_t bytes = (int64_t)item->run * WSM_PAGE_SIZE;
    bool zero = false;
    int ret;

    if (!wsm_life_has_filters(f->disks->life)) {
        return -ECANCELED;
    }
    ret = bdrv_pull_read(disk->filter, item->block * WSM_PAGE_SIZE, bytes, buf,
                         &zero);
    if (ret >= 0 && zero) {
        memset(buf, 0, bytes);
    }
    return ret;
}

static void coroutine_fn wsm_fetch_co(void *opaque)
{
    WsmFetchItem *item = opaque;
    WsmFetch *f = item->fetch;
    unsigned first = item - f->item;
    int ret = wsm_fetch_read(f, item, f->buf + first * WSM_PAGE_SIZE);
    bool last;

    WITH_QEMU_LOCK_GUARD(&f->lock) {
        memset(&f->state[first], ret < 0 ? WSM_FETCHED_FAIL : WSM_FETCHED_GOOD,
               item->run);
        qemu_cond_signal(&f->done);
        last = --f->running == 0 && f->left;
    }
    if (last) {
        wsm_fetch_destroy(f);
    }
}

/* Find the runs, and how many there are */
static unsigned wsm_fetch_join(WsmFetch *f)
{
    WsmFetchItem *head = f->item;
    unsigned runs = 1;

    head->run = 1;
    for (unsigned i = 1; i < f->n; i++) {
        if (f->item[i].disk == head->disk &&
            f->item[i].block == head->block + head->run) {
            head->run++;
        } else {
            head = &f->item[i];
            head->run = 1;
            runs++;
        }
    }
    return runs;
}

WsmFetch *wsm_fetch_start(WsmLoop *loop, WsmDestDisks *disks,
                          const WsmRef *refs, unsigned n)
{
    WsmFetch *f = g_new0(WsmFetch, 1);

    assert(n && n <= WSM_PACKET_PAGES);
    f->disks = disks;
    f->n = n;
    f->buf = qemu_memalign(qemu_real_host_page_size(), n * WSM_PAGE_SIZE);
    qemu_mutex_init(&f->lock);
    qemu_cond_init(&f->done);
    for (unsigned i = 0; i < n; i++) {
        f->item[i] = (WsmFetchItem) {
            .fetch = f, .disk = refs[i].disk, .index = i,
            .block = refs[i].block,
        };
    }
    qsort(f->item, n, sizeof(f->item[0]), wsm_fetch_compare);
    for (unsigned i = 0; i < n; i++) {
        f->place[f->item[i].index] = i;
    }

    QEMU_LOCK_GUARD(&f->lock);
    f->running = wsm_fetch_join(f);
    for (unsigned i = 0; i < n; i++) {
        if (f->item[i].run &&
            !wsm_loop_start(loop, wsm_fetch_co, &f->item[i])) {
            f->running--;
        }
    }
    return f;
}

void wsm_fetch_wait(WsmFetch *f, int ms)
{
    int64_t until = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ms, left;

    QEMU_LOCK_GUARD(&f->lock);
    while (f->running &&
           (left = until - qemu_clock_get_ms(QEMU_CLOCK_REALTIME)) > 0) {
        qemu_cond_timedwait(&f->done, &f->lock, left);
    }
    /* What is read from here on may be half there */
    memcpy(f->seen, f->state, sizeof(f->seen));
}

WsmFetched wsm_fetch_get(const WsmFetch *f, unsigned i, const void **content)
{
    unsigned place = f->place[i];

    *content = f->buf + place * WSM_PAGE_SIZE;
    return f->seen[place];
}

void wsm_fetch_free(WsmFetch *f)
{
    bool last;

    WITH_QEMU_LOCK_GUARD(&f->lock) {
        f->left = true;
        last = !f->running;
    }
    if (last) {
        wsm_fetch_destroy(f);
    }
}
