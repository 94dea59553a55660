/*
 * Whole-system migration: templates that the destination can serve
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "migration/wsm/dest/ring.h"
#include "migration/wsm/dest/templates.h"

/*
 * Places of pages in a ring: so far from each other that none follows on
 * another, as otherwise one that is missed would be a miss of both
 */
#define WSM_RING_STRIDE         (2 * WSM_PAGE_SIZE)

typedef struct WsmDestSet {
    unsigned number;            /* in @all */
    WsmSet *set;
    WsmDestRing *ring;          /* NULL: its file has the pages */
} WsmDestSet;

struct WsmDestTemplates {
    /* Set in new, never changed */
    WsmTemplates *all;          /* reference */
    WsmDestRing *ring;          /* NULL: none is needed */
    unsigned n;
    WsmDestSet set[WSM_MAX_SETS];
};

static bool wsm_dest_templates_has(WsmTemplates *all, WsmSetKind kind)
{
    for (unsigned i = 0; i < wsm_templates_count(all); i++) {
        if (wsm_set_header(wsm_templates_set(all, i))->kind == kind) {
            return true;
        }
    }
    return false;
}

WsmDestTemplates *wsm_dest_templates_new(WsmTemplates *all, WsmRingSpec *ring,
                                         WsmLoop *loop)
{
    WsmDestTemplates *t = g_new0(WsmDestTemplates, 1);

    GLOBAL_STATE_CODE();
    t->all = wsm_templates_ref(all);
    /* Without a thread the migration has failed already */
    if (ring && loop->iothread && wsm_dest_templates_has(all, WSM_SET_LIST)) {
        t->ring = wsm_dest_ring_new(ring, loop);
    }
    for (unsigned i = 0; i < wsm_templates_count(all); i++) {
        WsmSet *set = wsm_templates_set(all, i);
        bool has_pages = wsm_set_header(set)->kind == WSM_SET_PAGES;

        if (wsm_set_is_servable(set, t->ring)) {
            t->set[t->n++] = (WsmDestSet) {
                .number = i, .set = set,
                .ring = has_pages ? NULL : t->ring,
            };
        }
    }
    return t;
}

void wsm_dest_templates_stop(WsmDestTemplates *t)
{
    GLOBAL_STATE_CODE();
    if (t && t->ring) {
        wsm_dest_ring_stop(t->ring);
    }
}

void wsm_dest_templates_info(WsmDestTemplates *t, WsmMemoryInfo *info)
{
    WsmRingNodeInfoList **tail = &info->ring;

    if (t && t->ring) {
        info->has_ring = true;
        wsm_dest_ring_info(t->ring, &tail);
    }
}

void wsm_dest_templates_free(WsmDestTemplates *t)
{
    if (t) {
        if (t->ring) {
            wsm_dest_ring_free(t->ring);
        }
        wsm_templates_unref(t->all);
        g_free(t);
    }
}

static WsmSet *wsm_dest_templates_set(const WsmDestTemplates *t, unsigned i)
{
    return t->set[i].set;
}

bool wsm_dest_templates_check(const WsmDestTemplates *t, const WsmRef *ref,
                              Error **errp)
{
    unsigned n = t ? t->n : 0;
    uint64_t count;

    if (ref->disk >= n) {
        error_setg(errp, "set %u of templates is not below the number of sets "
                   "%u", ref->disk, n);
        return false;
    }
    count = wsm_set_header(wsm_dest_templates_set(t, ref->disk))->count;
    if (ref->block >= count) {
        error_setg(errp, "template %" PRIu64 " is not below the number of "
                   "templates %" PRIu64 " of set %u", ref->block, count,
                   ref->disk);
        return false;
    }
    return true;
}

/*
 * A file.  In a worker thread, as it may be on a disk that is slow.
 */

typedef struct WsmTemplateRead {
    const WsmSet *set;
    uint64_t number, n;
    void *buf;
} WsmTemplateRead;

static int wsm_dest_template_work(void *opaque)
{
    WsmTemplateRead *r = opaque;

    return wsm_set_read_pages(r->set, r->number, r->n, r->buf);
}

/* WsmFetchRead; @opaque is a WsmSet */
static int coroutine_fn wsm_dest_template_read(void *opaque, int64_t offset,
                                               int64_t bytes, void *buf)
{
    WsmTemplateRead r = {
        .set = opaque, .number = offset / WSM_PAGE_SIZE,
        .n = bytes / WSM_PAGE_SIZE, .buf = buf,
    };

    return thread_pool_submit_co(wsm_dest_template_work, &r);
}

/*
 * A ring
 */

typedef struct WsmHashRead {
    const WsmSet *set;
    uint64_t number;
    uint8_t hash[WSM_HASH_SIZE];
} WsmHashRead;

static int wsm_dest_template_hash_work(void *opaque)
{
    WsmHashRead *r = opaque;

    return wsm_set_read_hash(r->set, r->number, r->hash);
}

/* WsmFetchRead; @opaque is a WsmDestSet */
static int coroutine_fn wsm_dest_template_ask(void *opaque, int64_t offset,
                                              int64_t bytes, void *buf)
{
    WsmDestSet *s = opaque;
    WsmHashRead r = { .set = s->set, .number = offset / WSM_RING_STRIDE };
    int ret = thread_pool_submit_co(wsm_dest_template_hash_work, &r);

    assert(bytes == WSM_PAGE_SIZE);
    return ret < 0 ? ret : wsm_dest_ring_get(s->ring, r.hash, buf);
}

WsmFetchPlace wsm_dest_templates_place(WsmDestTemplates *t, const WsmRef *ref)
{
    WsmDestSet *s = &t->set[ref->disk];

    if (s->ring) {
        return (WsmFetchPlace) {
            .read = wsm_dest_template_ask,
            .opaque = s,
            .offset = ref->block * WSM_RING_STRIDE,
        };
    }
    return (WsmFetchPlace) {
        .read = wsm_dest_template_read,
        .opaque = s->set,
        .offset = ref->block * WSM_PAGE_SIZE,
    };
}

int coroutine_fn wsm_dest_templates_say(const WsmDestTemplates *t,
                                        WsmDestConn *conn)
{
    WsmSetDesc desc[WSM_MAX_SETS] = {};
    g_autoptr(GByteArray) payload = NULL;
    WsmMsg msg = { .type = WSM_MSG_SETS };

    if (!t->n) {
        return 0;
    }
    for (unsigned i = 0; i < t->n; i++) {
        const WsmSetHeader *h = wsm_set_header(wsm_dest_templates_set(t, i));

        memcpy(desc[i].id, h->id, WSM_HASH_SIZE);
        desc[i].count = h->count;
        pstrcpy(desc[i].scope, sizeof(desc[i].scope),
                wsm_templates_scope(t->all, t->set[i].number));
    }
    payload = wsm_sets_encode(desc, t->n);
    msg.length = payload->len;
    return wsm_dest_conn_send(conn, &msg, payload->data);
}
