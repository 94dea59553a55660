/*
 * Whole-system migration: what pages of memory refer to is read
 *
 * The places are sorted, so that neighbours on a disk are read at once: a run.
 * Each run is a coroutine of its own, so that they are read at the same time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/memalign.h"
#include "migration/wsm/dest/fetch.h"

typedef struct WsmFetchItem {
    WsmFetch *fetch;
    WsmFetchPlace place;
    unsigned index;             /* of the page */
    unsigned run;               /* of the first of a run: how many there are */
} WsmFetchItem;

struct WsmFetch {
    /* Set in start, never changed */
    unsigned n;
    WsmFetchItem item[WSM_PACKET_PAGES];        /* sorted by place */
    unsigned sorted[WSM_PACKET_PAGES];          /* each page's place in @item */
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
    const WsmFetchPlace *x = &((const WsmFetchItem *)a)->place;
    const WsmFetchPlace *y = &((const WsmFetchItem *)b)->place;

    if (x->opaque != y->opaque) {
        return (uintptr_t)x->opaque < (uintptr_t)y->opaque ? -1 : 1;
    }
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static void wsm_fetch_destroy(WsmFetch *f)
{
    qemu_cond_destroy(&f->done);
    qemu_mutex_destroy(&f->lock);
    qemu_vfree(f->buf);
    g_free(f);
}

static int coroutine_fn wsm_fetch_read(const WsmFetchItem *item, void *buf)
{
    const WsmFetchPlace *place = &item->place;

    return place->read ? place->read(place->opaque, place->offset,
                                     (int64_t)item->run * WSM_PAGE_SIZE, buf)
                       : -ENOENT;
}

static void coroutine_fn wsm_fetch_co(void *opaque)
{
    WsmFetchItem *item = opaque;
    WsmFetch *f = item->fetch;
    unsigned first = item - f->item;
    int ret = wsm_fetch_read(item, f->buf + first * WSM_PAGE_SIZE);
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

static bool wsm_fetch_follows(const WsmFetchItem *head,
                              const WsmFetchItem *item)
{
    return item->place.read == head->place.read &&
           item->place.opaque == head->place.opaque &&
           item->place.offset == head->place.offset +
                                 (int64_t)head->run * WSM_PAGE_SIZE;
}

/* Find the runs, and how many there are */
static unsigned wsm_fetch_join(WsmFetch *f)
{
    WsmFetchItem *head = f->item;
    unsigned runs = 1;

    head->run = 1;
    for (unsigned i = 1; i < f->n; i++) {
        if (wsm_fetch_follows(head, &f->item[i])) {
            head->run++;
        } else {
            head = &f->item[i];
            head->run = 1;
            runs++;
        }
    }
    return runs;
}

WsmFetch *wsm_fetch_start(WsmLoop *loop, const WsmFetchPlace *places,
                          unsigned n)
{
    WsmFetch *f = g_new0(WsmFetch, 1);

    assert(n && n <= WSM_PACKET_PAGES);
    f->n = n;
    f->buf = qemu_memalign(qemu_real_host_page_size(), n * WSM_PAGE_SIZE);
    qemu_mutex_init(&f->lock);
    qemu_cond_init(&f->done);
    for (unsigned i = 0; i < n; i++) {
        f->item[i] = (WsmFetchItem) {
            .fetch = f, .place = places[i], .index = i,
        };
    }
    qsort(f->item, n, sizeof(f->item[0]), wsm_fetch_compare);
    for (unsigned i = 0; i < n; i++) {
        f->sorted[f->item[i].index] = i;
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
    unsigned sorted = f->sorted[i];

    *content = f->buf + sorted * WSM_PAGE_SIZE;
    return f->seen[sorted];
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
