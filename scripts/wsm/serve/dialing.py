# SPDX-License-Identifier: GPL-2.0-or-later
"""Connect to the destination as its source did."""

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from wsm.serve.speech import PREAMBLE

CONNECT_SECONDS = 20.0
TLS_SECONDS = 15.0
HANG_UP_SECONDS = 1.0
TCP_USER_TIMEOUT = 18           # of Linux, in ms
# A host that has gone without a word is noticed within a minute
SILENCE_MS = 60000
KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5),
             (socket.TCP_KEEPCNT, 6), (TCP_USER_TIMEOUT, SILENCE_MS))


class BadAddress(ValueError):
    """An address that cannot be dialled; says why."""


@dataclass(frozen=True)
class Address:
    """Where the destination waits."""

    uri: str
    kind: str                   # tcp, unix or vsock
    host: str                   # or the path, or the number of the guest
    port: str = ""


def parse_address(uri: str) -> Address:
    """Return the address that `migrate` takes as @uri."""
    kind, _, rest = uri.partition(":")
    if kind == "unix" and rest:
        return Address(uri, kind, rest)
    # What comes behind a comma is how QEMU looks the name up
    host, colon, port = rest.split(",")[0].rpartition(":")
    if kind not in ("tcp", "vsock") or not colon or not host or \
            not port.isdigit():
        raise BadAddress(f"'{uri}' is no address: tcp:HOST:PORT, unix:PATH or "
                         "vsock:CID:PORT")
    if kind == "vsock" and not host.isdigit():
        raise BadAddress(f"'{uri}': the CID is no number")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return Address(uri, kind, host, port)


def make_tls(folder: Path) -> ssl.SSLContext:
    """Return what speaks TLS with the certificates in @folder, as QEMU."""
    names = {name: folder / f"{name}.pem" for name in
             ("ca-cert", "client-cert", "client-key", "ca-crl")}
    for name in ("ca-cert", "client-cert", "client-key"):
        if not names[name].exists():
            raise BadAddress(f"there is no {names[name]}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(names["ca-cert"])
        # An empty password: nobody is asked for one
        context.load_cert_chain(names["client-cert"], names["client-key"],
                                password="")
        if names["ca-crl"].exists():
            context.load_verify_locations(names["ca-crl"])
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (OSError, ssl.SSLError) as error:
        raise BadAddress(f"the certificates in {folder} cannot be used: "
                         f"{error}") from error
    return context


class Dialler:
    """Opens block channels."""

    def __init__(self, address: Address, tls: Optional[ssl.SSLContext],
                 hostname: Optional[str]) -> None:
        self.address = address
        self.tls = tls
        self.hostname = hostname or address.host

    async def _connect(self) -> tuple[asyncio.StreamReader,
                                      asyncio.StreamWriter]:
        address = self.address
        if address.kind == "tcp":
            return await asyncio.open_connection(address.host, address.port)
        if address.kind == "unix":
            return await asyncio.open_unix_connection(address.host)
        raw = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        try:
            raw.setblocking(False)
            await asyncio.get_running_loop().sock_connect(
                raw, (int(address.host), int(address.port)))
            return await asyncio.open_connection(sock=raw)
        except BaseException:
            raw.close()
            raise

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection that is a block channel; raise OSError."""
        reader, writer = await asyncio.wait_for(self._connect(),
                                                CONNECT_SECONDS)
        try:
            raw = writer.get_extra_info("socket")
            if self.address.kind == "tcp":
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in KEEPALIVE:
                    raw.setsockopt(socket.IPPROTO_TCP, option, value)
            writer.write(PREAMBLE)
            await writer.drain()
            if self.tls:
                await writer.start_tls(self.tls, server_hostname=self.hostname,
                                       ssl_handshake_timeout=TLS_SECONDS)
        except BaseException:
            await hang_up(writer)
            raise
        return reader, writer


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection, whatever state it is in."""
    try:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            # If the other side was first, abort() fails after that (with TLS)
            if not writer.transport.is_closing():
                writer.close()
            await asyncio.wait_for(writer.wait_closed(), HANG_UP_SECONDS)
    finally:
        writer.transport.abort()
