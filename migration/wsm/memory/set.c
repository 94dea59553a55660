/*
 * Whole-system migration: a set of templates
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "crypto/hash.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "migration/wsm/memory/file.h"
#include "migration/wsm/memory/set.h"

#define WSM_SET_MAGIC           "WSM-SET\n"
#define WSM_SET_VERSION         1
#define WSM_SET_FIELDS          64      /* bytes of the header that are used */
#define WSM_SET_AT_ONCE         (64 * KiB)      /* bytes, whole entries */

struct WsmSet {
    /* Set in open, never changed */
    WsmSetHeader header;
    char *file;
    int fd;
    uint64_t *prefix;           /* of each page; ascending */
};

/*
 * The header
 */

static uint64_t wsm_set_entry_size(const WsmSetHeader *h)
{
    return h->kind == WSM_SET_INDEX ? WSM_PREFIX_SIZE : WSM_HASH_SIZE;
}

uint64_t wsm_set_page_offset(const WsmSetHeader *h, uint64_t number)
{
    assert(h->kind == WSM_SET_PAGES && number <= h->count);
    return WSM_SET_HEADER_SIZE +
           QEMU_ALIGN_UP(h->count * WSM_HASH_SIZE, WSM_PAGE_SIZE) +
           number * WSM_PAGE_SIZE;
}

static uint64_t wsm_set_size(const WsmSetHeader *h)
{
    if (h->kind == WSM_SET_PAGES) {
        return wsm_set_page_offset(h, h->count);
    }
    return WSM_SET_HEADER_SIZE +
           QEMU_ALIGN_UP(h->count * wsm_set_entry_size(h), WSM_PAGE_SIZE);
}

bool wsm_set_decode(const uint8_t *buf, uint64_t size, WsmSetHeader *h,
                    Error **errp)
{
    uint32_t version = ldl_be_p(buf + 8), page_size = ldl_be_p(buf + 16);

    *h = (WsmSetHeader) {
        .kind = ldl_be_p(buf + 12), .count = ldq_be_p(buf + 24),
    };
    memcpy(h->id, buf + 32, WSM_HASH_SIZE);
    if (memcmp(buf, WSM_SET_MAGIC, strlen(WSM_SET_MAGIC))) {
        error_setg(errp, "it is no set of templates");
    } else if (version != WSM_SET_VERSION) {
        error_setg(errp, "version %" PRIu32 " is not %d", version,
                   WSM_SET_VERSION);
    } else if (h->kind < WSM_SET_PAGES || h->kind >= WSM_SET__MAX) {
        error_setg(errp, "kind %u is unknown", h->kind);
    } else if (page_size != WSM_PAGE_SIZE) {
        error_setg(errp, "its pages have %" PRIu32 " bytes, and not %d",
                   page_size, WSM_PAGE_SIZE);
    } else if (h->count < 1 || h->count > WSM_SET_MAX_PAGES) {
        error_setg(errp, "%" PRIu64 " pages are not 1 to %d", h->count,
                   WSM_SET_MAX_PAGES);
    } else if (ldl_be_p(buf + 20) ||
               !buffer_is_zero(buf + WSM_SET_FIELDS,
                               WSM_SET_HEADER_SIZE - WSM_SET_FIELDS)) {
        error_setg(errp, "what is reserved in its header is not 0");
    } else if (size != wsm_set_size(h)) {
        error_setg(errp, "%" PRIu64 " bytes are not the %" PRIu64 " that %"
                   PRIu64 " pages take", size, wsm_set_size(h), h->count);
    } else {
        return true;
    }
    return false;
}

/*
 * The file
 */

uint64_t wsm_set_prefix(const uint8_t *hash)
{
    return ldq_be_p(hash);
}

static bool wsm_set_load(int fd, uint64_t offset, void *buf, size_t size,
                         Error **errp)
{
    int ret = wsm_file_read(fd, offset, buf, size);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot read %zu bytes at %" PRIu64,
                         size, offset);
    }
    return ret == 0;
}

static bool wsm_set_load_header(WsmSet *set, Error **errp)
{
    uint8_t buf[WSM_SET_HEADER_SIZE];
    struct stat st;

    if (fstat(set->fd, &st) < 0) {
        error_setg_errno(errp, errno, "cannot look at it");
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        error_setg(errp, "it is no regular file");
        return false;
    }
    if (st.st_size < sizeof(buf)) {
        error_setg(errp, "%" PRIu64 " bytes are no set of templates",
                   (uint64_t)st.st_size);
        return false;
    }
    return wsm_set_load(set->fd, 0, buf, sizeof(buf), errp) &&
           wsm_set_decode(buf, st.st_size, &set->header, errp);
}

