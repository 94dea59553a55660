# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of wsm/missing_map.py and of wsm-info with maps made by hand."""

import hashlib
import json
import random
import struct
import subprocess
import sys
import tempfile
import unittest
import uuid
from pathlib import Path
from typing import Any, Optional

from wsm import missing_map
from wsm.missing_map import (FILE_BYTES, BadMap, Other, Uncommitted, Void,
                             Wanted, crc32c, load_map, without)

PROGRAM = Path(__file__).resolve().parents[2] / "scripts/wsm-info"
SESSION = uuid.UUID(bytes=b"0123456789abcdef")
SIZE = 10 * 4096
PAGE = 4096
DISK = 1
WANTED = Wanted(str(SESSION), SIZE, DISK)
LIST = bytes([2, 3, 4, 1])
# As C writes it: tests/unit/wsm/test-wsm-map.c has the same bytes
HEAD = bytes.fromhex(
    "57534d4d41500a1a 00000001 4529e95f 0000000000000001"
    "30313233343536373839616263646566 0001 0002 0003 0000 00001000 00000004"
    "000000000000a000 0000000000002000 0000000000014000 a1cf4aea 00000000"
    "0000000000004000 00000000000000000000000000000000 0004 0000 00000102")
PATH = b"/machine/peripheral/vd0"
RECORD = bytes.fromhex(
    "57534d52 d0749bb7 0000000000000001 0000000000000001"
    "30313233343536373839616263646566 00000002 00000000 03 01")


def with_sum(data: bytes, at: int) -> bytes:
    """Return @data with its sum."""
    data = data[:at] + bytes(4) + data[at + 4:]
    return data[:at] + struct.pack(">I", crc32c(data)) + data[at + 4:]


def record(generation: int, serial: int, runs: bytes,
           session: uuid.UUID = SESSION) -> bytes:
    """Return a record."""
    return with_sum(struct.pack(">4sIQQ16sII", b"WSMR", 0, generation, serial,
                                session.bytes, len(runs), 0) + runs, 4)


