# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts that a person has told the controller to empty, at once or by a time."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Callable, Container, Mapping

from wsm.controller.store import Store
from wsm.plan.fleet import Fleet
from wsm.plan.inventory import HostState

SETTING = "drains"


@dataclass(frozen=True)
class Drain:
    """When a host must be empty, s after 1970; 0: as soon as can be."""

    due: float = 0.0
    begun: bool = True


def wanted(store: Store) -> dict[str, Drain]:
    """Return the hosts; raise StoreGone."""
    found = json.loads(store.setting(SETTING, "{}"))
    if isinstance(found, list):         # as older controllers wrote it
        return dict.fromkeys(found, Drain())
    return {host: Drain(float(due), bool(begun))
            for host, (due, begun) in found.items()}


def put(store: Store, who: str, old: Mapping[str, Drain],
        found: Mapping[str, Drain]) -> None:
    """Write those that are @found after @old; raise StoreGone, Deposed."""
    if found != old:
        store.set(who, SETTING, json.dumps({
            host: [each.due, each.begun]
            for host, each in sorted(found.items())}))


def want(store: Store, who: str, host: str, on: bool,
         due: float = 0.0) -> None:
    """Be told to empty a host, or not; raise StoreGone, Deposed."""
    old = wanted(store)
    found = {name: each for name, each in old.items() if name != host}
    if on:
        found[host] = Drain(due, not due)
    put(store, who, old, found)


def forget(store: Store, who: str, hosts: Container[str]) -> None:
    """Only these @hosts are there: none of the others is to be emptied."""
    old = wanted(store)
    put(store, who, old, {host: each for host, each in old.items()
                          if host in hosts})


def mark(fleet: Fleet, store: Store,
         is_time: Callable[[str, float], bool]) -> None:
    """
    Let the planner see which hosts are to be emptied.

    @is_time: whether one must be begun with, to be empty when it is due.  What
    has begun goes on, however little is left.
    """
    old = wanted(store)
    found = dict(old)
    fleet.dues = {}
    for name in sorted(set(found) & set(fleet.nodes)):
        each = found[name]
        if not each.begun:
            if not is_time(name, each.due):
                continue
            found[name] = dataclasses.replace(each, begun=True)
        node = fleet.nodes[name]
        node.host = dataclasses.replace(node.host, state=HostState.DRAINING)
        if each.due:
            fleet.dues = {**fleet.dues, name: each.due}
    put(store, "controller", old, found)
