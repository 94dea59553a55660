# SPDX-License-Identifier: GPL-2.0-or-later
"""Three hosts in namespaces, two guests' networks, and who administers them.

::

    alpha (namespace)           beta               gamma
      guests -- lan1, lan2        lan1, lan2         lan1, lan2    bridges
        |                          |                  |
        +--- two LANs, in each a client that stays where it is ---+
        +=== migration network, each host limited with tc tbf ====+
                     |
            administrator (namespace): types wsmctl
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from dev.demo.network import (CLIENT_ADDRESS, CLIENT_PREFIX, HOST_PREFIX,
                              PREFIX_LENGTH, Lan, end_all, make_bridge,
                              remove_stale)
from dev.rig.basics import TestFailure, run
from dev.rig.host import Host

NAMES = ("alpha", "beta", "gamma")
NETWORKS = ("lan1", "lan2")
ADDRESS = "10.211.0."


@dataclass(frozen=True)
class Site:
    """The finished network."""

    admin: Host
    hosts: dict[str, Host]
    lans: dict[str, Lan]


@contextmanager
def make_site(rate: str) -> Iterator[Site]:
    """Makes it; removes it and all that runs in it, whatever happens.

    rate limits what each host sends to others, in tc's words.
    """
    remove_stale()
    pid = os.getpid()
    site = Site(
        Host(f"{CLIENT_PREFIX}{pid}", "mig0", f"{ADDRESS}100"),
        {name: Host(f"{HOST_PREFIX}{pid}-{name}", "wsm0",
                    f"{ADDRESS}{number}")
         for number, name in enumerate(NAMES, 1)},
        {name: Lan(f"{HOST_PREFIX}{pid}-{name}") for name in NETWORKS})
    namespaces = [site.admin.netns, *(
        host.netns for host in site.hosts.values()), *(
        lan.client for lan in site.lans.values())]
    try:
        for namespace in namespaces:
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        _build(site, rate)
        yield site
    finally:
        for namespace in namespaces:
            with suppress(TestFailure):
                end_all(namespace)
                run("ip", "netns", "del", namespace)


def _build(site: Site, rate: str) -> None:
    admin = site.admin.netns
    make_bridge(admin, site.admin.device)
    run("ip", "-n", admin, "addr", "add", f"{site.admin.address}/24", "dev",
        site.admin.device)
    for lan in site.lans.values():
        make_bridge(lan.client)
        run("ip", "-n", lan.client, "addr", "add",
            f"{CLIENT_ADDRESS}/{PREFIX_LENGTH}", "dev", "br0")
    for name, host in site.hosts.items():
        _cable(host.netns, host.device, admin, name, site.admin.device)
        run("ip", "-n", host.netns, "addr", "add", f"{host.address}/24",
            "dev", host.device)
        run("tc", "-n", host.netns, "qdisc", "replace", "dev", host.device,
            "root", "tbf", "rate", rate, "burst", "128kb", "latency", "50ms")
        for network, lan in site.lans.items():
            make_bridge(host.netns, network)
            _cable(host.netns, f"to-{network}", lan.client, name, "br0")
            run("ip", "-n", host.netns, "link", "set", f"to-{network}",
                "master", network)


def _cable(host: str, device: str, switch: str, port: str,
           bridge: str) -> None:
    """Joins a host's device to a port of a bridge."""
    run("ip", "-n", host, "link", "add", device, "type", "veth", "peer",
        "name", port, "netns", switch)
    run("ip", "-n", host, "link", "set", device, "up")
    run("ip", "-n", switch, "link", "set", port, "master", bridge, "up")
