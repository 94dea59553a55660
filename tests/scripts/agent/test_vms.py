# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the VMs of a host."""

import asyncio
import dataclasses
import os
import socket
import unittest
from typing import Any, Optional
from unittest import mock

from wsm.agent.owner import Owner, Owners
from wsm.plan import spec
from wsm.plan.ends import File
from wsm.plan.promise import Short

from tests.scripts.agent.test_owner import FolderTest

try:
    # pylint: disable=ungrouped-imports
    from wsm.agent import (config, facts, launch, mover, pages, server,
                           vmfind, vms)
    from wsm.agent.monitor import QmpGone
except ImportError:
    PRESENT = False
else:
    PRESENT = True


@unittest.skipUnless(PRESENT, "scripts/build has not been run")
class ProgressTest(unittest.TestCase):
    """Whether the link is silent."""

    def test_guest_writes(self) -> None:
        """What the guest writes is no progress, what arrives is."""
        disk = {"sent": 5, "zero": 6, "compared": 0, "missing": 9, "dirty": 3}
        info: dict[str, Any] = {"phases": [{}], "remaining": 7,
                                "disks": [disk]}
        ram = {"ram": {"transferred": 4, "remaining": 8}}
        then = facts.progress(info, ram)
        for key in ("missing", "dirty"):
            self.assertEqual(then, facts.progress(
                {**info, "disks": [{**disk, key: 1}], "remaining": 1}, ram))
        for key in ("sent", "zero", "compared"):
            self.assertNotEqual(then, facts.progress(
                {**info, "disks": [{**disk, key: 1}]}, ram))
        self.assertNotEqual(then, facts.progress(
            info, {"ram": {"transferred": 5}}))
        self.assertNotEqual(then, facts.progress(
            {**info, "phases": [{}, {}]}, ram))


@unittest.skipUnless(PRESENT, "scripts/build has not been run")
class HearTest(FolderTest):
    """Whether all was heard that a QEMU has said."""

    def test_two_connections(self) -> None:
        """Not if the connection was lost, and another one made."""
        of_vms = mock.Mock()
        of_vms.config.state = self.folder
        made = mover.Mover(of_vms)
        record = mover.Record("m", "vm", "destination", pid=1)
        of_vms.known.return_value = None
        live = made.live("m")
        live.watched = True
        one, two = (mock.Mock(**{"phases.return_value": [],
                                 "was_shut.return_value": False})
                    for _ in range(2))
        for monitor, watched in ((one, True), (one, True), (two, False),
                                 (two, False)):
            of_vms.heard.return_value = monitor
            asyncio.run(made.word(record))
            self.assertIs(live.watched, watched)


@unittest.skipUnless(PRESENT, "scripts/build has not been run")
class LaunchTest(FolderTest):
    """A QEMU that has just been started."""

    def launch(self, answers: list[Any], lives: bool = True) -> Any:
        """Start one whose monitor answers like this, in turn."""
        made = vms.Vms(mock.Mock(spec=config.Config, state=self.folder,
                                 run=self.folder, network={},
                                 qemu={"q": "/q"}), Owners(self.folder))
        known: Optional[vms.Known] = vms.Known("vm", 1, 2, "") if (
            lives) else None
        with mock.patch.object(vms.Vms, "monitor", side_effect=answers), (
                mock.patch.object(vms.Vms, "known", return_value=known)), (
                mock.patch.object(launch, "start", return_value=1)), (
                mock.patch("wsm.agent.vmfind.process")) as process:
            process.return_value.started = 2
            return asyncio.run(made.launch(
                spec.Spec("vm", ()), spec.Place(str(self.folder)), [], True))

    def test_listens_late(self) -> None:
        """Its socket is there before it listens."""
        self.assertEqual(self.launch([QmpGone("refused"), 5]), 5)

    def test_dies(self) -> None:
        """It has ended: nobody waits."""
        with self.assertRaisesRegex(launch.NotStarted, "refused"):
            self.launch([QmpGone("refused"), 5], lives=False)


