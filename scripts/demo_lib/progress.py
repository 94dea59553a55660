# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers for humans, and the line that shows a migration at work."""

from __future__ import annotations

from lib.qmp import Json

MIB = 1 << 20


def mib(count: float) -> str:
    """Returns a number of bytes in MiB, with a decimal if it is small."""
    value = count / MIB
    return f"{value:.0f} MiB" if value >= 100 else f"{value:.1f} MiB"


def progress_line(elapsed: float, source: Json, destination: Json,
                  memory_left: int, rate: float | None,
                  silence: float) -> str:
    """Returns the line: phase, each disk, time left, what clients feel.

    source and destination are the answers to query-wsm.
    """
    phase = source.get("phase", "?")
    missing = {disk["name"]: disk.get("missing", 0)
               for disk in destination.get("disks", [])}
    parts = [f"{elapsed:6.1f} s  {phase}"]
    for disk in source.get("disks", []):
        name = disk["name"]
        parts.append(
            f"{name}: sent {mib(disk.get('sent', 0))}, "
            f"dirty {mib(disk.get('dirty', 0))}, missing "
            f"{mib(max(disk.get('missing', 0), missing.get(name, 0)))}")
    if phase == "ram-precopy":
        parts.append(f"memory left {mib(memory_left)}")
    if "expected-seconds" in source:
        parts.append(f"{source['expected-seconds']} s left")
    if rate is not None:
        parts.append(f"{rate:.0f} tps")
    if silence >= 0.05:
        parts.append(f"guest silent for {silence * 1000:.0f} ms")
    return " | ".join(parts)
