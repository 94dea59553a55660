# SPDX-License-Identifier: GPL-2.0-or-later
"""What is tested with libvirt: there, back, and what breaks on the way."""

import shutil
import time

from dev.libvirt.virt_guest import Disk, Domain
from dev.libvirt.virt_host import Done, VirtHost
from dev.libvirt.virt_scene import Case, Process, VirtScene
from dev.rig.basics import Skip, TestFailure, require, wait_until
from dev.rig.image import MIB

LOAD = {"writers": 2, "rate": 200, "readers": 1, "rrate": 50, "full": 6,
        "part": 3, "big": 1, "flush": 50}
QCOW2 = Disk("vm1.qcow2", "vda")
RAW = Disk("vm1.raw", "vdb", 32 * MIB)
BOTH = Domain(disks=(QCOW2, RAW))
SLOW_DISK = {"bandwidth": 4 * MIB}
SLOW_PUSH = {"x_push_delay": 5000}      # ms before each message: "for long"
CUT_SECONDS = 45
PROGRAM = "usr/bin/qemu-system-x86_64"
VARIABLES = "/var/lib/libvirt/qemu/nvram/vm1_VARS.fd"

CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    """Make a function a test, named as it is with dashes."""
    CASES[function.__name__.replace("_", "-")] = function
    return function


def to_postcopy(scene: VirtScene) -> Process:
    """Boot, start the move, and wait until the guest runs at beta."""
    scene.start().boot(BOTH)
    scene.slow(scene.alpha, **SLOW_PUSH)
    scene.guest.start(**LOAD)
    process = scene.move(scene.alpha)
    scene.wait_phase(scene.alpha, "postcopy")
    return process


def ended(scene: VirtScene, process: Process) -> Done:
    """Wait for the end of virsh-wsm; note what it said."""
    done = process.wait()
    scene.note(f"status {done.status}: {done.text()}")
    return done


@case
def there_and_back(scene: VirtScene) -> None:
    """A guest that writes moves to beta and back; every block is right."""
    scene.start().boot(BOTH)
    scene.guest.start(**LOAD)
    scene.note(scene.moved(scene.alpha))
    scene.expect_state(scene.alpha, "")
    require(not scene.capability(scene.beta), "the capability is on at beta")
    scene.verify()
    scene.guest.start(**LOAD)
    scene.guest.wait_progress(writes=50)
    text = scene.moved(scene.beta)
    scene.note(text)
    scene.expect_state(scene.beta, "")
    scene.verify()
    require(text.count("(sync-point)") == 2, "not by sync points")


@case
def called_back(scene: VirtScene) -> None:
    """^C before the handover: the guest stays, the next move arrives."""
    scene.start().boot(BOTH)
    scene.slow(scene.alpha, **SLOW_DISK)
    scene.guest.start(**LOAD)
    process = scene.move(scene.alpha)
    scene.wait_phase(scene.alpha, "disk-precopy")
    process.interrupt()
    done = process.wait()
    scene.note(done.text())
    require(done.status == 130, f"status {done.status}")
    require(not list(scene.beta.images.iterdir()), "images are left at beta")
    require(not scene.capability(scene.alpha), "the capability is on")
    scene.slow(scene.alpha, bandwidth=0)
    scene.moved(scene.alpha)
    scene.verify()


@case
def link_cut(scene: VirtScene) -> None:
    """The link is down for 45 s while blocks are missing."""
    process = to_postcopy(scene)
    scene.pair.link.set_up(False)
    scene.note(f"link cut; alpha: {scene.state(scene.alpha)}, "
               f"beta: {scene.state(scene.beta)}")
    time.sleep(CUT_SECONDS)
    scene.note(f"after {CUT_SECONDS} s: alpha: {scene.state(scene.alpha)}, "
               f"beta: {scene.state(scene.beta)}")
    scene.guest.wait_progress(beats=10)
    scene.pair.link.set_up(True)
    finish(scene, process)


