# SPDX-License-Identifier: GPL-2.0-or-later
"""Drive a move: look at both ends, ask what comes next, do it, look again.

Nothing is remembered but the journal, so that another wsmctl can go on where
this one was killed.
"""

import contextlib
import dataclasses
import math
import secrets
import tempfile
import time
from typing import Any, Callable, Mapping, Optional

from wsm.cli.agents import (LONG, TIMEOUT, Agent, AgentSaid, Agents,
                            NoAnswer)
from wsm.cli.home import Home, Move
from wsm.plan.ends import End, Observed, Stage, Word
from wsm.plan.headway import figures_of
from wsm.plan.inventory import MAX_COPIED, human
from wsm.plan.outcome import Push, converge
from wsm.plan.plain import from_plain, to_plain
from wsm.plan.recovery import Do, Step, next_step

POLL = 0.3                  # s between looks
REFUSALS = 5                # of one step, then it is cancelled
BEGINS = 3                  # times that it is prepared, and performed
DOWNTIME = 0.3              # s, downtime-limit as in QEMU
RENEW = 5.0                 # s between words about how fast it may go,
VALID = 15                  # and for how long each of them is good
ALL = 1 << 37               # bytes/s: as fast as it can
STEADY = 0.9                # a rate that is nearly the same

Show = Callable[[Move, Step, Mapping[str, Any]], None]
# Of what QEMU says: (bytes/s that it may use now, 0: as was booked; a word)
Pace = Callable[[Mapping[str, Any]], tuple[float, str]]


def as_booked(_figures: Mapping[str, Any]) -> tuple[float, str]:
    """Nobody changes how fast it may be."""
    return 0.0, ""


