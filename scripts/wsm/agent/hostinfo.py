# SPDX-License-Identifier: GPL-2.0-or-later
"""What this host has, and how much of it is in use now."""

import hashlib
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Mapping

from wsm.agent.config import Config
from wsm.agent.samples import processors
from wsm.plan.inventory import Copy, Host, Pool, Qemu, Way

TIMEOUT = 20.0


def meminfo() -> dict[str, int]:
    """Return /proc/meminfo in bytes."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    return {name: int(value) << 10 for name, value
            in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}


def cpu_class() -> str:
    """Return what two hosts with equal CPUs have in common."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^flags\s*:(.*)$", text, re.M)
    model = re.search(r"^model name\s*:(.*)$", text, re.M)
    words = " ".join(sorted(found[1].split())) if found else ""
    return hashlib.sha256((words + (model[1] if model else "")).encode()
                          ).hexdigest()[:16]


def ask(program: str, *words: str) -> str:
    """Return what a QEMU prints, "" if it does not work."""
    try:
        return subprocess.run([program, *words], check=False, text=True,
                              capture_output=True, timeout=TIMEOUT,
                              stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def qemu(program: str) -> Qemu:
    """Return what a QEMU is."""
    version = re.search(r"version (\S+)(?: \((.*)\))?",
                        ask(program, "--version"))
    machines = re.findall(r"^(\S+)", ask(program, "-machine", "help"), re.M)
    return Qemu(program, version[1] if version else "",
                (version[2] or "") if version else "", tuple(
                    name for name in machines if re.search(r"\d$", name)))


class HostInfo:
    """Readings of a host; what does not change is read once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._qemus: dict[tuple[str, float], Qemu] = {}
        self._busy = (time.monotonic(), processors()[0])
        self._demand = 0.0
        self._cpu = cpu_class()

    def qemus(self) -> dict[str, Qemu]:
        """Return the QEMUs; a new version is noticed."""
        found = {}
        for name, path in self.config.qemu.items():
            try:
                key = (path, os.stat(path).st_mtime)
            except OSError:
                continue
            if key not in self._qemus:
                self._qemus[key] = qemu(path)
            found[name] = self._qemus[key]
        return found

    def demand(self) -> float:
        """Return the cores in use since the last time, or a while ago."""
        now, busy = time.monotonic(), processors()[0]
        then, before = self._busy
        if now - then > 1:
            self._demand = max(0.0, (busy - before) / (now - then))
            self._busy = (now, busy)
        return self._demand

    def host(self, demand: float, pools: Mapping[str, Pool],
             copies: tuple[Copy, ...], moves_in: int, moves_out: int,
             ways: Mapping[str, Way]) -> Host:
        """Return the host; @demand is in cores."""
        config, memory = self.config, meminfo()
        return Host(
            config.host, config.root.cores or float(os.cpu_count() or 1),
            memory["MemTotal"], memory["MemAvailable"],
            demand=demand, reserve_memory=config.root.reserve_mem,
            reserve_cores=config.root.reserve_cpu,
            huge_free=memory.get("HugePages_Free", 0)
            * memory.get("Hugepagesize", 0) >> 10, cpu=self._cpu,
            address=config.migration.addr, mbit=config.migration.mbit,
            networks=tuple(sorted(config.network)), files=files(config),
            pools=pools, qemus=self.qemus(), tags=config.root.tags,
            copies=copies, moves_in=moves_in, moves_out=moves_out,
            clock=time.time(), ways=dict(ways))


def files(config: Config) -> dict[str, int]:
    """Return the files in pools that are named by their content."""
    found = {}
    for pool in config.pool.values():
        for path in Path(pool.path).glob("files/*"):
            if re.fullmatch(r"[0-9a-f]{64}", path.name) and path.is_file():
                found[path.name] = path.stat().st_size
    return found
