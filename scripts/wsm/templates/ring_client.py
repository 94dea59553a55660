# SPDX-License-Identifier: GPL-2.0-or-later
"""A node of a ring: what it keeps, and to have it keep more.

A node is a memcached, of which the "meta" commands are used. Requests go out
many at a time; "q" keeps quiet what is as expected, "mn" ends them.
"""

import hashlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Optional

from wsm.templates import ring, sets

AT_ONCE = 128                   # pages of a batch
TIMEOUT = 10.0                  # seconds


class BadNode(Exception):
    """A node that cannot be used; says why."""


@dataclass(frozen=True)
class Place:
    """Where a node is, and what it is called."""

    name: str
    address: str


def parse_place(text: str) -> Place:
    """Return the node of [NAME=]HOST:PORT or [NAME=]unix:PATH."""
    name, equals, address = text.partition("=")
    if not equals or "/" in name:
        name = address = text
    if not name or len(name) > 255:
        raise ValueError(f"{text!r}: a name has 1 to 255 characters")
    host, colon, port = address.rpartition(":")
    if address.startswith("unix:"):
        if address == "unix:":
            raise ValueError(f"{text!r} has no path")
    elif not (host and colon and port.isdigit()):
        raise ValueError(f"{text!r} is neither HOST:PORT nor unix:PATH")
    return Place(name, address)


def connect(place: Place, tls: Optional[ssl.SSLContext]) -> socket.socket:
    """Return a connection to a node."""
    if place.address.startswith("unix:"):
        if tls:
            raise BadNode("TLS needs HOST:PORT")
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(TIMEOUT)
        sock.connect(place.address.removeprefix("unix:"))
        return sock
    host, _, port = place.address.removeprefix("tcp:").rpartition(":")
    host = host.strip("[]")
    sock = socket.create_connection((host, int(port)), TIMEOUT)
    return tls.wrap_socket(sock, server_hostname=host) if tls else sock


class Node:
    """A connection to a node."""

    def __init__(self, place: Place, tls: Optional[ssl.SSLContext]) -> None:
        self.place = place
        try:
            self._sock = connect(place, tls)
        except OSError as error:
            raise BadNode(str(error)) from error
        self._answers: BinaryIO = self._sock.makefile("rb")

    def close(self) -> None:
        """End it."""
        self._answers.close()
        self._sock.close()

    def _line(self) -> bytes:
        line = self._answers.readline(1024)
        if not line.endswith(b"\r\n"):
            raise BadNode("it has closed the connection")
        return line[:-2]

    def _ask(self, requests: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """
        Yield (line, value) of each answer to @requests.

        Each goes into a TLS record of its own: memcached sleeps on what is
        left of one when it has read a value.
        """
        try:
            for request in requests:
                self._sock.sendall(request)
            self._sock.sendall(b"mn\r\n")
            while (line := self._line()) != b"MN":
                value = b""
                if line.startswith(b"VA "):
                    value = self._answers.read(int(line.split()[1]) + 2)[:-2]
                yield line, value
        except (OSError, ValueError, IndexError) as error:
            raise BadNode(str(error)) from error

    def have(self, hashes: list[bytes], content: bool) -> set[bytes]:
        """
        Return those of at most AT_ONCE @hashes whose page is there.

        With @content all of it is looked at, else only its size.
        """
        wanted = b"v" if content else b"s"
        found = set()
        requests = [b"mg %s %s q O%d\r\n" % (ring.key(each), wanted, number)
                    for number, each in enumerate(hashes)]
        for line, value in self._ask([b"".join(requests)]):
            words = line.split()
            try:
                if words[0] not in (b"VA", b"HD"):
                    raise ValueError
                page = hashes[next(int(word[1:]) for word in words[1:]
                                   if word.startswith(b"O"))]
            except (StopIteration, ValueError, IndexError) as error:
                raise BadNode("it says what is no answer: "
                              + repr(line)) from error
            if (hashlib.sha256(value).digest() == page if content
                    else b"s%d" % sets.PAGE in words):
                found.add(page)
        return found

    def put(self, pages: list[tuple[bytes, bytes]]) -> None:
        """Have it keep (hash, page); at most AT_ONCE."""
        refused = [line.decode(errors="replace") for line, _ in self._ask(
            [b"ms %s %d q\r\n%s\r\n" % (ring.key(each), len(page), page)
             for each, page in pages])]
        if refused:
            raise BadNode(f"it has not kept {len(refused)} of {len(pages)} "
                          f"pages: {refused[0]}")
