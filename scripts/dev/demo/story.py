# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo from beginning to end.

The guest moves there and back with memory by reference, and then once more
without, so that the report can say what that saves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.common import Failure
from dev.demo.client import Heartbeat, Job, Load, Result, run_job
from dev.demo.guest_disk import DISK_BYTES, Guest
from dev.demo.logged import LiveLine
from dev.demo.migrate import PORT, Migration, migrate
from dev.demo.network import Lan, Network, make_network
from dev.demo.process import PATIENCE, WHOLE_SYSTEM, Machine, Plan
from dev.demo.progress import mib, progress_line
from dev.demo.summary import Checks, Findings, Way, report
from dev.rig.host import Host

WARM_UP_SECONDS = 12.0
PGBENCH_CLIENTS = 2
# By the guest's clock, which runs fast if its kernel was wrong about the speed
# of its clock when it booted on a busy machine; it is stopped long before
PGBENCH_SECONDS = 36000
SETTLE_SECONDS = 1.0
PROGRESS_SECONDS = 2.0
NEXT = f"""
Next: your own VM
  docs/before-you-begin.md    what to look at first
  docs/user-guide.md          every command, and what to do when one fails
In short: build/qemu-system-x86_64 on both hosts, with the guest's options and
  {" ".join(WHOLE_SYSTEM)}
at the destination also "-incoming tcp:0:{PORT}" and an image that
"qemu-img create" made, of the same size. Then, at the source,
  {{"execute": "migrate", "arguments": {{"uri": "tcp:DESTINATION:{PORT}"}}}}
and, for memory that need not be sent, the lines before it that you saw above.
"""


@dataclass(frozen=True)
class Move:
    """What is different from way to way."""

    name: str
    arrives_in: str                 # name of the QEMU that it goes to
    away: bool                      # from home
    options: dict[str, Any]         # of wsm-set-options, for memory


# What is kept at the way there, the way back need not send. The same without
# comes later: it would find the destination's image blank, if it came first
MOVES = (
    Move("there", "destination", True, {
        "memory_references": ["disk"], "keep_memory": True}),
    Move("back", "returned", False, {"memory_references": ["disk", "image"]}),
    Move("there again", "destination-2", True, {}),
    Move("back again", "returned-2", False, {}))


@dataclass(frozen=True)
class Settings:
    """What the user may choose."""

    qemu: Path
    folder: Path                    # of this run: images, logs
    link_megabits: int
    seconds: float                  # of pgbench before, and after
    away: float                     # of pgbench between there and back


@dataclass
class Clients:
    """What is outside the guest and follows it."""

    network: Network
    heartbeat: Heartbeat
    load: Load


def tell_story(settings: Settings, guest: Guest) -> bool:
    """Boots, moves there and back twice, checks, reports; is all well?"""
    folder = settings.folder
    with ExitStack() as stack:
        network = stack.enter_context(
            make_network(f"{settings.link_megabits}mbit"))
        disks = _make_disks(settings, guest)
        for disk in disks:
            stack.callback(_remove_disk, disk)
        plan = Plan(settings.qemu, guest)

        def machine(name: str, host: Host, disk: Path,
                    incoming: bool) -> Machine:
            return stack.enter_context(closing(Machine(
                name, plan, host, folder, disk, incoming)))

        source = machine("source", network.source, disks[0], False)
        heartbeat = stack.enter_context(closing(Heartbeat(network)))
        wait_for_database(network, heartbeat,
                          lambda: source.exit_status() is None, disks[0])
        load = Load(network, PGBENCH_CLIENTS, PGBENCH_SECONDS)
        stack.callback(load.job.close)
        clients = Clients(network, heartbeat, load)

        steady = measure("pgbench before the migration", load,
                          WARM_UP_SECONDS, settings.seconds)
        ways = []
        here = source
        for move in MOVES:
            there = machine(
                move.arrives_in, network.destination if move.away
                else network.source, disks[move.away], True)
            ways.append(_move(move, here, there, clients, steady))
            here = there
            steady = measure(f"pgbench after the way {move.name}", load,
                             SETTLE_SECONDS, settings.away if move.away
                             else settings.seconds)

        findings = Findings(ways, settings.link_megabits,
                            load.overlapping(steady, time.monotonic()))
        _check_migrations(findings, load)
        check_guest(findings, network, here.wait_exit, load)
        check_file_system(findings, disks[0])
    print(report(findings))
    if findings.well:
        print(NEXT)
    return findings.well


