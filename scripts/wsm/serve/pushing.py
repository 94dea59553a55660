# SPDX-License-Identifier: GPL-2.0-or-later
"""Send disks to the destination, over channels that may break at any time."""

import asyncio
import collections
import re
import ssl
import time
from dataclasses import dataclass, field, replace
from typing import Callable, Optional

from wsm.missing_map import BadMap, decode_runs
from wsm.serve.claims import Session
from wsm.serve.dialing import Dialler, hang_up
from wsm.serve.extents import Todo
from wsm.serve.reading import Disk
from wsm.serve.speech import (HEADER, LACKS, MAX_ZERO, BadMessage, Kind,
                              Message, all_changed, decode_head, hello)

PIECE = 128 << 10               # bytes of data in a message
URGENT_LIMIT = 8 << 20          # in flight on channel 0, as for the source
MIN_WINDOW, MAX_WINDOW = PIECE, 16 << 20
# So much longer than the quickest answer may one take, or less is sent
PATIENCE = 0.1
ZERO_COST = 4096                # what a ZERO counts for, as at the source
ANSWER_SECONDS = 20.0
BACKOFF = (0.1, 2.0)
FAIL_SECONDS = 1.0
# What REFUSE says of a session (migration/wsm/dest/conn.c)
FEATURES = re.compile(r"had version (\d+) and features 0x([0-9a-f]+) in START")
CHANNELS = re.compile(r"but the session has (\d+)")


class Failed(Exception):
    """It will never work; says why."""


class HungUp(OSError):
    """The destination has closed a channel."""


@dataclass
class Flight:
    """A range that was sent and not answered."""

    disk: int
    begin: int
    end: int
    cost: int
    sent: float


@dataclass
class Channel:
    """One of the block channels."""

    number: int
    writer: Optional[asyncio.StreamWriter] = None
    flights: dict[tuple[int, int], Flight] = field(default_factory=dict)

    def load(self) -> int:
        """Return what is in flight."""
        return sum(flight.cost for flight in self.flights.values())


