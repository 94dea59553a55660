# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of files that say whose a VM is, and of fencing."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from wsm import durable
from wsm.agent.owner import HOLD, Fenced, Gate, Owner, Owners
from wsm.plan.ends import File
from wsm.plan.plain import BadData


class FolderTest(unittest.TestCase):
    """A folder for each test."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()  # pylint: disable=R1732
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)


class DurableTest(FolderTest):
    """Files are whole, or not there."""

    def test_round_trip(self) -> None:
        """Written, read, changed, removed."""
        path = self.folder / "a/b.json"
        self.assertIsNone(durable.load(Owner, path))
        durable.save(path, Owner(File.OWNER, 3))
        self.assertEqual(durable.load(Owner, path), Owner(File.OWNER, 3))
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        durable.remove(path)
        durable.remove(path)
        self.assertFalse(path.exists())

    def test_torn(self) -> None:
        """One that is torn is said to be so, with its name."""
        path = self.folder / "a.json"
        for text in ("{", '{"state": "odd"}', '{"more": 1}'):
            path.write_text(text, encoding="ascii")
            with self.assertRaises(BadData) as caught:
                durable.load(Owner, path)
            self.assertIn(str(path), str(caught.exception))

    def test_order(self) -> None:
        """The content is on the disk before the name, the name at the end."""
        done: list[str] = []
        fsync, replace = os.fsync, os.replace

        def note_sync(handle: int) -> None:
            done.append("sync")
            fsync(handle)

        def note_replace(old: str, new: str) -> None:
            done.append("rename")
            replace(old, new)

        with mock.patch("os.fsync", note_sync), mock.patch(
                "os.replace", note_replace):
            durable.write(self.folder / "a", b"x")
        self.assertEqual(done, ["sync", "rename", "sync"])

    def test_interrupted(self) -> None:
        """If it cannot be written, the old one stays and nothing is left."""
        path = self.folder / "a"
        durable.write(path, b"old")
        with mock.patch("os.replace", side_effect=OSError("full")):
            self.assertRaises(OSError, durable.write, path, b"new")
        self.assertEqual(path.read_bytes(), b"old")
        self.assertEqual(os.listdir(self.folder), ["a"])


class OwnersTest(FolderTest):
    """owner.json."""

    def test_epochs(self) -> None:
        """An epoch never goes back."""
        owners = Owners(self.folder)
        self.assertIs(owners.get("a").state, File.NONE)
        owners.put("a", Owner(File.OWNER, 2))
        owners.put("a", Owner(File.LEAVING, 2, "m"))
        owners.put("a", Owner(File.GONE, 3, "m", "beta"))
        with self.assertRaises(Fenced):
            owners.put("a", Owner(File.OWNER, 2))
        self.assertIs(Owners(self.folder).get("a").state, File.GONE)
        self.assertEqual(owners.names(), ["a"])
        owners.forget("a")
        self.assertEqual(owners.names(), [])

    def test_same_again(self) -> None:
        """The same again is not written."""
        owners = Owners(self.folder)
        owners.put("a", Owner(File.OWNER, 2))
        with mock.patch("wsm.durable.save") as save:
            owners.put("a", Owner(File.OWNER, 2, since=5.0))
            save.assert_not_called()
            owners.put("a", Owner(File.OWNER, 3))
            save.assert_called_once()


class GateTest(FolderTest):
    """Only one controller acts."""

    def test_one(self) -> None:
        """The same one as often as it likes, and after a restart."""
        gate = Gate(self.folder)
        gate.admit(1, "x", 0.0)
        gate.admit(1, "x", 5.0)
        self.assertEqual(Gate(self.folder).held, gate.held)
        Gate(self.folder).admit(1, "x", 0.0)

    def test_lower(self) -> None:
        """An epoch that is over never counts."""
        gate = Gate(self.folder)
        gate.admit(5, "x", 0.0)
        for instance in ("x", "y"):
            with self.assertRaises(Fenced):
                gate.admit(4, instance, 1000.0)

    def test_other(self) -> None:
        """Another one needs a higher epoch, and silence of the first."""
        gate = Gate(self.folder)
        gate.admit(5, "x", 0.0)
        with self.assertRaises(Fenced):
            gate.admit(5, "y", 1000.0)
        with self.assertRaises(Fenced) as caught:
            gate.admit(6, "y", HOLD - 1)
        self.assertIn("held by x", str(caught.exception))
        gate.admit(6, "y", HOLD)
        with self.assertRaises(Fenced):
            gate.admit(5, "x", HOLD + 1)
        with self.assertRaises(Fenced):
            gate.admit(7, "x", HOLD + 1)

    def test_restart(self) -> None:
        """A new agent waits for the controller that it finds."""
        Gate(self.folder).admit(5, "x", 0.0)
        gate = Gate(self.folder, 1000.0)
        with self.assertRaises(Fenced):
            gate.admit(6, "y", 1000.0 + HOLD - 1)
        gate.admit(6, "y", 1000.0 + HOLD)

    def test_release(self) -> None:
        """One that has ended in good order is not waited for."""
        gate = Gate(self.folder)
        gate.admit(5, "x", 0.0)
        gate.release("y")
        with self.assertRaises(Fenced):
            gate.admit(6, "y", 1.0)
        gate.release("x")
        gate.admit(6, "y", 1.0)
