# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables and goals of memory that is sent by reference."""

from dataclasses import dataclass
from typing import Callable, Iterable, Optional

from dev.bench.limits import median_of
from dev.bench.memory_refs import READING, Road, road_of
from dev.bench.memory_ways import (DEFAULT, DISK, DISK_IMAGE, MEMORY_WAYS,
                                   PLAIN, VECYCLE, ZSTD_1)
from dev.bench.report_back import pairs
from dev.bench.rows import Getter, Row, Value, number
from dev.bench.settings import Settings
from dev.rig.image import MIB
from dev.rig.qmp import Json

Samples = dict[str, list[Json]]
RowsOf = Callable[[str, Samples, Settings], list[Row]]
BYTES, SECONDS = number('bytes'), number('seconds')
EXTRA_MS = 10.0                 # downtime


def cpu(sample: Json) -> Value:
    """Of both QEMUs without the virtual CPUs, in seconds."""
    numbers = sample['numbers']
    if 'cpu source' not in numbers:
        return None
    return float(numbers['cpu source'] + numbers['cpu destination'])


def later(sample: Json) -> Value:
    """Bytes after the first pass; None: there were none."""
    return sample['numbers'].get('later') or None


def groups_of(rows: Samples) -> dict[str, Samples]:
    """From "guest way" to the ways of each guest, or of each road."""
    result: dict[str, Samples] = {}
    for key, samples in rows.items():
        group, _, way = key.rpartition(' ')
        result.setdefault(group, {})[way] = samples
    return result


# Tables

@dataclass(frozen=True)
class Column:
    """One figure of each way."""
    title: str
    getter: Getter
    form: str
    of_default: bool = False        # also as a share of it


def cell(ways: Samples, way: str, column: Column) -> str:
    value = median_of(ways.get(way, []), column.getter)
    if value is None:
        return '-'
    text = column.form.format(value)
    base = median_of(ways.get(DEFAULT, []), column.getter)
    if column.of_default and base:
        text += f' ({value / base:.1%})'
    return text


COLUMNS = (
    Column('MiB on the link, and in % of default',
           number('bytes', 1 / MIB), '{:.1f}', True),
    Column('seconds, from the begin of memory until the guest runs there',
           SECONDS, '{:.1f}'),
    Column('CPU of both QEMUs without the virtual CPUs, in seconds', cpu,
           '{:.2f}'),
    Column('downtime, from STOP to RESUME, in milliseconds',
           number('downtime'), '{:.0f}'),
    Column('heartbeat gap, in milliseconds', number('gap'), '{:.0f}'))


def matrix(first: str, rows: Samples, columns: Iterable[Column],
           title: Callable[[str], str]) -> list[str]:
    """A table for each figure: groups down, ways across."""
    groups = groups_of(rows)
    ways = [way for way in MEMORY_WAYS
            if any(way in group for group in groups.values())]
    head = [first, *(MEMORY_WAYS[way].title for way in ways)]
    lines = []
    for column in columns:
        lines += [f'{column.title[0].upper()}{column.title[1:]}:', '',
                  f'| {" | ".join(head)} |', '|---' * len(head) + '|']
        for name, group in groups.items():
            cells = [cell(group, way, column) for way in ways]
            lines.append(f'| {" | ".join([title(name), *cells])} |')
        lines.append('')
    return lines


def guests_table(rows: Samples) -> list[str]:
    return matrix('guest', rows, COLUMNS, str)


def road_title(key: str) -> str:
    mbit, trip = key.split()
    return f'{mbit} Mbit/s, {trip} ms' if int(mbit) else 'no limit'


def roads_table(rows: Samples) -> list[str]:
    return matrix('link', rows, COLUMNS, road_title)


# Goals

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
    Against(DISK, ZSTD_1, 'CPU', cpu, 1.0, 'times'),
    Against(DISK, PLAIN, 'downtime', number('downtime'), EXTRA_MS, 'ms'))
HARD_GOALS = (
    Against(DISK, ZSTD_1, 'bytes', BYTES, 1.01, 'times'),
    Against(DISK, ZSTD_1, 'CPU', cpu, 1.3, 'times'))
READING_GOALS = (
    Against(DISK, ZSTD_1, 'bytes', BYTES, 1.02, 'times'),
    Against(DISK, ZSTD_1, 'bytes after the first pass', later, 0.5))
FAR_GOALS = (
    Against(DISK, DEFAULT, 'time', SECONDS, 0.30),
    Against(DISK, ZSTD_1, 'time', SECONDS, 0.60))
BACK_GOALS = (
    Against(DISK_IMAGE, DEFAULT, 'bytes', BYTES, 0.06),
    Against(DISK_IMAGE, VECYCLE, 'bytes', BYTES,
            0.01 * Settings().app_memory * MIB, 'MiB'))
UNLIMITED_GOALS = (Against(DISK, PLAIN, 'time', SECONDS, 1.10, 'times'),)


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
    'memory-back': guests_table,
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
    'multifd without and with zstd are what QEMU has')
NOT_ADAPTIVE = (
    'The option `memory-adaptive` is off, so that bytes do not depend on how '
    'busy the machine is.')
MEMORY_NOTES = {
    'memory-siblings': (
        f'Debian guests with {DEFAULTS.app_memory} MiB of RAM, made from one '
        'image, each booted by itself, with a role of its own: none (idle), '
        'pgbench, nginx with clients (web), a build, fio, and one that has '
        'read all its files. They stand still when they are moved, over '
        f'{ROAD}. {WHAT_COUNTS}. {NOT_ADAPTIVE}'),
    'memory-far': (
        f'The guest with pgbench. {WHAT_COUNTS}. The option '
        '`memory-adaptive` is on. The goals are for the slow link, and for '
        'two namespaces without any limit.'),
    'memory-hard': (
        f'Over {ROAD}. In two guests a program holds five eighths of RAM: '
        'with pages that are nowhere else, a third of each random and the '
        'rest text ("unique"), or with nothing but random numbers, as if '
        'encrypted ("random"). "Reading" is the idle guest while it reads '
        f'its files, {DEFAULTS.memory_reads_kib // 1024} MiB/s of them: what '
        f'comes into its cache is on its disk. {WHAT_COUNTS}. '
        f'{NOT_ADAPTIVE}'),
    'memory-back': (
        'The siblings move, do there what their role is for '
        f'{DEFAULTS.memory_away:.0f} s, and move back to the image that they '
        f'left, over {ROAD}. Only the way back is measured. "As VeCycle" '
        'refers to the memory that the guest had when it left, which the '
        'source keeps (`keep-memory`), at the same place. Each way has a '
        f'journey of its own. {WHAT_COUNTS}. {NOT_ADAPTIVE}'),
}
