# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scene may say; see scenario.py."""

import re
from dataclasses import dataclass, field
from typing import Callable, Mapping

from wsm.plan import toml
from wsm.plan.plain import BadData
from wsm.plan.ruling import Rule
from wsm.plan.spec import Mode, Sla

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40,
         "s": 1, "m": 60, "h": 3600, "d": 86400}
Value = Callable[[float], float]


def number(text: str) -> float:
    """Return "32G" or "12h" in bytes or seconds; raise BadData."""
    found = re.fullmatch(r"([0-9.]+)([KMGTsmhd]?)", text.strip())
    if not found:
        raise BadData(f"{text!r} is no number with a unit")
    return float(found[1]) * UNITS[found[2]]


def course(text: str) -> Value:
    """Return what a load is at a time; raise BadData."""
    words = text.split()
    if words[:1] == ["square"]:
        low, high = float(words[1]), float(words[2])
        period, phase = number(words[4]), number(words[6])
        return lambda now: (high if (now + phase) % period < period / 2
                            else low)
    points = []
    for part in text.split(";"):
        value, _, at = part.partition("@")
        points.append((number(at) if at else 0.0, number(value)))
    points.sort()
    return lambda now: next((value for at, value in reversed(points)
                             if now >= at), 0.0)


@dataclass(frozen=True)
class SceneHost:
    """A host."""

    cores: float
    mem: str
    mbit: int = 10000
    joins: str = "0s"
    tags: tuple[str, ...] = ()
    health: str = ""            # 0 to 1
    latency: str = ""           # s that its disks take


@dataclass(frozen=True)
class SceneCopy:
    """An old image of a VM."""

    since: str                  # bytes that were written since
    stamp: bool = True          # nobody else has touched it


@dataclass(frozen=True)
class SceneVm:
    """A VM."""

    host: str
    vcpus: int
    mem: str
    disk: str
    cpu: str = "0"
    allocated: str = ""         # the whole disk
    pin: tuple[str, ...] = ()
    net_in_wanted: str = "0"
    net_out_wanted: str = "0"
    disk_wanted: str = "0"      # part of the host's disk time
    latency: str = ""           # s that its disks take
    dirty: str = ""             # bytes of RAM that it writes in a second
    mode: Mode = Mode.AUTO
    tags: tuple[str, ...] = ()
    managed: str = ""
    machine: str = ""
    touched: str = ""           # bytes; half of mem
    sla: Sla = Sla()
    stale_copies: Mapping[str, SceneCopy] = field(default_factory=dict)


@dataclass(frozen=True)
class SceneEvent:
    """What happens to a host, as words."""

    at: str
    do: str


@dataclass(frozen=True)
class Expected:
    """What is to be, and what is not."""

    move: tuple[str, ...] = ()      # one of these moves
    to: tuple[str, ...] = ()
    after: str = "0s"
    before: str = ""
    reason: tuple[str, ...] = ()    # "host.cpu"
    basis: str = ""
    no_move: str = ""
    no_moves: bool = False
    moves_max: int = -1
    moves_min: int = -1
    order: tuple[str, ...] = ()     # these VMs, in this order
    ends_on: Mapping[str, str] = field(default_factory=dict)    # VM: host
    asked: str = ""             # a VM for which a person is asked
    breaker: str = ""           # words of what is open at some time
    said: str = ""              # words of why nothing is done at some time
    nothing: str = ""           # the same, in the end


@dataclass(frozen=True)
class Scene:
    """All of it."""

    about: str
    run: str
    hosts: Mapping[str, SceneHost]
    vms: Mapping[str, SceneVm]
    expect: tuple[Expected, ...]
    events: tuple[SceneEvent, ...] = ()
    rules: tuple[Rule, ...] = ()
    monday: str = "0s"          # since a Monday began, when it begins
    policy: str = ""            # TOML, as in policy.toml


def loads(text: str) -> Scene:
    """Return the scene in @text; raise BadData."""
    return toml.loads(Scene, text)
