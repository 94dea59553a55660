# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of scripts/virsh-wsm, with a virsh that is none."""

import contextlib
import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, Optional
from unittest import mock

from dev.rig.basics import wait_until
from wsm import libvirt_move
from wsm.virsh import Virsh, VirshError

from tests.scripts.fake_virsh import Hosts

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parents[1] / "scripts/virsh-wsm"
OPTIONS = ("--interval", "0.01")
SECONDS = 60
URI = "qemu+ssh://beta/system"
UUID, OTHER = "1111-aa", "2222-bb"
SIZE = 1 << 26
IMAGES = "/var/lib/libvirt/images"
POOL = (f"<pool type='dir'><name>p</name><target><path>{IMAGES}</path>"
        "</target></pool>")
DISK = (f"<disk type='file' device='disk'><driver type='qcow2'/>"
        f"<source file='{IMAGES}/vm1.qcow2'/><target dev='vda'/></disk>")
CD = (f"<disk type='file' device='cdrom'><driver type='raw'/>"
      f"<source file='{IMAGES}/cd.iso'/><target dev='sda'/><readonly/></disk>")
EMPTY_CD = ("<disk type='file' device='cdrom'><target dev='sda'/><readonly/>"
            "</disk>")
NO_VOLUME = "failed to get vol"
NO_DOMAIN = "failed to get domain 'vm1'"

Answer = list[str]


def answer(pattern: str, out: str = "", error: str = "") -> Answer:
    """Return what the fake answers to commands that match."""
    return [pattern, out, error]


def qmp(command: str, result: Any) -> Answer:
    """Return an answer of QEMU's monitor."""
    return answer(f'qemu-monitor-command vm1 .*"{command}"',
                  json.dumps({"return": result}))


def hello(name: str, libvirt: str, qemu: str = "10.0.13") -> Answer:
    """Return what a host says of itself."""
    return answer("hostname; version --daemon",
                  f"{name}\n\nRunning hypervisor: QEMU {qemu}\n"
                  f"Running against daemon: {libvirt}\n")


def phase(name: str, **more: Any) -> dict[str, Any]:
    """Return what query-wsm says."""
    return {"role": "source", "phase": name,
            "phases": [{"phase": name, "ms": 1}], "disks": [], **more}


def volume(size: int = SIZE, fmt: str = "qcow2") -> Answer:
    """Return the image as the destination's pool has it."""
    return answer("vol-dumpxml --pool p vm1.qcow2",
                  f"<volume><capacity>{size}</capacity><target>"
                  f"<format type='{fmt}'/></target></volume>")


def capability(on: bool) -> Answer:
    """Return QEMU's capabilities."""
    return qmp("query-migrate-capabilities",
               [{"capability": "xbzrle", "state": False},
                {"capability": "whole-system", "state": on}])


ALPHA = [
    hello("alpha", "9.0.0"),
    answer("domstate", "running (booted)"),
    answer("dominfo", "Name:           vm1\nPersistent:     yes\n"
                      "Autostart:      disable"),
    answer("domblkinfo vm1 vda", f"Capacity:       {SIZE}\nAllocation:  1"),
    capability(False),
    qmp("query-wsm-options", {"disks": []}),
    qmp("migrate-set-capabilities", {}),
]
BETA = [
    hello("beta", "11.3.0"),
    answer("list --uuid", ""),
    answer("list --all --uuid", OTHER),
    answer("domblklist", f" vda      {IMAGES}/other.qcow2"),
    answer("domuuid", "", NO_DOMAIN),
    answer("pool-list", " p "),
    answer("pool-dumpxml p", POOL),
    answer("pool-refresh p"),
    answer("vol-dumpxml", "", NO_VOLUME),
    answer("vol-create-as p vm1.qcow2"),
    answer("vol-delete --pool p vm1.qcow2$"),
    answer("vol-delete --pool p vm1.qcow2.wsm", "", NO_VOLUME),
    answer("domstate", "", NO_DOMAIN),
    qmp("migrate-set-capabilities", {}),
]
GONE = [answer("domstate", "", NO_DOMAIN)]
RUNS = [answer("domstate", "running (migrated)"), capability(True),
        qmp("query-wsm", {"role": "destination", "disks": [
            {"name": "virtio-disk0", "sent": 3 << 20,
             "basis": {"kind": "full"}}]})]
