# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans of the record, decided again: 'wsmctl sim replay'."""

import copy
import json
import random
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any, Iterator

from wsm.cli import again
from wsm.plan import kept, shown
from wsm.plan.plain import BadData
from wsm.plan.policy import loads

from tests.scripts.controller.doorstep import Served

EMPTY: dict[str, Any] = {"spots": [], "steps": [], "asked": [], "later": [],
                         "breakers": []}
LAX = "[hot.limits.cpu]\nlimit = 0.97\nhard = 1.5\nrelease = 0.96\n"
STRICT = "[hot.limits.cpu]\nlimit = 0.2\nhard = 0.25\nrelease = 0.1\n"


def a_step(vm: str, to: str, ask: str = "") -> dict[str, Any]:
    """Return a step."""
    return {"vm": vm, "from": "alpha", "to": to, "ask": ask,
            "why": f"{vm}: because"}


class WordsTest(unittest.TestCase):
    """What differs, in words."""

    def said(self, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
        """Return it."""
        return list(again.differences(EMPTY | old, EMPTY | new))

    def test_steps(self) -> None:
        """Not, also, elsewhere, with consent, later; each is one line."""
        to_beta, to_gamma = a_step("db1", "beta"), a_step("db1", "gamma")
        cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
            ({"steps": [to_beta]}, {}, "db1 does not go from alpha to "
             "beta, as was decided: db1: because"),
            ({}, {"steps": [to_beta]}, "db1 goes from alpha to beta at "
             "once, which was not decided: db1: because"),
            ({"steps": [to_beta]}, {"steps": [to_gamma]},
             "db1 goes to gamma, not to beta: db1: because"),
            ({"steps": [to_beta]}, {"asked": [a_step("db1", "beta", "mode")]},
             "db1 goes if a person agrees, not at once: mode"),
            ({"asked": [a_step("db1", "beta", "mode")]}, {"steps": [to_beta]},
             "db1 goes at once, not if a person agrees: mode"),
            ({}, {"later": [to_beta]}, "db1 goes from alpha to beta after "
             "another move, which was not decided: db1: because"),
            ({"breakers": ["x"]}, {}, "it does not stop itself: x"),
            ({}, {"breakers": ["x"]}, "it stops itself: x")]
        for old, new, words in cases:
            self.assertEqual(self.said(old, new), [words])
        self.assertEqual(self.said({"steps": [to_beta]}, {"steps": [
            {**to_beta, "why": "another figure"}]}), [])

    def test_spots(self) -> None:
        """Hot spots by their keys; their figures may be others."""
        one = {"spots": [{"key": "host.cpu alpha", "text": "alpha 0.91"}]}
        two = {"spots": [{"key": "host.cpu alpha", "text": "alpha 0.92"}]}
        self.assertEqual(self.said(one, two), [])
        self.assertEqual(self.said(one, {}), [
            "no hot spot (host.cpu alpha), as was seen: alpha 0.91"])
        self.assertEqual(self.said({}, two), [
            "a hot spot (host.cpu alpha), which was not seen: alpha 0.92"])


def torn(value: Any, chance: random.Random) -> Any:
    """Return it with something in it gone, or replaced."""
    value = copy.deepcopy(value)
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = chance.choice(list(keys))
        if isinstance(place[key], (dict, list)) and place[key] and (
                chance.random() < 0.8):
            place = place[key]
            continue
        if chance.random() < 0.5:
            del place[key]
        else:
            place[key] = chance.choice((None, "x", -1, 1e308, [], {}, [[]],
                                        True, float("nan"), {"x": 1}))
        return value


