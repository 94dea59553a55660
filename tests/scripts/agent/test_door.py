# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of who gets through the agent's door, with real certificates."""

import asyncio
import hashlib
import http.client
import io
import json
import shutil
import socket
import ssl
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any, Coroutine

from wsm import pki
from wsm.agent.config import Config, Folders, Pool, Tls
from wsm.cli.agents import Agent, AgentSaid, NoAnswer
from wsm.cli.home import Home, HostEntry
from wsm.plan import spec

from tests.scripts.certified import Certified

try:
    # pylint: disable=ungrouped-imports
    from wsm.agent import server

    from aiohttp import web
except ImportError:
    PRESENT = False
else:
    PRESENT = True

MOVE = "12345678-0000"


class Server:
    """An agent in a thread."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(20)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = web.AppRunner(server.Door(self.config).app())
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0,
                           ssl_context=server.tls(self.config))
        self._loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something beside it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@unittest.skipUnless(PRESENT and shutil.which("openssl"),
                     "python3-aiohttp and scripts/build are needed")
class DoorTest(Certified):
    """One agent for all tests."""

    agent: Server

    @classmethod
    def setUpClass(cls) -> None:
        """Make a cluster and start an agent."""
        super().setUpClass()
        cls.certificate("alpha", "agent", "alpha")
        cls.agent = Server(Config("alpha", cluster="test", tls=Tls(
            str(cls.home.folder / "ca.pem"), str(cls.folder / "alpha.pem"),
            str(cls.folder / "alpha.key")), folders=Folders(*(
                str(cls.folder / name) for name in ("etc", "state", "run"))),
            pool={"default": Pool(str(cls.folder / "pool"))}))
        cls.addClassCleanup(cls.agent.close)
        cls.home.put_host("alpha", HostEntry(f"127.0.0.1:{cls.agent.port}"))

    def ask(self, file: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask with another certificate; return (status, answer)."""
        connection = self.connection(file, self.agent.port)
        data = body if body is None or isinstance(body, bytes) else (
            json.dumps(body))
        connection.request("GET" if body is None else "POST", path, data)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        try:
            return reply.status, json.loads(text)
        except ValueError:
            return reply.status, text

    def client(self) -> Agent:
        """Return a controller of this cluster."""
        agent = Agent(self.home, "alpha")
        self.addCleanup(agent.close)
        return agent

    def test_controller(self) -> None:
        """Looks and gives orders."""
        agent = self.client()
        self.assertEqual(agent.get("/hello")["host"], "alpha")
        self.assertEqual(agent.get("/vms"), {"vms": []})
        with self.assertRaisesRegex(AgentSaid, "there is no VM vm1"):
            agent.order("/vm/start", name="vm1")
        agent.order("/release")

    def test_way(self) -> None:
        """How far it is: measured from agent to agent, asked by a controller."""
        self.certificate("beta", "agent", "beta")
        at = f"127.0.0.1:{self.agent.port}"
        agent = self.client()
        self.assertNotIn("ways", agent.get("/host"))
        for _ in range(2):
            way = agent.get("/way/alpha", at=at)
        self.assertTrue(0 < way["rtt"] < 1 and way["sent"] >= 16, way)
        self.assertEqual(agent.get("/host")["ways"]["alpha"]["sent"],
                         way["sent"])
        for peer, where in (("beta", at), ("alpha", "127.0.0.1:1")):
            with self.assertRaisesRegex(AgentSaid, f"way to {peer}"):
                agent.get(f"/way/{peer}", at=where)
        for where in ("", "x", "a b:1", "127.0.0.1:x", "/etc:1"):
            with self.assertRaisesRegex(AgentSaid, "HOST:PORT"):
                agent.get("/way/alpha", at=where)
        self.assertEqual(self.ask("beta", "/v1/ping"), (200, {}))
        self.assertEqual(self.ask("beta", f"/v1/way/alpha?at={at}")[0], 403)
        self.assertEqual(self.ask("beta", "/v1/hello")[0], 403)

    def test_idle(self) -> None:
        """A connection that the agent has closed meanwhile is no silence."""
        agent = self.client()
        agent.get("/hello")
        sock = vars(agent)["_connection"].sock
        self.assertTrue(sock.getsockopt(socket.SOL_SOCKET,
                                        socket.SO_KEEPALIVE))
        sock.shutdown(socket.SHUT_RDWR)
        self.assertEqual(agent.get("/hello")["host"], "alpha")

    def test_names(self) -> None:
        """Names that are none go nowhere."""
        agent = self.client()
        for name in ("../../etc/passwd", "$(reboot)", "<script>", "a b", "",
                     "x" * 5000):
            with self.assertRaises(AgentSaid, msg=name):
                agent.order("/vm/start", name=name)
        for path in ("/vm/..%2f..%2fx", "/vm/%3Cb%3E"):
            with self.assertRaises(AgentSaid):
                agent.get(path)
        with self.assertRaises(AgentSaid):
            agent.order("/move/../../x/clean")

    def test_user(self) -> None:
        """Users give agents no orders, and see nothing."""
        self.certificate("user", "user", "eve", "admin")
        orders: list[tuple[str, Any]] = [("/v1/hello", None),
                                         ("/v1/vm/stop", {})]
        for path, body in orders:
            self.assertEqual(self.ask("user", path, body)[0], 403)

    def test_agent(self) -> None:
        """Another agent may only look at moves that name it."""
        self.certificate("beta", "agent", "beta")
        for path, body in (("/v1/hello", None), ("/v1/vms", None),
                           ("/v1/vm/peer", None),
                           (f"/v1/move/{MOVE}", None),
                           (f"/v1/move/{MOVE}/clean", {"epoch": 99}),
                           (f"/v1/move/{MOVE}/peer", {"epoch": 99})):
            self.assertEqual(self.ask("beta", path, body)[0], 403, path)
        state = self.folder / "state/move"
        state.mkdir(parents=True, exist_ok=True)
        for peer, status in (("gamma", 403), ("beta", 200)):
            (state / f"{MOVE}.json").write_text(json.dumps(
                {"id": MOVE, "vm": "vm1", "role": "source", "peer": peer,
                 "ended": "done"}), encoding="ascii")
            self.assertEqual(self.ask("beta", f"/v1/move/{MOVE}/peer")[0],
                             status)

    def test_strangers(self) -> None:
        """Another CA, another cluster of this CA, none at all."""
        other = Home(str(self.folder / "other"))
        other.init("test")
        self.certificate("stranger", "controller", "x", home=other)
        with self.assertRaises((ssl.SSLError, OSError,
                                http.client.HTTPException)):
            self.ask("stranger", "/v1/hello")
        self.certificate("elsewhere", "controller", "x", cluster="elsewhere")
        self.assertEqual(self.ask("elsewhere", "/v1/hello")[0], 403)
        context = ssl.create_default_context(
            cafile=str(self.home.folder / "ca.pem"))
        context.check_hostname = False
        with self.assertRaises((ssl.SSLError, OSError,
                                http.client.HTTPException)):
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.agent.port, timeout=10, context=context)
            connection.request("GET", "/v1/hello")
            connection.getresponse()

    def test_files(self) -> None:
        """A file is kept if it is the one that it should be, and sent."""
        agent = self.client()
        pool = self.folder / "pool"
        data = b"kernel" * 1000
        digest = hashlib.sha256(data).hexdigest()
        file = {"sha256": digest, "size": len(data)}
        self.assertFalse(agent.ask("POST", "/file", {"file": file})["there"])
        with self.assertRaisesRegex(AgentSaid, "is not that file"):
            agent.send(f"/file/{'0' * 64}", io.BytesIO(data), len(data))
        self.assertEqual(list((pool / "files").iterdir()), [])
        agent.send(f"/file/{digest}", io.BytesIO(data), len(data))
        self.assertEqual((pool / "files" / digest).read_bytes(), data)
        self.assertTrue(agent.ask("POST", "/file", {"file": file})["there"])
        with self.assertRaises(AgentSaid):      # no VM uses it
            agent.fetch(f"/file/{digest}", io.BytesIO())
        made = spec.Spec("vm1", ("-kernel", "${file.k}"),
                         file={"k": spec.File(digest, len(data))})
        path = self.folder / "etc/vms/vm1.toml"
        path.parent.mkdir(parents=True)
        path.write_text(spec.dumps(made), encoding="ascii")
        self.addCleanup(shutil.rmtree, path.parent)
        copy = io.BytesIO()
        agent.fetch(f"/file/{digest}", copy)
        self.assertEqual(copy.getvalue(), data)
        for path_of in ("/file/..%2f..%2fetc%2fpasswd", "/file/abc"):
            with self.assertRaises(AgentSaid):
                agent.fetch(path_of, io.BytesIO())

    def test_wrong_agent(self) -> None:
        """A controller does not speak to an agent of another name."""
        self.home.put_host("gamma", HostEntry(
            f"127.0.0.1:{self.agent.port}"))
        self.addCleanup(self.home.put_host, "gamma", None)
        agent = Agent(self.home, "gamma")
        with self.assertRaisesRegex(NoAnswer, "is not the agent of gamma"):
            agent.get("/hello")

    def test_epochs(self) -> None:
        """Orders of an old epoch, or of another one, do not count."""
        agent = self.client()
        agent.order("/release")
        epoch = agent.get("/hello")["epoch"]
        file = "again"
        self.certificate(file, "controller", "again")
        for number, instance, status in (
                (epoch - 1, self.home.cluster.instance, 409),
                (epoch, "other", 409), (epoch, "", 409)):
            found = self.ask(file, "/v1/vm/stop", {
                "epoch": number, "instance": instance, "name": "a"})
            self.assertEqual(found[0], status, found)
            self.assertEqual(found[1]["code"], "Fenced")

    def test_rubbish(self) -> None:
        """What is no order is said to be none."""
        self.certificate("rubbish", "controller", "rubbish")
        for body in (b"{", b"[]", b'"x"', b'{"epoch": "1"}',
                     b'{"epoch": true}', b'{"epoch": 1, "instance": 5}'):
            found = self.ask("rubbish", "/v1/vm/stop", body)
            self.assertEqual(found[0], 400, (body, found))
        self.assertEqual(self.ask("rubbish", "/v1/vm/stop",
                                  b" " * (2 << 20))[0], 413)


