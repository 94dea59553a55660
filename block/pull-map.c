/*
 * Which blocks of a disk are missing, which of them have been asked for, and
 * which ranges are being worked on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"

#include "block/pull-map.h"

void pull_map_init(PullMap *map, int64_t size, uint32_t granularity)
{
    assert(size >= 0);
    assert(is_power_of_2(granularity));

    *map = (PullMap) {
        .size = size,
        .granularity = granularity,
        .missing = hbitmap_alloc(size, ctz32(granularity)),
        .asked = hbitmap_alloc(size, ctz32(granularity)),
    };
    QLIST_INIT(&map->busy);
}

void pull_map_destroy(PullMap *map)
{
    assert(QLIST_EMPTY(&map->busy));
    hbitmap_free(map->missing);
    hbitmap_free(map->asked);
}

bool pull_map_is_whole(const PullMap *map, int64_t offset, int64_t bytes)
{
    if (offset < 0 || bytes <= 0 || bytes > map->size ||
        offset > map->size - bytes) {
        return false;
    }

    return QEMU_IS_ALIGNED(offset, map->granularity) &&
           (QEMU_IS_ALIGNED(bytes, map->granularity) ||
            offset + bytes == map->size);
}

void pull_map_outer(const PullMap *map, int64_t *offset, int64_t *bytes)
{
    int64_t end = *offset + *bytes;

    *offset = QEMU_ALIGN_DOWN(*offset, map->granularity);
    *bytes = MIN(QEMU_ALIGN_UP(end, map->granularity), map->size) - *offset;
}

void pull_map_inner(const PullMap *map, int64_t *offset, int64_t *bytes)
{
    int64_t end = *offset + *bytes;

    if (end < map->size) {
        end = QEMU_ALIGN_DOWN(end, map->granularity);
    }
    *offset = QEMU_ALIGN_UP(*offset, map->granularity);
    *bytes = MAX(end - *offset, 0);
}

void pull_map_set_missing(PullMap *map, int64_t offset, int64_t bytes)
{
    assert(pull_map_is_whole(map, offset, bytes));
    assert(!pull_map_conflict(map, offset, bytes));
    hbitmap_set(map->missing, offset, bytes);
}

int64_t pull_map_missing_bytes(const PullMap *map)
{
    int64_t count = hbitmap_count(map->missing);
    int64_t tail = map->size % map->granularity;

    if (tail && hbitmap_get(map->missing, map->size - 1)) {
        count -= map->granularity - tail;
    }

    return count;
}

bool pull_map_next(const PullMap *map, int64_t offset, int64_t bytes,
                   int64_t *area_offset, int64_t *area_bytes)
{
    return hbitmap_next_dirty_area(map->missing, offset, offset + bytes,
                                   INT64_MAX, area_offset, area_bytes);
}

bool pull_map_any(const PullMap *map, int64_t offset, int64_t bytes)
{
    return hbitmap_next_dirty(map->missing, offset, bytes) >= 0;
}

bool pull_map_ask(PullMap *map, int64_t offset, int64_t bytes,
                  int64_t *area_offset, int64_t *area_bytes)
{
    int64_t end = offset + bytes;
    int64_t start, area_end, asked;

    assert(pull_map_is_whole(map, offset, bytes));

    for (; pull_map_next(map, offset, end - offset, &start, &bytes);
         offset = area_end) {
        area_end = start + bytes;
        start = hbitmap_next_zero(map->asked, start, bytes);
        if (start < 0) {
            continue;
        }

        asked = hbitmap_next_dirty(map->asked, start, area_end - start);
        *area_offset = start;
        *area_bytes = (asked < 0 ? area_end : asked) - start;
        hbitmap_set(map->asked, *area_offset, *area_bytes);
        return true;
    }

    return false;
}

void pull_map_forget(PullMap *map, int64_t offset, int64_t bytes)
{
    assert(pull_map_is_whole(map, offset, bytes));
    hbitmap_reset(map->asked, offset, bytes);
}

BlockReq *pull_map_conflict(PullMap *map, int64_t offset, int64_t bytes)
{
    return reqlist_find_conflict(&map->busy, offset, bytes);
}

void pull_map_begin(PullMap *map, BlockReq *req, int64_t offset, int64_t bytes)
{
    assert(pull_map_is_whole(map, offset, bytes));
    assert(!pull_map_conflict(map, offset, bytes));
    reqlist_init_req(&map->busy, req, offset, bytes);
}

void coroutine_fn pull_map_end(PullMap *map, BlockReq *req)
{
    reqlist_remove_req(req);
}

/* Whole blocks.  How many bytes of them are asked for? */
static int64_t pull_map_asked_bytes(const PullMap *map, int64_t offset,
                                    int64_t bytes)
{
    int64_t end = offset + bytes;
    int64_t asked = 0;

    while (hbitmap_next_dirty_area(map->asked, offset, end, INT64_MAX,
                                   &offset, &bytes)) {
        asked += bytes;
        offset += bytes;
    }

    return asked;
}

int64_t pull_map_clear(PullMap *map, const BlockReq *req, int64_t offset,
                       int64_t bytes)
{
    int64_t asked = pull_map_asked_bytes(map, offset, bytes);

    assert(pull_map_is_whole(map, offset, bytes));
    assert(offset >= req->offset);
    assert(offset + bytes <= req->offset + req->bytes);
    assert(hbitmap_next_zero(map->missing, offset, bytes) < 0);

    hbitmap_reset(map->missing, offset, bytes);
    hbitmap_reset(map->asked, offset, bytes);

    return asked;
}
