# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs that people want elsewhere by a time: what the store has of it."""

import json

from wsm.cli.moment import clock
from wsm.controller.store import SET, Store
from wsm.plan.errand import is_done
from wsm.plan.fleet import Errand, Fleet
from wsm.plan.plain import from_plain, to_plain

SETTING = "errands"


def wanted(store: Store) -> tuple[Errand, ...]:
    """Return all of them, of a VM one at most; raise StoreGone."""
    return tuple(from_plain(Errand, each)
                 for each in json.loads(store.setting(SETTING, "[]")))


def replace(store: Store, who: str, old: tuple[Errand, ...], vm: str,
            new: Errand | None) -> tuple[Errand, ...]:
    """Let a VM's errand among the @old be @new; return all that are then."""
    kept = [each for each in old if each.vm != vm]
    made = (*kept, new) if new else tuple(kept)
    if made != old:
        with store.write() as connection:
            connection.execute(SET.format("settings"), (SETTING, json.dumps(
                [to_plain(each) for each in made])))
            store.note(connection, who, "errand" if new else "errand dropped",
                       {"vm": vm, **(to_plain(new) if new else {})})
    return made


def write(store: Store, who: str, vm: str, new: Errand | None) -> bool:
    """Let a VM's errand be @new; return whether that changes anything."""
    old = wanted(store)
    return replace(store, who, old, vm, new) != old


def drop(store: Store, who: str, vm: str) -> bool:
    """A VM may stay where it is; return whether it was to go elsewhere."""
    return write(store, who, vm, None)


def left(fleet: Fleet, store: Store, name: str) -> tuple[Errand, ...]:
    """Return what is to be done yet; what is done is forgotten by @name."""
    found = wanted(store)
    for each in found:
        if is_done(each, fleet):
            found = replace(store, name, found, each.vm, None)
    return found


def late(fleet: Fleet) -> dict[str, str]:
    """Return alarms, by name: what was to be done by now."""
    return {f"errand {each.vm}": (
        f"{each.vm} was to be {place(each)} by {clock(each.due)} and is not: "
        f"'wsmctl explain vm {each.vm}'")
        for each in fleet.errands if each.due < fleet.now}


def place(found: Errand) -> str:
    """Return where a VM is to be, in words."""
    return f"on {found.to}" if found.to else f"away from {found.away}"
