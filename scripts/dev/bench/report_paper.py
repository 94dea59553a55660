# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables in the form of the paper's."""

import math
import statistics
from typing import Callable

from dev.bench.limits import longest_answer
from dev.bench.paper import BACK, THERE
from dev.bench.paper_cost import GRANULARITY, OFF, ON, TESTS
from dev.bench.report_back import RowsOf, Samples, pairs, sent
from dev.bench.report_compare import text
from dev.bench.rows import (Getter, Row, Value, downtime, field_of, make,
                            number, wrong_row)
from dev.bench.settings import Settings
from dev.rig.image import MIB
from dev.rig.qmp import Json

COST = 0.01                         # of the guest's speed, as in the paper
SURE = 0.95
KINDS = {'web': 'dynamic web site', 'video': 'video stream',
         'bonnie': 'Bonnie++'}


# Moves

def blocks(name: str) -> Getter:
    return number(name, 1 / GRANULARITY)


def after_handover(sample: Json) -> Value:
    return float(sample['synchronised'] - sample['running'])


def slower(sample: Json) -> Value:
    """What clients got while it moved, relative to before."""
    if not sample['rate_before']:
        return None
    return float(sample['numbers'].get('rate during', 0)
                 / sample['rate_before'])


LINES: tuple[tuple[str, Getter, str], ...] = (
    ('total migration time (s)', field_of('synchronised'), '{:.1f}'),
    ('guest runs there after (s)', field_of('running'), '{:.1f}'),
    ('downtime (ms)', downtime, '{:.0f}'),
    ('the same, as a client sees it (ms)', field_of('gap', 1000), '{:.0f}'),
    ('data on the link, with memory (MiB)', field_of('link_bytes', 1 / MIB),
     '{:.1f}'),
    ('of that, of the disk (MiB)', lambda sample: per_mib(sent(sample)),
     '{:.1f}'),
    ('passes over the disk', number('passes'), '{:.0f}'),
    ('blocks sent again', blocks('again'), '{:.0f}'),
    ('blocks left for post-copy', blocks('left'), '{:.0f}'),
    ('of these, pulled', blocks('pulled'), '{:.0f}'),
    ('post-copy takes (s)', after_handover, '{:.2f}'),
    ("clients' throughput while it moves", slower, '{:.0%}'),
    ('longest answer, or pause of the film (ms)', longest_answer, '{:.0f}'),
    ('film stands still, times', number('stalls'), '{:.0f}'),
)


def per_mib(value: Value) -> Value:
    return None if value is None else value / MIB


def way_table(rows: Samples, way: str) -> list[str]:
    lines = [f'| | {" | ".join(KINDS.values())} |',
             '|---' * (len(KINDS) + 1) + '|']
    for title, getter, form in LINES:
        cells = [text([sample for sample in rows.get(f'{kind} {way}', [])
                       if not sample['failure']], getter, form, True)
                 for kind in KINDS]
        lines.append(f'| {title} | {" | ".join(cells)} |')
    return lines + ['']


def paper_table(rows: Samples) -> list[str]:
    return ['The way there (three-phase migration):', '',
            *way_table(rows, THERE),
            'The way back (incremental migration):', '',
            *way_table(rows, BACK)]


def paper_rows(section: str, rows: Samples, _settings: Settings) -> list[Row]:
    result = []
    for kind, title in KINDS.items():
        there = rows.get(f'{kind} {THERE}', [])
        back = rows.get(f'{kind} {BACK}', [])
        fewer, missing = pairs(there, back, sent, lambda a, b: a / max(b, 1.0))
        wrong = wrong_row(section, there + back)
        wrong.what = f"{title}: damage found in the guest's data"
        result += [
            Row(section, f'{title}: way back, disk bytes: fewer by a factor '
                'of', fewer, None, 'times', True, missing), wrong]
    return [*result,
            make(section, 'the film stands still, both ways',
                 rows.get(f'video {THERE}', [])
                 + rows.get(f'video {BACK}', []), number('stalls'), 0,
                 'times')]


# What tracking costs

def interval(values: list[float], sure: float = SURE) -> tuple[float, float,
                                                              float]:
    """(least, most, how sure) of the median, whatever the distribution.

    Between the k-th smallest and the k-th largest value with the probability
    that at least k of them are on either side of it.  With few values that is
    less than @sure even for the outermost.
    """
    ordered, total = sorted(values), len(values)

    def coverage(k: int) -> float:
        beyond = sum(math.comb(total, i) for i in range(k))
        return 1 - beyond / 2.0 ** (total - 1)

    k = 1
    while k < total // 2 and coverage(k + 1) >= sure:
        k += 1
    return ordered[k - 1], ordered[-k], coverage(k)


def losses(rows: Samples, test: str) -> tuple[list[float], int]:
    """By what share each pair's speed is lower with tracking."""
    return pairs(rows.get(OFF, []), rows.get(ON, []), number(test),
                 lambda off, on: 1 - on / off)


