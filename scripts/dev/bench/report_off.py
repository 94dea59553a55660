# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of what must cost nothing."""

from dev.bench.off import AFTER, BEFORE, OFF, STOCK
from dev.bench.report_back import Samples, pairs
from dev.bench.rows import Row, Value, make, number
from dev.bench.settings import Settings
from dev.rig.qmp import Json

PARTS = {'threads': 'other threads', 'nodes': 'other block nodes',
         'edges': 'other edges or permissions of the block graph',
         'bitmaps': 'other dirty bitmaps'}


def part_rows(section: str, title: str, samples: list[Json]) -> list[Row]:
    result = []
    for kind, what in PARTS.items():
        row = make(section, f'{title}: {what}', samples,
                   number(f'other {kind}'), 0)
        row.use_worst = True
        result.append(row)
    return result


def more(section: str, what: str, one: list[Json], other: list[Json],
         name: str, unit: str, goal: Value = None) -> Row:
    values, missing = pairs(one, other, number(name),
                            lambda less, more: float(round(more - less)))
    return Row(section, what, values, goal, unit, failed=missing)


def off_rows(section: str, rows: Samples, _settings: Settings) -> list[Row]:
    stock, off = rows.get(STOCK, []), rows.get(OFF, [])
    before, after = rows.get(BEFORE, []), rows.get(AFTER, [])
    result = [
        make(section, 'stock: a write in the block layer', stock,
             number('block layer'), unit='instructions'),
        more(section, 'capability off: more for that than stock', stock, off,
             'block layer', 'instructions', 0),
        make(section, 'stock: bytes of a migration stream', stock,
             number('stream')),
        more(section, 'capability off: more of them than stock', stock, off,
             'stream', '', 0),
        *part_rows(section, 'capability off, stock', off),
        *part_rows(section, 'migration over, before', after)]
    for title, samples in (('stock', stock), ('capability off', off),
                           ('never migrated', before),
                           ('migration over', after)):
        result.append(make(section, f'{title}: a guest write', samples,
                           number('guest'), unit='instructions'))
    return result


OFF_ROWS = {'off': off_rows}
OFF_TITLES = {'off': 'What must cost nothing'}
OFF_NOTES = {'off': (
    'The patched QEMU with the capability off against stock QEMU; and a QEMU '
    'to which a guest has moved (`sync-points` 0) against the one that it '
    'left, before it did. "A write in the block layer" is one of 4 KiB to a '
    'disk that stores nothing, by `qemu-img bench` under callgrind, as the '
    'difference between runs with 10000 and with 2000 writes; rounded, as '
    'such runs vary by a hundredth of an instruction. The stream is that of '
    'a paused guest with the same memory, the shortest of six, since '
    'stock QEMU itself sends a few bytes more at times. "Other" is what only '
    'one of the two has. "A guest write" is counted with perf, without the '
    'virtual CPU, while the guest writes as fast as it can; that varies by '
    'ten percent, with how many requests QEMU takes at once.')}
