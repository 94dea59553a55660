# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables and goals of the comparison: all ways, side by side."""

import statistics
from typing import Callable, Optional

from dev.bench.limits import (bytes_over_limit, downtime_over_limit, finished,
                              least_bytes, link_speed, longest_answer,
                              median_of, p99, p99_grows, time_over_limit,
                              usable)
from dev.bench.methods import METHODS, MIRROR, SHARED, WSM
from dev.bench.rows import (CLIENT_P99, DOWN_EXTRA, DOWN_FACTOR, GAP_EXTRA,
                            GAP_FACTOR, PEER_IDLE, PEER_LOADED, Getter, Row,
                            Value, field_of, make, per_t0, share, wrong_row)
from dev.bench.settings import LOADS, Settings
from dev.rig.image import MIB
from dev.rig.qmp import Json

Samples = dict[str, list[Json]]

# Goals by load: running / T0, synchronised / T0, median and worst rate
LOAD_GOALS = {
    'idle': (1.1, 1.1, None, None),
    '100': (1.2, 1.2, 0.95, 0.60),
    '1500': (1.3, 1.5, 0.90, 0.50),
    'unlimited': (1.6, 2.0, 0.90, 0.50),
    'sequential': (1.3, 1.5, 0.90, 0.50),
}
LIMIT = 1.1                             # times the limit


# The table of all ways

def text(samples: list[Json], getter: Getter, form: str,
         spread: bool = False) -> str:
    """Median of these moves; and the least and the most of it."""
    values = [value for value in map(getter, samples) if value is not None]
    if not values:
        return '-'
    shown = form.format(statistics.median(values))
    if spread and len(values) > 1:
        shown += f' ({form.format(min(values))}-{form.format(max(values))})'
    return shown


def outcome(samples: list[Json]) -> str:
    good = len(finished(samples))
    if good == len(samples):
        return ''
    reasons = {sample['failure'].partition(': ')[2] for sample in samples
               if sample['failure']}
    return f'{len(samples) - good} of {len(samples)}: {"; ".join(reasons)}'


def ratio_to(samples: list[Json], getter: Getter, base: Value) -> str:
    value = median_of(samples, getter)
    return f'{value / base:.2f}' if value and base else '-'


def best_peer(rows: Samples, getter: Getter) -> Value:
    """The best median of those that move disks and keep the guest usable."""
    values = [median_of(samples, getter) for way, samples in rows.items()
              if way not in (WSM, SHARED) and finished(samples)
              and all(map(usable, finished(samples)))]
    return min((value for value in values if value is not None),
               default=None)


COLUMNS = ('way', 'guest runs there after (s)', 'all synchronised (s)',
           'best peer = 1', 'limit = 1', 'MiB on the link', 'limit = 1',
           'heartbeat gap (ms)', 'limit = 1',
           'throughput: median, worst second',
           'p99 (ms) before, during, after', 'longest answer (ms)', 'failed')


def line_of(way: str, samples: list[Json], rows: Samples) -> list[str]:
    ram = median_of(rows.get(SHARED, []), field_of('link_bytes')) or 0.0
    time = field_of('synchronised')
    # One that never became ready shows what the guest felt meanwhile
    seen = [sample for sample in samples if sample['rates']]
    samples, all_samples = finished(samples), samples
    return [
        METHODS[way].title,
        text(samples, field_of('running'), '{:.1f}', True),
        text(samples, time, '{:.1f}'),
        ratio_to(samples, time, best_peer(rows, time)),
        text(samples, time_over_limit, '{:.2f}'),
        text(samples, field_of('link_bytes', 1 / MIB), '{:.0f}'),
        text(samples, bytes_over_limit(ram), '{:.2f}'),
        text(samples, field_of('gap', 1000), '{:.0f}', True),
        text(samples, downtime_over_limit, '{:.1f}'),
        f"{text(seen, share('rates', statistics.median), '{:.0%}')}, "
        f"{text(seen, share('rates', min), '{:.0%}')}",
        ', '.join(text(seen, p99(when), '{:.1f}')
                  for when in ('before', 'during', 'after')),
        text(seen, longest_answer, '{:.0f}'),
        outcome(all_samples),
    ]


def ways_table(rows: Samples) -> list[str]:
    lines = [f'| {" | ".join(COLUMNS)} |', '|---' * len(COLUMNS) + '|']
    lines += [f'| {" | ".join(line_of(way, rows[way], rows))} |'
              for way in METHODS if way in rows]
    return lines + ['']


def by_link(rows: Samples) -> dict[str, Samples]:
    """From "160 wsm" to the ways of each speed."""
    result: dict[str, Samples] = {}
    for key, samples in rows.items():
        mbit, _, way = key.partition(' ')
        result.setdefault(mbit, {})[way] = samples
    return result


def links_table(rows: Samples) -> list[str]:
    lines = []
    for mbit, ways in by_link(rows).items():
        lines += [f'{mbit} Mbit/s:', '', *ways_table(ways)]
    return lines


# Goals

def goal_of(base: Value, factor: float, extra: float = 0.0) -> Value:
    return None if base is None else base * factor + extra


