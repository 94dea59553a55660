/*
 * Whole-system migration: read a map of missing blocks, and judge it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/map/load.h"

typedef struct WsmMapLoad {
    const WsmMapReader *reader;
    WsmMapPage page[WSM_MAP_HEADS];
    WsmMapHead head[WSM_MAP_HEADS];
    const WsmMapHead *best;
    uint8_t buf[WSM_MAP_PAGE];
} WsmMapLoad;

static bool read_map(WsmMapLoad *l, int64_t offset, int64_t bytes, void *buf,
                     Error **errp)
{
    int ret = l->reader->read(l->reader->opaque, offset, bytes, buf);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot read %" PRId64 " bytes at %"
                         PRId64, bytes, offset);
        return false;
    }
    return true;
}

/*
 * Heads
 */

static bool read_heads(WsmMapLoad *l, Error **errp)
{
    if (l->reader->size < WSM_MAP_HEADS * WSM_MAP_PAGE) {
        error_setg(errp, "it has %" PRId64 " bytes, and the heads alone %d",
                   l->reader->size, WSM_MAP_HEADS * WSM_MAP_PAGE);
        return false;
    }
    for (unsigned i = 0; i < WSM_MAP_HEADS; i++) {
        if (!read_map(l, i * WSM_MAP_PAGE, WSM_MAP_PAGE, l->buf, errp)) {
            return false;
        }
        l->page[i] = wsm_map_head_decode(l->buf, i, &l->head[i], errp);
        if (l->page[i] == WSM_MAP_PAGE_UNKNOWN) {
            return false;
        }
        if (l->page[i] == WSM_MAP_PAGE_HEAD &&
            (!l->best || l->head[i].generation > l->best->generation)) {
            l->best = &l->head[i];
        }
    }
    return true;
}

static bool is_same(const WsmMapHead *a, const WsmMapHead *b)
{
    return qemu_uuid_is_equal(&a->session, &b->session) &&
           a->disk == b->disk && a->size == b->size &&
           a->granularity == b->granularity;
}

/*
 * The other head is that of the generation before, or of the next one, torn.
 * It was written once at least, unless there is only one generation.
 */
static bool check_other(const WsmMapLoad *l, Error **errp)
{
    unsigned i = l->best == l->head;    /* the other one */
    const WsmMapHead *other = &l->head[i];

    if (l->page[i] == WSM_MAP_PAGE_EMPTY && l->best->generation > 1) {
        error_setg(errp, "it has generation %" PRIu64 ", but not the one "
                   "before", l->best->generation);
        return false;
    }
    if (l->page[i] == WSM_MAP_PAGE_HEAD &&
        (other->generation != l->best->generation - 1 ||
         !is_same(other, l->best))) {
        error_setg(errp, "generation %" PRIu64 " cannot follow the %" PRIu64
                   " that is there", l->best->generation, other->generation);
        return false;
    }
    return true;
}

/* It is said to be of this very migration */
static bool is_of_session(const WsmMapHead *head, const WsmMapWanted *wanted)
{
    return !qemu_uuid_is_null(&wanted->session) &&
           qemu_uuid_is_equal(&head->session, &wanted->session);
}

static bool check_wanted(const WsmMapHead *head, const WsmMapWanted *wanted,
                         Error **errp)
{
    g_autofree char *is = qemu_uuid_unparse_strdup(&head->session);
    g_autofree char *want = qemu_uuid_unparse_strdup(&wanted->session);

    if (!qemu_uuid_is_null(&wanted->session) &&
        !qemu_uuid_is_equal(&head->session, &wanted->session)) {
        error_setg(errp, "it is of migration %s, and the image of %s", is,
                   want);
    } else if (wanted->size && head->size != wanted->size) {
        error_setg(errp, "it is of a disk of %" PRId64 " bytes, and the image "
                   "has %" PRId64, head->size, wanted->size);
    } else if (wanted->disk >= 0 && head->disk != wanted->disk) {
        error_setg(errp, "it is of disk %u, and the image of disk %d",
                   head->disk, wanted->disk);
    } else if (wanted->path && strcmp(head->path, wanted->path)) {
        error_setg(errp, "it is of disk '%s', and not of '%s'", head->path,
                   wanted->path);
    } else {
        return true;
    }
    return false;
}

