# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian guest with a busy database, moved by virsh-wsm and by virsh.

One run, one guest: there and back by virsh-wsm, then there and back by 'virsh
migrate --copy-storage-all', as an administrator types it.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Callable

from dev.common import BUILD
from dev.demo.client import Heartbeat, Job, Load, run_job
from dev.demo.guest_disk import DISK_BYTES, Guest, make_guest
from dev.demo.network import (GUEST_ADDRESS, GUEST_MAC, PREFIX_LENGTH,
                              Network, make_network)
from dev.demo.process import KERNEL_LINE, MEMORY_MIB
from dev.demo.summary import average
from dev.libvirt.virt_guest import Disk, Domain
from dev.libvirt.virt_host import VirtHost
from dev.libvirt.virt_scene import Process, VirtScene
from dev.rig.basics import TestFailure, require, run, tool, wait_until
from dev.rig.host import Host
from dev.rig.image import MIB

RATE = "160mbit"
CLIENTS = 2
PGBENCH_SECONDS = 3600
WARM_REPORTS = 12        # of pgbench, one each second
STEADY_SECONDS = 15.0
MOVE_SECONDS = 600
CHECK_SECONDS = 900
DISK = Disk("vm1.qcow2", "vda", DISK_BYTES)
DOMAIN = Domain(disks=(DISK,), memory=MEMORY_MIB, mac=GUEST_MAC,
                kernel_line=KERNEL_LINE)


@dataclass(frozen=True)
class Row:
    """What one move was like."""

    way: str
    commands: int
    ended: str
    seconds: float
    gap: float              # the longest that a client waited for an answer
    sent: int
    before: float           # transactions per second
    during: float

    def line(self) -> str:
        """Return it as a line of a table."""
        return (f"| {self.way} | {self.commands} | {self.ended} | "
                f"{self.seconds:.1f} | {1000 * self.gap:.0f} | "
                f"{self.sent / MIB:.0f} | {self.before:.0f} | "
                f"{self.during:.0f} |")


HEADER = """\
| way | commands | | seconds | longest silence (ms) | MiB on the link | \
tps before | tps meanwhile |
|---|---|---|---|---|---|---|---|"""


