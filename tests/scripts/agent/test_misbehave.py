# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of an agent whose VMs' QEMUs misbehave: contained, guests unharmed."""

import asyncio
import json
import subprocess
import unittest
from typing import Any
from unittest import mock

from wsm import durable
from wsm.agent import vmfind
from wsm.agent.owner import Owner
from wsm.cli import outlook, terminal
from wsm.cli.agents import Agents, AgentSaid
from wsm.cli.home import CliError
from wsm.plan import spec
from wsm.plan.ends import File

from tests.scripts.agent import test_door
from tests.scripts.agent.test_qmp_limits import Answer, FakeQemu, returns

try:
    # pylint: disable=ungrouped-imports
    from wsm.agent import vms
    from wsm.agent.monitor import Monitor
except ImportError:
    PRESENT = False
else:
    PRESENT = True

NAMES = ("$(reboot)", "`id`", "<script>alert(1)</script>", "a;b", "a b", "..",
         "\x1b[2J", "vm\n1", "'", '"', "\u202egpj")


def silent(_request: dict[str, Any]) -> bytes:
    """Answer nothing."""
    return b""


@unittest.skipUnless(PRESENT and test_door.PRESENT,
                     "python3-aiohttp and scripts/build are needed")
class MisbehaveTest(unittest.TestCase):
    """One agent for all tests."""

    door = test_door.DoorTest

    @classmethod
    def setUpClass(cls) -> None:
        """Start the agent."""
        cls.addClassCleanup(cls.door.doClassCleanups)
        cls.door.setUpClass()

    def vm(self, name: str, answer: Answer) -> "subprocess.Popen[bytes]":
        """Let a VM be a process with such a monitor."""
        folder = self.door.folder
        # pylint: disable-next=consider-using-with
        process = subprocess.Popen(["sleep", "1000"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        while not (found := vmfind.process(process.pid)):
            pass
        durable.save(folder / f"state/vm/{name}/process.json", vms.Known(
            name, process.pid, found.started, str(folder / name)))
        durable.save(folder / f"state/vm/{name}/owner.json",
                     Owner(File.OWNER, 1))
        durable.write(folder / f"etc/vms/{name}.toml",
                      spec.dumps(spec.Spec(name, ("-m", "1"))).encode())
        listener = self.door.agent.run(asyncio.start_unix_server(
            FakeQemu(answer).serve, folder / name))
        self.addCleanup(listener.close)
        return process

    def test_qemu(self) -> None:
        """20 MiB, rubbish, or nothing at all: said, and the rest works."""
        impatient = mock.patch.object(Monitor.call, "__defaults__",
                                      (None, False, 0.5))
        for name, answer, why in (
                ("large", returns("x" * (20 << 20)), "query-"),
                ("silent", silent, "no answer in"),
                ("rubbish", lambda request: b"<html>\n", "query-")):
            process = self.vm(name, answer)
            agents = Agents(self.door.home)
            self.addCleanup(agents["alpha"].close)
            with impatient, mock.patch.object(
                    vms.Vms.count, "__defaults__", (0.5,)):
                with self.assertRaisesRegex(CliError, f"answer.*{why}"):
                    outlook.look_at(agents, name, "alpha")
                with self.assertRaises(AgentSaid) as caught:
                    agents["alpha"].order(f"/move/{test_door.MOVE}/begin",
                                          vm=name, peer="beta")
            self.assertEqual(caught.exception.code, "QmpGone")
            rows = agents["alpha"].get("/vms")["vms"]
            self.assertIn((name, True, ""), [
                (row["name"], row["runs"], row["moving"]) for row in rows])
            self.assertIsNone(process.poll())

    def test_names(self) -> None:
        """Names full of shell, HTML, or a terminal's commands go nowhere."""
        self.vm("vm1", silent)
        agent = Agents(self.door.home)["alpha"]
        self.addCleanup(agent.close)
        for name in NAMES:
            orders: list[tuple[str, dict[str, Any]]] = [
                ("/vm/adopt", {"name": name}),
                ("/vm/start", {"name": name}),
                ("/image/remove", {"vm": name, "disk": name}),
                (f"/move/{test_door.MOVE}/begin",
                 {"vm": name, "peer": name})]
            for path, body in orders:
                with self.assertRaises(AgentSaid, msg=name) as caught:
                    agent.order(path, **body)
                self.assertEqual(caught.exception.code, "Refused", path)
                self.assertRegex(terminal.plain(str(caught.exception)),
                                 r"^[\x20-\x7e]*$")
            made = json.loads(json.dumps({"name": name, "args": ["-m", "1"]}))
            with self.assertRaises(AgentSaid, msg=name) as caught:
                agent.order(f"/move/{test_door.MOVE}/prepare", spec=made,
                            peer="b", vm_epoch=1, fingerprint={}, key="",
                            needs={})
            self.assertEqual(caught.exception.code, "BadData")
