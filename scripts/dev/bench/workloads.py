# SPDX-License-Identifier: GPL-2.0-or-later
"""Applications in the guest, and their clients outside.

Each tells what its clients were answered, and how long that took.  Where the
client paces itself, a request's time counts from when it was due, so a guest
that is silent for a while cannot hide it by being asked less often.
"""

import http.client
import os
import random
import socket
import statistics
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from dev.bench.settings import Settings
from dev.demo.client import CLIENT_NICENESS, Job, run_job
from dev.demo.network import GUEST_ADDRESS, Network
from dev.rig.basics import TestFailure, require

PGBENCH_CLIENTS = 4
WEB_CONNECTIONS = 8
WEB_FILES, WEB_FILE_BYTES = 128, 64 << 10
END_SECONDS = 30.0
UNLIMITED_SECONDS = 3600


@dataclass(frozen=True)
class Request:
    """One that was answered; client's wall clock, seconds."""
    end: float
    seconds: float


@dataclass(frozen=True)
class GuestClock:
    """The guest's clock, which stands still while the guest is frozen."""
    ahead: float                # client's minus guest's, before the freeze
    frozen: float               # what the freeze adds to that
    freeze: float               # when, by the guest's clock

    def request(self, end: float, seconds: float) -> Request:
        """As the client would have seen it; the guest's clock is given."""
        if end <= self.freeze:
            return Request(end + self.ahead, seconds)
        spans = end - seconds < self.freeze
        return Request(end + self.ahead + self.frozen,
                       seconds + (self.frozen if spans else 0.0))


def guest_clock(beats: list[tuple[float, float]], stop: float,
                resume: float) -> GuestClock:
    """@beats: wall clock and guest's clock of each answer."""
    before = [here - there for here, there in beats if here <= stop]
    after = [here - there for here, there in beats if here >= resume]
    require(before, 'no heartbeat before the freeze')
    ahead = statistics.median(before[-300:])
    frozen = statistics.median(after[:300]) - ahead if after else 0.0
    return GuestClock(ahead, frozen, stop - ahead)


class Workload(ABC):
    """What all of them can do; close() ends it at once."""

    def __init__(self, network: Network, settings: Settings,
                 folder: Path) -> None:
        self.network = network
        self.settings = settings
        self.folder = folder
        self.errors = 0         # clients that lost their connection

    @abstractmethod
    def start(self) -> None:
        """The clients begin to ask."""

    @abstractmethod
    def stop(self) -> None:
        """In good order, so that all is counted."""

    def close(self) -> None:
        """Whatever state it is in."""

    # pylint: disable-next=unused-argument
    def figures(self, since: float, until: float) -> dict[str, float]:
        """What else its clients saw in this time, by name."""
        return {}

    @abstractmethod
    def requests(self, clock: GuestClock) -> list[Request]:
        """All that were answered."""

    def check(self) -> None:
        """Fails if the guest's data are wrong; ends the application."""

    def job(self, name: str) -> tuple[str, ...]:
        result = run_job(self.network, name)
        require(result.code == 0, f'job {name} failed in the guest: '
                f'{" / ".join(result.lines[-3:])}')
        return result.lines


# PostgreSQL

