# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo with three hosts: what a user types, and what came of it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev import common
from dev.demo.client import Gap, Heartbeat, Load
from dev.demo.guest_disk import Guest
from dev.demo.network import Lan
from dev.demo.process import MEMORY_MIB, guest_options, processors
from dev.demo.progress import mib
from dev.demo.story import (PGBENCH_SECONDS, SETTLE_SECONDS, WARM_UP_SECONDS,
                            Settings, check_file_system, check_guest,
                            copy_disk, measure, wait_for_database)
from dev.demo.summary import Checks, average, longest
from dev.demo.three_hosts import NAMES, NETWORKS, Site, make_site
from dev.rig.basics import run
from dev.rig.host import Host
from wsm.agent import vmfind

GUESTS = dict(zip(("db1", "db2"), NETWORKS))
COMMANDS = 10               # at most, from a fresh clone to the last one
# Each host sees all that the machine does, and would be too busy for a guest
CORES = "64"
Json = dict[str, Any]


@dataclass
class Shell:
    """Types commands as the administrator, shows and counts them."""

    site: Site
    folder: Path
    typed: list[str] = field(default_factory=list)

    def command(self, *words: str) -> list[str]:
        """Returns what is run for 'wsmctl' with these words."""
        return [*self.site.admin.prefix(), str(common.ROOT / "scripts/wsmctl"),
                "--home", str(self.folder / "home"), *words]

    def wsmctl(self, *words: str, status: int = 0) -> None:
        """Types a command, and shows what it says.

        :raise Failure: it ended with another status.
        """
        line = shlex.join(["wsmctl", *words])
        self.typed.append(line)
        print(f"\n{len(self.typed)}. $ {line}", flush=True)
        with subprocess.Popen(
                self.command(*words), stdin=subprocess.DEVNULL, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            for text in process.stdout:
                print(f"   {text}", end="", flush=True)
        if process.returncode != status:
            raise common.Failure(f"'{line}' ended with status "
                                 f"{process.returncode} instead of {status}")

    def ask(self, *words: str) -> Any:
        """Returns the JSON of a command that the demo alone wants."""
        return json.loads(common.output(self.command(*words, "--json")))


@dataclass
class Client:
    """Who is outside a guest and follows it."""

    lan: Lan
    heartbeat: Heartbeat
    load: Load


@dataclass
class Round:
    """One command that moved guests, and what was seen meanwhile."""

    title: str
    seconds: float
    wire: int                       # bytes that hosts sent, all headers
    moves: list[Json]               # of wsmctl's journal
    silences: dict[str, float]      # s, by guest: the longest of a move
    before: dict[str, float]        # tps
    during: dict[str, float]        # tps


@contextmanager
def started(name: str, settings: Settings, guest: Guest,
            host: Host) -> Iterator[Path]:
    """Starts a guest as a person does, with a tap; gives its disk."""
    folder, network, tap = settings.folder, GUESTS[name], f"tap-{name}"
    disk = folder / f"{name}.raw"
    copy_disk(guest, disk)
    run("ip", "-n", host.netns, "tuntap", "add", tap, "mode", "tap")
    run("ip", "-n", host.netns, "link", "set", tap, "master", network, "up")
    command = [
        str(settings.qemu), "-name", name,
        *guest_options(guest, MEMORY_MIB, processors(), tap),
        "-drive", f"file={disk},format=raw,if=virtio,discard=unmap",
        "-serial", f"file:{folder / name}.console",
        "-qmp", f"unix:{folder / name}.qmp,server=on,wait=off",
        "-pidfile", f"{folder / name}.pid", "-daemonize"]
    print(f"\n   alpha# {shlex.join(command)}", flush=True)
    common.output([*host.prefix(), *command])
    try:
        yield disk
    finally:
        for path in (disk, disk.with_name(f"{disk.name}.wsm")):
            path.unlink(missing_ok=True)


def alive(folder: Path, name: str) -> bool:
    """Returns whether the QEMU that was started by hand runs."""
    pid = (folder / f"{name}.pid").read_text(encoding="ascii")
    return vmfind.process(int(pid)) is not None     # no zombie


def add_hosts(shell: Shell, settings: Settings) -> None:
    """Types what makes a cluster of the three hosts."""
    shell.wsmctl("init")
    for name in NAMES:
        host = shell.site.hosts[name]
        networks = [word for network in NETWORKS
                    for word in ("--network", f"{network}={network}")]
        shell.wsmctl(
            "host", "add", name, host.address, "--via",
            shlex.join(host.prefix()), "--clone", str(common.ROOT), "--below",
            str(settings.folder / name), *networks, "--mbit",
            str(settings.link_megabits), "--qemu", str(settings.qemu),
            "--reserve", "0", "--cores", CORES)


def moving(title: str, shell: Shell, clients: dict[str, Client],
           steady: float, *words: str) -> Round:
    """Types a command that moves guests; returns what was seen."""
    hosts = shell.site.hosts.values()
    known = len(shell.ask("history", "--last", "0"))
    wire, begin = sum(host.sent_bytes() for host in hosts), time.monotonic()
    shell.wsmctl(*words)
    seconds = time.monotonic() - begin
    wire = sum(host.sent_bytes() for host in hosts) - wire
    time.sleep(SETTLE_SECONDS)      # the heartbeats after the last freeze
    moves = shell.ask("history", "--last", "0")[known:]
    shift = time.monotonic() - time.time()
    silences = {}
    for move in moves:
        gaps: list[Gap] = clients[move["vm"]].heartbeat.gaps(
            move["begun"] + shift, move["ended"] + shift + SETTLE_SECONDS)
        silences[move["vm"]] = longest(gaps).length
    return Round(title, seconds, wire, moves, silences, *(
        {name: average(client.load.overlapping(since, until))
         for name, client in clients.items()}
        for since, until in ((steady, begin), (begin, begin + seconds))))


def tell_hosts_story(settings: Settings, guest: Guest) -> bool:
    """Boots two guests, empties their host, fills it again; is all well?"""
    with ExitStack() as stack:
        for name in NAMES:          # at the end, when nobody runs any more
            stack.callback(shutil.rmtree, settings.folder / name / "images",
                           ignore_errors=True)
        site = stack.enter_context(make_site(f"{settings.link_megabits}mbit"))
        shell = Shell(site, settings.folder)
        print("Three hosts, and two guests that a person has started on the "
              "first one:")
        disks = {name: stack.enter_context(started(
            name, settings, guest, site.hosts[NAMES[0]])) for name in GUESTS}
        clients = {name: follow(name, site, settings.folder, disks[name],
                                stack) for name in GUESTS}
        begin = work_on(clients, WARM_UP_SECONDS, settings.seconds)
        print("\nAll that is typed, in the namespace of an administrator"
              f" ({site.admin.netns}); with real hosts, 'host add' needs no "
              "more than a name and an address:")
        add_hosts(shell, settings)
        for name in GUESTS:
            shell.wsmctl("vm", "adopt", NAMES[0], name)
        shell.wsmctl("drain", NAMES[0], "--dry-run", status=3)
        rounds = [moving("drained", shell, clients, begin, "drain",
                         NAMES[0])]
        begin = work_on(clients, SETTLE_SECONDS, settings.away)
        rounds.append(moving("filled again", shell, clients, begin, "drain",
                             NAMES[0], "--back"))
        work_on(clients, SETTLE_SECONDS, settings.seconds)
        findings = Checks()
        check_moves(findings, shell, rounds)
        for name, client in clients.items():
            print(f"{name}:")
            own = Checks()
            check_guest(own, client.lan, ended(shell, name), client.load)
            check_file_system(own, disks[name])
            for title, passed, detail in own.checks:
                findings.check(f"{name}: {title}", passed, detail)
    print("\n".join(report(shell, rounds, findings, settings)))
    return findings.well


def follow(name: str, site: Site, folder: Path, disk: Path,
           stack: ExitStack) -> Client:
    """Waits for a guest's database, and lets clients work with it."""
    lan = site.lans[GUESTS[name]]
    heartbeat = stack.enter_context(closing(Heartbeat(lan)))
    wait_for_database(lan, heartbeat, lambda: alive(folder, name), disk)
    load = Load(lan, 1, PGBENCH_SECONDS)
    stack.callback(load.job.close)
    return Client(lan, heartbeat, load)


def work_on(clients: dict[str, Client], skip: float, seconds: float) -> float:
    """Lets both work for a while; returns when the measured time began."""
    first = next(iter(clients.values()))
    return measure("pgbench in both guests", first.load, skip, seconds)


def ended(shell: Shell, name: str) -> Callable[[float], None]:
    """Returns what waits until a guest that was told to has ended."""
    def wait(seconds: float) -> None:
        end = time.monotonic() + seconds
        while any(vm["name"] == name and vm["runs"]
                  for vm in shell.ask("vm", "list")["vms"]):
            if time.monotonic() > end:
                raise common.Failure(f"{name} did not end")
            time.sleep(0.5)

    return wait


def check_moves(findings: Checks, shell: Shell, rounds: list[Round]) -> None:
    """Checks what the journal and the hosts say."""
    moves = [move for each in rounds for move in each.moves]
    findings.check(
        "each guest moved away and back", sorted(
            (move["vm"], move["result"]) for move in moves)
        == sorted(2 * [(name, "moved") for name in GUESTS]))
    places = {vm["name"]: vm["host"] for vm in shell.ask("vm", "list")["vms"]}
    findings.check("both are at alpha again",
                   set(places.values()) == {NAMES[0]}, f"{places}")
    findings.check(f"at most {COMMANDS} commands were typed",
                   len(shell.typed) <= COMMANDS, str(len(shell.typed)))


def report(shell: Shell, rounds: list[Round], findings: Checks,
           settings: Settings) -> list[str]:
    """Returns the report as lines."""
    lines = ["", "REPORT", "======",
             f"{len(shell.typed)} commands were typed, from a clone that is "
             "built to the last move.", "",
             f"{'':14}{'bytes':>12}{'expected':>12}{'seconds':>9}"
             f"{'expected':>9}{'pause':>9}{'silence':>9}{'tps':>5}"
             f"{'during':>7}"]
    for each in rounds:
        for move in each.moves:
            name = move["vm"]
            lines.append(
                f"{name} to {move['destination']:7}"
                f"{mib(move['bytes']):>12}{mib(move['expected_bytes']):>12}"
                f"{move['seconds']:>9.1f}{move['expected_seconds']:>9.1f}"
                f"{move['downtime_ms']:>6} ms"
                f"{each.silences[name] * 1000:>6.0f} ms"
                f"{each.before[name]:>5.0f}{each.during[name]:>7.0f}")
        lines.append(f"  {NAMES[0]} was {each.title} in {each.seconds:.1f} s;"
                     f" {mib(each.wire)} on the wire")
    lines += ["", "Pause: counted by QEMU. Silence: the longest time that a "
              "client outside had no", "answer, which it asks for each 10 ms."
              " tps: pgbench in the guest, before and", "while its host was "
              f"drained or filled. The host has {os.cpu_count()} CPUs for "
              f"all of it; each", f"sends at most {settings.link_megabits} "
              "Mbit/s.", ""]
    wrong = sum(not passed for title, passed, _ in findings.checks
                if title.startswith(tuple(f"{name}: " for name in GUESTS)))
    lines += [f"Checks of rows, pages and blocks that failed: {wrong or 'none'}", "",
              *findings.verdict()]
    return lines
