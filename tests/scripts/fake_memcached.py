# SPDX-License-Identifier: GPL-2.0-or-later
"""A memcached of a few lines, which does what a test wants of it."""

import socketserver
import threading
from collections.abc import Callable
from pathlib import Path

Answer = Callable[[bytes], bytes]


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    server: "FakeMemcached"

    def handle(self) -> None:
        for line in self.rfile:
            words = line.split()
            if self.server.nonsense:
                self.wfile.write(self.server.nonsense)
                break
            if words[0] == b"mn":
                self.wfile.write(b"MN\r\n")
            elif words[0] == b"mg":
                self.get(words[1], words[2:])
            elif words[0] == b"ms":
                self.put(words[1], self.rfile.read(int(words[2]) + 2)[:-2])

    def get(self, key: bytes, flags: list[bytes]) -> None:
        """Answer a "mg" with the flag "q"."""
        if key not in self.server.kept:
            return
        value = self.server.answer(self.server.kept[key])
        opaque = flags[-1]
        if b"v" in flags:
            self.wfile.write(b"VA %d %s\r\n%s\r\n"
                             % (len(value), opaque, value))
        else:
            self.wfile.write(b"HD s%d %s\r\n" % (len(value), opaque))

    def put(self, key: bytes, value: bytes) -> None:
        """Keep it, if there is room."""
        if len(self.server.kept) >= self.server.room:
            self.wfile.write(b"SERVER_ERROR out of memory storing object\r\n")
        else:
            self.server.kept[key] = value


class FakeMemcached(socketserver.ThreadingUnixStreamServer):
    """A node of a ring on a Unix socket; to be used with "with"."""

    daemon_threads = True

    def __init__(self, path: Path, room: int = 1 << 30) -> None:
        super().__init__(str(path), Handler)
        self.address = f"unix:{path}"
        self.kept: dict[bytes, bytes] = {}
        self.room = room
        self.nonsense = b""         # it says that, and no more
        self.answer: Answer = lambda value: value
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
