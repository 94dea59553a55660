/*
 * Whole-system migration: the record of an image whose guest is leaving
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qapi/qapi-types-migration.h"
#include "qapi/qapi-types-wsm.h"
#include "migration/options.h"
#include "migration/wsm/image/image-file.h"
#include "migration/wsm/image/image.h"
#include "migration/wsm/image/record-store.h"
#include "migration/wsm/link/peer.h"
#include "migration/wsm/source/leaving.h"

void wsm_source_describe_leaving(WsmSource *s)
{
    GLOBAL_STATE_CODE();
    for (unsigned i = 0; i < s->ndisks; i++) {
        WsmRecordHandover *h = g_new0(WsmRecordHandover, 1);
        WsmSourceDisk *d = &s->disk[i];

        h->disk = i;
        h->disks = s->ndisks;
        h->format = wsm_image_format(d->bs_points);
        h->points = s->start.disk[i].npoints;
        h->granularity = s->start.granularity;
        h->channels = s->start.channels;
        h->version = s->start.version;
        h->features = s->start.features;
        h->uri = wsm_uri_of_address(s->target);
        h->tls = migrate_tls();
        d->leaving->handover = h;
    }
}

static void wsm_source_save_leaving(WsmSourceDisk *d)
{
    Error *err = NULL;

    if (d->store && !wsm_record_store_save(d->store, d->leaving, &err)) {
        wsm_image_warn(d->image, err);
    }
}

/*
 * Soon the guest may be elsewhere.  If QEMU ends at the wrong moment nobody can
 * say here, so from now on the images may not be run.
 */
int wsm_source_mark_leaving(void *opaque)
{
    WsmSource *s = opaque;

    s->marked = true;
    for (unsigned i = 0; i < s->ndisks && !wsm_loop_is_over(&s->loop); i++) {
        wsm_source_save_leaving(&s->disk[i]);
    }
    return 0;
}

/* It goes on after the freeze only, and the job has ended before that */
void wsm_source_redirect_leaving(WsmSource *s)
{
    GLOBAL_STATE_CODE();
    if (s->stopped || wsm_session_phase(s->session) != WSM_PHASE_POSTCOPY) {
        return;
    }
    for (unsigned i = 0; i < s->ndisks; i++) {
        WsmRecordHandover *h = s->disk[i].leaving->handover;

        g_free(h->uri);
        h->uri = wsm_uri_of_address(s->target);
        wsm_source_save_leaving(&s->disk[i]);
    }
}

/* Whoever serves them after a crash can tell whether somebody wrote to them */
static bool wsm_source_stamp_disk(WsmSourceDisk *d)
{
    g_autoptr(WsmFileStamp) stamp = g_new0(WsmFileStamp, 1);

    if (!d->store || !wsm_image_stamp(d->bs_points, stamp, NULL)) {
        return false;
    }
    qapi_free_WsmFileStamp(d->leaving->stamp);
    d->leaving->stamp = g_steal_pointer(&stamp);
    return true;
}

void wsm_source_stamp_leaving(void *opaque)
{
    WsmSource *s = opaque;

    GLOBAL_STATE_CODE();
    if (s->stopped || wsm_session_phase(s->session) != WSM_PHASE_POSTCOPY) {
        return;
    }
    for (unsigned i = 0; i < s->ndisks; i++) {
        if (wsm_source_stamp_disk(&s->disk[i])) {
            wsm_source_save_leaving(&s->disk[i]);
        }
    }
}
