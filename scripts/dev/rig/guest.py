# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's workload as seen from outside: commands and heartbeats.

The guest's network card ends in a datagram socket of ours, at the source and
at the destination alike (see Vm).  So whoever runs the guest is heard,
commands reach it wherever it is, and a gap between heartbeats is what a
client of the guest would feel.  The frames are described in
tests/guest/link.h.
"""

import os
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from dev.rig.basics import TIMEOUT, TestFailure, require, wait_until

ETHERTYPE = 0x88b5
HEADER = struct.Struct('<6s6s2sII')
ETHERTYPE_BYTES = struct.pack('>H', ETHERTYPE)
BEAT = struct.Struct('<11Q')
HEARTBEAT, COMMAND, ANSWER = 1, 2, 3
OUR_MAC = bytes.fromhex('525400ffff01')
BROADCAST = b'\xff' * 6
REPEAT_SECONDS = 0.25
SO_TIMESTAMPNS = 35     # Linux; not in module socket


@dataclass(frozen=True)
class Beat:
    """One heartbeat; counts are totals since the guest's start."""
    time: float             # host's wall clock when the frame was sent
    sequence: int
    guest_ns: int
    writes: int
    reads: int
    discards: int
    flushes: int
    errors: int
    worst_write_us: int     # since the beat before
    worst_read_us: int
    rounds: int = 0         # the last that is flushed, see tests/guest/rounds.h
    worst_flush_us: int = 0     # since the beat before


class Request:
    """A command under way in the guest."""

    def __init__(self, guest: 'Guest', line: str) -> None:
        self._guest = guest
        self.line = line
        self.id = random.getrandbits(63)
        self.answer: Optional[str] = None

    def done(self) -> bool:
        if self.answer is None:
            self._guest.send(self)
            self.answer = self._guest.take_answer(self.id, REPEAT_SECONDS)
        return self.answer is not None

    def wait(self) -> str:
        """Wait for the answer; "bad ..." is a failure."""
        wait_until(self.done, f'guest command "{self.line}"')
        answer = str(self.answer)
        require(not answer.startswith('bad'),
                f'guest, "{self.line}": {answer}')
        return answer


