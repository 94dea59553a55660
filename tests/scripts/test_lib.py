# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what the scripts decide without running anything."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

from dev import checks, common, debian, narrow, qemu, results, source

from tests.functional.lib import faults

PATCH = """\
Description: an example
--- a/one.c
+++ b/one.c
@@ -1,3 +1,4 @@
 context
--- a line that was '-- a line'
+new
+++ two
 context
@@ -9 +10,0 @@
-gone
"""


class HeardTest(unittest.TestCase):
    """Who is heard of a guest's heartbeats."""

    def test_restarts(self) -> None:
        """A reboot and a second guest count, one late packet does not."""
        cases: list[tuple[list[int], int]] = [
                ([], 0), ([7], 0), ([7, 8, 10, 11], 0),
                ([7, 8, 10, 9, 11], 0),         # late
                ([7, 8, 9, 8, 10], 1),          # heard already
                ([7, 8, 10, 9], 1),             # nobody goes on
                ([70, 71, 1, 2, 3], 1),         # a reboot
                ([70, 71, 1, 2, 1, 2], 2),
                ([7, 8, 9, 8, 10, 9, 11, 10], 3)]       # two guests
        for numbers, count in cases:
            self.assertEqual(faults.restarts(numbers), count, numbers)


class TapTest(unittest.TestCase):
    """The reader of TAP."""

    def cases(self, text: str) -> list[results.Case]:
        """Return the cases in @text."""
        return list(results.parse_tap(text.splitlines()))

    def test_verdicts(self) -> None:
        """Each kind of line, with and without number and dash."""
        self.assertEqual(self.cases(
            "TAP version 13\n1..3\nok 1 /a/b\nnot ok 2 - /c\n"
            "ok 3 /d # SKIP no KVM\n# comment\n"),
            [("ok", "/a/b", ""), ("not ok", "/c", ""),
             ("skip", "/d", "no KVM")])

    def test_plan_not_kept(self) -> None:
        """A program that dies leaves cases out."""
        self.assertEqual(self.cases("1..2\nok 1 /a\nBail out!\n")[1][:2],
                         ("not ok", "plan"))

    def test_no_name(self) -> None:
        """A case without a name goes by its number."""
        self.assertEqual(self.cases("ok 7\n"), [("ok", "7", "")])


class ResultsTest(unittest.TestCase):
    """The summary and the exit status."""

    def finish(self, *statuses: str) -> tuple[int, str]:
        """Return (exit status, last line) for cases with @statuses."""
        with mock.patch("builtins.print") as shown:
            collected = results.Results()
            for status in statuses:
                collected.add(status, "case")
            return collected.finish(), shown.call_args.args[0]

    def test_last_line(self) -> None:
        """The last line is what continuous integration reads."""
        self.assertEqual(self.finish("ok", "ok"), (0, "2 passed, 0 failed"))
        self.assertEqual(self.finish("ok", "not ok", "skip"),
                         (1, "1 passed, 1 failed, 1 skipped"))

    def test_nothing_ran(self) -> None:
        """Nothing but skips is no success."""
        self.assertEqual(self.finish("skip")[0], 1)
        self.assertEqual(self.finish(), (1, "0 passed, 0 failed"))


class CheckTest(unittest.TestCase):
    """The static checks' counters."""

    def test_changed_lines(self) -> None:
        """Headers are not counted, lines that look like headers are."""
        self.assertEqual(checks.changed_lines(PATCH), 4)

    def test_c_functions(self) -> None:
        """A function's length is from brace to brace."""
        self.assertEqual(list(checks.c_functions("int f(void)\n{\n    ;\n}\n")),
                         [(2, 2)])


class SourceTest(unittest.TestCase):
    """The choice of the source and the laying of files."""

    def test_newest(self) -> None:
        """Versions are compared as Debian does, not as text."""
        self.assertEqual(debian.newest(["1:10.0.9+ds-1", "1:10.0.13+ds-0",
                                        "1:10.0.2+ds-2"]), "1:10.0.13+ds-0")
        self.assertIsNone(debian.newest([]))

    def test_patched_files(self) -> None:
        """The files of a patch are taken from its headers."""
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch.object(source, "PATCHES", Path(folder)):
            (Path(folder) / "x.patch").write_text(PATCH, encoding="utf-8")
            self.assertIn("one.c", source.patched_files(["x.patch"]))
            with self.assertRaises(common.Failure):
                source.patched_files(["y.patch"])

    def test_write_if_changed(self) -> None:
        """What is right is not written again."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a/b"
            self.assertTrue(common.write_if_changed(path, b"1", 0o755))
            self.assertEqual(path.stat().st_mode & 0o777, 0o755)
            self.assertFalse(common.write_if_changed(path, b"1", 0o644))
            self.assertEqual(path.stat().st_mode & 0o777, 0o644)
            self.assertTrue(common.write_if_changed(path, b"2"))


INSTALLED = """\
installed|bash|yes||libc6 (>= 2.3), debianutils
installed|libc6|no||
installed|quilt|no||perl:any, mailer | mta (>= 1), gone | nowhere
installed|perl|no|perl5|
installed|exim|no|mta|
installed|qemu-utils|no||libc6
deinstall|socat|no||
"""


class FirstBuildTest(unittest.TestCase):
    """What is said before a build that takes long."""

    def said(self, configured: bool, probe: float, cpus: int) -> list[str]:
        """Return what announce() prints."""
        with tempfile.TemporaryDirectory() as name, \
                mock.patch.object(qemu, "BUILD", Path(name)), \
                mock.patch.object(qemu, "probe_seconds", lambda: probe), \
                mock.patch.object(qemu, "jobs", lambda: cpus), \
                mock.patch("os.cpu_count", lambda: 64), \
                mock.patch.object(qemu, "say") as say:
            variant = qemu.VARIANTS["patched"]
            variant.dir.mkdir()
            if configured:
                (variant.dir / ".configured").touch()
            qemu.announce(variant)
            return [call.args[0] for call in say.call_args_list]

    def test_first(self) -> None:
        """More CPUs make it shorter, but not all of it."""
        self.assertIn("about 7 minutes on 2 idle CPUs",
                      self.said(False, 0.2, 2)[0])
        self.assertIn("about 2 minutes on 16 idle CPUs",
                      self.said(False, 0.3, 16)[0])

    def test_later(self) -> None:
        """A later build says nothing of the kind."""
        self.assertEqual(self.said(True, 0.2, 2), [])


class NarrowTest(unittest.TestCase):
    """The PATH without what happens to be there."""

    def test_closure(self) -> None:
        """Choices, virtual packages, and what nobody asked for."""
        packages = narrow.parse(INSTALLED)
        self.assertEqual(narrow.closure(packages, ["quilt", "socat"]),
                         {"bash", "libc6", "quilt", "perl", "exim"})

    def test_this_machine(self) -> None:
        """What we call by way of an alternative is found, too."""
        with tempfile.TemporaryDirectory() as name, \
                mock.patch.dict("os.environ"), \
                mock.patch.object(narrow, "FOLDER", Path(name) / "path"):
            narrow.use()
            found = {path.name for path in narrow.FOLDER.iterdir()}
        self.assertLessEqual({"awk", "cc", "ip", "python3", "sh"}, found)
        self.assertNotIn("qemu-img", found)
