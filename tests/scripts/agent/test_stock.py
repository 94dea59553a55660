# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of which image a disk begins with."""

import os
import socket
import stat
import sys
import unittest
from typing import Any, Optional
from unittest import mock

from wsm.agent import stock, taps, vmfind
from wsm.agent.config import Config, Pool, loads
from wsm.plan import spec
from wsm.plan.inventory import Pool as PoolNow
from wsm.plan.plain import BadData

from tests.scripts.agent.test_owner import FolderTest

MIB = 1 << 20
IMG = f"""#!{sys.executable}
import sys
words = sys.argv[1:]
if words[0] == "measure" and words[-3:] == ["-O", "qcow2", "good"]:
    print('{{"required": 4711, "fully-allocated": 9999}}')
    sys.exit(0)
assert words[0] == "create", words
open(words[-2], "xb").truncate(int(words[-1]))
"""


class StockTest(FolderTest):
    """Images in a pool."""

    def setUp(self) -> None:
        super().setUp()
        program = self.folder / "qemu-img"
        program.write_text(IMG, encoding="ascii")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.config = Config("beta", qemu_img=str(program), pool={
            "default": Pool(str(self.folder / "pool"))})
        (self.folder / "pool").mkdir()
        self.path = str(self.folder / "pool/vm1/vd0.raw")

    def vm(self, **disk: Any) -> spec.Spec:
        """Return a VM with one disk."""
        return spec.Spec("vm1", (), disk={"vd0": spec.Disk(
            "raw", 4 * MIB, **disk)})

    def choose(self, facts: Optional[dict[str, Any]],
               **disk: Any) -> stock.Choice:
        """Return the choice for an image of which @facts are known."""
        with mock.patch.object(stock, "look", return_value=facts):
            return stock.choose(self.config, self.vm(**disk), "vd0")

    def test_points_in_qcow2(self) -> None:
        """Sync points of a qcow2 image are known by their ids."""
        one, two = f"{'1' * 36}", f"{'2' * 36}"
        bitmaps = [{"name": f"wsm-0000000001-4194304-{one}", "flags": []},
                   {"name": f"wsm-0000000002-4194304-{one}-rest",
                    "flags": ["auto"]},
                   {"name": f"wsm-0000000003-4194304-{two}",
                    "flags": ["auto", "in-use"]},
                   {"name": "backup", "flags": []}]
        with mock.patch.object(stock, "look", return_value={
                "state": "handed-over", "disk-size": 4 * MIB,
                "bitmaps": bitmaps}), mock.patch.object(
                    stock, "allocated", return_value=MIB):
            copy = stock.copies(self.config, self.vm()).pop()
            self.assertEqual((copy.points, copy.fits), ({one: None}, True))
            bitmaps[:2] = []
            copy = stock.copies(self.config, self.vm()).pop()
            self.assertEqual((copy.points, copy.fits), ({}, False))

    def test_blank(self) -> None:
        """None is there: one is made, of the same size in bytes."""
        choice = self.choose(None)
        self.assertEqual((choice.path, choice.kind, choice.made),
                         (self.path, "blank", True))
        stock.make(self.config, self.vm(), choice)
        self.assertEqual(os.path.getsize(self.path), 4 * MIB)

    def test_places(self) -> None:
        """A path or format of this host's own."""
        self.assertEqual(self.choose(None, path_at={"beta": "/x/y"}).path,
                         "/x/y")
        self.assertEqual(self.choose(None, format_at={"beta": "qcow2"}).path,
                         str(self.folder / "pool/vm1/vd0.qcow2"))
        with self.assertRaises(stock.NoImage):
            self.choose(None, pool="other")

    def test_old(self) -> None:
        """Old copies are used, others never overwritten."""
        known: dict[str, Any] = {"state": "handed-over",
                                 "disk-size": 4 * MIB}
        self.assertEqual(self.choose(known).kind, "old")
        self.assertEqual(self.choose({**known, "state": "incomplete"}).kind,
                         "partial")
        changes: list[tuple[dict[str, Any], str]] = [
            ({"state": "current"}, "may be overwritten"),
            ({"state": "leaving"}, "may be overwritten"),
            ({"state": None}, "may be overwritten"),
            ({"in-use": True}, "open in another")]
        for change, words in changes:
            with self.assertRaises(stock.NoImage) as caught:
                self.choose({**known, **change})
            self.assertIn(words, str(caught.exception))

    def test_grown(self) -> None:
        """An old copy of a disk that has grown since is made anew."""
        os.makedirs(os.path.dirname(self.path))
        for path in (self.path, self.path + ".wsm"):
            with open(path, "wb") as image:
                image.truncate(MIB)
        for state in ("handed-over", "incomplete"):
            choice = self.choose({"state": state, "disk-size": 3 * MIB})
            self.assertEqual((choice.kind, choice.made), ("blank", True))
        stock.make(self.config, self.vm(), choice)
        self.assertEqual(os.path.getsize(self.path), 4 * MIB)
        self.assertFalse(os.path.exists(self.path + ".wsm"))
        with self.assertRaises(stock.NoImage):
            self.choose({"state": "current", "disk-size": 3 * MIB})

    def test_content(self) -> None:
        """Without snapshots; not known is no error."""
        self.assertEqual(stock.content(self.config, "good", "qcow2"), 4711)
        self.assertEqual(stock.content(self.config, "bad", "qcow2"), 0)

    def test_stranger(self) -> None:
        """A file of somebody else, really looked at."""
        os.makedirs(os.path.dirname(self.path))
        with open(self.path, "wb") as image:
            image.truncate(4 * MIB)
        with self.assertRaises(stock.NoImage):
            stock.choose(self.config, self.vm(), "vd0")

    def test_room(self) -> None:
        """What is there already need not be free."""
        full = {"default": PoolNow(3 * MIB, 10 * MIB)}
        with mock.patch.object(stock, "pools", return_value=full):
            self.assertEqual(stock.room(self.config, self.vm(),
                                        {"vd0": 2 * MIB}), [])
            self.assertIn("3.0 MiB are needed", stock.room(
                self.config, self.vm(), {"vd0": 3 * MIB})[0])
            with mock.patch.object(stock, "allocated", return_value=MIB):
                self.assertEqual(stock.room(self.config, self.vm(),
                                            {"vd0": 3 * MIB}), [])
            # The way back into a file system that is full
            with mock.patch.object(stock, "allocated", return_value=3 * MIB):
                self.assertEqual(stock.room(self.config, self.vm(),
                                            {"vd0": 3 * MIB}), [])

    def test_template(self) -> None:
        """A template is copied as it is, so there must be room for it."""
        folder = self.folder / "pool/templates"
        folder.mkdir()
        (folder / "debian.raw").write_bytes(b"x" * 2 * MIB)
        vm = self.vm(template="debian")
        tight = {"default": PoolNow(MIB, 10 * MIB, 0.0)}
        with mock.patch.object(stock, "pools", return_value=tight):
            self.assertIn("2.0 MiB are needed", stock.room(
                self.config, vm, {"vd0": MIB})[0])
            self.assertEqual(stock.room(self.config, self.vm(),
                                        {"vd0": MIB}), [])

    def test_pools(self) -> None:
        """Two on one file system are known to be."""
        config = Config("beta", pool={
            "a": Pool(str(self.folder)), "b": Pool(str(self.folder / "pool")),
            "c": Pool("/proc/nowhere")})
        found = stock.pools(config)
        self.assertEqual(sorted(found), ["a", "b"])
        self.assertEqual(found["a"].device, found["b"].device)
        self.assertTrue(found["a"].device)