def _move(move: Move, source: Machine, destination: Machine,
          clients: Clients, steady: float) -> Way:
    """Moves the guest, then ends the QEMU that it left."""
    print(f"The way {move.name}: both QEMUs have the option "
          f"\"{' '.join(WHOLE_SYSTEM)}\"; all that is typed is", flush=True)
    for each in (source, destination):
        each.set_multifd(bool(move.options))
    if move.options:
        source.command("wsm-set-options", **move.options)
    disks = (source.disk, destination.disk)
    before = _allocated(disks[0])
    wire = source.host.sent_bytes()
    migration = _migrate(source, destination, clients)
    wire = source.host.sent_bytes() - wire
    after = _allocated(disks[1])
    if move.options.get("keep_memory"):
        _wait_kept(source)
    source.quit()
    print(f"QEMU '{source.name}' was ended: it is needed no more. Its image "
          "stays.")
    return _collect(move.name, migration, clients, steady, wire, before, after)


def _wait_kept(source: Machine) -> None:
    """Waits until the memory of the guest that has left is in its file."""
    begin = time.monotonic()
    while True:
        kept = source.qmp.cmd("query-wsm").get("kept-memory", {})
        if kept.get("state") == "kept":
            break
        if kept.get("state") != "writing" or time.monotonic() > (
                begin + PATIENCE):
            raise Failure("the guest's memory is not kept: "
                          + kept.get("error", f"after {PATIENCE:.0f} s"))
        time.sleep(0.1)
    print(f"QEMU '{source.name}' has kept the guest's memory: "
          f"{mib(kept['bytes'])} in {Path(kept['file']).name}", flush=True)


def _make_disks(settings: Settings, guest: Guest) -> tuple[Path, Path]:
    """Makes the source's copy of the guest's disk, and a blank one."""
    folder = settings.folder
    source, destination = folder / "source.raw", folder / "destination.raw"
    copy_disk(guest, source)
    qemu_img = settings.qemu.resolve().with_name("qemu-img")
    subprocess.run([qemu_img, "create", "-q", "-f", "raw",
                    destination, str(DISK_BYTES)], check=True)
    return source, destination


def copy_disk(guest: Guest, path: Path) -> None:
    """Makes a copy of a guest's disk."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto",
                    guest.disk, path], check=True)


def _remove_disk(disk: Path) -> None:
    """Removes an image and what may lie beside it."""
    for ending in ("", ".wsm", ".wsm-memory"):
        disk.with_name(f"{disk.name}{ending}").unlink(missing_ok=True)


def _allocated(disk: Path) -> int:
    return disk.stat().st_blocks * 512


def wait_for_database(network: Lan, heartbeat: Heartbeat,
                      alive: Callable[[], bool], disk: Path) -> None:
    """Waits until the guest's agent answers and its database is ready."""
    line = LiveLine()
    begin = time.monotonic()

    def waiting(what: str) -> None:
        elapsed = time.monotonic() - begin
        if not alive() or elapsed > PATIENCE:
            raise Failure(f"{what}: "
                          + (f"not done after {elapsed:.0f} s" if alive()
                             else "its QEMU has ended")
                          + "; the guest's console and QEMU's messages are "
                          f"beside its disk: {disk}")
        line.show(f"{what}: {elapsed:4.0f} s")
        time.sleep(0.2)

    while not heartbeat.last():
        waiting("Booting Debian")
    while not _answers(network, lambda: waiting("Starting PostgreSQL")):
        waiting("Starting PostgreSQL")
    run_job(network, "balances")    # reads all tables: warms the caches
    kernel = " ".join(run_job(network, "hello").lines)
    line.keep(f"Guest is up after {time.monotonic() - begin:.0f} s: Debian, "
              f"{kernel}, PostgreSQL answers")


def _answers(network: Lan, waiting: Callable[[], None]) -> bool:
    """Returns whether the database does; waiting() is called meanwhile."""
    try:
        job = Job(network, "ready")
    except OSError:
        return False    # the agent is not there yet
    with closing(job):
        while job.running():
            waiting()
        try:
            return job.wait(0).code == 0
        except Failure:
            return False    # it was stopped on the way


def measure(title: str, load: Load, skip: float, seconds: float) -> float:
    """Lets pgbench run; returns when the measured time began."""
    line = LiveLine()
    begin = time.monotonic() + skip
    while (now := time.monotonic()) < begin + seconds:
        if not load.job.running():
            raise Failure("pgbench ended in the guest; its last words: "
                          + " / ".join(load.job.wait(1).lines[-3:]))
        rate = f"{load.samples[-1].rate:.0f} tps" if load.samples else "-"
        line.show(f"{title}: {max(0.0, now - begin):3.0f} s, {rate}")
        time.sleep(0.2)
    line.keep(f"{title}: {seconds:.0f} s measured")
    return begin


