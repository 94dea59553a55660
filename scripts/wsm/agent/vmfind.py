# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU processes of this host, by /proc."""

import os
import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional

from wsm.plan import argv
from wsm.plan.argv import Option

ON = ("on", "yes", "true", "")
QEMU_NAME = re.compile(r"qemu-system-|qemu-kvm|kvm$")
PAGE = os.sysconf("SC_PAGE_SIZE")
CONNECT = 3.0           # s
CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True)
class Process:
    """A QEMU, as its host sees it."""

    pid: int
    started: int                # clock ticks after boot: tells two of one pid
    argv: tuple[str, ...]
    exe: str
    cwd: str
    uid: int
    resident: int               # bytes


def read_argv(pid: int) -> Optional[tuple[str, ...]]:
    """Return the words of a process, None if they are no UTF-8 or gone."""
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
        return tuple(data.decode("utf-8").split("\0")[:-1])
    except (OSError, UnicodeDecodeError):
        return None


def process(pid: int) -> Optional[Process]:
    """Return what is known of a process, None if it is gone or a zombie."""
    words = read_argv(pid)
    base = Path(f"/proc/{pid}")
    try:
        if not words:
            return None
        stat = (base / "stat").read_text(encoding="utf-8", errors="replace")
        fields = stat.rsplit(")", 1)[1].split()
        if fields[0] == "Z":
            return None
        return Process(pid, int(fields[19]), words, os.readlink(base / "exe"),
                       os.readlink(base / "cwd"), base.stat().st_uid,
                       int(fields[21]) * PAGE)
    except OSError:
        return None


def processes() -> Iterator[Process]:
    """Yield the QEMUs that are seen from here."""
    own_net = os.readlink("/proc/self/ns/net")
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        words = read_argv(int(entry))
        if not words or not is_qemu(words):
            continue
        found = process(int(entry))
        try:
            here = os.readlink(f"/proc/{entry}/ns/net") == own_net
        except OSError:
            continue
        if found and here:
            yield found


def is_qemu(words: tuple[str, ...]) -> bool:
    """Return whether a command line is a QEMU's."""
    return bool(QEMU_NAME.search(os.path.basename(words[0])))


def listener(path: str) -> int:
    """Return who listens at a socket, 0 if it is not seen from here."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(CONNECT)
        stream.connect(path)
        pid, _uid, _gid = CREDENTIALS.unpack(stream.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
        return int(pid)


def alive(pid: int, started: int) -> bool:
    """Return whether this very process is there."""
    found = process(pid)
    return found is not None and found.started == started


def sockets(found: Process) -> list[str]:
    """Return the paths of its monitors, those for machines only."""
    paths = []
    options = argv.split(found.argv[1:])
    chardevs = {option.values().get("id"): option for option in options
                if option.name == "chardev"}
    for option in options:
        if option.name in ("qmp", "qmp-pretty"):
            paths.append(unix_path(option.value))
        elif option.name == "mon":
            values = option.values()
            device = chardevs.get(values.get("chardev"))
            if values.get("mode") == "control" and device:
                paths.append(chardev_path(device))
    return [os.path.join(found.cwd, path) for path in paths if path]


def unix_path(value: str) -> str:
    """Return the path in unix:PATH,server=on; "" if it is none."""
    if value.startswith("chardev:") or not value.startswith("unix:"):
        return ""
    return argv.split_commas(value.removeprefix("unix:"))[0]


def chardev_path(device: Option) -> str:
    """Return the path of a character device that is a server, or ""."""
    values = device.values()
    if values.get("backend") != "socket" or values.get("server") not in ON:
        return ""
    return values.get("path") or ""


def open_files(pid: int) -> list[str]:
    """Return the regular files and devices that a process has open."""
    found = set()
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            try:
                found.add(os.readlink(f"/proc/{pid}/fd/{entry}"))
            except OSError:
                continue
    except OSError:
        pass
    return sorted(path for path in found if path.startswith("/"))


def taps(pid: int) -> list[str]:
    """Return the taps that a process has open."""
    found = set()
    folder = Path(f"/proc/{pid}/fdinfo")
    try:
        for entry in folder.iterdir():
            try:
                text = entry.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            found |= set(re.findall(r"^iff:\s*(\S+)", text, re.M))
    except OSError:
        pass
    return sorted(found)


def bridge_of(tap: str) -> str:
    """Return the bridge of a network device, "" if it has none."""
    try:
        return os.path.basename(os.readlink(f"/sys/class/net/{tap}/master"))
    except OSError:
        return ""