BROKEN = [answer("domstate", "paused (post-copy failed)")]


class FakeProcess:
    """virsh migrate, as it looks to the program."""

    def __init__(self, hosts: Hosts, uri: str) -> None:
        self.hosts = hosts
        self.uri = uri
        self.returncode = 0

    def __enter__(self) -> "FakeProcess":
        return self

    def __exit__(self, *_exception: object) -> None:
        pass

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for the end, which only query-wsm brings nearer."""
        if not self.hosts.state["ended"]:
            raise subprocess.TimeoutExpired("virsh", timeout)
        error = self.hosts.end_of_move(self.uri)
        self.returncode = int(bool(error))
        return "", f"error: {error}"


class FakeVirsh(Virsh):
    """virsh without a program."""

    hosts: Hosts

    def run(self, *words: str, seconds: float = 0) -> str:
        out, error = self.hosts.answer(self.uri or "", list(words))
        if error:
            raise VirshError(error)
        return out.strip()

    def start(self, *words: str) -> Any:
        self.hosts.state["log"].append(f"> {' '.join(words)}")
        return FakeProcess(self.hosts, words[-1])


class VirshWsm(unittest.TestCase):
    """Each test has two hosts."""

    def setUp(self) -> None:
        self.phases = [phase("disk-precopy", percent=10, remaining=3 << 30,
                             speed=40 << 20),
                       phase("postcopy", percent=99)]
        self.end: list[Any] = ["", GONE, RUNS]
        self.abort: list[Any] = ["operation aborted", [], []]
        self.hosts = Hosts({})

    def scene(self, disks: str = DISK, here: Optional[list[Answer]] = None,
              there: Optional[list[Answer]] = None) -> None:
        """Say what the hosts answer: @here and @there come first."""
        xml = (f"<domain><name>vm1</name><uuid>{UUID}</uuid>"
               f"<devices>{disks}</devices></domain>")
        self.hosts = Hosts({
            "hosts": {"": [*(here or []), answer("dumpxml vm1", xml), *ALPHA],
                      URI: [*(there or []), *BETA]},
            "phases": self.phases, "end": self.end, "abort": self.abort})

    def run_it(self, status: int, *options: str) -> str:
        """Run the program's main(); return all that it said."""
        FakeVirsh.hosts = self.hosts
        said = io.StringIO()
        with (mock.patch.object(libvirt_move, "Virsh", FakeVirsh),
              mock.patch.object(sys, "argv", ["virsh-wsm", *OPTIONS, *options,
                                              "vm1", URI]),
              mock.patch.object(signal, "signal"),
              contextlib.redirect_stdout(said),
              contextlib.redirect_stderr(said)):
            self.assertEqual(libvirt_move.main(), status, said.getvalue())
        return said.getvalue()

    def calls(self, pattern: str) -> list[str]:
        """Return the calls of virsh that match."""
        return [line for line in self.hosts.state["log"]
                if re.search(pattern, line)]

    def refused(self, *words: str, **scene: Any) -> None:
        """Nothing is begun, and the reason has all @words."""
        self.scene(**scene)
        text = self.run_it(2)
        for word in words:
            self.assertIn(word, text)
        self.assertEqual(self.calls("> migrate |set-capab|vol-create"), [])
        self.assertEqual(self.calls("> vol-delete"), [])


