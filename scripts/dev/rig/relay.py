# SPDX-License-Identifier: GPL-2.0-or-later
"""A TCP relay between source and destination that can cut and stall.

It tells connections apart by their first bytes, as the destination does, and
reads the messages of block channels that are not encrypted, so that it can
stop a channel just before a message of a certain type.
"""

import selectors
import socket
import struct
import threading
from typing import Callable, Optional

from dev.rig.basics import wait_until
from dev.rig.wire import PREAMBLE, Parser

MAIN, BLOCK, MULTIFD, TLS, OTHER = 'main', 'block', 'multifd', 'tls', 'other'
CHUNK = 65536
# A main stream that goes on after postcopy-paused begins with this command
RESUME = b'\x08\x00\x09'


def classify(head: bytes) -> str:
    if head.startswith((b'QEVM', RESUME)):
        return MAIN
    if head.startswith(b'WSMB'):
        return BLOCK
    if head.startswith(struct.pack('>I', 0x11223344)):
        return MULTIFD
    if head.startswith(b'\x16'):
        return TLS
    return OTHER


class Connection:
    """One connection through the relay.  Fields: protected by Relay.lock."""

    def __init__(self, relay: 'Relay', source: socket.socket,
                 target: socket.socket) -> None:
        self._relay = relay
        self.kind = ''          # known once the first bytes came
        self.head = b''
        self.forwarded = 0      # bytes from source to destination
        self.open = True
        self.stalled = False
        self.peer = {source: target, target: source}
        self.source = source
        self.pending: dict[socket.socket, bytes] = {source: b'', target: b''}
        self.ended: set[socket.socket] = set()      # those that sent all
        self.held: dict[socket.socket, bytes] = {}  # kept back, from whom
        self.captured = bytearray()    # from the source, if Relay.capture
        self.parsers = {source: Parser(len(PREAMBLE)), target: Parser(0)}

    def cut(self) -> None:
        """Close both ends at once, as a broken link does in the end."""
        self._relay.call(lambda: self._relay.drop(self, reset=True))

    def stall(self) -> None:
        """Forward nothing any more, but keep the connection."""
        self._relay.call(lambda: setattr(self, 'stalled', True))

    def resume(self) -> None:
        """End a stall, and send on what was held."""
        def action() -> None:
            self.stalled = False
            for sock, data in self.held.items():
                self.pending[self.peer[sock]] += data
            self.held.clear()

        self._relay.call(action)

    def messages(self, kind: int) -> int:
        """How many messages of this type came, in both directions."""
        return sum(parser.counts.get(kind, 0)
                   for parser in self.parsers.values())


