# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of what a move takes of the CPUs."""

from dev.bench.cpu import BEFORE, EVENTS, LIMITED, UNLIMITED
from dev.bench.methods import METHODS, MIRROR, SHARED, WSM
from dev.bench.report_back import Samples, pairs
from dev.bench.rows import Getter, Row, Value, make
from dev.bench.settings import Settings
from dev.rig.image import GIB
from dev.rig.qmp import Json

OF_MIRROR = 0.8                 # of what a mirror takes
SIDES = ('source', 'destination')


def raw_cpu(sample: Json) -> Value:
    return float(sum(sample['cpu'].values())) if sample['cpu'] else None


def guest_seconds(sample: Json, side: str) -> float:
    """How long the guest ran on this side while it was counted."""
    here = BEFORE + sample['running'] - sample['stopped']
    if side == 'source':
        return float(here)
    return float(sample['numbers']['source seconds'] - sample['stopped']
                 - here)


def net(name: str, *sides: str) -> Getter:
    """Without what the guest takes by itself."""
    def getter(sample: Json) -> Value:
        numbers = sample['numbers']
        if f'own {name}' not in numbers:
            return None
        return float(sum(numbers[f'{side} {name}'] - numbers[f'own {name}']
                         * guest_seconds(sample, side) for side in sides))
    return getter


def instructions(sample: Json) -> Value:
    """Millions, of both sides, user space and kernel."""
    counts = [net(event, *SIDES)(sample) for event in EVENTS]
    if None in counts:
        return None
    return sum(count for count in counts if count is not None) / 1e6


def of_disk(section: str, what: str, samples: list[Json],
            shared: list[Json], getter: Getter, gib: float,
            unit: str) -> Row:
    """For each GiB, without what memory takes."""
    values, missing = pairs(samples, shared, getter,
                            lambda all_of_it, ram: (all_of_it - ram) / gib)
    return Row(section, what, values, unit=unit, failed=missing)


def with_goal(row: Row, mirror: Row) -> Row:
    if mirror.values:
        row.goal = OF_MIRROR * mirror.median
    return row


def link_rows(section: str, link: str, rows: Samples,
              gib: float) -> list[Row]:
    shared = rows.get(f'{link} {SHARED}', [])
    title = 'link limit' if link == LIMITED else 'no limit'

    def disk(way: str, what: str, getter: Getter, unit: str = 's') -> Row:
        return of_disk(section, f'{title}, {METHODS[way].title}: {what}',
                       rows.get(f'{link} {way}', []), shared, getter, gib,
                       unit)

    result = []
    for way in (WSM, MIRROR):
        result.append(make(section, f'{title}, {METHODS[way].title}: raw',
                           rows.get(f'{link} {way}', []), raw_cpu, unit='s'))
        result += [disk(way, side, net('cpu', side)) for side in SIDES]
    wsm, mirror = (disk(way, 'both sides', net('cpu', *SIDES))
                   for way in (WSM, MIRROR))
    # With the limit, the idle guest takes more than the disk in that time
    result += [wsm if link == LIMITED else with_goal(wsm, mirror), mirror]
    wsm, mirror = (disk(way, 'instructions', instructions, 'million')
                   for way in (WSM, MIRROR))
    return result + [with_goal(wsm, mirror), mirror]


def cpu_rows(section: str, rows: Samples, settings: Settings) -> list[Row]:
    gib = settings.cpu_data / GIB
    return [row for link in (UNLIMITED, LIMITED)
            for row in link_rows(section, link, rows, gib)]


CPU_ROWS = {'cpu': cpu_rows}
CPU_TITLES = {'cpu': 'CPU time of a move'}
CPU_NOTES = {'cpu': (
    'An idle guest with a disk full of data moves once. "Raw" is the CPU '
    'time of both QEMUs during the move, user and system, all threads. The '
    'other rows are for one GiB of disk, without the virtual CPU, without '
    'what QEMU takes for the idle guest before the move, and without what a '
    'migration over shared storage takes in the same round. Instructions are '
    'those of user space and kernel, counted with perf; they do not depend '
    'on what else the machine does as the time does. The kernel runs part '
    'of the network in interrupts: that counts for whoever runs then. With '
    'the link limit a move takes so long that what is subtracted for the '
    'guest is more than what is left, so that time is a rough figure. The '
    'goal is 0.8 of the mirror.')}