@unittest.skipUnless(PRESENT, "scripts/build has not been run")
class LeftTest(FolderTest):
    """Descriptions of VMs that have left."""

    def test_torn(self) -> None:
        """Those that cannot be read are named; the others are there."""
        made = vms.Vms(mock.Mock(spec=config.Config, state=self.folder),
                       Owners(self.folder))
        good = spec.dumps(spec.Spec("good", ("-m", "1"))).encode()
        texts = {"a": good[:20], "b": b"\xff\x00", "c": b"", "good": good,
                 "z": b'name = "z"\nargs = 5'}
        for name, text in texts.items():
            (self.folder / "vm" / name).mkdir(parents=True)
            (self.folder / f"vm/{name}/left.toml").write_bytes(text)
        (self.folder / "vm/folder/left.toml").mkdir(parents=True)
        found, damaged = made.left()
        self.assertEqual([each.name for each in found], ["good"])
        for name, said in zip(("a", "b", "c", "folder", "z"), damaged):
            self.assertIn(f"{self.folder}/vm/{name}/left.toml", said)
        self.assertEqual(len(damaged), 5)


@unittest.skipUnless(PRESENT, "scripts/build has not been run")
class DamagedTest(FolderTest):
    """Files of one VM that cannot be read."""

    def setUp(self) -> None:
        super().setUp()
        self.vms = vms.Vms(mock.Mock(
            spec=config.Config, state=self.folder, specs=self.folder,
            host="alpha", run=self.folder / "run"), Owners(self.folder))
        for name in ("bad", "good"):
            (self.folder / f"{name}.toml").write_text(
                spec.dumps(spec.Spec(name, ("-m", "1"))), encoding="utf-8")
            self.vms.owners.put(name, Owner(File.OWNER, 3))

    def test_each(self) -> None:
        """It is named, and all that looks at all VMs goes on."""
        for file in ("owner.json", "process.json"):
            path = self.folder / "vm/bad" / file
            for content in (b"", b"{", b"\xff\x00", b"[]", None):
                path.unlink(missing_ok=True)
                if content is None:
                    path.mkdir()
                else:
                    path.write_bytes(content)
                with self.subTest(file=file, content=content):
                    self.check(str(path))
            path.rmdir()

    def check(self, path: str) -> None:
        """Look at it in all ways."""
        bad, good = map(self.vms.describe, ("bad", "good"))
        self.assertEqual((bad["owner"], bad["runs"]), ("damaged", False))
        self.assertIn(path, bad["problem"])
        self.assertEqual((good["owner"], good["problem"]), ("owner", ""))
        self.assertEqual([name for name, _, _ in self.vms.readable()],
                         ["good"])
        asyncio.run(self.vms.watch())
        asyncio.run(self.vms.sweep())
        self.assertEqual(self.vms.residents(), [])
        with self.assertRaises(vms.DAMAGED):
            asyncio.run(self.vms.start("bad"))


class ListenerTest(FolderTest):
    """Whose a monitor is."""

    @unittest.skipUnless(PRESENT, "scripts/build has not been run")
    def test_which(self) -> None:
        """Told by the kernel; only a QEMU's is taken."""
        path = str(self.folder / "$(id) <b>")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            with self.assertRaisesRegex(vms.Refused, "refused.*listen"):
                vms.listens_at(path)
            listener.listen(1)
            self.assertEqual(vmfind.listener(path), os.getpid())
        with socket.socket(socket.AF_UNIX) as listener:
            os.unlink(path)
            listener.bind(path)
            listener.listen(1)
            with self.assertRaisesRegex(vms.Refused, "no QEMU"):
                vms.listens_at(path)
        with socket.socket(socket.AF_UNIX) as listener:
            os.unlink(path)
            listener.bind(path)
            listener.listen(1)
            with mock.patch("wsm.agent.vmfind.is_qemu", return_value=True):
                self.assertEqual(vms.listens_at(path).pid, os.getpid())

    @unittest.skipUnless(PRESENT, "scripts/build has not been run")
    def test_no_path(self) -> None:
        """What is no socket is refused, with the reason."""
        (self.folder / "file").write_text("x")
        for path in ("", "qmp", "\0abstract", "/a\0b", "/" + "x" * 300,
                     "/\ud800", str(self.folder), "/nowhere",
                     str(self.folder / "file")):
            with self.assertRaises(vms.Refused, msg=repr(path)):
                vms.listens_at(path)


ANSWERS: dict[str, Any] = {
    "query-blockstats": [], "query-block": [], "query-wsm": {"images": []},
    "query-memory-size-summary": {"base-memory": 1 << 30},
    "query-version": {"qemu": {"major": 10, "minor": 0, "micro": 1}},
    "query-cpus-fast": [{}, {}], "qom-get": "pc-i440fx-10.0-machine"}


