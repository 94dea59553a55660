# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU processes of the demo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from dev.common import Failure
from dev.demo.guest_disk import Guest
from dev.demo.network import GUEST_MAC
from dev.rig.host import Host
from dev.rig.qmp import Qmp, QmpClosed

MEMORY_MIB = 512
DISK_ID = "vd0"
# For anything that ends by itself if all is well, however slow the machine is;
# a guest or a QEMU that dies meanwhile is noticed at once
PATIENCE = 900.0            # s
# Both sides have it for good, so that it cannot be forgotten.
WHOLE_SYSTEM = ("-global", "migration.whole-system=on")
KERNEL_LINE = ("root=/dev/vda rootfstype=ext4 ro console=ttyS0 quiet "
               "net.ifnames=0 mitigations=off no_timer_check tsc=reliable "
               "panic=-1 systemd.show_status=0 "
               "systemd.default_timeout_start_sec=infinity")


@dataclass(frozen=True)
class Plan:
    """What is the same for all machines."""

    qemu: Path
    guest: Guest


class Machine:
    """One QEMU process in the namespace of one host."""

    def __init__(self, name: str, plan: Plan, host: Host, folder: Path,
                 disk: Path, incoming: bool) -> None:
        self.name = name
        self.host = host
        self.disk = disk
        self._folder = folder
        self._multifd = False
        self._stderr = folder / f"{name}.stderr"
        socket_path = folder / f"{name}.qmp"
        # QEMU dies with the demo, even if that is killed.
        command = host.prefix() + ["setpriv", "--pdeathsig", "KILL"]
        command += _command(name, plan, folder, disk, socket_path, incoming)
        (folder / f"{name}.command").write_text(" ".join(command) + "\n")
        with (open(self._stderr, "wb") as stderr,
              socket.socket(socket.AF_UNIX) as listener):
            listener.bind(str(socket_path))
            listener.listen(1)
            # pylint: disable-next=consider-using-with
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stderr,
                stderr=stderr, start_new_session=True)
            try:
                self.qmp = Qmp(self._accept(listener))
            except BaseException:
                self.close()
                raise

    def _accept(self, listener: socket.socket) -> socket.socket:
        deadline = time.monotonic() + PATIENCE
        listener.settimeout(0.2)
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                return listener.accept()[0]
            except TimeoutError:
                pass
        raise Failure(f"QEMU ({self.name}) did not start: {self.stderr()}"
                      f"\nIts command line is in {self._folder}")

    def stderr(self) -> str:
        """Returns what QEMU had to say."""
        return self._stderr.read_text(errors="replace").strip()

    def describe_end(self) -> str:
        """Returns whether QEMU ended, and its last words."""
        status = self.exit_status()
        state = "alive" if status is None else f"ended with status {status}"
        return f"{state}: {self.stderr() or 'no message'}"

    def exit_status(self) -> Optional[int]:
        """Returns QEMU's exit status, None while it runs."""
        return self._process.poll()

    def command(self, name: str, **arguments: Any) -> None:
        """Runs a QMP command, and shows the line as its user types it.

        An underscore in the name of an argument stands for a hyphen.
        """
        arguments = {key.replace("_", "-"): value
                     for key, value in arguments.items()}
        line: dict[str, object] = {"execute": name}
        if arguments:
            line["arguments"] = arguments
        print(f"  {self.name} -> {json.dumps(line)}", flush=True)
        self.qmp.cmd(name, arguments)

    def set_multifd(self, state: bool) -> None:
        """Types what switches multifd on or off, if it is not so already."""
        if state != self._multifd:
            self._multifd = state
            self.command("migrate-set-capabilities", capabilities=[
                {"capability": "multifd", "state": state}])

    def quit(self) -> None:
        """Ends QEMU in good order."""
        try:
            self.command("quit")
        except QmpClosed:
            pass
        self.wait_exit(PATIENCE)

    def wait_exit(self, seconds: float) -> None:
        """Waits until QEMU ended by itself, with success."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"QEMU ({self.name}) did not end within "
                          f"{seconds:.0f} s") from None
        if status:
            raise Failure(f"QEMU ({self.name}) ended with status {status}: "
                          f"{self.stderr()}")

    def close(self) -> None:
        """Ends QEMU at once if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if hasattr(self, "qmp"):
            self.qmp.close()


def _command(name: str, plan: Plan, folder: Path, disk: Path,
             qmp: Path, incoming: bool) -> list[str]:
    node = {"driver": "raw", "node-name": f"node-{DISK_ID}",
            "discard": "unmap",
            "file": {"driver": "file", "filename": str(disk),
                     "discard": "unmap"}}
    device = {"driver": "virtio-blk-pci", "id": DISK_ID,
              "drive": f"node-{DISK_ID}"}
    command = [
        str(plan.qemu), "-name", name, *WHOLE_SYSTEM,
        *guest_options(plan.guest, MEMORY_MIB, processors()),
        "-serial", f"file:{folder / name}.console",
        "-chardev", f"socket,id=qmp,path={qmp}",
        "-mon", "chardev=qmp,mode=control",
        "-blockdev", json.dumps(node), "-device", json.dumps(device)]
    if incoming:
        command += ["-incoming", "defer"]
    return command


def processors() -> int:
    """Returns a guest's: one core is left to migration and client."""
    return 2 if (os.cpu_count() or 1) >= 4 else 1


def guest_options(guest: Guest, memory: int, cpus: int,
                  tap: str = "tap0") -> list[str]:
    """Returns the options of any QEMU for this guest; memory in MiB.

    Its disk and whatever is the host's own are not among them.
    """
    return [
        "-nodefaults", "-no-user-config", "-display", "none",
        "-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "qemu64",
        "-smp", str(cpus), "-m", str(memory),
        "-kernel", str(guest.kernel), "-initrd", str(guest.initrd),
        "-append", KERNEL_LINE, "-no-reboot",
        "-netdev", f"tap,id=net0,ifname={tap},script=no,downscript=no,"
        "vhost=off",
        "-device", f"virtio-net-pci,netdev=net0,mac={GUEST_MAC},romfile="]
