# SPDX-License-Identifier: GPL-2.0-or-later
"""Goals of memory that is sent by reference."""

from dataclasses import dataclass
from typing import Callable, Iterable, Optional

from dev.bench.memory_refs import READING, Road, road_of
from dev.bench.memory_ways import (ALL, BOTH, DEFAULT, DISK, MEMORY_WAYS,
                                   PLAIN, TEMPLATE, TMDM, VECYCLE, ZSTD_1)
from dev.bench.report_back import pairs
from dev.bench.rows import Getter, Row, Value, number
from dev.bench.settings import Settings
from dev.bench.tables_memory import (BYTES, SECONDS, Samples, back_table, cpu,
                                     groups_of, guests_table, road_title,
                                     roads_table)
from dev.rig.image import MIB
from dev.rig.qmp import Json

RowsOf = Callable[[str, Samples, Settings], list[Row]]
EXTRA_MS = 10.0                 # downtime


def later(sample: Json) -> Value:
    """Bytes after the first pass; None: there were none."""
    return sample['numbers'].get('later') or None


@dataclass(frozen=True)
class Against:
    """One way against another."""
    way: str
    base: str
    what: str
    getter: Getter
    goal: Optional[float]
    unit: str = '%'                 # "ms" and "MiB": a difference

    def row(self, section: str, group: str,
            ways: Samples) -> Optional[Row]:
        if self.way not in ways or self.base not in ways:
            return None
        minus = self.unit in ('ms', 'MiB')
        values, missing = pairs(
            ways[self.way], ways[self.base], self.getter,
            lambda one, other: one - other if minus else one / other)
        word = 'more than' if minus else 'of'
        return Row(section, f'{group}: {MEMORY_WAYS[self.way].title}: '
                   f'{self.what}, {word} {MEMORY_WAYS[self.base].title}',
                   values, self.goal, self.unit, failed=missing)


def rows_against(section: str, group: str, ways: Samples,
                 goals: Iterable[Against]) -> list[Row]:
    found = [against.row(section, group, ways) for against in goals]
    return [row for row in found if row]


SIBLING_GOALS = (
    Against(DISK, DEFAULT, 'bytes', BYTES, 0.20),
    Against(DISK, ZSTD_1, 'bytes', BYTES, 0.50),
    Against(BOTH, DEFAULT, 'bytes', BYTES, 0.15),
    Against(BOTH, ZSTD_1, 'bytes', BYTES, 0.40),
    Against(TEMPLATE, ZSTD_1, 'bytes', BYTES, 0.80),
    Against(TEMPLATE, TMDM, 'bytes', BYTES, 1.0, 'times'),
    *(Against(way, ZSTD_1, 'CPU', cpu, 1.0, 'times') for way in (DISK, BOTH)),
    *(Against(way, PLAIN, 'downtime', number('downtime'), EXTRA_MS, 'ms')
      for way in (DISK, BOTH)))
HARD_GOALS = tuple(
    goal for way in (DISK, BOTH) for goal in (
        Against(way, ZSTD_1, 'bytes', BYTES, 1.01, 'times'),
        Against(way, ZSTD_1, 'CPU', cpu, 1.3, 'times')))
READING_GOALS = (
    Against(DISK, ZSTD_1, 'bytes', BYTES, 1.02, 'times'),
    Against(DISK, ZSTD_1, 'bytes after the first pass', later, 0.5))
FAR_GOALS = tuple(
    goal for way in (DISK, BOTH) for goal in (
        Against(way, DEFAULT, 'time', SECONDS, 0.30),
        Against(way, ZSTD_1, 'time', SECONDS, 0.60)))
BACK_GOALS = (
    Against(ALL, DEFAULT, 'bytes', BYTES, 0.06),
    Against(ALL, VECYCLE, 'bytes', BYTES,
            0.01 * Settings().app_memory * MIB, 'MiB'))
UNLIMITED_GOALS = tuple(
    Against(way, PLAIN, 'time', SECONDS, 1.10, 'times')
    for way in (DISK, BOTH))


def siblings_rows(section: str, rows: Samples,
                  _settings: Settings) -> list[Row]:
    return [row for guest, ways in groups_of(rows).items()
            for row in rows_against(section, guest, ways, SIBLING_GOALS)]


def back_rows(section: str, rows: Samples, _settings: Settings) -> list[Row]:
    return [row for guest, ways in groups_of(rows).items()
            for row in rows_against(section, guest, ways, BACK_GOALS)]


