# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of scripts/wsm-templates, with digests and pages made by hand."""

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unittest
import uuid
from array import array
from collections import Counter
from pathlib import Path
from unittest import mock

from wsm.templates import builder, choose, memory_files, sets

PROGRAM = Path(__file__).resolve().parents[2] / "scripts/wsm-templates"
A, B, C = (uuid.UUID(int=number) for number in (1, 2, 3))


def page(number: int) -> bytes:
    """Return a page that is as no other."""
    return struct.pack(">Q", number) * 512


def prefix(number: int) -> int:
    """Return the prefix of a page."""
    return int.from_bytes(hashlib.sha256(page(number)).digest()[:8], "big")


def prefixes(numbers: range | list[int]) -> "array[int]":
    return array("Q", sorted(prefix(number) for number in numbers))


class ProgramTest(unittest.TestCase):
    """Tests that run the program in a folder of their own."""

    def setUp(self) -> None:
        # pylint: disable-next=consider-using-with
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def run_program(self, *words: object, status: int = 0) -> str:
        """Run it and return what it says."""
        done = subprocess.run([sys.executable, PROGRAM, *map(str, words)],
                              check=False, capture_output=True, text=True,
                              cwd=self.folder)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def digest(self, name: str, numbers: range | list[int],
               guest: uuid.UUID = memory_files.NOBODY) -> Path:
        path = self.folder / name
        path.write_bytes(memory_files.encode_digest(prefixes(numbers), guest))
        return path

    def pages(self, name: str, numbers: range | list[int]) -> Path:
        path = self.folder / name
        path.write_bytes(
            memory_files.Header(memory_files.CONTENT, len(numbers),
                                A).encode()
            + b"".join(map(page, numbers)))
        return path

    def wanted(self) -> "array[int]":
        return memory_files.read_digest(self.folder / "wanted").prefixes

    def built(self, numbers: range | list[int]) -> Path:
        """Make a set; return its file with the pages."""
        said = self.run_program("build", "--folder", "sets",
                                self.pages("exported", numbers))
        return self.folder / said.splitlines()[1]


class ChooseTest(ProgramTest):
    """Which pages are wanted."""

    def test_threshold(self) -> None:
        """Guests are counted."""
        names = [self.digest("a", range(0, 30), A),
                 self.digest("b", range(10, 40), B),
                 self.digest("c", range(20, 50), C)]
        for threshold, numbers in ((2, range(10, 40)), (3, range(20, 30))):
            self.run_program("choose", "-o", "wanted", "--scope", "acme",
                             "--threshold", threshold, *names)
            self.assertEqual(self.wanted(), prefixes(numbers))
        self.assertEqual(os.stat(self.folder / "wanted").st_mode & 0o777,
                         0o600)

    def test_same_guest(self) -> None:
        """Two digests of a guest are one; of those without UUID two."""
        twice = [self.digest("mo", range(9), A),
                 self.digest("tu", range(9), A)]
        said = self.run_program("choose", "-o", "wanted", "--scope", "acme",
                                *twice, status=2)
        self.assertIn("these are 1 guests, and 2 must have a page", said)
        other = [self.digest("x", range(5)), self.digest("y", range(5))]
        self.run_program("choose", "-o", "wanted", "--scope", "acme", *other)
        self.assertEqual(self.wanted(), prefixes(range(5)))

    def test_tenants(self) -> None:
        """What guests of one tenant have in common is its own."""
        one, two = (self.digest("a", range(0, 30), A),
                    self.digest("b", range(0, 30), B))
        three = self.digest("c", range(20, 40), C)
        self.run_program("choose", "-o", "wanted", f"x={one}", f"x={two}",
                         f"y={three}")
        self.assertEqual(self.wanted(), prefixes(range(20, 30)))
        said = self.run_program("choose", "-o", "w", one, two, status=2)
        self.assertIn("say whose guest it is", said)
        said = self.run_program("choose", "-o", "w", f"x={one}", f"x={two}",
                                status=2)
        self.assertIn("no page is wanted", said)

    def test_cap(self) -> None:
        """The most frequent ones stay."""
        names = [self.digest("a", range(0, 30), A),
                 self.digest("b", range(0, 30), B),
                 self.digest("c", range(20, 30), C)]
        self.run_program("choose", "-o", "wanted", "--scope", "acme",
                         "--max-pages", 10, *names)
        self.assertEqual(self.wanted(), prefixes(range(20, 30)))

    def test_one_is_none(self) -> None:
        """A threshold of one would publish what one guest has."""
        self.assertIn("no template", self.run_program(
            "choose", "-o", "w", "--threshold", 1, "a", status=2))

    def test_bad_digests(self) -> None:
        """Each is named, with what is wrong."""
        good = self.digest("a", range(9), A).read_bytes()
        for data, text in (
                (b"", "QEMU has not finished it"),
                (bytes(64) + good[64:], "QEMU has not finished it"),
                (good[:63], "no digest and no pages that QEMU wrote"),
                (b"w" + good[1:], "no digest and no pages"),
                # The header of a file of kept memory
                (b"WSM-KEPT" + good[8:], "no digest and no pages"),
                (good[:11] + b"\2" + good[12:], "version 2 is not 1"),
                (good[:15] + b"\2" + good[16:], "kind 2 is not 1"),
                (good[:18] + b"\0" + good[19:], "not of this machine's"),
                (good[:63] + b"\1" + good[64:], "not of this machine's"),
                (good[:-1], "bytes are not those of 9 entries"),
                (good[:64] + good[72:80] + good[64:72] + good[80:],
                 "do not ascend"),
                (good[:72] + good[64:72] + good[80:], "do not ascend")):
            (self.folder / "bad").write_bytes(data)
            said = self.run_program("choose", "-o", "w", "--scope", "acme",
                                    "a", "bad", status=2)
            self.assertIn("bad: ", said)
            self.assertIn(text, said)

    def test_table(self) -> None:
        """Sizes of sets, and what the others have of each guest."""
        names = [self.digest("a", range(0, 20), A),
                 self.digest("b", range(0, 10), B),
                 self.digest("c", range(5, 15), C)]
        rows = [line.split() for line
                in self.run_program("table", *names).splitlines()]
        self.assertEqual(rows[1], ["in", "guests", "MiB", "a", "b", "c"])
        self.assertEqual(rows[2:], [["1", "0.1", "75.0", "100.0", "100.0"],
                                    ["2", "0.1", "25.0", "50.0", "50.0"]])