def finish(scene: VirtScene, process: Process) -> None:
    """The move ends, by virsh-wsm --resume if not by itself."""
    status = ended(scene, process).status
    if status == 3:
        with_speed(scene)
        done = scene.move(scene.alpha, "--resume").wait()
        scene.note(f"--resume: status {done.status}: {done.text()}")
        status = done.status
    require(not status, f"status {status}")
    scene.expect_state(scene.beta, "running")
    require(not scene.capability(scene.beta), "the capability is on at beta")
    scene.verify()


def with_speed(scene: VirtScene) -> None:
    """Take the brake off, if QEMU listens."""
    try:
        scene.slow(scene.alpha, x_push_delay=0)
    except TestFailure as error:
        scene.note(str(error))


def qemu_pid(host: VirtHost) -> str:
    """Return the process of the guest."""
    return host.check("pgrep", "-f", "qemu-system-x86_64.*guest=vm1").split()[0]


@case
def source_killed(scene: VirtScene) -> None:
    """alpha's QEMU dies while blocks are missing: what is left is seen."""
    process = to_postcopy(scene)
    scene.alpha.check("kill", "-9", qemu_pid(scene.alpha))
    done = ended(scene, process)
    scene.note(f"alpha: {scene.state(scene.alpha)}, "
               f"beta: {scene.state(scene.beta)}")
    require(done.status == 3, f"status {done.status}")
    require(len(list(scene.beta.images.glob("vm1.*"))) >= 2,
            "virsh-wsm removed the images that the guest runs on")


def restart(scene: VirtScene, host: VirtHost, phase: str) -> None:
    """Restart libvirtd at @host in this phase of a move."""
    host.stop_libvirtd()
    host.start_libvirtd()
    scene.note(f"libvirtd restarted at {host.name} in {phase}: "
               f"alpha: {scene.state(scene.alpha)}, "
               f"beta: {scene.state(scene.beta)}")


