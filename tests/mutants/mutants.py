# SPDX-License-Identifier: GPL-2.0-or-later
"""The mutants: each breaks one rule that a unit test must guard."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A change of one file."""

    test: str
    name: str
    rule: str                                   # that it breaks
    file: str
    old: str                                    # once in the file
    new: str
    case: str = ""                              # only this case of the test


LOG, LOAD, FORMAT, MISSING = (
    f"migration/wsm/map/{name}.c" for name in ("log", "load", "format",
                                               "missing"))


def of_map(name: str, rule: str, file: str, old: str, new: str) -> Mutant:
    """Return a mutant of the map of missing blocks."""
    return Mutant("test-wsm-map", name, rule, file, old, new)


MAP = [
    of_map("mark-without-flush", "a mark is durable when it returns", LOG, """\
    ret = blk_co_pwrite(log->blk, log->pos, room, buf, 0);
    if (ret >= 0) {
        ret = blk_co_flush(log->blk);
    }
""", """\
    ret = blk_co_pwrite(log->blk, log->pos, room, buf, 0);
"""),
    of_map("commit-without-flush", "so is a generation", LOG,
           "return ret < 0 ? ret : blk_co_flush(log->blk);", "return ret;"),
    of_map("snapshot-without-flush",
           "a later snapshot is durable before its head is written", LOG,
           "if (ret >= 0 && head->generation > 1) {", "if (false) {"),
    of_map("reopen-without-flush", "what was loaded is durable before "
           "anything is written", LOG, """\
    if (log->head.generation) {
        ret = blk_co_flush(log->blk);
    }
""", ""),
    of_map("append-after-restart", "a process appends only to what it began",
           LOG, """\
    if (ret >= 0) {
        ret = begin_generation(log);
    }
    trace_wsm_map_commit(""", """\
    if (ret >= 0 && !log->head.generation) {
        ret = begin_generation(log);
    } else if (ret >= 0) {
        log->begun = true;
        log->pos = log->head.area +
                   wsm_map_snapshot_room(log->head.snapshot_bytes);
        while (log->pos < log->head.area + log->head.area_bytes) {
            char magic[4];

            blk_co_pread(log->blk, log->pos, 4, magic, 0);
            if (memcmp(magic, "WSMR", 4)) {
                break;
            }
            log->pos += WSM_MAP_PAGE;
            log->serial++;
        }
    }
    trace_wsm_map_commit("""),
    of_map("any-page", "a head is in the page of its generation", FORMAT,
           "!head->generation ||\n"
           "        wsm_map_head_at(head->generation) != "
           "index * WSM_MAP_PAGE", "!head->generation"),
    of_map("head-over-head", "a head is not written over the one that counts",
           LOG, "ret = blk_co_pwrite(log->blk, "
           "wsm_map_head_at(head->generation),",
           "ret = blk_co_pwrite(log->blk, WSM_MAP_PAGE,"),
    of_map("same-area", "a snapshot is not written over what counts", LOG,
           "if (!log->head.generation || "
           "log->head.area - AREA_BEGIN >= least) {", "if (true) {"),
    of_map("snapshot-reaches-over", "nor does it reach over that", LOG,
           "log->head.area - AREA_BEGIN >= least)",
           "log->head.area - AREA_BEGIN >= 1)"),
    of_map("erase-without-void", "a map that is being erased is not believed",
           LOG, "if (!best.generation) {", "if (true) {"),
    of_map("erase-heads-first", "nor one whose list is there without records",
           LOG, """\
        ret = zero_range(blk, AREA_BEGIN, size);
    }
    return ret < 0 ? ret : zero_range(blk, 0, AREA_BEGIN);
""", """\
        ret = zero_range(blk, 0, AREA_BEGIN);
    }
    return ret < 0 ? ret : zero_range(blk, AREA_BEGIN, size);
"""),
    of_map("any-path", "a map is of one device", LOAD,
           "wanted->path && strcmp(head->path, wanted->path)", "false"),
    of_map("session-of-nobody", "a record is one, whosever it is", LOAD,
           "    session = qemu_uuid_is_null(session) ? NULL : session;\n", ""),
    of_map("same-serial", "each record has a serial number of its own", LOG,
           ".serial = log->serial + 1,", ".serial = 1,"),
    of_map("same-place", "and a place of its own", LOG,
           "        log->pos += room;\n", ""),
    of_map("room-is-not-checked", "a record does not reach over the area", LOG,
           "return runs->len <= WSM_MAP_MAX_RUNS && "
           "wsm_map_record_room(runs->len) <=\n"
           "           log->head.area + log->head.area_bytes - log->pos;",
           "return true;"),
    of_map("mark-lost-in-compaction", "a new generation has the mark", LOG, """\
    wsm_missing_clear_runs(log->missing, runs->data, runs->len, &error_abort);
    ret = begin_generation(log);
""", """\
    ret = begin_generation(log);
    wsm_missing_clear_runs(log->missing, runs->data, runs->len, &error_abort);
"""),
    of_map("clear-before-durable", "what is told is durable", LOG, """\
        ret = append(log, runs);
        if (ret >= 0) {
""", """\
        ret = append(log, runs);
        {
"""),
    of_map("goes-on-after-error", "after an error nothing is written", LOG,
           "        log->error = ret;\n", ""),
    of_map("void-goes-on", "nor when it is void", LOG,
           "    log->error = log->error ?: -ECANCELED;\n", ""),
    of_map("void-without-flush", "a void map is durably so", LOG,
           "    ret = write_head(log, &head);\n",
           """\
    {
        g_autofree uint8_t *buf = g_malloc(WSM_MAP_PAGE);

        wsm_map_head_encode(&head, buf);
        ret = blk_co_pwrite(log->blk, wsm_map_head_at(head.generation),
                            WSM_MAP_PAGE, buf, 0);
    }
"""),
    of_map("void-over-durable", "until it is void what was durable stays", LOG, """\
    head->generation++;
    head->is_void = true;
""", """\
    head->generation += 2;
    head->is_void = true;
"""),
    of_map("two-at-once", "a mark begins when the one before is durable", LOG, """\
    g_autoptr(GByteArray) runs = g_byte_array_new();

    QEMU_LOCK_GUARD(&log->lock);
    if (log->error) {
        return log->error;
    }
    assert(log->begun);
""", """\
    g_autoptr(GByteArray) runs = g_byte_array_new();

    if (log->error) {
        return log->error;
    }
    assert(log->begun);
"""),
    of_map("waits-in-drain", "a drained section waits for no mark", LOG,
           "    blk_set_disable_request_queuing(blk, true);\n", ""),
    of_map("serial-not-checked", "a record that is not the next ends it", LOAD,
           "ret = ret && r.generation == head->generation &&\n"
           "              r.serial == out->records + 1;",
           "ret = ret && r.generation == head->generation;"),
    of_map("generation-not-checked", "one of another generation as well", LOAD,
           "ret = ret && r.generation == head->generation &&\n",
           "ret = ret &&\n"),
    of_map("hole-not-noticed", "a later record proves that one was lost", LOAD, """\
    return find_later(l, &head->session, head->generation, out->records,
                      errp) == 0;
""", "    return true;\n"),
    of_map("later-generation-not-noticed",
           "so does one of a later generation", LOAD,
           "if (ret && (r.generation > generation ||\n",
           "if (ret && (false ||\n"),
    of_map("first-is-not-looked-behind", "also of the first one", LOAD,
           "if (find_later(l, session, 0, 0, errp) != 0) {",
           "if (false) {"),
    of_map("snapshot-not-checked", "a snapshot has its sum", LOAD,
           "if (wsm_map_crc(runs, head->snapshot_bytes) != "
           "head->snapshot_crc) {", "if (false) {"),
    of_map("falls-back", "a snapshot that is damaged is an error", LOAD,
           "if (torn && out->head.generation == 1) {", "if (torn) {"),
    of_map("head-not-checked", "a head has its sum", FORMAT,
           "if (!wsm_map_head_begins(buf) || ldl_be_p(buf + HEAD_CRC) !=\n"
           "        crc_without(buf, WSM_MAP_PAGE, HEAD_CRC)) {",
           "if (!wsm_map_head_begins(buf)) {"),
    of_map("record-not-checked", "a record has its sum", FORMAT,
           "    return ldl_be_p(buf + RECORD_CRC) ==\n"
           "           crc_without(buf, WSM_MAP_RECORD_SIZE + record->runs, "
           "RECORD_CRC);", "    return true;"),
    of_map("lower-generation", "the higher generation counts", LOAD,
           "l->head[i].generation > l->best->generation",
           "l->head[i].generation < l->best->generation"),
    of_map("other-session", "it is of the migration of the image", LOAD,
           "        !qemu_uuid_is_equal(&head->session, &wanted->session)) {",
           "        false) {"),
    of_map("other-size", "and of its disk", LOAD,
           "} else if (wanted->size && head->size != wanted->size) {",
           "} else if (false) {"),
    of_map("other-disk", "and of no other one", LOAD,
           "} else if (wanted->disk >= 0 && head->disk != wanted->disk) {",
           "} else if (false) {"),
    of_map("other-boot", "what was never flushed is gone with the kernel", LOAD,
           "    if (!qemu_uuid_is_null(&head->boot) &&\n",
           "    if (false &&\n"),
    of_map("void-is-believed", "a void map is not believed", LOAD,
           "    if (l->best->is_void) {", "    if (false) {"),
    of_map("count-not-checked", "the head says how much is missing", LOAD,
           "if (out->missing->bytes != head->missing) {", "if (false) {"),
    of_map("page-0-not-looked-at", "two damaged heads are an error", LOAD,
           "    if (l->page[0] != WSM_MAP_PAGE_EMPTY) {", "    if (false) {"),
    of_map("no-head-before", "a later generation follows one", LOAD,
           "if (l->page[i] == WSM_MAP_PAGE_EMPTY && "
           "l->best->generation > 1) {", "if (false) {"),
    of_map("any-head-before", "the one before it", LOAD,
           "(other->generation != l->best->generation - 1 ||\n", "(false ||\n"),
    of_map("version-not-checked", "an unknown version is an error", FORMAT,
           "    if (version != MAP_VERSION) {", "    if (false) {"),
    of_map("short-file", "a file that is cut off is an error", LOAD,
           "    if (l->reader->size < WSM_MAP_HEADS * WSM_MAP_PAGE) {",
           "    if (l->reader->size < 0) {"),
    of_map("last-block", "the last block may be shorter", MISSING,
           "if (rest && hbitmap_get(m->bits, m->size - 1)) {",
           "if (false) {"),
]

MAP += [
    Mutant("test-wsm-check", "start-onto-arriving",
           "no migration writes over a guest's disk that misses blocks",
           "migration/wsm/dest/check.c", "    if (!arriving) {",
           "    if (true) {"),
    Mutant("test-wsm-check", "bad-map-is-no-map",
           "nor if its map cannot be used",
           "migration/wsm/image/image.c", "    case WSM_MAP_DAMAGED:\n", ""),
]
