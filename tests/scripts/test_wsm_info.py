# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of scripts/wsm-info, with records made by hand."""

import base64
import fcntl
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).resolve().parents[2] / "scripts/wsm-info"
SESSION = "5f1d2c70-3f0e-4b1c-9b0a-4a6a1d0c9e11"
OTHER = "c0ffee00-1111-2222-3333-444455556666"
BITMAP = f"wsm-0000000001-{OTHER}"
DISK_SIZE = 1 << 20

# As C writes it: tests/unit/wsm/test-wsm-record.c has the same bytes
SMALL = f"""\
wsm-record 1 a419ba687a317158fee8a9f5568b782117e4291bd4d3281c8c42a1f20438209b
{{
    "state": "handed-over",
    "disk-size": {DISK_SIZE},
    "points": [
    ],
    "session": "{SESSION}",
    "time": 1700000000
}}
"""

QEMU_IMG = f"""\
#!{sys.executable}
import json, sys
assert sys.argv[1:-1] == ["info", "-U", "-f", "qcow2", "--output=json"]
print(json.dumps({{"virtual-size": 4096, "format-specific": {{"data":
    {{"bitmaps": [{{"name": "{BITMAP}", "granularity": 65536,
                    "flags": ["in-use"]}},
                  {{"name": "wsm-seal-0-12", "granularity": 65536,
                    "flags": []}},
                  {{"name": "backup", "granularity": 1, "flags": []}}]}}}}}}))
"""


def with_sum(body: str, version: str = "1") -> str:
    """Return a record with @body and the right sum."""
    return (f"wsm-record {version} "
            + hashlib.sha256(body.encode()).hexdigest() + "\n" + body)


def runs(*numbers: int) -> str:
    """Return a list of runs in base64, for numbers below 128."""
    return base64.b64encode(bytes(numbers)).decode()


