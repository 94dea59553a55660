# SPDX-License-Identifier: GPL-2.0-or-later
"""A cluster as wsmctl knows it: a folder with hosts, certificates, journal."""

import contextlib
import dataclasses
import fcntl
import os
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional

from wsm import durable, pki
from wsm.plan.ends import Stage
from wsm.plan.learn import Past

DEFAULT = "~/.config/wsm"


class CliError(Exception):
    """Something to be told, with an exit status, and @more for programs."""

    def __init__(self, text: str, status: int = 1,
                 more: Optional[Mapping[str, Any]] = None) -> None:
        super().__init__(text)
        self.status = status
        self.more = more or {}


@dataclass(frozen=True)
class HostEntry:
    """A host that was added."""

    address: str                # host:port of its agent
    state: str = "active"


@dataclass(frozen=True)
class Cluster:
    """The content of cluster.json."""

    name: str
    instance: str               # of this folder, as a controller
    hosts: Mapping[str, HostEntry] = field(default_factory=dict)
    # Daemons that were added, and host:port of their API
    controllers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Move:
    """A move in the journal.  Each stage is written before it begins."""

    id: str
    vm: str
    source: str
    destination: str
    stage: int = int(Stage.BOOKED)
    cancel: bool = False
    begun: float = 0.0
    ended: float = 0.0
    result: str = ""            # "moved", "stayed", "cancelled"
    text: str = ""
    expected_bytes: int = 0
    expected_seconds: float = 0.0
    seconds: float = 0.0        # until all was there
    downtime_ms: int = 0
    bytes: int = 0
    rate: int = 0               # bytes/s, 0: as fast as it can
    reason: str = ""            # why it is cancelled
    phases: Mapping[str, int] = field(default_factory=dict)     # ms in each
    # What the expectation was made of; see plan/learn.py
    expected_start: float = 0.0
    factor: float = 1.0
    differed: Mapping[str, float] = field(default_factory=dict)
    drained: str = ""           # the host of whose drain it is a part
    due: float = 0.0            # when it must have ended; 0: any time


class Home:
    """The folder."""

    def __init__(self, folder: Optional[str]) -> None:
        name = folder or os.environ.get("WSM_HOME") or DEFAULT
        self.folder = Path(name).expanduser()
        # What to do at the end, unless a move goes on
        self.acting: list[Callable[[], None]] = []
        self.hosts_changed: Callable[[], None] = lambda: None

    def leave(self) -> None:
        """Let others act, if this journal has no move that goes on."""
        if self.acting and not self.open_moves():
            for release in self.acting:
                release()

    @property
    def cluster(self) -> Cluster:
        """The cluster; raises CliError if there is none."""
        found = self.found()
        if found is None:
            raise CliError(f"{self.folder} has no cluster yet: 'wsmctl init'",
                           2)
        return found

    def found(self) -> Optional[Cluster]:
        """Return the cluster, None if there is none."""
        return durable.load(Cluster, self.folder / "cluster.json")

    def save(self, cluster: Cluster) -> None:
        """Write it."""
        durable.save(self.folder / "cluster.json", cluster)

    def certificate(self) -> tuple[Path, Path, Path]:
        """Return the files of the CA, of a certificate, and of its key."""
        return (self.folder / "ca.pem", self.folder / "controller.pem",
                self.folder / "controller.key")

    def epoch_for(self, epoch: int, holder: str) -> int:
        """Return the epoch of orders to an agent that obeys @holder in @epoch."""
        return epoch + (0 if holder == self.cluster.instance else 1)

    def may_order(self) -> None:
        """Return when an order may be given; a person is asked by nobody."""

    def init(self, name: str) -> Cluster:
        """Make a cluster with its CA and a certificate for this folder."""
        found = self.found()
        if found and found.name == name:
            return found
        if found:
            raise CliError(f"{self.folder} has cluster {found.name} already, "
                           f"not {name}: use another --home")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        pki.new_ca(self.folder, name)
        key = self.folder / "controller.key"
        pki.new_key(key)
        instance = f"wsmctl-{uuid.uuid4().hex[:12]}"
        text = pki.sign(self.folder, pki.request(key, instance), name,
                        "controller", instance)
        durable.write(self.folder / "controller.pem", text.encode(), 0o644)
        cluster = Cluster(name, instance)
        self.save(cluster)
        return cluster

    def host(self, name: str) -> HostEntry:
        """Return a host; raise CliError."""
        found = self.cluster.hosts.get(name)
        if found is None:
            raise CliError(f"there is no host {name}; there are: "
                           + (", ".join(self.cluster.hosts) or "none"), 2)
        return found

    def put_host(self, name: str, entry: Optional[HostEntry]) -> None:
        """Add, change, or (None) remove a host."""
        cluster = self.cluster
        hosts = {**cluster.hosts}
        if entry:
            hosts[name] = entry
        else:
            hosts.pop(name, None)
        self.save(dataclasses.replace(cluster, hosts=hosts))
        self.hosts_changed()

    def put_controller(self, name: str, address: str) -> None:
        """Add or change a daemon, or ("") remove it."""
        cluster = self.cluster
        known = {**cluster.controllers, name: address}
        self.save(dataclasses.replace(cluster, controllers={
            each: where for each, where in known.items() if where}))

    # Journal

    def path(self, move: str) -> Path:
        """Return the file of a move."""
        return self.folder / "moves" / f"{move}.json"

    def new_move(self, move: Move) -> Move:
        """Book a move."""
        return self.put_move(dataclasses.replace(move, begun=time.time()))

    def put_move(self, move: Move) -> Move:
        """Write a move, durably."""
        durable.save(self.path(move.id), move)
        return move

    def move(self, name: str) -> Move:
        """
        Return a move by its id, the begin of it, or its VM if it is open.

        Raises CliError.
        """
        found = [move for move in self.open_moves() if move.vm == name] or [
            move for move in self.moves() if name
            and move.id.startswith(name)]
        if len(found) != 1:
            raise CliError(
                f"{len(found)} moves begin with {name!r}, and no VM of that "
                "name moves; 'wsmctl history' shows all moves", 2)
        return found[0]

    def moves(self) -> list[Move]:
        """Return all moves, the oldest first."""
        found = [durable.load(Move, path)
                 for path in (self.folder / "moves").glob("*.json")]
        return sorted((each for each in found if each),
                      key=lambda move: move.begun)

    def open_moves(self) -> list[Move]:
        """Return the moves that have not ended."""
        return [move for move in self.moves() if not move.ended]

    def past(self) -> list[Past]:
        """Return what can be learned from."""
        return [self.lesson(move) for move in self.moves()
                if move.result == "moved"]

    @staticmethod
    def lesson(move: Move) -> Past:
        """Return what a move teaches."""
        return Past(move.vm, move.source, move.destination, move.rate,
                    move.bytes, move.seconds, move.phases,
                    move.expected_seconds, move.expected_start, move.factor,
                    move.differed)

    def want_cancel(self, move: str) -> None:
        """Tell whoever drives a move that it is not wanted any more."""
        durable.write(self.path(move).with_suffix(".cancel"), b"")

    def cancel_wanted(self, move: str) -> bool:
        """Return whether somebody has said so."""
        return self.path(move).with_suffix(".cancel").exists()

    @contextlib.contextmanager
    def locked(self, move: str) -> Iterator[None]:
        """Drive a move: only one process does."""
        path = self.folder / "moves" / f"{move}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="ascii") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CliError(f"another wsmctl drives move {move}"
                               ) from error
            yield
        path.unlink(missing_ok=True)
