# SPDX-License-Identifier: GPL-2.0-or-later
"""What this host and its VMs use: differences of the kernel's counters.

Demand is what ran and what waited for a core: a full host does not look like
one that is just busy.
"""

import contextlib
import dataclasses
import os
import re
import time
from dataclasses import dataclass, field
from typing import Callable, Iterable, Iterator, Mapping, Optional, Sequence

from wsm.agent.config import Config
from wsm.agent.lately import NS, text_of, threads
from wsm.plan.inventory import Host
from wsm.plan.measured import Samples, VmSample

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
LEAST = 1.0                     # s between two looks that say something
PRESSURES = ("cpu", "memory", "io")


@dataclass(frozen=True)
class Running:
    """A VM as it is known without looking at what it uses."""

    base: VmSample
    pid: int = 0
    taps: tuple[str, ...] = ()
    traffic: int = 0            # bytes it read from and wrote to its disks


@dataclass
class Counters:
    """What only grows, at one moment."""

    at: float
    busy: float = 0.0           # s of all CPUs
    stolen: float = 0.0
    total: float = 0.0
    swapped: int = 0            # bytes
    wires: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    disks: Mapping[str, int] = field(default_factory=dict)  # ms at work
    # pid: (s that ran, s that waited)
    spent: dict[int, tuple[float, float]] = field(default_factory=dict)
    traffic: dict[int, int] = field(default_factory=dict)


def spent(pid: int) -> tuple[float, float]:
    """Return the seconds that a process's threads ran, and waited for a core."""
    found = threads(pid).values()
    return sum(ran for ran, _ in found) / NS, sum(
        waited for _, waited in found) / NS


def processors() -> tuple[float, float, float]:
    """Return the seconds of all CPUs: at work, stolen, all."""
    words = text_of("/proc/stat").split("\n", 1)[0].split()
    times = [int(word) / TICKS for word in words[1:9]]
    times += [0.0] * (8 - len(times))
    user, nice, system, idle, waits, irq, soft, stolen = times
    busy = user + nice + system + irq + soft
    return busy, stolen, busy + stolen + idle + waits


def wires() -> dict[str, tuple[int, int]]:
    """Return the bytes each network device has (received, sent)."""
    found = {}
    for line in text_of("/proc/self/net/dev").splitlines():
        name, colon, rest = line.partition(":")
        words = rest.split()
        if colon and len(words) > 8:
            found[name.strip()] = int(words[0]), int(words[8])
    return found


def disks() -> dict[str, int]:
    """Return the ms for which each disk was at work, by its device number."""
    found = {}
    for line in text_of("/proc/diskstats").splitlines():
        words = line.split()
        if len(words) > 12:
            found[f"{words[0]}:{words[1]}"] = int(words[12])
    return found


def swapped_out() -> int:
    """Return the bytes that were swapped out since the boot."""
    found = re.search(r"^pswpout (\d+)$", text_of("/proc/vmstat"), re.M)
    return int(found[1]) * PAGE if found else 0


def pressure() -> dict[str, float]:
    """Return the parts of the last 10 s in which something was lacking."""
    found = {}
    for name in PRESSURES:
        for kind, value in re.findall(r"^(some|full) avg10=([0-9.]+)",
                                      text_of(f"/proc/pressure/{name}"), re.M):
            found[f"{name}.{kind}"] = float(value) / 100
    return found


def memory_of(pid: int) -> tuple[int, int]:
    """Return the bytes of a process in memory, and swapped out."""
    text = text_of(f"/proc/{pid}/status")
    values = [re.search(rf"^{name}:\s+(\d+) kB", text, re.M)
              for name in ("VmRSS", "VmSwap")]
    resident, swapped = (int(each[1]) << 10 if each else 0 for each in values)
    return resident, swapped


def device_of(path: str) -> str:
    """Return the number of the disk that a folder is on, "" if unknown."""
    with contextlib.suppress(OSError):
        number = os.stat(path).st_dev
        return f"{os.major(number)}:{os.minor(number)}"
    return ""


