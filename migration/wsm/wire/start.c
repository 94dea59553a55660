/*
 * Whole-system migration: START, which opens the "wsm" section
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "migration/wsm/wire/start.h"

#define WSM_START_SIZE          36      /* bytes of a START before its disks */
#define WSM_START_DISK_SIZE     20      /* bytes of a disk before its path */
#define WSM_START_POINT_SIZE    24      /* bytes of a sync point */
#define WSM_SECTOR_SIZE         512

/* The numbers on the wire are those of the enum */
QEMU_BUILD_BUG_ON(WSM_BASIS_KIND_AUTO != 0);
QEMU_BUILD_BUG_ON(WSM_BASIS_KIND_FULL != 1);
QEMU_BUILD_BUG_ON(WSM_BASIS_KIND_CONTENT != 2);
QEMU_BUILD_BUG_ON(WSM_BASIS_KIND_SYNC_POINT != 3);

static void append_u8(GByteArray *out, uint8_t value)
{
    g_byte_array_append(out, &value, 1);
}

static void append_u16(GByteArray *out, uint16_t value)
{
    uint8_t buf[sizeof(value)];

    stw_be_p(buf, value);
    g_byte_array_append(out, buf, sizeof(buf));
}

static void append_u32(GByteArray *out, uint32_t value)
{
    uint8_t buf[sizeof(value)];

    stl_be_p(buf, value);
    g_byte_array_append(out, buf, sizeof(buf));
}

static void append_u64(GByteArray *out, uint64_t value)
{
    uint8_t buf[sizeof(value)];

    stq_be_p(buf, value);
    g_byte_array_append(out, buf, sizeof(buf));
}

static void append_point(GByteArray *out, const WsmPointDesc *point)
{
    g_byte_array_append(out, point->id.data, sizeof(point->id.data));
    append_u64(out, point->changed);
}

static void append_string(GByteArray *out, const char *text)
{
    g_byte_array_append(out, (const uint8_t *)text, strlen(text));
}

static void append_marks(GByteArray *out, const GPtrArray *marks)
{
    for (unsigned i = 0; marks && i < marks->len; i++) {
        const char *mark = g_ptr_array_index(marks, i);

        assert(*mark && strlen(mark) <= WSM_MAX_MARK);
        append_u8(out, strlen(mark));
        append_string(out, mark);
    }
}

static void append_disk(GByteArray *out, const WsmDiskDesc *disk)
{
    const char *address = disk->address ?: "", *file = disk->file ?: "";
    size_t path_len = strlen(disk->path), name_len = strlen(disk->name);
    unsigned nmarks = disk->marks ? disk->marks->len : 0;

    assert(path_len > 0 && path_len <= WSM_MAX_PATH);
    assert(name_len > 0 && name_len <= WSM_MAX_PATH);
    assert(strlen(address) <= WSM_MAX_PATH && strlen(file) <= WSM_MAX_PATH);
    assert(nmarks <= WSM_MAX_MARKS);
    assert(disk->wish <= WSM_BASIS_KIND_SYNC_POINT);
    assert(disk->npoints <= WSM_MAX_POINTS);

    append_u64(out, disk->size);
    append_u16(out, path_len);
    append_u16(out, name_len);
    append_u8(out, disk->wish);
    append_u8(out, disk->npoints);
    append_u16(out, strlen(address));
    append_u16(out, strlen(file));
    append_u8(out, nmarks);
    append_u8(out, 0);
    append_string(out, disk->path);
    append_string(out, disk->name);
    append_string(out, address);
    append_string(out, file);
    append_marks(out, disk->marks);
    for (unsigned i = 0; i < disk->npoints; i++) {
        append_point(out, &disk->point[i]);
    }
}

GByteArray *wsm_start_encode(const WsmStart *start)
{
    GByteArray *out = g_byte_array_new();

    assert(start->ndisks <= WSM_MAX_DISKS);

    append_u16(out, start->version);
    append_u16(out, start->oldest);
    append_u32(out, start->features);
    append_u32(out, start->required);
    append_u32(out, start->granularity);
    g_byte_array_append(out, start->session.data, sizeof(start->session.data));
    append_u16(out, start->channels);
    append_u16(out, start->ndisks);
    for (unsigned i = 0; i < start->ndisks; i++) {
        append_disk(out, &start->disk[i]);
    }
    return out;
}

