# SPDX-License-Identifier: GPL-2.0-or-later
"""What a move would be: where to, what it costs, and why not."""

import dataclasses
import json
import math
import time
import uuid
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence

from wsm.cli.agents import TIMEOUT, Agents, AgentSaid, NoAnswer
from wsm.cli.home import CliError, Move
from wsm.plan import filters, learn, spec, way
from wsm.plan.estimate import (RTT, Basis, Estimate, Link, Load, basis_of,
                               estimate, rate_for)
from wsm.plan.inventory import Host, HostState, VmUse, human
from wsm.plan.plain import from_plain, to_plain
from wsm.plan.headway import Expected, progress

ASSUMED_MBIT = 1000         # where nobody says how fast a network is
USABLE = 0.95               # of a link, for data: headers of TCP and TLS
LEAST_RATE = float(1 << 20)


@dataclass(frozen=True)
class Subject:
    """A VM as it is now."""

    use: VmUse
    spec: spec.Spec
    here: Host
    past: tuple[learn.Past, ...] = ()   # moves that teach


def host_now(agents: Agents, name: str, subject: Optional[spec.Spec] = None
             ) -> Host:
    """Return a host as it is now; one that does not answer is unknown."""
    query = {"copies_of": subject.name, "spec": json.dumps(
        to_plain(subject))} if subject else {}
    entry = agents.home.host(name)
    begun = time.time()
    try:
        found = from_plain(Host, agents[name].get("/host", TIMEOUT, **query))
    except NoAnswer:
        return Host(name, 1.0, 1, 0, HostState.UNKNOWN)
    state = HostState(entry.state)
    return dataclasses.replace(found, state=state, clock_off=clock_off(
        found.clock, begun, time.time()))


def clock_off(clock: float, begun: float, ended: float) -> float:
    """
    Return by how much another clock is surely off, in seconds.

    It was read between @begun and @ended; 0 stands for not at all.
    """
    if not clock or begun <= clock <= ended:
        return 0.0
    return clock - begun if clock < begun else clock - ended


def look_at(agents: Agents, name: str, where: str) -> Subject:
    """Return a VM; raise CliError."""
    try:
        found = agents[where].get(f"/vm/{name}", timeout=60.0)
    except AgentSaid as error:
        raise CliError(str(error)) from error
    if found["runs"] and "use" not in found:
        raise CliError(f"the QEMU of {name} does not answer its agent: "
                       f"{found.get('problem', 'no reason')}; look at "
                       f"process {found['pid']} on {where}", 5)
    if "use" not in found:
        raise CliError(f"{name} does not run: 'wsmctl vm start {name}'", 4)
    described = spec.from_json(found["spec"])
    return Subject(from_plain(VmUse, found["use"]), described,
                   host_now(agents, where), learn.Lessons(agents.home.past()))


def link_of(one: Host, two: Host, rate: float = 0.0,
            past: Sequence[learn.Past] = ()) -> Link:
    """
    Return the link between two hosts.

    As agent.toml says, else as fast as it was lately; no faster than TCP can
    be with the round trips and losses that were measured.
    """
    told = [host.mbit for host in (one, two) if host.mbit]
    seen = learn.about(past, one.name, two.name).speed
    full = min(told, default=ASSUMED_MBIT) * 1e6 / 8 * USABLE
    if not told and seen:
        full = seen
    known = way.between(one, two)
    if known:       # moves that were faster know it better
        full = min(full, max(way.most(known), seen or 0.0))
    return Link(min(full, rate) if rate else full,
                known.rtt if known else RTT, cores=int(min(one.cores, two.cores)),
                known=bool(told or seen), full=full)


def load_of(subject: Subject) -> Load:
    """Return what the guest does meanwhile."""
    use = subject.use
    return Load(use.filled or min(use.touched, use.memory), use.dirty,
                use.memory, sum(disk.written for disk in use.disks),
                sum(disk.allocated for disk in use.disks),
                min(0.3, subject.spec.sla.downtime_most))


def bases_of(subject: Subject, there: Host) -> list[Basis]:
    """Return what each disk would build on."""
    differs = learn.differs(subject.past, subject.use.name,
                            subject.here.name, there.name)
    copies = [copy for copy in there.copies if copy.vm == subject.use.name]
    return [basis_of(disk, copies,
                     disk.id in subject.spec.disk
                     and bool(subject.spec.disk[disk.id].template),
                     differs(disk.id))
            for disk in subject.use.disks]


def cost_of(subject: Subject, there: Host, rate: float = 0.0) -> Estimate:
    """Return what the move would cost."""
    taught = learn.about(subject.past, subject.here.name, there.name)
    return estimate(bases_of(subject, there), load_of(subject),
                    link_of(subject.here, there, rate, subject.past),
                    taught.factor, start=taught.start)


