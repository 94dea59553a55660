# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a move that runs is still worth its end.

Until the handover it can be taken back for what it has cost; after it nothing
is.  What has arrived stays there, and makes the next try cheaper.
"""

from dataclasses import dataclass

from wsm.plan.booked import Booked
from wsm.plan.detect import host_spots
from wsm.plan.fleet import RESOURCES, Fleet, Flight, Node
from wsm.plan.headway import LATE
from wsm.plan.inventory import HostState, human
from wsm.plan.policy import Hot, Policy

HALF = 0.5                      # of a move: then it is ended for any reason
SAMPLES = 3                     # that must say that a reason has gone
TIMES = 3.0                     # as long, or as many bytes, as was said
SLACK = 60.0                    # s, and so much longer


@dataclass(frozen=True)
class Running:
    """A move before its end."""

    flight: Flight
    phase: str                  # of query-wsm, "" before that is known
    elapsed: float              # s
    seconds: float              # that were expected; 0: none were
    sent: float                 # bytes
    left: float
    rate: float = 0.0           # bytes/s at which it is held; 0: it is not
    speed: float = 0.0          # and that it has now; 0: not known

    @property
    def share(self) -> float:
        """Return which part is sent."""
        return self.sent / (self.sent + self.left) if self.left else float(
            self.sent > 0)


def gone(fleet: Fleet, flight: Flight, hot: Hot) -> str:
    """Return why a move is not needed any more, "" if it is."""
    what, _, name = flight.spot.partition(" ")
    kind, _, resource = what.partition(".")
    node = fleet.nodes.get(name)
    if node is None or not fleet.is_known(name, hot.stale):
        return ""
    if kind == "drain" and node.host.state is not HostState.DRAINING:
        return f"{name} is not to be emptied any more"
    if kind != "host" or resource not in RESOURCES:
        return ""
    unit = node.capacity[resource]
    release = getattr(hot.limits, resource).release
    recent = node.load[resource].recent(SAMPLES)
    if len(recent) < SAMPLES or max(recent) >= release * unit or (
            resource == "cpu" and waits(node, hot)):
        return ""
    return (f"{name} is not too full any more: {max(recent) / unit:.2f} of "
            f"its {resource} is used, under {release:.2f}")


def waits(node: Node, hot: Hot) -> bool:
    """Return whether VMs of a host wait for a CPU, whatever they use."""
    series = node.signs.get("wait")
    return series is not None and series.now > hot.limits.wait.release


def unfit(fleet: Fleet, flight: Flight, policy: Policy) -> str:
    """Return why a VM must not go where it goes, "" if it may."""
    hot = policy.hot
    node = fleet.nodes.get(flight.to)
    if node is None or not fleet.is_known(flight.to, hot.stale):
        return ""               # who is silent cannot be asked to take back
    if node.host.state is not HostState.ACTIVE:
        return f"{flight.to} is {node.host.state.value}"
    health = node.signs.get("health")
    if health is not None and health.now < hot.health:
        return f"{flight.to} says that its health is {health.now:.2f}"
    spots = list(host_spots(Booked(fleet), flight.to, node, policy))
    return spots[0].text() if spots else ""


def regret(run: Running, fleet: Fleet, policy: Policy) -> str:
    """Return why a move is to be cancelled, "" if it goes on."""
    if run.phase in LATE:
        return ""
    said = run.seconds
    if run.rate and run.flight.bytes:
        said = max(said, run.flight.bytes / run.rate)
    # Who was held back, and is not any more, will soon be there
    if said and run.elapsed > TIMES * said + SLACK and (
            run.left >= run.speed * said):
        return (f"it takes {run.elapsed:.0f} s already, {said:.0f} s were "
                "expected")
    if run.flight.bytes and run.sent > TIMES * run.flight.bytes:
        return (f"{human(run.sent)} are sent already, "
                f"{human(run.flight.bytes)} were expected")
    why = unfit(fleet, run.flight, policy)
    if not why and run.share < HALF:
        why = gone(fleet, run.flight, policy.hot)
    return why
