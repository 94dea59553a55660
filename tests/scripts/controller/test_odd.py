# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what a door answers to what cannot be: never that it is a bug."""

import asyncio
import json
import logging
import unittest
from typing import Any
from urllib.parse import quote

from tests.scripts.controller.doorstep import PRESENT, Served

HUGE = str(10 ** 40)
NUMBERS = ("²", "٣٣", "-1", HUGE, "9" * 19, "")
NAMES = ("", "\x00", "a" * 3000, "../../etc", "\ud800", "😀")


@unittest.skipUnless(PRESENT, "python3-aiohttp is needed")
class OddTest(Served):
    """Odd numbers, names, headers."""

    def setUp(self) -> None:
        super().setUp()
        self.made.set_mode("eve", self.made.mode())
        self.rounds(3)

        self.link = self.connection("c1", self.port)
        self.addCleanup(self.link.close)

    def post(self, path: str, body: bytes,
             headers: dict[str, str]) -> tuple[int, bytes]:
        """Give an order with more headers, on the one connection there is."""
        self.link.request("POST", f"/v1/{path}", body, headers)
        reply = self.link.getresponse()
        return reply.status, reply.read()

    def look(self, path: str, value: str) -> None:
        """Look at something odd."""
        self.link.request("GET", f"/v1/{path}" + quote(
            value.encode("utf-8", "surrogatepass")))
        reply = self.link.getresponse()
        text = reply.read()
        self.assertIn(reply.status, (200, 400, 409), (path, value, text))

    def test_looks(self) -> None:
        """Of a decision, a time, a count, a VM, a host."""
        for path in ("explain?plan=", "explain?vm=db1&decision=",
                     "explain?host=alpha&at=", "moves?days=", "audit?last=",
                     "history?host=alpha&span="):
            for each in NUMBERS:
                self.look(path, each)
        for path in ("explain?vm=", "explain?host=", "why-not?host=beta&vm=",
                     "why-not?vm=db1&host=", "history?host="):
            for each in NAMES:
                self.look(path, each)

    def test_orders(self) -> None:
        """Numbers and names that no plan, move, rule or host has."""
        odd: tuple[Any, ...] = (10 ** 40, 1 << 63, -1, 1.5, None, [], {}, True,
                                *NAMES[:5])
        orders: tuple[tuple[str, str, dict[str, Any]], ...] = (
                ("apply", "plan", {}), ("apply", "vm", {"plan": 1}),
                ("cancel", "move", {}), ("mode", "mode", {}),
                ("pause", "on", {}), ("rules/remove", "id", {}),
                ("rules", "kind", {"vms": ["db1"]}),
                ("rules", "vms", {"kind": "never"}),
                ("rules", "hosts", {"kind": "pin", "vms": ["db1"]}),
                ("rules", "weight", {"kind": "prefer", "vms": ["db1"],
                                     "hosts": ["beta"]}),
                ("rules", "most", {"kind": "apart", "vms": ["a", "b"]}),
                ("drain", "host", {"on": True}), ("drain", "on", {
                    "host": "zz"}), ("drain", "due", {"host": "zz",
                                                      "on": True}),
                ("errand", "vm", {}), ("errand", "due", {"vm": "db1"}),
                ("errand", "to", {"vm": "db1", "due": self.clock.now + 9e3}),
                ("hosts", "hosts", {}))
        for path, name, more in orders:
            for each in odd:
                status, text = self.post(path, json.dumps(
                    {**more, name: each}).encode(), {})
                self.assertIn(status, (200, 400, 409, 403),
                              (path, name, str(each)[:60], text))
        for entry in ({"address": "x:1", "state": "zz"}, {"address": "x"},
                      {"address": "x:²"}, {"address": 3}, "x"):
            status, text = self.post("hosts", json.dumps(
                {"hosts": {"alpha": entry}}).encode(), {})
            self.assertEqual(status, 400, text)

    def test_headers(self) -> None:
        """An Origin that is no address is another page's."""
        for origin in ("http:" + "//[", "http:" + "//[::1", "null", "//[",
                       "http:" + "//a]b", "https:" + "//\xe9"):
            status, text = self.post("pause", b'{"on": false}', {
                "Origin": origin, "Content-Type": "application/json"})
            self.assertIn(status, (400, 403), (origin, text))
            self.assertNotIn(b"bug", text)
        self.assertEqual(self.post("pause", b"{", {})[0], 400)
        self.assertEqual(self.post("pause", b"[" * 100000, {})[0], 400)
        self.assertEqual(self.post("pause", b'{"on": "\xff"}', {})[0],
                         400)

    def test_closed(self) -> None:
        """Who goes away from the stream is no error."""
        with self.assertNoLogs("wsm-controller", logging.WARNING), \
                self.assertNoLogs("aiohttp", logging.WARNING):
            connection = self.connection("c1", self.port)
            connection.request("GET", "/v1/stream")
            reply = connection.getresponse()
            self.assertEqual(reply.status, 200)
            reply.readline()
            connection.sock.close()
            reply.close()
            for _ in range(3):
                self.rounds(1)
                self.loop.run(self.pause())

    @staticmethod
    async def pause() -> None:
        """Let the stream look again."""
        await asyncio.sleep(1.1)