/* Neither the image nor the map may be as they were */
static bool check_boot(const WsmMapHead *head, const WsmMapWanted *wanted,
                       Error **errp)
{
    if (!qemu_uuid_is_null(&head->boot) &&
        !qemu_uuid_is_equal(&head->boot, &wanted->boot)) {
        error_setg(errp, "the image was not flushed to its disk (cache mode "
                   "'unsafe'), and the host was started again since");
        return false;
    }
    return true;
}

/*
 * Records
 */

/* Is there one at @pos?  1, 0, or -1 and @errp.  @buf has its bytes, if any. */
static int find_record(WsmMapLoad *l, const QemuUUID *session, int64_t pos,
                       int64_t end, WsmMapRecord *record, uint8_t **buf,
                       Error **errp)
{
    int64_t max = end - pos - WSM_MAP_RECORD_SIZE, bytes;

    *buf = NULL;
    if (!read_map(l, pos, WSM_MAP_RECORD_SIZE, l->buf, errp)) {
        return -1;
    }
    if (!wsm_map_record_begins(l->buf, session, max, record)) {
        return 0;
    }
    bytes = WSM_MAP_RECORD_SIZE + record->runs;
    *buf = g_try_malloc(bytes);
    if (!*buf) {
        error_setg(errp, "there is no memory for %" PRId64 " bytes", bytes);
        return -1;
    }
    if (!read_map(l, pos, bytes, *buf, errp)) {
        return -1;
    }
    return wsm_map_record_is_good(record, *buf);
}

/* One that was written later than @generation, @serial.  1, 0, -1 and @errp. */
static int find_later(WsmMapLoad *l, const QemuUUID *session,
                      uint64_t generation, uint64_t serial, Error **errp)
{
    int64_t end = QEMU_ALIGN_DOWN(l->reader->size, WSM_MAP_PAGE);

    for (int64_t pos = WSM_MAP_HEADS * WSM_MAP_PAGE; pos < end;
         pos += WSM_MAP_PAGE) {
        g_autofree uint8_t *buf = NULL;
        WsmMapRecord r;
        int ret = find_record(l, session, pos, end, &r, &buf, errp);

        if (ret < 0) {
            return ret;
        }
        if (ret && (r.generation > generation ||
                    (r.generation == generation && r.serial > serial))) {
            error_setg(errp, "record %" PRIu64 " of generation %" PRIu64
                       " is there, but not all before it", r.serial,
                       r.generation);
            return 1;
        }
    }
    return 0;
}

/* Subtract records, until there is none that follows */
static bool replay(WsmMapLoad *l, WsmMapContents *out, Error **errp)
{
    const WsmMapHead *head = &out->head;
    int64_t end = head->area + head->area_bytes;
    int64_t pos = head->area + wsm_map_snapshot_room(head->snapshot_bytes);
    int ret = 1;

    while (ret && pos < end) {
        g_autofree uint8_t *buf = NULL;
        WsmMapRecord r;

        ret = find_record(l, &head->session, pos, end, &r, &buf, errp);
        if (ret < 0) {
            return false;
        }
        ret = ret && r.generation == head->generation &&
              r.serial == out->records + 1;
        if (!ret) {
            break;
        }
        if (!wsm_missing_clear_runs(out->missing, buf + WSM_MAP_RECORD_SIZE,
                                    r.runs, errp)) {
            return false;
        }
        out->records++;
        pos += wsm_map_record_room(r.runs);
    }
    return find_later(l, &head->session, head->generation, out->records,
                      errp) == 0;
}

/*
 * Snapshots
 */

/* NULL and @errp; *@torn if it is there and is not the one */
static uint8_t *read_snapshot(WsmMapLoad *l, const WsmMapHead *head,
                              bool *torn, Error **errp)
{
    g_autofree uint8_t *runs = NULL;

    *torn = head->area + head->area_bytes > l->reader->size;
    if (*torn) {
        error_setg(errp, "it has %" PRId64 " bytes, and should have %" PRId64,
                   l->reader->size, head->area + head->area_bytes);
        return NULL;
    }
    runs = g_try_malloc(MAX(head->snapshot_bytes, 1));
    if (!runs) {
        error_setg(errp, "there is no memory for %" PRIu32 " bytes",
                   head->snapshot_bytes);
        return NULL;
    }
    if (!read_map(l, head->area, head->snapshot_bytes, runs, errp)) {
        return NULL;
    }
    if (wsm_map_crc(runs, head->snapshot_bytes) != head->snapshot_crc) {
        *torn = true;
        error_setg(errp, "the list of missing blocks of generation %" PRIu64
                   " is not whole", head->generation);
        return NULL;
    }
    return g_steal_pointer(&runs);
}

