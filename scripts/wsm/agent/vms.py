# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs of this host: adopted ones, and those that the agent starts."""

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from wsm import durable
from wsm.agent import facts, launch, pages, stock, taps, vmfind
from wsm.agent.config import Config
from wsm.agent.lately import NS, Lately, traffic, wanted, written
from wsm.agent.monitor import TIMEOUT, Monitor, QmpFailed, QmpGone
from wsm.agent.owner import Owner, Owners
from wsm.agent.sentry import Resident
from wsm.plan import adopt, spec
from wsm.plan.draft import Adoption, FileFact, GuestDisk, Running
from wsm.plan.ends import File
from wsm.plan.inventory import OLD, Copy, VmUse
from wsm.plan.plain import BadData

CHUNK = 1 << 20
# What QEMU puts beside an image: its record, a map of what is missing, and
# memory of a guest that left
BESIDE = (".wsm", ".wsm.map", ".wsm-memory", ".wsm-memory.new")
STOP_WAIT = 60.0
ENDING_WAIT = 5.0       # s that a QEMU may take to end after its monitor
RESIDENTS = 10.0        # s for which the list of them is good
FRESH = 20.0            # s for which a look at a guest's memory is good
WATCH_TIMEOUT = 3.0     # s for a reading that only counts
DAMAGED = (BadData, OSError)    # what a file that cannot be read raises


# A QEMU, and when its description was written
Stamp = tuple[int, int, int]


class Refused(Exception):
    """What an agent will not do; the text says why and what helps."""


class NoMove(Refused):
    """A move that this host does not know: nothing was begun here."""


@dataclass(frozen=True)
class Known:
    """A QEMU that this agent looks after."""

    name: str
    pid: int
    started: int
    socket: str
    run: str = ""               # folder, if the agent has started it
    made: tuple[str, ...] = ()  # what was lent to it


@dataclass(frozen=True)
class Which:
    """A QEMU that is to be adopted, by the first of these that is given."""

    qmp: str = ""               # path of a monitor of it
    pid: int = 0
    name: str = ""              # as in its -name; else what it is to be called


