# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of memory that is sent by reference."""

from dataclasses import dataclass
from typing import Callable, Iterable

from dev.bench.limits import median_of
from dev.bench.memory_ways import (DEFAULT, DISK_KIND, IMAGE_KIND,
                                   MEMORY_WAYS, TEMPLATE_KIND)
from dev.bench.rows import Getter, Value, number
from dev.rig.image import MIB
from dev.rig.qmp import Json

Samples = dict[str, list[Json]]
BYTES, SECONDS = number('bytes'), number('seconds')


def cpu(sample: Json) -> Value:
    """Of both QEMUs without the virtual CPUs, in seconds."""
    numbers = sample['numbers']
    if 'cpu source' not in numbers:
        return None
    return float(numbers['cpu source'] + numbers['cpu destination'])


def groups_of(rows: Samples) -> dict[str, Samples]:
    """From "guest way" to the ways of each guest, or of each road."""
    result: dict[str, Samples] = {}
    for key, samples in rows.items():
        group, _, way = key.rpartition(' ')
        result.setdefault(group, {})[way] = samples
    return result


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


def counter(name: str) -> Getter:
    """Bytes of query-wsm's memory, in MiB."""
    def getter(sample: Json) -> Value:
        value = sample['wsm'].get('memory', {}).get(name)
        return None if value is None else value / MIB
    return getter


def referenced(kind: str) -> Getter:
    def getter(sample: Json) -> Value:
        found = [info['referenced'] / MIB for info
                 in sample['wsm'].get('memory', {}).get('kinds', [])
                 if info['kind'] == kind]
        return found[0] if found else None
    return getter


COUNTERS = {**{f'by {kind}': referenced(kind)
               for kind in (DISK_KIND, TEMPLATE_KIND, IMAGE_KIND)},
            'with content': counter('inline'), 'which took': counter('packed'),
            'missed': counter('missed')}


def kinds_table(first: str, rows: Samples,
                title: Callable[[str], str]) -> list[str]:
    """How pages were sent, where some were referred to."""
    lines = ['MiB of pages, all passes, by how they were sent (`query-wsm`):',
             '', f'| {" | ".join([first, "way", *COUNTERS])} |',
             '|---' * (2 + len(COUNTERS)) + '|']
    for key, samples in rows.items():
        name, _, way = key.rpartition(' ')
        if MEMORY_WAYS[way].kinds:
            values = [median_of(samples, getter)
                      for getter in COUNTERS.values()]
            cells = ['-' if value is None else f'{value:.1f}'
                     for value in values]
            lines.append('| ' + ' | '.join(
                [title(name), MEMORY_WAYS[way].title, *cells]) + ' |')
    return [*lines, '']


def guests_table(rows: Samples) -> list[str]:
    return [*matrix('guest', rows, COLUMNS, str),
            *kinds_table('guest', rows, str)]


def back_table(rows: Samples) -> list[str]:
    away = median_of([sample for samples in rows.values()
                      for sample in samples], number('away'))
    return [*([f'They worked there for {away:.0f} s.', ''] if away else []),
            *guests_table(rows)]


def road_title(key: str) -> str:
    mbit, trip = key.split()
    return f'{mbit} Mbit/s, {trip} ms' if int(mbit) else 'no limit'


def roads_table(rows: Samples) -> list[str]:
    return matrix('link', rows, COLUMNS, road_title)
