/*
 * Whole-system migration: which sets of templates this QEMU may use
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "exec/target_page.h"
#include "migration/misc.h"
#include "qapi/qapi-commands-wsm.h"
#include "migration/wsm/scan.h"
#include "migration/wsm/state.h"
#include "system/runstate.h"

typedef struct WsmTemplatesOpen {
    const WsmTemplateSetList *sets;
    WsmTemplates *templates;
    Error *err;
} WsmTemplatesOpen;

static int wsm_templates_open_work(void *opaque)
{
    WsmTemplatesOpen *o = opaque;

    o->templates = wsm_templates_open(o->sets, &o->err);
    return 0;
}

/* A list of many pages takes its time, which the guest shall not wait for */
void coroutine_fn qmp_wsm_set_templates(WsmTemplateSetList *sets,
                                        WsmRing *ring, Error **errp)
{
    WsmRingSpec *spec = ring ? wsm_ring_spec_new(ring, errp) : NULL;
    WsmTemplatesOpen o = { .sets = sets };
    Wsm *w = wsm_get();

    if (ring && !spec) {
        return;
    }
    thread_pool_submit_co(wsm_templates_open_work, &o);
    if (!o.templates) {
        error_propagate(errp, o.err);
        wsm_ring_spec_unref(spec);
        return;
    }
    wsm_templates_unref(w->templates);
    w->templates = o.templates;
    wsm_ring_spec_unref(w->ring);
    w->ring = spec;
}

static WsmTemplateInfo *wsm_templates_info(unsigned i)
{
    WsmTemplates *t = wsm_get()->templates;
    const WsmSet *set = wsm_templates_set(t, i);
    const WsmSetHeader *h = wsm_set_header(set);
    WsmTemplateInfo *info = g_new0(WsmTemplateInfo, 1);
    g_autoptr(GString) id = g_string_new(NULL);

    for (int byte = 0; byte < WSM_HASH_SIZE; byte++) {
        g_string_append_printf(id, "%02x", h->id[byte]);
    }
    info->file = g_strdup(wsm_set_file(set));
    info->scope = g_strdup(wsm_templates_scope(t, i));
    info->id = g_strdup(id->str);
    info->pages = h->count;
    info->servable = wsm_set_is_servable(set, wsm_get()->ring);
    return info;
}

WsmTemplateInfoList *qmp_query_wsm_templates(Error **errp)
{
    WsmTemplates *t = wsm_get()->templates;
    WsmTemplateInfoList *list = NULL;

    for (unsigned i = t ? wsm_templates_count(t) : 0; i > 0; i--) {
        QAPI_LIST_PREPEND(list, wsm_templates_info(i - 1));
    }
    return list;
}

/*
 * Scans of memory
 */

#define WSM_SCAN_BANDWIDTH      (64 * MiB)      /* bytes per second */

/* Can memory be gone through now?  Else false, and @errp. */
static bool wsm_scan_check(Wsm *w, Error **errp)
{
    if (runstate_check(RUN_STATE_INMIGRATE) || w->dest ||
        migration_in_incoming_postcopy()) {
        error_setg(errp, "the guest's memory is not all here; wait until the "
                   "migration to here has ended");
        return false;
    }
    if (qemu_target_page_size() != WSM_PAGE_SIZE) {
        error_setg(errp, "templates have %d bytes, but the guest's pages %zu",
                   WSM_PAGE_SIZE, qemu_target_page_size());
        return false;
    }
    if (w->scan && wsm_scan_runs(w->scan)) {
        error_setg(errp, "a scan of the guest's memory runs; wait for it or "
                   "cancel it with wsm-cancel-scan");
        return false;
    }
    return true;
}

/* Takes @wanted, which may be NULL, in any case */
static void wsm_scan_begin(const char *file, WsmPrefixes *wanted,
                           uint64_t bandwidth, Error **errp)
{
    Wsm *w = wsm_get();
    int fd = -1;

    if (wsm_scan_check(w, errp)) {
        fd = qemu_create(file, O_WRONLY | O_NONBLOCK, 0600, errp);
    }
    if (fd < 0) {
        wsm_prefixes_free(wanted);
        return;
    }
    wsm_scan_free(w->scan);
    w->scan = wsm_scan_start(fd, wanted, bandwidth);
}

void qmp_wsm_digest_memory(const char *file, bool has_bandwidth,
                           uint64_t bandwidth, Error **errp)
{
    wsm_scan_begin(file, NULL,
                   has_bandwidth ? bandwidth : WSM_SCAN_BANDWIDTH, errp);
}

typedef struct WsmWantedLoad {
    const char *file;
    WsmPrefixes *wanted;
    Error *err;
} WsmWantedLoad;

static int wsm_wanted_work(void *opaque)
{
    WsmWantedLoad *l = opaque;

    l->wanted = wsm_prefixes_read(l->file, &l->err);
    return 0;
}

void coroutine_fn qmp_wsm_export_pages(const char *list, const char *file,
                                       bool has_bandwidth, uint64_t bandwidth,
                                       Error **errp)
{
    WsmWantedLoad l = { .file = list };

    thread_pool_submit_co(wsm_wanted_work, &l);
    if (!l.wanted) {
        error_propagate(errp, l.err);
        return;
    }
    wsm_scan_begin(file, l.wanted,
                   has_bandwidth ? bandwidth : WSM_SCAN_BANDWIDTH, errp);
}

WsmScanInfo *qmp_query_wsm_scan(Error **errp)
{
    Wsm *w = wsm_get();

    return w->scan ? wsm_scan_info(w->scan) : g_new0(WsmScanInfo, 1);
}

void qmp_wsm_cancel_scan(Error **errp)
{
    Wsm *w = wsm_get();

    if (w->scan) {
        wsm_scan_cancel(w->scan);
    }
}