def sha256(path: str) -> FileFact:
    """Return what a file is."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while data := stream.read(CHUNK):
            digest.update(data)
        return FileFact(digest.hexdigest(), stream.tell())


class Vms:
    """All of them."""

    def __init__(self, config: Config, owners: Owners) -> None:
        self.config = config
        self.owners = owners
        self._monitors: dict[str, Monitor] = {}
        self._locks: dict[str, asyncio.Lock] = {}   # one connects at a time
        self._looks: dict[int, tuple[float, pages.Memory]] = {}     # by pid
        self.writes = Lately()
        self.cpu = Lately()
        self.traffic: dict[int, int] = {}   # pid: bytes read and written
        self._residents: dict[str, tuple[Stamp, Resident]] = {}
        self._counted = -math.inf           # when they were

    # Files

    def folder(self, name: str) -> Path:
        """Return where the agent keeps what it knows of a VM."""
        return self.config.state / "vm" / name

    def run(self, name: str) -> Path:
        """Return the folder of a VM's sockets."""
        return self.config.run / "vm" / name

    def spec_path(self, name: str) -> Path:
        """Return the file of a VM's description."""
        return self.config.specs / f"{name}.toml"

    def described(self, name: str) -> spec.Spec:
        """Return the description of a VM; raise Refused."""
        if not spec.NAME.fullmatch(name):
            raise Refused(f"{name[:80]!r} is no name of a VM")
        try:
            return read_spec(self.spec_path(name))
        except FileNotFoundError as error:
            raise Refused(f"there is no VM {name} on {self.config.host}: "
                          "'wsmctl vm list' shows those that are there"
                          ) from error
        except BadData as error:
            raise Refused(str(error)) from error

    def save_spec(self, made: spec.Spec) -> None:
        """Write a description."""
        durable.write(self.spec_path(made.name), spec.dumps(made).encode())

    def names(self) -> list[str]:
        """Return the VMs that are described here."""
        return sorted(path.stem for path in self.config.specs.glob("*.toml")
                      if spec.NAME.fullmatch(path.stem))

    def left(self) -> tuple[list[spec.Spec], list[str]]:
        """Return (descriptions of VMs that have left, what is damaged)."""
        found, damaged = [], []
        for path in sorted((self.config.state / "vm").glob("*/left.toml")):
            try:
                found.append(read_spec(path))
            except FileNotFoundError:
                continue        # it has just come back
            except (BadData, OSError) as error:
                damaged.append(str(error))
        return found, damaged

    def drop_copy(self, copy: Copy) -> None:
        """Remove an image that its own record calls old."""
        if copy.state not in OLD:
            raise Refused(f"{copy.path} is '{copy.state}', no old copy")
        if self.owners.get(copy.vm).state not in (File.GONE, File.NONE):
            raise Refused(f"{copy.vm} is {self.config.host}'s")
        image = os.path.realpath(copy.path)
        for path in (copy.path, *(image + end for end in BESIDE)):
            Path(path).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            Path(copy.path).parent.rmdir()

    # Processes

    def known(self, name: str) -> Optional[Known]:
        """Return the VM's QEMU if it lives."""
        found = durable.load(Known, self.folder(name) / "process.json")
        if found and vmfind.alive(found.pid, found.started):
            return found
        pid = launch.read_pid(self.run(name))
        process = vmfind.process(pid) if pid else None
        if process is None:
            return None
        return Known(name, process.pid, process.started,
                     str(self.run(name) / "agent.qmp"), str(self.run(name)),
                     found.made if found else ())

    def remember(self, known: Known) -> None:
        """Write down which process a VM is."""
        durable.save(self.folder(known.name) / "process.json", known)

    async def monitor(self, name: str) -> Monitor:
        """Return the VM's monitor; raise QmpGone."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            found = self._monitors.get(name)
            if found and found.is_open():
                return found
            known = self.known(name)
            if known is None:
                raise QmpGone(f"{name} does not run on {self.config.host}")
            await self.hang_up(name)
            self._monitors[name] = await Monitor(Path(known.socket)).connect()
            return self._monitors[name]

    def heard(self, name: str) -> Optional[Monitor]:
        """Return the last connection to a VM, to read its events."""
        return self._monitors.get(name)

    async def hang_up(self, name: str) -> None:
        """Close the monitor."""
        found = self._monitors.pop(name, None)
        if found:
            await found.close()

    async def close(self) -> None:
        """Close all monitors."""
        for name in list(self._monitors):
            await self.hang_up(name)

    # Adoption

    async def adopt(self, which: Which, dry: bool) -> Adoption:
        """Describe a QEMU that runs, and unless @dry take care of it."""
        process = await asyncio.to_thread(self._process, which)
        name = which.name
        others = [other.name for other in map(self.known, self.names())
                  if other and other.pid == process.pid]
        if others:
            raise Refused(f"process {process.pid} is VM {others[0]} already")
        path = await self._free_socket(process, [which.qmp] if which.qmp
                                       else vmfind.sockets(process))
        monitor = await Monitor(Path(path)).connect()
        try:
            found = adopt.adopt(await self._running(monitor, process, name))
        finally:
            await monitor.close()
        if found.spec and not dry:
            self._take(found.spec, process, path)
        return found

    def _process(self, which: Which) -> vmfind.Process:
        """Return the QEMU that is meant; raise Refused."""
        if which.qmp:
            return listens_at(which.qmp)
        if not which.pid:
            return self._find(which.name)
        found = vmfind.process(which.pid)
        if found is None:
            raise Refused(f"no QEMU with process id {which.pid} that can be "
                          "read")
        return found

    def _find(self, name: str) -> vmfind.Process:
        for process in vmfind.processes():
            words = process.argv
            if "-name" in words[:-1]:
                given = words[words.index("-name") + 1].split(",")[0]
                if given.removeprefix("guest=") == name:
                    return process
        raise Refused(f"no QEMU here was started with '-name {name}'; say "
                      "which one with --pid or --qmp")

    async def _free_socket(self, process: vmfind.Process,
                           paths: list[str]) -> str:
        reasons = []
        for path in paths:
            try:
                monitor = await Monitor(Path(path)).connect(3)
            except QmpGone as error:
                reasons.append(str(error))
                continue
            await monitor.close()
            return path
        raise Refused(
            f"process {process.pid} has no monitor that is free: start it "
            "with '-qmp unix:PATH,server=on,wait=off', one that nobody else "
            "uses" + (" (" + "; ".join(reasons) + ")" if reasons else ""))

    async def _running(self, monitor: Monitor, process: vmfind.Process,
                       name: str) -> Running:
        call = monitor.call
        disks = await facts.guest_disks(call, process)
        cwd = started_in(process, disks)
        paths = adopt.files_wanted(process.argv, cwd, tuple(disks))
        files = {path: await asyncio.to_thread(sha256, path)
                 for path in paths if os.path.isfile(path)}
        names = {device.path.rsplit("/", 1)[1]: device.path
                 for device in await facts.devices(call)}
        config = self.config
        return Running(
            process.argv, cwd, config.host, name,
            str(await call("qom-get", {"path": "/machine",
                                       "property": "type"})),
            str((await call("query-uuid"))["UUID"]), tuple(disks),
            tuple(sorted(key for key, path in names.items()
                         if "-anon/" not in path)),
            sum("-anon/" in path for path in names.values()), files,
            {tap: vmfind.bridge_of(tap) for tap in vmfind.taps(process.pid)},
            {network.bridge: key for key, network in config.network.items()},
            {key: pool.path for key, pool in config.pool.items()},
            config.allow_host_cpu)

    def _take(self, made: spec.Spec, process: vmfind.Process,
              path: str) -> None:
        if self.spec_path(made.name).exists():
            raise Refused(f"there is a VM {made.name} already; give this one "
                          "another name with --name")
        old = self.owners.get(made.name)
        self.owners.put(made.name, Owner(File.OWNER, old.epoch + 1,
                                         since=time.time()))
        self.save_spec(made)
        self.remember(Known(made.name, process.pid, process.started, path))

    # Life

    def lend(self, vm: spec.Spec) -> tuple[spec.Place, list[str]]:
        """Return what this host puts in for placeholders; make nothing."""
        config = self.config
        taken: set[int] = set()
        ports = {}
        for name in spec.ports(vm):
            ports[name] = taps.free_port(config.ports, taken=frozenset(taken))
            taken.add(ports[name])
        disks = {name: (stock.path_of(config, vm, name),
                        disk.format_on(config.host))
                 for name, disk in vm.disk.items()}
        nets = {name: taps.tap_name(vm.name, name) for name in vm.net}
        for net in vm.net.values():
            if net.network not in config.network:
                raise Refused(f"{config.host} has no network {net.network}")
        files = {name: self.find_file(name, file)
                 for name, file in vm.file.items()}
        made = [f"tap:{device}" for device in nets.values()]
        return (spec.Place(str(self.run(vm.name)), disks, nets, ports, files),
                made)

    def find_file(self, name: str, file: spec.File) -> str:
        """Return where a file with the right content is; raise Refused."""
        places = [file.path_at.get(self.config.host, "")]
        places += [path for path in file.path_at.values()
                   if path not in places]
        for pool in self.config.pool.values():
            places.append(f"{pool.path}/files/{file.sha256}")
        for path in places:
            if (path and os.path.isfile(path)
                    and os.path.getsize(path) == file.size
                    and sha256(path).sha256 == file.sha256):
                return path
        raise Refused(f"{self.config.host} has no file {name} with sha256 "
                      f"{file.sha256[:16]}...; looked at "
                      + (", ".join(filter(None, places)) or "nothing"))

    def file_of(self, digest: str) -> str:
        """Return the file with this SHA-256 that a VM here uses."""
        for name in self.names():
            for key, file in self.described(name).file.items():
                if file.sha256 == digest:
                    return self.find_file(key, file)
        raise Refused(f"no VM here uses a file with sha256 {digest}")

    def new_file(self, digest: str) -> Path:
        """Return where a file that is sent goes: into the first pool."""
        for name in sorted(self.config.pool):
            return Path(self.config.pool[name].path) / "files" / digest
        raise Refused(f"{self.config.host} has no pool")

    def program(self, vm: spec.Spec) -> str:
        """Return the QEMU for a VM; raise Refused."""
        qemus = self.config.qemu
        if vm.qemu in qemus:
            return qemus[vm.qemu]
        if not vm.qemu and len(qemus) >= 1:
            return qemus[sorted(qemus)[0]]
        raise Refused(f"{self.config.host} has no qemu.{vm.qemu or 'NAME'} in "
                      "agent.toml")

    async def launch(self, vm: spec.Spec, place: spec.Place,
                     made: list[str], incoming: bool) -> Monitor:
        """Start QEMU with what was lent; return its monitor."""
        for name, net in vm.net.items():
            bridge = self.config.network[net.network].bridge
            taps.add_tap(place.nets[name], bridge, net.mtu)
        command = spec.command_line(vm, self.program(vm), place, incoming)
        pid = await launch.start(vm.name, command, Path(place.run))
        process = vmfind.process(pid)
        if process is None:
            raise launch.NotStarted(launch.last_words(Path(place.run)))
        self.remember(Known(vm.name, pid, process.started,
                            f"{place.run}/agent.qmp", place.run, tuple(made)))
        await self.hang_up(vm.name)
        try:
            return await self._first_monitor(vm.name)
        except QmpGone as error:
            raise launch.NotStarted(
                await self.why_gone(vm.name, error)) from error

    async def why_gone(self, name: str, error: Exception) -> str:
        """Return the last words of a QEMU that ends, else @error."""
        run, end = self.run(name), time.monotonic() + ENDING_WAIT
        while launch.read_pid(run) and time.monotonic() < end:
            await asyncio.sleep(0.05)       # its monitor ends before it does
        words = "" if launch.read_pid(run) else launch.last_words(run)
        return f"QEMU for {name} has ended: {words}" if words else str(error)

    async def _first_monitor(self, name: str) -> Monitor:
        """Return the monitor of a QEMU that may not listen yet."""
        loop = asyncio.get_running_loop()
        end = loop.time() + launch.WAIT
        while True:
            try:
                return await self.monitor(name)
            except QmpGone:
                if self.known(name) is None or loop.time() > end:
                    raise
            await asyncio.sleep(launch.POLL)

    async def start(self, name: str) -> None:
        """Boot a VM: only its owner does."""
        vm = self.described(name)
        owner = self.owners.get(name)
        if self.known(name):
            raise Refused(f"{name} runs already")
        if owner.state is not File.OWNER:
            raise Refused(
                f"{name} is not {self.config.host}'s to start: its state is "
                f"'{owner.state.value}'" + (f", its peer {owner.peer}"
                                            if owner.peer else ""))
        place, made = self.lend(vm)
        for disk, (path, _) in place.disks.items():
            if not os.path.exists(path):
                raise Refused(f"disk {disk}: there is no image {path}")
        await self.launch(vm, place, made, False)

    async def stop(self, name: str, force: bool = False) -> None:
        """End a VM: by its power button, or at once."""
        known = self.known(name)
        if known is None:
            return
        monitor = await self.monitor(name)
        try:
            await monitor.call("quit" if force else "system_powerdown")
        except QmpGone:
            pass
        loop = asyncio.get_running_loop()
        end = loop.time() + STOP_WAIT
        while vmfind.alive(known.pid, known.started):
            if loop.time() > end:
                raise Refused(f"{name} did not end in {STOP_WAIT:.0f} s; "
                              "'wsmctl vm stop --force' ends it at once")
            await asyncio.sleep(0.1)
        await self.tidy(name)

    async def tidy(self, name: str, made: tuple[str, ...] = ()) -> None:
        """Take back what was lent to a QEMU that has ended, and @made."""
        await self.hang_up(name)
        path = self.folder(name) / "process.json"
        known = durable.load(Known, path)
        for each in (*made, *(known.made if known else ())):
            if each.startswith("tap:"):
                taps.remove_tap(each.removeprefix("tap:"))
        run = self.run(name)
        for file in run.iterdir() if run.is_dir() else ():
            if file.name == "pid" or file.is_socket():
                file.unlink(missing_ok=True)
        durable.remove(path)

    async def sweep(self) -> None:
        """Tidy up after QEMUs that have ended by themselves."""
        for path in (self.config.state / "vm").glob("*/process.json"):
            name = path.parent.name
            with contextlib.suppress(*DAMAGED):     # 'vm list' tells
                if self.known(name) is None:
                    await self.tidy(name)

    def forget(self, name: str) -> None:
        """Drop the description of a VM; its QEMU and images stay."""
        self.described(name)
        self.spec_path(name).unlink()
        durable.remove(self.folder(name) / "process.json")
        self.owners.forget(name)

    async def use(self, name: str) -> VmUse:
        """Return a running VM's use of this host; raise QmpGone."""
        known = self.known(name)
        monitor = await self.monitor(name)
        process = vmfind.process(known.pid) if known else None
        if process is None:
            raise QmpGone(f"{name} has ended")
        call = monitor.call
        await self.count(monitor, process.pid)
        seen = await self._look(monitor, process.pid)
        await self.count(monitor, process.pid)
        memory = await call("query-memory-size-summary")
        version = await call("query-version")
        numbers = version["qemu"]
        machine = str(await call("qom-get", {"path": "/machine",
                                             "property": "type"}))
        return VmUse(
            name, self.config.host, len(await call("query-cpus-fast")),
            int(memory["base-memory"]) + int(memory.get("plugged-memory", 0)),
            process.resident, sum(self.cpu.rates(process.pid).values()) / NS,
            machine.removesuffix("-machine"),
            package=str(version.get("package", "")),
            version=f"{numbers['major']}.{numbers['minor']}."
                    f"{numbers['micro']}",
            host_cpu=uses_host_cpu(process.argv),
            disks=tuple(await facts.disk_uses(
                call, self.writes.rates(process.pid),
                functools.partial(stock.content, self.config))),
            filled=seen.used, dirty=seen.dirty)

    def resized(self, vm: spec.Spec, use: VmUse) -> spec.Spec:
        """Return a description with the sizes that its disks have now."""
        sizes = {disk.id: disk.size for disk in use.disks}
        disks = {name: dataclasses.replace(disk, size=sizes.get(
            name, disk.size)) for name, disk in vm.disk.items()}
        if disks == dict(vm.disk):
            return vm
        made = dataclasses.replace(vm, disk=disks)
        self.save_spec(made)
        return made

    async def count(self, monitor: Monitor, pid: int,
                    timeout: float = TIMEOUT) -> None:
        """Read how much a guest has computed, and written to its disks."""
        self.cpu.add(pid, wanted(pid))
        answer = await monitor.call("query-blockstats", timeout=timeout)
        self.writes.add(pid, written(answer))
        self.traffic[pid] = traffic(answer)

    async def watch(self) -> None:
        """Do so for all guests; one that does not answer is left out."""
        pids = []
        for name, _, known in self.readable():
            if known is None:
                continue
            pids.append(known.pid)
            with contextlib.suppress(QmpGone, QmpFailed):
                await self.count(await self.monitor(name), known.pid,
                                 WATCH_TIMEOUT)
        for each in (self.cpu, self.writes):
            each.only(pids)
        self.traffic = {pid: count for pid, count in self.traffic.items()
                        if pid in pids}
        self._looks = {pid: look for pid, look in self._looks.items()
                       if pid in pids}

    def demand(self) -> float:
        """Return the cores that the guests here wanted lately."""
        return sum(sum(self.cpu.rates(pid).values())
                   for pid in self.cpu.pids()) / NS

    async def _look(self, monitor: Monitor, pid: int) -> pages.Memory:
        """Return how a guest uses its memory, now or a moment ago."""
        seen, now = self._looks.get(pid), time.monotonic()
        if seen and now - seen[0] < FRESH:
            return seen[1]
        found = await pages.look(pid, await facts.ram_sizes(monitor.call))
        if found is None:
            found = pages.Memory(0, await self._dirty(monitor))
        self._looks[pid] = (time.monotonic(), found)
        return found

    async def _dirty(self, monitor: Monitor) -> dict[str, int]:
        """Return how much memory is written in one second, by QEMU."""
        try:
            await monitor.call("calc-dirty-rate", {
                "calc-time": 1, "sample-pages": 512})
            for _ in range(30):
                await asyncio.sleep(0.1)
                found = await monitor.call("query-dirty-rate")
                if found["status"] == "measured":
                    return {"1": int(found["dirty-rate"]) << 20}
        except (QmpFailed, KeyError):
            pass
        return {}

    def residents(self) -> list[Resident]:
        """Return the VMs that run here, as they were some seconds ago."""
        now = time.monotonic()
        if now - self._counted > RESIDENTS:
            self._counted = now
            found = {name: self._resident(name, known)
                     for name, _, known in self.readable()}
            self._residents = {name: each for name, each in found.items()
                               if each}
        return [each for _, each in self._residents.values()]

    def _resident(self, name: str, known: Optional[Known]
                  ) -> Optional[tuple[Stamp, Resident]]:
        """Return a VM, read anew if its description or QEMU is another."""
        path = self.spec_path(name)
        with contextlib.suppress(Refused, FileNotFoundError):
            if known:
                stamp = known.pid, known.started, path.stat().st_mtime_ns
                before = self._residents.get(name)
                if before and before[0] == stamp:
                    return before
                return stamp, Resident(name, known.pid,
                                       self.described(name).sla,
                                       tuple(vmfind.taps(known.pid)))
        return None

    def readable(self) -> list[tuple[str, Owner, Optional[Known]]]:
        """Return the VMs here but those whose files are damaged."""
        found = []
        for name in self.names():
            with contextlib.suppress(*DAMAGED):     # describe() tells
                found.append((name, self.owners.get(name), self.known(name)))
        return found

    def describe(self, name: str) -> dict[str, Any]:
        """Return what 'vm list' shows; damaged files stop no list."""
        owner, known, problem = Owner(), None, ""
        try:
            owner, known = self.owners.get(name), self.known(name)
        except DAMAGED as error:
            problem = str(error)
        return {"name": name, "host": self.config.host,
                "runs": known is not None,
                "owner": "damaged" if problem else owner.state.value,
                "epoch": owner.epoch, "pid": known.pid if known else 0,
                "peer": owner.peer, "problem": problem}


