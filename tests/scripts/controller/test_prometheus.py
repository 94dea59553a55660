# SPDX-License-Identifier: GPL-2.0-or-later
"""What Prometheus is given, the alerts, the dashboard: one set of names."""

import json
import re
import shutil
import subprocess
import threading
import unittest
from pathlib import Path

from tests.scripts.controller.doorstep import Served

FOLDER = Path(__file__).parents[3] / "packaging/prometheus"
RULES = FOLDER / "wsm-controller.rules.yml"
DASHBOARD = FOLDER / "wsm-controller-dashboard.json"
NAME = re.compile(r"\bwsm_[a-z_]+")
PROMTOOL = shutil.which("promtool")


def expressions() -> list[str]:
    """Return all that rules and dashboard ask Prometheus."""
    rules = RULES.read_text("utf-8")
    found = re.findall(r"expr: (.*(?:\n {10}.*)*)", rules)
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found + [target["expr"] for panel in panels
                    for target in panel["targets"]]


class PrometheusTest(Served):
    """Names, and what they count."""

    def names(self, query: str = "") -> set[str]:
        """Return the names that there are."""
        return set(re.findall(r"(?m)^(wsm_\w+?)(?:\{| )", self.ask(
            "viewer", f"/metrics{query}")[1]))

    def move(self) -> None:
        """Let a move happen."""
        self.heat()
        end = 2000
        while self.made.executor.busy() and end:
            end -= 1
            threading.Event().wait(0.01)
        self.rounds(1)

    def test_names(self) -> None:
        """What rules and dashboard ask for is there, and in the manual."""
        self.ask("viewer", "/metrics")
        self.move()
        self.made.collector.intake.dropped["alpha"] += 1
        self.hosts.vms["db1"].cpu = 4.5
        self.hosts.vms["web"].cpu = 2.9
        self.rounds(8)
        there = self.names()
        asked = {name for text in expressions() for name in NAME.findall(text)}
        self.assertGreater(len(asked), 15)
        self.assertEqual(asked - there, set())
        manual = (FOLDER.parents[1] / "docs/controller.md").read_text("utf-8")
        parts = re.compile(r"_(bucket|sum|count|created)$")
        for name in there:
            self.assertIn(f"`{parts.sub('', name)}`", manual)

    def test_moves(self) -> None:
        """Moves are counted once, by reason and result, with their figures."""
        self.ask("viewer", "/metrics")
        self.move()
        for _ in range(2):
            text = self.ask("viewer", "/metrics")[1]
        for line in ('wsm_moves_total{reason="host.cpu",result="moved"} 1.0',
                     "wsm_move_seconds_count 1.0", "wsm_prediction_ratio_count 1.0",
                     "wsm_move_downtime_seconds_count 1.0",
                     'wsm_vm_sla_ok{kind="wait",vm="db1"} 1.0'):
            self.assertIn(line, text)

    def test_without_vms(self) -> None:
        """Names of VMs can be left out."""
        self.rounds(4)
        self.assertIn("wsm_vm_cpu_wait_ratio", self.names())
        self.assertEqual([name for name in self.names("?vms=0")
                          if name.startswith("wsm_vm_")], [])
        self.assertNotIn("db1", self.ask("viewer", "/metrics?vms=0")[1])


class RulesTest(unittest.TestCase):
    """The files by themselves."""

    def test_files(self) -> None:
        """Each alert has what a person needs; each panel has a title."""
        rules = RULES.read_text("utf-8")
        alerts = re.findall(r"- alert: (\w+)", rules)
        self.assertEqual(len(alerts), len(set(alerts)))
        for word in ("expr:", "severity:", "summary:", "description:"):
            self.assertEqual(rules.count(word), len(alerts), word)
        for text in expressions():
            for pair in ("()", "{}", "[]"):
                self.assertEqual(text.count(pair[0]), text.count(pair[1]))
        panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        self.assertTrue(all(panel["title"] for panel in panels))

    @unittest.skipUnless(PROMTOOL, "promtool is in Debian's prometheus")
    def test_promtool(self) -> None:
        """Prometheus can read all of it."""
        lines = "".join(f"      - record: panel:{number}\n        expr: "
                        f"{json.dumps(text)}\n"
                        for number, text in enumerate(expressions())
                        if "|" not in text)
        for data in (RULES.read_text("utf-8"),
                     f"groups:\n  - name: all\n    rules:\n{lines}"):
            done = subprocess.run([PROMTOOL or "", "check", "rules",
                                   "/dev/stdin"], input=data, check=False,
                                  text=True, capture_output=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
