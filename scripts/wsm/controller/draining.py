# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts that a person has told the controller to empty."""

import dataclasses
import json

from wsm.controller.store import Store
from wsm.plan.fleet import Fleet
from wsm.plan.inventory import HostState

SETTING = "drains"


def wanted(store: Store) -> set[str]:
    """Return the hosts; raise StoreGone."""
    return set(json.loads(store.setting(SETTING, "[]")))


def want(store: Store, who: str, host: str, on: bool) -> None:
    """Be told to empty a host, or not; raise StoreGone, Deposed."""
    found = wanted(store)
    changed = found | {host} if on else found - {host}
    if changed != found:
        store.set(who, SETTING, json.dumps(sorted(changed)))


def mark(fleet: Fleet, store: Store) -> None:
    """Let the planner see which hosts are to be emptied."""
    for name in wanted(store) & set(fleet.nodes):
        node = fleet.nodes[name]
        node.host = dataclasses.replace(node.host, state=HostState.DRAINING)
