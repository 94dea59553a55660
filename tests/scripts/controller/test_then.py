# SPDX-License-Identifier: GPL-2.0-or-later
"""What was decided, and why, from the record."""

import json
import time
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from wsm.cli.home import CliError
from wsm.cli.moment import moment
from wsm.plan import kept, planner, shown
from wsm.plan.plain import BadData
from wsm.plan.policy import Policy
from wsm.sim import scenario

from tests.scripts.controller.doorstep import PRESENT, Served
from tests.scripts.plan.test_shortcuts import some_moods

SCENES = sorted((Path(__file__).parents[1] / "plan/scenes").glob("*.toml"))
LONG = ("quiet", "day", "turns")    # 24 hours of silence
QUIET = 20                          # rounds of which one is looked at


def gist(made: planner.Decision) -> list[str]:
    """Return what a decision is about, without figures."""
    return [*(spot.key for spot in made.spots), *(
        f"{step.vm} to {step.to} {step.ask}"
        for step in (*made.steps, *made.asked)), *(
            f"{each.spot.key}: {sorted(each.reasons)}"
            for each in made.nothing), *made.breakers]


@unittest.skipUnless(PRESENT, "python3-prometheus-client is needed")
class KeptTest(unittest.TestCase):
    """A round that was written down is the same round."""

    decide = staticmethod(planner.decide)
    rounds = replayed = 0
    last: Any = None

    def again(self, fleet: Any, policy: Policy, past: Any,
              cost: Any) -> planner.Decision:
        """Decide, and decide anew from what is kept of it."""
        self.rounds += 1
        plain = json.loads(json.dumps(kept.record(kept.Round(
            fleet, policy, past)))) if self.rounds % QUIET == 0 or (
                self.last and self.last.spots) else None
        self.last = self.decide(fleet, policy, past, cost)
        if plain:
            made = kept.restore(plain)
            found = self.decide(made.fleet, made.policy, made.past, lambda
                                guest, to: cost(fleet.guests[guest.use.name],
                                                to))
            self.assertEqual(gist(found), gist(self.last))
            for one, two in zip(found.steps, self.last.steps):
                self.assertEqual(shown.step_json(one)["why"],
                                 shown.step_json(two)["why"])
            self.replayed += 1
        return self.last

    def test_scenes(self) -> None:
        """Every round with a hot spot, and some others, of every sixth scene."""
        for path in SCENES[::6]:
            if path.stem in LONG:
                continue
            self.last = None
            with self.subTest(path.stem), mock.patch.object(
                    planner, "decide", self.again):
                scenario.play(scenario.loads(path.read_text("utf-8")),
                              Policy())
        self.assertGreater(self.replayed, 50)

    def test_lacks(self) -> None:
        """What VMs lacked is seen again."""
        seen: set[str] = set()
        for seed in range(3):
            world = some_moods(seed)
            for _ in range(20):
                world.step()
                found = [kept.restore(json.loads(json.dumps(kept.record(
                    kept.Round(world.fleet, Policy(), world.past))))).fleet,
                         world.fleet]
                one, two = [{spot.key for spot in self.decide(
                    fleet, Policy(), world.past, world.cost).spots}
                    for fleet in found]
                self.assertEqual(one, two)
                seen |= one
        self.assertTrue([key for key in seen if key.startswith("sla.")])

    def test_other_version(self) -> None:
        """What another version has kept is not guessed at."""
        with self.assertRaises(BadData):
            kept.restore({"now": 1.0, "hosts": {}})