@unittest.skipUnless(PRESENT, "python3-aiohttp is needed")
class LoopTest(unittest.TestCase):
    """What an agent does again and again."""

    def test_goes_on(self) -> None:
        """Whatever goes wrong: else nobody would follow moves any more."""
        faults = [OSError("gone"), KeyError("gpu"), OverflowError("10**400")]
        done = []

        async def do() -> None:
            done.append(1)
            if faults:
                raise faults.pop()
            raise asyncio.CancelledError

        with self.assertLogs("wsm-agent", "ERROR") as log, \
                self.assertRaises(asyncio.CancelledError):
            asyncio.run(server.every(0.0, do))
        self.assertEqual((len(done), len(log.records)), (4, 3))



class PkiTest(unittest.TestCase):
    """Certificates."""

    def test_name_is_given(self) -> None:
        """Who signs says the name, not who asks; keys are secret."""
        with tempfile.TemporaryDirectory() as name:
            home = Home(name)
            home.init("test")
            key = Path(name) / "x.key"
            pki.new_key(key)
            self.assertEqual(key.stat().st_mode & 0o077, 0)
            self.assertEqual((home.folder / "ca.key").stat().st_mode & 0o077,
                             0)
            text = pki.openssl(
                "req", "-new", "-key", str(key), "-subj", "/CN=x", "-addext",
                "subjectAltName=URI:wsm://test/controller/evil").decode()
            signed = pki.sign(home.folder, text, "test", "agent", "x")
            shown = pki.openssl("x509", "-noout", "-text",
                                data=signed.encode()).decode()
            self.assertIn("URI:wsm://test/agent/x", shown)
            self.assertNotIn("evil", shown)
            for kind, who in (("root", "x"), ("agent", "a,URI:b"),
                              ("agent", "a\nb")):
                with self.assertRaises(pki.NoCertificate):
                    pki.sign(home.folder, text, "test", kind, who)
