# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of how the benchmark gets to its figures of memory by reference."""

import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional
from unittest import mock

from dev.bench import (memory_sets, plots_memory, report_memory,
                       tables_memory)
from dev.bench.memory_move import carried
from dev.bench.memory_refs import READING, Road
from dev.bench.memory_ways import (ALL, BOTH, DEFAULT, DISK, MEMORY_WAYS,
                                   PLAIN, VECYCLE, ZSTD_1)
from dev.bench.rows import Row
from dev.bench.sample import Sample
from dev.bench.settings import Settings
from dev.rig.image import MIB
from dev.rig.qmp import Json
from wsm.templates import sets

SETTINGS = Settings()


def sample(**numbers: float) -> Json:
    values = {'bytes': 1.0, 'seconds': 1.0, 'cpu source': 1.0,
              'cpu destination': 1.0, 'downtime': 100.0, 'later': 0.0}
    return Sample(DISK, 'idle').as_json() | {'numbers': values | numbers}


def failure() -> Json:
    return Sample(DISK, 'idle', failure='it failed').as_json()


def found(rows: list[Row], what: str) -> Row:
    """The one row that has this in its name."""
    row, = [row for row in rows if what in row.what]
    return row


class CarriedTest(unittest.TestCase):
    """What the link has carried at an event."""

    def test_between(self) -> None:
        """What was seen last counts, not what came after."""
        times, counts = [1.0, 2.0, 3.0], [(10, 1), (20, 2), (30, 3)]
        self.assertEqual(carried(times, counts, 2.9), (20, 2))
        self.assertEqual(carried(times, counts, 3.0), (30, 3))
        self.assertEqual(carried(times, counts, 9.0), (30, 3))
        self.assertEqual(carried(times, counts, 0.5), (10, 1))


class SetTest(unittest.TestCase):
    """Templates are what others have, and the guest is none of these."""

    PAGES = {'idle': 'abz', 'pgbench': 'ac', 'web': 'acd', 'build': 'ae'}

    def setUp(self) -> None:
        # pylint: disable-next=consider-using-with
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name, pages in self.PAGES.items():
            (self.folder / name).write_bytes(bytes(4096) + b''.join(
                page.encode() * 4096 for page in pages))
        self.settings = Settings(memory_guests=len(self.PAGES))

    def templates(self, guest: str, threshold: int) -> str:
        """One letter for each page of the set."""
        with (mock.patch.object(memory_sets, 'dump_of',
                                lambda name, memory: self.folder / name),
              mock.patch.object(memory_sets, 'guest_config', lambda *_:
                                SimpleNamespace(home=self.folder))):
            path = memory_sets.set_of(guest, threshold, self.settings)
            self.assertEqual(path, memory_sets.set_of(guest, threshold,
                                                      self.settings))
        with path.open('rb') as file:
            header, wrong = sets.check(file)
            file.seek(header.pages_at)
            pages = file.read().decode()
        self.assertEqual(wrong, [])
        return ''.join(sorted(pages[::4096]))

    def test_threshold(self) -> None:
        self.assertEqual(self.templates('idle', 2), 'ac')
        self.assertEqual(self.templates('idle', 1), 'acde')

    def test_own(self) -> None:
        """What only the guest itself has besides is no template."""
        self.assertEqual(self.templates('web', 2), 'a')

    def test_base(self) -> None:
        """Nor what only the one has that it was made from."""
        self.assertEqual(self.templates('random', 1), 'acde')


