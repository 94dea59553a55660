/*
 * Whole-system migration: how much the destination takes in at a time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/wsm/dest/limits.h"

void wsm_places_init(WsmPlaces *p)
{
    QTAILQ_INIT(&p->all);
    p->n = 0;
}

WsmPlace *wsm_places_add(WsmPlaces *p, WsmPlace *place)
{
    WsmPlace *goes;

    QTAILQ_INSERT_TAIL(&p->all, place, next);
    if (++p->n <= WSM_MAX_CONNS) {
        return NULL;
    }
    QTAILQ_FOREACH(goes, &p->all, next) {
        if (!goes->known && !goes->displaced) {
            break;
        }
    }
    /* @place itself at the latest */
    goes->displaced = true;
    return goes;
}

void wsm_places_remove(WsmPlaces *p, WsmPlace *place)
{
    QTAILQ_REMOVE(&p->all, place, next);
    p->n--;
}

/* Bytes of memory that it takes */
static int64_t wsm_room_cost(const WsmMsg *msg)
{
    return msg->type == WSM_MSG_HASH || msg->type == WSM_MSG_DATA
           ? msg->bytes : msg->length;
}

/*
 * How much of a connection's data may wait to be written.  In post-copy all
 * that the source has in flight: while disks are drained, blocks of those that
 * are waited for may be behind some of others, which must wait.
 */
static int64_t wsm_room_limit(const WsmRoom *r, unsigned channel,
                              const WsmMsg *msg)
{
    int64_t all = WSM_MAX_OUTSTANDING / r->channels;

    if (msg->epoch) {
        all = channel == 0 ? WSM_PULL_WINDOW
                           : WSM_WINDOW_MAX / MAX(r->channels - 1, 1);
    }
    return all + WSM_MAX_DATA;
}

bool wsm_room_for(const WsmRoom *r, const WsmLoad *load, unsigned channel,
                  const WsmMsg *msg)
{
    return load->outstanding + wsm_room_cost(msg) <=
           wsm_room_limit(r, channel, msg) &&
           load->answers < WSM_MAX_ANSWERS && r->writes < WSM_MAX_WRITES;
}

void wsm_room_take(WsmRoom *r, WsmLoad *load, const WsmMsg *msg)
{
    r->writes++;
    load->outstanding += wsm_room_cost(msg);
}

void wsm_room_give(WsmRoom *r, WsmLoad *load, const WsmMsg *msg)
{
    r->writes--;
    load->outstanding -= wsm_room_cost(msg);
}
