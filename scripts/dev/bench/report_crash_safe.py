# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of what the maps of missing blocks cost."""

from dev.bench.crash_safe import WITH, WITHOUT
from dev.bench.report_back import Samples, pairs
from dev.bench.rows import (Getter, Row, Value, downtime, make, number,
                            wrong_row)
from dev.bench.settings import Settings
from dev.rig.qmp import Json

LEAST_RATE = 0.9                # of the transactions without maps


def answer(name: str) -> Getter:
    """A percentile of the transactions' times in post-copy."""
    def getter(sample: Json) -> Value:
        value = sample['latency'].get('during', {}).get(name)
        return None if value is None else float(value)
    return getter


def both(section: str, rows: Samples, what: str, getter: Getter,
         unit: str) -> list[Row]:
    return [make(section, f'{kind}: {what}', rows.get(kind, []), getter,
                 unit=unit) for kind in (WITHOUT, WITH)]


def freeze_rows(section: str, rows: Samples,
                _settings: Settings) -> list[Row]:
    without, with_maps = rows.get(WITHOUT, []), rows.get(WITH, [])
    values, missing = pairs(without, with_maps, downtime,
                            lambda less, more: more - less)
    return [*both(section, rows, 'downtime', downtime, 'ms'),
            Row(section, 'more with maps, pair by pair', values, unit='ms',
                failed=missing),
            wrong_row(section, without + with_maps)]


def rate_rows(section: str, rows: Samples, what: str,
              goal: Value = None) -> list[Row]:
    values, missing = pairs(rows.get(WITHOUT, []), rows.get(WITH, []),
                            number('rate'), lambda less, more: more / less)
    return [*both(section, rows, 'missing at the end of that time',
                  number('missing at last'), 'MiB'),
            *both(section, rows, what, number('rate'), ''),
            Row(section, 'of those without maps, pair by pair', values, goal,
                '%', at_least=True, failed=missing)]


def answer_rows(section: str, rows: Samples, what: str) -> list[Row]:
    return [row for name, title in (('p50', 'median'), ('p99', '99 % within'))
            for row in both(section, rows, f'{what}, {title}', answer(name),
                            'ms')]


def flush_rows(section: str, rows: Samples,
               _settings: Settings) -> list[Row]:
    return [*rate_rows(section, rows, 'writes with a flush per second'),
            *answer_rows(section, rows, 'a flush'),
            wrong_row(section, rows.get(WITHOUT, []) + rows.get(WITH, []))]


def commit_rows(section: str, rows: Samples,
                _settings: Settings) -> list[Row]:
    return [*both(section, rows, 'transactions per second before the move',
                  lambda sample: float(sample['rate_before']) or None, ''),
            *rate_rows(section, rows, 'transactions per second in post-copy',
                       LEAST_RATE),
            *answer_rows(section, rows, 'a transaction')]


DEFAULTS = Settings()
CRASH_ROWS = {'crash-safe-freeze': freeze_rows,
              'crash-safe-flushes': flush_rows,
              'crash-safe-commits': commit_rows}
CRASH_TITLES = {
    'crash-safe-freeze': 'Downtime with maps of missing blocks and without',
    'crash-safe-flushes': 'Flushes in post-copy, with these maps and without',
    'crash-safe-commits': 'PostgreSQL in post-copy, with these maps and '
                          'without'}
CRASH_NOTES = {
    'crash-safe-freeze': (
        'A guest with 1500 writes/s moves with the option `crash-safe` on and '
        'off, in turns, over a link without a limit.'),
    'crash-safe-flushes': (
        'The worst case: nearly all blocks are missing, next to nothing is '
        'pushed, and one thread writes 4 KiB at a random place and flushes, '
        'as fast as it can; images and maps are on the disk of the machine. '
        'So nearly each flush has to make a map durable, too. In turns with '
        'the option `crash-safe` on and off.'),
    'crash-safe-commits': (
        'pgbench with as many transactions as it can, in the Debian guest of '
        'the applications, whose images are on the disk of the machine; in '
        'turns with the option `crash-safe` on and off. The one pass takes '
        f'{DEFAULTS.crash_precopy} s, so that much is missing at the handover '
        f'(`max-residue`), and for {DEFAULTS.crash_seconds:.0f} s next to '
        'nothing is pushed (`x-push-delay`). So a commit often is to a block '
        'that was missing, and waits until the map is durable, too. "Before '
        'the move" is the same guest at the source, and says how much two '
        'guests differ in any case.')}
