/*
 * Whole-system migration: the files that a scan of memory writes and reads
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "migration/wsm/memory/file.h"
#include "migration/wsm/memory/scan-file.h"
#include "migration/wsm/memory/set.h"

#define WSM_SCAN_FILE_MAGIC     "WSM-MEM\n"
#define WSM_SCAN_FILE_VERSION   1

struct WsmPrefixes {
    GArray *value;              /* of uint64_t */
    unsigned long *taken;       /* by index; NULL: none was */
};

void wsm_scan_file_encode(WsmScanFileKind kind, uint64_t count,
                          const QemuUUID *guest, uint8_t *buf)
{
    memset(buf, 0, WSM_SCAN_HEADER_SIZE);
    memcpy(buf, WSM_SCAN_FILE_MAGIC, strlen(WSM_SCAN_FILE_MAGIC));
    stl_be_p(buf + 8, WSM_SCAN_FILE_VERSION);
    stl_be_p(buf + 12, kind);
    stl_be_p(buf + 16, WSM_PAGE_SIZE);
    stq_be_p(buf + 24, count);
    memcpy(buf + 32, guest->data, sizeof(guest->data));
}

WsmPrefixes *wsm_prefixes_new(void)
{
    WsmPrefixes *prefixes = g_new0(WsmPrefixes, 1);

    prefixes->value = g_array_new(false, false, sizeof(uint64_t));
    return prefixes;
}

void wsm_prefixes_free(WsmPrefixes *prefixes)
{
    if (prefixes) {
        g_array_unref(prefixes->value);
        g_free(prefixes->taken);
        g_free(prefixes);
    }
}

void wsm_prefixes_add(WsmPrefixes *prefixes, uint64_t prefix)
{
    g_array_append_val(prefixes->value, prefix);
}

static uint64_t wsm_prefixes_at(const WsmPrefixes *prefixes, size_t i)
{
    return g_array_index(prefixes->value, uint64_t, i);
}

static int wsm_prefixes_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

uint64_t wsm_prefixes_sort(WsmPrefixes *prefixes)
{
    uint64_t *prefix = (uint64_t *)prefixes->value->data, n = 0;

    g_array_sort(prefixes->value, wsm_prefixes_compare);
    for (unsigned i = 0; i < prefixes->value->len; i++) {
        if (!n || prefix[n - 1] != prefix[i]) {
            prefix[n++] = prefix[i];
        }
    }
    g_array_set_size(prefixes->value, n);
    return n;
}

GByteArray *wsm_prefixes_encode(const WsmPrefixes *prefixes)
{
    GByteArray *out = g_byte_array_new();

    g_byte_array_set_size(out, prefixes->value->len * WSM_PREFIX_SIZE);
    for (unsigned i = 0; i < prefixes->value->len; i++) {
        stq_be_p(out->data + i * WSM_PREFIX_SIZE, wsm_prefixes_at(prefixes, i));
    }
    return out;
}

static bool wsm_prefixes_check_header(const uint8_t *buf, size_t size,
                                      Error **errp)
{
    uint8_t good[WSM_SCAN_HEADER_SIZE];
    QemuUUID any;

    if (size < sizeof(good)) {
        error_setg(errp, "%zu bytes are no list of pages", size);
        return false;
    }
    memcpy(any.data, buf + 32, sizeof(any.data));
    wsm_scan_file_encode(WSM_SCAN_FILE_DIGEST, ldq_be_p(buf + 24), &any, good);
    if (memcmp(buf, good, sizeof(good))) {
        error_setg(errp, "it is no list of pages that this QEMU knows");
        return false;
    }
    return true;
}

WsmPrefixes *wsm_prefixes_decode(const uint8_t *buf, size_t size, Error **errp)
{
    const uint8_t *entry = buf + WSM_SCAN_HEADER_SIZE;
    WsmPrefixes *prefixes;
    uint64_t count;

    if (!wsm_prefixes_check_header(buf, size, errp)) {
        return NULL;
    }
    count = ldq_be_p(buf + 24);
    if (count > WSM_MAX_WANTED ||
        size - WSM_SCAN_HEADER_SIZE != count * WSM_PREFIX_SIZE) {
        error_setg(errp, "%zu bytes are not a list of %" PRIu64 " pages, or "
                   "these are more than %d", size, count, WSM_MAX_WANTED);
        return NULL;
    }
    prefixes = wsm_prefixes_new();
    for (uint64_t i = 0; i < count; i++, entry += WSM_PREFIX_SIZE) {
        if (i && ldq_be_p(entry) <= wsm_prefixes_at(prefixes, i - 1)) {
            error_setg(errp, "entry %" PRIu64 " of the list is not behind the "
                       "one before", i);
            wsm_prefixes_free(prefixes);
            return NULL;
        }
        wsm_prefixes_add(prefixes, ldq_be_p(entry));
    }
    return prefixes;
}

/* @fd, a regular file of at most @max bytes.  NULL, and @errp. */
static uint8_t *wsm_prefixes_load(int fd, uint64_t max, size_t *size,
                                  Error **errp)
{
    g_autofree uint8_t *buf = NULL;
    struct stat st;
    int ret;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > max) {
        error_setg(errp, "it is no regular file, or too large");
        return NULL;
    }
    *size = st.st_size;
    buf = g_malloc(*size + 1);
    ret = wsm_file_read(fd, 0, buf, *size);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot read it");
        return NULL;
    }
    return g_steal_pointer(&buf);
}

WsmPrefixes *wsm_prefixes_read(const char *file, Error **errp)
{
    ERRP_GUARD();
    int fd = qemu_open(file, O_RDONLY | O_NONBLOCK, errp);
    g_autofree uint8_t *buf = NULL;
    WsmPrefixes *prefixes = NULL;
    size_t size;

    if (fd < 0) {
        return NULL;
    }
    buf = wsm_prefixes_load(fd, WSM_SCAN_HEADER_SIZE +
                                (uint64_t)WSM_MAX_WANTED * WSM_PREFIX_SIZE,
                            &size, errp);
    if (buf) {
        prefixes = wsm_prefixes_decode(buf, size, errp);
    }
    qemu_close(fd);
    if (!prefixes) {
        error_prepend(errp, "list of pages '%s': ", file);
    }
    return prefixes;
}

bool wsm_prefixes_take(WsmPrefixes *prefixes, uint64_t prefix)
{
    guint i;

    if (!g_array_binary_search(prefixes->value, &prefix, wsm_prefixes_compare,
                               &i)) {
        return false;
    }
    if (!prefixes->taken) {
        prefixes->taken = bitmap_new(prefixes->value->len);
    }
    return !test_and_set_bit(i, prefixes->taken);
}
