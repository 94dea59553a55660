# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the agent's QMP, against QEMUs that misbehave."""

import asyncio
import contextlib
import json
import unittest
from typing import Any, Awaitable, Callable

from tests.scripts.agent.test_owner import FolderTest

try:
    from wsm.agent.monitor import Monitor, QmpFailed, QmpGone
    from wsm.plan.permit import Forbidden
except ImportError:
    PRESENT = False
else:
    PRESENT = True

GREETING = {"QMP": {"version": {}, "capabilities": ["oob"]}}
Answer = Callable[[dict[str, Any]], bytes]


class FakeQemu:
    """Speaks QMP as a test wants it to."""

    def __init__(self, answer: Answer, greeting: bytes = b"") -> None:
        self.answer = answer
        self.greeting = greeting or json.dumps(GREETING).encode() + b"\n"

    async def serve(self, reader: asyncio.StreamReader,
                    writer: asyncio.StreamWriter) -> None:
        """Answer one client until it hangs up."""
        with contextlib.suppress(ConnectionError):
            await self.talk(reader, writer)
        writer.close()

    async def talk(self, reader: asyncio.StreamReader,
                   writer: asyncio.StreamWriter) -> None:
        """Answer; requests are no lines but a stream of JSON."""
        decoder, text = json.JSONDecoder(), ""
        writer.write(self.greeting)
        while data := await reader.read(65536):
            text += data.decode()
            while text:
                try:
                    request, end = decoder.raw_decode(text)
                except ValueError:
                    break
                text = text[end:].lstrip()
                if "qmp_capabilities" in request.values():
                    writer.write(b'{"return": {}}\n')
                else:
                    writer.write(self.answer(request))


def returns(value: Any) -> Answer:
    """Answer with a value."""
    return lambda request: json.dumps(
        {"return": value, "id": request["id"]}).encode() + b"\n"


@unittest.skipUnless(PRESENT, "scripts/build has not been run")
class MonitorTest(FolderTest):
    """Time-outs, limits, events."""

    def run_with(self, qemu: FakeQemu,
                 test: "Callable[[Monitor], Awaitable[None]]") -> None:
        """Run a test against a QEMU."""
        async def body() -> None:
            path = self.folder / "qmp"
            server = await asyncio.start_unix_server(qemu.serve, path)
            monitor = Monitor(path)
            try:
                await test(monitor)
            finally:
                await monitor.close()
                server.close()

        asyncio.run(body())

    def test_answers(self) -> None:
        """A value, and an error in QEMU's words."""
        async def good(monitor: Monitor) -> None:
            await monitor.connect()
            self.assertEqual(await monitor.call("query-status"), {"a": 1})

        async def bad(monitor: Monitor) -> None:
            await monitor.connect()
            with self.assertRaisesRegex(QmpFailed, "no such thing"):
                await monitor.call("query-status")
            with self.assertRaises(Forbidden):
                await monitor.call("device_add")

        self.run_with(FakeQemu(returns({"a": 1})), good)
        self.run_with(FakeQemu(lambda request: json.dumps(
            {"error": {"class": "GenericError", "desc": "no such thing"},
             "id": request["id"]}).encode() + b"\n"), bad)

    def test_silent(self) -> None:
        """One that never answers, or never says hello."""
        async def no_answer(monitor: Monitor) -> None:
            await monitor.connect()
            with self.assertRaisesRegex(QmpGone, "no answer"):
                await monitor.call("query-status", timeout=0.05)

        async def no_hello(monitor: Monitor) -> None:
            with self.assertRaises(QmpGone):
                await monitor.connect(0.05)

        self.run_with(FakeQemu(lambda request: b""), no_answer)
        self.run_with(FakeQemu(returns(1), b" "), no_hello)

    def test_misbehaves(self) -> None:
        """An answer that is too large, none, or torn; an id of nobody's."""
        async def gone(monitor: Monitor) -> None:
            await monitor.connect()
            with self.assertRaises(QmpGone):
                await monitor.call("query-status", timeout=5)
            with self.assertRaises(QmpGone):
                await monitor.call("query-status")

        for answer in (returns("x" * (20 << 20)),
                       lambda request: b"<html>\n",
                       lambda request: b"[1, 2]\n"):
            self.run_with(FakeQemu(answer), gone)

    def test_events(self) -> None:
        """What it says of itself is kept, and only that."""
        def answer(request: dict[str, Any]) -> bytes:
            events = [{"event": name, "data": data, "timestamp": {}}
                      for name, data in (
                          ("WSM_PHASE", {"phase": "setup"}),
                          ("RTC_CHANGE", {}), ("WSM_PHASE",
                                               {"phase": "postcopy"}),
                          ("SHUTDOWN", {"guest": True}))]
            return b"".join(json.dumps(each).encode() + b"\n" for each in (
                *events, {"return": 1, "id": request["id"]}))

        async def test(monitor: Monitor) -> None:
            await monitor.connect()
            await monitor.call("query-status")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.assertEqual(monitor.phases(), ["setup", "postcopy"])
            self.assertTrue(monitor.was_shut())
            self.assertEqual(len(monitor.events), 3)

        self.run_with(FakeQemu(answer), test)
