/*
 * Whole-system migration: memory by reference, at the destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-wsm.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "migration/wsm/core/session.h"
#include "migration/wsm/dest/fetch.h"
#include "migration/wsm/dest/memory.h"
#include "migration/wsm/dest/templates.h"
#include "migration/wsm/memory/holes.h"
#include "migration/wsm/memory/kinds.h"
#include "migration/wsm/memory/ram.h"
#include "migration/wsm/memory/worth.h"
#include "migration/wsm/trace.h"

#define WSM_FETCH_MS            1000    /* then it is sent again */

struct WsmDestMemory {
    /* Set in new, never changed */
    uint8_t salt[WSM_SALT_SIZE];
    WsmHoles *holes;            /* has a lock of its own */
    WsmDestTemplates *templates;        /* or NULL; before channels come */
    void (*filled)(void *opaque);
    void *opaque;
    unsigned users;             /* atomic: references to this */

    QemuMutex lock;             /* protects the fields below */
    WsmLoop *loop;              /* these three are NULL after the stop */
    WsmDestDisks *disks;
    WsmDestControl *control;
    WsmDestKept *kept;          /* or NULL */
    RAMBlock *block[WSM_MAX_RAM_BLOCKS];        /* by the source's numbers */
    bool wanting;               /* WANT was said, and holes are left */
    WsmRate disks_rate;         /* what the link takes, as these have shown, */
    WsmRate own_rate;           /* or if they took too little time, this */
    WsmWorth worth[WSM_MEMORY_KIND__MAX];
    unsigned waiting;           /* channels that wait for blocks, */
    int64_t waiting_since;      /* ns; until then it was counted */

    WsmKindCounts count[WSM_MEMORY_KIND__MAX];
    /* Bytes */
    Stat64 content, packed, asked;
};

WsmDestMemory *wsm_dest_memory_new(WsmLoop *loop, WsmDestDisks *disks,
                                   WsmDestControl *control,
                                   void (*filled)(void *opaque), void *opaque)
{
    WsmDestMemory *m = g_new0(WsmDestMemory, 1);

    GLOBAL_STATE_CODE();
    wsm_salt_init(m->salt);
    m->holes = wsm_holes_new();
    m->filled = filled;
    m->opaque = opaque;
    m->users = 1;
    qemu_mutex_init(&m->lock);
    m->loop = loop;
    m->disks = disks;
    m->control = control;
    return m;
}

WsmDestMemory *wsm_dest_memory_ref(WsmDestMemory *m)
{
    qatomic_inc(&m->users);
    return m;
}

void wsm_dest_memory_unref(WsmDestMemory *m)
{
    if (m && qatomic_fetch_dec(&m->users) == 1) {
        wsm_holes_free(m->holes);
        wsm_dest_templates_free(m->templates);
        qemu_mutex_destroy(&m->lock);
        g_free(m);
    }
}

void wsm_dest_memory_set_templates(WsmDestMemory *m, WsmTemplates *own,
                                   WsmRingSpec *ring)
{
    GLOBAL_STATE_CODE();
    assert(!m->templates);
    m->templates = wsm_dest_templates_new(own, ring, m->loop);
}

void wsm_dest_memory_set_kept(WsmDestMemory *m, WsmDestKept *kept)
{
    GLOBAL_STATE_CODE();
    QEMU_LOCK_GUARD(&m->lock);
    m->kept = kept;
}

void wsm_dest_memory_stop(WsmDestMemory *m)
{
    GLOBAL_STATE_CODE();
    /* Not with @lock, for which the loop may wait */
    wsm_dest_templates_stop(m->templates);
    QEMU_LOCK_GUARD(&m->lock);
    m->loop = NULL;
    m->disks = NULL;
    m->control = NULL;
    m->kept = NULL;
}

/*
 * Holes
 */

/* @lock */
static void wsm_dest_memory_say(WsmDestMemory *m, unsigned block,
                                uint64_t first, uint64_t pages)
{
    WsmMsg msg = {
        .type = m->wanting ? WSM_MSG_WANT : WSM_MSG_NACK,
        .epoch = m->wanting,
        .disk = block,
        .offset = first * WSM_PAGE_SIZE,
        .bytes = pages * WSM_PAGE_SIZE,
    };

    if (m->control) {
        wsm_dest_say(m->control, &msg);
    }
}

