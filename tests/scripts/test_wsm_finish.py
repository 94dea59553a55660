# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of scripts/wsm-finish: its reasons, and how it deals with QEMU.

QEMU is a program of the tests that answers as it is told.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from wsm.finish import Watch, find_qemu
from wsm.missing_map import FILE_BYTES
from wsm.record import encode_record
from wsm.serve.claims import Refused
from wsm.serve.pushing import Failed

from tests.scripts import test_wsm_missing as made

PROGRAM = Path(__file__).resolve().parents[2] / "scripts/wsm-finish"
SECONDS = 30.0
FAKE = """\
#!{python}
import json, os, re, signal, socket, sys
folder = os.path.dirname(sys.argv[0])
answers = json.load(open(folder + '/answers'))
json.dump([os.getpid(), sys.argv], open(folder + '/qemu-is', 'w'))
if 'dies' in answers:
    sys.exit(sys.argv[0] + ': ' + answers['dies'])
def end(*_):
    open(folder + '/asked-to-end', 'w')
    os._exit(answers.get('status', 0))
signal.signal(signal.SIGTERM, end)
fd = re.search('socket,id=monitor,fd=([0-9]+)', ' '.join(sys.argv))[1]
stream = socket.socket(fileno=int(fd)).makefile('rw')
def say(what):
    stream.write(json.dumps(what) + '\\n')
    stream.flush()
say({{'QMP': {{}}}})
for line in stream:
    request = json.loads(line)
    with open(folder + '/commands', 'a') as file:
        file.write(line)
    say({{'event': 'SOMETHING'}})
    answer = answers.get(request['execute'], {{'return': {{}}}})
    if isinstance(answer, list):
        answer = answer.pop(0) if len(answer) > 1 else answer[0]
    if answer == 'die':
        os.kill(os.getpid(), 9)
    say({{'id': request['id'], **answer}})
"""


def info(missing: int, phase: str = "postcopy", connected: bool = True,
         **more: Any) -> dict[str, Any]:
    """Return what query-wsm says."""
    return {"session": str(made.SESSION), "phase": phase,
            "disks": [{"missing": missing}],
            "channels": [{"connected": connected}], **more}


def error(text: str, kind: str = "GenericError") -> dict[str, Any]:
    """Return an answer."""
    return {"error": {"class": kind, "desc": text}}