class Story:
    """The run."""

    def __init__(self, scene: VirtScene, network: Network) -> None:
        self.scene = scene
        self.network = network
        self.heartbeat = Heartbeat(network)
        self.load: Load
        self.rows: list[Row] = []
        self.said = ""              # by the last command that moved

    def boot(self, guest: Guest) -> None:
        """Boot it, and start the load."""
        scene = self.scene
        for host in scene.pair.hosts:
            scene.put_boot(host, guest.kernel, guest.initrd)
        run(tool("qemu-img"), "convert", "-O", "qcow2", str(guest.disk),
            str(scene.alpha.images / DISK.name))
        scene.begin(DOMAIN)
        self.follow()

    def follow(self) -> None:
        """Wait for a guest that was started, and start the load."""
        begin = time.monotonic()
        wait_until(lambda: self.heartbeat.last() > begin, "the guest boots")
        wait_until(self.database_answers, "PostgreSQL answers")
        self.load = Load(self.network, CLIENTS, PGBENCH_SECONDS)
        wait_until(lambda: len(self.load.samples) >= WARM_REPORTS,
                   "pgbench is under way")

    def database_answers(self) -> bool:
        """Return whether the database is there."""
        try:
            return Job(self.network, "ready").wait(30).code == 0
        except OSError:
            return False

    def rate(self, since: float, until: float) -> float:
        """Return transactions per second."""
        return average(self.load.overlapping(since, until))

    def move(self, way: str, source: VirtHost, *commands: list[str]) -> None:
        """Type @commands at @source; the last one moves the guest."""
        *first, last = commands

        def do() -> str:
            for words in first:
                source.check(*words)
            process = Process(source, *last)
            try:
                done = process.wait(MOVE_SECONDS)
            except TestFailure:
                source.check("virsh", "domjobabort", "vm1")
                return f"given up after {MOVE_SECONDS} s"
            self.said = done.text()
            return "moved" if not done.status else done.text()[-200:]

        self.measure(way, source.net, len(commands), do)

    def measure(self, way: str, source: Host, commands: int,
                do: Callable[[], str]) -> None:
        """Let @do move the guest away from @source; it tells how it ended."""
        steady = time.monotonic()
        time.sleep(STEADY_SECONDS)      # not for anything: this is measured
        begin, sent = time.monotonic(), source.sent_bytes()
        ended = do()
        end = time.monotonic()
        wait_until(lambda: self.heartbeat.last() > end + 1,
                   "an answer after the move")
        gaps = self.heartbeat.gaps(begin, end + 1)
        self.rows.append(Row(
            way, commands, ended, end - begin,
            max(gap.length for gap in gaps), source.sent_bytes() - sent,
            self.rate(steady, begin), self.rate(begin, end)))
        note(self.rows[-1].line())

    def check(self) -> None:
        """The database is whole."""
        self.load.job.stop()
        self.load.job.wait(CHECK_SECONDS)
        result = run_job(self.network, "balances", seconds=CHECK_SECONDS)
        sums = dict(line.split() for line in result.lines if " " in line)
        count = sums.pop("transactions", "0")
        require(len(set(sums.values())) == 1, f"balances: {sums}")
        for job in ("amcheck", "stop-database", "checksums"):
            result = run_job(self.network, job, seconds=CHECK_SECONDS)
            require(result.code == 0, f"{job}: {result.lines[-3:]}")
        note(f"the database is whole: {count} transactions, all balances "
             "agree, pg_amcheck, pg_checksums")


def note(text: str) -> None:
    """Print what was seen, for people."""
    print("# " + text.replace("\n", "\n#     "), flush=True)


def table(rows: list[Row]) -> str:
    """Return all as a table."""
    return "\n".join(f"# {line}" for line in
                     [*HEADER.split("\n"), *(row.line() for row in rows)])


def stock(target: VirtHost) -> list[list[str]]:
    """Return what is typed for a move by virsh alone."""
    return [
        ["virsh", "-c", target.uri, "pool-create-as", "images", "dir",
         "--target", "/var/lib/libvirt/images"],
        ["virsh", "-c", target.uri, "vol-create-as", "images", DISK.name,
         str(DISK.size), "--format", "qcow2"],
        ["virsh", "migrate", "--live", "--p2p", "--copy-storage-all",
         "--persistent", "--undefinesource", "vm1", target.uri],
    ]


def moves(story: Story) -> None:
    """Move there and back, in both ways."""
    alpha, beta = story.scene.alpha, story.scene.beta
    for name, source, target in (("there", alpha, beta),
                                 ("back", beta, alpha)):
        story.move(f"virsh-wsm, {name}", source,
                   ["virsh-wsm", "vm1", target.uri])
        require(story.rows[-1].ended == "moved", story.rows[-1].ended)
    for path in beta.images.iterdir():
        path.unlink()
    story.move("--copy-storage-all, there", alpha, *stock(beta))
    if story.rows[-1].ended == "moved":
        story.move("--copy-storage-all, back", beta, stock(alpha)[-1])


def database(scene: VirtScene) -> None:
    """A Debian guest with PostgreSQL, by virsh-wsm and by virsh alone."""
    folder = BUILD / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    guest = make_guest(folder, f"{GUEST_ADDRESS}/{PREFIX_LENGTH}", False)
    with ExitStack() as stack:
        network = stack.enter_context(make_network(RATE))
        story = Story(scene.start(network.link), network)
        stack.callback(story.heartbeat.close)
        story.boot(guest)
        moves(story)
        story.check()
        print(table(story.rows), flush=True)
