# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables and goals of incremental migration."""

import statistics
from typing import Callable

from dev.bench.rows import (GAP_EXTRA, GAP_FACTOR, Getter, Row, Value, collect,
                            downtime, failed, field_of, make, number,
                            wrong_row)
from dev.bench.settings import Settings
from dev.rig.image import MIB
from dev.rig.qmp import Json

Samples = dict[str, list[Json]]
RowsOf = Callable[[str, Samples, Settings], list[Row]]

SENT_FACTOR, SENT_EXTRA = 1.05, 0.001   # of the writes, of the disk
TIME_FACTOR = 1.1                       # of the writes / speed of the link
FEWER = 20                              # times, way back : way there
RESUMED, TEMPLATE = 0.55, 0.06          # of the data
HASH_SPEED = 1e9                        # bytes per second and core
TRACKING = 0.01                         # more instructions


def sent(sample: Json) -> Value:
    disks = sample['wsm'].get('disks')
    return float(sum(disk['sent'] for disk in disks)) if disks else None


def per_data(getter: Getter, settings: Settings) -> Getter:
    def share_of(sample: Json) -> Value:
        value = getter(sample)
        return None if value is None else value / settings.data
    return share_of


def pairs(first: list[Json], second: list[Json], getter: Getter,
          join: Callable[[float, float], float]) -> tuple[list[float], int]:
    """join(first, second) of each round; and how many rounds lack one."""
    values = []
    for one, other in zip(first, second):
        a, b = (None if failed(sample) else getter(sample)
                for sample in (one, other))
        if a is not None and b is not None:
            values.append(join(a, b))
    return values, max(len(first), len(second)) - len(values)


def back_rows(section: str, rows: Samples,
              settings: Settings) -> list[Row]:
    result = []
    alone = rows.get('0', [])
    for key, samples in rows.items():
        written = int(key)
        name = f'w = {written / MIB:.0f} MiB'
        result += [
            make(section, f'{name}: disk bytes sent', samples, sent,
                 SENT_FACTOR * written + SENT_EXTRA * settings.disk, 'MiB'),
            make(section, f'{name}: RAM sent', samples,
                 field_of('ram_bytes'), unit='MiB'),
            make(section, f'{name}: all on the link', samples,
                 field_of('link_bytes'), unit='MiB'),
            make(section, f'{name}: guest runs there after', samples,
                 field_of('running'), unit='s')]
        if written:
            later, missing = pairs(alone, samples, field_of('running'),
                                   lambda ram, all_of_it: all_of_it - ram)
            result.append(
                Row(section, f'{name}: that is later than with w = 0 by',
                    later, TIME_FACTOR * written / settings.link_bytes, 's',
                    failed=missing))
        result.append(make(section, f'{name}: all synchronised after',
                           samples, field_of('synchronised'), unit='s'))
    return result + [wrong_row(section, list(rows.values())[-1])]


def return_rows(section: str, rows: Samples, _settings: Settings) -> list[Row]:
    there, back = rows.get('there', []), rows.get('back', [])
    between = rows.get('between', [])
    fewer, missing = pairs(there, between, sent, lambda a, b: a / b)
    always, missing_always = pairs(there, back, sent, lambda a, b: a / b)
    gap, _ = collect(there, field_of('gap'))
    goal = GAP_FACTOR * statistics.median(gap) + GAP_EXTRA if gap else None
    result = [
        Row(section, 'way back, disk bytes: fewer by a factor of', fewer,
            FEWER, 'times', True, missing),
        Row(section, 'the same if the guest writes during both ways too',
            always, None, 'times', True, missing_always)]
    for name, samples in (('way there', there), ('way back', back),
                          ('way back, no writes in it', between)):
        result += [
            make(section, f'{name}: disk bytes sent', samples, sent,
                 unit='MiB'),
            make(section, f'{name}: guest runs there after', samples,
                 field_of('running'), unit='s'),
            make(section, f'{name}: heartbeat gap', samples,
                 field_of('gap', 1000),
                 goal * 1000 if goal and samples is back else None, 'ms'),
            make(section, f'{name}: downtime (query-wsm)', samples, downtime,
                 unit='ms')]
    return result + [wrong_row(section, between)]


def resume_rows(section: str, rows: Samples, settings: Settings) -> list[Row]:
    samples = rows['resumed']
    return [
        make(section, 'sent until it was cancelled', samples,
             per_data(number('before'), settings), unit='%'),
        make(section, 'sent when it went on', samples,
             per_data(sent, settings), RESUMED, '%'),
        make(section, 'all synchronised after', samples,
             field_of('synchronised'), unit='s'),
        wrong_row(section, samples)]


