/*
 * Whole-system migration: commands of the human monitor
 *
 * The tables of QEMU have their names and arguments; here is what they do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-wsm.h"
#include "qapi/qapi-visit-wsm.h"
#include "qapi/qobject-input-visitor.h"
#include "qemu/cutils.h"
#include "qemu/keyval.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "migration/wsm/state.h"

static void hmp_print_size(Monitor *mon, const char *name, uint64_t bytes)
{
    g_autofree char *text = size_to_str(bytes);

    monitor_printf(mon, ", %s %s", name, text);
}

/* What is left, as far as it is known */
static void hmp_print_progress(Monitor *mon, const WsmInfo *info)
{
    if (info->has_total) {
        g_autofree char *left = size_to_str(info->remaining);
        g_autofree char *total = size_to_str(info->total);

        monitor_printf(mon, "progress: %" PRId64 " %%, %s of %s left",
                       info->percent, left, total);
        if (info->has_speed) {
            g_autofree char *speed = size_to_str(info->speed);

            monitor_printf(mon, ", %s/s", speed);
        }
        if (info->has_ram_remaining) {
            hmp_print_size(mon, "memory left", info->ram_remaining);
        }
        monitor_printf(mon, "\n");
    }
    if (info->has_expected_handover_seconds) {
        monitor_printf(mon, "the guest runs at the destination in about %"
                       PRId64 " s\n", info->expected_handover_seconds);
    }
    if (info->has_expected_seconds) {
        monitor_printf(mon, "all is at the destination in about %" PRId64
                       " s\n", info->expected_seconds);
    }
    if (info->has_downtime_ms) {
        monitor_printf(mon, "downtime: %" PRId64 " ms\n", info->downtime_ms);
    }
}

static void hmp_print_phases(Monitor *mon, const WsmInfo *info)
{
    const char *comma = "phases:";

    for (const WsmPhaseTimeList *l = info->phases; l; l = l->next) {
        monitor_printf(mon, "%s %s %" PRId64 " ms", comma,
                       WsmPhase_str(l->value->phase), l->value->ms);
        comma = ",";
    }
    if (info->phases) {
        monitor_printf(mon, "\n");
    }
}

static void hmp_print_disk(Monitor *mon, const WsmDiskInfo *disk)
{
    g_autofree char *size = size_to_str(disk->size);

    monitor_printf(mon, "disk %s: %s", disk->name, size);
    hmp_print_size(mon, "sent", disk->sent);
    if (disk->packed != disk->sent) {
        hmp_print_size(mon, "packed into", disk->packed);
    }
    hmp_print_size(mon, "zeroes", disk->zero);
    if (disk->compared) {
        hmp_print_size(mon, "compared", disk->compared);
        hmp_print_size(mon, "equal", disk->equal);
    }
    hmp_print_size(mon, "dirty", disk->dirty);
    hmp_print_size(mon, "missing", disk->missing);
    if (disk->waiting_reads) {
        monitor_printf(mon, ", %" PRId64 " reads wait", disk->waiting_reads);
    }
    monitor_printf(mon, "\n");
    if (disk->basis) {
        monitor_printf(mon, "  basis %s: %s\n",
                       WsmBasisKind_str(disk->basis->kind),
                       disk->basis->reason);
    }
}

static void hmp_print_memory(Monitor *mon, const WsmMemoryInfo *memory)
{
    g_autofree char *referenced = size_to_str(memory->referenced);

    monitor_printf(mon, "memory by reference: %s", referenced);
    hmp_print_size(mon, "with content", memory->q_inline);
    hmp_print_size(mon, "sent as", memory->packed);
    monitor_printf(mon, "\n");
    for (const WsmMemoryKindInfoList *l = memory->kinds; l; l = l->next) {
        const WsmMemoryKindInfo *k = l->value;
        g_autofree char *size = size_to_str(k->referenced);

        monitor_printf(mon, "  %s: %s", WsmMemoryKind_str(k->kind), size);
        hmp_print_size(mon, "missed", k->missed);
        hmp_print_size(mon, "wrong", k->wrong);
        hmp_print_size(mon, "late", k->late);
        monitor_printf(mon, "\n");
    }
}

static void hmp_print_channels(Monitor *mon, const WsmInfo *info)
{
    const char *comma = "channels:";

    for (const WsmChannelInfoList *l = info->channels; l; l = l->next) {
        monitor_printf(mon, "%s %" PRId64 " %s", comma, l->value->id,
                       l->value->connected ? "up" : "down");
        if (l->value->reconnects) {
            monitor_printf(mon, " (opened again %" PRId64 " times)",
                           l->value->reconnects);
        }
        comma = ",";
    }
    if (info->channels) {
        monitor_printf(mon, "\n");
    }
}

static void hmp_print_image(Monitor *mon, const WsmImageInfo *image)
{
    unsigned points = 0;

    for (const WsmPointInfoList *l = image->points; l; l = l->next) {
        points++;
    }
    monitor_printf(mon, "image %s: %s, %u sync points", image->name,
                   WsmImageState_str(image->state), points);
    if (image->peer) {
        monitor_printf(mon, ", other host %s", image->peer);
    }
    if (image->problem) {
        monitor_printf(mon, " (%s)", image->problem);
    }
    monitor_printf(mon, "\n");
}

