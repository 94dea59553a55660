# SPDX-License-Identifier: GPL-2.0-or-later
"""Start QEMU so that it needs nobody: not the agent, not its session."""

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Optional, Sequence

from wsm.agent import vmfind
from wsm.plan.outcome import LAST_WORDS

WAIT = 20.0             # s until its monitor is there
POLL = 0.05


class NotStarted(Exception):
    """A QEMU that did not start; with its last words."""


def has_systemd() -> bool:
    """Return whether systemd is process 1."""
    return os.path.isdir("/run/systemd/system") and bool(
        shutil.which("systemd-run"))


def by_systemd(name: str, command: Sequence[str], run: Path) -> list[str]:
    """Return the command that lets systemd start it."""
    log = f"append:{log_of(run)}"
    return ["systemd-run", "--quiet", "--collect", f"--unit=wsm-vm@{name}",
            "--slice=wsm.slice", "--property=KillMode=mixed",
            "--property=Restart=no", "--property=NoNewPrivileges=yes",
            f"--property=StandardOutput={log}",
            f"--property=StandardError={log}", "--",
            *command]


def log_of(run: Path) -> Path:
    """Return the file of what a QEMU says."""
    return run / "qemu.log"


def last_words(run: Path) -> str:
    """Return the end of what a QEMU has said."""
    try:
        with log_of(run).open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - LAST_WORDS))
            return stream.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def spawn(command: Sequence[str], run: Path) -> None:
    """Start a process that outlives this one, with its output in a file."""
    with log_of(run).open("ab") as log:
        # A shell of its own as the parent, which ends at once: process 1
        # takes the child.  The words go by arguments, never through it.
        done = subprocess.run(
            ["/bin/sh", "-c", '"$@" & ', "sh", *command], check=False,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, cwd="/", close_fds=True)
    if done.returncode:
        raise NotStarted(f"cannot start {command[0]}")


def read_pid(run: Path) -> Optional[int]:
    """Return the process that runs in a folder, None if none does."""
    try:
        pid = int((run / "pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    found = vmfind.process(pid)
    return pid if found and str(run / "pid") in found.argv else None


def strays(run: Path) -> list[vmfind.Process]:
    """Return QEMUs of a folder that have not written their pid there yet."""
    return [found for found in vmfind.processes()
            if str(run / "pid") in found.argv]


async def start(name: str, command: Sequence[str], run: Path,
                systemd: Optional[bool] = None) -> int:
    """Start QEMU in its folder and wait for its monitor; return its pid."""
    run.mkdir(parents=True, exist_ok=True)
    run.chmod(0o750)
    for old in ("agent.qmp", "rescue.qmp", "pid", "qemu.log"):
        (run / old).unlink(missing_ok=True)
    use_systemd = has_systemd() if systemd is None else systemd
    spawn(by_systemd(name, command, run) if use_systemd else command, run)
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT
    seen = False
    while loop.time() < end:
        pid = read_pid(run)
        if pid and (run / "agent.qmp").exists():
            return pid
        seen = seen or pid is not None
        if not pid and (seen or ended(command, run)):
            break
        await asyncio.sleep(POLL)
    raise NotStarted(f"QEMU for {name} did not start: "
                     + (last_words(run) or "it says nothing"))


def ended(command: Sequence[str], run: Path) -> bool:
    """Return whether a QEMU with this command line is nowhere."""
    return bool(last_words(run)) and not any(
        found.argv == tuple(command) for found in vmfind.processes())


def kill(pid: int, started: int) -> bool:
    """End this very process at once; return whether it was there."""
    if not vmfind.alive(pid, started):
        return False
    os.kill(pid, signal.SIGKILL)
    return True
