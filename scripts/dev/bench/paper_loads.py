# SPDX-License-Identifier: GPL-2.0-or-later
"""The paper's workloads: a dynamic web site, a video stream, Bonnie++."""

import http.client
import itertools
import os
import random
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional
from urllib.parse import urlencode

from dev.bench.settings import Settings
from dev.bench.workloads import (END_SECONDS, WEB_FILES, Ask, GuestClock,
                                 GuestJob, Request, Web, Workload, get_file)
from dev.demo.client import CLIENT_NICENESS
from dev.demo.guest.video import CHUNKS
from dev.demo.guest.video import PORT as VIDEO_PORT
from dev.demo.network import GUEST_ADDRESS, Network
from dev.rig.basics import TestFailure, require
from dev.rig.image import MIB

CUSTOMERS = 1000                # each has two accounts; see guest/paper.sh
FORM = {'Content-Type': 'application/x-www-form-urlencoded'}
PLAYER_SECONDS = 2.0            # of the film are buffered before it plays


# The web site

class Customer:
    """Logs in, looks, transfers money, logs out; then as somebody else."""

    def __init__(self, connection: http.client.HTTPConnection,
                 number: int, done: list[int]) -> None:
        self._connection = connection
        self._chosen = random.Random(number)
        self._ids = itertools.count(1 + number * 10 ** 6)
        self._done = done
        self._cookie = ''
        self._visit = self._pages()

    def ask(self) -> None:
        next(self._visit)

    def _pages(self) -> Iterator[None]:
        while True:
            user = 1 + self._chosen.randrange(CUSTOMERS)
            self._page('login', user=user)
            yield
            self._page('summary')
            yield
            # A cheque, as it was scanned
            get_file(self._connection, self._chosen.randrange(WEB_FILES))
            yield
            self._page('statement')
            yield
            self._transfer(user)
            yield
            self._page('summary')
            yield
            self._page('logout')
            self._cookie = ''
            yield

    def _transfer(self, user: int) -> None:
        number = next(self._ids)
        # To somebody else
        target = 2 * (user % CUSTOMERS) + 1 + self._chosen.randrange(2)
        self._page('transfer', id=number, source=2 * user, target=target,
                   amount=self._chosen.randrange(1, 10000),
                   remark=f'{self._chosen.random()}')
        self._done.append(number)

    def _page(self, name: str, **form: object) -> None:
        headers = {'Cookie': self._cookie} if self._cookie else {}
        if form:
            self._connection.request('POST', f'/bank?page={name}',
                                     urlencode(form), headers | FORM)
        else:
            self._connection.request('GET', f'/bank?page={name}',
                                     headers=headers)
        response = self._connection.getresponse()
        body = response.read()
        require(response.status == 200,
                f'page {name}: {response.status} {body[:80]!r}')
        cookie = response.getheader('Set-Cookie')
        if cookie:
            self._cookie = cookie.partition(';')[0]


class Bank(Web):
    """Connections of customers; a transfer that was answered is there."""

    def __init__(self, network: Network, settings: Settings,
                 folder: Path) -> None:
        super().__init__(network, settings, folder)
        self._done: list[int] = []

    def per_second(self) -> int:
        return self.settings.paper_pages

    def asker(self, connection: http.client.HTTPConnection,
              number: int) -> Ask:
        return Customer(connection, number, self._done).ask

    def check(self) -> None:
        lines = self.job('bank-check')
        require(lines[0] == 'wrong 0',
                f'{lines[0]} balances are not what the transfers say')
        lost = set(self._done) - set(map(int, lines[1:]))
        require(not lost and self._done,
                f'{len(lost)} of {len(self._done)} transfers are lost')
        self.job('stop-database')
        self.job('checksums')


# The video stream

@dataclass(frozen=True)
class Play:
    """What somebody saw who watched the film."""
    stalls: int                 # times that the picture stood still
    seconds: float              # that it did so


def play(arrivals: list[float], since: float, until: float) -> Play:
    """A player that fills its buffer before it begins.

    When that is empty the picture stands still until it is full again.
    @arrivals: of all chunks; only what happens in the given time is told.
    """
    stalls, stood = 0, 0.0
    due: Optional[float] = None
    for now in arrivals:
        if due is None:
            due = now + PLAYER_SECONDS
        if now > due:
            if since <= now < until:
                stalls += 1
                stood += now - due + PLAYER_SECONDS
            due = now + PLAYER_SECONDS
        due += 1 / CHUNKS
    return Play(stalls, stood)


class Film:
    """What the server sends; it begins again right after its end."""

    def __init__(self, path: Path, kbit: int) -> None:
        self._bytes = path.read_bytes()
        self.size = kbit * 1000 // 8 // CHUNKS      # of a chunk

    def chunk(self, number: int) -> bytes:
        place = number * self.size % len(self._bytes)
        end = place + self.size
        return (self._bytes[place:end]
                + self._bytes[:max(0, end - len(self._bytes))])


class Video(Workload):
    """Somebody outside who watches the film; an answer is a chunk."""

    def __init__(self, network: Network, settings: Settings, folder: Path,
                 film: Path) -> None:
        super().__init__(network, settings, folder)
        self._film = Film(film, settings.paper_video_kbit)
        self._socket: Optional[socket.socket] = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._wrong = 0
        self.arrivals: list[float] = []

    def start(self) -> None:
        self._socket = self.network.client_socket(socket.SOCK_STREAM)
        self._socket.settimeout(END_SECONDS)
        self._socket.connect((GUEST_ADDRESS, VIDEO_PORT))
        self._socket.sendall(b'%d\n' % self.settings.paper_video_kbit)
        self._thread.start()

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(),
                       CLIENT_NICENESS)
        assert self._socket
        with self._socket.makefile('rb') as stream:
            try:
                for number in itertools.count():
                    chunk = stream.read(self._film.size)
                    now = time.time()
                    if self._stopped.is_set():
                        return
                    require(len(chunk) == self._film.size,
                            'the stream ended')
                    self._wrong += chunk != self._film.chunk(number)
                    self.arrivals.append(now)
            except (OSError, TestFailure):
                self.errors += not self._stopped.is_set()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(END_SECONDS)
        self.close()

    def close(self) -> None:
        self._stopped.set()
        if self._socket:
            self._socket.close()

    def requests(self, clock: GuestClock) -> list[Request]:
        return [Request(now, now - before) for before, now
                in zip(self.arrivals, self.arrivals[1:])]

    def figures(self, since: float, until: float) -> dict[str, float]:
        seen = play(self.arrivals, since, until)
        return {'stalls': seen.stalls, 'stood still': seen.seconds}

    def check(self) -> None:
        require(not self._wrong,
                f'{self._wrong} chunks of the film were wrong')


# Bonnie++

class Bonnie(GuestJob):
    """Again and again; an answer is a MiB that the guest's disk moved."""

    def __init__(self, network: Network, settings: Settings,
                 folder: Path) -> None:
        # Byte by byte, TCG would write next to nothing
        super().__init__(network, settings, folder, 'bonnie-loop',
                         settings.paper_bonnie_mib, 0)

    def requests(self, clock: GuestClock) -> list[Request]:
        return spread(self.arrivals, [int(line) for line in self.lines])


def spread(times: list[float], counts: list[int]) -> list[Request]:
    """Each MiB between two counts of bytes, evenly."""
    found = []
    for begin, end, before, after in zip(times, times[1:], counts,
                                         counts[1:]):
        number = after // MIB - before // MIB
        found += [Request(begin + (end - begin) * (place + 1) / number,
                          (end - begin) / number) for place in range(number)]
    return found