/* What is left to decode */
typedef struct WsmCursor {
    const uint8_t *p;
    size_t left;
} WsmCursor;

/* Returns the next @bytes bytes, or NULL if there are not so many */
static const uint8_t *take(WsmCursor *c, size_t bytes, const char *what,
                           Error **errp)
{
    const uint8_t *p = c->p;

    if (bytes > c->left) {
        error_setg(errp, "%s needs %zu bytes, but only %zu follow",
                   what, bytes, c->left);
        return NULL;
    }
    c->p += bytes;
    c->left -= bytes;
    return p;
}

/* Between @min and @max bytes; not NULL unless @errp is set */
static char *take_string(WsmCursor *c, uint16_t length, unsigned min,
                         unsigned max, const char *what, Error **errp)
{
    const uint8_t *p;

    if (length < min || length > max) {
        error_setg(errp, "length %u of %s is not between %u and %u",
                   length, what, min, max);
        return NULL;
    }
    p = take(c, length, what, errp);
    if (!p) {
        return NULL;
    }
    if (memchr(p, 0, length)) {
        error_setg(errp, "%s contains a NUL byte", what);
        return NULL;
    }
    return g_strndup((const char *)p, length);
}

static bool check_disk_size(uint64_t size, Error **errp)
{
    if (size == 0 || size > WSM_MAX_DISK_SIZE) {
        error_setg(errp, "size %" PRIu64 " is not between 1 and %" PRIu64,
                   size, (uint64_t)WSM_MAX_DISK_SIZE);
        return false;
    }
    if (size % WSM_SECTOR_SIZE) {
        error_setg(errp, "size %" PRIu64 " is not a multiple of %d",
                   size, WSM_SECTOR_SIZE);
        return false;
    }
    return true;
}

static bool check_wish(uint8_t wish, Error **errp)
{
    if (wish > WSM_BASIS_KIND_SYNC_POINT) {
        error_setg(errp, "wish %u is above %d",
                   wish, WSM_BASIS_KIND_SYNC_POINT);
        return false;
    }
    return true;
}

static bool check_npoints(uint8_t npoints, Error **errp)
{
    if (npoints > WSM_MAX_POINTS) {
        error_setg(errp, "number of sync points %u is above %d",
                   npoints, WSM_MAX_POINTS);
        return false;
    }
    return true;
}

/* The last point of @disk: is it new, and not beyond @max bytes? */
static bool check_point(const WsmDiskDesc *disk, uint64_t max, Error **errp)
{
    const WsmPointDesc *point = &disk->point[disk->npoints - 1];

    for (unsigned i = 0; i < disk->npoints - 1; i++) {
        if (qemu_uuid_is_equal(&disk->point[i].id, &point->id)) {
            g_autofree char *id = qemu_uuid_unparse_strdup(&point->id);

            error_setg(errp, "id %s is that of sync point %u already", id, i);
            return false;
        }
    }
    if (point->changed > max) {
        error_setg(errp, "changed %" PRIu64 " is above %" PRIu64,
                   point->changed, max);
        return false;
    }
    return true;
}

static bool take_points(WsmCursor *c, WsmDiskDesc *disk, unsigned npoints,
                        uint32_t granularity, Error **errp)
{
    ERRP_GUARD();
    uint64_t max = ROUND_UP(disk->size, granularity);

    disk->point = g_new0(WsmPointDesc, npoints);
    for (unsigned i = 0; i < npoints; i++) {
        const uint8_t *p = take(c, WSM_START_POINT_SIZE, "description", errp);

        if (p) {
            memcpy(disk->point[i].id.data, p, sizeof(QemuUUID));
            disk->point[i].changed = ldq_be_p(p + sizeof(QemuUUID));
            disk->npoints = i + 1;
        }
        if (!p || !check_point(disk, max, errp)) {
            error_prepend(errp, "sync point %u: ", i);
            return false;
        }
    }
    return true;
}