class ReplayTest(Served):
    """A controller that has decided something."""

    def setUp(self) -> None:
        super().setUp()
        self.made.leader.take()
        self.rounds(20)
        self.ctl("mode", "ask")
        self.heat()
        self.number = self.made.last_id
        folder = tempfile.TemporaryDirectory()  # pylint: disable=R1732
        self.addCleanup(folder.cleanup)
        self.files = Path(folder.name)

    def file(self, name: str, text: str) -> str:
        """Write a file; return its name."""
        path = self.files / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def record(self) -> Any:
        """Return what is said of the plan with a step."""
        status, text = self.ctl("explain", "plan", str(self.number), "--json")
        self.assertEqual(status, 0)
        return json.loads(text)

    def replay(self, *words: str) -> tuple[int, str]:
        """Replay all that there is."""
        return self.ctl("sim", "replay", "--last", f"{1 << 30}s", *words)

    def test_same(self) -> None:
        """By its own policy all comes out the same; quiet ones count."""
        status, text = self.replay()
        self.assertEqual(status, 0, text)
        self.assertRegex(text, r"^\d+ plans were decided again, 0 of them")
        there = self.made.store.read("SELECT COUNT(*) FROM decisions WHERE "
                                     "input IS NOT NULL")[0][0]
        self.assertEqual(int(text.split()[0]), there)
        self.assertGreater(there, 1)

    def test_moved(self) -> None:
        """So they do after a move, which has taught something."""
        self.ctl("mode", "auto")
        self.rounds(1)
        end = 2000
        while self.made.executor.busy() and end:
            end -= 1
            threading.Event().wait(0.01)
        with self.made.store.write() as database:   # drivers have no clock
            database.execute("UPDATE moves SET ended = ?", (self.clock.now,))
        self.hosts.vms["web"].cpu = 3.9
        self.rounds(70)
        status, text = self.replay()
        self.assertEqual(status, 0, text)
        self.assertGreater(int(text.split()[0]), 5)
        lessons = [len(self.ask("viewer", f"/v1/explain?plan={number}")[1][
            "lessons"]) for number in (self.number, self.made.last_id)]
        self.assertEqual(lessons[0], 0)
        self.assertGreater(lessons[1], 0)

    def test_price(self) -> None:
        """What a move costs is what it cost then."""
        data = self.record()
        made = kept.restore(data["input"])
        step = again.decide(made, made.policy, ()).steps[0]
        self.assertEqual(shown.step_json(step), data["decisions"][0]["steps"][0])

    def test_policies(self) -> None:
        """One that finds nothing hot, one that finds more."""
        lax, strict = self.file("lax", LAX), self.file("strict", STRICT)
        text = self.expect(3, "db1 does not go from alpha to beta, as was "
                           "decided: db1: alpha's CPU demand", "sim", "replay",
                           "--decision", str(self.number), "--policy",
                           self.file("none", LAX.replace("0.97", "1.4")
                                     .replace("0.96", "1.3")))
        self.assertIn("no hot spot (host.cpu alpha)", text)
        self.assertIn("1 plans were decided again, 1 of them", text)
        self.assertNotIn("by its own policy", text)
        status, text = self.replay("--policy", strict)
        self.assertEqual(status, 3, text)
        self.assertIn("a hot spot (host.cpu alpha), which was not seen", text)
        self.assertEqual(self.replay("--policy", lax, "--json")[1][:1], "{")
        self.expect(1, "not known", "sim", "replay", "--policy",
                    self.file("bad", "hot.no = 1\n"))

    def test_without(self) -> None:
        """Of which nothing was kept is counted, not guessed."""
        with self.made.store.write() as database:
            database.execute("UPDATE decisions SET input = NULL WHERE id = ?",
                             (self.number,))
        status, text = self.replay()
        self.assertEqual(status, 0, text)
        self.assertIn("it was not kept what they were made of", text)
        self.expect(0, "0 plans were decided again", "sim", "replay",
                    "--decision", str(self.number))
        self.expect(1, "no such plan", "sim", "replay", "--decision", "9999")

    def test_damaged(self) -> None:
        """A row that is damaged is named, and the others go on."""
        with self.made.store.write() as database:
            database.execute("UPDATE decisions SET input = ? WHERE id = ?",
                             (b"rubbish", self.number))
        with self.assertLogs("wsm-controller", "ERROR"):
            status, text = self.replay()
        self.assertEqual(status, 1, text)
        self.assertIn(f"plan {self.number}: ", text)
        self.assertIn("1 could not be read", text)
        self.assertNotRegex(text, r"(?m)^0 plans")

    def test_files(self) -> None:
        """As printed; damaged ones, and those of others, are named."""
        data = self.record()
        good = self.file("good", json.dumps(data))
        self.expect(0, "1 plans were decided again, 0", "sim", "replay", good)
        for text in ("", "[", "[" * 100000, "null", "[]", "{}", "1",
                     json.dumps({**data, "decisions": []}),
                     json.dumps({**data, "decisions": [
                         {**data["decisions"][0], "steps": [], "at": 1e300}]}),
                     json.dumps({**data, "input": {"format": 1}})):
            self.expect(1, "bad: ", "sim", "replay", good,
                        self.file("bad", text))
        self.expect(2, "one of them", "sim", "replay", good, "--decision", "1")
        data["decisions"][0]["steps"] = []
        self.expect(3, "by its own policy it is not what was recorded", "sim",
                    "replay", self.file("other", json.dumps(data)))
        del data["input"]["vms"]["db1"]
        self.assertIn(self.ctl("sim", "replay", self.file(
            "partial", json.dumps(data)))[0], (1, 3))

    def test_hostile(self) -> None:
        """Whatever is in a file, nothing but BadData comes of it."""
        data, chance = self.record(), random.Random(1)
        wrong = 0
        for broken in self.broken(data, chance):
            try:
                again.again(broken, loads(STRICT))
            except (BadData, again.NotKept):
                wrong += 1
        self.assertGreater(wrong, 50)

    @staticmethod
    def broken(data: Any, chance: random.Random) -> Iterator[Any]:
        """Yield it, damaged somewhere."""
        for _ in range(300):
            yield torn(data, chance)

    def test_listed(self) -> None:
        """Since when; rubbish is refused."""
        found = self.ask("viewer", "/v1/decisions?since=1")[1]["decisions"]
        self.assertEqual(found[-1]["plan"], self.number)
        self.assertTrue(found[-1]["kept"])
        late = self.ask("viewer", f"/v1/decisions?since={self.clock.now}")[1]
        self.assertLess(len(late["decisions"]), len(found))
        for text in ("", "?since=x", "?since=nan", "?since=-1"):
            self.assertEqual(self.ask("viewer", f"/v1/decisions{text}")[0],
                             400)
