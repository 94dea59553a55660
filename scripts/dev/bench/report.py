# SPDX-License-Identifier: GPL-2.0-or-later
"""From samples to a table with goals, and what was measured on."""

import os
import platform
import statistics
import textwrap
from pathlib import Path

from dev.bench.footprint import AGENT_NOTES, AGENT_ROWS, AGENT_TITLES
from dev.bench.methods import SHARED, WSM
from dev.bench.report_apps import APP_NOTES, APP_ROWS, APP_TABLES, APP_TITLES
from dev.bench.report_back import BACK_NOTES, BACK_ROWS, BACK_TITLES
from dev.bench.report_compare import (COMPARE_ROWS, COMPARE_TABLES,
                                      COMPARE_TITLES)
from dev.bench.report_cost import COST_NOTES, COST_ROWS, COST_TITLES
from dev.bench.report_memory import (MEMORY_NOTES, MEMORY_ROWS, MEMORY_TABLES,
                                     MEMORY_TITLES)
from dev.bench.report_paper import (PAPER_NOTES, PAPER_ROWS, PAPER_TABLES,
                                    PAPER_TITLES)
from dev.bench.report_prediction import (PREDICTION_NOTES, PREDICTION_ROWS,
                                         PREDICTION_TABLES,
                                         PREDICTION_TITLES)
from dev.bench.report_scale import SCALE_NOTES, SCALE_ROWS, SCALE_TITLES
from dev.bench.rows import (Row, collect, field_of, growth, make, per_t0,
                            wrong_row)
from dev.bench.sample import SETTLE_SECONDS
from dev.bench.settings import MEMORY_MIB, Settings
from dev.rig.image import MIB
from dev.rig.qmp import Json

GRANULARITY = 4096
BITMAPS = 4                         # as many bits for each block, at most
ALLOWED_MEMORY = 64 * MIB
ABOUT = 1.2                         # "about the time of its data", in T0


def thin_rows(section: str, rows: dict[str, list[Json]],
              _settings: Settings) -> list[Row]:
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


def memory_rows(section: str, rows: dict[str, list[Json]],
                settings: Settings) -> list[Row]:
    allowed = ALLOWED_MEMORY + BITMAPS * settings.disk // GRANULARITY // 8
    result = []
    for side in ('source', 'destination'):
        shared = make(section, f'{side}: grows with shared storage by',
                      rows[SHARED], growth(side), unit='MiB')
        base = shared.median if shared.values else 0.0
        values, failed = collect(rows[WSM], growth(side))
        result += [make(section, f'{side}: grows by', rows[WSM],
                        growth(side), unit='MiB'), shared,
                   Row(section, f'{side}: added to that of shared storage',
                       [value - base for value in values], allowed, 'MiB',
                       failed=failed)]
    return result


ROWS = {
    'thin': thin_rows,
    'memory': memory_rows,
    **COMPARE_ROWS,
    **BACK_ROWS,
    **SCALE_ROWS,
    **COST_ROWS,
    **APP_ROWS,
    **PAPER_ROWS,
    **MEMORY_ROWS,
    **PREDICTION_ROWS,
    **AGENT_ROWS,
}


def rows_of(section: str, rows: dict[str, list[Json]],
            settings: Settings) -> list[Row]:
    return ROWS[section](section, rows, settings)


TITLES = {
    **COMPARE_TITLES,
    'thin': 'A big disk that is nearly empty',
    'memory': 'Resident memory that migration adds',
    **BACK_TITLES,
    **SCALE_TITLES,
    **COST_TITLES,
    **APP_TITLES,
    **PAPER_TITLES,
    **MEMORY_TITLES,
    **PREDICTION_TITLES,
    **AGENT_TITLES,
}
TABLES = {**COMPARE_TABLES, **APP_TABLES, **PAPER_TABLES,
          **MEMORY_TABLES, **PREDICTION_TABLES}
NOTES = {**BACK_NOTES, **COST_NOTES, **SCALE_NOTES, **APP_NOTES,
         **PAPER_NOTES, **MEMORY_NOTES, **PREDICTION_NOTES,
         **AGENT_NOTES}


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
ABOUT_THE_WAYS = (
    'The ways: "qemu-wsm" is one `migrate` of the patched QEMU. All others '
    'are stock QEMU, built from the same source with the same options. '
    '"Mirror" is `blockdev-mirror` to an NBD export of the destination, then '
    '`migrate` with `pause-before-switchover`, as libvirt does for '
    '`--copy-storage-all` ("background") and '
    '`--copy-storage-synchronous-writes` ("write-blocking"), with QEMU\'s '
    'default granularity; a mirror that is not ready after {give_up:.0f} s is '
    'given up. "Shared storage" is a migration with the same image on both '
    'sides, which bounds the downtime. "Stop, copy, start" stops the guest, '
    'copies its disk with `qemu-img convert` to an NBD export, and migrates '
    'it.')