static bool check_nmarks(uint8_t nmarks, Error **errp)
{
    if (nmarks > WSM_MAX_MARKS) {
        error_setg(errp, "number of marks %u is above %d", nmarks,
                   WSM_MAX_MARKS);
        return false;
    }
    return true;
}

static bool take_marks(WsmCursor *c, WsmDiskDesc *disk, unsigned nmarks,
                       Error **errp)
{
    ERRP_GUARD();

    disk->marks = g_ptr_array_new_with_free_func(g_free);
    for (unsigned i = 0; i < nmarks; i++) {
        const uint8_t *p = take(c, 1, "length", errp);
        char *mark = p ? take_string(c, *p, 1, WSM_MAX_MARK, "text", errp)
                       : NULL;

        if (!mark) {
            error_prepend(errp, "mark %u: ", i);
            return false;
        }
        g_ptr_array_add(disk->marks, mark);
    }
    return true;
}

static bool take_disk(WsmCursor *c, WsmDiskDesc *disk, uint32_t granularity,
                      Error **errp)
{
    const uint8_t *p = take(c, WSM_START_DISK_SIZE, "description", errp);

    if (!p) {
        return false;
    }
    disk->size = ldq_be_p(p);
    disk->wish = p[12];
    if (!check_disk_size(disk->size, errp) || !check_wish(p[12], errp) ||
        !check_npoints(p[13], errp) ||
        !check_nmarks(p[18], errp) ||
        !wsm_check_unused("reserved", p[19], errp)) {
        return false;
    }
    return (disk->path = take_string(c, lduw_be_p(p + 8), 1, WSM_MAX_PATH,
                                     "path", errp)) &&
           (disk->name = take_string(c, lduw_be_p(p + 10), 1, WSM_MAX_PATH,
                                     "name", errp)) &&
           (disk->address = take_string(c, lduw_be_p(p + 14), 0, WSM_MAX_PATH,
                                        "address", errp)) &&
           (disk->file = take_string(c, lduw_be_p(p + 16), 0, WSM_MAX_PATH,
                                     "file name", errp)) &&
           take_marks(c, disk, p[18], errp) &&
           take_points(c, disk, p[13], granularity, errp);
}

/* One device is at one path and at one address */
static bool check_disk_is_new(const WsmStart *start, unsigned index,
                              Error **errp)
{
    const WsmDiskDesc *new = &start->disk[index];

    for (unsigned i = 0; i < index; i++) {
        const WsmDiskDesc *disk = &start->disk[i];

        if (!strcmp(disk->path, new->path)) {
            error_setg(errp, "path '%s' is that of disk %u already",
                       new->path, i);
            return false;
        }
        if (*new->address && !strcmp(disk->address, new->address)) {
            error_setg(errp, "address '%s' is that of disk %u already",
                       new->address, i);
            return false;
        }
    }
    return true;
}

static bool take_disks(WsmCursor *c, WsmStart *start, Error **errp)
{
    ERRP_GUARD();

    start->disk = g_new0(WsmDiskDesc, start->ndisks);
    for (unsigned i = 0; i < start->ndisks; i++) {
        if (!take_disk(c, &start->disk[i], start->granularity, errp) ||
            !check_disk_is_new(start, i, errp)) {
            error_prepend(errp, "disk %u: ", i);
            return false;
        }
    }
    return true;
}

static bool check_granularity(uint32_t granularity, Error **errp)
{
    if (granularity < WSM_MIN_GRANULARITY ||
        granularity > WSM_MAX_GRANULARITY || !is_power_of_2(granularity)) {
        error_setg(errp, "granularity %" PRIu32 " is not a power of two "
                   "between %u and %u", granularity,
                   WSM_MIN_GRANULARITY, (unsigned)WSM_MAX_GRANULARITY);
        return false;
    }
    return true;
}