/*
 * Note @n entries of the list, from @first on.  Two pages whose hashes begin
 * alike cannot be told from each other, so there are none in a good set.
 */
static bool wsm_set_note(WsmSet *set, const uint8_t *entry, uint64_t first,
                         uint64_t n, Error **errp)
{
    size_t size = wsm_set_entry_size(&set->header);

    for (uint64_t i = first; i < first + n; i++, entry += size) {
        set->prefix[i] = wsm_set_prefix(entry);
        if (i && set->prefix[i] <= set->prefix[i - 1]) {
            error_setg(errp, "entry %" PRIu64 " of its list is not behind the "
                       "one before", i);
            return false;
        }
    }
    return true;
}

/* The ID is the hash of the list; an index has only a part of that */
static bool wsm_set_check_id(const WsmSet *set, QCryptoHash *hash,
                             Error **errp)
{
    g_autofree uint8_t *id = NULL;
    size_t size = 0;

    if (qcrypto_hash_finalize_bytes(hash, &id, &size, errp) < 0) {
        return false;
    }
    assert(size == WSM_HASH_SIZE);
    if (set->header.kind != WSM_SET_INDEX &&
        memcmp(id, set->header.id, WSM_HASH_SIZE)) {
        error_setg(errp, "its ID is not that of its list");
        return false;
    }
    return true;
}

static bool wsm_set_load_list(WsmSet *set, Error **errp)
{
    g_autoptr(QCryptoHash) hash = qcrypto_hash_new(QCRYPTO_HASH_ALGO_SHA256,
                                                   errp);
    uint64_t entry = wsm_set_entry_size(&set->header);
    uint64_t count = set->header.count, n;
    g_autofree uint8_t *buf = g_malloc(WSM_SET_AT_ONCE);

    if (!hash) {
        return false;
    }
    set->prefix = g_new(uint64_t, count);
    for (uint64_t i = 0; i < count; i += n) {
        n = MIN(count - i, WSM_SET_AT_ONCE / entry);
        if (!wsm_set_load(set->fd, WSM_SET_HEADER_SIZE + i * entry, buf,
                          n * entry, errp) ||
            !wsm_set_note(set, buf, i, n, errp) ||
            qcrypto_hash_update(hash, (char *)buf, n * entry, errp) < 0) {
            return false;
        }
    }
    return wsm_set_check_id(set, hash, errp);
}

WsmSet *wsm_set_open(const char *file, Error **errp)
{
    ERRP_GUARD();
    /* A FIFO would hold us up */
    int fd = qemu_open(file, O_RDONLY | O_NONBLOCK, errp);
    WsmSet *set;

    if (fd < 0) {
        return NULL;
    }
    set = g_new0(WsmSet, 1);
    set->fd = fd;
    set->file = g_strdup(file);
    if (!wsm_set_load_header(set, errp) || !wsm_set_load_list(set, errp)) {
        error_prepend(errp, "set of templates '%s': ", file);
        wsm_set_free(set);
        return NULL;
    }
    return set;
}

void wsm_set_free(WsmSet *set)
{
    if (set) {
        qemu_close(set->fd);
        g_free(set->file);
        g_free(set->prefix);
        g_free(set);
    }
}

const WsmSetHeader *wsm_set_header(const WsmSet *set)
{
    return &set->header;
}

const char *wsm_set_file(const WsmSet *set)
{
    return set->file;
}

bool wsm_set_is_servable(const WsmSet *set, bool ring)
{
    return set->header.kind == WSM_SET_PAGES ||
           (set->header.kind == WSM_SET_LIST && ring);
}

/*
 * What is in it
 */

bool wsm_set_find(const WsmSet *set, uint64_t prefix, uint64_t *number)
{
    uint64_t low = 0, high = set->header.count;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        if (set->prefix[middle] < prefix) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *number = low;
    return low < set->header.count && set->prefix[low] == prefix;
}

int wsm_set_read_hash(const WsmSet *set, uint64_t number, uint8_t *hash)
{
    assert(number < set->header.count);
    if (set->header.kind == WSM_SET_INDEX) {
        return -ENOTSUP;
    }
    return wsm_file_read(set->fd, WSM_SET_HEADER_SIZE + number * WSM_HASH_SIZE,
                         hash, WSM_HASH_SIZE);
}

int wsm_set_read_pages(const WsmSet *set, uint64_t number, uint64_t n,
                       void *pages)
{
    assert(number < set->header.count && n <= set->header.count - number);
    if (set->header.kind != WSM_SET_PAGES) {
        return -ENOTSUP;
    }
    return wsm_file_read(set->fd, wsm_set_page_offset(&set->header, number),
                         pages, n * WSM_PAGE_SIZE);
}
