# SPDX-License-Identifier: GPL-2.0-or-later
"""The controller's door: HTTPS with certificates at both ends, JSON inside.

Whose the certificate is says who may do what: a viewer looks, an operator
carries out and cancels, an admin changes what is done without being asked.
Whoever has a controller's certificate could give agents orders anyway, and is
an admin.
"""

import ssl
from typing import Any, Mapping

from aiohttp import web

from wsm import door, pki
from wsm.cli.home import HostEntry
from wsm.controller import (because, deeds, draining, errands, metrics,
                            wishes)
from wsm.controller.browser import Tokens
from wsm.controller.face import Face
from wsm.controller.moved import Moved
from wsm.controller.rounds import (
    LOG, STANDS_BY, Controller, NotNow)
from wsm.controller.setup import Mode, Settings
from wsm.controller.store import Deposed, StoreGone
from wsm.controller.then import Then, plan_json
from wsm.door import BODY_LIMIT, Handler, NotAllowed, answer, body_of
from wsm.plan import shown
from wsm.plan.fleet import Errand
from wsm.plan.inventory import HostState
from wsm.plan.plain import BadData, from_plain, to_plain
from wsm.plan.spec import ID

STATES = tuple(state.value for state in HostState)
STATUS: dict[type[Exception], int] = {
    NotNow: 409, BadData: 400, StoreGone: 503, Deposed: 503}
# What a viewer may not do
ORDERS = {"/v1/apply": "operator", "/v1/cancel": "operator",
          "/v1/pause": "operator", "/v1/drain": "operator",
          "/v1/errand": "operator",
          "/v1/mode": "admin", "/v1/rules": "admin",
          "/v1/rules/remove": "admin", "/v1/hosts": "admin"}


MOST = 1 << 60                  # of all numbers


def identity(request: web.Request) -> tuple[str, str]:
    """Return (who, role) by the peer's certificate; raise NotAllowed."""
    who = door.identity(request, request.app["cluster"])
    if who.kind == "controller":
        return str(who), "admin"
    if who.kind == "user" and who.role in pki.ROLES:
        return str(who), who.role
    raise NotAllowed("the certificate gives no right to look at cluster "
                     f"{request.app['cluster']}")


def let_in(request: web.Request) -> str:
    """Return who asks, if he may; raise NotAllowed."""
    who, role = identity(request)
    looks = request.method == "GET"
    needed = "viewer" if looks else ORDERS.get(request.path, "operator")
    if pki.ROLES.index(role) < pki.ROLES.index(needed):
        raise NotAllowed(f"{who} is {role}; this needs {needed}")
    if not looks:
        tokens: Tokens = request.app["tokens"]
        tokens.check(request)
    return who


def member(data: Mapping[str, Any], name: str, kind: type,
           default: Any = None) -> Any:
    """Return a member of that type; raise BadData."""
    value = data.get(name, default)
    if not isinstance(value, kind) or (isinstance(value, bool)
                                       and kind is not bool):
        raise BadData(f"{name}: {str(value)[:80]!r} is no {kind.__name__}")
    if isinstance(value, int) and abs(value) > MOST:    # for a database
        raise BadData(f"{name}: {str(value)[:80]} is no number up to {MOST}")
    return value


def count_of(request: web.Request, name: str, default: int,
             most: int) -> int:
    """Return a number of the address; raise BadData."""
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20
            and 0 < int(text) <= most):
        raise BadData(f"{name}: {text[:20]!r} is no number from 1 to {most}")
    return int(text)


def time_of(request: web.Request, name: str) -> float:
    """Return a time of the address; raise BadData."""
    text = request.query.get(name, "")
    try:
        at = float(text)
    except ValueError:
        at = 0.0
    if not 0.0 < at < 1e11:
        raise BadData(f"{name}: {text[:20]!r} is no time in s after 1970")
    return at


def then_of(made: Controller, request: web.Request) -> Then:
    """Return the round that the address names; raise BadData, NotNow."""
    if "decision" in request.query:
        return Then(made, 0.0, count_of(request, "decision", 0, MOST))
    return Then(made, time_of(request, "at"))