def peer_rows(section: str, rows: Samples, loaded: bool) -> list[Row]:
    """Downtime, time and bytes against the other ways and the limits."""
    wsm = rows.get(WSM, [])
    factor = PEER_LOADED if loaded else PEER_IDLE
    shared = median_of(rows.get(SHARED, []), field_of('gap'))
    ram = median_of(rows.get(SHARED, []), field_of('link_bytes')) or 0.0
    down = goal_of(shared, DOWN_FACTOR, DOWN_EXTRA)
    result = [make(section, f'{what}, against shared storage', wsm,
                   field_of(name, 1000), down and down * 1000, 'ms')
              for what, name in (('heartbeat gap', 'gap'),
                                 ('longest silence until the end',
                                  'longest_gap'))]
    least, speed = least_bytes(rows, WSM), median_of(wsm, link_speed)
    for what, name, unit, lower in (
            ('time', 'synchronised', 's',
             least / speed if least and speed else None),
            ('bytes on the link', 'link_bytes', 'MiB', least)):
        getter = field_of(name)
        row = make(section, f'{what}, against the best usable peer', wsm,
                   getter, goal_of(best_peer(rows, getter), factor), unit)
        row.least = lower
        result.append(row)
    return result + [
        make(section, 'time, of its limit', wsm, time_over_limit, LIMIT,
             'times'),
        make(section, 'bytes on the link, of their limit', wsm,
             bytes_over_limit(ram), LIMIT, 'times')]


def seen_row(section: str, what: str, samples: list[Json], getter: Getter,
         goal: Value = None, unit: str = '') -> Row:
    """With those that were given up: their clients' figures until then."""
    values = [value for value in map(getter, samples) if value is not None]
    return Row(section, what, values, goal, unit,
               failed=len(samples) - len(values))


def p99_rows(section: str, rows: Samples) -> list[Row]:
    """Before it moves the guest is the same in all ways."""
    wsm = rows.get(WSM, [])
    before = seen_row(section, 'p99 before, all ways', sum(rows.values(), []),
                      p99('before'), unit='ms')
    goal = CLIENT_P99 * before.median if before.values else None
    return [before,
            seen_row(section, 'p99 until the handover', wsm, p99('during'),
                     goal, 'ms'),
            seen_row(section, 'p99 until the handover, of its own before',
                     wsm, p99_grows, unit='times')]


def guest_rows(section: str, load: str, rows: Samples) -> list[Row]:
    _, _, median, worst = LOAD_GOALS[load]
    wsm = rows.get(WSM, [])
    return [
        make(section, 'guest writes per second before', wsm,
             field_of('rate_before')),
        make(section, 'guest writes, median second', wsm,
             share('rates', statistics.median), median, '%', True),
        make(section, 'guest writes, worst second', wsm,
             share('rates', min), worst, '%', True),
        *p99_rows(section, rows),
        make(section, 'longest guest write', wsm, longest_answer, unit='ms'),
    ]


def load_rows(section: str, rows: Samples, _settings: Settings) -> list[Row]:
    load = section.removeprefix('load-')
    running, synchronised, _, _ = LOAD_GOALS[load]
    wsm = rows.get(WSM, [])
    shared = median_of(rows.get(SHARED, []), field_of('gap', 1000))
    result = [
        make(section, 'T0', wsm, field_of('t0'), unit='s'),
        make(section, 'guest runs at the destination after', wsm,
             per_t0('running'), running, 'T0'),
        make(section, 'all synchronised after', wsm, per_t0('synchronised'),
             synchronised, 'T0'),
        make(section, 'heartbeat gap', wsm, field_of('gap', 1000),
             goal_of(shared, GAP_FACTOR, GAP_EXTRA * 1000), 'ms'),
        *peer_rows(section, rows, load != 'idle')]
    if load != 'idle':
        result += guest_rows(section, load, rows)
    return [*result, wrong_row(section, wsm)]


def links_rows(section: str, rows: Samples, _settings: Settings) -> list[Row]:
    result = []
    for mbit, ways in by_link(rows).items():
        for row in peer_rows(section, ways, True):
            row.what = f'{mbit} Mbit/s: {row.what}'
            result.append(row)
    return result


def stock_rows(section: str, rows: Samples, _settings: Settings) -> list[Row]:
    mirror = make(section, 'blockdev-mirror, then migrate', rows[MIRROR],
                  field_of('synchronised'), unit='s')
    goal: Optional[float] = mirror.median if mirror.values else None
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


RowsOf = Callable[[str, Samples, Settings], list[Row]]
COMPARE_ROWS: dict[str, RowsOf] = {
    **{f'load-{load.name}': load_rows for load in LOADS},
    'links': links_rows,
    'stock': stock_rows,
}
COMPARE_TABLES: dict[str, Callable[[Samples], list[str]]] = {
    **{f'load-{load.name}': ways_table for load in LOADS},
    'links': links_table,
}
COMPARE_TITLES = {
    **{f'load-{load.name}': f'Guest writes: {load.title}' for load in LOADS},
    'links': 'Links of different speed, 100 writes/s',
    'stock': 'Without a link limit, against stock mirror and migrate',
}
