# SPDX-License-Identifier: GPL-2.0-or-later
"""Loads of VMs over days: read from a file, or made.

A file is CSV, or CSV packed by xz: "vm,metric,values", with whole numbers,
one for each 5 minutes, and blanks between them.  Metrics: cpu and mem in
thousandths of what the VM has; dr, dw, nr, nt in kB/s (disk read and written,
network received and sent).
"""

import lzma
import math
import random
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

from wsm.plan.plain import BadData

STEP = 300.0                    # s
METRICS = ("cpu", "mem", "dr", "dw", "nr", "nt")


@dataclass
class Trace:
    """Of many VMs, all for as many steps."""

    steps: int
    values: dict[str, dict[str, Sequence[int]]] = field(default_factory=dict)
    vcpus: dict[str, int] = field(default_factory=dict)     # if it is known
    memory: dict[str, int] = field(default_factory=dict)    # bytes, likewise


def read(path: Path) -> Trace:
    """Return the trace in a file; raise BadData."""
    data = path.read_bytes()
    text = lzma.decompress(data) if path.suffix == ".xz" else data
    trace = Trace(0)
    for number, line in enumerate(text.decode("ascii").splitlines()[1:], 2):
        try:
            vm, metric, values = line.split(",")
            row = array("i", map(int, values.split()))
        except ValueError as error:
            raise BadData(f"{path}:{number}: {error}") from error
        if trace.steps not in (0, len(row)):
            raise BadData(f"{path}:{number}: {len(row)} values, {trace.steps} "
                          "in the lines before")
        trace.steps = len(row)
        trace.values.setdefault(vm, {})[metric] = row
    read_sizes(trace, path.with_name(path.name.split(".")[0] + "-vms.csv"))
    return trace


def read_sizes(trace: Trace, path: Path) -> None:
    """Read the sizes of VMs, if there is such a file."""
    if not path.exists():
        return
    with open(path, encoding="ascii") as lines:
        names = next(lines).strip().split(",")
        for line in lines:
            row = dict(zip(names, line.strip().split(",")))
            trace.vcpus[row["vm"]] = max(1, int(float(row["vcpus"])))
            trace.memory[row["vm"]] = int(float(row["mem_mib"])) << 20


def made(vms: int, days: float, seed: int) -> Trace:
    """
    Return an invented trace: a level, a day's course, noise, and bursts.

    Levels are log-normal, so that few VMs do most of the work; a burst is
    every few hours and lasts 5 minutes to 2 hours.
    """
    chance = random.Random(seed)
    trace = Trace(int(days * 86400 / STEP))
    for vm in range(vms):
        level = min(500.0, chance.lognormvariate(4.4, 0.9))
        swing, phase = chance.uniform(0.0, 0.8), chance.uniform(0.0, math.tau)
        noise, burst, row = 0.0, 0, array("i")
        for step in range(trace.steps):
            noise = 0.7 * noise + chance.gauss(0.0, 0.12)
            burst = max(0, burst - 1)
            if not burst and chance.random() < 0.01:
                burst = chance.choice((1, 1, 2, 4, 8, 24))
            day = swing * math.sin(math.tau * step * STEP / 86400 + phase)
            value = level * (1.0 + day + noise) + (600.0 if burst else 0.0)
            row.append(int(min(1000.0, max(1.0, value))))
        trace.values[str(vm)] = {"cpu": row}
    return trace
