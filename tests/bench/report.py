# SPDX-License-Identifier: GPL-2.0-or-later
"""From samples to a table with goals, and what was measured on."""

import os
import platform
import statistics
import textwrap
from pathlib import Path

from lib.image import GIB, MIB
from lib.qmp import Json
from methods import MIRROR, SHARED, WSM
from report_apps import APP_NOTES, APP_ROWS, APP_TITLES
from report_back import BACK_NOTES, BACK_ROWS, BACK_TITLES
from rows import (GAP_EXTRA, GAP_FACTOR, Row, Value, collect, downtime,
                  field_of, make, per_t0, share, wrong_row)
from settings import LOADS, MEMORY_MIB, Settings

GRANULARITY = 4096
BITMAPS = 4                         # as many bits for each block, at most
ALLOWED_MEMORY = 64 * MIB
ABOUT = 1.2                         # "about the time of its data", in T0
FREEZE_FACTOR, FREEZE_EXTRA = 1.3, 30.0     # big against small disk; ms

# Goals by load: running / T0, synchronised / T0, median and worst rate
LOAD_GOALS = {
    '100': (1.2, 1.2, 0.95, 0.60),
    '1500': (1.3, 1.5, 0.90, 0.50),
    'unlimited': (1.6, 2.0, 0.90, 0.50),
}


def load_rows(section: str, rows: dict[str, list[Json]]) -> list[Row]:
    running, synchronised, median, worst = LOAD_GOALS[section]
    wsm, shared = rows.get(WSM, []), rows.get(SHARED, [])
    shared_gap, _ = collect(shared, field_of('gap'))
    gap_goal = (GAP_FACTOR * statistics.median(shared_gap) + GAP_EXTRA
                if shared_gap else None)
    return [
        make(section, 'guest writes per second before', wsm,
             field_of('rate_before')),
        make(section, 'T0', wsm, field_of('t0'), unit='s'),
        make(section, 'guest runs at the destination after', wsm,
             per_t0('running'), running, 'T0'),
        make(section, 'all synchronised after', wsm, per_t0('synchronised'),
             synchronised, 'T0'),
        make(section, 'guest writes, median second', wsm,
             share('rates', statistics.median), median, '%', True),
        make(section, 'guest writes, worst second', wsm,
             share('rates', min), worst, '%', True),
        make(section, 'the same with shared storage, median', shared,
             share('rates', statistics.median), unit='%'),
        make(section, 'the same with shared storage, worst', shared,
             share('rates', min), unit='%'),
        make(section, 'heartbeat gap', wsm, field_of('gap', 1000),
             gap_goal and gap_goal * 1000, 'ms'),
        make(section, 'heartbeat gap with shared storage', shared,
             field_of('gap', 1000), unit='ms'),
        make(section, 'longest gap outside the switchover too', wsm,
             field_of('longest_gap', 1000), unit='ms'),
        make(section, 'longest gap without any migration', wsm,
             field_of('longest_gap_before', 1000), unit='ms'),
        make(section, 'longest guest write', wsm,
             field_of('worst_write', 1000), unit='ms'),
        wrong_row(section, wsm),
    ]


def stock_rows(section: str, rows: dict[str, list[Json]]) -> list[Row]:
    mirror = make(section, 'blockdev-mirror, then migrate', rows[MIRROR],
                  field_of('synchronised'), unit='s')
    goal = mirror.median if mirror.values else None
    return [
        make(section, 'whole-system migration, all synchronised',
             rows[WSM], field_of('synchronised'), goal, 's'),
        mirror,
        make(section, 'heartbeat gap', rows[WSM], field_of('gap', 1000),
             unit='ms'),
        make(section, 'heartbeat gap of the mirror', rows[MIRROR],
             field_of('gap', 1000), unit='ms'),
        wrong_row(section, rows[WSM]),
    ]


def thin_rows(section: str, rows: dict[str, list[Json]]) -> list[Row]:
    result = []
    for fmt, samples in rows.items():
        before, _ = collect(samples, field_of('du_before'))
        # Guest and format write a few blocks of their own
        goal = statistics.median(before) + MIB if before else None
        result += [
            make(section, f'{fmt}: T0', samples, field_of('t0'), unit='s'),
            make(section, f'{fmt}: all synchronised after', samples,
                 per_t0('synchronised'), ABOUT, 'T0'),
            make(section, f'{fmt}: allocated before', samples,
                 field_of('du_before'), unit='MiB'),
            make(section, f'{fmt}: allocated at the destination', samples,
                 field_of('du_after'), goal, 'MiB'),
            wrong_row(section, samples),
        ]
    return result


def freeze_rows(section: str, rows: dict[str, list[Json]]) -> list[Row]:
    result: list[Row] = []
    goal: Value = None

    for mib, samples in rows.items():
        size = (f'{int(mib) * MIB // GIB} GiB' if int(mib) * MIB >= GIB
                else f'{mib} MiB')
        row = make(section, f'{size}: downtime (query-wsm)', samples,
                   downtime, goal, 'ms')
        result += [row, make(section, f'{size}: heartbeat gap', samples,
                             field_of('gap', 1000), unit='ms'),
                   make(section, f'{size}: all synchronised', samples,
                        field_of('synchronised'), unit='s')]
        if goal is None and row.values:
            goal = FREEZE_FACTOR * row.median + FREEZE_EXTRA
    return result


