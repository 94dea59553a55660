# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest, one link: moved by virsh of Debian's libvirt, and by wsmctl.

First in libvirt, with Debian's own QEMU, by 'virsh migrate
--copy-storage-all'; then the same guest from the same disk, started by hand
with the tested QEMU and adopted, by wsmctl, and its database is checked.
"""

import shlex
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from dev.common import BUILD, output
from dev.demo.guest_disk import Guest, make_guest
from dev.demo.network import (GUEST_ADDRESS, PREFIX_LENGTH, Network,
                              make_network)
from dev.demo.process import MEMORY_MIB, guest_options
from dev.libvirt.virt_scene import VirtScene
from dev.rig.basics import QEMU, require, run, tool
from dev.rig.cluster import Cluster
from dev.rig.host import Link
from dev.rig.scene import Scene
from tests.libvirt.database import (DISK, MOVE_SECONDS, RATE, Story, note,
                                    stock, table)

OWN = "vm1"
MBIT = 160


@dataclass(frozen=True)
class Stage:
    """What Cluster wants of a scene."""

    folder: Path
    link: Link
    binary: Path = QEMU

    def make_link(self) -> Link:
        """The link that is there."""
        return self.link


def said(story: Story, what: str) -> None:
    """Note what a command printed, as far as it fits."""
    lines = [line for line in story.said.replace("\r", "\n").splitlines()
             if line.strip()]
    shown = lines if len(lines) < 12 else [
        *lines[:5], f"... {len(lines) - 10} lines ...", *lines[-5:]]
    note(f"{what} said:\n" + "\n".join(shown or ["nothing"]))


def by_virsh(story: Story, guest: Guest) -> None:
    """There and back with libvirt and Debian's QEMU; then it is ended."""
    alpha, beta = story.scene.alpha, story.scene.beta
    note("libvirt " + alpha.check("virsh", "--version").strip() + ", "
         + alpha.check("qemu-system-x86_64", "--version").splitlines()[0])
    story.boot(guest)
    *first, last = stock(beta)
    story.move("virsh --copy-storage-all, there", alpha, *first,
               [*last, "--verbose"])
    said(story, "virsh")
    if story.rows[-1].ended == "moved":
        story.move("virsh --copy-storage-all, back", beta,
                   [*stock(alpha)[-1], "--verbose"])
        require(story.rows[-1].ended == "moved", story.rows[-1].ended)
    story.load.job.close()
    alpha.check("virsh", "destroy", "vm1")


def by_wsmctl(story: Story, guest: Guest, cluster: Cluster) -> None:
    """There and back with wsmctl."""
    folder = cluster.scene.folder
    disk = folder / DISK.name
    run(tool("qemu-img"), "convert", "-O", "qcow2", str(guest.disk),
        str(disk))
    command = [
        str(QEMU), "-name", OWN, *guest_options(guest, MEMORY_MIB, 1),
        "-drive", f"file={disk},format=qcow2,if=virtio,discard=unmap",
        "-qmp", f"unix:{folder}/by-hand.qmp,server=on,wait=off",
        "-pidfile", f"{folder}/by-hand.pid", "-daemonize"]
    note(shlex.join(command))
    output([*cluster.hosts["alpha"].prefix(), *command])
    story.follow()
    cluster.ctl("vm", "adopt", "alpha", OWN)

    def migrate() -> str:
        process = cluster.popen("migrate", OWN)
        out, err = process.communicate(timeout=MOVE_SECONDS)
        story.said = err + out
        return "moved" if not process.returncode else out[-200:] + err[-200:]

    for name, source in (("there", "alpha"), ("back", "beta")):
        plan = cluster.json("migrate", OWN, "--dry-run")["estimate"]
        note(f"the dry run expects {plan['bytes'] >> 20} MiB in "
             f"{plan['seconds']:.0f} s")
        story.measure(f"wsmctl, {name}", cluster.hosts[source], 1, migrate)
        said(story, "wsmctl")
        require(story.rows[-1].ended == "moved", story.rows[-1].ended)
    story.check()


def beside(scene: VirtScene) -> None:
    """The same guest and link: virsh with Debian's QEMU, and wsmctl."""
    folder = BUILD / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    guest = make_guest(folder, f"{GUEST_ADDRESS}/{PREFIX_LENGTH}", False)
    scene.packaged = True           # Debian's QEMU stays in the root
    with ExitStack() as stack:
        network: Network = stack.enter_context(make_network(RATE))
        story = Story(scene.start(network.link), network)
        stack.callback(story.heartbeat.close)
        by_virsh(story, guest)
        where = scene.pair.folder / "wsmctl"
        where.mkdir()
        cluster = Cluster(cast(Scene, Stage(where, network.link)), MBIT,
                          ["--network", "lan=br0"])
        by_wsmctl(story, guest, stack.enter_context(cluster))
        print(table(story.rows), flush=True)
