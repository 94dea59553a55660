# SPDX-License-Identifier: GPL-2.0-or-later
"""Show what whole-system migration knows about disk images.

Says for each image whether it is the guest's disk or a stale or incomplete
copy; what of it is still at the other host, by IMAGE.wsm.map; and which sync
points it has: those of its record (IMAGE.wsm, or the attribute user.wsm of the
image) and, of a qcow2 image, those in the image. Only reads; the images may be
in use.

The exit status is 0 if all images are current, 1 if one is not, 2 if
something could not be read.
"""

import argparse
import fcntl
import json
import os
import re
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator, Optional

from wsm.missing_map import (BadMap, Missing, Other, Uncommitted, Wanted,
                             load_map)
from wsm.programs import find_program
from wsm.record import (COUNTS, BadRecord, find_record, runs_bytes,
                        stamp_of)

QCOW2_MAGIC = b"QFI\xfb"
QCOW2_SIZE_OFFSET = 24
# Linux's open file description locks, with which QEMU marks an image that it
# has open: fields of struct flock, and the bytes that are locked
F_OFD_GETLK = 36
FLOCK = "hhqqi4x"
LOCK_BYTES = (100, 200)
SEAL = "wsm-seal-"
# State: (words, what to do)
STATES = {
    "current": ("current", ""),
    "incomplete": (
        "incomplete: a migration to it has not ended, or broke off",
        "this is no consistent disk. If that migration still runs, wait; "
        "else migrate to it again, or remove it and its record"),
    "arriving": (
        "arriving: it is the guest's disk, but some blocks of it are still at "
        "the other host",
        "keep it and the image there, with their records and the map: each is "
        "of no use without the other. Serve that one with 'wsm-serve' there. "
        "Here either start QEMU (-S, without -incoming) and give it the "
        "commands 'wsm-rejoin' and 'cont', or fetch what is missing first, "
        "with 'wsm-finish'"),
    "leaving": (
        "leaving: its guest was about to be handed over when QEMU ended",
        "ask the other host's QEMU with 'query-wsm'. If the guest runs there "
        "and blocks are missing, serve this image to it with 'wsm-serve'; if "
        "all is there, this copy is stale; if the guest is not there, start "
        "QEMU here and make this copy the current one with 'wsm-adopt'"),
    "handed-over": (
        "handed over: its guest runs elsewhere, this copy is stale",
        "start the guest there, or migrate it back. Only if that copy is "
        "lost: 'wsm-adopt' here; what the guest has written there is lost "
        "then"),
}
# The same while a QEMU has the image open
STATES_IN_USE = {
    "incomplete": (
        "incomplete: a migration to it runs, or has broken off",
        "ask that QEMU with 'query-wsm'; if no migration runs, migrate to it "
        "again"),
    "arriving": (
        "arriving: its guest runs here, and blocks come from the other host",
        "ask that QEMU with 'query-wsm' how far it is"),
    "leaving": (
        "leaving: its guest is being handed over to another host",
        "ask that QEMU with 'query-wsm' how far it is"),
    "handed-over": (
        "handed over: its guest runs elsewhere, this copy is stale",
        "end that QEMU when it says 'completed'"),
}


def describe_point(point: dict[str, Any], disk_size: int) -> dict[str, Any]:
    """Return what is shown of a sync point."""
    shown = {"id": point["id"], "granularity": point["granularity"],
             "interrupted": "rest" in point}
    for name in ("since", "rest"):
        if name in point:
            shown[f"{name}-bytes"] = runs_bytes(
                point[name], point["granularity"], disk_size)
    return shown


def compare_stamps(then: dict[str, int],
                   now: dict[str, int]) -> dict[str, Any]:
    """Return whether an image was not written to, and else why not."""
    problems = [f"its {name} was {then[name]} and is {now[name]}"
                for name in COUNTS if then[name] != now[name]]
    if not problems and now["mtime"] > time.time_ns():
        problems = ["its mtime is in the future; was the clock set back?"]
    return {"fits": not problems, "problems": problems}


def handover_lines(handover: dict[str, Any]) -> Iterator[str]:
    """Yield how the destination knows the image, which may have yet to come."""
    yield (f"    in that session: disk {handover['disk'] + 1} of "
           f"{handover['disks']}, format {handover['format']}")
    yield (f"    the destination waits at: {handover['uri']}"
           + (", with TLS" if handover["tls"] else ""))


def is_in_use(name: str) -> bool:
    """Return whether a QEMU has locked an image; False if not known."""
    request = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, *LOCK_BYTES, 0)
    try:
        with open(name, "rb") as file:
            reply = fcntl.fcntl(file, F_OFD_GETLK, request)
    except OSError:
        return False
    return bool(struct.unpack(FLOCK, reply)[0] != fcntl.F_UNLCK)


def qcow2_size(head: bytes) -> int:
    """Return the virtual size from the head of a qcow2 image."""
    size, = struct.unpack_from(">Q", head, QCOW2_SIZE_OFFSET)
    return int(size)


