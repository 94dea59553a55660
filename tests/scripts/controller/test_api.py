# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the daemon as a whole: real certificates, wsmctl, bad agents."""

import asyncio
import contextlib
import io
import json
import threading
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest import mock

from wsm import pki
from wsm.cli.agents import AgentSaid, NoAnswer
from wsm.cli.home import HostEntry
from wsm.controller.store import StoreGone

from tests.scripts.controller.doorstep import Cluster, Served, listen

try:
    # pylint: disable=ungrouped-imports
    from wsm.controller import api, asking, service, setup

    from aiohttp import web
except ImportError:
    pass


class ApiTest(Served):
    """One controller of hosts that are not there."""

    def test_roles(self) -> None:
        """Each may do what his certificate says, an agent nothing."""
        self.rounds(2)
        cases: list[tuple[str, Any, str]] = [
            ("/v1/state", None, "viewer operator c1"),
            ("/v1/plan", None, "viewer operator c1"),
            ("/metrics", None, "viewer operator c1"),
            ("/v1/pause", {"on": False}, "operator c1"),
            ("/v1/mode", {"mode": "auto"}, "c1"),
            ("/v1/rules", {"kind": "never", "vms": ["x"]}, "c1"),
            ("/v1/hosts", {"hosts": {}}, "c1")]
        for path, body, allowed in cases:
            for file in ("viewer", "operator", "c1", "alpha"):
                status, said = self.ask(file, path, body)
                self.assertEqual(status == 403, file not in allowed,
                                 f"{file} {path}: {status} {said}")
        # Whoever signs for two clusters gives no right in the other one
        self.certificate("strange", "controller", "eve", cluster="elsewhere")
        self.assertEqual(self.ask("strange", "/v1/state")[0], 403)
        entries = self.made.ledger.audit(9)
        self.assertIn("user/op", [entry.who for entry in entries])

    def test_bad_orders(self) -> None:
        """What makes no sense is refused with a reason, by its status."""
        for path, body, status in (
                ("/v1/mode", {"mode": "fast"}, 400), ("/v1/mode", b"x", 400),
                ("/v1/mode", [1], 400), ("/v1/pause", {"on": 1}, 400),
                ("/v1/rules", {"kind": "pin", "vms": ["<b>"]}, 400),
                ("/v1/rules/remove", {"id": 99}, 409),
                ("/v1/hosts", {"hosts": {"a b": {"address": "x:1"}}}, 400),
                ("/v1/hosts", {"hosts": {"a": {"address": "x"}}}, 400),
                ("/v1/hosts", {"hosts": {"a": 1}}, 400),
                ("/v1/apply", {"plan": True}, 400),
                ("/v1/cancel", {"move": "none"}, 409),
                ("/v1/explain", {}, 405), ("/v1/x", None, 404),
                ("/v1/audit?last=0", None, 400),
                ("/v1/explain?vm=none", None, 409)):
            found, said = self.ask("c1", path, body)
            self.assertEqual(found, status, f"{path} {body!r}: {said}")
            self.assertTrue(said["text"])

    def test_plan(self) -> None:
        """Shown, carried out, explained, reported."""
        self.assertEqual(self.ctl("plan")[0], 5)
        self.rounds(3)
        self.expect(0, "no host is too hot", "plan")
        self.expect(0, "mode auto", "mode")
        self.expect(0, "mode ask", "mode", "ask")
        self.heat()
        text = self.expect(3, "alpha's CPU demand", "plan")
        number = text.split()[1].rstrip(",")
        self.expect(0, "begins nothing any more", "pause")
        self.expect(4, "paused", "apply", number)
        self.expect(0, "it goes on", "pause", "--off")
        self.expect(4, "not what would be done", "apply", number, "--vm", "x")
        self.expect(4, "there is no plan", "apply", "9999")
        self.expect(0, "db1 begins to move from alpha to beta", "apply",
                    number)
        end = 2000
        while self.made.executor.busy() and end:
            end -= 1
            threading.Event().wait(0.01)
        self.rounds(1)
        self.expect(0, "db1 is on beta", "explain", "vm", "db1")
        self.expect(0, f"plan {number},", "explain", "host", "alpha")
        self.expect(0, "alpha's CPU demand", "explain", "plan", number)
        self.expect(0, "fullest at their peaks", "explain", "nothing")
        self.expect(2, "explain nothing", "explain", "vm")
        self.expect(0, "it has left alpha", "why-not", "db1", "alpha")
        self.expect(0, "1 moved", "report")
        self.expect(0, "apply", "audit")
        self.expect(0, "rows are as they were", "audit", "verify")

    def test_rules(self) -> None:
        """Added, listed, removed; the planner heeds them."""
        self.rounds(2)
        text = self.expect(0, "never db1", "rule", "add", "never", "db1")
        self.expect(0, "controller/", "rule", "list")
        self.expect(2, "at least one host", "rule", "add", "pin", "db1")
        self.expect(0, "apart db1, web: at most 1 per host", "rule", "add",
                    "apart", "db1", "web")
        self.rounds(1)
        self.expect(0, "placement.mode is never", "why-not", "db1", "beta")
        number = text.split()[1].rstrip(":")
        self.expect(0, "is gone", "rule", "remove", number)
        self.expect(4, "there is no rule", "rule", "remove", number)

    def test_json(self) -> None:
        """Each verb with --json is one value, also if it fails."""
        self.rounds(2)
        for words in (("plan",), ("mode",), ("pause",), ("rule", "list"),
                      ("explain", "nothing"), ("explain", "vm", "db1"),
                      ("explain", "host", "x"), ("why-not", "db1", "beta"),
                      ("report",), ("audit",), ("audit", "verify"),
                      ("apply", "77"), ("controller", "list"),
                      ("controller", "sync")):
            status, text = self.ctl(*words, "--json")
            self.assertIn(text[:1], "[{", f"{words}: {text}")
            found = json.loads(text.split("\nwsmctl: ")[0])
            if status in (1, 2, 4, 5) and words[0] != "controller":
                self.assertEqual(found["status"], status, words)

    def test_hosts(self) -> None:
        """What wsmctl changes of hosts the controller learns at once."""
        self.home.put_host("gamma", HostEntry("127.0.0.1:1"))
        self.addCleanup(self.home.put_host, "gamma", None)
        self.expect(0, "", "host", "cordon", "gamma")
        self.assertEqual(self.made.ledger.hosts(), {
            "gamma": HostEntry("127.0.0.1:1", "cordoned")})
        self.made.leader.give()
        status, text = self.ctl("host", "cordon", "gamma", "--off")
        self.assertEqual(status, 0, text)
        self.assertIn("controller sync", text)

    def test_stands_by(self) -> None:
        """One that does not lead says so; nobody's orders are taken."""
        self.made.leader.give()
        for words in (("plan",), ("mode", "ask"), ("pause",),
                      ("explain", "nothing")):
            self.assertIn("only stands by", self.expect(5, "c1", *words))
        self.expect(0, "stands by", "controller", "list")

    def test_user(self) -> None:
        """A folder for somebody who may look, and do no more."""
        self.rounds(2)
        folder = str(self.folder / "eve")
        self.expect(0, "eve, viewer", "controller", "user", "eve", "--out",
                    folder)
        self.assertEqual(self.ctl("plan", home=folder)[0], 0)
        status, text = self.ctl("mode", "auto", home=folder)
        self.assertEqual(status, 1)
        self.assertIn("user/eve is viewer; this needs admin", text)
        found = json.loads(self.expect(0, "", "controller", "user", "bob",
                                       "--browser", "--json", "--out",
                                       f"{folder}2"))
        said = pki.openssl("pkcs12", "-in", f"{folder}2/browser.p12",
                           "-passin", f"pass:{found['password']}", "-nodes")
        self.assertEqual(said.count(b"BEGIN CERTIFICATE"), 2)
        self.assertIn(b"BEGIN PRIVATE KEY", said)

    def test_metrics(self) -> None:
        """Prometheus' format, with the figures of hosts."""
        self.made.store.set("eve", "paused", "yes")
        self.heat()
        _, text = self.ask("viewer", "/metrics")
        for line in ('wsm_host_ratio{host="alpha",resource="cpu"} 0.8',
                     'wsm_hotspots{kind="host.cpu"} 1.0', "wsm_leader 1.0",
                     "wsm_breakers_open 0.0", "wsm_rounds_total 15.0"):
            self.assertIn(line, text)
        status, health = self.ask("viewer", "/healthz")
        self.assertEqual((status, health["rounds"]), (200, 15))

    def test_page(self) -> None:
        """It shows hosts, VMs, reasons; what looks like HTML is text."""
        self.heat()
        self.made.collector.silent["beta"] = "<script>alert(1)</script>"
        self.made.store.alarm("host beta", "<script>alert(1)</script>")
        status, text = self.ask("viewer", "/")
        self.assertEqual(status, 200)
        for word in ("<td class=\"text\">alpha</td>", "db1",
                     "alpha&#x27;s CPU demand", "&lt;script&gt;alert(1)",
                     "<noscript>"):
            self.assertIn(word, text)
        self.assertNotIn("<script>alert", text)
        document = HTMLParser()
        document.feed(text)
        for path in ("/page.css", "/page.js"):
            self.assertEqual(self.ask("viewer", path)[0], 200)

    def test_stream(self) -> None:
        """Each round is told to who listens; the end lets go of him."""
        connection = self.connection("viewer", self.port)
        connection.request("GET", "/v1/stream")
        reply = connection.getresponse()
        self.assertEqual(reply.readline(), b"data: 0\n")
        self.rounds(1)
        self.assertEqual(reply.readline() + reply.readline(),
                         b"\ndata: 1\n")

    def test_stream_without_store(self) -> None:
        """While the store is away who listens is kept."""
        connection = self.connection("viewer", self.port)
        with mock.patch("wsm.controller.livemap.moves",
                        side_effect=StoreGone("away")), mock.patch.object(
                            self.made.executor, "flights", {"db1": None}):
            connection.request("GET", "/v1/stream")
            self.assertEqual(connection.getresponse().readline(),
                             b"data: 0\n")

    def order(self, file: str, headers: dict[str, str],
              path: str = "/v1/pause") -> tuple[int, str]:
        """Send an order as a browser does; return (status, what is wrong)."""
        connection = self.connection(file, self.port)
        connection.request("POST", path, '{"on": true}', headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read()).get("text", "")

    def test_browser(self) -> None:
        """A page of somebody else cannot use a browser's certificate."""
        self.rounds(1)
        here = f"127.0.0.1:{self.port}"
        token = {file: self.ask(file, "/v1/me")[1]["token"]
                 for file in ("operator", "viewer", "c1")}
        good = {"Origin": f"https://{here}", "Sec-Fetch-Site": "same-origin",
                "X-Wsm-Token": token["operator"]}
        cases: list[tuple[str, dict[str, str], str]] = [
            ("operator", {"Origin": "https://example.org"}, "else"),
            ("operator", {"Origin": "null"}, "else"),
            ("operator", {"Origin": ""}, "else"),
            ("operator", {"Origin": f"https://{here}.example.org"}, "else"),
            ("operator", {"Sec-Fetch-Site": "cross-site"}, "else"),
            ("operator", {"Sec-Fetch-Site": "same-site"}, "else"),
            ("operator", {"X-Wsm-Token": ""}, "load it again"),
            ("operator", {"X-Wsm-Token": "\xfc"}, "load it again"),
            ("operator", {"X-Wsm-Token": token["c1"]}, "load it again"),
            ("operator", {"X-Wsm-Token": token["viewer"]}, "load it again"),
            ("c1", {}, "load it again"),
            ("viewer", {"X-Wsm-Token": token["viewer"]}, "is viewer"),
            ("operator", {"Content-Type": "text/plain; charset=x"},
             "form")]
        for file, changed, words in cases:
            status, text = self.order(file, {**good, **changed})
            self.assertEqual(status, 403, f"{file} {changed}")
            self.assertIn(words, text)
        for left in good:
            status, text = self.order("operator", {
                key: value for key, value in good.items() if key != left})
            self.assertEqual(status, 200 if left == "Sec-Fetch-Site" else 403,
                             left)
        self.assertEqual(self.order("operator", good)[0], 200)
        self.assertTrue(self.made.paused())
        self.assertEqual(self.order("operator", good, "/v1/mode")[0], 403)

    def test_drain(self) -> None:
        """A host that is to be emptied is, until that is taken back."""
        self.rounds(15)
        self.expect(0, "mode ask", "mode", "ask")
        status, said = self.ask("operator", "/v1/drain", {"host": "x",
                                                          "on": True})
        self.assertEqual((status, said["code"]), (409, "NotNow"))
        for body in ({"host": 1, "on": True}, {"host": "alpha", "on": 1}):
            self.assertEqual(self.ask("operator", "/v1/drain", body)[0], 400)
        order = {"host": "alpha", "on": True}
        self.assertEqual(self.ask("viewer", "/v1/drain", order)[0], 403)
        self.assertEqual(self.ask("operator", "/v1/drain", order)[0], 200)
        self.rounds(1)
        plan = self.ask("viewer", "/v1/plan")[1]
        self.assertEqual({(step["from"], step["to"]) for step
                          in plan["steps"]}, {("alpha", "beta")})
        found = self.ask("viewer", "/v1/map")[1]
        self.assertEqual(found["hosts"]["drains"], [1, 0])
        self.assertEqual(self.ask("operator", "/v1/drain", {
            **order, "on": False})[0], 200)
        self.rounds(1)
        self.assertEqual(self.ask("viewer", "/v1/plan")[1]["steps"], [])

    def test_history(self) -> None:
        """Charts of ten minutes and of a day; what was not heard is a gap."""
        self.rounds(3)
        self.hosts.silent.add("alpha")
        self.rounds(2)
        self.hosts.silent.clear()
        self.rounds(1)
        for kind, name in (("host", "alpha"), ("vm", "db1")):
            status, found = self.ask("viewer",
                                     f"/v1/history?{kind}={name}&span=600")
            self.assertEqual((status, found["step"]), (200, 10))
            points = found["series"]["cpu"]
            self.assertEqual(len(points), 60)
            self.assertEqual([each is None for each in points[-5:]],
                             [False, False, True, True, False], kind)
            day = self.ask("viewer", f"/v1/history?{kind}={name}"
                           "&span=86400")[1]["series"]["cpu"]
            self.assertAlmostEqual(day[-1], points[-1], 3)
        for path, status in (("host=alpha&span=7", 400), ("host=no", 409),
                             ("vm=no", 409), ("", 409)):
            self.assertEqual(self.ask("viewer", f"/v1/history?{path}")[0],
                             status, path)

    def test_install(self) -> None:
        """What 'controller add' writes is a configuration that works."""
        folder = self.folder / "etc"

        def there(_via: Any, words: list[str], data: str = "") -> str:
            if "csr" in words:
                pki.new_key(folder / "controller.key")
                return pki.request(folder / "controller.key", "c2")
            service.install(folder / "controller.toml", json.loads(data))
            return ""

        self.home.put_host("alpha", HostEntry("127.0.0.1:1"))
        self.addCleanup(self.home.put_host, "alpha", None)
        self.addCleanup(self.home.put_controller, "c2", "")
        with mock.patch("wsm.cli.enrol.remote", there):
            self.expect(0, "It only looks", "controller", "add", "c2",
                        "127.0.0.1", "--folder", str(folder), "--state",
                        str(self.folder / "state"))
        self.assertEqual(self.home.cluster.controllers["c2"],
                         "127.0.0.1:7444")
        with mock.patch("sys.argv", ["x", "--config", str(
                folder / "controller.toml"), "check"]), (
                    contextlib.redirect_stdout(io.StringIO())):
            self.assertEqual(service.main(), 0)
        made, agents = self.loop.run(self.all_of(folder / "controller.toml"))
        self.assertEqual(list(made.ledger.hosts()), ["alpha"])
        self.loop.run(agents.close())
        made.leader.give()
        made.store.close()

    @staticmethod
    async def all_of(path: Path) -> Any:
        """Return a controller by its configuration."""
        found = service.controller(setup.read(path))
        service.first_hosts(found[0], path)
        return found


