/*
 * Whole-system migration: a method of multifd that sends memory by reference
 *
 * It stands around the method without compression, and does what that does
 * unless the option memory-references is on.  At the destination each packet
 * says by whom it is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "qemu/iov.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/migration.h"
#include "migration/multifd.h"
#include "migration/options.h"
#include "migration/wsm/memory/pace.h"
#include "migration/wsm/memory/pack.h"
#include "migration/wsm/memory/ram.h"
#include "migration/wsm/multifd.h"
#include "migration/wsm/state.h"
#include "migration/wsm/trace.h"

/* Those of QEMU are in multifd.h, and no two of them together are this one */
#define MULTIFD_FLAG_REFERENCE  (3 << 1)

#define WSM_HEAD_SIZE           (WSM_PACKET_SIZE + \
                                 WSM_PACKET_PAGES * WSM_REF_SIZE)
#define WSM_PAGES_SIZE          (WSM_PACKET_PAGES * WSM_PAGE_SIZE)

QEMU_BUILD_BUG_ON(WSM_PAGES_SIZE != MULTIFD_PACKET_SIZE);

static const MultiFDMethods *plain;     /* set when QEMU starts */

/*
 * Channels at the source
 */

typedef struct WsmMultifdSend {
    WsmSourceMemory *memory;    /* reference */
    WsmPacker *packer;          /* NULL: pages as they are */
    WsmPace pace;
    int64_t left_ns;            /* when the packet before was done with, */
    uint64_t left_bytes;        /* and what it has */

    /* Of the packet */
    uint8_t head[WSM_HEAD_SIZE];
    uint8_t *pages;             /* copies, as the guest runs */
    uint8_t *packed;
    WsmRef ref[WSM_PACKET_PAGES];
    ram_addr_t order[WSM_PACKET_PAGES];
} WsmMultifdSend;

/* A reference to what the source has of this, or NULL */
static WsmSourceMemory *wsm_multifd_memory(void)
{
    WsmSource *source;

    if (!migrate_whole_system()) {
        return NULL;
    }
    BQL_LOCK_GUARD();
    source = wsm_get()->source;
    return source && source->memory ? wsm_source_memory_ref(source->memory)
                                    : NULL;
}

static int wsm_multifd_send_setup(MultiFDSendParams *p, Error **errp)
{
    WsmSourceMemory *memory = wsm_multifd_memory();
    WsmMultifdSend *s;

    if (!memory) {
        return plain->send_setup(p, errp);
    }
    s = g_new0(WsmMultifdSend, 1);
    s->memory = memory;
    s->pages = g_malloc(WSM_PAGES_SIZE);
    s->packed = g_malloc(wsm_pack_bound(WSM_PAGES_SIZE));
    /* QEMU's header, ours with the references, the content */
    p->iov = g_new0(struct iovec, 3);
    p->compress_data = s;
    if (!(WSM_FEATURES & WSM_FEATURE_ZSTD) ||
        !wsm_option(&wsm_get()->options, WSM_OPT_MEMORY_PACK)) {
        return 0;
    }
    s->packer = wsm_packer_new(migrate_multifd_zstd_level(), errp);
    return s->packer ? 0 : -1;
}

static void wsm_multifd_send_cleanup(MultiFDSendParams *p, Error **errp)
{
    WsmMultifdSend *s = p->compress_data;

    if (!s) {
        plain->send_cleanup(p, errp);
        return;
    }
    wsm_source_memory_unref(s->memory);
    wsm_packer_free(s->packer);
    g_free(s->pages);
    g_free(s->packed);
    g_free(s);
    p->compress_data = NULL;
    g_clear_pointer(&p->iov, g_free);
}

/*
 * Nothing in the freeze may wait for a disk: with the guest stopped, or soon to
 * be, all pages go with their content.
 */
static bool wsm_multifd_may_refer(void)
{
    return qatomic_read(&migrate_get_current()->state) ==
           MIGRATION_STATUS_ACTIVE;
}

/*
 * Copy the pages that are not found elsewhere, as they change under us, and put
 * the others before them.  Returns how many others.
 */
