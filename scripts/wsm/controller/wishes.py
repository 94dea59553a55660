# SPDX-License-Identifier: GPL-2.0-or-later
"""What people want by a time: moves and drains that begin by themselves."""

from typing import Any, Mapping, Optional, Sequence

from wsm.cli import outlook
from wsm.controller import draining, errands
from wsm.controller.because import guest_of
from wsm.controller.rounds import Controller, NotNow
from wsm.controller.setup import Mode
from wsm.plan import errand, planner
from wsm.plan.fleet import Errand
from wsm.plan.plain import BadData
from wsm.plan.weigh import Round

FAR = 30 * 86400.0              # s: nobody plans further


def due_of(made: Controller, data: Mapping[str, Any],
           default: Optional[float] = None) -> float:
    """Return the time that was sent; raise BadData."""
    due = data.get("due", default)
    if not isinstance(due, (int, float)) or isinstance(due, bool) or not (
            due == default or 0 < due - made.clock() <= FAR):
        raise BadData(f"due: {str(due)[:40]!r} is no time within the next "
                      f"{FAR / 86400:.0f} days, in s after 1970")
    return float(due)


def decides(made: Controller) -> None:
    """Raise NotNow if it begins nothing."""
    if made.problem or made.last is None:
        raise NotNow(made.problem or "nothing was decided yet: wait for a "
                     "round")
    if made.mode() is Mode.OBSERVE:
        raise NotNow("its mode is observe, and it moves nothing: 'wsmctl mode "
                     "ask', or auto")


def a_round(made: Controller) -> Round:
    """Return a round as of now."""
    return planner.a_round(made.fleet, made.policy, made.past, made.cost)


def want(made: Controller, who: str, wanted: Errand) -> dict[str, Any]:
    """Be told that a VM is to be elsewhere by a time; raise NotNow."""
    decides(made)
    guest = guest_of(made, wanted.vm)
    if wanted.to and wanted.to not in made.fleet.nodes:
        raise NotNow(f"nothing is known of host {wanted.to[:80]}")
    if errand.is_done(wanted, made.fleet):
        raise NotNow(f"{wanted.vm} is on {guest.use.host} already")
    now = a_round(made)
    now.booked.flying.discard(wanted.vm)
    step = errand.best(now, wanted, guest, errand.spot_of(
        wanted, guest, made.fleet))
    if step is None:
        raise NotNow(f"{wanted.vm} can go nowhere: " + "; ".join(
            sorted(now.reasons.example.values())))
    seconds, left = step.estimate.seconds, wanted.due - made.clock()
    if seconds > left:
        raise NotNow(f"{wanted.vm} to {step.to} takes about "
                     f"{outlook.seconds_text(seconds)} at full speed, longer "
                     f"than {outlook.seconds_text(left)}: a later --deadline")
    errands.write(made.store, who, wanted.vm, wanted)
    made.fleet.errands = errands.wanted(made.store)
    return next(each for each in listed(made) if each["vm"] == wanted.vm)


def listed(made: Controller) -> Sequence[dict[str, Any]]:
    """Return what is to be done by a time, and when it begins."""
    return [dict(each) for each in errand.told(errand.turns(a_round(made)),
                                               made.fleet.now)]


def drain(made: Controller, who: str, host: str, on: bool,
          due: float) -> dict[str, Any]:
    """Empty a host, at once or by a time, or let it be; raise NotNow."""
    if on and host not in made.fleet.nodes:
        raise NotNow(f"nothing is known of host {host[:80]}")
    if on and due:
        decides(made)
        whole = planner.outlook(made.fleet, made.policy, made.past, made.cost,
                                host)
        seconds, left = errand.seconds_of(whole.steps), due - made.clock()
        if seconds > left:
            raise NotNow(
                f"{len(whole.steps)} moves take about "
                f"{outlook.seconds_text(seconds)} at full speed, longer than "
                f"{outlook.seconds_text(left)}: a later --deadline")
    draining.want(made.store, who, host, on, due)
    return {"host": host, "on": on, "due": due}