/* WsmHolesFn; @lock */
static void wsm_dest_memory_say_run(void *opaque, unsigned block,
                                    uint64_t first, uint64_t pages)
{
    wsm_dest_memory_say(opaque, block, first, pages);
}

/* @lock */
static void wsm_dest_memory_say_all(WsmDestMemory *m)
{
    wsm_holes_each(m->holes, WSM_MAX_PAGES / WSM_PAGE_SIZE,
                   wsm_dest_memory_say_run, m);
}

/* @lock: the source does not stop the guest while we are far behind */
static void wsm_dest_memory_say_done(WsmDestMemory *m, WsmMemoryKind kind)
{
    WsmKindCounts *c = &m->count[kind];
    WsmMsg msg = {
        .type = WSM_MSG_DONE,
        .disk = kind,
        .offset = stat64_get(&c->referenced) / WSM_PAGE_SIZE,
        .bytes = stat64_get(&c->missed) / WSM_PAGE_SIZE,
    };

    if (m->control && msg.offset) {
        wsm_dest_say(m->control, &msg);
    }
}

/* @lock */
static void wsm_dest_memory_say_stop(WsmDestMemory *m, WsmMemoryKind kind)
{
    unsigned off = qatomic_read(&m->count[kind].off);
    WsmMsg msg = { .type = WSM_MSG_STOP, .disk = kind, .offset = off - 1 };

    if (m->control && off) {
        wsm_dest_say(m->control, &msg);
    }
}

static void wsm_dest_memory_missed(WsmDestMemory *m, unsigned block,
                                   uint64_t page)
{
    /* First the hole: when channel 0 comes up all holes are said */
    wsm_holes_add(m->holes, block, page);
    QEMU_LOCK_GUARD(&m->lock);
    wsm_dest_memory_say(m, block, page, 1);
}

/*
 * Channels of multifd
 */

bool wsm_dest_memory_refs(WsmDestMemory *m, const WsmPacket *packet,
                          const uint8_t *buf, WsmRef *refs, Error **errp)
{
    ERRP_GUARD();
    int64_t size[WSM_MAX_DISKS];
    unsigned disks;

    WITH_QEMU_LOCK_GUARD(&m->lock) {
        disks = m->disks ? m->disks->n : 0;
        for (unsigned i = 0; i < disks; i++) {
            size[i] = m->disks->disk[i].size;
        }
    }
    if (!wsm_refs_decode(packet, buf, disks, size, refs, errp)) {
        return false;
    }
    for (unsigned i = 0; i < packet->nrefs; i++) {
        if (refs[i].kind == WSM_REF_TEMPLATE &&
            !wsm_dest_templates_check(m->templates, &refs[i], errp)) {
            error_prepend(errp, "reference %u: ", i);
            return false;
        }
    }
    return true;
}

/* The source calls @ram @block.  Does it always?  Else false, and @errp. */
static bool wsm_dest_memory_named(WsmDestMemory *m, unsigned block,
                                  RAMBlock *ram, Error **errp)
{
    QEMU_LOCK_GUARD(&m->lock);

    if (m->wanting) {
        error_setg(errp, "memory comes after all was loaded");
        return false;
    }
    if (m->block[block] && m->block[block] != ram) {
        error_setg(errp, "number %u is that of two blocks of memory", block);
        return false;
    }
    m->block[block] = ram;
    return true;
}

/* @lock: where the content is that @ref means for the page at @offset */
static WsmFetchPlace wsm_dest_memory_where(WsmDestMemory *m, const WsmRef *ref,
                                           RAMBlock *ram, ram_addr_t offset)
{
    if (ref->kind == WSM_REF_TEMPLATE) {
        return wsm_dest_templates_place(m->templates, ref);
    }
    if (ref->kind == WSM_REF_IMAGE) {
        return m->kept ? wsm_dest_kept_place(m->kept, wsm_ram_name(ram),
                                             offset)
                       : (WsmFetchPlace) {};
    }
    return (WsmFetchPlace) {
        .read = wsm_dest_disk_read,
        .opaque = &m->disks->disk[ref->disk],
        .offset = ref->block * WSM_PAGE_SIZE,
    };
}

