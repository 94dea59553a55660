# SPDX-License-Identifier: GPL-2.0-or-later
"""Move a running guest of libvirt, with its disks, to another host.

Makes the images that the destination lacks, switches QEMU's capability
whole-system on, runs 'virsh migrate', shows how far it is, and clears up. The
way back is the same command, typed at the other host: images that are there
already are used, and then little is sent.

The exit status is 0 if the guest has moved, 1 if it has not and runs on here,
2 if nothing was begun, 3 if it runs at the destination and not all of it is
there yet, 130 if it was called back by ^C.
"""

import argparse
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Optional

from wsm import move_texts
from wsm.guest_xml import Disk, Guest, read_guest
from wsm.virsh import Virsh, VirshError, plain_error
from wsm.volumes import Refused, Volumes, check_found

CAPABILITY = "whole-system"
LIBVIRT_NEEDED = (9, 0)     # the oldest that takes up a post-copy again
QEMU_NEEDED = (10, 0)
FLAGS = ("--live", "--p2p", "--postcopy", "--unsafe")
POSTCOPY = "post-copy"      # in a state of libvirt, as in "paused (post-copy)"
POSTCOPY_FAILED = "post-copy failed"
SETTLE_SECONDS = 60         # for libvirt to tell what came of a failure
QUERY_SECONDS = 20
SLOW_MEMORY_SECONDS = 60
STALL_SECONDS = 60          # TCP tries again after up to half of that
# What libvirtd does not survive --postcopy-resume at the destination
CRASHING = ((11, 3),)
MOVED, FAILED, REFUSED, UNFINISHED, CANCELLED = 0, 1, 2, 3, 130


@dataclass
class Image:
    """A disk that moves, and its image at the destination."""

    disk: Disk
    size: int
    made: bool = False


def versions(text: str) -> dict[str, tuple[int, ...]]:
    """Return what 'virsh version --daemon' says: libvirt's and QEMU's."""
    found = {}
    for what, label in (("libvirt", "Running against daemon"),
                        ("QEMU", "Running hypervisor")):
        match = re.search(rf"{label}: (?:\w+ )?(\d+)\.(\d+)", text)
        found[what] = tuple(map(int, match.groups())) if match else ()
    return found


