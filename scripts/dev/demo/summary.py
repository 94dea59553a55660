# SPDX-License-Identifier: GPL-2.0-or-later
"""The report at the end: pure functions from what was measured to text."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass, field

from dev.demo.client import Gap, Sample
from dev.demo.migrate import Migration
from dev.demo.progress import mib

WIDTH = 78
TITLE_WIDTH = 30
COLUMN = 12


@dataclass
class Way:
    """All that was measured of one move of the guest."""

    name: str
    migration: Migration
    link_bytes: int                 # on the wire, headers included
    source_bytes: int               # allocated by the image
    destination_bytes: int          # allocated by the image
    gaps_before: list[Gap]          # of the heartbeat
    gaps_during: list[Gap]
    gaps_freeze: list[Gap]          # those the freeze may have caused
    host_load: float                # load average while migrating
    before: list[Sample]
    during: list[Sample]

    @property
    def seconds(self) -> float:
        """How long it took until nothing was missing any more."""
        return self.migration.end - self.migration.begin

    @property
    def memory(self) -> int:
        """Bytes of memory that were sent."""
        return int(self._ram("transferred"))

    @property
    def pages(self) -> int:
        """Bytes of all pages that are not zero, by whatever way they went."""
        return int(self._ram("normal-bytes"))

    def _ram(self, key: str) -> float:
        return float(self.migration.status.get("ram", {}).get(key, 0))

    def referenced(self) -> dict[str, int]:
        """Returns how many bytes of memory went by reference, by kind."""
        return {kind["kind"]: kind["referenced"] for kind in
                self.migration.source.get("memory", {}).get("kinds", [])}

    def given_up(self) -> list[tuple[str, str]]:
        """Returns kinds of memory that were in vain, and why."""
        return [(kind["kind"], kind["off"]) for kind in
                self.migration.source.get("memory", {}).get("kinds", [])
                if "off" in kind]

    @property
    def moved(self) -> float | None:
        """Seconds until the guest ran at the other side, None if never."""
        resumed = self.migration.entered("postcopy")
        return resumed - self.migration.begin if resumed else None

    def total(self, key: str) -> int:
        """Returns a counter of query-wsm over all disks, the larger side's."""
        return max(sum(int(disk.get(key, 0)) for disk in side.get("disks", []))
                   for side in (self.migration.source,
                                self.migration.destination))

    def bases(self) -> list[tuple[str, str]]:
        """Returns kind and reason of what each disk's move was built on."""
        return [(disk.get("basis", {}).get("kind", "?"),
                 disk.get("basis", {}).get("reason", "?"))
                for disk in self.migration.source.get("disks", [])]


@dataclass(kw_only=True)
class Checks:
    """What must be so."""

    checks: list[tuple[str, bool, str]] = field(default_factory=list)

    def check(self, title: str, passed: bool, detail: str = "") -> None:
        """Adds one condition of the verdict."""
        self.checks.append((title, passed, detail))

    @property
    def well(self) -> bool:
        """Whether every check passed."""
        return all(passed for _, passed, _ in self.checks)

    def verdict(self) -> list[str]:
        """Returns each check and the verdict, as lines."""
        return [*(f"{'ok    ' if passed else 'FAILED'}  {title}"
                  + (f": {detail}" if detail else "")
                  for title, passed, detail in self.checks), "",
                "VERDICT: " + ("all is well" if self.well
                               else "something is wrong, see above")]


@dataclass
class Findings(Checks):
    """All that the demo found out."""

    # There and back with memory by reference, and the same without
    ways: list[Way]
    link_megabits: int
    after: list[Sample]             # when all is over


def average(samples: list[Sample]) -> float:
    """Returns transactions per second over all samples."""
    seconds = sum(sample.end - sample.begin for sample in samples)
    if not seconds:
        return 0.0
    return sum(sample.transactions for sample in samples) / seconds


def report(findings: Findings) -> str:
    """Returns the report as text."""
    ways = findings.ways
    lines = ["", "REPORT", "======",
             _row("", [way.name for way in ways]),
             _row("Memory by reference", [", ".join(way.referenced()) or "no"
                                          for way in ways])]
    for title, cells in (_basis_rows(ways) + _time_rows(findings)
                         + _byte_rows(ways) + _client_rows(findings)):
        lines.append(_row(title, cells))
    lines += ["", *_ratios(*ways[:2]), *_saved(ways[1], ways[3]), ""]
    for way in ways:
        for kind, reason in way.bases():
            lines += textwrap.wrap(f"Way {way.name}, {kind}: {reason}", WIDTH,
                                   subsequent_indent="    ")
        lines += [f"Way {way.name}: no more of memory by reference, {kind}, "
                  f"after a while: {why}" for kind, why in way.given_up()]
    lines += [f"The host has {os.cpu_count()} CPUs for all of it; the link "
              f"has {findings.link_megabits} Mbit/s.", ""]
    lines += findings.verdict()
    return "\n".join(lines)


Rows = list[tuple[str, list[str]]]


def _row(title: str, cells: list[str]) -> str:
    return (f"{title:<{TITLE_WIDTH}}"
            + "".join(f"{cell:>{COLUMN}}" for cell in cells)).rstrip()