/* The time of channels that wait at the same time counts once.  @lock. */
static void wsm_dest_memory_wait_begins(WsmDestMemory *m)
{
    if (!m->waiting++) {
        m->waiting_since = wsm_now();
    }
}

/* NULL: it is too late for that */
static WsmFetch *wsm_dest_memory_fetch(WsmDestMemory *m, const WsmRef *refs,
                                       RAMBlock *ram, const ram_addr_t *offset,
                                       unsigned n)
{
    QEMU_LOCK_GUARD(&m->lock);
    WsmFetchPlace place[WSM_PACKET_PAGES];

    wsm_dest_memory_wait_begins(m);
    if (!m->loop) {
        return NULL;
    }
    for (unsigned i = 0; i < n; i++) {
        place[i] = wsm_dest_memory_where(m, &refs[i], ram, offset[i]);
    }
    return wsm_fetch_start(m->loop, place, n);
}

/* Of a packet, of one kind */
typedef struct WsmTally {
    unsigned refs, missed, wrong, late;
} WsmTally;

/* Fill the page if @fetch has what @ref says; false: it has not */
static bool wsm_dest_memory_fill(WsmDestMemory *m, const WsmFetch *fetch,
                                 unsigned i, const WsmRef *ref, RAMBlock *ram,
                                 uint64_t offset, WsmTally *tally)
{
    const void *content;
    WsmFetched fetched = fetch ? wsm_fetch_get(fetch, i, &content)
                               : WSM_FETCHED_NOT;

    trace_wsm_dest_memory_fill(ref->disk, ref->block, fetched);
    if (fetched == WSM_FETCHED_NOT) {
        tally->late++;
        return false;
    }
    if (fetched == WSM_FETCHED_FAIL) {
        return false;
    }
    if (!wsm_page_has_tag(m->salt, content, ref->tag)) {
        tally->wrong++;
        return false;
    }
    memcpy(wsm_ram_at(ram, offset), content, WSM_PAGE_SIZE);
    wsm_ram_received(ram, offset);
    return true;
}

/* Returns the ns since the last one ended that any channel waited.  @lock. */
static int64_t wsm_dest_memory_wait_ends(WsmDestMemory *m)
{
    int64_t now = wsm_now(), ns = now - m->waiting_since;

    m->waiting--;
    m->waiting_since = now;
    return ns;
}

/* How long a page takes on the link, packed as the others were.  @lock. */
static int64_t wsm_dest_memory_page_ns(WsmDestMemory *m)
{
    uint64_t content = stat64_get(&m->content);
    double part = content ? (double)stat64_get(&m->packed) / content : 1;

    return wsm_rate_ns(m->disks_rate.best ? &m->disks_rate : &m->own_rate,
                       WSM_PAGE_SIZE * part);
}

/*
 * @lock: is it worth while to go on with this kind?  We waited @ns for it.  The
 * source may go on in spite of "slow", so something worse is said as well.
 */
static void wsm_dest_memory_judge(WsmDestMemory *m, WsmMemoryKind kind,
                                  const WsmTally *t, int64_t ns)
{
    unsigned off = qatomic_read(&m->count[kind].off);
    WsmMemoryWhy why;

    if (!wsm_worth_ends(&m->worth[kind], t->refs, t->missed, t->wrong, ns,
                        wsm_dest_memory_page_ns(m), &why) ||
        (off && (off != 1 + WSM_MEMORY_WHY_SLOW ||
                 why == WSM_MEMORY_WHY_SLOW))) {
        return;
    }
    qatomic_set(&m->count[kind].off, 1 + why);
    trace_wsm_dest_memory_stop(WsmMemoryKind_str(kind),
                               WsmMemoryWhy_str(why));
    wsm_dest_memory_say_stop(m, kind);
    qapi_event_send_wsm_memory_source(WSM_ROLE_DESTINATION, kind, why);
}

