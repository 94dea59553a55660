# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of scripts/wsm-serve: its pure parts, its locks, and its reasons."""

import asyncio
import contextlib
import fcntl
import io
import json
import os
import random
import socket
import struct
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Optional
from unittest import mock

from wsm.record import decode_record, encode_record, find_record
from wsm.serve import serving
from wsm.serve.claims import Refused, Session, session_of
from wsm.serve.dialing import (Address, BadAddress, hang_up,
                               parse_address)
from wsm.serve.extents import Extents, Todo
from wsm.serve.handed import hand_over
from wsm.serve.pushing import PIECE, Flight, Window, corrected
from wsm.serve.reading import RawDisk, lock_image, open_disk
from wsm.serve.speech import (BadMessage, Kind, Message, all_changed,
                              decode_head, hello, leb128)

SESSION = "00010203-0405-0607-0809-0a0b0c0d0e0f"
MIB = 1 << 20
HANDOVER = {"disk": 0, "disks": 1, "format": "raw", "points": 2,
            "granularity": 4096, "channels": 3, "version": 4, "features": 5,
            "uri": "tcp:beta:4444", "tls": False}
ROUNDS = 2000
TUNNEL_SECONDS = 15.0
SPACE = 40


def record_of(disk: int = 0, disks: int = 1, size: int = MIB,
              state: str = "leaving", session: str = SESSION,
              **handover: Any) -> dict[str, Any]:
    """Return a record of a killed source."""
    return {"state": state, "session": session, "time": 1700000000,
            "disk-size": size, "points": [], "peer": "beta:4444",
            "handover": {**HANDOVER, "disk": disk, "disks": disks,
                         **handover}}


