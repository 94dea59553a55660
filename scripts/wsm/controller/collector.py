# SPDX-License-Identifier: GPL-2.0-or-later
"""Ask all agents, each round, what their hosts and VMs use."""

import asyncio
import logging
import math
import time
from typing import Iterable, Mapping

from wsm.cli.agents import AgentSaid, NoAnswer
from wsm.cli.home import HostEntry
from wsm.cli.outlook import clock_off
from wsm.controller.asking import Asker
from wsm.controller.intake import Intake
from wsm.controller.placing import Rule
from wsm.controller.probing import Prober
from wsm.plan import spec
from wsm.plan.fleet import Flight
from wsm.plan.inventory import Copy, VmUse
from wsm.plan.plain import BadData, from_plain
from wsm.plan.measured import Samples

LOG = logging.getLogger("wsm-controller")
TIMEOUT = 5.0                   # s for what was measured already
LONG = 60.0                     # s for a look into a VM
COPIES = 300.0                  # s between looks at old images
# Data of a type that was not expected, also deep inside
RUBBISH = (BadData, KeyError, TypeError, AttributeError, ValueError,
           OverflowError)


class Collector:
    """Fills @intake by asking @asker."""

    def __init__(self, intake: Intake, asker: Asker) -> None:
        self.intake = intake
        self.asker = asker
        self.silent: dict[str, str] = {}        # host: why
        self.prober = Prober(intake.fleet, asker)
        self._looking: dict[str, asyncio.Task[None]] = {}   # by host
        self._copied: dict[str, float] = {}     # host: when its images were

    async def round(self, now: float, entries: Mapping[str, HostEntry],
                    rules: Iterable[Rule], ours: Mapping[str, Flight]) -> None:
        """Ask everybody, and put the fleet in order."""
        self.intake.begin(now, entries)
        await asyncio.gather(*(self._host(name, entry)
                               for name, entry in entries.items()))
        owners = self.intake.owners()
        self.intake.settle(owners, rules, ours)
        wanted = dict(reversed(self.intake.wanted(owners)))
        for host in entries:
            if host not in self.silent:
                self._look(host, wanted.get(host, ""))
        self.prober.once({name: entry for name, entry in entries.items()
                          if name not in self.silent})

    async def settled(self) -> None:
        """Wait until all looks have ended."""
        while self._looking:
            await asyncio.gather(*self._looking.values())
        await self.prober.settled()

    async def close(self) -> None:
        """Look at nothing any more."""
        for task in self._looking.values():
            task.cancel()
        self.prober.close()

    async def _host(self, name: str, entry: HostEntry) -> None:
        begun = time.time()
        try:
            plain = await self.asker.get(name, "/samples", TIMEOUT)
            found = from_plain(Samples, plain, name)
            off = clock_off(found.host.clock, begun - found.age,
                            time.time() - found.age)
            self.intake.take(name, found, entry, off)
            self.silent.pop(name, None)
        except (NoAnswer, AgentSaid) as error:
            self.silent[name] = str(error)[:300]
        except RUBBISH as error:
            self.intake.dropped[name] += 1
            self.silent[name] = f"{name}: {type(error).__name__}: {error}"[:300]

    def _look(self, host: str, vm: str) -> None:
        """Look at a VM beside the rounds; one at a time at each host."""
        old = (self.intake.fleet.now - self._copied.get(host, -math.inf)
               >= COPIES)
        if host in self._looking or not (vm or old):
            return
        task = asyncio.create_task(self._learn(host, vm, old))
        self._looking[host] = task
        task.add_done_callback(lambda _: self._looking.pop(host, None))

    async def _learn(self, host: str, vm: str, images: bool) -> None:
        try:
            if images:
                await self._images(host)
            if vm:
                await self._inside(host, vm)
        except (NoAnswer, AgentSaid) as error:
            LOG.info("%s", error)
        except RUBBISH as error:
            self.intake.dropped[host] += 1
            LOG.info("%s: %s: %s", host, vm, str(error)[:300])

    async def _inside(self, host: str, vm: str) -> None:
        """Learn what a VM has, and what it was promised."""
        self.intake.tried[vm] = self.intake.fleet.now
        found = await self.asker.get(host, f"/vm/{vm}", LONG)
        if "use" in found:
            self.intake.learn(vm, from_plain(VmUse, found["use"]),
                              spec.from_json(found["spec"]))

    async def _images(self, host: str) -> None:
        """Learn which old images a host has: they make a way back cheap."""
        self._copied[host] = self.intake.fleet.now
        found = await self.asker.get(host, "/images", LONG)
        self.intake.copies[host] = tuple(
            from_plain(Copy, each) for each in found["images"])
