/*
 * Whole-system migration: DIGESTS, the prints of what memory was
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "migration/wsm/memory/prints.h"

GByteArray *wsm_prints_encode(const WsmPrints *prints, unsigned pages)
{
    GByteArray *out = g_byte_array_new();
    uint8_t buf[WSM_SEED_SIZE + 1];

    assert(pages && pages <= WSM_PRINTS_PAGES);
    wsm_seed_encode(&prints->seed, buf);
    buf[WSM_SEED_SIZE] = strlen(prints->name);
    g_byte_array_append(out, buf, sizeof(buf));
    g_byte_array_append(out, (const uint8_t *)prints->name,
                        strlen(prints->name));
    g_byte_array_append(out, prints->buf, pages * WSM_PRINT_SIZE);
    return out;
}

bool wsm_prints_decode(const WsmMsg *msg, const uint8_t *payload,
                       WsmPrints *prints, Error **errp)
{
    uint64_t pages = msg->bytes / WSM_PAGE_SIZE;
    unsigned length = payload[WSM_SEED_SIZE];

    assert(msg->type == WSM_MSG_DIGESTS && msg->length > WSM_SEED_SIZE);
    if (msg->disk) {
        error_setg(errp, "DIGESTS: disk is %u, but must be 0", msg->disk);
        return false;
    }
    if (!length ||
        msg->length != WSM_SEED_SIZE + 1 + length + pages * WSM_PRINT_SIZE) {
        error_setg(errp, "DIGESTS: length %" PRIu32 " is not that of a name "
                   "of %u bytes and of %" PRIu64 " prints", msg->length,
                   length, pages);
        return false;
    }
    *prints = (WsmPrints) {
        .buf = payload + WSM_SEED_SIZE + 1 + length,
    };
    wsm_seed_decode(payload, &prints->seed);
    memcpy(prints->name, payload + WSM_SEED_SIZE + 1, length);
    if (strlen(prints->name) != length) {
        error_setg(errp, "DIGESTS: the name has a NUL in it");
        return false;
    }
    return true;
}

uint64_t wsm_prints_at(const WsmPrints *prints, unsigned i)
{
    return ldq_be_p(prints->buf + i * WSM_PRINT_SIZE);
}
