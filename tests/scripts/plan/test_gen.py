# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of fleets in files: made, read, and compared."""

import json
import tempfile
import unittest
from pathlib import Path

from wsm.plan.plain import BadData
from wsm.sim import gen

from tests.scripts.typed import typed

SMALL = ("sim", "gen", "--hosts", "4", "--vms", "120", "--days", "0.1", "--load",
         "0.6", "--out")


class GenTest(unittest.TestCase):
    """A file."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()  # pylint: disable=R1732
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def file(self, name: str, *words: str) -> Path:
        """Make one."""
        path = self.folder / name
        self.assertEqual(typed(*SMALL, str(path), *words)[0], 0)
        return path

    def test_same(self) -> None:
        """A seed makes the same file, packed or not; another another."""
        one, two = self.file("a"), self.file("b")
        packed, other = self.file("a.xz"), self.file("c", "--seed", "2")
        self.assertEqual(one.read_bytes(), two.read_bytes())
        self.assertEqual(packed.read_bytes(), self.file("d.xz").read_bytes())
        self.assertNotEqual(one.read_bytes(), other.read_bytes())
        found = gen.read(one)
        self.assertEqual(found, gen.read(packed))
        self.assertEqual((len(found.hosts), len(found.vms), found.steps),
                         (4, 120, 28))
        used = sum(map(found.mean, found.vms)) / sum(
            host.cores for host in found.hosts)
        self.assertAlmostEqual(used, 0.6, delta=0.1)

    def test_verbs(self) -> None:
        """Compared, and measured: what the file has, whatever else is said."""
        path = str(self.file("a.xz"))
        status, text = typed("sim", "compare", "--load", path, "--rule", "none",
                             "--rule", "ours", "--json")
        self.assertEqual(status, 0, text)
        self.assertEqual(sorted(json.loads(text)), ["none 1", "ours 1"])
        self.assertEqual(text, typed("sim", "compare", "--load", path,
                                     "--rule", "none", "--rule", "ours",
                                     "--json")[1])
        status, text = typed("sim", "scale", "--load", path, "--rounds", "3")
        self.assertEqual(status, 0, text)
        self.assertIn("4 hosts, 120 VMs", text)

    def test_bad(self) -> None:
        """What is no such file is named, with its line."""
        lines = self.file("a").read_text("ascii").splitlines()
        vm = json.loads(lines[5])
        for text, words in (
                ("", "has 0 hosts"), ("x", "a:1"), (lines[1], "a:1: the first"),
                ("\n".join([lines[0], "[]"]), "a:2: is no JSON object"),
                ("\n".join([lines[0], '{"x": 1}']), "a:2: is no host"),
                ("\n".join([lines[0], lines[5]]), "no host " + vm["on"]),
                ("\n".join([*lines[:5], json.dumps({**vm, "cpu": [1]})]),
                 "1 values of cpu, 28"),
                ("\n".join([*lines[:5], json.dumps({**vm, "y": 1})]), ".y")):
            path = self.folder / "a"
            path.write_text(text, "ascii")
            with self.assertRaises(BadData) as caught:
                gen.read(path)
            self.assertIn(words, str(caught.exception))
        (self.folder / "b.xz").write_bytes(b"no xz")
        self.assertRaises(BadData, gen.read, self.folder / "b.xz")
        self.assertEqual(typed("sim", "gen", "--load", "2", "--out", "x")[0], 2)