def routed(address: str, route: Callable[[str], str]) -> str:
    """Return the network device that has an address; @route asks ip."""
    if not address:
        return ""
    found = re.search(r"^\d+:\s+(\S+)", route(address), re.M)
    return found[1].split("@")[0] if found else ""


def count(pids: Iterable[int], now: float) -> Counters:
    """Read all counters."""
    return Counters(now, *processors(), swapped_out(), wires(), disks(),
                    {pid: spent(pid) for pid in pids})


class Sampler:
    """Makes one look after the other."""

    def __init__(self, config: Config,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.clock = clock
        self.device = ""                # of migrations
        self._seq = 0
        self._last: Optional[Counters] = None
        self._made: Optional[tuple[float, Samples]] = None

    def look(self, host: Host, vms: Sequence[Running]) -> None:
        """Take a sample, unless the last one is of just now."""
        now, before = self.clock(), self._last
        if before and now - before.at < LEAST:
            return
        counters = count((vm.pid for vm in vms if vm.pid), now)
        counters.traffic = {vm.pid: vm.traffic for vm in vms}
        self._last = counters
        if before is None:
            return
        self._seq += 1
        self._made = now, self._sample(host, vms, before, counters)

    def newest(self) -> Optional[Samples]:
        """Return the last sample with its age, None before there is one."""
        if self._made is None:
            return None
        at, made = self._made
        return dataclasses.replace(made, age=self.clock() - at)

    def _sample(self, host: Host, vms: Sequence[Running], old: Counters,
                new: Counters) -> Samples:
        seconds = new.at - old.at
        busy = self._disk(old, new, seconds)
        found = tuple(self._vms(vms, old, new, busy))
        waits = sum(vm.wait for vm in found)
        if self.config.root.at == "vms":
            cpu = sum(vm.cpu for vm in found)
        else:
            cpu = max(0.0, new.busy - old.busy) / seconds + waits
        rx, tx = speed(old, new, self.device, seconds)
        total = new.total - old.total
        return Samples(
            self._seq, seconds, host, 0.0, cpu,
            max(0.0, new.stolen - old.stolen) / total if total > 0 else 0.0,
            rx, tx, busy, max(0, new.swapped - old.swapped) / seconds,
            pressure(), found)

    def _disk(self, old: Counters, new: Counters, seconds: float) -> float:
        """Return the part of the time in which a pool's disk has worked."""
        devices = {device_of(pool.path) for pool in self.config.pool.values()}
        return max((min(1.0, max(0, new.disks[each] - old.disks[each])
                        / 1000 / seconds)
                    for each in devices
                    if each in new.disks and each in old.disks), default=0.0)

    @staticmethod
    def _vms(vms: Sequence[Running], old: Counters, new: Counters,
             busy: float) -> Iterator[VmSample]:
        """Yield each VM with what it used; a new one has used nothing yet."""
        seconds = new.at - old.at
        moved = {pid: max(0, count - old.traffic[pid])
                 for pid, count in new.traffic.items() if pid in old.traffic}
        total = sum(moved.values())
        for vm in vms:
            ran = wait = disk = 0.0
            if vm.pid in old.spent:
                then, now = old.spent[vm.pid], new.spent[vm.pid]
                ran = max(0.0, now[0] - then[0]) / seconds
                wait = max(0.0, now[1] - then[1]) / seconds
                disk = busy * moved.get(vm.pid, 0) / total if total else 0.0
            # What a host sends to a tap comes for the VM
            wire = [speed(old, new, tap, seconds) for tap in vm.taps]
            resident, swap = memory_of(vm.pid) if vm.pid else (0, 0)
            yield dataclasses.replace(
                vm.base, cpu=ran + wait, wait=wait, disk=disk, swap=swap,
                rx=sum(each[1] for each in wire),
                tx=sum(each[0] for each in wire), resident=resident)


def speed(old: Counters, new: Counters, device: str,
          seconds: float) -> tuple[float, float]:
    """Return the bytes/s that a network device (received, sent)."""
    if device not in old.wires or device not in new.wires:
        return 0.0, 0.0
    then, now = old.wires[device], new.wires[device]
    return (max(0, now[0] - then[0]) / seconds,
            max(0, now[1] - then[1]) / seconds)