static unsigned wsm_multifd_look(WsmMultifdSend *s, MultiFDPages_t *pages,
                                 bool refer)
{
    unsigned nrefs = 0, ncopies = 0;

    for (unsigned i = 0; i < pages->normal_num; i++) {
        uint8_t *copy = s->pages + ncopies * WSM_PAGE_SIZE;

        memcpy(copy, pages->block->host + pages->offset[i], WSM_PAGE_SIZE);
        if (refer &&
            wsm_source_memory_find(s->memory, pages->block, pages->offset[i],
                                   copy, &s->ref[nrefs])) {
            /* Those before are in their places already */
            pages->offset[nrefs++] = pages->offset[i];
        } else {
            s->order[ncopies++] = pages->offset[i];
        }
    }
    memcpy(pages->offset + nrefs, s->order, ncopies * sizeof(s->order[0]));
    return nrefs;
}

/* Returns false and sets @errp */
static bool wsm_multifd_fill(WsmMultifdSend *s, MultiFDSendParams *p,
                             bool pack, Error **errp)
{
    MultiFDPages_t *pages = &p->data->u.ram;
    unsigned block = wsm_source_memory_number(s->memory, pages->block);
    bool refer = pack && block < WSM_MAX_RAM_BLOCKS && wsm_multifd_may_refer();
    WsmPacket packet = {
        .block = MIN(block, WSM_MAX_RAM_BLOCKS - 1),
        .nrefs = wsm_multifd_look(s, pages, refer),
    };
    unsigned copies = pages->normal_num - packet.nrefs;
    void *content = s->pages;

    packet.bytes = copies * WSM_PAGE_SIZE;
    if (copies && pack && s->packer &&
        wsm_source_memory_has_zstd(s->memory)) {
        packet.packing = WSM_PACKING_ZSTD;
        content = s->packed;
        packet.bytes = wsm_pack(s->packer, s->pages, packet.bytes, s->packed,
                                wsm_pack_bound(WSM_PAGES_SIZE), errp);
        if (!packet.bytes) {
            return false;
        }
    }
    p->iov[p->iovs_num].iov_base = s->head;
    p->iov[p->iovs_num++].iov_len = wsm_packet_encode(&packet, s->ref,
                                                      s->head);
    p->iov[p->iovs_num].iov_base = content;
    p->iov[p->iovs_num++].iov_len = packet.bytes;
    p->next_packet_size = iov_size(p->iov + 1, 2);
    wsm_source_memory_sent(s->memory, s->ref, packet.nrefs, copies,
                           packet.bytes);
    trace_wsm_multifd_send(p->id, packet.nrefs, copies, packet.bytes);
    return true;
}

/* The packet before is out, and @p is prepared since @began */
static void wsm_multifd_pace(WsmMultifdSend *s, MultiFDSendParams *p,
                             int64_t began)
{
    int64_t now = wsm_now();
    WsmPaceStep step = {
        .busy_ns = now - began,
        .idle_ns = began - s->left_ns,
        .sent = s->left_bytes,
        .queued = wsm_channel_queued(p->c),
    };

    if (s->left_ns) {
        wsm_pace_done(&s->pace, &step);
    }
    s->left_ns = now;
    s->left_bytes = iov_size(p->iov, p->iovs_num);
}

static int wsm_multifd_send_prepare(MultiFDSendParams *p, Error **errp)
{
    WsmMultifdSend *s = p->compress_data;
    int64_t began = wsm_now();
    bool pack, ok = true;

    if (!s) {
        return plain->send_prepare(p, errp);
    }
    pack = wsm_pace_pack(&s->pace) ||
           !wsm_option(&wsm_get()->options, WSM_OPT_MEMORY_ADAPTIVE);
    if (multifd_send_prepare_common(p)) {
        ok = wsm_multifd_fill(s, p, pack, errp);
    }
    p->flags |= MULTIFD_FLAG_REFERENCE;
    multifd_send_fill_packet(p);
    wsm_multifd_pace(s, p, began);
    return ok ? 0 : -1;
}

/*
 * Channels at the destination
 */

/* Multifd's threads must not wait for the BQL: who has it may wait for them */
static struct {
    QemuMutex lock;
    WsmDestMemory *memory;      /* reference, or NULL */
} incoming;

typedef struct WsmMultifdRecv {
    WsmUnpacker *unpacker;      /* NULL: not needed yet */
    uint8_t *content;           /* likewise */
    uint8_t *pages;
    uint8_t refs[WSM_PACKET_PAGES * WSM_REF_SIZE];
    WsmRef ref[WSM_PACKET_PAGES];
} WsmMultifdRecv;