class Moves(VirshWsm):
    """The guest arrives."""

    def test_blank(self) -> None:
        self.scene()
        text = self.run_it(0)
        self.assertIn("disk-precopy, 10 %, 3.0 GiB left, 40.0 MiB/s", text)
        self.assertIn("runs at beta, and all of it is there", text)
        self.assertIn("s, virtio-disk0: 3.0 MiB sent (full)", text)
        self.assertEqual(self.calls("vol-create"), [
            f"{URI}> vol-create-as p vm1.qcow2 {SIZE} --format qcow2"])
        self.assertEqual(self.calls("> migrate "), [
            "> migrate --live --p2p --postcopy --unsafe --persistent "
            f"--undefinesource vm1 {URI}"])
        on, off = self.calls("set-capabilities")
        self.assertRegex(on, '^> .*"whole-system", "state": true')
        self.assertRegex(off, f'^{re.escape(URI)}> .*"state": false')
        self.assertEqual(self.calls("vol-delete|pool-create|pool-destroy|"
                                    "domjobabort|> autostart"), [])

    def test_way_back(self) -> None:
        """An image that is there is used."""
        self.scene(there=[volume()])
        text = self.run_it(0)
        self.assertIn("is at beta and will be written to", text)
        self.assertEqual(self.calls("vol-create"), [])

    def test_raw_is_sparse(self) -> None:
        self.scene(disks=DISK.replace("qcow2", "raw"),
                   there=[answer("vol-create-as p vm1.raw")])
        self.run_it(0)
        self.assertEqual(self.calls("vol-create"), [
            f"{URI}> vol-create-as p vm1.raw {SIZE} --format raw "
            "--allocation 0"])

    def test_no_pool(self) -> None:
        """Without a pool for the folder there is one for a moment."""
        name = r"virsh-wsm-\S+"
        self.scene(there=[answer("pool-list"),
                          answer(f"pool-create-as {name} dir --target "
                                 f"{IMAGES}$"),
                          answer(f"vol-create-as {name} vm1.qcow2"),
                          answer(f"pool-destroy {name}$")])
        self.run_it(0)
        created, = self.calls("pool-create-as")
        destroyed, = self.calls("pool-destroy")
        self.assertEqual(created.split()[2], destroyed.split()[2])

    def test_transient_guest(self) -> None:
        self.scene(here=[answer("dominfo", "Persistent:     no")])
        self.run_it(0)
        self.assertNotIn("--persistent", self.calls("> migrate ")[0])

    def test_autostart(self) -> None:
        self.scene(here=[answer("dominfo", "Persistent:     yes\n"
                                           "Autostart:      enable")],
                   there=[answer("autostart vm1")])
        self.run_it(0)
        self.assertEqual(len(self.calls(f"^{re.escape(URI)}> autostart")), 1)

    def test_capability_was_on(self) -> None:
        """Whoever has it on for good keeps it."""
        self.scene(here=[capability(True)])
        self.run_it(0)
        self.assertEqual(self.calls('"state": false'), [])

    def test_options(self) -> None:
        self.scene()
        self.run_it(0, "--bandwidth", "40", "--tls",
                    "--migrateuri", "tcp://10.0.0.2")
        self.assertIn("--bandwidth 40 --migrateuri tcp://10.0.0.2 --tls vm1",
                      self.calls("> migrate ")[0])

    def test_cd_that_is_there(self) -> None:
        self.scene(disks=DISK + CD, there=[
            answer("vol-dumpxml --pool p cd.iso", "<volume/>")])
        self.run_it(0)
        self.assertEqual(len(self.calls("vol-create")), 1)

    def test_empty_cd(self) -> None:
        self.scene(disks=DISK + EMPTY_CD)
        self.run_it(0)

    def test_virsh_lost_in_postcopy(self) -> None:
        """libvirtd ended in the middle, and the move went on without it."""
        self.end[0] = "client socket is closed"
        self.scene()
        text = self.run_it(0)
        self.assertIn("all of it is there", text)
        self.assertEqual(self.calls("vol-delete"), [])


