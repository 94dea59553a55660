# SPDX-License-Identifier: GPL-2.0-or-later
"""Agents that are not there: hosts and VMs with figures that a test sets.

Their moves are those of the model of two hosts, in which each look lets time
go on.  Both the collector and drivers can ask them.
"""

import asyncio
import dataclasses
import threading
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Optional

from wsm.cli.agents import AgentSaid, NoAnswer
from wsm.cli.home import HostEntry
from wsm.controller.collector import Collector
from wsm.controller.executor import Executor
from wsm.controller.intake import Intake
from wsm.controller.journal import Journal
from wsm.controller.ledger import Ledger
from wsm.controller.rounds import Controller
from wsm.controller.setup import Mode, Settings
from wsm.controller.store import Store, database_of
from wsm.plan.ends import File
from wsm.plan.fleet import Fleet
from wsm.plan.inventory import DiskUse, Host, Pool, Qemu, VmUse, Way
from wsm.plan.measured import Samples, VmSample
from wsm.plan.plain import to_plain
from wsm.plan.policy import Calm, Policy, Relief
from wsm.plan.spec import Disk, Spec
from tests.scripts.agent.test_drive import VERBS
from tests.scripts.plan.two_hosts import ACTIONS, Refused, World, goes_on

GIB = 1 << 30
QEMU = Qemu("/q", "10.0.13", "qemu-wsm 0.4", ("pc-i440fx-10.0",))
POLICY = Policy(calm=Calm(young=0.0, at_once=4), relief=Relief(pause=0.0))


class Killed(BaseException):
    """Whoever drives a move is killed."""


@dataclass
class FakeVm:
    """A VM."""

    name: str
    host: str
    cpu: float = 0.1
    epoch: int = 1
    memory: int = GIB
    wait: float = 0.0           # cores of cpu


@dataclass
class FakeMove:
    """A move, as both hosts know it."""

    vm: str
    source: str
    to: str
    world: World = World()