class Relay:
    """Listens on 127.0.0.1:port and forwards to a TCP port there."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.refusing = False   # close new connections at once
        self.capture = False    # keep what comes from the source
        # What becomes of data from the source, by the kind of the connection
        self.edit: Optional[Callable[[str, bytes], bytes]] = None
        # And of data from the destination
        self.edit_answer: Optional[Callable[[str, bytes], bytes]] = None
        self.buffer = 1         # read on while less than that waits to be sent
        self.hold: frozenset[int] = frozenset()     # see hold_at()
        self.hold_main = False  # keep back all of main streams
        self.connections: list[Connection] = []     # all there ever were
        self.lock = threading.RLock()
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake_in, self._wake_out = socket.socketpair()
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    @property
    def uri(self) -> str:
        return f'tcp:127.0.0.1:{self.port}'

    def close(self) -> None:
        self._stopping = True
        self._wake_out.send(b'x')
        self._thread.join()
        with self.lock:
            for connection in self.connections:
                self.drop(connection)
        for sock in (self._listener, self._wake_in, self._wake_out):
            sock.close()

    def of_kind(self, kind: str) -> list[Connection]:
        """The open connections of this kind, oldest first."""
        with self.lock:
            return [c for c in self.connections if c.open and c.kind == kind]

    def count(self, kind: str) -> int:
        """How many connections of this kind there ever were."""
        with self.lock:
            return sum(c.kind == kind for c in self.connections)

    def wait_open(self, kind: str, number: int = 1) -> list[Connection]:
        def enough() -> Optional[list[Connection]]:
            found = self.of_kind(kind)
            return found if len(found) >= number else None

        return wait_until(enough, f'{number} open {kind} connections')

    def wait_ended(self, kind: str) -> None:
        """Wait until the source has closed its connections of this kind."""
        def ended() -> bool:
            with self.lock:
                return all(c.source in c.ended for c in self.connections
                           if c.open and c.kind == kind)

        wait_until(ended, f'the end of {kind} connections')

    def cut(self, kind: str) -> None:
        for connection in self.of_kind(kind):
            connection.cut()

    def cut_all(self) -> None:
        with self.lock:
            for connection in self.connections:
                connection.cut()

    def hold_at(self, *kinds: int) -> None:
        """Keep back block messages of these types, and all behind them.

        Connection.resume() lets go what is held; hold_at() with no types
        lets messages that come later pass.
        """
        with self.lock:
            self.hold = frozenset(kinds)

    def wait_held(self) -> Connection:
        """Wait until some message is held, and return its connection."""
        def held() -> Optional[Connection]:
            with self.lock:
                return next((c for c in self.connections
                             if c.open and c.held), None)

        return wait_until(held, 'a message that the relay holds')

    # Internals

    def call(self, action: Callable[[], object]) -> None:
        """Change something under the lock, then let the loop see it."""
        with self.lock:
            action()
        self._wake_out.send(b'x')

    def drop(self, connection: Connection, reset: bool = False) -> None:
        if not connection.open:
            return
        connection.open = False
        for sock in connection.peer:
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                struct.pack('ii', 1, 0))
            try:
                self._selector.unregister(sock)
            except KeyError:
                pass    # it waited for nothing
            sock.close()

    def _loop(self) -> None:
        while not self._stopping:
            events = self._selector.select(timeout=1)
            with self.lock:
                for key, mask in events:
                    self._event(key, mask)
                for connection in self.connections:
                    if connection.open:
                        self._arm(connection)

    def _event(self, key: selectors.SelectorKey, mask: int) -> None:
        if key.fileobj is self._listener:
            self._accept()
        elif key.fileobj is self._wake_in:
            self._wake_in.recv(CHUNK)
        elif key.data.open and not key.data.stalled:
            assert isinstance(key.fileobj, socket.socket)
            try:
                self._transfer(key.data, key.fileobj, mask)
            except BlockingIOError:
                pass
            except OSError:
                self.drop(key.data)

    def _accept(self) -> None:
        source, _ = self._listener.accept()
        if self.refusing:
            source.close()
            return
        try:
            target = socket.create_connection(('127.0.0.1',
                                               self.target_port))
        except OSError:
            source.close()
            return
        for sock in (source, target):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
        self.connections.append(Connection(self, source, target))

    def _transfer(self, connection: Connection, sock: socket.socket,
                  mask: int) -> None:
        if mask & selectors.EVENT_WRITE and connection.pending[sock]:
            sent = sock.send(connection.pending[sock])
            connection.pending[sock] = connection.pending[sock][sent:]
            self._pass_on_end(connection, connection.peer[sock])
        other = connection.peer[sock]
        if (mask & selectors.EVENT_READ and
                len(connection.pending[other]) < self.buffer):
            data = sock.recv(CHUNK)
            if not data:
                connection.ended.add(sock)
                self._pass_on_end(connection, sock)
                return
            edit = self.edit_answer
            if sock is connection.source:
                self._account(connection, data)
                edit = self.edit
            if edit is not None:
                data = edit(connection.kind, data)
            connection.pending[other] += self._hold_back(connection, sock,
                                                         data)
            if connection.pending[other]:
                sent = other.send(connection.pending[other])
                connection.pending[other] = connection.pending[other][sent:]

    def _hold_back(self, connection: Connection, sock: socket.socket,
                   data: bytes) -> bytes:
        if self.hold_main and sock is connection.source and (
                connection.kind in (MAIN, TLS)):
            connection.held[sock] = data
            return b''
        if connection.kind != BLOCK:
            return data
        place = connection.parsers[sock].feed(data, self.hold)
        if place is None:
            return data
        connection.held[sock] = data[place:]
        return data[:place]

    def _pass_on_end(self, connection: Connection,
                     sock: socket.socket) -> None:
        """If @sock has sent all, and that has been passed on: so is its end."""
        if sock not in connection.ended or connection.pending[
                connection.peer[sock]]:
            return
        if len(connection.ended) == 2 and not connection.pending[sock]:
            self.drop(connection)
        else:
            connection.peer[sock].shutdown(socket.SHUT_WR)

    def _account(self, connection: Connection, data: bytes) -> None:
        connection.forwarded += len(data)
        if self.capture:
            connection.captured += data
        if not connection.kind:
            connection.head = (connection.head + data)[:4]
            if len(connection.head) == 4:
                connection.kind = classify(connection.head)

    def _arm(self, connection: Connection) -> None:
        """Wait for just what can be done now, so as not to spin."""
        for sock, other in connection.peer.items():
            mask = 0
            if not connection.stalled:
                if connection.pending[sock]:
                    mask |= selectors.EVENT_WRITE
                if not (sock in connection.ended or sock in connection.held
                        or len(connection.pending[other]) >= self.buffer):
                    mask |= selectors.EVENT_READ
            try:
                if mask:
                    self._selector.modify(sock, mask, connection)
                else:
                    self._selector.unregister(sock)
            except KeyError:
                if mask:
                    self._selector.register(sock, mask, connection)
