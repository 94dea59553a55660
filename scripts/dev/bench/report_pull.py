# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of how long the guest waits for a missing block."""

from dev.bench.pull import IDLE, PUSHING, SEVERAL
from dev.bench.report_back import Samples
from dev.bench.rows import Row, Value, collect, make, number, wrong_row
from dev.bench.settings import Settings
from dev.rig.qmp import Json

# Round trips, and milliseconds more
GOALS = {IDLE: (1, 1.0), PUSHING: (2, 5.0)}
TITLES = {IDLE: 'idle link', PUSHING: 'while pushing',
          SEVERAL: 'while pushing, several large reads'}
WITH_GOAL = {IDLE: ('p50', 'p99'), PUSHING: ('p99',), SEVERAL: ()}


def goal_of(kind: str, trips: list[float]) -> Value:
    """From round trips of an idle link."""
    times, more = GOALS[kind]
    return times * sorted(trips)[len(trips) // 2] + more if trips else None


def push_rate(sample: Json) -> Value:
    """Bytes per second that were sent while it pushed."""
    values = sample['numbers']
    if f'{PUSHING} seconds' not in values:
        return None
    return float(values[f'{PUSHING} bytes'] / values[f'{PUSHING} seconds'])


def kind_rows(section: str, kind: str, samples: list[Json],
              trips: list[float]) -> list[Row]:
    title = TITLES[kind]
    result = [
        make(section, f'{title}: round trip, median ping', samples,
             number(f'{kind} ping'), unit='ms'),
        make(section, f'{title}: longest ping', samples,
             number(f'{kind} ping max'), unit='ms'),
        make(section, f'{title}: reads that waited', samples,
             number(f'{kind} count'))]
    for name, what in (('p50', 'median'), ('p99', '99 % within'),
                       ('max', 'longest')):
        goal = goal_of(kind, trips) if name in WITH_GOAL[kind] else None
        result.append(make(section, f'{title}: wait, {what}', samples,
                           number(f'{kind} {name}'), goal, 'ms'))
    return result


def pull_rows(section: str, rows: Samples, settings: Settings) -> list[Row]:
    samples = rows.get('pull', [])
    trips, _ = collect(samples, number(f'{IDLE} ping'))
    result = [make(section, 'missing when the guest began to run there',
                   samples, number('missing'), unit='MiB')]
    for kind in TITLES:
        result += kind_rows(section, kind, samples, trips)
    result.append(make(
        section, 'disk data sent while pushing, of the link', samples,
        lambda sample: None if (rate := push_rate(sample)) is None
        else rate / settings.link_bytes, unit='%'))
    return result + [wrong_row(section, samples)]


PULL_ROWS = {'pull': pull_rows}
PULL_TITLES = {'pull': 'Waiting for a missing block'}
PULL_NOTES = {'pull': (
    'The guest has overwritten nearly all data while it was copied the first '
    'time, and was handed over then (`max-residue`), so nearly all is '
    'missing. One thread reads blocks of 4 KiB at random places, first with '
    'next to nothing pushed (`x-push-delay`; 50 reads/s), then while '
    'everything is pushed (100 reads/s). At last four threads read up to 32 '
    'KiB each (100 reads/s together; the link takes up to 1.6 ms for each); '
    'for that there is no goal. "Wait" is from the '
    "read's arrival at the virtual disk to its answer, by the destination's "
    'trace, for reads that had to ask for a block. The goals are one round '
    'trip + 1 ms, and two round trips + 5 ms, where the round trip is that '
    'of a ping on the idle link. A ping while pushing waits behind pushed '
    "data in the link's queue, which holds 50 ms, and so do pulled blocks.")}