def run_qemu_img(program: str, image: str) -> dict[str, Any]:
    """Return what qemu-img says of a qcow2 image; raise ValueError."""
    command = [program, "info", "-U", "-f", "qcow2", "--output=json",
               os.path.abspath(image)]
    try:
        done = subprocess.run(command, check=False, capture_output=True,
                              stdin=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"cannot run {program}: {error}") from error
    if done.returncode:
        errors = done.stderr.decode(errors="replace").strip()
        raise ValueError(f"{program}: {errors}")
    result = json.loads(done.stdout)
    if not isinstance(result, dict):
        raise ValueError(f"{program} gives no object")
    return result


class Image:
    """What is known of an image."""

    def __init__(self, name: str, list_missing: bool = False) -> None:
        self.list_missing = list_missing
        self.missing: Optional[Missing] = None
        self.errors: list[str] = []
        self.notes: list[str] = []
        self.facts: dict[str, Any] = {"image": name, "state": None,
                                      "record": False}

    def read(self, qemu_img: Optional[str]) -> None:
        """Collect all that can be found out."""
        name = self.facts["image"]
        try:
            status = os.stat(name)
        except (OSError, ValueError) as error:
            self.errors.append(f"cannot look at it: {error}")
            status = None
        self.read_record(status)
        if status and not stat.S_ISREG(status.st_mode):
            self.notes.append("no regular file, so it keeps no record")
        elif status:
            self.facts["in-use"] = is_in_use(name)
            # An image with points in its record is not qcow2, and what a
            # guest has put into a raw disk is not to be taken for it
            if not self.facts.get("points"):
                self.read_qcow2(qemu_img)
            self.facts.setdefault("disk-size", status.st_size)

    def read_record(self, status: Optional[os.stat_result]) -> None:
        """Find the record as QEMU does: an attribute outweighs a file."""
        try:
            record, where = find_record(Path(self.facts["image"]))
        except BadRecord as error:
            self.errors.append(str(error))
            return
        if record is not None:
            self.facts["record-in"] = where
        self.take_record(record, status)
        if record is None or self.facts["state"] != "incomplete":
            return
        if "map-node" in record:
            self.point_to_node(record["map-node"])
        elif record["session"]:
            file = os.path.realpath(self.facts["image"])
            self.read_map(Path(f"{file}.wsm.map"), Wanted(
                record["session"], record["disk-size"],
                record.get("map-disk")))

    def point_to_node(self, node: str) -> None:
        """Its map is on a block node, of which only a QEMU knows."""
        self.facts["state"] = "arriving"
        self.facts["map"] = {"node": node, "state": "on-node"}
        self.notes.append(
            "how much is still at the other host is not known here: the map "
            f"is on the block node that QEMU called '{node}'. Name that in "
            "the option 'maps' of 'wsm-set-options'; 'query-wsm' says it then")

    def read_map(self, path: Path, wanted: Wanted) -> None:
        """
        Find out whether an incomplete image is the guest's disk.

        It is if it has a map that counts, also if that map cannot be used.  If
        nothing is missing, QEMU ended just before it removed the record.
        """
        facts: dict[str, Any] = {"file": str(path)}
        try:
            self.missing = load_map(path, wanted)
            if self.missing is None:
                return
            facts |= {"state": "good", "missing": self.missing.bytes}
            self.facts["state"] = ("arriving" if self.missing.bytes
                                   else "current")
        except Uncommitted as error:
            facts |= {"state": "not-yet", "reason": str(error)}
        except Other as error:
            facts |= {"state": "other", "reason": str(error)}
        except BadMap as error:
            facts |= {"state": "unusable", "reason": str(error)}
            self.facts["state"] = "arriving"
            self.errors.append(f"map {path} cannot be used: {error}")
        self.facts["map"] = facts

    def take_record(self, record: Optional[dict[str, Any]],
                    status: Optional[os.stat_result]) -> None:
        """Take over what the record says."""
        if record is None:
            self.facts["state"] = "current" if status else None
            return
        self.facts["record"] = True
        for name in ("state", "session", "time", "peer", "disk-size",
                     "handover"):
            if name in record:
                self.facts[name] = record[name]
        if "stamp" in record and status:
            self.facts["stamp"] = compare_stamps(record["stamp"],
                                                 stamp_of(status))
        try:
            self.facts["points"] = [
                describe_point(point, record["disk-size"])
                for point in record["points"]]
        except BadRecord as error:
            self.errors.append(f"sync points: {error}")

    def read_qcow2(self, qemu_img: Optional[str]) -> None:
        """Add what is in a qcow2 image."""
        name = self.facts["image"]
        try:
            with open(name, "rb") as file:
                head = file.read(QCOW2_SIZE_OFFSET + 8)
            if not head.startswith(QCOW2_MAGIC):
                return
            self.facts["disk-size"] = qcow2_size(head)
            if qemu_img is None:
                self.notes.append("no qemu-img found: the sync points in the "
                                  "image are not shown")
                return
            info = run_qemu_img(qemu_img, name)
            data = info.get("format-specific", {}).get("data", {})
            self.facts["disk-size"] = info["virtual-size"]
            self.facts["bitmaps"] = [
                {"name": each["name"], "granularity": each["granularity"],
                 "flags": each["flags"]}
                for each in data.get("bitmaps", [])
                if each["name"].startswith("wsm-")
                and not each["name"].startswith(SEAL)]
        except (OSError, ValueError, KeyError, TypeError, struct.error,
                AttributeError) as error:
            self.errors.append(f"cannot look into it: {error!s}")

    def for_machines(self) -> dict[str, Any]:
        """Return all of it."""
        facts: dict[str, Any] = {**self.facts, "notes": self.notes,
                                 "errors": self.errors}
        if self.list_missing and self.missing:
            facts["missing"] = [{"offset": offset, "bytes": count}
                                for offset, count in self.missing.runs]
        return facts

    def lines(self) -> Iterator[str]:
        """Yield what people read."""
        facts = self.facts
        if facts["state"]:
            words, advice = STATES[facts["state"]]
            if facts.get("in-use"):
                words, advice = STATES_IN_USE.get(facts["state"],
                                                  (words, advice))
            yield f"{facts['image']}: {words}"
            if facts.get("in-use"):
                yield "    in use: a QEMU has it open"
            yield from self.history_lines()
            yield from self.map_lines()
            if advice:
                yield f"    what to do: {advice}"
        else:
            yield f"{facts['image']}: not known"
        if "disk-size" in facts:
            yield f"    disk size: {facts['disk-size']} bytes"
        yield from self.point_lines()
        for note in self.notes:
            yield f"    note: {note}"
        for error in self.errors:
            yield f"    ERROR: {error}"

    def history_lines(self) -> Iterator[str]:
        """Yield when and how the image came to its state."""
        facts = self.facts
        if not facts["record"]:
            yield "    no record: nothing is known against it"
            return
        try:
            when = time.strftime("%Y-%m-%d %H:%M:%S UTC",
                                 time.gmtime(facts["time"]))
        except (OverflowError, OSError, ValueError):
            when = f"{facts['time']} s after 1970"
        yield f"    record: {facts['record-in']}"
        yield (f"    since {when}, session {facts['session']}"
               if facts["session"] else
               f"    since {when}, said by wsm-adopt or without a migration")
        if "peer" in facts or facts["state"] != "current":
            yield f"    other host: {facts.get('peer', 'not known')}"
        if "handover" in facts:
            yield from handover_lines(facts["handover"])

    def map_lines(self) -> Iterator[str]:
        """Yield what the map says, if there is one."""
        facts = self.facts.get("map")
        if facts and "reason" in facts:
            yield f"    map: {facts['file']}: {facts['reason']}"
        elif facts and "node" in facts:
            yield f"    map: on the block node '{facts['node']}'"
        elif facts:
            yield (f"    map: {facts['file']}: {facts['missing']} bytes are "
                   "missing")
        if self.list_missing and self.missing:
            for offset, count in self.missing.runs:
                yield f"        {count} bytes at {offset}"

    def point_lines(self) -> Iterator[str]:
        """Yield the sync points and whether they can be trusted."""
        for point in self.facts.get("points", []):
            yield (f"    sync point {point['id']}: {point['since-bytes']} "
                   "bytes written until the next or now")
            if point["interrupted"]:
                yield (f"        interrupted: {point['rest-bytes']} bytes "
                       "differed then")
        stamp = self.facts.get("stamp")
        if stamp and stamp["fits"]:
            yield "    stamp: the file was not changed since the record"
        elif stamp:
            yield ("    stamp: the file was changed since the record, so its "
                   "sync points are not trusted:")
            yield from (f"        {problem}" for problem in stamp["problems"])
        elif self.facts.get("points"):
            yield "    stamp: none, so the sync points are not trusted"
        for bitmap in self.facts.get("bitmaps", []):
            used = "in-use" in bitmap["flags"]
            yield (f"    bitmap {bitmap['name']}: blocks of "
                   f"{bitmap['granularity']} bytes"
                   + (", in use or not closed cleanly" if used else ""))


def plain(line: str) -> str:
    """Return a line that does nothing to a terminal."""
    return re.sub(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]", "?", line)


def arguments() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--json", action="store_true",
                        help="write JSON, for machines")
    parser.add_argument("--missing", action="store_true",
                        help="list what is still at the other host")
    parser.add_argument("--qemu-img", metavar="PROGRAM",
                        help="what to ask about qcow2 images; else "
                             "$WSM_QEMU_IMG, build/qemu-img, qemu-img")
    return parser.parse_args()


def main() -> int:
    """Run the program; return its exit status."""
    args = arguments()
    qemu_img = find_program("qemu-img", args.qemu_img, "WSM_QEMU_IMG")
    if args.qemu_img and not qemu_img:
        print(f"there is no program {args.qemu_img}", file=sys.stderr)
        return 2
    images = [Image(name, args.missing) for name in args.images]
    for image in images:
        image.read(qemu_img)
    if args.json:
        print(json.dumps({"images": [image.for_machines()
                                     for image in images]}, indent=4))
    else:
        for image in images:
            for line in image.lines():
                print(plain(line))
    if any(image.errors for image in images):
        return 2
    return int(any(image.facts["state"] != "current" for image in images))
