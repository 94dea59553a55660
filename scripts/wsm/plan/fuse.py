# SPDX-License-Identifier: GPL-2.0-or-later
"""When the planner is not to be trusted: a person must agree to its moves.

A sensor may lie, a fleet may be out of what helps, or moves fail.  Whatever it
is, it is not made better by more moves.
"""

from wsm.plan.past import Past
from wsm.plan.policy import Policy


def of_all(past: Past, now: float, policy: Policy) -> str:
    """Return why no move begins by itself, "" if moves may."""
    limit = policy.breaker
    # A small fleet may never begin that many within the shorter time
    for span in (limit.span, policy.calm.memory):
        failed = sum(now - at <= span for at in past.failed)
        began = past.began_since(now - span)
        if failed >= max(limit.failures, limit.failed * began):
            return (f"breaker: {failed} of {max(began, failed)} moves failed "
                    f"within {span / 3600:.0f} h")
    return ""


def of_host(past: Past, host: str, now: float, policy: Policy) -> str:
    """Return why no VM leaves a host by itself, "" if VMs may."""
    span = policy.calm.memory
    count = sum(now - at <= span for at in past.uncooled.get(host, ()))
    if count >= policy.breaker.uncooled:
        return (f"breaker: {count} moves within {span / 3600:.0f} h did not "
                f"cool {host}")
    return ""


def of_vm(past: Past, vm: str, now: float, policy: Policy) -> str:
    """Return why a VM does not move by itself, "" if it may."""
    if vm not in past.trips:
        return ""
    span = policy.calm.memory
    count = past.returns(vm, now, span)
    if count >= policy.breaker.back:
        return (f"breaker: {vm} came back {count} times within "
                f"{span / 3600:.0f} h")
    return ""


def open_ones(past: Past, now: float, policy: Policy) -> list[str]:
    """Return all that is open, for people to see."""
    found = [of_all(past, now, policy)]
    found += [of_host(past, host, now, policy) for host
              in sorted(past.uncooled)]
    found += [of_vm(past, vm, now, policy) for vm in sorted(past.trips)]
    return [each for each in found if each]