void wsm_multifd_set_incoming(WsmDestMemory *memory)
{
    GLOBAL_STATE_CODE();
    QEMU_LOCK_GUARD(&incoming.lock);
    wsm_dest_memory_unref(incoming.memory);
    incoming.memory = memory ? wsm_dest_memory_ref(memory) : NULL;
}

static WsmDestMemory *wsm_multifd_incoming(void)
{
    QEMU_LOCK_GUARD(&incoming.lock);
    return incoming.memory ? wsm_dest_memory_ref(incoming.memory) : NULL;
}

static int wsm_multifd_recv_setup(MultiFDRecvParams *p, Error **errp)
{
    int ret = plain->recv_setup(p, errp);

    if (ret == 0) {
        p->compress_data = g_new0(WsmMultifdRecv, 1);
    }
    return ret;
}

static void wsm_multifd_recv_cleanup(MultiFDRecvParams *p)
{
    WsmMultifdRecv *r = p->compress_data;

    plain->recv_cleanup(p);
    if (r) {
        wsm_unpacker_free(r->unpacker);
        g_free(r->content);
        g_free(r->pages);
        g_free(r);
        p->compress_data = NULL;
    }
}

/* The header and the references.  False, and @errp. */
static bool wsm_multifd_recv_head(MultiFDRecvParams *p, WsmDestMemory *memory,
                                  WsmPacket *packet, Error **errp)
{
    WsmMultifdRecv *r = p->compress_data;
    uint8_t head[WSM_PACKET_SIZE];

    if (p->normal_num > WSM_PACKET_PAGES) {
        error_setg(errp, "%u pages are more than %d", p->normal_num,
                   WSM_PACKET_PAGES);
        return false;
    }
    if (p->next_packet_size < sizeof(head)) {
        error_setg(errp, "%u bytes are no packet", p->next_packet_size);
        return false;
    }
    return qio_channel_read_all(p->c, (char *)head, sizeof(head), errp) == 0 &&
           wsm_packet_decode(head, p->next_packet_size, p->normal_num, packet,
                             errp) &&
           qio_channel_read_all(p->c, (char *)r->refs,
                                wsm_packet_refs_size(packet), errp) == 0 &&
           wsm_dest_memory_refs(memory, packet, r->refs, r->ref, errp);
}

/* The content of the pages that have no reference.  NULL, and @errp. */
static const uint8_t *wsm_multifd_recv_content(MultiFDRecvParams *p,
                                               const WsmPacket *packet,
                                               Error **errp)
{
    size_t size = (p->normal_num - packet->nrefs) * WSM_PAGE_SIZE;
    WsmMultifdRecv *r = p->compress_data;

    if (!r->content) {
        r->content = g_malloc(wsm_pack_bound(WSM_PAGES_SIZE));
        r->pages = g_malloc(WSM_PAGES_SIZE);
    }
    if (packet->bytes > wsm_pack_bound(WSM_PAGES_SIZE)) {
        error_setg(errp, "%u bytes of content are too many", packet->bytes);
        return NULL;
    }
    if (qio_channel_read_all(p->c, (char *)r->content, packet->bytes,
                             errp) < 0) {
        return NULL;
    }
    if (packet->packing == WSM_PACKING_RAW || !size) {
        return r->content;
    }
    if (!r->unpacker) {
        r->unpacker = wsm_unpacker_new(errp);
    }
    return r->unpacker && wsm_unpack(r->unpacker, r->content, packet->bytes,
                                     r->pages, size, errp) ? r->pages : NULL;
}

static bool wsm_multifd_recv_pages(MultiFDRecvParams *p, WsmDestMemory *memory,
                                   Error **errp)
{
    WsmMultifdRecv *r = p->compress_data;
    const uint8_t *content;
    WsmPacket packet;
    unsigned copies;

    if (!wsm_multifd_recv_head(p, memory, &packet, errp)) {
        return false;
    }
    content = wsm_multifd_recv_content(p, &packet, errp);
    if (!content) {
        return false;
    }
    copies = p->normal_num - packet.nrefs;
    for (unsigned i = 0; i < copies; i++) {
        ram_addr_t offset = p->normal[packet.nrefs + i];

        memcpy(p->host + offset, content + i * WSM_PAGE_SIZE, WSM_PAGE_SIZE);
        wsm_ram_received(p->block, offset);
    }
    wsm_dest_memory_came(memory, p->block, p->normal + packet.nrefs, copies);
    wsm_dest_memory_count(memory, copies, packet.bytes);
    return wsm_dest_memory_resolve(memory, &packet, r->ref, p->block,
                                   p->normal, errp);
}