class Postgresql(Workload):
    """pgbench outside the guest, over TCP."""

    def __init__(self, network: Network, settings: Settings, folder: Path,
                 program: Path) -> None:
        super().__init__(network, settings, folder)
        self._program = program
        self._process: Optional['subprocess.Popen[bytes]'] = None

    def start(self) -> None:
        command = [
            'ip', 'netns', 'exec', self.network.client,
            'nice', '-n', str(CLIENT_NICENESS), str(self._program),
            '--no-vacuum', '--client', str(PGBENCH_CLIENTS),
            '--rate', str(self.settings.app_transactions),
            '--time', str(UNLIMITED_SECONDS), '--log',
            '--log-prefix', str(self.folder / 'pgbench'),
            '--host', GUEST_ADDRESS, '--username', 'postgres', 'pgbench']
        with open(self.folder / 'pgbench.out', 'wb') as out:
            # pylint: disable-next=consider-using-with
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def stop(self) -> None:
        assert self._process
        output = (self.folder / 'pgbench.out').read_text('utf-8', 'replace')
        require(self._process.poll() is None,
                f'pgbench ended: {output.strip()[-300:]}')
        self.errors = output.count(' aborted')
        # pgbench writes the rest of its log when it has lost the server
        self.job('end-clients')
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired as err:
            raise TestFailure('pgbench does not end') from err

    def close(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def requests(self, clock: GuestClock) -> list[Request]:
        found = []
        for path in self.folder.glob('pgbench.[0-9]*'):
            for line in path.read_text('utf-8').splitlines():
                fields = line.split()
                if len(fields) == 7 and fields[2].isdigit():
                    found.append(Request(
                        int(fields[4]) + int(fields[5]) / 1e6,
                        self.microseconds(fields) / 1e6))
        return found

    def microseconds(self, fields: list[str]) -> int:
        """A line of pgbench's log: since the transaction was due."""
        return int(fields[2])

    def check(self) -> None:
        values = dict(line.split() for line in self.job('balances')
                      if ' ' in line)
        values.pop('transactions', '')
        require(len(values) == 4 and len(set(values.values())) == 1,
                f'the balances of pgbench do not agree: {values}')
        self.job('stop-database')
        self.job('checksums')


# Web server

Ask = Callable[[], None]


class Web(Workload):
    """Connections that stay open and ask for one file after the other."""

    def __init__(self, network: Network, settings: Settings,
                 folder: Path) -> None:
        super().__init__(network, settings, folder)
        self._stopped = threading.Event()
        self._requests: list[Request] = []
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def per_second(self) -> int:
        """Requests of all connections."""
        return self.settings.app_requests

    def asker(self, connection: http.client.HTTPConnection,
              number: int) -> Ask:
        """Returns what asks for one thing over this connection."""
        chosen = random.Random(number)
        return lambda: get_file(connection, chosen.randrange(WEB_FILES))

    def start(self) -> None:
        interval = WEB_CONNECTIONS / self.per_second()
        for number in range(WEB_CONNECTIONS):
            ask = self.asker(self._connect(), number)
            thread = threading.Thread(
                target=self._run, daemon=True,
                args=(ask, interval, number / WEB_CONNECTIONS))
            thread.start()
            self._threads.append(thread)

    def _connect(self) -> http.client.HTTPConnection:
        sock = self.network.client_socket(socket.SOCK_STREAM)
        self._sockets.append(sock)
        sock.settimeout(END_SECONDS)
        sock.connect((GUEST_ADDRESS, 80))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = http.client.HTTPConnection(GUEST_ADDRESS)
        connection.sock = sock
        connection.auto_open = 0    # a broken connection is an error
        return connection

    def _run(self, ask: Ask, interval: float, phase: float) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(),
                       CLIENT_NICENESS)
        due = time.time() + phase * interval
        while not self._stopped.is_set():
            time.sleep(max(0.0, due - time.time()))
            try:
                ask()
            except (OSError, http.client.HTTPException, TestFailure):
                self.errors += 1
                return
            now = time.time()
            self._requests.append(Request(now, now - due))
            due += interval

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(END_SECONDS)
        self.close()

    def close(self) -> None:
        self._stopped.set()
        for sock in self._sockets:
            sock.close()

    def requests(self, clock: GuestClock) -> list[Request]:
        return self._requests[:]


def get_file(connection: http.client.HTTPConnection, number: int) -> None:
    connection.request('GET', f'/file-{number:03d}')
    response = connection.getresponse()
    body = response.read()
    require(response.status == 200 and len(body) == WEB_FILE_BYTES,
            f'the web server answered {response.status}')


# In the guest

class GuestJob(Workload):   # pylint: disable=abstract-method
    """A job of the agent that goes on until it is stopped."""

    def __init__(self, network: Network, settings: Settings, folder: Path,
                 name: str, *numbers: int) -> None:
        super().__init__(network, settings, folder)
        self._request = (name, *numbers)
        self.job_running: Optional[Job] = None
        self.arrivals: list[float] = []     # of its lines
        self.lines: list[str] = []

    def start(self) -> None:
        self.job_running = Job(self.network, *self._request,
                               on_line=self._take_line)

    def _take_line(self, line: str) -> None:
        self.lines.append(line)
        self.arrivals.append(time.time())

    def stop(self) -> None:
        assert self.job_running
        ended = not self.job_running.running()
        if not ended:
            self.job_running.stop()
        result = self.job_running.wait(END_SECONDS)
        require(not ended, 'the job ended in the guest: '
                + ' / '.join(result.lines[-3:]))

    def close(self) -> None:
        if self.job_running:
            self.job_running.close()


class Fio(GuestJob):
    """Random reads and writes; the latencies come from fio's own log."""

    def __init__(self, network: Network, settings: Settings,
                 folder: Path) -> None:
        super().__init__(network, settings, folder, 'fio', settings.app_iops)

    def requests(self, clock: GuestClock) -> list[Request]:
        found = []
        for line in self.job('fio-log'):
            fields = line.split(',')
            if len(fields) >= 2:
                found.append(clock.request(int(fields[0]) / 1e3,
                                           int(fields[1]) / 1e9))
        return sorted(found, key=lambda request: request.end)


class Build(GuestJob):
    """Files built; a step took the time since the one before it."""

    def __init__(self, network: Network, settings: Settings,
                 folder: Path) -> None:
        super().__init__(network, settings, folder, 'build',
                         settings.app_steps)

    def requests(self, clock: GuestClock) -> list[Request]:
        return [Request(now, now - before)
                for before, now in zip(self.arrivals, self.arrivals[1:])]


Factory = Callable[[Network, Settings, Path], Workload]