def new_move(vm: str, source: str, to: str, cost: Estimate,
             **more: Any) -> Move:
    """Return a move as a journal has it, with what is expected of it."""
    terms = dict(cost.terms)
    return Move(
        str(uuid.uuid4()), vm, source, to, expected_bytes=cost.bytes,
        expected_seconds=(cost.seconds if math.isfinite(cost.seconds)
                          else 0.0), expected_start=terms["start"],
        factor=terms["factor"] * terms["known"], **more)


def disk_needs(subject: Subject) -> dict[str, int]:
    """Return filters.needs_of() a subject."""
    return filters.needs_of(subject.use, subject.spec)


def wish_of(subject: Subject) -> filters.Wish:
    """Return what a VM asks of a host."""
    return filters.Wish(subject.use, subject.spec, subject.here,
                        disk_needs(subject))


def choices(agents: Agents, subject: Subject,
            rate: float = 0.0) -> list[filters.Choice]:
    """Return all hosts for a VM, the best first."""
    hosts = [host_now(agents, name, subject.spec) for name in agents.names()]
    return filters.choose(wish_of(subject), hosts,
                          lambda host: cost_of(subject, host, rate))


def deadline_rate(subject: Subject, there: Host, seconds: float) -> float:
    """Return the gentlest rate that is done in time; raise CliError."""
    best = cost_of(subject, there)
    if best.seconds > seconds:
        raise CliError(f"{subject.use.name} to {there.name} takes about "
                       f"{seconds_text(best.seconds)} at full speed, longer "
                       f"than {seconds_text(seconds)}", 4)
    return rate_for(lambda rate: cost_of(subject, there, rate).seconds,
                    link_of(subject.here, there, past=subject.past).rate,
                    seconds, LEAST_RATE)


def seconds_text(seconds: float) -> str:
    """Return a time for people."""
    if not math.isfinite(seconds):
        return "for ever"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def estimate_lines(found: Estimate) -> list[str]:
    """Return an estimate for people."""
    lines = [f"{human(found.bytes)} in about {seconds_text(found.seconds)}; "
             f"the guest stands still for about {found.downtime * 1000:.0f} "
             "ms" if found.converges else
             f"at least {human(found.bytes)}, and no end: its memory does "
             "not converge"]
    for basis in found.bases:
        lines.append(f"disk {basis.disk}: {human(basis.data)} "
                     f"({basis.kind}: {basis.reason})")
    lines.append(f"memory: {human(dict(found.terms)['memory bytes'])} in "
                 f"{found.rounds} rounds")
    if not found.converges:
        lines.append("its memory is written faster than it can be sent; it "
                     f"needs about {human(found.needs_rate)}/s")
    return lines


def estimate_json(found: Estimate) -> dict[str, Any]:
    """Return an estimate for programs."""
    return {"bytes": found.bytes, "seconds": found.seconds if math.isfinite(
                found.seconds) else None,
            "downtime-seconds": found.downtime,
            "converges": found.converges,
            "disks": {basis.disk: {"kind": basis.kind, "bytes": basis.data,
                                   "reason": basis.reason}
                      for basis in found.bases},
            "terms": {name: value if math.isfinite(value) else None
                      for name, value in found.terms}}


def refusal_lines(found: filters.Choice) -> list[str]:
    """Return why a host is none, for people."""
    return [f"{found.host}: {each.text} [{each.filter}]"
            for each in found.refusals]


def choice_json(found: filters.Choice) -> dict[str, Any]:
    """Return a choice for programs."""
    made: dict[str, Any] = {"host": found.host, "fits": not found.refusals,
                            "heat": round(found.heat, 3)}
    if found.refusals:
        made["refusals"] = [{"filter": each.filter, "text": each.text}
                            for each in found.refusals]
    if found.estimate:
        made["estimate"] = estimate_json(found.estimate)
    return made


def progress_line(figures: Mapping[str, Any], move: Move,
                  now: Optional[float] = None) -> str:
    """Return one honest line of how far a move is."""
    elapsed = max(0.0, (time.time() if now is None else now) - move.begun)
    found = progress(figures, elapsed, Expected(
        move.expected_bytes, move.expected_seconds, move.expected_start))
    words = [found.phase if found.phase != "none" else "begins"]
    if found.percent is not None:
        words.append(f"{found.percent} %")
    if found.speed:
        words.append(f"{human(found.speed)}/s")
    if found.left is not None:
        words.append(f"{human(found.left)} left")
    words.append(seconds_text(elapsed) + ("" if found.seconds is None else
                                          " of about "
                                          + seconds_text(found.seconds)))
    if figures.get("note"):
        words.append(str(figures["note"]))
    return ", ".join(words)
