# SPDX-License-Identifier: GPL-2.0-or-later
"""Speak to agents."""

import contextlib
import http.client
import json
import shutil
import socket
import ssl
from typing import IO, Any, Mapping, Optional
from urllib.parse import quote

from wsm import pki
from wsm.cli.home import CliError, Home
from wsm.plan.plain import to_plain

TIMEOUT = 10.0              # s for an answer that takes no work
LONG = 180.0                # s for one that starts a QEMU or hashes files
LIMIT = 16 << 20
# A link that has gone silent is noticed also while an order is carried out
USER_TIMEOUT = 18           # TCP_USER_TIMEOUT, in ms
ALIVE = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 5,
         socket.TCP_KEEPCNT: 3, USER_TIMEOUT: 20000}


class NoAnswer(Exception):
    """An agent that cannot be reached."""


class AgentSaid(Exception):
    """An agent's refusal."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code

    def no_move(self) -> bool:
        """Return whether the agent does not know that move."""
        return self.code == "NoMove"


class Agent:
    """One agent."""

    kind = "agent"              # in its certificate

    def __init__(self, home: Home, name: str) -> None:
        self.name = name
        self.home = home
        self.cluster = home.cluster
        self.address = self.where(name)
        self._context = pki.client_context(*home.certificate())
        self._connection: Optional[http.client.HTTPSConnection] = None
        self.epoch = 0

    def where(self, name: str) -> str:
        """Return its host:port; raise CliError."""
        return self.home.host(name).address

    def _connect(self, timeout: float) -> http.client.HTTPSConnection:
        host, _, port = self.address.rpartition(":")
        connection = http.client.HTTPSConnection(
            host.strip("[]"), int(port), timeout=timeout,
            context=self._context)
        connection.connect()
        sock = connection.sock
        notice_silence(sock)
        if not isinstance(sock, ssl.SSLSocket) or not pki.peer_is(
                sock, self.cluster.name, self.kind, self.name):
            connection.close()
            raise NoAnswer(f"who answers at {self.address} is not the "
                           f"{self.kind} of {self.name}")
        return connection

    def ask(self, method: str, path: str,
            body: Optional[Mapping[str, Any]] = None,
            timeout: float = TIMEOUT) -> Any:
        """Ask and return the answer; raise NoAnswer, AgentSaid."""
        data = None if body is None else json.dumps(
            {key: to_plain(value) for key, value in body.items()})
        used = self._connection is not None
        try:
            status, text = self._exchange(method, path, data, timeout)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if used and data is None and isinstance(error, ConnectionError):
                # The agent has closed what was not used for a while
                return self.ask(method, path, body, timeout)
            raise NoAnswer(f"{self.name} ({self.address}): "
                           f"{error or 'no answer'}") from error
        try:
            found = json.loads(text)
        except ValueError as error:
            raise NoAnswer(f"{self.name}: no JSON") from error
        if status >= 400:
            raise AgentSaid(str(found.get("code", "")),
                            f"{self.name}: {found.get('text', 'refused')}")
        return found

    def _exchange(self, method: str, path: str, data: Optional[str],
                  timeout: float) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = self._connect(timeout)
        if self._connection.sock:
            self._connection.sock.settimeout(timeout)
        self._connection.request(method, f"/v1{path}", data)
        reply = self._connection.getresponse()
        return reply.status, reply.read(LIMIT)

    def get(self, path: str, timeout: float = TIMEOUT, **query: str) -> Any:
        """Look at something."""
        words = "&".join(f"{name.replace('_', '-')}={quote(value)}"
                         for name, value in query.items())
        return self.ask("GET", path + (f"?{words}" if words else ""),
                        timeout=timeout)

    def _epoch(self) -> int:
        if not self.epoch:
            hello = self.get("/hello")
            self.epoch = self.home.epoch_for(int(hello["epoch"]),
                                             str(hello["holder"]))
            self.home.acting.append(self.release)
        return self.epoch

    def release(self) -> None:
        """Let another controller act at once, now that this one has ended."""
        with contextlib.suppress(NoAnswer, AgentSaid):
            self.order("/release", TIMEOUT)

    def order(self, path: str, timeout: float = LONG, **body: Any) -> Any:
        """Give an order, as the controller that this folder is."""
        self.home.may_order()
        return self.ask("POST", path, {
            "epoch": self._epoch(), "instance": self.cluster.instance,
            **{name.replace("_", "-"): value
               for name, value in body.items()}}, timeout)

    def fetch(self, path: str, sink: IO[bytes]) -> None:
        """Write what an agent has into @sink; raise NoAnswer, AgentSaid."""
        connection = self._connect(LONG)
        try:
            connection.request("GET", f"/v1{path}")
            reply = connection.getresponse()
            if reply.status >= 400:
                raise AgentSaid("", f"{self.name}: {path}: {reply.reason}")
            shutil.copyfileobj(reply, sink, 1 << 20)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{self.name}: {error}") from error
        finally:
            connection.close()

    def send(self, path: str, source: IO[bytes], size: int) -> None:
        """Send a file; raise NoAnswer, AgentSaid."""
        epoch = self._epoch()
        connection = self._connect(LONG)
        try:
            connection.request(
                "POST", f"/v1{path}?epoch={epoch}&instance="
                f"{self.cluster.instance}", source,
                {"Content-Length": str(size)})
            reply = connection.getresponse()
            text = reply.read(LIMIT).decode("utf-8", "replace")
            if reply.status >= 400:
                raise AgentSaid("", f"{self.name}: {text[:500]}")
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{self.name}: {error}") from error
        finally:
            connection.close()

    def close(self) -> None:
        """Hang up."""
        if self._connection:
            self._connection.close()
        self._connection = None


def notice_silence(sock: socket.socket) -> None:
    """Let a connection end some 20 s after the other host was heard last."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ALIVE.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


class Agents:
    """All of them, each connected when it is needed."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._agents: dict[str, Agent] = {}

    def __getitem__(self, name: str) -> Agent:
        if name not in self._agents:
            self._agents[name] = Agent(self.home, name)
        return self._agents[name]

    def names(self) -> list[str]:
        """Return the hosts."""
        return sorted(self.home.cluster.hosts)

    def find_vm(self, name: str) -> str:
        """Return the host that owns a VM; raise CliError."""
        silent = []
        owners = []
        for host in self.names():
            try:
                found = self[host].get("/vms")["vms"]
            except NoAnswer as error:
                silent.append(str(error))
                continue
            owners += [host for vm in found if vm["name"] == name
                       and vm["owner"] in ("owner", "leaving")]
        if len(owners) == 1:
            return owners[0]
        if owners:
            raise CliError(f"{name} has two owners: {', '.join(owners)}. "
                           "Nothing is done until a person has looked", 4)
        if silent:
            raise CliError(f"no host that answers has {name}; no answer: "
                           + "; ".join(silent), 5)
        raise CliError(f"there is no VM {name}: 'wsmctl vm list'", 2)
