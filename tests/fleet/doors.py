# SPDX-License-Identifier: GPL-2.0-or-later
"""Agents that are not there, by HTTPS with certificates, as the real ones.

Hosts, VMs and loads are those of a file of 'wsmctl sim gen'.  A move takes the
time that its bytes need; it is the model of two hosts, in which each look lets
time go on.
"""

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping

from aiohttp import web

from wsm import pki
from wsm.cli.agents import AgentSaid, NoAnswer
from wsm.cli.home import Home, HostEntry
from wsm.door import answer, body_of
from wsm.plan.inventory import Host
from wsm.sim.gen import FileLoads, FleetFile

from tests.scripts.controller.fake import GIB, FakeMove, FakeVm, Hosts

START = 3.0                     # s of a move in which nothing is sent


@dataclass
class Fleet(Hosts):
    """All hosts of a file; @speed: how much faster its days go."""

    file: FleetFile = field(default_factory=lambda: FleetFile(1.0, 1))
    speed: float = 1.0
    clock: Callable[[], float] = time.time
    broken: set[str] = field(default_factory=set)   # VMs that no host takes
    performed: dict[str, float] = field(default_factory=dict)   # move: when

    def __post_init__(self) -> None:
        super().__post_init__()
        self.loads, self.begun = FileLoads(self.file), self.clock()
        self.sizes = {host.host: host for host in self.file.hosts}
        for vm in self.file.vms:
            self.vms[vm.vm] = FakeVm(vm.vm, vm.on, memory=vm.memory)

    def host(self, name: str) -> Host:
        """Return a host as it is in the file."""
        one = self.sizes[name]
        used = sum(vm.memory for vm in self.vms.values() if vm.host == name)
        return dataclasses.replace(
            super().host(name), cores=one.cores, memory=one.memory,
            mbit=one.mbit, tags=one.tags,
            available=max(0, one.memory - used))

    def samples(self, name: str) -> Any:
        """Return what it uses at this moment of its days."""
        now = self.clock()
        self.seq = int(10 * now)
        at = (now - self.begun) * self.speed + self.file.step
        for vm in self.vms.values():
            if vm.host == name:
                vm.cpu = self.loads.wants(vm.name, at)["cpu"]
        return super().samples(name)

    def detail(self, name: str) -> dict[str, Any]:
        """Return a VM."""
        found = super().detail(name)
        found["use"]["vcpus"] = self.loads.vms[name].vcpus
        return found

    def seconds(self, move: FakeMove) -> float:
        """Return how long a move takes: a sixteenth of a GiB, and its memory."""
        wire = min(self.sizes[each].mbit for each in (move.source, move.to))
        return START + (self.vms[move.vm].memory / 8 + GIB / 16) / (
            wire * 1e6 / 8)

    def see(self, host: str, move: str) -> dict[str, Any]:
        """Return one end; before its time has come nothing goes on."""
        found = self.moves.get(move)
        begun = self.performed.get(move)
        if found and begun and self.clock() - begun < self.seconds(found):
            self.hold.clear()
        try:
            return super().see(host, move)
        finally:
            self.hold.set()

    def order(self, host: str, path: str, claim: tuple[int, str],
              body: Mapping[str, Any]) -> Any:
        """Do it; raise AgentSaid."""
        move, _, verb = path.removeprefix("/move/").partition("/")
        if verb == "prepare" and move in self.moves and (
                self.moves[move].vm in self.broken):
            raise AgentSaid("Refused", f"{host}: no room for it")
        found = super().order(host, path, claim, body)
        if verb == "perform":
            self.performed[move] = self.clock()
        return found


class Door:
    """One of the agents."""

    def __init__(self, fleet: Fleet, name: str, cluster: str) -> None:
        self.fleet, self.name, self.cluster = fleet, name, cluster

    async def ask(self, request: web.Request) -> web.Response:
        """Answer, or do what is ordered."""
        path = "/" + request.match_info["rest"]
        try:
            if path == "/hello":
                epoch, holder = self.fleet.epochs.get(self.name, (0, ""))
                return answer({"host": self.name, "api": "1", "can": (),
                               "cluster": self.cluster, "time": time.time(),
                               "epoch": epoch, "holder": holder})
            if request.method == "GET":
                return answer(self.fleet.ask(self.name, path))
            data = await body_of(request)
            return answer(self.fleet.order(
                self.name, path, (data["epoch"], data["instance"]), data))
        except NoAnswer:
            assert request.transport
            request.transport.abort()
            return web.Response(status=503)
        except AgentSaid as error:
            return answer({"code": error.code, "text": str(error)},
                          404 if error.code == "http" else 409)
        except KeyError as error:
            return answer({"code": "NotFound", "text": f"no {error}"}, 404)

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application()
        app.router.add_route("*", "/v1/{rest:.*}", self.ask)
        return app


def certificate(home: Home, folder: Path, kind: str, name: str) -> Path:
    """Make NAME.key and NAME.pem of a cluster; return them without ending."""
    key = folder / f"{name}.key"
    pki.new_key(key)
    (folder / f"{name}.pem").write_text(pki.sign(
        home.folder, pki.request(key, name), home.cluster.name, kind, name),
        encoding="ascii")
    return folder / name


async def serve(fleet: Fleet, home: Home, folder: Path) -> list[web.AppRunner]:
    """Let all agents listen, each on a port of its own; add them to @home."""
    runners = []
    for name in fleet.names:
        made = certificate(home, folder, "agent", name)
        runner = web.AppRunner(Door(fleet, name, home.cluster.name).app(),
                               access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=pki.server_context(
            str(home.folder / "ca.pem"), f"{made}.pem", f"{made}.key")).start()
        home.put_host(name, HostEntry(f"127.0.0.1:{runner.addresses[0][1]}"))
        runners.append(runner)
    return runners


def controller(home: Home, folder: Path, port: int,
               policy: str = "") -> list[str]:
    """Write what a controller needs; return how it is started."""
    made = certificate(home, folder, "controller", "c1")
    (folder / "policy.toml").write_text(policy, "utf-8")
    (folder / "controller.toml").write_text(
        f'name = "c1"\ncluster = "{home.cluster.name}"\n'
        f'listen = "127.0.0.1:{port}"\nsettle = 0.0\n'
        f'store = "sqlite:{folder}/c.db"\npolicy = "{folder}/policy.toml"\n'
        f'[tls]\nca = "{home.folder}/ca.pem"\ncert = "{made}.pem"\n'
        f'key = "{made}.key"\n', "utf-8")
    home.put_controller("c1", f"127.0.0.1:{port}")
    program = Path(__file__).resolve().parents[2] / "scripts/wsm-controller"
    return [str(program), "--config", str(folder / "controller.toml"), "run"]
