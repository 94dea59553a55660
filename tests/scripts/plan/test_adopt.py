# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of how a description is made: each row of the table."""

import dataclasses
import unittest
from typing import Any

from wsm.plan import adopt, spec
from wsm.plan.draft import Adoption, FileFact, GuestDisk, Running

UUID = "3c6f0000-1111-2222-3333-444455556666"
FACT = FileFact("ab" * 32, 1000)
BASE = Running(
    (), "/home/x", "alpha", "vm1", "pc-i440fx-10.0-machine", UUID,
    bridges={"tap7": "br0"}, networks={"br0": "lan"},
    pools={"default": "/srv/vm"})
RAW = GuestDisk("vd0", "/home/x/a.img", "raw", 1 << 20)
BLOCKDEV = ("-blockdev", "driver=raw,node-name=vd0,file.driver=file,"
            "file.filename=a.img", "-device", "virtio-blk-pci,drive=vd0,id=vd0")


def adopted(*words: str, **facts: Any) -> Adoption:
    """Return what comes of a command line."""
    return adopt.adopt(dataclasses.replace(BASE, argv=("qemu", *words),
                                           **facts))


class RowTest(unittest.TestCase):
    """One row each."""

    def args(self, *words: str, **facts: Any) -> str:
        """Return the words of the description, which there must be."""
        found = adopted(*words, **facts)
        assert found.spec, found.findings
        args = found.spec.args
        if args[:2] == ("-machine", "pc-i440fx-10.0"):
            args = args[2:]
        return " ".join(args)

    def refused(self, *words: str, **facts: Any) -> str:
        """Return why there is no description."""
        found = adopted(*words, **facts)
        self.assertIsNone(found.spec)
        return "; ".join(each.text for each in found.refused)

    def warned(self, *words: str, **facts: Any) -> str:
        """Return the warnings."""
        found = adopted(*words, **facts)
        self.assertIsNotNone(found.spec, found.findings)
        return "; ".join(each.text for each in found.findings
                         if each.level == "warning")

    def test_own(self) -> None:
        """The agent's own options go."""
        self.assertEqual(self.args(
            "-qmp", "unix:/x,server=on", "-monitor", "stdio", "-pidfile", "p",
            "-daemonize", "-incoming", "defer", "-S", "-D", "log", "-uuid",
            UUID, "-m", "64", "-loadvm", "s", "-s"), "-m 64")

    def test_monitor(self) -> None:
        """A monitor's character device goes unless others use it."""
        line = ("-chardev", "socket,id=c,path=/x,server=on", "-mon",
                "chardev=c,mode=control")
        self.assertEqual(self.args(*line), "")
        self.assertEqual(self.args(*line, "-serial", "chardev:c"),
                         "-chardev socket,id=c,path=${run}/c.sock,server=on "
                         "-serial chardev:c")

    def test_sockets(self) -> None:
        """Sockets that QEMU makes are in its own folder, others stay."""
        for words, wanted in (
                ("-netdev dgram,id=n,local.type=unix,local.path=/a,"
                 "remote.type=unix,remote.path=/b",
                 "-netdev dgram,id=n,local.type=unix,local.path=${run}/n.sock,"
                 "remote.type=unix,remote.path=/b"),
                ("-netdev stream,id=n,server=on,addr.type=unix,addr.path=/a",
                 "-netdev stream,id=n,server=on,addr.type=unix,"
                 "addr.path=${run}/n.sock"),
                ("-netdev stream,id=n,addr.type=unix,addr.path=/a",
                 "-netdev stream,id=n,addr.type=unix,addr.path=/a"),
                ("-chardev socket,id=c,path=/x",
                 "-chardev socket,id=c,path=/x")):
            self.assertEqual(self.args(*words.split()), wanted)
        self.assertIn("run folder", self.warned(
            "-chardev", "socket,id=c,path=/x,server=on"))

    def test_name(self) -> None:
        """The name on the command line, if none is given."""
        found = adopted("-name", "web1,debug-threads=on", name="")
        assert found.spec
        self.assertEqual(found.spec.name, "web1")
        self.assertIn("name: ''", self.refused("-m", "1", name=""))
        self.assertIn("name: '<b>$(x)'", self.refused("-name", "<b>$(x)",
                                                      name=""))

    def test_uuid(self) -> None:
        """A guest without one stays so."""
        found = adopted("-m", "1", uuid=adopt.NO_UUID)
        assert found.spec
        self.assertEqual(found.spec.uuid, "")

    def test_machine(self) -> None:
        """An alias becomes the name with its version."""
        for words, wanted in (
                (("-machine", "pc,accel=kvm"),
                 "-machine type=pc-i440fx-10.0,accel=kvm"),
                (("-M", "pc"), "-M pc-i440fx-10.0"),
                (("-machine", "accel=kvm,type=pc"),
                 "-machine type=pc-i440fx-10.0,accel=kvm"),
                (("-machine", "accel=kvm"),
                 "-machine type=pc-i440fx-10.0,accel=kvm"),
                ((), "-machine pc-i440fx-10.0")):
            found = adopted(*words)
            assert found.spec
            self.assertEqual(" ".join(found.spec.args).replace(
                "-machine pc-i440fx-10.0,", "-machine type=pc-i440fx-10.0,"),
                wanted)

    def test_cpu(self) -> None:
        """The host's CPU is refused, unless all hosts have it."""
        for model in ("host", "max", "host,migratable=on"):
            self.assertIn("a model by name", self.refused("-cpu", model))
            self.assertIn("whose CPUs are equal", self.warned(
                "-cpu", model, allow_host_cpu=True))
        self.assertEqual(self.args("-cpu", "EPYC-v2,+x"), "-cpu EPYC-v2,+x")

    def test_blockdev(self) -> None:
        """A placeholder; relative names, JSON, and two nodes as well."""
        found = adopted(*BLOCKDEV, disks=(RAW,), peripheral=("vd0",))
        assert found.spec
        self.assertIn("driver=${disk.vd0.format},node-name=vd0,"
                      "file.driver=${disk.vd0.protocol},"
                      "file.filename=${disk.vd0.path}", found.spec.args)
        self.assertEqual(found.spec.disk["vd0"], spec.Disk(
            "raw", 1 << 20, path_at={"alpha": "/home/x/a.img"}))
        text = self.args(
            "-blockdev", '{"driver": "raw", "node-name": "n", "file": '
            '{"driver": "file", "filename": "/home/x/a.img"}}',
            disks=(RAW,))
        self.assertIn('"filename": "${disk.vd0.path}"', text)
        self.assertIn('"driver": "${disk.vd0.format}"', text)
        text = self.args(
            "-blockdev", "driver=file,node-name=f,filename=a.img",
            "-blockdev", "driver=raw,node-name=n,file=f", disks=(RAW,))
        self.assertIn("driver=${disk.vd0.protocol},node-name=f,"
                      "filename=${disk.vd0.path}", text)
        self.assertIn("driver=${disk.vd0.format},node-name=n,file=f", text)

    def test_pool(self) -> None:
        """An image at its usual place needs no path."""
        disk = dataclasses.replace(RAW, path="/srv/vm/vm1/vd0.raw")
        found = adopted("-drive", "file=/srv/vm/vm1/vd0.raw,format=raw,if=none",
                        disks=(disk,))
        assert found.spec
        self.assertEqual(found.spec.disk["vd0"].path_at, {})

    def test_drive(self) -> None:
        """A format that was guessed is written down."""
        self.assertEqual(
            self.args("-drive", "file=a.img,if=virtio", anonymous=1,
                      disks=(dataclasses.replace(RAW, name="virtio0"),)),
            "-drive file=${disk.virtio0.path},if=virtio,"
            "format=${disk.virtio0.format}")
        self.assertEqual(self.args("-drive", "if=none,id=x"),
                         "-drive if=none,id=x")

    def test_images_alone(self) -> None:
        """-hda and the like become what QEMU makes of them."""
        for words, index in ((("-hda", "a.img"), 0), (("a.img",), 0),
                             (("-hdc", "a.img"), 2)):
            self.assertEqual(
                self.args(*words, disks=(RAW,)),
                f"-drive index={index},media=disk,file=${{disk.vd0.path}},"
                "format=${disk.vd0.format}")

    def test_pflash(self) -> None:
        """Variables of UEFI are a disk, its code is a file."""
        code = GuestDisk("pflash0", "/u/code", "raw", 5, read_only=True)
        text = self.args(
            "-drive", "if=pflash,format=raw,readonly=on,file=/u/code",
            "-pflash", "a.img",
            disks=(code, dataclasses.replace(RAW, name="pflash1")),
            files={"/u/code": FACT})
        self.assertEqual(
            text, "-drive if=pflash,format=raw,readonly=on,"
            "file=${file.pflash0} -drive if=pflash,"
            "file=${disk.pflash1.path},format=${disk.pflash1.format}")

    def test_files(self) -> None:
        """Kernel, CD: with their hashes."""
        cdrom = GuestDisk("ide1-cd0", "/iso", "raw", 5, read_only=True)
        found = adopted("-kernel", "k", "-cdrom", "/iso", "-append", "a=$x",
                        disks=(cdrom,),
                        files={"/home/x/k": FACT, "/iso": dataclasses.replace(
                            FACT, size=1 << 30)})
        assert found.spec
        self.assertEqual(found.spec.args[2:4], ("-kernel", "${file.kernel}"))
        self.assertEqual(found.spec.args[6:], ("-append", "a=$$x"))
        self.assertEqual(found.spec.file["kernel"].path_at,
                         {"alpha": "/home/x/k"})
        self.assertIn("too many", found.findings[0].text)
        self.assertIn("/home/x/k is not there", self.refused("-kernel", "k"))
        self.assertEqual(self.args("-bios", "bios.bin"), "-bios bios.bin")

    def test_backing(self) -> None:
        """A chain arrives as one image; a node for it is refused."""
        found = adopted(*BLOCKDEV, peripheral=("vd0",),
                        disks=(dataclasses.replace(RAW, backing=True),))
        self.assertIn("as one image", found.findings[0].text)
        self.assertIn("backing node", self.refused(
            "-blockdev", "driver=raw,node-name=n,file.filename=a.img,"
            "backing=b", disks=(RAW,)))

    def test_strange_images(self) -> None:
        """What is no file of this host, or nobody's."""
        self.assertIn("no file of this host",
                      self.refused("-drive", "file=nbd://x/y"))
        self.assertIn("the guest has no disk with it",
                      self.refused("-drive", "file=/b.img"))
        self.assertIn("which the command line does not name",
                      self.refused("-m", "1", disks=(RAW,)))

    def test_tap(self) -> None:
        """A placeholder, and the network of its bridge."""
        found = adopted("-netdev", "tap,id=n1,ifname=tap7,script=/x,vhost=on")
        assert found.spec
        self.assertIn("tap,id=n1,ifname=${net.n1.ifname},vhost=on,script=no,"
                      "downscript=no", found.spec.args)
        self.assertEqual(found.spec.net["n1"].network, "lan")
        self.assertEqual(
            self.args("-nic", "bridge,br=br0,model=e1000"),
            "-nic tap,model=e1000,ifname=${net.net0.ifname},script=no,"
            "downscript=no")
        self.assertIn("bridge br9", self.refused("-netdev",
                                                 "bridge,id=n,br=br9"))
        self.assertIn("no bridge", self.refused(
            "-netdev", "tap,id=n,ifname=other"))

    def test_descriptors(self) -> None:
        """What a manager hands over."""
        for words in (("-netdev", "tap,id=n,fd=5"), ("-add-fd", "set=1,fd=3"),
                      ("-netdev", "tap,id=n,vhostfd=5"),
                      ("-incoming", "fd:3"), ("-netdev", "socket,id=n,fd=7"),
                      ("-chardev", "socket,id=c,fd=4")):
            self.assertIn("hands over descriptors", self.refused(*words))

    def test_other_net(self) -> None:
        """User networks move, their connections do not."""
        self.assertIn("connections break", self.warned("-netdev",
                                                       "user,id=n"))
        self.assertEqual(self.warned("-net", "none"), "")
        self.assertIn("another program", self.refused(
            "-netdev", "vhost-user,id=n,chardev=c"))

    def test_devices(self) -> None:
        """Devices of the host are refused by name."""
        for driver in ("vfio-pci,host=1:0", "usb-host", "ivshmem-plain",
                       "virtio-9p-pci", "vhost-user-blk-pci", "scsi-block",
                       "vhost-vsock-pci"):
            self.assertIn(driver.split(",", maxsplit=1)[0], self.refused(
                "-device", f"{driver},id=d1"), driver)
        self.assertIn("shares a folder", self.refused("-virtfs", "local"))
        self.assertIn("TPM", self.refused("-tpmdev", "emulator,id=t"))

    def test_hot_plug(self) -> None:
        """More or fewer devices than on the command line."""
        self.assertEqual(self.args("-device", "e1000,id=a", "-device", "x",
                                   peripheral=("a",), anonymous=1),
                         "-device e1000,id=a -device x")
        self.assertIn("b is not on", self.refused("-m", "1",
                                                  peripheral=("b",)))
        self.assertIn("a is on the command line and no more",
                      self.refused("-device", "e1000,id=a"))
        self.assertIn("1 devices without id", self.refused("-m", "1",
                                                           anonymous=1))

    def test_ports(self) -> None:
        """Servers on fixed ports get one of the host's."""
        for words, wanted in (
                (("-vnc", ":1"), "-vnc :${port.vnc.display}"),
                (("-vnc", "127.0.0.1:3,websocket=5701,to=9"),
                 "-vnc 127.0.0.1:${port.vnc.display},"
                 "websocket=${port.websocket}"),
                (("-vnc", "none"), "-vnc none"),
                (("-vnc", "unix:/x"), "-vnc unix:/x"),
                (("-spice", "port=5930,tls-port=5931"),
                 "-spice port=${port.spice},tls-port=${port.spice-tls}"),
                (("-chardev", "socket,id=c,host=,port=4,server=on"),
                 "-chardev socket,id=c,host=,port=${port.c},server=on"),
                (("-chardev", "socket,id=c,host=h,port=4"),
                 "-chardev socket,id=c,host=h,port=4"),
                (("-serial", "tcp::4444,server=on"),
                 "-serial tcp::${port.serial0},server=on"),
                (("-gdb", "tcp::1234"), "")):
            self.assertEqual(self.args(*words), wanted)
        self.assertIn("no such address", self.warned("-vnc", "10.1.2.3:1"))

    def test_terminal(self) -> None:
        """There is no terminal elsewhere."""
        for words in (("-serial", "mon:stdio"), ("-nographic",)):
            self.assertIn("no terminal", self.warned(*words))

    def test_refused(self) -> None:
        """Temporary disks, and options that are hidden in a file."""
        self.assertIn("temporary", self.refused("-snapshot"))
        self.assertIn("temporary", self.refused(
            "-drive", "file=a.img,snapshot=on", disks=(RAW,)))
        self.assertIn("not on the command line", self.refused(
            "-readconfig", "f"))
        self.assertIn("lacks its argument", self.refused("-m"))

    def test_kept(self) -> None:
        """All else stays word by word."""
        line = ("-smp", "4,sockets=2", "-device", "rng,rng=r,id=r",
                "-object", "rng-random,id=r,filename=/dev/urandom",
                "-rtc", "base=utc", "-global", "a.b=c", "-boot", "menu=on")
        self.assertEqual(self.args(*line, peripheral=("r",)), " ".join(line))
        self.assertIn("each host must have", self.warned("-L", "fw"))
        self.assertIn("-L /home/x/fw", self.args("-L", "fw"))

    def test_files_wanted(self) -> None:
        """What the agent has to hash."""
        self.assertEqual(adopt.files_wanted(
            ("qemu", "-kernel", "k", "-m", "1"), "/c",
            (GuestDisk("c", "/iso", "raw", 1, read_only=True), RAW)),
            ["/c/k", "/iso"])


class TableTest(unittest.TestCase):
    """The table itself."""

    def test_reachable(self) -> None:
        """No row is hidden by one above that takes everything."""
        open_rows: dict[str, adopt.Rule] = {}
        for rule in adopt.RULES:
            for option in rule.options:
                self.assertNotIn(option, open_rows, rule)
                if rule.fits is adopt.always:
                    open_rows[option] = rule

    def test_known(self) -> None:
        """What the agent adds is what adoption takes away."""
        for option in spec.RESERVED - {"snapshot"}:
            words = [f"-{option}"] + ([] if option in ("S", "daemonize")
                                      else ["x"])
            found = adopted(*words)
            assert found.spec, option
            self.assertNotIn(f"-{option}", found.spec.args)
