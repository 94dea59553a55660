# SPDX-License-Identifier: GPL-2.0-or-later
"""The stage of one test with libvirt: two hosts and a guest."""

import json
import re
import shutil
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Callable, Optional

from dev.common import ROOT
from dev.libvirt.virt_guest import BOOT, Domain
from dev.libvirt.virt_host import Done, VirtHost
from dev.libvirt.virt_pair import Pair
from dev.rig.basics import GUEST_BUILD, TestFailure, require, wait_until
from dev.rig.guest import Guest
from dev.rig.host import Link
from dev.rig.scene import WSM

TOOLS = "usr/share/qemu-wsm"


class Process:
    """virsh-wsm, or another command, that runs at a host."""

    def __init__(self, host: VirtHost, *words: object) -> None:
        self.host = host
        self.words = words
        self.process = host.popen(*words)

    def wait(self, seconds: float = 600) -> Done:
        """Wait for its end."""
        try:
            out, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise TestFailure(f"{self.words} did not end within "
                              f"{seconds:.0f} s") from None
        return Done(self.process.returncode, out, "")

    def interrupt(self) -> None:
        """Type ^C."""
        self.host.check("pkill", "-INT", "-f", "python3 .*virsh-wsm")


class VirtScene:
    """Two hosts and what a test does with them; close() removes all."""

    pair: Pair
    alpha: VirtHost
    beta: VirtHost
    guest: Guest

    def __init__(self, tree: Path, packaged: bool = False) -> None:
        self.tree = tree
        self.packaged = packaged
        self.stack = ExitStack()
        self.domain = Domain()

    def start(self, link: Optional[Link] = None,
              userfaultfd: bool = True) -> "VirtScene":
        """Start both hosts; @userfaultfd: QEMU at beta may use it."""
        self.pair = Pair(self.tree, link, self.packaged)
        self.stack.callback(self.pair.close)
        self.alpha, self.beta = self.pair.hosts
        self.beta.userfaultfd = userfaultfd
        net = self.pair.shared / "net"
        net.mkdir()
        self.guest = Guest(net / "guest")
        self.stack.callback(self.guest.close)
        (net / "guest").chmod(0o777)
        for host in self.pair.hosts:
            self.put_tools(host)
        self.pair.start()
        return self

    def close(self) -> None:
        """Remove all."""
        self.stack.close()

    def put_boot(self, host: VirtHost, *paths: Path) -> None:
        """Put what a guest boots where libvirt expects it."""
        boot = host.top / BOOT.lstrip("/")
        boot.mkdir(parents=True, exist_ok=True)
        boot.chmod(0o711)
        for path in paths:
            shutil.copy(path, boot)

    def put_tools(self, host: VirtHost) -> None:
        """Install virsh-wsm as the package does, and the guest's kernel."""
        folder = host.top / TOOLS
        (folder / "wsm").mkdir(parents=True)
        shutil.copy(ROOT / "scripts/virsh-wsm", folder)
        for path in (ROOT / "scripts/wsm").glob("*.py"):
            shutil.copy(path, folder / "wsm")
        (host.top / "usr/local/bin").mkdir(parents=True)
        (host.top / "usr/local/bin/virsh-wsm").symlink_to(
            f"/{TOOLS}/virsh-wsm")
        self.put_boot(host, GUEST_BUILD / "vmlinuz",
                      GUEST_BUILD / "initrd.img")

    def note(self, text: str) -> None:
        """Print what was seen, for people."""
        print("# " + text.replace("\n", "\n#     "), flush=True)

    def report(self) -> str:
        """Return how the hosts are."""
        lines = []
        for host in self.pair.hosts if hasattr(self, "pair") else ():
            if not host.process:
                continue                # it was not its turn yet
            lines.append(f"--- {host.name}: "
                         + host.virsh("list", "--all").text())
            log = host.top / f"var/log/libvirt/qemu/{self.domain.name}.log"
            if log.exists():
                text = log.read_text(errors="replace")
                lines += [line for line in text.splitlines()
                          if not re.match(r"-|\w+=|/usr", line)]
        return "\n".join(lines)

    # Steps

    def define(self, host: VirtHost) -> Done:
        """Define the guest at a host."""
        (host.top / "root/domain.xml").write_text(self.domain.xml())
        return host.virsh("define", "/root/domain.xml")

    def begin(self, domain: Domain) -> None:
        """Define the guest at alpha, and start it there."""
        self.domain = domain
        done = self.define(self.alpha)
        require(not done.status, done.text())
        self.alpha.check("virsh", "start", domain.name)

    def boot(self, domain: Domain) -> None:
        """Make disks at alpha, boot the test guest there, fill them half."""
        for disk in domain.disks:
            self.alpha.check("qemu-img", "create", "-q", "-f", disk.fmt,
                             disk.path, disk.size)
        self.begin(domain)
        for host in self.pair.hosts:
            self.guest.attach(host.net_folder / "card")
        self.guest.wait_ready()
        for number, sectors in enumerate(self.guest.sectors()):
            self.guest.fill(number, 0, sectors // 2 * 512)

    def move(self, source: VirtHost, *options: str) -> Process:
        """Start virsh-wsm at @source."""
        return Process(source, "virsh-wsm", *options, self.domain.name,
                       self.other(source).uri)

    def other(self, host: VirtHost) -> VirtHost:
        """Return the other host."""
        return self.beta if host is self.alpha else self.alpha

    def moved(self, source: VirtHost, *options: str) -> str:
        """Run virsh-wsm; it must succeed.  Returns what it said."""
        done = self.move(source, *options).wait()
        require(not done.status, f"virsh-wsm: {done.status}: {done.text()}")
        self.expect_state(self.other(source), "running")
        return done.text()

    def monitor(self, host: VirtHost, command: str, **arguments: Any) -> Any:
        """Return what QEMU's monitor answers."""
        line = json.dumps({"execute": command, "arguments": arguments})
        text = host.check("virsh", "-q", "qemu-monitor-command",
                          self.domain.name, line)
        answer = json.loads(text)
        require("return" in answer, f"{command}: {text}")
        return answer["return"]

    def phase(self, host: VirtHost) -> str:
        """Return the phase that QEMU is in; "" if it does not say."""
        with suppress(TestFailure, ValueError):
            return str(self.monitor(host, "query-wsm")["phase"])
        return ""

    def wait_phase(self, host: VirtHost, *phases: str) -> None:
        """Wait until QEMU is in one of these phases."""
        wait_until(lambda: self.phase(host) in phases,
                   f"{host.name}: phase {'/'.join(phases)}")

    def state(self, host: VirtHost) -> str:
        """Return libvirt's words for how the guest is, or its error."""
        return host.virsh("domstate", self.domain.name, "--reason").text()

    def expect_state(self, host: VirtHost, wanted: str) -> None:
        """The guest is in this state there; "" means not known."""
        state = self.state(host)
        require(state.startswith(wanted or "error: failed to get domain"),
                f"{host.name}: the guest is {state}, not {wanted}")

    def verify(self) -> None:
        """The guest lives, and each of its blocks is what it wrote."""
        self.guest.wait_progress(beats=10)
        self.guest.stop()
        self.guest.verify()

    def capability(self, host: VirtHost) -> bool:
        """Return whether QEMU has it switched on."""
        return any(each["capability"] == WSM and each["state"] for each in
                   self.monitor(host, "query-migrate-capabilities"))

    def slow(self, host: VirtHost, **options: Any) -> None:
        """Set options of the migration."""
        self.monitor(host, "wsm-set-options", **{
            name.replace("_", "-"): value for name, value in options.items()})


Case = Callable[[VirtScene], None]
