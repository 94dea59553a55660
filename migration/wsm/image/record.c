/*
 * Whole-system migration: the record beside an image, as bytes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-wsm.h"
#include "qapi/qobject-input-visitor.h"
#include "qapi/qobject-output-visitor.h"
#include "qemu/host-utils.h"
#include "qemu/uuid.h"
#include "qobject/qjson.h"
#include "qobject/qobject.h"
#include "migration/wsm/image/record.h"

#define MAGIC               "wsm-record "
#define VERSION             "1"
#define NEW_VERSION         "2"     /* has a "handover", or a "map-..." */
#define SUM_LENGTH          64      /* SHA-256 in hexadecimal */
#define MAX_VERSION_DIGITS  9

/* "wsm-record 1 SHA256\n", or with the other version */
QEMU_BUILD_BUG_ON(sizeof(VERSION) != sizeof(NEW_VERSION));
#define VERSION_OFFSET      (sizeof(MAGIC) - 1)
#define SUM_OFFSET          (sizeof(MAGIC VERSION " ") - 1)
#define HEAD_LENGTH         (SUM_OFFSET + SUM_LENGTH + 1)

static char *sum_of(const char *body, size_t size)
{
    return g_compute_checksum_for_data(G_CHECKSUM_SHA256,
                                       (const guchar *)body, size);
}

GString *wsm_record_encode(WsmRecord *record)
{
    g_autoptr(GString) body = NULL;
    g_autofree char *sum = NULL;
    /* The oldest that can say it: an older QEMU reads what it can */
    bool is_new = record->handover || record->map_node ||
                  record->has_map_disk;
    GString *text = g_string_new(is_new ? MAGIC NEW_VERSION " "
                                        : MAGIC VERSION " ");
    QObject *object;
    Visitor *v = qobject_output_visitor_new(&object);

    visit_type_WsmRecord(v, NULL, &record, &error_abort);
    visit_complete(v, &object);
    visit_free(v);
    body = qobject_to_json_pretty(object, true);
    qobject_unref(object);

    g_string_append_c(body, '\n');
    sum = sum_of(body->str, body->len);
    g_string_append(text, sum);
    g_string_append_c(text, '\n');
    g_string_append_len(text, body->str, body->len);
    return text;
}

/* A record of a later version may look different after its version */
static bool check_version(const char *text, size_t size, Error **errp)
{
    const char *begin = text + VERSION_OFFSET;
    size_t length = 0;

    if (size < VERSION_OFFSET || memcmp(text, MAGIC, VERSION_OFFSET)) {
        error_setg(errp, "it does not begin with '" MAGIC "'");
        return false;
    }
    size -= VERSION_OFFSET;
    while (length < size && length <= MAX_VERSION_DIGITS &&
           g_ascii_isdigit(begin[length])) {
        length++;
    }
    if (length == 0 || length > MAX_VERSION_DIGITS || length == size ||
        begin[length] != ' ') {
        error_setg(errp, "no version number follows '" MAGIC "'");
        return false;
    }
    if (length != strlen(VERSION) ||
        (*begin != *VERSION && *begin != *NEW_VERSION)) {
        error_setg(errp, "it has version %.*s, but this QEMU reads only "
                   "versions " VERSION " and " NEW_VERSION, (int)length,
                   begin);
        return false;
    }
    return true;
}

static bool check_sum(const char *text, size_t size, Error **errp)
{
    g_autofree char *sum = NULL;

    if (size <= HEAD_LENGTH || text[HEAD_LENGTH - 1] != '\n') {
        error_setg(errp, "its first line is not complete, or nothing follows");
        return false;
    }
    sum = sum_of(text + HEAD_LENGTH, size - HEAD_LENGTH);
    if (memcmp(text + SUM_OFFSET, sum, SUM_LENGTH)) {
        error_setg(errp, "it is torn or was changed: its SHA-256 is not the "
                   "one in its first line");
        return false;
    }
    return true;
}

/* What the types in qapi/wsm.json do not say */
static bool check_state(const WsmRecord *record, Error **errp)
{
    if (record->state == WSM_IMAGE_STATE_ARRIVING) {
        error_setg(errp, "state '%s' is for a map to tell",
                   WsmImageState_str(record->state));
        return false;
    }
    return true;
}

static bool check_points(const WsmRecord *record, Error **errp)
{
    const WsmRecordPointList *each;
    QemuUUID uuid;

    for (each = record->points; each; each = each->next) {
        const WsmRecordPoint *point = each->value;

        if (qemu_uuid_parse(point->id, &uuid) < 0) {
            error_setg(errp, "the id of a sync point, '%s', is no UUID",
                       point->id);
            return false;
        }
        if (!is_power_of_2(point->granularity)) {
            error_setg(errp, "the granularity of sync point %s, %" PRIu32
                       ", is no power of two", point->id, point->granularity);
            return false;
        }
    }
    return true;
}

static WsmRecord *decode_body(const char *body, size_t size, Error **errp)
{
    /* The parser wants a NUL at the end */
    g_autofree char *json = g_strndup(body, size);
    g_autoptr(WsmRecord) record = NULL;
    QObject *object;
    Visitor *v;

    if (strlen(json) != size) {
        error_setg(errp, "it has a NUL character");
        return NULL;
    }
    object = qobject_from_json(json, errp);
    if (!object) {
        return NULL;
    }
    v = qobject_input_visitor_new(object);
    visit_type_WsmRecord(v, NULL, &record, errp);
    visit_free(v);
    qobject_unref(object);
    if (!record || !check_state(record, errp) || !check_points(record, errp)) {
        return NULL;
    }
    return g_steal_pointer(&record);
}

WsmRecord *wsm_record_decode(const char *text, size_t size, Error **errp)
{
    ERRP_GUARD();
    WsmRecord *record = NULL;

    if (check_version(text, size, errp) && check_sum(text, size, errp)) {
        record = decode_body(text + HEAD_LENGTH, size - HEAD_LENGTH, errp);
    }
    if (!record) {
        error_prepend(errp, "no usable wsm record: ");
    }
    return record;
}
