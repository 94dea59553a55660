# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop: look, decide, write down, and do it if that is wanted.

A controller that is dead stops nothing: what it has begun ends without it, and
its successor finds that in the journal.
"""

import asyncio
import contextlib
import gc
import logging
import time
from dataclasses import dataclass
from typing import Any, Callable, Container, Mapping, Optional

from wsm.cli import outlook
from wsm.controller import draining, errands
from wsm.controller.chronicle import Chronicle
from wsm.controller.collector import Collector
from wsm.controller.doubts import Doubts
from wsm.controller.executor import Ended, Executor
from wsm.controller.journal import Entry, Journal
from wsm.controller.keeping import Keeper
from wsm.controller.leader import Leader
from wsm.controller.ledger import Ledger
from wsm.controller.pacing import Pacer
from wsm.controller.setup import Mode, Settings
from wsm.controller.store import Deposed, Store, StoreGone
from wsm.plan import errand, kept, planner, shown
from wsm.plan.detect import Kind
from wsm.plan.estimate import Estimate
from wsm.plan.fleet import Fleet, Flight, Guest
from wsm.plan.inventory import Host
from wsm.plan.learn import Lessons
from wsm.plan.decision import Decision, Step
from wsm.plan.past import KEPT, Past, trip_of
from wsm.plan.policy import Policy

LOG = logging.getLogger("wsm-controller")
STANDS_BY = "another controller leads"
PRUNE = 3600.0                  # s


class NotNow(Exception):
    """What cannot be done now; the text says why and what helps."""


@dataclass
class Stats:
    """What is counted for /metrics."""

    rounds: int = 0
    seconds: float = 0.0            # of the last round, without the asking


class Controller:
    """All of it but the API."""

    def __init__(self, settings: Settings, policy: Policy, store: Store,
                 collector: Collector, executor: Executor,
                 clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.policy = policy
        self.store = store
        self.ledger = Ledger(store)
        self.leader = Leader(store, settings.cluster, settings.name)
        self.collector = collector
        self.executor = executor
        self.pacer = Pacer(policy.links, collector.intake.fleet, executor)
        self.doubts = Doubts(policy, collector.intake.fleet, executor)
        self.clock = clock
        self.past = Past()
        self.stats = Stats()
        self.chronicle = Chronicle()
        self.since = 0.0                # when it has become the leader
        self._term = 0                  # of which it remembers others' deeds
        self.problem = ""
        self.last: Optional[Decision] = None
        self.last_id = 0
        self._lessons: Optional[Lessons] = None
        self._keeper = Keeper()
        self._pruned = float("-inf")

    @property
    def fleet(self) -> Fleet:
        """What is known of hosts and VMs."""
        return self.collector.intake.fleet

    @property
    def journal(self) -> Journal:
        """The moves."""
        return self.executor.journal

    # What is wanted

    def mode(self) -> Mode:
        """Return what is done with decisions; raise StoreGone."""
        return Mode(self.store.setting("mode", self.settings.mode.value))

    def set_mode(self, who: str, mode: Mode) -> None:
        """Be told what to do; a person has looked at what has happened."""
        self.store.set(who, "mode", mode.value)
        self.store.set(who, "looked", str(self.clock()))
        self.past.failed.clear()
        self.past.uncooled.clear()

    def paused(self) -> bool:
        """Return whether nothing is to be begun."""
        return bool(self.store.setting("paused"))

    def waits(self) -> float:
        """Return the seconds for which it only looks, after its start."""
        return max(0.0, self.since + self.settings.settle - self.clock())

    # A round

    async def run(self) -> None:
        """Go round until cancelled."""
        while True:
            begun = time.monotonic()
            try:
                await self.once()
            except Exception as error:  # pylint: disable=broad-exception-caught
                LOG.error("a round has failed", exc_info=error)
                self._stop(f"a round has failed: {type(error).__name__}: see "
                           "the log")
            spent = time.monotonic() - begun
            await asyncio.sleep(max(0.5, self.policy.interval - spent))

    async def once(self) -> Optional[Decision]:
        """Make one round; return the decision, None if it may make none."""
        try:
            if self.leader.take():
                if self._term != self.store.term:
                    self._begin()
                return await self._round()
            self._stop(STANDS_BY)
        except StoreGone as error:
            self._stop(f"the store does not work: {error}")
        except Deposed as error:
            self.leader.give()
            self._stop(str(error))
        return None

    def _stop(self, problem: str) -> None:
        if problem != self.problem:
            LOG.warning("decides nothing: %s", problem)
        self.problem, self.last = problem, None

    def _begin(self) -> None:
        """Become the leader: remember what others have done."""
        self.executor.take_up()
        self.past = remembered(self.journal.ended_since(self.clock() - KEPT),
                               self.journal.open_entries(), float(
                                   self.store.setting("looked", "0")))
        self._lessons = None
        self.chronicle.load(self.store, self.clock())
        self._term = self.store.term
        # Its store was away, and nobody has led meanwhile: it goes on
        if not (self.since and self.store.alone):
            self.since = self.clock()
        LOG.info("leads in epoch %s", self.store.epoch)

    async def _round(self) -> Decision:
        now = self.clock()
        entries, rules = self.ledger.hosts(), self.ledger.rules()
        await self.collector.round(now, entries, rules, self.executor.flights)
        self.chronicle.save(self.store, now)
        self.chronicle.note(self.fleet)
        for ended in self.executor.ended():
            self._landed(ended)
        self.executor.take_up()
        begun = time.monotonic()
        self.fleet.flights = self._flights()
        self._wishes()
        self.doubts.distrust(now)
        self.pacer.once()
        gc.disable()            # to look at all there is takes longer than this
        try:
            decision = planner.decide(self.fleet, self.policy, self.past,
                                      self.cost)
        finally:
            gc.enable()
        self.stats.seconds = time.monotonic() - begun
        self.stats.rounds += 1
        recent = self.journal.ended_since(now - KEPT)
        self._watch(decision, now, recent)
        mode = self.mode()
        if mode is Mode.AUTO:
            self.doubts.regret(now)
        self.last_id = self.ledger.record(
            mode.value, decision.text(), shown.decision_json(decision),
            lambda: self._keeper.input(now, self.fleet, decision, self._kept),
            self._keeper.is_due(now, self.fleet))
        if now - self._pruned > PRUNE:
            self._pruned = now
            self.ledger.prune()
        self.problem, self.last = "", decision
        for step in decision.steps:
            if self._may_begin(step, mode):
                self._begin_step(step, now)
        return decision

    def _wishes(self) -> None:
        """See what people want by a time, and which hosts empty."""
        self.fleet.errands = errands.left(self.fleet, self.store,
                                          self.settings.name)
        draining.mark(self.fleet, self.store, lambda host, due: (
            errand.is_time(planner.outlook(
                self.fleet, self.policy, self.past, self.cost, host).steps,
                due, self.fleet.now, self.policy)))

    def _may_begin(self, step: Step, mode: Mode) -> bool:
        """Return whether a step is carried out now, without being asked."""
        if self.paused() or mode is Mode.OBSERVE:
            return False
        if step.reason == Kind.ERRAND.value:    # a person has said so
            return True
        return (mode is Mode.AUTO and not self.waits()
                and self._has_turn(step))

    def _kept(self, hosts: Optional[Container[str]],
              vms: Optional[Container[str]]) -> Mapping[str, Any]:
        """Return what the round was made of; see keeping.Record."""
        return kept.record(kept.Round(self.fleet, self.policy, self.past),
                           hosts, vms)

    def _flights(self) -> dict[str, Flight]:
        """Return all moves that are under way between hosts that are known."""
        both = {**self.collector.intake.foreign, **self.executor.flights}
        return {vm: flight for vm, flight in both.items()
                if vm in self.fleet.guests
                and {flight.source, flight.to} <= set(self.fleet.nodes)}

    def cost(self, guest: Guest, to: str) -> Estimate:
        """Return what a move would cost now; see planner.Cost."""
        if self._lessons is None:
            self._lessons = Lessons(self.journal.past())
        here: Host = self.fleet.nodes[guest.use.host].host
        return outlook.cost_of(
            outlook.Subject(guest.use, guest.spec, here, self._lessons),
            self.fleet.nodes[to].host, self.pacer.usual(Flight(
                guest.use.name, here.name, to, "", False)))

    # Moves

    def _has_turn(self, step: Step) -> bool:
        """Return whether a move may begin, as far as links go."""
        found = self.pacer.has_turn(step.flight())
        if not found:
            LOG.info("%s waits for its turn: its links carry enough", step.vm)
        return found

    def _begin_step(self, step: Step, now: float) -> bool:
        """Begin a move; False if the VM is in one."""
        self.pacer.share(step.flight())
        if not self.executor.begin(step):
            return False
        self.past.note_begin(now, step.flight())
        LOG.info("%s", step.why)
        return True

    def _landed(self, ended: Ended) -> None:
        """Take in how a move has ended."""
        flight = ended.flight
        LOG.info("%s: %s -> %s: %s %s", flight.vm, flight.source, flight.to,
                 ended.result, ended.text)
        self._lessons = None
        if ended.result == "stayed":
            self.past.note_failed(ended.at)
        if ended.result != "moved":
            if ended.result != "left":      # its driver has ended, not it
                self.past.note_stayed(flight.vm, flight.source, ended.at)
            return
        guest = self.fleet.guests.get(flight.vm)
        if guest and guest.use.host == flight.source and (
                flight.to in self.fleet.nodes):
            self.fleet.move(flight.vm, flight.to)
        self.past.note_end(flight.vm, trip_of(flight, ended.at))

    def _watch(self, decision: Decision, now: float,
               recent: list[Entry]) -> None:
        """See whether moves that have ended lately have helped."""
        heat, cools = decision.heat(), self.policy.breaker.cools
        self.past.note_heat(now, cools, heat)
        for entry in recent:
            if (entry.cooled is None and entry.move.result == "moved"
                    and now - entry.move.ended >= cools):
                self.journal.note_cooled(
                    entry.move.id, heat.get(entry.spot, 0.0) <= entry.goal)
        self._alarms(decision)

    def _alarms(self, decision: Decision) -> None:
        """Tell what a person should look at; end what is over."""
        wanted = {each: f"{each}. What is decided waits for 'wsmctl apply'; "
                  "'wsmctl mode auto' says that you have looked"
                  for each in decision.breakers}
        wanted |= {f"vm {vm}": f"{vm} has two owners: nothing is done with it"
                  for vm in self.collector.intake.split}
        for entry in self.journal.open_entries():
            if entry.move.text:
                wanted[f"move {entry.move.vm}"] = entry.move.text
        wanted |= {f"network {one} {two}": text
                   for (one, two), text in self.doubts.bad.items()}
        wanted |= errands.late(self.fleet) | {
            f"deadline {vm}": text
            for vm, text in self.executor.notes.items()}
        for host, why in self.collector.silent.items():
            if not self.fleet.nodes.get(host) or not self.fleet.is_known(
                    host, self.policy.hot.stale):
                wanted[f"host {host}"] = why
        old = {name: text for name, _, text in self.ledger.alarms()}
        for name in set(old) - set(wanted):
            self.store.alarm(name, None)
        for name, text in wanted.items():
            if old.get(name) != text[:1000]:
                self.store.alarm(name, text)

    # Orders of people

    def apply(self, who: str, number: int,
              only: Optional[str] = None) -> list[Step]:
        """Begin what a decision says, as far as it is still right."""
        if self.problem or self.last is None:
            raise NotNow(self.problem or "nothing was decided yet")
        if self.paused():
            raise NotNow("it is paused: 'wsmctl pause --off'")
        recorded = self.ledger.decision(number)
        if recorded is None:
            raise NotNow(f"there is no plan {number}: 'wsmctl plan'")
        wanted = [each for name in ("steps", "asked")
                  for each in recorded.output[name]
                  if only in (None, each["vm"])]
        steps = [step for step in (*self.last.steps, *self.last.asked)
                 for each in wanted
                 if shown.same_step(shown.step_json(step), each)]
        if len(steps) < len(wanted) or not wanted:
            raise NotNow(f"plan {number} is not what would be done now: "
                         "'wsmctl plan'")
        now = self.clock()
        with self.store.write() as database:
            self.store.note(database, who, "apply", {
                "plan": number, "vms": [step.vm for step in steps]})
        return [step for step in steps if self._begin_step(step, now)]

    def cancel(self, who: str, name: str) -> Entry:
        """Cancel a move, by its VM or its id, and what it is for."""
        for entry in self.journal.open_entries():
            if name in (entry.move.vm, entry.move.id):
                errands.drop(self.store, who, entry.move.vm)
                self.journal.want_cancel(entry.move.id, who)
                return entry
        raise NotNow(f"no move of {name[:80]!r} is under way")

    async def close(self) -> None:
        """Stop, in good order; what is under way goes on."""
        await self.collector.close()
        await asyncio.to_thread(self.executor.stop, 5.0)
        if self.leader.leads():
            with contextlib.suppress(StoreGone, Deposed):
                self.chronicle.save(self.store, self.clock(), True)
        self.leader.give()


def remembered(ended: list[Entry], under_way: list[Entry],
               looked: float) -> Past:
    """
    Return what a journal says of the last hours.

    A person has @looked at what had gone wrong by then.
    """
    past = Past()
    for entry in sorted([*ended, *under_way],
                        key=lambda each: each.move.begun):
        past.note_begin(entry.move.begun, entry.flight())
    for entry in sorted(ended, key=lambda each: each.move.ended):
        move, at = entry.move, entry.move.ended
        if move.result == "stayed" and at > looked:
            past.note_failed(at)
        if move.result != "moved":
            past.note_stayed(move.vm, move.source, at)
            continue
        trip = trip_of(entry.flight(), at)
        past.note_end(move.vm, trip)
        if entry.cooled is not None:
            past.watched.remove(trip)
        if entry.cooled is False and at > looked:
            past.uncooled.setdefault(move.source, []).append(at)
    return past
