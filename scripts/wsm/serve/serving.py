# SPDX-License-Identifier: GPL-2.0-or-later
"""Serve the images of a killed source QEMU to the destination.

When a source QEMU is killed in post-copy, or its host restarts, the guest runs
on at the destination and waits there for blocks that are only in the source's
images.  This program, run on the source's host, sends them.  Name the images
of all disks of the guest that were being migrated.  The records beside them
say where the destination waits.

It sends all that the images have, as the destination does not say what it
lacks; that keeps what it lacks and drops the rest.  What the guest waits for
goes first.  It ends when the destination has everything.

The exit status is 0 then, 1 if that was not reached, 2 if the command line is
wrong.
"""

import argparse
import asyncio
import contextlib
import re
import ssl
import sys
import time
from pathlib import Path
from typing import Any, Optional, Sequence

from wsm.programs import find_program
from wsm.record import BadRecord, find_record
from wsm.serve.claims import (FORMATS, Refused, Session, check_stamp,
                              session_of)
from wsm.serve.dialing import (Address, BadAddress, Dialler, make_tls,
                               parse_address)
from wsm.serve.handed import hand_over
from wsm.serve.pushing import Failed, Server, learn
from wsm.serve.reading import Disk, open_disks

LOOK_SECONDS = 0.2
PROGRESS_SECONDS = 5.0
# Nobody listens any more where everything was acknowledged
GONE_SECONDS = 60.0
RETRY_SECONDS = 1.0
MIB = 1 << 20


def plain(text: str) -> str:
    """Return a text that does nothing to a terminal."""
    return re.sub(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]", "?", text)


def say(text: str) -> None:
    """Tell the user."""
    print(plain(text), flush=True)


