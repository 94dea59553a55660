# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's door: HTTPS with certificates at both ends, JSON inside.

Who may do what is told by the address in the certificate.  Orders count only
from the controller with the highest epoch; an agent may only look at a move
that names it.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
import ssl
import tempfile
import time
from pathlib import Path
from typing import Any, Awaitable, Callable, Optional

from aiohttp import web

from wsm import door, pki
from wsm.agent import (hostinfo, launch, other, reference, samples, stock,
                       taps, vms, ways)
from wsm.agent.config import Config
from wsm.agent.monitor import QmpFailed, QmpGone
from wsm.agent.mover import Mover
from wsm.agent.owner import Fenced, Gate, Owner, Owners
from wsm.agent.sentry import MBIT
from wsm.door import BODY_LIMIT, Json, NotAllowed, answer, body_of
from wsm.plan import spec
from wsm.plan.fingerprint import Fingerprint
from wsm.plan.inventory import MAX_COPIED, Host
from wsm.plan.permit import Forbidden
from wsm.plan.plain import BadData, from_plain
from wsm.plan.measured import VmSample
from wsm.visit import Visitor

LOG = logging.getLogger("wsm-agent")
MOVE = re.compile(r"[0-9a-f-]{8,64}")
AT = re.compile(r"[0-9A-Za-z.:\[\]-]{1,255}:[0-9]{1,5}")
PEER = re.compile(r"/v1/move/[0-9a-f-]+/peer")
PING = "/v1/ping"       # how far is it?
CHUNK = 1 << 20
TICK = 1.0
WATCH = 10.0            # s between looks at what guests use
VERSION = "1"
CAN = ("adopt-qmp",)    # what agents of the same version may not know

# What goes wrong, and the status of the answer
STATUS: dict[type[Exception], int] = {
    vms.Refused: 409, Fenced: 409, BadData: 400, Forbidden: 403,
    ways.NoWay: 502, QmpFailed: 502, QmpGone: 503, stock.NoImage: 409, taps.NotLent: 409,
    launch.NotStarted: 502, TimeoutError: 503, OSError: 500}


def let_in(request: web.Request) -> str:
    """Return who asks, if he may; raise NotAllowed."""
    who = door.identity(request, request.app["config"].cluster)
    if who.kind == "agent" and not PEER.fullmatch(request.path) and (
            request.path != PING):
        raise NotAllowed("an agent may only look at its moves")
    if who.kind not in ("agent", "controller") or who.role:
        raise NotAllowed(f"a {who.kind} gives no orders to agents")
    return str(who)


def text_of(data: Json, name: str, default: str = "") -> str:
    """Return a text that was sent; raise BadData."""
    value = data.get(name, default)
    if not isinstance(value, str) or len(value) > 4096:
        raise BadData(f"{name}: no text, or too long")
    return value


def number_of(data: Json, name: str, default: int = 0) -> int:
    """Return a number that was sent; raise BadData."""
    value = data.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadData(f"{name}: no number")
    return value


def numbers_of(data: Json, name: str) -> dict[str, int]:
    """Return a table of numbers that was sent; raise BadData."""
    value = data.get(name, {})
    if not isinstance(value, dict):
        raise BadData(f"{name}: no table")
    return {str(key): number_of(value, key) for key in value}


def memory_of(data: Json) -> list[str]:
    """Return the kinds of memory that were sent; raise BadData."""
    return reference.checked(data.get("memory", []))


