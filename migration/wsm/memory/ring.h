/*
 * Whole-system migration: pages of templates that are kept in a ring of nodes
 *
 * A node is a memcached.  The hash of a page says which nodes have it
 * (rendezvous hashing): each node has a score for each hash, and the best ones
 * keep the page.  So all who know the nodes' names agree without asking, and
 * where one comes or goes only its own share moves.  scripts/wsm/templates/
 * ring.py does the same.
 *
 * Nodes are not trusted: what they say is parsed as it comes, in pieces of any
 * size, and no more is kept of it than fits in here.
 *
 * Pure.  Any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_MEMORY_RING_H
#define MIGRATION_WSM_MEMORY_RING_H

#include "qemu/units.h"
#include "migration/wsm/memory/payload.h"

#define WSM_RING_MAX_NODES      64
#define WSM_RING_MAX_REPLICAS   3
#define WSM_RING_KEY_SIZE       44      /* characters; base64 of SHA-256 */
#define WSM_RING_MAX_LINE       256     /* characters of an answer */
#define WSM_RING_MAX_VALUE      MiB     /* bytes; more is no answer to us */

/* What stands for a node of this name in its scores */
uint64_t wsm_ring_seed(const char *name);

/*
 * The @n of @nodes, by their seeds, that keep the page of this hash, the best
 * first.  Returns how many there are, which is less than @n if @nodes is.
 */
unsigned wsm_ring_choose(const uint64_t *seed, unsigned nodes,
                         const uint8_t *hash, unsigned *choice, unsigned n);

/*
 * Requests, put at the end of @out: get the page of this hash, which the answer
 * calls @index (below WSM_PACKET_PAGES); keep it, if it is not there; and what
 * is answered when all before it were.  To a get without success there is no
 * answer, nor to a put with it.
 */
void wsm_ring_encode_get(const uint8_t *hash, unsigned index, GByteArray *out);
void wsm_ring_encode_put(const uint8_t *hash, const void *page,
                         GByteArray *out);
void wsm_ring_encode_end(GByteArray *out);

/* What a node has said */
typedef enum WsmRingAnswer {
    WSM_RING_MORE,              /* nothing yet: all input is used up */
    WSM_RING_PAGE,              /* @index of the parser is @page */
    WSM_RING_ODD,               /* a value that is no page, or it could not */
    WSM_RING_END,               /* that is all until the end that was asked */
    WSM_RING_BAD,               /* nothing that we know, nor what follows */
} WsmRingAnswer;

typedef struct WsmRingParser {
    /* For the caller */
    unsigned index;             /* below WSM_PACKET_PAGES */
    uint8_t page[WSM_PAGE_SIZE];

    char line[WSM_RING_MAX_LINE + 1];
    unsigned length;            /* of @line so far */
    uint32_t size;              /* of the value, without the end of its line */
    uint32_t left;              /* what is to come of it; 0: a line comes */
} WsmRingParser;

void wsm_ring_parser_init(WsmRingParser *p);

/*
 * Go on with the @size bytes at @buf, up to the next answer; both are set to
 * what is left.
 */
WsmRingAnswer wsm_ring_parse(WsmRingParser *p, const uint8_t **buf,
                             size_t *size);

#endif
