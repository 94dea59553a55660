/*
 * Whole-system migration: memory by reference, at the source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-wsm.h"
#include "qemu/bitops.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/stats64.h"
#include "migration/wsm/memory/index.h"
#include "migration/wsm/memory/kinds.h"
#include "migration/wsm/memory/ram.h"
#include "migration/wsm/source/memory.h"
#include "migration/wsm/source/prints.h"
#include "migration/wsm/source/templates.h"
#include "migration/wsm/trace.h"

#define WSM_INDEX_BYTES         (72 * MiB)      /* for 12 GiB of data */

/*
 * With so many, 4 MiB, the destination is done before anybody notices; not if a
 * kind was given up, as it was slow
 */
#define WSM_MAX_BEHIND          1024

/* Of what was sent last: of what was before, half counts */
#define WSM_LAST                (4 * MiB)

struct WsmSourceMemory {
    /* Set in new, never changed */
    WsmIndex *index;            /* has a lock of its own */
    WsmSourcePrints *prints;    /* likewise */
    WsmSourceTemplates *templates;      /* likewise */
    WsmSeed seed;
    unsigned kinds;             /* bits by WsmMemoryKind: switched on */
    unsigned users;             /* atomic: references to this */

    QemuMutex lock;             /* protects the fields below */
    WsmWork *work;              /* NULL: before the start, or stopped */
    bool up, zstd, salted;
    uint8_t salt[WSM_SALT_SIZE];
    GPtrArray *blocks;          /* of RAMBlock, by number */
    uint64_t sent, done[WSM_MEMORY_KIND__MAX];  /* references, in all */

    uint64_t last_content, last_packed;         /* bytes, of the last ones */

    WsmKindCounts count[WSM_MEMORY_KIND__MAX];
    /* Bytes */
    Stat64 content, packed, asked;
};

WsmSourceMemory *wsm_source_memory_new(unsigned kinds)
{
    WsmSourceMemory *m = g_new0(WsmSourceMemory, 1);

    m->index = wsm_index_new(WSM_INDEX_BYTES);
    m->prints = wsm_source_prints_new();
    m->templates = wsm_source_templates_new();
    wsm_seed_init(&m->seed);
    m->kinds = kinds;
    m->users = 1;
    qemu_mutex_init(&m->lock);
    m->blocks = g_ptr_array_new();
    return m;
}

WsmSourceMemory *wsm_source_memory_ref(WsmSourceMemory *m)
{
    qatomic_inc(&m->users);
    return m;
}

void wsm_source_memory_unref(WsmSourceMemory *m)
{
    if (m && qatomic_fetch_dec(&m->users) == 1) {
        wsm_index_free(m->index);
        wsm_source_prints_free(m->prints);
        wsm_source_templates_free(m->templates);
        g_ptr_array_unref(m->blocks);
        qemu_mutex_destroy(&m->lock);
        g_free(m);
    }
}

void wsm_source_memory_start(WsmSourceMemory *m, WsmWork *work)
{
    QEMU_LOCK_GUARD(&m->lock);
    m->work = work;
}

void wsm_source_memory_set_templates(WsmSourceMemory *m, WsmTemplates *own)
{
    GLOBAL_STATE_CODE();
    wsm_source_templates_own(m->templates, own);
}

void wsm_source_memory_stop(WsmSourceMemory *m)
{
    QEMU_LOCK_GUARD(&m->lock);
    m->work = NULL;
}

/*
 * In the loop
 */

void wsm_source_memory_up(WsmSourceMemory *m, bool zstd)
{
    QEMU_LOCK_GUARD(&m->lock);
    m->up = true;
    m->zstd = zstd;
}

void wsm_source_memory_down(WsmSourceMemory *m)
{
    QEMU_LOCK_GUARD(&m->lock);
    m->up = false;
}

void wsm_source_memory_salt(WsmSourceMemory *m, const uint8_t *salt)
{
    QEMU_LOCK_GUARD(&m->lock);
    memcpy(m->salt, salt, WSM_SALT_SIZE);
    m->salted = true;
}

bool wsm_source_memory_sets(WsmSourceMemory *m, const uint8_t *payload,
                            size_t length, Error **errp)
{
    return wsm_source_templates_said(m->templates, payload, length, errp);
}

bool wsm_source_memory_digests(WsmSourceMemory *m, const WsmMsg *msg,
                               const uint8_t *payload, Error **errp)
{
    WsmPrints prints;

    if (!wsm_prints_decode(msg, payload, &prints, errp)) {
        return false;
    }
    wsm_source_prints_put(m->prints, msg, &prints);
    return true;
}

