# SPDX-License-Identifier: GPL-2.0-or-later
"""Carry out moves: what each end can be told, and what it does alone.

Each order may come again at any time, also from another controller, and is
guarded: the agent looks at its own QEMU first and refuses what that speaks
against.  What is made is written down before it is made, so that a new agent
can take it away.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

from wsm import durable
from wsm.agent import facts, launch, reference, stock, taps, vmfind
from wsm.agent.monitor import Monitor, QmpFailed, QmpGone
from wsm.agent.owner import Owner
from wsm.agent.other import Told
from wsm.agent.sentry import Sentry
from wsm.agent.vms import Known, NoMove, Refused, Vms, read_spec, replace_owner
from wsm.plan import spec
from wsm.plan.ends import End, File, Word, word_of
from wsm.plan.fingerprint import Fingerprint, compare
from wsm.plan.guard import Act, Grip, Seen

LOG = logging.getLogger("wsm-agent")
ALWAYS = ("whole-system", "events")
AFTER = (Word.POSTCOPY, Word.PAUSED, Word.COMPLETED)
KEEP_RECORDS = 14 * 86400.0     # s
SWEEP = 10.0            # s between looks for QEMUs that have ended
ABANDONED = 300.0       # s after which what was prepared is taken away
END_WAIT = 10.0
NO_UUID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Record:
    """What a host knows of a move, on its disk."""

    id: str
    vm: str
    role: str                       # "source", "destination"
    peer: str = ""
    epoch: int = 0
    pid: int = 0
    started: int = 0
    made: tuple[str, ...] = ()
    images: tuple[str, ...] = ()    # those that were made for it
    port: int = 0
    prepared: bool = False
    performed: bool = False
    session: str = ""
    ended: str = ""                 # "done", "cleaned"
    reason: str = ""
    before: str = ""                # the source's session before this one
    described: Optional[spec.Spec] = None
    final: str = ""                 # JSON: figures of a source that has ended
    grant: int = 0                  # bytes/s that it may use at most
    rate: int = 0                   # and what the guard has set,
    slow_disk: bool = False         # for its disks only
    peer_at: str = ""               # host:port of the other agent


@dataclass
class Live:
    """What is known only while this agent lives."""

    watched: bool = False           # from the start of its QEMU
    monitor: Optional[Monitor] = None   # by which it was
    progress: tuple[int, ...] = ()
    since: float = 0.0              # of that progress
    heard: float = 0.0              # of the controller
    valid: float = 0.0              # until when its grant is, 0: for ever
    lock: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)
    phases: set[str] = dataclasses.field(default_factory=set)
    shut: bool = False              # QEMU said so before it ended


class Mover:
    """All moves of a host."""

    def __init__(self, vms: Vms) -> None:
        self.vms = vms
        self.config = vms.config
        self.owners = vms.owners
        self._folder = self.config.state / "move"
        self._live: dict[str, Live] = {}
        # Those that have not ended; this process alone writes their files
        self._open = {each.id: each for each in self._read_all()
                      if not each.ended}
        self._swept = 0.0
        self.sentry = Sentry(vms, self.config.migration.mbit)

    # Records

    def _read_all(self) -> list[Record]:
        """Read all records; those that have ended long ago are dropped."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            record = durable.load(Record, path)
            if record and record.ended and (
                    time.time() - path.stat().st_mtime > KEEP_RECORDS):
                durable.remove(path)
            elif record:
                found.append(record)
        return found

    def path(self, move: str) -> Path:
        """Return the file of a move."""
        return self._folder / f"{move}.json"

    def record(self, move: str) -> Record:
        """Return what is known of a move; raise NoMove."""
        found = self.find(move)
        if found is None:
            raise NoMove(f"{self.config.host} knows no move {move}")
        return found

    def find(self, move: str) -> Optional[Record]:
        """Return what is known of a move, None if nothing is."""
        return self._open.get(move) or durable.load(Record, self.path(move))

    def open_moves(self) -> list[Record]:
        """Return the moves that have not ended here."""
        return [each for _, each in sorted(self._open.items())]

    def save(self, record: Record, **more: Any) -> Record:
        """Write or change a record, durably."""
        record = dataclasses.replace(record, **more)
        durable.save(self.path(record.id), record)
        if record.ended:
            self._open.pop(record.id, None)
        else:
            self._open[record.id] = record
        return record

    def close(self, record: Record, how: str = "done", **more: Any) -> None:
        """A move has ended here: nobody needs its shared key any more."""
        taps.remove_key(self.key_folder(record.id))
        self.sentry.ended(record.id)
        self.save(record, ended=how, **more)

    def live(self, move: str) -> Live:
        """Return what is known while this agent lives."""
        return self._live.setdefault(move, Live())

    def busy(self, vm: str, move: str) -> None:
        """Raise Refused if a VM is in another move."""
        for other in self.open_moves():
            if other.vm == vm and other.id != move:
                raise Refused(f"{vm} is in move {other.id} already")

    # Observation

    def process(self, record: Record) -> Optional[Known]:
        """Return the QEMU of a move if it lives."""
        known = self.vms.known(record.vm)
        if known and record.pid and (known.pid, known.started) != (
                record.pid, record.started):
            return None
        return known

    async def word(self, record: Record) -> tuple[Word, dict[str, Any],
                                                  dict[str, Any]]:
        """Return (word, query-wsm, query-migrate) of this end."""
        self._hear(record)
        if self.process(record) is None:
            return (Word.HERE if record.pid and self.vms.known(record.vm)
                    else Word.DEAD), {}, {}
        try:
            monitor = await self.vms.monitor(record.vm)
            info, migration = await facts.move_state(monitor)
        except (QmpGone, QmpFailed):
            gone = self.process(record) is None
            return Word.DEAD if gone else Word.SILENT, {}, {}
        self._hear(record)
        phases = tuple(each["phase"] for each in info.get("phases", []))
        role = str(info.get("role", "none"))
        session = str(info.get("session", ""))
        mine = role == record.role and (
            record.role == "destination" or record.performed)
        if session in (record.before, "") or (
                record.session not in ("", session)):
            mine = mine and not session and role != "none"
        status = str(migration.get("status", "none"))
        if record.role == "destination" and role == "none":
            return Word.PRE, info, migration
        return (word_of(role, str(info.get("phase", "none")), phases, status,
                        mine), info, migration)

    def _hear(self, record: Record) -> None:
        """Take in the events that QEMU has sent, to its last one."""
        live, monitor = self.live(record.id), self.vms.heard(record.vm)
        if monitor:
            # Between two connections something may not have been heard
            live.watched = live.watched and live.monitor in (None, monitor)
            live.monitor = monitor
            live.phases |= set(monitor.phases())
            live.shut = live.shut or monitor.was_shut()

    async def observe(self, move: str) -> tuple[End, dict[str, Any]]:
        """Return this end, and figures for people."""
        record = self.record(move)
        live = self.live(move)
        word, info, migration = await self.word(record)
        if info.get("session") and word is not Word.HERE and (
                record.session != info["session"]):
            record = self.save(record, session=info["session"])
        progress = facts.progress(info, migration)
        now = time.monotonic()
        if progress != live.progress or not live.since:
            live.progress, live.since = progress, now
        owner = self.owners.get(record.vm)
        channels = info.get("channels", [])
        missing = sum(int(disk.get("missing", 0))
                      for disk in info.get("disks", []))
        end = End(
            word, owner.state, owner.epoch, prepared=record.prepared,
            shut=live.shut, still=now - live.since,
            connected=bool(channels) and bool(channels[0]["connected"]),
            whole=self.whole(record), missing=missing,
            never_ran=(live.watched and "postcopy" not in live.phases),
            reason=self.reason(record, info, migration))
        if record.final and not info:
            return end, dict(json.loads(record.final))
        figures = figures_of(info, migration)
        if record.rate:
            grant = round(self.sentry.grant(record.grant, str(
                info.get("phase", ""))))
            figures["limits"] = {"rate": min(record.rate, grant),
                                 "grant": grant}
        return end, figures

    def whole(self, record: Record) -> bool:
        """Return whether no record says that an image here is old."""
        try:
            vm = record.described or self.vms.described(record.vm)
            for disk in vm.disk:
                facts_of = stock.look(self.config, stock.path_of(
                    self.config, vm, disk))
                if not facts_of or facts_of["state"] != "current":
                    return False
        except (Refused, stock.NoImage):
            return False
        return True

    def reason(self, record: Record, info: dict[str, Any],
               migration: dict[str, Any]) -> str:
        """Return the reason of a failure: QEMU's, or its last words."""
        text = str(record.role == "source" and record.reason
                   or migration.get("error-desc") or info.get("error") or "")
        if not info and record.role == "destination":
            text = launch.last_words(self.vms.run(record.vm)) or record.reason
        lines = list(dict.fromkeys(filter(None, text.splitlines())))
        return "; ".join(lines)[-2000:]

    # Orders, in the order of a move

    async def begin(self, move: str, vm: str, peer: str) -> dict[str, Any]:
        """Lock a VM for a move away; return its fingerprint and use."""
        self.busy(vm, move)
        if self.owners.get(vm).state is File.INCOMING:
            raise Refused(f"{vm} is coming in here")
        described = self.vms.described(vm)
        known = self.vms.known(vm)
        if known is None:
            raise Refused(f"{vm} does not run on {self.config.host}; "
                          f"'wsmctl vm start {vm}'")
        epoch, fresh = self.owners.get(vm).epoch, move not in self._open
        if fresh:       # from here on it is in this move and in no other
            self.save(Record(move, vm, "source", peer, epoch, known.pid,
                             known.started))
        self.live(move).watched = False
        try:
            monitor = await self.vms.monitor(vm)
            use = await self.vms.use(vm)
            return {"fingerprint": await facts.fingerprint(monitor.call),
                    "spec": self.vms.resized(described, use), "use": use,
                    "epoch": epoch, "memory": reference.kinds(
                        described, self.config.migration.memory)}
        except BaseException:
            if fresh:
                self._open.pop(move, None)
                durable.remove(self.path(move))
            raise

    async def prepare(self, move: str, vm: spec.Spec, peer: str, epoch: int,
                      theirs: Fingerprint, key: str, needs: dict[str, int],
                      memory: list[str]) -> dict[str, Any]:
        """Start a QEMU that waits for the guest; return where it listens."""
        self.busy(vm.name, move)
        record = self.find(move)
        if record and record.prepared and self.process(record):
            return {"address": self.config.migration.addr,
                    "port": record.port}
        if record and record.role == "destination":
            await self.clean(move, "prepared anew")     # half of it is there
        if self.vms.known(vm.name) or (
                self.owners.get(vm.name).state is File.OWNER):
            raise Refused(f"{vm.name} is on {self.config.host} already")
        problems = stock.room(self.config, vm, needs)
        if problems:
            raise Refused("; ".join(problems))
        choices = [stock.choose(self.config, vm, disk) for disk in vm.disk]
        place, made = self.vms.lend(vm)
        record = Record(move, vm.name, "destination", peer, epoch,
                        made=(*made, f"key:{self.key_folder(move)}"),
                        images=tuple(each.path for each in choices
                                     if each.made), described=vm)
        self.save(record)
        self.live(move).watched, self.live(move).monitor = True, None
        old = self.owners.get(vm.name)
        self.owners.put(vm.name, replace_owner(
            old, state=File.INCOMING, epoch=max(old.epoch, epoch),
            move=move, peer=peer))
        try:
            for each in choices:
                await asyncio.to_thread(stock.make, self.config, vm, each)
            return await self._receive(record, vm, place, made, theirs, key,
                                       memory)
        except QmpGone as error:
            why = await self.vms.why_gone(vm.name, error)
            await self.clean(move, why)
            raise launch.NotStarted(why) from error
        except BaseException as error:
            await self.clean(move, str(error))
            raise

    async def _receive(self, record: Record, vm: spec.Spec, place: spec.Place,
                       made: list[str], theirs: Fingerprint, key: str,
                       memory: list[str]) -> dict[str, Any]:
        monitor = await self.vms.launch(vm, place, made, True)
        known = self.vms.known(vm.name)
        if known is None:
            raise Refused(launch.last_words(self.vms.run(vm.name)))
        record = self.save(record, pid=known.pid, started=known.started)
        await self.set_capabilities(monitor, vm, theirs.uuid, memory)
        ours = await facts.fingerprint(monitor.call)
        differences = compare(theirs, ours, frozenset(self.config.qemu_compat))
        if differences:
            raise Refused("the two QEMUs are not the same machine: "
                          + "; ".join(map(str, differences[:10])))
        await self.set_key(monitor, record.id, key, "server")
        address = self.config.migration.addr
        port = taps.free_port(self.config.migration.ports, address)
        host = f"[{address}]" if ":" in address else address
        await monitor.call("migrate-incoming", {"uri": f"tcp:{host}:{port}"})
        self.save(record, prepared=True, port=port)
        return {"address": address, "port": port}

    async def set_capabilities(self, monitor: Monitor, vm: spec.Spec,
                               uuid: str, memory: list[str]) -> None:
        """Switch on what a move needs."""
        names = list(ALWAYS)
        if uuid and uuid != NO_UUID:
            names.append("validate-uuid")
        if vm.placement.postcopy_ram:
            names.append("postcopy-ram")
        await monitor.call("migrate-set-capabilities", {"capabilities": [
            *({"capability": name, "state": True} for name in names),
            reference.capability(memory)]})

    def key_folder(self, move: str) -> Path:
        """Return where the shared key of a move is."""
        return self.config.run / "move" / move

    async def set_key(self, monitor: Monitor, move: str, key: str,
                      endpoint: str) -> None:
        """Give QEMU the shared key; none means no TLS."""
        name = f"move-{move}"
        if not key:
            await monitor.call("migrate-set-parameters", {"tls-creds": ""})
            return
        folder = self.key_folder(move)
        taps.write_key(folder, key)
        with contextlib.suppress(QmpFailed):
            await monitor.call("object-del", {"id": name})
        await monitor.call("object-add", {
            "qom-type": "tls-creds-psk", "id": name, "dir": str(folder),
            "endpoint": endpoint})
        await monitor.call("migrate-set-parameters", {"tls-creds": name})

    async def drop_key(self, record: Record) -> None:
        """Take the shared key away from QEMU."""
        with contextlib.suppress(QmpFailed, QmpGone):
            monitor = await self.vms.monitor(record.vm)
            await monitor.call("migrate-set-parameters", {"tls-creds": ""})
            await monitor.call("object-del", {"id": f"move-{record.id}"})

    async def perform(self, move: str, address: str, port: int, key: str,
                      limits: dict[str, int], peer_at: str = "",
                      memory: Sequence[str] = ()) -> None:
        """Begin the migration; the other agent is heard at @peer_at."""
        record = self.record(move)
        if record.ended:
            raise Refused(f"this move of {record.vm} has ended here")
        word, _, migration = await self.word(record)
        if record.performed and migration.get("status") == "failed":
            raise Refused(f"{record.vm}: "
                          + str(migration.get("error-desc", "failed")))
        if word is not Word.HERE:
            if record.performed and word not in (Word.DEAD, Word.SILENT):
                return                  # it runs already
            raise Refused(f"{record.vm} is '{word.value}' and cannot begin")
        monitor = await self.vms.monitor(record.vm)
        uuid = str((await monitor.call("query-uuid"))["UUID"])
        described = self.vms.described(record.vm)
        await self.set_capabilities(monitor, described, uuid, list(memory))
        await reference.tell_source(
            monitor, memory, described.move.disk_packing
            or self.config.migration.disk_packing)
        record = self.save(record, peer_at=peer_at)
        self.sentry.peers.follow(move, record.peer, peer_at)
        await self.sentry.peers.listen(move)
        await self.limit(move, limits)
        record = self.save(self.record(move), made=(
            f"key:{self.key_folder(move)}",))
        await self.set_key(monitor, move, key, "client")
        old = self.owners.get(record.vm)
        self.owners.put(record.vm, replace_owner(
            old, state=File.LEAVING, move=move, peer=record.peer))
        info = await monitor.call("query-wsm")
        record = self.save(record, performed=True, session="",
                           before=str(info.get("session", "")))
        host = f"[{address}]" if ":" in address else address
        await monitor.call("migrate", {"uri": f"tcp:{host}:{port}"})

    async def limit(self, move: str, limits: dict[str, int],
                    valid: int = 0) -> None:
        """
        Set the downtime, and the rate that the guard may go up to.

        @valid: s after which this should have been said again.
        """
        self.live(move).valid = valid and time.monotonic() + valid
        if not limits:
            return
        record, limits = self.record(move), dict(limits)
        grant = limits.pop("max-bandwidth", 0)
        monitor = await self.vms.monitor(record.vm)
        if limits:
            await monitor.call("migrate-set-parameters", limits)
        if grant:
            # While others are looked after the guard alone goes faster
            if record.performed and self.sentry.cares(move):
                grip = Grip(min(grant, record.rate or grant),
                            disk=record.slow_disk)
            else:
                grip = self.sentry.begins(move, record.vm, grant)
            rate = round(grip.rate)
            if (grant, rate) != (record.grant, record.rate):
                await self.set_rate(self.save(record, grant=grant), rate,
                                    grip.disk)

    async def set_rate(self, record: Record, rate: int,
                       slow_disk: bool = False) -> None:
        """Let a move use so many bytes/s, in each phase, or for its disks."""
        monitor = await self.vms.monitor(record.vm)
        if slow_disk or record.slow_disk:
            disk = rate if slow_disk else 0         # 0: no limit
            await monitor.call("wsm-set-options", {
                "bandwidth": disk, "compare-bandwidth": disk})
        wire = record.grant if slow_disk else rate
        # Unless others are hurt the short phase is as short as it can be
        await monitor.call("migrate-set-parameters", {
            "max-bandwidth": wire, "max-postcopy-bandwidth":
            0 if wire == record.grant else wire})
        self.save(record, rate=rate, slow_disk=slow_disk)

    def told(self, move: str) -> Told:
        """Return what the other host of a move must know of this one."""
        record = self.record(move)
        return Told() if record.ended else self.sentry.told(move, record.vm)

    async def cancel(self, move: str) -> None:
        """Cancel the migration; QEMU refuses it after the handover."""
        monitor = await self.vms.monitor(self.record(move).vm)
        await monitor.call("migrate_cancel")

    async def keep(self, move: str) -> None:
        """The guest stays: this host is its owner."""
        record = self.record(move)
        word, _, _ = await self.word(record)
        if word in AFTER:
            raise Refused(f"{record.vm} was handed over: '{word.value}'")
        old = self.owners.get(record.vm)
        if old.state is File.GONE:
            raise Refused(f"{record.vm} was handed over to {old.peer}")
        self.owners.put(record.vm, replace_owner(old, state=File.OWNER,
                                                 move=""))
        await self.drop_key(record)
        self.close(record)

    async def clean(self, move: str, reason: str = "") -> None:
        """End what waits here and take away what was made; keep images."""
        try:
            record = self.record(move)
        except Refused:
            return
        if record.role != "destination" or record.ended:
            return
        word, _, _ = await self.word(record)
        if word in AFTER or word is Word.SILENT and (
                "postcopy" in self.live(move).phases):
            raise Refused(f"{record.vm} runs here: '{word.value}'")
        last = launch.last_words(self.vms.run(record.vm))
        await self._end(record)
        if "postcopy" in self.live(move).phases:
            raise Refused(f"{record.vm} began to run here before it was "
                          "ended: a person must look")
        for path in record.images:
            if unused(path):
                Path(path).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    Path(path).parent.rmdir()
        old = self.owners.get(record.vm)
        if old.state is not File.OWNER:
            self.owners.put(record.vm, replace_owner(old, state=File.GONE,
                                                     move=""))
        self.close(record, "cleaned", prepared=False,
                   reason=(reason or last)[-2000:])

    async def _end(self, record: Record) -> None:
        """Kill this move's QEMU, and hear it out to its last event."""
        known = self.process(record) or self.vms.known(record.vm)
        if known is None:
            for stray in launch.strays(self.vms.run(record.vm)):
                launch.kill(stray.pid, stray.started)
                await self._gone(stray)
            await self.vms.tidy(record.vm, record.made)
            return
        monitor: Optional[Monitor] = None
        with contextlib.suppress(QmpGone):
            monitor = await self.vms.monitor(record.vm)
        launch.kill(known.pid, known.started)
        await self._gone(known)
        if monitor:
            await monitor.drain()
            self._hear(record)
        await self.vms.tidy(record.vm, record.made)

    async def _gone(self, known: Known | vmfind.Process) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + END_WAIT
        while vmfind.alive(known.pid, known.started):
            if loop.time() > end:
                raise Refused(f"process {known.pid} does not end")
            await asyncio.sleep(0.02)

    async def hand_over(self, move: str) -> None:
        """The guest is the destination's: write so."""
        record = self.record(move)
        if record.ended == "done":
            return
        word, _, _ = await self.word(record)
        if record.role == "source":
            if word not in (*AFTER, Word.DEAD):
                raise Refused(f"{record.vm} is here: '{word.value}'")
            state, epoch = File.GONE, record.epoch + 1
        else:
            if word not in AFTER and word is not Word.DEAD:
                raise Refused(f"{record.vm} does not run here: "
                              f"'{word.value}'")
            state, epoch = File.OWNER, record.epoch + 1
            if record.described:
                self.vms.save_spec(record.described)
                durable.remove(self.vms.folder(record.vm) / "left.toml")
        self.owners.put(record.vm, Owner(state, epoch, move, record.peer,
                                         time.time()))

    async def finish(self, move: str, needed: bool = True) -> None:
        """
        Leave what is not needed any more.

        @needed: the source waits until QEMU itself says so; else it was seen
        at the destination that all is there, and the source is killed.
        """
        record = self.record(move)
        if record.ended:
            return
        word, info, migration = await self.word(record)
        if record.role == "destination":
            if word is Word.COMPLETED:
                await self.drop_key(record)
            if word in (Word.COMPLETED, Word.DEAD, Word.HERE):
                self.close(record)
            return
        known = self.process(record)
        if info:
            record = self.save(record, final=json.dumps(
                figures_of(info, migration)))
        if known and needed:
            if word is not Word.COMPLETED:
                raise Refused(f"{record.vm} is '{word.value}': it is needed")
            if reference.keeps(info):
                raise Refused(f"{record.vm}: QEMU keeps its memory, for the "
                              "way back")
            monitor = await self.vms.monitor(record.vm)
            with contextlib.suppress(QmpGone):
                await monitor.call("quit")
            with contextlib.suppress(Refused):
                await self._gone(known)
        await self._end(record)
        spec_path = self.vms.spec_path(record.vm)
        if spec_path.exists():
            durable.write(self.vms.folder(record.vm) / "left.toml",
                          spec_path.read_bytes())
            durable.remove(spec_path)
        self.close(record)

    async def break_link(self, move: str) -> None:
        """Break connections that hang."""
        record = self.record(move)
        monitor = await self.vms.monitor(record.vm)
        if record.role == "source":
            await monitor.call("yank", {"instances": [
                {"type": "migration"}]}, oob=True)
        else:
            await monitor.call("migrate-pause", oob=True)

    async def recover(self, move: str, address: str = "",
                      port: int = 0) -> dict[str, Any]:
        """Mend a broken link: the destination first, then the source."""
        record = self.record(move)
        monitor = await self.vms.monitor(record.vm)
        if record.role == "destination":
            address = self.config.migration.addr
            port = taps.free_port(self.config.migration.ports, address,
                                  frozenset([record.port]))
            host = f"[{address}]" if ":" in address else address
            await monitor.call("migrate-recover",
                               {"uri": f"tcp:{host}:{port}"}, oob=True)
            self.save(record, port=port)
            return {"address": address, "port": port}
        host = f"[{address}]" if ":" in address else address
        await monitor.call("migrate", {"uri": f"tcp:{host}:{port}",
                                       "resume": True})
        return {}

    async def fence(self, move: str) -> dict[str, Any]:
        """
        End the destination so that it surely never runs the guest.

        Returns the token that lets the source boot its old copy.
        """
        record = self.record(move)
        live = self.live(move)
        if record.role != "destination":
            raise Refused("only a destination is fenced")
        if self.process(record) is None:
            if record.ended != "cleaned" and not (
                    live.watched and "postcopy" not in live.phases):
                raise Refused(f"{record.vm} has ended, and nobody saw whether "
                              "it ran here")
        if record.ended != "cleaned":
            await self.clean(move, "fenced")
        return {"vm": record.vm, "epoch": record.epoch,
                "host": self.config.host, "method": "agent-killed"}

    async def restart(self, move: str, token: dict[str, Any]) -> None:
        """Boot the source's own copy, for which there must be a token."""
        record = self.record(move)
        if (token.get("vm"), token.get("epoch")) != (record.vm, record.epoch):
            raise Refused("the token is not for this move")
        if record.role != "source":
            raise Refused("only a source boots its old copy")
        if self.vms.known(record.vm):
            return
        old = self.owners.get(record.vm)
        if old.state is File.GONE:
            raise Refused(f"{record.vm} was handed over to {old.peer}")
        vm = self.vms.described(record.vm)
        place, made = self.vms.lend(vm)
        self.owners.put(record.vm, replace_owner(
            old, state=File.OWNER, epoch=old.epoch + 1, move=""))
        monitor = await self.vms.launch(vm, place, made, False)
        await self._adopt_and_run(monitor)
        self.close(record)

    # What only a person can want, after a loss

    async def take_back(self, move: str, token: dict[str, Any]) -> None:
        """
        Boot the source's copy although the guest was handed over.

        The token says who has decided it, and that he knows that the other
        host's QEMU is gone; what was written there is lost.
        """
        record = self.record(move)
        if record.role != "source":
            raise Refused("only a source takes a guest back")
        if (token.get("vm"), token.get("method"), token.get("host")) != (
                record.vm, "operator", record.peer):
            raise Refused("the token does not say that a person knows "
                          f"{record.peer} to be without this guest")
        word, _, _ = await self.word(record)
        if word is Word.COMPLETED:
            raise Refused(f"{record.peer} has all of {record.vm}: boot it "
                          "there")
        described = self._left(record.vm)
        old = self.owners.get(record.vm)
        if old.state is File.OWNER and self.vms.known(record.vm):
            return
        place, made = self.vms.lend(described)
        await self._end(record)
        self.vms.save_spec(described)
        self.owners.put(record.vm, replace_owner(
            old, state=File.OWNER, epoch=record.epoch + 2, move=""))
        durable.save(self._folder / f"{move}.token", dict(token))
        monitor = await self.vms.launch(described, place, made, False)
        await self._adopt_and_run(monitor)
        self.close(record)

    def _left(self, vm: str) -> spec.Spec:
        """Return the description of a VM that is here, or has left."""
        path = self.vms.folder(vm) / "left.toml"
        if not self.vms.spec_path(vm).exists() and path.exists():
            return read_spec(path)
        return self.vms.described(vm)

    async def _adopt_and_run(self, monitor: Monitor) -> None:
        """Let a QEMU run its images whatever their records say."""
        if not (await monitor.call("query-status"))["running"]:
            await monitor.call("wsm-adopt")
            await monitor.call("cont")

    async def give_up(self, move: str) -> None:
        """A person wants the source's copy: what is here is nobody's."""
        record = self.record(move)
        if record.role != "destination":
            raise Refused("only a destination gives up")
        word, _, _ = await self.word(record)
        if word is Word.COMPLETED:
            raise Refused(f"all of {record.vm} is here")
        await self._end(record)
        old = self.owners.get(record.vm)
        self.owners.put(record.vm, replace_owner(
            old, state=File.GONE, epoch=record.epoch + 2, move=""))
        durable.remove(self.vms.spec_path(record.vm))
        self.close(record)

    async def settle(self, move: str) -> None:
        """The guest stays here as it is, although blocks are lost."""
        record = self.record(move)
        if record.role != "destination":
            raise Refused("only a destination keeps what has arrived")
        await self.hand_over(move)
        self.close(record)

    # What an agent does alone

    async def tick(self) -> None:
        """Follow what QEMU says; called every second."""
        for record in self.open_moves():
            live = self.live(record.id)
            if live.lock.locked():
                continue
            async with live.lock:
                with contextlib.suppress(Refused, QmpGone, QmpFailed):
                    await self._follow(record, live)
        if not self._open and time.monotonic() - self._swept > SWEEP:
            self._swept = time.monotonic()
            await self.vms.sweep()

    async def _guard(self, record: Record, info: dict[str, Any],
                     migration: dict[str, Any]) -> None:
        """Hold a move back, or let it go, or end it."""
        ram, phase = migration.get("ram", {}), str(info.get("phase", "none"))
        was = Grip(record.rate, disk=record.slow_disk)
        grip, act = self.sentry.decide(record.id, record.vm, was, Seen(
            time.monotonic(), phase, self.sentry.grant(record.grant, phase),
            float(ram.get("dirty-pages-rate", 0)) * ram.get("page-size", 0),
            float(info.get("remaining", 0)),
            float(info.get("speed", 0)) or math.inf,
            any(disk.get("waiting-reads") for disk in info.get("disks", []))))
        if act is Act.RATE:
            await self.set_rate(record, max(1, round(grip.rate)), grip.disk)
        elif act is Act.CANCEL:
            self.save(record, reason=f"it took too much: {grip.why}")
            await self.cancel(record.id)

    async def _follow(self, record: Record, live: Live) -> None:
        if live.valid and time.monotonic() > live.valid:
            live.valid = 0.0
            LOG.warning("move %s: nobody says how fast it may be; it goes on "
                        "with at most %.1f MiB/s", record.id,
                        record.grant / (1 << 20))
        word, info, migration = await self.word(record)
        if record.rate:             # also where the agent was started anew
            self.sentry.peers.follow(record.id, record.peer, record.peer_at)
        # Also if nobody is left for whom it was made slow
        held = self.sentry.cares(record.id) or record.rate < record.grant
        if record.rate and held and word in (Word.PRE, Word.POSTCOPY):
            await self._guard(record, info, migration)
        if word in AFTER:
            await self.hand_over(record.id)
        gone = record.role == "source" and word is Word.DEAD and (
            self.owners.get(record.vm).state is File.GONE)
        if word is Word.COMPLETED or gone:
            await self.finish(record.id)
        if (record.role == "destination" and word is Word.PRE
                and not live.phases and live.heard
                and time.monotonic() - live.heard > ABANDONED):
            await self.clean(record.id, "no controller for "
                             f"{ABANDONED:.0f} s")


def figures_of(info: dict[str, Any],
               migration: dict[str, Any]) -> dict[str, Any]:
    """Return what is shown of a move, from query-wsm and query-migrate."""
    return {**{key: value for key, value in info.items() if key != "images"},
            "status": migration.get("status", "none"),
            "ram": migration.get("ram", {})}


def unused(path: str) -> bool:
    """Return whether an image that was made holds nothing worth keeping."""
    return os.path.exists(path) and not os.path.exists(
        os.path.realpath(path) + ".wsm")