def listens_at(path: str) -> vmfind.Process:
    """Return the QEMU whose monitor is at a path; raise Refused."""
    if not path.startswith("/") or "\0" in path:
        raise Refused(f"{path[:200]!r} is no path of a monitor: it begins "
                      "with / and is at the host")
    try:
        pid = vmfind.listener(path)
    except (OSError, ValueError) as error:
        raise Refused(f"{path[:200]}: {error}; is it there, and does QEMU "
                      "listen?") from error
    found = vmfind.process(pid)
    if found is None or not vmfind.is_qemu(found.argv):
        raise Refused(f"{path}: who listens there is no QEMU (process {pid})")
    return found


def read_spec(path: Path) -> spec.Spec:
    """Return the description in a file; raise BadData, which names it."""
    try:
        return spec.loads(path.read_text(encoding="utf-8"))
    except (BadData, UnicodeDecodeError) as error:
        raise BadData(f"{path}: {error}") from error


def uses_host_cpu(words: tuple[str, ...]) -> bool:
    """Return whether a command line asks for the host's CPU."""
    if "-cpu" not in words[:-1]:
        return False
    model = words[words.index("-cpu") + 1].split(",")[0]
    return model in ("host", "max")


def started_in(process: vmfind.Process, disks: list[GuestDisk]) -> str:
    """
    Return the folder from which relative names count.

    A daemon stands in "/"; where it was started is told by an image that it
    has open and that its command line names without a folder.
    """
    if process.cwd != "/":
        return process.cwd
    for word in process.argv:
        for disk in disks:
            name = os.path.basename(disk.path)
            if (name and word.endswith((f"={name}", name))
                    and f"/{name}" not in word):
                return os.path.dirname(disk.path)
    return process.cwd


def replace_owner(old: Owner, **more: Any) -> Owner:
    """Return an owner with some things changed."""
    return dataclasses.replace(old, since=time.time(), **more)
