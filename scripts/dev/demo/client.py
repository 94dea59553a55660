# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's clients, outside the guest: agent jobs, load and heartbeat."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dev.common import Failure
from dev.demo.guest.agent import CONTROL_PORT, ECHO_PORT
from dev.demo.network import GUEST_ADDRESS, Lan
from dev.demo.process import PATIENCE

HEARTBEAT_SECONDS = 0.01
CONNECT_SECONDS = 30.0
CLIENT_NICENESS = -10
PROGRESS = re.compile(r"progress: ([\d.]+) s, ([\d.]+) tps")


@dataclass(frozen=True)
class Result:
    """How a job in the guest ended."""

    code: int
    lines: tuple[str, ...]


class Job:
    """A job of the guest's agent (see guest/agent.py), over one connection.

    The connection stays open while the guest moves: nobody connects anew.
    """

    def __init__(self, network: Lan, *request: object,
                 on_line: Callable[[str], None] = lambda line: None) -> None:
        self._on_line = on_line
        self._result: Result | None = None
        self._socket = network.client_socket(socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_SECONDS)
        try:
            self._socket.connect((GUEST_ADDRESS, CONTROL_PORT))
            self._socket.settimeout(None)
            text = " ".join(str(word) for word in request)
            self._socket.sendall(f"{text}\n".encode())
        except OSError:
            self._socket.close()
            raise
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        lines: list[str] = []
        try:
            with self._socket.makefile("r", errors="replace") as stream:
                for line in stream:
                    kind, text = line[:2], line[2:].rstrip("\n")
                    if kind == "= ":
                        self._result = Result(int(text), tuple(lines))
                        return
                    lines.append(text)
                    self._on_line(text)
        except OSError:
            pass    # closed; wait() finds no result

    def stop(self) -> None:
        """Asks the agent to interrupt the job."""
        self._socket.sendall(b"stop\n")

    def close(self) -> None:
        """Drops the connection."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass    # already closed by the guest
        self._socket.close()

    def running(self) -> bool:
        """Returns whether the job and its connection live."""
        return self._reader.is_alive()

    def wait(self, seconds: float) -> Result:
        """Waits for the job's end."""
        self._reader.join(seconds)
        self.close()
        if self._result is None:
            raise Failure("a job in the guest did not end within "
                          f"{seconds:.0f} s, or its connection broke")
        return self._result


def run_job(network: Lan, *request: object,
            seconds: float = PATIENCE) -> Result:
    """Runs a job in the guest to its end."""
    try:
        return Job(network, *request).wait(seconds)
    except OSError as error:
        raise Failure(
            f"no connection to the guest's agent: {error}") from error


@dataclass(frozen=True)
class Gap:
    """A silence between two answers; seconds, time.monotonic()."""

    begin: float
    length: float


class Heartbeat:
    """Sends a numbered packet each 10 ms and notes when answers arrive.

    The longest silence between answers is the downtime that a client of the
    guest sees: it has everything in it, the freeze, the switch that must
    learn the guest's new port, and a guest too slow to answer.
    """

    def __init__(self, network: Lan) -> None:
        self._socket = network.client_socket(socket.SOCK_DGRAM)
        self._socket.settimeout(0.2)
        self._socket.connect((GUEST_ADDRESS, ECHO_PORT))
        self._stopped = threading.Event()
        # Both are appended to by one thread only
        self._arrivals: list[float] = []
        self._clocks: list[float] = []
        self._threads = [threading.Thread(target=self._send, daemon=True),
                         threading.Thread(target=self._receive, daemon=True)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(),
                       CLIENT_NICENESS)
        number = 0
        following = time.monotonic()
        while not self._stopped.is_set():
            number += 1
            try:
                self._socket.send(b"%d" % number)
            except OSError:
                pass    # a lost packet is a lost packet
            following = max(following + HEARTBEAT_SECONDS, time.monotonic())
            time.sleep(max(0.0, following - time.monotonic()))

    def _receive(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(),
                       CLIENT_NICENESS)
        while not self._stopped.is_set():
            try:
                answer = self._socket.recv(64)
            except OSError:
                continue
            self._clocks.append(int(answer.split()[1]) / 1e9)
            self._arrivals.append(time.monotonic())

    def close(self) -> None:
        """Stops the heartbeat."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def gaps(self, since: float, until: float) -> list[Gap]:
        """Returns the silences that overlap with this time."""
        times = self._arrivals[:]
        return [Gap(before, after - before)
                for before, after in zip(times, times[1:])
                if after >= since and before <= until]

    def clocks(self) -> list[tuple[float, float]]:
        """Returns when each answer came, and the guest's clock in it."""
        return list(zip(self._arrivals[:], self._clocks))

    def last(self) -> float:
        """Returns when the last answer came (0.0: none yet)."""
        return self._arrivals[-1] if self._arrivals else 0.0


@dataclass(frozen=True)
class Sample:
    """Transactions between two reports of pgbench, by the client's clock."""

    begin: float
    end: float
    transactions: float

    @property
    def rate(self) -> float:
        """Transactions per second."""
        return self.transactions / (self.end - self.begin)


class Load:
    """pgbench in the guest, followed from outside.

    pgbench counts with the guest's clock, which stands still while the guest
    is frozen. So only its counts are used; seconds are the client's.
    """

    def __init__(self, network: Lan, clients: int, seconds: int) -> None:
        self.samples: list[Sample] = []     # appended by one thread only
        self._last_arrival = time.monotonic()
        self._last_guest = 0.0
        self.job = Job(network, "pgbench", clients, seconds,
                       on_line=self._on_line)

    def _on_line(self, line: str) -> None:
        match = PROGRESS.match(line)
        if not match:
            return
        now, guest = time.monotonic(), float(match[1])
        count = float(match[2]) * (guest - self._last_guest)
        if now > self._last_arrival:
            self.samples.append(Sample(self._last_arrival, now, count))
        self._last_arrival, self._last_guest = now, guest

    def overlapping(self, since: float, until: float) -> list[Sample]:
        """Returns the samples most of which lies within this time."""
        return [sample for sample in self.samples[:]
                if since <= (sample.begin + sample.end) / 2 <= until]