@case
def libvirtd_restarted_in_precopy(scene: VirtScene) -> None:
    """libvirtd at alpha is restarted: the guest stays or arrives."""
    scene.start().boot(BOTH)
    # libvirtd takes half a minute to end while there is a job
    scene.slow(scene.alpha, bandwidth=MIB // 2)
    scene.guest.start(**LOAD)
    process = scene.move(scene.alpha)
    scene.wait_phase(scene.alpha, "disk-precopy")
    restart(scene, scene.alpha, "disk-precopy")
    done = ended(scene, process)
    require(done.status == 1, f"status {done.status}")
    scene.expect_state(scene.alpha, "running")
    scene.verify()
    scene.slow(scene.alpha, bandwidth=0)
    scene.moved(scene.alpha)
    scene.verify()


@case
def libvirtd_restarted_at_source(scene: VirtScene) -> None:
    """libvirtd at alpha is restarted while blocks are missing."""
    process = to_postcopy(scene)
    restart(scene, scene.alpha, "postcopy")
    with_speed(scene)
    finish(scene, process)


@case
def libvirtd_restarted_at_destination(scene: VirtScene) -> None:
    """libvirtd at beta is restarted while blocks are missing."""
    process = to_postcopy(scene)
    restart(scene, scene.beta, "postcopy")
    with_speed(scene)
    finish(scene, process)


@case
def stale_copy(scene: VirtScene) -> None:
    """virsh start of the copy left at alpha is refused, with the reason."""
    scene.start().boot(BOTH)
    scene.moved(scene.alpha)
    scene.define(scene.alpha)
    done = scene.alpha.virsh("start", "vm1")
    scene.note(f"virsh start: status {done.status}: {done.text()}")
    require(done.status, "the stale copy runs")
    require("stale" in done.text(), "the reason is not shown")
    scene.alpha.check("virsh", "undefine", "vm1")
    scene.guest.start(**LOAD)
    text = scene.moved(scene.beta)
    require(text.count("(sync-point)") == 2, f"not by sync points: {text}")
    scene.verify()


@case
def managed_save(scene: VirtScene) -> None:
    """After a move the guest can be saved and restored."""
    scene.start().boot(BOTH)
    scene.guest.start(**LOAD)
    scene.moved(scene.alpha)
    for words in (["managedsave", "vm1"], ["start", "vm1"]):
        done = scene.beta.virsh(*words)
        scene.note(f"virsh {' '.join(words)}: {done.text()}")
        require(not done.status, done.text())
    scene.verify()
    scene.guest.start(**LOAD)
    scene.moved(scene.beta)
    scene.verify()


def with_firmware(scene: VirtScene, domain: Domain) -> None:
    """A guest with UEFI moves there and back, its variables with it."""
    scene.start().boot(domain)
    scene.guest.start(**LOAD)
    for host in (scene.alpha, scene.beta):
        other = scene.other(host)
        variables = host.check("sha256sum", VARIABLES)
        scene.note(scene.moved(host))
        require(other.check("sha256sum", VARIABLES) == variables,
                "the variables of UEFI are others")
        require(variables.split()[0] != host.check(
            "sha256sum", "/usr/share/OVMF/OVMF_VARS_4M.fd").split()[0],
                "the firmware has set no variables")
        scene.expect_state(host, "")
        if domain.vnc:
            scene.note(other.check("virsh", "vncdisplay", "vm1").strip())
        if domain.tpm:
            scene.note(f"swtpm's state: {tpm_state(host) or 'none'} at "
                       f"{host.name}, {tpm_state(other)} at {other.name}")
            require(tpm_state(other), "the TPM's state is not there")
    scene.verify()


def tpm_state(host: VirtHost) -> str:
    """Return the names of the files with the state of TPMs."""
    return host.check("find", "/var/lib/libvirt/swtpm", "-name", "*.permall",
                      "-printf", "%f").strip()


@case
def firmware(scene: VirtScene) -> None:
    """A guest with UEFI and its variables, there and back."""
    with_firmware(scene, Domain(disks=(QCOW2,), uefi=True))


@case
def tpm_and_vnc(scene: VirtScene) -> None:
    """The same with a TPM and a screen by VNC, as packages have them."""
    if not scene.packaged:
        raise Skip("the QEMU of the build has neither; use --packages")
    with_firmware(scene, Domain(disks=(QCOW2,), uefi=True, tpm=True,
                                vnc=True))


@case
def spice(scene: VirtScene) -> None:
    """A guest with a screen by SPICE, there and back."""
    if not scene.packaged:
        raise Skip("the QEMU of the build has none; use --packages")
    scene.start().boot(Domain(disks=(QCOW2,), spice=True))
    for host in (scene.alpha, scene.beta):
        scene.guest.start(**LOAD)
        scene.note(scene.moved(host))
        scene.note(scene.other(host).check(
            "virsh", "domdisplay", "vm1").strip())
        scene.expect_state(host, "")
        scene.verify()


@case
def no_userfaultfd(scene: VirtScene) -> None:
    """A destination as Debian makes it: the reason is named."""
    scene.start(userfaultfd=False).boot(BOTH)
    done = ended(scene, scene.move(scene.alpha))
    require(done.status == 1, f"status {done.status}")
    require("userfaultfd=1" in done.text(), "no remedy is named")
    scene.expect_state(scene.alpha, "running")
    scene.verify()


@case
def stock_destination(scene: VirtScene) -> None:
    """A destination without qemu-wsm is refused, and the guest stays."""
    if scene.packaged:
        raise Skip("the root has no other QEMU")
    scene.start().boot(BOTH)
    shutil.copy(scene.beta.tree / PROGRAM, scene.pair.shared / "stock")
    scene.beta.check("mv", "/srv/stock", f"/{PROGRAM}")
    done = ended(scene, scene.move(scene.alpha))
    require(done.status in (1, 2), f"status {done.status}")
    wait_until(lambda: scene.state(scene.alpha).startswith("running"),
               "the guest runs at alpha")
    scene.verify()