def hard_rows(section: str, rows: Samples, _settings: Settings) -> list[Row]:
    return [row for guest, ways in groups_of(rows).items()
            for row in rows_against(
                section, guest, ways,
                READING_GOALS if guest == READING else HARD_GOALS)]


def far_rows(section: str, rows: Samples, settings: Settings) -> list[Row]:
    """Goals are for the slow link, and for none at all."""
    result = []
    for key, ways in groups_of(rows).items():
        goals: Iterable[Against] = ()
        if key == Road().key:
            goals = UNLIMITED_GOALS
        elif key.split()[0] == str(road_of(settings).mbit):
            goals = FAR_GOALS
        result += rows_against(section, road_title(key), ways, goals)
    return result


MEMORY_ROWS: dict[str, RowsOf] = {
    'memory-siblings': siblings_rows,
    'memory-far': far_rows,
    'memory-hard': hard_rows,
    'memory-back': back_rows,
}
MEMORY_TABLES: dict[str, Callable[[Samples], list[str]]] = {
    'memory-siblings': guests_table,
    'memory-far': roads_table,
    'memory-hard': guests_table,
    'memory-back': back_table,
}
MEMORY_TITLES = {
    'memory-siblings': 'Memory by reference: siblings',
    'memory-far': 'Memory by reference: other links',
    'memory-hard': 'Memory by reference: what is nowhere else',
    'memory-back': 'Memory by reference: a guest that comes back soon',
}

DEFAULTS = Settings()
ROAD = (f'{DEFAULTS.memory_links_mbit[0]} Mbit/s with a round trip of '
        f'{DEFAULTS.memory_trips_ms[0]} ms')
WHAT_COUNTS = (
    'Each way moves the guest as a whole, so its disk goes first: the '
    'destination has a copy of it, which is compared. What is measured '
    'begins after that, with phase "ram-precopy": the bytes that the link '
    'carried in both directions until all was synchronised, with all '
    'headers; the time until the guest runs there; and the CPU time of both '
    'QEMUs without the virtual CPUs. The ways take turns, and each move '
    'begins with the same saved state and disk. "Default", "xbzrle", and '
    'multifd without and with zstd are what QEMU has. The others are modes '
    'of our own method, with zstd for what is not referred to: "as TMDM" '
    'refers to templates only and has no zstd; the set of "as Shrinker" has '
    'every page of any sibling, as if all moved together')
TEMPLATES = (
    'Templates are the pages that two of the other siblings have; the guest '
    'itself, or the one that it was made from, is not among these. ')
NOT_ADAPTIVE = (
    'The option `memory-adaptive` is off, so that bytes do not depend on how '
    'busy the machine is.')
MEMORY_NOTES = {
    'memory-siblings': (
        f'Debian guests with {DEFAULTS.app_memory} MiB of RAM, made from one '
        'image, each booted by itself, with a role of its own: none (idle), '
        'pgbench, nginx with clients (web), a build, fio, and one that has '
        'read all its files. They stand still when they are moved, over '
        f'{ROAD}. {WHAT_COUNTS}. {TEMPLATES}{NOT_ADAPTIVE}'),
    'memory-far': (
        f'The guest with pgbench. {WHAT_COUNTS}. {TEMPLATES}The option '
        '`memory-adaptive` is on. The goals are for the slow link, and for '
        'two namespaces without any limit.'),
    'memory-hard': (
        f'Over {ROAD}. In two guests a program holds five eighths of RAM: '
        'with pages that are nowhere else, a third of each random and the '
        'rest text ("unique"), or with nothing but random numbers, as if '
        'encrypted ("random"). "Reading" is the idle guest while it reads '
        f'its files, {DEFAULTS.memory_reads_kib // 1024} MiB/s of them: what '
        f'comes into its cache is on its disk. {WHAT_COUNTS}. '
        f'{TEMPLATES}{NOT_ADAPTIVE}'),
    'memory-back': (
        'The siblings move, do there what their role is, and move back to the '
        f'image that they left, over {ROAD}. Only the way back is measured. "As VeCycle" '
        'refers to the memory that the guest had when it left, which the '
        'source keeps (`keep-memory`), at the same place. Each way has a '
        f'journey of its own. {WHAT_COUNTS}. {TEMPLATES}{NOT_ADAPTIVE}'),
}