static bool wsm_multifd_recv_packet(MultiFDRecvParams *p,
                                    WsmDestMemory *memory, Error **errp)
{
    if (!memory) {
        error_setg(errp, "memory comes by reference, but the source did not "
                   "say so in START");
        return false;
    }
    multifd_recv_zero_page_process(p);
    wsm_dest_memory_came(memory, p->block, p->zero, p->zero_num);
    if (p->normal_num) {
        return wsm_multifd_recv_pages(p, memory, errp);
    }
    if (p->next_packet_size) {
        error_setg(errp, "%u bytes for no page", p->next_packet_size);
        return false;
    }
    return true;
}

static int wsm_multifd_recv(MultiFDRecvParams *p, Error **errp)
{
    ERRP_GUARD();
    WsmDestMemory *memory;
    bool ok;

    if ((p->flags & MULTIFD_FLAG_COMPRESSION_MASK) != MULTIFD_FLAG_REFERENCE) {
        return plain->recv(p, errp);
    }
    memory = wsm_multifd_incoming();
    ok = wsm_multifd_recv_packet(p, memory, errp);
    wsm_dest_memory_unref(memory);
    if (!ok) {
        error_prepend(errp, "multifd %u: ", p->id);
        return -1;
    }
    return 0;
}

/*
 * The method
 */

static const MultiFDMethods around = {
    .send_setup = wsm_multifd_send_setup,
    .send_cleanup = wsm_multifd_send_cleanup,
    .send_prepare = wsm_multifd_send_prepare,
    .recv_setup = wsm_multifd_recv_setup,
    .recv_cleanup = wsm_multifd_recv_cleanup,
    .recv = wsm_multifd_recv,
};

const void *wsm_multifd_ops(int method, const void *ops)
{
    if (method != MULTIFD_COMPRESSION_NONE) {
        return ops;
    }
    assert(!plain);
    plain = ops;
    qemu_mutex_init(&incoming.lock);
    return &around;
}

bool wsm_multifd_check(WsmOptionsStore *options, Error **errp)
{
    MultiFDCompression method = migrate_multifd_compression();

    if (!wsm_option(options, WSM_OPT_MEMORY_REFERENCES)) {
        return true;
    }
    if (!migrate_multifd()) {
        error_setg(errp, "Option 'memory-references' needs the capability "
                   "'multifd'; switch that on at both sides, or the option "
                   "off");
    } else if (method != MULTIFD_COMPRESSION_NONE) {
        error_setg(errp, "Option 'memory-references' and multifd-compression "
                   "'%s' do not go together; set that to 'none' at both "
                   "sides, or the option off", MultiFDCompression_str(method));
    } else if (migrate_zero_copy_send()) {
        error_setg(errp, "Option 'memory-references' and capability "
                   "'zero-copy-send' do not go together; switch one of them "
                   "off");
    } else if (qemu_target_page_size() != WSM_PAGE_SIZE) {
        error_setg(errp, "Option 'memory-references' needs pages of %d bytes, "
                   "but the guest's have %zu", WSM_PAGE_SIZE,
                   qemu_target_page_size());
    } else {
        return true;
    }
    return false;
}

char *wsm_multifd_refusal(const WsmStart *start)
{
    MultiFDCompression method = migrate_multifd_compression();

    if (!(start->required & WSM_FEATURE_MEMORY) ||
        (migrate_multifd() && method == MULTIFD_COMPRESSION_NONE)) {
        return NULL;
    }
    if (!migrate_multifd()) {
        return g_strdup("the source sends memory by reference (option "
                        "'memory-references'), and the destination has the "
                        "capability 'multifd' off; switch it on at both");
    }
    return g_strdup_printf("the source sends memory by reference with "
                           "multifd-compression 'none', the destination has "
                           "'%s'; set it to 'none' at both",
                           MultiFDCompression_str(method));
}
