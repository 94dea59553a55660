# SPDX-License-Identifier: GPL-2.0-or-later
"""Let agents measure the ways between hosts, a few in each round.

Two hosts are looked at every ten minutes at most, from one side; in a large
fleet it takes longer, as a round has no more than a few.
"""

import asyncio
import logging
from typing import Iterator, Mapping

from wsm.cli.agents import AgentSaid, NoAnswer
from wsm.cli.home import HostEntry
from wsm.controller.asking import Asker
from wsm.plan.fleet import Fleet
from wsm.plan.way import between

LOG = logging.getLogger("wsm-controller")
OFTEN = 600.0                   # s
AT_ONCE = 4                     # ways in a round,
LOOKS = 200                     # of so many that are looked at
UNABLE = 3600.0                 # s until an older agent is asked again
TIMEOUT = 15.0                  # s


class Prober:
    """Knows whose turn it is."""

    def __init__(self, fleet: Fleet, asker: Asker) -> None:
        self.fleet = fleet
        self.asker = asker
        self._number = 0
        self._asked: dict[tuple[str, str], float] = {}
        self._unable: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def once(self, entries: Mapping[str, HostEntry]) -> None:
        """Begin some measurements, beside the rounds."""
        self._asked = {pair: at for pair, at in self._asked.items()
                       if self.fleet.now - at < OFTEN}
        for source, to in self.due(sorted(entries)):
            self._asked[source, to] = self.fleet.now
            task = asyncio.create_task(self._ask(source, to,
                                                 entries[to].address))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def due(self, names: list[str]) -> Iterator[tuple[str, str]]:
        """Yield the pairs whose turn it is: each of them once in a while."""
        count = len(names)
        pairs = count * (count - 1)
        for _ in range(min(LOOKS, pairs)):
            if len(self._tasks) >= AT_ONCE:
                break
            self._number = (self._number + 1) % pairs
            one = names[self._number % count]
            two = names[(self._number + 1 + self._number // count) % count]
            if one < two and self.is_due(one, two):
                yield one, two

    def is_due(self, one: str, two: str) -> bool:
        """Return whether a way was not looked at lately, and can be now."""
        now, nodes = self.fleet.now, self.fleet.nodes
        if not {one, two} <= set(nodes) or (one, two) in self._asked or (
                now - self._unable.get(one, -UNABLE) < UNABLE):
            return False
        hosts = [nodes[one].host, nodes[two].host]
        # A move fills its way, and would be measured
        if any(host.moves_in or host.moves_out for host in hosts):
            return False
        way = between(*hosts)
        return way is None or now - way.at >= OFTEN

    async def _ask(self, source: str, to: str, address: str) -> None:
        try:
            await self.asker.get(source, f"/way/{to}", TIMEOUT,
                                 {"at": address})
        except AgentSaid as error:
            if error.code == "http":        # it does not know that question
                self._unable[source] = self.fleet.now
            LOG.debug("%s", error)
        except NoAnswer as error:
            LOG.debug("%s", error)

    async def settled(self) -> None:
        """Wait until all have ended."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def close(self) -> None:
        """Measure nothing any more."""
        for task in self._tasks:
            task.cancel()