class ThenTest(Served):
    """Asked later what was."""

    def test_why(self) -> None:
        """A VM that has moved is explained as it was before."""
        self.expect(0, "mode ask", "mode", "ask")
        self.rounds(20)
        calm = self.clock.now
        self.heat()
        hot, number = self.clock.now, self.made.last_id
        self.hosts.vms["db1"].cpu = 0.1
        self.rounds(60)
        self.assertIn("lacks nothing", self.ctl("why-not", "db1", "beta")[1])
        self.expect(0, "db1 was on alpha: CPU now 2.40 cores", "explain",
                    "vm", "db1", "--decision", str(number))
        self.expect(0, f"plan {number},", "explain", "vm", "db1",
                    "--decision", str(number))
        decide, again = planner.decide, []

        def noted(*words: Any) -> Any:
            again.append(decide(*words))
            return again[-1]

        with mock.patch.object(planner, "decide", noted):
            self.expect(0, "it is what is done: db1: alpha's CPU demand",
                        "why-not", "db1", "beta", "--decision", str(number))
        # With what it was said to cost
        recorded = self.made.ledger.decision(number)
        assert recorded
        self.assertEqual(shown.decision_json(again[0])["steps"],
                         recorded.output["steps"])
        for at, words in ((hot, "CPU now 2.40 cores"),
                          (calm, "CPU now 0.10 cores")):
            found = self.ask("viewer", f"/v1/explain?vm=db1&at={at}")[1]
            self.assertIn(words, "\n".join(found["lines"]))
            self.assertLess(at - found["known"], 310.0)
            self.assertTrue(found["decisions"])
        for what in ("host=alpha", ""):
            found = self.ask("viewer", f"/v1/explain?{what}&at={hot}")[1]
            self.assertIn("alpha", "\n".join(found["lines"]))
        self.assertIn("alpha's CPU demand", found["lines"][1])
        found = self.ask("viewer", "/v1/why-not?vm=db1&host=beta&at="
                         f"{calm}")[1]
        self.assertIn("alpha, where db1 is, lacks nothing",
                      "\n".join(found["lines"]))
        self.assertNotIn("-drive", json.dumps(self.made.ledger.input(1)))

    def test_nothing_there(self) -> None:
        """No such time, VM, host, plan: said so."""
        self.rounds(4)
        now = self.clock.now
        for path, status, words in (
                ("explain?vm=db1&at=5", 409, "no round before"),
                ("explain?vm=db1&at=nan", 400, "no time"),
                ("explain?vm=db1&at=x", 400, "no time"),
                ("explain?vm=no&at=" + str(now), 409, "there were: db1, web"),
                ("explain?host=no&at=" + str(now), 409, "no host no"),
                ("why-not?vm=db1&host=no&at=" + str(now), 409, "no host no"),
                ("explain?vm=db1&decision=99", 409, "no plan 99"),
                ("explain?vm=db1&decision=x", 400, "no number")):
            found, said = self.ask("viewer", f"/v1/{path}")
            self.assertEqual(found, status, path)
            self.assertIn(words, said["text"])
        self.expect(2, "is no time", "explain", "nothing", "--at", "soon")
        self.expect(2, "not allowed with", "explain", "nothing", "--at", "1m",
                    "--decision", "1")

    def test_kept(self) -> None:
        """A quiet fleet is written down each five minutes, seven days long."""
        self.rounds(62)
        kept_at = [row[0] for row in self.made.store.read(
            "SELECT at FROM decisions WHERE input IS NOT NULL ORDER BY id")]
        self.assertGreaterEqual(len(kept_at), 3)
        self.assertLessEqual(max(two - one for one, two in zip(
            kept_at, kept_at[1:])), 300.0)
        self.assertLess(len(kept_at), 8)
        self.clock.now += 8 * 86400
        self.rounds(1)
        self.assertEqual(self.ask("viewer", "/v1/explain?at="
                                  f"{kept_at[0]}")[0], 409)


class MomentTest(unittest.TestCase):
    """Times as people type them."""

    def test_moment(self) -> None:
        """Ago, today, yesterday, a date, rubbish."""
        now = time.mktime((2026, 11, 28, 14, 0, 0, 0, 0, -1))
        for text, off in (("10m", -600), ("2h ago", -7200), ("1d", -86400),
                          ("13:59", -60), ("14:01", 60 - 86400),
                          ("13:59:30", -30), ("2026-11-28 13:00", -3600),
                          ("2026-11-28 13:00:01", -3599)):
            self.assertEqual(moment(text, now), now + off, text)
        for text in ("", "soon", "25:00", "2026-13-01 10:00", "10"):
            with self.assertRaises(CliError):
                moment(text, now)
