/*
 * Whole-system migration: the file that has a guest's memory of some time ago
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "migration/wsm/memory/kept.h"

#define WSM_KEPT_MAGIC          "WSM-KEPT"
#define WSM_KEPT_VERSION        1

/* Bytes of a point's id that are those of its session, see image/points.h */
#define WSM_SESSION_BYTES       14

char *wsm_kept_path(const char *image)
{
    return g_strconcat(image, ".wsm-memory", NULL);
}

void wsm_kept_add(WsmKept *kept, const char *name, uint64_t pages)
{
    WsmKeptBlock *b;

    assert(kept->nblocks < WSM_MAX_RAM_BLOCKS && pages <= WSM_KEPT_MAX_PAGES);
    kept->block = g_renew(WsmKeptBlock, kept->block, kept->nblocks + 1);
    b = &kept->block[kept->nblocks++];
    *b = (WsmKeptBlock) { .pages = pages, .first = kept->pages };
    g_strlcpy(b->name, name, sizeof(b->name));
    kept->pages += pages;
}

void wsm_kept_destroy(WsmKept *kept)
{
    g_free(kept->block);
    *kept = (WsmKept) {};
}

const WsmKeptBlock *wsm_kept_find(const WsmKept *kept, const char *name)
{
    for (unsigned i = 0; i < kept->nblocks; i++) {
        if (!strcmp(kept->block[i].name, name)) {
            return &kept->block[i];
        }
    }
    return NULL;
}

/*
 * Where everything is
 */

size_t wsm_kept_table(const WsmKept *kept)
{
    return kept->nblocks * WSM_KEPT_ENTRY_SIZE;
}

uint64_t wsm_kept_print_at(const WsmKept *kept, uint64_t page)
{
    return WSM_KEPT_HEADER_SIZE + wsm_kept_table(kept) +
           page * WSM_PRINT_SIZE;
}

uint64_t wsm_kept_page_at(const WsmKept *kept, uint64_t page)
{
    return ROUND_UP(wsm_kept_print_at(kept, kept->pages), WSM_PAGE_SIZE) +
           page * WSM_PAGE_SIZE;
}

uint64_t wsm_kept_size(const WsmKept *kept)
{
    return wsm_kept_page_at(kept, kept->pages);
}

/*
 * Bytes
 */

GByteArray *wsm_kept_encode(const WsmKept *kept)
{
    size_t size = WSM_KEPT_HEADER_SIZE + wsm_kept_table(kept);
    uint8_t *buf = g_malloc0(size), *p = buf + WSM_KEPT_HEADER_SIZE;

    memcpy(buf, WSM_KEPT_MAGIC, strlen(WSM_KEPT_MAGIC));
    stl_be_p(buf + 8, WSM_KEPT_VERSION);
    stl_be_p(buf + 12, kept->nblocks);
    memcpy(buf + 16, kept->session.data, sizeof(kept->session.data));
    wsm_seed_encode(&kept->seed, buf + 32);
    for (unsigned i = 0; i < kept->nblocks; i++, p += WSM_KEPT_ENTRY_SIZE) {
        stq_be_p(p, kept->block[i].pages);
        memcpy(p + 8, kept->block[i].name, sizeof(kept->block[i].name));
    }
    return g_byte_array_new_take(buf, size);
}

bool wsm_kept_decode(const uint8_t *buf, WsmKept *kept, Error **errp)
{
    uint32_t version = ldl_be_p(buf + 8);

    *kept = (WsmKept) { .nblocks = ldl_be_p(buf + 12) };
    memcpy(kept->session.data, buf + 16, sizeof(kept->session.data));
    wsm_seed_decode(buf + 32, &kept->seed);
    if (memcmp(buf, WSM_KEPT_MAGIC, strlen(WSM_KEPT_MAGIC))) {
        error_setg(errp, "it is not the kept memory of a guest");
    } else if (version != WSM_KEPT_VERSION) {
        error_setg(errp, "version %" PRIu32 " is not %d", version,
                   WSM_KEPT_VERSION);
    } else if (kept->nblocks > WSM_MAX_RAM_BLOCKS) {
        error_setg(errp, "%u blocks of memory are more than %d", kept->nblocks,
                   WSM_MAX_RAM_BLOCKS);
    } else {
        return true;
    }
    *kept = (WsmKept) {};
    return false;
}

static bool wsm_kept_decode_entry(const uint8_t *buf, WsmKept *kept,
                                  Error **errp)
{
    const char *name = (const char *)buf + 8;
    uint64_t pages = ldq_be_p(buf);
    size_t length = strnlen(name, WSM_MAX_RAM_NAME + 1);

    if (!length || length > WSM_MAX_RAM_NAME || wsm_kept_find(kept, name)) {
        error_setg(errp, "the name is empty, too long, or there twice");
    } else if (pages > WSM_KEPT_MAX_PAGES) {
        error_setg(errp, "%" PRIu64 " pages are too many", pages);
    } else {
        wsm_kept_add(kept, name, pages);
        return true;
    }
    return false;
}

static bool wsm_kept_decode_all(const uint8_t *buf, unsigned n, uint64_t size,
                                WsmKept *kept, Error **errp)
{
    ERRP_GUARD();

    for (unsigned i = 0; i < n; i++) {
        if (!wsm_kept_decode_entry(buf + i * WSM_KEPT_ENTRY_SIZE, kept, errp)) {
            error_prepend(errp, "block of memory %u: ", i);
            return false;
        }
    }
    if (size != wsm_kept_size(kept)) {
        error_setg(errp, "it has %" PRIu64 " bytes, and not %" PRIu64
                   " as with all of its pages", size, wsm_kept_size(kept));
        return false;
    }
    return true;
}

bool wsm_kept_decode_table(const uint8_t *buf, uint64_t size, WsmKept *kept,
                           Error **errp)
{
    unsigned n = kept->nblocks;

    assert(!kept->block);
    kept->nblocks = 0;
    if (!wsm_kept_decode_all(buf, n, size, kept, errp)) {
        wsm_kept_destroy(kept);
        return false;
    }
    return true;
}

bool wsm_kept_is_of(const WsmKept *kept, const QemuUUID *point)
{
    return !memcmp(kept->session.data, point->data, WSM_SESSION_BYTES);
}
