# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what is seen of a guest from outside: memory, writes, CPU."""

import asyncio
import mmap
import os
import struct
import threading
import time
import unittest
from unittest import mock

from wsm.agent import pages
from wsm.agent.lately import KEPT, NS, Lately, wanted, written

PAGE = pages.PAGE
COUNT = 512                     # pages, as large as no other mapping


class PagesTest(unittest.TestCase):
    """A mapping of our own stands for the guest's memory."""

    def setUp(self) -> None:
        self.size = (COUNT + 3) * PAGE
        self.memory = mmap.mmap(-1, self.size,
                                mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
        self.addCleanup(self.memory.close)
        for page in range(0, COUNT // 2):
            self.memory[page * PAGE] = 7

    def test_found(self) -> None:
        """By the sizes that QEMU tells; all of them, or none is used."""
        found = pages.blocks(os.getpid(), [self.size])
        self.assertEqual([size for _, size in found], [self.size])
        self.assertEqual(pages.blocks(os.getpid(), [self.size, 12345]), [])

    def test_digests(self) -> None:
        """Zeroes, others, and one that changes; none is made by looking."""
        start = pages.blocks(os.getpid(), [self.size])[0][0]
        untouched = start + (COUNT + 1) * PAGE
        self.memory[COUNT * PAGE] = 0           # there, and zeroes
        addresses = [start, start + PAGE, start + COUNT * PAGE, untouched]
        first = pages.digests(os.getpid(), addresses)
        self.assertEqual([bool(each) for each in first],
                         [True, True, False, False])
        with open("/proc/self/pagemap", "rb") as table:
            table.seek(untouched // PAGE * 8)
            entry, = struct.unpack("<Q", table.read(8))
        self.assertFalse(entry & pages.PRESENT)
        self.memory[5] = 1
        second = pages.digests(os.getpid(), addresses)
        self.assertNotEqual(first[0], second[0])
        self.assertEqual(first[1:], second[1:])

    def test_places(self) -> None:
        """Different pages, all within the memory, in all of its pieces."""
        ram = [(1 << 20, 40 * PAGE), (1 << 30, 60 * PAGE)]
        found = pages.places(ram, 1000)
        self.assertEqual(len(set(found)), 100)
        self.assertEqual(found[0], 1 << 20)
        self.assertEqual(found[-1], (1 << 30) + 59 * PAGE)
        self.assertEqual(len(pages.places(ram, 7)), 7)

    def test_look(self) -> None:
        """How much is in use, and what was written in each window."""
        async def write() -> None:
            await asyncio.sleep(0.02)
            for page in range(0, COUNT // 4):
                self.memory[page * PAGE + 1] = 1

        async def both() -> pages.Memory:
            task = asyncio.create_task(write())
            found = await pages.look(os.getpid(), [self.size], (0.1, 0.2))
            await task
            assert found
            return found

        found = asyncio.run(both())
        self.assertAlmostEqual(found.used / self.size, 0.5, delta=0.02)
        self.assertEqual(len(found.dirty), 2)
        for size in found.dirty.values():
            self.assertAlmostEqual(size / self.size, 0.25, delta=0.02)

    def test_none(self) -> None:
        """A process that is not there, memory that is not found."""
        for pid, sizes in ((1 << 30, [PAGE]), (os.getpid(), [12345])):
            self.assertIsNone(asyncio.run(pages.look(pid, sizes)))


class LatelyTest(unittest.TestCase):
    """Bytes per second, lately."""

    def test_rates(self) -> None:
        """Of the last half minute, not before; other QEMUs are forgotten."""
        writes = Lately()
        self.assertEqual(writes.rates(1), {})
        writes.add(1, {"vd0": 0}, 0.0)
        writes.add(1, {"vd0": 500}, 0.5)
        self.assertEqual(writes.rates(1), {})       # too short
        writes.add(1, {"vd0": 4000, "vd1": 10}, 10.0)
        self.assertEqual(writes.rates(1), {"vd0": 400.0, "vd1": 0.0})
        for when in range(20, 200, 10):
            writes.add(1, {"vd0": 4000}, float(when))
        self.assertEqual(writes.rates(1), {"vd0": 0.0})
        writes.add(2, {"vd0": 1}, 0.0)
        writes.add(2, {"vd0": int(KEPT)}, KEPT)
        writes.only([2])
        self.assertEqual(writes.rates(1), {})
        self.assertTrue(writes.rates(2))

    def test_written(self) -> None:
        """As query-blockstats has it; nodes without a device are left."""
        answer = [{"qdev": "/machine/peripheral/vd0/virtio-backend",
                   "stats": {"wr_bytes": 7}},
                  {"device": "ide0-hd0", "stats": {"wr_bytes": 8}},
                  {"node-name": "n", "stats": {"wr_bytes": 9}}]
        self.assertEqual(written(answer), {"vd0": 7, "ide0-hd0": 8})

    def test_wanted(self) -> None:
        """What each thread ran and waited; a process that is gone: nothing."""
        done, go_on = threading.Event(), threading.Event()

        def burn() -> None:
            while time.thread_time() < 0.2:
                pass
            done.set()
            go_on.wait()

        thread = threading.Thread(target=burn)
        before = wanted(os.getpid())
        thread.start()
        try:
            done.wait()
            after = wanted(os.getpid())
        finally:
            go_on.set()
            thread.join()
        name = str(thread.native_id)
        self.assertNotIn(name, before)
        self.assertGreaterEqual(after[name], 0.2 * NS)
        self.assertIn(str(os.getpid()), before)
        self.assertEqual(wanted(1 << 30), {})

    def test_wait_counts(self) -> None:
        """Of "ran waited slices" the first two; what is none is left."""
        texts = {"1": "5 70 9", "2": "3 0 1", "3": "rubbish", "4": ""}

        def read(path: str) -> str:
            return texts[path.split("/")[4]]

        with mock.patch("os.listdir", return_value=list(texts)), mock.patch(
                "wsm.agent.lately.text_of", read):
            found = wanted(7)
        self.assertEqual(found, {"1": 75, "2": 3})
