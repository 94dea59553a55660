# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetch what the images of a killed destination QEMU miss, without a guest.

When the destination QEMU of a migration is killed in post-copy, or its host
restarts, its images are the guest's disks, but some blocks of them are still
in the source's images only.  This program, run on the destination's host,
waits for these blocks, while 'wsm-serve' sends them from the source's host.
Name the images of all disks of the guest that were being migrated.

No guest runs meanwhile.  Where it is not to wait, start its QEMU, and give
that the command 'wsm-rejoin' instead.

It can be interrupted at any time, and be started again: what has come is not
fetched a second time.  The exit status is 0 when nothing is missing any more,
1 if that was not reached, 2 if the command line is wrong.
"""

import argparse
import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any, NoReturn, Optional, Sequence

from wsm.fetcher import Denied, Fetcher, Gone
from wsm.info import is_in_use
from wsm.missing_map import BadMap, Uncommitted, Wanted, load_map
from wsm.programs import find_program
from wsm.record import BadRecord, find_record
from wsm.serve.claims import FORMATS, Claim, Refused
from wsm.serve.dialing import BadAddress, parse_address
from wsm.serve.pushing import Failed
from wsm.serve.reading import QCOW2_MAGIC, look_at_format
from wsm.serve.serving import PROGRESS_SECONDS, plain, say

QEMU = "qemu-system-x86_64"
LOOK_SECONDS = 0.2
MIB = 1 << 20
CERTIFICATES = ("ca-cert.pem", "server-cert.pem", "server-key.pem")
NOT_ARRIVING = {
    "current": "its record says that it is the guest's disk, and whole",
    "leaving": "its record says that its guest was about to leave from here: "
               "what is missing elsewhere is here. Serve it with 'wsm-serve'",
    "handed-over": "its record says that its guest runs elsewhere, and that "
                   "this is a stale copy",
}


def check_map(image: str, record: dict[str, Any]) -> int:
    """Return how much of an image is missing; raise Refused."""
    peer = record.get("peer", "the other host")
    path = Path(f"{os.path.realpath(image)}.wsm.map")
    if "map-node" in record:
        raise Refused(f"{image}: its map is on the block node "
                      f"'{record['map-node']}' of its QEMU, and not beside "
                      "it. Start that QEMU (-S), name the node in the option "
                      "'maps' of 'wsm-set-options', and give it the command "
                      "'wsm-rejoin'")
    try:
        missing = load_map(path, Wanted(record["session"],
                                        record["disk-size"],
                                        record.get("map-disk")))
    except BadMap as error:
        raise Refused(f"{image}: what of it is still at {peer} is not known: "
                      f"map {path}: {error}") from error
    except Uncommitted as error:
        raise Refused(f"{image}: {error}. The guest's disk is at {peer}"
                      ) from error
    if missing is None:
        raise Refused(f"{image}: a migration to it has not ended, and there "
                      f"is no map {path} of what is missing: the guest has "
                      "not run here, or the option 'crash-safe' was off. The "
                      f"guest's disk is at {peer}")
    return missing.bytes


def look_at(image: str, wanted: Optional[str]) -> tuple[str, int]:
    """Return format of an image, and how much is missing; raise Refused."""
    try:
        status = os.stat(image)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"{image}: it is no regular file")
        with open(image, "rb") as file:
            head = file.read(len(QCOW2_MAGIC))
        record = find_record(Path(image))[0]
    except (OSError, ValueError) as error:
        raise Refused(f"{image}: {getattr(error, 'strerror', None) or error}"
                      ) from error
    except BadRecord as error:
        raise Refused(f"{image}: {error}") from error
    if is_in_use(image):
        raise Refused(f"{image}: a QEMU has it open. If the guest runs there, "
                      "or is to, give that QEMU the command 'wsm-rejoin'")
    if record is None:
        raise Refused(f"{image}: it has no record, so no migration to it "
                      "broke off, and nothing is missing")
    if record["state"] in NOT_ARRIVING:
        raise Refused(f"{image}: {NOT_ARRIVING[record['state']]}")
    missing = check_map(image, record)
    kind = wanted or look_at_format(
        Claim(image, 0, record["disk-size"], None, None), head,
        status.st_size)
    return kind, missing


def find_disks(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Return the images and their formats; raise Refused."""
    looks = [look_at(image, args.format) for image in args.images]
    if not any(missing for _kind, missing in looks):
        raise Refused("nothing is missing: these images are whole. Start the "
                      "guest from them")
    return [(image, kind) for image, (kind, _) in zip(args.images, looks)]


def find_qemu(wanted: Optional[str]) -> str:
    """Return the program to do it with; raise Refused."""
    found = find_program(QEMU, wanted, "WSM_QEMU")
    if not found:
        named = wanted or os.environ.get("WSM_QEMU")
        raise Refused(f"there is no program {named}" if named else
                      f"no {QEMU} found; name it with --qemu")
    return found


def check_certificates(folder: Path) -> None:
    """Refuse a folder that lacks something."""
    for name in CERTIFICATES:
        if not (folder / name).exists():
            raise Refused(f"there is no {folder / name}")


