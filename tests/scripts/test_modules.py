# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the rules of the Python code: each finds what breaks it."""

import unittest
from unittest import mock

from dev import modules
from dev.results import CannotCheck


def problems(name: str, text: str) -> int:
    """Return how many a file has."""
    return len(list(modules.import_problems(name, text)))


class ImportTest(unittest.TestCase):
    """Who imports whom."""

    def test_allowed(self) -> None:
        """Down, and Python's own."""
        for name, text in (
                ("scripts/test", "from dev import checks\nimport os.path"),
                ("scripts/wsm-info", "import wsm.info"),
                ("scripts/dev/a.py", "from wsm import record"),
                ("scripts/dev/demo/guest/a.py", "import socket"),
                ("scripts/wsm/agent/a.py", "import aiohttp, asyncio"),
                ("scripts/wsm/plan/a.py", "from wsm.plan import b\nimport re"),
                ("tests/a/b.py", "from dev.rig import vm\nimport tests.a.c"),
                ("tests/start.py", "import sys\nsys.path[:0] = ['scripts']"),
                ("docs/make", "from collections.abc import Iterator")):
            self.assertEqual(problems(name, text), 0, name)

    def test_refused(self) -> None:
        """What is above, or not there on every machine."""
        for name, text in (
                ("scripts/test", "import tests.a"),
                ("scripts/dev/a.py", "def f():\n    from tests.a import b"),
                ("scripts/wsm/a.py", "from dev.common import run"),
                ("scripts/wsm-info", "import dev"),
                ("scripts/dev/a.py", "import requests"),
                ("scripts/wsm/a.py", "import aiohttp"),
                ("scripts/wsm/plan/a.py", "import time"),
                ("scripts/wsm/plan/a.py", "from wsm import record"),
                ("scripts/wsm/plan/a.py", "import os"),
                ("scripts/dev/demo/guest/a.py", "from dev import common"),
                ("scripts/dev/a.py", "from .common import run"),
                ("scripts/dev/a.py", "from . import common"),
                ("docs/make", "import dev")):
            self.assertEqual(problems(name, text), 1, text)

    def test_path(self) -> None:
        """One place says where modules are; words about it do not count."""
        self.assertEqual(problems("tests/a.py", '"""sys.path"""'), 0)
        for text in ("import sys\nsys.path.append('scripts')",
                     "from sys import path"):
            self.assertEqual(problems("tests/a.py", text), 1, text)

    def test_twins(self) -> None:
        """No two modules have the same name; packages and programs may."""
        files = ["scripts/dev/__init__.py", "scripts/wsm/__init__.py",
                 "tests/a/run", "tests/b/run", "scripts/dev/a.py"]
        self.assertEqual(list(modules.twins(files)), [])
        self.assertEqual(len(list(modules.twins([*files, "tests/a.py"]))), 1)


class ProgramTest(unittest.TestCase):
    """Programs that check Python."""

    def said(self, script: str) -> list[str]:
        """Return what a program says."""
        return list(modules.said_by(["sh", "-c", script], ["a.py"]))

    def test_said(self) -> None:
        """Each line is a problem, and so is a failure without a word."""
        self.assertEqual(self.said("true"), [])
        self.assertEqual(self.said('echo "$0: bad"; exit 1'), ["a.py: bad"])
        self.assertEqual(self.said("echo torn >&2; exit 2"), ["sh: torn"])

    def test_missing(self) -> None:
        """Without the program nothing is checked, and that is said."""
        with mock.patch("shutil.which", lambda _: None):
            self.assertRaises(CannotCheck, self.said, "true")