class Progress:
    """Says now and then how far it is."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.said = time.monotonic()
        self.left = server.left()

    def look(self) -> None:
        """Say it, if it is time."""
        now = time.monotonic()
        if now - self.said < PROGRESS_SECONDS:
            return
        server, left = self.server, self.server.left()
        speed = max(self.left - left, 0) / (now - self.said) / MIB
        total = server.total()
        say(f"{100 * (total - left) // max(total, 1)} %, "
            f"{left // MIB} of {total // MIB} MiB left, {speed:.1f} MiB/s, "
            f"{server.pulled // MIB} MiB because the guest waited")
        self.said, self.left = now, left


async def watch(server: Server, timeout: Optional[float]) -> None:
    """Return when all is there; raise Failed if nobody comes any more."""
    progress = Progress(server)
    while not server.is_done():
        await asyncio.sleep(LOOK_SECONDS)
        progress.look()
        gone = server.away_for()
        if timeout is not None and gone > timeout:
            raise Failed(f"no connection to {server.dialler.address.uri} for "
                         f"{timeout:g} s: {server.trouble or 'no answer'}")
        if server.greeted and not server.left() and gone > GONE_SECONDS:
            raise Failed("the destination has acknowledged everything, but is "
                         "gone before it said that all is durable; ask its "
                         "QEMU, or wsm-info of its images")


async def end_all(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """
    Cancel tasks, and wait until they have ended.

    wait_for() of Python before 3.12 may swallow that once, if what it waits
    for comes at the same moment; then a channel would be kept up for ever.
    """
    while not all(task.done() for task in tasks):
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=LOOK_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


async def serve(session: Session, disks: list[Disk], dialler: Dialler,
                timeout: Optional[float]) -> None:
    """Serve until the destination has everything; raise Failed."""
    if not session.told:
        session = await learn_patiently(session, dialler, timeout)
    server = Server(session, disks, dialler, say)
    tasks = [asyncio.create_task(server.keep_up(channel))
             for channel in server.channels]
    tasks.append(asyncio.create_task(watch(server, timeout)))
    try:
        done, _ = await asyncio.wait(tasks,
                                     return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await end_all(tasks)
    say(f"sent {server.sent // MIB} MiB, {server.pulled // MIB} MiB of the "
        "disks because the guest waited")


async def learn_patiently(session: Session, dialler: Dialler,
                          timeout: Optional[float]) -> Session:
    """Find out what an old record does not say."""
    until = time.monotonic() + timeout if timeout is not None else None
    while True:
        try:
            return await learn(session, dialler)
        except (OSError, asyncio.TimeoutError) as error:
            if until is not None and time.monotonic() > until:
                raise Failed(f"{dialler.address.uri}: {error}") from error
        await asyncio.sleep(RETRY_SECONDS)


def arguments(given: Optional[Sequence[str]]) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        prog="wsm-serve", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--to", metavar="URI",
                        help="where the destination waits, as 'migrate' takes "
                             "it: tcp:HOST:PORT, unix:PATH or vsock:CID:PORT; "
                             "else as in the records")
    parser.add_argument("--timeout", type=float, metavar="SECONDS",
                        help="give up when the destination cannot be reached "
                             "for so long; else try for ever")
    parser.add_argument("--tls-creds", type=Path, metavar="FOLDER",
                        help="use TLS, with ca-cert.pem, client-cert.pem and "
                             "client-key.pem in FOLDER, as of QEMU's object "
                             "tls-creds-x509")
    parser.add_argument("--tls-hostname", metavar="NAME",
                        help="name in the destination's certificate; else "
                             "that of the address")
    parser.add_argument("--qemu-nbd", metavar="PROGRAM",
                        help="what to read qcow2 images with; else "
                             "$WSM_QEMU_NBD, build/qemu-nbd, qemu-nbd")
    parser.add_argument("--only-disk", action="store_true",
                        help="the guest has no other disk; only for a record "
                             "of an older QEMU, which does not say so")
    parser.add_argument("--changed-ok", action="store_true",
                        help="serve images that were copied to here, or "
                             "whose time is later than that of the handover")
    parser.add_argument("--format", choices=FORMATS,
                        help="format of the image; likewise")
    return parser.parse_args(given)


def find_session(args: argparse.Namespace) -> Session:
    """Return the session of the images; raise Refused."""
    records: list[Optional[dict[str, Any]]] = []
    for image in args.images:
        if not Path(image).exists():
            raise Refused(f"{image}: there is no such file")
        try:
            records.append(find_record(Path(image))[0])
        except BadRecord as error:
            raise Refused(f"{image}: {error}") from error
    session = session_of(args.images, records, args.only_disk,
                         args.to is not None)
    for claim in session.claims:
        status = Path(claim.image).stat()
        if not args.changed_ok:
            check_stamp(claim, status.st_size, status.st_ino,
                        status.st_mtime_ns)
    if session.tls and not args.tls_creds:
        raise Refused("the migration used TLS; name the folder of this host's "
                      "certificates with --tls-creds")
    if session.told and not session.tls and args.tls_creds:
        raise Refused("the migration did not use TLS; leave --tls-creds out")
    return session


def find_address(args: argparse.Namespace, session: Session) -> Address:
    """Return where the destination waits; raise Refused."""
    uri = args.to or session.uri
    if not uri:
        raise Refused("the record, of an older QEMU, does not say where the "
                      "destination waits; say it with --to tcp:HOST:PORT")
    try:
        return parse_address(uri)
    except BadAddress as error:
        raise Refused(f"{error}; say where the destination waits with --to"
                      ) from error


def record_end(session: Session) -> None:
    """Say in the records that the guest has left for good."""
    for claim in session.claims:
        try:
            hand_over(claim.image, session.id)
        except (BadRecord, OSError) as error:
            say(f"warning: the record of {claim.image} still says 'leaving': "
                f"{error}")


def run(args: argparse.Namespace) -> None:
    """Do all of it; raise Refused or Failed."""
    session = find_session(args)
    address = find_address(args, session)
    tls: Optional[ssl.SSLContext] = None
    if args.tls_creds:
        try:
            tls = make_tls(args.tls_creds)
        except BadAddress as error:
            raise Refused(str(error)) from error
    program = find_program("qemu-nbd", args.qemu_nbd, "WSM_QEMU_NBD")
    if args.qemu_nbd and not program:
        raise Refused(f"there is no program {args.qemu_nbd}")
    with open_disks(session.claims, args.format, program) as disks:
        say(f"session {session.id}: serving {len(disks)} "
            f"disk{'s' * (len(disks) != 1)} to {address.uri}")
        asyncio.run(serve(session, disks,
                          Dialler(address, tls, args.tls_hostname),
                          args.timeout))
        if session.told:
            record_end(session)
            say("the destination has everything, for good; these images are "
                "stale now")
        else:
            say("the destination has acknowledged everything; that it is "
                "durable its 'query-wsm' says. The record here stays "
                "'leaving'")


def main(given: Optional[Sequence[str]] = None) -> int:
    """Run the program; return its exit status."""
    args = arguments(given)
    try:
        run(args)
    except (Refused, Failed) as error:
        print(plain(f"wsm-serve: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            print("wsm-serve: interrupted; the destination may still lack "
                  "blocks", file=sys.stderr)
        return 1
    return 0
