# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of what was said of moves, and what they took."""

import statistics
from typing import Callable

from dev.bench.report_back import Samples
from dev.bench.rows import Row, Value, failed
from dev.bench.settings import Settings
from dev.rig.image import MIB
from dev.rig.qmp import Json

MEDIAN, P90, BYTES, TWICE = 0.15, 0.35, 0.10, 2.0
COLUMNS = ('move', 'link (Mbit/s)', 'limit (MiB/s)', 'basis',
           's: said', 's: took', 'MiB: said', 'MiB: sent', 'ms: said',
           'ms: stood still', 'first line', 'line at half')


def all_moves(rows: Samples) -> list[Json]:
    """Those that were measured to the end."""
    return [sample for samples in rows.values() for sample in samples
            if not sample['failure']]


def off(said: str, was: str) -> Callable[[Json], Value]:
    """How far what was said is from what was, as a part of that."""
    def found(sample: Json) -> Value:
        numbers = sample['numbers']
        if said not in numbers or not numbers.get(was):
            return None
        return float(abs(numbers[said] / numbers[was] - 1))

    return found


def errors(samples: list[Json], said: str, was: str) -> list[float]:
    """Of all moves of which it was said."""
    values = map(off(said, was), samples)
    return [value for value in values if value is not None]


def p90(values: list[float]) -> float:
    """What nine of ten do not exceed."""
    return (statistics.quantiles(values, n=10, method='inclusive')[8]
            if len(values) > 1 else values[0])


def downtime_off(sample: Json) -> float:
    """How many times as long or as short as was said; 1: as said."""
    said = max(sample['numbers']['expected downtime'], 0.001)
    was = max(sample['numbers']['downtime'], 0.001)
    return float(max(said / was, was / said))


def prediction_rows(section: str, rows: Samples,
                    _settings: Settings) -> list[Row]:
    moves = all_moves(rows)
    bad = sum(failed(sample) or bool(sample['failure'])
              for samples in rows.values() for sample in samples)
    if not moves:
        return [Row(section, 'moves', [], failed=bad)]
    result = [Row(section, 'moves', [float(len(moves))], failed=bad)]
    for what, said, was, median, most in (
            ('seconds, by the dry run', 'expected seconds', 'seconds',
             MEDIAN, P90),
            ('bytes, by the dry run', 'expected bytes', 'bytes', BYTES, None),
            ('seconds, by the first line', 'first guess', 'seconds', None, None),
            ('seconds, by the line at half', 'half guess', 'seconds', None,
             None)):
        values = errors(moves, said, was)
        if not values:
            continue
        result.append(Row(section, f'{what}: median error', values, median,
                          '%'))
        result.append(Row(section, f'{what}: nine of ten are within',
                          [p90(values)], most, '%'))
    result.append(Row(section, 'pause, by the dry run: longer or shorter',
                      [downtime_off(sample) for sample in moves], TWICE,
                      'times'))
    return result


def line_of(key: str, sample: Json) -> list[str]:
    """What was said of a move, and what it was."""
    numbers = sample['numbers']

    def text(name: str, form: str = '{:.1f}', factor: float = 1.0) -> str:
        return (form.format(numbers[name] * factor) if name in numbers
                else '-')

    return [key, text('mbit', '{:.0f}'),
            text('rate', '{:.0f}', 1 / MIB) if numbers.get('rate') else '-',
            ', '.join(sample['wsm'].get('kinds', [])),
            text('expected seconds'), text('seconds'),
            text('expected bytes', factor=1 / MIB), text('bytes',
                                                         factor=1 / MIB),
            text('expected downtime', '{:.0f}', 1000),
            text('downtime', '{:.0f}', 1000),
            text('first guess', '{:.0f}'), text('half guess', '{:.0f}')]


def prediction_table(rows: Samples) -> list[str]:
    lines = [line_of(key, sample) for key, samples in rows.items()
             for sample in samples if not sample['failure']]
    return [f'| {" | ".join(COLUMNS)} |', '|---' * len(COLUMNS) + '|',
            *(f'| {" | ".join(line)} |' for line in lines), '']


PREDICTION_ROWS = {'prediction': prediction_rows}
PREDICTION_TABLES = {'prediction': prediction_table}
PREDICTION_TITLES = {'prediction': 'What wsmctl says of a move'}
PREDICTION_NOTES = {'prediction': (
    'Guests of 256 MiB are moved by `wsmctl migrate`, there, back, and there '
    'again, over links of different speed; the agents know that speed but '
    'for "not told", and a move with a limit has it by `--rate`. Before each '
    'move the dry run is asked. "Took" is from the begin of the move in '
    'wsmctl\'s journal to its end; "sent" is what QEMU counts of disks and '
    'memory. "First line" and "line at half" are what the line of progress '
    'says that it takes in all, in seconds, at first and at half of the time. '
    '"Longer or shorter" is how many times. In "content" the old '
    'copy there was changed by somebody else, so all is compared.')}
