# SPDX-License-Identifier: GPL-2.0-or-later
"""What people want of where VMs run, beyond what each VM's description says.

A rule is about VMs by name.  Hosts are names, or tags as "tag:NAME".  A place
is a host, or all hosts with the same tag "PER:..." (per = "rack": "rack:r1").
"""

import enum
from collections import defaultdict
from dataclasses import dataclass
from typing import Callable, Collection, Iterator, Mapping, Sequence

from wsm.plan.inventory import Host, HostState

Where = Callable[[str], Sequence[str]]  # the hosts at which a VM counts


class RuleKind(enum.Enum):
    """What is wanted."""

    PIN = "pin"                 # only on these hosts
    NOT = "not"                 # on none of these
    APART = "apart"             # at most so many of them at one place
    TOGETHER = "together"       # all of them on one host
    PREFER = "prefer"           # rather on these hosts


@dataclass(frozen=True)
class Rule:
    """One of them; all but PREFER are strict."""

    kind: RuleKind
    vms: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    most: int = 1               # APART
    per: str = "host"           # APART
    weight: float = 0.5         # PREFER: part of its worth that a move loses
    words: str = ""             # why, of one that nobody has written

    def names(self, host: Host) -> bool:
        """Whether it names a host."""
        return host.name in self.hosts or any(
            f"tag:{tag}" in self.hosts for tag in host.tags)

    def place(self, host: Host) -> str:
        """Return the place of a host."""
        if self.per != "host":
            for tag in host.tags:
                if tag.startswith(self.per + ":"):
                    return tag
        return host.name

    def text(self) -> str:
        """Return it as people say it."""
        if self.words:
            return self.words
        vms, hosts = ", ".join(self.vms), ", ".join(self.hosts)
        if self.kind is RuleKind.APART:
            return f"apart {vms}: at most {self.most} per {self.per}"
        return f"{self.kind.value} {vms}" + (f": {hosts}" if hosts else "")


def problems(rule: Rule) -> Iterator[str]:
    """Yield what is wrong with a rule."""
    group = rule.kind in (RuleKind.APART, RuleKind.TOGETHER)
    if not rule.vms or group and len(set(rule.vms)) < 2:
        yield f"{rule.kind.value}: {len(rule.vms)} VMs are too few"
    if bool(rule.hosts) == group:
        yield (f"{rule.kind.value}: it names "
               + ("no hosts" if group else "at least one host"))
    if rule.most < 1:
        yield f"most = {rule.most}: at least 1"
    if not 0.0 <= rule.weight <= 1.0:
        yield f"weight = {rule.weight}: 0 to 1"


class Book:
    """All rules, with @hosts by name and where VMs count."""

    def __init__(self, rules: Sequence[Rule], hosts: Callable[[str], Host],
                 where: Where) -> None:
        self.hosts, self.where, self.rules = hosts, where, rules
        self.of: Mapping[str, list[Rule]] = defaultdict(list)
        self.tied = {vm for rule in rules for vm in rule.vms
                     if rule.kind is RuleKind.TOGETHER}
        self._settled: "Book | None" = None
        for rule in rules:
            for vm in rule.vms:
                self.of[vm].append(rule)

    def group(self, vm: str) -> list[str]:
        """Return the VMs that must be where it is, itself among them."""
        if vm not in self.tied:
            return [vm]
        found, todo = {vm}, [vm]
        while todo:
            for rule in self.of.get(todo.pop(), ()):
                if rule.kind is RuleKind.TOGETHER:
                    new = [each for each in rule.vms if each not in found
                           and self.where(each)]
                    found.update(new)
                    todo += new
        return sorted(found)

    def crowd(self, rule: Rule, vm: str, host: Host) -> list[str]:
        """Return the other VMs of an APART that count at a host's place."""
        place = rule.place(host)
        return [each for each in rule.vms if each != vm and any(
            rule.place(self.hosts(name)) == place
            for name in self.where(each))]

    def settled(self) -> "Book":
        """Return the same when all moves have ended."""
        if self._settled is None:
            self._settled = Book((), self.hosts,
                                 lambda vm: self.where(vm)[-1:])
            self._settled.of = self.of
        return self._settled

    def refusals(self, vm: str, host: Host,
                 gone: Collection[str] = ()) -> Iterator[str]:
        """Yield why a VM may not be on a host, but for TOGETHER.

        As if the VMs @gone were not there.
        """
        for rule in self.of.get(vm, ()):
            if rule.kind is RuleKind.PIN and not rule.names(host):
                yield f"rule \"{rule.text()}\" does not name {host.name}"
            elif rule.kind is RuleKind.NOT and rule.names(host):
                yield f"rule \"{rule.text()}\" names {host.name}"
            elif rule.kind is RuleKind.APART:
                there = [each for each in self.crowd(rule, vm, host)
                         if each not in gone]
                if len(there) >= rule.most:
                    yield (f"rule \"{rule.text()}\": {len(there)} of them "
                           f"count at {rule.place(host)} "
                           f"({', '.join(there)})")

    def suspects(self) -> set[str]:
        """Return the VMs of which broken() may have to say something."""
        found: set[str] = set()
        for rule in self.rules:
            if rule.kind is not RuleKind.PREFER and self._may_break(rule):
                for vm in rule.vms:
                    found.update(self.group(vm))
        return found

    def _may_break(self, rule: Rule) -> bool:
        """Whether a rule may be broken when all moves have ended."""
        if rule.kind in (RuleKind.PIN, RuleKind.NOT):
            return True
        at = [where[-1] for where in map(self.where, rule.vms) if where]
        if rule.kind is RuleKind.TOGETHER:
            return len(set(at)) > 1
        places = [rule.place(self.hosts(name)) for name in at]
        return len(places) - len(set(places)) >= rule.most

    def broken(self, vm: str) -> str:
        """Return which rule a VM breaks where it will be, "" if none."""
        name = self.where(vm)[-1]
        why = next(self.settled().refusals(vm, self.hosts(name)), "")
        home = self.home(vm)
        if not why and home not in ("", name):
            why = f"its rule \"together\" has 1 home, {home}"
        return why

    def home(self, vm: str) -> str:
        """
        Return the host at which a VM's group is to be, "" if any will do.

        One that takes no VM, as it is to be emptied, is none.
        """
        group = self.group(vm) if vm in self.tied else [vm]
        if len(group) == 1:
            return ""
        at = [host for host in (self.where(each)[-1] for each in group)
              if self.hosts(host).state is HostState.ACTIVE]
        if not at:
            return ""
        return min(at, key=lambda name: (-at.count(name), name))

    def worth(self, vm: str, host: Host) -> float:
        """Return the part of a move's worth that preferences leave."""
        left = 1.0
        for rule in self.of.get(vm, ()):
            if rule.kind is RuleKind.PREFER and not rule.names(host):
                left *= 1.0 - rule.weight
        return left
