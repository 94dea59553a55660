# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the rules on who may use whom: each finds what breaks it."""

import contextlib
import io
import json
import os
import tempfile
import unittest
from pathlib import Path
from typing import Callable, Iterable
from unittest import mock

from dev import layers, objects
from dev.results import CannotCheck

WSM = "migration/wsm"


def quietly(check: Callable[[list[str]], Iterable[str]],
            files: list[str]) -> list[str]:
    """Return the problems that @check finds, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return list(check(files))


class TreeTest(unittest.TestCase):
    """A repository of a few files."""

    def setUp(self) -> None:
        """Make an empty one, with no problem allowed."""
        # pylint: disable=consider-using-with
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.files: list[str] = []
        for module, name, value in (
                (layers, "ROOT", self.root), (objects, "ROOT", self.root),
                (objects, "TREE", self.root / "tree"),
                (objects, "OBJECTS", self.root / "build"),
                (objects, "TESTED_PERCENT", 0)):
            patch = mock.patch.object(module, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def add(self, name: str, *headers: str) -> None:
        """Add a file that includes @headers."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f'#include "{header}"\n'
                                for header in headers), encoding="utf-8")
        self.files.append(name)


class IncludeTest(TreeTest):
    """What files include, and their headers."""

    def includes(self, name: str, header: str) -> int:
        """Return the number of problems if @name includes @header."""
        self.add(name, header)
        return len(quietly(layers.check_includes, [name]))

    def test_along(self) -> None:
        """What is on the way down is allowed, and QEMU's own."""
        for name, header in (
                (f"{WSM}/policy/a.c", f"{WSM}/wire/runs.h"),
                (f"{WSM}/policy/a.h", f"{WSM}/policy/b.h"),
                (f"{WSM}/wire/a.c", f"{WSM}/trace.h"),
                (f"{WSM}/wire/a.c", "qapi/error.h"),
                (f"{WSM}/dest/a.c", "block/pull-on-demand.h"),
                (f"{WSM}/save.c", f"{WSM}/source/source.h"),
                (f"{WSM}/save.c", "migration/wsm.h"),
                ("block/pull-map.c", "block/pull-state.h")):
            self.assertEqual(self.includes(name, header), 0, (name, header))

    def test_against(self) -> None:
        """What is on the way up, or beside, is not."""
        for name, header in (
                (f"{WSM}/wire/a.h", f"{WSM}/policy/b.h"),
                (f"{WSM}/source/a.c", f"{WSM}/dest/dest.h"),
                (f"{WSM}/dest/a.c", f"{WSM}/source/source.h"),
                (f"{WSM}/image/a.c", f"{WSM}/link/connect.h"),
                (f"{WSM}/core/a.c", f"{WSM}/state.h"),
                (f"{WSM}/core/a.c", "migration/wsm.h"),
                (f"{WSM}/source/a.c", "block/pull-on-demand.h"),
                (f"{WSM}/dest/a.c", "block/pull-map.h"),
                (f"{WSM}/save.c", f"{WSM}/elsewhere/a.h"),
                ("block/pull-map.c", f"{WSM}/wire/runs.h"),
                ("include/block/pull-map.h", "migration/blocker.h")):
            self.assertEqual(self.includes(name, header), 1, (name, header))

    def test_path(self) -> None:
        """A header beside a file is included with its path, too."""
        self.add(f"{WSM}/wire/runs.h")
        self.assertEqual(self.includes(f"{WSM}/wire/a.c", "runs.h"), 1)

    def test_folder(self) -> None:
        """Each folder is a layer."""
        self.assertEqual(self.includes(f"{WSM}/more/a.c", "qapi/error.h"), 1)

    def test_check(self) -> None:
        """The check of the whole tree finds it, once."""
        self.add(f"{WSM}/wire/a.c", f"{WSM}/policy/b.h")
        self.assertEqual(len(quietly(layers.check_includes, self.files)), 1)

    def test_own_header(self) -> None:
        """Outside the roof each C file has a header."""
        for name in (f"{WSM}/save.c", f"{WSM}/wire/a.c", f"{WSM}/wire/a.h",
                     "block/pull-map.c", "include/block/pull-map.h"):
            self.add(name)
        self.assertEqual(quietly(layers.check_headers, self.files), [])
        self.add(f"{WSM}/wire/b.c")
        self.add("block/pull-other.c")
        self.assertEqual(len(quietly(layers.check_headers, self.files)), 2)

    def test_private_header(self) -> None:
        """Outside the roof no two C files share a header of nobody's."""
        private = f"{WSM}/image/a-int.h"
        self.add(private)
        for name in "ab":
            self.add(f"{WSM}/image/{name}.h")
        self.add(f"{WSM}/image/a.c", private)
        self.add(f"{WSM}/image/b.c", f"{WSM}/image/a.h")
        self.add(f"{WSM}/state.h")
        for name in "ab":
            self.add(f"{WSM}/{name}.c", f"{WSM}/state.h")
        self.assertEqual(quietly(layers.check_headers, self.files), [])
        self.add(f"{WSM}/image/b.c", private)
        self.assertEqual(len(quietly(layers.check_headers, self.files)), 1)


