/*
 * Whole-system migration: what a guest has in memory, in a few bytes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "migration/wsm/memory/digest.h"

#define WSM_MEMORY_MAGIC        "WSM-MEM\n"
#define WSM_MEMORY_VERSION      1
#define WSM_PREFIX_SIZE         8       /* bytes */

struct WsmDigest {
    GArray *prefix;             /* of uint64_t */
    unsigned long *taken;       /* by index; NULL: none was */
};

void wsm_memory_file_encode(WsmMemoryFileKind kind, uint64_t count,
                            const QemuUUID *guest, uint8_t *buf)
{
    memset(buf, 0, WSM_MEMORY_FILE_SIZE);
    memcpy(buf, WSM_MEMORY_MAGIC, strlen(WSM_MEMORY_MAGIC));
    stl_be_p(buf + 8, WSM_MEMORY_VERSION);
    stl_be_p(buf + 12, kind);
    stl_be_p(buf + 16, WSM_PAGE_SIZE);
    stq_be_p(buf + 24, count);
    memcpy(buf + 32, guest->data, sizeof(guest->data));
}

WsmDigest *wsm_digest_new(void)
{
    WsmDigest *digest = g_new0(WsmDigest, 1);

    digest->prefix = g_array_new(false, false, sizeof(uint64_t));
    return digest;
}

void wsm_digest_free(WsmDigest *digest)
{
    if (digest) {
        g_array_unref(digest->prefix);
        g_free(digest->taken);
        g_free(digest);
    }
}

void wsm_digest_add(WsmDigest *digest, uint64_t prefix)
{
    g_array_append_val(digest->prefix, prefix);
}

static uint64_t wsm_digest_at(const WsmDigest *digest, size_t i)
{
    return g_array_index(digest->prefix, uint64_t, i);
}

static int wsm_digest_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

uint64_t wsm_digest_sort(WsmDigest *digest)
{
    uint64_t *prefix = (uint64_t *)digest->prefix->data, n = 0;

    g_array_sort(digest->prefix, wsm_digest_compare);
    for (unsigned i = 0; i < digest->prefix->len; i++) {
        if (!n || prefix[n - 1] != prefix[i]) {
            prefix[n++] = prefix[i];
        }
    }
    g_array_set_size(digest->prefix, n);
    return n;
}

GByteArray *wsm_digest_encode(const WsmDigest *digest)
{
    GByteArray *out = g_byte_array_new();

    g_byte_array_set_size(out, digest->prefix->len * WSM_PREFIX_SIZE);
    for (unsigned i = 0; i < digest->prefix->len; i++) {
        stq_be_p(out->data + i * WSM_PREFIX_SIZE, wsm_digest_at(digest, i));
    }
    return out;
}

static bool wsm_digest_check_header(const uint8_t *buf, size_t size,
                                    Error **errp)
{
    uint8_t good[WSM_MEMORY_FILE_SIZE];
    QemuUUID any;

    if (size < sizeof(good)) {
        error_setg(errp, "%zu bytes are no list of pages", size);
        return false;
    }
    memcpy(any.data, buf + 32, sizeof(any.data));
    wsm_memory_file_encode(WSM_MEMORY_FILE_DIGEST, ldq_be_p(buf + 24), &any,
                           good);
    if (memcmp(buf, good, sizeof(good))) {
        error_setg(errp, "it is no list of pages that this QEMU knows");
        return false;
    }
    return true;
}

WsmDigest *wsm_digest_decode(const uint8_t *buf, size_t size, Error **errp)
{
    const uint8_t *entry = buf + WSM_MEMORY_FILE_SIZE;
    WsmDigest *digest;
    uint64_t count;

    if (!wsm_digest_check_header(buf, size, errp)) {
        return NULL;
    }
    count = ldq_be_p(buf + 24);
    if (count > WSM_MAX_WANTED ||
        size - WSM_MEMORY_FILE_SIZE != count * WSM_PREFIX_SIZE) {
        error_setg(errp, "%zu bytes are not a list of %" PRIu64 " pages, or "
                   "these are more than %d", size, count, WSM_MAX_WANTED);
        return NULL;
    }
    digest = wsm_digest_new();
    for (uint64_t i = 0; i < count; i++, entry += WSM_PREFIX_SIZE) {
        if (i && ldq_be_p(entry) <= wsm_digest_at(digest, i - 1)) {
            error_setg(errp, "entry %" PRIu64 " of the list is not behind the "
                       "one before", i);
            wsm_digest_free(digest);
            return NULL;
        }
        wsm_digest_add(digest, ldq_be_p(entry));
    }
    return digest;
}

/* @fd, a regular file of at most @max bytes.  NULL, and @errp. */
static uint8_t *wsm_digest_load(int fd, uint64_t max, size_t *size,
                                Error **errp)
{
    g_autofree uint8_t *buf = NULL;
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > max) {
        error_setg(errp, "it is no regular file, or too large");
        return NULL;
    }
    *size = st.st_size;
    buf = g_malloc(*size + 1);
    for (size_t done = 0; done < *size; ) {
        ssize_t n = RETRY_ON_EINTR(read(fd, buf + done, *size - done));

        if (n <= 0) {
            error_setg_errno(errp, n ? errno : ENODATA, "cannot read it");
            return NULL;
        }
        done += n;
    }
    return g_steal_pointer(&buf);
}

WsmDigest *wsm_digest_read(const char *file, Error **errp)
{
    ERRP_GUARD();
    int fd = qemu_open(file, O_RDONLY | O_NONBLOCK, errp);
    g_autofree uint8_t *buf = NULL;
    WsmDigest *digest = NULL;
    size_t size;

    if (fd < 0) {
        return NULL;
    }
    buf = wsm_digest_load(fd, WSM_MEMORY_FILE_SIZE +
                              (uint64_t)WSM_MAX_WANTED * WSM_PREFIX_SIZE,
                          &size, errp);
    if (buf) {
        digest = wsm_digest_decode(buf, size, errp);
    }
    qemu_close(fd);
    if (!digest) {
        error_prepend(errp, "list of pages '%s': ", file);
    }
    return digest;
}

bool wsm_digest_take(WsmDigest *digest, uint64_t prefix)
{
    guint i;

    if (!g_array_binary_search(digest->prefix, &prefix, wsm_digest_compare,
                               &i)) {
        return false;
    }
    if (!digest->taken) {
        digest->taken = bitmap_new(digest->prefix->len);
    }
    return !test_and_set_bit(i, digest->taken);
}