@dataclass
class Hosts:
    """All hosts."""

    names: tuple[str, ...]
    vms: dict[str, FakeVm] = field(default_factory=dict)
    moves: dict[str, FakeMove] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    lies: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)   # sensors
    orders: list[str] = field(default_factory=list)
    mbit: int = 10000
    # VM, bytes/s, s for which they are good
    limits: list[tuple[str, int, int]] = field(default_factory=list)
    epochs: dict[str, tuple[int, str]] = field(default_factory=dict)
    kill_at: str = ""           # an order
    refuse: str = ""
    hold: threading.Event = field(default_factory=threading.Event)
    seq: int = 0
    # Ways that are measured if that is asked, those that were; others: an agent
    # of before
    far: dict[tuple[str, str], Way] = field(default_factory=dict)
    measured: dict[tuple[str, str], Way] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    figures: Mapping[str, Any] = field(default_factory=lambda: {"phase": "x"})

    def __post_init__(self) -> None:
        self.hold.set()         # cleared: moves do not go on

    def add(self, name: str, host: str, cpu: float = 0.1) -> None:
        """Add a VM."""
        self.vms[name] = FakeVm(name, host, cpu)

    # What they say

    def host(self, name: str) -> Host:
        """Return a host."""
        return Host(name, 4.0, 32 * GIB, 24 * GIB, address=name, mbit=self.mbit,
                    pools={"default": Pool(900 * GIB, 1000 * GIB)},
                    qemus={"wsm": QEMU}, ways={
                        to: way for (one, to), way in self.measured.items()
                        if one == name})

    def measure(self, name: str, to: str) -> Any:
        """Measure a way; raise AgentSaid."""
        if (name, to) not in self.far:
            self.unknown.append(f"/way/{to}")
            raise AgentSaid("http", "Not Found")
        self.measured[name, to] = self.far[name, to]
        return to_plain(self.far[name, to])

    def samples(self, name: str) -> Samples:
        """Return what a host and its VMs use."""
        vms = tuple(VmSample(vm.name, True, File.OWNER, vm.epoch, 1,
                             self.moving(vm.name), cpu=vm.cpu, wait=vm.wait,
                             resident=GIB // 8)
                    for vm in self.vms.values() if vm.host == name)
        return Samples(1 if name in self.frozen else self.seq, 10.0,
                       self.host(name), cpu=sum(vm.cpu for vm in vms),
                       vms=vms)

    def moving(self, vm: str) -> str:
        """Return the move of a VM, as its source knows it."""
        return next((key for key, move in self.moves.items()
                     if move.vm == vm and move.source == self.vms[vm].host
                     and move.world.here is File.LEAVING), "")

    def detail(self, name: str) -> dict[str, Any]:
        """Return a VM."""
        vm = self.vms[name]
        use = VmUse(name, vm.host, 2, vm.memory, GIB // 8, 0.1, "pc-i440fx-10.0",
                    "qemu-wsm 0.4", "10.0.13", dirty={"1": 4096},
                    disks=(DiskUse("vd0", GIB, GIB // 16),))
        return {"name": name, "runs": True, "use": to_plain(use), "pid": 1,
                "spec": to_plain(Spec(name, (
                    "-drive", "file=${disk.vd0.path}"), disk={
                        "vd0": Disk("raw", GIB)}))}

    def see(self, host: str, move: str) -> dict[str, Any]:
        """Return one end of a move, and let time go on."""
        found = self.moves.get(move)
        if found is None:
            raise AgentSaid("NoMove", f"{host} knows no move {move}")
        side = "source" if host == found.source else "destination"
        end = getattr(found.world.seen(), side)
        if side == "source" and self.hold.is_set():
            found.world = (goes_on(found.world) or [found.world])[0]
        self._follow(found)
        return {"end": to_plain(end), "figures": self.figures}

    def _follow(self, move: FakeMove) -> None:
        """The VM is where the files say."""
        if move.world.there is File.OWNER and (
                self.vms[move.vm].host == move.source):
            vm = self.vms[move.vm]
            self.vms[move.vm] = dataclasses.replace(vm, host=move.to,
                                                    epoch=vm.epoch + 1)

    def ask(self, host: str, path: str) -> Any:
        """Answer; raise NoAnswer, AgentSaid."""
        if host in self.silent:
            raise NoAnswer(f"{host}: no answer")
        if path.startswith("/way/"):
            return self.measure(host, path.removeprefix("/way/"))
        if path.startswith("/move/"):
            return self.see(host, path.split("/")[2])
        answers: dict[str, Callable[[], Any]] = {
            "/samples": lambda: to_plain(self.samples(host)),
            "/host": lambda: to_plain(self.host(host)),
            "/images": lambda: {"images": []},
            "/vms": lambda: {"vms": [
                {"name": vm.name, "runs": True, "owner": "owner"}
                for vm in self.vms.values() if vm.host == host]}}
        found = (self.detail(path.removeprefix("/vm/"))
                 if path.startswith("/vm/") else answers[path]())
        return self.lies.get(host, lambda same: same)(found)

    async def get(self, host: str, path: str, timeout: float,
                  _query: Optional[Mapping[str, str]] = None) -> Any:
        """Answer the collector."""
        await asyncio.sleep(0)
        assert timeout > 0
        return self.ask(host, path)

    # What they are told

    def order(self, host: str, path: str, claim: tuple[int, str],
              body: Mapping[str, Any]) -> Any:
        """Do it; raise AgentSaid."""
        held = self.epochs.get(host, (0, ""))
        if claim[0] < held[0] or (claim[0] == held[0] and claim != held):
            raise AgentSaid("Fenced", f"held by {held[1]} in {held[0]}")
        self.epochs[host] = claim
        words = path.split("/")
        if words[1] != "move":
            return {}
        key, verb = words[2:4]
        if verb == "begin" and key not in self.moves:
            self.moves[key] = FakeMove(body["vm"], host, body["peer"])
        if key not in self.moves:
            raise AgentSaid("NoMove", f"{host} knows no move {key}")
        move = self.moves[key]
        if verb in ("limits", "perform"):
            self.limits.append((move.vm, body["limits"]["max-bandwidth"],
                                body.get("valid_s", 0)))
        if verb == "limits":
            return {}
        side = "source" if host == move.source else "destination"
        self.orders.append(f"{side} {verb} {move.vm}")
        if self.kill_at == f"{side} {verb}":
            self.kill_at = ""
            raise Killed
        if self.refuse == verb:
            raise AgentSaid("Refused", f"{host}: no room")
        try:
            move.world = ACTIONS[VERBS[side, verb]](move.world)
        except Refused as why:
            raise AgentSaid("Refused", str(why)) from why
        if verb == "clean":
            move.world = move.world.but(ended=False)
        self._follow(move)
        return {"spec": {}, "epoch": 1, "fingerprint": {}, "address": host,
                "port": 1}


class FakeAgents:
    """What a driver gets for its agents."""

    def __init__(self, hosts: Hosts, home: Journal) -> None:
        self.hosts = hosts
        self.home = home

    def __getitem__(self, name: str) -> "FakeAgent":
        return FakeAgent(self.hosts, self.home, name)

    def names(self) -> list[str]:
        """Return the hosts."""
        return list(self.hosts.names)


@dataclass
class FakeAgent:
    """One of them."""

    hosts: Hosts
    home: Journal
    name: str

    @property
    def address(self) -> str:
        """Where it is heard."""
        return f"{self.name}:1"

    def get(self, path: str, timeout: float = 1.0, **_: str) -> Any:
        """Look at something."""
        assert timeout > 0
        return self.hosts.ask(self.name, path)

    def order(self, path: str, _timeout: float = 1.0, **body: Any) -> Any:
        """Give an order."""
        if self.name in self.hosts.silent:
            raise NoAnswer(f"{self.name}: no answer")
        self.home.may_order()
        epoch = self.home.epoch_for(*self.hosts.epochs.get(self.name, (0, "")))
        return self.hosts.order(self.name, path, (
            epoch, self.home.cluster.instance), body)


class Clock:
    """Time that a test makes."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def controller(hosts: Hosts, path: str, clock: Clock, name: str = "c1",
               mode: Mode = Mode.AUTO, settle: float = 0.0,
               policy: Policy = POLICY) -> Controller:
    """Return a controller of these hosts, with its store in a file."""
    settings = Settings(name, "test", mode=mode, settle=settle,
                        store=path if ":" in path else f"sqlite:{path}")
    store = Store(database_of(settings.store), clock)
    ledger = Ledger(store)
    made = Controller(
        settings, policy, store,
        Collector(Intake(Fleet(policy.interval), ledger.joined), hosts),
        Executor(Journal(settings, store),
                 lambda home: FakeAgents(hosts, home)), clock)
    if not ledger.hosts() and made.leader.take():   # as for 'host add'
        ledger.set_hosts("test", {each: HostEntry(f"{each}:1")
                                  for each in hosts.names})
    return made
