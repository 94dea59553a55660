# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests as libvirt knows them: the XML of a domain."""

from dataclasses import dataclass

from dev.libvirt.virt_host import IMAGES
from dev.rig.image import MIB
from dev.rig.vm import KERNEL_LINE

EMULATOR = "/usr/bin/qemu-system-x86_64"
BOOT = "/var/lib/libvirt/boot"
# A name, and no address of anything
NAMESPACE = "://".join(("http", "libvirt.org/schemas/domain/qemu/1.0"))
# The network card of the test guest: see dev.rig.guest
CARD = """
  <qemu:commandline>
    <qemu:arg value='-netdev'/>
    <qemu:arg value='dgram,id=net,local.type=unix,local.path=/mnt/card,\
remote.type=unix,remote.path=/srv/net/guest'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='virtio-net-pci,netdev=net,romfile=,id=net0,addr=0x10'/>
  </qemu:commandline>
"""
UEFI = """
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd\
</loader>
    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'/>
"""
TPM = """
    <tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>
"""
VNC = """
    <graphics type='vnc' autoport='yes'/>
    <video><model type='vga'/></video>
"""
SPICE = """
    <graphics type='spice' autoport='yes'/>
    <video><model type='qxl'/></video>
"""
NO_VIDEO = "<video><model type='none'/></video>"
BRIDGE = """
    <interface type='bridge'>
      <mac address='{mac}'/><source bridge='br0'/>
      <model type='virtio'/><rom enabled='no'/>
    </interface>
"""


@dataclass(frozen=True)
class Disk:
    """A disk of the guest."""

    name: str = "vm1.qcow2"
    target: str = "vda"
    size: int = 64 * MIB

    @property
    def path(self) -> str:
        """Return where the image is, on both hosts."""
        return f"{IMAGES}/{self.name}"

    @property
    def fmt(self) -> str:
        """Return the image's format."""
        return self.name.rsplit(".", 1)[1]

    def xml(self) -> str:
        """Return the element of the domain."""
        return (f"<disk type='file' device='disk'>"
                f"<driver name='qemu' type='{self.fmt}' discard='unmap'/>"
                f"<source file='{self.path}'/>"
                f"<target dev='{self.target}' bus='virtio'/></disk>")


@dataclass(frozen=True)
class Domain:
    """A guest and its devices."""

    name: str = "vm1"
    disks: tuple[Disk, ...] = (Disk(),)
    memory: int = 256                   # MiB
    kernel_line: str = KERNEL_LINE
    uefi: bool = False
    tpm: bool = False
    vnc: bool = False
    spice: bool = False
    mac: str = ""                       # that of a card on a bridge

    def xml(self) -> str:
        """Return it as libvirt wants it."""
        devices = [disk.xml() for disk in self.disks]
        devices += [TPM] * self.tpm
        devices += [VNC if self.vnc else SPICE if self.spice else NO_VIDEO]
        devices += [BRIDGE.format(mac=self.mac)] * bool(self.mac)
        return f"""
<domain type='qemu' xmlns:qemu='{NAMESPACE}'>
  <name>{self.name}</name>
  <memory unit='MiB'>{self.memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{'q35' if self.uefi else 'pc'}'>hvm</type>
    {UEFI * self.uefi}
    <kernel>{BOOT}/vmlinuz</kernel>
    <initrd>{BOOT}/initrd.img</initrd>
    <cmdline>{self.kernel_line}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'><model>qemu64</model></cpu>
  <on_reboot>destroy</on_reboot>
  <devices>
    <emulator>{EMULATOR}</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'><source path='/var/log/libvirt/qemu/{self.name}.console'/></serial>
    {"".join(devices)}
  </devices>
{'' if self.mac else CARD}
</domain>
"""
