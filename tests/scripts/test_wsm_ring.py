# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what wsm-templates does with a ring of nodes."""

import contextlib
import hashlib
import io
import re
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from wsm.templates import ring, ring_client, sets, template_verbs

from tests.scripts.fake_memcached import FakeMemcached

VECTORS = (Path(__file__).resolve().parents[1]
           / "unit/wsm/wsm-ring-vectors.h")
VECTOR = re.compile(r'WSM_RING_VECTOR\("(.*)", "(.*)",\s+"(.*)", "(.*)"\)')
PAGES = 300


class ChooseTest(unittest.TestCase):
    """Who keeps what."""

    def test_vectors(self) -> None:
        """QEMU and we find the same nodes, and keys."""
        vectors = VECTOR.findall(VECTORS.read_text(encoding="ascii"))
        self.assertGreater(len(vectors), 20)
        for names, text, key, expected in vectors:
            page = hashlib.sha256(text.encode()).digest()
            seeds = [ring.seed(name) for name in names.split()]
            chosen = ring.choose(seeds, page, ring.MAX_REPLICAS)
            self.assertEqual(" ".join(map(str, chosen)), expected, names)
            self.assertEqual(ring.key(page).decode(), key)

    def test_replicas(self) -> None:
        """As many as are asked for, if there are."""
        seeds = [ring.seed(name) for name in "abc"]
        page = hashlib.sha256(b"page").digest()
        for replicas in 1, 2, 3:
            self.assertEqual(len(ring.choose(seeds, page, replicas)), replicas)
        self.assertEqual(ring.choose(seeds[:1], page, 2), [0])

    def test_places(self) -> None:
        """Names and addresses."""
        for text, name, address in (
                ("10.0.0.1:11211", "10.0.0.1:11211", "10.0.0.1:11211"),
                ("a=[fd00::1]:1", "a", "[fd00::1]:1"),
                ("unix:/a=b", "unix:/a=b", "unix:/a=b"),
                ("a=unix:/b=c", "a", "unix:/b=c")):
            place = ring_client.parse_place(text)
            self.assertEqual((place.name, place.address), (name, address))
        for text in ("", "a", "a=", "=a:1", "unix:", "a:b", ":1",
                     "x" * 256 + "=a:1"):
            with self.assertRaises(ValueError, msg=text):
                ring_client.parse_place(text)


class VerbTest(unittest.TestCase):
    """load and ring-check."""

    def setUp(self) -> None:
        # pylint: disable-next=consider-using-with
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        pages = [b"%04d" % number * 1024 for number in range(PAGES)]
        by_hash = {hashlib.sha256(page).digest(): page for page in pages}
        self.file = sets.write(self.folder, sorted(by_hash),
                               [by_hash[each] for each in sorted(by_hash)])[0]
        self.nodes = [self.node(name) for name in "abc"]

    def node(self, name: str) -> FakeMemcached:
        """Return a node that runs."""
        return self.enterContext(FakeMemcached(self.folder / name))

    def run_program(self, *words: object, status: int = 0) -> str:
        """Run it with the nodes; return what it says."""
        out = io.StringIO()
        line = ["wsm-templates", *map(str, words)]
        for node in self.nodes:
            line += ["--node", f"{node.address[-1]}={node.address}"]
        with (mock.patch.object(sys, "argv", line),
              contextlib.redirect_stdout(out),
              contextlib.redirect_stderr(out)):
            self.assertEqual(template_verbs.main(), status, out.getvalue())
        return out.getvalue()

    def test_load(self) -> None:
        """Each page is where QEMU looks for it, and the list is there."""
        self.assertIn("c: ", self.run_program("ring-check", self.file,
                                              status=1))
        said = self.run_program("load", self.file)
        listed = self.file.with_suffix(".list")
        self.assertIn(str(listed), said)
        with listed.open("rb") as file:
            header, wrong = sets.check(file)
        self.assertEqual((header.kind, wrong), (sets.LIST, []))
        with self.file.open("rb") as file:
            hashes = list(sets.read_entries(file, sets.read_header(file)))
        seeds = [ring.seed(name) for name in "abc"]
        for number, page in enumerate(hashes):
            keepers = ring.choose(seeds, page, 2)
            for index, node in enumerate(self.nodes):
                self.assertEqual(ring.key(page) in node.kept,
                                 index in keepers, number)
        self.assertIn(", 0 were missing\n",
                      self.run_program("ring-check", listed))
        self.assertIn("0 were missing, 0 are kept now",
                      self.run_program("load", self.file))

    def test_repair(self) -> None:
        """What is lost or damaged is seen, and brought back."""
        self.run_program("load", self.file, "--replicas", 3)
        kept = self.nodes[1].kept
        good = dict(kept)
        lost, short, wrong = list(kept)[:3]
        del kept[lost]
        kept[short] = b"x"
        kept[wrong] = bytes(4096)
        said = self.run_program("ring-check", self.file, "--replicas", 3,
                                status=1)
        self.assertIn(f"a: {PAGES} pages, 0 were missing\n", said)
        self.assertIn(f"b: {PAGES} pages, 2 were missing\n", said)
        said = self.run_program("ring-check", self.file, "--replicas", 3,
                                "--content", status=1)
        self.assertIn(f"b: {PAGES} pages, 3 were missing\n", said)
        self.run_program("load", self.file, "--replicas", 3, "--content")
        self.assertEqual(kept, good)

    def test_full(self) -> None:
        """A node that keeps no more, and one that is not there."""
        self.nodes[2].room = 10
        said = self.run_program("load", self.file, status=1)
        self.assertIn("c: it has not kept", said)
        self.assertIn("out of memory", said)
        self.nodes[0].server_close()
        Path(self.folder / "a").unlink()
        self.assertIn("a: [Errno 2]", self.run_program("ring-check", self.file,
                                                       status=1))

    def test_nonsense(self) -> None:
        """What is no answer is an error, and no page."""
        for said in (b"VA 4096 O999\r\n" + bytes(4098), b"VA x O1\r\n",
                     b"HD\r\n", b"ERROR\r\n", b"\r\n", b"VA 4096 O0\r\nx"):
            self.nodes[0].nonsense = said
            place = ring_client.parse_place(self.nodes[0].address)
            client = ring_client.Node(place, None)
            with self.assertRaises(ring_client.BadNode, msg=said):
                client.have([bytes(32)] * 3, True)
            client.close()

    def test_refused(self) -> None:
        """What cannot be is said."""
        index = self.file.with_suffix(".idx")
        self.assertIn("has no list", self.run_program("load", index, status=2))
        self.run_program("load", self.file)
        self.assertIn("has no pages", self.run_program(
            "load", self.file.with_suffix(".list"), status=2))
        self.nodes += self.nodes[:1]
        self.assertIn("same name", self.run_program("load", self.file,
                                                    status=2))


if __name__ == "__main__":
    unittest.main()