class ObjectTest(TreeTest):
    """What the linker knows; nm is not run."""

    def setUp(self) -> None:
        """Make a build without objects."""
        super().setUp()
        self.symbols: dict[str, objects.Symbols] = {}
        self.commands: list[dict[str, str]] = []
        self.rules: list[str] = []
        patch = mock.patch.object(objects, "read_symbols", lambda names: {
            name: self.symbols[name] for name in names})
        patch.start()
        self.addCleanup(patch.stop)
        (self.root / "build").mkdir()
        self.write()

    def write(self) -> None:
        """Write what meson and ninja know."""
        build = self.root / "build"
        (build / "compile_commands.json").write_text(
            json.dumps(self.commands), encoding="utf-8")
        (build / "build.ninja").write_text(
            "\n".join(self.rules) + "\n", encoding="utf-8")

    def compile(self, name: str, defined: str = "", wanted: str = "",
                obj: str = "") -> str:
        """Add a file and its object; return the object's name."""
        obj = obj or f"lib.p/{name.replace('/', '_')}.o"
        if name not in self.files:
            self.add(name)
        for path, text in ((self.root / "tree" / name, ""),
                           (self.root / "build" / obj, "")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        self.symbols[obj] = (set(defined.split()), set(wanted.split()))
        self.commands.append({"file": f"../tree/{name}", "output": obj})
        self.write()
        return obj

    def link(self, test: str, *parts: str) -> None:
        """Add a unit test that is linked from @parts."""
        test = f"tests/unit/wsm/{test}"
        self.rules.append(f"build {test}: c_LINKER {' '.join(parts)} | x.so")
        self.write()

    def problems(self) -> list[str]:
        """Return what the check of the layers finds."""
        return quietly(objects.check_layers, self.files)

    def test_parse(self) -> None:
        """What nm prints."""
        self.assertEqual(objects.parse_symbols(
            "a/b.o:0000000000000010 T f\na/b.o:0000000000000000 t local\n"
            "a/b.o:                 U g\nc.o:0000000000000000 D d\n"),
            {"a/b.o": ({"f"}, {"g"}), "c.o": ({"d"}, set())})

    def test_arrows(self) -> None:
        """Down is allowed, up is not."""
        self.compile(f"{WSM}/wire/a.c", "low", "memcpy")
        self.compile(f"{WSM}/policy/b.c", "middle", "low")
        self.assertEqual(self.problems(), [])
        self.compile(f"{WSM}/wire/c.c", "", "middle")
        self.assertEqual(
            self.problems(),
            [f"{WSM}/wire/c.c -> {WSM}/policy/b.c: middle"])

    def test_sides(self) -> None:
        """Source and destination do not meet."""
        self.compile(f"{WSM}/source/a.c", "one")
        self.compile(f"{WSM}/dest/a.c", "two", "one")
        self.assertEqual(len(self.problems()), 1)

    def test_circle(self) -> None:
        """Files of one layer that use each other are a circle."""
        self.compile(f"{WSM}/image/a.c", "a", "b")
        self.compile(f"{WSM}/image/b.c", "b", "c")
        self.compile(f"{WSM}/image/c.c", "c", "")
        self.assertEqual(self.problems(), [])
        self.compile(f"{WSM}/image/d.c", "d", "a")
        self.compile(f"{WSM}/image/c.c", "c", "d")
        self.assertEqual(
            self.problems(),
            ["a circle of 4: " + " ".join(f"{WSM}/image/{name}.c"
                                          for name in "abcd")])

    def test_tested(self) -> None:
        """A file counts if a unit test uses it, even through another."""
        one = self.compile(f"{WSM}/wire/a.c", "a", "b")
        two = self.compile(f"{WSM}/wire/b.c", "b")
        beside = self.compile(f"{WSM}/wire/c.c", "c")
        self.compile(f"{WSM}/wire/d.c", "d")
        test = self.compile("tests/unit/wsm/test-a.c", "main", "a d",
                            "tests/unit/wsm/test-a.p/test-a.c.o")
        self.link("test-a", test, one, two, beside)
        self.assertEqual(objects.linked_by_tests(self.files),
                         {f"{WSM}/wire/a.c", f"{WSM}/wire/b.c"})

    def test_stand_in(self) -> None:
        """A file that a test has a stand-in for is not tested by it."""
        real = self.compile(f"{WSM}/wire/a.c", "a")
        test = self.compile("tests/unit/wsm/test-a.c", "main a", "a",
                            "tests/unit/wsm/test-a.p/test-a.c.o")
        self.link("test-a", test, real)
        self.assertEqual(objects.linked_by_tests(self.files), set())

    def test_own_copy(self) -> None:
        """A file that a test compiles for itself counts."""
        self.compile(f"{WSM}/image/a.c", "a")
        test = "tests/unit/wsm/test-a"
        copy = self.compile(f"{WSM}/image/a.c", "a", "", f"{test}.p/a.c.o")
        own = self.compile(f"{test}.c", "main", "a", f"{test}.p/test-a.c.o")
        self.link("test-a", own, copy)
        self.assertEqual(objects.linked_by_tests(self.files),
                         {f"{WSM}/image/a.c"})

    def test_needed(self) -> None:
        """All that is looked at is built before, a library of tests too."""
        self.compile(f"{WSM}/image/a.c", "a")
        library = "tests/unit/wsm/libwsm-test.a.p/a.c.o"
        self.compile(f"{WSM}/image/a.c", "a", "", library)
        test = "tests/unit/wsm/test-a"
        own = self.compile(f"{test}.c", "main", "a", f"{test}.p/test-a.c.o")
        self.link("test-a", own, library)
        self.assertLessEqual({own, library}, set(objects.needed()))
        for name in objects.needed():
            self.assertTrue((self.root / "build" / name).exists(), name)
        objects.linked_by_tests(self.files)

    def test_share(self) -> None:
        """Too few tested lines are a problem."""
        self.compile(f"{WSM}/wire/a.c")
        for path in (self.root, self.root / "tree"):
            (path / WSM / "wire/a.c").write_text("\n", encoding="utf-8")
        os.utime(self.root / "tree" / WSM / "wire/a.c", (1, 1))
        self.assertEqual(quietly(objects.check_tested, self.files), [])
        with mock.patch.object(objects, "TESTED_PERCENT", 1):
            self.assertEqual(len(quietly(objects.check_tested, self.files)), 1)

    def test_no_build(self) -> None:
        """A build that is not of these files says so."""
        name = f"{WSM}/wire/a.c"
        obj = self.root / "build" / self.compile(name)
        objects.require_build(self.files)
        os.utime(obj, (1, 1))
        self.assertRaises(CannotCheck, objects.require_build, self.files)
        self.compile(name)
        self.add(name, "changed.h")
        self.assertRaises(CannotCheck, objects.require_build, self.files)
        self.compile(name)
        obj.unlink()
        self.assertRaises(CannotCheck, objects.require_build, self.files)
        (self.root / "build/compile_commands.json").unlink()
        self.assertRaises(CannotCheck, objects.require_build, self.files)

    def test_tests_not_built(self) -> None:
        """So does one without the unit tests."""
        self.compile(f"{WSM}/wire/a.c")
        self.link("test-a", "tests/unit/wsm/test-a.p/test-a.c.o")
        self.assertRaises(CannotCheck, objects.linked_by_tests,
                          self.files)
