# SPDX-License-Identifier: GPL-2.0-or-later
"""What the other host of a move says of those who were promised something.

The source's agent asks the destination's each second, with its own
certificate.  Who was never heard is not waited for: he may be an old agent, or
behind a wall.  Who was heard and is silent now has VMs that suffer.
"""

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from typing import Awaitable, Callable, Optional

from wsm.pki import Identity
from wsm.plan.promise import UNHEARD, Breach
from wsm.plan.plain import BadData, from_plain
from wsm.visit import GONE, Visitor

LOG = logging.getLogger("wsm-agent")
ANSWER = 1.0                    # s; who is slower is not heard


@dataclass(frozen=True)
class Told:
    """What an agent says to the source of a move into its host."""

    watches: bool = False       # somebody here was promised something
    breaches: tuple[Breach, ...] = ()   # that were not there before the move
    room: Optional[float] = None        # bytes/s that they leave of the link,
    begin: Optional[float] = None       # and before it is seen what they want
    disks: bool = False         # of somebody were promised to be fast,
    near: bool = False          # and are nearly too slow


# Asks the agent at @at, which must be that of @host, about @move; returns its
# answer, raises OSError
Ask = Callable[[str, str, str], Awaitable[object]]


@dataclass
class Peer:
    """The other host of a move."""

    host: str
    at: str                     # host:port of its agent
    told: Told = Told()
    heard: float = 0.0          # when it was, last
    complained: bool = False


async def nobody(at: str, host: str, _move: str) -> object:
    """There is no certificate to ask with."""
    raise OSError(f"{host} at {at} cannot be asked")


def by(visitor: Visitor, cluster: str) -> Ask:
    """Return how @visitor asks agents of @cluster."""
    async def ask(at: str, host: str, move: str) -> object:
        try:
            status, found = await visitor.get(
                f"https://{at}/v1/move/{move}/peer", cluster,
                Identity("agent", host), ANSWER)
        except GONE as error:
            raise OSError(f"{host} ({at}): {error or 'no answer in time'}"
                          ) from error
        if status >= 400 or not isinstance(found, dict):
            raise OSError(f"{host} ({at}): status {status}: "
                          f"{str(found)[:300]}")
        return found.get("guard", {})

    return ask


class Peers:
    """Those of all moves away; used from the event loop only."""

    def __init__(self, ask: Ask = nobody,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.ask = ask
        self.clock = clock
        self._peers: dict[str, Peer] = {}       # by move

    def follow(self, move: str, host: str, at: str) -> None:
        """A move goes to @host, whose agent is heard at @at; "": nowhere."""
        if at and move not in self._peers:
            self._peers[move] = Peer(host, at)

    def forget(self, move: str) -> None:
        """A move has ended."""
        self._peers.pop(move, None)

    async def look(self) -> None:
        """Ask all of them."""
        await asyncio.gather(*map(self.listen, list(self._peers)))

    async def listen(self, move: str) -> None:
        """Ask one of them, if it is followed."""
        peer = self._peers.get(move)
        if peer is None:
            return
        try:
            peer.told = from_plain(Told, await self.ask(peer.at, peer.host,
                                                        move))
            peer.heard, peer.complained = self.clock(), False
        except (OSError, BadData) as error:
            if not peer.complained:
                LOG.warning("move %s: %s", move, error)
            peer.complained = True

    def _told(self, move: str) -> Told:
        """Return what was heard last; of nobody nothing is known."""
        peer = self._peers.get(move)
        return peer.told if peer else Told()

    def watches(self, move: str) -> bool:
        """Return whether somebody there was promised something."""
        return self._told(move).watches

    def heeds_disks(self, move: str) -> bool:
        """Return whether disks there were promised to be fast."""
        return self._told(move).disks

    def near(self, move: str) -> bool:
        """Return whether a disk there is nearly too slow."""
        return self._told(move).near

    def breaches(self, move: str) -> list[Breach]:
        """Return what is broken there, or that it is not known any more."""
        peer = self._peers.get(move)
        if peer is None or not peer.told.watches:
            return []               # also one that was never heard
        silent = self.clock() - peer.heard
        if silent > UNHEARD:
            return [Breach(peer.host, "unheard", silent, UNHEARD)]
        return list(peer.told.breaches)

    def leaves(self, move: str, at_begin: bool = False) -> float:
        """Return the bytes/s that VMs there leave to the move."""
        told = self._told(move)
        found = told.begin if at_begin else told.room
        return math.inf if found is None else max(found, 1.0)
