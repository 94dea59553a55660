# SPDX-License-Identifier: GPL-2.0-or-later
"""Fleets and decisions as JSON: what is recorded, and what the API shows."""

import math
from typing import Any, Mapping

from wsm.plan.fleet import RESOURCES, Guest, Node
from wsm.plan.detect import Spot
from wsm.plan.plain import to_plain
from wsm.plan.decision import Decision, Nothing, Step
from wsm.plan.series import Series


def number(value: float) -> float | None:
    """Return a number that JSON has."""
    return round(value, 4) if math.isfinite(value) else None


def series(found: Series) -> dict[str, Any]:
    """Return what a series comes to, and its newest samples."""
    return {"now": number(found.now), "peak": number(found.peak),
            "forecast": number(found.forecast), "last": number(found.last),
            "samples": [number(each) for each in found.recent(12)]}


def node_json(node: Node) -> dict[str, Any]:
    """Return a host."""
    return {"host": to_plain(node.host), "capacity": dict(node.capacity),
            "joined": node.joined, "vms": sorted(node.guests),
            "load": {name: series(node.load[name]) for name in RESOURCES},
            "swap": series(node.swap)}


def guest_json(guest: Guest) -> dict[str, Any]:
    """Return a VM; its command line is not shown to everybody."""
    return {"use": to_plain(guest.use),
            "placement": to_plain(guest.spec.placement),
            "sla": to_plain(guest.spec.sla),
            "load": {name: series(guest.load[name]) for name in RESOURCES}}


def spot_json(spot: Spot) -> dict[str, Any]:
    """Return a hot spot."""
    return {"key": spot.key, "kind": spot.kind.value, "host": spot.host,
            "resource": spot.resource, "victim": spot.victim,
            "now": number(spot.now), "forecast": number(spot.forecast),
            "over": spot.over, "of": spot.of, "hard": spot.hard,
            "text": spot.text()}


def step_json(step: Step) -> dict[str, Any]:
    """Return a step."""
    cost = step.estimate
    return {"vm": step.vm, "from": step.source, "to": step.to,
            "spot": step.spot, "hard": step.hard, "score": number(step.score),
            "why": step.why, "ask": step.ask, "after": list(step.after),
            "bytes": cost.bytes,
            "seconds": number(cost.seconds),
            "downtime-seconds": number(cost.downtime)}


def nothing_json(found: Nothing) -> dict[str, Any]:
    """Return what nothing is done for."""
    return {"spot": found.spot.key, "text": found.text(),
            "reasons": dict(found.reasons), "lines": found.lines()}


def decision_json(decision: Decision) -> dict[str, Any]:
    """Return a decision."""
    return {"spots": [spot_json(each) for each in decision.spots],
            "steps": [step_json(each) for each in decision.steps],
            "nothing": [nothing_json(each) for each in decision.nothing],
            "asked": [step_json(each) for each in decision.asked],
            "later": [step_json(each) for each in decision.later],
            "breakers": list(decision.breakers)}


def same_step(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """Return whether two steps move the same VM to the same place."""
    return all(one[name] == two[name] for name in ("vm", "from", "to"))