class Guest:
    """The running guest, wherever it runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sockets: list[Path] = []      # of the network cards
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._sock.bind(str(path))
        self._changed = threading.Condition()
        self._answers: dict[int, str] = {}  # protected by _changed
        self._beats: list[Beat] = []        # protected by _changed
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._sock.close()

    def attach(self, card: Path) -> None:
        """Send commands to this network card too."""
        self._sockets.append(card)

    # Frames

    def _receive(self) -> None:
        while True:
            try:
                frame, ancillary, _, _ = self._sock.recvmsg(4096, 64)
            except OSError:
                return
            if not frame:
                return
            if len(frame) < HEADER.size or frame[12:14] != ETHERTYPE_BYTES:
                continue
            stamp = time.time()
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                    seconds, nanoseconds = struct.unpack('qq', data)
                    stamp = seconds + nanoseconds / 1e9
            self._handle(frame, stamp)

    def _handle(self, frame: bytes, stamp: float) -> None:
        kind, length = HEADER.unpack_from(frame)[3:]
        body = frame[HEADER.size:]
        with self._changed:
            if kind == HEARTBEAT:
                self._beats.append(Beat(stamp, *BEAT.unpack_from(body)))
            elif kind == ANSWER:
                number = struct.unpack_from('<Q', body)[0]
                self._answers[number] = body[8:8 + length].decode()
            self._changed.notify_all()

    def send(self, request: Request) -> None:
        text = request.line.encode()
        frame = HEADER.pack(BROADCAST, OUR_MAC, ETHERTYPE_BYTES, COMMAND,
                            len(text)) + struct.pack('<Q', request.id) + text
        for card in self._sockets:
            try:
                self._sock.sendto(frame, socket.MSG_DONTWAIT, str(card))
            except OSError:
                pass    # this QEMU is gone, not yet there, or not listening

    def take_answer(self, number: int, timeout: float) -> Optional[str]:
        with self._changed:
            self._changed.wait_for(lambda: number in self._answers, timeout)
            return self._answers.pop(number, None)

    # Commands

    def start_command(self, line: str) -> Request:
        request = Request(self, line)
        self.send(request)
        return request

    def command(self, line: str) -> str:
        return self.start_command(line).wait()

    def wait_ready(self) -> None:
        self.command('ping')

    def sectors(self) -> list[int]:
        """Size of each disk in 512-byte sectors."""
        return [int(word) for word in self.command('disks').split()[1:]]

    def fill(self, disk: int, offset: int, length: int) -> None:
        self.command(f'fill {disk} {offset // 512} {length // 512}')

    def keep(self, disk: int, offset: int, length: int) -> None:
        """Keep a range of a disk in memory; command('kept') looks at it."""
        self.command(f'keep {disk} {offset // 512} {length // 512}')

    def region(self, disk: int, offset: int, length: int) -> None:
        self.command(f'region {disk} {offset // 512} {length // 512}')

    def start(self, **load: int) -> None:
        """Start threads; the keys are those of Load in tests/guest/work.c."""
        words = ' '.join(f'{key}={value}' for key, value in load.items())
        self.command(f'start {words}')

    def stop(self) -> None:
        """Stop all threads; fails if any of them found an error."""
        self.command('stop')

    def verify(self) -> int:
        """Read every block of every disk; returns the number of sectors."""
        return int(self.command('verify').split()[1])

    # Heartbeats

    def beats(self, since: float = 0.0) -> list[Beat]:
        with self._changed:
            return [beat for beat in self._beats if beat.time >= since]

    def rounds(self) -> int:
        """The last round of which the guest has said that it is flushed."""
        with self._changed:
            return max((beat.rounds for beat in self._beats), default=0)

    def last_beat(self) -> Beat:
        with self._changed:
            require(self._changed.wait_for(lambda: self._beats, TIMEOUT),
                    'the guest sends no heartbeat')
            return self._beats[-1]

    def wait_beat(self, predicate: Callable[[Beat], bool],
                  what: str) -> Beat:
        """Wait for a heartbeat that satisfies the predicate."""
        def matches() -> bool:
            return bool(self._beats) and predicate(self._beats[-1])

        with self._changed:
            if not self._changed.wait_for(matches, TIMEOUT):
                raise TestFailure(f'timeout: {what}')
            return self._beats[-1]

    def wait_rounds(self, more: int) -> None:
        """Wait until the guest has flushed so many more rounds."""
        number = self.rounds() + more
        self.wait_beat(lambda beat: beat.rounds >= number,
                       f'the guest does not flush round {number}')

    def wait_progress(self, writes: int = 0, beats: int = 1) -> Beat:
        """Wait until the guest lived on and wrote that many times more."""
        now = self.last_beat()
        return self.wait_beat(
            lambda beat: (beat.sequence >= now.sequence + beats
                          and beat.writes >= now.writes + writes),
            f'the guest makes no progress ({writes} writes)')

    def longest_gap(self, since: float = 0.0,
                    until: Optional[float] = None) -> float:
        """Longest silence between heartbeats in this time, in seconds."""
        times = sorted(beat.time for beat in self.beats(since)
                       if until is None or beat.time <= until)
        require(len(times) > 1, 'too few heartbeats to measure a gap')
        return max(b - a for a, b in zip(times, times[1:]))

    def writes_per_second(self, since: float = 0.0,
                          until: Optional[float] = None) -> list[float]:
        """Guest writes in each whole second from the first heartbeat on."""
        beats = [beat for beat in self.beats(since)
                 if until is None or beat.time <= until]
        result: list[float] = []
        if not beats:
            return result
        first = beats[0]
        for beat in beats:
            if beat.time >= first.time + 1:
                seconds = beat.time - first.time
                rate = (beat.writes - first.writes) / seconds
                result += [rate] * max(1, int(seconds))
                first = beat
        return result


def remove_socket(path: Path) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
