# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of tests/crash/powercut.py: what a cut leaves, and what it cannot."""

import random
import tempfile
import unittest
from pathlib import Path

from dev.rig.basics import TestFailure
from tests.crash.whose import BOTH, DESTINATION, SOURCE, owner
from tests.crash.powercut import (ENTRY, LEFT, Cut, Entry, Left, Replay,
                                  cuts_of, put, read_log)

A, B, C = b"A" * 512, b"B" * 512, b"C" * 512


def named(kind: str, first: str, second: str = "", inode: int = 0) -> Entry:
    """A change of names."""
    return Entry(0, inode, 0, kind, f"{first}\n{second}".encode())


def written(inode: int, offset: int, data: bytes) -> Entry:
    """A write."""
    return Entry(0, inode, offset, "w", data)


def synced(inode: int) -> Entry:
    """A sync of a file."""
    return Entry(0, inode, 0, "s", b"")


class PowerCutTest(unittest.TestCase):
    """Histories of a few entries."""

    def outcomes(self, history: list[Entry],
                 left: Left) -> set[tuple[tuple[str, bytes], ...]]:
        """All that was seen after the cut."""
        replay = Replay("/a")
        for entry in history:
            replay.take(entry)
        chance = random.Random(1)
        return {tuple(sorted(replay.folders["/a"].left(left, chance).items()))
                for _ in range(300)}

    def only(self, history: list[Entry], left: Left) -> dict[str, bytes]:
        """The one outcome."""
        found = self.outcomes(history, left)
        self.assertEqual(len(found), 1, found)
        return dict(next(iter(found)))

    def test_names(self) -> None:
        """A file whose folder was not synced need not be there."""
        history = [named("c", "/a/x", inode=5), written(5, 0, A), synced(5)]
        self.assertEqual(self.only(history, Left.NOTHING), {})
        self.assertEqual(self.only(history, Left.ALL), {"x": A})
        self.assertEqual(self.outcomes(history, Left.SOME),
                         {(), (("x", A),)})
        history.append(named("d", "/b"))
        self.assertEqual(self.only(history, Left.NOTHING), {})
        history.append(named("d", "/a"))
        for left in Left:
            self.assertEqual(self.only(history, left), {"x": A})

    def test_data(self) -> None:
        """Each sector since the sync may be there, with the one before."""
        history = [named("c", "/a/x", inode=5), named("d", "/a"),
                   written(5, 0, A + A), synced(5), written(5, 0, B + B),
                   written(5, 512, C), synced(6)]
        self.assertEqual(self.only(history, Left.NOTHING), {"x": A + A})
        self.assertEqual(self.only(history, Left.ALL), {"x": B + C})
        self.assertEqual({dict(found)["x"] for found
                          in self.outcomes(history, Left.SOME)},
                         {first + second for first in (A, B)
                          for second in (A, B, C)})
        self.assertEqual(self.only(history + [synced(5)], Left.SOME),
                         {"x": B + C})

    def test_rename(self) -> None:
        """As a whole, in their order; the data needs a sync of its own."""
        history = [named("c", "/a/x", inode=5), written(5, 0, A), synced(5),
                   named("d", "/a"),
                   named("c", "/a/new", inode=6), written(6, 0, B), synced(6),
                   named("r", "/a/new", "/a/x")]
        self.assertEqual(self.only(history, Left.NOTHING), {"x": A})
        self.assertEqual(self.only(history, Left.ALL), {"x": B})
        self.assertEqual(self.outcomes(history, Left.SOME),
                         {(("x", A),), (("new", B), ("x", A)), (("x", B),)})
        self.assertEqual(self.only(history + [named("d", "/a")], Left.SOME),
                         {"x": B})
        del history[6]
        self.assertEqual(self.only(history + [named("d", "/a")],
                                   Left.NOTHING), {"x": b""})

    def test_removed(self) -> None:
        """It may come back, until the folder is synced; its inode is free."""
        history = [named("c", "/a/x", inode=5), written(5, 0, A), synced(5),
                   named("d", "/a"), named("u", "/a/x")]
        self.assertEqual(self.only(history, Left.NOTHING), {"x": A})
        self.assertEqual(self.only(history, Left.ALL), {})
        history += [named("c", "/a/y", inode=5), written(5, 0, B), synced(5)]
        self.assertEqual(self.only(history, Left.NOTHING), {"x": A})
        self.assertEqual(self.only(history + [named("d", "/a")],
                                   Left.NOTHING), {"y": B})

    def test_truncated(self) -> None:
        """A size is like a write."""
        history = [named("c", "/a/x", inode=5), named("d", "/a"),
                   written(5, 0, A + B), synced(5), Entry(0, 5, 512, "t", b""),
                   written(5, 1024, C)]
        self.assertEqual(self.only(history, Left.NOTHING), {"x": A + B})
        self.assertEqual(self.only(history, Left.ALL),
                         {"x": A + bytes(512) + C})

    def test_cuts(self) -> None:
        """All that can be left of two hosts, the same each time."""
        log = [named("c", "/a/x", inode=5), named("d", "/a"),
               named("c", "/b/y", inode=6), named("d", "/b"),
               written(5, 0, A), synced(5), written(5, 0, B),
               written(6, 0, A * 64), synced(6), written(6, 0, B * 64)]

        def cuts(where: set[int], draws: int = 1) -> list[Cut]:
            return list(cuts_of(log, where, 3, draws))

        found = cuts({7, 9})
        self.assertEqual([(cut.place, cut.left) for cut in found],
                         [(place, left) for place in (7, 9) for left in LEFT])
        for cut in found:
            ours, theirs = cut.files[0]["x"], cut.files[1]["y"]
            self.assertIn(ours, {Left.ALL: (B,), Left.NOTHING: (A,),
                                 Left.SOME: (A, B)}[cut.left[0]])
            before, now = ((b"", A * 64) if cut.place == 7 else
                           (A * 64, B * 64))
            if cut.left[1] is Left.SOME:
                self.assertNotIn(theirs, (before, now))
            else:
                self.assertEqual(theirs, now if cut.left[1] is Left.ALL
                                 else before)
        self.assertEqual(cuts({9}), found[len(LEFT):])
        drawn = {cut.files[1]["y"] for cut in cuts({9}, 5)
                 if cut.left == (Left.ALL, Left.SOME)}
        self.assertEqual(len(drawn), 5)
        # It is known after the write that it is, and forgotten by the next
        self.assertEqual([cut.files[1]["y"] for cut in cuts({8, 9})
                          if cut.left == (Left.ALL, Left.ALL)],
                         [A * 64, B * 64])

    def test_log(self) -> None:
        """The file that logfs.c writes."""
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "log"
            path.write_bytes(ENTRY.pack(1500000000, 7, 512, 3, b"w") + b"abc"
                             + ENTRY.pack(2 * 10 ** 9, 7, 0, 0, b"s"))
            self.assertEqual(list(read_log(path)),
                             [Entry(1.5, 7, 512, "w", b"abc"),
                              Entry(2, 7, 0, "s", b"")])
            whole = path.read_bytes()
            for size in range(len(whole) - ENTRY.size, len(whole)):
                path.write_bytes(whole[:size])
                self.assertEqual(len(list(read_log(path))), 1)
            path.write_bytes(whole[:ENTRY.size + 2])
            self.assertEqual(list(read_log(path)), [])
            put({"x": A}, Path(name) / "left")
            put({"y": B}, Path(name) / "left")
            self.assertEqual([(file.name, file.read_bytes()) for file
                              in (Path(name) / "left").iterdir()], [("y", B)])


class OwnerTest(unittest.TestCase):
    """Whose disk it is."""

    def test_owner(self) -> None:
        """One of them has the guest, or both images together."""
        for whose, source, destination in (
                (SOURCE, "current", "incomplete"),
                (SOURCE, "leaving current", "incomplete incomplete"),
                (SOURCE, "leaving leaving", "arriving incomplete"),
                (BOTH, "leaving leaving", "arriving current"),
                (DESTINATION, "handed-over leaving", "current current")):
            self.assertEqual(owner(source.split(), destination.split()), whose)

    def test_nobody_or_both(self) -> None:
        """Two copies that would run, or none."""
        for source, destination in (
                ("current", "current"), ("current", "arriving"),
                ("handed-over", "incomplete"), ("handed-over", "arriving"),
                ("leaving current", "current current")):
            with self.assertRaises(TestFailure):
                owner(source.split(), destination.split())
