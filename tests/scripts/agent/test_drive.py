# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of who drives a move, against two hosts that are a model.

The driver is killed after each order, or before it, and another one goes on
with the journal; the hosts go on meanwhile.
"""

import tempfile
import unittest
from pathlib import Path
from typing import Any, Callable, Optional, cast
from unittest import mock

from wsm.cli import drive
from wsm.cli.agents import Agents, AgentSaid, NoAnswer
from wsm.cli.home import Cluster, Home, HostEntry, Move
from wsm.plan.ends import File, Stage, Word
from wsm.plan.plain import to_plain
from wsm.plan.recovery import Do

from tests.scripts.plan.two_hosts import ACTIONS, Refused, World, goes_on

# Orders, and what they do in the model
VERBS = {
    ("source", "begin"): Do.BEGIN, ("source", "perform"): Do.PERFORM,
    ("source", "cancel"): Do.CANCEL, ("source", "keep"): Do.KEEP,
    ("source", "hand-over"): Do.WAIT, ("source", "finish"): Do.FINISH,
    ("source", "kill"): Do.KILL_SOURCE, ("source", "break"): Do.BREAK_SOURCE,
    ("source", "recover"): Do.RECOVER, ("source", "restart"): Do.RESTART,
    ("destination", "prepare"): Do.PREPARE,
    ("destination", "clean"): Do.CLEAN,
    ("destination", "hand-over"): Do.HAND_OVER,
    ("destination", "finish"): Do.WAIT,
    ("destination", "break"): Do.BREAK_DESTINATION,
    ("destination", "recover"): Do.WAIT, ("destination", "fence"): Do.FENCE,
}


class Killed(BaseException):
    """The driver is killed."""


class Hosts:
    """Both agents, over one world."""

    def __init__(self) -> None:
        self.world = World()
        self.orders: list[str] = []
        self.kill_at = -1               # number of the order, doubled
        self.refuse = ""                # an order that never works
        self.lost: Optional[Callable[[World], World]] = None
        self.key = ""
        self.answers: Callable[[str, str], None] = lambda side, path: None

    def __getitem__(self, name: str) -> "FakeAgent":
        return FakeAgent(self, "source" if name == "a" else "destination")


class FakeAgent:
    """One of them."""

    address = "b:1"

    def __init__(self, hosts: Hosts, side: str) -> None:
        self.hosts = hosts
        self.side = side

    def get(self, path: str, **_: Any) -> Any:
        """Show this end, and let time go on."""
        hosts = self.hosts
        hosts.answers(self.side, path)
        end = getattr(hosts.world.seen(), self.side)
        if path == "/vms":
            return {"vms": [{"name": "vm", "runs":
                             end.word is not Word.DEAD}]}
        if self.side == "source":
            hosts.world = (goes_on(hosts.world) or [hosts.world])[0]
        if hosts.lost and self.side == "source":
            hosts.world = hosts.lost(hosts.world)
        return {"end": to_plain(end), "figures": {"phase": "x"}}

    def order(self, path: str, **body: Any) -> Any:
        """Do something; the driver may be killed before or after it."""
        hosts, verb = self.hosts, path.rsplit("/", 1)[1]
        number = 2 * len(hosts.orders)
        hosts.orders.append(f"{self.side} {verb}")
        if hosts.kill_at == number:
            raise Killed
        if verb == hosts.refuse:
            raise AgentSaid("Refused", "b: pool default: no room")
        if verb == "prepare":
            hosts.key = body["key"]
        if verb == "perform" and body["key"] != hosts.key:
            raise AssertionError("two keys")
        try:
            hosts.world = ACTIONS[VERBS[self.side, verb]](hosts.world)
        except Refused as why:
            raise AgentSaid("Refused", str(why)) from why
        if verb == "clean":
            hosts.world = hosts.world.but(ended=False)
        if hosts.kill_at == number + 1:
            raise Killed
        return {"spec": {}, "epoch": 1, "fingerprint": {}, "address": "b",
                "port": 1}


def fail_a_while(hosts: Hosts, code: str, path: str) -> list[str]:
    """Let the destination fail in post-copy; return what it was asked."""
    asked: list[str] = []

    def fails(side: str, what: str) -> None:
        if side == "destination" and len(asked) < 4 and (
                hosts.world.destination is Word.POSTCOPY):
            asked.append(what)
            if what != "/vms":
                raise AgentSaid(code, "b: no")
            if path == "/vms":
                raise NoAnswer("b")

    hosts.answers = fails
    return asked


def silent_from(first: int) -> Callable[[str, str], None]:
    """Return who does not answer for the destination, three times."""
    asked: list[str] = []

    def silent(side: str, what: str) -> None:
        if side == "destination":
            asked.append(what)
            if first < len(asked) <= first + 3:
                raise NoAnswer("b")

    return silent


class DriveTest(unittest.TestCase):
    """One move."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()  # pylint: disable=R1732
        self.addCleanup(folder.cleanup)
        self.home = Home(folder.name)
        self.home.save(Cluster("test", "x", {
            "a": HostEntry("a:1"), "b": HostEntry("b:1")}))
        self.move = self.home.new_move(Move("m-1", "vm", "a", "b"))
        patch = mock.patch("time.sleep")
        patch.start()
        self.addCleanup(patch.stop)

    def drive(self, hosts: Hosts) -> Move:
        """Drive the move with a driver that knows only the journal."""
        return drive.resume(self.home, cast(Agents, hosts),
                            self.home.move("m-1"), lambda *_: None)

    def test_moves(self) -> None:
        """Without trouble, in this order."""
        hosts = Hosts()
        done = self.drive(hosts)
        self.assertEqual(done.result, "moved")
        self.assertIs(hosts.world.there, File.OWNER)
        short = [each for number, each in enumerate(hosts.orders)
                 if each not in hosts.orders[:number]]
        self.assertEqual(short[:4], [
            "source begin", "destination clean", "destination prepare",
            "source perform"])
        self.assertEqual(done.stage, Stage.ENDED)

    def test_killed(self) -> None:
        """Before or after any order; another one goes on."""
        number = 0
        while True:
            self.home.put_move(self.move)
            hosts = Hosts()
            hosts.kill_at = number
            try:
                self.drive(hosts)
                break
            except Killed:
                pass
            done = self.drive(hosts)
            owners = (hosts.world.here, hosts.world.there)
            self.assertEqual(owners.count(File.OWNER), 1, (number, owners))
            self.assertEqual(done.result, "moved" if hosts.world.there
                             is File.OWNER else "stayed", hosts.orders)
            number += 1
        self.assertGreater(number, 10)

    def test_refused(self) -> None:
        """An agent that has no room: the guest stays, with the reason."""
        for verb in ("begin", "prepare", "perform"):
            self.home.put_move(self.move)
            hosts = Hosts()
            hosts.refuse = verb
            done = self.drive(hosts)
            self.assertEqual((done.result, done.text),
                             ("stayed", "b: pool default: no room"))
            self.assertIs(hosts.world.here, File.OWNER)

    def test_dies_at_once(self) -> None:
        """A destination that never lives long is not tried for ever."""
        hosts = Hosts()
        hosts.lost = lambda world: world.but(destination=Word.DEAD)
        done = self.drive(hosts)
        self.assertEqual(done.result, "stayed")
        self.assertIn("3 times", done.text)
        self.assertEqual(hosts.orders.count("destination prepare"), 3)

    def test_cancelled(self) -> None:
        """Somebody does not want it any more."""
        hosts = Hosts()
        self.home.put_move(self.move)
        driver = drive.Driver(self.home, cast(Agents, hosts), self.move,
                              lambda *_: None)

        def late(world: World) -> World:
            if world.source is Word.FREEZE:
                driver.cancel("")
            return world

        hosts.lost = late
        done = driver.run()
        self.assertIn(done.result, ("cancelled", "moved"))
        self.assertEqual((hosts.world.here, hosts.world.there).count(
            File.OWNER), 1)

    def test_cancelled_elsewhere(self) -> None:
        """By another wsmctl, while this one drives it."""
        self.home.want_cancel("m-1")
        hosts = Hosts()
        self.assertEqual(self.drive(hosts).result, "cancelled")
        self.assertNotIn("source perform", hosts.orders)

    def test_agent_fails(self) -> None:
        """An agent with a fault inside is silent: it says nothing of a move."""
        for code, path in (("bug", "/move/m-1"), ("QmpGone", "/move/m-1"),
                           ("NoMove", "/vms")):
            self.home.put_move(self.move)
            hosts = Hosts()
            asked = fail_a_while(hosts, code, path)
            self.assertEqual(self.drive(hosts).result, "moved", code)
            self.assertIn(path, asked)

    def test_silent_a_while(self) -> None:
        """Before it begins, the destination's agent is started anew."""
        for number in range(3):
            self.home.put_move(self.move)
            hosts = Hosts()
            hosts.answers = silent_from(number)
            self.assertEqual(self.drive(hosts).result, "moved", number)
            self.assertNotIn("source keep", hosts.orders)

    def test_source_dies(self) -> None:
        """Before the handover it boots again, after it a person is told."""
        for when, result in ((Word.FREEZE, "stayed"), (Word.POSTCOPY, "")):
            self.home.put_move(self.move)
            hosts = Hosts()

            def die(world: World, when: Word = when) -> World:
                if world.source is not when or world.in_flight:
                    return world
                return world.but(source=Word.DEAD, missing=True,
                                 destination=Word.PAUSED if when
                                 is Word.POSTCOPY else world.destination)

            hosts.lost = die
            done = self.drive(hosts)
            self.assertEqual(done.result, result)
            self.assertEqual("source restart" in hosts.orders,
                             when is Word.FREEZE)
            self.assertEqual("is lost" in done.text or "blocks" in done.text
                             or "bytes" in done.text, True, done.text)

    def test_converges_never(self) -> None:
        """Downtime is raised in steps, then the move is cancelled."""
        limits: list[int] = []
        driver = drive.Driver(self.home, cast(Agents, Hosts()), self.move,
                              lambda *_: None)
        driver.downtime_most = 0.5

        def order(_self: FakeAgent, _path: str, **body: Any) -> None:
            limits.append(body["limits"]["downtime-limit"])

        with mock.patch.object(FakeAgent, "order", order):
            for number in range(1, 20):
                driver.figures = {"phase": "ram-precopy", "ram": {
                    "dirty-sync-count": number // 2, "remaining": 50 << 20}}
                driver.push()
                if driver.move.cancel:
                    break
        self.assertEqual(limits, [450, 500])
        self.assertIn("does not converge: 50.0 MiB", driver.move.reason)
        driver = drive.Driver(self.home, cast(Agents, Hosts()), self.move,
                              lambda *_: None)
        driver.patient = True
        driver.downtime_most = driver.downtime
        for number in range(1, 20):
            driver.figures = {"phase": "ram-precopy", "ram": {
                "dirty-sync-count": number, "remaining": 50 << 20}}
            driver.push()
        self.assertFalse(driver.move.cancel)

    def test_one_driver(self) -> None:
        """Two do not drive the same move."""
        with self.home.locked("m-1"):
            with self.assertRaises(Exception) as caught:
                self.drive(Hosts())
            self.assertIn("another wsmctl", str(caught.exception))

    def test_silent(self) -> None:
        """An end that does not answer is silent, not dead."""
        hosts = Hosts()
        driver = drive.Driver(self.home, cast(Agents, hosts), self.move,
                              lambda *_: None)
        with mock.patch.object(FakeAgent, "get", side_effect=NoAnswer("x")):
            self.assertIs(driver.look("source").word, Word.SILENT)
        self.assertIs(driver.look("source").word, Word.HERE)
        self.assertTrue(Path(self.home.path("m-1")).exists())
