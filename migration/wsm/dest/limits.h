/*
 * Whole-system migration: how much the destination takes in at a time
 *
 * Whoever can reach the port can open connections and send, so both are
 * limited, over all connections.
 *
 * Pure.  Not thread-safe.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_DEST_LIMITS_H
#define MIGRATION_WSM_DEST_LIMITS_H

#include "qemu/queue.h"
#include "migration/wsm/policy/window.h"
#include "migration/wsm/wire/message.h"

#define WSM_MAX_OUTSTANDING     (8 * MiB)       /* before the freeze */
#define WSM_MAX_ANSWERS         128             /* unsent, per connection */
#define WSM_MAX_CONNS           (2 * WSM_MAX_CHANNELS)

/*
 * Writes and answers, each with a coroutine and its stack, of all connections.
 * In post-copy it must be all that the source may have in flight, see
 * wsm_room_for().
 */
#define WSM_MAX_WRITES \
    ((WSM_WINDOW_MAX + WSM_PULL_WINDOW) / WSM_COST_MIN + 1 * KiB)

/*
 * Connections
 */

typedef struct WsmPlace {
    QTAILQ_ENTRY(WsmPlace) next;
    bool known;                 /* it has said a HELLO that is right */
    bool displaced;             /* by another one, before that */
} WsmPlace;

typedef struct WsmPlaces {
    QTAILQ_HEAD(, WsmPlace) all;        /* oldest first */
    unsigned n;
} WsmPlaces;

void wsm_places_init(WsmPlaces *p);

/*
 * One more connection, @place, has come.  Returns the one whose place it
 * takes, if there are too many: the oldest that has not said HELLO, which is
 * @place itself if all others have.  That one is displaced, and shall end.
 */
WsmPlace *wsm_places_add(WsmPlaces *p, WsmPlace *place);

void wsm_places_remove(WsmPlaces *p, WsmPlace *place);

/*
 * What waits to be written or answered
 */

/* Of one connection */
typedef struct WsmLoad {
    unsigned answers;           /* that are being sent */
    int64_t outstanding;        /* bytes of memory */
} WsmLoad;

/* Of all */
typedef struct WsmRoom {
    unsigned channels;          /* set before, never changed */
    unsigned writes;
} WsmRoom;

/*
 * May @msg be worked on now, which came on @channel, whose connection has
 * @load?  A source that does not read answers is not read from: its answers
 * would be all that there is room for.
 */
bool wsm_room_for(const WsmRoom *r, const WsmLoad *load, unsigned channel,
                  const WsmMsg *msg);

/* Begin to work on @msg, and end it */
void wsm_room_take(WsmRoom *r, WsmLoad *load, const WsmMsg *msg);
void wsm_room_give(WsmRoom *r, WsmLoad *load, const WsmMsg *msg);

#endif
