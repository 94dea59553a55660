# SPDX-License-Identifier: GPL-2.0-or-later
"""What the page asks for: itself, the map, charts, and what a round brings."""

import asyncio
import contextlib
import gzip
import json
from typing import Callable

from aiohttp import web

from wsm.controller import livemap, page, wishes
from wsm.controller.browser import Tokens
from wsm.controller.chronicle import SPANS
from wsm.controller.rounds import Controller, NotNow
from wsm.controller.store import StoreGone
from wsm.door import Handler, answer, body_of
from wsm.plan.plain import BadData

HEADERS = {"Content-Security-Policy": page.POLICY, "Cache-Control": "no-store",
           "X-Content-Type-Options": "nosniff", "Referrer-Policy":
           "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
           "Cross-Origin-Resource-Policy": "same-origin"}
SMALL = 4096                    # bytes that are not worth to be compressed


class Face:
    """All that a browser is given; @made leads, or says that it does not."""

    def __init__(self, made: Controller, tokens: Tokens,
                 role: Callable[[web.Request], tuple[str, str]]) -> None:
        self.made = made
        self.tokens = tokens
        self.role = role
        self.ending = asyncio.Event()
        self._columns: tuple[int, str] = (-1, "")   # round, hosts and VMs

    async def end(self, _app: web.Application) -> None:
        """Let go of all who listen."""
        self.ending.set()

    async def page(self, _request: web.Request) -> web.Response:
        """All of it for people."""
        return web.Response(text=page.whole(self.made),
                            content_type="text/html", headers=HEADERS)

    async def map(self, request: web.Request) -> web.Response:
        """All of it for the page."""
        rounds, headers = self.made.stats.rounds, dict(HEADERS)
        if self._columns[0] != rounds:
            self._columns = rounds, livemap.columns(self.made)
        body = livemap.whole(self.made, self._columns[1])
        if len(body) > SMALL and "gzip" in request.headers.get(
                "Accept-Encoding", ""):
            body = await asyncio.to_thread(gzip.compress, body, 5)
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, content_type="application/json",
                            headers=headers)

    async def me(self, request: web.Request) -> web.Response:
        """Who asks, and what his page sends along with orders."""
        who, role = self.role(request)
        made = answer({"who": who, "role": role,
                       "token": self.tokens.of(request)})
        made.headers.update(HEADERS)
        return made

    async def history(self, request: web.Request) -> web.Response:
        """What a host or a VM has used."""
        query, fleet = request.query, self.made.fleet
        kind = "host" if "host" in query else "vm"
        name, span = query.get(kind, ""), query.get("span", "600")
        if span not in map(str, SPANS):
            raise BadData(f"span: {span[:20]!r} is none of "
                          + ", ".join(map(str, SPANS)))
        known = {"host": set(fleet.nodes), "vm": set(fleet.guests)}[kind]
        if name not in known:
            raise NotNow(f"there is no {kind} {name[:80]!r} now")
        return answer(self.made.chronicle.history(fleet, kind, name,
                                                  int(span)))

    def moving(self) -> str:
        """Return what moves; nothing while that cannot be read."""
        with contextlib.suppress(StoreGone):
            if self.made.executor.flights:
                return json.dumps(livemap.moves(self.made))
        return ""

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """A line for each round, and moves each second while there are any."""
        reply = web.StreamResponse(headers={
            "Content-Type": "text/event-stream", **HEADERS})
        await reply.prepare(request)
        with contextlib.suppress(ConnectionError):      # a page that is closed
            await self.follow(reply)
        return reply

    async def follow(self, reply: web.StreamResponse) -> None:
        """Tell a page what is new, until the controller ends."""
        last, moved = -1, ""
        while not self.ending.is_set():
            moves = self.moving()
            if self.made.stats.rounds != last:
                last = self.made.stats.rounds
                await reply.write(f"data: {last}\n\n".encode())
            elif moves and moves != moved:
                await reply.write(f"event: moves\ndata: {moves}\n\n".encode())
            moved = moves
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.ending.wait(), 1.0)

    async def drain(self, request: web.Request) -> web.Response:
        """Empty a host, or let it be."""
        data = await body_of(request)
        host, on = data.get("host"), data.get("on")
        if not isinstance(host, str) or not isinstance(on, bool):
            raise BadData("host and on (true or false) are needed")
        found = wishes.drain(self.made, request["who"], host, on,
                             wishes.due_of(self.made, data, 0.0))
        self._columns = -1, ""
        return answer(found)

    def add_to(self, app: web.Application) -> None:
        """Let an application serve it."""
        for path, kind in (("page.css", "text/css"),
                           ("page.js", "text/javascript"),
                           ("icon.svg", "image/svg+xml")):
            app.router.add_get(f"/{path}", fixed(page.file(path), kind))
        app.on_shutdown.append(self.end)
        app.add_routes([web.get("/", self.page), web.get("/v1/map", self.map),
                        web.get("/v1/me", self.me),
                        web.get("/v1/history", self.history),
                        web.get("/v1/stream", self.stream),
                        web.post("/v1/drain", self.drain)])


def fixed(text: str, kind: str) -> Handler:
    """Return what answers with a text that never changes."""
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type=kind, headers=HEADERS)

    return handler