static void hmp_info_wsm(Monitor *mon, const QDict *qdict)
{
    g_autoptr(WsmInfo) info = qmp_query_wsm(&error_abort);

    monitor_printf(mon, "role: %s, phase: %s%s%s\n", WsmRole_str(info->role),
                   WsmPhase_str(info->phase),
                   info->session ? ", session: " : "", info->session ?: "");
    if (info->error) {
        monitor_printf(mon, "error: %s\n", info->error);
    }
    hmp_print_progress(mon, info);
    hmp_print_phases(mon, info);
    for (const WsmDiskInfoList *l = info->disks; l; l = l->next) {
        hmp_print_disk(mon, l->value);
    }
    for (const WsmExcludedDiskList *l = info->excluded; l; l = l->next) {
        monitor_printf(mon, "left out: %s (%s)\n", l->value->name,
                       l->value->reason);
    }
    if (info->memory) {
        hmp_print_memory(mon, info->memory);
    }
    hmp_print_channels(mon, info);
    for (const WsmImageInfoList *l = info->images; l; l = l->next) {
        hmp_print_image(mon, l->value);
    }
}

/* On the command line there is no empty list: here it is "disks=" */
static void hmp_empty_lists(QDict *options)
{
    static const char *const lists[] = {
        "disks", "basis", "memory-references", "maps",
    };

    for (int i = 0; i < ARRAY_SIZE(lists); i++) {
        const char *text = qdict_get_try_str(options, lists[i]);

        if (text && !*text) {
            qdict_put(options, lists[i], qlist_new());
        }
    }
}

/* "channels=4,disks.0=vd0", as on the command line */
static bool hmp_parse_options(const char *text, WsmOptions **options,
                              Error **errp)
{
    g_autoptr(QDict) dict = keyval_parse(text, NULL, NULL, errp);
    Visitor *v;
    bool ok;

    if (!dict) {
        return false;
    }
    hmp_empty_lists(dict);
    v = qobject_input_visitor_new_keyval(QOBJECT(dict));
    ok = visit_type_WsmOptions(v, NULL, options, errp);
    visit_free(v);
    return ok;
}

/* So that they can be typed again */
static void hmp_print_options(Monitor *mon)
{
    g_autoptr(WsmOptions) o = qmp_query_wsm_options(&error_abort);
    const strList *disk;
    int i = 0;

    monitor_printf(mon, "channels=%" PRId64 ",granularity=%" PRIu64
                   ",bandwidth=%" PRIu64 ",max-residue=%" PRId64
                   ",switchover-timeout=%" PRId64 ",sync-points=%" PRId64
                   ",compare-bandwidth=%" PRIu64
                   ",memory-adaptive=%s,disk-packing=%s"
                   ",keep-memory=%s,keep-memory-file=%s,crash-safe=%s"
                   ",x-push-delay=%" PRId64 ",x-memory-pack=%s",
                   o->channels, o->granularity, o->bandwidth, o->max_residue,
                   o->switchover_timeout, o->sync_points,
                   o->compare_bandwidth,
                   o->memory_adaptive ? "on" : "off",
                   o->disk_packing ? "on" : "off",
                   o->keep_memory ? "on" : "off", o->keep_memory_file,
                   OnOffAuto_str(o->crash_safe),
                   o->x_push_delay, o->x_memory_pack ? "on" : "off");
    monitor_printf(mon, "%s%s%s%s", o->disks ? "" : ",disks=",
                   o->basis ? "" : ",basis=",
                   o->memory_references ? "" : ",memory-references=",
                   o->maps ? "" : ",maps=");
    for (disk = o->disks; disk; disk = disk->next) {
        monitor_printf(mon, ",disks.%d=%s", i++, disk->value);
    }
    i = 0;
    for (const WsmBasisWishList *l = o->basis; l; l = l->next) {
        monitor_printf(mon, ",basis.%d.disk=%s,basis.%d.kind=%s", i,
                       l->value->disk, i, WsmBasisKind_str(l->value->kind));
        i++;
    }
    i = 0;
    for (const WsmMemoryKindList *l = o->memory_references; l; l = l->next) {
        monitor_printf(mon, ",memory-references.%d=%s", i++,
                       WsmMemoryKind_str(l->value));
    }
    i = 0;
    for (const WsmMapNodeList *l = o->maps; l; l = l->next) {
        monitor_printf(mon, ",maps.%d.disk=%s,maps.%d.node=%s", i,
                       l->value->disk, i, l->value->node);
        i++;
    }
    monitor_printf(mon, "\n");
}

static void hmp_wsm_set_options(Monitor *mon, const QDict *qdict)
{
    const char *text = qdict_get_try_str(qdict, "options");
    g_autoptr(WsmOptions) options = NULL;
    Error *err = NULL;

    if (!text) {
        hmp_print_options(mon);
    } else if (hmp_parse_options(text, &options, &err)) {
        qmp_wsm_set_options(options, &err);
    }
    hmp_handle_error(mon, err);
}

static void hmp_wsm_adopt(Monitor *mon, const QDict *qdict)
{
    const char *text = qdict_get_try_str(qdict, "disks");
    strList *disks = text ? hmp_split_at_comma(text) : NULL;
    Error *err = NULL;

    qmp_wsm_adopt(text != NULL, disks, false, 0, &err);
    qapi_free_strList(disks);
    hmp_handle_error(mon, err);
}

void wsm_hmp_init(void)
{
    monitor_register_hmp("wsm", true, hmp_info_wsm);
    monitor_register_hmp("wsm_set_options", false, hmp_wsm_set_options);
    monitor_register_hmp("wsm_adopt", false, hmp_wsm_adopt);
}