def memory_rows(section: str, rows: dict[str, list[Json]],
                settings: Settings) -> list[Row]:
    allowed = ALLOWED_MEMORY + BITMAPS * settings.disk // GRANULARITY // 8
    result = []
    for side in ('source', 'destination'):
        def growth(sample: Json, side: str = side) -> Value:
            value = sample['memory'].get(side)
            return None if value is None else float(value)

        shared = make(section, f'{side}: grows with shared storage by',
                      rows[SHARED], growth, unit='MiB')
        base = shared.median if shared.values else 0.0
        values, failed = collect(rows[WSM], growth)
        result += [make(section, f'{side}: grows by', rows[WSM], growth,
                        unit='MiB'), shared,
                   Row(section, f'{side}: added to that of shared storage',
                       [value - base for value in values], allowed, 'MiB',
                       failed=failed)]
    return result


OTHER_ROWS = {**BACK_ROWS, **APP_ROWS}


def rows_of(section: str, rows: dict[str, list[Json]],
            settings: Settings) -> list[Row]:
    if section in LOAD_GOALS:
        return load_rows(section, rows)
    if section == 'memory':
        return memory_rows(section, rows, settings)
    if section in OTHER_ROWS:
        return OTHER_ROWS[section](section, rows, settings)
    return {'stock': stock_rows, 'thin': thin_rows,
            'freeze': freeze_rows}[section](section, rows)


TITLES = {
    **{load.name: f'Guest writes: {load.title}' for load in LOADS},
    'stock': 'Without a link limit, against stock mirror and migrate',
    'thin': 'A big disk that is nearly empty',
    'freeze': 'The freeze and the size of the disk',
    'memory': 'Resident memory that migration adds',
    **BACK_TITLES,
    **APP_TITLES,
}


NOTES = {**BACK_NOTES, **APP_NOTES}


def cpu_model() -> str:
    for line in Path('/proc/cpuinfo').read_text('utf-8').split('\n'):
        if line.startswith('model name'):
            return line.partition(': ')[2]
    return platform.machine()


def machine_facts() -> Json:
    return {'cpu': cpu_model(), 'cores': os.cpu_count(),
            'kernel': platform.release().partition('-')[0],
            'load': [round(value, 1) for value in os.getloadavg()]}


ABOUT_THE_MACHINE = (
    'Measured {date} on {cores} cores ({cpu}), Linux {kernel}, QEMU {qemu}. '
    'Both QEMUs, with their guests under TCG, and the measuring program '
    'shared these cores with other work, so the numbers are noisy; load '
    'average at the begin: {load}. The load at each migration is in the '
    'JSON file.')
ABOUT_THE_SCENE = (
    'Two network namespaces are joined by a link of {link} Mbit/s (tbf, both '
    'directions). The guest has {memory} MiB of RAM, one virtio disk of '
    '{disk} MiB with {data} MiB of data (raw, cache=writeback), and writes '
    '4 KiB blocks at random places of the data. T0 = (allocated bytes of the '
    'disk + bytes of RAM sent) / speed of the link.')
ABOUT_THE_VALUES = (
    'Each value is the median of the rounds that the heading names, each with '
    'a fresh guest; ways that are compared take turns. "Shared storage" is a '
    'migration by the same binary with the capability off and the same image '
    'on both sides. Rates are those of whole seconds between `migrate` and '
    'the end, without the freeze, relative to the median second before. The '
    "heartbeat gap is the longest silence of the guest's 5 ms heartbeat at "
    'the switchover, as heard from outside. At the end the guest reads every '
    'block of the disk and compares it with what it wrote; after the first '
    'wrong block it stops, so "1" is "at least one".')


def explain(document: Json) -> list[str]:
    settings, facts = document['settings'], document['machine']
    values = {
        **facts, 'date': document['date'], 'qemu': document['qemu'],
        'load': ', '.join(str(value) for value in facts['load']),
        'link': settings['link_mbit'], 'memory': MEMORY_MIB,
        'disk': settings['disk'] // MIB, 'data': settings['data'] // MIB}
    lines = ['<!-- SPDX-License-Identifier: GPL-2.0-or-later -->',
             '# Benchmarks', '',
             'Written by `scripts/bench`; the raw numbers are in '
             '`benchmarks.json`. A goal that is not met says **no**.', '']
    for text in (ABOUT_THE_MACHINE, ABOUT_THE_SCENE, ABOUT_THE_VALUES):
        lines += [*textwrap.wrap(text.format(**values), 76), '']
    return lines


def table(rows: list[Row]) -> list[str]:
    lines = ['| figure | goal | median | min - max | met |',
             '|---|---|---|---|---|']
    return lines + [f'| {" | ".join(row.cells())} |' for row in rows] + ['']


def render(document: Json, settings: Settings) -> str:
    lines = explain(document)
    for section, rows in document['sections'].items():
        rounds = min(len(samples) for samples in rows.values())
        lines += [f'## {TITLES[section]} ({rounds} rounds)', '']
        if section in NOTES:
            lines += [*textwrap.wrap(NOTES[section], 76), '']
        lines += table(rows_of(section, rows, settings))
        failures = [f'- {key}, round {number}: {sample["failure"]}'
                    for key, samples in rows.items()
                    for number, sample in enumerate(samples, 1)
                    if sample['failure']]
        if failures:
            lines += ['Failures:', '', *failures, '']
    return '\n'.join(lines)