class MapTest(unittest.TestCase):
    """Read maps."""

    def setUp(self) -> None:
        """Make an image with a record and a good map."""
        # pylint: disable=consider-using-with
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.image = Path(folder.name) / "disk.raw"
        self.image.write_bytes(bytes(SIZE))
        self.path = Path(f"{self.image}.wsm.map")
        self.more: dict[str, Any] = {"map-disk": DISK}
        self.data = bytearray(42 * PAGE)
        self.bytes = FILE_BYTES                 # of the file, at least
        self.put(PAGE, HEAD)
        self.put(PAGE + 160, struct.pack(">H512sH512s", len(PATH), PATH, 3,
                                         b"vd0"))
        self.put(2 * PAGE, LIST)
        self.put(3 * PAGE, RECORD)

    def put(self, at: int, data: bytes) -> None:
        """Change the map."""
        self.data[at:at + len(data)] = data

    def forge(self, at: int, data: bytes, index: int = 1) -> None:
        """Change a head, and put its sum right."""
        page = index * PAGE
        self.put(page + at, data)
        self.put(page, with_sum(bytes(self.data[page:page + PAGE]), 12))

    def second(self) -> None:
        """Add generation 2 in the area behind: block 2 is not missing."""
        self.put(0, bytes(self.data[PAGE:2 * PAGE]))
        runs = bytes([2, 1, 1, 1, 4, 1])
        for at, value in ((16, 2), (64, 22 * PAGE), (88, 3 * PAGE)):
            self.forge(at, struct.pack(">Q", value), 0)
        self.forge(52, struct.pack(">I", len(runs)), 0)
        self.forge(80, struct.pack(">I", crc32c(runs)), 0)
        self.put(22 * PAGE, runs)
        self.put(23 * PAGE, record(2, 1, bytes([2, 1])))
        self.put(24 * PAGE, record(2, 2, bytes([9, 1])))

    def write(self) -> None:
        """Make the file."""
        self.path.write_bytes(self.data.ljust(self.bytes, b"\0"))

    def load(self, disk: Optional[int] = DISK
             ) -> Optional[list[tuple[int, int]]]:
        """Return what is missing."""
        self.write()
        missing = load_map(self.path, Wanted(str(SESSION), SIZE, disk))
        return missing.runs if missing else None

    def fails(self, kind: type[Exception], text: str) -> None:
        """It cannot be used."""
        with self.assertRaises(kind) as caught:
            self.load()
        self.assertIs(type(caught.exception), kind)
        self.assertIn(text, str(caught.exception))

    def test_sample(self) -> None:
        """The bytes of the C test."""
        self.assertEqual(crc32c(b"123456789"), 0xe3069283)
        self.assertIsNone(load_map(self.path, WANTED))
        self.assertEqual(self.load(), [(8192, 4096), (16384, 4096),
                                       (36864, 4096)])
        self.second()
        self.assertEqual(self.load(), [(16384, 4096)])

    def test_next_record(self) -> None:
        """What counts and what does not where the next record would be."""
        other = uuid.UUID(int=1)
        runs = bytes([2, 1])
        for data, count in ((record(1, 2, runs), 2), (record(0, 2, runs), 3),
                            (record(1, 1, runs), 3),
                            (record(1, 2, runs, other), 3)):
            self.put(4 * PAGE, bytes(PAGE))
            self.put(4 * PAGE, data)
            self.assertEqual(len(self.load() or []), count)
        for generation, serial in (1, 3), (2, 1):
            self.put(4 * PAGE, record(generation, serial, runs))
            self.fails(BadMap, f"record {serial} of generation {generation}")

    def test_damage(self) -> None:
        """Never "nothing is missing", nor an earlier state."""
        self.second()
        good = bytes(self.data)
        for at, text in ((20, "record 1 of generation 2 is there"),
                         (22 * PAGE, "is not whole"),
                         (23 * PAGE + 9, "record 2 of generation 2 is there")):
            self.data[at] ^= 1
            self.fails(BadMap, text)
            self.put(0, good)
        self.data[24 * PAGE + 9] ^= 1           # the last one may be torn
        self.assertEqual(len(self.load() or []), 2)
        self.put(0, good)
        self.data[20] ^= 1
        self.data[PAGE + 20] ^= 1
        self.fails(BadMap, "its heads are damaged")
        self.put(0, good)
        for self.bytes in 0, 8191, 2 * PAGE, 4 * PAGE, FILE_BYTES - 1:
            del self.data[self.bytes:]
            self.fails(BadMap, f"cut off: it has {self.bytes} bytes")
            self.data = bytearray(good)
        self.path.unlink()
        self.path.mkdir()
        with self.assertRaises(BadMap):
            load_map(self.path, WANTED)

    def test_uncommitted(self) -> None:
        """No head, or a torn one, or a torn list, and nothing behind it."""
        self.data[PAGE] ^= 1
        self.fails(BadMap, "record 1 of generation 1 is there")
        self.put(3 * PAGE, bytes(PAGE))
        self.fails(Uncommitted, "has not run here")
        self.data[PAGE] ^= 1
        self.assertEqual(len(self.load() or []), 2)
        self.data[2 * PAGE] ^= 1
        self.fails(Uncommitted, "has not run here")
        self.put(PAGE, bytes(PAGE))
        self.fails(Uncommitted, "has not run here")

    def test_heads(self) -> None:
        """What a head may not say."""
        good = bytes(self.data)
        for at, data, kind, text in (
                (11, b"\2", BadMap, "version 2 is not 1"),
                (23, b"\2", BadMap, "generation 2 is in page 1"),
                (23, b"\3", BadMap, "but not the one before"),
                (24, b"1", Other, f"and the image of {SESSION}"),
                (63, b"\1", BadMap, "it is of a disk of 40961 bytes"),
                (41, b"\0", BadMap, "it is of disk 0, and the image of disk 1"),
                (96, b"\1", BadMap, "was started again since"),
                (115, b"\1", BadMap, "what is not known"),
                (120, b"\1", BadMap, "what is not known"),
                (1188, b"\1", BadMap, "what is not known"),
                (46, b"\0\2", BadMap, "what is not known"),
                (46, b"\0\1", Void, "could not write it any more"),
                (50, b"\7", BadMap, "that cannot be"),
                (43, b"\1", BadMap, "that cannot be"),
                (70, b"\x10", BadMap, "an area of"),
                (94, b"\x30", BadMap, "its head says 12288")):
            self.forge(at, data)
            self.fails(kind, text)
            self.put(0, good)
        # Records did not always say which disk it is
        self.assertEqual(len(self.load(None) or []), 3)

    def test_boot(self) -> None:
        """Without flushes it is good as long as this kernel runs."""
        boot = missing_map.this_boot()
        self.assertEqual(len(boot), 16)
        self.forge(96, boot)
        self.assertEqual(len(self.load() or []), 3)

    def test_without(self) -> None:
        """Against a set, also of marks that overlap."""
        rng = random.Random(1)
        for _ in range(300):
            blocks = sorted(rng.sample(range(60), rng.randint(0, 60)))
            runs = [(block, 1) for block in blocks]
            marks = [(rng.randint(0, 59), rng.randint(1, 9))
                     for _ in range(rng.randint(0, 9))]
            gone = {block for first, count in marks
                    for block in range(first, first + count)}
            left = [block for first, count in without(runs, marks)
                    for block in range(first, first + count)]
            self.assertEqual(left, [block for block in blocks
                                    if block not in gone])
        self.assertEqual(list(without([(0, 10)], [(3, 2), (4, 3)])),
                         [(0, 3), (7, 3)])

    def info(self, *words: str) -> tuple[int, str]:
        """Run wsm-info."""
        body = json.dumps({"state": "incomplete", "session": str(SESSION),
                           "time": 1700000000, "disk-size": SIZE,
                           "points": [], "peer": "alpha:4444", **self.more})
        digest = hashlib.sha256(body.encode()).hexdigest()
        Path(f"{self.image}.wsm").write_text(
            f"wsm-record {1 + bool(self.more)} {digest}\n{body}",
            encoding="utf-8")
        self.write()
        done = subprocess.run(
            [sys.executable, "-B", PROGRAM, *words, self.image], check=False,
            capture_output=True, text=True, timeout=30)
        self.assertEqual(done.stderr, "")
        return done.returncode, done.stdout

    def facts(self, *words: str) -> Any:
        """Return what it says to machines."""
        return json.loads(self.info("--json", *words)[1])["images"][0]

    def test_info(self) -> None:
        """State, and what is missing."""
        status, text = self.info()
        self.assertEqual(status, 1)
        self.assertIn("arriving: it is the guest's disk", text)
        self.assertIn("other host: alpha:4444", text)
        self.assertIn(".wsm.map: 12288 bytes are missing", text)
        self.assertNotIn("bytes at", text)
        self.assertIn("4096 bytes at 36864", self.info("--missing")[1])
        self.assertEqual(self.facts()["state"], "arriving")
        self.assertNotIn("missing", self.facts())
        self.assertEqual(self.facts("--missing")["missing"][2],
                         {"offset": 36864, "bytes": 4096})

    def test_info_of_the_end(self) -> None:
        """All was there, and durable; only the record was still to go."""
        for number, block in enumerate((2, 4), 2):
            self.put((2 + number) * PAGE, record(1, number,
                                                 bytes([block, 1])))
        self.assertEqual(self.facts()["state"], "arriving")
        self.put(6 * PAGE, record(1, 4, bytes([9, 1])))
        self.assertEqual(self.facts()["state"], "current")
        self.assertEqual(self.info()[0], 0)

    def test_info_of_bad_maps(self) -> None:
        """One that cannot be used is no reason to remove the image."""
        self.data[2 * PAGE] ^= 1
        status, text = self.info("--missing")
        self.assertEqual(status, 2)
        self.assertIn("arriving", text)
        self.assertIn("ERROR: map ", text)
        self.assertEqual(self.facts()["map"]["state"], "unusable")
        self.data = bytearray(42 * PAGE)
        self.assertEqual(self.facts()["state"], "incomplete")
        self.assertEqual(self.facts()["map"]["state"], "not-yet")
        status, text = self.info()
        self.assertEqual(status, 1)
        self.assertIn("has not run here", text)
        self.put(PAGE, HEAD)
        self.forge(24, b"0")
        self.more = {"map-disk": 2}
        self.assertIn("and the image of disk 2", self.info()[1])
        self.assertEqual(self.facts()["map"]["state"], "unusable")
        self.assertEqual(self.facts()["state"], "arriving")
        self.more = {}
        self.forge(24, b"1")
        self.assertEqual(self.facts()["map"]["state"], "other")
        self.assertEqual(self.facts()["state"], "incomplete")

    def test_info_of_a_node(self) -> None:
        """A map that is not beside the image is not one that is not there."""
        self.more["map-node"] = "lv0"
        status, text = self.info()
        self.assertEqual(status, 1)
        self.assertIn("arriving", text)
        self.assertIn("map: on the block node 'lv0'", text)
        self.assertIn("option 'maps'", text)
        self.assertEqual(self.facts()["map"], {"node": "lv0",
                                               "state": "on-node"})