static bool take_snapshot(WsmMapLoad *l, const uint8_t *runs,
                          WsmMapContents *out, Error **errp)
{
    const WsmMapHead *head = &out->head;

    out->missing = wsm_missing_new(head->size, head->granularity);
    if (!wsm_missing_set_runs(out->missing, runs, head->snapshot_bytes,
                              errp)) {
        return false;
    }
    if (out->missing->bytes != head->missing) {
        error_setg(errp, "its list has %" PRId64 " bytes missing, and its head "
                   "says %" PRId64, out->missing->bytes, head->missing);
        return false;
    }
    return replay(l, out, errp);
}

/*
 * The whole
 */

/*
 * No head is whole, or the snapshot of the first is not: QEMU died before the
 * first flush ended.  Then nothing was written later.
 */
static WsmMapState judge_uncommitted(WsmMapLoad *l, const QemuUUID *session,
                                     Error **errp)
{
    session = qemu_uuid_is_null(session) ? NULL : session;
    /* Generation 1 is in page 1, so page 0 was not written */
    if (l->page[0] != WSM_MAP_PAGE_EMPTY) {
        error_setg(errp, "its heads are damaged");
        return WSM_MAP_DAMAGED;
    }
    if (find_later(l, session, 0, 0, errp) != 0) {
        return WSM_MAP_DAMAGED;
    }
    error_setg(errp, "the guest has not run here: its list of missing blocks "
               "was not yet written");
    return WSM_MAP_UNCOMMITTED;
}

static WsmMapState judge_committed(WsmMapLoad *l, WsmMapContents *out,
                                   Error **errp)
{
    g_autofree uint8_t *runs = NULL;
    Error *err = NULL;
    bool torn;

    *out = (WsmMapContents) { .head = *l->best };
    runs = read_snapshot(l, &out->head, &torn, &err);
    /* Later generations were not begun before their snapshot was durable */
    if (torn && out->head.generation == 1) {
        error_free(err);
        return judge_uncommitted(l, &out->head.session, errp);
    }
    if (runs && take_snapshot(l, runs, out, &err)) {
        return WSM_MAP_COMMITTED;
    }
    error_propagate(errp, err);
    wsm_map_contents_destroy(out);
    return WSM_MAP_DAMAGED;
}

static WsmMapState load(WsmMapLoad *l, const WsmMapWanted *wanted,
                        WsmMapContents *out, Error **errp)
{
    if (!read_heads(l, errp)) {
        return WSM_MAP_DAMAGED;
    }
    if (!l->best) {
        return judge_uncommitted(l, &wanted->session, errp);
    }
    if (!check_wanted(l->best, wanted, errp)) {
        /* The guest came so far, but this is not the map to tell how far */
        return is_of_session(l->best, wanted) ? WSM_MAP_DAMAGED : WSM_MAP_OTHER;
    }
    if (!check_boot(l->best, wanted, errp) || !check_other(l, errp)) {
        return WSM_MAP_DAMAGED;
    }
    if (l->best->is_void) {
        error_setg(errp, "QEMU could not write it any more while the guest ran "
                   "on");
        return WSM_MAP_VOID;
    }
    return judge_committed(l, out, errp);
}

WsmMapState wsm_map_load(const WsmMapReader *reader, const WsmMapWanted *wanted,
                         WsmMapContents *out, Error **errp)
{
    g_autofree WsmMapLoad *l = g_new(WsmMapLoad, 1);

    *l = (WsmMapLoad) { .reader = reader };
    *out = (WsmMapContents) {};
    return load(l, wanted, out, errp);
}

void wsm_map_contents_destroy(WsmMapContents *contents)
{
    g_clear_pointer(&contents->missing, wsm_missing_free);
}