def is_alive(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


class FinishTest(unittest.TestCase):
    """An image that misses something, and a QEMU."""

    def setUp(self) -> None:
        """Make both."""
        # pylint: disable=consider-using-with
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.image = self.folder / "disk.raw"
        self.image.write_bytes(bytes(made.SIZE))
        self.map = Path(f"{self.image}.wsm.map")
        self.put_map(made.LIST)
        self.put_record()
        self.qemu = self.folder / "qemu"
        self.qemu.write_text(FAKE.format(python=sys.executable), "utf-8")
        self.qemu.chmod(0o755)
        self.answers: dict[str, Any] = {
            "query-wsm": [{"return": info(100)},
                          {"return": info(0, "completed")}]}

    def put_map(self, runs: bytes) -> None:
        """Write the map."""
        data = bytearray(FILE_BYTES)
        head = made.HEAD + struct.pack(">H512sH512s", len(made.PATH),
                                       made.PATH, 3, b"vd0").rjust(
                                           160 - len(made.HEAD) + 1028, b"\0")
        if not runs:
            head = head[:52] + bytes(4) + head[56:80] + bytes(16) + head[96:]
        data[made.PAGE:2 * made.PAGE] = made.with_sum(
            head.ljust(made.PAGE, b"\0"), 12)
        data[2 * made.PAGE:2 * made.PAGE + len(runs)] = runs
        self.map.write_bytes(data)

    def put_record(self, state: str = "incomplete", **more: Any) -> None:
        """Write the record."""
        Path(f"{self.image}.wsm").write_bytes(encode_record(
            {"state": state, "session": str(made.SESSION), "time": 1700000000,
             "disk-size": made.SIZE, "points": [], "peer": "alpha:4444",
             **more}))

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start it."""
        (self.folder / "answers").write_text(json.dumps(self.answers), "utf-8")
        return subprocess.Popen(
            [sys.executable, "-B", str(PROGRAM), "--qemu", str(self.qemu),
             "--listen", "tcp:0:4444", *words, str(self.image)], text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)

    def run_it(self, status: int, *words: str) -> str:
        """Run it; return what it says."""
        with self.start(*words) as process:
            said, errors = process.communicate(timeout=SECONDS)
        self.assertNotIn("Traceback", errors)
        self.assertEqual(process.returncode, status, said + errors)
        return said + errors

    def refuse(self, text: str, *words: str) -> None:
        """It says why not."""
        self.assertIn(text, self.run_it(1, *words))

    def qemu_is(self) -> tuple[int, list[str]]:
        """Return process and command line of QEMU, when it is there."""
        until = time.monotonic() + SECONDS
        while True:
            try:
                pid, argv = json.loads((self.folder / "qemu-is").read_bytes())
                return pid, argv
            except (OSError, ValueError):
                self.assertLess(time.monotonic(), until)
                time.sleep(0.01)

    def told(self, name: str) -> list[Any]:
        """Return with which arguments QEMU was given a command."""
        lines = (self.folder / "commands").read_text("utf-8").splitlines()
        return [each["arguments"] for each in map(json.loads, lines)
                if each["execute"] == name]

    def wait_told(self, name: str) -> None:
        """Wait until QEMU was."""
        until = time.monotonic() + SECONDS
        while not (self.folder / "commands").exists() or not self.told(name):
            self.assertLess(time.monotonic(), until)
            time.sleep(0.01)

    def test_whole(self) -> None:
        """It tells QEMU the disk and where to listen, and waits."""
        said = self.run_it(0)
        self.assertIn("100 bytes of 1 disk are missing", said)
        self.assertIn("nothing is missing any more", said)
        pid, argv = self.qemu_is()
        node = json.loads(argv[argv.index("-blockdev") + 1])
        self.assertEqual((node["driver"], node["file"]["filename"]),
                         ("raw", str(self.image)))
        self.assertIn("-S", argv)
        self.assertEqual(self.told("wsm-rejoin"), [{"uri": "tcp:0:4444"}])
        self.assertFalse(self.told("cont"))
        self.assertFalse(is_alive(pid))

    def test_tls(self) -> None:
        """The certificates, before anybody can come."""
        for name in ("ca-cert.pem", "server-cert.pem"):
            (self.folder / name).touch()
        self.refuse("server-key.pem", "--tls-creds", str(self.folder))
        (self.folder / "server-key.pem").touch()
        self.run_it(0, "--tls-creds", str(self.folder))
        creds, = self.told("object-add")
        self.assertEqual((creds["dir"], creds["endpoint"],
                          creds["verify-peer"]),
                         (str(self.folder), "server", True))
        self.assertEqual(self.told("migrate-set-parameters"),
                         [{"tls-creds": creds["id"]}])

    def test_qemu_fails(self) -> None:
        """It does not start, does not know, refuses, dies, or gives up."""
        self.answers["dies"] = "cannot open it"
        self.refuse("ended early: cannot open it")
        del self.answers["dies"]
        self.answers["wsm-rejoin"] = error("none", "CommandNotFound")
        self.refuse("name that with --qemu")
        self.answers["wsm-rejoin"] = error("disk 'disk0': it is old")
        self.refuse(f"wsm-finish: {self.image}: it is old")
        self.answers["wsm-rejoin"] = "die"
        self.refuse("ended with signal 9")
        del self.answers["wsm-rejoin"]
        self.answers["query-wsm"] = [
            {"return": info(9)}, {"return": info(9, "failed", error="why")}]
        self.refuse("phase 'failed': why")
        self.answers["query-wsm"] = {"return": info(0, "completed")}
        self.answers["status"] = 3
        self.refuse("ended early")

    def test_timeout(self) -> None:
        """Nobody comes."""
        self.answers["query-wsm"] = {"return": info(9, connected=False)}
        self.refuse("9 bytes are still missing", "--timeout", "0.3")

    def interrupt(self, how: int, status: int) -> None:
        """Whatever ends it, its QEMU ends, too."""
        self.answers["query-wsm"] = {"return": info(9)}
        with self.start() as process:
            pid = self.qemu_is()[0]
            self.wait_told("query-wsm")
            process.send_signal(how)
            errors = process.communicate(timeout=SECONDS)[1]
        self.assertEqual(process.returncode, status)
        self.assertIn("" if status < 0 else "run it again", errors)
        until = time.monotonic() + SECONDS
        while is_alive(pid):
            self.assertLess(time.monotonic(), until)
            time.sleep(0.01)
        # It would wait for what is missing
        self.assertFalse((self.folder / "asked-to-end").exists())

    def test_ctrl_c(self) -> None:
        """By a user."""
        self.interrupt(signal.SIGINT, 1)

    def test_sigterm(self) -> None:
        """By a manager."""
        self.interrupt(signal.SIGTERM, 1)

    def test_kill(self) -> None:
        """By whatever."""
        self.interrupt(signal.SIGKILL, -signal.SIGKILL)

    def test_states(self) -> None:
        """Only what a killed destination has left."""
        for state, text in (("current", "and whole"),
                            ("leaving", "Serve it with 'wsm-serve'"),
                            ("handed-over", "stale copy")):
            self.put_record(state)
            self.refuse(text)
        Path(f"{self.image}.wsm").write_bytes(b"wsm-record 1 ")
        self.refuse("torn or was changed")
        Path(f"{self.image}.wsm").unlink()
        self.refuse("it has no record")
        self.image.unlink()
        self.refuse("No such file")
        self.image.mkdir()
        self.refuse("no regular file")
        self.assertFalse((self.folder / "qemu-is").exists())

    def test_maps(self) -> None:
        """What the map says, or why it says nothing."""
        self.put_map(b"")
        self.refuse("nothing is missing")
        data = bytearray(self.map.read_bytes())
        self.map.write_bytes(bytes(len(data)))
        self.refuse("The guest's disk is at alpha:4444")
        data[made.PAGE + 60] ^= 1
        self.map.write_bytes(b"?".ljust(made.PAGE, b"\0") +
                             data[made.PAGE:])
        self.refuse("wsm.map: its heads are damaged")
        self.put_map(b"\0\1")
        self.put_record("incomplete", **{"map-disk": made.DISK + 1})
        self.refuse("it is of disk 1, and the image of disk 2")
        self.map.unlink()
        self.refuse("there is no map")
        self.put_record("incomplete", **{"map-node": "lv0"})
        self.refuse("map is on the block node 'lv0'")
        self.assertFalse((self.folder / "qemu-is").exists())

    def test_formats(self) -> None:
        """A guest may have written what looks like qcow2."""
        self.image.write_bytes(b"QFI\xfb".ljust(made.SIZE, b"\0"))
        self.refuse("say it with --format")
        self.run_it(0, "--format", "raw")
        self.image.write_bytes(b"QFI\xfb".ljust(99, b"\0"))
        self.run_it(0)
        argv = self.qemu_is()[1]
        self.assertIn('"driver": "qcow2"', argv[argv.index("-blockdev") + 1])

    def test_command_line(self) -> None:
        """Wrong, or an address that is none."""
        self.refuse("is no address", "--listen", "exec:true")
        self.run_it(2, "--format", "vmdk")

    def test_find_qemu(self) -> None:
        """Which one, and none."""
        self.assertEqual(find_qemu(str(self.qemu)), str(self.qemu))
        with mock.patch.dict(os.environ, {"WSM_QEMU": str(self.qemu)}):
            self.assertEqual(find_qemu(None), str(self.qemu))
        with self.assertRaisesRegex(Refused, "no program /none"):
            find_qemu("/none")


class WatchTest(unittest.TestCase):
    """How long nobody may be there."""

    def test_timeout(self) -> None:
        """From when the last was there, not from the beginning."""
        watch = Watch("tcp:0:1", 10, 100)
        with mock.patch("wsm.finish.say") as say, \
                mock.patch("time.monotonic") as now:
            now.return_value = watch.seen + 9
            watch.look(info(90))
            say.assert_called_with("10 %, 0 of 0 MiB missing, 0.0 MiB/s")
            now.return_value += 9
            watch.look(info(80, connected=False, error="trouble"))
            self.assertIn(mock.call("QEMU says: trouble"), say.mock_calls)
            now.return_value += 2
            with self.assertRaisesRegex(Failed, "80 bytes are still missing"):
                watch.look(info(80, connected=False))
