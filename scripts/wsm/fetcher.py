# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that has disks and no guest, and a monitor to talk with it."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Sequence

START_SECONDS = 60.0
ANSWER_SECONDS = 60.0
END_SECONDS = 20.0
PR_SET_PDEATHSIG = 1
# The machine wants a firmware that it never runs
FIRMWARE_BYTES = 65536
CHUNK = 65536


class Gone(Exception):
    """QEMU has ended; says why, as far as it is known."""


class Denied(Exception):
    """QEMU does not do what it was told; says why."""


def die_with_parent() -> None:
    """In the child: it is killed when the parent is."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def name_of(number: int) -> str:
    """Return what QEMU calls a disk."""
    return f"disk{number}"


def disk_arguments(number: int, image: str, kind: str) -> list[str]:
    """Return the arguments for a disk."""
    name = name_of(number)
    # Zeroes become holes, as they do in a migration
    file = {"driver": "file", "filename": os.path.abspath(image),
            "discard": "unmap"}
    node = {"driver": kind, "node-name": name, "discard": "unmap",
            "file": file}
    return ["-blockdev", json.dumps(node),
            "-device", f"scsi-hd,id={name},drive={name},bus=bus.0"]


class Fetcher:
    """QEMU, as a context: it ends with it."""

    def __init__(self, program: str, disks: Sequence[tuple[str, str]]) -> None:
        self.program = program
        self.disks = disks                      # image and format
        self.stack = contextlib.ExitStack()
        self.number = 0
        self.buffer = b""
        self.errors = ""
        self.process: "subprocess.Popen[bytes]"
        self.monitor: socket.socket

    def __enter__(self) -> "Fetcher":
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(
                tempfile.TemporaryDirectory(prefix="wsm-finish-")))
            self.errors = str(folder / "errors")
            firmware = folder / "firmware"
            firmware.write_bytes(bytes(FIRMWARE_BYTES))
            self.monitor, theirs = socket.socketpair()
            stack.callback(self.monitor.close)
            with theirs, open(self.errors, "wb") as errors:
                # Ctrl-C is for us alone
                # pylint: disable-next=subprocess-popen-preexec-fn
                self.process = subprocess.Popen(
                    self.arguments(firmware, theirs.fileno()),
                    stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                    pass_fds=[theirs.fileno()], start_new_session=True,
                    preexec_fn=die_with_parent)
            stack.callback(self.leave)
            self.receive(time.monotonic() + START_SECONDS)  # the greeting
            self.command("qmp_capabilities")
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def arguments(self, firmware: Path, monitor: int) -> list[str]:
        """Return the command line: a machine that is never started."""
        result = [self.program, "-name", "wsm-finish", "-no-user-config",
                  "-nodefaults", "-display", "none", "-machine", "pc",
                  "-accel", "tcg", "-m", "16", "-S", "-bios", str(firmware),
                  "-chardev", f"socket,id=monitor,fd={monitor}",
                  "-mon", "chardev=monitor,mode=control",
                  "-device", "virtio-scsi-pci,id=bus"]
        for number, (image, kind) in enumerate(self.disks):
            result += disk_arguments(number, image, kind)
        return result

    def said(self) -> str:
        """Return what QEMU has written, without its name."""
        text = Path(self.errors).read_text("utf-8", "replace").strip()
        return text.replace(f"{self.program}: ", "")

    def gone(self) -> Gone:
        """Return why it is gone."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_SECONDS)
        status = self.process.returncode
        how = f"with signal {-status}" if status and status < 0 else "early"
        return Gone(f"{self.program} ended {how}: "
                    f"{self.said() or 'it says nothing'}")

    def receive(self, until: float) -> dict[str, Any]:
        """Return the next message; raise Gone."""
        while b"\n" not in self.buffer:
            self.monitor.settimeout(max(until - time.monotonic(), 0.001))
            try:
                data = self.monitor.recv(CHUNK)
            except socket.timeout as error:
                raise Gone(f"{self.program} does not answer") from error
            except OSError as error:
                raise self.gone() from error
            if not data:
                raise self.gone()
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        message = json.loads(line)
        if not isinstance(message, dict):
            raise Gone(f"{self.program}: its monitor says {line!r}")
        return message

    def command(self, name: str, **arguments: Any) -> Any:
        """Do it; raise Denied or Gone.  Keyword a_b is argument "a-b"."""
        self.number += 1
        request = {"execute": name, "id": self.number,
                   "arguments": {key.replace("_", "-"): value
                                 for key, value in arguments.items()}}
        until = time.monotonic() + ANSWER_SECONDS
        try:
            self.monitor.settimeout(ANSWER_SECONDS)
            self.monitor.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise self.gone() from error
        while True:
            message = self.receive(until)
            if message.get("id") == self.number:
                break
        if "error" in message:
            if message["error"].get("class") == "CommandNotFound":
                raise Denied(f"{self.program} has no command {name}: it is "
                             "not QEMU of this qemu-wsm; name that with "
                             "--qemu")
            raise Denied(self.in_images(str(message["error"].get("desc"))))
        return message["return"]

    def in_images(self, text: str) -> str:
        """Return a text about QEMU's disks as one about images."""
        for number, (image, _kind) in enumerate(self.disks):
            text = text.replace(f"disk '{name_of(number)}'", image)
            text = text.replace(f"'{name_of(number)}'", image)
        return text

    def end(self) -> int:
        """End it when all is there; return its status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise Gone(f"{self.program} does not end: "
                       f"{self.said() or 'it says nothing'}") from error

    def leave(self) -> None:
        """
        End it at once; asked to end, it would wait for what is missing.

        The maps know what has come.
        """
        self.process.kill()
        self.process.wait()