class RowsTest(unittest.TestCase):
    """Goals are of one way against another, guest by guest."""

    def rows(self, disk: Any, section: str = 'memory-siblings',
             group: str = 'idle', zstd: Optional[Json] = None) -> list[Row]:
        return report_memory.MEMORY_ROWS[section](section, {
            f'{group} {DEFAULT}': [sample(bytes=100 * MIB, seconds=10)],
            f'{group} {PLAIN}': [sample(downtime=95.0)],
            f'{group} {ZSTD_1}': [zstd or sample(bytes=40 * MIB, seconds=4)],
            f'{group} {DISK}': [disk]}, SETTINGS)

    def test_met(self) -> None:
        rows = self.rows(sample(bytes=20 * MIB))
        of_default = found(rows, f'bytes, of {DEFAULT}')
        self.assertAlmostEqual(of_default.median, 0.2)
        self.assertTrue(all(row.met() for row in rows), rows)

    def test_unmet(self) -> None:
        rows = self.rows(sample(**{'bytes': 21 * MIB, 'cpu source': 1.1,
                                   'downtime': 106.0}))
        self.assertFalse([row for row in rows if row.met()])

    def test_failed(self) -> None:
        """A goal of what failed is not met."""
        rows = self.rows(failure())
        self.assertTrue(rows)
        self.assertFalse([row for row in rows if row.met()])

    def test_absent(self) -> None:
        """What was not measured has no row."""
        rows = report_memory.siblings_rows('memory-siblings', {
            f'idle {DISK}': [sample()]}, SETTINGS)
        self.assertEqual(rows, [])

    def test_reading(self) -> None:
        """Only the guest that reads has goals for what follows."""
        disk, zstd = sample(later=4.0, bytes=10.0), sample(later=10.0,
                                                           bytes=10.0)
        rows = self.rows(disk, 'memory-hard', READING, zstd)
        self.assertAlmostEqual(found(rows, 'after the first').median, 0.4)
        rows = self.rows(disk, 'memory-hard', 'random', zstd)
        self.assertFalse([row for row in rows if 'after' in row.what])
        self.assertIs(found(rows, 'CPU').met(), True)

    def test_back(self) -> None:
        """Bytes may be more by a hundredth of RAM, in MiB."""
        def rows(more: float) -> list[Row]:
            return report_memory.back_rows('memory-back', {
                f'idle {DEFAULT}': [sample(bytes=100 * MIB)],
                f'idle {VECYCLE}': [sample(bytes=2 * MIB)],
                f'idle {ALL}': [sample(bytes=(2 + more) * MIB)]}, SETTINGS)

        self.assertEqual([row.met() for row in rows(3.1)], [True, True])
        self.assertEqual([row.met() for row in rows(3.9)], [True, False])
        self.assertEqual([row.met() for row in rows(4.1)], [False, False])

    def test_nothing_later(self) -> None:
        """One pass may have been enough."""
        rows = self.rows(sample(), 'memory-hard', READING, sample())
        self.assertEqual(found(rows, 'after the first').values, [])

    def test_far(self) -> None:
        """Each link has its goals, and a fast one has none."""
        disk = sample(seconds=2.0)
        slow = self.rows(disk, 'memory-far', '160 100')
        self.assertEqual([row.met() for row in slow], [True, True])
        self.assertEqual(self.rows(disk, 'memory-far', '1000 20'), [])
        no_limit, = self.rows(disk, 'memory-far', Road().key)
        self.assertEqual((no_limit.median, no_limit.met()), (2.0, False))


class TableTest(unittest.TestCase):
    """Guests down, ways across."""

    ROWS = {f'idle {DEFAULT}': [sample(bytes=100 * MIB)],
            f'idle {DISK}': [sample(bytes=10 * MIB)],
            f'web {DEFAULT}': [sample(bytes=50 * MIB)],
            f'web {DISK}': [failure()]}

    def test_table(self) -> None:
        lines = tables_memory.guests_table(self.ROWS)
        self.assertIn('| idle | 100.0 (100.0%) | 10.0 (10.0%) |', lines)
        self.assertIn('| web | 50.0 (100.0%) | - |', lines)
        self.assertEqual(lines[2], '| guest | default | own disk |')

    def test_roads(self) -> None:
        lines = tables_memory.roads_table({
            f'160 20 {DEFAULT}': [sample()], f'0 0 {DEFAULT}': [sample()]})
        self.assertTrue(any(line.startswith('| 160 Mbit/s, 20 ms |')
                            for line in lines))
        self.assertTrue(any(line.startswith('| no limit |')
                            for line in lines))

    def test_kinds(self) -> None:
        """How pages went, in those ways that refer to anything."""
        moved = sample() | {'wsm': {'memory': {
            'kinds': [{'kind': 'disk', 'referenced': 3 * MIB}],
            'inline': 2 * MIB, 'packed': MIB, 'missed': 0}}}
        lines = tables_memory.guests_table({
            f'idle {DISK}': [moved], f'idle {DEFAULT}': [sample()],
            f'web {BOTH}': [failure()]})
        self.assertIn('| idle | own disk | 3.0 | - | - | 2.0 | 1.0 | 0.0 |',
                      lines)
        self.assertIn('| web | disk, templates | - | - | - | - | - | - |',
                      lines)
        self.assertFalse([line for line in lines if '| default |' in line
                          and line.startswith('| idle')])

    def test_bars(self) -> None:
        """Percent of default; one that failed leaves a gap."""
        ways, bars = plots_memory.bars(self.ROWS)
        self.assertEqual(ways, [DISK])
        self.assertEqual(bars, [('idle', [10.0]), ('web', [-1.0])])
        self.assertEqual(plots_memory.bar_lines({}), [])

    def test_colours(self) -> None:
        """There is one for each way."""
        ways = [way for way in MEMORY_WAYS if way != DEFAULT]
        self.assertEqual(len(set(plots_memory.colours(ways))), len(ways))


if __name__ == '__main__':
    unittest.main()