static bool check_ndisks(unsigned ndisks, Error **errp)
{
    if (ndisks > WSM_MAX_DISKS) {
        error_setg(errp, "number of disks %u is above %u",
                   ndisks, WSM_MAX_DISKS);
        return false;
    }
    return true;
}

/* Does the source insist on something that is not known here? */
static bool check_features(const WsmStart *start, Error **errp)
{
    if (start->required & ~start->features) {
        error_setg(errp, "required features 0x%" PRIx32 " are not all among "
                   "features 0x%" PRIx32, start->required, start->features);
        return false;
    }
    if (start->required & ~WSM_FEATURES) {
        error_setg(errp, "the source (qemu-wsm 0.%u) needs features 0x%" PRIx32
                   " of the protocol, the destination (qemu-wsm 0.%u) has only "
                   "features 0x%x; run the same version of qemu-wsm on both "
                   "hosts", start->version, start->required,
                   WSM_PROTOCOL_VERSION, WSM_FEATURES);
        return false;
    }
    return true;
}

/* The part of fixed size.  A START of another version may have another. */
static bool take_start_head(WsmCursor *c, WsmStart *start, Error **errp)
{
    const uint8_t *p;

    if (c->left >= 2 * sizeof(uint16_t) &&
        !wsm_check_version(lduw_be_p(c->p), lduw_be_p(c->p + 2), errp)) {
        return false;
    }
    p = take(c, WSM_START_SIZE, "header", errp);
    if (!p) {
        return false;
    }
    start->version = lduw_be_p(p);
    start->oldest = lduw_be_p(p + 2);
    start->features = ldl_be_p(p + 4);
    start->required = ldl_be_p(p + 8);
    start->granularity = ldl_be_p(p + 12);
    memcpy(start->session.data, p + 16, sizeof(start->session.data));
    start->channels = lduw_be_p(p + 32);
    start->ndisks = lduw_be_p(p + 34);

    return check_features(start, errp) &&
           check_granularity(start->granularity, errp) &&
           wsm_check_channels(start->channels, errp) &&
           check_ndisks(start->ndisks, errp);
}

static bool take_start(WsmCursor *c, WsmStart *start, Error **errp)
{
    if (!take_start_head(c, start, errp) || !take_disks(c, start, errp)) {
        return false;
    }
    if (c->left) {
        error_setg(errp, "%zu bytes follow the last disk", c->left);
        return false;
    }
    return true;
}

bool wsm_start_decode(const uint8_t *buf, size_t size, WsmStart *start,
                      Error **errp)
{
    ERRP_GUARD();
    WsmCursor c = { .p = buf, .left = size };
    WsmStart s = {};

    *start = (WsmStart) {};
    if (!take_start(&c, &s, errp)) {
        error_prepend(errp, "START: ");
        wsm_start_destroy(&s);
        return false;
    }
    *start = s;
    return true;
}

void wsm_start_destroy(WsmStart *start)
{
    for (unsigned i = 0; start->disk && i < start->ndisks; i++) {
        g_free(start->disk[i].path);
        g_free(start->disk[i].name);
        g_free(start->disk[i].address);
        g_free(start->disk[i].file);
        if (start->disk[i].marks) {
            g_ptr_array_unref(start->disk[i].marks);
        }
        g_free(start->disk[i].point);
    }
    g_free(start->disk);
    *start = (WsmStart) {};
}

uint32_t wsm_features_in_use(const WsmStart *start)
{
    return start->features & WSM_FEATURES & ~start->unused;
}

void wsm_welcome_encode(uint32_t features, uint8_t *buf)
{
    stl_be_p(buf, features);
}

bool wsm_welcome_decode(const uint8_t *buf, const WsmStart *start,
                        uint32_t *features, Error **errp)
{
    uint32_t f = ldl_be_p(buf);

    if ((f & ~start->features) || (start->required & ~f)) {
        error_setg(errp, "WELCOME: the destination uses features 0x%" PRIx32
                   " of the protocol, but the source has 0x%" PRIx32
                   " and needs 0x%" PRIx32, f, start->features,
                   start->required);
        return false;
    }
    *features = f;
    return true;
}