class Move:
    """One move of a guest."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.source = Virsh(args.connect)
        self.destination = Virsh(args.destination)
        self.name: str = args.guest
        self.line = move_texts.Line(self.name)
        self.here = self.there = ""             # names of the hosts
        self.libvirt_there: tuple[int, ...] = ()
        self.persistent = self.autostart = False
        self.was_on = False                     # the capability, before
        self.images: list[Image] = []
        self.interrupts = 0
        self.answered = 0                       # of the interrupts
        self.abort_sent = False
        self.told = False                       # that there is no way back
        self.left = False                       # virsh was ended
        self.slow_memory_said = False
        self.info: dict[str, Any] = {}          # of query-wsm, the last
        self.begin: Optional[float] = None

    # Before anything is changed

    def check_hosts(self) -> None:
        """Refuse hosts that cannot be reached or are too old."""
        for virsh in (self.source, self.destination):
            try:
                # One connection for both, as each takes a while
                text = virsh.run("hostname; version --daemon")
            except VirshError as error:
                raise Refused("no connection to libvirt at "
                              f"{virsh.uri or 'this host'}: {error}") from error
            name, found = text.splitlines()[0].strip(), versions(text)
            if virsh is self.source:
                self.here = name
            else:
                self.there, self.libvirt_there = name, found["libvirt"]
            for what, needed in (("libvirt", LIBVIRT_NEEDED),
                                 ("QEMU", QEMU_NEEDED)):
                if found[what] and found[what] < needed:
                    raise Refused(
                        f"{what} at {name} is {dotted(found[what])}, and "
                        f"{dotted(needed)} is needed at both hosts")

    def look_at_guest(self) -> Guest:
        """Return the guest; refuse one that cannot be moved."""
        state = self.state(self.source)
        if not state.startswith(("running", "paused")):
            raise Refused(
                f"{self.name} at {self.here} is {state or 'not known'}: only "
                "a guest that runs can be moved (virsh start)")
        if POSTCOPY in state:
            raise Refused(
                f"{self.name} at {self.here} is {state}: it has been handed "
                f"over already. Type: virsh-wsm --resume {self.name} "
                f"{self.args.destination}")
        guest = read_guest(self.source.run("dumpxml", self.name))
        if guest.refusals:
            raise Refused("; ".join(guest.refusals))
        self.look_at_definition()
        self.look_at_qemu()
        return guest

    def look_at_definition(self) -> None:
        """Find out what libvirt itself does not take along."""
        text = self.source.try_run("dominfo", self.name) or ""
        self.persistent = bool(re.search(r"^Persistent: +yes", text, re.M))
        self.autostart = bool(re.search(r"^Autostart: +enable", text, re.M))

    def look_at_qemu(self) -> None:
        """Refuse a QEMU that cannot do it, or would leave disks behind."""
        on = self.capability(self.source)
        if on is None:
            found = self.source.monitor(self.name, "query-version")
            raise Refused(
                f"the QEMU in which {self.name} runs "
                f"({found.get('package') or found.get('qemu')}) has no "
                f"capability '{CAPABILITY}'. Install qemu-wsm at both hosts; "
                "then this lets the guest go on in the new QEMU: "
                f"virsh managedsave {self.name} && virsh start {self.name}")
        self.was_on = on
        options = self.source.monitor(self.name, "query-wsm-options")
        if options.get("disks"):
            raise Refused(
                f"QEMU's option 'disks' is set to {options['disks']}, so "
                "other disks would be left out: set it to [] with "
                "wsm-set-options")
        if options.get("memory-references"):
            raise Refused(
                "QEMU's option 'memory-references' is set to "
                f"{options['memory-references']}. It needs multifd, which "
                "QEMU cannot use together with the post-copy that libvirt switches "
                "on: set it to [] with wsm-set-options")

    def look_at_destination(self, guest: Guest) -> None:
        """Refuse if the guest, or its images, are in use there."""
        run = self.destination.run
        if guest.uuid in run("list", "--uuid").split():
            raise Refused(f"{self.name} runs at {self.there} already: "
                          f"{self.state(self.destination)}")
        other = self.destination.try_run("domuuid", guest.name)
        if other and other != guest.uuid:
            raise Refused(
                f"{self.there} has another guest with the name {guest.name}, "
                f"with the UUID {other} and not {guest.uuid}: rename it "
                "there (virsh domrename)")
        others = [uuid for uuid in run("list", "--all", "--uuid").split()
                  if uuid != guest.uuid]
        used = set()
        if others:
            text = run("; ".join(f"domblklist {uuid}" for uuid in others))
            used = {line.split(None, 1)[1].strip()
                    for line in text.splitlines() if len(line.split()) > 1}
        for disk in guest.disks:
            if disk.path in used and not disk.read_only:
                raise Refused(
                    f"{disk.target}: {disk.path} belongs to another guest at "
                    f"{self.there} (virsh domblklist): give one of the two "
                    "another name")

    # Images

    def disk_size(self, disk: Disk) -> int:
        """Return how large the guest sees a disk, in bytes."""
        text = self.source.run("domblkinfo", self.name, disk.target)
        found = re.search(r"^Capacity: +(\d+)", text, re.M)
        if not found:
            raise VirshError(f"{disk.target}: no size in: {text}")
        return int(found[1])

    def prepare_images(self, guest: Guest) -> None:
        """Make the images that the destination lacks, or refuse."""
        with Volumes(self.destination, self.there) as volumes:
            missing = []
            for disk in guest.disks:
                if disk.read_only:
                    self.check_medium(volumes, disk)
                    continue
                image = Image(disk, self.disk_size(disk))
                found = volumes.find(disk)
                if found:
                    check_found(disk, found, image.size, self.there)
                    self.line.keep(
                        f"{disk.target}: {disk.path} is at {self.there} and "
                        "will be written to; what is equal is not sent")
                else:
                    missing.append(image)
                self.images.append(image)
            for image in missing:
                volumes.make(image.disk, image.size)
                image.made = True
                self.line.keep(f"{image.disk.target}: {image.disk.path} made "
                               f"at {self.there}, "
                               f"{move_texts.size(image.size)}")

    def check_medium(self, volumes: Volumes, disk: Disk) -> None:
        """Refuse a medium that does not move and is not there."""
        if disk.path and volumes.find(disk) is None:
            raise Refused(
                f"{disk.target}: {disk.path} is read-only, so it does not "
                f"move, and {self.there} has none: copy it there, or take it "
                f"out: virsh change-media {self.name} {disk.target} --eject")

    def remove_images(self) -> None:
        """Remove what was made for a move that came to nothing."""
        made = [image.disk for image in self.images if image.made]
        if not made:
            return
        if self.args.keep:
            self.line.keep(f"the images made at {self.there} stay, so that "
                           "the next attempt goes on where this one was")
            return
        try:
            with Volumes(self.destination, self.there) as volumes:
                left = [disk for disk in made if not volumes.remove(disk)]
        except VirshError:
            left = made
        for disk in left:
            self.line.keep(f"{disk.path} at {self.there} could not be "
                           "removed; it is of no use")

    # QEMU and libvirt

    def state(self, virsh: Virsh) -> str:
        """Return libvirt's words, "running (booted)"; "" if it has none."""
        try:
            return virsh.run("domstate", self.name, "--reason")
        except VirshError as error:
            if "failed to get domain" in str(error):
                return ""
            raise

    def capability(self, virsh: Virsh) -> Optional[bool]:
        """Return whether it is on, None if that QEMU has none."""
        answer = virsh.monitor(self.name, "query-migrate-capabilities")
        return next((bool(each["state"]) for each in answer
                     if each["capability"] == CAPABILITY), None)

    def switch(self, virsh: Virsh, on: bool) -> None:
        """Switch the capability."""
        virsh.monitor(self.name, "migrate-set-capabilities", capabilities=[
            {"capability": CAPABILITY, "state": on}])

    def switch_off(self, virsh: Virsh, where: str) -> None:
        """Leave a QEMU that can save its guest and make snapshots again."""
        error: Optional[VirshError] = None
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            try:
                if self.capability(virsh):
                    self.switch(virsh, False)
                return
            except VirshError as problem:
                error = problem     # QEMU has not ended the migration yet
                time.sleep(self.args.interval)
        self.line.keep(
            f"the capability {CAPABILITY} is still on at {where}: {error}. "
            "Until it is off, 'virsh save' fails there: virsh "
            f"qemu-monitor-command {self.name} --hmp "
            f"'migrate_set_capability {CAPABILITY} off'")

    def migrate(self, *more: str) -> str:
        """Run 'virsh migrate'; return its error, or ""."""
        words = [*FLAGS, *more]
        if self.persistent:
            words += ["--persistent", "--undefinesource"]
        for option in ("bandwidth", "migrateuri"):
            value = getattr(self.args, option)
            words += [f"--{option}", str(value)] if value else []
        words += ["--tls"] * self.args.tls
        self.begin = time.monotonic()
        process = self.source.start("migrate", *words, self.name,
                                    self.args.destination)
        with process:
            while True:
                try:
                    _, err = process.communicate(timeout=self.args.interval)
                    return "" if not process.returncode else (
                        plain_error(err) or "virsh migrate was ended")
                except subprocess.TimeoutExpired:
                    self.look()
                if self.interrupts > self.answered:
                    self.on_interrupt(process)

    def look(self) -> None:
        """Show how far it is."""
        try:
            self.info = self.source.monitor(self.name, "query-wsm",
                                            QUERY_SECONDS)
        except VirshError:
            return      # it has just ended, or is busy
        if self.info.get("role") != "source":
            return
        self.line.show(self.info["phase"],
                       move_texts.progress(self.info, self.there))
        last = (self.info["phases"] or [{"ms": 0}])[-1]
        if (self.info["phase"] == "ram-precopy" and not self.slow_memory_said
                and last["ms"] > 1000 * SLOW_MEMORY_SECONDS):
            self.slow_memory_said = True
            self.line.keep(move_texts.SLOW_MEMORY.format(name=self.name))

    def on_interrupt(self, process: "subprocess.Popen[str]") -> None:
        """Call the guest back while that is possible."""
        if self.info.get("phase") == "postcopy":
            self.answered = self.interrupts
            if self.told:
                self.left = True
                process.kill()
            else:
                self.told = True
                self.line.keep(move_texts.HANDED_OVER.format(
                    name=self.name, here=self.here, there=self.there,
                    uri=self.args.destination))
        elif self.source.try_run("domjobabort", self.name) is not None:
            # If not, there is no job yet, or no way back: the next look tells
            self.answered = self.interrupts
            self.abort_sent = True
            self.line.keep("calling the guest back")

    # Afterwards

    def settled_state(self, virsh: Optional[Virsh] = None,
                      moment: str = "(migrating)") -> str:
        """Return the guest's state when libvirt has made up its mind.

        That is, when the state is not one that lasts for a @moment.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                state = self.state(virsh or self.source)
                if moment not in state:
                    return state
            except VirshError as error:     # libvirtd is being restarted
                state = f"not known: {error}"
            if time.monotonic() > deadline:
                return state
            time.sleep(self.args.interval)

    def follow(self) -> str:
        """Show a move that goes on without virsh; return how it stands."""
        state = self.settled_state()
        while (POSTCOPY in state and POSTCOPY_FAILED not in state
               and self.interrupts == self.answered and not self.left):
            self.look()
            time.sleep(self.args.interval)
            state = self.settled_state()
        return state

    def conclude(self, error: str) -> int:
        """Find out what came of it, clear up, and say so."""
        if not error:
            return self.on_success()
        state = self.follow()
        if POSTCOPY in state:
            return self.on_break(error, state)
        if state.startswith(("running", "paused")):
            return self.on_failure(error)
        there = self.settled_state(self.destination, "(post-copy)")
        if there.startswith(("running", "paused")):
            return self.on_arrival(state, there)
        self.line.keep(f"{error}. The guest is {state or 'gone'} at "
                       f"{self.here}, and {there or 'not known'} at "
                       f"{self.there}. Look at both QEMUs' logs in "
                       "/var/log/libvirt/qemu before you start it anywhere")
        return UNFINISHED

    def on_arrival(self, state: str, there: str) -> int:
        """The guest runs at the destination, and not here; is it whole?"""
        if POSTCOPY not in there:
            return self.on_success()
        self.line.keep(move_texts.SOURCE_LOST.format(
            name=self.name, here=self.here, there=self.there,
            state=state or "gone"))
        return UNFINISHED

    def on_success(self) -> int:
        """The guest runs at the destination, and all of it is there."""
        info: dict[str, Any] = {}
        try:
            info = self.destination.monitor(self.name, "query-wsm")
        except VirshError:
            pass        # it may have been shut down meanwhile
        seconds = time.monotonic() - self.begin if self.begin else None
        text = move_texts.summary(info, seconds)
        self.line.keep(f"runs at {self.there}, and all of it is there"
                       + (f": {text}" if text else ""))
        if not self.was_on and info:
            self.switch_off(self.destination, self.there)
        if self.autostart and self.destination.try_run(
                "autostart", self.name) is None:
            self.line.keep(f"could not set autostart at {self.there}")
        self.undefine()
        self.line.keep(f"the images at {self.here} are out of date now; they "
                       "make the way back short. Remove them if there is to "
                       "be none")
        return MOVED

    def undefine(self) -> None:
        """Leave no definition from which the old copy could be started.

        libvirt does not see to it if a move ended without virsh.
        """
        state = self.source.try_run("domstate", self.name, "--reason")
        if state and state.startswith("shut off"):
            self.source.try_run("undefine", self.name, "--keep-nvram")

    def on_failure(self, error: str) -> int:
        """The guest runs on here."""
        if not self.was_on:
            self.switch_off(self.source, self.here)
        self.remove_images()
        if self.abort_sent:
            self.line.keep(f"was called back, and runs on at {self.here}")
            return CANCELLED
        self.line.keep(f"has not moved, and runs on at {self.here}: {error}"
                       f"{hint(error)}")
        return FAILED

    def on_break(self, error: str, state: str) -> int:
        """The guest runs there, and not all of it is there yet."""
        if POSTCOPY_FAILED not in state:
            self.line.keep("the move goes on")
            return UNFINISHED
        self.line.keep(error)
        self.look()
        left = self.info.get("remaining")
        self.line.keep(move_texts.BROKEN_OFF.format(
            name=self.name, here=self.here, there=self.there,
            left="some" if left is None else move_texts.size(left),
            uri=self.args.destination))
        return UNFINISHED

    # What the user wants

    def move(self) -> int:
        """Move the guest."""
        self.check_hosts()
        guest = self.look_at_guest()
        self.look_at_destination(guest)
        try:
            self.prepare_images(guest)
            if self.interrupts:
                raise Refused("stopped before anything moved")
            self.switch(self.source, True)
        except (Refused, VirshError):
            self.remove_images()
            raise
        return self.conclude(self.migrate())

    def resume(self) -> int:
        """Take up a move that broke off after the handover."""
        self.check_hosts()
        self.look_at_definition()
        state = self.follow()
        if POSTCOPY_FAILED in state:
            state = self.wait_for_qemu(state)
        if POSTCOPY_FAILED in state:
            return self.take_up()
        if POSTCOPY in state:
            return self.on_break("", state)
        there = self.settled_state(self.destination, "(post-copy)")
        if there.startswith("running") and (
                not state or state.startswith("shut off")):
            return self.on_arrival(state, there)
        raise Refused(f"{self.name} is {state or 'not known'} at {self.here}: "
                      "there is nothing to take up")

    def wait_for_qemu(self, state: str) -> str:
        """
        Wait while QEMU has not lost its connections, although libvirt has.

        libvirt gives up after half a minute, TCP does not.  What does not move
        for long is broken up, so that it can be taken up.  Returns how the
        guest is then.
        """
        left, since = None, time.monotonic()
        while POSTCOPY_FAILED in state and not self.interrupts:
            if self.qemu_gave_up():
                break
            self.look()
            if self.info.get("remaining") != left:
                left, since = self.info.get("remaining"), time.monotonic()
            if time.monotonic() > since + STALL_SECONDS:
                self.line.keep("nothing arrives: breaking the connection")
                self.break_up()
                since = time.monotonic()
            time.sleep(self.args.interval)
            state = self.settled_state()
        return state

    def qemu_gave_up(self) -> bool:
        """Return whether QEMU has lost its connections, too."""
        try:
            answer = self.source.monitor(self.name, "query-migrate")
        except VirshError:
            return False    # it has just ended; the next look tells
        return bool(answer.get("status") == "postcopy-paused")

    def break_up(self) -> None:
        """Have both QEMUs give up their connection."""
        for virsh in (self.source, self.destination):
            virsh.try_run("domjobabort", self.name, "--postcopy")

    def take_up(self) -> int:
        """Have libvirt connect both QEMUs again."""
        if self.libvirt_there in CRASHING:
            self.line.keep(move_texts.CRASHING.format(
                name=self.name, there=self.there,
                libvirt=dotted(self.libvirt_there)))
            return UNFINISHED
        there = self.state(self.destination)
        if POSTCOPY in there and POSTCOPY_FAILED not in there:
            self.destination.try_run("domjobabort", self.name, "--postcopy")
            self.settled_state(self.destination, "(post-copy)")
        return self.conclude(self.migrate("--postcopy-resume"))

    def interrupt(self, *_signal: object) -> None:
        """Note that the user wants an end."""
        self.interrupts += 1


def dotted(version: tuple[int, ...]) -> str:
    """Return (9, 0) as people write it."""
    return ".".join(map(str, version))


def hint(error: str) -> str:
    """Return what to do about an error that does not say it itself."""
    for pattern, text in HINTS.items():
        if re.search(pattern, error, re.I):
            return f". {text}"
    return ""


USERFAULTFD = ("sysctl -w vm.unprivileged_userfaultfd=1, at both hosts, lets "
               "QEMU receive memory after the handover")
HINTS = {
    "userfaultfd|postcopy is not supported": f"{USERFAULTFD}.",
    # libvirt 11.3 says no more if the destination refuses
    "^End of file while reading data": (
        "libvirt at the destination has refused, or is gone; its log says "
        f"why (journalctl -u libvirtd). If that is userfaultfd: {USERFAULTFD}."),
}


def arguments() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        prog="virsh-wsm", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("guest", metavar="GUEST", help="its name in libvirt")
    parser.add_argument("destination", metavar="URI",
                        help="libvirt at the destination, as in "
                             "qemu+ssh://beta/system; this host's libvirt "
                             "must reach it by the same URI")
    parser.add_argument("-c", "--connect", metavar="URI",
                        help="libvirt at this host; virsh's own choice if "
                             "not given, for root qemu:///system")
    parser.add_argument("--resume", action="store_true",
                        help="show a move that has handed the guest over, "
                             "and take it up if it has broken off")
    parser.add_argument("--bandwidth", type=int, metavar="N",
                        help="at most N MiB per second")
    parser.add_argument("--migrateuri", metavar="URI",
                        help="where QEMU connects to, as in tcp://10.0.0.2; "
                             "the destination's host name if not given")
    parser.add_argument("--tls", action="store_true",
                        help="encrypt what QEMU sends, with libvirt's "
                             "certificates for it")
    parser.add_argument("--keep", action="store_true",
                        help="if it fails, keep the images that were made "
                             "at the destination: the next attempt goes on "
                             "where this one was")
    parser.add_argument("--interval", type=float, default=1.0, metavar="S",
                        help="seconds between two looks (%(default)s)")
    return parser.parse_args()


def main() -> int:
    """Run the program; return its exit status."""
    move = Move(arguments())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, move.interrupt)
    try:
        return move.resume() if move.args.resume else move.move()
    except (Refused, VirshError) as error:
        print(f"virsh-wsm: {move.name}: {error}", file=sys.stderr)
        return REFUSED