ABOUT_THE_LIMITS = (
    'The limits: for time, all bytes that the link carried, at its speed; '
    'for bytes, the allocated data of the disk, the blocks that followed '
    'after the handover, and what the link carried with shared storage; for '
    'the downtime, the memory that was sent in it at the speed of the link, '
    'and one round trip. The "best peer" is the best of the other ways that '
    'move disks and leave the guest at least half of its throughput in the '
    'median second. Where 0.9 of it is less than what the data of the disk '
    'and the least memory that any way sent take, "no" says so.')
ABOUT_THE_VALUES = (
    'Each value is the median of the rounds that the heading names, each '
    'with a fresh guest; ways that are compared take turns. Rates are those'
    ' of whole seconds between `migrate` and the end, without the freeze, '
    'relative to the median second before. The heartbeat gap is the longest'
    " silence of the guest's 5 ms heartbeat at the switchover, as heard "
    'from outside. A client\'s p99 has its goal relative to the median '
    'of those before, in all ways. The longest answer is that from `migrate` '
    'to {settle:.0f} s after all is synchronised, by the guest\'s own clock, '
    'which stands still in the freeze. At the end the guest reads every block '
    'of the disk and compares it with what it wrote; after the first wrong '
    'block it stops, so "1" is "at least one".')


def explain(document: Json) -> list[str]:
    settings, facts = document['settings'], document['machine']
    values = {
        **facts, 'date': document['date'], 'qemu': document['qemu'],
        'load': ', '.join(str(value) for value in facts['load']),
        'link': settings['link_mbit'], 'memory': MEMORY_MIB,
        'disk': settings['disk'] // MIB, 'data': settings['data'] // MIB,
        'give_up': settings['give_up'], 'settle': SETTLE_SECONDS}
    lines = ['<!-- SPDX-License-Identifier: GPL-2.0-or-later -->',
             '# Benchmarks', '',
             'Written by `scripts/bench`; the raw numbers are in '
             '`benchmarks.json`. A goal that is not met says **no**; '
             '[gaps](gaps.md) has what was found so, and mended.', '']
    for text in (ABOUT_THE_MACHINE, ABOUT_THE_SCENE, ABOUT_THE_WAYS,
                 ABOUT_THE_LIMITS, ABOUT_THE_VALUES):
        lines += [*textwrap.wrap(text.format(**values), 76), '']
    return lines


def table(rows: list[Row]) -> list[str]:
    lines = ['| figure | goal | median | min - max | met |',
             '|---|---|---|---|---|']
    return lines + [f'| {" | ".join(row.cells())} |' for row in rows] + ['']


def unmet(document: Json, settings: Settings) -> list[str]:
    """The goals that are not met, in the order of the sections."""
    total, lines = 0, []
    for section, rows in document['sections'].items():
        for row in rows_of(section, rows, settings):
            total += row.goal is not None
            if row.met() is False:
                _, goal, median, *_ = row.cells()
                lines.append(f'- {TITLES[section]}: {row.what}: {median}, '
                             f'goal {goal}{row.excuse()}')
    met = f'{total - len(lines)} of {total} goals are met.'
    if lines:
        lines = [f'{met} Not met:', '', *lines]
    return ['## Goals', '', *(lines or [met]), '']


def count_rounds(rows: dict[str, list[Json]]) -> str:
    counts = [len(samples) for samples in rows.values()]
    least, most = min(counts), max(counts)
    if least != most:
        return f'{least} to {most} rounds'
    return '1 round' if most == 1 else f'{most} rounds'


def when(document: Json, section: str) -> list[str]:
    """Of a section that was not measured with the others."""
    facts = document.get('later', {}).get(section)
    if not facts:
        return []
    load = ', '.join(str(value) for value in facts['machine']['load'])
    return [f'Measured {facts["date"]}, apart from the others, with QEMU '
            f'{facts["qemu"]}; load average at the begin: {load}.', '']


def render(document: Json, settings: Settings,
           plots: dict[str, list[str]]) -> str:
    """@plots: for each section, lines that show its plots."""
    lines = explain(document) + unmet(document, settings)
    for section, rows in document['sections'].items():
        lines += [f'## {TITLES[section]} ({count_rounds(rows)})', '']
        lines += when(document, section)
        if section in NOTES:
            lines += [*textwrap.wrap(NOTES[section], 76), '']
        for plot in plots.get(section, []):
            lines += [plot, '']
        if section in TABLES:
            lines += TABLES[section](rows)
        lines += table(rows_of(section, rows, settings))
        failures = [f'- {key}, round {number}: {sample["failure"]}'
                    for key, samples in rows.items()
                    for number, sample in enumerate(samples, 1)
                    if sample['failure']]
        if failures:
            lines += ['Failures:', '', *failures, '']
    return '\n'.join(lines)
