# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of how QEMU's command line is taken apart."""

import re
import unittest
from typing import Any

from dev import source
from wsm.plan import argv

from tests.scripts.plan.properties import over


class SplitTest(unittest.TestCase):
    """Options."""

    def test_kinds(self) -> None:
        """With an argument, without, with two dashes, and a bare image."""
        words = ["-m", "64", "-S", "disk.img", "--smp", "2", "-append", "-x"]
        options = argv.split(words)
        self.assertEqual([(each.name, each.value) for each in options],
                         [("m", "64"), ("S", ""), ("", "disk.img"),
                          ("smp", "2"), ("append", "-x")])
        self.assertEqual(argv.join(options), words)

    def test_torn(self) -> None:
        """The last one lacks its argument."""
        with self.assertRaises(argv.BadLine):
            argv.split(["-m"])

    def test_table(self) -> None:
        """BARE is what QEMU's own table says, LISTS has names that exist."""
        table = source.STOCK / "qemu-options.hx"
        if not table.exists():
            self.skipTest("QEMU's source is not there")
        found = re.findall(r'^DEF\("([^"]+)", *(0|HAS_ARG)',
                           table.read_text(encoding="utf-8"), re.M)
        self.assertEqual(argv.BARE, {name for name, has in found
                                     if has == "0"} | {"h"})
        self.assertLess(set(argv.LISTS), {name for name, _ in found})


class ValuesTest(unittest.TestCase):
    """Members of arguments."""

    def test_list(self) -> None:
        """Doubled commas, a key that may be left out, keys alone."""
        values = argv.Values("tap,id=n,,0,helper=a=b,server", "type")
        self.assertEqual(values.get("type"), "tap")
        self.assertEqual(values.get("id"), "n,0")
        self.assertEqual(values.get("helper"), "a=b")
        self.assertEqual(values.get("server"), "")
        self.assertIsNone(values.get("br"))
        values.put("id", "x,y")
        values.put("ifname", "t0")
        values.drop("helper")
        self.assertEqual(values.text(), "tap,id=x,,y,server,ifname=t0")

    def test_last_counts(self) -> None:
        """Of a key that comes twice."""
        values = argv.Values("a=1,a=2")
        self.assertEqual(values.get("a"), "2")

    def test_json(self) -> None:
        """JSON by paths, as QEMU names them."""
        values = argv.Values('{"driver": "raw", "file": {"filename": "/a", '
                             '"read-only": true}, "l": [1]}', "driver")
        self.assertEqual(values.get("file.filename"), "/a")
        self.assertEqual(values.get("file.read-only"), "on")
        self.assertEqual(values.get("l.0"), "1")
        values.put("file.filename", "/b")
        values.drop("l")
        self.assertEqual(values.text(), '{"driver": "raw", "file": '
                         '{"filename": "/b", "read-only": true}}')
        with self.assertRaises(argv.BadLine):
            argv.Values("{torn")

    @over(lambda st: st.text(",=ab${}\"\\", min_size=1))
    def test_same(self, text: Any) -> None:
        """What is not changed stays word by word."""
        if text.startswith("{"):
            return
        for implied in ("", "type"):
            self.assertEqual(argv.Values(text, implied).text(),
                             text)