async def every(seconds: float, do: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again until cancelled, whatever goes wrong."""
    while True:
        try:
            await do()
        except (BadData, OSError, Fenced) as error:
            LOG.error("%s", error)
        except Exception as error:  # pylint: disable=broad-exception-caught
            # Without the loop no move would be followed any more
            LOG.error("%s", getattr(do, "__qualname__", do), exc_info=error)
        await asyncio.sleep(seconds)


class Door:
    """All that can be asked."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.owners = Owners(config.state)
        self.gate = Gate(config.state, time.monotonic())
        self.vms = vms.Vms(config, self.owners)
        self.mover = Mover(self.vms)
        self.info = hostinfo.HostInfo(config)
        self.sampler = samples.Sampler(config)
        self.ways = ways.Ways(config)

    async def order(self, request: web.Request) -> Json:
        """Return the body of an order that counts; raise Fenced."""
        data = await body_of(request)
        if not request["who"].startswith("controller/"):
            raise NotAllowed("only a controller gives orders")
        self.gate.admit(number_of(data, "epoch"),
                        text_of(data, "instance"), time.monotonic())
        LOG.log(logging.DEBUG if request.path.endswith("/limits")
                else logging.INFO, "%s: %s", request["who"], request.path)
        return data

    # Looking

    async def hello(self, _request: web.Request) -> web.Response:
        """Who this is."""
        return answer({"host": self.config.host, "api": VERSION,
                       "cluster": self.config.cluster, "time": time.time(),
                       "epoch": self.gate.held.epoch,
                       "holder": self.gate.held.instance, "can": CAN})

    async def host(self, request: web.Request) -> web.Response:
        """The host as it is now, with its old copies of a VM."""
        copies: list[Any] = []
        name = request.query.get("copies-of", "")
        if name:
            described = self._copy_spec(name, request)
            copies = stock.copies(self.config, described) if described else []
        return answer(self._host_now(tuple(copies)))

    def _host_now(self, copies: tuple[Any, ...] = ()) -> Host:
        moves = self.mover.open_moves()
        only_vms = self.config.root.at == "vms"
        return self.info.host(
            self.vms.demand() if only_vms else self.info.demand(),
            stock.pools(self.config), copies,
            sum(move.role == "destination" for move in moves),
            sum(move.role == "source" for move in moves), self.ways.known)

    async def ping(self, _request: web.Request) -> web.Response:
        """Nothing but an answer."""
        return answer({})

    async def way(self, request: web.Request) -> web.Response:
        """How far another host is, whose agent listens where it is said."""
        if not request["who"].startswith("controller/"):
            raise NotAllowed("only a controller asks for that")
        peer, at = request.match_info["peer"], request.query.get("at", "")
        if not spec.ID.fullmatch(peer) or not AT.fullmatch(at):
            raise BadData("a host, and at=HOST:PORT are needed")
        return answer(await self.ways.measure(peer, at))

    async def newest(self, _request: web.Request) -> web.Response:
        """What the host and its VMs have used lately."""
        made = self.sampler.newest()
        if made is None:
            raise vms.Refused("nothing was measured yet: it takes "
                              f"{2 * WATCH:.0f} s after the agent's start")
        return answer(made)

    async def sample(self) -> None:
        """Measure what the host and its VMs use."""
        if not self.sampler.device:
            self.sampler.device = await asyncio.to_thread(
                samples.routed, self.config.migration.addr,
                lambda address: hostinfo.ask("ip", "-o", "addr", "show", "to",
                                             address))
            self.mover.sentry.device = self.sampler.device
        moving = {move.vm: move.id for move in self.mover.open_moves()}
        taps_of = {each.name: each.taps for each in self.vms.residents()}
        self.sampler.look(self._host_now(), [
            self._running(vm, moving.get(vm[0], ""), taps_of.get(vm[0], ()))
            for vm in self.vms.readable()])

    def _running(self, which: tuple[str, Owner, Optional[vms.Known]],
                 moving: str, wires: tuple[str, ...]) -> samples.Running:
        """Return a VM of this host."""
        name, owner, known = which
        short = self.mover.sentry.short(name)
        base = VmSample(name, known is not None, owner.state, owner.epoch,
                        self.vms.spec_path(name).stat().st_mtime_ns, moving,
                        owner.peer, latency=short.io_p95 / 1000,
                        lack_rx=short.lacks.get("in", 0.0) * MBIT,
                        lack_tx=short.lacks.get("out", 0.0) * MBIT)
        if known is None:
            return samples.Running(base)
        return samples.Running(base, known.pid, wires,
                               self.vms.traffic.get(known.pid, 0))

    def _copy_spec(self, name: str, request: web.Request) -> Any:
        text = request.query.get("spec", "")
        if text:
            return spec.from_json(json.loads(text))
        path = self.vms.folder(name) / "left.toml"
        if spec.NAME.fullmatch(name) and path.exists():
            return vms.read_spec(path)
        return None

    async def list_vms(self, _request: web.Request) -> web.Response:
        """The VMs of this host, and QEMUs that nobody looks after."""
        names = self.vms.names()
        moving = {move.vm: move.id for move in self.mover.open_moves()}
        found = [{**self.vms.describe(name), "moving": moving.get(name, "")}
                 for name in names]
        return answer({"vms": found})

    async def show_vm(self, request: web.Request) -> web.Response:
        """A VM: description, state, use."""
        name = request.match_info["name"]
        described = self.vms.described(name)
        found: dict[str, Any] = {**self.vms.describe(name),
                                 "spec": described}
        try:
            found["use"] = await self.vms.use(name)
        except (QmpGone, QmpFailed) as error:
            found["problem"] = str(error)
        return answer(found)

    async def images(self, _request: web.Request) -> web.Response:
        """The old copies of VMs that have left."""
        found, damaged = self.vms.left()
        return answer({"images": [copy for left in found
                                  for copy in stock.copies(self.config,
                                                           left)],
                       "damaged": damaged})

    async def remove_image(self, request: web.Request) -> web.Response:
        """Remove an old copy; the controller has seen its VM elsewhere."""
        data = await self.order(request)
        name, disk = text_of(data, "vm"), text_of(data, "disk")
        self.mover.busy(name, "")
        for left in self.vms.left()[0]:
            for copy in stock.copies(self.config, left):
                if (copy.vm, copy.disk) == (name, disk):
                    self.vms.drop_copy(copy)
                    return answer({})
        raise vms.Refused(f"there is no old copy of disk {disk[:80]!r} of "
                          f"{name[:80]!r} here")

    # Files that do not change

    async def has_file(self, request: web.Request) -> web.Response:
        """Whether this host has a file for a VM that may come."""
        data = await body_of(request)
        try:
            self.vms.find_file("file", from_plain(spec.File,
                                                  data.get("file")))
        except vms.Refused as error:
            return answer({"there": False, "why": str(error)})
        return answer({"there": True})

    async def send_file(self, request: web.Request) -> web.StreamResponse:
        """A file that a VM here uses."""
        path = self.vms.file_of(digest_of(request))
        if os.path.getsize(path) > MAX_COPIED:
            raise vms.Refused(f"{path} is too large to be copied")
        return web.FileResponse(path)

    async def take_file(self, request: web.Request) -> web.Response:
        """Keep a file that is sent, if it is the one that it should be."""
        if not request["who"].startswith("controller/"):
            raise NotAllowed("only a controller gives orders")
        self.gate.admit(int(request.query.get("epoch", "-1")),
                        request.query.get("instance", ""), time.monotonic())
        digest, found, size = digest_of(request), hashlib.sha256(), 0
        path = self.vms.new_file(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent) as stream:
            async for chunk in request.content.iter_chunked(CHUNK):
                found.update(chunk)
                stream.write(chunk)
                size += len(chunk)
                if size > MAX_COPIED:
                    raise vms.Refused("the file is too large to be copied")
            if found.hexdigest() != digest:
                raise vms.Refused("what was sent is not that file: its "
                                  f"sha256 is {found.hexdigest()}")
            stream.flush()
            os.fsync(stream.fileno())
            os.fchmod(stream.fileno(), 0o644)
            path.unlink(missing_ok=True)
            os.link(stream.name, path)
        return answer({})

    # VMs

    async def vm_order(self, request: web.Request) -> web.Response:
        """Adopt, start, stop, forget."""
        data = await self.order(request)
        name, verb = text_of(data, "name"), request.match_info["verb"]
        if verb == "adopt":
            found = await self.vms.adopt(
                vms.Which(text_of(data, "qmp"), number_of(data, "pid"), name),
                bool(data.get("dry-run")))
            return answer({"spec": found.spec, "findings": found.findings,
                           "toml": spec.dumps(found.spec)
                           if found.spec else ""})
        self.vms.described(name)
        self.mover.busy(name, "")
        if verb == "start":
            await self.vms.start(name)
        elif verb == "stop":
            await self.vms.stop(name, bool(data.get("force")))
        elif verb == "forget":
            self.vms.forget(name)
        else:
            raise BadData(f"{verb[:40]!r} is nothing to do with a VM")
        return answer({})

    # Moves

    async def see_move(self, request: web.Request) -> web.Response:
        """One end of a move; an agent sees only those that name it."""
        move = move_of(request)
        if request["who"].startswith("agent/") and (
                self.mover.record(move).peer
                != request["who"].removeprefix("agent/")):
            raise NotAllowed("this move does not name it")
        if request.path.endswith("/peer"):
            return answer({"guard": self.mover.told(move)})
        live = self.mover.live(move)
        if request["who"].startswith("controller/"):
            live.heard = time.monotonic()
        async with live.lock:
            end, figures = await self.mover.observe(move)
        return answer({"end": end, "figures": figures})

    async def move_order(self, request: web.Request) -> web.Response:
        """One step of a move."""
        data = await self.order(request)
        move, verb = move_of(request), request.match_info["verb"]
        live = self.mover.live(move)
        live.heard = time.monotonic()
        async with live.lock:
            return answer(await self._step(move, verb, data) or {})

    async def _step(self, move: str, verb: str, data: Json) -> Any:
        mover = self.mover
        steps: dict[str, Callable[[], Awaitable[Any]]] = {
            "begin": lambda: mover.begin(move, text_of(data, "vm"),
                                         text_of(data, "peer")),
            "prepare": lambda: mover.prepare(
                move, spec.from_json(data.get("spec")), text_of(data, "peer"),
                number_of(data, "vm-epoch"), from_plain(
                    Fingerprint, data.get("fingerprint")),
                key_of(data), numbers_of(data, "needs"), memory_of(data)),
            "perform": lambda: mover.perform(
                move, text_of(data, "address"), number_of(data, "port"),
                key_of(data), numbers_of(data, "limits"),
                text_of(data, "peer-at"), memory_of(data)),
            "limits": lambda: mover.limit(move, numbers_of(data, "limits"),
                                          number_of(data, "valid-s")),
            "cancel": lambda: mover.cancel(move),
            "keep": lambda: mover.keep(move),
            "clean": lambda: mover.clean(move, text_of(data, "reason")),
            "hand-over": lambda: mover.hand_over(move),
            "finish": lambda: mover.finish(move),
            "kill": lambda: mover.finish(move, needed=False),
            "break": lambda: mover.break_link(move),
            "recover": lambda: mover.recover(move, text_of(data, "address"),
                                             number_of(data, "port")),
            "fence": lambda: mover.fence(move),
            "take-back": lambda: mover.take_back(
                move, dict(data.get("token", {}))),
            "give-up": lambda: mover.give_up(move),
            "settle": lambda: mover.settle(move),
            "restart": lambda: mover.restart(move,
                                             dict(data.get("token", {}))),
        }
        if verb not in steps:
            raise BadData(f"{verb[:40]!r} is no step of a move")
        return await steps[verb]()

    async def release(self, request: web.Request) -> web.Response:
        """The controller has ended in good order."""
        data = await self.order(request)
        self.gate.release(text_of(data, "instance"))
        return answer({})

    # Life

    async def background(self, _app: web.Application) -> Any:
        """Follow QEMU while the door is open."""
        async def watch() -> None:
            self.info.demand()      # of the last seconds, not of a day
            await self.vms.watch()
            await self.sample()

        visitor, sentry = self._visitor(), self.mover.sentry
        sentry.peers.ask = other.by(visitor, self.config.cluster)
        # A QEMU that does not answer one of them must not stop the others
        tasks = [asyncio.create_task(every(seconds, do)) for seconds, do in (
            (TICK, self.mover.tick), (TICK, sentry.look),
            (TICK, sentry.peers.look), (WATCH, watch))]
        yield
        for task in tasks:
            task.cancel()
        await visitor.close()
        await self.vms.close()

    def _visitor(self) -> Visitor:
        return Visitor(*(Path(each) for each in (
            self.config.tls.ca, self.config.tls.cert, self.config.tls.key)))

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[door.guarded(let_in, STATUS, LOG)],
                              client_max_size=BODY_LIMIT)
        app["config"] = self.config
        app.add_routes([
            web.get("/v1/hello", self.hello),
            web.get("/v1/host", self.host),
            web.get(PING, self.ping),
            web.get("/v1/way/{peer}", self.way),
            web.get("/v1/samples", self.newest),
            web.get("/v1/vms", self.list_vms),
            web.post("/v1/file", self.has_file),
            web.get("/v1/file/{digest}", self.send_file),
            web.post("/v1/file/{digest}", self.take_file),
            web.get("/v1/images", self.images),
            web.post("/v1/image/remove", self.remove_image),
            web.get("/v1/vm/{name}", self.show_vm),
            web.post("/v1/vm/{verb}", self.vm_order),
            web.get("/v1/move/{move}", self.see_move),
            web.get("/v1/move/{move}/peer", self.see_move),
            web.post("/v1/move/{move}/{verb}", self.move_order),
            web.post("/v1/release", self.release),
        ])
        app.cleanup_ctx.append(self.background)
        return app


def key_of(data: Json) -> str:
    """Return a shared key in hex; raise BadData."""
    key = text_of(data, "key")
    if key and not re.fullmatch(r"[0-9a-f]{64}", key):
        raise BadData("key: no 32 bytes in hex")
    return key


def digest_of(request: web.Request) -> str:
    """Return a SHA-256 in hex; raise BadData."""
    digest = request.match_info["digest"]
    if not spec.SHA256.fullmatch(digest):
        raise BadData("no SHA-256")
    return str(digest)


def move_of(request: web.Request) -> str:
    """Return the id of a move; raise BadData."""
    move = request.match_info["move"]
    if not MOVE.fullmatch(move):
        raise BadData("the move has no good id")
    return str(move)


def tls(config: Config) -> ssl.SSLContext:
    """Return how connections are made safe."""
    return pki.server_context(config.tls.ca, config.tls.cert, config.tls.key)


def serve(config: Config) -> None:
    """Serve until told to end."""
    address, _, port = config.listen.rpartition(":")
    web.run_app(Door(config).app(), host=address.strip("[]"), port=int(port),
                ssl_context=tls(config), print=lambda *_: None,
                access_log=None)