/* What came of the @nrefs references of a packet, for which we waited @ns */
static void wsm_dest_memory_dealt(WsmDestMemory *m, const WsmTally *tally,
                                  unsigned nrefs, int64_t ns)
{
    QEMU_LOCK_GUARD(&m->lock);

    for (int kind = 0; kind < WSM_MEMORY_KIND__MAX; kind++) {
        const WsmTally *t = &tally[kind];
        WsmKindCounts *c = &m->count[kind];

        if (!t->refs) {
            continue;
        }
        stat64_add(&c->referenced, t->refs * WSM_PAGE_SIZE);
        stat64_add(&c->missed, t->missed * WSM_PAGE_SIZE);
        stat64_add(&c->wrong, t->wrong * WSM_PAGE_SIZE);
        stat64_add(&c->late, t->late * WSM_PAGE_SIZE);
        wsm_dest_memory_say_done(m, kind);
        wsm_dest_memory_judge(m, kind, t, ns * t->refs / nrefs);
    }
}

/* What @refs are for, or NULL; it waited @ns for that */
static WsmFetch *wsm_dest_memory_get(WsmDestMemory *m, const WsmRef *refs,
                                     RAMBlock *ram, const ram_addr_t *offset,
                                     unsigned n, int64_t *ns)
{
    WsmFetch *fetch = wsm_dest_memory_fetch(m, refs, ram, offset, n);

    if (fetch) {
        wsm_fetch_wait(fetch, WSM_FETCH_MS);
    }
    QEMU_LOCK_GUARD(&m->lock);
    *ns = wsm_dest_memory_wait_ends(m);
    return fetch;
}

bool wsm_dest_memory_resolve(WsmDestMemory *m, const WsmPacket *packet,
                             const WsmRef *refs, RAMBlock *ram,
                             const ram_addr_t *offset, Error **errp)
{
    WsmTally tally[WSM_MEMORY_KIND__MAX] = {};
    WsmFetch *fetch;
    int64_t ns;

    if (!packet->nrefs) {
        return true;
    }
    if (!wsm_dest_memory_named(m, packet->block, ram, errp)) {
        return false;
    }
    fetch = wsm_dest_memory_get(m, refs, ram, offset, packet->nrefs, &ns);
    for (unsigned i = 0; i < packet->nrefs; i++) {
        WsmTally *t = &tally[wsm_ref_memory_kind(refs[i].kind)];
        uint64_t page = offset[i] / WSM_PAGE_SIZE;

        t->refs++;
        if (wsm_dest_memory_fill(m, fetch, i, &refs[i], ram, offset[i], t)) {
            wsm_holes_fill(m->holes, packet->block, page);
        } else {
            t->missed++;
            wsm_dest_memory_missed(m, packet->block, page);
        }
    }
    if (fetch) {
        wsm_fetch_free(fetch);
    }
    wsm_dest_memory_dealt(m, tally, packet->nrefs, ns);
    return true;
}

void wsm_dest_memory_came(WsmDestMemory *m, RAMBlock *ram,
                          const ram_addr_t *offset, unsigned pages)
{
    unsigned block;

    WITH_QEMU_LOCK_GUARD(&m->lock) {
        for (block = 0; block < WSM_MAX_RAM_BLOCKS; block++) {
            if (m->block[block] == ram) {
                break;
            }
        }
    }
    /* Without a number it has had no reference, and has no hole */
    for (unsigned i = 0; block < WSM_MAX_RAM_BLOCKS && i < pages; i++) {
        wsm_holes_fill(m->holes, block, offset[i] / WSM_PAGE_SIZE);
    }
}

void wsm_dest_memory_link(WsmDestMemory *m, uint64_t bytes)
{
    QEMU_LOCK_GUARD(&m->lock);
    wsm_rate_add(&m->disks_rate, wsm_now(), bytes);
}

void wsm_dest_memory_count(WsmDestMemory *m, unsigned pages, uint64_t packed)
{
    stat64_add(&m->content, (uint64_t)pages * WSM_PAGE_SIZE);
    stat64_add(&m->packed, packed);
    QEMU_LOCK_GUARD(&m->lock);
    wsm_rate_add(&m->own_rate, wsm_now(), packed);
}