void wsm_source_memory_note(WsmSourceMemory *m, unsigned disk, int64_t offset,
                            int64_t bytes, const void *buf)
{
    uint64_t block = offset / WSM_PAGE_SIZE;
    /* What is left at the end of a disk is no page */
    uint64_t end = block + bytes / WSM_PAGE_SIZE;

    if (!wsm_source_memory_uses(m, WSM_MEMORY_KIND_DISK)) {
        return;
    }
    if (!buf) {
        wsm_index_drop(m->index, disk, block, end - block);
        return;
    }
    for (const uint8_t *p = buf; block < end; block++, p += WSM_PAGE_SIZE) {
        if (buffer_is_zero(p, WSM_PAGE_SIZE)) {
            wsm_index_drop(m->index, disk, block, 1);
        } else {
            wsm_index_put(m->index, disk, block,
                          wsm_page_print(&m->seed, p));
        }
    }
}

/* @lock: the block of memory of @msg, or NULL and @errp */
static RAMBlock *wsm_source_memory_block(WsmSourceMemory *m, const WsmMsg *msg,
                                         Error **errp)
{
    RAMBlock *block = msg->disk < m->blocks->len
                      ? g_ptr_array_index(m->blocks, msg->disk) : NULL;

    if (!block) {
        error_setg(errp, "%s: no memory of block %u was sent by reference",
                   wsm_msg_name(msg->type), msg->disk);
        return NULL;
    }
    if (msg->offset + msg->bytes > wsm_ram_size(block)) {
        error_setg(errp, "%s: offset 0x%" PRIx64 " + bytes %" PRIu64
                   " is beyond block %u of memory, of %" PRIu64 " bytes",
                   wsm_msg_name(msg->type), msg->offset, msg->bytes, msg->disk,
                   wsm_ram_size(block));
        return NULL;
    }
    return block;
}

bool wsm_source_memory_nack(WsmSourceMemory *m, const WsmMsg *msg,
                            Error **errp)
{
    QEMU_LOCK_GUARD(&m->lock);
    RAMBlock *block = wsm_source_memory_block(m, msg, errp);

    if (!block) {
        return false;
    }
    trace_wsm_source_memory_nack(msg->disk, msg->offset, msg->bytes);
    wsm_source_prints_drop(m->prints, block, msg->offset, msg->bytes);
    wsm_ram_mark_dirty(block, msg->offset, msg->bytes);
    return true;
}

void wsm_source_memory_done(WsmSourceMemory *m, const WsmMsg *msg)
{
    QEMU_LOCK_GUARD(&m->lock);
    uint64_t *done = &m->done[msg->disk];

    *done = MAX(*done, msg->offset);
    stat64_max(&m->count[msg->disk].missed, msg->bytes * WSM_PAGE_SIZE);
}

void wsm_source_memory_end(WsmSourceMemory *m, WsmMemoryKind kind,
                           WsmMemoryWhy why)
{
    trace_wsm_source_memory_end(WsmMemoryKind_str(kind),
                                WsmMemoryWhy_str(why));
    if (!qatomic_xchg(&m->count[kind].off, 1 + why)) {
        qapi_event_send_wsm_memory_source(WSM_ROLE_SOURCE, kind, why);
    }
}

const void *wsm_source_memory_want(WsmSourceMemory *m, const WsmMsg *msg,
                                   Error **errp)
{
    QEMU_LOCK_GUARD(&m->lock);
    RAMBlock *block = wsm_source_memory_block(m, msg, errp);

    if (!block) {
        return NULL;
    }
    trace_wsm_source_memory_want(msg->disk, msg->offset, msg->bytes);
    stat64_add(&m->asked, msg->bytes);
    return wsm_ram_at(block, msg->offset);
}

bool wsm_source_memory_uses(WsmSourceMemory *m, WsmMemoryKind kind)
{
    return (m->kinds & BIT(kind)) && !qatomic_read(&m->count[kind].off);
}

/*
 * Channels of multifd
 */

bool wsm_source_memory_has_zstd(WsmSourceMemory *m)
{
    QEMU_LOCK_GUARD(&m->lock);
    return m->zstd;
}

unsigned wsm_source_memory_number(WsmSourceMemory *m, RAMBlock *block)
{
    QEMU_LOCK_GUARD(&m->lock);
    unsigned i;

    if (!g_ptr_array_find(m->blocks, block, &i)) {
        i = m->blocks->len;
        if (i < WSM_MAX_RAM_BLOCKS) {
            g_ptr_array_add(m->blocks, block);
        }
    }
    return i;
}