@unittest.skipUnless(PRESENT, "scripts/build has not been run")
class ResidentsTest(FolderTest):
    """Who runs here: asked for each second, and by the sampler."""

    def test_read_when_changed(self) -> None:
        """A description and a QEMU's taps are read once as they are."""
        made = vms.Vms(mock.Mock(spec=config.Config, host="a",
                                 state=self.folder, specs=self.folder),
                       Owners(self.folder))
        described = spec.Spec("vm", ("-m", "1"), sla=spec.Sla("gold"))
        made.save_spec(described)
        now, qemu = mock.Mock(return_value=0.0), vms.Known("vm", 1, 2, "")
        with mock.patch("wsm.agent.vms.time.monotonic", now), (
                mock.patch.object(vms.Vms, "known",
                                  side_effect=lambda _: qemu)), (
                mock.patch.object(vmfind, "taps",
                                  return_value=["tap0"])) as taps:
            def look() -> list[Any]:
                now.return_value += vms.RESIDENTS + 1
                return [(each.pid, each.sla.class_, each.taps)
                        for each in made.residents()]

            for _ in range(3):
                self.assertEqual(look(), [(1, "gold", ("tap0",))])
            self.assertEqual(taps.call_count, 1)
            qemu = vms.Known("vm", 1, 3, "")    # the number of one before it
            look()
            self.assertEqual(taps.call_count, 2)
            made.save_spec(dataclasses.replace(described,
                                               sla=spec.Sla("silver")))
            os.utime(made.spec_path("vm"), (1, 1))
            self.assertEqual(look(), [(1, "silver", ("tap0",))])
            made.spec_path("vm").unlink()
            self.assertEqual(look(), [])


@unittest.skipUnless(PRESENT, "scripts/build has not been run")
class UseTest(FolderTest):
    """What VMs use of their host."""

    def test_host(self) -> None:
        """Of a machine that does more than VMs only these count."""
        for at, demand in (("vms", 1.5), ("/", 7.0)):
            door = server.Door(config.Config(
                "a", folders=config.Folders(*[str(self.folder)] * 3),
                root=config.Root(at=at)))
            with mock.patch.object(door.vms, "demand", return_value=1.5), (
                    mock.patch.object(door.info, "demand",
                                      return_value=7.0)), (
                    mock.patch.object(door.info, "host")) as host:
                vars(server.Door)["_host_now"](door)
            self.assertEqual(host.call_args[0][0], demand)

    def test_short(self) -> None:
        """What comes for a VM is what its host receives."""
        door = server.Door(config.Config(
            "a", folders=config.Folders(*[str(self.folder)] * 3)))
        path = door.vms.spec_path("vm")
        path.parent.mkdir()
        path.touch()
        for lacks, wanted in (({"in": 8.0}, (1e6, 0.0)),
                              ({"out": 8.0}, (0.0, 1e6))):
            with mock.patch.object(door.mover.sentry, "short",
                                   return_value=Short(lacks, 50.0)):
                base = vars(server.Door)["_running"](
                    door, ("vm", Owner(), None), "", ()).base
            self.assertEqual((base.lack_rx, base.lack_tx), wanted)
            self.assertEqual(base.latency, 0.05)

    def test_demand(self) -> None:
        """The cores that its threads ran on or waited for, lately."""
        made = vms.Vms(mock.Mock(spec=config.Config, host="a",
                                 state=self.folder), Owners(self.folder))

        async def call(command: str, *_: Any, **__: Any) -> Any:
            return ANSWERS[command]

        counts = [{"1": 0, "2": 7}, {"1": 3 * 10**9, "2": 10**9 + 7}]
        with mock.patch.object(
                vms.Vms, "known", return_value=vms.Known("vm", 1, 2, "")), (
                mock.patch.object(vms.Vms, "monitor", return_value=mock.Mock(
                    call=call))), mock.patch.object(
                vms.Vms, "_look", return_value=pages.Memory(5)), mock.patch(
                "wsm.agent.vms.wanted", side_effect=counts), mock.patch(
                "wsm.agent.lately.time", mock.Mock(**{
                    "monotonic.side_effect": [0.0, 0.0, 2.0, 2.0]})), (
                mock.patch("wsm.agent.vmfind.process")) as process:
            process.return_value = mock.Mock(pid=1, resident=9, argv=())
            found = asyncio.run(made.use("vm"))
        self.assertEqual((found.demand, found.vcpus, found.machine),
                         (2.0, 2, "pc-i440fx-10.0"))
        self.assertEqual(made.demand(), 2.0)
