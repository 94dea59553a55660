/*
 * Whole-system migration: a block bitmap as a list of runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/wire/runs.h"

#define LEB128_MAX_BYTES    10      /* of a 64-bit number */

void wsm_runs_encode_init(WsmRunsEncoder *e, GByteArray *out)
{
    *e = (WsmRunsEncoder) { .out = out };
}

static void put_number(GByteArray *out, uint64_t value)
{
    uint8_t byte;

    do {
        byte = value & 0x7f;
        value >>= 7;
        if (value) {
            byte |= 0x80;
        }
        g_byte_array_append(out, &byte, 1);
    } while (value);
}

void wsm_runs_encode(WsmRunsEncoder *e, uint64_t first, uint64_t count)
{
    assert(first >= e->end);
    assert(count > 0 && count <= UINT64_MAX - first);

    put_number(e->out, first - e->end);
    put_number(e->out, count);
    e->end = first + count;
}

void wsm_runs_decode_init(WsmRunsDecoder *d, const uint8_t *buf, size_t size,
                          uint64_t blocks)
{
    *d = (WsmRunsDecoder) {
        .p = buf,
        .limit = size ? buf + size : buf,   /* @buf of nothing may be NULL */
        .blocks = blocks,
    };
}

/*
 * Read one number.  Each number has exactly one encoding here: a last byte of
 * 0 after others would only make it longer and is refused.
 */
static bool get_number(WsmRunsDecoder *d, const char *what, uint64_t *value,
                       Error **errp)
{
    uint64_t result = 0;
    uint8_t byte;
    int i;

    for (i = 0; i < LEB128_MAX_BYTES; i++) {
        if (d->p == d->limit) {
            error_setg(errp, "list of runs: ends within the %s of the run "
                       "after block %" PRIu64, what, d->end);
            return false;
        }
        byte = *d->p++;
        if (i == LEB128_MAX_BYTES - 1 && byte > 1) {
            break;
        }
        result |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (!(byte & 0x80)) {
            if (i > 0 && byte == 0) {
                break;
            }
            *value = result;
            return true;
        }
    }
    error_setg(errp, "list of runs: the %s of the run after block %" PRIu64
               " is no 64-bit number in its shortest encoding",
               what, d->end);
    return false;
}

int wsm_runs_decode(WsmRunsDecoder *d, uint64_t *first, uint64_t *count,
                    Error **errp)
{
    uint64_t gap, length, room = d->blocks - d->end;

    if (d->p == d->limit) {
        return 0;
    }
    if (!get_number(d, "gap", &gap, errp) ||
        !get_number(d, "length", &length, errp)) {
        return -EINVAL;
    }
    if (length == 0) {
        error_setg(errp, "list of runs: the run after block %" PRIu64
                   " has length 0", d->end);
        return -EINVAL;
    }
    if (gap > room || length > room - gap) {
        error_setg(errp, "list of runs: gap %" PRIu64 " + length %" PRIu64
                   " after block %" PRIu64 " is beyond the %" PRIu64
                   " blocks of the disk", gap, length, d->end, d->blocks);
        return -EINVAL;
    }
    *first = d->end + gap;
    *count = length;
    d->end = *first + length;
    return 1;
}

uint64_t wsm_runs_max_size(uint64_t blocks)
{
    return blocks + LEB128_MAX_BYTES;
}

bool wsm_runs_for_each(const uint8_t *runs, size_t size, int64_t bytes,
                       uint32_t granularity, WsmRunFn *fn, void *opaque,
                       Error **errp)
{
    uint64_t first, count;
    WsmRunsDecoder d;
    int ret;

    wsm_runs_decode_init(&d, runs, size, DIV_ROUND_UP(bytes, granularity));
    while ((ret = wsm_runs_decode(&d, &first, &count, errp)) > 0) {
        int64_t start = first * granularity;
        int64_t end = MIN((first + count) * granularity, bytes);

        fn(opaque, start, end - start);
    }
    return ret == 0;
}