class InfoTest(unittest.TestCase):
    """Run the program."""

    def setUp(self) -> None:
        """Make an image that nobody knows anything about."""
        # pylint: disable=consider-using-with
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.image = self.folder / "disk.raw"
        self.image.write_bytes(bytes(DISK_SIZE))

    def run_info(self, *words: object,
                 environment: dict[str, str] | None = None,
                 program: Path = PROGRAM) -> tuple[int, str, str]:
        """Return (exit status, output, errors)."""
        env = {**os.environ, **(environment or {})}
        done = subprocess.run(
            [sys.executable, "-B", program, *map(str, words)], env=env,
            check=False, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout, done.stderr

    def show(self, status: int, *parts: str) -> str:
        """Show the image; check status and parts of what is shown."""
        code, text, errors = self.run_info(self.image)
        self.assertEqual((code, errors), (status, ""), text)
        for part in parts:
            self.assertIn(part, text)
        return text

    def facts(self) -> Any:
        """Return what is shown to machines."""
        _, text, errors = self.run_info("--json", self.image)
        self.assertEqual(errors, "")
        return json.loads(text)["images"][0]

    def write_record(self, text: str) -> None:
        """Write the record of the image."""
        (self.folder / "disk.raw.wsm").write_text(text, encoding="utf-8")

    def write_members(self, **members: Any) -> None:
        """Write a record with some other members; None leaves one out."""
        record = {"state": "current", "session": SESSION, "time": 1700000000,
                  "disk-size": DISK_SIZE, "points": []}
        for name, value in members.items():
            record[name.replace("_", "-")] = value
        self.write_record(with_sum(json.dumps(
            {name: value for name, value in record.items()
             if value is not None})))

    def stamp(self) -> dict[str, int]:
        """Return the stamp of the image."""
        status = self.image.stat()
        return {"device": status.st_dev, "inode": status.st_ino,
                "size": status.st_size, "mtime": status.st_mtime_ns,
                "ctime": status.st_ctime_ns}

    def test_installed(self) -> None:
        """Program and folder are enough, wherever they are."""
        copy = self.folder / "bin" / PROGRAM.name
        shutil.copytree(PROGRAM.with_name("wsm"), copy.with_name("wsm"))
        shutil.copy(PROGRAM, copy)
        link = self.folder / PROGRAM.name
        link.symlink_to(copy)
        for program in (copy, link):
            status, text, errors = self.run_info(self.image, program=program)
            self.assertEqual((status, errors), (0, ""))
            self.assertIn(": current", text)

    def test_no_record(self) -> None:
        """An image without a record is current."""
        self.show(0, "disk.raw: current", "no record",
                  "disk size: 1048576 bytes")
        self.assertEqual(self.facts()["state"], "current")
        self.assertFalse(self.facts()["record"])

    def test_states(self) -> None:
        """Each state in words, with what to do."""
        self.write_record(SMALL)
        self.show(1, "handed over", "2023-11-14 22:13:20 UTC", SESSION,
                  "other host: not known", "what to do", "wsm-adopt")
        self.write_members(state="leaving", peer="10.0.0.2")
        self.show(1, "leaving", "other host: 10.0.0.2", "wsm-adopt")
        self.write_members(state="incomplete")
        self.show(1, "incomplete", "migrate to it again")
        self.write_members(state="current")
        self.assertNotIn("to do", self.show(0, "current", SESSION))
        self.write_members(session="")
        self.assertNotIn("session", self.show(0, "current", "wsm-adopt"))

    def test_in_use(self) -> None:
        """A QEMU that lives has not ended."""
        self.write_members(state="leaving", peer="beta:4444")
        self.assertIn("when QEMU ended", self.show(1, "leaving"))
        self.assertFalse(self.facts()["in-use"])
        request = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 1,
                              0)
        with open(self.image, "rb") as image:
            fcntl.fcntl(image, 37, request)     # F_OFD_SETLK
            text = self.show(1, "leaving: its guest is being handed over",
                             "in use", "other host: beta:4444")
            self.assertNotIn("ended", text)
            self.assertTrue(self.facts()["in-use"])
            self.write_members(state="incomplete")
            self.show(1, "a migration to it runs, or has broken off")
            self.write_record(SMALL)
            self.show(1, "stale", "when it says 'completed'")

    def test_points(self) -> None:
        """Bytes are those of the runs, the last block may be short."""
        stamp = self.stamp()
        self.write_members(disk_size=10 * 4096 + 1, stamp=stamp, points=[
            {"id": SESSION, "granularity": 4096, "since": ""},
            {"id": OTHER, "granularity": 4096, "since": runs(1, 2, 3, 1),
             "rest": runs(9, 2)}])
        self.show(0, f"{SESSION}: 0 bytes", f"{OTHER}: 12288 bytes",
                  "interrupted: 4097 bytes", "was not changed")
        points = self.facts()["points"]
        self.assertEqual([point["interrupted"] for point in points],
                         [False, True])
        self.assertEqual(points[1]["rest-bytes"], 4097)

    def test_bad_runs(self) -> None:
        """Lists of runs that are none, and sync points that are none."""
        for since in ("%", runs(1), runs(1, 0), runs(0x81), runs(0, 100),
                      base64.b64encode(b"\xff" * 11).decode()):
            self.write_members(disk_size=99 * 4096, points=[
                {"id": OTHER, "granularity": 4096, "since": since}])
            self.show(2, "ERROR: sync points: a list of runs")
        points: list[Any] = [{"id": "me", "granularity": 1, "since": ""},
                             {"id": OTHER, "granularity": 3, "since": ""},
                             {"id": OTHER, "granularity": 1, "until": ""},
                             {"id": OTHER, "granularity": 1}, []]
        for point in points:
            self.write_members(points=[point])
            self.show(2, "cannot be used", "sync point")

    def test_stamp(self) -> None:
        """What differs is named with both values."""
        stamp = self.stamp()
        points = [{"id": OTHER, "granularity": 4096, "since": ""}]
        for name, value in stamp.items():
            self.write_members(points=points, stamp={**stamp, name: 7})
            if name == "ctime":
                self.show(0, "was not changed")
                continue
            self.show(0, "not trusted", f"its {name} was 7 and is {value}")
            self.assertFalse(self.facts()["stamp"]["fits"])
        later = time.time() + 3600
        os.utime(self.image, (later, later))
        self.write_members(points=points, stamp=self.stamp())
        self.show(0, "not trusted", "in the future")
        self.write_members(points=points)
        self.show(0, "stamp: none")

    def test_torn(self) -> None:
        """No part of a record is taken for one."""
        for size in range(len(SMALL)):
            if size % 10 == 0 or size in range(10, 16) or size > 300:
                self.write_record(SMALL[:size])
                self.show(2, "disk.raw: not known", "ERROR: record", "torn")
        self.write_record(SMALL + "\n")
        self.show(2, "torn or was changed")

    def set_attribute(self, text: str) -> None:
        """Write the record into the image's attribute."""
        try:
            os.setxattr(self.image, "user.wsm", text.encode())
        except OSError as error:
            self.skipTest(f"no attributes: {error}")

    def test_attribute(self) -> None:
        """It outweighs the file, also if it cannot be used."""
        self.write_members(state="incomplete")
        self.show(1, "incomplete", "record: ", "disk.raw.wsm")
        self.set_attribute(SMALL)
        self.show(1, "handed over", "record: attribute user.wsm")
        self.assertEqual(self.facts()["record-in"], "attribute user.wsm")
        link = self.folder / "link"
        link.symlink_to(self.image)
        self.assertEqual(self.run_info(link)[0], 1)
        self.set_attribute(SMALL[:-1])
        self.show(2, "ERROR: record attribute user.wsm cannot be used: it is "
                     "torn")
        os.removexattr(self.image, "user.wsm")
        self.show(1, "incomplete")

    def test_bad_records(self) -> None:
        """Whatever else is wrong is said."""
        self.write_record(with_sum("{}", version="3"))
        self.show(2, "it has version 3, but this program reads only versions "
                     "1 and 2")
        self.write_record(with_sum("{"))
        self.show(2, "no JSON")
        self.write_record(with_sum("[" * 100000))
        self.show(2, "no JSON")
        self.write_record(with_sum("[]"))
        self.show(2, "no object")
        self.write_members(state="asleep")
        self.show(2, "state 'asleep' is not known")
        self.write_members(session=None)
        self.show(2, "'session' is missing")
        self.write_members(colour="blue")
        self.show(2, "'colour' is not known")
        self.write_members(time=True)
        self.show(2, "'time' is of a wrong type")
        self.write_members(time=10 ** 30, peer="\x1b[31mred")
        self.assertNotIn("\x1b", self.show(0, "?[31mred"))

    def test_handover(self) -> None:
        """How the destination knows an image that may have yet to come."""
        handover = {"disk": 1, "disks": 2, "format": "raw", "points": 0,
                    "granularity": 4096, "channels": 3, "version": 4,
                    "features": 0, "uri": "tcp:beta:4444", "tls": False}
        self.write_members(state="leaving", handover=handover)
        text = self.show(1, "disk 2 of 2, format raw", "wsm-serve",
                         "waits at: tcp:beta:4444")
        self.assertNotIn("TLS", text)
        self.assertEqual(self.facts()["handover"], handover)
        self.write_members(state="leaving", handover={**handover, "tls": True})
        self.show(1, "tcp:beta:4444, with TLS")
        for name, value, words in (
                ("tls", 1, "'tls' is of a wrong type"),
                ("disk", True, "'disk' is of a wrong type"),
                ("uri", None, "'uri' is of a wrong type"),
                ("sky", 1, "'sky' is not known")):
            self.write_members(state="leaving",
                               handover={**handover, name: value})
            self.show(2, words)
        del handover["uri"]
        self.write_members(state="leaving", handover=handover)
        self.show(2, "'uri' is missing")

    def test_files(self) -> None:
        """What is no file, or not there."""
        record = self.folder / "disk.raw.wsm"
        record.mkdir()
        self.show(2, "no regular file")
        record.rmdir()
        os.mkfifo(record)
        self.show(2, "no regular file")
        record.unlink()
        with record.open("wb") as file:
            file.truncate(1 << 40)
        self.show(2, "1099511627776 bytes")
        self.write_record(SMALL)
        self.image.unlink()
        self.show(2, "handed over", "cannot look at it")
        record.unlink()
        self.show(2, "not known", "cannot look at it")

    def test_worst_counts(self) -> None:
        """The exit status is that of the worst image."""
        good = self.folder / "good"
        good.touch()
        self.write_record(SMALL)
        self.assertEqual(self.run_info(good, self.image, good)[0], 1)
        self.assertEqual(self.run_info(self.image, good / "x", good)[0], 2)
        self.assertEqual(self.run_info(good, good)[0], 0)
        self.assertEqual(self.run_info()[0], 2)

    def test_qcow2(self) -> None:
        """Bitmaps are asked for, of qcow2 images only."""
        program = self.folder / "an-img"
        program.write_text(QEMU_IMG, encoding="utf-8")
        program.chmod(0o755)
        code, text, _ = self.run_info("--qemu-img", program, self.image)
        self.assertEqual(code, 0)
        self.assertNotIn("bitmap", text)
        self.image.write_bytes(b"QFI\xfb" + bytes(600))
        code, text, _ = self.run_info("--qemu-img", program, self.image)
        self.assertEqual(code, 0, text)
        self.assertIn(f"bitmap {BITMAP}: blocks of 65536 bytes, in use", text)
        self.assertIn("disk size: 4096 bytes", text)
        self.assertNotIn("backup", text)
        code, text, _ = self.run_info(
            "--json", self.image, environment={"WSM_QEMU_IMG": str(program)})
        bitmaps = json.loads(text)["images"][0]["bitmaps"]
        self.assertEqual([each["name"] for each in bitmaps], [BITMAP])

    def test_no_qemu_img(self) -> None:
        """Without qemu-img the rest is shown."""
        self.image.write_bytes(b"QFI\xfb" + bytes(20)
                               + (5 << 30).to_bytes(8, "big") + bytes(600))
        code, text, _ = self.run_info(
            self.image, environment={"WSM_QEMU_IMG": "/nowhere/img"})
        self.assertEqual(code, 0)
        self.assertIn("no qemu-img found", text)
        self.assertIn("disk size: 5368709120 bytes", text)
        code, _, errors = self.run_info("--qemu-img", "/nowhere/img",
                                        self.image)
        self.assertEqual(code, 2)
        self.assertIn("/nowhere/img", errors)

    def test_failing_qemu_img(self) -> None:
        """What it says is passed on."""
        self.image.write_bytes(b"QFI\xfb" + bytes(600))
        program = self.folder / "an-img"
        for script, part in (("echo no such luck >&2; exit 1", "such luck"),
                             ("echo '[]'", "no object"),
                             ("echo '{}'", "virtual-size"),
                             ("echo '{'", "cannot look into it")):
            program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
            program.chmod(0o755)
            code, text, errors = self.run_info("--qemu-img", program,
                                               self.image)
            self.assertEqual((code, errors), (2, ""))
            self.assertIn(part, text)