/*
 * The freeze
 */

bool wsm_dest_memory_want(WsmDestMemory *m)
{
    uint64_t holes = wsm_holes_count(m->holes);
    QEMU_LOCK_GUARD(&m->lock);

    GLOBAL_STATE_CODE();
    if (!holes) {
        return false;
    }
    trace_wsm_dest_memory_want(holes);
    stat64_add(&m->asked, holes * WSM_PAGE_SIZE);
    m->wanting = true;
    wsm_dest_memory_say_all(m);
    return true;
}

int coroutine_fn wsm_dest_memory_up(WsmDestMemory *m, WsmDestConn *conn)
{
    WsmMsg salt = { .type = WSM_MSG_SALT, .length = WSM_SALT_SIZE };
    int ret = wsm_dest_conn_send(conn, &salt, m->salt);

    if (ret >= 0 && m->templates) {
        ret = wsm_dest_templates_say(m->templates, conn);
    }
    WITH_QEMU_LOCK_GUARD(&m->lock) {
        wsm_dest_memory_say_all(m);
        for (int kind = 0; kind < WSM_MEMORY_KIND__MAX; kind++) {
            wsm_dest_memory_say_done(m, kind);
            wsm_dest_memory_say_stop(m, kind);
        }
        if (m->kept && ret >= 0) {
            wsm_dest_kept_say(m->kept, conn);
        }
    }
    return ret;
}

/* Where PAGE belongs; NULL, and @errp */
static RAMBlock *wsm_dest_memory_place(WsmDestMemory *m, const WsmMsg *msg,
                                       Error **errp)
{
    QEMU_LOCK_GUARD(&m->lock);
    RAMBlock *ram = m->block[msg->disk];

    if (!ram || msg->offset + msg->bytes > wsm_ram_size(ram)) {
        error_setg(errp, "PAGE: offset 0x%" PRIx64 " + bytes %" PRIu64
                   " of block %u of memory were not asked for", msg->offset,
                   msg->bytes, msg->disk);
        return NULL;
    }
    return ram;
}

/* Was that the last of those that are wanted? */
static bool wsm_dest_memory_is_filled(WsmDestMemory *m)
{
    QEMU_LOCK_GUARD(&m->lock);

    if (!m->wanting || wsm_holes_count(m->holes)) {
        return false;
    }
    m->wanting = false;
    return true;
}

bool coroutine_fn wsm_dest_on_page(WsmDestMemory *m, WsmDestConn *conn,
                                   const WsmMsg *msg, Error **errp)
{
    RAMBlock *ram = wsm_dest_memory_place(m, msg, errp);
    g_autofree uint8_t *buf = ram ? g_malloc(msg->length) : NULL;

    if (!ram || !wsm_channel_recv_payload(&conn->c, buf, msg->length, errp)) {
        return false;
    }
    for (uint64_t i = 0; i < msg->bytes; i += WSM_PAGE_SIZE) {
        uint64_t offset = msg->offset + i;

        /* It may come twice, and then the guest may have written to it */
        if (wsm_holes_has(m->holes, msg->disk, offset / WSM_PAGE_SIZE)) {
            memcpy(wsm_ram_at(ram, offset), buf + i, WSM_PAGE_SIZE);
            wsm_ram_received(ram, offset);
            wsm_holes_fill(m->holes, msg->disk, offset / WSM_PAGE_SIZE);
        }
    }
    if (wsm_dest_memory_is_filled(m)) {
        m->filled(m->opaque);
    }
    return true;
}

WsmMemoryInfo *wsm_dest_memory_info(WsmDestMemory *m)
{
    WsmMemoryInfo *info = g_new0(WsmMemoryInfo, 1);

    wsm_kinds_info(m->count, 0, info);
    info->q_inline = stat64_get(&m->content);
    info->packed = stat64_get(&m->packed);
    info->missing = wsm_holes_count(m->holes) * WSM_PAGE_SIZE;
    info->asked = stat64_get(&m->asked);
    wsm_dest_templates_info(m->templates, info);
    return info;
}
