/*
 * Whole-system migration: the payload of SETS
 *
 * As with headers, nothing of it is trusted.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "migration/wsm/wire/sets.h"

/* ID, number of pages, length of the scope */
#define WSM_SET_FIXED           (WSM_HASH_SIZE + 8 + 1)

QEMU_BUILD_BUG_ON(WSM_SET_FIXED + WSM_MAX_SCOPE != WSM_MAX_SET);

bool wsm_scope_is_good(const char *scope, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (!g_ascii_isalnum(scope[i]) && scope[i] != '-' &&
            scope[i] != '_' && scope[i] != '.') {
            return false;
        }
    }
    return length >= 1 && length <= WSM_MAX_SCOPE;
}

GByteArray *wsm_sets_encode(const WsmSetDesc *sets, unsigned n)
{
    GByteArray *out = g_byte_array_new();

    assert(n <= WSM_MAX_SETS);
    for (unsigned i = 0; i < n; i++) {
        uint8_t fixed[WSM_SET_FIXED];
        size_t length = strlen(sets[i].scope);

        assert(wsm_scope_is_good(sets[i].scope, length));
        memcpy(fixed, sets[i].id, WSM_HASH_SIZE);
        stq_be_p(fixed + WSM_HASH_SIZE, sets[i].count);
        fixed[WSM_SET_FIXED - 1] = length;
        g_byte_array_append(out, fixed, sizeof(fixed));
        g_byte_array_append(out, (const uint8_t *)sets[i].scope, length);
    }
    return out;
}

/* One set, of @length bytes or fewer: how many.  Or 0, and @errp. */
static size_t wsm_set_desc_decode(const uint8_t *p, size_t length,
                                  WsmSetDesc *set, Error **errp)
{
    size_t scope;

    if (length < WSM_SET_FIXED || length - WSM_SET_FIXED <
                                  p[WSM_SET_FIXED - 1]) {
        error_setg(errp, "%zu bytes are left of it, too few", length);
        return 0;
    }
    *set = (WsmSetDesc) { .count = ldq_be_p(p + WSM_HASH_SIZE) };
    memcpy(set->id, p, WSM_HASH_SIZE);
    scope = p[WSM_SET_FIXED - 1];
    if (!set->count || set->count > WSM_SET_MAX_PAGES) {
        error_setg(errp, "%" PRIu64 " pages are not 1 to %d", set->count,
                   WSM_SET_MAX_PAGES);
        return 0;
    }
    if (!wsm_scope_is_good((const char *)p + WSM_SET_FIXED, scope)) {
        error_setg(errp, "its scope is no name");
        return 0;
    }
    memcpy(set->scope, p + WSM_SET_FIXED, scope);
    return WSM_SET_FIXED + scope;
}

bool wsm_sets_decode(const uint8_t *payload, size_t length, WsmSetDesc *sets,
                     unsigned *n, Error **errp)
{
    ERRP_GUARD();
    size_t took;

    for (*n = 0; length; payload += took, length -= took, ++*n) {
        if (*n == WSM_MAX_SETS) {
            error_setg(errp, "SETS: more than %d sets", WSM_MAX_SETS);
            return false;
        }
        took = wsm_set_desc_decode(payload, length, &sets[*n], errp);
        if (!took) {
            error_prepend(errp, "SETS: set %u: ", *n);
            return false;
        }
    }
    return true;
}