class ExtentsTest(unittest.TestCase):
    """Sets of bytes, beside a set of numbers."""

    def check(self, extents: Extents, model: set[int]) -> None:
        """All that can be asked is as in the model."""
        ranges = list(extents)
        self.assertEqual({i for a, b in ranges for i in range(a, b)}, model)
        self.assertEqual(extents.total, len(model))
        self.assertEqual(bool(extents), bool(model))
        for (_, end), (begin, _) in zip(ranges, ranges[1:]):
            self.assertLess(end, begin)
        if model:
            self.assertEqual(extents.first()[0], min(model))

    def test_random(self) -> None:
        """Add, cut and look, at random."""
        rng = random.Random(1)
        for _ in range(ROUNDS // 50):
            extents, model = Extents(), set[int]()
            for _ in range(50):
                begin = rng.randrange(SPACE)
                end = begin + rng.randrange(SPACE - begin + 1)
                within = {i for a, b in extents.within(begin, end)
                          for i in range(a, b)}
                self.assertEqual(within, model & set(range(begin, end)))
                if rng.random() < 0.5:
                    extents.add(begin, end)
                    model |= set(range(begin, end))
                else:
                    extents.cut(begin, end)
                    model -= set(range(begin, end))
                self.check(extents, model)


class TodoTest(unittest.TestCase):
    """Each byte is to be sent, on its way, or done with."""

    def test_random(self) -> None:
        """Whatever gets lost, all is sent in the end."""
        rng = random.Random(2)
        for _ in range(ROUNDS // 50):
            todo, away, done = Todo(SPACE), list[tuple[int, int]](), set[int]()
            while todo.left():
                span = todo.next()
                if span and rng.random() < 0.5:
                    end = rng.randint(span[0] + 1, span[1])
                    todo.take(span[0], end)
                    away.append((span[0], end))
                elif away and rng.random() < 0.7:
                    flight = away.pop(rng.randrange(len(away)))
                    if rng.random() < 0.3:
                        todo.lost(*flight)
                    else:
                        todo.arrived(*flight)
                        done |= set(range(*flight))
                elif rng.random() < 0.3:
                    begin = rng.randrange(SPACE)
                    taken = todo.take_first(begin, begin + 3)
                    if taken:
                        self.assertLessEqual(begin, taken[0])
                        self.assertLessEqual(taken[1], begin + 3)
                        away.append(taken)
                self.assertEqual(todo.away, sum(b - a for a, b in away))
            self.assertEqual(done, set(range(SPACE)))
            self.assertIsNone(todo.next())
            todo.restart()
            self.assertEqual(todo.left(), SPACE)

    def test_lost_first(self) -> None:
        """What a read may wait for is sent next."""
        todo = Todo(100)
        todo.take(0, 50)
        todo.lost(30, 40)
        self.assertEqual(todo.next(), (30, 40))
        todo.forget(30, 35)
        self.assertEqual(todo.next(), (35, 40))
        todo.forget(0, 100)
        self.assertEqual(todo.left(), 40)


class SpeechTest(unittest.TestCase):
    """Bytes, as docs/protocol.md has them."""

    def test_bytes(self) -> None:
        """The examples of the protocol."""
        self.assertEqual(
            Message(Kind.ZERO, epoch=0, offset=0x1000,
                    count=0x4000000).encode(),
            bytes.fromhex("57534d31 0005 0000 00000000 00000000"
                          "0000000000001000 0000000004000000"))
        self.assertEqual(
            Message(Kind.SYNC, epoch=0, offset=0x0123456789abcdef).encode(),
            bytes.fromhex("57534d31 0008 0000 00000000 00000000"
                          "0123456789abcdef 0000000000000000"))
        self.assertEqual(
            hello(SESSION, 4, 2, 3, 0x80000001).encode().hex(),
            "57534d31" "0001" "0000" "00000000" "00000018"
            + "0" * 32 + SESSION.replace("-", "") + "0004" "02" "03"
            "80000001")
        self.assertEqual(leb128(127) + leb128(128) + leb128(16384),
                         bytes.fromhex("7f8001808001"))

    def test_all_changed(self) -> None:
        """One run of all blocks, the last of which may be short."""
        message = all_changed(1, 5 * 4096 + 512, 4096, 63)
        self.assertEqual((message.kind, message.disk, message.epoch,
                          message.offset, message.count, message.payload),
                         (19, 1, 1, 0, 5 * 4096 + 512, b"\x3f\0\0\6"))

    def test_head(self) -> None:
        """What comes is not believed."""
        good = Message(Kind.PULL, 2, offset=4096, count=512).encode()
        head = decode_head(good)
        self.assertEqual((head.kind, head.disk, head.epoch, head.offset,
                          head.count, head.length), (13, 2, 1, 4096, 512, 0))
        with self.assertRaisesRegex(BadMessage, "magic"):
            decode_head(b"QEVM" + good[4:])
        with self.assertRaisesRegex(BadMessage, "payload"):
            decode_head(good[:12] + b"\0\0\4\1" + good[16:])


class ClaimsTest(unittest.TestCase):
    """What records say of a session."""

    def refuse(self, words: str, *records: Optional[dict[str, Any]],
               **how: bool) -> None:
        """The images of @records are not served."""
        names = [f"image-{i}" for i in range(len(records))]
        with self.assertRaisesRegex(Refused, words):
            session_of(names, records, **how)

    def test_good(self) -> None:
        """Whatever order they are named in."""
        session = session_of(["b", "a"], [record_of(1, 2, 2 * MIB,
                                                    format="qcow2"),
                                          record_of(0, 2)])
        self.assertEqual([(c.image, c.number, c.size, c.format, c.points)
                          for c in session.claims],
                         [("a", 0, MIB, "raw", 2),
                          ("b", 1, 2 * MIB, "qcow2", 2)])
        self.assertEqual(
            (session.id, session.granularity, session.channels,
             session.version, session.features, session.uri, session.tls,
             session.told),
            (SESSION, 4096, 3, 4, 5, "tcp:beta:4444", False, True))

    def test_states(self) -> None:
        """Only of a source that was killed after the handover."""
        self.refuse("image-0: it has no record", None)
        self.refuse("the guest's disk", record_of(state="current"))
        self.refuse("serve that one's image", record_of(state="incomplete"))
        self.refuse("has everything", record_of(state="handed-over"))
        self.refuse("image-1: it has no record", record_of(0, 2), None)
        self.refuse("no UUID", record_of(session="7"))
        self.refuse("no size", record_of(size=513))
        self.refuse("no size", record_of(size=-512))

    def test_disks(self) -> None:
        """Each disk of the session, once."""
        self.refuse("Not there: disk 2$", record_of(0, 2))
        self.refuse("Not there: disk 1, 3$", record_of(1, 3))
        self.refuse("image-1: it is disk 1 .* image-0 .* copy",
                    record_of(0, 2), record_of(0, 2))
        self.refuse("image-1: the session of its record",
                    record_of(0, 2),
                    record_of(1, 2, session=SESSION.replace("0", "1")))

    def test_contradictions(self) -> None:
        """All records of a session say the same of it."""
        for name, value in (("granularity", 8192), ("channels", 4),
                            ("features", 4), ("uri", "tcp:gamma:4444"),
                            ("tls", True)):
            other = record_of(1, 2)
            other["handover"][name] = value
            self.refuse(f"image-1: '{name}'", record_of(0, 2), other)
        session_of(["a", "b"], [record_of(0, 2),
                                record_of(1, 2, uri="tcp:gamma:1")],
                   other_uri=True)

    def test_values(self) -> None:
        """What no source can have written."""
        for name, value in (
                ("version", 5), ("channels", 1), ("channels", 18),
                ("disk", 1), ("disk", -1), ("disks", 0), ("points", 65),
                ("points", -1), ("features", 1 << 32), ("features", -1),
                ("granularity", 5000), ("granularity", 2048),
                ("granularity", 1 << 21), ("granularity", 0),
                ("format", "vmdk"), ("format", "luks in qcow2")):
            record = record_of()
            record["handover"][name] = value
            self.refuse("image-0: its ", record)

    def test_old(self) -> None:
        """Records without a handover."""
        record = record_of()
        del record["handover"]
        self.refuse("--only-disk", record)
        self.refuse("which disk of the guest", record, record, only_disk=True)
        self.refuse("image-1: .*which disk", record_of(0, 2), record,
                    only_disk=True)
        session = session_of(["a"], [record], only_disk=True)
        self.assertFalse(session.told)
        self.assertIsNone(session.uri)
        # Fits any that the destination may have
        self.assertEqual(session.granularity, 1 << 20)

    def test_corrected(self) -> None:
        """What REFUSE teaches, in the words of conn.c."""
        record = record_of()
        del record["handover"]
        session = session_of(["a"], [record], only_disk=True)
        better: Optional[Session] = corrected(
            session, "block channel: the source has version 4 of the protocol "
            "and features 0x0 here, but had version 4 and features 0x1f in "
            "START")
        assert better
        self.assertEqual((better.version, better.features), (4, 31))
        better = corrected(better, "block channel 0 of 2, but the session has "
                                   "17")
        assert better
        self.assertEqual((better.channels, better.features), (17, 31))
        self.assertIsNone(corrected(session, "there is no session x here"))


class AddressTest(unittest.TestCase):
    """Where the destination waits."""

    def test_good(self) -> None:
        """All that the source writes, and that users type."""
        for uri, *fields in (
                ("tcp:beta:4444", "tcp", "beta", "4444"),
                ("tcp:[fe80::1%eth0]:1", "tcp", "fe80::1%eth0", "1"),
                ("tcp:10.0.0.1:4444,ipv4=on", "tcp", "10.0.0.1", "4444"),
                ("unix:/a b:c", "unix", "/a b:c", ""),
                ("vsock:3:4444", "vsock", "3", "4444")):
            self.assertEqual(parse_address(uri), Address(uri, *fields))

    def test_bad(self) -> None:
        """Typing errors."""
        for uri in ("", "beta", "beta:4444", "tcp:beta", "tcp::4444",
                    "tcp:beta:", "tcp:beta:http", "unix:", "vsock:a:1",
                    "fd:3", "exec:cat"):
            with self.assertRaises(BadAddress, msg=uri):
                parse_address(uri)


class ClosedTransport:
    """As asyncio's of TLS, when the other side has closed it."""

    def __init__(self) -> None:
        self.protocol: Optional[list[str]] = []

    def is_closing(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Close it once more, after which nothing else works."""
        self.protocol = None

    def abort(self) -> None:
        """Close it at once."""
        assert self.protocol is not None
        self.protocol.append("abort")


class HangUpTest(unittest.TestCase):
    """A connection is closed, whatever state it is in."""

    def test_other_side_was_first(self) -> None:
        """One that is closed already is no error."""
        transport = ClosedTransport()
        writer = mock.Mock(transport=transport, close=transport.close,
                           wait_closed=mock.AsyncMock(
                               side_effect=ConnectionResetError))
        asyncio.run(hang_up(writer))
        self.assertEqual(transport.protocol, ["abort"])


class EndTest(unittest.TestCase):
    """Tasks end."""

    def test_cancelled_twice(self) -> None:
        """One that swallows it, as wait_for() may, ends all the same."""
        async def stubborn() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            await asyncio.sleep(60)

        async def run() -> None:
            tasks = [asyncio.create_task(stubborn())]
            await asyncio.sleep(0)
            await asyncio.wait_for(serving.end_all(tasks), 10)
            self.assertTrue(tasks[0].cancelled())

        asyncio.run(run())


class WindowTest(unittest.TestCase):
    """What may be in flight."""

    def test_both_ways(self) -> None:
        """More while answers are quick, less when they are slow."""
        window = Window()
        before = window.size
        for i in range(100):
            window.answered(Flight(0, 0, 1, PIECE, float(i)), i + 0.05)
        self.assertGreater(window.size, before)
        high = window.size
        # Those that were in flight at the time count once
        for i in range(10):
            window.answered(Flight(0, 0, 1, PIECE, 200.0), 201.0)
        self.assertEqual(window.size, high // 2)
        for i in range(100):
            window.answered(Flight(0, 0, 1, PIECE, 300.0 + 2 * i),
                            301.0 + 2 * i)
        self.assertEqual(window.size, PIECE)


class ImageTest(unittest.TestCase):
    """Files."""

    def setUp(self) -> None:
        """Make an image and its record."""
        # pylint: disable=consider-using-with
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.image = self.folder / "disk 1.raw"
        with open(self.image, "wb") as file:
            file.truncate(MIB)
            file.seek(MIB // 2)
            file.write(b"x" * 8192)
        self.record = self.folder / "disk 1.raw.wsm"
        self.record.write_bytes(encode_record(record_of()))

    def main(self, *words: str) -> str:
        """Run it; it fails. Return why."""
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), \
                contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(serving.main([*words, str(self.image)]), 1)
        return errors.getvalue()

    def test_raw(self) -> None:
        """Data, holes, and an end that is not a whole sector."""
        with open(self.image, "r+b") as file:
            file.truncate(MIB - 100)
        disk = RawDisk(os.open(self.image, os.O_RDONLY), MIB)
        self.addCleanup(disk.close)
        end, zero = disk.extent(0)
        self.assertTrue(zero and end <= MIB // 2 or not zero)
        end, zero = disk.extent(MIB // 2)
        self.assertFalse(zero)
        self.assertGreaterEqual(end, MIB // 2 + 8192)
        self.assertEqual(disk.read(MIB // 2 - 1, 3), b"\0xx")
        self.assertEqual(disk.read(MIB - 4096, 4096), bytes(4096))
        self.assertEqual(disk.extent(MIB - 4096)[0], MIB)

    def lock(self, byte: int) -> int:
        """Lock a byte of the image as QEMU does."""
        handle = os.open(self.image, os.O_RDONLY)
        fcntl.fcntl(handle, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, byte,
                                            1, 0))
        return handle

    def test_lets_go(self) -> None:
        """Who was killed may need a moment until its locks are gone."""
        theirs, ours = self.lock(201), os.open(self.image, os.O_RDONLY)
        with mock.patch("wsm.serve.reading.time.sleep",
                        side_effect=lambda _: os.close(theirs)) as slept:
            lock_image("a", ours)
        slept.assert_called_once()
        os.close(ours)

    @mock.patch("wsm.serve.reading.LET_GO_SECONDS", 0)
    def test_locks(self) -> None:
        """A QEMU that writes, or one more server, is seen."""
        for byte in (101, 103, 200, 201, 203):
            theirs, ours = self.lock(byte), os.open(self.image, os.O_RDONLY)
            with self.assertRaisesRegex(Refused, "another process", msg=byte):
                lock_image("a", ours)
            os.close(theirs)
            os.close(ours)
        # One that only reads
        theirs, ours = self.lock(100), os.open(self.image, os.O_RDONLY)
        lock_image("a", ours)
        other = os.open(self.image, os.O_RDONLY)
        with self.assertRaises(Refused):
            lock_image("a", other)
        for handle in (theirs, ours, other):
            os.close(handle)

    def test_open(self) -> None:
        """What is wrong with an image is said."""
        claim = session_of([str(self.image)], [record_of()]).claims[0]
        disk = open_disk(claim, None, None)
        self.assertEqual(disk.size, MIB)
        disk.close()
        os.truncate(self.image, 2 * MIB)
        self.assertIn("resized", self.main())
        self.image.unlink()
        self.assertIn("no such file", self.main())
        self.image.mkdir()
        self.assertIn("no regular file", self.main())

    def test_qcow2(self) -> None:
        """What a guest has put into a raw disk is not taken for qcow2."""
        with open(self.image, "r+b") as file:
            file.write(b"QFI\xfb")
        with mock.patch.dict(os.environ, {"PATH": "", "WSM_QEMU_NBD": "x"}):
            self.record.write_bytes(encode_record(record_of(format="qcow2")))
            self.assertIn("no qemu-nbd found", self.main())
            old = record_of()
            del old["handover"]
            self.record.write_bytes(encode_record(old))
            self.assertIn("--format", self.main("--only-disk", "--to",
                                                "tcp:a:1"))

    def test_reasons(self) -> None:
        """Before anything is opened."""
        self.assertIn("is no address", self.main("--to", "beta"))
        self.assertIn("leave --tls-creds out", self.main("--tls-creds", "/"))
        self.assertIn("no program", self.main("--qemu-nbd", "/nowhere"))
        self.record.write_bytes(encode_record(record_of(tls=True)))
        self.assertIn("certificates with --tls-creds", self.main())
        self.assertIn("there is no", self.main("--tls-creds",
                                               str(self.folder)))
        self.record.write_bytes(b"torn")
        self.assertIn("cannot be used", self.main())
        self.record.unlink()
        self.assertIn("it has no record", self.main())

    def test_unreachable(self) -> None:
        """It gives up when it was told to, and leaves the record alone."""
        before = self.record.read_bytes()
        self.assertIn("no connection", self.main(
            "--timeout", "0.3", "--to", f"unix:{self.folder}/nobody"))
        self.assertEqual(self.record.read_bytes(), before)

    @mock.patch("wsm.serve.pushing.BACKOFF", (0.01, 0.02))
    def test_unreachable_behind_a_tunnel(self) -> None:
        """Somebody answers each time, and hangs up."""
        place = self.folder / "tunnel"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
            listener.listen()
            listener.settimeout(0.1)
            ended = threading.Event()
            given_up = time.monotonic() + TUNNEL_SECONDS

            def answer() -> None:
                while not ended.is_set() and time.monotonic() < given_up:
                    with contextlib.suppress(socket.timeout):
                        listener.accept()[0].close()
                listener.close()

            thread = threading.Thread(target=answer)
            thread.start()
            said = self.main("--timeout", "0.5", "--to", f"unix:{place}")
            self.assertTrue(thread.is_alive(), "it ended with the tunnel")
            ended.set()
            thread.join()
            self.assertIn("no connection", said)

    def test_hand_over(self) -> None:
        """The record says so, with the mode that it had."""
        self.record.chmod(0o640)
        hand_over(str(self.image), SESSION)
        record, where = find_record(self.image)
        assert record
        self.assertEqual(where, str(self.record))
        self.assertEqual(self.record.stat().st_mode & 0o777, 0o640)
        self.assertEqual((record["state"], record["peer"], record["session"]),
                         ("handed-over", "beta:4444", SESSION))
        self.assertNotIn("handover", record)
        self.assertGreater(record["time"], 1700000000)
        self.assertTrue(self.record.read_bytes().startswith(b"wsm-record 1 "))
        with self.assertRaisesRegex(ValueError, "changed"):
            try:
                hand_over(str(self.image), SESSION)
            except Exception as error:
                raise ValueError(str(error)) from error

    def test_attribute(self) -> None:
        """A record that is an attribute stays one."""
        try:
            os.setxattr(self.image, "user.wsm", self.record.read_bytes())
        except OSError as error:
            self.skipTest(f"no attributes: {error}")
        self.record.unlink()
        hand_over(str(self.image), SESSION)
        self.assertEqual(decode_record(os.getxattr(self.image, "user.wsm"))
                         ["state"], "handed-over")
        self.assertFalse(self.record.exists())

    def test_round_trip(self) -> None:
        """What is written is what was read."""
        record = record_of()
        self.assertEqual(decode_record(encode_record(record)), record)
        self.assertEqual(json.loads(encode_record(record).split(b"\n", 1)[1]),
                         record)


if __name__ == "__main__":
    unittest.main()