def total(info: dict[str, Any], name: str) -> int:
    """Return a sum over all disks."""
    return sum(disk[name] for disk in info["disks"])


class Watch:
    """Says how far it is, and knows when nobody comes any more."""

    def __init__(self, uri: str, timeout: Optional[float],
                 missing: int) -> None:
        self.uri, self.timeout = uri, timeout
        self.first = self.said_left = missing
        self.said = self.seen = time.monotonic()
        self.connected = False
        self.error: Optional[str] = None

    def look(self, info: dict[str, Any]) -> None:
        """Take what QEMU says; raise Failed."""
        now = time.monotonic()
        connected = any(each["connected"] for each in info["channels"])
        if connected:
            self.seen = now
        if connected != self.connected:
            say("the other host sends" if connected else
                "the connection is gone; waiting for the next one")
            self.connected = connected
        if info.get("error") != self.error:
            self.error = info.get("error")
            say(f"QEMU says: {self.error}")
        if self.timeout is not None and now - self.seen > self.timeout:
            raise Failed(f"nobody has sent anything to {self.uri} for "
                         f"{self.timeout:g} s; {total(info, 'missing')} bytes "
                         "are still missing")
        if now - self.said >= PROGRESS_SECONDS:
            self.progress(total(info, "missing"), now)

    def progress(self, left: int, now: float) -> None:
        """Say it."""
        speed = max(self.said_left - left, 0) / (now - self.said) / MIB
        done = 100 * (self.first - left) // max(self.first, 1)
        say(f"{done} %, {left // MIB} of {self.first // MIB} MiB missing, "
            f"{speed:.1f} MiB/s")
        self.said, self.said_left = now, left


def set_tls(fetcher: Fetcher, folder: Path) -> None:
    """Accept only who has a certificate of this authority."""
    fetcher.command("object-add", qom_type="tls-creds-x509", id="tls",
                    dir=str(folder.absolute()), endpoint="server",
                    verify_peer=True)
    fetcher.command("migrate-set-parameters", tls_creds="tls")


def fetch(fetcher: Fetcher, args: argparse.Namespace) -> None:
    """Fetch all that is missing; raise Failed, Denied or Gone."""
    if args.tls_creds:
        set_tls(fetcher, args.tls_creds)
    fetcher.command("wsm-rejoin", uri=args.listen)
    info = fetcher.command("query-wsm")
    missing = total(info, "missing")
    say(f"session {info['session']}: {missing} bytes of {len(info['disks'])} "
        f"disk{'s' * (len(info['disks']) != 1)} are missing; waiting for "
        f"'wsm-serve' at {args.listen}")
    watch = Watch(args.listen, args.timeout, missing)
    while info["phase"] == "postcopy":
        watch.look(info)
        time.sleep(LOOK_SECONDS)
        info = fetcher.command("query-wsm")
    if info["phase"] != "completed":
        raise Failed(f"it ended in phase '{info['phase']}': "
                     f"{info.get('error', 'for no known reason')}")


def arguments(given: Optional[Sequence[str]]) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        prog="wsm-finish", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--listen", metavar="URI", required=True,
                        help="where to wait for 'wsm-serve': tcp:HOST:PORT "
                             "(tcp:0:4444: at all addresses of this host), "
                             "unix:PATH or vsock:CID:PORT. Without a --to it "
                             "looks where the destination listened before")
    parser.add_argument("--timeout", type=float, metavar="SECONDS",
                        help="give up when nobody has been connected for so "
                             "long; else wait for ever")
    parser.add_argument("--tls-creds", type=Path, metavar="FOLDER",
                        help="use TLS, with ca-cert.pem, server-cert.pem and "
                             "server-key.pem in FOLDER, as of QEMU's object "
                             "tls-creds-x509; as the migration did")
    parser.add_argument("--format", choices=FORMATS,
                        help="format of all images; else it is seen from "
                             "them, if that is safe")
    parser.add_argument("--qemu", metavar="PROGRAM",
                        help="the QEMU that fetches; else $WSM_QEMU, "
                             "build/qemu-system-x86_64, qemu-system-x86_64")
    return parser.parse_args(given)


def run(args: argparse.Namespace) -> None:
    """Do all of it; raise Refused, Failed, Denied or Gone."""
    try:
        parse_address(args.listen)
    except BadAddress as error:
        raise Refused(str(error)) from error
    if args.tls_creds:
        check_certificates(args.tls_creds)
    program = find_qemu(args.qemu)
    with Fetcher(program, find_disks(args)) as fetcher:
        fetch(fetcher, args)
        if fetcher.end() != 0:
            raise fetcher.gone()
    say("nothing is missing any more: start the guest from these images")


def interrupt(*_: object) -> NoReturn:
    """SIGTERM is as Ctrl-C."""
    raise KeyboardInterrupt


def main(given: Optional[Sequence[str]] = None) -> int:
    """Run the program; return its exit status."""
    args = arguments(given)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        run(args)
    except (Refused, Failed, Denied, Gone) as error:
        print(plain(f"wsm-finish: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("wsm-finish: interrupted; blocks are still missing, run it "
              "again", file=sys.stderr)
        return 1
    return 0
