# SPDX-License-Identifier: GPL-2.0-or-later
"""Taps of VMs, TCP ports, keys: what a host lends to a VM or a move."""

import contextlib
import hashlib
import os
import socket
import subprocess
from pathlib import Path

from wsm import durable

TIMEOUT = 10.0


class NotLent(Exception):
    """Something that the host cannot give."""


def tap_name(vm: str, net: str) -> str:
    """Return the name of a tap: the same on each host."""
    digest = hashlib.sha256(f"{vm}\0{net}".encode()).hexdigest()
    return f"w{digest[:8]}"


def ip(*words: str) -> None:
    """Run ip; raise NotLent."""
    try:
        done = subprocess.run(["ip", *words], check=False, text=True,
                              capture_output=True, timeout=TIMEOUT,
                              stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotLent(f"ip {' '.join(words)}: {error}") from error
    if done.returncode:
        raise NotLent(f"ip {' '.join(words)}: {done.stderr.strip()}")


def exists(device: str) -> bool:
    """Return whether there is such a network device."""
    return os.path.exists(f"/sys/class/net/{device}")


def add_tap(device: str, bridge: str, mtu: int) -> None:
    """Make a tap and join it to a bridge; one that is there is made anew."""
    if not exists(bridge):
        raise NotLent(f"there is no bridge {bridge}")
    mtu_there = int(Path(f"/sys/class/net/{bridge}/mtu").read_text("ascii"))
    if mtu_there < mtu:
        raise NotLent(f"bridge {bridge} has MTU {mtu_there}, {mtu} is needed")
    remove_tap(device)
    ip("tuntap", "add", "dev", device, "mode", "tap")
    ip("link", "set", device, "mtu", str(mtu), "master", bridge, "up")


def remove_tap(device: str) -> None:
    """Take a tap away; it may be gone."""
    if exists(device):
        ip("link", "del", device)


def free_port(span: tuple[int, int], address: str = "",
              taken: frozenset[int] = frozenset()) -> int:
    """Return a port on which nobody listens."""
    for port in range(span[0], span[1] + 1):
        if port in taken:
            continue
        with contextlib.closing(socket.socket(
                socket.AF_INET6 if ":" in address
                else socket.AF_INET)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
                probe.listen(1)
            except OSError:
                continue
            return port
    raise NotLent(f"all ports {span[0]}-{span[1]} are in use")


def write_key(folder: Path, key: str) -> None:
    """Put a shared key where QEMU looks for it; only root can read it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    durable.write(folder / "keys.psk", f"qemu:{key}\n".encode())


def remove_key(folder: Path) -> None:
    """Overwrite and remove a shared key; it may be gone."""
    path = folder / "keys.psk"
    with contextlib.suppress(FileNotFoundError):
        size = path.stat().st_size
        with path.open("r+b") as stream:
            stream.write(b"\0" * size)
            stream.flush()
            os.fsync(stream.fileno())
        path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()