/* Has the destination what @ref means, as far as is known?  Sets @salt. */
static bool wsm_source_memory_is_there(WsmSourceMemory *m, const WsmRef *ref,
                                       uint8_t *salt)
{
    QEMU_LOCK_GUARD(&m->lock);
    BdrvDirtyBitmap *dirty;

    if (!m->work || !m->up || !m->salted) {
        return false;
    }
    memcpy(salt, m->salt, WSM_SALT_SIZE);
    if (ref->kind != WSM_REF_DISK) {
        return true;
    }
    dirty = wsm_work_dirty_bitmap(m->work, ref->disk);
    return dirty && !bdrv_dirty_bitmap_get(dirty, ref->block * WSM_PAGE_SIZE);
}

/* Is @page on a disk that the destination has?  Then @ref says where. */
static bool wsm_source_memory_is_on_disk(WsmSourceMemory *m, const void *page,
                                         WsmRef *ref, uint8_t *salt)
{
    unsigned disk;

    *ref = (WsmRef) { .kind = WSM_REF_DISK };
    if (!wsm_source_memory_uses(m, WSM_MEMORY_KIND_DISK) ||
        !wsm_index_find(m->index, wsm_page_print(&m->seed, page),
                        &disk, &ref->block)) {
        return false;
    }
    ref->disk = disk;
    return wsm_source_memory_is_there(m, ref, salt);
}

/* Likewise, in a set of templates */
static bool wsm_source_memory_is_template(WsmSourceMemory *m, const void *page,
                                          WsmRef *ref, uint8_t *salt)
{
    return wsm_source_memory_uses(m, WSM_MEMORY_KIND_TEMPLATE) &&
           wsm_source_templates_find(m->templates, page, ref) &&
           wsm_source_memory_is_there(m, ref, salt);
}

/* Likewise, in its older memory, at the same place */
static bool wsm_source_memory_is_old(WsmSourceMemory *m, const RAMBlock *block,
                                     uint64_t offset, const void *page,
                                     WsmRef *ref, uint8_t *salt)
{
    *ref = (WsmRef) { .kind = WSM_REF_IMAGE };
    return wsm_source_memory_uses(m, WSM_MEMORY_KIND_IMAGE) &&
           wsm_source_prints_find(m->prints, block, offset, page) &&
           wsm_source_memory_is_there(m, ref, salt);
}

bool wsm_source_memory_find(WsmSourceMemory *m, const RAMBlock *block,
                            uint64_t offset, const void *page, WsmRef *ref)
{
    uint8_t salt[WSM_SALT_SIZE];

    if (!wsm_source_memory_is_old(m, block, offset, page, ref, salt) &&
        !wsm_source_memory_is_on_disk(m, page, ref, salt) &&
        !wsm_source_memory_is_template(m, page, ref, salt)) {
        return false;
    }
    wsm_page_tag(salt, page, ref->tag);
    return true;
}

void wsm_source_memory_sent(WsmSourceMemory *m, const WsmRef *refs,
                            unsigned nrefs, unsigned pages, uint64_t packed)
{
    QEMU_LOCK_GUARD(&m->lock);

    for (unsigned i = 0; i < nrefs; i++) {
        stat64_add(&m->count[wsm_ref_memory_kind(refs[i].kind)].referenced,
                   WSM_PAGE_SIZE);
    }
    stat64_add(&m->content, (uint64_t)pages * WSM_PAGE_SIZE);
    stat64_add(&m->packed, packed);
    m->sent += nrefs;
    m->last_content += (uint64_t)pages * WSM_PAGE_SIZE;
    m->last_packed += packed;
    while (m->last_content >= WSM_LAST) {
        m->last_content /= 2;
        m->last_packed /= 2;
    }
}

void wsm_source_memory_packing(WsmSourceMemory *m, uint64_t *content,
                               uint64_t *packed)
{
    QEMU_LOCK_GUARD(&m->lock);
    *content = m->last_content;
    *packed = m->last_packed;
}

bool wsm_source_memory_is_behind(WsmSourceMemory *m)
{
    QEMU_LOCK_GUARD(&m->lock);
    uint64_t done = 0;
    bool off = false;

    for (int kind = 0; kind < WSM_MEMORY_KIND__MAX; kind++) {
        done += m->done[kind];
        off |= qatomic_read(&m->count[kind].off);
    }
    return m->sent > done + (off ? 0 : WSM_MAX_BEHIND);
}

WsmMemoryInfo *wsm_source_memory_info(WsmSourceMemory *m)
{
    WsmMemoryInfo *info = g_new0(WsmMemoryInfo, 1);

    wsm_kinds_info(m->count, m->kinds, info);
    info->q_inline = stat64_get(&m->content);
    info->packed = stat64_get(&m->packed);
    info->asked = stat64_get(&m->asked);
    info->index = wsm_index_size(m->index);
    return info;
}