class Fails(VirshWsm):
    """The guest stays, or is on both hosts."""

    def test_failure(self) -> None:
        """What was made is removed, and the capability is off."""
        self.end = ["operation failed: no", [capability(True)], []]
        self.scene()
        text = self.run_it(1)
        self.assertIn("runs on at alpha: operation failed: no", text)
        self.assertEqual(self.calls("vol-delete"), [
            f"{URI}> vol-delete --pool p vm1.qcow2",
            f"{URI}> vol-delete --pool p vm1.qcow2.wsm"])
        self.assertRegex(self.calls("set-capabilities")[-1],
                         '^> .*"state": false')

    def test_image_from_before_stays(self) -> None:
        self.end = ["operation failed: no", [], []]
        self.scene(there=[volume()])
        self.run_it(1)
        self.assertEqual(self.calls("vol-delete"), [])

    def test_keep(self) -> None:
        self.end = ["operation failed: no", [], []]
        self.scene()
        self.assertIn("stay", self.run_it(1, "--keep"))
        self.assertEqual(self.calls("vol-delete"), [])

    def test_no_userfaultfd(self) -> None:
        self.end = ["Postcopy is not supported: Userfaultfd not available",
                    [], []]
        self.scene()
        self.assertIn("sysctl -w vm.unprivileged_userfaultfd=1",
                      self.run_it(1))

    def test_second_image_cannot_be_made(self) -> None:
        """The first one is removed again."""
        second = DISK.replace("vm1.", "vm2.").replace("vda", "vdb")
        self.scene(disks=DISK + second, here=[
            answer("domblkinfo vm1 vdb", "Capacity:       512")], there=[
            answer("vol-create-as p vm2.qcow2", "", "disk full")])
        text = self.run_it(2)
        self.assertIn("vdb: beta cannot make", text)
        self.assertIn("disk full", text)
        self.assertEqual(len(self.calls("vol-delete --pool p vm1.qcow2$")), 1)
        self.assertEqual(self.calls("> migrate |set-capab"), [])

    def test_qemu_says_no(self) -> None:
        """An error of QEMU comes as an answer, with virsh's success."""
        self.scene(here=[answer(
            'qemu-monitor-command vm1 .*"migrate-set-capabilities"',
            json.dumps({"error": {"class": "GenericError",
                                  "desc": "not now"}}))])
        self.assertIn("not now", self.run_it(2))
        self.assertEqual(self.calls("> migrate "), [])
        self.assertEqual(len(self.calls("vol-delete --pool p vm1.qcow2$")), 1)

    def test_link_lost(self) -> None:
        """After the handover nothing is removed or switched."""
        self.end = ["client socket is closed", BROKEN, RUNS]
        self.scene()
        text = self.run_it(3)
        self.assertIn(f"virsh-wsm --resume vm1 {URI}", text)
        self.assertEqual(self.calls("vol-delete"), [])
        self.assertEqual(len(self.calls("set-capabilities")), 1)

    def test_source_lost(self) -> None:
        """A guest that lacks blocks has not moved."""
        self.end = ["no", [answer("domstate", "shut off (crashed)")],
                    [answer("domstate", "running (post-copy failed)"), *RUNS]]
        self.scene()
        text = self.run_it(3)
        self.assertIn("The source is lost", text)
        self.assertEqual(self.calls("vol-delete"), [])
        self.assertEqual(len(self.calls("set-capabilities")), 1)

    def test_neither_runs(self) -> None:
        self.end = ["no", [answer("domstate", "shut off (crashed)")], []]
        self.scene()
        text = self.run_it(3)
        self.assertIn("shut off (crashed) at alpha", text)
        self.assertEqual(self.calls("vol-delete"), [])