def template_rows(section: str, rows: Samples,
                  settings: Settings) -> list[Row]:
    samples = rows['template']

    def compared(sample: Json) -> Value:
        return float(sum(disk['compared'] for disk in sample['wsm']['disks']))

    def pre_copy(sample: Json) -> Value:
        times = {entry['phase']: entry['ms'] / 1000
                 for entry in sample['wsm']['phases']}
        return times.get('disk-precopy')

    return [
        make(section, 'sent, of the data', samples, per_data(sent, settings),
             TEMPLATE, '%'),
        make(section, 'compared by hashes', samples, compared, unit='MiB'),
        make(section, 'comparing, and sending before the handover', samples,
             pre_copy, unit='s'),
        make(section, 'guest runs there after', samples, field_of('running'),
             unit='s'),
        make(section, 'all synchronised after', samples,
             field_of('synchronised'), unit='s'),
        wrong_row(section, samples)]


def hashing_rows(section: str, rows: Samples,
                 _settings: Settings) -> list[Row]:
    values, missing = collect(rows['hashing'], number('speed'))
    return [Row(section, 'one core hashes per second',
                [value / 1e9 for value in values], HASH_SPEED / 1e9, 'GB/s',
                True, missing)]


def more_rows(section: str, title: str, rows: Samples,
              whole: Row) -> list[Row]:
    """How many instructions more, relative to those of @whole."""
    result = []
    for points, what in (('1', 'a sync point'), ('8', '8 sync points')):
        values, missing = pairs(
            rows.get('0', []), rows.get(points, []), number('instructions'),
            lambda off, on: (on - off) / whole.median)
        result.append(Row(section, f'{title}: more with {what}', values,
                          TRACKING, '%', failed=missing))
    return result


def tracking_rows(section: str, rows: Samples,
                  _settings: Settings) -> list[Row]:
    result = []
    for key, title in (('0', 'block layer alone'), ('raw', 'with a raw file'),
                       ('guest', 'all of QEMU')):
        whole = make(section, f'{title}: without', rows.get(key, []),
                     number('instructions'), unit='instructions')
        result.append(whole)
        if whole.values:
            result += more_rows(section, title, rows, whole)
    return result


BACK_ROWS: dict[str, RowsOf] = {
    'back': back_rows,
    'return': return_rows,
    'resume': resume_rows,
    'template': template_rows,
    'hashing': hashing_rows,
    'tracking': tracking_rows,
}

BACK_TITLES = {
    'back': 'Moving back after w bytes of unique guest writes',
    'return': 'The way back against the way there, 100 writes/s',
    'resume': 'Resuming what was cancelled at 50 %',
    'template': 'A destination with 95 % of the blocks',
    'hashing': 'Hashing',
    'tracking': 'What sync points cost a guest write of 4 KiB',
}

BACK_NOTES = {
    'back': (
        'A guest without load moves from host to host, each time to the image '
        'that it left there: first its whole disk (not shown), then at once '
        'back (w = 0, so RAM alone), then each time after writing w bytes in '
        '4096 pieces at random places, none twice. "Disk bytes sent" is '
        'the data that `query-wsm` counts; "all on the link" is what the '
        'network card counts, with RAM and all headers. Times are compared '
        'within a round. Up to ten seconds of disk data can follow after '
        'the handover (ten times `max-residue`).'),
    'return': (
        'The guest writes 4 KiB at random places all the time, 100 times a '
        'second, and moves back 30 s after it has come. Then it moves once '
        'more (not shown), writes for 30 s, stops writing and moves back: '
        'the last way is that of the first row. Its factor is that of the '
        'same round. The goal of the heartbeat gap is 1.3 times that of the '
        'way there plus 30 ms.'),
    'resume': (
        'At 100 writes/s, which go on: `migrate_cancel` as soon as half of '
        'the data was sent, end of the destination, a new one with the same '
        'image, `migrate`. What the guest writes meanwhile, and what was '
        'under way when it was cancelled, is sent too.'),
    'template': (
        'The destination is given a copy of the image in which 5 % of the '
        '4 KiB blocks of the data, at random places, were overwritten. The '
        'guest has no load.'),
    'hashing': (
        'SHA-256 of 4 KiB blocks of random data in memory, per second of CPU '
        'time, by `test-wsm-compare -m perf`. Both sides hash in several '
        'threads, each range of up to 1 MiB at the same time.'),
    'tracking': (
        'Instructions in user space of a write of 4 KiB at a random place. '
        '"Block layer alone": to a disk that stores nothing, by '
        '`bench-wsm-writes` under callgrind, as the difference between runs '
        'with 10000 and with 2000 writes. Nearly all of them are the first '
        'ones to their block, which is the dearest case. "With a raw file": '
        'the same with a file and its thread pool. "All of QEMU": counted '
        'with perf while a TCG guest writes as fast as it can, with all '
        'threads, the device, and the translated guest. These two vary by '
        'some percent from run to run, so what the block layer alone takes '
        'more is set against their median. A sync point costs what any dirty '
        'bitmap costs; mostly for the bitmap\'s levels and its lock.'),
}
