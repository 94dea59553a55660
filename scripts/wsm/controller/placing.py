# SPDX-License-Identifier: GPL-2.0-or-later
"""What people have said about where VMs may run, beyond their descriptions."""

import dataclasses
from dataclasses import dataclass
from typing import Collection, Iterable

from wsm.plan.plain import BadData
from wsm.plan.spec import ID, NAME, Mode, Spec

KINDS = {
    "pin": "it runs on these hosts only",
    "not": "it does not run on these hosts",
    "ask": "it moves only by 'wsmctl migrate'",
    "never": "it does not move at all",
}
WITH_HOSTS = ("pin", "not")


@dataclass(frozen=True)
class Rule:
    """One of them."""

    id: int
    kind: str
    vm: str
    hosts: tuple[str, ...] = ()
    who: str = ""
    at: float = 0.0


def check(kind: str, vm: str, hosts: Collection[str]) -> None:
    """Refuse a rule that makes no sense; raise BadData."""
    if kind not in KINDS:
        raise BadData(f"rule {kind[:40]!r} is not known; there are: "
                      + ", ".join(KINDS))
    if not NAME.fullmatch(vm):
        raise BadData(f"{vm[:80]!r} is no name of a VM")
    if bool(hosts) != (kind in WITH_HOSTS):
        raise BadData(f"rule {kind} has "
                      + ("at least one host" if kind in WITH_HOSTS
                         else "no hosts"))
    for host in hosts:
        if not ID.fullmatch(host):
            raise BadData(f"{host[:80]!r} is no name of a host")


def ruled(described: Spec, rules: Iterable[Rule],
          hosts: Collection[str]) -> Spec:
    """Return a description as the rules for its VM make it."""
    place = described.placement
    for rule in rules:
        if rule.vm != described.name:
            continue
        if rule.kind == "never":
            place = dataclasses.replace(place, mode=Mode.NEVER)
        elif rule.kind == "ask" and place.mode is Mode.AUTO:
            place = dataclasses.replace(place, mode=Mode.ASK)
        elif rule.kind in WITH_HOSTS:
            allowed = set(place.pin or hosts)
            allowed = (allowed & set(rule.hosts) if rule.kind == "pin"
                       else allowed - set(rule.hosts))
            # Nowhere is a place that does not exist
            place = dataclasses.replace(place, pin=tuple(sorted(allowed))
                                        or ("nowhere",))
    if place is described.placement:
        return described
    return dataclasses.replace(described, placement=place)