def cost_table(rows: Samples) -> list[str]:
    lines = [f'| MiB/s | {" | ".join(TESTS)} |',
             '|---' * (len(TESTS) + 1) + '|']
    for way, title in ((OFF, 'without tracking'), (ON, 'with tracking')):
        cells = [text(rows.get(way, []), number(test, 1 / MIB), '{:.2f}',
                      True) for test in TESTS]
        lines.append(f'| {title} | {" | ".join(cells)} |')
    values = [losses(rows, test)[0] for test in TESTS]
    for title, show in (('slower by, median of the pairs', middle),
                        ('interval of that median', between)):
        cells = [show(found) if found else '-' for found in values]
        lines.append(f'| {title} | {" | ".join(cells)} |')
    return lines + ['']


def middle(values: list[float]) -> str:
    return f'{statistics.median(values):.2%}'


def between(values: list[float]) -> str:
    least, most, sure = interval(values)
    return f'{least:.2%} to {most:.2%} (at {sure:.0%})'


def cost_rows(section: str, rows: Samples, _settings: Settings) -> list[Row]:
    result = []
    for test in TESTS:
        values, missing = losses(rows, test)
        result.append(Row(section, f'{test}: slower with tracking', values,
                          COST, '%', failed=missing))
    more, missing = pairs(rows.get(OFF, []), rows.get(ON, []), number('cpu'),
                          lambda off, on: on / off - 1)
    return [*result,
            make(section, 'CPU time of QEMU for a run, without tracking',
                 rows.get(OFF, []), number('cpu'), unit='s'),
            Row(section, 'more of it with tracking', more, None, '%',
                failed=missing)]


PAPER_ROWS: dict[str, RowsOf] = {'paper': paper_rows, 'paper-cost': cost_rows}
PAPER_TABLES: dict[str, Callable[[Samples], list[str]]] = {
    'paper': paper_table, 'paper-cost': cost_table}
PAPER_TITLES = {
    'paper': 'As in the paper: there and back',
    'paper-cost': 'As in the paper: what tracking costs a guest',
}

DEFAULTS = Settings()
PAPER_NOTES = {
    'paper': (
        'The workloads and figures of Luo, Zhang and others, "Live and '
        'Incremental Whole-System Migration of Virtual Machines Using '
        'Block-Bitmap" (IEEE Cluster 2008), with a smaller guest on a link as '
        f'fast as theirs: Debian with {DEFAULTS.app_memory} MiB of RAM and a disk of 1 '
        'GiB, more than half of it allocated, over '
        f'{DEFAULTS.paper_link_mbit} Mbit/s. It moves, stays there for '
        f'{DEFAULTS.paper_away:.0f} s, and moves back to the image that it '
        'left; clients are connected all the time, in a third network '
        'namespace. "Dynamic web site": customers of a bank on 8 '
        f'connections ask for {DEFAULTS.paper_pages} pages per second (nginx, '
        'PHP with sessions in files, PostgreSQL): one of seven is a transfer '
        'that is written, one a picture from a file. "Video stream": a '
        f'client is sent a film with {DEFAULTS.paper_video_kbit} kbit/s in '
        'ten chunks per second, which the server reads from the disk; each '
        'byte is checked. The film stands still when a player that was '
        '2 s ahead has nothing to show. "Bonnie++": again and again on a '
        f'file of {DEFAULTS.paper_bonnie_mib} MiB, without the tests that '
        'go byte by byte, in which TCG would write next to nothing; its '
        "throughput is what the guest's disk reads and writes, which depends "
        'on what Bonnie++ does just then. A block has 4 KiB. "Sent again" '
        'are those of passes after the first, before the freeze; there are '
        'such passes only if post-copy would be long without. "Left" is what is missing at the '
        'handover, and those that the guest overwrites are not sent at all. '
        'A block of the way back is sent if it was written on either side. '
        'At the end the transfers that customers were told of are looked for '
        'in the database, its balances and checksums and the file '
        'system are checked.'),
    'paper-cost': (
        'Bonnie++ in one guest that never moves, with a dirty bitmap of 4 '
        'KiB blocks on its disk, which is what a sync point costs a guest '
        f'after a move, and without one; {DEFAULTS.paper_pairs} pairs a '
        'round, in turns, each way first in every other pair. "Slower" compares the '
        'two runs of a pair; the interval is that of the median, between the '
        'k-th smallest and largest of the pairs, and needs no assumption '
        'about how they vary. The image is in memory, so no disk hides what '
        'tracking costs. TCG makes the guest slow and runs uneven: the '
        'interval says how much can be told, and CPU time, of all threads '
        'for all that Bonnie++ does, varies less. The section on instructions '
        'per write is of the block layer alone, and not noisy.'),
}