def _migrate(source: Machine, destination: Machine,
             clients: Clients) -> Migration:
    """Migrates with a live progress line."""
    line = LiveLine(PROGRESS_SECONDS)
    load = clients.load

    def on_poll(migration: Migration) -> None:
        now = time.monotonic()
        line.show(progress_line(
            now - migration.begin, migration.source, migration.destination,
            load.samples[-1].rate if load.samples else None,
            now - clients.heartbeat.last()))

    def on_phase(migration: Migration, phase: str, moment: float) -> None:
        line.keep(f"{moment - migration.begin:6.1f} s  === {phase} ===")

    return migrate(source, destination, on_poll, on_phase)


def _collect(name: str, migration: Migration, clients: Clients,
             steady: float, wire: int, before: int, after: int) -> Way:
    """Puts together what was measured of one way."""
    begin, end = migration.begin, migration.end
    frozen = migration.entered("freeze") or end
    resumed = migration.entered("postcopy") or end
    time.sleep(SETTLE_SECONDS)      # the heartbeats after the freeze
    gaps = clients.heartbeat.gaps
    return Way(
        name=name, migration=migration, link_bytes=wire, source_bytes=before,
        destination_bytes=after, host_load=os.getloadavg()[0],
        gaps_before=gaps(steady, begin),
        gaps_during=gaps(begin, end + SETTLE_SECONDS),
        gaps_freeze=gaps(frozen, resumed + SETTLE_SECONDS),
        before=clients.load.overlapping(steady, begin),
        during=clients.load.overlapping(begin, end))


def _check_migrations(findings: Findings, load: Load) -> None:
    for way in findings.ways:
        source, destination = way.migration.source, way.migration.destination
        findings.check(f"both sides completed the way {way.name}",
                       source.get("phase") == "completed"
                       and destination.get("phase") == "completed",
                       f"source {source.get('phase')}, destination "
                       f"{destination.get('phase')}")
        missing = sum(disk.get("missing", 0)
                      for disk in destination.get("disks", []))
        findings.check(f"no block is missing after the way {way.name}",
                       missing == 0, f"{missing} bytes" if missing else "")
    kinds = {kind for way in findings.ways[1:] for kind, _ in way.bases()}
    findings.check("each later way was built on the sync point",
                   kinds == {"sync-point"}, ", ".join(sorted(kinds)))
    findings.check("the client's TCP connection lived on",
                   load.job.running())
    findings.check("transactions after the way back",
                   sum(sample.transactions for sample in findings.after) > 0)


def check_guest(findings: Checks, network: Lan,
                wait_exit: Callable[[float], None], load: Load) -> None:
    """Ends the load, has the guest check its data, and shuts it down."""
    line = LiveLine()
    load.job.stop()
    load.job.wait(PATIENCE)

    def job(title: str, name: str) -> Result:
        line.show(f"In the guest: {title}")
        return run_job(network, name)

    balances = job("sums of all balances", "balances")
    values = dict(text.split() for text in balances.lines if " " in text)
    transactions = values.pop("transactions", "0")
    findings.check("all balances of pgbench agree",
                   balances.code == 0 and len(values) == 4
                   and len(set(values.values())) == 1,
                   f"{transactions} transactions in the history")
    result = job("pg_amcheck", "amcheck")
    findings.check("pg_amcheck (tables, and each index against its table)",
                   result.code == 0, _bad_lines(result))
    result = job("stopping PostgreSQL", "stop-database")
    findings.check("PostgreSQL stopped in good order", result.code == 0,
                   _bad_lines(result))
    result = job("pg_checksums --check", "checksums")
    numbers = dict(text.split(":", 1) for text in result.lines if ":" in text)
    findings.check("pg_checksums",
                   result.code == 0
                   and numbers.get("Bad checksums", "").strip() == "0",
                   f"{numbers.get('Blocks scanned', '?').strip()} pages, "
                   f"{numbers.get('Bad checksums', '?').strip()} bad")
    line.show("Shutting the guest down")
    with closing(Job(network, "poweroff")):
        wait_exit(PATIENCE)
    line.keep("The guest checked its data and was shut down.")


def _bad_lines(result: Result) -> str:
    return "" if result.code == 0 else " / ".join(result.lines[-3:])


def check_file_system(findings: Checks, disk: Path) -> None:
    done = subprocess.run(["e2fsck", "-f", "-n", disk], check=False,
                          text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    findings.check("e2fsck on the disk that came back", done.returncode == 0,
                   "" if done.returncode == 0
                   else " / ".join(done.stdout.splitlines()[-5:]))


def folder_for_run(top: Path) -> Path:
    """Returns the folder for this run's files, empty."""
    folder = top / "run"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return folder
