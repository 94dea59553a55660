# SPDX-License-Identifier: GPL-2.0-or-later
"""What people have said about where VMs may run, beyond their descriptions.

The planner knows rules of where; that a VM is not moved by itself is said as
its description would say it.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Iterable, Mapping

from wsm.plan import ruling
from wsm.plan.plain import BadData, from_plain
from wsm.plan.spec import NAME, Mode, Spec

MODES = {"ask": Mode.ASK, "never": Mode.NEVER}
KINDS = (*(kind.value for kind in ruling.RuleKind), *MODES)


@dataclass(frozen=True)
class Rule:
    """One of them."""

    id: int
    kind: str
    data: Mapping[str, Any]     # as ruling.Rule has it, without its kind
    who: str = ""
    at: float = 0.0

    def text(self) -> str:
        """Return it as people say it."""
        if self.kind in MODES:
            return f"{self.kind} {', '.join(self.data['vms'])}"
        return where(self.kind, self.data).text()


def where(kind: str, data: Mapping[str, Any]) -> ruling.Rule:
    """Return a rule for the planner; raise BadData."""
    return from_plain(ruling.Rule, {"kind": kind, **data}, "rule")


def check(kind: str, data: Mapping[str, Any]) -> None:
    """Refuse a rule that makes no sense; raise BadData."""
    if kind not in KINDS:
        raise BadData(f"rule {kind[:40]!r} is not known; there are: "
                      + ", ".join(KINDS))
    vms = data.get("vms")
    if not isinstance(vms, list) or not vms:
        raise BadData("vms: at least one is needed")
    for vm in vms:
        if not isinstance(vm, str) or not NAME.fullmatch(vm):
            raise BadData(f"{str(vm)[:80]!r} is no name of a VM")
    if kind in MODES:
        if set(data) != {"vms"}:
            raise BadData(f"rule {kind} has VMs only")
        return
    why = "; ".join(ruling.problems(where(kind, data)))
    if why:
        raise BadData(why)


def for_planner(rules: Iterable[Rule]) -> tuple[ruling.Rule, ...]:
    """Return those that the planner knows."""
    return tuple(where(rule.kind, rule.data) for rule in rules
                 if rule.kind not in MODES)


def by_vm(rules: Iterable[Rule]) -> dict[str, list[Rule]]:
    """Return the rules that ruled() wants to be told, for each VM."""
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        if rule.kind in MODES:
            for vm in rule.data["vms"]:
                found.setdefault(vm, []).append(rule)
    return found


def ruled(described: Spec, rules: Iterable[Rule]) -> Spec:
    """Return a description as the rules for its VM make it."""
    mode = described.placement.mode
    for rule in rules:
        if rule.kind in MODES and described.name in rule.data["vms"] and (
                mode is not Mode.NEVER):
            mode = MODES[rule.kind]
    if mode is described.placement.mode:
        return described
    return dataclasses.replace(described, placement=dataclasses.replace(
        described.placement, mode=mode))