class Resumes(VirshWsm):
    """virsh-wsm --resume."""

    paused = qmp("query-migrate", {"status": "postcopy-paused"})
    old = hello("beta", "9.0.0")

    def test_broken(self) -> None:
        """libvirt is asked to connect both again."""
        self.scene(here=[self.paused, *BROKEN],
                   there=[self.old, answer("domstate",
                                           "running (post-copy failed)")])
        self.run_it(0, "--resume")
        self.assertIn("--postcopy-resume", self.calls("> migrate ")[0])
        self.assertEqual(self.calls("vol-create|vol-delete|domjobabort"), [])

    def test_broken_at_one_side(self) -> None:
        """libvirt there must have noticed, too."""
        self.scene(here=[self.paused, *BROKEN],
                   there=[self.old, answer("domstate", "running (post-copy)"),
                          answer("domjobabort vm1 --postcopy")])
        with mock.patch.object(libvirt_move, "SETTLE_SECONDS", 0):
            self.run_it(0, "--resume")
        self.assertEqual(len(self.calls("domjobabort vm1 --postcopy")), 1)

    def test_bug_of_libvirt(self) -> None:
        """A libvirt that would not survive it is not asked."""
        self.scene(here=[self.paused, *BROKEN], there=RUNS)
        self.assertIn("libvirt 11.3", self.run_it(3, "--resume"))
        self.assertEqual(self.calls("> migrate "), [])

    def test_tcp_survived(self) -> None:
        """Only libvirt had lost the other host."""
        self.phases = [phase("postcopy", remaining=left)
                       for left in (3, 2, 1)]
        active = qmp("query-migrate", {"status": "postcopy-active"})
        self.scene(here=[active, *BROKEN], there=RUNS)
        hosts = self.hosts

        def gone() -> bool:
            return bool(hosts.state["ended"])

        class Until(list[Any]):
            """The state here: broken until query-wsm was asked often."""

            def __iter__(self) -> Any:
                return iter([*(GONE if gone() else []),
                             *list.__iter__(self)])

        hosts.state["hosts"][""] = Until(hosts.state["hosts"][""])
        self.assertIn("all of it is there", self.run_it(0, "--resume"))
        self.assertEqual(self.calls("> migrate |domjobabort"), [])

    def test_ends_between_two_questions(self) -> None:
        """It was there when the state was asked, and is whole now."""
        ended = answer('qemu-monitor-command vm1 .*"query-migrate"', "",
                       "Requested operation is not valid: domain is not "
                       "running")
        self.scene(here=[ended, *BROKEN], there=RUNS)
        hosts = self.hosts

        class Until(list[Any]):
            """The state here: broken until query-migrate was asked."""

            def __iter__(self) -> Any:
                asked = any('"query-migrate"' in line
                            for line in hosts.state["log"])
                return iter([*(GONE if asked else []), *list.__iter__(self)])

        hosts.state["hosts"][""] = Until(hosts.state["hosts"][""])
        self.assertIn("all of it is there", self.run_it(0, "--resume"))
        self.assertEqual(self.calls("> migrate |domjobabort"), [])

    def test_stalled(self) -> None:
        """What does not move is broken up and taken up."""
        self.phases = [phase("postcopy", remaining=3)]
        self.scene(
            here=[answer("domjobabort vm1 --postcopy"), *BROKEN],
            there=[self.old, answer("domjobabort vm1 --postcopy"),
                   answer("domstate", "running (post-copy failed)")])
        hosts = self.hosts

        class Status(list[Any]):
            """query-migrate: active until the connection was given up."""

            def __iter__(self) -> Any:
                broken = any("domjobabort" in line
                             for line in hosts.state["log"])
                word = "paused" if broken else "active"
                return iter([qmp("query-migrate",
                                 {"status": f"postcopy-{word}"}),
                             *list.__iter__(self)])

        hosts.state["hosts"][""] = Status(hosts.state["hosts"][""])
        with mock.patch.object(libvirt_move, "STALL_SECONDS", 0):
            self.run_it(0, "--resume")
        self.assertEqual(len(self.calls("domjobabort vm1 --postcopy")), 2)
        self.assertIn("--postcopy-resume", self.calls("> migrate ")[0])

    def test_went_on_by_itself(self) -> None:
        self.scene(here=GONE, there=RUNS)
        self.assertIn("all of it is there", self.run_it(0, "--resume"))
        self.assertEqual(self.calls("> migrate "), [])

    def test_ended_without_virsh(self) -> None:
        """libvirt leaves the definition; nobody is to start that."""
        self.scene(here=[answer("domstate", "shut off (migrated)"),
                         answer("undefine vm1 --keep-nvram")], there=RUNS)
        self.assertIn("all of it is there", self.run_it(0, "--resume"))
        self.assertEqual(len(self.calls("^> undefine")), 1)

    def test_source_was_lost(self) -> None:
        """--resume does not take that for success, either."""
        self.scene(here=[answer("domstate", "shut off (crashed)")], there=[
            answer("domstate", "running (post-copy failed)")])
        self.assertIn("The source is lost", self.run_it(3, "--resume"))
        self.assertEqual(self.calls("undefine"), [])

    def test_nothing_to_resume(self) -> None:
        self.scene()
        self.assertIn("running (booted)", self.run_it(2, "--resume"))
        self.assertEqual(self.calls("> migrate "), [])

    def test_move_instead(self) -> None:
        """A guest in post-copy is not moved again."""
        self.refused("--resume", here=BROKEN, there=RUNS)