class LentTest(FolderTest):
    """Taps, ports, keys."""

    def test_tap_name(self) -> None:
        """Short enough for Linux, and another for each card."""
        names = {taps.tap_name(vm, net) for vm in ("a", "b" * 40)
                 for net in ("n", "m")}
        self.assertEqual(len(names), 4)
        self.assertTrue(all(len(name) < 16 for name in names))

    def test_ports(self) -> None:
        """One that is in use, or lent already, is not given."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with self.assertRaises(taps.NotLent):
                taps.free_port((port, port), "127.0.0.1")
        self.assertEqual(taps.free_port((port, port), "127.0.0.1"), port)
        with self.assertRaises(taps.NotLent):
            taps.free_port((port, port), taken=frozenset([port]))

    def test_key(self) -> None:
        """Only root reads it, and nothing is left."""
        folder = self.folder / "move"
        taps.write_key(folder, "ab" * 32)
        path = folder / "keys.psk"
        self.assertEqual(path.read_text("ascii"), f"qemu:{'ab' * 32}\n")
        self.assertEqual(path.stat().st_mode & 0o077, 0)
        self.assertEqual(folder.stat().st_mode & 0o077, 0)
        taps.remove_key(folder)
        taps.remove_key(folder)
        self.assertFalse(folder.exists())


class FindTest(unittest.TestCase):
    """Processes."""

    def test_sockets(self) -> None:
        """Monitors for machines, and only these."""
        found = vmfind.Process(1, 1, (
            "qemu", "-qmp", "unix:a,server=on", "-qmp", "tcp::1,server=on",
            "-chardev", "socket,id=c,path=/b,server=on", "-mon",
            "chardev=c,mode=control", "-chardev", "socket,id=h,path=/h",
            "-mon", "chardev=h", "-monitor", "unix:/m", "-chardev",
            "socket,id=x,path=/client", "-mon", "chardev=x,mode=control"),
            "", "/w", 0, 0)
        self.assertEqual(vmfind.sockets(found), ["/w/a", "/b"])

    def test_self(self) -> None:
        """A process is known by its start as well."""
        found = vmfind.process(os.getpid())
        assert found
        self.assertTrue(vmfind.alive(found.pid, found.started))
        self.assertFalse(vmfind.alive(found.pid, found.started + 1))
        self.assertIsNone(vmfind.process(1 << 30))


class ConfigTest(unittest.TestCase):
    """agent.toml."""

    def test_read(self) -> None:
        """What is there, and what is not."""
        found = loads('host = "a"\nlisten = "10.0.0.1:7443"\n'
                      'migration = { addr = "10.1.0.1", ports = [1, 9] }\n'
                      'qemu."10.0" = "/q"\npool.default = { path = "/p" }\n'
                      'network.lan = { bridge = "br0" }\n')
        self.assertEqual(found.migration.ports, (1, 9))
        self.assertEqual(found.pool["default"].reserve, 0.1)
        for text, words in (("host = 5", "no str"), ("", "host is missing"),
                            ('host = "a/b"', "no name for a host"),
                            ('host = "a"\nports = [9, 1]', "no ports"),
                            ('host = "a"\nmore = 1', "more is not known"),
                            ('host = "a"\nqemu.x = "build/q"',
                             "'build/q' is not absolute"),
                            ('host = "a"\npool.x = { path = "y" }',
                             "not absolute"),
                            ('host = "a"\npool.x = { path = "/y", '
                             'reserve = 2 }', "not in 0..1")):
            with self.assertRaises(BadData) as caught:
                loads(text)
            self.assertIn(words, str(caught.exception))