class Window:
    """How much may be in flight, so that what the guest waits for is quick."""

    def __init__(self) -> None:
        self.size = 4 * PIECE
        self.load = 0
        self.quickest = float("inf")
        self.shrunk = 0.0

    def answered(self, flight: Flight, now: float) -> None:
        """An answer came."""
        took = now - flight.sent
        self.quickest = min(self.quickest, took)
        if took < self.quickest + PATIENCE:
            self.size = min(self.size + flight.cost // 4, MAX_WINDOW)
        elif flight.sent > self.shrunk:
            self.size = max(self.size // 2, MIN_WINDOW)
            self.shrunk = now


class Refusal(Failed):
    """The destination does not let a channel in; says why."""


async def receive_message(reader: asyncio.StreamReader) -> Message:
    """Return the next message; raise BadMessage or OSError."""
    try:
        head = decode_head(await reader.readexactly(HEADER.size))
        return head.with_payload(await reader.readexactly(head.length))
    except asyncio.IncompleteReadError as error:
        raise HungUp("the destination has hung up") from error


async def greet(session: Session, number: int, reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter) -> int:
    """Say HELLO; return the features in use when the channel is welcome."""
    writer.write(hello(session.id, session.version, number, session.channels,
                       session.features).encode())
    await writer.drain()
    answer = await asyncio.wait_for(receive_message(reader), ANSWER_SECONDS)
    if answer.kind == Kind.REFUSE:
        raise Refusal(f"the destination refuses: {answer.text()}")
    if answer.kind != Kind.WELCOME:
        raise BadMessage(f"a message of type {answer.kind} instead of WELCOME")
    return int.from_bytes(answer.payload, "big")


def corrected(session: Session, refusal: str) -> Optional[Session]:
    """Return the session as the destination says that it is."""
    found = FEATURES.search(refusal)
    if found:
        return replace(session, version=int(found[1]),
                       features=int(found[2], 16))
    found = CHANNELS.search(refusal)
    return replace(session, channels=int(found[1])) if found else None


async def learn(session: Session, dialler: Dialler) -> Session:
    """Find out what an old record does not say; raise Refusal or OSError."""
    while True:
        reader, writer = await dialler.open()
        try:
            await greet(session, 0, reader, writer)
            return session
        except Refusal as refusal:
            better = corrected(session, str(refusal))
            if better is None or better == session:
                raise
            session = better
        finally:
            await hang_up(writer)


class Server:
    """Serves all disks of a session until the destination has everything."""

    def __init__(self, session: Session, disks: list[Disk],
                 dialler: Dialler, say: Callable[[str], None]) -> None:
        self.session = session
        self.disks = disks
        self.dialler = dialler
        self.say = say
        self.todo = [Todo(disk.size) for disk in disks]
        self.channels = [Channel(i) for i in range(session.channels)]
        self.wanted: collections.deque[tuple[int, int, int]] = \
            collections.deque()
        self.window = Window()
        self.changed = asyncio.Event()      # of what anybody may wait for
        self.extents: list[tuple[int, int, bool]] = [(0, 0, False)
                                                     for _ in disks]
        self.pulled = self.sent = 0
        self.lacks = False                  # the destination says LACK
        self.unsaid = 0                     # disks of which LACK is to come
        self.asked_end = False              # SYNC was sent
        self.secured = False                # and answered
        self.serial = 0
        self.trouble = ""
        self.seen = time.monotonic()        # that the destination was there
        self.greeted = False                # it was at all

    # What there is to do

    def total(self) -> int:
        """Return how many bytes the disks have."""
        return sum(disk.size for disk in self.disks)

    def left(self) -> int:
        """Return how many of them the destination has not confirmed."""
        return sum(todo.left() for todo in self.todo)

    def away_for(self) -> float:
        """Return for how many seconds the destination was not there."""
        if self.channels[0].writer:
            return 0.0
        return time.monotonic() - self.seen

    def is_done(self) -> bool:
        """Return whether nothing is left that could be done."""
        return self.secured or (not self.session.told and not self.left())

    def _wake(self) -> None:
        """Let all that wait look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    # Sending

    async def _send(self, channel: Channel, message: Message) -> None:
        writer = channel.writer
        if writer is None:
            raise HungUp("the channel is down")
        writer.write(message.encode())
        await writer.drain()

    async def _extent(self, disk: int, offset: int) -> tuple[int, bool]:
        """Look where the extent ends that is there; is it all zeroes?"""
        begin, end, zero = self.extents[disk]
        if not begin <= offset < end:
            end, zero = await asyncio.to_thread(self.disks[disk].extent,
                                                offset)
            self.extents[disk] = offset, end, zero
        return end, zero

    def _aligned(self, disk: int, begin: int, end: int) -> int:
        """Return the end of the last whole block before @end."""
        if end >= self.disks[disk].size:
            return self.disks[disk].size
        block = self.session.granularity
        return max(begin, end - end % block)

    async def _send_range(self, channel: Channel, disk: int, begin: int,
                          end: int, zero: bool) -> None:
        """Send a range that was taken; from now on it is in flight."""
        flight = Flight(disk, begin, end, ZERO_COST if zero else end - begin,
                        time.monotonic())
        channel.flights[disk, begin] = flight
        self._weigh(channel, flight.cost)
        data = b""
        if not zero:
            try:
                data = await asyncio.to_thread(self.disks[disk].read, begin,
                                               end - begin)
            except OSError as error:
                await self._unread(channel, flight, error)
                return
            zero = data.count(0) == len(data)
        if zero:
            self._weigh(channel, ZERO_COST - flight.cost)
            flight.cost = ZERO_COST
            data = b""
        self.sent += len(data)
        flight.sent = time.monotonic()
        await self._send(channel, Message(
            Kind.ZERO if zero else Kind.DATA, disk, offset=begin,
            count=end - begin, payload=data))

    async def _unread(self, channel: Channel, flight: Flight,
                      error: OSError) -> None:
        """It could not be read: try again, but not at once."""
        claim = self.session.claims[flight.disk]
        self.say(f"{claim.image}: cannot read {flight.end - flight.begin} "
                 f"bytes at {flight.begin}: {error}; trying again")
        await asyncio.sleep(FAIL_SECONDS)
        del channel.flights[flight.disk, flight.begin]
        self._weigh(channel, -flight.cost)
        self.todo[flight.disk].lost(flight.begin, flight.end)
        self._wake()

    def _weigh(self, channel: Channel, cost: int) -> None:
        """More is in flight, or less."""
        if channel.number:
            self.window.load += cost

    async def _push_once(self, channel: Channel) -> bool:
        """Send what is next; return whether there was anything."""
        for number, todo in enumerate(self.todo):
            span = todo.next()
            if span is None:
                continue
            end, zero = await self._extent(number, span[0])
            if todo.next() != span:
                return True         # another channel was quicker
            limit = max(PIECE, self.session.granularity)
            stop = self._aligned(number, span[0],
                                 min(end, span[0] + MAX_ZERO))
            if not zero or stop <= span[0]:
                zero = False
                stop = self._aligned(number, span[0], span[0] + limit)
            stop = min(stop, span[1])
            todo.take(span[0], stop)
            await self._send_range(channel, number, span[0], stop, zero)
            return True
        return False

    async def _push(self, channel: Channel) -> None:
        """Send what is left, as long as the channel lives."""
        while True:
            changed = self.changed
            if (self.wanted or self.unsaid or not self.channels[0].writer or
                    self.window.load >= self.window.size or
                    not await self._push_once(channel)):
                await changed.wait()

    async def _answer(self, channel: Channel) -> None:
        """Send what the guest waits for, and ask for the end."""
        while True:
            changed = self.changed
            if self.wanted and channel.load() < URGENT_LIMIT:
                disk, begin, end = self.wanted.popleft()
                await self._answer_pull(channel, disk, begin, end)
            elif not self.left() and self.session.told and \
                    not self.asked_end and not self.unsaid:
                await self._ask_end(channel)
            else:
                await changed.wait()

    async def _answer_pull(self, channel: Channel, disk: int, begin: int,
                           end: int) -> None:
        limit = max(PIECE, self.session.granularity)
        if end > begin + limit:
            self.wanted.appendleft((disk, begin + limit, end))
        # One by one: what is taken must go on its way
        while True:
            span = self.todo[disk].take_first(begin, min(end, begin + limit))
            if span is None:
                break
            self.pulled += span[1] - span[0]
            await self._send_range(channel, disk, *span, False)

    async def _ask_end(self, channel: Channel) -> None:
        """
        All was acknowledged: ask whether it is durable, too.

        The destination takes over the killed source's sync points then, of
        which it may have been told in part only: see all_changed().
        """
        self.asked_end = True
        self.serial += 1
        for claim in self.session.claims:
            for index in range(claim.points or 0):
                await self._send(channel, all_changed(
                    claim.number, claim.size, self.session.granularity,
                    index))
        await self._send(channel, Message(Kind.SYNC, offset=self.serial))

    # Receiving

    def _land(self, channel: Channel, message: Message) -> Flight:
        """Return what is answered, which is in flight no more."""
        flight = channel.flights.get((message.disk, message.offset))
        if flight is None or flight.end != message.offset + message.count:
            raise BadMessage(f"an answer to nothing: disk {message.disk}, "
                             f"offset {message.offset}")
        del channel.flights[message.disk, message.offset]
        if channel.number:
            self.window.answered(flight, time.monotonic())
        self._weigh(channel, -flight.cost)
        return flight

    def _check_range(self, message: Message) -> None:
        if message.disk >= len(self.disks) or message.count <= 0 or \
                message.offset + message.count > self.disks[message.disk].size:
            raise BadMessage(f"a range that is not on disk {message.disk}: "
                             f"{message.count} bytes at {message.offset}")

    async def _hear(self, channel: Channel, message: Message) -> None:
        """Do what a message says."""
        begin, end = message.offset, message.offset + message.count
        if message.kind in (Kind.ACK, Kind.FAIL):
            flight = self._land(channel, message)
            if message.kind == Kind.ACK:
                self.todo[flight.disk].arrived(begin, end)
            else:
                self.say("the destination cannot write: " + message.text())
                try:
                    await asyncio.sleep(FAIL_SECONDS)
                finally:
                    self.todo[flight.disk].lost(begin, end)
        elif message.kind == Kind.PULL:
            self._check_range(message)
            self.wanted.append((message.disk, begin, end))
        elif message.kind == Kind.HAVE:
            self._check_range(message)
            self.todo[message.disk].forget(begin, end)
        elif message.kind == Kind.LACK and self.lacks:
            self._check_range(message)
            self._hear_lack(message)
        elif message.kind == Kind.SYNC_ACK:
            self._hear_end(message)
        elif message.kind == Kind.READY:
            raise Failed("the guest was never handed over to the destination: "
                         "the source was killed before that. End the "
                         "destination, start the guest from the images here, "
                         "and type wsm-adopt")
        elif message.kind == Kind.GIVE_UP:
            raise Failed(f"the destination gives up: {message.text()}")
        self._wake()

    def _hear_lack(self, message: Message) -> None:
        """The destination says what it misses of a range of a disk."""
        block = self.session.granularity
        size = self.disks[message.disk].size
        begin, end = message.offset, message.offset + message.count
        try:
            missing = list(decode_runs(message.payload,
                                       -(-message.count // block)))
        except BadMap as error:
            raise BadMessage(f"LACK: {error}") from error
        self.todo[message.disk].lacks(
            begin, end, [(begin + first * block,
                          min(begin + (first + count) * block, size))
                         for first, count in missing])
        if end == size:
            self.unsaid = max(self.unsaid - 1, 0)
            self.asked_end = False

    def _hear_end(self, message: Message) -> None:
        if message.offset != self.serial:
            return                  # the answer to one before
        if message.count == 0:
            self.secured = True
            return
        self.say(f"{message.count} bytes are still missing at the "
                 "destination; all is sent once more")
        for todo in self.todo:
            todo.restart()
        self.asked_end = False

    # Channels

    def _lose(self, channel: Channel) -> None:
        """The connection is gone, and what was in flight on it."""
        flights, channel.flights = channel.flights, {}
        for flight in flights.values():
            self.todo[flight.disk].lost(flight.begin, flight.end)
            self._weigh(channel, -flight.cost)
        if channel.number == 0:
            # The destination says all of it again
            self.wanted.clear()
            self.asked_end = False
        self._wake()

    async def _use(self, channel: Channel, reader: asyncio.StreamReader,
                   writer: asyncio.StreamWriter) -> None:
        """The channel is up: send and receive until it breaks."""
        async def receive() -> None:
            while True:
                await self._hear(channel, await receive_message(reader))

        channel.writer = writer
        tasks = [asyncio.create_task(receive()),
                 asyncio.create_task(self._push(channel) if channel.number
                                     else self._answer(channel))]
        self._wake()
        try:
            done, _ = await asyncio.wait(
                tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            channel.writer = None
            if channel.number == 0:
                self.seen = time.monotonic()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _attempt(self, channel: Channel) -> None:
        """Open a channel and use it; returns by an exception."""
        reader, writer = await self.dialler.open()
        try:
            features = await greet(self.session, channel.number, reader,
                                   writer)
            self.trouble = ""
            if channel.number == 0:
                self.greeted = True
                # An old record does not say in what blocks it is said
                self.lacks = bool(features & LACKS) and self.session.told
                self.unsaid = len(self.disks) if self.lacks else 0
                self.say("the destination is there")
            await self._use(channel, reader, writer)
        finally:
            await hang_up(writer)
            self._lose(channel)

    async def keep_up(self, channel: Channel) -> None:
        """Have a channel open for ever; raise Failed."""
        pause = BACKOFF[0]
        while True:
            begun = time.monotonic()
            try:
                await self._attempt(channel)
            except ssl.SSLCertVerificationError as error:
                raise Failed("the destination's certificate is not good: "
                             f"{error}") from error
            except (OSError, asyncio.TimeoutError, BadMessage) as error:
                self._complain(channel, error)
            if time.monotonic() - begun > BACKOFF[1]:
                pause = BACKOFF[0]
            await asyncio.sleep(pause)
            pause = min(2 * pause, BACKOFF[1])

    def _complain(self, channel: Channel, error: Exception) -> None:
        """Say why there is no connection, once for each reason."""
        trouble = str(error) or "it does not answer"
        if self.secured:
            return              # that it hangs up then is as it should be
        if channel.number == 0 and trouble != self.trouble:
            self.trouble = trouble
            self.say(f"{self.dialler.address.uri}: {trouble}; trying again")