class Door:
    """All that can be asked."""

    def __init__(self, controller: Controller) -> None:
        self.made = controller
        self.moved = Moved(controller.journal, controller.clock())

    # Looking

    def leading(self) -> Controller:
        """Return the controller, if it decides; raise NotNow, Deposed."""
        if not self.made.leader.leads():
            raise Deposed(f"{self.made.settings.name} only stands by: "
                          + self.made.problem)
        return self.made

    def state(self) -> dict[str, Any]:
        """Return all of it in one value."""
        made, fleet = self.made, self.made.fleet
        last = made.last
        hosts = {name: {**shown.node_json(node), "known": fleet.is_known(
                    name, made.policy.hot.stale)}
                 for name, node in sorted(fleet.nodes.items())}
        return {"name": made.settings.name, "cluster": made.settings.cluster,
                "leads": made.leader.leads(), "epoch": made.store.epoch,
                "now": made.clock(), "mode": made.mode().value,
                "paused": made.paused(), "waits": round(made.waits()),
                "problem": made.problem, "plan": made.last_id,
                "hosts": hosts, "silent": made.collector.silent,
                "vms": {name: shown.guest_json(guest) for name, guest in
                        sorted(fleet.guests.items())},
                "decision": shown.decision_json(last) if last else None,
                "text": last.text() if last else "",
                "moves": [{**to_plain(entry.move), "why": entry.why,
                           "now": made.executor.figures.get(entry.move.id, {})}
                          for entry in made.journal.open_entries()],
                "alarms": [{"name": name, "since": at, "text": text}
                           for name, at, text in made.ledger.alarms()]}

    async def see_state(self, _request: web.Request) -> web.Response:
        """All of it."""
        return answer(self.state())

    async def health(self, _request: web.Request) -> web.Response:
        """Whether it works: 200 for a leader and one that stands by."""
        made = self.made
        well = made.problem in ("", STANDS_BY)
        return answer({"leads": made.leader.leads(), "problem": made.problem,
                       "rounds": made.stats.rounds}, 200 if well else 503)

    async def plan(self, _request: web.Request) -> web.Response:
        """What would be done now."""
        made = self.leading()
        if made.problem or made.last is None:
            raise StoreGone(made.problem or "nothing was decided yet: wait "
                            "for a round")
        return answer({"plan": made.last_id, "mode": made.mode().value,
                       "paused": made.paused(), "waits": round(made.waits()),
                       "text": made.last.text(),
                       "errands": wishes.listed(made),
                       **shown.decision_json(made.last)})

    async def explain(self, request: web.Request) -> web.Response:
        """Why something is as it is."""
        made, query = self.leading(), request.query
        if "at" in query or "decision" in query:
            return answer(self.explain_then(then_of(made, request), request))
        if "vm" in query:
            return answer(because.of_vm(made, query["vm"]))
        if "host" in query:
            return answer(because.of_host(made, query["host"]))
        if "plan" in query:
            return answer(plan_json(made, count_of(request, "plan", 0,
                                                   MOST)))
        return answer(because.of_nothing(made))

    async def decisions(self, request: web.Request) -> web.Response:
        """Which plans the record has since a time."""
        return answer({"decisions": [
            {"plan": number, "at": at, "until": until, "rounds": rounds,
             "kept": whole} for number, at, until, rounds, whole in
            self.leading().ledger.since(time_of(request, "since"))]})

    @staticmethod
    def explain_then(found: Then, request: web.Request) -> dict[str, Any]:
        """Why something was as it was."""
        if "vm" in request.query:
            return found.of_vm(request.query["vm"])
        if "host" in request.query:
            return found.of_host(request.query["host"])
        return found.of_nothing()

    async def why_not(self, request: web.Request) -> web.Response:
        """What speaks against a host for a VM, or spoke."""
        made, query = self.leading(), request.query
        vm, host = query.get("vm", ""), query.get("host", "")
        if "at" in query or "decision" in query:
            return answer(then_of(made, request).why_not(vm, host))
        return answer(because.why_not(made, vm, host))

    async def rules(self, _request: web.Request) -> web.Response:
        """The rules."""
        return answer({"rules": [{**to_plain(rule), "text": rule.text()}
                                 for rule in self.made.ledger.rules()]})

    async def moves(self, request: web.Request) -> web.Response:
        """Moves of the last days."""
        days = count_of(request, "days", 7, 3650)
        made = self.made
        return answer({"moves": [
            {**to_plain(entry.move), "spot": entry.spot, "why": entry.why}
            for entry in (*made.journal.ended_since(
                made.clock() - days * 86400), *made.journal.open_entries())]})

    async def report(self, request: web.Request) -> web.Response:
        """Wins and losses."""
        days = count_of(request, "days", 7, 3650)
        return answer(deeds.made_of(self.made,
                                     self.made.clock() - days * 86400))

    async def audit(self, request: web.Request) -> web.Response:
        """Who did what."""
        return answer({"entries": [to_plain(each) for each in
                                   self.made.ledger.audit(count_of(
                                       request, "last", 50, 100000))]})

    async def verify(self, _request: web.Request) -> web.Response:
        """Whether the audit log is as it was written."""
        wrong, count = self.made.ledger.audit_wrong()
        last = self.made.ledger.audit(1)
        return answer({"rows": count, "wrong": wrong,
                       "last": last[0].hash if last else ""})

    async def metrics(self, request: web.Request) -> web.Response:
        """For Prometheus; with ?vms=0 no names of VMs."""
        with_vms = request.query.get("vms", "1") != "0"
        return web.Response(
            body=metrics.exposition(self.made, self.moved, with_vms),
            headers={"Content-Type": metrics.CONTENT_TYPE})

    # Orders

    async def apply(self, request: web.Request) -> web.Response:
        """Carry out a plan."""
        data, made = await body_of(request), self.leading()
        number = member(data, "plan", int, made.last_id)
        only = member(data, "vm", str, "") or None
        return answer({"plan": number, "begun": [
            shown.step_json(step)
            for step in made.apply(request["who"], number, only)]})

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a move."""
        data, made = await body_of(request), self.leading()
        name = member(data, "move", str)
        if name not in made.executor.flights and errands.drop(
                made.store, request["who"], name):
            return answer({"vm": name, "id": ""})
        return answer(to_plain(made.cancel(request["who"], name).move))

    async def errand(self, request: web.Request) -> web.Response:
        """A VM is to be elsewhere by a time."""
        data, made = await body_of(request), self.leading()
        name, to = member(data, "vm", str), member(data, "to", str, "")
        guest = because.guest_of(made, name)
        return answer(wishes.want(made, request["who"], Errand(
            name, wishes.due_of(made, data), to,
            "" if to else guest.use.host, request["who"], made.clock())))

    async def mode(self, request: web.Request) -> web.Response:
        """What is done with decisions."""
        data = await body_of(request)
        try:
            wanted = Mode(member(data, "mode", str))
        except ValueError as error:
            raise BadData("mode: one of " + ", ".join(
                mode.value for mode in Mode)) from error
        self.leading().set_mode(request["who"], wanted)
        return answer({"mode": wanted.value})

    async def pause(self, request: web.Request) -> web.Response:
        """Begin nothing, or go on."""
        on = member(await body_of(request), "on", bool)
        self.leading().store.set(request["who"], "paused", "yes" if on else "")
        return answer({"paused": on})

    async def add_rule(self, request: web.Request) -> web.Response:
        """Add a rule."""
        data = await body_of(request)
        rule = self.leading().ledger.add_rule(
            request["who"], member(data, "kind", str),
            {name: value for name, value in data.items() if name != "kind"})
        return answer({"id": rule.id, "text": rule.text()})

    async def drop_rule(self, request: web.Request) -> web.Response:
        """Remove a rule."""
        number = member(await body_of(request), "id", int)
        if not self.leading().ledger.drop_rule(request["who"], number):
            raise NotNow(f"there is no rule {number}: 'wsmctl rule list'")
        return answer({})

    async def hosts(self, request: web.Request) -> web.Response:
        """Be told which hosts there are."""
        data = await body_of(request)
        entries = entries_of(member(data, "hosts", dict))
        made = self.leading()
        made.ledger.set_hosts(request["who"], entries)
        draining.forget(made.store, request["who"], entries)
        return answer({"hosts": sorted(entries)})

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[door.guarded(let_in, STATUS, LOG)],
                              client_max_size=BODY_LIMIT)
        app["cluster"] = self.made.settings.cluster
        app["tokens"] = Tokens()
        get: dict[str, Handler] = {
            "state": self.see_state, "plan": self.plan,
            "explain": self.explain, "why-not": self.why_not,
            "decisions": self.decisions,
            "rules": self.rules, "moves": self.moves, "report": self.report,
            "audit": self.audit, "audit/verify": self.verify}
        post: dict[str, Handler] = {
            "apply": self.apply, "cancel": self.cancel, "mode": self.mode,
            "pause": self.pause, "errand": self.errand, "rules": self.add_rule,
            "rules/remove": self.drop_rule, "hosts": self.hosts}
        app.add_routes([web.get(f"/v1/{name}", each)
                        for name, each in get.items()])
        app.add_routes([web.post(f"/v1/{name}", each)
                        for name, each in post.items()])
        Face(self.made, app["tokens"], identity).add_to(app)
        app.add_routes([web.get("/healthz", self.health),
                        web.get("/metrics", self.metrics)])
        return app


def entries_of(data: Mapping[str, Any]) -> dict[str, HostEntry]:
    """Return hosts that were sent; raise BadData."""
    found = {name: from_plain(HostEntry, each, name)
             for name, each in data.items()}
    for name, entry in found.items():
        host, _, port = entry.address.rpartition(":")
        if not ID.fullmatch(name) or not host or not (
                port.isascii() and port.isdigit()):
            raise BadData(f"{name[:80]!r}, {entry.address[:80]!r}: a name and "
                          "HOST:PORT are needed")
        if entry.state not in STATES:
            raise BadData(f"{name}: {entry.state[:80]!r} is none of "
                          + ", ".join(STATES))
    return found


def tls(settings: Settings) -> ssl.SSLContext:
    """Return how connections are made safe."""
    return pki.server_context(settings.tls.ca, settings.tls.cert,
                              settings.tls.key)
