/*
 * Whole-system migration: templates that the destination can serve
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "migration/wsm/dest/templates.h"

struct WsmDestTemplates {
    /* Set in new, never changed */
    WsmTemplates *all;          /* reference */
    unsigned n;
    unsigned number[WSM_MAX_SETS];      /* in @all */
};

WsmDestTemplates *wsm_dest_templates_new(WsmTemplates *all)
{
    WsmDestTemplates *t = g_new0(WsmDestTemplates, 1);

    t->all = wsm_templates_ref(all);
    for (unsigned i = 0; i < wsm_templates_count(all); i++) {
        const WsmSet *set = wsm_templates_set(all, i);

        if (wsm_set_header(set)->kind == WSM_SET_PAGES) {
            t->number[t->n++] = i;
        }
    }
    return t;
}

void wsm_dest_templates_free(WsmDestTemplates *t)
{
    if (t) {
        wsm_templates_unref(t->all);
        g_free(t);
    }
}

static WsmSet *wsm_dest_templates_set(const WsmDestTemplates *t, unsigned i)
{
    return wsm_templates_set(t->all, t->number[i]);
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

WsmFetchPlace wsm_dest_templates_place(const WsmDestTemplates *t,
                                       const WsmRef *ref)
{
    return (WsmFetchPlace) {
        .read = wsm_dest_template_read,
        .opaque = wsm_dest_templates_set(t, ref->disk),
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
                wsm_templates_scope(t->all, t->number[i]));
    }
    payload = wsm_sets_encode(desc, t->n);
    msg.length = payload->len;
    return wsm_dest_conn_send(conn, &msg, payload->data);
}
