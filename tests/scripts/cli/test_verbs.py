# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of wsmctl's verbs, as far as they need no agent."""

import argparse
import contextlib
import dataclasses
import io
import json
import tempfile
import unittest
from typing import Any, Mapping, Optional
from unittest import mock

from wsm.agent import config
from wsm.cli import console, drain, hosts, outlook, overview, terminal
from wsm.cli.agents import Agent, AgentSaid, NoAnswer
from wsm.cli.home import CliError, Cluster, Home, HostEntry, Move
from wsm.plan import spec
from wsm.plan.inventory import (RESERVE, DiskUse, Host, HostState, Pool,
                                VmUse)
from wsm.plan.plain import to_plain

from tests.scripts.typed import typed_apart

MBIT = 800                      # of each host


class Folder(unittest.TestCase):
    """Tests with a cluster of hosts of which none answers."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()  # pylint: disable=R1732
        self.addCleanup(folder.cleanup)
        self.home = Home(folder.name)
        self.home.save(Cluster("test", "x", {
            "a": HostEntry("localhost:1", "draining"),
            "b": HostEntry("localhost:1")}))

    def ctl(self, *words: str) -> tuple[int, str, str]:
        """Type a command; return status, output, errors."""
        return typed_apart("--home", str(self.home.folder), *words)

    def moved(self, vm: str, source: str, to: str, **more: Any) -> Move:
        """Write a move that has ended into the journal."""
        number = len(self.home.moves())
        return self.home.put_move(dataclasses.replace(
            Move(f"m{number}", vm, source, to, begun=number + 1.0, ended=2.0,
                 result="moved"), **more))


class JsonTest(Folder):
    """--json is one JSON value, also of what goes wrong."""

    def test_each_is_one_value(self) -> None:
        """Verbs that need nobody, and errors with their exit status."""
        self.moved("vm", "a", "b")
        cases: list[tuple[tuple[str, ...], int]] = [
                (("history",), 0), (("cancel", "m0"), 0),
                (("recover", "vm"), 0), (("host", "cordon", "b"), 0),
                (("host", "uncordon", "b"), 0),
                (("host", "uncordon", "$(id)\x1b[2J"), 2),
                (("vm", "adopt", "a", "v", "--qmp", "qmp"), 2),
                (("vm", "adopt", "x", "v", "--qmp", "/q"), 2),
                (("drain", "a", "--cancel"), 0), (("host", "cordon", "x"), 2),
                (("cancel", "m9"), 2), (("init", "--cluster", "y"), 1),
                (("init", "--cluster", "test"), 0),
                (("watch", "--every", "0"), 2)]
        for words, status in cases:
            found, out, err = self.ctl(*words, "--json")
            self.assertEqual(found, status, f"{words}: {out}{err}")
            value = json.loads(out)
            if status:
                self.assertEqual(value["status"], status, words)
                self.assertIn(terminal.plain(value["error"].splitlines()[0]),
                              err)

    def test_init_keeps(self) -> None:
        """A cluster that is there is never made anew."""
        before = self.home.cluster
        for name in ("y", "test"):
            self.ctl("init", "--cluster", name)
            self.assertEqual(self.home.cluster, before)
            self.assertFalse((self.home.folder / "ca.key").exists())

    def test_paste(self) -> None:
        """Without ssh: three commands are shown, one paste is read."""
        with (mock.patch("wsm.pki.sign", return_value="CERT") as sign,
              mock.patch("sys.stdin", io.StringIO(
                  f"REQUEST\n{hosts.END_OF_REQUEST}\nmore"))):
            (self.home.folder / "ca.pem").write_text("CA")
            status, out, err = self.ctl("host", "add", "c", "10.0.0.9",
                                        "--paste")
        self.assertEqual(status, 0, err)
        self.assertIn("REQUEST", sign.call_args.args[1])
        for word in ("csr", "install", "start"):
            self.assertRegex(out, rf"wsm-agent .*{word}")
        self.assertEqual(self.home.host("c").address, "10.0.0.9:7443")

    def test_silent(self) -> None:
        """Hosts that do not answer are named, with exit status 5."""
        with mock.patch("wsm.pki.client_context"), mock.patch(
                "wsm.cli.agents.Agent._connect", side_effect=NoAnswer("b")):
            for words in (("status",), ("status", "--hosts"),
                          ("status", "--vms"), ("status", "--vms", "--hosts"),
                          ("vm", "list"), ("host", "list"),
                          ("image", "list"), ("image", "gc")):
                found, out, err = self.ctl(*words, "--json")
                self.assertEqual(found, 5, f"{words}: {out}{err}")
                json.loads(out)
            found, out, _ = self.ctl("vm", "show", "vm", "--json")
            self.assertEqual((found, json.loads(out)["status"]), (5, 5))
            found, out, _ = self.ctl("host", "remove", "a", "--json")
            self.assertEqual((found, json.loads(out)["host"]), (0, "a"))

    def test_contradictions(self) -> None:
        """What cannot be meant together is a wrong command line."""
        for words in (("drain", "a", "--back", "--cancel"),
                      ("drain", "a", "--rate", "1M", "--deadline", "1h"),
                      ("migrate", "v", "--rate", "1M", "--deadline", "1h"),
                      ("drain", "a", "--rate", "fast"),
                      ("vm", "adopt", "a", "--pid", "1", "--qmp", "/q"),
                      ("host", "add", "c", "h", "--reserve", "100"),
                      ("host", "add", "c", "h", "--reserve", "-1"),
                      ("host", "add", "c", "h", "--reserve", "nan"),
                      ("drain", "a", "--deadline", "25:00:00")):
            self.assertEqual(self.ctl(*words)[0], 2, words)


class CordonTest(Folder):
    """Whether a host takes VMs."""

    def test_both(self) -> None:
        """uncordon is the other of cordon, and of drain."""
        for words, state in ((("cordon", "b"), "cordoned"),
                             (("uncordon", "b"), "active"),
                             (("uncordon", "b"), "active"),
                             (("cordon", "b"), "cordoned"),
                             (("cordon", "b", "--off"), "active"),
                             (("uncordon", "a"), "active")):
            status, out, err = self.ctl("host", *words)
            self.assertEqual((status, err), (0, ""))
            self.assertEqual(out, f"{words[1]} is {state}\n")
            self.assertEqual(self.home.host(words[1]).state, state)

    def test_reserve(self) -> None:
        """What stays free if nobody says how much stands in one place."""
        args = console.arguments(["host", "add", "c", "h"])
        self.assertEqual(args.reserve / 100, RESERVE)
        self.assertEqual(Pool(1, 1).reserve, RESERVE)
        self.assertEqual(config.Pool("/p").reserve, RESERVE)


def answers(found: Mapping[str, Any]) -> Any:
    """Let each agent answer so, by (host, path) or path; else not at all."""
    def ask(agent: Agent, _method: str, path: str, *_: Any, **__: Any) -> Any:
        value = found.get(f"{agent.name}{path}", found.get(path))
        if value is None:
            raise NoAnswer(agent.name)
        if isinstance(value, Exception):
            raise value
        return value

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch("wsm.pki.client_context"))
    stack.enter_context(mock.patch.object(Agent, "ask", ask))
    return stack


class AdoptTest(Folder):
    """vm adopt."""

    def test_old_agent(self) -> None:
        """One that would take --qmp for no word at all is not asked."""
        words = ("vm", "adopt", "a", "v", "--qmp", "/q")
        done = {"findings": [], "toml": "", "spec": {"name": "v"}}
        hello: dict[str, Any] = {"epoch": 1, "holder": "x",
                                 "can": ["adopt-qmp"]}
        for told, status in (({**hello, "can": []}, 1), ({
                "epoch": 1, "holder": "x"}, 1), (hello, 0)):
            with answers({"/hello": told, "/vm/adopt": done,
                          "/release": {}}):
                found, out, err = self.ctl(*words)
            self.assertEqual(found, status, err)
            self.assertIn("v is a VM of a" if not status else "is older",
                          out + err)


class CopiesTest(Folder):
    """Old copies, where some files are damaged."""

    IMAGE = {"vm": "v", "disk": "d", "path": "/p", "state": "handed-over"}

    def ask(self, image_list: Any, *words: str) -> tuple[int, str, str]:
        """Type a command; b answers as it should."""
        with answers({"/vms": {"vms": []}, "b/images": {
                "images": [self.IMAGE]}, "a/images": image_list}):
            return self.ctl("image", *words)

    def test_damaged(self) -> None:
        """The file is named, the rest is listed, and the status says so."""
        said = "/var/lib/wsm/vm/w/left.toml: no TOML\x1b[2J"
        for bad in ({"images": [], "damaged": [said]},
                    AgentSaid("BadData", f"a: {said}")):
            status, out, _ = self.ask(bad, "list")
            self.assertEqual(status, 1)
            self.assertIn("damaged: a: /var/lib/wsm/vm/w/left.toml: no TOML?",
                          out)
            self.assertRegex(out, "b +v +d ")
            status, out, err = self.ask(bad, "list", "--json")
            self.assertEqual([(each["host"], each["vm"])
                              for each in json.loads(out)], [("b", "v")])
            self.assertEqual(status, 1)
            self.assertIn("left.toml", err)
            self.assertEqual(self.ask(bad, "gc", "--dry-run")[0], 1)

    def test_silent(self) -> None:
        """Who does not answer is worse; an older agent says nothing of it."""
        self.assertEqual(self.ask({"images": []}, "list")[0], 0)
        with answers({"b/vms": {"vms": []}, "b/images": {
                "images": [], "damaged": ["x"]}}):
            status, out, _ = self.ctl("image", "list")
        self.assertEqual(status, 5)
        self.assertIn("no answer: a", out)
        self.assertIn("damaged: b: x", out)


class ScreenTest(Folder):
    """status on one screen."""

    def view(self, count: int) -> overview.View:
        """Hosts and VMs, of which the last are not as they should be."""
        found = [Host(f"h{number:02}", 1, 1, 1) for number in range(count)]
        found[-1] = dataclasses.replace(found[-1], state=HostState.CORDONED)
        vms: list[dict[str, Any]] = [
            {"name": f"v{number:03}", "host": "h", "runs": True,
             "owner": "owner", "moving": ""} for number in range(3 * count)]
        vms[-1]["moving"] = "m1"
        return overview.View(found, vms, ["x"], [
            (Move("m1", "v", "a", "b"), {"phase": "setup"})])

    def test_fits(self) -> None:
        """No line more than there are; what is odd is shown."""
        view = self.view(40)
        whole = overview.view_lines(view)
        self.assertEqual(len(whole), 41 + 1 + 121 + 1 + 2)
        self.assertEqual(overview.view_lines(view, most=len(whole)), whole)
        for most in (24, 50, len(whole) - 1):
            lines = overview.view_lines(view, most=most)
            self.assertEqual(len(lines), most)
            for word in ("h39", "v119", "no answer: x", "setup"):
                self.assertTrue(any(word in line for line in lines), word)
            left = [line for line in lines if line.startswith("...")]
            shown = sum(line[:1] in "hv" for line in lines if line)
            self.assertEqual(160 - shown, sum(int(line.split()[2])
                                              for line in left))

    def test_some(self) -> None:
        """Hosts alone, VMs alone, for people and for programs."""
        host = to_plain(Host("a", 1.0, 1, 1))
        vm = {"name": "v", "host": "a", "runs": True, "owner": "owner",
              "moving": ""}
        with answers({"/host": host, "/vms": {"vms": [vm]}}):
            for words, keys, heads in (
                    ((), {"hosts", "vms", "moves", "silent"}, {"HOST", "VM"}),
                    (("--hosts",), {"hosts", "silent"}, {"HOST"}),
                    (("--vms",), {"vms", "moves", "silent"}, {"VM"}),
                    (("--hosts", "--vms"), {"hosts", "vms", "moves",
                                            "silent"}, {"HOST", "VM"})):
                status, out, err = self.ctl("status", *words, "--json")
                self.assertEqual((status, set(json.loads(out))), (0, keys),
                                 err)
                status, out, err = self.ctl("status", *words)
                self.assertEqual({line.split()[0] for line in out.splitlines()
                                  if line.isupper() or "OWNER" in line
                                  or "POOLS" in line}, heads, err)


class DrainTest(Folder):
    """What a drain remembers, and how fast it goes."""

    def plan(self, *allocated: int) -> drain.Plan:
        """A plan of VMs with so much on their disks, and no RAM."""
        legs = []
        for number, size in enumerate(allocated):
            use = VmUse(f"v{number}", "a", 1, 0, 0,
                        disks=(DiskUse("d", size, size),))
            vm = spec.Spec(use.name, args=())
            legs.append(drain.Leg(outlook.Subject(
                use, vm, Host("a", 1, 1, 1, mbit=MBIT)), "a",
                Host("b", 1, 1, 1, mbit=MBIT)))
        return drain.Plan("a", tuple(legs))

    def test_drained(self) -> None:
        """What a drain moved and nobody since comes back; the rest not."""
        self.moved("v1", "a", "b", drained="a")
        self.moved("v2", "a", "b", drained="a")
        self.moved("v3", "a", "b")                  # by hand
        self.moved("v4", "a", "b", drained="a", result="stayed")
        self.moved("v5", "c", "b", drained="c")
        self.moved("v2", "b", "a", drained="a")     # is back already
        self.moved("v1", "b", "c")                  # by hand, elsewhere
        self.moved("v6", "a", "c", drained="a")
        self.moved("v6", "c", "b", result="stayed")
        self.assertEqual(drain.drained(self.home.moves(), "a"), {"v6": "c"})

    def test_deadline(self) -> None:
        """All are done in time, as slowly as that allows."""
        plan = self.plan(100 << 20, 300 << 20)
        full = plan.seconds(0)
        speed = drain.speed_for(plan, 60.0)
        self.assertTrue(55 < plan.seconds(speed) <= 57, plan.seconds(speed))
        # What is left after the first is slower yet, if it was fast
        later = drain.speed_for(plan, 60.0, 1)
        self.assertLess(later, speed)
        self.assertEqual(drain.speed_for(plan, full / 2), 0.0)
        with self.assertRaisesRegex(CliError, "2 moves take about .* longer "
                                    "than 5 s"):
            drain.speed_of(plan, argparse.Namespace(deadline=5.0, rate=None))

    def test_enough(self) -> None:
        """A drain goes on until somebody says that it is enough."""
        self.assertTrue(drain.going_on(self.home, "a", False))
        self.ctl("drain", "a", "--cancel")
        self.assertFalse(drain.going_on(self.home, "a", False))

    def test_cancel_all(self) -> None:
        """What a drain moves at this moment is cancelled, nothing else."""
        for name, host in (("m1", "a"), ("m2", "")):
            self.home.put_move(Move(name, name, "a", "b", drained=host))
        self.ctl("drain", "a", "--cancel")
        self.assertTrue(self.home.cancel_wanted("m1"))
        self.assertFalse(self.home.cancel_wanted("m2"))


class WatchTest(unittest.TestCase):
    """What watch says where there is no terminal."""

    def test_news(self) -> None:
        """Only what is new."""
        vm = {"name": "v", "host": "a", "runs": True, "owner": "owner"}
        move = Move("m-12345678", "v", "a", "b")
        last: list[str] = []
        cases: list[tuple[bool, Optional[int], list[str]]] = [
            (True, None, ["v on a: runs and owner"]), (True, None, []),
            (True, 5, ["5 %"]), (True, 5, []), (False, 6, ["off", "6 %"])]
        for runs, percent, said in cases:
            out = io.StringIO()
            moves: list[tuple[Move, Mapping[str, Any]]] = (
                [] if percent is None else
                [(move, {"phase": "postcopy", "remaining": 100 - percent,
                         "ram": {"transferred": percent}})])
            with contextlib.redirect_stdout(out):
                last = overview.news(last, overview.View(
                    [], [{**vm, "runs": runs}], [], moves))
            lines = out.getvalue().splitlines()
            self.assertEqual(len(lines), len(said), lines)
            for line, words in zip(lines, said):
                self.assertIn(words, line)


class HostTest(unittest.TestCase):
    """Where 'host add' looks for everything."""

    def where(self, **given: Optional[str]) -> argparse.Namespace:
        """Fill in what is not given."""
        args = argparse.Namespace(**{
            **dict.fromkeys(("clone", "below", "agent", "qemu", "qemu_img",
                             "folder", "state", "run", "pool")), **given})
        hosts.where_all_is(args)
        return args

    def test_defaults(self) -> None:
        """Packages; a clone; one folder; and what is given counts."""
        found = self.where()
        self.assertEqual((found.agent, found.folder, found.run),
                         ("wsm-agent", "/etc/wsm", "/run/wsm"))
        found = self.where(clone="/c", below="/b", pool="/big")
        self.assertEqual(
            (found.agent, found.qemu, found.qemu_img, found.folder,
             found.state, found.run, found.pool),
            ("/c/scripts/wsm-agent", "/c/build/qemu-system-x86_64",
             "/c/build/qemu-img", "/b/etc", "/b/state", "/b/run", "/big"))

    def test_address(self) -> None:
        """A name and an address are looked at before anybody is asked."""
        for given, found in (("h", "h:7443"), ("h:1", "h:1"),
                             ("[::1]", "[::1]:7443"), ("[::1]:2", "[::1]:2")):
            self.assertEqual(hosts.address_of("a", given), found)
        for name, given, words in (
                ("e/vil", "h", "no name"), ("a", "h:x", "'h:x' is no"),
                ("a", "h:0", "'h:0' is no"), ("a", "h:70000", "65535"),
                ("a", "fd00::1", r"\[fd00::1\]")):
            with self.assertRaisesRegex(CliError, words):
                hosts.address_of(name, given)


if __name__ == "__main__":
    unittest.main()