class CountTest(unittest.TestCase):
    """Counting against plain sets, in ranges of a few prefixes."""

    def test_random(self) -> None:
        """Whatever the ranges, each prefix is counted once for a guest."""
        rng = random.Random(7)
        for most in (1, 7, 10000):
            guests = [choose.Guest(str(number), str(number % 3), array(
                "Q", sorted(rng.sample(range(0, 2 ** 64, 2 ** 56 + 1), 60))))
                for number in range(6)]
            shadow = Counter(value for guest in guests
                             for value in guest.prefixes)
            tenants = Counter(value for tenant in "012" for value in {
                value for guest in guests if guest.tenant == tenant
                for value in guest.prefixes})
            with mock.patch.object(choose, "AT_ONCE", most):
                for threshold in (2, 3, 4):
                    for needed in (1, 2, 3):
                        self.assertEqual(
                            list(choose.choose(guests, threshold, needed)),
                            sorted(value for value, n in shadow.items()
                                   if n >= threshold
                                   and tenants[value] >= needed))
                for row in choose.table(guests, 4):
                    self.assertEqual(row.pages, sum(
                        n >= row.threshold for n in shadow.values()))
                    self.assertEqual(row.hits, [
                        sum(shadow[value] - 1 >= row.threshold
                            for value in guest.prefixes)
                        for guest in guests])


