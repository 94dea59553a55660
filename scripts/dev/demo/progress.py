# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers for humans, and the line that shows a migration at work."""

from __future__ import annotations

from dev.rig.qmp import Json

MIB = 1 << 20


def mib(count: float) -> str:
    """Returns a number of bytes in MiB, with a decimal if it is small."""
    value = count / MIB
    return f"{value:.0f} MiB" if value >= 100 else f"{value:.1f} MiB"


def progress_line(elapsed: float, source: Json, destination: Json,
                  rate: float | None, silence: float) -> str:
    """Returns the line: phase, how far, time left, what clients feel.

    source and destination are the answers to query-wsm.
    """
    phase = source.get("phase", "?")
    parts = [f"{elapsed:6.1f} s  {phase}"]
    if "percent" in source:
        parts.append(f"{source['percent']} %")
        parts.append(f"{mib(source['remaining'])} left")
    if source.get("speed"):
        parts.append(f"{mib(source['speed'])}/s")
    if "expected-handover-seconds" in source:
        parts.append(f"guest there in {source['expected-handover-seconds']} s")
    if "expected-seconds" in source:
        parts.append(f"all there in {source['expected-seconds']} s")
    if phase == "ram-precopy":
        parts.append(f"memory {mib(source.get('ram-remaining', 0))}")
    if phase == "postcopy":
        missing = sum(disk.get("missing", 0)
                      for disk in destination.get("disks", []))
        parts.append(f"missing {mib(missing)}")
    if rate is not None:
        parts.append(f"{rate:.0f} tps")
    if silence >= 0.05:
        parts.append(f"guest silent for {silence * 1000:.0f} ms")
    return " | ".join(parts)