class Program(VirshWsm):
    """The program itself, which calls programs."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        virsh = self.folder / "virsh"
        virsh.write_text(f"#!/bin/sh\nexec {sys.executable} -IS "
                         f"{HERE / 'fake_virsh.py'} \"$@\"\n")
        virsh.chmod(0o755)
        self.file = self.folder / "state"

    def read_state(self) -> None:
        """Look at what the hosts have become."""
        with open(self.file, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            self.hosts = Hosts(json.load(file))

    def asked_twice(self) -> bool:
        """Return whether query-wsm has been asked that often."""
        self.read_state()
        return int(self.hosts.state["asked"]) >= 2

    def run_program(self, interrupt: bool = False) -> tuple[int, str]:
        """Run it, with ^C after the second query-wsm if wanted."""
        self.file.write_text(json.dumps(self.hosts.state), encoding="utf-8")
        env = {**os.environ, "FAKE_VIRSH": str(self.file),
               "PATH": f"{self.folder}:{os.environ['PATH']}"}
        with subprocess.Popen([sys.executable, PROGRAM, *OPTIONS, "vm1", URI],
                              text=True, env=env, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT) as process:
            if interrupt:
                wait_until(self.asked_twice, "two of query-wsm", SECONDS)
                process.send_signal(signal.SIGINT)
            text = process.communicate(timeout=SECONDS)[0]
        self.read_state()
        return process.returncode, text

    def test_move(self) -> None:
        self.scene()
        status, text = self.run_program()
        self.assertEqual(status, 0, text)
        self.assertIn("all of it is there", text)

    def test_no_virsh(self) -> None:
        done = subprocess.run(
            [sys.executable, PROGRAM, "vm1", URI], check=False, text=True,
            env={**os.environ, "PATH": "/nowhere"}, capture_output=True)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("libvirt-clients", done.stderr)

    def test_called_back(self) -> None:
        self.phases = [phase("disk-precopy")] * 500
        self.scene()
        status, text = self.run_program(interrupt=True)
        self.assertEqual(status, 130, text)
        self.assertIn("was called back, and runs on at alpha", text)
        self.assertEqual(len(self.calls("domjobabort")), 1)
        self.assertEqual(len(self.calls("vol-delete --pool p vm1.qcow2$")), 1)

    def test_too_late(self) -> None:
        """After the handover ^C explains, and the move goes on."""
        self.phases = [phase("postcopy")] * 30
        self.scene()
        status, text = self.run_program(interrupt=True)
        self.assertEqual(status, 0, text)
        self.assertIn("cannot be called back", text)
        self.assertEqual(self.calls("domjobabort|vol-delete"), [])


class Refuses(VirshWsm):
    """What cannot work is refused before anything is changed."""

    def disk(self, inside: str) -> str:
        """Return the disk with one more element."""
        return DISK.replace("</disk>", f"{inside}</disk>")

    def test_off(self) -> None:
        self.refused("shut off", "virsh start",
                     here=[answer("domstate", "shut off (destroyed)")])

    def test_unknown(self) -> None:
        self.refused("not known", here=GONE)

    def test_no_connection(self) -> None:
        self.refused("no connection", URI, "no route", there=[
            answer("hostname", "", "no route to host")])

    def test_old_libvirt(self) -> None:
        self.refused("libvirt at beta is 7.0", "9.0",
                     there=[hello("beta", "7.0.0")])

    def test_old_qemu(self) -> None:
        self.refused("QEMU at beta is 7.2", "10.0",
                     there=[hello("beta", "9.0.0", "7.2.22")])

    def test_stock_qemu(self) -> None:
        self.refused("Debian 1:10", "managedsave", here=[
            qmp("query-migrate-capabilities", []),
            qmp("query-version", {"package": "Debian 1:10.0.13"})])

    def test_option_disks(self) -> None:
        self.refused("vda", "wsm-set-options", here=[
            qmp("query-wsm-options", {"disks": ["vda"]})])

    def test_option_memory(self) -> None:
        self.refused("multifd", "wsm-set-options", here=[
            qmp("query-wsm-options", {"memory-references": ["disk"]})])

    def test_backing_file(self) -> None:
        self.refused("virsh blockpull vm1 vda", disks=self.disk(
            "<backingStore type='file'><source file='/b'/></backingStore>"))

    def test_end_of_chain(self) -> None:
        """<backingStore/> says that there is none."""
        self.scene(disks=self.disk("<backingStore/>"))
        self.run_it(0)

    def test_shareable(self) -> None:
        self.refused("shareable", disks=self.disk("<shareable/>"))

    def test_transient_disk(self) -> None:
        self.refused("transient", disks=self.disk("<transient/>"))

    def test_block_job(self) -> None:
        self.refused("blockjob vm1 vda --abort",
                     disks=self.disk("<mirror type='file'/>"))

    def test_lun(self) -> None:
        self.refused("passed through", disks=DISK.replace(
            "device='disk'", "device='lun'"))

    def test_network_disk(self) -> None:
        self.refused("type 'network'", disks=DISK.replace(
            "type='file'", "type='network'"))

    def test_format(self) -> None:
        self.refused("'vmdk'", "qemu-img convert",
                     disks=DISK.replace("type='qcow2'", "type='vmdk'"))

    def test_cd_missing(self) -> None:
        self.refused("cd.iso", "change-media vm1 sda --eject",
                     disks=DISK + CD)

    def test_block_device_missing(self) -> None:
        self.refused("/dev/vg/vm1", str(SIZE), disks=DISK.replace(
            f"file='{IMAGES}/vm1.qcow2'", "dev='/dev/vg/vm1'").replace(
            "type='file'", "type='block'"))

    def test_encrypted(self) -> None:
        self.refused("encrypted", disks=DISK.replace(
            "vm1.qcow2'/>", "vm1.qcow2'><encryption/></source>"))

    def test_size(self) -> None:
        self.refused(str(SIZE), "4096 bytes", "qemu-img resize",
                     there=[volume(4096)])

    def test_other_format_there(self) -> None:
        self.refused("'raw'", "'qcow2'", there=[volume(fmt="raw")])

    def test_runs_there(self) -> None:
        self.refused("runs at beta already", there=[
            answer("list --uuid", UUID), answer("domstate", "running")])

    def test_other_guest_of_that_name(self) -> None:
        self.refused(OTHER, UUID, there=[answer("domuuid vm1", OTHER)])

    def test_image_of_another_guest(self) -> None:
        """The disk of a guest that is off there is not written to."""
        self.refused("another guest at beta", there=[
            volume(), answer("domblklist", f" vda      {IMAGES}/vm1.qcow2")])

    def test_no_folder(self) -> None:
        self.refused("cannot use the folder", "no such folder", there=[
            answer("pool-list"),
            answer("pool-create-as", "", "no such folder")])
