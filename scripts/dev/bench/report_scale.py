# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of how cost grows."""

from typing import Callable

from dev.bench.methods import METHODS, SHARED, WSM
from dev.bench.rows import (Getter, Row, Value, downtime, field_of, growth,
                            make, number, share, wrong_row)
from dev.bench.scale import FAR, LOSSY, OPEN
from dev.bench.settings import Settings
from dev.rig.image import GIB, MIB
from dev.rig.qmp import Json

Samples = dict[str, list[Json]]
RowsOf = Callable[[str, Samples, Settings], list[Row]]

FREEZE_FACTOR, FREEZE_EXTRA = 1.3, 30.0     # big against small disk; ms
THREADS = tuple((side, kind) for side in ('source', 'destination')
                for kind in ('IOThread', 'pool', 'main thread'))
FIGURES: dict[str, tuple[Getter, str]] = {
    'all synchronised': (field_of('synchronised'), 's'),
    'downtime (query-wsm)': (downtime, 'ms'),
    'heartbeat gap': (field_of('gap', 1000), 'ms'),
    'guest writes, worst second': (share('rates', min), '%'),
}


def size_title(key: str) -> str:
    fmt, mib = key.split()
    size = int(mib) * MIB
    return f'{size // GIB} GiB {fmt}' if size >= GIB else f'{mib} MiB {fmt}'


def cells(section: str, title: str, samples: list[Json],
          *names: str) -> list[Row]:
    return [make(section, f'{title}: {name}', samples, FIGURES[name][0],
                 unit=FIGURES[name][1]) for name in names]


def size_rows(section: str, rows: Samples, _settings: Settings) -> list[Row]:
    result: list[Row] = []
    goal: Value = None

    for key, samples in rows.items():
        title = size_title(key)
        freeze = make(section, f'{title}: downtime (query-wsm)', samples,
                      downtime, goal, 'ms')
        result += [
            *cells(section, title, samples, 'all synchronised'), freeze,
            *cells(section, title, samples, 'heartbeat gap')]
        result += [make(section, f'{title}: {side} grows by', samples,
                        growth(side), unit='MiB')
                   for side in ('source', 'destination')]
        result += [make(section, f'{title}: {what}', samples, number(name),
                        unit='ms')
                   for name, what in (
                       ('query-wsm', 'query-wsm'),
                       ('query-wsm max', 'query-wsm, longest'),
                       ('query-block', 'query-block'))]
        if goal is None and freeze.values:
            goal = FREEZE_FACTOR * freeze.median + FREEZE_EXTRA
    last = list(rows.values())[-1]
    return result + [
        make(section, 'query-version, for comparison', last,
             number('query-version'), unit='ms'),
        wrong_row(section, last)]


def disks_rows(section: str, rows: Samples, _settings: Settings) -> list[Row]:
    result: list[Row] = []
    for key, samples in rows.items():
        way, count = key.split()
        title = f'{count} disks' if count != '1' else '1 disk'
        if way == SHARED:
            result += cells(section, f'{title}, {METHODS[way].title}', samples,
                            'all synchronised', 'heartbeat gap')
            continue
        result += cells(section, title, samples, 'all synchronised',
                        'downtime (query-wsm)', 'heartbeat gap')
        result += [make(section, f'{title}: {side}, {what}', samples,
                        number(f'{side} {name}'))
                   for side in ('source', 'destination')
                   for name, what in (('task', 'threads'),
                                      ('fd', 'open files'))]
        result.append(make(section, f'{title}: query-wsm', samples,
                           number('query-wsm'), unit='ms'))
    last = [samples for key, samples in rows.items() if key.startswith(WSM)]
    return result + [wrong_row(section, last[-1])]


def channels_rows(section: str, rows: Samples,
                  settings: Settings) -> list[Row]:
    titles = {OPEN: 'no limit',
              FAR: f'{settings.link_mbit} Mbit/s, round trip '
                   f'{settings.scale_trip_ms} ms'}
    result: list[Row] = []
    for key, samples in rows.items():
        where, count = key.split()
        result += cells(section, f'{titles[where]}, channels = {count}',
                        samples, 'all synchronised', 'heartbeat gap')
        if where == OPEN:
            result += thread_rows(section, f'channels = {count}', samples)
    return result + [wrong_row(section, list(rows.values())[-1])]


