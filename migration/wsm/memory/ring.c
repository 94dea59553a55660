/*
 * Whole-system migration: pages of templates that are kept in a ring of nodes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "migration/wsm/memory/ring.h"

#define WSM_EOL                 "\r\n"
#define WSM_EOL_SIZE            2

/*
 * Who keeps what
 */

uint64_t wsm_ring_seed(const char *name)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    uint8_t hash[WSM_HASH_SIZE];
    gsize size = sizeof(hash);

    g_checksum_update(sum, (const uint8_t *)name, strlen(name));
    g_checksum_get_digest(sum, hash, &size);
    return ldq_be_p(hash);
}

/*
 * The end of MurmurHash3.  Each number becomes another, so that two seeds never
 * have the same score.
 */
static uint64_t wsm_ring_score(uint64_t seed, const uint8_t *hash)
{
    uint64_t x = seed ^ ldq_be_p(hash);

    x = (x ^ x >> 33) * 0xff51afd7ed558ccdULL;
    x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ULL;
    return x ^ x >> 33;
}

unsigned wsm_ring_choose(const uint64_t *seed, unsigned nodes,
                         const uint8_t *hash, unsigned *choice, unsigned n)
{
    uint64_t best[WSM_RING_MAX_REPLICAS];
    unsigned found = 0;

    assert(n <= WSM_RING_MAX_REPLICAS);
    for (unsigned i = 0; i < nodes; i++) {
        uint64_t score = wsm_ring_score(seed[i], hash);
        unsigned place = found;

        while (place > 0 && best[place - 1] < score) {
            place--;
        }
        if (place < n) {
            found = MIN(found + 1, n);
            for (unsigned k = found - 1; k > place; k--) {
                best[k] = best[k - 1];
                choice[k] = choice[k - 1];
            }
            best[place] = score;
            choice[place] = i;
        }
    }
    return found;
}

/*
 * What is asked
 */

static void wsm_ring_add(GByteArray *out, const char *text)
{
    g_byte_array_append(out, (const uint8_t *)text, strlen(text));
}

void wsm_ring_encode_get(const uint8_t *hash, unsigned index, GByteArray *out)
{
    g_autofree char *key = g_base64_encode(hash, WSM_HASH_SIZE);
    g_autofree char *line = g_strdup_printf("mg %s v q O%u" WSM_EOL, key,
                                            index);

    assert(index < WSM_PACKET_PAGES);
    wsm_ring_add(out, line);
}

void wsm_ring_encode_put(const uint8_t *hash, const void *page,
                         GByteArray *out)
{
    g_autofree char *key = g_base64_encode(hash, WSM_HASH_SIZE);
    g_autofree char *line = g_strdup_printf("ms %s %d q ME" WSM_EOL, key,
                                            WSM_PAGE_SIZE);

    wsm_ring_add(out, line);
    g_byte_array_append(out, page, WSM_PAGE_SIZE);
    wsm_ring_add(out, WSM_EOL);
}

void wsm_ring_encode_end(GByteArray *out)
{
    wsm_ring_add(out, "mn" WSM_EOL);
}

/*
 * What is answered
 */

void wsm_ring_parser_init(WsmRingParser *p)
{
    p->length = 0;
    p->left = 0;
}

/* A number in decimal, at *@text, below @limit; moves on behind it */
static bool wsm_ring_number(const char **text, uint64_t limit, uint64_t *value)
{
    /* Not what strtoull() allows: spaces and signs */
    return g_ascii_isdigit(**text) &&
           qemu_strtou64(*text, text, 10, value) == 0 && *value < limit;
}

/* " FLAGS...": is one of them our index? */
static bool wsm_ring_flags(WsmRingParser *p, const char *text)
{
    uint64_t index;

    while (*text == ' ') {
        text++;
        if (*text == 'O') {
            text++;
            if (!wsm_ring_number(&text, WSM_PACKET_PAGES, &index) ||
                (*text && *text != ' ')) {
                return false;
            }
            p->index = index;
            return true;
        }
        text += strcspn(text, " ");
    }
    return false;
}

/* "SIZE FLAGS...", of a value that follows */
static WsmRingAnswer wsm_ring_value(WsmRingParser *p, const char *text)
{
    uint64_t size;

    if (!wsm_ring_number(&text, WSM_RING_MAX_VALUE + 1, &size) ||
        !wsm_ring_flags(p, text)) {
        return WSM_RING_BAD;
    }
    p->size = size;
    p->left = size + WSM_EOL_SIZE;
    return WSM_RING_MORE;
}

/* A line is whole */
static WsmRingAnswer wsm_ring_line(WsmRingParser *p)
{
    const char *value;

    p->line[p->length] = 0;
    p->length = 0;
    if (strstart(p->line, "VA ", &value)) {
        return wsm_ring_value(p, value);
    }
    if (g_str_equal(p->line, "MN")) {
        return WSM_RING_END;
    }
    if (g_str_equal(p->line, "NS")) {
        /* It was there when it was put */
        return WSM_RING_MORE;
    }
    return strstart(p->line, "SERVER_ERROR ", NULL) ? WSM_RING_ODD
                                                    : WSM_RING_BAD;
}

static WsmRingAnswer wsm_ring_in_line(WsmRingParser *p, char c)
{
    if (c == '\n') {
        if (p->length == 0 || p->line[--p->length] != '\r') {
            return WSM_RING_BAD;
        }
        return wsm_ring_line(p);
    }
    if (!c || p->length == WSM_RING_MAX_LINE) {
        return WSM_RING_BAD;
    }
    p->line[p->length++] = c;
    return WSM_RING_MORE;
}

/* @n more bytes of a value and the end of its line */
static WsmRingAnswer wsm_ring_in_value(WsmRingParser *p, const uint8_t *buf,
                                       size_t n)
{
    size_t at = p->size + WSM_EOL_SIZE - p->left;

    if (p->size == WSM_PAGE_SIZE && at < p->size) {
        memcpy(p->page + at, buf, MIN(n, p->size - at));
    }
    for (size_t i = MAX(at, p->size); i < at + n; i++) {
        if (buf[i - at] != WSM_EOL[i - p->size]) {
            return WSM_RING_BAD;
        }
    }
    p->left -= n;
    if (p->left) {
        return WSM_RING_MORE;
    }
    return p->size == WSM_PAGE_SIZE ? WSM_RING_PAGE : WSM_RING_ODD;
}

WsmRingAnswer wsm_ring_parse(WsmRingParser *p, const uint8_t **buf,
                             size_t *size)
{
    WsmRingAnswer answer = WSM_RING_MORE;

    while (answer == WSM_RING_MORE && *size) {
        size_t n = p->left ? MIN(p->left, *size) : 1;

        answer = p->left ? wsm_ring_in_value(p, *buf, n)
                         : wsm_ring_in_line(p, **buf);
        *buf += n;
        *size -= n;
    }
    return answer;
}
