# SPDX-License-Identifier: GPL-2.0-or-later
"""The report at the end: pure functions from what was measured to text."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass, field

from .client import Gap, Sample
from .migrate import Migration
from .progress import mib


@dataclass
class Findings:
    """All that the demo measured."""

    migration: Migration
    link_megabits: int
    link_bytes: int                 # on the wire, headers included
    source_bytes: int               # allocated by the image
    destination_bytes: int          # allocated by the image
    gaps_before: list[Gap]          # of the heartbeat
    gaps_during: list[Gap]
    gaps_freeze: list[Gap]          # those the freeze may have caused
    host_load: float                # load average while migrating
    before: list[Sample]
    during: list[Sample]
    after: list[Sample]
    checks: list[tuple[str, bool, str]] = field(default_factory=list)

    def check(self, title: str, passed: bool, detail: str = "") -> None:
        """Adds one condition of the verdict."""
        self.checks.append((title, passed, detail))

    @property
    def well(self) -> bool:
        """Whether every check passed."""
        return all(passed for _, passed, _ in self.checks)


def average(samples: list[Sample]) -> float:
    """Returns transactions per second over all samples."""
    seconds = sum(sample.end - sample.begin for sample in samples)
    if not seconds:
        return 0.0
    return sum(sample.transactions for sample in samples) / seconds


def total(findings: Findings, key: str) -> int:
    """Returns a counter of query-wsm over all disks, the larger side's."""
    return max(sum(int(disk.get(key, 0)) for disk in side.get("disks", []))
               for side in (findings.migration.source,
                            findings.migration.destination))


def report(findings: Findings) -> str:
    """Returns the report as text."""
    rows: list[tuple[str, str]] = []
    rows += _time_rows(findings)
    rows += _byte_rows(findings)
    rows += _client_rows(findings)
    lines = ["", "REPORT", "======"]
    lines += [f"{title:<12} {text}".rstrip() for title, text in rows]
    lines.append("")
    for title, passed, detail in findings.checks:
        mark = "ok    " if passed else "FAILED"
        lines.append(f"{mark}  {title}" + (f": {detail}" if detail else ""))
    lines += ["", "VERDICT: " + ("all is well" if findings.well
                                 else "something is wrong, see above")]
    return "\n".join(lines)


def _time_rows(findings: Findings) -> list[tuple[str, str]]:
    migration = findings.migration
    phases = ", ".join(f"{entry['phase']} {entry['ms'] / 1000:.2f} s"
                       for entry in migration.source.get("phases", [])
                       if entry["phase"] not in ("none", "completed"))
    rows = [("Phases", phases or "none reported")]
    text = f"{migration.end - migration.begin:.1f} s in all"
    frozen = migration.entered("freeze")
    if frozen:
        text += (", guest at the destination after "
                 f"{frozen - migration.begin:.1f} s")
    # The least that this data takes on this link.
    needed = findings.source_bytes + migration.status.get("ram", {}).get(
        "transferred", 0)
    least = needed * 8 / (findings.link_megabits * 1e6)
    rows.append(("Time", f"{text}; data / link speed = {least:.1f} s"))
    return rows


def _byte_rows(findings: Findings) -> list[tuple[str, str]]:
    memory = findings.migration.status.get("ram", {}).get("transferred", 0)
    sent = total(findings, "sent")
    ratio = sent / findings.source_bytes if findings.source_bytes else 0.0
    return [
        ("Disk", f"{mib(findings.source_bytes)} on disk, {mib(sent)} sent "
                 f"({ratio:.2f} times), {mib(total(findings, 'zero'))} as "
                 "zeroes without data; at the destination "
                 f"{mib(findings.destination_bytes)} on disk"),
        ("Memory", f"{mib(memory)} sent"),
        ("Link", f"{mib(findings.link_bytes)} on the wire, "
                 f"{findings.link_megabits} Mbit/s"),
        ("Post-copy", f"{mib(total(findings, 'pushed'))} pushed, "
                      f"{mib(total(findings, 'pulled'))} pulled"),
    ]


def _longest(gaps: list[Gap]) -> Gap:
    return max(gaps, key=lambda gap: gap.length, default=Gap(0.0, 0.0))


def _client_rows(findings: Findings) -> list[tuple[str, str]]:
    migration = findings.migration
    down = _longest(findings.gaps_freeze)
    median = statistics.median(
        [gap.length for gap in findings.gaps_before] or [0.0])
    downtime = (f"{down.length * 1000:.0f} ms without an answer, as a client "
                "outside saw it")
    if "downtime-ms" in migration.source:
        downtime += f" (QEMU counts {migration.source['downtime-ms']} ms)"
    others = (f"longest other silence {_milliseconds(findings, down)}; before "
              f"the migration: median {median * 1000:.0f} ms, longest "
              f"{_longest(findings.gaps_before).length * 1000:.0f} ms")
    before, during = average(findings.before), average(findings.during)
    share = f" ({during / before:.0%})" if before else ""
    worst = min((sample.rate for sample in findings.during), default=0.0)
    return [
        ("Downtime", downtime),
        ("", others),
        ("pgbench", f"{before:.0f} transactions/s before, {during:.0f} during"
                    f"{share}, {average(findings.after):.0f} after; "
                    f"worst second during: {worst:.0f}"),
        ("Host", f"{os.cpu_count()} CPUs for both machines, load average "
                 f"{findings.host_load:.1f}"),
    ]


def _milliseconds(findings: Findings, down: Gap) -> str:
    """Returns the longest gap during the migration other than down."""
    other = _longest([gap for gap in findings.gaps_during if gap != down])
    phase = findings.migration.phase_at(other.begin + other.length / 2)
    return f"{other.length * 1000:.0f} ms (in {phase})"