def thread_rows(section: str, title: str, samples: list[Json]) -> list[Row]:
    result = [make(section, f'{title}: disk data in pre-copy', samples,
                   number('speed', 1 / MIB), unit='MiB/s')]
    for side, kind in THREADS:
        result.append(make(section, f'{title}: {side}, {kind}, for each GiB',
                           samples, number(f'{side} {kind}'), unit='s'))
    return result


def memory_size_rows(section: str, rows: Samples,
                     _settings: Settings) -> list[Row]:
    result: list[Row] = []
    for key, samples in rows.items():
        way, mib = key.split()
        title = f'{mib} MiB, {METHODS[way].title}'
        result += cells(section, title, samples, 'all synchronised',
                        'heartbeat gap')
        result.append(make(section, f'{title}: RAM sent', samples,
                           field_of('ram_bytes'), unit='MiB'))
    return result


def delay_rows(section: str, rows: Samples, settings: Settings) -> list[Row]:
    lossy = f'{settings.scale_trip_ms} ms, {settings.delay_loss:.2%} lost'
    result: list[Row] = []
    for key, samples in rows.items():
        way, name = key.split()
        title = lossy if name == LOSSY else f'{name} ms'
        if way == 'link':
            result += [
                make(section, f'{title}: measured round trip', samples,
                     number('round trip', 1000), unit='ms'),
                make(section, f'{title}: one TCP connection', samples,
                     number('tcp', 8e-6), unit='Mbit/s')]
            continue
        result += cells(section, f'{title}, {METHODS[way].title}', samples,
                        'all synchronised', 'heartbeat gap',
                        'guest writes, worst second')
    for way in (WSM, SHARED):
        if f'{way} {LOSSY}' in rows:
            row = wrong_row(section, rows[f'{way} {LOSSY}'])
            row.what = f'{METHODS[way].title}: {row.what}'
            result.append(row)
    return result


SCALE_ROWS: dict[str, RowsOf] = {
    'scale-size': size_rows,
    'scale-disks': disks_rows,
    'scale-channels': channels_rows,
    'scale-memory': memory_size_rows,
    'delay': delay_rows,
}

SCALE_TITLES = {
    'scale-size': 'The virtual size of the disk',
    'scale-disks': 'The number of disks',
    'scale-channels': 'The number of block channels',
    'scale-memory': 'The size of the RAM',
    'delay': 'The delay of the link',
}

SCALE_NOTES = {
    'scale-size': (
        'The same data at 64 places all over a disk that is empty otherwise, '
        '1500 writes/s. "Grows by" is resident memory at its highest, the '
        'guest\'s RAM apart; section "memory" has what shared storage adds. '
        'Queries are timed from outside, 20 times in disk pre-copy: median '
        'and longest. The goal of the downtime is 1.3 times that of the '
        'smallest disk plus 30 ms.'),
    'scale-disks': (
        'The same data, in equal parts on the first eight disks (the guest '
        'of the tests writes to no more), on more disks of a smaller size; '
        '100 writes/s. Threads and open files are counted in disk pre-copy; '
        'they include those of the pool that reads files.'),
    'scale-channels': (
        'Option `channels`, at 100 writes/s: on a link without a limit with '
        'a disk full of data, and on one with a limit and a delay, made as '
        'in section "delay", with less. "For each GiB": seconds of CPU in '
        'disk pre-copy for each GiB sent; the IOThread is the one that serves '
        'all block channels, the pool reads and writes the files.'),
    'scale-memory': (
        'An idle guest with more RAM, half of it filled with noise, no '
        'link limit. The disk is the same. QEMU freezes the guest as soon as '
        'what is left of the RAM fits into `downtime-limit`, here 2 s; so the '
        'gap can be anything up to that, in both ways.'),
    'delay': (
        'The two hosts are joined by a process of the benchmark that holds '
        'back each frame; where frames are lost, at random, they are of 1500 '
        'bytes. The link is limited as elsewhere; 100 writes/s. Congestion '
        'control is cubic and TCP\'s buffers have Linux\'s usual limits '
        '(6 MiB to receive, 4 MiB to send), whatever the machine has. '
        'The round trip is the time of connect(); the speed of one TCP '
        'connection is that after its first two seconds. Ways take turns at '
        'each delay. A mirror is ready at a moment at which nothing is dirty '
        'and nothing is under way. The more writes there are in one round '
        'trip, the rarer such moments are; if none came in time, the mirror '
        'is given up ("failed").'),
}