class Driver:
    """One move."""

    def __init__(self, home: Home, agents: Agents, move: Move,
                 show: Show) -> None:
        self.home = home
        self.move = move
        self.show = show
        self.source = agents[move.source]
        self.destination = agents[move.destination]
        self.stop = False           # leave it to itself
        self.needs: dict[str, int] = {}
        self.downtime = DOWNTIME    # s, to begin with
        self.downtime_most = DOWNTIME
        self.patient = False        # go on although memory does not converge
        self.pace: Pace = as_booked
        self._note = ""             # a word of it for people
        self._renewed = -math.inf
        self._first = 0             # the rate with which it began
        self._held = False          # it was not so fast all the time
        self._round = 0
        self._left: list[int] = []  # bytes at the begin of each round
        self._pushes = 0
        self._key = ""
        self._where: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self._tries = 0
        self._refused = 0
        self._begins: dict[Do, int] = {}
        self._silent: dict[str, float] = {}
        self._pause = 0             # ms that the guest stood still
        self.figures: dict[str, Any] = {}

    def suit(self, needs: dict[str, int], most: float) -> None:
        """
        Take in what a VM is like.

        @needs: bytes of each disk at a host without a copy.  @most: s for
        which it may stand still.
        """
        self.needs, self.downtime_most = needs, most
        self.downtime = min(self.downtime, most)

    def save(self, **more: Any) -> None:
        """Change the journal, durably."""
        self.move = self.home.put_move(dataclasses.replace(self.move, **more))

    def cancel(self, reason: str) -> None:
        """Want no move any more."""
        if not self.move.cancel:
            self.save(cancel=True, reason=reason)

    # Looking

    def look(self, side: str) -> End:
        """Return one end."""
        agent = self.source if side == "source" else self.destination
        try:
            found = self._ask(agent)
        except (NoAnswer, AgentSaid) as error:
            since = self._silent.setdefault(side, time.monotonic())
            return End(Word.SILENT, still=time.monotonic() - since,
                       reason=str(error))
        self._silent.pop(side, None)
        end, figures = from_plain(End, found["end"]), figures_of(
            found["figures"])
        if end.word is not Word.HERE:
            # The source counts from the guest's stop, the destination its part
            self._pause = max(self._pause, int(figures.get(
                "downtime-ms", 0)))
        # What QEMU knows of the move that brought the guest is not of this one
        limits = figures.get("limits", {})
        self._held = self._held or limits.get("rate", 0) < (
            STEADY * limits.get("grant", 0))
        if end.word is not Word.HERE and (
                side == "source" or figures.get("phase") in (
                    "postcopy", "completed")):
            self.figures = {**self.figures, **{
                name: value for name, value in figures.items()
                if value or name not in self.figures}}
        return end

    def _ask(self, agent: Agent) -> dict[str, Any]:
        """Return what an agent sees of its end; raise NoAnswer, AgentSaid."""
        try:
            found: dict[str, Any] = agent.get(f"/move/{self.move.id}")
            return found
        except AgentSaid as error:
            if not error.no_move():
                raise
        # Nothing was begun there
        runs = any(vm["name"] == self.move.vm and vm["runs"]
                   for vm in agent.get("/vms")["vms"])
        return {"end": to_plain(End(Word.HERE if runs else Word.DEAD)),
                "figures": {}}

    def observe(self) -> Observed:
        """Return both ends and the journal."""
        if self.home.cancel_wanted(self.move.id):
            self.cancel("")
        return Observed(self.look("source"), self.look("destination"),
                        Stage(self.move.stage), self.move.cancel, self._tries)

    # Doing

    def run(self) -> Move:
        """Drive it to its end, or until a person is needed."""
        while True:
            seen = self.observe()
            step = next_step(seen)
            self.show(self.move, step, {**self.figures, "note": self._note}
                      if self._note else self.figures)
            self.renew(seen)
            wait = step.wait
            for do in step.do:
                try:
                    self.act(do, step, seen)
                    if do is Do.WAIT and step.row == "early":
                        self.push()
                except (NoAnswer, AgentSaid) as error:
                    wait = max(POLL, self.refused(do, error))
                    break
            else:
                self._refused = 0
            if step.person:
                self.save(text=step.text)
            if self.move.ended or self.stop or step.person:
                return self.move
            time.sleep(min(wait, POLL) if wait <= 1 else wait)

    def granted(self) -> int:
        """Return the bytes/s that it may use now."""
        rate, self._note = self.pace(self.figures)
        return self.limited(rate)

    def limited(self, rate: float) -> int:
        """Return @rate, or what was booked; 0: that, or all."""
        booked = 0 if self.move.due else self.move.rate
        found = min(filter(None, (math.ceil(rate), booked)), default=ALL)
        self._first = self._first or found
        self._held = self._held or not (
            STEADY * self._first <= found <= self._first / STEADY)
        return found

    def renew(self, seen: Observed) -> None:
        """Say how fast it may be; where that is not heard, it stays so."""
        now = time.monotonic()
        if (self.pace is as_booked or now - self._renewed < RENEW
                or seen.source.word not in (Word.PRE, Word.POSTCOPY)):
            return
        self._renewed = now
        rate, self._note = self.pace(self.figures)
        if not rate:
            return              # who has just taken it up knows no links yet
        with contextlib.suppress(NoAnswer, AgentSaid):
            self.source.order(
                f"/move/{self.move.id}/limits", TIMEOUT, valid_s=VALID,
                limits={"max-bandwidth": self.limited(rate)})

    def push(self) -> None:
        """Help memory that does not converge; in the end cancel."""
        ram = self.figures.get("ram", {})
        number = int(ram.get("dirty-sync-count", 0))
        if self.figures.get("phase") != "ram-precopy" or (
                number == self._round):
            return
        self._round = number
        self._left.append(int(ram.get("remaining", 0)))
        what, limit = converge(self._left, self.downtime, self.downtime_most,
                               self._pushes, False, False)
        if what is Push.DOWNTIME:
            self._pushes += 1
            self._left = self._left[-1:]
            self.source.order(f"/move/{self.move.id}/limits", limits={
                "downtime-limit": round(limit * 1000)})
        elif what is Push.CANCEL and not self.patient:
            self.cancel(
                f"memory does not converge: {human(self._left[-1])} were left "
                f"after round {number}, and no less than two rounds before, "
                f"with a downtime of up to {limit * 1000:.0f} ms. A higher "
                "--rate, a longer --downtime, or a quieter hour can help")

    def refused(self, do: Do, error: Exception) -> float:
        """Take in that a step did not work; return how long to wait."""
        self._refused += 1
        if do in (Do.BEGIN, Do.PREPARE, Do.PERFORM) and (
                isinstance(error, AgentSaid) or self._refused > REFUSALS):
            self.cancel(str(error))
            return 0.0
        return min(10.0, 0.5 * 2.0 ** self._refused)

    def act(self, do: Do, step: Step, seen: Observed) -> None:
        """Do one thing; raise NoAnswer, AgentSaid."""
        if do in (Do.PREPARE, Do.PERFORM):
            self._begins[do] = self._begins.get(do, 0) + 1
            if self._begins[do] > BEGINS:
                there = seen.destination.reason or "it gives no reason"
                self.cancel(f"{do.value} came to nothing {BEGINS} times: "
                            f"{there}")
                return
        move = f"/move/{self.move.id}"
        simple: dict[Do, Callable[[], Any]] = {
            Do.WAIT: lambda: None,
            Do.BEGIN: self.begin,
            Do.PREPARE: self.prepare,
            Do.PERFORM: self.perform,
            Do.CANCEL: lambda: self.source.order(f"{move}/cancel"),
            Do.KEEP: lambda: self.known(self.source, "keep"),
            Do.CLEAN: lambda: self.known(self.destination, "clean"),
            Do.HAND_OVER: self.hand_over,
            Do.FINISH: self.finish,
            Do.KILL_SOURCE: lambda: self.source.order(f"{move}/kill"),
            Do.BREAK_SOURCE: lambda: self.source.order(f"{move}/break"),
            Do.BREAK_DESTINATION: lambda: self.destination.order(
                f"{move}/break"),
            Do.RECOVER: self.recover,
            Do.FENCE: self.fence,
            Do.RESTART: lambda: self.source.order(f"{move}/restart",
                                                  token=self._where),
            Do.CLOSE: lambda: self.close(step),
        }
        simple[do]()

    def known(self, agent: Any, verb: str) -> None:
        """Give an order to one who may not know the move at all."""
        try:
            agent.order(f"/move/{self.move.id}/{verb}")
        except AgentSaid as error:
            if not error.no_move():
                raise

    def begin(self) -> None:
        """Lock the VM at its source, and learn what must arrive."""
        self.save(stage=int(Stage.BEGUN))
        self._facts = self.source.order(
            f"/move/{self.move.id}/begin", vm=self.move.vm,
            peer=self.move.destination)

    def prepare(self) -> None:
        """Let the destination wait for the guest."""
        if not self._facts:
            self.begin()
        if not self._key:
            # Who was killed took the key with him: a new one, a new QEMU
            self.known(self.destination, "clean")
            self._key = secrets.token_hex(32)
        self.save(stage=int(Stage.PREPARED))
        self.send_files()
        self._where = self.destination.order(
            f"/move/{self.move.id}/prepare", spec=self._facts["spec"],
            peer=self.move.source, vm_epoch=self._facts["epoch"],
            fingerprint=self._facts["fingerprint"], key=self._key,
            needs=self.needs, memory=self._facts.get("memory", []))

    def send_files(self) -> None:
        """Copy the files that the destination lacks and that are small."""
        for file in self._facts["spec"].get("file", {}).values():
            if file["size"] > MAX_COPIED or self.destination.ask(
                    "POST", "/file", {"file": file}, LONG)["there"]:
                continue
            path = f"/file/{file['sha256']}"
            with tempfile.TemporaryFile() as copy:
                self.source.fetch(path, copy)
                size = copy.tell()
                copy.seek(0)
                self.destination.send(path, copy, size)

    def perform(self) -> None:
        """Let the source begin."""
        if not self._key or not self._where:
            self.known(self.destination, "clean")
            return
        self.save(stage=int(Stage.PERFORMED))
        limits = {"max-bandwidth": self.granted(),
                  "downtime-limit": round(self.downtime * 1000)}
        self.source.order(f"/move/{self.move.id}/perform",
                          address=self._where["address"],
                          port=self._where["port"], key=self._key,
                          limits=limits, peer_at=self.destination.address,
                          memory=self._facts.get("memory", []))

    def hand_over(self) -> None:
        """Both write that the guest is the destination's."""
        for agent in (self.source, self.destination):
            try:
                agent.order(f"/move/{self.move.id}/hand-over")
            except NoAnswer:
                continue            # it does so by itself
            except AgentSaid as error:
                if error.code not in ("Refused", "NoMove"):
                    raise

    def finish(self) -> None:
        """Leave what is not needed any more."""
        for agent in (self.destination, self.source):
            try:
                agent.order(f"/move/{self.move.id}/finish")
            except NoAnswer:
                continue
            except AgentSaid as error:
                if error.code not in ("Refused", "NoMove"):
                    raise

    def recover(self) -> None:
        """Mend the link."""
        self._tries += 1
        where = self.destination.order(f"/move/{self.move.id}/recover")
        self.source.order(f"/move/{self.move.id}/recover", **where)

    def fence(self) -> None:
        """Be sure that the destination never runs the guest."""
        self._where = self.destination.order(f"/move/{self.move.id}/fence")

    def close(self, step: Step) -> None:
        """End the move in the journal."""
        moved = step.owner.value == "destination"
        result = "moved" if moved else (
            "cancelled" if self.move.cancel and not self.move.reason
            else "stayed")
        figures = self.figures
        sent = sum(int(disk.get("sent", 0))
                   for disk in figures.get("disks", []))
        self.save(stage=int(Stage.ENDED), ended=time.time(), result=result,
                  text=self.move.reason or step.text,
                  seconds=time.time() - self.move.begun,
                  # What was held back teaches nothing of links
                  factor=0.0 if self._held else self.move.factor,
                  rate=self.move.rate or self._first % ALL or int(self._held),
                  downtime_ms=self._pause,
                  phases={each["phase"]: int(each["ms"])
                          for each in figures.get("phases", [])},
                  differed={str(disk["name"]): int(disk["sent"])
                            / int(disk["compared"])
                            for disk in figures.get("disks", [])
                            if disk.get("compared")},
                  bytes=sent + int(figures.get("ram", {}).get(
                      "transferred", 0)))


def resume(home: Home, agents: Agents, move: Move, show: Show,
           driver: Optional[Driver] = None) -> Move:
    """Drive a move to its end; nobody else does meanwhile."""
    with home.locked(move.id):
        return (driver or Driver(home, agents, move, show)).run()
