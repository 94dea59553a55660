/*
 * Whole-system migration: the payload of SETS
 *
 * The destination says which sets of templates it can serve.  The place in the
 * list is the number by which references call a set.
 *
 * Pure; see wire/message.h for the messages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_WIRE_SETS_H
#define MIGRATION_WSM_WIRE_SETS_H

#include "migration/wsm/wire/message.h"

typedef struct WsmSetDesc {
    uint8_t id[WSM_HASH_SIZE];
    uint64_t count;             /* of its pages, 1 to WSM_SET_MAX_PAGES */
    char scope[WSM_MAX_SCOPE + 1];
} WsmSetDesc;

/* Is it 1 to WSM_MAX_SCOPE letters, digits, '-', '_' and '.'? */
bool wsm_scope_is_good(const char *scope, size_t length);

/* @n sets, at most WSM_MAX_SETS.  Returns a new array. */
GByteArray *wsm_sets_encode(const WsmSetDesc *sets, unsigned n);

/*
 * Decoding takes the payload of @length bytes.  @sets has room for
 * WSM_MAX_SETS; @n says how many there are.  False, and @errp.
 */
bool wsm_sets_decode(const uint8_t *payload, size_t length, WsmSetDesc *sets,
                     unsigned *n, Error **errp);

#endif