def _basis_rows(ways: list[Way]) -> Rows:
    return [("Disk's basis", [", ".join(kind for kind, _ in way.bases())
                              for way in ways])]


def _time_rows(findings: Findings) -> Rows:
    ways = findings.ways
    names: list[str] = []
    times = []
    for way in ways:
        phases = {entry["phase"]: entry["ms"] / 1000
                  for entry in way.migration.source.get("phases", [])
                  if entry["phase"] not in ("none", "completed")}
        names += [name for name in phases if name not in names]
        times.append(phases)
    rows = [(f"Phase {name}", [f"{phases[name]:.2f} s" if name in phases
                               else "-" for phases in times])
            for name in names]
    rows.append(("Guest runs there after", [_moved(way) for way in ways]))
    rows.append(("In all", [f"{way.seconds:.1f} s" for way in ways]))
    speed = findings.link_megabits * 1e6 / 8
    rows.append(("Bytes sent / link speed", [
        f"{(way.total('sent') + way.memory) / speed:.1f} s" for way in ways]))
    return rows


def _moved(way: Way) -> str:
    return "-" if way.moved is None else f"{way.moved:.1f} s"


def _byte_rows(ways: list[Way]) -> Rows:
    return [
        ("Image before the move", [mib(way.source_bytes) for way in ways]),
        ("Image after it, there", [mib(way.destination_bytes)
                                   for way in ways]),
        ("Disk sent", [mib(way.total("sent")) for way in ways]),
        ("Disk as zeroes without data", [mib(way.total("zero"))
                                         for way in ways]),
        ("Pushed after the handover", [mib(way.total("pushed"))
                                       for way in ways]),
        ("Pulled after the handover", [mib(way.total("pulled"))
                                       for way in ways]),
        ("Memory without zeroes", [mib(way.pages) for way in ways]),
        *((f"  of it by reference, {kind}", [
            mib(way.referenced().get(kind, 0)) for way in ways])
          for kind in _kinds(ways)),
        ("Memory sent", [mib(way.memory) for way in ways]),
        ("All on the wire", [mib(way.link_bytes) for way in ways]),
    ]


def _kinds(ways: list[Way]) -> list[str]:
    return list(dict.fromkeys(kind for way in ways
                              for kind in way.referenced()))


def longest(gaps: list[Gap]) -> Gap:
    return max(gaps, key=lambda gap: gap.length, default=Gap(0.0, 0.0))


def _client_rows(findings: Findings) -> Rows:
    ways = findings.ways
    counted = [way.migration.source.get("downtime-ms") for way in ways]
    rates = [average(way.before) for way in ways]
    during = [average(way.during) for way in ways]
    after = average(findings.after)
    return [
        ("Downtime, seen by a client", [
            _milliseconds(longest(way.gaps_freeze)) for way in ways]),
        ("Downtime, counted by QEMU", [
            "-" if count is None else f"{count} ms" for count in counted]),
        ("Longest other silence", [
            _milliseconds(_other(way)) for way in ways]),
        ("  it was in", [_phase_of(way, _other(way)) for way in ways]),
        ("Longest silence before", [
            _milliseconds(longest(way.gaps_before)) for way in ways]),
        ("pgbench before, tps", [f"{rate:.0f}" for rate in rates]),
        ("pgbench during", [
            f"{now:.0f} ({now / rate:.0%})" if rate else f"{now:.0f}"
            for now, rate in zip(during, rates)]),
        ("pgbench during, worst second", [
            f"{min((sample.rate for sample in way.during), default=0):.0f}"
            for way in ways]),
        ("pgbench after", [*(f"{rate:.0f}" for rate in rates[1:]),
                           f"{after:.0f}"]),
        ("Load average", [f"{way.host_load:.1f}" for way in ways]),
    ]


def _milliseconds(gap: Gap) -> str:
    return f"{gap.length * 1000:.0f} ms"


def _other(way: Way) -> Gap:
    """Returns the longest gap during the migration but for the freeze's."""
    down = longest(way.gaps_freeze)
    return longest([gap for gap in way.gaps_during if gap != down])


def _phase_of(way: Way, gap: Gap) -> str:
    return way.migration.phase_at(gap.begin + gap.length / 2)


def _ratios(there: Way, back: Way) -> list[str]:
    """Returns how much less the way back takes."""
    disk = _ratio(there.total("sent"), back.total("sent"))
    wire = _ratio(there.link_bytes, back.link_bytes)
    time = _ratio(there.seconds, back.seconds)
    return textwrap.wrap(
        f"Compared with the way there, the way back took 1/{time} of the "
        f"time and sent 1/{disk} of the disk's bytes; with memory, 1/{wire} "
        "of all bytes were on the wire.", WIDTH)


def _saved(back: Way, without: Way) -> list[str]:
    """Returns what memory by reference saves on the way back."""
    return textwrap.wrap(
        f"The way back sent {mib(back.memory)} for {mib(back.pages)} of "
        "memory that is not zero, and the guest ran there after "
        f"{_moved(back)}. Then it moved there and back again with no memory "
        f"by reference: the way back sent {mib(without.memory)} for "
        f"{mib(without.pages)}, and the guest ran there after "
        f"{_moved(without)}.", WIDTH)


def _ratio(there: float, back: float) -> str:
    if not back:
        return "infinity"
    value = there / back
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