class AskTest(Cluster):
    """Agents that are real, and not well."""

    def answer(self, how: str, request: "web.Request") -> Any:
        """Return how this agent answers."""
        answers: dict[str, Any] = {
            "good": {"a": 1}, "big": "x" * (20 << 20),
            "deep": None, "none": None, "hang": None}
        if how == "deep":
            return web.Response(text="[" * 1000000)
        if how == "rubbish":
            return web.Response(body=b"\xff\x00{")
        if how == "redirect":
            return web.Response(status=302, headers={
                "Location": f"https://{request.host}/v1/good"})
        if how == "refused":
            return web.json_response({"code": "Refused", "text": "no"},
                                     status=409)
        return web.json_response(answers[how])

    def test_ask(self) -> None:
        """20 MiB, rubbish, silence, a stranger: an error, and soon."""
        go_on = asyncio.Event()

        async def agent(request: web.Request) -> web.StreamResponse:
            how = request.match_info["how"]
            if how == "hang":
                await go_on.wait()
            return self.answer(how, request)     # type: ignore[no-any-return]

        app = web.Application()
        app.add_routes([web.get("/v1/{how}", agent)])
        runner, port = self.loop.run(listen(app, api.tls(self.settings(
            "alpha"))))
        self.addCleanup(lambda: self.loop.run(runner.cleanup()))
        for name in ("alpha", "beta", "gone"):
            self.home.put_host(name, HostEntry(
                f"127.0.0.1:{1 if name == 'gone' else port}"))
            self.addCleanup(self.home.put_host, name, None)

        async def make() -> asking.Agents:
            return asking.Agents(self.home)

        self.addCleanup(self.loop.loop.call_soon_threadsafe, go_on.set)
        agents = self.loop.run(make())
        self.addCleanup(lambda: self.loop.run(agents.close()))
        self.assertEqual(self.loop.run(agents.get("alpha", "/good", 5)),
                         {"a": 1})
        self.assertIsNone(self.loop.run(agents.get("alpha", "/none", 5)))
        with self.assertRaises(AgentSaid):
            self.loop.run(agents.get("alpha", "/refused", 5))
        for host, path, words in (
                ("alpha", "/big", "more than 4 MiB"), ("alpha", "/deep", ""),
                ("alpha", "/rubbish", ""), ("alpha", "/hang", "in time"),
                ("alpha", "/redirect", ""),
                ("beta", "/good", "is not the agent of beta"),
                ("gone", "/good", "")):
            with self.assertRaises(NoAnswer, msg=path) as caught:
                self.loop.run(agents.get(host, path, 0.5 if path == "/hang"
                                         else 10))
            self.assertIn(words, str(caught.exception))
