/*
 * Whole-system migration: what the destination lacks in post-copy, says it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/source/lack.h"
#include "migration/wsm/wire/runs.h"

bool coroutine_fn wsm_source_on_lack(WsmSourceChannel *c, const WsmMsg *msg,
                                     Error **errp)
{
    WsmSource *s = c->opaque;
    g_autofree uint8_t *runs = g_malloc(msg->length);

    if (msg->length > wsm_runs_max_size(DIV_ROUND_UP(msg->bytes,
                                                     s->start.granularity))) {
        error_setg(errp, "LACK of disk '%s': %u bytes are too many for a range "
                   "of %" PRIu64, s->disk[msg->disk].name, msg->length,
                   msg->bytes);
        return false;
    }
    return wsm_channel_recv_payload(&c->c, runs, msg->length, errp) &&
           wsm_work_lacks(s->work, msg->disk, msg->offset, msg->bytes, runs,
                          msg->length, errp);
}

bool wsm_source_may_lack(const WsmSource *s)
{
    const WsmSourceChannel *c = &s->channel[0];

    return c->connection > 1 && (c->features & WSM_FEATURE_LACK);
}
