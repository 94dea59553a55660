# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo's network: two hosts, a link for migration, the guest's LAN.

::

    host A (namespace)                             host B (namespace)
      QEMU -- tap0 -- br0                            br0 -- tap0 -- QEMU
              |        \\                            /
              |         +--- LAN -- [br0] -- LAN ---+
              |              client (namespace)
              +==== migration link, limited with tc tbf ====+

The client stays where it is and reaches the guest by its address, whichever
host the guest is on. Everything is in namespaces of its own: the machine's
own network is neither used nor changed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dev.common import Failure
from dev.rig.basics import TestFailure, run
from dev.rig.host import Host, Link

GUEST_MAC = "52:54:00:12:34:56"
GUEST_ADDRESS = "198.51.100.2"      # TEST-NET-2, seen by nobody else
CLIENT_ADDRESS = "198.51.100.1"
PREFIX_LENGTH = 24
CLIENT_PREFIX = "wsm-client-"
HOST_PREFIX = "wsm-host-"
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Lan:
    """The guest's network, as its client sees it."""

    client: str                     # namespace

    def client_socket(self, kind: socket.SocketKind) -> socket.socket:
        """Returns a new socket that belongs to the client's namespace."""
        made: list[socket.socket] = []

        def make() -> None:
            # A thread that enters a namespace takes no other with it.
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/run/netns/{self.client}", "rb") as namespace:
                if libc.setns(namespace.fileno(), CLONE_NEWNET) == 0:
                    made.append(socket.socket(socket.AF_INET, kind))

        maker = threading.Thread(target=make)
        maker.start()
        maker.join()
        if not made:
            raise Failure(f"cannot enter network namespace {self.client}")
        return made[0]


@dataclass(frozen=True)
class Network(Lan):
    """The finished network."""

    source: Host
    destination: Host
    link: Link                      # source and destination are its ends


@contextmanager
def make_network(rate: str | None,
                 make_link: Callable[[str | None], Link] = Link
                 ) -> Iterator[Network]:
    """Makes the network; removes it at the end, whatever happens.

    rate limits the migration link, in tc's words ("160mbit").
    """
    remove_stale()
    link = make_link(rate)
    client = f"{CLIENT_PREFIX}{os.getpid()}"
    try:
        run("ip", "netns", "add", client)
        make_bridge(client)
        run("ip", "-n", client, "addr", "add",
            f"{CLIENT_ADDRESS}/{PREFIX_LENGTH}", "dev", "br0")
        for host, port in ((link.a, "a"), (link.b, "b")):
            make_bridge(host.netns)
            run("ip", "-n", host.netns, "tuntap", "add", "tap0",
                "mode", "tap")
            run("ip", "-n", host.netns, "link", "add", "lan0", "type", "veth",
                "peer", "name", f"lan-{port}", "netns", client)
            for namespace, name in ((host.netns, "tap0"),
                                    (host.netns, "lan0"),
                                    (client, f"lan-{port}")):
                run("ip", "-n", namespace, "link", "set", name,
                    "master", "br0", "up")
        yield Network(client, link.a, link.b, link)
    finally:
        link.close()
        try:
            run("ip", "netns", "del", client)
        except TestFailure:
            pass    # it was never made


def make_bridge(namespace: str, name: str = "br0") -> None:
    """Makes a bridge that forwards at once and speaks no protocols."""
    run("ip", "netns", "exec", namespace, "sh", "-c",
        "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do"
        " echo 1 >$f; done")
    run("ip", "-n", namespace, "link", "add", name, "type", "bridge",
        "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0")
    run("ip", "-n", namespace, "link", "set", name, "up")


def remove_stale() -> None:
    """Removes namespaces that a killed demo left behind."""
    folder = Path("/run/netns")
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    for name in names:
        if not name.startswith(CLIENT_PREFIX):
            continue
        pid = name.removeprefix(CLIENT_PREFIX)
        if Path(f"/proc/{pid}").exists():
            continue
        for stale in names:
            if stale == name or stale.startswith(
                    (f"wsm-a-{int(pid) % 100000}x",
                     f"wsm-b-{int(pid) % 100000}x", f"{HOST_PREFIX}{pid}-")):
                end_all(stale)
                run("ip", "netns", "del", stale)


def end_all(namespace: str) -> None:
    """Kills whatever runs in a namespace."""
    for pid in run("ip", "netns", "pids", namespace).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
