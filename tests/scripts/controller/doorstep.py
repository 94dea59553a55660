# SPDX-License-Identifier: GPL-2.0-or-later
"""A controller that serves, with certificates, of hosts that are not there."""

import asyncio
import json
import shutil
import ssl
import tempfile
import threading
import unittest
from typing import Any, Coroutine, Optional

from tests.scripts.certified import Certified
from tests.scripts.typed import typed

try:
    # pylint: disable=ungrouped-imports
    from wsm.controller import api
    from wsm.controller.rounds import Controller
    from wsm.controller.setup import Settings, Tls
    from tests.scripts.controller.fake import Clock, Hosts, controller

    from aiohttp import web
except ImportError:
    PRESENT = False
else:
    PRESENT = True

TIMEOUT = 20.0


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever,
                                       daemon=True)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something in it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(
            TIMEOUT)

    def close(self) -> None:
        """End it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


async def listen(app: "web.Application", context: ssl.SSLContext) -> Any:
    """Serve; return (runner, port)."""
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    return runner, runner.addresses[0][1]


@unittest.skipUnless(PRESENT and shutil.which("openssl"),
                     "python3-aiohttp, python3-prometheus-client are needed")
class Cluster(Certified):
    """A CA, and certificates of everybody."""

    loop: Loop

    @classmethod
    def setUpClass(cls) -> None:
        """Make them once."""
        super().setUpClass()
        for file, kind, name, role in (
                ("c1", "controller", "c1", ""), ("alpha", "agent", "alpha", ""),
                ("viewer", "user", "vi", "viewer"),
                ("operator", "user", "op", "operator")):
            cls.certificate(file, kind, name, role)
        cls.loop = Loop()
        cls.addClassCleanup(cls.loop.close)

    @classmethod
    def settings(cls, name: str = "c1") -> "Settings":
        """Return settings with a certificate."""
        return Settings("c1", "test", tls=Tls(
            str(cls.home.folder / "ca.pem"), str(cls.folder / f"{name}.pem"),
            str(cls.folder / f"{name}.key")))


class Served(Cluster):
    """One controller of hosts that are not there."""

    clock: "Clock"
    hosts: "Hosts"
    made: "Controller"
    port: int

    def setUp(self) -> None:
        self.clock, self.hosts = Clock(), Hosts(("alpha", "beta"))
        self.hosts.add("db1", "alpha", 0.1)
        self.hosts.add("web", "alpha", 0.9)
        store = tempfile.TemporaryDirectory()   # pylint: disable=R1732
        self.addCleanup(store.cleanup)
        self.made = controller(self.hosts, f"{store.name}/c.db", self.clock)
        self.addCleanup(self.made.store.close)
        self.addCleanup(self.made.leader.give)
        self.addCleanup(self.made.executor.stop, TIMEOUT)
        runner, self.port = self.loop.run(listen(
            api.Door(self.made).app(), api.tls(self.settings())))
        self.addCleanup(lambda: self.loop.run(runner.cleanup()))
        self.home.put_controller("c1", f"127.0.0.1:{self.port}")

    def rounds(self, count: int) -> None:
        """Let time go on."""
        async def once() -> None:
            await self.made.once()
            await self.made.collector.settled()

        for _ in range(count):
            self.clock.now += 10.0
            self.hosts.seq += 1
            self.loop.run(once())

    def heat(self) -> None:
        """Let alpha be hot."""
        self.hosts.vms["db1"].cpu = 2.4
        self.rounds(15)

    def ask(self, file: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask with another certificate; return (status, answer)."""
        connection = self.connection(file, self.port)
        connection.request("GET" if body is None else "POST", path,
                           body if body is None or isinstance(body, bytes)
                           else json.dumps(body))
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        return reply.status, (json.loads(text) if b"json" in (
            reply.headers["Content-Type"].encode()) else text.decode())

    def ctl(self, *words: str, home: Optional[str] = None) -> tuple[int, str]:
        """Type a command; return status and all that it says."""
        return typed("--home", home or str(self.home.folder), *words)

    def expect(self, status: int, words: str, *line: str) -> str:
        """Type a command; both ways, with and without --json."""
        found, text = self.ctl(*line)
        self.assertEqual(found, status, text)
        self.assertIn(words, text)
        return text
