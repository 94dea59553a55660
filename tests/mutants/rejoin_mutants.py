# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants of which images belong to a migration that broke off."""

from tests.mutants.mutants import Mutant

FILE = "migration/wsm/dest/rejoin.c"


def of_rejoin(name: str, rule: str, old: str, new: str) -> Mutant:
    """Return a mutant of what a destination looks for after a crash."""
    return Mutant("test-wsm-rejoin", name, rule, FILE, old, new)


REJOIN = [
    of_rejoin("read-only-too", "a disk that nobody writes to has no part in "
              "it", "if (blk_supports_write_perm(ours->blk) &&", "if ("),
    of_rejoin("stale-is-good", "no disk beside them is a stale copy",
              "        if (!wsm_left_check_other(image, errp)) {",
              "        if (!wsm_left_check_other(image, NULL) && false) {"),
    of_rejoin("size-of-record", "the disk is as long as its map's", """\
.size = blk_getlength(ours->blk), .disk = image->map_disk,""", """\
.size = image->missing >= 0 ? 1048576 : 0, .disk = image->map_disk,"""),
    of_rejoin("any-session", "all are of one migration",
              "!qemu_uuid_is_equal(&a->session, &b->session) ||\n        ",
              ""),
    of_rejoin("any-number-of-disks", "which had so many disks",
              "a->disks != b->disks || ", ""),
    of_rejoin("any-channels", "and channels", "a->channels != b->channels ||",
              ""),
    of_rejoin("any-granularity", "and this block size",
              "a->granularity != b->granularity || ", ""),
    of_rejoin("any-protocol", "and this version",
              "a->protocol != b->protocol ||", ""),
    of_rejoin("any-features", "and these features", """\
 ||
        a->features != b->features) {""", ") {"),
    of_rejoin("copies", "no two are the same disk", "if (i && wsm_left_disk(",
              "if (i > WSM_MAX_DISKS && wsm_left_disk("),
    of_rejoin("copy-of-first-only", "nor any two behind them",
              "if (i && wsm_left_disk(left, i - 1)->map.head.disk == b->disk) "
              "{", "if (i && wsm_left_disk(left, 0)->map.head.disk == b->disk "
              ") {"),
    of_rejoin("no-order", "they are in the order of their numbers",
              "return (int)(*x)->map.head.disk - (int)(*y)->map.head.disk;",
              "return x != y ? 0 : (*x)->map.head.disk - "
              "(*y)->map.head.disk;"),
    of_rejoin("not-all", "all disks are there", "if (n < head->disks) {",
              "if (false) {"),
    of_rejoin("nothing-missing", "something is missing", "if (!missing) {",
              "if (false) {"),
    of_rejoin("counts-the-last", "of any of them", "        missing += ",
              "        missing = "),
    of_rejoin("any-version", "the source spoke what we speak",
              "return wsm_check_version(head->protocol, head->protocol, "
              "errp);", "return true;"),
    of_rejoin("peer-is-lost", "where the rest is stays known",
              "left->peer = g_strdup(image->peer);", ""),
    of_rejoin("map-stays-open", "a map is let go of", """\
    blk_unref(disk->blk);
""", ""),
]