class SetTest(ProgramTest):
    """Sets that are made, and checked."""

    def test_bytes(self) -> None:
        """As docs/templates.md has it, and tests/unit/wsm/test-wsm-set.c."""
        path = self.built([5, 3, 4, 3])
        hashes = sorted(hashlib.sha256(page(number)).digest()
                        for number in (3, 4, 5))
        contents = {hashlib.sha256(page(n)).digest(): page(n)
                    for n in (3, 4, 5)}
        identity = hashlib.sha256(b"".join(hashes)).digest()
        for kind, ending, entries in (
                (1, b"".join(contents[each] for each in hashes),
                 b"".join(hashes)),
                (3, b"", b"".join(each[:8] for each in hashes))):
            data = (b"WSM-SET\n" + struct.pack(">IIIIQ", 1, kind, 4096, 0, 3)
                    + identity).ljust(4096, b"\0")
            data += entries.ljust(4096, b"\0") + ending
            name = path.with_suffix({1: ".pages", 3: ".idx"}[kind])
            self.assertEqual(name.read_bytes(), data)
            self.assertEqual(os.stat(name).st_mode & 0o777, 0o640)
        self.assertEqual(path.stem, identity.hex())
        self.assertEqual(path.parent.name, "public")
        self.run_program("check", path, path.with_suffix(".idx"))
        shown = json.loads(self.run_program("show", "--json", path))["sets"]
        self.assertEqual(shown[0]["id"], identity.hex())
        self.assertEqual(shown[0]["pages"], 3)
        self.assertEqual([*path.parent.glob(".new-*")], [])

    def test_wanted(self) -> None:
        """Only what is wanted gets in, and what is not there is told."""
        self.digest("wanted", [1, 2, 7])
        said = self.run_program("build", "--folder", "sets", "--wanted",
                                "wanted", self.pages("x", range(6)))
        self.assertIn("1 of 3 wanted pages were not exported", said)
        self.assertIn("2 pages", said)

    def test_same_prefix(self) -> None:
        """Of two pages with the same prefix there is one."""
        found = memory_files.Place(Path("x"), 0)
        pairs = [(bytes(8) + bytes([number]) * 24, found) for number in (1, 2)]
        with mock.patch("wsm.templates.sets.write") as write:
            builder.build(self.folder, builder.gather(pairs))
        self.assertEqual(write.call_args.args[1], [pairs[0][0]])

    def test_check(self) -> None:
        """One wrong bit anywhere is found, and each size but the right one."""
        path = self.built(range(200))
        good = path.read_bytes()
        for at in (0, 9, 14, 20, 31, 33, 64, 4095, 4096, 4096 + 199 * 32,
                   12288, len(good) - 1):
            bad = bytearray(good)
            bad[at] ^= 1
            path.write_bytes(bad)
            self.run_program("check", path, status=1)
        for data in (good[:-1], good + b"\0", good[:4095], b""):
            path.write_bytes(data)
            self.run_program("check", path, status=1)
        path.write_bytes(good[:12288] + b"x" + good[12289:])
        self.assertIn("1 pages are damaged, the first is number 0",
                      self.run_program("check", path, status=1))

    def test_not_sorted(self) -> None:
        """A list out of order is refused although its ID is right."""
        hashes = [hashlib.sha256(page(n)).digest() for n in range(5)]
        for order in (sorted(hashes, reverse=True), sorted(hashes) * 2,
                      [bytes(32), bytes(31) + b"\1"]):
            path = sets.write(self.folder, order,
                              [each * 128 for each in order])[0]
            self.assertIn("is not behind the one before",
                          self.run_program("check", path, status=1))

    def test_images(self) -> None:
        """Blocks of a raw image, but no zeroes, and not what ends it."""
        image = self.folder / "golden.raw"
        image.write_bytes(page(1) + bytes(8192) + page(2) + page(1) + b"x")
        said = self.run_program("build", "--folder", "sets", "--from-image",
                                image)
        self.assertIn("2 pages", said)
        image.write_bytes(b"QFI\xfb" + bytes(4092))
        self.assertIn("qemu-img convert", self.run_program(
            "build", "--folder", "sets", "--from-image", image, status=2))

    def test_nothing(self) -> None:
        """No set of nothing, and none of what is not there."""
        cases: list[tuple[list[object], str]] = [
            ([], "say of what"),
            ([self.pages("none", [])], "there is no page"),
            ([self.folder / "away"], "No such file"),
            (["--wanted", "w", "--from-image", "i"], "a set of its own")]
        for words, text in cases:
            self.assertIn(text, self.run_program(
                "build", "--folder", "sets", *words, status=2))
        for name in ("", "a/b", "..\n", "x" * 65, "ä"):
            self.assertIn("letters, digits", self.run_program(
                "build", "--folder", "s", "--scope", name, "x", status=2))

    def test_prune(self) -> None:
        """The newest stay, with both files; what else is there stays."""
        names = [self.built([number]) for number in range(5)]
        for number, path in enumerate(names):
            for suffix in (".pages", ".idx"):
                os.utime(path.with_suffix(suffix), (number, number))
        left, new = names[0].parent / ".new-x", names[0].parent / ".new-y"
        note = names[0].parent / "note"
        for path in (left, new, note):
            path.touch()
        os.utime(left, (1, 1))
        self.run_program("prune", "--dry-run", names[0].parent)
        self.assertTrue(names[0].exists())
        self.run_program("prune", names[0].parent)
        self.assertEqual(
            sorted(names[0].parent.iterdir()),
            sorted([path.with_suffix(suffix) for path in names[3:]
                    for suffix in (".pages", ".idx")] + [new, note]))


if __name__ == "__main__":
    unittest.main()
